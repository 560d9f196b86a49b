//! What taking a lease back costs, and the cheapest leases that free enough: the covering choice that a team's lease and
//! an order make alike.
//!
//! The longest notice that is touched is as short as possible; then the loss is as small as possible: units × time since
//! the last durable checkpoint (or the start) × price, with what a restart takes and about what is owed; then the number
//! of victims. Of one notice, who would have run for less than a restart takes is taken last: else who has just begun,
//! and so lost least, would be taken again and again. Leases are of few sizes, and of each size only the cheapest that could cover the need by themselves can be
//! part of the best choice, so the exact covering knapsack is small.

use std::collections::BTreeMap;

use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use crate::index::Standing;

/// What a workload loses besides its work: it is queued, placed, and loads its data again.
const RESTART: DurationMs = DurationMs::from_seconds(300);
/// Who ran for less is taken after all others of its notice.
const RUN_MIN: DurationMs = RESTART;
const HOUR: DurationMs = DurationMs::from_hours(1);
/// Entries of the table beyond which the choice is greedy.
const TABLE_MAX: usize = 1 << 20;

/// How bad it is to end a lease at all; the order is that of eviction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tier {
    pub breaks_promise: bool,
    pub notice: NoticeClass,
    /// It would have run for less than [`RUN_MIN`].
    pub is_young: bool,
}

impl Tier {
    pub fn new(lease: &Standing, breaks_promise: bool, deadline: Timestamp) -> Self {
        let is_young = lease.stake.at_risk_since.is_some() && deadline.since(lease.starts_at) < RUN_MIN;
        Self { breaks_promise, notice: lease.notice, is_young }
    }
}

/// What ending a lease costs at that instant, in nano-units × milliseconds of an hour. A lease on which nothing runs loses
/// nothing.
pub(crate) fn loss(lease: &Standing, tier: Tier, deadline: Timestamp) -> i128 {
    let Some(at_risk_since) = lease.stake.at_risk_since else { return 0 };
    let work = deadline.since(at_risk_since).millis().max(0);
    let millis = work.saturating_add(RESTART.millis()).saturating_add(owed(lease, tier, deadline).millis());
    let per_milli = i128::from(lease.units) * i128::from(lease.stake.price.get());
    per_milli.saturating_mul(i128::from(millis))
}

/// About how much time is made good, by the usual rules.
fn owed(lease: &Standing, tier: Tier, deadline: Timestamp) -> DurationMs {
    match (tier.breaks_promise, tier.notice) {
        (_, NoticeClass::N0) | (true, NoticeClass::N2m) => {
            DurationMs::from_millis(deadline.since(lease.starts_at).millis().clamp(0, HOUR.millis()))
        }
        (true, NoticeClass::N15m) => HOUR,
        (true, NoticeClass::N1h | NoticeClass::N24h | NoticeClass::Firm) => {
            let sold = tier.notice.notice().unwrap_or(DurationMs::ZERO).millis();
            DurationMs::from_millis(sold.saturating_add(sold.div_euclid(4)))
        }
        (false, NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h | NoticeClass::Firm) => {
            DurationMs::ZERO
        }
    }
}

/// Something that may be taken: so many units come with it, at a loss that is not negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub units: usize,
    pub loss: i128,
}

/// A choice and what it comes to; the order is that of preference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Choice {
    pub loss: i128,
    pub count: usize,
    /// Places among the items, ascending.
    pub chosen: Vec<usize>,
}

/// The least loss that frees so many units; `None` if all of them free fewer.
pub(crate) fn cover(items: &[Item], needed: usize) -> Option<Choice> {
    if needed == 0 {
        return Some(Choice::default());
    }
    if items.iter().map(|item| item.units).sum::<usize>() < needed {
        return None;
    }
    let kept = cheapest_of_each_size(items, needed);
    let is_small = kept.len().saturating_mul(needed) <= TABLE_MAX;
    Some(choice_of(items, if is_small { exact(items, &kept, needed) } else { greedy(items, kept, needed) }))
}

/// As [`cover`] beyond the bound of its table.
#[cfg(test)]
pub(crate) fn cover_greedily(items: &[Item], needed: usize) -> Option<Choice> {
    let is_enough = items.iter().map(|item| item.units).sum::<usize>() >= needed;
    is_enough.then(|| choice_of(items, greedy(items, cheapest_of_each_size(items, needed), needed)))
}

fn choice_of(items: &[Item], chosen: Vec<usize>) -> Choice {
    Choice { loss: chosen.iter().map(|place| items[*place].loss).sum(), count: chosen.len(), chosen }
}

/// Of each size, only as many as cover the need by themselves can be of use: the cheapest, the first among equals.
fn cheapest_of_each_size(items: &[Item], needed: usize) -> Vec<usize> {
    let mut sizes: BTreeMap<usize, Vec<(i128, usize)>> = BTreeMap::new();
    for (place, item) in items.iter().enumerate().filter(|(_, item)| item.units > 0) {
        sizes.entry(item.units.min(needed)).or_default().push((item.loss, place));
    }
    let mut kept = Vec::new();
    for (size, mut places) in sizes {
        let enough = needed.div_ceil(size);
        if places.len() > enough {
            places.select_nth_unstable(enough);
            places.truncate(enough);
        }
        kept.extend(places.into_iter().map(|(_, place)| place));
    }
    kept.sort_unstable();
    kept
}

/// The covering knapsack by its table: for each number of units, the least (loss, count) that frees at least as many.
fn exact(items: &[Item], kept: &[usize], needed: usize) -> Vec<usize> {
    let width = needed + 1;
    let mut best: Vec<Option<(i128, usize)>> = vec![None; width];
    best[0] = Some((0, 0));
    let mut taken = vec![false; kept.len() * width];
    for (row, place) in kept.iter().enumerate() {
        let Item { units: size, loss } = items[*place];
        for units in (1..=needed).rev() {
            let Some((loss_before, count)) = best[units.saturating_sub(size)] else { continue };
            let with = (loss_before + loss, count + 1);
            if best[units].is_none_or(|without| with < without) {
                best[units] = Some(with);
                taken[row * width + units] = true;
            }
        }
    }
    let (mut places, mut units) = (Vec::new(), needed);
    for (row, place) in kept.iter().enumerate().rev() {
        if units > 0 && taken[row * width + units] {
            places.push(*place);
            units = units.saturating_sub(items[*place].units);
        }
    }
    places.reverse();
    places
}

/// The least loss per unit first; then those without which it is still enough are dropped in reverse.
fn greedy(items: &[Item], kept: Vec<usize>, needed: usize) -> Vec<usize> {
    let mut order = kept;
    order.sort_by(|a, b| is_dearer(items[*a], items[*b]).then(a.cmp(b)));
    let (mut places, mut freed) = (Vec::new(), 0);
    for place in order {
        if freed >= needed {
            break;
        }
        freed += items[place].units;
        places.push(place);
    }
    for index in (0..places.len()).rev() {
        let of_it = items[places[index]].units;
        if freed - of_it >= needed {
            freed -= of_it;
            places.remove(index);
        }
    }
    places.sort_unstable();
    places
}

/// Compares losses per unit, without a division.
pub(crate) fn is_dearer(one: Item, other: Item) -> std::cmp::Ordering {
    let widened = |units: usize| i128::try_from(units).unwrap_or(i128::MAX);
    one.loss.saturating_mul(widened(other.units)).cmp(&other.loss.saturating_mul(widened(one.units)))
}
