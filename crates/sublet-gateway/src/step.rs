//! What a request that generates does next, as whoever writes its answer sees it.

use sublet_core::Error;
use sublet_core::engine::PositionLogprobs;

/// What happened next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The prompt was read.
    Started,
    Delta(Delta),
    /// The next vector of one lane: little-endian 32-bit floats.
    Vector {
        choice: usize,
        values: Vec<u8>,
    },
    /// Every answer ended well.
    Done,
    Failed(Error),
    /// Nothing for the time after which a stream gets a heartbeat.
    Silence,
}

/// More of one answer.
#[derive(Debug)]
pub(crate) struct Delta {
    pub choice: usize,
    pub text: String,
    pub logprobs: Vec<PositionLogprobs>,
}
