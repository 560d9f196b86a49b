//! What customers asked for and did not get: for the operator only.
//!
//! A row keeps the largest request of its hour, project, kind, notice and reason, so a client that asks again and again
//! adds nothing.

use sublet_core::device::DeviceKind;
use sublet_core::id::{ProjectId, SiteId};
use sublet_core::{Currency, DurationMs, Error, Nanos, Result, Timestamp};
use sublet_money::period::Interval;
use sublet_money::sku::SkuName;
use sublet_money::unfilled::Ask;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Most rows of one hour, and of one project in it.
pub const ROWS_OF_HOUR_MAX: i64 = 2_000;
pub const ROWS_OF_PROJECT_MAX: i64 = 50;
/// Most rows that one report looks at, and most leases beside them.
pub const ROWS_MAX: i64 = 200_000;

/// A request that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredAsk {
    pub kind: DeviceKind,
    pub ask: Ask,
    /// Where it had to be.
    pub site: Option<SiteId>,
    pub currency: Currency,
    pub asked_at: Timestamp,
}

/// What a project leased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leased {
    pub project: ProjectId,
    pub sku: SkuName,
    pub units: u32,
    pub at: Timestamp,
}

/// Keeps a request if there is none as large in its place, devices of its kind are there, and not too much was kept of its
/// hour. Of two of the same size the dearer one is kept. False if it was not.
pub async fn keep(tx: &mut Tx, asked: &StoredAsk) -> Result<bool> {
    let StoredAsk { kind, ask, site, currency, asked_at } = asked;
    let counts = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN project_id = $2 THEN 1 ELSE 0 END), 0) AS BIGINT)
             FROM unfilled_asks WHERE hour = $1",
            params![ask.hour, ask.project.as_str()],
        )
        .await?;
    let mut counts = counts.reader();
    if counts.int()? >= ROWS_OF_HOUR_MAX || counts.int()? >= ROWS_OF_PROJECT_MAX {
        return Ok(false);
    }
    let device_ms = ask.wanted.millis().saturating_mul(i64::from(ask.units));
    let changed = tx
        .execute(
            "INSERT INTO unfilled_asks (hour, project_id, kind, notice, reason, site, units, wanted_ms, device_ms, price, currency, asked_at)
             SELECT $1, $2, $3, $4, $5, CAST($6 AS TEXT), $7, $8, $9, CAST($10 AS BIGINT), $11, $12
             WHERE EXISTS (SELECT 1 FROM devices WHERE devices.kind = $3)
             ON CONFLICT (hour, project_id, kind, notice, reason) DO UPDATE SET site = excluded.site, units = excluded.units,
                 wanted_ms = excluded.wanted_ms, device_ms = excluded.device_ms, price = excluded.price,
                 currency = excluded.currency, asked_at = excluded.asked_at
             WHERE excluded.device_ms > unfilled_asks.device_ms
                 OR (excluded.device_ms = unfilled_asks.device_ms AND excluded.price > COALESCE(unfilled_asks.price, -1))",
            params![
                ask.hour,
                ask.project.as_str(),
                kind.as_str(),
                ask.notice.as_str(),
                ask.reason.as_str(),
                site.as_ref().map(SiteId::as_str),
                i64::from(ask.units),
                ask.wanted.millis(),
                device_ms,
                ask.price.map(Nanos::get),
                currency.as_str(),
                *asked_at
            ],
        )
        .await?;
    Ok(changed == 1)
}

fn units(stored: i64) -> Result<u32> {
    u32::try_from(stored).map_err(|_| Error::internal("a number of units is out of range"))
}

fn from_row(row: &Row) -> Result<StoredAsk> {
    let mut row = row.reader();
    let (hour, project, kind) = (row.time()?, row.parse()?, row.parse()?);
    let (notice, reason, site) = (row.parse()?, row.parse()?, row.optional_parse()?);
    let (units, wanted) = (units(row.int()?)?, DurationMs::from_millis(row.int()?));
    let price = row.optional_int()?.map(Nanos::new);
    Ok(StoredAsk {
        kind,
        ask: Ask { project, hour, notice, reason, units, wanted, price },
        site,
        currency: row.parse()?,
        asked_at: row.time()?,
    })
}

/// All of some time in order, and whether that is all: at most [`ROWS_MAX`].
pub async fn of_time(tx: &mut Tx, when: Interval) -> Result<(Vec<StoredAsk>, bool)> {
    let rows = tx
        .fetch_all(
            "SELECT hour, project_id, kind, notice, reason, site, units, wanted_ms, price, currency, asked_at
             FROM unfilled_asks WHERE hour >= $1 AND hour < $2 ORDER BY hour, project_id, kind, notice, reason LIMIT $3",
            params![when.starts_at, when.ends_at, ROWS_MAX + 1],
        )
        .await?;
    let is_all = i64::try_from(rows.len()).is_ok_and(|count| count <= ROWS_MAX);
    let kept = rows.iter().take(usize::try_from(ROWS_MAX).unwrap_or(usize::MAX));
    Ok((kept.map(from_row).collect::<Result<_>>()?, is_all))
}

/// Whether an hour of some time has as many rows as are kept of one.
pub async fn is_cut(tx: &mut Tx, when: Interval) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT hour FROM unfilled_asks WHERE hour >= $1 AND hour < $2 GROUP BY hour HAVING COUNT(*) >= $3 LIMIT 1",
            params![when.starts_at, when.ends_at, ROWS_OF_HOUR_MAX],
        )
        .await?;
    Ok(row.is_some())
}

/// What projects that were refused something in some time leased in it, in order; at most [`ROWS_MAX`].
pub async fn leased_beside(tx: &mut Tx, when: Interval) -> Result<Vec<Leased>> {
    let rows = tx
        .fetch_all(
            "SELECT leases.project_id, leases.sku, leases.units, leases.created_at FROM leases
             WHERE leases.project_id IN (SELECT project_id FROM unfilled_asks WHERE hour >= $1 AND hour < $2)
                 AND leases.created_at >= $1 AND leases.created_at < $2
             ORDER BY leases.id LIMIT $3",
            params![when.starts_at, when.ends_at, ROWS_MAX],
        )
        .await?;
    let leased = |row: &Row| {
        let mut row = row.reader();
        Ok(Leased { project: row.parse()?, sku: row.parse()?, units: units(row.int()?)?, at: row.time()? })
    };
    rows.iter().map(leased).collect()
}

/// Forgets what is older, at most so many hours of it at once.
pub async fn forget(tx: &mut Tx, before: Timestamp, hours: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM unfilled_asks WHERE hour IN (SELECT DISTINCT hour FROM unfilled_asks WHERE hour < $1 ORDER BY hour LIMIT $2)",
        params![before, hours],
    )
    .await
}
