//! The replay: a policy sells a pool's idle units through its history, and everything is counted.
//!
//! At every step of the demand, and every [`DECISION_S`] within a long one, the policy sees what is and
//! says how many units each class may have; the replay brings the leases there. What has to be given
//! back is ended before anything is sold. Between decisions leases end and units return to the second.
//!
//! Deliberately absent: single buyers. Demand from outside takes every unit at once in any class,
//! and a holder accepts a longer notice when it is offered.

use sublet_core::notice::NoticeClass;

use super::demand::{Pool, Step};
use super::leases::{Counts, End, Leases};
use super::terms::{CLASSES, Terms, index};

/// Longest time between two decisions, in seconds.
pub const DECISION_S: i64 = 60;

/// How many units may be promised for at least the term of each class; never rising.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Levels(pub [u32; CLASSES]);

/// A rule of what to sell. It is told of every instant in order, and of nothing later.
pub trait SellingPolicy {
    /// What may be sold from now on. `step.at_s` is the instant of the decision.
    fn levels(&mut self, step: &Step) -> Levels;
    fn manner(&self) -> Manner;
    /// How many units may go on of what is promised for at least the term of each class; what is beyond is told.
    fn stays(&self, _: &Step, levels: &Levels) -> Levels {
        *levels
    }
    /// The most units that may be sold together, of a policy that sells within the levels of all shorter
    /// classes and counts units under notice until they are gone. None where a class's own level decides.
    fn sale_limit(&self, _: &Step) -> Option<u32> {
        None
    }
}

/// How a policy treats leases beyond its levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner {
    /// Breaks promises, shortest notice first, where internal demand would else wait.
    pub breaks: bool,
    /// Takes notices back when the unit is not needed after all: the holder goes on, in the longest
    /// class that the levels allow.
    pub keeps_on: bool,
    /// Offers holders a longer notice when the levels allow it.
    pub extends: bool,
    /// Leases go on while nothing is known of demand; else an outage ends them.
    pub outlasts: bool,
}

impl Manner {
    /// Sells, gives notice, and takes back when that is over.
    pub const PLAIN: Self = Self { breaks: false, keeps_on: false, extends: false, outlasts: false };
    pub const FULL: Self = Self { breaks: true, keeps_on: true, extends: true, outlasts: false };
}

/// What a replay counted in one pool, or the sum of several.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Seconds that were not skipped.
    pub valid_s: u128,
    /// Unit-seconds.
    pub idle_s: u128,
    pub internal_s: u128,
    /// Of the idle ones.
    pub sold_s: u128,
    pub class_s: [u128; CLASSES],
    /// Internal demand that found no free unit.
    pub collision_s: u128,
    pub episodes: u64,
    pub counts: [Counts; CLASSES],
    /// In seconds of list price and parts per million.
    pub revenue: u128,
    pub compensation: u128,
}

impl Tally {
    /// Sums over pools; time passes in all of them at once, so the longest counts.
    pub fn add(&mut self, other: &Self) {
        self.valid_s = self.valid_s.max(other.valid_s);
        self.idle_s += other.idle_s;
        self.internal_s += other.internal_s;
        self.sold_s += other.sold_s;
        self.collision_s += other.collision_s;
        self.episodes += other.episodes;
        self.revenue += other.revenue;
        self.compensation += other.compensation;
        for place in 0..CLASSES {
            self.class_s[place] += other.class_s[place];
            self.counts[place].sold += other.counts[place].sold;
            self.counts[place].extended += other.counts[place].extended;
            self.counts[place].evicted += other.counts[place].evicted;
            self.counts[place].broken += other.counts[place].broken;
        }
    }

    pub fn evictions(&self) -> u64 {
        self.counts.iter().map(|counts| counts.evicted).sum()
    }

    /// Counts what is so for a while, and answers whether internal demand collides in it.
    pub(super) fn count(&mut self, step: &Step, passing: &Passing, terms: &Terms) -> bool {
        if !step.valid {
            return false;
        }
        let seconds = u128::try_from(passing.seconds).unwrap_or(0);
        let total: u32 = passing.running.iter().sum();
        let collisions = (total + passing.returning).saturating_sub(step.idle()).min(step.in_use);
        self.valid_s += seconds;
        self.idle_s += seconds * u128::from(step.idle());
        self.internal_s += seconds * u128::from(step.in_use);
        self.sold_s += seconds * u128::from(total.min(step.idle()));
        self.collision_s += seconds * u128::from(collisions);
        self.episodes += u64::from(collisions > 0 && !passing.collided);
        for (place, units) in passing.running.iter().enumerate() {
            self.class_s[place] += seconds * u128::from(*units);
            self.revenue += seconds * u128::from(*units) * u128::from(terms.prices_ppm[place]);
        }
        collisions > 0
    }

    /// What is kept after what was owed; nothing where more was owed.
    pub fn value(&self) -> u128 {
        self.revenue.saturating_sub(self.compensation)
    }
}

/// What is so for some seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    pub(super) seconds: i64,
    /// Units that earn, by class.
    pub(super) running: [u32; CLASSES],
    /// Units that are being killed or cleaned.
    pub(super) returning: u32,
    /// Whether internal demand collided just before.
    pub(super) collided: bool,
}

/// What is so from an instant until the next one that is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment<'a> {
    pub at_s: i64,
    /// Units that earn, by class.
    pub running: [u32; CLASSES],
    /// What ended since the moment before, in order.
    pub ends: &'a [End],
    /// Jobs that started at this instant; none where nobody knows who buys.
    pub starts: &'a [Start],
}

/// A job that went to work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Its place among those that come within the history.
    pub job: usize,
    pub class: NoticeClass,
    pub units: u32,
}

/// Hears of every moment, in order.
pub type Watch<'a> = dyn FnMut(&Moment<'_>) + 'a;

/// Replays one pool.
pub fn replay(pool: &Pool, end_s: i64, terms: &Terms, policy: &mut dyn SellingPolicy, watch: &mut Watch<'_>) -> Tally {
    let mut run = Run { terms: *terms, leases: Leases::default(), tally: Tally::default(), collides: false };
    for (place, step) in pool.steps.iter().enumerate() {
        let until = pool.steps.get(place + 1).map_or(end_s, |next| next.at_s);
        let mut now_s = step.at_s;
        while now_s < until {
            let next = (now_s - now_s.rem_euclid(DECISION_S) + DECISION_S).min(until);
            run.decide(&Step { at_s: now_s, ..*step }, policy);
            run.pass(step, now_s, next, watch);
            now_s = next;
        }
    }
    run.tally.counts = run.leases.counts;
    run.tally.compensation = run.leases.compensation;
    run.tally
}

struct Run {
    terms: Terms,
    leases: Leases,
    tally: Tally,
    collides: bool,
}

impl Run {
    fn decide(&mut self, step: &Step, policy: &mut dyn SellingPolicy) {
        let now_s = step.at_s;
        let (levels, manner) = (policy.levels(step), policy.manner());
        if !step.valid {
            if manner.outlasts {
                self.leases.advance(now_s, &self.terms);
            } else {
                self.leases.lose_all();
            }
            return;
        }
        if manner.keeps_on {
            let beyond = self.leases.running_total().saturating_sub(levels.0[0].min(step.idle()));
            self.leases.keep_on_at_end(beyond, now_s);
        }
        self.leases.advance(now_s, &self.terms);
        let short = if manner.breaks { self.leases.running_total().saturating_sub(step.idle()) } else { 0 };
        self.leases.take_back(short, now_s, &self.terms);
        self.give_notices(&policy.stays(step, &levels), now_s);
        // Who is counted on to go, goes.
        let goes_s = if short > 0 { now_s + i64::from(self.terms.kill_s) } else { now_s };
        self.sell(step, &levels, (manner, goes_s), policy.sale_limit(step));
    }

    /// Longest class first: what is committed beyond what may stay is told of its end.
    fn give_notices(&mut self, stays: &Levels, now_s: i64) {
        for class in NoticeClass::ALL.into_iter().rev() {
            let beyond = self.leases.committed(class, now_s).saturating_sub(stays.0[index(class)]);
            self.leases.give_notice(class, beyond, now_s, &self.terms);
        }
    }

    /// Longest class first: notices are taken back, then shorter leases extended, then free units sold.
    fn sell(&mut self, step: &Step, levels: &Levels, (manner, goes_s): (Manner, i64), limit: Option<u32>) {
        let now_s = step.at_s;
        for class in NoticeClass::ALL.into_iter().rev() {
            let level = levels.0[index(class)];
            let mut missing = level.saturating_sub(self.leases.committed(class, now_s));
            for shorter in NoticeClass::ALL[..index(class)].iter().skip(1).filter(|_| limit.is_some()) {
                missing = missing.min(levels.0[index(*shorter)].saturating_sub(self.leases.committed(*shorter, now_s)));
            }
            if manner.keeps_on && class != NoticeClass::N0 && class != NoticeClass::Firm {
                missing -= self.leases.keep_on(class, missing, (now_s, goes_s));
            }
            if manner.extends {
                for shorter in NoticeClass::ALL[..index(class)].iter().rev() {
                    missing -= self.leases.extend(*shorter, class, missing, now_s);
                }
            }
            let occupied = self.leases.running_total() + self.leases.returning_total();
            let free = step.idle().saturating_sub(occupied);
            // Who keeps no notice back counts on leases under notice to go.
            let going = if manner.keeps_on || limit.is_some() { 0 } else { self.leases.noticed_total() };
            let allowed = levels.0[0].min(limit.unwrap_or(u32::MAX)).saturating_sub(self.leases.running_total() - going);
            self.leases.sell(class, missing.min(free).min(allowed), now_s);
        }
    }

    /// Counts what passes until the next decision, to the second.
    fn pass(&mut self, step: &Step, from_s: i64, to_s: i64, watch: &mut Watch<'_>) {
        let mut now_s = from_s;
        while now_s < to_s {
            let next = self.leases.next_event_s().filter(|event| *event > now_s).map_or(to_s, |event| event.min(to_s));
            let (running, returning) = (self.leases.running(), self.leases.returning_total());
            let passing = Passing { seconds: next - now_s, running, returning, collided: self.collides };
            self.collides = self.tally.count(step, &passing, &self.terms);
            watch(&Moment { at_s: now_s, running, ends: &self.leases.ends, starts: &[] });
            self.leases.ends.clear();
            if next < to_s {
                self.leases.advance(next, &self.terms);
            }
            now_s = next;
        }
    }
}
