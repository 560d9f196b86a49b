//! The engine's bounds, each with its unit.

use sublet_core::Bytes;

/// Bounds of one engine; every model has its own queue, thread and memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// Sequences computed together in one step.
    pub running_max: usize,
    /// Sequences that wait without being computed: queued, or parked for money or a slow reader.
    pub queue_max: usize,
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
        Self { running_max: 64, queue_max: 2_048, prefill_tokens_per_step_max: 256, kv_bytes_max: None, threads: None }
    }
}

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

    pub(crate) fn thread_count(&self) -> usize {
        let machine = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(machine).max(1)
    }
}
