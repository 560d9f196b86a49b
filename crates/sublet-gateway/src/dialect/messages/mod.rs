//! Anthropic's Messages, and counting their tokens.

mod read;
mod write;

pub(crate) use read::{Purpose, read};
pub(crate) use write::{Events, count};

/// What the form of an answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// One of them may end the answer, which then names it.
    pub stop: Vec<String>,
}
