//! Every bound and waiting time of the gateway, each with its unit.

use sublet_core::id::GatewayId;
use sublet_core::{Bytes, DurationMs, TokenCount};

/// How this gateway is called and what it may use.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Stable over restarts.
    pub gateway: GatewayId,
    /// This session's fencing number: larger than that of every earlier session of the same gateway.
    pub fence: i64,
    /// Larger request bodies are refused with 413.
    pub body_max: Bytes,
    /// Requests in flight over all keys.
    pub requests_in_flight_max: usize,
    /// Output tokens held at admission and added by each extension.
    pub output_step: TokenCount,
    /// The same when money is short, so that little of it waits unused.
    pub tight_output_step: TokenCount,
    /// How long after a shortfall money counts as short.
    pub tight_for: DurationMs,
    /// How long an extension waits for others of its key to release money.
    pub money_wait_max: DurationMs,
    /// How long an extension waits for the cloud to say whether there is money.
    pub grant_wait_max: DurationMs,
    /// A slice nobody held anything of for this long goes back.
    pub slice_idle: DurationMs,
    /// What is drawn from a limit on speed and was not used for this long goes back.
    pub limit_idle: DurationMs,
    /// How often idle slices are looked for and returned slices are offered again.
    pub sweep_interval: DurationMs,
    /// Silence on a stream after which a comment line is sent.
    pub heartbeat_after: DurationMs,
    /// How long a stream's status line waits for the engine to begin, so that early failures get a real status.
    pub first_event_wait: DurationMs,
    /// A started generation silent for this long may be parked with text it cannot deliver yet; it gets one more step.
    pub quiet_extension: DurationMs,
    /// Remembered keys.
    pub access_cache_entries_max: usize,
    /// Keys with slices in memory.
    pub keys_max: usize,
    /// Limits on speed in memory, those of each end user apart.
    pub meters_max: usize,
    /// Remembered `Idempotency-Key` values.
    pub idempotency_entries_max: usize,
    pub journal: JournalConfig,
    pub supply: SupplyConfig,
}

/// How long replicas on other servers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct SupplyConfig {
    /// Until the first event of a stream: a full queue and a long prompt included.
    pub first_byte_wait: DurationMs,
    /// Until the whole of an answer that is not streamed: as long as clients wait by themselves.
    pub whole_answer_wait: DurationMs,
    /// Between two events of a stream.
    pub idle_max: DurationMs,
    /// A whole stream.
    pub answer_max: DurationMs,
    /// For a look at a replica that failed.
    pub probe_wait: DurationMs,
    /// For a place at any replica of a model, while all are full.
    pub queue_wait: DurationMs,
    /// Requests that wait for places at the replicas of one model. An eighth is kept for the tier `priority`;
    /// `flex` finds half of them.
    pub queue_max: usize,
    /// Until a replica that said that it is full is asked again.
    pub busy_pause: DurationMs,
}

impl Default for SupplyConfig {
    fn default() -> Self {
        Self {
            first_byte_wait: DurationMs::from_seconds(300),
            whole_answer_wait: DurationMs::from_seconds(600),
            idle_max: DurationMs::from_seconds(60),
            answer_max: DurationMs::from_seconds(3_600),
            probe_wait: DurationMs::from_seconds(2),
            queue_wait: DurationMs::from_seconds(60),
            queue_max: 1_024,
            busy_pause: DurationMs::from_millis(250),
        }
    }
}

/// Bounds of the usage journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// A segment larger than this is followed by a new one.
    pub segment_max: Bytes,
    /// Unsettled bytes above which new requests are refused.
    pub unsettled_max: Bytes,
    /// Records waiting for the disk; reached only if the disk stands still.
    pub queue_records_max: usize,
    /// Records offered to the sink at once.
    pub settle_batch_records_max: usize,
    /// Pause between settlements, so that records gather.
    pub settle_interval: DurationMs,
    /// First pause after a failed settlement; doubles up to `settle_backoff_max`.
    pub settle_backoff_first: DurationMs,
    pub settle_backoff_max: DurationMs,
    /// How often a full disk is tried again.
    pub full_retry_interval: DurationMs,
}

impl GatewayConfig {
    pub fn new(gateway: GatewayId, fence: i64) -> Self {
        Self {
            gateway,
            fence,
            body_max: Bytes::new(i64::try_from(sublet_api::route::INFERENCE_BODY_BYTES_MAX).unwrap_or(0)),
            requests_in_flight_max: 16_384,
            output_step: TokenCount::new(64),
            tight_output_step: TokenCount::new(8),
            tight_for: DurationMs::from_seconds(2),
            money_wait_max: DurationMs::from_seconds(2),
            grant_wait_max: DurationMs::from_seconds(15),
            slice_idle: DurationMs::from_seconds(5),
            limit_idle: DurationMs::from_seconds(1),
            sweep_interval: DurationMs::from_millis(500),
            heartbeat_after: DurationMs::from_seconds(15),
            first_event_wait: DurationMs::from_seconds(2),
            quiet_extension: DurationMs::from_millis(100),
            access_cache_entries_max: 16_384,
            keys_max: 65_536,
            meters_max: 262_144,
            idempotency_entries_max: 16_384,
            journal: JournalConfig::default(),
            supply: SupplyConfig::default(),
        }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_max: Bytes::new(4 * 1024 * 1024),
            unsettled_max: Bytes::new(256 * 1024 * 1024),
            queue_records_max: 65_536,
            settle_batch_records_max: 500,
            settle_interval: DurationMs::from_millis(20),
            settle_backoff_first: DurationMs::from_millis(50),
            settle_backoff_max: DurationMs::from_seconds(5),
            full_retry_interval: DurationMs::from_millis(500),
        }
    }
}
