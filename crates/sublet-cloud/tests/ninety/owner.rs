//! The owner: a team with a rhythm of days and weeks that queues and surges, reports of demand, orders to take capacity back.

use std::collections::BTreeMap;

use sublet_cloud::Actor;
use sublet_cloud::data::Need;
use sublet_cloud::demand::NewReport;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::reclaim::NewReclaim;
use sublet_core::device::DeviceHealth;
use sublet_core::id::{LeaseId, NodeId};
use sublet_core::job::OnEnd;
use sublet_core::lease::{Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};
use sublet_core::{DurationMs, ErrorCode, Timestamp};
use sublet_store::lease::Lease;

use crate::days::{Days, TICK};
use crate::record::{Asked, Got};
use crate::site::{Look, POOLS, pool, wanted, work};

/// Of capacity in thousandths, by hour of the day.
const SHAPE: [u32; 24] =
    [250, 220, 200, 200, 200, 220, 260, 340, 450, 540, 590, 610, 600, 610, 620, 600, 560, 500, 440, 400, 370, 340, 310, 280];
/// What a weekend has of a weekday, in thousandths.
const WEEKEND: u32 = 550;
/// Units that the team may ask for and not get in one tick before it waits for the next.
const REFUSALS_MAX: usize = 2;
/// The pool that has use beside the team's leases.
const OUTSIDE_POOL: usize = 2;
/// A report is good for so long.
const REPORT_LIFE: DurationMs = DurationMs::from_seconds(2_700);

/// What is out of the ordinary in a pool now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surge {
    None,
    /// All of the pool.
    Burst,
    /// Ten times what it is at that hour.
    Tenfold,
    /// The team's own systems are away, and what they say is not known.
    Outage,
    /// A third of the pool comes back at once.
    Return,
    /// Nobody reports.
    Gap,
}

/// The calendar of surges: each kind once in six days, in turn in each pool.
pub fn surge(index: usize, day: i64, hour: i64) -> Surge {
    let turn = usize::try_from(day / 6).unwrap_or(0) % POOLS.len() == index;
    match (day % 6, hour) {
        (1, 14..=16) if turn => Surge::Burst,
        (2, 3..=4) if turn => Surge::Tenfold,
        (3, 10) if turn => Surge::Outage,
        (3, 11..=12) if turn => Surge::Return,
        (4, 12..=14) if index == OUTSIDE_POOL => Surge::Gap,
        _ => Surge::None,
    }
}

/// What a team needs of a pool at an instant, without chance and surges.
pub fn rhythm(index: usize, at: Timestamp) -> u32 {
    let hours = at.seconds().div_euclid(3_600);
    let shape = SHAPE[usize::try_from(hours.rem_euclid(24)).expect("an hour")];
    // 1970 began on a Thursday.
    let is_weekend = matches!((hours.div_euclid(24) + 4).rem_euclid(7), 0 | 6);
    let weight = if is_weekend { shape * WEEKEND / 1_000 } else { shape };
    (POOLS[index].2 * weight).div_ceil(1_000)
}

impl Days<'_> {
    fn team_needs(&self, index: usize) -> u32 {
        let (now, capacity) = (self.site.now(), POOLS[index].2);
        let usual = (rhythm(index, now) + self.dice.number(0, 3)).saturating_sub(1);
        match self.surge(index) {
            Surge::None | Surge::Gap => usual.min(capacity),
            Surge::Burst => capacity,
            Surge::Tenfold => (rhythm(index, now) * 10).min(capacity),
            Surge::Outage => 0,
            Surge::Return => usual.max(capacity.div_ceil(3)),
        }
    }

    /// The team asks for what it needs beyond what it has, and gives back what it does not need.
    pub async fn follow_team(&mut self) {
        let mut look = self.site.look().await;
        for index in 0..POOLS.len() {
            let needs = self.team_needs(index);
            let (kind, mut refusals) = (pool(index).kind, 0);
            let mut has = team_units(&look, index);
            let mut queued = 0;
            while has < needs && refusals < REFUSALS_MAX {
                let units = self.dice.number(1, 5).min(needs - has);
                let seconds = self.dice.number(1_800, 6 * 3_600);
                let quote = wanted(index, units, NoticeClass::N0);
                let asked = self.site.run(&self.site.team, quote, work(&format!("--seconds {seconds}"), OnEnd::EndLease)).await;
                look = self.site.look().await;
                let got = match asked {
                    Ok(run) => {
                        has += units;
                        got_of(&look, &run.lease.lease, self.site.now())
                    }
                    Err(error) => {
                        assert_eq!(error.code(), ErrorCode::CapacityUnavailable, "{error:?}");
                        (refusals, queued) = (refusals + 1, queued + units);
                        Got::Refused { reachable: self.reachable(&look, index) }
                    }
                };
                self.asked.push(Asked { at: self.site.now(), kind: kind.clone(), units, got });
            }
            self.queued[index] = queued.max(needs.saturating_sub(has));
            self.give_back(index, has.saturating_sub(needs + 1)).await;
        }
    }

    async fn give_back(&mut self, index: usize, mut surplus: u32) {
        let look = self.site.look().await;
        let of_pool = pool(index);
        let mut own: Vec<&Lease> = look.leases.iter().filter(|lease| is_team(lease, &of_pool.kind)).collect();
        own.sort_by_key(|lease| std::cmp::Reverse(lease.created_at));
        for lease in own {
            if lease.units <= surplus && lease.state == LeaseState::Active {
                surplus -= lease.units;
                self.site.compute().end_lease(&self.site.team, &lease.id, None).await.expect("it ends");
            }
        }
    }

    /// The most units on one machine that are free or that customers have with notice, less what the owner uses beside.
    fn reachable(&self, look: &Look, index: usize) -> u32 {
        let kind = pool(index).kind;
        let leases: BTreeMap<&LeaseId, &Lease> = look.leases.iter().map(|lease| (&lease.id, lease)).collect();
        let mut machines: BTreeMap<&NodeId, u32> = BTreeMap::new();
        for device in look.devices.iter().filter(|device| device.kind == kind) {
            let gives_way = |lease: &&Lease| lease.holder == Holder::External && lease.notice != NoticeClass::Firm;
            let holder = device.lease.as_ref().map(|id| leases.get(id).copied().filter(gives_way));
            let is_reachable = device.health == DeviceHealth::Healthy && device.promised_to.is_none() && holder != Some(None);
            *machines.entry(&device.node).or_default() += u32::from(is_reachable);
        }
        machines.into_values().max().unwrap_or(0).saturating_sub(self.outside[index])
    }

    /// What runs beside the team's leases, and what waits; unless nobody reports.
    pub async fn report(&mut self) {
        for index in 0..POOLS.len() {
            let surge = self.surge(index);
            if surge == Surge::Gap {
                continue;
            }
            let hours = self.site.now().seconds().div_euclid(3_600 * 3);
            let in_use = if index == OUTSIDE_POOL { u32::try_from(hours.rem_euclid(3)).expect("small") } else { 0 };
            let valid = surge != Surge::Outage;
            let good_for = (index == OUTSIDE_POOL).then_some(REPORT_LIFE);
            let new = NewReport { pool: pool(index), at: None, in_use, queued: self.queued[index], valid, good_for };
            self.site.compute().report_demand(&Actor::system(), &new).await.expect("heard");
            self.outside[index] = in_use;
        }
    }

    /// Device time that is used beside the team's leases and finds no free device.
    pub fn count_outside(&mut self, look: &Look) {
        let (of_pool, outside) = (pool(OUTSIDE_POOL), self.outside[OUTSIDE_POOL]);
        let is_free = |device: &&sublet_store::device::Device| {
            device.kind == of_pool.kind && device.health == DeviceHealth::Healthy && device.lease.is_none()
        };
        let free = u32::try_from(look.devices.iter().filter(is_free).count()).expect("small");
        self.figures.outside_millis += i64::from(outside) * TICK.millis();
        self.figures.outside_collided_millis += i64::from(outside.saturating_sub(free)) * TICK.millis();
    }

    /// Orders: each morning one, every third of which may break promises, some given up again.
    pub async fn order(&mut self, day: i64, hour: i64) {
        if hour == 10
            && day % 4 == 2
            && let Some(id) = self.orders.last()
        {
            // One that is over stays over.
            let cancelled = self.site.compute().cancel_reclaim(&Actor::system(), id, None).await;
            assert!(cancelled.as_ref().err().is_none_or(|error| error.code() == ErrorCode::Conflict), "{cancelled:?}");
        }
        if hour != 8 {
            return;
        }
        let index = usize::try_from(day).unwrap_or(0) % POOLS.len();
        let (promises, within) = match day % 3 {
            0 => (Promises::MayBreak, 90),
            1 => (Promises::Kept, 2_700),
            _ => (Promises::Kept, 3_900),
        };
        let shape = if day % 5 == 4 { ReclaimShape::WholeNodes } else { ReclaimShape::Anywhere };
        let units = if day % 5 == 4 { 4 } else { self.dice.number(2, 6) };
        let (now, of_pool) = (self.site.now(), pool(index));
        let by = now.plus(DurationMs::from_seconds(within));
        let need = Need { kind: of_pool.kind, units, site: Some(of_pool.site), shape, by, promises };
        let new = NewReclaim { need, until: Some(by.plus(DurationMs::from_hours(3))) };
        match self.site.compute().place_reclaim(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await {
            Ok(Answer::New(placed)) => self.orders.push(placed.reclaim.id),
            Ok(Answer::Replayed(text)) => panic!("a repeat: {text}"),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::CapacityUnavailable, "{error:?}");
                self.figures.orders_refused += 1;
            }
        }
    }
}

fn is_team(lease: &Lease, kind: &sublet_core::device::DeviceKind) -> bool {
    let is_of = matches!(&lease.sku, sublet_money::sku::SkuName::Device { device, .. } if device == kind);
    lease.holder == Holder::Internal && is_of
}

fn team_units(look: &Look, index: usize) -> u32 {
    let kind = pool(index).kind;
    let own = look.leases.iter().filter(|lease| is_team(lease, &kind));
    own.filter(|lease| matches!(lease.state, LeaseState::Pending | LeaseState::Active)).map(|lease| lease.units).sum()
}

/// At once, or when the notice of the last of those is over who have its devices.
fn got_of(look: &Look, lease: &Lease, now: Timestamp) -> Got {
    if lease.state != LeaseState::Pending {
        return Got::AtOnce;
    }
    let leases: BTreeMap<&LeaseId, &Lease> = look.leases.iter().map(|lease| (&lease.id, lease)).collect();
    let promised = look.devices.iter().filter(|device| device.promised_to.as_ref() == Some(&lease.id));
    let holders = promised.filter_map(|device| device.lease.as_ref().and_then(|id| leases.get(id)));
    let sold = |holder: &&Lease| match holder.notice.notice() {
        Some(notice) => notice,
        None => holder.ends_at.map_or(DurationMs::ZERO, |ends_at| ends_at.since(now)),
    };
    Got::Waits { lease: lease.id.clone(), notice: holders.map(sold).max().unwrap_or(DurationMs::ZERO) }
}
