//! Use of past times that is rated by another list, and what that comes to for each customer.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{OrganizationId, RerateId};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::period::Interval;
use sublet_money::rating::RatedLine;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::top_up::stored_as_text;
use crate::{list_sql, params};

/// Most of one account: each is kept in memory while its use is settled.
pub const PER_ACCOUNT_MAX: i64 = 1_000;

stored_as_text! {
    /// How far it is.
    RerateState {
        /// What it would come to is known, and nothing was changed.
        Simulated = "simulated",
        /// It is being applied, customer by customer.
        Approved = "approved",
        Applied = "applied",
    }
}

stored_as_text! {
    /// What became of it for one customer.
    RerateAccountState {
        Simulated = "simulated",
        Applied = "applied",
        /// It costs more than the customer's contract or credit allows: nothing was changed, for ever.
        Refused = "refused",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRerate {
    pub id: RerateId,
    pub of: PriceVersion,
    pub to: PriceVersion,
    pub currency: Currency,
    pub interval: Interval,
    /// Of one customer; of all if `None`.
    pub organization: Option<OrganizationId>,
    /// What customers read.
    pub reason: String,
    pub state: RerateState,
    pub requested_by: String,
    pub applied_by: Option<String>,
    pub created_at: Timestamp,
    pub approved_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// What it comes to for one customer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RerateAccount {
    pub rerate: RerateId,
    pub organization: OrganizationId,
    pub state: RerateAccountState,
    /// What the use that it is about was charged, and what it costs by the other list: each as a part of its lines.
    pub charged: Nanos,
    pub would_be: Nanos,
    /// How many lines change.
    pub lines: i64,
    /// Those of them that change most.
    pub shown: Vec<RatedLine>,
    /// Why it was refused; empty otherwise.
    pub refusal: String,
    /// Which of the account's it is, once it is applied.
    pub number: Option<i64>,
}

/// All customers together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RerateSums {
    /// For whom anything changes or was refused, and those of them who pay more and who were refused.
    pub customers: i64,
    pub raised: i64,
    pub refused: i64,
    /// Without what was refused.
    pub charged: Nanos,
    pub would_be: Nanos,
    /// What customers get who pay less.
    pub given_back: Nanos,
}

fn from_row(row: &Row) -> Result<StoredRerate> {
    let mut row = row.reader();
    Ok(StoredRerate {
        id: row.parse()?,
        of: PriceVersion(row.text()?.into()),
        to: PriceVersion(row.text()?.into()),
        currency: row.parse()?,
        interval: Interval { starts_at: row.time()?, ends_at: row.time()? },
        organization: row.optional_parse()?,
        reason: row.string()?,
        state: row.parse()?,
        requested_by: row.string()?,
        applied_by: row.optional_text()?.map(str::to_owned),
        created_at: row.time()?,
        approved_at: row.optional_time()?,
        ended_at: row.optional_time()?,
    })
}

fn account_from_row(row: &Row) -> Result<RerateAccount> {
    let mut row = row.reader();
    Ok(RerateAccount {
        rerate: row.parse()?,
        organization: row.parse()?,
        state: row.parse()?,
        charged: row.nanos()?,
        would_be: row.nanos()?,
        lines: row.int()?,
        shown: row.json()?,
        refusal: row.string()?,
        number: row.optional_int()?,
    })
}

pub async fn insert(tx: &mut Tx, new: &StoredRerate) -> Result<()> {
    tx.execute(
        "INSERT INTO rerates (id, of_version, to_version, currency, starts_at, ends_at, organization_id, reason, state, requested_by,
             created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        params![
            new.id.as_str(),
            new.of.0.to_string(),
            new.to.0.to_string(),
            new.currency.as_str(),
            new.interval.starts_at,
            new.interval.ends_at,
            new.organization.as_ref().map(OrganizationId::as_str),
            new.reason.as_str(),
            new.state.as_str(),
            new.requested_by.as_str(),
            new.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &RerateId) -> Result<StoredRerate> {
    let row = tx
        .fetch_optional(
            "SELECT id, of_version, to_version, currency, starts_at, ends_at, organization_id, reason, state, requested_by, applied_by,
                 created_at, approved_at, ended_at FROM rerates WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let missing = || Error::new(ErrorCode::NotFound, format!("nothing was rated anew as '{id}'"));
    from_row(&row.ok_or_else(missing)?)
}

pub async fn list(tx: &mut Tx, page: &PageRequest) -> Result<Page<StoredRerate>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, of_version, to_version, currency, starts_at, ends_at, organization_id, reason, state, requested_by, applied_by,
             created_at, approved_at, ended_at FROM rerates WHERE 1 = 1",
        "id",
        "1",
        "2"
    );
    let rows = tx.fetch_all(sql, &[key, limit]).await?;
    page.page(&rows, from_row)
}

/// Those that are to be applied, the oldest first.
pub async fn list_approved(tx: &mut Tx, limit: i64) -> Result<Vec<RerateId>> {
    let sql = "SELECT id FROM rerates WHERE state = 'approved' ORDER BY id LIMIT $1";
    tx.fetch_all(sql, params![limit]).await?.iter().map(|row| row.reader().parse()).collect()
}

/// Says that it is to be applied. False if somebody said so before.
pub async fn approve(tx: &mut Tx, id: &RerateId, by: &str, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE rerates SET state = 'approved', applied_by = $2, approved_at = $3 WHERE id = $1 AND state = 'simulated'";
    Ok(tx.execute(sql, params![id.as_str(), by, now]).await? == 1)
}

/// Says that it was applied to all. False if that was said before.
pub async fn end(tx: &mut Tx, id: &RerateId, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE rerates SET state = 'applied', ended_at = $2 WHERE id = $1 AND state = 'approved'";
    Ok(tx.execute(sql, params![id.as_str(), now]).await? == 1)
}

/// Writes what it comes to for a customer, in the place of what was only simulated.
pub async fn put_account(tx: &mut Tx, account: &RerateAccount) -> Result<()> {
    tx.execute(
        "INSERT INTO rerate_accounts (rerate_id, organization_id, state, charged, would_be, lines, shown, refusal, number)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (rerate_id, organization_id) DO UPDATE SET state = excluded.state, charged = excluded.charged,
             would_be = excluded.would_be, lines = excluded.lines, shown = excluded.shown, refusal = excluded.refusal,
             number = excluded.number",
        params![
            account.rerate.as_str(),
            account.organization.as_str(),
            account.state.as_str(),
            account.charged,
            account.would_be,
            account.lines,
            to_json(&account.shown)?,
            account.refusal.as_str(),
            account.number
        ],
    )
    .await?;
    Ok(())
}

pub async fn find_account(tx: &mut Tx, id: &RerateId, organization: &OrganizationId) -> Result<Option<RerateAccount>> {
    let row = tx
        .fetch_optional(
            "SELECT rerate_id, organization_id, state, charged, would_be, lines, shown, refusal, number FROM rerate_accounts
             WHERE rerate_id = $1 AND organization_id = $2",
            params![id.as_str(), organization.as_str()],
        )
        .await?;
    row.as_ref().map(account_from_row).transpose()
}

/// The customers for whom most changes, and those who were refused before them.
pub async fn list_most_changed(tx: &mut Tx, id: &RerateId, limit: i64) -> Result<Vec<RerateAccount>> {
    let rows = tx
        .fetch_all(
            "SELECT rerate_id, organization_id, state, charged, would_be, lines, shown, refusal, number FROM rerate_accounts
             WHERE rerate_id = $1 AND lines > 0
             ORDER BY CASE WHEN state = 'refused' THEN 0 ELSE 1 END, ABS(would_be - charged) DESC, organization_id LIMIT $2",
            params![id.as_str(), limit],
        )
        .await?;
    rows.iter().map(account_from_row).collect()
}

pub async fn sums(tx: &mut Tx, id: &RerateId) -> Result<RerateSums> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), COALESCE(SUM(CASE WHEN would_be > charged THEN 1 ELSE 0 END), 0),
                 COALESCE(SUM(CASE WHEN state = 'refused' THEN 1 ELSE 0 END), 0),
                 CAST(COALESCE(SUM(CASE WHEN state = 'refused' THEN 0 ELSE charged END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN state = 'refused' THEN 0 ELSE would_be END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN would_be < charged THEN charged - would_be ELSE 0 END), 0) AS BIGINT)
             FROM rerate_accounts WHERE rerate_id = $1 AND lines > 0",
            params![id.as_str()],
        )
        .await?;
    let mut row = row.reader();
    Ok(RerateSums {
        customers: row.int()?,
        raised: row.int()?,
        refused: row.int()?,
        charged: row.nanos()?,
        would_be: row.nanos()?,
        given_back: row.nanos()?,
    })
}

/// What was rated anew of an account's use, in the order in which it holds.
pub async fn list_applied(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<StoredRerate>> {
    let rows = tx
        .fetch_all(
            "SELECT rerates.id, of_version, to_version, currency, starts_at, ends_at, rerates.organization_id, reason, rerates.state,
                 requested_by, applied_by, created_at, approved_at, ended_at
             FROM rerate_accounts JOIN rerates ON rerates.id = rerate_accounts.rerate_id
             WHERE rerate_accounts.organization_id = $1 AND number IS NOT NULL ORDER BY number LIMIT $2",
            params![organization.as_str(), PER_ACCOUNT_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}
