//! Looks at limits with alerts: what was told of a window, and what was settled in it hour by hour.
//!
//! Invariant: an alert is told once for ever for a limit's window, threshold and amount, whoever looks and how often; the
//! key of its row says so.
//!
//! Deliberately absent: any part in reserving and settling. Whoever looks reads the rows that those keep anyway.

use sublet_core::id::{OrganizationId, SpendAlertId};
use sublet_core::{Nanos, Result, Timestamp};
use sublet_money::forecast::{Hour, Sample};
use sublet_money::spend_limit::{AlertBasis, AlertRule};

use crate::budget::{BudgetRef, BudgetWindow};
use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

/// A threshold that was crossed, with the figures of that instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpendAlert {
    pub id: SpendAlertId,
    pub organization: OrganizationId,
    pub budget: BudgetRef,
    pub ends_at: Option<Timestamp>,
    pub rule: AlertRule,
    /// The limit's.
    pub amount: Nanos,
    pub settled: Nanos,
    pub reserved: Nanos,
    /// What was expected at the end of the window, where that could be said.
    pub forecast: Option<Nanos>,
    pub created_at: Timestamp,
}

impl SpendAlert {
    /// Whether it was told because something did not fit in what was left: less is spent than its threshold.
    pub fn is_refusal(&self) -> bool {
        self.rule.basis == AlertBasis::Actual && !self.rule.is_met(self.settled, self.amount)
    }
}

fn from_row(row: &Row) -> Result<SpendAlert> {
    let mut row = row.reader();
    Ok(SpendAlert {
        id: row.parse()?,
        organization: row.parse()?,
        budget: BudgetRef { subject: row.string()?, window: row.parse()?, starts_at: row.time()? },
        ends_at: row.optional_time()?,
        rule: AlertRule { basis: row.parse()?, percent: u16::try_from(row.int()?).unwrap_or(u16::MAX) },
        amount: row.nanos()?,
        settled: row.nanos()?,
        reserved: row.nanos()?,
        forecast: row.optional_int()?.map(Nanos::new),
        created_at: row.time()?,
    })
}

/// Tells an alert. False if it was told before.
pub async fn insert(tx: &mut Tx, alert: &SpendAlert) -> Result<bool> {
    let told = tx
        .execute(
            "INSERT INTO spend_alerts (id, organization_id, subject, budget_window, starts_at, ends_at, basis, percent, amount, settled,
                 reserved, forecast, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (subject, budget_window, starts_at, basis, percent, amount) DO NOTHING",
            params![
                alert.id.as_str(),
                alert.organization.as_str(),
                alert.budget.subject.as_str(),
                alert.budget.window.as_str(),
                alert.budget.starts_at,
                alert.ends_at,
                alert.rule.basis.as_str(),
                i64::from(alert.rule.percent),
                alert.amount,
                alert.settled,
                alert.reserved,
                alert.forecast.map(Nanos::get),
                alert.created_at
            ],
        )
        .await?;
    Ok(told == 1)
}

/// Alerts of an organization, newest first by default.
pub async fn list(tx: &mut Tx, organization: &OrganizationId, page: &PageRequest) -> Result<Page<SpendAlert>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, subject, budget_window, starts_at, ends_at, basis, percent, amount, settled, reserved, forecast,
             created_at FROM spend_alerts WHERE organization_id = $1",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[organization.as_str().into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// A limit that is to be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watched {
    pub organization: OrganizationId,
    pub subject: String,
    pub window: BudgetWindow,
    pub alerts: Vec<AlertRule>,
    /// Where the window starts that was seen last.
    pub looked_from: Option<Timestamp>,
}

fn watched(row: &Row) -> Result<Watched> {
    let mut row = row.reader();
    Ok(Watched {
        organization: row.parse()?,
        subject: row.string()?,
        window: row.parse()?,
        alerts: row.json()?,
        looked_from: row.optional_time()?,
    })
}

/// Limits with alerts that are due by now, the longest waiting first.
pub async fn due(tx: &mut Tx, now: Timestamp, limit: usize) -> Result<Vec<Watched>> {
    let rows = tx
        .fetch_all(
            "SELECT organization_id, subject, budget_window, alerts, looked_from FROM spend_limits
             WHERE look_at <= $1 ORDER BY look_at, subject, budget_window LIMIT $2",
            params![now, i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await?;
    rows.iter().map(watched).collect()
}

/// Takes a due limit, until `next`; `None` if it is due no more: another process took it, or it was changed.
pub async fn take(tx: &mut Tx, due: &Watched, now: Timestamp, next: Timestamp) -> Result<Option<Watched>> {
    let row = tx
        .fetch_optional(
            "UPDATE spend_limits SET look_at = $4 WHERE subject = $1 AND budget_window = $2 AND look_at <= $3
             RETURNING organization_id, subject, budget_window, alerts, looked_from",
            params![due.subject.as_str(), due.window.as_str(), now, next],
        )
        .await?;
    row.as_ref().map(watched).transpose()
}

/// Remembers which window was seen, so that what came after its last look is seen too.
pub async fn set_looked_from(tx: &mut Tx, budget: &BudgetRef) -> Result<()> {
    tx.execute(
        "UPDATE spend_limits SET looked_from = $3 WHERE subject = $1 AND budget_window = $2",
        params![budget.subject.as_str(), budget.window.as_str(), budget.starts_at],
    )
    .await?;
    Ok(())
}

/// Which alerts were told of a window of a limit of this amount.
pub async fn told(tx: &mut Tx, budget: &BudgetRef, amount: Nanos) -> Result<Vec<AlertRule>> {
    let rows = tx
        .fetch_all(
            "SELECT basis, percent FROM spend_alerts WHERE subject = $1 AND budget_window = $2 AND starts_at = $3 AND amount = $4",
            params![budget.subject.as_str(), budget.window.as_str(), budget.starts_at, amount],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(AlertRule { basis: row.parse::<AlertBasis>()?, percent: u16::try_from(row.int()?).unwrap_or(u16::MAX) })
        })
        .collect()
}

/// What was settled by an hour. True if it is the first look of that hour.
pub async fn sample(tx: &mut Tx, budget: &BudgetRef, hour: Hour, settled: Nanos) -> Result<bool> {
    let is_known = tx
        .execute(
            "UPDATE spend_samples SET starts_at = $4, settled = $5 WHERE subject = $1 AND budget_window = $2 AND hour = $3",
            params![budget.subject.as_str(), budget.window.as_str(), hour.number(), budget.starts_at, settled],
        )
        .await?;
    if is_known == 1 {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO spend_samples (subject, budget_window, hour, starts_at, settled) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (subject, budget_window, hour) DO NOTHING",
        params![budget.subject.as_str(), budget.window.as_str(), hour.number(), budget.starts_at, settled],
    )
    .await?;
    Ok(true)
}

/// Forgets the hours before one.
pub async fn forget(tx: &mut Tx, budget: &BudgetRef, before: Hour) -> Result<()> {
    tx.execute(
        "DELETE FROM spend_samples WHERE subject = $1 AND budget_window = $2 AND hour < $3",
        params![budget.subject.as_str(), budget.window.as_str(), before.number()],
    )
    .await?;
    Ok(())
}

/// The hours of a limit since one, in the order of time. The caller has checked whose limit it is.
pub async fn samples(tx: &mut Tx, budget: &BudgetRef, since: Hour) -> Result<Vec<Sample>> {
    let rows = tx
        .fetch_all(
            "SELECT hour, starts_at, settled FROM spend_samples WHERE subject = $1 AND budget_window = $2 AND hour >= $3 ORDER BY hour",
            params![budget.subject.as_str(), budget.window.as_str(), since.number()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(Sample { hour: Hour::from_number(row.int()?), starts_at: row.time()?, settled: row.nanos()? })
        })
        .collect()
}
