//! Rules that are followed without selling: what each would have promised, broken and taken back.

use std::collections::VecDeque;

/// A day takes this part of a record's weight: it is halved in three weeks.
pub(super) const FADE_PARTS: u64 = 32;
/// Leases are counted in parts, so that few of them fade as slowly as many.
pub(super) const LEASE: u64 = 1_024;

/// The least value of a sliding window, by a deque that only rises.
#[derive(Clone, Debug)]
pub(super) struct Least {
    window_s: i64,
    values: VecDeque<(i64, u32)>,
}

impl Least {
    pub(super) fn new(window_s: i64) -> Self {
        Self { window_s, values: VecDeque::new() }
    }
    pub(super) fn push(&mut self, at_s: i64, value: u32) -> u32 {
        while self.values.back().is_some_and(|held| held.1 >= value) {
            self.values.pop_back();
        }
        self.values.push_back((at_s, value));
        while self.values.front().is_some_and(|held| held.0 < at_s - self.window_s) {
            self.values.pop_front();
        }
        self.values.front().map_or(value, |held| held.1)
    }
}

/// The greatest value of a sliding window.
#[derive(Clone, Debug)]
pub(super) struct Greatest(Least);

impl Greatest {
    pub(super) fn new(window_s: i64) -> Self {
        Self(Least::new(window_s))
    }
    pub(super) fn push(&mut self, at_s: i64, value: u32) -> u32 {
        u32::MAX - self.0.push(at_s, u32::MAX - value)
    }
}

/// What a rule would have done. A promise is short where fewer units are idle than were promised
/// within the class's term; units that become short were broken.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Record {
    promised: u32,
    short: u32,
    /// Unit-seconds.
    pub(super) held_s: u64,
    /// Leases, in parts of [`LEASE`], like those below.
    pub(super) sold: u64,
    pub(super) broken: u64,
    pub(super) ended: u64,
}

impl Record {
    /// The rule promises so many; so many are idle. Promises without a term are kept if what was
    /// promised at the last instant is idle now.
    pub(super) fn follow(&mut self, promised: u32, idle: u32, seconds: u64, has_term: bool) {
        let short = if has_term { promised } else { self.promised }.saturating_sub(idle);
        let known = if has_term { self.short } else { 0 };
        self.broken += LEASE * u64::from(short.saturating_sub(known));
        self.sold += LEASE * u64::from(promised.saturating_sub(self.promised));
        self.ended += LEASE * u64::from(self.promised.saturating_sub(promised));
        self.short = short;
        self.promised = promised;
        self.held_s += seconds * u64::from(promised);
    }

    pub(super) fn fade(&mut self) {
        for part in [&mut self.held_s, &mut self.sold, &mut self.broken, &mut self.ended] {
            *part -= *part / FADE_PARTS;
        }
    }

    /// Forgets what is promised now, as after an outage.
    pub(super) fn interrupt(&mut self) {
        self.promised = 0;
        self.short = 0;
    }
}
