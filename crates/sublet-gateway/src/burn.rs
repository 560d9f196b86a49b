//! How fast something is used.

use sublet_core::Timestamp;

/// What was used in this second and the one before it.
#[derive(Default)]
pub(crate) struct Burn {
    second: i64,
    now: i64,
    before: i64,
}

impl Burn {
    pub fn add(&mut self, at: Timestamp, amount: i64) {
        let passed = at.seconds() - self.second;
        if passed != 0 {
            self.before = if passed == 1 { self.now } else { 0 };
            self.now = 0;
            self.second = at.seconds();
        }
        self.now = self.now.saturating_add(amount);
    }

    pub fn two_seconds(&self) -> i64 {
        self.now.saturating_add(self.before)
    }
}
