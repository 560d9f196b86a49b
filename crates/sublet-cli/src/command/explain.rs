//! `sublet explain`: the error table, without a cloud.

use clap::Args;
use serde::Serialize;
use sublet_core::error::{ErrorCode, Result};

use crate::Context;
use crate::render::{self, Cell, Table};

/// What to explain.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// An error code; without one, all are listed
    pub code: Option<String>,
}

/// One row of the error table.
#[derive(Serialize)]
struct Entry {
    code: &'static str,
    status: u16,
    #[serde(rename = "type")]
    kind: &'static str,
    exit_status: u8,
    advice: &'static str,
}

impl From<ErrorCode> for Entry {
    fn from(code: ErrorCode) -> Self {
        Self {
            code: code.as_str(),
            status: code.status(),
            kind: code.kind(),
            exit_status: code.exit_status(),
            advice: code.advice(),
        }
    }
}

impl ExplainArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let Some(text) = self.code else {
            let entries: Vec<Entry> = ErrorCode::ALL.iter().copied().map(Entry::from).collect();
            return context.show(&entries, |entries| table(entries));
        };
        let code: ErrorCode =
            text.parse().map_err(|error: sublet_core::Error| error.alternative("'sublet explain' lists all codes"))?;
        context.show_text(&Entry::from(code), |entry, style| {
            let fields = Table::of_fields(vec![
                ("code", Cell::text(entry.code)),
                ("http status", Cell::text(entry.status.to_string())),
                ("type", Cell::text(entry.kind)),
                ("exit status", Cell::text(entry.exit_status.to_string())),
            ]);
            format!("{}\n{}\n", fields.render(style), render::plain(entry.advice))
        })
    }
}

fn table(entries: &[Entry]) -> Table {
    let rows = entries.iter().map(|entry| {
        [Cell::text(entry.code), Cell::number(entry.status), Cell::number(entry.exit_status), Cell::text(entry.advice)]
    });
    Table::new(["code", "http", "exit", "what to do"], "").rows(rows)
}
