//! OpenAI's Responses without their store, and counting their tokens.

mod read;
mod write;

use sublet_api::responses::RequestEcho;

pub(crate) use read::read;
pub(crate) use write::{Events, count};

/// What the form of an answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub echo: RequestEcho,
    pub logprobs: bool,
}
