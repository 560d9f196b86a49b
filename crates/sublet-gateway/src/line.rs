//! Lines of batches: requests without a connection, served on the path of every other request.
//!
//! A line is admitted, held for and metered like any request. It differs in where its answer goes: into
//! its usage record, so that both become durable, and are settled, together.
//!
//! Deliberately absent: files, and which line is served when (`sublet-cloud`).

use std::sync::Arc;

use sublet_core::admission::{Access, TokenPrices};
use sublet_core::batch::{LineEnd, LineEndpoint, LineEstimate, LineRequest, LineServer};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::AnsweredLine;
use sublet_core::{BoxFuture, Error, ErrorCode, Result, Timestamp, TokenCount};

use crate::answer::{Bill, end, gather, writer_of};
use crate::dialect::{Endpoint, Form};
use crate::ended::not_written;
use crate::gateway::Gateway;
use crate::generation::{Bills, Facts, Generation, Guards};
use crate::journal::frame::LINE_ANSWER_BYTES_MAX;
use crate::journal::writer::Written;
use crate::limits::{Pass, Stage};
use crate::prepare::{Prepared, prepare};
use crate::pricing::hold_for;
use crate::reply::{Head, log};
use crate::serve::pass_body;
use crate::start::start;

/// Serves lines at one gateway.
pub struct Lines(Arc<Gateway>);

impl Lines {
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        Self(Arc::clone(gateway))
    }
}

impl LineServer for Lines {
    fn estimate(&self, access: Arc<Access>, endpoint: LineEndpoint, body: Vec<u8>) -> BoxFuture<'_, Result<LineEstimate>> {
        Box::pin(async move {
            let mut prepared = read(&self.0, &access, endpoint, body.into()).await?;
            let now = self.0.clock.now();
            let prices = prices(&self.0, &access, &prepared.model, now)?;
            prepared.permit(&self.0, &access, &prices, now)?;
            let (prompt_max, output_max) = (prepared.prompt_max(), prepared.output_max());
            // The line is admitted whenever there is room for it.
            let [cheapest, dearest] = self.0.admission.price_range(&access, (&prepared.model, prices.tier), now)?;
            Ok(LineEstimate {
                answers: prepared.answers(),
                input: prepared.prompt(),
                output_max,
                least: hold_for(&cheapest, prompt_max, prepared.output_least())?,
                most: hold_for(&dearest, prompt_max, output_max)?,
            })
        })
    }

    fn serve(&self, line: LineRequest) -> BoxFuture<'_, LineEnd> {
        Box::pin(serve(&self.0, line))
    }
}

const fn endpoint_of(endpoint: LineEndpoint) -> Endpoint {
    match endpoint {
        LineEndpoint::ChatCompletions => Endpoint::Chat,
        LineEndpoint::Completions => Endpoint::Completion,
        LineEndpoint::Responses => Endpoint::Response,
        LineEndpoint::Embeddings => Endpoint::Embedding,
    }
}

/// A batch fills what nothing better needs: it has the price of that where there is one.
fn prices(gateway: &Gateway, access: &Access, model: &str, at: Timestamp) -> Result<Arc<TokenPrices>> {
    match gateway.admission.prices(access, (model, ServiceTier::Flex), at) {
        Err(error) if error.code() == ErrorCode::PolicyRefused => {
            gateway.admission.prices(access, (model, ServiceTier::Default), at)
        }
        other => other,
    }
}

/// Everything of a line that can be wrong before its money.
async fn read(gateway: &Arc<Gateway>, access: &Arc<Access>, endpoint: LineEndpoint, body: bytes::Bytes) -> Result<Prepared> {
    let mut prepared = prepare(gateway, access, (endpoint_of(endpoint), Endpoint::read), body).await?;
    if prepared.stream {
        return Err(Error::new(ErrorCode::InvalidRequest, "a line of a batch is answered whole: 'stream' must be false")
            .param("stream")
            .alternative("leave 'stream' out"));
    }
    if prepared.tier == ServiceTier::Priority {
        let error = Error::new(ErrorCode::InvalidRequest, "a batch fills what nothing better needs: its lines have no priority");
        return Err(error.param("service_tier").alternative("leave 'service_tier' out"));
    }
    if prepared.form.take_draft().is_some() {
        let error =
            Error::new(ErrorCode::UnsupportedField, "responses to lines of a batch are not kept: they are in its output file");
        return Err(error.param("store").alternative("leave 'store' out"));
    }
    Ok(prepared)
}

async fn serve(gateway: &Arc<Gateway>, line: LineRequest) -> LineEnd {
    let head = Head::new(line.request.clone(), endpoint_of(line.endpoint).envelope());
    match begin(gateway, line).await {
        Ok((generation, form)) => finish(&head, form, generation).await,
        Err(error) => {
            gateway.metrics.refused();
            refused(&head, error)
        }
    }
}

/// The admission of every request, for a caller that is known already.
async fn begin(gateway: &Arc<Gateway>, line: LineRequest) -> Result<(Generation, Form)> {
    let entered = gateway.enter()?;
    let LineRequest { access, endpoint, body, request, attempt, name, tier } = line;
    let body = bytes::Bytes::from(body);
    let state = gateway.keys.get(&access)?;
    let now = gateway.clock.now();
    let mut pass = Pass::default();
    gateway.limits.enter(&mut pass, &access, Stage::Key, now).await?;
    let mut prepared = read(gateway, &access, endpoint, body.clone()).await?;
    prepared.tier = tier;
    let class = pass_body(gateway, &mut pass, (&access, endpoint_of(endpoint)), (&body, &prepared), now).await?;
    let prices = prices(gateway, &access, &prepared.model, now)?;
    let (model, is_elsewhere) = (prepared.model.clone(), prepared.served_by.is_some());
    let of_servers = |error| if is_elsewhere { of_servers(error, &model) } else { error };
    prepared.permit(gateway, &access, &prices, now).map_err(of_servers)?;
    let facts = Facts {
        request,
        route: endpoint_of(endpoint).route(),
        prices,
        access,
        model: prepared.model.clone(),
        admitted_at: now,
        client_retry: 0,
        streamed: false,
        bills: prepared.bills,
        served_by: prepared.served_by.clone(),
        attempt,
        line: Some(AnsweredLine { name, answer: String::new() }),
    };
    let guards = Guards::new(entered, pass, None);
    let generation = start(gateway, (&state, &class), (facts, guards), &prepared).await.map_err(of_servers)?;
    Ok((generation, prepared.form))
}

/// Generates to the end. The answer is in the record before the money is taken.
async fn finish(head: &Head, form: Form, mut generation: Generation) -> LineEnd {
    let texts = match gather(&mut generation).await {
        Ok(texts) => texts,
        Err(error) => {
            let is_elsewhere = generation.facts.served_by.is_some();
            let error = if is_elsewhere { of_servers(error, &generation.facts.model) } else { error };
            generation.abandon(&error);
            return refused(head, error);
        }
    };
    let ending = generation.ending();
    let note = Bill::new(&ending, generation.facts.prices.currency).note();
    let body = writer_of(form, head, &generation).whole(texts, &end(&ending, &note));
    let Ok(body) = String::from_utf8(body) else {
        let error = Error::internal("an answer is not UTF-8");
        generation.abandon(&error);
        return refused(head, error);
    };
    if body.len() > LINE_ANSWER_BYTES_MAX {
        let message = format!("the answer of a line has at most {LINE_ANSWER_BYTES_MAX} bytes; this one was not charged");
        let error = Error::new(ErrorCode::InvalidRequest, message).alternative("ask for fewer tokens or answers");
        generation.abandon(&error);
        return refused(head, error);
    }
    if ending.tokens.output == TokenCount::ZERO && generation.facts.bills == Bills::Answer {
        generation.complete();
        return LineEnd::Free { body };
    }
    if let Some(line) = &mut generation.facts.line {
        line.answer = body;
    }
    match generation.complete().written().await {
        Some(Written::Durable) => LineEnd::Recorded,
        Some(Written::Refused) => refused(head, not_written()),
        Some(Written::Unknown) | None => LineEnd::Unknown,
    }
}

/// What the servers of one model refuse says nothing of lines that call another.
fn of_servers(error: Error, model: &str) -> Error {
    match error.code() {
        ErrorCode::QueueFull
        | ErrorCode::Preempted
        | ErrorCode::ModelUnavailable
        | ErrorCode::UpstreamFailed
        | ErrorCode::UpstreamTimeout => error.bottleneck(format!("model {model}")),
        _ => error,
    }
}

fn refused(head: &Head, error: Error) -> LineEnd {
    log(&head.request, &error);
    let body = String::from_utf8_lossy(&head.envelope.body(&head.request, &error)).into_owned();
    LineEnd::Refused { status: head.envelope.status(&error), body, error }
}
