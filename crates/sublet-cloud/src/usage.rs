//! What was used: sums of charges, and single requests.

use sublet_core::id::RequestId;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::{BillingCalendar, Interval};
use sublet_store::charge::{self, Charge, ChargeQuery, ChargeSummary};
use sublet_store::usage::{self, UsageEvent, UsageQuery, UsageSummary};
use sublet_store::{Page, PageRequest, organization};

use crate::{Action, Actor, Cloud, credit};

/// Charges one request can have: a line for each kind of token.
const CHARGES_OF_REQUEST_MAX: i64 = 100;

/// Sums over an interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageReport {
    pub interval: Interval,
    pub lines: Vec<ChargeSummary>,
    pub models: Vec<UsageSummary>,
    pub total: Nanos,
    /// Set aside for what runs now, over the whole organization.
    pub held: Nanos,
}

/// One request with its charges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestUsage {
    pub events: Vec<UsageEvent>,
    pub charges: Vec<Charge>,
}

impl Cloud {
    /// Usage in an interval; the running billing period if none is given.
    pub async fn usage(&self, actor: &Actor, interval: Option<Interval>) -> Result<UsageReport> {
        actor.require(Action::ReadUsage)?;
        let organization = actor.organization()?.clone();
        let own = Scope::Organization(organization.clone());
        let now = self.now();
        self.store
            .read((actor, organization, own, interval), move |(actor, organization, own, interval), tx| {
                Box::pin(async move {
                    let account = organization::get(tx, own, organization).await?;
                    let interval = match interval {
                        Some(interval) => *interval,
                        None => BillingCalendar::new(&account.time_zone)?.period_at(now)?.interval,
                    };
                    let (from, until) = (interval.starts_at, interval.ends_at);
                    let lines = charge::summarize(tx, &ChargeQuery { scope: actor.scope.clone(), from, until }).await?;
                    let models = usage::summarize(tx, &UsageQuery { scope: actor.scope.clone(), from, until }).await?;
                    let total = Nanos::checked_sum(lines.iter().map(|line| line.amount))?;
                    let funds = credit::balance(tx, own, organization).await?.funds;
                    Ok(UsageReport { interval, lines, models, total, held: funds.sliced.checked_add(funds.held)? })
                })
            })
            .await
    }

    /// What was earned from everybody in an interval: for the operator.
    pub async fn earnings(&self, actor: &Actor, from: Timestamp, until: Timestamp) -> Result<Vec<ChargeSummary>> {
        actor.require(Action::ReadLedger)?;
        let query = ChargeQuery { scope: Scope::Operator, from, until };
        self.store.read(query, |query, tx| Box::pin(charge::summarize(tx, query))).await
    }

    /// One request: counts and money, never content.
    pub async fn get_request(&self, actor: &Actor, id: &RequestId) -> Result<RequestUsage> {
        actor.require(Action::ReadUsage)?;
        self.store
            .read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let events = usage::list_of_request(tx, &actor.scope, id).await?;
                    if events.is_empty() {
                        return Err(Error::new(ErrorCode::NotFound, format!("there is no settled request '{id}'"))
                            .alternative("usage is settled shortly after a request ends; what was refused or void has none"));
                    }
                    let charges = charge::list_of(tx, id.as_str(), CHARGES_OF_REQUEST_MAX).await?;
                    Ok(RequestUsage { events, charges })
                })
            })
            .await
    }

    /// Charges of the actor's organization, or of one request or job of it.
    pub async fn list_charges(&self, actor: &Actor, source: Option<&str>, page: &PageRequest) -> Result<Page<Charge>> {
        actor.require(Action::ReadUsage)?;
        self.store
            .read((actor, source, page), |(actor, source, page), tx| {
                Box::pin(async move {
                    let Some(source) = source else { return charge::list(tx, &actor.scope, page).await };
                    let mut items = charge::list_of(tx, source, CHARGES_OF_REQUEST_MAX).await?;
                    items.retain(|charge| sublet_store::project::is_visible(&actor.scope, &charge.organization, &charge.project));
                    Ok(Page { items, has_more: false })
                })
            })
            .await
    }

    /// Requests of the actor's project, newest first.
    pub async fn list_requests(&self, actor: &Actor, page: &PageRequest) -> Result<Page<UsageEvent>> {
        actor.require(Action::ReadUsage)?;
        let (_, project) = actor.project()?;
        self.store.read((project, page), |(project, page), tx| Box::pin(usage::list(tx, project, page))).await
    }

    /// Usage that could not be charged: for the operator.
    pub async fn list_quarantine(&self, actor: &Actor, page: &PageRequest) -> Result<Page<UsageEvent>> {
        actor.require(Action::ReadLedger)?;
        self.store.read(page, |page, tx| Box::pin(usage::list_quarantined(tx, page))).await
    }
}
