//! The coming hours of a pool: what leases and orders leave free at the beginning of each, and what the owner's forecast
//! allows to be promised then.
//!
//! It shows what is known now. A lease without a window stays, whatever its notice: nobody has taken it back. An order's
//! holds and the ends it has settled on are in it, and so are leases whose holders were told. Health, use outside and the
//! reserve rule stay as they are.
//!
//! Deliberately absent: promises. A quote decides again when it is asked for.

use std::collections::BTreeMap;

use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{DeviceId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use crate::curve::{Curve, Level, Pool, SellingMode};
use crate::estimate::terms::{CLASSES, index};
use crate::snapshot::{DeviceView, LeaseStage, LeaseView, Snapshot};

/// Longest that a calendar looks ahead, in hours.
pub const HOURS_MAX: usize = 14 * 24;
const HOUR_MICROS: i64 = 3_600_000_000;
/// With fewer healthy units than this a step would count them, and show when somebody's lease ends.
const STEPS_MIN: u32 = 8;

/// Where a pool's units are at the beginning of an hour. `owned = unhealthy + internal + sold + idle`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HourFigures {
    pub at: Timestamp,
    pub owned: u32,
    pub unhealthy: u32,
    /// In leases of the owner's teams, promised to one, or held for them by an order.
    pub internal: u32,
    /// In leases of customers, shortest notice first.
    pub sold: [u32; CLASSES],
    /// Free by the books, what is used outside among them.
    pub idle: u32,
    /// What the owner uses outside now.
    pub outside: u32,
    /// What the owner's reserve rule keeps of what is idle of the kind, at all sites together.
    pub kept: u32,
    /// What is idle, neither used outside nor kept, as far as the rule lets this site alone give it.
    pub free: u32,
    /// The most that the owner's own work needs until then, as the curve forecasts it; `None` where it says nothing.
    pub own_need_max: Option<u32>,
}

impl HourFigures {
    pub fn sold_total(&self) -> u32 {
        self.sold.iter().fold(0, |sum, units| sum.saturating_add(*units))
    }
}

/// Who has a device when.
#[derive(Clone, Copy)]
enum Use {
    Unhealthy,
    Internal,
    Sold(NoticeClass),
    Idle,
}

/// The hours of all pools of a kind, by site, from the hour that begins next on, at most [`HOURS_MAX`]. `held_until` says
/// of held devices when their order ends, if it does by itself.
pub fn calendars<'a>(
    snapshot: &'a Snapshot,
    held_until: &BTreeMap<DeviceId, Option<Timestamp>>,
    kind: &DeviceKind,
    hours: usize,
) -> BTreeMap<&'a SiteId, Vec<HourFigures>> {
    let empty = empty(snapshot.selling.at, hours.min(HOURS_MAX));
    let mut sites: BTreeMap<&SiteId, Vec<HourFigures>> = BTreeMap::new();
    for device in snapshot.devices.iter().filter(|device| device.kind == *kind) {
        let mut rest: &mut [HourFigures] = sites.entry(&device.site).or_insert_with(|| empty.clone());
        for (what, until) in uses(snapshot, held_until, device) {
            let here = until.map_or(rest.len(), |until| rest.partition_point(|hour| hour.at < until));
            let (now, later) = rest.split_at_mut(here);
            now.iter_mut().for_each(|hour| add(hour, what));
            rest = later;
        }
    }
    for (site, hours) in &mut sites {
        let pool = Pool { kind: kind.clone(), site: (*site).clone() };
        let view = snapshot.selling.pools.get(&pool).copied().unwrap_or_default();
        for hour in hours {
            let healthy = hour.owned.saturating_sub(hour.unhealthy);
            hour.outside = view.outside;
            let level = level_at(view.curve, hour.at.since(snapshot.selling.at));
            hour.own_need_max = level.map(|level| healthy.saturating_sub(level.units));
        }
    }
    for (place, _) in empty.iter().enumerate() {
        keep_reserve(snapshot, sites.values_mut().filter_map(|hours| hours.get_mut(place)).collect());
    }
    sites
}

fn empty(now: Timestamp, hours: usize) -> Vec<HourFigures> {
    let first = now.micros().div_euclid(HOUR_MICROS).saturating_add(1);
    let hours = i64::try_from(hours).unwrap_or(0);
    let at = |hour: i64| Timestamp::from_micros(first.saturating_add(hour).saturating_mul(HOUR_MICROS));
    (0..hours).map(|hour| HourFigures { at: at(hour), ..HourFigures::default() }).collect()
}

/// The reserve is of a kind as a whole: of one hour at all its sites.
fn keep_reserve(snapshot: &Snapshot, sites: Vec<&mut HourFigures>) {
    let sum = |of: fn(&HourFigures) -> u32| sites.iter().fold(0_u32, |sum, hour| sum.saturating_add(of(hour)));
    let (idle, outside) = (sum(|hour| hour.idle), sum(|hour| hour.outside));
    let reserve = snapshot.terms.reserve.units(sum(|hour| hour.owned.saturating_sub(hour.unhealthy)));
    let kept = reserve.saturating_sub(sum(|hour| hour.internal)).saturating_sub(outside).min(idle);
    let free = idle.saturating_sub(kept).saturating_sub(outside);
    for hour in sites {
        hour.kept = kept;
        hour.free = hour.idle.saturating_sub(hour.outside).min(free);
    }
}

/// What a device is used for, one after the other; the last has no end.
fn uses(
    snapshot: &Snapshot,
    held_until: &BTreeMap<DeviceId, Option<Timestamp>>,
    device: &DeviceView,
) -> Vec<(Use, Option<Timestamp>)> {
    if device.health != DeviceHealth::Healthy {
        return vec![(Use::Unhealthy, None)];
    }
    let mut uses = Vec::with_capacity(3);
    if let Some(id) = &device.used_by {
        uses.push(match snapshot.leases.get(id) {
            Some(lease) => (use_of(lease), end_of(lease)),
            // Somebody has it who is not in the snapshot.
            None => (Use::Internal, None),
        });
    }
    if let Some(id) = &device.promised_to {
        let next = snapshot.leases.get(id);
        uses.push((next.map_or(Use::Internal, use_of), next.and_then(end_of)));
    }
    if let Some(until) = held_until.get(&device.id) {
        uses.push((Use::Internal, *until));
    }
    uses.push((Use::Idle, None));
    uses
}

fn use_of(lease: &LeaseView) -> Use {
    match lease.holder {
        Holder::Internal => Use::Internal,
        Holder::External => Use::Sold(lease.notice),
    }
}

/// When a lease is over, as far as that is settled.
fn end_of(lease: &LeaseView) -> Option<Timestamp> {
    let told = match lease.stage {
        LeaseStage::Ending { deadline, .. } => Some(deadline),
        LeaseStage::Pending | LeaseStage::Active => None,
    };
    [told, lease.stake.ordered.map(|ordered| ordered.deadline), lease.ends_at].into_iter().flatten().min()
}

fn add(hour: &mut HourFigures, what: Use) {
    hour.owned += 1;
    match what {
        Use::Unhealthy => hour.unhealthy += 1,
        Use::Internal => hour.internal += 1,
        Use::Sold(notice) => hour.sold[index(notice)] += 1,
        Use::Idle => hour.idle += 1,
    }
}

/// The level of the shortest class whose term reaches so far ahead: what the owner leaves free all that time.
fn level_at(curve: Curve, ahead: DurationMs) -> Option<Level> {
    let Curve::Fresh(levels) = curve else { return None };
    let class = NoticeClass::ALL.into_iter().find(|class| class.minimum_term() >= ahead)?;
    Some(levels[index(class)])
}

/// How much of a pool could be leased, in steps that do not count anybody's units.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bucket {
    /// Too far ahead for what is known of the owner's demand.
    Unknown,
    None,
    /// Up to a quarter of what is healthy; of a pool of fewer than eight whatever there is.
    Low,
    /// Up to a half.
    Medium,
    High,
}

impl Bucket {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// How much could be leased at a notice from the beginning of each hour on, as far as is known now. Under a curve the
/// owner has to leave it free until the class's term from then is over.
pub fn buckets(snapshot: &Snapshot, pool: &Pool, hours: &[HourFigures], (holder, notice): (Holder, NoticeClass)) -> Vec<Bucket> {
    let view = snapshot.selling.pools.get(pool).copied().unwrap_or_default();
    let bucket = |hour: &HourFigures| {
        let healthy = hour.owned.saturating_sub(hour.unhealthy);
        let units = match (holder, snapshot.selling.mode) {
            // The owner's teams are bound by no rule.
            (Holder::Internal, _) => hour.idle,
            (Holder::External, SellingMode::Nothing) => 0,
            (Holder::External, SellingMode::Static | SellingMode::Shadow) => hour.free,
            (Holder::External, SellingMode::Learned) => {
                let ahead = hour.at.since(snapshot.selling.at);
                let term = notice.minimum_term();
                let until = DurationMs::from_millis(ahead.millis().saturating_add(term.millis()));
                // Firm leases have no longer class whose forecast would do: theirs holds while the hour itself is within it.
                let until = if notice == NoticeClass::Firm && ahead <= term { term } else { until };
                let Some(level) = level_at(view.curve, until) else {
                    return if matches!(view.curve, Curve::Fresh(_)) { Bucket::Unknown } else { Bucket::None };
                };
                hour.free.min(level.units.saturating_sub(hour.sold_total()))
            }
        };
        let is_small = holder == Holder::External && healthy < STEPS_MIN;
        match (u64::from(units) * 4, u64::from(healthy)) {
            (0, _) => Bucket::None,
            _ if is_small => Bucket::Low,
            (quadruple, healthy) if quadruple <= healthy => Bucket::Low,
            (quadruple, healthy) if quadruple <= 2 * healthy => Bucket::Medium,
            _ => Bucket::High,
        }
    };
    hours.iter().map(bucket).collect()
}

#[cfg(test)]
#[path = "hourly_tests.rs"]
mod tests;
