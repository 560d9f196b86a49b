//! OpenAI's Responses, and counting their tokens.
//!
//! A response is kept if its request says so. What is kept, and what a request goes on from, are items
//! here; where they lie is known to nobody in this module.

mod item;
mod read;
mod write;

use sublet_api::responses::RequestEcho;

pub(crate) use item::{Draft, Earlier, references, response_of};
pub(crate) use read::read;
pub(crate) use write::{Events, count};

/// What the form of an answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub echo: RequestEcho,
    pub logprobs: bool,
    /// What is to be kept with the answer.
    pub draft: Option<Draft>,
}
