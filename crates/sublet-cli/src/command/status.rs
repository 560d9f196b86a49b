//! `sublet status`.

use sublet_api::account::Account;
use sublet_api::health::{Health, HealthStatus};
use sublet_core::error::{ErrorCode, Result};

use crate::render::{self, Cell, Table};
use crate::{Context, ExitStatus};

pub(super) fn run(context: &mut Context<'_>) -> Result<ExitStatus> {
    let client = context.client()?;
    let health = client.readiness()?;
    let url = client.base().to_owned();
    context.show(&health, |health| Table::of_fields(fields(&url, health)))?;
    if !context.json {
        match client.account() {
            Ok(account) => context.print(&Table::of_fields(account_fields(&account)).render(context.style))?,
            Err(error) => context.note(&format!("no project key was accepted: {error}"))?,
        }
    }
    Ok(match health.status {
        HealthStatus::Ok => ExitStatus::OK,
        HealthStatus::Unready => ExitStatus(ErrorCode::Unreachable.exit_status()),
    })
}

fn fields(url: &str, health: &Health) -> Vec<(&'static str, Cell)> {
    let word = match health.status {
        HealthStatus::Ok => "ok",
        HealthStatus::Unready => "unready",
    };
    let mut fields = vec![("cloud", Cell::text(url)), ("status", Cell::state(word)), ("version", Cell::text(&health.version))];
    for check in &health.checks {
        let mark = if check.ok { "ok" } else { "failed" };
        fields.push(("check", Cell::text(format!("{mark}: {} ({})", check.name, check.detail))));
    }
    fields
}

fn account_fields(account: &Account) -> Vec<(&'static str, Cell)> {
    vec![
        ("organization", Cell::text(format!("{} ({}, {})", account.organization_name, account.organization, account.class))),
        ("project", Cell::text(format!("{} ({})", account.project_name, account.project))),
        ("key", Cell::text(account.key.as_str())),
        ("credit left", Cell::text(render::money(&account.credit_available))),
        ("can spend", Cell::text(render::money(&account.spendable))),
    ]
}
