//! What a replica has said so far of one answer, counted.

use sublet_core::TokenCount;
use sublet_core::engine::FinishReason;

use super::recount::Recount;
use super::reply::{BYTES_PER_TOKEN, Counts, Seen};

/// What was said so far.
#[derive(Default)]
pub(super) struct Tally {
    /// The replica's own counts, if it gave any.
    pub counts: Option<Counts>,
    /// Events that carried text since it counted last, and its bytes.
    pub spoken: u64,
    pub uncounted_bytes: u64,
    /// That text itself, by answer, where somebody may count it afterwards.
    pub said: Vec<String>,
    /// What came of that.
    pub recount: Option<Recount>,
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
        let last = self.said.len().saturating_sub(1);
        for (index, text) in &seen.said {
            // An answer that nobody asked for is counted with the last one.
            if let Some(said) = self.said.get_mut((*index).min(last)) {
                said.push_str(text);
            }
        }
        if let Some(counts) = seen.counts.filter(|counts| !partial && (counts.output > TokenCount::ZERO || self.text_bytes == 0)) {
            self.counts = Some(counts);
            (self.spoken, self.uncounted_bytes) = (0, 0);
            self.said.iter_mut().for_each(String::clear);
        }
        self.finishes += seen.finishes;
        self.reason = seen.reason.or(self.reason);
    }

    /// Output tokens so far: the replica's count, and what could be seen or counted since.
    pub fn output(&self) -> u64 {
        let counted = self.counts.map_or(0, |counts| number(counts.output));
        let since = match self.recount {
            // Whoever said something said a token.
            Some(recount) => number(recount.output).max(u64::from(self.uncounted_bytes > 0)),
            None => self.spoken.max(self.uncounted_bytes.div_ceil(BYTES_PER_TOKEN)),
        };
        counted.saturating_add(since)
    }

    /// Whether there is something that nobody counted, and the prompt is of it.
    pub fn lacks_counts(&self) -> bool {
        self.counts.is_none() || self.uncounted_bytes > 0
    }
}

fn number(tokens: TokenCount) -> u64 {
    u64::try_from(tokens.get()).unwrap_or(0)
}
