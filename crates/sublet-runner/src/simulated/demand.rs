//! What an owner's own work demands of a pool: the rhythm of days and weeks, a queue, gangs, launches, outages.
//!
//! A pure function of a seed, a pool's name and size, and the instant it begins at: the same steps in the same order,
//! whoever asks when. Draws come from a hash of what is drawn for, so an hour's are the same whatever came before.
//! What it has in memory is bounded by the pool's units and the queue's length.
//!
//! Serving follows the hour and comes first; training waits in a queue, first come first served, a gang starts whole, and
//! what runs is not interrupted. Most jobs are short and most time is of long ones, as traces of clusters show.
//!
//! Deliberately absent: what a pool really has (demand does not fall because a machine is down), and what was sold of it.

use std::collections::{BTreeMap, VecDeque};

use super::fault::{mix, seed_of};

/// From one step to the next, in seconds.
pub const DEMAND_STEP_S: i64 = 300;
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// How often a step may draw a job.
const TRIALS: u64 = 4;
/// Jobs that wait, at most; who comes when it is full goes elsewhere.
const QUEUE_MAX: usize = 64;
const WHOLE_PPM: u64 = 1_000_000;

/// Serving at each hour of a working day in UTC, in percent of its peak, and what of it is left on other days.
const SERVING_PERCENT: [u64; 24] =
    [46, 41, 37, 35, 34, 36, 43, 55, 70, 82, 90, 94, 92, 93, 97, 100, 98, 94, 89, 85, 80, 72, 62, 53];
const SERVING_WEEKEND_PERCENT: u64 = 72;
/// Jobs at each hour, in percent of the day's mean, and what of them is left on other days.
const JOBS_PERCENT: [u64; 24] =
    [35, 28, 24, 22, 22, 26, 40, 70, 130, 180, 195, 185, 150, 170, 190, 185, 175, 150, 120, 95, 80, 65, 52, 42];
const JOBS_WEEKEND_PERCENT: u64 = 40;
/// How long jobs take: so many of a thousand at most so many seconds.
const SECONDS: [(u64, u64); 8] =
    [(180, 300), (380, 900), (580, 2_700), (730, 7_200), (860, 21_600), (945, 64_800), (990, 172_800), (1_000, 345_600)];
/// Of how many units gangs are: so many of a hundred.
const GANGS: [(u64, u32); 4] = [(45, 1), (70, 2), (88, 4), (100, 8)];
/// In every such window there is a launch or none: more serving for some hours.
const LAUNCH_WINDOW_S: i64 = 4 * DAY_S;
const LAUNCH_PERCENT: u64 = 60;
/// In every such window the monitor fails or not: nothing is known for some minutes.
const OUTAGE_WINDOW_S: i64 = 7 * DAY_S;
const OUTAGE_PERCENT: u64 = 50;

/// What sort of work a pool has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rhythm {
    /// What serving has of the units at its daily peak, in percent.
    pub serving_percent: u32,
    /// What jobs may have of them together.
    pub jobs_percent: u32,
    pub jobs_per_day: u32,
    /// Units of a gang, at most: those of a machine.
    pub gang_max: u32,
}

/// Demand from an instant until the next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Demand {
    pub at_s: i64,
    pub in_use: u32,
    pub queued: u32,
    /// False while the monitor knows nothing.
    pub valid: bool,
}

/// A job in its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Work {
    units: u32,
    seconds: i64,
}

/// The owner's own work on one pool, step by step.
#[derive(Clone, Debug)]
pub struct OwnDemand {
    seed: u64,
    units: u32,
    rhythm: Rhythm,
    next_s: i64,
    /// Units of jobs by when they end.
    running: BTreeMap<i64, u32>,
    queue: VecDeque<Work>,
}

/// What is drawn, so that no two draws share a hash.
#[derive(Clone, Copy)]
enum Draw {
    Job(u64),
    Seconds(u64),
    Gang(u64),
    Launch,
    Outage,
    Noise,
}

impl OwnDemand {
    /// The work of the pool of this name and so many units, from an instant on.
    pub fn new(seed: u64, name: &str, (units, rhythm): (u32, Rhythm), from_s: i64) -> Self {
        let next_s = from_s.div_euclid(DEMAND_STEP_S) * DEMAND_STEP_S;
        Self { seed: seed_of(seed, name), units, rhythm, next_s, running: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// The instant of the next step.
    pub fn next_s(&self) -> i64 {
        self.next_s
    }

    /// The next step.
    pub fn step(&mut self) -> Demand {
        let at_s = self.next_s;
        self.next_s += DEMAND_STEP_S;
        self.running = self.running.split_off(&(at_s + 1));
        self.arrive(at_s);
        let serving = self.serving(at_s);
        let mut busy: u32 = self.running.values().sum();
        let jobs_max = percent(self.units, self.rhythm.jobs_percent);
        while let Some(work) = self.queue.front().copied() {
            if busy + work.units > jobs_max || busy + work.units + serving > self.units {
                break;
            }
            busy += work.units;
            *self.running.entry(at_s + work.seconds).or_default() += work.units;
            self.queue.pop_front();
        }
        let queued = self.queue.iter().map(|work| work.units).sum();
        Demand { at_s, in_use: (serving + busy).min(self.units), queued, valid: !self.is_out(at_s) }
    }

    /// Everything up to an instant; the last of it is what holds then.
    pub fn until(&mut self, now_s: i64) -> Vec<Demand> {
        let mut steps = Vec::new();
        while self.next_s <= now_s {
            steps.push(self.step());
        }
        steps
    }

    fn draw(&self, what: Draw, at: i64, below: u64) -> u64 {
        let salt = match what {
            Draw::Job(trial) => 8 + trial,
            Draw::Seconds(trial) => 16 + trial,
            Draw::Gang(trial) => 24 + trial,
            Draw::Launch => 1,
            Draw::Outage => 2,
            Draw::Noise => 3,
        };
        mix(mix(self.seed ^ mix(salt)) ^ mix(at.unsigned_abs())) % below.max(1)
    }

    fn arrive(&mut self, at_s: i64) {
        let hour_percent = JOBS_PERCENT[hour(at_s)] * if is_weekend(at_s) { JOBS_WEEKEND_PERCENT } else { 100 } / 100;
        let steps_per_day = (DAY_S / DEMAND_STEP_S).unsigned_abs();
        // The mean of a step, shared by its trials.
        let chance_ppm = u64::from(self.rhythm.jobs_per_day) * hour_percent * (WHOLE_PPM / 100) / (steps_per_day * TRIALS);
        for trial in 0..TRIALS {
            if self.draw(Draw::Job(trial), at_s, WHOLE_PPM) >= chance_ppm || self.queue.len() >= QUEUE_MAX {
                continue;
            }
            let share = self.draw(Draw::Gang(trial), at_s, 100);
            let units = GANGS.iter().find(|(below, _)| share < *below).map_or(1, |(_, units)| *units);
            let units = units.min(self.rhythm.gang_max).max(1);
            self.queue.push_back(Work { units, seconds: self.seconds(trial, at_s) });
        }
    }

    /// Evenly between the bounds of its class.
    fn seconds(&self, trial: u64, at_s: i64) -> i64 {
        let share = self.draw(Draw::Seconds(trial), at_s, 1_000);
        let class = SECONDS.iter().position(|(below, _)| share < *below).unwrap_or(SECONDS.len() - 1);
        let least = if class == 0 { 60 } else { SECONDS[class - 1].1 };
        let most = SECONDS[class].1;
        i64::try_from(least + mix(share ^ mix(at_s.unsigned_abs() + trial)) % (most - least)).unwrap_or(i64::MAX)
    }

    fn serving(&self, at_s: i64) -> u32 {
        let (now, then) = (SERVING_PERCENT[hour(at_s)], SERVING_PERCENT[(hour(at_s) + 1) % 24]);
        let into = at_s.rem_euclid(HOUR_S).unsigned_abs();
        let whole = HOUR_S.unsigned_abs();
        let shape = (now * (whole - into) + then * into) / whole * if is_weekend(at_s) { SERVING_WEEKEND_PERCENT } else { 100 };
        // Two percent up or down.
        let noise = 98 + self.draw(Draw::Noise, at_s, 5);
        let ppm = u64::from(self.rhythm.serving_percent) * shape * noise / 100;
        let usual = u64::from(self.units) * ppm / WHOLE_PPM;
        let launched = u64::from(self.units) * self.launch_percent(at_s) / 100;
        u32::try_from(usual + launched).unwrap_or(u32::MAX).min(self.units)
    }

    /// What a launch adds, in percent of the units: 6 to 14 for 4 to 10 hours.
    fn launch_percent(&self, at_s: i64) -> u64 {
        let window = at_s.div_euclid(LAUNCH_WINDOW_S);
        let drawn = self.draw(Draw::Launch, window, WHOLE_PPM);
        if drawn % 100 >= LAUNCH_PERCENT || self.rhythm.serving_percent == 0 {
            return 0;
        }
        let hours = i64::try_from(4 + drawn / 100 % 7).unwrap_or(4);
        let begins = i64::try_from(mix(drawn) >> 1).map_or(0, |drawn| drawn.rem_euclid(LAUNCH_WINDOW_S - hours * HOUR_S));
        let into = at_s.rem_euclid(LAUNCH_WINDOW_S);
        if (begins..begins + hours * HOUR_S).contains(&into) { 6 + drawn / 1_000 % 9 } else { 0 }
    }

    fn is_out(&self, at_s: i64) -> bool {
        let window = at_s.div_euclid(OUTAGE_WINDOW_S);
        let drawn = self.draw(Draw::Outage, window, WHOLE_PPM);
        if drawn % 100 >= OUTAGE_PERCENT {
            return false;
        }
        let lasts = i64::try_from(900 + drawn / 100 % 1_800).unwrap_or(900);
        let begins = i64::try_from(mix(drawn) >> 1).map_or(0, |drawn| drawn.rem_euclid(OUTAGE_WINDOW_S - lasts));
        (begins..begins + lasts).contains(&at_s.rem_euclid(OUTAGE_WINDOW_S))
    }
}

fn percent(units: u32, percent: u32) -> u32 {
    u32::try_from(u64::from(units) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

fn hour(at_s: i64) -> usize {
    usize::try_from(at_s.rem_euclid(DAY_S) / HOUR_S).unwrap_or(0)
}

/// Saturday or Sunday in UTC: the first day of 1970 was a Thursday.
fn is_weekend(at_s: i64) -> bool {
    (at_s.div_euclid(DAY_S) + 3).rem_euclid(7) >= 5
}
