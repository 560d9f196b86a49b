//! What runs or was metered and brings nothing.

use std::collections::BTreeMap;

use sublet_api::leakage as wire;
use sublet_api::object::LeakageTag;
use sublet_cloud::leakage::{Leak, LeakageReport};
use sublet_core::{Currency, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

pub async fn report(app: App, context: Context) -> Result<Answer> {
    app.cloud.follow().await?;
    let served: Vec<String> = app.engine.models().into_iter().map(|model| model.name).collect();
    json(&to_wire(&app.cloud.leakage(&context.actor, &served).await?)?)
}

fn to_wire(report: &LeakageReport) -> Result<wire::Leakage> {
    let mut sums: BTreeMap<Currency, Nanos> = BTreeMap::new();
    for (amount, currency) in report.leaks.iter().filter_map(|leak| leak.at_stake) {
        let sum = sums.entry(currency).or_default();
        // A sum beyond all amounts is the largest one.
        *sum = sum.checked_add(amount).unwrap_or(Nanos::MAX);
    }
    Ok(wire::Leakage {
        object: LeakageTag,
        as_of: report.as_of.into(),
        findings: report.leaks.iter().map(leak_to_wire).collect(),
        more: report.more.iter().map(|kind| kind.as_str().to_owned()).collect(),
        at_stake: sums.into_iter().map(|(currency, amount)| money(amount, currency)).collect(),
    })
}

fn leak_to_wire(leak: &Leak) -> wire::Leak {
    wire::Leak {
        kind: leak.kind.as_str().to_owned(),
        id: leak.id.clone(),
        organization: leak.organization.clone(),
        since: leak.since.map(Into::into),
        at_stake: leak.at_stake.map(|(amount, currency)| money(amount, currency)),
        detail: leak.detail.clone(),
        remedy: leak.kind.remedy().to_owned(),
    }
}
