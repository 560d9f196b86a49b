//! `sublet responses`.

use clap::Subcommand;
use serde_json::Value;
use sublet_api::list::{List, ListQuery};
use sublet_core::error::Result;
use sublet_core::id::ResponseId;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{Cell, NOTHING, Table};

/// Responses that were asked to be kept.
#[derive(Subcommand, Debug)]
pub enum ResponseCommand {
    /// Show one response
    Show { id: ResponseId },
    /// List what a response was asked
    Input {
        id: ResponseId,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Forget a response at once
    Delete { id: ResponseId },
}

impl ResponseCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Show { id } => {
                let response = client.response(&id)?;
                context.show(&response, |response| Table::of_fields(fields(response)))
            }
            Self::Input { id, page } => {
                let order = page.order();
                let query = ListQuery { limit: page.limit, after: page.after, before: None, order };
                let list: List<Value> = client.response_input(&id, &query)?;
                show_page(context, &list, table)
            }
            Self::Delete { id } => {
                let deleted = client.delete_response(&id)?;
                context.show(&deleted, |deleted| Table::of_fields(vec![("deleted", Cell::text(&deleted.id))]))
            }
        }
    }
}

/// A text of an object; nothing if it has none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or(NOTHING)
}

/// What an item says, on one line: its texts, its call, or what a call gave.
fn said(item: &Value) -> String {
    let parts = item["content"].as_array().into_iter().flatten();
    let spoken: String = parts.filter_map(|part| part["text"].as_str()).collect();
    let said = match item["type"].as_str() {
        Some("function_call") => format!("{}({})", text(item, "/name"), text(item, "/arguments")),
        Some("function_call_output") => text(item, "/output").to_owned(),
        _ => spoken,
    };
    said.replace(['\n', '\r', '\t'], " ")
}

fn fields(response: &Value) -> Vec<(&'static str, Cell)> {
    let count = |pointer: &str| Cell::optional(response.pointer(pointer).and_then(Value::as_i64));
    let mut fields = vec![
        ("response", Cell::text(text(response, "/id"))),
        ("status", Cell::state(text(response, "/status"))),
        ("model", Cell::text(text(response, "/model"))),
        ("goes on from", Cell::text(text(response, "/previous_response_id"))),
        ("input tokens", count("/usage/input_tokens")),
        ("output tokens", count("/usage/output_tokens")),
    ];
    let output = response["output"].as_array().into_iter().flatten();
    fields.extend(output.map(|item| ("says", Cell::text(said(item)))));
    fields
}

fn table(items: &[Value]) -> Table {
    let rows = items.iter().map(|item| {
        let role = if item["role"].is_string() { text(item, "/role") } else { text(item, "/type") };
        [Cell::text(text(item, "/id")), Cell::text(role), Cell::text(said(item))]
    });
    Table::new(["item", "role", "says"], "no items").rows(rows)
}
