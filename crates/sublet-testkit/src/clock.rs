//! Time that moves when told, and randomness from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use sublet_core::{Clock, DurationMs, IdMint, Rng, Timestamp};

/// Where test time starts: 2026-03-15T12:00:00Z, the middle of a month.
pub const START: Timestamp = Timestamp::from_seconds(1_773_576_000);

/// A clock that stands still until it is moved, or moves by as much whenever it is read.
pub struct ManualClock(AtomicI64, AtomicI64);

impl ManualClock {
    pub fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.micros()), AtomicI64::new(0))
    }
    pub fn advance(&self, by: DurationMs) {
        self.0.fetch_add(by.millis().saturating_mul(1_000), Ordering::SeqCst);
    }
    /// From now on whoever reads it moves it.
    pub fn tick(&self, by: DurationMs) {
        self.1.store(by.millis().saturating_mul(1_000), Ordering::SeqCst);
    }
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.micros(), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new(START)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(self.1.load(Ordering::SeqCst), Ordering::SeqCst))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same bytes.
pub struct SeededRng(AtomicU64);

impl SeededRng {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let value = self.next().to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }
}

/// Identifiers from a clock and a seed.
pub fn mint(clock: Arc<ManualClock>, seed: u64) -> IdMint {
    IdMint::new(clock, Arc::new(SeededRng::new(seed)))
}
