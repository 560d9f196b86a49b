//! Whom to take capacity back from: the covering choice that both a team's lease and an order make.
//!
//! The longest notice that is touched is as short as possible; then the loss is as small as possible: units × time since
//! the last durable checkpoint (or the start) × price, with what a restart takes and about what is owed; then the number
//! of victims. Leases are of few sizes, and of each size only the cheapest that could cover the need by themselves can be
//! part of the best choice, so the exact covering knapsack is small.

use std::cmp::Reverse;

use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use crate::snapshot::{DeviceView, LeaseView};

/// What a workload loses besides its work: it is queued, placed, and loads its data again.
const RESTART: DurationMs = DurationMs::from_seconds(300);
const HOUR: DurationMs = DurationMs::from_hours(1);
/// Entries of the table beyond which the choice is greedy.
const TABLE_MAX: usize = 1 << 22;

/// How bad it is to end a lease at all; the order is that of eviction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tier {
    pub breaks_promise: bool,
    pub notice: NoticeClass,
}

/// A lease that may be ended, with its devices that this frees.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub lease: &'a LeaseView,
    pub deadline: Timestamp,
    pub tier: Tier,
    /// In nano-units × milliseconds of an hour.
    pub loss: i128,
    pub devices: Vec<&'a DeviceView>,
}

/// What ending a lease costs at that instant. A lease on which nothing runs loses nothing.
pub(crate) fn loss(lease: &LeaseView, tier: Tier, deadline: Timestamp) -> i128 {
    let Some(at_risk_since) = lease.stake.at_risk_since else { return 0 };
    let work = deadline.since(at_risk_since).millis().max(0);
    let millis = i128::from(work) + i128::from(RESTART.millis()) + i128::from(owed(lease, tier, deadline).millis());
    i128::from(lease.units) * i128::from(lease.stake.price.get()) * millis
}

/// About how much time is made good, by the usual rules.
fn owed(lease: &LeaseView, tier: Tier, deadline: Timestamp) -> DurationMs {
    let ran = DurationMs::from_millis(deadline.since(lease.starts_at).millis().max(0));
    match (tier.breaks_promise, tier.notice) {
        (_, NoticeClass::N0) | (true, NoticeClass::N2m) => ran.min(HOUR),
        (true, NoticeClass::N15m) => HOUR,
        (true, NoticeClass::N1h | NoticeClass::N24h | NoticeClass::Firm) => {
            let sold = tier.notice.notice().unwrap_or(DurationMs::ZERO).millis();
            DurationMs::from_millis(sold.saturating_add(sold / 4))
        }
        (false, NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h | NoticeClass::Firm) => {
            DurationMs::ZERO
        }
    }
}

/// The order in which equals are taken: the shortest notice, then the one that began last.
pub(crate) fn sort(candidates: &mut [Candidate<'_>]) {
    candidates.sort_by(|a, b| {
        let key = |one: &Candidate<'_>| (one.tier, Reverse(one.lease.starts_at));
        key(a).cmp(&key(b)).then_with(|| a.lease.id.cmp(&b.lease.id))
    });
}

/// A choice and what it comes to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Choice {
    pub loss: i128,
    pub count: usize,
    /// Places in the slice that was chosen from, ascending.
    pub chosen: Vec<usize>,
}

/// The least loss that frees so many units; `None` if all of them free fewer.
pub(crate) fn cover(candidates: &[&Candidate<'_>], needed: usize) -> Option<Choice> {
    if needed == 0 {
        return Some(Choice { loss: 0, count: 0, chosen: Vec::new() });
    }
    if candidates.iter().map(|one| one.devices.len()).sum::<usize>() < needed {
        return None;
    }
    let kept = cheapest_of_each_size(candidates, needed);
    let places = if kept.len().saturating_mul(needed) <= TABLE_MAX {
        exact(candidates, &kept, needed)
    } else {
        greedy(candidates, &kept, needed)
    };
    Some(choice_of(candidates, places))
}

/// As [`cover`] beyond the bound of its table.
#[cfg(test)]
pub(crate) fn cover_greedily(candidates: &[&Candidate<'_>], needed: usize) -> Option<Choice> {
    let is_enough = candidates.iter().map(|one| one.devices.len()).sum::<usize>() >= needed;
    is_enough.then(|| choice_of(candidates, greedy(candidates, &cheapest_of_each_size(candidates, needed), needed)))
}

fn choice_of(candidates: &[&Candidate<'_>], places: Vec<usize>) -> Choice {
    let loss = places.iter().map(|place| candidates[*place].loss).sum();
    Choice { loss, count: places.len(), chosen: places }
}

/// Of each size, only as many as cover the need by themselves can be of use: the cheapest, the first among equals.
fn cheapest_of_each_size(candidates: &[&Candidate<'_>], needed: usize) -> Vec<usize> {
    let size = |place: usize| candidates[place].devices.len().min(needed);
    let mut places: Vec<usize> = (0..candidates.len()).filter(|place| size(*place) > 0).collect();
    places.sort_unstable_by_key(|place| (size(*place), candidates[*place].loss, *place));
    let (mut kept, mut of_size) = (Vec::new(), (0, 0));
    for place in places {
        let size = size(place);
        of_size = if of_size.0 == size { (size, of_size.1 + 1) } else { (size, 1) };
        if of_size.1 <= needed.div_ceil(size) {
            kept.push(place);
        }
    }
    kept.sort_unstable();
    kept
}

/// The covering knapsack by its table: for each number of units, the least (loss, count) that frees at least as many.
fn exact(candidates: &[&Candidate<'_>], kept: &[usize], needed: usize) -> Vec<usize> {
    let mut best: Vec<Option<(i128, usize)>> = vec![None; needed + 1];
    best[0] = Some((0, 0));
    let mut taken = vec![false; kept.len() * (needed + 1)];
    for (row, place) in kept.iter().enumerate() {
        let (size, loss) = (candidates[*place].devices.len(), candidates[*place].loss);
        for units in (1..=needed).rev() {
            let Some((loss_before, count)) = best[units.saturating_sub(size)] else { continue };
            let with = (loss_before + loss, count + 1);
            if best[units].is_none_or(|without| with < without) {
                best[units] = Some(with);
                taken[row * (needed + 1) + units] = true;
            }
        }
    }
    let (mut places, mut units) = (Vec::new(), needed);
    for (row, place) in kept.iter().enumerate().rev() {
        if units > 0 && taken[row * (needed + 1) + units] {
            places.push(*place);
            units = units.saturating_sub(candidates[*place].devices.len());
        }
    }
    places.reverse();
    places
}

/// The least loss per unit first; then those without which it is still enough are dropped in reverse.
fn greedy(candidates: &[&Candidate<'_>], kept: &[usize], needed: usize) -> Vec<usize> {
    let size = |place: usize| candidates[place].devices.len();
    let per_unit = |a: &usize, b: &usize| {
        let widened = |place: usize| i128::try_from(size(place)).unwrap_or(i128::MAX);
        let (left, right) = (candidates[*a].loss.saturating_mul(widened(*b)), candidates[*b].loss.saturating_mul(widened(*a)));
        left.cmp(&right).then(a.cmp(b))
    };
    let mut order = kept.to_vec();
    order.sort_by(per_unit);
    let (mut places, mut freed) = (Vec::new(), 0);
    for place in order {
        if freed >= needed {
            break;
        }
        freed += size(place);
        places.push(place);
    }
    for index in (0..places.len()).rev() {
        let of_it = size(places[index]);
        if freed - of_it >= needed {
            freed -= of_it;
            places.remove(index);
        }
    }
    places.sort_unstable();
    places
}
