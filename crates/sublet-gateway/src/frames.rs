//! The events of a streamed answer, written as text: a prefix made once per stream, then only what changes.

use serde::Serialize;
use sublet_api::openai::{ChatLogprobs, ChatTokenLogprob, ChatTopLogprob, CompletionLogprobs, CostNote, Logprob, Usage};
use sublet_core::Timestamp;
use sublet_core::engine::{FinishReason, PositionLogprobs};
use sublet_core::id::RequestId;

use crate::parse::Endpoint;

/// Bytes of one event beside its prefix and its text, to allocate once.
const EVENT_BYTES: usize = 96;
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";
/// A comment: parsers that know the format skip it.
pub(crate) const HEARTBEAT: &[u8] = b": still working\n\n";

/// What all events of one stream say.
pub(crate) struct Frames {
    endpoint: Endpoint,
    prefix: Vec<u8>,
    /// `usage` is announced as null on every event but the last one.
    with_usage: bool,
}

/// Which answer, of which model, since when.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub request: &'a RequestId,
    pub model: &'a str,
    pub created: Timestamp,
}

fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("writing JSON's own types to memory cannot fail");
}

impl Frames {
    pub fn new(endpoint: Endpoint, subject: Subject<'_>, with_usage: bool) -> Self {
        let object = match endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        };
        let mut prefix = b"data: {\"id\":".to_vec();
        push_json(&mut prefix, subject.request.as_str());
        prefix.extend_from_slice(b",\"object\":\"");
        prefix.extend_from_slice(object.as_bytes());
        prefix.extend_from_slice(b"\",\"created\":");
        push_json(&mut prefix, &subject.created.seconds());
        prefix.extend_from_slice(b",\"model\":");
        push_json(&mut prefix, subject.model);
        prefix.extend_from_slice(b",\"service_tier\":\"default\",\"choices\":[");
        Self { endpoint, prefix, with_usage }
    }

    fn begin(&self, out: &mut Vec<u8>, choice: usize) {
        out.reserve(self.prefix.len() + EVENT_BYTES);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"index\":");
        push_json(out, &choice);
    }

    fn end(&self, out: &mut Vec<u8>, stop: Option<&str>) {
        out.extend_from_slice(b"}]");
        if self.with_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        if let Some(stop) = stop {
            out.extend_from_slice(b",\"sublet_stop\":");
            push_json(out, stop);
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// The first event of each answer of a chat. Text completions have none.
    pub fn role(&self, out: &mut Vec<u8>, choice: usize) {
        if self.endpoint == Endpoint::Completion {
            return;
        }
        self.begin(out, choice);
        out.extend_from_slice(br#","delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#);
        self.end(out, None);
    }

    /// More text. `offset` is where it starts in its answer, in characters.
    pub fn delta(&self, out: &mut Vec<u8>, choice: usize, text: &str, logprobs: Option<(&[PositionLogprobs], usize)>) {
        self.begin(out, choice);
        match self.endpoint {
            Endpoint::Chat => {
                out.extend_from_slice(b",\"delta\":{\"content\":");
                push_json(out, text);
                out.extend_from_slice(b"},\"logprobs\":");
                push_json(out, &logprobs.map(|(positions, _)| chat_logprobs(positions)));
            }
            Endpoint::Completion => {
                out.extend_from_slice(b",\"text\":");
                push_json(out, text);
                out.extend_from_slice(b",\"logprobs\":");
                push_json(out, &logprobs.map(|(positions, offset)| completion_logprobs(positions, offset)));
            }
        }
        out.extend_from_slice(b",\"finish_reason\":null");
        self.end(out, None);
    }

    /// The last event of one answer.
    pub fn finish(&self, out: &mut Vec<u8>, choice: usize, reason: FinishReason) {
        self.begin(out, choice);
        out.extend_from_slice(match self.endpoint {
            Endpoint::Chat => br#","delta":{},"logprobs":null,"finish_reason":"#.as_slice(),
            Endpoint::Completion => br#","text":"","logprobs":null,"finish_reason":"#.as_slice(),
        });
        push_json(out, reason_text(reason));
        self.end(out, stop_text(reason));
    }

    /// The extra event with the counts and no answers.
    pub fn usage(&self, out: &mut Vec<u8>, usage: &Usage, cost: &CostNote) {
        if !self.with_usage {
            return;
        }
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"],\"usage\":");
        push_json(out, usage);
        out.extend_from_slice(b",\"sublet\":");
        push_json(out, cost);
        out.extend_from_slice(b"}\n\n");
    }
}

/// An error inside a stream: one event, after which the stream ends without `[DONE]`.
pub(crate) fn error(body: &[u8]) -> Vec<u8> {
    [b"data: ".as_slice(), body, b"\n\n"].concat()
}

/// OpenAI's word for an end.
pub(crate) fn reason_text(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Allowance => "length",
    }
}

/// Our word for an end that OpenAI has none for.
pub(crate) fn stop_text(reason: FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Stop | FinishReason::Length => None,
        FinishReason::Allowance => Some("budget"),
    }
}

pub(crate) fn chat_logprobs(positions: &[PositionLogprobs]) -> ChatLogprobs {
    let top = |position: &PositionLogprobs| {
        let entry = |top: &sublet_core::engine::TokenLogprob| ChatTopLogprob {
            token: top.token.clone(),
            logprob: Logprob::from(top.logprob),
            bytes: top.bytes.clone(),
        };
        position.top.iter().map(entry).collect()
    };
    let content = positions.iter().map(|position| ChatTokenLogprob {
        token: position.chosen.token.clone(),
        logprob: Logprob::from(position.chosen.logprob),
        bytes: position.chosen.bytes.clone(),
        top_logprobs: top(position),
    });
    ChatLogprobs { content: content.collect() }
}

/// `offset` is where the first of these tokens starts, in characters.
pub(crate) fn completion_logprobs(positions: &[PositionLogprobs], mut offset: usize) -> CompletionLogprobs {
    let mut logprobs = CompletionLogprobs::default();
    for position in positions {
        logprobs.text_offset.push(offset);
        offset += position.chosen.token.chars().count();
        logprobs.tokens.push(position.chosen.token.clone());
        logprobs.token_logprobs.push(Logprob::from(position.chosen.logprob));
        let top = position.top.iter().map(|top| (top.token.clone(), Logprob::from(top.logprob)));
        logprobs.top_logprobs.push(top.collect());
    }
    logprobs
}
