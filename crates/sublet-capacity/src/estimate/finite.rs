//! A replay in which those who would buy are known: jobs that come, wait, run and are done.
//!
//! The policy, the notices and the counting are those of [`super::replay`]; instead of demand that takes
//! every unit, each lease is a job's. A job takes all its units at once, in the class of the longest
//! notice that is not longer than it still runs and that has room, as every shorter one has; who came first
//! is asked first, and who does not fit lets others pass. Told or not, a job gives all its units back together.
//!
//! Invariants: the past only; a job is waiting, running, done or gone; what it ran is useful, lost or going on.
//!
//! Deliberately absent: jobs that buy `firm` windows, and jobs over several pools.

use std::collections::BTreeSet;

use sublet_core::notice::NoticeClass;

use super::demand::{Pool, Step};
use super::jobs::Job;
use super::leases::{End, EndKind};
use super::queue::Queue;
use super::replay::{DECISION_S, Levels, Manner, Moment, Passing, SellingPolicy, Start, Tally, Watch};
use super::running::{Held, Running};
use super::terms::{CLASSES, Terms, index, term_s};

/// Classes that jobs buy, longest notice first.
const BOUGHT: [NoticeClass; 5] = [NoticeClass::N24h, NoticeClass::N1h, NoticeClass::N15m, NoticeClass::N2m, NoticeClass::N0];

/// Who would buy, and what an eviction leaves of their work.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a> {
    /// In the order of their arrival.
    pub jobs: &'a [Job],
    /// How often a job saves its work; never if none.
    pub checkpoint_s: Option<i64>,
}

/// What became of the jobs. Times are unit-seconds unless said.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct JobTally {
    pub arrived: u64,
    pub finished: u64,
    /// Gone elsewhere after they had waited as long as they would.
    pub gone: u64,
    pub waiting: u64,
    pub running: u64,
    /// Ended before they were done, by the owner or by an outage.
    pub interrupted: u64,
    pub asked_s: u128,
    /// Work that is done, or saved.
    pub useful_s: u128,
    /// Work that was done and has to be done again, or was for nothing.
    pub lost_s: u128,
    /// Work since the last start of those that run at the end.
    pub going_on_s: u128,
    /// Seconds from arrival to the first start, of all that ever started.
    pub waits_s: Vec<i64>,
}

/// What is known of a job that has come.
#[derive(Clone, Copy, Debug)]
struct State {
    left_s: i64,
    saved_s: i64,
    waits_since_s: i64,
    has_started: bool,
}

struct Run<'a> {
    terms: Terms,
    outside: Outside<'a>,
    states: Vec<State>,
    queue: Queue,
    /// When those that wait leave.
    leaving: BTreeSet<(i64, usize)>,
    running: Running,
    ends: Vec<End>,
    starts: Vec<Start>,
    tally: Tally,
    counts: JobTally,
    collides: bool,
}

/// Replays one pool for these jobs.
pub fn replay_jobs(
    pool: &Pool,
    end_s: i64,
    (terms, outside): (&Terms, Outside<'_>),
    policy: &mut dyn SellingPolicy,
    watch: &mut Watch<'_>,
) -> (Tally, JobTally) {
    let mut run = Run {
        terms: *terms,
        outside,
        states: Vec::new(),
        queue: Queue::default(),
        leaving: BTreeSet::new(),
        running: Running::default(),
        ends: Vec::new(),
        starts: Vec::new(),
        tally: Tally::default(),
        counts: JobTally::default(),
        collides: false,
    };
    run.skip_before(pool.steps.first().map_or(end_s, |step| step.at_s));
    for (place, step) in pool.steps.iter().enumerate() {
        let until = pool.steps.get(place + 1).map_or(end_s, |next| next.at_s);
        let mut now_s = step.at_s;
        while now_s < until {
            let next = (now_s - now_s.rem_euclid(DECISION_S) + DECISION_S).min(until);
            run.decide(&Step { at_s: now_s, ..*step }, policy);
            run.pass(step, (now_s, next), watch);
            now_s = next;
        }
    }
    run.finish(end_s)
}

impl Run<'_> {
    /// Who came before the history begins is not there.
    fn skip_before(&mut self, start_s: i64) {
        let before = self.outside.jobs.partition_point(|job| job.arrival_s < start_s);
        self.outside.jobs = &self.outside.jobs[before..];
    }

    fn decide(&mut self, step: &Step, policy: &mut dyn SellingPolicy) {
        let now_s = step.at_s;
        let (levels, manner) = (policy.levels(step), policy.manner());
        self.arrive(now_s);
        if !step.valid {
            // Who is done by then is done.
            self.advance(now_s);
            for held in self.running.lose_all() {
                self.stop(&held, now_s, false);
            }
            return;
        }
        if manner.keeps_on {
            let beyond = self.running.total().saturating_sub(levels.0[0].min(step.idle()));
            self.running.keep_on_at_end(beyond, now_s);
        }
        self.advance(now_s);
        let short = if manner.breaks { self.running.total().saturating_sub(step.idle()) } else { 0 };
        if short > 0 {
            for held in self.running.displaced(short, now_s, &self.terms) {
                self.take_back(&held, now_s);
            }
        }
        self.give_notices(&levels, now_s);
        if manner.keeps_on || manner.extends {
            // Who is counted on to go, goes.
            let goes_s = if short > 0 { now_s + i64::from(self.terms.kill_s) } else { now_s };
            self.change_classes(&levels, manner, (now_s, goes_s));
        }
        self.sell(step, &levels);
    }

    fn arrive(&mut self, now_s: i64) {
        while let Some(job) = self.outside.jobs.get(self.states.len()).filter(|job| job.arrival_s <= now_s) {
            let place = self.states.len();
            self.states.push(State { left_s: job.duration_s, saved_s: 0, waits_since_s: job.arrival_s, has_started: false });
            self.counts.arrived += 1;
            self.counts.asked_s += unit_seconds(job.units, job.duration_s);
            self.wait(place, job.arrival_s);
        }
        while let Some((leaves_s, place)) = self.leaving.first().copied().filter(|(leaves_s, _)| *leaves_s < now_s) {
            self.leaving.remove(&(leaves_s, place));
            self.queue.remove(place, self.outside.jobs[place].units);
            self.counts.gone += 1;
            // What it had saved is of no use to it.
            let wasted = unit_seconds(self.outside.jobs[place].units, self.states[place].saved_s);
            self.counts.useful_s -= wasted;
            self.counts.lost_s += wasted;
        }
    }

    fn wait(&mut self, place: usize, since_s: i64) {
        self.states[place].waits_since_s = since_s;
        self.queue.insert(place, self.outside.jobs[place].units);
        if let Some(patience_s) = self.outside.jobs[place].patience_s {
            self.leaving.insert((since_s + patience_s, place));
        }
    }

    fn give_notices(&mut self, levels: &Levels, now_s: i64) {
        for class in NoticeClass::ALL.into_iter().rev() {
            let beyond = self.running.committed(class, now_s).saturating_sub(levels.0[index(class)]);
            for held in self.running.youngest(class, beyond) {
                if class == NoticeClass::N0 {
                    self.take_back(&held, now_s);
                } else {
                    self.running.tell(&held, now_s + term_s(class));
                }
            }
        }
    }

    /// Units that each class may have more.
    fn missing(&self, levels: &Levels, now_s: i64) -> [u32; CLASSES] {
        NoticeClass::ALL.map(|class| levels.0[index(class)].saturating_sub(self.running.committed(class, now_s)))
    }

    /// Notices are taken back, and notice is lengthened, where the levels allow it and the job runs so long.
    fn change_classes(&mut self, levels: &Levels, manner: Manner, (now_s, goes_s): (i64, i64)) {
        for class in BOUGHT {
            if manner.keeps_on && class != NoticeClass::N0 {
                self.running.keep_on(class, self.missing(levels, now_s), (now_s, goes_s));
            }
            if manner.extends {
                let extended = self.running.extend(class, self.missing(levels, now_s), now_s);
                self.tally.counts[index(class)].sold += u64::from(extended);
                self.tally.counts[index(class)].extended += u64::from(extended);
            }
        }
    }

    /// Who takes a class takes a unit of every shorter one's level, too.
    fn sell(&mut self, step: &Step, levels: &Levels) {
        let now_s = step.at_s;
        loop {
            let missing = self.missing(levels, now_s);
            let free = step.idle().saturating_sub(self.running.total() + self.running.returning_total()).min(missing[0]);
            let Some(place) = self.queue.first_within(free).filter(|_| free > 0) else { break };
            let (units, left_s) = (self.outside.jobs[place].units, self.states[place].left_s);
            let has_room =
                |class: NoticeClass| term_s(class) <= left_s && missing[..=index(class)].iter().all(|missing| *missing >= units);
            let class = BOUGHT.into_iter().find(|class| has_room(*class)).unwrap_or(NoticeClass::N0);
            self.start(place, class, now_s);
        }
    }

    fn start(&mut self, place: usize, class: NoticeClass, now_s: i64) {
        let job = self.outside.jobs[place];
        let state = &mut self.states[place];
        self.queue.remove(place, job.units);
        if let Some(patience_s) = job.patience_s {
            self.leaving.remove(&(state.waits_since_s + patience_s, place));
        }
        if !state.has_started {
            state.has_started = true;
            self.counts.waits_s.push(now_s - job.arrival_s);
        }
        self.tally.counts[index(class)].sold += u64::from(job.units);
        let finish_s = now_s + state.left_s;
        self.starts.push(Start { job: place, class, units: job.units });
        self.running.start(Held {
            job: place,
            units: job.units,
            class,
            began_s: now_s,
            ran_since_s: now_s,
            finish_s,
            told_s: None,
        });
    }

    /// Ends what ends by now: jobs that are done, then those whose notice is over.
    fn advance(&mut self, now_s: i64) {
        let clean = i64::from(self.terms.reclaim_s);
        while let Some(held) = self.running.first_over(now_s) {
            let at_s = held.over_s();
            let is_done = held.finish_s <= at_s;
            let kind = if is_done { EndKind::Over } else { EndKind::Evicted };
            self.ends.push(held.end(kind, at_s, at_s));
            self.running.return_later(at_s + clean, held.units);
            if is_done {
                self.counts.finished += 1;
                self.counts.useful_s += unit_seconds(held.units, at_s - held.ran_since_s);
            } else {
                self.tally.counts[index(held.class)].evicted += u64::from(held.units);
                self.stop(&held, at_s, true);
            }
        }
        self.running.free_returned(now_s);
    }

    /// Kills a job at once: `n0` has no other promise, any other class's is broken.
    fn take_back(&mut self, held: &Held, now_s: i64) {
        self.running.remove(held);
        let counts = &mut self.tally.counts[index(held.class)];
        counts.evicted += u64::from(held.units);
        let is_broken = held.class != NoticeClass::N0;
        let promised_s = held.told_s.unwrap_or(now_s + term_s(held.class));
        if is_broken {
            counts.broken += u64::from(held.units);
            let each = self.terms.compensation(held.class, now_s - held.began_s, promised_s - now_s);
            self.tally.compensation += each * u128::from(held.units);
        }
        let kind = if is_broken { EndKind::Broken } else { EndKind::Evicted };
        self.ends.push(held.end(kind, now_s, promised_s));
        self.running.return_later(now_s + i64::from(self.terms.kill_s) + i64::from(self.terms.reclaim_s), held.units);
        self.stop(held, now_s, false);
    }

    /// An interrupted job waits again, with what it saved. Who was told saves at the end.
    fn stop(&mut self, held: &Held, now_s: i64, was_told: bool) {
        let ran_s = now_s - held.ran_since_s;
        let saved_s = match self.outside.checkpoint_s {
            None => 0,
            Some(_) if was_told => ran_s,
            Some(every_s) => ran_s - ran_s.rem_euclid(every_s.max(1)),
        };
        let state = &mut self.states[held.job];
        state.left_s -= saved_s;
        state.saved_s += saved_s;
        self.counts.interrupted += 1;
        self.counts.useful_s += unit_seconds(held.units, saved_s);
        self.counts.lost_s += unit_seconds(held.units, ran_s - saved_s);
        self.wait(held.job, now_s);
    }

    /// Counts what passes until the next decision, to the second.
    fn pass(&mut self, step: &Step, (from_s, to_s): (i64, i64), watch: &mut Watch<'_>) {
        let mut now_s = from_s;
        while now_s < to_s {
            let next = self.running.next_event_s().filter(|event| *event > now_s).map_or(to_s, |event| event.min(to_s));
            let (running, returning) = (self.running.by_class(), self.running.returning_total());
            let passing = Passing { seconds: next - now_s, running, returning, collided: self.collides };
            self.collides = self.tally.count(step, &passing, &self.terms);
            watch(&Moment { at_s: now_s, running, ends: &self.ends, starts: &self.starts });
            self.ends.clear();
            self.starts.clear();
            if next < to_s {
                self.advance(next);
            }
            now_s = next;
        }
    }

    fn finish(mut self, end_s: i64) -> (Tally, JobTally) {
        for held in self.running.lose_all() {
            self.counts.running += 1;
            let going_s = end_s.min(held.finish_s) - held.ran_since_s;
            self.counts.going_on_s += unit_seconds(held.units, going_s);
        }
        self.counts.waiting = u64::try_from(self.queue.len()).unwrap_or(u64::MAX);
        self.counts.waits_s.sort_unstable();
        (self.tally, self.counts)
    }
}

fn unit_seconds(units: u32, seconds: i64) -> u128 {
    u128::from(units) * u128::try_from(seconds.max(0)).unwrap_or(0)
}
