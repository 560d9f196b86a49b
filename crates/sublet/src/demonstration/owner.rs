//! What the simulated owner does: its monitor reports demand, it begins to sell by what was learned, a machine is in
//! maintenance, and now and then a machine is taken back for a launch.

use std::collections::BTreeSet;

use sublet_api::client::{Client, IdempotencyKey};
use sublet_api::demand::{ReportDemand, SetSellingPolicy};
use sublet_api::device::{Device, DeviceListQuery};
use sublet_api::list::PageLimit;
use sublet_api::money::Amount;
use sublet_api::reclaim::CreateReclaim;
use sublet_api::supply_cost::{Depreciation, DeviceCost, EnergyPrice, Power, PublishSupplyCosts};
use sublet_cloud::Actor;
use sublet_cloud::compute::Compute;
use sublet_cloud::data::{DemandStep, Pool};
use sublet_cloud::demand::{IMPORT_MAX, NewReport, STEPS_MAX};
use sublet_core::{Clock, Currency, DurationMs, Result, Timestamp};
use sublet_runner::simulated::{Demand, Fleet, OwnDemand, Pool as FleetPool, Rhythm, seed_of};

use crate::fast_clock::FastClock;

use super::customer::Launch;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// How much history a new demonstration has: a `firm` promise wants two weeks.
const HISTORY_S: i64 = 15 * DAY_S;
/// An unchanged demand is reported again after this, and without a report nothing is known after that.
const REPORTED_EVERY_S: i64 = 1_800;
const GOOD_FOR_S: u64 = 3 * 3_600;
/// Turns between two looks at what is due and not urgent.
const TURNS_PER_LOOK: u32 = 8;
/// What the owner keeps of each kind on top of what was learned, in thousandths.
const RESERVE_THOUSANDTHS: u32 = 50;
/// Maintenance: once in this, on Tuesdays from 9 to 13 in UTC. The first day of 1970 was a Thursday.
const WEEK_S: i64 = 7 * DAY_S;
const MAINTENANCE_S: (i64, i64) = (5 * DAY_S + 9 * HOUR_S, 5 * DAY_S + 13 * HOUR_S);
/// Launches: once in this a machine of this kind is wanted, so much later and for so long.
const LAUNCH_WINDOW_S: i64 = 2 * DAY_S;
const LAUNCH_KIND: &str = "h200";
const LAUNCH_LEAD_S: i64 = 2 * HOUR_S;
const LAUNCH_LASTS_S: i64 = 6 * HOUR_S;
/// What a kilowatt-hour costs, and of each kind what it draws busy and idle, and what one cost.
const ENERGY: &str = "0.22";
const COSTS: [(&str, u32, u32, &str); 3] = [("h200", 700, 110, "30000"), ("a100", 400, 60, "9000"), ("l4", 72, 16, "2200")];
/// Pages of devices that are read.
const PAGES_MAX: u32 = 101;

/// The owner's work on one pool.
struct Work {
    pool: FleetPool,
    demand: OwnDemand,
    told: Option<Demand>,
}

impl Work {
    fn pools(fleet: &Fleet, from: Timestamp) -> Vec<Self> {
        let work = |pool: &FleetPool| {
            let units = pool.machines.saturating_mul(pool.devices);
            let name = format!("{} at {}", pool.kind, pool.site);
            let demand = OwnDemand::new(fleet.seed, &name, (units, rhythm_of(pool)), from.seconds() - HISTORY_S);
            Self { pool: pool.clone(), demand, told: None }
        };
        fleet.pools.iter().map(work).collect()
    }
}

/// Small devices serve; big ones train.
fn rhythm_of(pool: &FleetPool) -> Rhythm {
    let units = pool.machines.saturating_mul(pool.devices);
    if pool.memory_gib < 40 {
        Rhythm { serving_percent: 55, jobs_percent: 25, jobs_per_day: units / 2, gang_max: 2 }
    } else {
        Rhythm { serving_percent: 20, jobs_percent: 50, jobs_per_day: units * 7 / 8, gang_max: pool.devices }
    }
}

/// Records what was demanded before a new demonstration began, and what is now.
pub async fn import_history(compute: &Compute, fleet: &Fleet, clock: &FastClock) -> Result<()> {
    let (actor, now) = (Actor::system(), clock.now());
    let observed: BTreeSet<Pool> =
        compute.list_pools(&actor).await?.into_iter().filter(|pool| pool.observed_from.is_some()).map(|pool| pool.pool).collect();
    for work in &mut Work::pools(fleet, clock.began()) {
        let pool = Pool { kind: work.pool.kind.clone(), site: work.pool.site.clone() };
        let steps = work.demand.until(now.seconds() - 1);
        if !observed.contains(&pool) {
            // A start that was cut off may have imported some of it.
            let known = compute.list_demand(&actor, &pool, Timestamp::EPOCH, STEPS_MAX).await?;
            let known_s = known.last().map_or(i64::MIN, |last| last.at_s);
            let mut rows = changes(&steps, work.pool.machines.saturating_mul(work.pool.devices));
            rows.retain(|row| row.at_s > known_s);
            for rows in rows.chunks(IMPORT_MAX) {
                compute.import_demand(&actor, &pool, rows).await?;
            }
        }
        if let Some(last) = steps.last() {
            let good_for = Some(DurationMs::from_hours(3));
            let report = NewReport { pool, at: None, in_use: last.in_use, queued: last.queued, valid: last.valid, good_for };
            compute.report_demand(&actor, &report).await?;
        }
    }
    Ok(())
}

/// The steps that say something new, as rows.
fn changes(steps: &[Demand], capacity: u32) -> Vec<DemandStep> {
    let row = |step: &Demand| DemandStep { at_s: step.at_s, capacity, in_use: step.in_use, queued: step.queued, valid: step.valid };
    let is_new = |(place, step): &(usize, &Demand)| {
        place.checked_sub(1).and_then(|before| steps.get(before)).is_none_or(|before| says(before) != says(step))
    };
    steps.iter().enumerate().filter(is_new).map(|(_, step)| row(step)).collect()
}

fn says(demand: &Demand) -> (u32, u32, bool) {
    (demand.in_use, demand.queued, demand.valid)
}

/// What supply is declared to cost, so that there is a margin to look at.
fn costs() -> Result<PublishSupplyCosts> {
    let mut devices = Vec::with_capacity(COSTS.len());
    for (kind, busy_watts, idle_watts, price) in COSTS {
        let depreciation = Depreciation { price: Amount(price.parse()?), residual: Amount::default(), months: 60 };
        let power = Some(Power { busy_watts, idle_watts });
        devices.push(DeviceCost {
            kind: kind.to_owned(),
            power,
            depreciation: Some(depreciation),
            per_hour: None,
            transfer_price: None,
        });
    }
    let energy = Some(EnergyPrice { per_kwh: Amount(ENERGY.parse()?), time_of_use: None });
    Ok(PublishSupplyCosts { currency: Currency::EUR, effective_at: None, energy, devices, models: Vec::new() })
}

/// Which machine is in maintenance at an instant, by a number that picks one of all.
fn maintenance_at(seed: u64, now_s: i64) -> Option<u64> {
    let (begins, ends) = MAINTENANCE_S;
    (begins..ends).contains(&now_s.rem_euclid(WEEK_S)).then(|| seed_of(seed, &format!("maintenance/{}", now_s.div_euclid(WEEK_S))))
}

/// When in a window a launch is announced.
fn announced_at(seed: u64, window: i64) -> i64 {
    let room = LAUNCH_WINDOW_S - LAUNCH_LEAD_S - LAUNCH_LASTS_S;
    let drawn = seed_of(seed, &format!("launch/{window}")) % room.unsigned_abs();
    window * LAUNCH_WINDOW_S + i64::try_from(drawn).unwrap_or(0)
}

/// The launch that was announced and is not over: its window, when its machine is wanted, and until when.
fn launch_at(seed: u64, now_s: i64) -> Option<(i64, i64, i64)> {
    let window = now_s.div_euclid(LAUNCH_WINDOW_S);
    let announced_s = announced_at(seed, window);
    let (by_s, until_s) = (announced_s + LAUNCH_LEAD_S, announced_s + LAUNCH_LEAD_S + LAUNCH_LASTS_S);
    (announced_s..until_s).contains(&now_s).then_some((window, by_s, until_s))
}

/// Whether the owner shows curves and does not sell by them yet, as a new demonstration does; it may have been stopped
/// while it did.
fn learns(mode: &str, reserve: (u32, u32)) -> bool {
    mode == "shadow" && reserve == (0, RESERVE_THOUSANDTHS)
}

/// The owner.
pub struct Owner {
    operator: Client,
    seed: u64,
    works: Vec<Work>,
    launch_units: u32,
    turns: u32,
    /// It began so lately that nobody chose by what it sells.
    is_young: bool,
    /// It began to learn, and does not sell by it yet.
    is_learning: bool,
    maintained: Option<u64>,
    /// The last window whose launch was announced.
    launched: i64,
}

impl Owner {
    pub fn new(operator: Client, fleet: &Fleet, clock: &FastClock) -> Self {
        let mut works = Work::pools(fleet, clock.began());
        let now_s = clock.now().seconds();
        // What was reported before is passed over.
        works.iter_mut().for_each(|work| drop(work.demand.until(now_s - 1)));
        let launch_units = fleet.pools.iter().find(|pool| pool.kind.as_str() == LAUNCH_KIND).map_or(0, |pool| pool.devices);
        Self {
            operator,
            seed: fleet.seed,
            works,
            launch_units,
            turns: 0,
            is_young: now_s - clock.began().seconds() < DAY_S,
            is_learning: false,
            // One that ended while this process was away is ended now.
            maintained: maintenance_at(fleet.seed, now_s - HOUR_S),
            launched: now_s.div_euclid(LAUNCH_WINDOW_S) - 1,
        }
    }

    /// A new demonstration learns first. What the owner chose since stays.
    pub fn begin(&mut self) -> Result<()> {
        let policy = self.operator.selling_policy()?;
        let reserve = (policy.reserve_units, policy.reserve_thousandths);
        self.is_learning = learns(&policy.mode, reserve);
        if self.is_young && policy.mode == "static" && reserve == (0, 0) {
            self.operator.publish_supply_costs(&costs()?, &IdempotencyKey("demonstration-costs".to_owned()))?;
            let (mode, reserve_thousandths) = (Some("shadow".to_owned()), Some(RESERVE_THOUSANDTHS));
            self.operator.set_selling_policy(&SetSellingPolicy { mode, reserve_thousandths, reserve_units: None })?;
            self.is_learning = true;
        }
        Ok(())
    }

    /// Does what is due. A launch that was ordered is answered.
    pub fn turn(&mut self, now_s: i64) -> Option<Launch> {
        self.turns = self.turns.wrapping_add(1);
        for place in 0..self.works.len() {
            note("report demand", self.report(place, now_s));
        }
        if self.turns.is_multiple_of(TURNS_PER_LOOK) {
            if self.is_learning {
                note("sell by what was learned", self.sell_by_what_was_learned());
            }
            let due = maintenance_at(self.seed, now_s);
            if due != self.maintained && note("begin or end maintenance", self.maintain(due)).is_some() {
                self.maintained = due;
            }
        }
        self.launch(now_s)
    }

    fn report(&mut self, place: usize, now_s: i64) -> Result<()> {
        let Some(work) = self.works.get_mut(place) else { return Ok(()) };
        let Some(last) = work.demand.until(now_s).last().copied() else { return Ok(()) };
        if work.told.is_some_and(|told| says(&told) == says(&last) && last.at_s - told.at_s < REPORTED_EVERY_S) {
            return Ok(());
        }
        let report = ReportDemand {
            device_kind: work.pool.kind.to_string(),
            site: work.pool.site.clone(),
            at: None,
            in_use: last.in_use,
            queued: last.queued,
            valid: last.valid,
            good_for_seconds: Some(GOOD_FOR_S),
        };
        self.operator.report_demand(&report)?;
        work.told = Some(last);
        Ok(())
    }

    fn sell_by_what_was_learned(&mut self) -> Result<()> {
        let capacity = self.operator.capacity()?.data;
        if capacity.iter().flat_map(|kind| &kind.pools).all(|pool| pool.is_fresh) {
            let policy = SetSellingPolicy { mode: Some("learned".to_owned()), ..SetSellingPolicy::default() };
            self.operator.set_selling_policy(&policy)?;
            self.is_learning = false;
        }
        Ok(())
    }

    /// Takes a machine out of sale, and puts the one before back.
    fn maintain(&self, due: Option<u64>) -> Result<()> {
        let machines = self.machines()?;
        let picked = |pick: u64| {
            let place = pick.checked_rem(u64::try_from(machines.len()).unwrap_or(u64::MAX));
            place.and_then(|place| machines.get(usize::try_from(place).unwrap_or(usize::MAX)))
        };
        for device in self.maintained.and_then(picked).into_iter().flatten() {
            self.operator.uncordon_device(&device.id)?;
        }
        for device in due.and_then(picked).into_iter().flatten() {
            self.operator.cordon_device(&device.id)?;
        }
        Ok(())
    }

    /// The devices of each machine, in the order of the machines' names.
    fn machines(&self) -> Result<Vec<Vec<Device>>> {
        let mut query = DeviceListQuery { limit: Some(PageLimit::MAX), ..DeviceListQuery::default() };
        let mut devices: Vec<Device> = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.operator.devices(&query)?;
            devices.extend(page.data);
            query.after = page.last_id;
            if !page.has_more {
                break;
            }
        }
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(devices.chunk_by(|a, b| a.node == b.node).map(<[Device]>::to_vec).collect())
    }

    /// Orders a machine back, once in each window. After a restart the same call finds the same order again.
    fn launch(&mut self, now_s: i64) -> Option<Launch> {
        let (window, by_s, until_s) = launch_at(self.seed, now_s)?;
        if window <= self.launched || self.launch_units == 0 {
            return None;
        }
        self.launched = window;
        let order = CreateReclaim {
            kind: LAUNCH_KIND.to_owned(),
            units: self.launch_units,
            by: Timestamp::from_seconds(by_s).into(),
            until: Some(Timestamp::from_seconds(until_s).into()),
            site: None,
            units_per_node: Some(self.launch_units),
            whole_nodes: false,
            break_promises: false,
        };
        let key = IdempotencyKey(format!("demonstration-launch-{window}"));
        note("take a machine back", self.operator.create_reclaim(&order, &key))?;
        let (kind, units, seconds) = (LAUNCH_KIND.to_owned(), self.launch_units, LAUNCH_LASTS_S - HOUR_S);
        Some(Launch { name: format!("launch-{window}"), at_s: by_s.max(now_s), kind, units, seconds })
    }
}

/// What could not be done is tried again, or left out.
fn note<T>(what: &str, done: Result<T>) -> Option<T> {
    done.inspect_err(|error| tracing::debug!(?error, "the simulated owner could not {what}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_is_in_maintenance_on_tuesday_mornings() {
        // Monday, 5 January 2026.
        let monday_s = 1_767_571_200;
        let hours: Vec<i64> = (0..7 * 24).filter(|hour| maintenance_at(1, monday_s + hour * HOUR_S).is_some()).collect();
        assert_eq!(hours, (24 + 9..24 + 13).collect::<Vec<i64>>());
        let picks: BTreeSet<u64> = (0..20).filter_map(|week| maintenance_at(1, monday_s + week * WEEK_S + 33 * HOUR_S)).collect();
        assert_eq!(picks.len(), 20);
    }

    #[test]
    fn a_launch_is_over_before_its_window_is() {
        for window in 10_000..10_200 {
            let announced = announced_at(1, window);
            assert!(announced >= window * LAUNCH_WINDOW_S);
            assert!(announced + LAUNCH_LEAD_S + LAUNCH_LASTS_S <= (window + 1) * LAUNCH_WINDOW_S);
        }
    }

    #[test]
    fn a_restart_at_any_time_of_a_launch_finds_the_same_one() {
        for window in 10_000..10_050 {
            let announced = announced_at(1, window);
            let launch = Some((window, announced + 2 * HOUR_S, announced + 8 * HOUR_S));
            for later in [0, HOUR_S, 2 * HOUR_S, 8 * HOUR_S - 1] {
                assert_eq!(launch_at(1, announced + later), launch, "{later} s after it was announced");
            }
            assert_eq!([launch_at(1, announced - 1), launch_at(1, announced + 8 * HOUR_S)], [None, None]);
        }
    }

    #[test]
    fn who_was_stopped_while_learning_goes_on_with_it_and_a_choice_stays() {
        assert!(learns("shadow", (0, RESERVE_THOUSANDTHS)));
        assert!(!learns("learned", (0, RESERVE_THOUSANDTHS)) && !learns("shadow", (2, 0)) && !learns("static", (0, 0)));
    }

    #[test]
    fn rows_are_those_steps_that_say_something_new() {
        let step = |at_s, in_use| Demand { at_s, in_use, queued: 0, valid: true };
        let rows = changes(&[step(0, 1), step(300, 1), step(600, 2), step(900, 1)], 4);
        assert_eq!(rows.iter().map(|row| (row.at_s, row.in_use)).collect::<Vec<_>>(), [(0, 1), (600, 2), (900, 1)]);
    }
}
