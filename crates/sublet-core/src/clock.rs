//! Ports for time and randomness. Only the binary creates the real ones.

use std::sync::Arc;

use crate::id::{ID_RANDOM_BYTES, Identifier};
use crate::time::Timestamp;

/// Tells the time. The only source of "now" outside the binary.
pub trait Clock: Send + Sync {
    /// The wall clock, UTC.
    fn now(&self) -> Timestamp;
}

/// A source of unpredictable bytes (predictable in the simulator).
pub trait Rng: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// Makes identifiers from the two ports.
#[derive(Clone)]
pub struct IdMint {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl IdMint {
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { clock, rng }
    }
    pub fn mint<I: Identifier>(&self) -> I {
        let mut random = [0; ID_RANDOM_BYTES];
        self.rng.fill(&mut random);
        I::encode(self.clock.now(), random)
    }
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    pub fn rng(&self) -> &Arc<dyn Rng> {
        &self.rng
    }
}
