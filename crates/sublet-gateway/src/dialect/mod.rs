//! The APIs this gateway speaks: each reads a body into a [`Call`] and writes an answer in its own form.
//!
//! Everything of a request is checked while it is read, before money or memory is used. A dialect knows
//! nothing of admission and metering, and sees money only as the finished amount that it shows.

mod body;
pub(crate) mod embeddings;
mod field;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod messages;
mod number;
mod openai;
mod parts;
mod piece;
pub(crate) mod relay;
mod responses;
mod tools;
pub(crate) mod translate;

use http::HeaderMap;
use serde::Serialize;
use sublet_api::ErrorBody;
use sublet_api::messages::{MessageError, status_and_type};
use sublet_api::openai::CostNote;
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, ModelInfo, PositionLogprobs, Prompt, STOP_STRINGS_MAX, Sampling};
use sublet_core::id::RequestId;
use sublet_core::rate::EndUser;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, ErrorCode, Result, Timestamp, TokenCount};

pub(crate) use body::{json_object, model_of};

use crate::generation::Delta;
use parts::Split;
use translate::Translated;

pub(crate) use format::Rule;
pub(crate) use piece::Reading;
pub(crate) use responses::{Draft, Earlier, references, response_of};

/// A line that parsers who know the format skip.
const COMMENT: &[u8] = b": still working\n\n";
/// Answers one request can have: prompts multiplied by `n`.
pub(crate) const CHOICES_MAX: usize = 8;
/// A stop string bounds how many tokens the engine may have to keep back.
pub(crate) const STOP_BYTES_MAX: usize = 256;

/// Which endpoint was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    Chat,
    Completion,
    Response,
    Message,
    Embedding,
}

impl Endpoint {
    /// The route as records and metrics name it.
    pub const fn route(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Response => "/v1/responses",
            Self::Message => "/v1/messages",
            Self::Embedding => "/v1/embeddings",
        }
    }

    /// The shape its errors have.
    pub const fn envelope(self) -> Envelope {
        match self {
            Self::Chat | Self::Completion | Self::Response | Self::Embedding => Envelope::OpenAi,
            Self::Message => Envelope::Anthropic,
        }
    }

    /// Reads a body of which an answer is wanted, with what was kept before that it refers to.
    pub fn read(self, body: &[u8], earlier: &Earlier) -> Result<Call> {
        match self {
            Self::Chat => openai::read(openai::Kind::Chat, body),
            Self::Completion => openai::read(openai::Kind::Completion, body),
            Self::Response => responses::read(body, earlier),
            Self::Message => messages::read(body, messages::Purpose::Answer),
            // They are read where the model is known.
            Self::Embedding => Err(no_embeddings("this model")),
        }
    }

    /// How a server elsewhere is asked in the same words; `None` if it does not know them.
    pub const fn relayed(self) -> Option<relay::Kind> {
        match self {
            Self::Chat => Some(relay::Kind::Chat),
            Self::Completion => Some(relay::Kind::Completion),
            Self::Embedding => Some(relay::Kind::Embedding),
            // These are translated.
            Self::Response | Self::Message => None,
        }
    }

    /// Reads a body of which only the tokens are to be counted.
    pub fn read_to_count(self, body: &[u8], earlier: &Earlier) -> Result<Call> {
        match self {
            Self::Message => messages::read(body, messages::Purpose::Count),
            Self::Chat | Self::Completion | Self::Response | Self::Embedding => self.read(body, earlier),
        }
    }

    /// An error of a prompt names the field that this endpoint has for it.
    pub fn rename(self, error: Error) -> Error {
        match (self, error.param_name()) {
            (Self::Response, Some("messages")) => error.param("input"),
            _ => error,
        }
    }

    /// Who calls, as far as the body says: its program's own name for him.
    pub fn end_user(self, body: &[u8]) -> Result<Option<EndUser>> {
        body::end_user(body, self == Self::Message)
    }

    /// The answer to a request to count.
    pub fn count(self, tokens: TokenCount) -> Vec<u8> {
        match self {
            Self::Message => messages::count(tokens),
            Self::Chat | Self::Completion | Self::Response | Self::Embedding => responses::count(tokens),
        }
    }
}

/// A model without vectors was asked for some.
pub(crate) fn no_embeddings(model: &str) -> Error {
    Error::new(ErrorCode::UnsupportedField, format!("{model} makes text, not embeddings")).param("model")
}

/// The shape of errors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Envelope {
    #[default]
    OpenAi,
    Anthropic,
}

impl Envelope {
    /// What the caller of a route that serves both reads.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key("anthropic-version") { Self::Anthropic } else { Self::OpenAi }
    }

    pub fn status(self, error: &Error) -> u16 {
        match self {
            Self::OpenAi => error.code().status(),
            Self::Anthropic => status_and_type(error.code()).0,
        }
    }

    /// The body of an error answer.
    pub fn body(self, request: &RequestId, error: &Error) -> Vec<u8> {
        match self {
            Self::OpenAi => json(&ErrorBody::new(error, Some(request))),
            Self::Anthropic => json(&MessageError::new(error, Some(request))),
        }
    }
}

/// One checked request.
#[derive(Debug)]
pub(crate) struct Call {
    pub model: String,
    pub tier: ServiceTier,
    pub prompts: Vec<Prompt>,
    /// Answers per prompt.
    pub answers: usize,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub output_max: Option<TokenCount>,
    /// What the whole output has to be.
    pub rule: Option<Rule>,
    /// The model may ask for several calls at once.
    pub parallel_calls: bool,
    pub stream: bool,
    pub form: Form,
}

impl Call {
    /// Settles what depends on the model.
    pub fn fit(&mut self, model: &ModelInfo) -> Result<()> {
        tools::fit(&mut self.form.reading, model)?;
        let is_single = matches!(self.form.reading, Reading::Tagged(_)) && !self.parallel_calls;
        if is_single && self.stop.len() < STOP_STRINGS_MAX {
            // After its first call the model has nothing more to say.
            self.stop.push(piece::CLOSE.to_owned());
        }
        Ok(())
    }
}

/// What the form of an answer depends on.
#[derive(Debug)]
pub(crate) struct Form {
    pub shape: Shape,
    pub reading: Reading,
}

/// Whose words an answer has.
#[derive(Debug)]
pub(crate) enum Shape {
    OpenAi(openai::Form),
    Response(Box<responses::Form>),
    Message(messages::Form),
    /// As a server elsewhere says it.
    Relay(relay::Form),
    /// What a server elsewhere says, in these words.
    Translated(Box<Shape>),
    Vectors(embeddings::Form),
}

impl Form {
    /// What is to be kept with the answer; nothing unless it was asked for.
    pub fn take_draft(&mut self) -> Option<Draft> {
        let mut shape = &mut self.shape;
        while let Shape::Translated(inner) = shape {
            shape = inner;
        }
        match shape {
            Shape::Response(form) => form.draft.take(),
            Shape::OpenAi(_) | Shape::Message(_) | Shape::Relay(_) | Shape::Translated(_) | Shape::Vectors(_) => None,
        }
    }

    /// Writes the answer of this form.
    pub fn writer(self, subject: Subject<'_>) -> Box<dyn Writer> {
        let Self { shape, reading } = self;
        let choices = subject.choices;
        match shape {
            Shape::OpenAi(form) => Box::new(Split::new(openai::Frames::new(form, subject), &reading, choices)),
            Shape::Response(form) => Box::new(Split::new(responses::Events::new(*form, subject), &reading, choices)),
            Shape::Message(form) => Box::new(Split::new(messages::Events::new(form, subject), &reading, choices)),
            Shape::Translated(inner) => match *inner {
                Shape::Response(form) => Box::new(Translated::new(responses::Events::new(*form, subject))),
                Shape::Message(form) => Box::new(Translated::new(messages::Events::new(form, subject))),
                other => Self { shape: other, reading }.writer(subject),
            },
            Shape::Relay(form) => Box::new(relay::Relay::new(form, subject)),
            Shape::Vectors(form) => Box::new(embeddings::Vectors::new(form, subject)),
        }
    }
}

/// Which answer, of which model, since when.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub request: &'a RequestId,
    pub model: &'a str,
    pub created: Timestamp,
    /// Answers it has.
    pub choices: usize,
    /// The tier that serves it, and is charged.
    pub tier: ServiceTier,
}

impl Subject<'_> {
    /// The request's id under another prefix: ids of one request differ in nothing else.
    fn id(&self, prefix: &str) -> String {
        let id = self.request.as_str();
        format!("{prefix}_{}", id.split_once('_').map_or(id, |(_, body)| body))
    }

    /// What ids of calls begin with: the writer adds which call of which answer.
    fn call_ids(&self, prefix: &'static str) -> CallIds {
        CallIds(self.id(prefix))
    }
}

/// Makes ids of calls, all different and the same whenever they are asked for.
struct CallIds(String);

impl CallIds {
    fn id(&self, choice: usize, index: usize) -> String {
        format!("{}_{choice}_{index}", self.0)
    }
}

/// The text of one answer so far, or its vectors.
#[derive(Default, Debug)]
pub(crate) struct Text {
    pub text: String,
    pub logprobs: Vec<PositionLogprobs>,
    /// Little-endian 32-bit floats, in the order of the inputs of this lane.
    pub vectors: Vec<Vec<u8>>,
}

/// How a request ended well.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub tokens: &'a TokenUsage,
    /// One per answer.
    pub finishes: &'a [FinishReason],
    pub cost: &'a CostNote,
    pub at: Timestamp,
}

impl End<'_> {
    /// Our word for an end that clients have none for.
    fn stop(&self) -> Option<String> {
        self.finishes.iter().find_map(|reason| stop_text(*reason)).map(str::to_owned)
    }
}

/// Our word for an end that clients have none for.
fn stop_text(reason: FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Allowance => Some("budget"),
        FinishReason::Stop | FinishReason::StopString(_) | FinishReason::Length => None,
    }
}

/// Writes one answer: either [`Writer::whole`], or events in this order: `begin`, any `delta`, `rest` where
/// something happens before the end, and `end` or `failure`.
pub(crate) trait Writer: Send {
    /// The events before any text; `prompt` is what is known of the input's tokens.
    fn begin(&mut self, out: &mut Vec<u8>, prompt: &TokenUsage);
    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta);
    /// What is still to be said before the end: text that was kept back.
    fn rest(&mut self, _out: &mut Vec<u8>) {}
    /// The finished answer as one object, after [`Writer::rest`] or [`Writer::whole`]; `None` where answers are not kept.
    fn object(&self, _end: &End<'_>) -> Option<Vec<u8>> {
        None
    }
    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>);
    /// The last event when something failed, after which the stream just ends.
    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error);
    /// What is sent in a long silence.
    fn heartbeat(&self) -> &'static [u8];
    /// The answer as one object.
    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8>;
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    push_json(&mut out, value);
    out
}

pub(crate) fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("writing JSON's own types to memory cannot fail");
}

/// One event of a stream whose events have names.
fn push_event<T: Serialize>(out: &mut Vec<u8>, name: &str, event: &T) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    push_json(out, event);
    out.extend_from_slice(b"\n\n");
}
