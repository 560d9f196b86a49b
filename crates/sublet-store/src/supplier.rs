//! What suppliers cost: versions of a replica's cost, lines, and purchases. The owner's own books: no tenant
//! sees them.

use sublet_core::id::{OrganizationId, ReplicaId, RequestId};
use sublet_core::supplier::{COST_VERSIONS_MAX, CostVersion, Purchase};
use sublet_core::usage::Measured;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::cost::{CostLineKey, ReplicaCost};
use sublet_money::period::PeriodKey;
use sublet_money::rating::LineState;
use sublet_money::sku::{Quantity, TokenKind};

use crate::database::Tx;
use crate::params;
use crate::row::{Row, Value};

/// A version of a replica's cost, as it was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredCost {
    pub cost: ReplicaCost,
    pub created_at: Timestamp,
}

fn cost_from_row(row: &Row) -> Result<StoredCost> {
    let mut row = row.reader();
    let version = CostVersion(row.text()?.into());
    Ok(StoredCost { cost: ReplicaCost::from_canonical(row.text()?, &version)?, created_at: row.time()? })
}

/// Adds a version. It begins after all others of its replica.
pub async fn insert_cost(tx: &mut Tx, stored: &StoredCost) -> Result<()> {
    let content = stored.cost.content();
    let replica = content.replica.as_str();
    let row = tx.fetch_one("SELECT COUNT(*), MAX(effective_at) FROM cost_versions WHERE replica_id = $1", params![replica]).await?;
    let mut row = row.reader();
    if usize::try_from(row.int()?).is_ok_and(|count| count >= COST_VERSIONS_MAX) {
        return Err(Error::new(ErrorCode::Conflict, format!("a replica's cost has at most {COST_VERSIONS_MAX} versions")));
    }
    if let Some(last) = row.optional_time()?.filter(|last| content.effective_at <= *last) {
        let message =
            format!("a cost of this replica is in force from {last} on, and this one would begin at {}", content.effective_at);
        return Err(Error::new(ErrorCode::InvalidPrice, message).param("effective_at").alternative("a later effective_at"));
    }
    tx.execute(
        "INSERT INTO cost_versions (version, replica_id, supplier_id, currency, effective_at, body, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            stored.cost.version().0.to_string(),
            replica,
            content.supplier.as_str(),
            content.currency.as_str(),
            content.effective_at,
            stored.cost.canonical(),
            stored.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn find_cost(tx: &mut Tx, version: &CostVersion) -> Result<Option<StoredCost>> {
    let sql = "SELECT version, body, created_at FROM cost_versions WHERE version = $1";
    tx.fetch_optional(sql, params![version.0.to_string()]).await?.as_ref().map(cost_from_row).transpose()
}

/// All versions of one replica, oldest first.
pub async fn list_costs(tx: &mut Tx, replica: &ReplicaId) -> Result<Vec<StoredCost>> {
    let sql = "SELECT version, body, created_at FROM cost_versions WHERE replica_id = $1 ORDER BY effective_at LIMIT 1000";
    tx.fetch_all(sql, params![replica.as_str()]).await?.iter().map(cost_from_row).collect()
}

/// All versions of replicas that there are, for the memory of a process, oldest first.
pub async fn list_all_costs(tx: &mut Tx) -> Result<Vec<StoredCost>> {
    let sql = "SELECT version, body, created_at FROM cost_versions WHERE replica_id IN (SELECT id FROM replicas)
         ORDER BY replica_id, effective_at LIMIT 1000000";
    tx.fetch_all(sql, &[]).await?.iter().map(cost_from_row).collect()
}

/// Where a line stands. A line on which nothing was bought yet is empty.
pub async fn line_state(tx: &mut Tx, key: &CostLineKey) -> Result<LineState> {
    let row = tx
        .fetch_optional(
            "SELECT quantity, owed FROM cost_lines
             WHERE supplier_id = $1 AND replica_id = $2 AND period = $3 AND cost_version = $4 AND kind = $5",
            params![
                key.supplier.as_str(),
                key.replica.as_str(),
                key.period.to_string(),
                key.version.0.to_string(),
                key.kind.as_str()
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(LineState::default()) };
    let mut row = row.reader();
    Ok(LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? })
}

/// Moves lines on, each named once. The caller read them in the same transaction.
pub async fn set_line_states(tx: &mut Tx, lines: &[(&CostLineKey, LineState)]) -> Result<()> {
    fn row<'l>((key, state): &(&'l CostLineKey, LineState)) -> Vec<Value<'l>> {
        params![
            key.supplier.as_str(),
            key.replica.as_str(),
            key.period.to_string(),
            key.version.0.to_string(),
            key.kind.as_str(),
            state.quantity.get(),
            state.charged
        ]
        .to_vec()
    }
    let rows: Vec<_> = lines.iter().map(row).collect();
    let prefix = "INSERT INTO cost_lines (supplier_id, replica_id, period, cost_version, kind, quantity, owed) VALUES ";
    let suffix = "ON CONFLICT (supplier_id, replica_id, period, cost_version, kind)
         DO UPDATE SET quantity = excluded.quantity, owed = excluded.owed";
    tx.insert_many(prefix, suffix, &rows).await?;
    Ok(())
}

/// All lines of a supplier, over all periods.
pub async fn list_lines(tx: &mut Tx, supplier: &OrganizationId) -> Result<Vec<(CostLineKey, LineState)>> {
    let rows = tx
        .fetch_all(
            "SELECT replica_id, period, cost_version, kind, quantity, owed FROM cost_lines
             WHERE supplier_id = $1 ORDER BY period, replica_id, cost_version, kind LIMIT 100000",
            params![supplier.as_str()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            let (replica, period, version, kind) = (row.parse()?, row.parse()?, CostVersion(row.text()?.into()), row.text()?);
            let known = TokenKind::ALL.into_iter().find(|known| known.as_str() == kind);
            let kind = known.ok_or_else(|| Error::internal("a line of costs has an unknown kind of token"))?;
            let key = CostLineKey { supplier: supplier.clone(), replica, period, version, kind };
            Ok((key, LineState { quantity: Quantity::new(row.int()?)?, charged: row.nanos()? }))
        })
        .collect()
}

/// One purchase on its way into the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BoughtRow<'a> {
    pub request: &'a RequestId,
    pub attempt: u32,
    /// Counts the purchases of an attempt from 0.
    pub position: i64,
    pub supplier: OrganizationId,
    pub model: &'a str,
    pub period: PeriodKey,
    pub purchase: &'a Purchase,
    pub amount: Nanos,
    /// What the customer was charged for what this purchase served.
    pub revenue: Nanos,
    pub currency: Currency,
    pub occurred_at: Timestamp,
    pub posted_at: Timestamp,
}

const fn measured_text(measured: Measured) -> &'static str {
    match measured {
        Measured::Engine => "engine",
        Measured::Estimated => "estimated",
        Measured::Bounded => "bounded",
    }
}

pub async fn insert_purchases(tx: &mut Tx, purchases: &[BoughtRow<'_>]) -> Result<()> {
    fn row<'r>(bought: &'r BoughtRow<'_>) -> Vec<Value<'r>> {
        let tokens = &bought.purchase.tokens;
        params![
            bought.request.as_str(),
            i64::from(bought.attempt),
            bought.position,
            bought.supplier.as_str(),
            bought.purchase.replica.as_str(),
            bought.model,
            bought.period.to_string(),
            bought.purchase.cost.0.to_string(),
            tokens.input.get(),
            tokens.cached_input.get(),
            tokens.output.get(),
            bought.amount,
            bought.revenue,
            bought.currency.as_str(),
            measured_text(bought.purchase.measured),
            bought.occurred_at,
            bought.posted_at
        ]
        .to_vec()
    }
    let rows: Vec<_> = purchases.iter().map(row).collect();
    let prefix =
        "INSERT INTO purchases (request_id, attempt, position, supplier_id, replica_id, model, period, cost_version, input_tokens,
             cached_input_tokens, output_tokens, amount, revenue, currency, measured, occurred_at, posted_at) VALUES ";
    tx.insert_many(prefix, "", &rows).await?;
    Ok(())
}

/// What was bought for a request, of all its attempts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestCost {
    pub supplier: OrganizationId,
    pub replica: ReplicaId,
    pub version: CostVersion,
    pub amount: Nanos,
    pub currency: Currency,
}

pub async fn list_of_request(tx: &mut Tx, request: &RequestId) -> Result<Vec<RequestCost>> {
    let rows = tx
        .fetch_all(
            "SELECT supplier_id, replica_id, cost_version, amount, currency FROM purchases WHERE request_id = $1
             ORDER BY attempt, position LIMIT 100",
            params![request.as_str()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(RequestCost {
                supplier: row.parse()?,
                replica: row.parse()?,
                version: CostVersion(row.text()?.into()),
                amount: row.nanos()?,
                currency: row.parse()?,
            })
        })
        .collect()
}

/// What was bought of one supplier for one model, and what it was sold for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarginRow {
    pub model: String,
    pub supplier: OrganizationId,
    pub currency: Currency,
    pub purchases: i64,
    /// Purchases that no customer was charged for.
    pub unsold: i64,
    pub input_tokens: i64,
    pub cached_input_tokens: i64,
    pub output_tokens: i64,
    pub revenue: Nanos,
    pub cost: Nanos,
}

/// Sums by model and supplier, of what was asked from `from` on and before `until`.
pub async fn summarize(tx: &mut Tx, from: Timestamp, until: Timestamp) -> Result<Vec<MarginRow>> {
    let rows = tx
        .fetch_all(
            "SELECT model, supplier_id, currency, COUNT(*), CAST(SUM(CASE WHEN revenue = 0 THEN 1 ELSE 0 END) AS BIGINT),
                 CAST(SUM(input_tokens) AS BIGINT), CAST(SUM(cached_input_tokens) AS BIGINT), CAST(SUM(output_tokens) AS BIGINT),
                 CAST(SUM(revenue) AS BIGINT), CAST(SUM(amount) AS BIGINT)
             FROM purchases WHERE occurred_at >= $1 AND occurred_at < $2
             GROUP BY model, supplier_id, currency ORDER BY model, supplier_id, currency LIMIT 10000",
            params![from, until],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(MarginRow {
                model: row.string()?,
                supplier: row.parse()?,
                currency: row.parse()?,
                purchases: row.int()?,
                unsold: row.int()?,
                input_tokens: row.int()?,
                cached_input_tokens: row.int()?,
                output_tokens: row.int()?,
                revenue: row.nanos()?,
                cost: row.nanos()?,
            })
        })
        .collect()
}

/// How much purchases of a supplier's replica in a period and at one version add up to, straight from the purchases.
pub async fn sum_of(tx: &mut Tx, key: &CostLineKey) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM purchases
             WHERE supplier_id = $1 AND replica_id = $2 AND period = $3 AND cost_version = $4",
            params![key.supplier.as_str(), key.replica.as_str(), key.period.to_string(), key.version.0.to_string()],
        )
        .await?;
    row.reader().nanos()
}

/// What a supplier's purchases add up to.
pub async fn supplier_total(tx: &mut Tx, supplier: &OrganizationId) -> Result<Nanos> {
    let sql = "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM purchases WHERE supplier_id = $1";
    tx.fetch_one(sql, params![supplier.as_str()]).await?.reader().nanos()
}
