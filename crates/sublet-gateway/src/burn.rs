//! How fast a key spends.

use sublet_core::{Nanos, Timestamp};

/// What was captured in this second and the one before it.
#[derive(Default)]
pub(crate) struct Burn {
    second: i64,
    now: Nanos,
    before: Nanos,
}

impl Burn {
    pub fn add(&mut self, at: Timestamp, amount: Nanos) {
        let passed = at.seconds() - self.second;
        if passed != 0 {
            self.before = if passed == 1 { self.now } else { Nanos::ZERO };
            self.now = Nanos::ZERO;
            self.second = at.seconds();
        }
        self.now = self.now.checked_add(amount).unwrap_or(Nanos::MAX);
    }

    pub fn two_seconds(&self) -> Nanos {
        self.now.checked_add(self.before).unwrap_or(Nanos::MAX)
    }
}
