//! Internal demand over time: a step function per pool.
//!
//! Invariants: instants rise strictly within a pool; every pool begins at the series' first instant
//! or is absent until its first row; the series ends behind its last row.
//!
//! Deliberately absent: where the numbers come from ([`super::csv`] reads text).

/// Longest history, in seconds: ten years.
pub const SPAN_MAX_S: i64 = 315_576_000;

/// What the owner's own work does in a pool from an instant until the next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Seconds on the file's clock.
    pub at_s: i64,
    pub capacity: u32,
    pub in_use: u32,
    /// Asked for and not granted.
    pub queued: u32,
    /// False in outages and holes of the log: nothing is known, and nothing is sold.
    pub valid: bool,
}

impl Step {
    /// Units that internal work leaves free; none while nothing is known.
    pub fn idle(&self) -> u32 {
        if self.valid { self.capacity.saturating_sub(self.in_use) } else { 0 }
    }
}

/// The history of one pool, whose units are interchangeable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Empty where the file names no pools.
    pub name: String,
    pub steps: Vec<Step>,
}

/// The history of all pools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demand {
    /// In the order of their names.
    pub pools: Vec<Pool>,
    /// Where the last steps end.
    pub end_s: i64,
}

impl Demand {
    /// The pools with the end of each, which is their last row's plus the interval most rows have.
    pub fn new(mut pools: Vec<Pool>) -> Self {
        pools.sort_by(|left, right| left.name.cmp(&right.name));
        let end_s = end_of(&pools);
        Self { pools, end_s }
    }

    /// Seconds from the first instant to the end.
    pub fn span_s(&self) -> i64 {
        let start = self.pools.iter().filter_map(|pool| pool.steps.first()).map(|step| step.at_s).min();
        start.map_or(0, |start| self.end_s - start)
    }

    /// The sum of all pools as one: as if every unit could serve every team.
    #[must_use]
    pub fn merged(&self) -> Self {
        let mut instants: Vec<i64> = self.pools.iter().flat_map(|pool| &pool.steps).map(|step| step.at_s).collect();
        instants.sort_unstable();
        instants.dedup();
        let mut next = vec![0_usize; self.pools.len()];
        let steps = instants.into_iter().map(|at_s| self.sum_at(at_s, &mut next)).collect();
        Self { pools: vec![Pool { name: String::new(), steps }], end_s: self.end_s }
    }

    /// The same history with nothing known from an instant until another, in all pools.
    #[must_use]
    pub fn with_outage(mut self, from_s: i64, until_s: i64) -> Self {
        for pool in &mut self.pools {
            let ends = pool.steps.iter().skip(1).map(|next| next.at_s).chain([self.end_s]);
            let cut = pool.steps.iter().zip(ends).flat_map(|(step, end_s)| {
                let inside = [from_s, until_s].into_iter().filter(move |at_s| (step.at_s + 1..end_s).contains(at_s));
                std::iter::once(step.at_s).chain(inside).map(|at_s| {
                    let is_down = (from_s..until_s).contains(&at_s);
                    Step { at_s, valid: step.valid && !is_down, ..*step }
                })
            });
            pool.steps = cut.collect();
        }
        self
    }

    /// The same history on a clock whose second 0 is so much earlier.
    #[must_use]
    pub fn shifted(mut self, by_s: i64) -> Self {
        for step in self.pools.iter_mut().flat_map(|pool| &mut pool.steps) {
            step.at_s = step.at_s.saturating_add(by_s);
        }
        Self { end_s: self.end_s.saturating_add(by_s), ..self }
    }

    fn sum_at(&self, at_s: i64, next: &mut [usize]) -> Step {
        let mut sum = Step { at_s, capacity: 0, in_use: 0, queued: 0, valid: true };
        for (pool, next) in self.pools.iter().zip(next) {
            while pool.steps.get(*next).is_some_and(|step| step.at_s <= at_s) {
                *next += 1;
            }
            let Some(step) = next.checked_sub(1).and_then(|held| pool.steps.get(held)) else { continue };
            sum.capacity = sum.capacity.saturating_add(step.capacity);
            sum.in_use = sum.in_use.saturating_add(step.in_use);
            sum.queued = sum.queued.saturating_add(step.queued);
            sum.valid &= step.valid;
        }
        sum
    }
}

/// The last instant plus the most frequent distance of two instants.
fn end_of(pools: &[Pool]) -> i64 {
    let mut instants: Vec<i64> = pools.iter().flat_map(|pool| &pool.steps).map(|step| step.at_s).collect();
    instants.sort_unstable();
    instants.dedup();
    instants.last().map_or(0, |last| last + usual_gap(&instants))
}

/// The most frequent distance of two instants that rise, the shortest among equals; a minute if there is only one.
pub(super) fn usual_gap(instants: &[i64]) -> i64 {
    let mut gaps: Vec<i64> = instants.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let runs = gaps.chunk_by(|left, right| left == right);
    runs.fold((60, 0), |best, run| if run.len() > best.1 { (run[0], run.len()) } else { best }).0
}
