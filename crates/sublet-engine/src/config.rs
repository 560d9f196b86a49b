//! The engine's bounds, each with its unit.

use sublet_core::tier::ServiceTier;
use sublet_core::{Bytes, DurationMs};

/// Bounds of one engine; every model has its own queue, thread and memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// Sequences computed together in one step.
    pub running_max: usize,
    /// Sequences that wait without being computed: queued, or parked for money or a slow reader. An eighth of
    /// the places is kept for requests of the tier `priority`; those of `flex` find half of them.
    pub queue_max: usize,
    /// How long a request waits to be computed before it is refused, or, if it was begun, preempted.
    pub wait_max: DurationMs,
    /// The same for requests of the tier `flex`.
    pub flex_wait_max: DurationMs,
    /// Prompt tokens computed in one step, so that long prompts do not stall other streams.
    pub prefill_tokens_per_step_max: usize,
    /// Memory for keys and values; `None` gives each model as much as its weights take, at
    /// least 64 MiB. The context served is no longer than what fits.
    pub kv_bytes_max: Option<Bytes>,
    /// Threads per model; `None` uses what the machine has.
    pub threads: Option<usize>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            running_max: 64,
            queue_max: 2_048,
            wait_max: DurationMs::from_seconds(600),
            flex_wait_max: DurationMs::from_seconds(60),
            prefill_tokens_per_step_max: 256,
            kv_bytes_max: None,
            threads: None,
        }
    }
}

/// Work of the tier `flex` beside other work is one part in so many of what a step may have.
const FLEX_SHARE: usize = 4;

/// Memory for keys and values that every model gets unless configured, in bytes.
const KV_BYTES_DEFAULT: usize = 64 * 1024 * 1024;

impl EngineConfig {
    /// The bound for a model whose weights take `weight_bytes`.
    pub(crate) fn kv_bytes(&self, weight_bytes: usize) -> usize {
        match self.kv_bytes_max {
            Some(bytes) => usize::try_from(bytes.get()).unwrap_or(0),
            None => weight_bytes.max(KV_BYTES_DEFAULT),
        }
    }

    pub(crate) fn wait_max(&self, tier: ServiceTier) -> DurationMs {
        if tier == ServiceTier::Flex { self.flex_wait_max } else { self.wait_max }
    }

    /// Sequences of the tier `flex` that are computed beside others: each makes every step longer.
    pub(crate) fn flex_beside_max(&self) -> usize {
        (self.running_max / FLEX_SHARE).max(1)
    }

    /// Prompt tokens of the tier `flex` in a step beside others.
    pub(crate) fn flex_prefill_beside_max(&self) -> usize {
        (self.prefill_tokens_per_step_max / FLEX_SHARE).max(1)
    }

    pub(crate) fn thread_count(&self) -> usize {
        let machine = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(machine).max(1)
    }
}
