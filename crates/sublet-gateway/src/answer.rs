//! From a generation to bytes: one JSON object, or a stream of events.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use sublet_api::openai::{
    AnswerMessage, ChatChoice, ChatCompletion, Completion, CompletionChoice, CompletionTokensDetails, CostNote,
    PromptTokensDetails, Usage,
};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, PositionLogprobs};
use sublet_core::{Currency, Error, Money, Result};

use crate::frames::{self, Frames, Subject};
use crate::generation::{Delta, Ended, Generation, Step};
use crate::parse::Endpoint;
use crate::reply::{Head, error_body, log, write_cost};

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What the answer's form depends on.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub endpoint: Endpoint,
    pub include_usage: bool,
    pub logprobs: bool,
}

fn usage(tokens: &TokenUsage) -> Usage {
    Usage {
        prompt_tokens: tokens.prompt().get(),
        completion_tokens: tokens.output.get(),
        total_tokens: tokens.total().get(),
        prompt_tokens_details: PromptTokensDetails { cached_tokens: tokens.cached_input.get() },
        completion_tokens_details: CompletionTokensDetails::default(),
    }
}

fn money(ended: &Ended, currency: Currency) -> (Money, Option<Money>) {
    let remaining = ended.remaining.map(|amount| Money { amount, currency });
    (Money { amount: ended.cost, currency }, remaining)
}

/// The text of one answer so far.
#[derive(Default)]
struct Text {
    text: String,
    logprobs: Vec<PositionLogprobs>,
}

/// Generates to the end and answers with one object.
pub(crate) async fn whole(head: Head, form: Form, mut generation: Generation) -> Response {
    let mut texts: Vec<Text> = (0..generation.choices()).map(|_| Text::default()).collect();
    loop {
        match generation.next().await {
            Step::Started | Step::Silence => {}
            Step::Delta(Delta { choice, text, logprobs }) => {
                texts[choice].text.push_str(&text);
                texts[choice].logprobs.extend(logprobs);
            }
            Step::Done => break,
            Step::Failed(error) => {
                generation.abandon();
                return head.error(&error);
            }
        }
    }
    let created = generation.facts.admitted_at;
    let currency = generation.facts.prices.currency;
    let model = generation.facts.model.clone();
    let mut ended = generation.complete();
    if let Err(error) = ended.durable().await {
        return head.error(&error);
    }
    let subject = Subject { request: &head.request, model: &model, created };
    let body = match form.endpoint {
        Endpoint::Chat => serde_json::to_vec(&chat_completion(subject, form, texts, &ended)),
        Endpoint::Completion => serde_json::to_vec(&text_completion(subject, form, texts, &ended)),
    };
    let mut response = head.json(StatusCode::OK, body.expect("an answer has only JSON's own types"));
    let (cost, remaining) = money(&ended, currency);
    write_cost(response.headers_mut(), cost, remaining);
    response
}

fn stop_of(ended: &Ended) -> Option<String> {
    ended.finishes.iter().find_map(|reason| frames::stop_text(*reason)).map(str::to_owned)
}

fn chat_completion(subject: Subject<'_>, form: Form, texts: Vec<Text>, ended: &Ended) -> ChatCompletion {
    let choice = |(index, (text, reason)): (usize, (Text, &FinishReason))| ChatChoice {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        logprobs: form.logprobs.then(|| frames::chat_logprobs(&text.logprobs)),
        message: AnswerMessage { role: "assistant".to_owned(), content: Some(text.text), refusal: None },
        finish_reason: Some(frames::reason_text(*reason).to_owned()),
    };
    ChatCompletion {
        id: subject.request.to_string(),
        object: "chat.completion".to_owned(),
        created: subject.created.seconds(),
        model: subject.model.to_owned(),
        choices: texts.into_iter().zip(&ended.finishes).enumerate().map(choice).collect(),
        usage: usage(&ended.tokens),
        service_tier: "default".to_owned(),
        sublet_stop: stop_of(ended),
    }
}

fn text_completion(subject: Subject<'_>, form: Form, texts: Vec<Text>, ended: &Ended) -> Completion {
    let choice = |(index, (text, reason)): (usize, (Text, &FinishReason))| CompletionChoice {
        logprobs: form.logprobs.then(|| frames::completion_logprobs(&text.logprobs, 0)),
        text: text.text,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        finish_reason: Some(frames::reason_text(*reason).to_owned()),
    };
    Completion {
        id: subject.request.to_string(),
        object: "text_completion".to_owned(),
        created: subject.created.seconds(),
        model: subject.model.to_owned(),
        choices: texts.into_iter().zip(&ended.finishes).enumerate().map(choice).collect(),
        usage: usage(&ended.tokens),
        sublet_stop: stop_of(ended),
    }
}

/// A stream on its way out.
struct Streaming {
    head: Head,
    form: Form,
    frames: Frames,
    generation: Generation,
    roles_sent: bool,
    /// Characters sent per answer.
    offsets: Vec<usize>,
}

/// Answers with events as they come.
pub(crate) fn streamed(head: Head, form: Form, generation: Generation) -> Response {
    let facts = &generation.facts;
    let subject = Subject { request: &facts.request, model: &facts.model, created: facts.admitted_at };
    let frames = Frames::new(form.endpoint, subject, form.include_usage);
    let offsets = vec![0; generation.choices()];
    let state = Streaming { head: head.clone(), form, frames, generation, roles_sent: false, offsets };
    let stream = futures_util::stream::unfold(Some(state), |state| async move {
        let (event, state) = state?.next().await;
        Some((Ok::<Bytes, Infallible>(event.into()), state))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    head.write(headers);
    response
}

impl Streaming {
    /// The next bytes, and the stream that goes on, if it does. What is returned counts as delivered:
    /// there is no wait between [`Generation::next`] and the return.
    async fn next(mut self) -> (Vec<u8>, Option<Self>) {
        let mut out = Vec::new();
        if !self.roles_sent {
            self.roles_sent = true;
            (0..self.generation.choices()).for_each(|choice| self.frames.role(&mut out, choice));
            if !out.is_empty() {
                return (out, Some(self));
            }
        }
        loop {
            match self.generation.next().await {
                Step::Started => {}
                Step::Silence => return (frames::HEARTBEAT.to_vec(), Some(self)),
                Step::Delta(delta) => {
                    self.write_delta(&mut out, &delta);
                    return (out, Some(self));
                }
                Step::Done => return (self.finish().await, None),
                Step::Failed(error) => {
                    let mut ended = self.generation.abandon();
                    // The client learns of the failure only after what it got is on the record.
                    let error = ended.durable().await.err().unwrap_or(error);
                    return (failure(&self.head, &error), None);
                }
            }
        }
    }

    fn write_delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        let offset = self.offsets[delta.choice];
        self.offsets[delta.choice] = offset + delta.text.chars().count();
        let logprobs = self.form.logprobs.then_some((delta.logprobs.as_slice(), offset));
        self.frames.delta(out, delta.choice, &delta.text, logprobs);
    }

    /// The record first, then the end of every answer, the counts, and `[DONE]`.
    async fn finish(self) -> Vec<u8> {
        let currency = self.generation.facts.prices.currency;
        let mut ended = self.generation.complete();
        match ended.durable().await {
            Ok(()) => {}
            Err(error) => return failure(&self.head, &error),
        }
        let mut out = Vec::new();
        for (choice, reason) in ended.finishes.iter().enumerate() {
            self.frames.finish(&mut out, choice, *reason);
        }
        let (cost, remaining) = money(&ended, currency);
        let note = CostNote { cost: cost.into(), provisional: true, remaining_budget: remaining.map(Into::into) };
        self.frames.usage(&mut out, &usage(&ended.tokens), &note);
        out.extend_from_slice(frames::DONE);
        out
    }
}

fn failure(head: &Head, error: &Error) -> Vec<u8> {
    log(&head.request, error);
    frames::error(&error_body(&head.request, error))
}

/// Waits for the engine to begin; answers by the form that was asked for.
pub(crate) async fn answer(head: Head, form: Form, mut generation: Generation) -> Result<Response> {
    if !generation.facts.streamed {
        return Ok(whole(head, form, generation).await);
    }
    generation.begin().await?;
    Ok(streamed(head, form, generation))
}
