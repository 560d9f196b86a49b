//! Why something is as it is: the rule, and the numbers as a tree.

use std::fmt::Write;

use askama::Template;
use axum::body::Body;
use http::Response;
use serde::Deserialize;
use sublet_cloud::why::Fact;
use sublet_core::Result;

use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

/// Facts within facts that are shown.
const DEPTH_MAX: usize = 12;

#[derive(Template)]
#[template(path = "why.html")]
struct WhyPage {
    shell: Shell,
    id: String,
    summary: String,
    rule: String,
    facts: Tree,
    related: Vec<String>,
}

/// Facts as nested lists. Labels and values go through the templates' own escaping.
struct Tree(String);

impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl askama::filters::HtmlSafe for Tree {}

fn write_facts(html: &mut String, facts: &[Fact], depth: usize) {
    if facts.is_empty() || depth >= DEPTH_MAX {
        return;
    }
    html.push_str("<ul class=\"facts\">");
    for fact in facts {
        let (label, value) = (super::chart::escaped(&fact.label), super::chart::escaped(&fact.value));
        // Writing to a string cannot fail.
        let _ = write!(html, "<li><span class=\"label\">{label}</span> <span class=\"value\">{value}</span>");
        write_facts(html, &fact.parts, depth + 1);
        html.push_str("</li>");
    }
    html.push_str("</ul>");
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let explanation = console.app.cloud.why(&visit.actor, visit.guest.path_text("id")?).await?;
    let shell = Shell::of(&console, &visit.actor, format!("Why {}", explanation.id), "").await?;
    let mut facts = String::new();
    write_facts(&mut facts, &explanation.facts, 0);
    shell::html(&WhyPage {
        shell,
        id: explanation.id,
        summary: explanation.summary,
        rule: explanation.rule,
        facts: Tree(facts),
        related: explanation.related,
    })
}

#[derive(Default, Deserialize)]
struct Question {
    #[serde(default)]
    id: String,
}

/// The search field's target: on to the page of an id.
pub async fn ask(_: Console, visit: Visit) -> Result<Response<Body>> {
    let question: Question = visit.guest.query()?;
    let id: String = question.id.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(100).collect();
    Ok(shell::redirect(&if id.is_empty() { "/console".to_owned() } else { format!("/console/why/{id}") }))
}
