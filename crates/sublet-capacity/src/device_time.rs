//! What every moment of a fleet was: each in exactly one class.
//!
//! Invariants: the classes of a device add up to the time it was owned, whatever is known of it; what nothing is known of
//! is [`TimeClass::Unknown`]. Use outside is taken out of idle time, so a pool's classes add up as well.

use std::collections::BTreeMap;
use std::fmt;

use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use crate::estimate::demand::Step;

/// Demand that only falls is written down this much later at most.
const FALL_IS_WRITTEN_WITHIN: DurationMs = DurationMs::from_seconds(61);

/// What a device was for some time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimeClass {
    /// A workload of one of the owner's teams ran.
    OwnUse,
    /// The owner used it outside. Known of pools, not of devices.
    OutsideUse,
    /// A customer's workload ran on a lease with this notice.
    Sold(NoticeClass),
    /// A customer's lease had it, or was promised it, and nothing ran.
    Held,
    /// It was taken from one lease before it went to the next.
    Drained,
    /// A lease of the owner's team had it or was promised it and nothing ran, or an order held it for them.
    Reserved,
    Idle,
    /// Kept out of sale, or not reachable.
    Unhealthy,
    /// Nothing is known.
    Unknown,
}

impl TimeClass {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OwnUse => "own_use",
            Self::OutsideUse => "outside_use",
            Self::Sold(NoticeClass::N0) => "sold_n0",
            Self::Sold(NoticeClass::N2m) => "sold_n2m",
            Self::Sold(NoticeClass::N15m) => "sold_n15m",
            Self::Sold(NoticeClass::N1h) => "sold_n1h",
            Self::Sold(NoticeClass::N24h) => "sold_n24h",
            Self::Sold(NoticeClass::Firm) => "sold_firm",
            Self::Held => "held",
            Self::Drained => "drained",
            Self::Reserved => "reserved",
            Self::Idle => "idle",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for TimeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A half-open stretch of time. One that ends before it begins is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Stretch {
    pub fn micros(self) -> i64 {
        self.until.micros().saturating_sub(self.from.micros()).max(0)
    }
}

/// Time by class, in device-microseconds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClassTimes(BTreeMap<TimeClass, i64>);

impl ClassTimes {
    pub fn add(&mut self, class: TimeClass, micros: i64) {
        if micros > 0 {
            let known = self.0.entry(class).or_default();
            *known = known.saturating_add(micros);
        }
    }
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(class, micros)| self.add(class, micros));
    }
    pub fn of(&self, class: TimeClass) -> i64 {
        self.0.get(&class).copied().unwrap_or(0)
    }
    pub fn iter(&self) -> impl Iterator<Item = (TimeClass, i64)> {
        self.0.iter().map(|(class, micros)| (*class, *micros))
    }
    /// All of it: what was owned.
    pub fn owned(&self) -> i64 {
        self.0.values().fold(0, |sum, micros| sum.saturating_add(*micros))
    }
    /// By the owner's own work, inside and outside.
    pub fn own(&self) -> i64 {
        self.of(TimeClass::OwnUse).saturating_add(self.of(TimeClass::OutsideUse))
    }
    pub fn sold(&self) -> i64 {
        NoticeClass::ALL.into_iter().fold(0, |sum, notice| sum.saturating_add(self.of(TimeClass::Sold(notice))))
    }
    /// Own use over what was owned, in thousandths, rounded down; `None` where nothing was owned.
    pub fn before_per_mille(&self) -> Option<i64> {
        self.share(self.own())
    }
    /// Own use and what was sold over what was owned.
    pub fn after_per_mille(&self) -> Option<i64> {
        self.share(self.own().saturating_add(self.sold()))
    }
    fn share(&self, part: i64) -> Option<i64> {
        let share = (i128::from(part) * 1_000).checked_div(i128::from(self.owned()))?;
        i64::try_from(share).ok()
    }
    /// Takes use outside out of idle time, as far as there is some.
    pub fn take_outside(&mut self, micros: i64) {
        let taken = micros.clamp(0, self.of(TimeClass::Idle));
        self.add(TimeClass::OutsideUse, taken);
        if let Some(idle) = self.0.get_mut(&TimeClass::Idle) {
            *idle -= taken;
        }
    }
}

/// Cuts a stretch into parts, each in one class: where parts overlap the earlier one holds, and what none covers is `rest`.
/// The parts are in the order in which they begin.
pub fn partition(
    whole: Stretch,
    rest: TimeClass,
    parts: impl IntoIterator<Item = (TimeClass, Stretch)>,
) -> Vec<(TimeClass, Stretch)> {
    let (mut cut, mut at) = (Vec::new(), whole.from);
    let mut put = |class, from, until| {
        if from < until {
            cut.push((class, Stretch { from, until }));
        }
    };
    for (class, part) in parts {
        let from = part.from.max(at).min(whole.until.max(at));
        let until = part.until.min(whole.until).max(from);
        put(rest, at, from);
        put(class, from, until);
        at = until;
    }
    put(rest, at, whole.until);
    cut
}

/// Units for some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Units {
    pub count: u32,
    pub when: Stretch,
}

/// What a pool's use outside comes to, in device-microseconds: at each instant the recorded demand of its owner less what
/// Sublet itself gave to the owner's teams, and no more than was idle. `idle` and `own` are in any order, `demand` is in
/// order and holds until `until`.
pub fn outside_use(idle: &[Stretch], own: &[Units], demand: &[Step], until: Timestamp) -> i64 {
    enum Change {
        Idle(i64),
        Own(i64),
        Demand(i64),
    }
    let mut changes: Vec<(Timestamp, Change)> = Vec::with_capacity(2 * (idle.len() + own.len()) + demand.len());
    for stretch in idle {
        changes.extend([(stretch.from, Change::Idle(1)), (stretch.until.max(stretch.from), Change::Idle(-1))]);
    }
    for Units { count, when } in own {
        let end = when.until.max(when.from).plus(FALL_IS_WRITTEN_WITHIN);
        changes.extend([(when.from, Change::Own(i64::from(*count))), (end, Change::Own(-i64::from(*count)))]);
    }
    for step in demand {
        let in_use = if step.valid { i64::from(step.in_use) } else { 0 };
        changes.push((Timestamp::from_seconds(step.at_s), Change::Demand(in_use)));
    }
    changes.sort_by_key(|(at, _)| *at);
    let (mut idle, mut own, mut in_use) = (0_i64, 0_i64, 0_i64);
    let (mut sum, mut since) = (0_i64, None::<Timestamp>);
    for (at, change) in changes {
        let at = at.min(until);
        let outside = in_use.saturating_sub(own).clamp(0, idle.max(0));
        let stretch = Stretch { from: since.unwrap_or(at), until: at };
        sum = sum.saturating_add(outside.saturating_mul(stretch.micros()));
        since = Some(at);
        match change {
            Change::Idle(more) => idle += more,
            Change::Own(more) => own += more,
            Change::Demand(now) => in_use = now,
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stretch(from: i64, until: i64) -> Stretch {
        Stretch { from: Timestamp::from_seconds(from), until: Timestamp::from_seconds(until) }
    }

    fn step(at_s: i64, in_use: u32, valid: bool) -> Step {
        Step { at_s, capacity: 10, in_use, queued: 0, valid }
    }

    const CLASSES: [TimeClass; 6] = [
        TimeClass::OwnUse,
        TimeClass::Sold(NoticeClass::N0),
        TimeClass::Sold(NoticeClass::Firm),
        TimeClass::Idle,
        TimeClass::Unhealthy,
        TimeClass::Drained,
    ];

    #[test]
    fn what_no_span_covers_is_unknown_and_the_earlier_of_two_holds() {
        let spans = [(TimeClass::Idle, stretch(-5, 2)), (TimeClass::OwnUse, stretch(4, 8)), (TimeClass::Idle, stretch(6, 99))];
        let cut = partition(stretch(0, 10), TimeClass::Unknown, spans);
        let shown: Vec<_> = cut.iter().map(|(class, part)| (class.as_str(), part.from.seconds(), part.until.seconds())).collect();
        assert_eq!(shown, [("idle", 0, 2), ("unknown", 2, 4), ("own_use", 4, 8), ("idle", 8, 10)]);
    }

    #[test]
    fn outside_use_is_what_demand_leaves_after_leases_of_teams_and_never_more_than_is_idle() {
        let idle = [stretch(0, 1_000), stretch(0, 1_000), stretch(0, 500)];
        let demand = [step(0, 4, true), step(600, 4, false), step(800, 1, true)];
        // A lease of the owner's teams has two units until 100, and they count for a minute more.
        let own = [Units { count: 2, when: stretch(0, 100) }];
        let found = outside_use(&idle, &own, &demand, Timestamp::from_seconds(1_000));
        let expected = 2 * 161 + 3 * (500 - 161) + 2 * 100 + 200;
        assert_eq!(found, expected * 1_000_000);
        assert_eq!(outside_use(&idle, &own, &[], Timestamp::from_seconds(1_000)), 0);
    }

    #[test]
    fn shares_are_of_what_was_owned() {
        let mut times = ClassTimes::default();
        for (class, micros) in [(TimeClass::OwnUse, 300), (TimeClass::Sold(NoticeClass::N1h), 400), (TimeClass::Idle, 200)] {
            times.add(class, micros);
        }
        times.add(TimeClass::Unhealthy, 100);
        assert_eq!((times.before_per_mille(), times.after_per_mille()), (Some(300), Some(700)));
        times.take_outside(500);
        assert_eq!((times.of(TimeClass::Idle), times.owned(), times.before_per_mille()), (0, 1_000, Some(500)));
        assert_eq!(ClassTimes::default().before_per_mille(), None);
    }

    proptest! {
        #[test]
        fn every_moment_of_a_device_is_in_exactly_one_class(
            length in 0_i64..1_000,
            spans in prop::collection::vec((0_usize..6, -200_i64..1_200, -50_i64..400), 0..40),
            outside in -10_i64..2_000,
        ) {
            let spans = spans.into_iter().map(|(class, from, long)| (CLASSES[class], stretch(from, from + long)));
            let mut spans: Vec<_> = spans.collect();
            spans.sort_by_key(|(_, part)| part.from);
            let whole = stretch(0, length);
            let cut = partition(whole, TimeClass::Unknown, spans);
            let mut at = whole.from;
            for (_, part) in &cut {
                prop_assert!(part.from == at && part.until > part.from);
                at = part.until;
            }
            prop_assert_eq!(at, whole.until);
            let mut times = ClassTimes::default();
            cut.iter().for_each(|(class, part)| times.add(*class, part.micros()));
            prop_assert_eq!(times.owned(), whole.micros());
            times.take_outside(outside * 1_000_000);
            prop_assert_eq!(times.owned(), whole.micros());
            prop_assert!(times.iter().all(|(_, micros)| micros >= 0));
        }
    }
}
