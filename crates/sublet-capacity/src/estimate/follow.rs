//! The policy live: it hears of a pool's history exactly as in a replay, as far as that has come.
//!
//! Invariant: however the history is cut into calls, the policy hears of the same instants: every row,
//! and every whole [`DECISION_S`] within a long one.

use super::demand::Step;
use super::layered::Layered;
use super::replay::{DECISION_S, Levels, Manner, SellingPolicy};
use super::terms::{CLASSES, Terms, index};
use crate::curve::{Level, stays};
use crate::reserve::ReserveRule;
use sublet_core::notice::NoticeClass;

/// A policy on its way through a history that goes on.
#[derive(Clone)]
pub struct Follower {
    policy: Layered,
    held: Option<Step>,
    next_s: i64,
    decided: Option<(i64, Levels)>,
}

impl Follower {
    pub fn new(terms: &Terms) -> Self {
        Self { policy: Layered::new(terms), held: None, next_s: i64::MIN, decided: None }
    }

    /// Hears a row. What was before it has to be decided up to it: see [`Self::decide_until`].
    pub fn hear(&mut self, step: Step) {
        self.held = Some(step);
        self.next_s = step.at_s;
    }

    /// Decides at the instants before this one, but no more than so many; answers how many it did.
    pub fn decide_until(&mut self, until_s: i64, decisions_max: u32) -> u32 {
        let Some(step) = self.held else { return 0 };
        let mut made = 0;
        while self.next_s < until_s && made < decisions_max {
            let now_s = self.next_s;
            self.decided = Some((now_s, self.policy.levels(&Step { at_s: now_s, ..step })));
            self.next_s = now_s - now_s.rem_euclid(DECISION_S) + DECISION_S;
            made += 1;
        }
        made
    }

    /// Whether all before this instant is decided.
    pub fn is_at(&self, until_s: i64) -> bool {
        self.held.is_none() || self.next_s >= until_s
    }

    /// The last instant that was decided.
    pub fn decided_s(&self) -> Option<i64> {
        self.decided.map(|(at_s, _)| at_s)
    }

    /// What was decided last, with reasons.
    pub fn curve(&self) -> Option<[Level; CLASSES]> {
        let (at_s, levels) = self.decided?;
        Some(with_reasons(&self.policy, &Step { at_s, ..self.held? }, &levels))
    }
}

fn with_reasons(policy: &Layered, step: &Step, levels: &Levels) -> [Level; CLASSES] {
    let reasons = policy.reasons(step);
    NoticeClass::ALL.map(|class| Level { units: levels.0[index(class)], reason: reasons[index(class)] })
}

/// The policy as a cloud sells by it: within the reserve rule and all levels, breaking no promise,
/// telling everybody once, and lengthening nothing. An outage of what is known ends no lease.
pub struct Live {
    policy: Layered,
    reserve: ReserveRule,
}

impl Live {
    pub fn new(terms: &Terms, reserve: ReserveRule) -> Self {
        Self { policy: Layered::new(terms), reserve }
    }
}

impl SellingPolicy for Live {
    fn levels(&mut self, step: &Step) -> Levels {
        self.policy.levels(step)
    }
    fn manner(&self) -> Manner {
        Manner { outlasts: true, ..Manner::PLAIN }
    }
    fn stays(&self, step: &Step, levels: &Levels) -> Levels {
        Levels(stays(&with_reasons(&self.policy, step, levels), step.idle()))
    }
    fn sale_limit(&self, step: &Step) -> Option<u32> {
        Some(step.capacity.saturating_sub(self.reserve.units(step.capacity).max(step.in_use)))
    }
}
