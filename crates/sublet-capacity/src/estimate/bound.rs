//! The clairvoyant bound: what a seller who knows the whole future would earn.
//!
//! The hours that can be sold with a guaranteed life of `D` are the morphological opening of the idle
//! series by a window of `D` (erosion, then dilation; J. Serra, *Image Analysis and Mathematical
//! Morphology*, 1982). The tiers telescope: `Σ [p₀ F + Σ_j (p_j − p_{j−1}) open_Dj(F)]`. Both passes are
//! monotone deques, so it takes time linear in the rows.
//!
//! It is the best of all sales by level, in which the k-th idle unit carries a lease while there are k
//! idle units. A schedule that lets leases of a class begin and end at different times can exceed it
//! by the time in which they overlap; replays of the policies here do not.

use std::collections::VecDeque;

use sublet_core::notice::NoticeClass;

use super::demand::Pool;
use super::terms::{CLASSES, Terms, index, term_s};

/// Unit-seconds that can be sold at most.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bound {
    pub idle_s: u128,
    /// Of them those that can carry each class or a longer one.
    pub open_s: [u128; CLASSES],
    /// In seconds of list price and parts per million.
    pub value: u128,
}

impl Bound {
    /// Sums over pools.
    pub fn add(&mut self, other: &Self) {
        self.idle_s += other.idle_s;
        self.value += other.value;
        for (sum, part) in self.open_s.iter_mut().zip(other.open_s) {
            *sum += part;
        }
    }
}

/// A stretch of time with so many idle units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub from_s: i64,
    pub to_s: i64,
    pub idle: u32,
}

/// The bound of one pool; outages split it, since no lease lives through one.
pub fn bound(pool: &Pool, end_s: i64, terms: &Terms) -> Bound {
    let mut total = Bound::default();
    for run in runs(pool, end_s) {
        for class in NoticeClass::ALL {
            total.open_s[index(class)] += opened(&run, term_s(class));
        }
    }
    total.idle_s = total.open_s[0];
    let mut below = 0;
    for (open, price) in total.open_s.iter().zip(terms.prices_ppm) {
        total.value += open * u128::from(price.saturating_sub(below));
        below = price;
    }
    total
}

/// The idle series between outages, equal neighbours joined.
fn runs(pool: &Pool, end_s: i64) -> Vec<Vec<Stretch>> {
    let mut runs: Vec<Vec<Stretch>> = Vec::new();
    let mut goes_on = false;
    for (place, step) in pool.steps.iter().enumerate() {
        let to_s = pool.steps.get(place + 1).map_or(end_s, |next| next.at_s);
        if !step.valid {
            goes_on = false;
            continue;
        }
        let stretch = Stretch { from_s: step.at_s, to_s, idle: step.idle() };
        match runs.last_mut().filter(|_| goes_on) {
            Some(run) => match run.last_mut().filter(|last| last.idle == stretch.idle) {
                Some(last) => last.to_s = to_s,
                None => run.push(stretch),
            },
            None => runs.push(vec![stretch]),
        }
        goes_on = true;
    }
    runs
}

/// The opening of a pool's idle series by a window, in order; outages split it.
pub(super) fn openings(pool: &Pool, end_s: i64, window_s: i64) -> Vec<Stretch> {
    runs(pool, end_s).iter().flat_map(|run| opening(run, window_s)).collect()
}

/// Unit-seconds of the opening of a run by a window of `window_s`.
fn opened(run: &[Stretch], window_s: i64) -> u128 {
    let lasts = |stretch: &Stretch| u128::try_from(stretch.to_s - stretch.from_s).unwrap_or(0);
    opening(run, window_s).iter().map(|stretch| u128::from(stretch.idle) * lasts(stretch)).sum()
}

/// The opening of a run by a window of `window_s`.
///
/// Erosion at `t` is the least of `[t, t + window]`, so it changes where a stretch enters or leaves; the
/// dilation of that is the greatest of `[t − window, t]`. Both are step functions.
fn opening(run: &[Stretch], window_s: i64) -> Vec<Stretch> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Vec::new() };
    // Instants are whole seconds: a lease of no notice lives for one.
    let window_s = window_s.max(1);
    if last.to_s - first.from_s < window_s {
        return Vec::new();
    }
    let eroded = eroded(run, window_s);
    dilated(&eroded, window_s)
}

/// Steps of the erosion: the least idle units of `[t, t + window)` for `t` up to the run's end less the window.
fn eroded(run: &[Stretch], window_s: i64) -> Vec<Stretch> {
    let until = run.last().map_or(0, |last| last.to_s) - window_s;
    let mut minimum: VecDeque<&Stretch> = VecDeque::new();
    let mut entering = 0;
    let mut steps: Vec<Stretch> = Vec::new();
    let mut now = run.first().map_or(0, |first| first.from_s);
    loop {
        while run.get(entering).is_some_and(|stretch| stretch.from_s < now + window_s) {
            while minimum.back().is_some_and(|held| held.idle >= run[entering].idle) {
                minimum.pop_back();
            }
            minimum.push_back(&run[entering]);
            entering += 1;
        }
        while minimum.front().is_some_and(|held| held.to_s <= now) {
            minimum.pop_front();
        }
        let Some(least) = minimum.front() else { break };
        let enters = run.get(entering).map_or(i64::MAX, |stretch| stretch.from_s - window_s + 1);
        let next = least.to_s.min(enters);
        steps.push(Stretch { from_s: now, to_s: next.min(until + 1), idle: least.idle });
        if next > until {
            break;
        }
        now = next;
    }
    steps
}

/// The greatest erosion of `[t − window, t]`: every start within the window keeps `t`.
fn dilated(eroded: &[Stretch], window_s: i64) -> Vec<Stretch> {
    // A start at the last second s of a step covers [s, s + window): the step reaches to `to − 1 + window`.
    let reach = |stretch: &Stretch| stretch.to_s - 1 + window_s;
    let end = eroded.last().map_or(0, &reach);
    let mut greatest: VecDeque<&Stretch> = VecDeque::new();
    let mut entering = 0;
    let mut now = eroded.first().map_or(0, |first| first.from_s);
    let mut steps = Vec::new();
    while now < end {
        while eroded.get(entering).is_some_and(|stretch| stretch.from_s <= now) {
            while greatest.back().is_some_and(|held| held.idle <= eroded[entering].idle) {
                greatest.pop_back();
            }
            greatest.push_back(&eroded[entering]);
            entering += 1;
        }
        while greatest.front().is_some_and(|held| reach(held) <= now) {
            greatest.pop_front();
        }
        let Some(most) = greatest.front() else { break };
        let next = eroded.get(entering).map_or(end, |stretch| stretch.from_s).min(reach(most));
        steps.push(Stretch { from_s: now, to_s: next, idle: most.idle });
        now = next;
    }
    steps
}
