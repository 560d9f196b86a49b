//! Holds of long-running work: money set aside in the ledger before the cost arises.

use sublet_core::id::{HoldId, KeyId, LeaseId, OrganizationId, ProjectId};
use sublet_core::{Currency, Nanos, Result, Timestamp};
use sublet_money::credit_lot::Burned;
use sublet_money::posting::CreditSplit;

use crate::budget::BudgetRef;
use crate::database::Tx;
use crate::params;
use crate::row::{Row, to_json};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    pub id: HoldId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub key: Option<KeyId>,
    /// What it pays for: a lease, the start of a job, or a download.
    pub subject: String,
    pub currency: Currency,
    /// Everything ever held, by the credit it came from.
    pub amount: CreditSplit,
    /// The same in the order in which it burned; empty where all of it is free credit.
    pub parts: Burned,
    /// What became charges.
    pub captured: Nanos,
    pub budgets: Vec<BudgetRef>,
    pub open: bool,
    pub created_at: Timestamp,
}

impl Hold {
    /// What has not become charges.
    pub fn uncaptured(&self) -> Result<Burned> {
        self.parts.or_free(self.amount).unspent(self.captured)
    }
}

fn from_row(row: &Row) -> Result<Hold> {
    let mut row = row.reader();
    Ok(Hold {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        key: row.optional_parse()?,
        subject: row.string()?,
        currency: row.parse()?,
        amount: CreditSplit { promotional: row.nanos()?, paid: row.nanos()?, committed: row.nanos()? },
        captured: row.nanos()?,
        budgets: row.json()?,
        open: row.text()? == "open",
        created_at: row.time()?,
        parts: row.json()?,
    })
}

pub async fn insert(tx: &mut Tx, hold: &Hold) -> Result<()> {
    tx.execute(
        "INSERT INTO holds (id, organization_id, project_id, key_id, subject, currency, promotional, paid, committed, captured, budgets, state, created_at, parts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open', $12, $13)",
        params![
            hold.id.as_str(),
            hold.organization.as_str(),
            hold.project.as_str(),
            hold.key.as_ref().map(KeyId::as_str),
            hold.subject.as_str(),
            hold.currency.as_str(),
            hold.amount.promotional,
            hold.amount.paid,
            hold.amount.committed,
            hold.captured,
            to_json(&hold.budgets)?,
            hold.created_at,
            to_json(&hold.parts)?
        ],
    )
    .await?;
    Ok(())
}

/// The open hold of a subject, such as a lease. The caller has checked the subject's scope.
pub async fn find_open(tx: &mut Tx, subject: &str) -> Result<Option<Hold>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, project_id, key_id, subject, currency, promotional, paid, committed, captured, budgets, state, created_at, parts
             FROM holds WHERE subject = $1 AND state = 'open'",
            params![subject],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// All holds of a subject, oldest first; bounded because one subject has one open hold at a time.
pub async fn list_of(tx: &mut Tx, subject: &str) -> Result<Vec<Hold>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, project_id, key_id, subject, currency, promotional, paid, committed, captured, budgets, state, created_at, parts
             FROM holds WHERE subject = $1 ORDER BY id LIMIT 100",
            params![subject],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Adds to an open hold. False if it is closed.
pub async fn extend(tx: &mut Tx, hold: &Hold, by: &Burned) -> Result<bool> {
    let (split, parts) = (by.split()?, hold.parts.extended(hold.amount, by)?);
    let changed = tx
        .execute(
            "UPDATE holds SET promotional = promotional + $2, paid = paid + $3, committed = committed + $5, parts = $4
             WHERE id = $1 AND state = 'open'",
            params![hold.id.as_str(), split.promotional, split.paid, to_json(&parts)?, split.committed],
        )
        .await?;
    Ok(changed == 1)
}

/// Books a charge against an open hold. False if that is more than it holds.
pub async fn capture(tx: &mut Tx, id: &HoldId, amount: Nanos) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE holds SET captured = captured + $2 WHERE id = $1 AND state = 'open' AND captured + $2 <= promotional + paid + committed",
            params![id.as_str(), amount],
        )
        .await?;
    Ok(changed == 1)
}

/// Closes an open hold. False if it was closed before.
pub async fn close(tx: &mut Tx, id: &HoldId, now: Timestamp) -> Result<bool> {
    let changed = tx
        .execute("UPDATE holds SET state = 'closed', closed_at = $2 WHERE id = $1 AND state = 'open'", params![id.as_str(), now])
        .await?;
    Ok(changed == 1)
}

/// Most open holds of one account that are read at once.
const OPEN_MAX: i64 = 10_000;

/// The open holds of an organization.
pub async fn list_open(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<Hold>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, project_id, key_id, subject, currency, promotional, paid, committed, captured, budgets, state, created_at, parts
             FROM holds WHERE organization_id = $1 AND state = 'open' ORDER BY id LIMIT $2",
            params![organization.as_str(), OPEN_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// What open holds hold of an organization's money.
pub async fn open_total(tx: &mut Tx, organization: &OrganizationId) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(promotional + paid + committed - captured), 0) AS BIGINT) FROM holds WHERE organization_id = $1 AND state = 'open'",
            params![organization.as_str()],
        )
        .await?;
    row.reader().nanos()
}

/// What open holds hold for the starts of jobs on a lease. The caller has checked the lease's scope.
pub async fn open_total_of_jobs(tx: &mut Tx, lease: &LeaseId) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(promotional + paid + committed - captured), 0) AS BIGINT) FROM holds
             WHERE state = 'open' AND subject IN (SELECT id FROM jobs WHERE lease_id = $1)",
            params![lease.as_str()],
        )
        .await?;
    row.reader().nanos()
}

/// What open holds hold for work of an organization, a project or a key of an organization.
pub async fn open_total_of(tx: &mut Tx, organization: &OrganizationId, subject: &str) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(promotional + paid + committed - captured), 0) AS BIGINT) FROM holds
             WHERE organization_id = $1 AND state = 'open' AND (organization_id = $2 OR project_id = $2 OR key_id = $2)",
            params![organization.as_str(), subject],
        )
        .await?;
    row.reader().nanos()
}
