//! Slices: parts of what an account and its limits allow, granted to one gateway.
//!
//! The row says who holds how much; the money itself stands in the ledger. `granted - spent`
//! is what the gateway may still spend or give back.

use sublet_core::id::{GatewayId, KeyId, OrganizationId, ProjectId, SliceId};
use sublet_core::{Currency, Nanos, Result, Timestamp};
use sublet_money::credit_lot::Burned;
use sublet_money::posting::CreditSplit;

use crate::budget::BudgetRef;
use crate::database::Tx;
use crate::params;
use crate::row::{Row, to_json};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    pub id: SliceId,
    pub gateway: GatewayId,
    pub fence: i64,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub key: KeyId,
    pub currency: Currency,
    /// Everything ever granted, by the credit it came from.
    pub granted: CreditSplit,
    /// The same in the order in which it burned; empty where all of it is free credit.
    pub parts: Burned,
    /// Settled charges so far.
    pub spent: Nanos,
    /// Usage records settled so far.
    pub records: i64,
    pub budgets: Vec<BudgetRef>,
    pub window_ends_at: Option<Timestamp>,
    /// Not given back and not written off; a lost one is.
    pub open: bool,
    /// Its gateway was declared lost: what is left of it is in suspense.
    pub lost: bool,
    pub opened_at: Timestamp,
}

impl Slice {
    /// What has not been spent.
    pub fn unspent(&self) -> Result<Burned> {
        self.parts.or_free(self.granted).unspent(self.spent)
    }

    const fn state(&self) -> &'static str {
        match (self.open, self.lost) {
            (false, _) => "closed",
            (true, true) => "lost",
            (true, false) => "open",
        }
    }
}

fn from_row(row: &Row) -> Result<Slice> {
    let mut row = row.reader();
    let state = row.string()?;
    Ok(Slice {
        id: row.parse()?,
        gateway: row.parse()?,
        fence: row.int()?,
        organization: row.parse()?,
        project: row.parse()?,
        key: row.parse()?,
        currency: row.parse()?,
        granted: CreditSplit { promotional: row.nanos()?, paid: row.nanos()?, committed: row.nanos()? },
        spent: row.nanos()?,
        records: row.int()?,
        budgets: row.json()?,
        window_ends_at: row.optional_time()?,
        open: state != "closed",
        lost: state == "lost",
        opened_at: row.time()?,
        parts: row.json()?,
    })
}

/// Takes note of a gateway's new session and returns its number; slices of earlier sessions are fenced off.
pub async fn start_gateway(tx: &mut Tx, gateway: &GatewayId, now: Timestamp) -> Result<i64> {
    let row = tx
        .fetch_one(
            "INSERT INTO gateways (id, fence, started_at, seen_at) VALUES ($1, 1, $2, $2)
             ON CONFLICT (id) DO UPDATE SET fence = gateways.fence + 1, started_at = excluded.started_at, seen_at = excluded.seen_at
             RETURNING fence",
            params![gateway.as_str(), now],
        )
        .await?;
    row.reader().int()
}

/// The number of a gateway's running session.
pub async fn find_fence(tx: &mut Tx, gateway: &GatewayId) -> Result<Option<i64>> {
    let row = tx.fetch_optional("SELECT fence FROM gateways WHERE id = $1", params![gateway.as_str()]).await?;
    row.map(|row| row.reader().int()).transpose()
}

/// Takes note that a session runs. False if another one has taken over.
pub async fn gateway_seen(tx: &mut Tx, (gateway, fence): (&GatewayId, i64), now: Timestamp) -> Result<bool> {
    let sql = "UPDATE gateways SET seen_at = $3 WHERE id = $1 AND fence = $2";
    Ok(tx.execute(sql, params![gateway.as_str(), fence, now]).await? == 1)
}

/// When a gateway was heard of; `None` if there is none of this name.
pub async fn last_seen(tx: &mut Tx, gateway: &GatewayId) -> Result<Option<Timestamp>> {
    let row = tx.fetch_optional("SELECT seen_at FROM gateways WHERE id = $1", params![gateway.as_str()]).await?;
    row.map(|row| row.reader().time()).transpose()
}

/// Ends a gateway's session from outside: it is granted nothing any more.
pub async fn fence_off(tx: &mut Tx, gateway: &GatewayId) -> Result<()> {
    tx.execute("UPDATE gateways SET fence = fence + 1 WHERE id = $1", params![gateway.as_str()]).await?;
    Ok(())
}

pub async fn insert(tx: &mut Tx, slice: &Slice) -> Result<()> {
    tx.execute(
        "INSERT INTO slices (id, gateway_id, fence, organization_id, project_id, key_id, currency, promotional, paid, committed, spent, records, budgets,
             window_ends_at, state, opened_at, parts)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'open', $15, $16)",
        params![
            slice.id.as_str(),
            slice.gateway.as_str(),
            slice.fence,
            slice.organization.as_str(),
            slice.project.as_str(),
            slice.key.as_str(),
            slice.currency.as_str(),
            slice.granted.promotional,
            slice.granted.paid,
            slice.granted.committed,
            slice.spent,
            slice.records,
            to_json(&slice.budgets)?,
            slice.window_ends_at,
            slice.opened_at,
            to_json(&slice.parts)?
        ],
    )
    .await?;
    Ok(())
}

/// A slice by id, open or closed. Gateways name slices, so the scope is the gateway's own.
pub async fn find(tx: &mut Tx, gateway: &GatewayId, id: &SliceId) -> Result<Option<Slice>> {
    let row = tx
        .fetch_optional(
            "SELECT state, id, gateway_id, fence, organization_id, project_id, key_id, currency, promotional, paid, committed, spent, records, budgets,
                 window_ends_at, opened_at, parts FROM slices WHERE id = $1 AND gateway_id = $2",
            params![id.as_str(), gateway.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Adds to an open slice. False if it is closed.
pub async fn extend(tx: &mut Tx, slice: &Slice, by: &Burned) -> Result<bool> {
    let (split, parts) = (by.split()?, slice.parts.extended(slice.granted, by)?);
    let changed = tx
        .execute(
            "UPDATE slices SET promotional = promotional + $2, paid = paid + $3, committed = committed + $5, parts = $4
             WHERE id = $1 AND state = 'open'",
            params![slice.id.as_str(), split.promotional, split.paid, to_json(&parts)?, split.committed],
        )
        .await?;
    Ok(changed == 1)
}

/// Books settled charges against a slice. False if that is more than was granted, or it is in another state by now.
pub async fn spend(tx: &mut Tx, slice: &Slice, amount: Nanos, records: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE slices SET spent = spent + $2, records = records + $3 WHERE id = $1 AND state = $4 AND spent + $2 <= promotional + paid + committed",
            params![slice.id.as_str(), amount, records, slice.state()],
        )
        .await?;
    Ok(changed == 1)
}

/// Closes a slice. False if it is in another state by now.
pub async fn close(tx: &mut Tx, slice: &Slice, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE slices SET state = 'closed', closed_at = $2 WHERE id = $1 AND state = $3 AND state <> 'closed'";
    Ok(tx.execute(sql, params![slice.id.as_str(), now, slice.state()]).await? == 1)
}

/// Takes note that an open slice is lost. False if it is none.
pub async fn lose(tx: &mut Tx, slice: &Slice) -> Result<bool> {
    let sql = "UPDATE slices SET state = 'lost' WHERE id = $1 AND state = 'open'";
    Ok(tx.execute(sql, params![slice.id.as_str()]).await? == 1)
}

/// Most slices handled in one transaction.
pub const SLICES_PER_STEP: i64 = 200;

/// Open and lost slices of a gateway's sessions before `fence`, oldest first, at most [`SLICES_PER_STEP`].
pub async fn list_fenced(tx: &mut Tx, gateway: &GatewayId, fence: i64) -> Result<Vec<Slice>> {
    let rows = tx
        .fetch_all(
            "SELECT state, id, gateway_id, fence, organization_id, project_id, key_id, currency, promotional, paid, committed, spent, records, budgets,
                 window_ends_at, opened_at, parts FROM slices WHERE gateway_id = $1 AND state <> 'closed' AND fence < $2
             ORDER BY id LIMIT $3",
            params![gateway.as_str(), fence, SLICES_PER_STEP],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Open slices of a gateway that are not lost, oldest first, at most [`SLICES_PER_STEP`].
pub async fn open_of_gateway(tx: &mut Tx, gateway: &GatewayId) -> Result<Vec<Slice>> {
    in_state(tx, gateway, "open").await
}

/// Lost slices of a gateway, oldest first, at most [`SLICES_PER_STEP`].
pub async fn lost_of_gateway(tx: &mut Tx, gateway: &GatewayId) -> Result<Vec<Slice>> {
    in_state(tx, gateway, "lost").await
}

async fn in_state(tx: &mut Tx, gateway: &GatewayId, state: &str) -> Result<Vec<Slice>> {
    let rows = tx
        .fetch_all(
            "SELECT state, id, gateway_id, fence, organization_id, project_id, key_id, currency, promotional, paid, committed, spent, records, budgets,
                 window_ends_at, opened_at, parts FROM slices WHERE gateway_id = $1 AND state = $2 ORDER BY id LIMIT $3",
            params![gateway.as_str(), state, SLICES_PER_STEP],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Most open slices of one account that are read at once.
const OPEN_MAX: i64 = 10_000;

/// The open and lost slices of an organization, over all gateways.
pub async fn list_open(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<Slice>> {
    let rows = tx
        .fetch_all(
            "SELECT state, id, gateway_id, fence, organization_id, project_id, key_id, currency, promotional, paid, committed, spent, records, budgets,
                 window_ends_at, opened_at, parts FROM slices WHERE organization_id = $1 AND state <> 'closed' ORDER BY id LIMIT $2",
            params![organization.as_str(), OPEN_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// What open slices hold of an organization's money, over all gateways.
pub async fn open_total(tx: &mut Tx, organization: &OrganizationId) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(promotional + paid + committed - spent), 0) AS BIGINT) FROM slices WHERE organization_id = $1 AND state = 'open'",
            params![organization.as_str()],
        )
        .await?;
    row.reader().nanos()
}

/// What lost slices leave in suspense of an organization's money.
pub async fn lost_total(tx: &mut Tx, organization: &OrganizationId) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(promotional + paid + committed - spent), 0) AS BIGINT) FROM slices WHERE organization_id = $1 AND state = 'lost'",
            params![organization.as_str()],
        )
        .await?;
    row.reader().nanos()
}
