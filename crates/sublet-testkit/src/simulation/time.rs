//! Time: it passes in steps from milliseconds to days, over month ends and clock changes, and now
//! and then a clock is set back a little.

use sublet_core::{DurationMs, Timestamp};
use sublet_money::period::BillingCalendar;

use super::Simulation;
use crate::clock::START;

/// A day, for noting the months that are passed.
const DAY: DurationMs = DurationMs::from_hours(24);

impl Simulation {
    pub(super) fn pass_time(&mut self) {
        let by = match self.rng.below(100) {
            0..=54 => DurationMs::from_millis(self.number(1, 30_000)),
            55..=79 => DurationMs::from_seconds(self.number(30, 600)),
            80..=89 => DurationMs::from_seconds(self.number(600, 4 * 3_600)),
            90..=91 => DurationMs::from_hours(self.number(4, 40)),
            92..=94 => return self.turn_a_month(),
            95 => DurationMs::from_hours(self.number(24, 24 * 12)),
            _ => return self.set_back(),
        };
        self.advance(by);
        if !self.chance(4) {
            self.runner.beat();
        }
        self.did("time passes");
    }

    /// Somebody's month ends, or has just ended, or can have its invoice.
    fn turn_a_month(&mut self) {
        let (now, zone) = (self.now(), self.pick(&self.tenants).expect("a tenant").zone);
        let month = BillingCalendar::new(zone).expect("a time zone").period_at(now).expect("a month");
        let at = month.interval.ends_at.plus(DurationMs::from_seconds(*self.pick(&[-1, 0, 1, 3_600]).expect("one")));
        self.advance(at.since(now).max(DurationMs::ZERO));
        self.did("a month turns");
    }

    /// A clock that is set right by some milliseconds to a minute.
    fn set_back(&mut self) {
        let earlier = self.now().minus(DurationMs::from_millis(self.number(1, 60_000)));
        self.clock.set(earlier.max(START));
        self.did("the clock is set back");
    }

    pub(super) fn advance(&mut self, by: DurationMs) {
        let (from, to) = (self.now(), self.now().plus(by));
        self.clock.set(to);
        self.note_periods(from, to);
    }

    /// Every month that any tenant can be charged in.
    pub(super) fn note_periods(&mut self, from: Timestamp, to: Timestamp) {
        for tenant in &mut self.tenants {
            let calendar = BillingCalendar::new(tenant.zone).expect("a time zone");
            let mut at = from;
            while at < to {
                tenant.periods.insert(calendar.period_at(at).expect("a month").key);
                at = at.plus(DAY);
            }
            tenant.periods.insert(calendar.period_at(to).expect("a month").key);
        }
    }
}
