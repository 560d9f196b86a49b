//! `why`: the rule and the numbers behind an object.

use sublet_api::object::WhyTag;
use sublet_api::why::{Fact, Why};
use sublet_cloud::why;
use sublet_core::Result;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;

pub async fn explain(app: App, context: Context) -> Result<Answer> {
    let explanation = app.cloud.why(&context.actor, context.path_text("id")?).await?;
    json(&Why {
        object: WhyTag,
        id: explanation.id,
        summary: explanation.summary,
        rule: explanation.rule,
        facts: explanation.facts.into_iter().map(fact).collect(),
        related: explanation.related,
    })
}

fn fact(fact: why::Fact) -> Fact {
    Fact::new(fact.label, fact.value).made_of(fact.parts.into_iter().map(self::fact).collect())
}
