//! OpenAI's chat completions and completions.

mod read;
mod write;

pub(crate) use read::{prompts, read, tool_choice};
pub(crate) use write::{Frames, chat_logprobs, usage};

/// Which of both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

/// What the form of an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub kind: Kind,
    pub include_usage: bool,
    pub logprobs: bool,
}
