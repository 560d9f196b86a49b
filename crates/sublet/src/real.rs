//! Real time and real randomness: made here and nowhere else.
#![allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]

use std::sync::{Mutex, PoisonError};
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

/// Bytes that are fetched from the operating system at once: each id takes ten of them.
const FETCHED_BYTES: usize = 1_024;

/// The operating system's random source. What is short comes out of a store; each byte is given once, and wiped.
#[derive(Default)]
pub struct SystemRng {
    left: Mutex<Vec<u8>>,
}

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() > FETCHED_BYTES / 8 {
            return fetch(bytes);
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < bytes.len() {
            left.resize(FETCHED_BYTES, 0);
            fetch(&mut left);
        }
        let start = left.len() - bytes.len();
        bytes.copy_from_slice(&left[start..]);
        left[start..].fill(0);
        left.truncate(start);
    }
}

fn fetch(bytes: &mut [u8]) {
    // Without randomness there are no keys and no ids: nothing can go on.
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}
