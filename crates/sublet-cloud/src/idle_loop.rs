//! The idle loop's eye and memory: demand is recorded, and the policy follows it.
//!
//! Each pass writes down what changed and that it looked, lets the policy hear what it has not heard, and publishes
//! the curve once it has heard all. Every process may do so: rows and curves are written by the pool's
//! generation, and whoever is late finds it done. What this process has in memory is a function of the rows.
//!
//! Invariants: time in which nobody looked is a hole in the rows, so live, replays and imports know the same; whoever has
//! much to hear hears it after the plan was followed, so a long history delays no lease's end.
//!
//! Deliberately absent: what follows from a curve (quotes and the plan read it in their own transactions).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use sublet_capacity::estimate::demand::Step;
use sublet_capacity::estimate::follow::Follower;
use sublet_capacity::estimate::terms::Terms;
use sublet_capacity::{CURVE_LIFE, Pool, PoolFigures, pool_figures};
use sublet_core::id::LeaseId;
use sublet_core::lease::Holder;
use sublet_core::{DurationMs, Result, Timestamp};
use sublet_store::demand::{self, Reported, StoredCurve, StoredPool};
use sublet_store::{Tx, Updated, lease};

use crate::compute::Compute;
use crate::compute_reconciler::ComputeReport;
use crate::demand::mode_in;

/// What only falls is written down at most so often, and so is that somebody looked.
const CALM_S: i64 = 60;
/// Rows that the policy hears of a pool in one pass, and decisions that it makes for all pools that are behind: a tenth of a
/// second.
const ROWS_PER_PASS: i64 = 5_000;
const DECISIONS_PER_PASS: u32 = 5_000;
/// A pool of which no more than this is left to decide is decided before the plan, and with no more decisions.
const NEAR_S: i64 = 600;
const DECISIONS_NEAR: u32 = 1_000;
/// Rows that are older than this are not added to any more.
const SETTLED_S: i64 = 60;
/// How long demand is remembered, how often what is older is forgotten, and how much at once.
const RETENTION: DurationMs = DurationMs::from_hours(400 * 24);
const SWEEP_PERIOD: DurationMs = DurationMs::from_seconds(600);
const SWEPT_AT_ONCE: i64 = 1_000;

/// What this process has learned.
#[derive(Default)]
pub(crate) struct Following(Mutex<State>);

#[derive(Default)]
struct State {
    looked_s: Option<i64>,
    swept: Option<Timestamp>,
    /// The pool that used up what a pass may decide: the next pass begins behind it.
    served: Option<Pool>,
    pools: BTreeMap<Pool, Followed>,
}

/// The policy on its way through one pool's history.
#[derive(Clone)]
struct Followed {
    /// The history it follows: an import makes another one.
    history: i64,
    follower: Follower,
    /// The last row it heard, in seconds.
    heard_s: i64,
}

impl Followed {
    fn new(history: i64) -> Self {
        Self { history, follower: Follower::new(&Terms::default()), heard_s: i64::MIN }
    }

    /// Hears rows up to an instant; false if there was more to decide than is left to it.
    fn hear(&mut self, rows: &[Step], until_s: i64, decisions_left: &mut u32) -> bool {
        for row in rows.iter().filter(|row| row.at_s < until_s) {
            *decisions_left -= self.follower.decide_until(row.at_s, *decisions_left);
            if !self.follower.is_at(row.at_s) {
                return false;
            }
            self.follower.hear(*row);
            self.heard_s = row.at_s;
        }
        *decisions_left -= self.follower.decide_until(until_s, *decisions_left);
        self.follower.is_at(until_s)
    }
}

impl Following {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Once for each second: rows are of whole seconds.
    fn is_due(&self, now_s: i64) -> bool {
        self.with(|state| state.looked_s.replace(now_s) != Some(now_s))
    }

    fn is_sweep_due(&self, now: Timestamp) -> bool {
        self.with(|state| {
            let is_due = state.swept.is_none_or(|swept| now >= swept.plus(SWEEP_PERIOD));
            if is_due {
                state.swept = Some(now);
            }
            is_due
        })
    }

    fn find(&self, pool: &Pool, history: i64) -> Option<Followed> {
        self.with(|state| state.pools.get(pool).filter(|followed| followed.history == history).cloned())
    }

    /// Whether little is left to decide.
    fn is_near(&self, pool: &Pool, history: i64, now_s: i64) -> bool {
        self.with(|state| {
            let followed = state.pools.get(pool).filter(|followed| followed.history == history);
            followed.and_then(|followed| followed.follower.decided_s()).is_some_and(|decided_s| now_s - decided_s <= NEAR_S)
        })
    }

    fn keep(&self, pool: &Pool, followed: Followed) {
        self.with(|state| state.pools.insert(pool.clone(), followed));
    }

    fn forget(&self, pool: &Pool) {
        self.with(|state| state.pools.remove(pool));
    }

    fn forget_all(&self) {
        self.with(|state| state.pools.clear());
    }
}

impl Compute {
    /// Writes down what changed, and lets the policy follow if the owner wants it to; answers the pools of which much is
    /// left to hear.
    pub(crate) async fn follow_demand(&self, report: &mut ComputeReport) -> Vec<Pool> {
        let now = self.now();
        if !self.following.is_due(now.seconds()) {
            return Vec::new();
        }
        let seen = self.cloud.store.read((), |(), tx| Box::pin(see(tx))).await;
        let Some(Seen { pools, learns }) = report.note("looking at demand", seen.map(Some)) else { return Vec::new() };
        for (pool, seen) in &pools {
            if observe(seen, now, self.settings.unobserved_max).is_some() {
                let recorded = self.record_demand(pool, seen.figures, now).await;
                report.note("recording demand", recorded);
            }
        }
        self.sweep_demand(&pools, now, report).await;
        if !learns {
            self.following.forget_all();
            return Vec::new();
        }
        let mut behind = Vec::new();
        for (pool, seen) in pools {
            if self.following.is_near(&pool, seen.stored.history, now.seconds()) {
                let mut decisions_left = DECISIONS_NEAR;
                let followed = self.follow_pool(&pool, now, &mut decisions_left).await;
                report.note("following demand", followed);
            } else {
                behind.push(pool);
            }
        }
        behind
    }

    /// Lets the policy hear of pools of which much is left to hear, as far as one pass may, each in its turn.
    pub(crate) async fn catch_up(&self, mut behind: Vec<Pool>, report: &mut ComputeReport) {
        let served = self.following.with(|state| state.served.take());
        let next = behind.iter().position(|pool| Some(pool) > served.as_ref()).unwrap_or(0);
        behind.rotate_left(next);
        let (now, mut decisions_left) = (self.now(), DECISIONS_PER_PASS);
        for pool in behind {
            let followed = self.follow_pool(&pool, now, &mut decisions_left).await;
            report.note("following demand", followed);
            if decisions_left == 0 {
                return self.following.with(|state| state.served = Some(pool));
            }
        }
    }

    async fn sweep_demand(&self, pools: &BTreeMap<Pool, SeenPool>, now: Timestamp, report: &mut ComputeReport) {
        if !self.following.is_sweep_due(now) {
            return;
        }
        let old = now.minus(RETENTION);
        for pool in pools.keys() {
            let swept = self.cloud.store.write(pool, move |pool, tx| Box::pin(demand::delete_steps(tx, pool, old, SWEPT_AT_ONCE)));
            report.note("forgetting old demand", swept.await);
        }
    }

    /// That somebody looked, with rows if something changed that is worth one.
    async fn record_demand(&self, pool: &Pool, figures: PoolFigures, now: Timestamp) -> Result<()> {
        let unobserved_max = self.settings.unobserved_max;
        self.cloud
            .store
            .write(pool, move |pool, tx| {
                Box::pin(async move {
                    let seen = seen_pool(tx, pool, figures).await?;
                    let Some((stored, rows)) = observe(&seen, now, unobserved_max) else { return Ok(()) };
                    match demand::save_pool(tx, &stored).await? {
                        Updated::Done if rows.is_empty() => Ok(()),
                        Updated::Done => demand::insert_steps(tx, pool, &rows).await,
                        // Somebody else saw it, too.
                        Updated::Stale | Updated::NotFound => Ok(()),
                    }
                })
            })
            .await
    }

    /// Lets the policy hear what it has not heard, and publishes what it says now.
    async fn follow_pool(&self, pool: &Pool, now: Timestamp, decisions_left: &mut u32) -> Result<()> {
        let now_s = now.seconds();
        let known = self.following.with(|state| state.pools.get(pool).map(|followed| (followed.history, followed.heard_s)));
        let (stored, rows) = self.cloud.store.read(pool, move |pool, tx| Box::pin(unheard(tx, pool, known))).await?;
        let Some(stored) = stored else { return Ok(()) };
        let mut followed = self.following.find(pool, stored.history).unwrap_or_else(|| Followed::new(stored.history));
        if rows.is_empty() && followed.follower.is_at(now_s + 1) {
            return Ok(());
        }
        let decided_s = followed.follower.decided_s();
        if rows.first().zip(decided_s).is_some_and(|(row, decided_s)| row.at_s <= decided_s) {
            // A row came in late: what was decided since is not what the rows say.
            self.following.forget(pool);
            return Ok(());
        }
        let has_more = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= ROWS_PER_PASS;
        let settled_s = rows.last().filter(|_| has_more).map_or(now_s - SETTLED_S, |last| last.at_s.min(now_s - SETTLED_S));
        if !followed.hear(&rows, settled_s, decisions_left) || has_more {
            self.following.keep(pool, followed);
            return Ok(());
        }
        let heard_s = followed.heard_s;
        let recent: Vec<Step> = rows.into_iter().filter(|row| row.at_s > heard_s).collect();
        followed.hear(&recent, now_s + 1, decisions_left);
        self.publish(stored, followed, now_s).await
    }

    async fn publish(&self, stored: StoredPool, followed: Followed, now_s: i64) -> Result<()> {
        let pool = stored.pool.clone();
        let (Some(decided_s), Some(levels)) = (followed.follower.decided_s(), followed.follower.curve()) else { return Ok(()) };
        let decided_at = Timestamp::from_seconds(decided_s);
        let is_news = stored.curve.is_none_or(|curve| curve.decided_at < decided_at);
        if is_news && followed.follower.is_at(now_s + 1) {
            let curve = Some(StoredCurve { decided_at, valid_until: decided_at.plus(CURVE_LIFE), levels });
            let changed = StoredPool { curve, ..stored };
            let saved = self.cloud.store.write(&changed, |changed, tx| Box::pin(demand::save_pool(tx, changed))).await?;
            if saved != Updated::Done {
                // A row or another process's curve came between; this is decided again with it.
                return Ok(());
            }
        }
        self.following.keep(&pool, followed);
        Ok(())
    }
}

/// What there is, and whether the policy follows.
struct Seen {
    pools: BTreeMap<Pool, SeenPool>,
    learns: bool,
}

/// A pool as it is, with what was written down of it.
struct SeenPool {
    figures: PoolFigures,
    stored: StoredPool,
    last: Option<Step>,
}

async fn see(tx: &mut Tx) -> Result<Seen> {
    let devices = Compute::devices_in(tx).await?;
    let open = lease::list_open(tx).await?;
    let internal: BTreeSet<&LeaseId> =
        open.iter().filter(|lease| lease.holder == Holder::Internal).map(|lease| &lease.id).collect();
    let mut pools = BTreeMap::new();
    for (pool, figures) in pool_figures(&devices, |id| internal.contains(id)) {
        let seen = seen_pool(tx, &pool, figures).await?;
        pools.insert(pool, seen);
    }
    Ok(Seen { pools, learns: mode_in(tx).await?.learns() })
}

async fn seen_pool(tx: &mut Tx, pool: &Pool, figures: PoolFigures) -> Result<SeenPool> {
    let stored = demand::find_pool(tx, pool).await?.unwrap_or_else(|| StoredPool::new(pool.clone()));
    let last = demand::find_step_before(tx, pool, Timestamp::from_micros(i64::MAX)).await?;
    Ok(SeenPool { figures, stored, last })
}

/// What is to be written down: that somebody looked, a hole if nobody did for too long, and what is so now if it is worth a
/// row. No row is at an instant that was decided.
fn observe(seen: &SeenPool, now: Timestamp, unobserved_max: DurationMs) -> Option<(StoredPool, Vec<Step>)> {
    let SeenPool { figures, stored, last } = seen;
    let step = step_of(stored.reported, *figures, now);
    let decided_s = stored.curve.map_or(i64::MIN, |curve| curve.decided_at.seconds());
    let closed_s = last.map_or(decided_s, |last| last.at_s.max(decided_s));
    let unseen_from = stored.observed_until.filter(|until| now.since(*until) > unobserved_max);
    let hole = unseen_from.zip(last.filter(|last| last.valid)).map(|(until, last)| {
        let at_s = until.seconds().max(closed_s).saturating_add(1);
        Step { at_s, valid: false, ..last }
    });
    let hole = hole.filter(|hole| hole.at_s < step.at_s);
    let is_new = step.at_s > closed_s && is_worth_a_row(hole.or(*last), step);
    let rows: Vec<Step> = hole.into_iter().chain(is_new.then_some(step)).collect();
    let is_due = stored.observed_until.is_none_or(|until| now >= until.plus(DurationMs::from_seconds(CALM_S)));
    if rows.is_empty() && !is_due {
        return None;
    }
    let observed_from = stored.observed_from.or_else(|| rows.first().map(|row| Timestamp::from_seconds(row.at_s)));
    let observed_until = stored.observed_until.max(Some(now));
    Some((StoredPool { observed_from, observed_until, ..stored.clone() }, rows))
}

fn step_of(reported: Option<Reported>, figures: PoolFigures, now: Timestamp) -> Step {
    let is_known = |reported: Reported| reported.valid && reported.until.is_none_or(|until| now < until);
    Step {
        at_s: now.seconds(),
        capacity: figures.capacity,
        in_use: figures.internal.saturating_add(figures.used_outside(reported.map_or(0, |reported| reported.in_use))),
        queued: reported.map_or(0, |reported| reported.queued),
        valid: reported.is_none_or(is_known),
    }
}

fn is_worth_a_row(last: Option<Step>, step: Step) -> bool {
    let Some(last) = last else { return true };
    let is_other = Step { at_s: last.at_s, ..step } != last;
    let is_urgent = step.in_use > last.in_use || step.capacity < last.capacity || step.valid != last.valid;
    is_other && (is_urgent || step.at_s >= last.at_s + CALM_S)
}

/// A pool with the rows that were not heard of its history, oldest first, at most [`ROWS_PER_PASS`].
async fn unheard(tx: &mut Tx, pool: &Pool, known: Option<(i64, i64)>) -> Result<(Option<StoredPool>, Vec<Step>)> {
    let Some(stored) = demand::find_pool(tx, pool).await? else { return Ok((None, Vec::new())) };
    let heard_s = known.filter(|(history, _)| *history == stored.history).map(|(_, heard_s)| heard_s);
    let since = heard_s.filter(|heard_s| *heard_s > i64::MIN);
    let since = since.map_or(Timestamp::from_micros(i64::MIN), |heard_s| Timestamp::from_seconds(heard_s + 1));
    let rows = demand::list_steps(tx, pool, since, ROWS_PER_PASS).await?;
    Ok((Some(stored), rows))
}
