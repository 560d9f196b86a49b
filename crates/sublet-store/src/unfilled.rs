//! What customers asked for and did not get: for the operator only.
//!
//! A row keeps the largest request of its hour, project, kind, notice and reason, so a client that asks again and again
//! adds nothing.

use sublet_core::device::DeviceKind;
use sublet_core::id::{ProjectId, SiteId};
use sublet_core::{Currency, DurationMs, Error, Nanos, Result, Timestamp};
use sublet_money::period::Interval;
use sublet_money::sku::SkuName;
use sublet_money::unfilled::{Ask, Leased as LeasedUnits};

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
}

/// What a project leased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leased {
    pub project: ProjectId,
    pub sku: SkuName,
    pub leased: LeasedUnits,
}

/// Keeps a request, of no more units than are owned of its kind where it had to be, if there is none as large in its place
/// and not too much was kept of its hour. Of two of the same size the dearer one is kept. False if it was not.
pub async fn keep(tx: &mut Tx, asked: &StoredAsk) -> Result<bool> {
    let StoredAsk { kind, ask, site, currency } = asked;
    let counts = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN project_id = $2 THEN 1 ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN project_id = $2 AND kind = $3 AND notice = $4 AND reason = $5 THEN 1 ELSE 0 END), 0) AS BIGINT),
                 (SELECT COUNT(*) FROM devices WHERE devices.kind = $3 AND ($6 = '' OR devices.site = $6))
             FROM unfilled_asks WHERE hour = $1",
            params![
                ask.hour,
                ask.project.as_str(),
                kind.as_str(),
                ask.notice.as_str(),
                ask.reason.as_str(),
                site.as_ref().map_or("", SiteId::as_str)
            ],
        )
        .await?;
    let mut counts = counts.reader();
    let (of_hour, of_project, in_place, owned) = (counts.int()?, counts.int()?, counts.int()?, counts.int()?);
    let is_full = of_hour >= ROWS_OF_HOUR_MAX || of_project >= ROWS_OF_PROJECT_MAX;
    if owned == 0 || (is_full && in_place == 0) {
        return Ok(false);
    }
    let units = i64::from(ask.units).min(owned);
    let device_ms = ask.wanted.millis().saturating_mul(units);
    let changed = tx
        .execute(
            "INSERT INTO unfilled_asks (hour, project_id, kind, notice, reason, site, units, wanted_ms, device_ms, price, currency, asked_at)
             VALUES ($1, $2, $3, $4, $5, CAST($6 AS TEXT), $7, $8, $9, CAST($10 AS BIGINT), $11, $12)
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
                units,
                ask.wanted.millis(),
                device_ms,
                ask.price.map(Nanos::get),
                currency.as_str(),
                ask.asked_at
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
    let (currency, asked_at) = (row.parse()?, row.time()?);
    Ok(StoredAsk { kind, ask: Ask { project, hour, asked_at, notice, reason, units, wanted, price }, site, currency })
}

/// What was asked in some time and reaches beyond another, newest first, and whether that is all: at most [`ROWS_MAX`].
pub async fn of_time(tx: &mut Tx, when: Interval, beyond: Timestamp) -> Result<(Vec<StoredAsk>, bool)> {
    let rows = tx
        .fetch_all(
            "SELECT hour, project_id, kind, notice, reason, site, units, wanted_ms, price, currency, asked_at
             FROM unfilled_asks WHERE hour >= $1 AND hour < $2 AND asked_at + wanted_ms * 1000 > $3
             ORDER BY hour DESC, project_id, kind, notice, reason LIMIT $4",
            params![when.starts_at, when.ends_at, beyond, ROWS_MAX + 1],
        )
        .await?;
    let is_all = i64::try_from(rows.len()).is_ok_and(|count| count <= ROWS_MAX);
    let kept = rows.iter().take(usize::try_from(ROWS_MAX).unwrap_or(usize::MAX));
    Ok((kept.map(from_row).collect::<Result<_>>()?, is_all))
}

/// Whether an hour of some time has as many rows as are kept of one, or of one project in it.
pub async fn is_cut(tx: &mut Tx, when: Interval) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT hour FROM unfilled_asks WHERE hour >= $1 AND hour < $2 GROUP BY hour HAVING COUNT(*) >= $3
             UNION ALL SELECT hour FROM unfilled_asks WHERE hour >= $1 AND hour < $2
                 GROUP BY hour, project_id HAVING COUNT(*) >= $4 LIMIT 1",
            params![when.starts_at, when.ends_at, ROWS_OF_HOUR_MAX, ROWS_OF_PROJECT_MAX],
        )
        .await?;
    Ok(row.is_some())
}

/// What projects that were refused something in some time leased in it and had beyond another, newest first, and whether
/// that is all: at most [`ROWS_MAX`].
pub async fn leased_beside(tx: &mut Tx, when: Interval, beyond: Timestamp) -> Result<(Vec<Leased>, bool)> {
    let rows = tx
        .fetch_all(
            "SELECT leases.project_id, leases.sku, leases.units, leases.created_at, leases.ended_at FROM leases
             WHERE leases.project_id IN (SELECT project_id FROM unfilled_asks WHERE hour >= $1 AND hour < $2)
                 AND leases.created_at >= $1 AND leases.created_at < $2 AND (leases.ended_at IS NULL OR leases.ended_at > $3)
             ORDER BY leases.created_at DESC, leases.id LIMIT $4",
            params![when.starts_at, when.ends_at, beyond, ROWS_MAX + 1],
        )
        .await?;
    let leased = |row: &Row| {
        let mut row = row.reader();
        let (project, sku, units) = (row.parse()?, row.parse()?, units(row.int()?)?);
        Ok(Leased { project, sku, leased: LeasedUnits { units, from: row.time()?, until: row.optional_time()? } })
    };
    let is_all = i64::try_from(rows.len()).is_ok_and(|count| count <= ROWS_MAX);
    let kept = rows.iter().take(usize::try_from(ROWS_MAX).unwrap_or(usize::MAX));
    Ok((kept.map(leased).collect::<Result<_>>()?, is_all))
}

/// Forgets what is older, at most so many hours of it at once.
pub async fn forget(tx: &mut Tx, before: Timestamp, hours: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM unfilled_asks WHERE hour IN (SELECT DISTINCT hour FROM unfilled_asks WHERE hour < $1 ORDER BY hour LIMIT $2)",
        params![before, hours],
    )
    .await
}
