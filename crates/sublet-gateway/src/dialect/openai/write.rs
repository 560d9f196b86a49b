//! Writes chat completions and completions. Events are text: a prefix made once per stream, then only what changes.

use sublet_api::openai::{
    AnswerCall, AnswerMessage, CallDelta, CalledFunction, ChatChoice, ChatCompletion, ChatLogprobs, ChatTokenLogprob,
    ChatTopLogprob, Completion, CompletionChoice, CompletionLogprobs, CompletionTokensDetails, FunctionDelta, Logprob,
    PromptTokensDetails, Usage,
};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, PositionLogprobs};
use sublet_core::id::RequestId;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, Timestamp};

use super::{Form, Kind};
use crate::dialect::parts::{Answer, Item, Part, PartWriter};
use crate::dialect::piece::{CallPiece, Piece};
use crate::dialect::{CallIds, End, Envelope, Subject, json, push_json, stop_text};

/// Bytes of one event beside its prefix and its text, to allocate once.
const EVENT_BYTES: usize = 96;
const DONE: &[u8] = b"data: [DONE]\n\n";

/// What all events of one stream say.
pub(crate) struct Frames {
    form: Form,
    id: String,
    model: String,
    created: Timestamp,
    tier: ServiceTier,
    /// Made with the first event.
    prefix: Vec<u8>,
    ids: CallIds,
    answers: Vec<Sent>,
}

/// What was sent of one answer.
#[derive(Clone, Default)]
struct Sent {
    /// Characters of text.
    characters: usize,
    has_called: bool,
}

impl Frames {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        Self {
            form,
            id: subject.request.to_string(),
            model: subject.model.to_owned(),
            created: subject.created,
            tier: subject.tier,
            prefix: Vec::new(),
            ids: subject.call_ids("call"),
            answers: vec![Sent::default(); subject.choices],
        }
    }

    fn make_prefix(&self) -> Vec<u8> {
        let object = match self.form.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        let mut prefix = b"data: {\"id\":".to_vec();
        push_json(&mut prefix, self.id.as_str());
        prefix.extend_from_slice(b",\"object\":\"");
        prefix.extend_from_slice(object.as_bytes());
        prefix.extend_from_slice(b"\",\"created\":");
        push_json(&mut prefix, &self.created.seconds());
        prefix.extend_from_slice(b",\"model\":");
        push_json(&mut prefix, self.model.as_str());
        prefix.extend_from_slice(b",\"service_tier\":\"");
        prefix.extend_from_slice(self.tier.as_str().as_bytes());
        prefix.extend_from_slice(b"\",\"choices\":[");
        prefix
    }

    fn open(&self, out: &mut Vec<u8>, choice: usize) {
        out.reserve(self.prefix.len() + EVENT_BYTES);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"index\":");
        push_json(out, &choice);
    }

    fn close(&self, out: &mut Vec<u8>, stop: Option<&str>) {
        out.extend_from_slice(b"}]");
        if self.form.include_usage {
            // `usage` is announced as null on every event but the last one.
            out.extend_from_slice(b",\"usage\":null");
        }
        if let Some(stop) = stop {
            out.extend_from_slice(b",\"sublet_stop\":");
            push_json(out, stop);
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// The last event of one answer.
    fn finish(&self, out: &mut Vec<u8>, choice: usize, reason: FinishReason) {
        self.open(out, choice);
        out.extend_from_slice(match self.form.kind {
            Kind::Chat => br#","delta":{},"logprobs":null,"finish_reason":"#.as_slice(),
            Kind::Completion => br#","text":"","logprobs":null,"finish_reason":"#.as_slice(),
        });
        push_json(out, reason_text(reason, self.answers[choice].has_called));
        self.close(out, stop_text(reason));
    }

    /// The extra event with the counts and no answers.
    fn counts(&self, out: &mut Vec<u8>, end: &End<'_>) {
        if !self.form.include_usage {
            return;
        }
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"],\"usage\":");
        push_json(out, &usage(end.tokens));
        out.extend_from_slice(b",\"sublet\":");
        push_json(out, end.cost);
        out.extend_from_slice(b"}\n\n");
    }

    fn message(&self, index: usize, answer: Answer) -> AnswerMessage {
        let (mut text, mut tool_calls) = (String::new(), Vec::new());
        for item in answer.items {
            match item {
                Item::Text(more) => text.push_str(&more),
                Item::Call(call) => tool_calls.push(AnswerCall {
                    id: call.id.unwrap_or_else(|| self.ids.id(index, tool_calls.len())),
                    r#type: "function".to_owned(),
                    function: CalledFunction { name: call.name, arguments: call.arguments },
                }),
            }
        }
        let content = (tool_calls.is_empty() || !text.is_empty()).then_some(text);
        AnswerMessage { role: "assistant".to_owned(), content, refusal: None, tool_calls }
    }

    fn chat(&self, answers: Vec<Answer>, end: &End<'_>) -> ChatCompletion {
        let choice = |(index, (answer, reason)): (usize, (Answer, &FinishReason))| {
            let logprobs = self.form.logprobs.then(|| chat_logprobs(&answer.logprobs));
            let message = self.message(index, answer);
            let finish_reason = Some(reason_text(*reason, !message.tool_calls.is_empty()).to_owned());
            ChatChoice { index: u32::try_from(index).unwrap_or(u32::MAX), message, logprobs, finish_reason }
        };
        ChatCompletion {
            id: self.id.clone(),
            object: "chat.completion".to_owned(),
            created: self.created.seconds(),
            model: self.model.clone(),
            choices: answers.into_iter().zip(end.finishes).enumerate().map(choice).collect(),
            usage: usage(end.tokens),
            service_tier: self.tier.to_string(),
            sublet_stop: end.stop(),
        }
    }

    fn completion(&self, answers: Vec<Answer>, end: &End<'_>) -> Completion {
        let choice = |(index, (answer, reason)): (usize, (Answer, &FinishReason))| CompletionChoice {
            logprobs: self.form.logprobs.then(|| completion_logprobs(&answer.logprobs, 0)),
            text: answer.items.into_iter().map(Item::into_text).collect(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            finish_reason: Some(reason_text(*reason, false).to_owned()),
        };
        Completion {
            id: self.id.clone(),
            object: "text_completion".to_owned(),
            created: self.created.seconds(),
            model: self.model.clone(),
            choices: answers.into_iter().zip(end.finishes).enumerate().map(choice).collect(),
            usage: usage(end.tokens),
            sublet_stop: end.stop(),
        }
    }
}

/// More of a call, as a stream has it.
fn call_delta(call: &CallPiece, id: impl FnOnce() -> String) -> CallDelta {
    let start = call.start.as_ref();
    CallDelta {
        index: call.index,
        id: start.map(|start| start.id.clone().unwrap_or_else(id)),
        r#type: start.map(|_| "function".to_owned()),
        function: FunctionDelta { name: start.map(|start| start.name.clone()), arguments: call.arguments.clone() },
    }
}

impl PartWriter for Frames {
    /// The role of each answer of a chat. Text completions have none.
    fn begin(&mut self, out: &mut Vec<u8>, _prompt: &TokenUsage) {
        self.prefix = self.make_prefix();
        if self.form.kind == Kind::Completion {
            return;
        }
        for choice in 0..self.answers.len() {
            self.open(out, choice);
            out.extend_from_slice(br#","delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#);
            self.close(out, None);
        }
    }

    fn part(&mut self, out: &mut Vec<u8>, part: &Part) {
        let logprobs = self.form.logprobs.then_some(part.logprobs.as_slice());
        self.open(out, part.choice);
        match (&part.piece, self.form.kind) {
            (Piece::Text(text), Kind::Chat) => {
                out.extend_from_slice(b",\"delta\":{\"content\":");
                push_json(out, text.as_str());
                out.extend_from_slice(b"},\"logprobs\":");
                push_json(out, &logprobs.map(chat_logprobs));
            }
            (Piece::Text(text), Kind::Completion) => {
                // Where the text starts in its answer, in characters.
                let offset = self.answers[part.choice].characters;
                self.answers[part.choice].characters = offset + text.chars().count();
                out.extend_from_slice(b",\"text\":");
                push_json(out, text.as_str());
                out.extend_from_slice(b",\"logprobs\":");
                push_json(out, &logprobs.map(|positions| completion_logprobs(positions, offset)));
            }
            (Piece::Call(call), Kind::Chat | Kind::Completion) => {
                self.answers[part.choice].has_called = true;
                out.extend_from_slice(b",\"delta\":{\"tool_calls\":[");
                push_json(out, &call_delta(call, || self.ids.id(part.choice, call.index)));
                out.extend_from_slice(b"]},\"logprobs\":");
                push_json(out, &logprobs.map(chat_logprobs));
            }
        }
        out.extend_from_slice(b",\"finish_reason\":null");
        self.close(out, None);
    }

    /// The end of every answer, the counts, and `[DONE]`.
    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        for (choice, reason) in end.finishes.iter().enumerate() {
            self.finish(out, choice, *reason);
        }
        self.counts(out, end);
        out.extend_from_slice(DONE);
    }

    /// One event, and no `[DONE]`.
    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&Envelope::OpenAi.body(request, error));
        out.extend_from_slice(b"\n\n");
    }

    fn whole(&mut self, answers: Vec<Answer>, end: &End<'_>) -> Vec<u8> {
        match self.form.kind {
            Kind::Chat => json(&self.chat(answers, end)),
            Kind::Completion => json(&self.completion(answers, end)),
        }
    }
}

pub(crate) fn usage(tokens: &TokenUsage) -> Usage {
    Usage {
        prompt_tokens: tokens.prompt().get(),
        completion_tokens: tokens.output.get(),
        total_tokens: tokens.total().get(),
        prompt_tokens_details: PromptTokensDetails { cached_tokens: tokens.cached_input.get() },
        completion_tokens_details: CompletionTokensDetails::default(),
    }
}

/// OpenAI's word for an end.
fn reason_text(reason: FinishReason, has_called: bool) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopString(_) if has_called => "tool_calls",
        FinishReason::Stop | FinishReason::StopString(_) => "stop",
        FinishReason::Length | FinishReason::Allowance => "length",
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
fn completion_logprobs(positions: &[PositionLogprobs], mut offset: usize) -> CompletionLogprobs {
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
