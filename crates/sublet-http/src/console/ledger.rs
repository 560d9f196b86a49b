//! The books: what is on every account, what waits in quarantine, and adding everything up again.

use askama::Template;
use axum::body::Body;
use http::Response;
use serde::Deserialize;
use sublet_cloud::data::{PageRequest, StoredAccount};
use sublet_cloud::ledger::Verification;
use sublet_core::{Currency, Nanos, Result};

use super::figure::{Amount, Count, When};
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

const QUARANTINE_ROWS_MAX: i64 = 50;

struct AccountRow {
    path: String,
    debits: Amount,
    credits: Amount,
}

fn account(account: &StoredAccount) -> AccountRow {
    let amount = |nanos| Amount::new(nanos, account.currency);
    AccountRow { path: account.account.to_string(), debits: amount(account.totals.debits), credits: amount(account.totals.credits) }
}

/// What waits for the operator.
struct QuarantineRow {
    request: String,
    at: When,
    model: String,
    reason: String,
}

/// The outcome of a verification.
struct Verdict {
    balanced: bool,
    as_of: When,
    accounts: Count,
    entries: Count,
    transfers: Count,
    charges: Count,
    totals: Vec<(Amount, Amount)>,
    findings: Vec<String>,
}

fn verdict(verification: Verification) -> Verdict {
    let count = |number: u64| Count(i64::try_from(number).unwrap_or(i64::MAX));
    let side = |nanos: Nanos, currency: Currency| Amount::new(nanos, currency);
    let totals = verification.totals.iter();
    Verdict {
        balanced: verification.balanced(),
        as_of: When(verification.as_of),
        accounts: count(verification.accounts),
        entries: count(verification.entries),
        transfers: count(verification.transfers),
        charges: count(verification.charges),
        totals: totals.map(|&(currency, debits, credits)| (side(debits, currency), side(credits, currency))).collect(),
        findings: verification.findings,
    }
}

#[derive(Template)]
#[template(path = "ledger.html")]
struct LedgerPage {
    shell: Shell,
    verdict: Option<Verdict>,
    accounts: Vec<AccountRow>,
    quarantine: Vec<QuarantineRow>,
    next: Option<String>,
}

#[derive(Default, Deserialize)]
struct After {
    #[serde(default)]
    after: String,
}

async fn page(console: &Console, visit: &Visit, verdict: Option<Verdict>) -> Result<Response<Body>> {
    let (cloud, actor) = (&console.app.cloud, &visit.actor);
    let after = visit.guest.query::<After>()?.after;
    let accounts: Vec<AccountRow> = cloud.list_ledger_accounts(actor, &after).await?.iter().map(account).collect();
    let page = PageRequest { limit: Some(QUARANTINE_ROWS_MAX), ..PageRequest::default() };
    let quarantined = cloud.list_quarantine(actor, &page).await?.items;
    let waiting = |event: sublet_cloud::data::UsageEvent| QuarantineRow {
        request: event.record.request.to_string(),
        at: When(event.record.finished_at),
        model: event.record.model,
        reason: event.quarantine.unwrap_or_default(),
    };
    let next = accounts.last().filter(|_| accounts.len() >= ACCOUNTS_ON_PAGE).map(|last| last.path.clone());
    let shell = Shell::of(console, actor, "Ledger", "/console/ledger").await?;
    shell::html(&LedgerPage { shell, verdict, accounts, quarantine: quarantined.into_iter().map(waiting).collect(), next })
}

/// As many as the store lists at once.
const ACCOUNTS_ON_PAGE: usize = 1_000;

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    page(&console, &visit, None).await
}

pub async fn verify(console: Console, visit: Visit) -> Result<Response<Body>> {
    let verification = console.app.cloud.verify_ledger(&visit.actor).await?;
    page(&console, &visit, Some(verdict(verification))).await
}
