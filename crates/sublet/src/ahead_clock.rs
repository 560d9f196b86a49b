//! A clock that can be put forward: the machine's, and how far ahead of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sublet_cloud::TestClock;
use sublet_core::{Clock, DurationMs, Timestamp};

pub struct AheadClock {
    machine: Arc<dyn Clock>,
    ahead_ms: AtomicI64,
}

impl AheadClock {
    pub fn new(machine: Arc<dyn Clock>, ahead: DurationMs) -> Self {
        Self { machine, ahead_ms: AtomicI64::new(ahead.millis()) }
    }
}

impl Clock for AheadClock {
    fn now(&self) -> Timestamp {
        self.machine.now().plus(DurationMs::from_millis(self.ahead_ms.load(Ordering::Acquire)))
    }
}

impl TestClock for AheadClock {
    fn real_now(&self) -> Timestamp {
        self.machine.now()
    }
    fn set_ahead(&self, ahead: DurationMs) {
        self.ahead_ms.fetch_max(ahead.millis(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(1_773_576_000)
        }
    }

    #[test]
    fn it_goes_forward_and_never_back() {
        let clock = AheadClock::new(Arc::new(Noon), DurationMs::from_hours(1));
        for (ahead, hours) in [(0, 1), (2, 2), (1, 2)] {
            clock.set_ahead(DurationMs::from_hours(ahead));
            assert_eq!(clock.now(), Noon.now().plus(DurationMs::from_hours(hours)));
        }
    }
}
