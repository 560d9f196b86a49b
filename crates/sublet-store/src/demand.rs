//! Demand of the owner's own work, by pool: what was recorded, what is reported from outside, and the curve.
//!
//! A pool's row changes by generation, and with it what belongs to it: rows of demand, reports, curves.

use sublet_capacity::estimate::demand::Step;
use sublet_capacity::estimate::terms::CLASSES;
use sublet_capacity::{Level, Pool};
use sublet_core::{Error, Result, Timestamp};

use crate::Updated;
use crate::database::Tx;
use crate::params;
use crate::row::{Row, RowReader, to_json};

/// What the owner's own systems said last of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reported {
    /// By whoever reported.
    pub at: Timestamp,
    pub in_use: u32,
    pub queued: u32,
    pub valid: bool,
    /// What is known of the pool ends here without another report.
    pub until: Option<Timestamp>,
}

/// Levels that were decided at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredCurve {
    pub decided_at: Timestamp,
    pub valid_until: Timestamp,
    pub levels: [Level; CLASSES],
}

/// A pool with what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredPool {
    pub pool: Pool,
    pub generation: i64,
    /// Counts imports.
    pub history: i64,
    /// Since when it is observed; what is earlier was imported.
    pub observed_from: Option<Timestamp>,
    /// Up to when it was looked at.
    pub observed_until: Option<Timestamp>,
    pub reported: Option<Reported>,
    pub curve: Option<StoredCurve>,
}

impl StoredPool {
    /// A pool of which nothing is known.
    pub fn new(pool: Pool) -> Self {
        Self { pool, generation: 0, history: 0, observed_from: None, observed_until: None, reported: None, curve: None }
    }
}

fn units(row: &mut RowReader<'_>) -> Result<u32> {
    u32::try_from(row.int()?).map_err(|_| Error::internal("a number of units is out of range"))
}

fn pool(row: &Row) -> Result<StoredPool> {
    let mut row = row.reader();
    let pool = Pool { kind: row.parse()?, site: row.parse()? };
    let (generation, history) = (row.int()?, row.int()?);
    let (observed_from, observed_until) = (row.optional_time()?, row.optional_time()?);
    let (at, in_use, queued) = (row.optional_time()?, units(&mut row)?, units(&mut row)?);
    let (valid, until) = (row.int()? != 0, row.optional_time()?);
    let reported = at.map(|at| Reported { at, in_use, queued, valid, until });
    let (decided_at, valid_until) = (row.optional_time()?, row.optional_time()?);
    let curve = match (decided_at, valid_until) {
        (Some(decided_at), Some(valid_until)) => Some(StoredCurve { decided_at, valid_until, levels: row.json()? }),
        (None, _) | (_, None) => None,
    };
    Ok(StoredPool { pool, generation, history, observed_from, observed_until, reported, curve })
}

fn step(row: &Row) -> Result<Step> {
    let mut row = row.reader();
    Ok(Step {
        at_s: row.time()?.seconds(),
        capacity: units(&mut row)?,
        in_use: units(&mut row)?,
        queued: units(&mut row)?,
        valid: row.int()? != 0,
    })
}

/// The columns of a pool; every query of pools reads them in this order.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT kind, site_id, generation, history, observed_from, observed_until, reported_at, reported_in_use,
                    reported_queued, reported_valid, reported_until, decided_at, valid_until, levels FROM demand_pools ",
            $rest
        )
    };
}

/// All, in the order of kinds and sites. There are as many as kinds of devices at sites.
pub async fn list_pools(tx: &mut Tx) -> Result<Vec<StoredPool>> {
    tx.fetch_all(select!("ORDER BY kind, site_id"), &[]).await?.iter().map(pool).collect()
}

pub async fn find_pool(tx: &mut Tx, wanted: &Pool) -> Result<Option<StoredPool>> {
    tx.fetch_optional(select!("WHERE kind = $1 AND site_id = $2"), params![wanted.kind.as_str(), wanted.site.as_str()])
        .await?
        .as_ref()
        .map(pool)
        .transpose()
}

/// Writes a pool that nobody changed since it was read.
pub async fn save_pool(tx: &mut Tx, changed: &StoredPool) -> Result<Updated> {
    let StoredPool { pool, generation, history, observed_from, observed_until, reported, curve } = changed;
    tx.execute(
        "INSERT INTO demand_pools (kind, site_id, generation, history, reported_in_use, reported_queued, reported_valid)
         VALUES ($1, $2, 0, 0, 0, 0, 1) ON CONFLICT (kind, site_id) DO NOTHING",
        params![pool.kind.as_str(), pool.site.as_str()],
    )
    .await?;
    let levels = curve.as_ref().map(|curve| to_json(&curve.levels)).transpose()?;
    let done = tx
        .execute(
            "UPDATE demand_pools SET generation = generation + 1, history = $4, observed_from = $5, reported_at = $6,
                 reported_in_use = $7, reported_queued = $8, reported_valid = $9, reported_until = $10, decided_at = $11,
                 valid_until = $12, levels = $13, observed_until = $14
             WHERE kind = $1 AND site_id = $2 AND generation = $3",
            params![
                pool.kind.as_str(),
                pool.site.as_str(),
                *generation,
                *history,
                *observed_from,
                reported.map(|reported| reported.at),
                reported.map_or(0, |reported| i64::from(reported.in_use)),
                reported.map_or(0, |reported| i64::from(reported.queued)),
                reported.map_or(1, |reported| i64::from(reported.valid)),
                reported.and_then(|reported| reported.until),
                curve.map(|curve| curve.decided_at),
                curve.map(|curve| curve.valid_until),
                levels,
                *observed_until
            ],
        )
        .await?;
    Ok(if done == 1 { Updated::Done } else { Updated::Stale })
}

/// Adds rows behind or between others. An instant that is there already is an error.
pub async fn insert_steps(tx: &mut Tx, pool: &Pool, steps: &[Step]) -> Result<()> {
    let rows: Vec<Vec<_>> = steps
        .iter()
        .map(|step| {
            vec![
                pool.kind.as_str().into(),
                pool.site.as_str().into(),
                Timestamp::from_seconds(step.at_s).into(),
                i64::from(step.capacity).into(),
                i64::from(step.in_use).into(),
                i64::from(step.queued).into(),
                i64::from(step.valid).into(),
            ]
        })
        .collect();
    let prefix = "INSERT INTO demand_steps (kind, site_id, at, capacity, in_use, queued, valid) VALUES ";
    tx.insert_many(prefix, "", &rows).await?;
    Ok(())
}

/// Rows from an instant on, oldest first, at most so many.
pub async fn list_steps(tx: &mut Tx, pool: &Pool, since: Timestamp, limit: i64) -> Result<Vec<Step>> {
    let rows = tx
        .fetch_all(
            "SELECT at, capacity, in_use, queued, valid FROM demand_steps WHERE kind = $1 AND site_id = $2 AND at >= $3
         ORDER BY at LIMIT $4",
            params![pool.kind.as_str(), pool.site.as_str(), since, limit],
        )
        .await?;
    rows.iter().map(step).collect()
}

/// The last row before an instant.
pub async fn find_step_before(tx: &mut Tx, pool: &Pool, before: Timestamp) -> Result<Option<Step>> {
    let row = tx
        .fetch_optional(
            "SELECT at, capacity, in_use, queued, valid FROM demand_steps WHERE kind = $1 AND site_id = $2 AND at < $3
         ORDER BY at DESC LIMIT 1",
            params![pool.kind.as_str(), pool.site.as_str(), before],
        )
        .await?;
    row.as_ref().map(step).transpose()
}

/// Forgets rows that ended before an instant, at most so many, oldest first; answers how many. What held at that instant stays.
pub async fn delete_steps(tx: &mut Tx, pool: &Pool, before: Timestamp, limit: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM demand_steps WHERE kind = $1 AND site_id = $2 AND at IN (
             SELECT at FROM demand_steps WHERE kind = $1 AND site_id = $2 AND at < (
                 SELECT MAX(at) FROM demand_steps WHERE kind = $1 AND site_id = $2 AND at <= $3) ORDER BY at LIMIT $4)",
        params![pool.kind.as_str(), pool.site.as_str(), before, limit],
    )
    .await
}
