//! Contracts of all customers: where they stand, and how much of a commitment is used.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::contract::{ContractState, ContractView};
use sublet_cloud::data::PageRequest;
use sublet_core::Result;

use super::Console;
use super::figure::Amount;
use super::shell::{self, Shell};
use super::visit::Visit;

/// Most contracts on the page: the newest.
const ROWS_MAX: i64 = 100;

struct Row {
    name: String,
    organization: String,
    state: &'static str,
    last: String,
    /// The months of the newest period that began.
    period: String,
    committed: Option<Amount>,
    counted: Option<Amount>,
    /// Of what was billed in advance.
    left: Option<Amount>,
}

#[derive(Template)]
#[template(path = "contracts.html")]
struct ContractsPage {
    shell: Shell,
    contracts: Vec<Row>,
    has_more: bool,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let page = PageRequest { limit: Some(ROWS_MAX), ..PageRequest::default() };
    let found = console.app.cloud.list_contracts(&visit.actor, None, &page).await?;
    shell::html(&ContractsPage {
        shell: Shell::of(&console, &visit.actor, "Contracts", "/console/contracts").await?,
        contracts: found.items.iter().map(row).collect(),
        has_more: found.has_more,
    })
}

fn row(view: &ContractView) -> Row {
    let newest = view.periods.last();
    let amount = |nanos| Amount::new(nanos, view.currency);
    Row {
        name: view.contract.name.clone(),
        organization: view.contract.organization.to_string(),
        state: match view.state {
            ContractState::Offered => "offered",
            ContractState::Expired => "expired",
            ContractState::Withdrawn => "withdrawn",
            ContractState::Agreed => "agreed",
            ContractState::Active => "active",
            ContractState::Ended => "ended",
        },
        last: view.last_month.map_or_else(|| "until notice".to_owned(), |month| month.to_string()),
        period: newest.map_or_else(|| "–".to_owned(), |period| format!("{} to {}", period.first, period.last)),
        committed: newest.map(|period| amount(period.committed)),
        counted: newest.map(|period| amount(period.counted)),
        left: newest.and_then(|period| period.drawdown).map(|drawdown| amount(drawdown.left)),
    }
}
