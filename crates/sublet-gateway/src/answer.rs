//! From a generation to bytes: one object, or a stream of events, in the words of a dialect.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use sublet_api::openai::CostNote;
use sublet_core::{Currency, Error, Money, Result, Timestamp, TokenCount};

use crate::dialect::{End, Form, Subject, Text, Writer};
use crate::ended::Ended;
use crate::generation::{Delta, Generation, Step};
use crate::keep::Keeping;
use crate::reply::{Head, log, write_cost};

/// Events are gathered into one write up to here. What is written is delivered, and charged if its reader leaves.
const WRITE_BYTES_MAX: usize = 8 * 1_024;
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a finished request cost and left, as its answer shows it.
pub(crate) struct Bill {
    cost: Money,
    remaining: Option<Money>,
}

impl Bill {
    pub fn new(ended: &Ended, currency: Currency) -> Self {
        let money = |amount| Money { amount, currency };
        Self { cost: money(ended.cost), remaining: ended.remaining.map(money) }
    }
    pub fn note(&self) -> CostNote {
        CostNote { cost: self.cost.into(), provisional: true, remaining_budget: self.remaining.map(Into::into) }
    }
}

pub(crate) fn writer_of(form: Form, head: &Head, generation: &Generation) -> Box<dyn Writer> {
    let facts = &generation.facts;
    let choices = generation.choices();
    let subject =
        Subject { request: &head.request, model: &facts.model, created: facts.admitted_at, choices, tier: facts.prices.tier };
    form.writer(subject)
}

/// Generates to the end and keeps the text.
pub(crate) async fn gather(generation: &mut Generation) -> Result<Vec<Text>> {
    let mut texts: Vec<Text> = (0..generation.choices()).map(|_| Text::default()).collect();
    loop {
        match generation.next().await {
            Step::Started | Step::Silence => {}
            Step::Delta(Delta { choice, text, logprobs }) => {
                texts[choice].text.push_str(&text);
                texts[choice].logprobs.extend(logprobs);
            }
            Step::Vector { choice, values } => texts[choice].vectors.push(values),
            Step::Done => return Ok(texts),
            Step::Failed(error) => return Err(error),
        }
    }
}

/// Generates to the end and answers with one object.
async fn whole(head: Head, (form, keeping): (Form, Option<Keeping>), mut generation: Generation) -> Response {
    let texts = match gather(&mut generation).await {
        Ok(texts) => texts,
        Err(error) => {
            generation.abandon(&error);
            return head.error(&error);
        }
    };
    let mut writer = writer_of(form, &head, &generation);
    let currency = generation.facts.prices.currency;
    let done = match keeping {
        None => complete(generation).await.map(|ended| (ended, Some(texts))),
        Some(keeping) => {
            let ending = generation.ending();
            let object = writer.whole(texts, &end(&ending, &Bill::new(&ending, currency).note()));
            keep_and_complete(keeping, (object, ending.at), generation).await.map(|ended| (ended, None))
        }
    };
    let (ended, texts) = match done {
        Ok(done) => done,
        Err(error) => return head.error(&error),
    };
    let bill = Bill::new(&ended, currency);
    let note = bill.note();
    let last = end(&ended, &note);
    let body = match texts {
        Some(texts) => writer.whole(texts, &last),
        None => writer.object(&last).unwrap_or_default(),
    };
    let mut response = head.json(StatusCode::OK, body);
    write_cost(response.headers_mut(), bill.cost, bill.remaining);
    response
}

/// The record is durable when it returns.
async fn complete(generation: Generation) -> Result<Ended> {
    let mut ended = generation.complete();
    ended.durable().await.map(|()| ended)
}

/// Keeps an answer, then records it. Of one that cannot be kept, what was delivered is recorded.
async fn keep_and_complete(mut keeping: Keeping, (object, at): (Vec<u8>, Timestamp), generation: Generation) -> Result<Ended> {
    if let Err(error) = keeping.keep(object).await {
        let mut ended = generation.abandon(&error);
        return Err(ended.durable().await.err().unwrap_or(error));
    }
    match complete(generation).await {
        // The answer says what was kept.
        Ok(ended) => Ok(Ended { at, ..ended }),
        Err(error) => {
            keeping.take_back().await;
            Err(error)
        }
    }
}

pub(crate) fn end<'a>(ended: &'a Ended, cost: &'a CostNote) -> End<'a> {
    End { tokens: &ended.tokens, finishes: &ended.finishes, cost, at: ended.at }
}

/// A stream on its way out.
struct Streaming {
    head: Head,
    writer: Box<dyn Writer>,
    generation: Generation,
    keeping: Option<Keeping>,
    begun: bool,
    /// Seen while the events before it were gathered.
    failed: Option<Error>,
}

/// Answers with events as they come.
fn streamed(head: Head, (form, keeping): (Form, Option<Keeping>), generation: Generation) -> Response {
    let writer = writer_of(form, &head, &generation);
    let state = Streaming { head: head.clone(), writer, generation, keeping, begun: false, failed: None };
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
        if !self.begun {
            self.begun = true;
            self.writer.begin(&mut out, &self.generation.usage(TokenCount::ZERO));
            if !out.is_empty() {
                return (out, Some(self));
            }
        }
        loop {
            let step = match self.failed.take() {
                Some(error) => Step::Failed(error),
                None => self.generation.next().await,
            };
            match step {
                // Vectors are not streamed.
                Step::Started | Step::Vector { .. } => {}
                Step::Silence => return (self.writer.heartbeat().to_vec(), Some(self)),
                Step::Delta(delta) => {
                    self.writer.delta(&mut out, &delta);
                    if !out.is_empty() {
                        self.gather_ready(&mut out);
                        return (out, Some(self));
                    }
                }
                Step::Done => return (self.finish().await, None),
                Step::Failed(error) => {
                    let Self { head, mut writer, generation, .. } = self;
                    let mut ended = generation.abandon(&error);
                    // The client learns of the failure only after what it got is on the record.
                    let error = ended.durable().await.err().unwrap_or(error);
                    return (failure(&head, writer.as_mut(), &error), None);
                }
            }
        }
    }

    /// Adds the events that are there already: they go out in one write.
    fn gather_ready(&mut self, out: &mut Vec<u8>) {
        while out.len() < WRITE_BYTES_MAX {
            match self.generation.next().now_or_never() {
                Some(Step::Delta(delta)) => self.writer.delta(out, &delta),
                Some(Step::Started | Step::Silence | Step::Vector { .. }) => {}
                Some(Step::Failed(error)) => return self.failed = Some(error),
                // An answer that is done stays so.
                Some(Step::Done) | None => return,
            }
        }
    }

    /// What is to be kept first, then the record, then the end of the answer.
    async fn finish(self) -> Vec<u8> {
        let Self { head, mut writer, generation, keeping, .. } = self;
        let currency = generation.facts.prices.currency;
        let mut out = Vec::new();
        let done = match keeping {
            None => complete(generation).await,
            Some(keeping) => {
                writer.rest(&mut out);
                let ending = generation.ending();
                let object = writer.object(&end(&ending, &Bill::new(&ending, currency).note())).unwrap_or_default();
                keep_and_complete(keeping, (object, ending.at), generation).await
            }
        };
        match done {
            Ok(ended) => {
                let note = Bill::new(&ended, currency).note();
                writer.end(&mut out, &end(&ended, &note));
            }
            Err(error) => out.extend(failure(&head, writer.as_mut(), &error)),
        }
        out
    }
}

fn failure(head: &Head, writer: &mut dyn Writer, error: &Error) -> Vec<u8> {
    log(&head.request, error);
    let mut out = Vec::new();
    writer.failure(&mut out, &head.request, error);
    out
}

/// Waits for the engine to begin; answers by the form that was asked for.
pub(crate) async fn answer(head: Head, form: (Form, Option<Keeping>), mut generation: Generation) -> Result<Response> {
    if !generation.facts.streamed {
        return Ok(whole(head, form, generation).await);
    }
    generation.begin().await?;
    Ok(streamed(head, form, generation))
}
