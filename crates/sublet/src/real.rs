//! Real time and real randomness: made here and nowhere else.
#![allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]

use std::time::SystemTime;

use sublet_core::{Clock, Rng, Timestamp};

/// The system's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The operating system's random source.
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness there are no keys and no ids: nothing can go on.
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}
