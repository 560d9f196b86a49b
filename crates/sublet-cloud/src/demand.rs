//! What the owner's own work demands, and by what is sold to customers: reports, imports, the selling mode.
//!
//! Demand is recorded by [`crate::idle_loop`]; here is what people and other systems say of it. A report
//! counts from when it is heard, whatever its own clock says.

use std::collections::BTreeMap;

use sublet_capacity::estimate::csv::UNITS_MAX;
use sublet_capacity::estimate::demand::Step;
use sublet_capacity::estimate::terms::CLASSES;
use sublet_capacity::{
    CURVE_LIFE, Curve, DeviceView, Pool, PoolFigures, PoolView, Selling, SellingMode, Snapshot, pool_figures, sold_by_class,
};
use sublet_core::lease::Holder;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::demand::{self, Reported, StoredCurve, StoredPool};
use sublet_store::{Tx, setting};

use crate::audit::Deed;
use crate::compute::{Compute, done};
use crate::{Action, Actor};

/// A report's clock may be so much ahead of ours.
const AHEAD_MAX: DurationMs = DurationMs::from_seconds(60);
/// Longest that a report may be good for.
const REPORT_LIFE_MAX: DurationMs = DurationMs::from_hours(24 * 366);
/// Most rows of one page.
pub const STEPS_MAX: usize = 10_000;
/// Most rows of one import: they fit into a body.
pub const IMPORT_MAX: usize = 2_000;
const MODE_SETTING: &str = "compute.selling";

/// What the owner's own systems say of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewReport {
    pub pool: Pool,
    /// By the reporter's clock; now if left out.
    pub at: Option<Timestamp>,
    /// Units that are used outside, those on cordoned devices among them.
    pub in_use: u32,
    pub queued: u32,
    pub valid: bool,
    /// Without another report nothing is known of the pool after this time; for ever if left out.
    pub good_for: Option<DurationMs>,
}

/// A pool as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolStatement {
    pub pool: Pool,
    pub figures: PoolFigures,
    /// Of the kind, at all sites together.
    pub reserve: u32,
    pub mode: SellingMode,
    pub reported: Option<Reported>,
    /// Units of customers, by class.
    pub sold: [u32; CLASSES],
    pub curve: Option<StoredCurve>,
    pub observed_from: Option<Timestamp>,
    pub as_of: Timestamp,
}

impl PoolStatement {
    /// Whether the curve is renewed as it should be.
    pub fn is_fresh(&self) -> bool {
        self.curve.is_some_and(|curve| self.as_of < curve.valid_until)
    }
}

impl Compute {
    /// Takes in what the owner's own systems say. The same report again changes nothing.
    pub async fn report_demand(&self, actor: &Actor, new: &NewReport) -> Result<Reported> {
        actor.require(Action::ManageFleet)?;
        let now = self.now();
        let reported = self
            .cloud
            .store
            .write((self, actor, new), move |(compute, actor, new), tx| Box::pin(compute.report_in(tx, actor, new, now)))
            .await?;
        self.wake();
        Ok(reported)
    }

    async fn report_in(&self, tx: &mut Tx, actor: &Actor, new: &NewReport, now: Timestamp) -> Result<Reported> {
        let figures = known_pool(tx, &new.pool).await?;
        check_report(new, &figures, now)?;
        let stored = demand::find_pool(tx, &new.pool).await?.unwrap_or_else(|| StoredPool::new(new.pool.clone()));
        // One without an instant is later than the last, whatever the clocks of others said.
        let after_last = stored.reported.map_or(now, |last| Timestamp::from_micros(last.at.micros().saturating_add(1)));
        let at = new.at.unwrap_or(now.max(after_last));
        let said = Reported {
            at,
            in_use: new.in_use,
            queued: new.queued,
            valid: new.valid,
            until: new.good_for.map(|span| now.plus(span)),
        };
        if let Some(last) = stored.reported {
            if (Reported { until: last.until, ..said }) == last {
                return Ok(last);
            }
            if last.at == at {
                let message = format!("{at} was reported for {} with other figures", new.pool);
                return Err(Error::new(ErrorCode::Conflict, message).param("at").alternative("report a later instant"));
            }
            if at < last.at {
                let message = format!("the clock of the reports of {} goes back from {} to {at}", new.pool, last.at);
                return Err(Error::new(ErrorCode::Conflict, message).param("at").alternative("leave the instant out"));
            }
        }
        let changes = stored.reported.is_none_or(|last| (last.in_use, last.valid) != (said.in_use, said.valid));
        done(demand::save_pool(tx, &StoredPool { reported: Some(said), ..stored }).await?, "the pool's demand")?;
        if changes {
            let detail = format!("{} units in use outside, {} queued, known: {}", new.in_use, new.queued, new.valid);
            let target = new.pool.to_string();
            let deed = Deed { organization: None, action: "demand.report", target: &target, detail };
            self.cloud.record(tx, actor, deed, now).await?;
        }
        Ok(said)
    }

    /// Adds history from before the pool was observed; answers how many rows are new. All of them or none.
    pub async fn import_demand(&self, actor: &Actor, pool: &Pool, steps: &[Step]) -> Result<usize> {
        actor.require(Action::ManageFleet)?;
        check_steps(steps)?;
        let now = self.now();
        let added = self
            .cloud
            .store
            .write((self, actor, pool, steps), move |(compute, actor, pool, steps), tx| {
                Box::pin(compute.import_in(tx, actor, (pool, steps), now))
            })
            .await?;
        self.wake();
        Ok(added)
    }

    async fn import_in(&self, tx: &mut Tx, actor: &Actor, (pool, steps): (&Pool, &[Step]), now: Timestamp) -> Result<usize> {
        known_pool(tx, pool).await?;
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Ok(0) };
        let stored = demand::find_pool(tx, pool).await?.unwrap_or_else(|| StoredPool::new(pool.clone()));
        let ends_before = stored.observed_from.unwrap_or(now);
        let (first, last) = (Timestamp::from_seconds(first.at_s), Timestamp::from_seconds(last.at_s));
        let limit = i64::try_from(STEPS_MAX).unwrap_or(i64::MAX);
        let mut there = demand::list_steps(tx, pool, first, limit).await?;
        there.retain(|step| Timestamp::from_seconds(step.at_s) <= last);
        if there == steps {
            return Ok(0);
        }
        if last >= ends_before {
            let message = format!("{pool} has been observed since {ends_before}, and the rows go on until {last}");
            return Err(Error::new(ErrorCode::Conflict, message)
                .alternative("import what was before; with --from, say when second 0 of the file was"));
        }
        if let Some(step) = there.first() {
            let message = format!("there is a row of {pool} at {} already", Timestamp::from_seconds(step.at_s));
            return Err(Error::new(ErrorCode::Conflict, message).alternative("import each stretch of time once"));
        }
        demand::insert_steps(tx, pool, steps).await?;
        let history = stored.history + 1;
        done(demand::save_pool(tx, &StoredPool { history, ..stored }).await?, "the pool's demand")?;
        let (target, detail) = (pool.to_string(), format!("{} rows from {first} to {last}", steps.len()));
        let deed = Deed { organization: None, action: "demand.import", target: &target, detail };
        self.cloud.record(tx, actor, deed, now).await?;
        Ok(steps.len())
    }

    /// The recorded demand of a pool from an instant on, oldest first; at most [`STEPS_MAX`] rows.
    pub async fn list_demand(&self, actor: &Actor, pool: &Pool, since: Timestamp, limit: usize) -> Result<Vec<Step>> {
        actor.require(Action::ManageFleet)?;
        let limit = i64::try_from(limit.min(STEPS_MAX)).unwrap_or(i64::MAX);
        self.cloud
            .store
            .read(pool, move |pool, tx| {
                Box::pin(async move {
                    known_pool(tx, pool).await?;
                    demand::list_steps(tx, pool, since, limit).await
                })
            })
            .await
    }

    /// Every pool: what it has, what the owner uses, what was sold, and the curve.
    pub async fn list_pools(&self, actor: &Actor) -> Result<Vec<PoolStatement>> {
        actor.require(Action::ManageFleet)?;
        self.cloud.store.read(self, |compute, tx| Box::pin(compute.pools_in(tx))).await
    }

    async fn pools_in(&self, tx: &mut Tx) -> Result<Vec<PoolStatement>> {
        let snapshot = self.snapshot(tx).await?;
        let stored = stored_pools(tx).await?;
        let figures = figures_of(&snapshot);
        let statement = |(pool, figures): (Pool, PoolFigures)| {
            let known = stored.get(&pool);
            PoolStatement {
                reserve: sublet_capacity::figures(&snapshot, &pool.kind).reserve,
                sold: sold_by_class(&snapshot, &pool),
                reported: known.and_then(|known| known.reported),
                curve: known.and_then(|known| known.curve),
                observed_from: known.and_then(|known| known.observed_from),
                mode: snapshot.selling.mode,
                as_of: snapshot.selling.at,
                figures,
                pool,
            }
        };
        Ok(figures.into_iter().map(statement).collect())
    }

    /// By what is sold to customers.
    pub async fn selling_mode(&self, actor: &Actor) -> Result<SellingMode> {
        actor.require(Action::ManageFleet)?;
        self.cloud.store.read((), |(), tx| Box::pin(mode_in(tx))).await
    }

    /// Sets by what is sold to customers from now on.
    pub async fn set_selling_mode(&self, actor: &Actor, mode: SellingMode) -> Result<SellingMode> {
        actor.require(Action::ManageFleet)?;
        let now = self.now();
        self.cloud
            .store
            .write((self, actor), move |(compute, actor), tx| {
                Box::pin(async move {
                    setting::set(tx, MODE_SETTING, mode.as_str()).await?;
                    let detail = format!("sells by {}", mode.as_str());
                    let deed = Deed { organization: None, action: "policy.set", target: "policy", detail };
                    compute.cloud.record(tx, actor, deed, now).await
                })
            })
            .await?;
        self.wake();
        Ok(mode)
    }
}

pub(crate) async fn mode_in(tx: &mut Tx) -> Result<SellingMode> {
    match setting::find(tx, MODE_SETTING).await? {
        None => Ok(SellingMode::default()),
        Some(text) => text.parse().map_err(|_| Error::internal(format!("'{text}' is not a stored selling mode"))),
    }
}

pub(crate) async fn stored_pools(tx: &mut Tx) -> Result<BTreeMap<Pool, StoredPool>> {
    Ok(demand::list_pools(tx).await?.into_iter().map(|stored| (stored.pool.clone(), stored)).collect())
}

/// By what is sold at an instant, as every process reads it.
pub(crate) async fn selling_in(tx: &mut Tx, devices: &[DeviceView], at: Timestamp) -> Result<Selling> {
    let (mode, stored) = (mode_in(tx).await?, demand::list_pools(tx).await?);
    let is_reported = |stored: &StoredPool| stored.reported.is_some_and(|reported| reported.in_use > 0);
    let figures = if stored.iter().any(is_reported) { pool_figures(devices, |_| false) } else { BTreeMap::new() };
    let outside = |stored: &StoredPool| {
        let reported = stored.reported.map_or(0, |reported| reported.in_use);
        figures.get(&stored.pool).map_or(0, |figures| figures.used_outside(reported))
    };
    let view = |stored: &StoredPool| {
        let curve = match stored.curve {
            None => Curve::Missing,
            // One that is from later than now was decided by a clock that was wrong.
            Some(curve) if at >= curve.valid_until || curve.decided_at > at.plus(CURVE_LIFE) => Curve::Stale,
            Some(curve) => Curve::Fresh(curve.levels),
        };
        PoolView { outside: outside(stored), curve }
    };
    let pools = stored.iter().map(|stored| (stored.pool.clone(), view(stored))).collect();
    Ok(Selling { mode, at, pools })
}

fn figures_of(snapshot: &Snapshot) -> BTreeMap<Pool, PoolFigures> {
    pool_figures(&snapshot.devices, |id| snapshot.leases.get(id).is_some_and(|lease| lease.holder == Holder::Internal))
}

async fn known_pool(tx: &mut Tx, pool: &Pool) -> Result<PoolFigures> {
    let pools = pool_figures(&Compute::devices_in(tx).await?, |_| false);
    pools.get(pool).copied().ok_or_else(|| {
        let known: Vec<String> = pools.keys().map(|pool| format!("{} at {}", pool.kind, pool.site)).collect();
        Error::new(ErrorCode::InvalidRequest, format!("there are no devices of {} at {}", pool.kind, pool.site))
            .param("device_kind")
            .alternative(format!("name one of: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") }))
    })
}

fn check_report(new: &NewReport, figures: &PoolFigures, now: Timestamp) -> Result<()> {
    let refuse = |param: &str, message: String| Error::new(ErrorCode::InvalidRequest, message).param(param);
    if new.in_use > figures.total() {
        let message = format!("{} units are in use of {} that there are", new.in_use, figures.total());
        return Err(refuse("in_use", message).alternative("report units of this pool that are used outside only"));
    }
    if new.queued > UNITS_MAX {
        return Err(refuse("queued", format!("at most {UNITS_MAX} units can be waited for")));
    }
    if let Some(at) = new.at.filter(|at| *at > now.plus(AHEAD_MAX)) {
        let message = format!("{at} is in the future: it is {now}");
        return Err(refuse("at", message).alternative("set the reporter's clock, or leave the instant out"));
    }
    if new.good_for.is_some_and(|span| span <= DurationMs::ZERO || span > REPORT_LIFE_MAX) {
        let most = REPORT_LIFE_MAX.seconds_ceil();
        return Err(refuse("good_for_seconds", format!("a report is good for 1 to {most} seconds")));
    }
    Ok(())
}

fn check_steps(steps: &[Step]) -> Result<()> {
    let refuse = |message: String| Error::new(ErrorCode::InvalidRequest, message).param("steps");
    if steps.is_empty() || steps.len() > IMPORT_MAX {
        return Err(refuse(format!("an import has 1 to {IMPORT_MAX} rows")));
    }
    if let Some(pair) = steps.windows(2).find(|pair| pair[1].at_s <= pair[0].at_s) {
        let message = format!("the clock goes from {} to {}", pair[0].at_s, pair[1].at_s);
        return Err(refuse(message).alternative("give one row for each instant, oldest first"));
    }
    let is_beyond = |step: &&Step| step.capacity.max(step.in_use).max(step.queued) > UNITS_MAX;
    if let Some(step) = steps.iter().find(is_beyond) {
        return Err(refuse(format!("the row at {} has more than {UNITS_MAX} units", step.at_s)));
    }
    let seconds_max = i64::MAX / 1_000_000;
    match steps.iter().find(|step| step.at_s < 0 || step.at_s > seconds_max) {
        Some(step) => Err(refuse(format!("{} is not a time since 1970 in seconds", step.at_s))),
        None => Ok(()),
    }
}
