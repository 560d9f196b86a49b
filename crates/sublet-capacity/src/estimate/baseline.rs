//! Known rules of thumb to compare with, each selling all it sells with two minutes' notice, and keeping it.
//!
//! The peak and N-sigma predictors are those of Bashir et al., *Take it to the limit: peak
//! prediction-driven resource overcommitment in datacenters* (EuroSys 2021).

use std::collections::{BTreeMap, VecDeque};

use super::demand::Step;
use super::replay::{Levels, Manner, SellingPolicy};
use super::terms::PPM;

const HOUR_S: i64 = 3_600;
const RISE_S: i64 = 600;
const RISE_HISTORY_S: i64 = 7 * 24 * HOUR_S;
/// Of a thousand rises, how many are not above the buffer.
const RISE_QUANTILE_THOUSANDTHS: usize = 999;

/// A rule of thumb.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Baseline {
    /// A share of capacity stays free.
    Static { ppm: u64 },
    /// The highest demand of the last hours comes back, and a share of capacity.
    Peak { hours: i64, margin_ppm: u64 },
    /// The mean of the last hour and so many standard deviations.
    Sigma { count: u64 },
    /// What all but a thousandth of the rises within ten minutes of the last week would need.
    Rises,
}

impl Baseline {
    /// The names and rules of docs/benchmarks.md.
    pub const ALL: [(&'static str, Self); 7] = [
        ("static-5", Self::Static { ppm: 50_000 }),
        ("static-10", Self::Static { ppm: 100_000 }),
        ("static-20", Self::Static { ppm: 200_000 }),
        ("peak-1h", Self::Peak { hours: 1, margin_ppm: 50_000 }),
        ("peak-6h", Self::Peak { hours: 6, margin_ppm: 50_000 }),
        ("mean-5-sigma", Self::Sigma { count: 5 }),
        ("rise-quantile", Self::Rises),
    ];

    /// The rule with an empty memory.
    pub fn start(self) -> Box<dyn SellingPolicy> {
        match self {
            Self::Static { ppm } => Box::new(Static { ppm }),
            Self::Peak { hours, margin_ppm } => Box::new(Peak { window_s: hours * HOUR_S, margin_ppm, falling: VecDeque::new() }),
            Self::Sigma { count } => Box::new(Sigma { count, recent: VecDeque::new(), sum: 0, squares: 0 }),
            Self::Rises => Box::new(Rises::default()),
        }
    }
}

/// A share of a number of units, rounded up.
pub(super) fn share(units: u32, ppm: u64) -> u32 {
    u32::try_from((u64::from(units) * ppm).div_ceil(PPM)).unwrap_or(u32::MAX)
}

fn single(units: u32) -> Levels {
    Levels([units, units, 0, 0, 0, 0])
}

struct Static {
    ppm: u64,
}

impl SellingPolicy for Static {
    fn levels(&mut self, step: &Step) -> Levels {
        single(step.idle().saturating_sub(share(step.capacity, self.ppm)))
    }
    fn manner(&self) -> Manner {
        Manner::PLAIN
    }
}

struct Peak {
    window_s: i64,
    margin_ppm: u64,
    /// Demands that nothing later exceeds.
    falling: VecDeque<(i64, u32)>,
}

impl SellingPolicy for Peak {
    fn levels(&mut self, step: &Step) -> Levels {
        if !step.valid {
            return Levels::default();
        }
        while self.falling.back().is_some_and(|held| held.1 <= step.in_use) {
            self.falling.pop_back();
        }
        self.falling.push_back((step.at_s, step.in_use));
        while self.falling.front().is_some_and(|held| held.0 <= step.at_s - self.window_s) {
            self.falling.pop_front();
        }
        let peak = self.falling.front().map_or(step.in_use, |held| held.1);
        single(step.capacity.saturating_sub(peak).saturating_sub(share(step.capacity, self.margin_ppm)))
    }
    fn manner(&self) -> Manner {
        Manner::PLAIN
    }
}

struct Sigma {
    count: u64,
    recent: VecDeque<(i64, u32)>,
    sum: u128,
    squares: u128,
}

impl SellingPolicy for Sigma {
    fn levels(&mut self, step: &Step) -> Levels {
        if !step.valid {
            return Levels::default();
        }
        let value = u128::from(step.in_use);
        self.recent.push_back((step.at_s, step.in_use));
        self.sum += value;
        self.squares += value * value;
        while let Some((_, old)) = self.recent.front().filter(|held| held.0 <= step.at_s - HOUR_S) {
            let old = u128::from(*old);
            self.sum -= old;
            self.squares -= old * old;
            self.recent.pop_front();
        }
        // mean + k σ = (Σ + √(k² (n Σ² − Σ Σ))) / n, rounded up.
        let number = self.recent.iter().fold(0_u128, |number, _| number + 1);
        let spread = u128::from(self.count * self.count) * (number * self.squares).saturating_sub(self.sum * self.sum);
        let expected = (self.sum + spread.isqrt()).div_ceil(number.max(1));
        let expected = u32::try_from(expected).unwrap_or(u32::MAX).max(step.in_use);
        single(step.capacity.saturating_sub(expected))
    }
    fn manner(&self) -> Manner {
        Manner::PLAIN
    }
}

#[derive(Default)]
struct Rises {
    /// Steps whose ten minutes are not over, with what was in use then and at most since.
    pending: VecDeque<(i64, u32, u32)>,
    /// When each rise was known, and how high it was.
    known: VecDeque<(i64, u32)>,
    counts: BTreeMap<u32, usize>,
}

impl SellingPolicy for Rises {
    fn levels(&mut self, step: &Step) -> Levels {
        if !step.valid {
            self.pending.clear();
            return Levels::default();
        }
        // There are ten of them at one row a minute.
        for pending in self.pending.iter_mut() {
            pending.2 = pending.2.max(step.in_use);
        }
        self.pending.push_back((step.at_s, step.in_use, step.in_use));
        while let Some((_, before, peak)) = self.pending.front().filter(|held| held.0 <= step.at_s - RISE_S).copied() {
            self.pending.pop_front();
            let rise = peak - before;
            self.known.push_back((step.at_s, rise));
            *self.counts.entry(rise).or_default() += 1;
        }
        while let Some((_, rise)) = self.known.front().filter(|held| held.0 <= step.at_s - RISE_HISTORY_S).copied() {
            self.known.pop_front();
            if let Some(count) = self.counts.get_mut(&rise) {
                *count -= 1;
            }
        }
        if self.known.is_empty() {
            return Levels::default();
        }
        let wanted = (self.known.len() * RISE_QUANTILE_THOUSANDTHS).div_ceil(1_000);
        let mut seen = 0;
        let quantile = self.counts.iter().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        single(step.idle().saturating_sub(quantile.map_or(u32::MAX, |(rise, _)| *rise)))
    }
    fn manner(&self) -> Manner {
        Manner::PLAIN
    }
}
