//! What a replica has said so far of one answer, counted.

use sublet_core::TokenCount;
use sublet_core::engine::FinishReason;

use super::reply::{BYTES_PER_TOKEN, Counts, Seen};

/// What was said so far.
#[derive(Default)]
pub(super) struct Tally {
    /// The replica's own counts, if it gave any.
    pub counts: Option<Counts>,
    /// Events that carried text since it counted last, and its bytes.
    pub spoken: u64,
    pub uncounted_bytes: u64,
    /// Bytes of all text.
    pub text_bytes: u64,
    /// Ends of answers.
    pub finishes: usize,
    pub reason: Option<FinishReason>,
    /// Output that was passed on, and that of the last event that is to be.
    pub passed: u64,
    pub queued: u64,
}

impl Tally {
    /// `partial` are counts of one answer among several, which some servers give with its events.
    pub fn add(&mut self, seen: &Seen, partial: bool) {
        self.spoken += u64::from(seen.text_bytes > 0);
        self.uncounted_bytes += seen.text_bytes;
        self.text_bytes += seen.text_bytes;
        if let Some(counts) = seen.counts.filter(|counts| !partial && (counts.output > TokenCount::ZERO || self.text_bytes == 0)) {
            self.counts = Some(counts);
            (self.spoken, self.uncounted_bytes) = (0, 0);
        }
        self.finishes += seen.finishes;
        self.reason = seen.reason.or(self.reason);
    }

    /// Output tokens so far: the replica's count, and what could be seen since.
    pub fn output(&self) -> u64 {
        let counted = self.counts.map_or(0, |counts| u64::try_from(counts.output.get()).unwrap_or(0));
        counted.saturating_add(self.spoken.max(self.uncounted_bytes.div_ceil(BYTES_PER_TOKEN)))
    }
}
