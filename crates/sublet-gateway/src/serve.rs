//! Admission: from a request to a running generation, or to the reason why not.
//!
//! The order is fixed and the cheap checks come first: readiness, key, body, fields, speed, model,
//! prompt, price, money. Nothing is generated and nothing is recorded before the money is held.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sublet_core::admission::{Access, TokenPrices};
use sublet_core::engine::{Allowance, GenerateRequest, ModelInfo, PreparedPrompt, Prompt};
use sublet_core::id::SliceId;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, TokenCount};

use crate::answer::{self, Form};
use crate::branch::{Branch, BranchSizes};
use crate::gateway::Gateway;
use crate::generation::{Facts, Generation, Guards};
use crate::idempotency::Attempt;
use crate::keys::KeyState;
use crate::parse::{Call, Endpoint, parse};
use crate::pricing::{hold_for, output_covered, prompt_hold};
use crate::purse::{Ask, Held, Money};
use crate::reply::Head;

/// Larger bodies are parsed and tokenized off the request threads.
const INLINE_BODY_BYTES_MAX: usize = 64 * 1_024;
/// How long a new request waits for a slice.
const GRANT_WAIT: DurationMs = DurationMs::from_seconds(10);
/// Purses that may close under one request before it gives up.
const PURSES_MAX: usize = 4;
/// Names listed as alternatives to an unknown model.
const ALTERNATIVES_MAX: usize = 20;

/// Serves one billable request.
pub(crate) async fn serve(gateway: Arc<Gateway>, endpoint: Endpoint, request: Request<Body>) -> Response {
    let mut head = Head::new(gateway.ids.mint());
    match admit_and_answer(&gateway, endpoint, request, &mut head).await {
        Ok(response) => response,
        Err(error) => {
            gateway.metrics.refused();
            head.error(&error)
        }
    }
}

async fn admit_and_answer(gateway: &Arc<Gateway>, endpoint: Endpoint, request: Request<Body>, head: &mut Head) -> Result<Response> {
    let entered = gateway.enter()?;
    let (parts, body) = request.into_parts();
    let access = gateway.access.authenticate(&parts.headers).await?;
    let state = gateway.keys.get(&access)?;
    let body = read_body(body, &parts.headers, gateway.config.body_max.get()).await?;
    let now = gateway.clock.now();
    let in_flight = state.rate.enter(access.rates, now);
    head.rate = state.rate.report(now);
    let in_flight = in_flight?;
    let attempt = Attempt { project: &access.project, route: endpoint.route(), body: &body, request: &head.request };
    let claim = gateway.idempotency.claim(&parts.headers, &attempt)?;
    let (call, prepared) = prepare(gateway, &access, endpoint, body).await?;
    let prompt: TokenCount = prepared.iter().fold(TokenCount::ZERO, |sum, prompt| sum.saturating_add(prompt.count()));
    state.rate.spend_tokens(prompt, now);
    head.rate = state.rate.report(now);
    let facts = Facts {
        request: head.request.clone(),
        route: endpoint.route(),
        prices: gateway.admission.prices(&access, &call.model)?,
        access,
        model: call.model.clone(),
        admitted_at: now,
        client_retry: client_retry(&parts.headers),
        streamed: call.stream,
    };
    let guards = Guards { entered, in_flight, rate: Arc::clone(&state.rate), claim };
    let form = Form { endpoint, include_usage: call.include_usage, logprobs: call.sampling.logprobs.is_some() };
    let generation = start(gateway, &state, (facts, guards), (call, prepared)).await?;
    answer::answer(head.clone(), form, generation).await
}

fn client_retry(headers: &HeaderMap) -> u32 {
    headers.get("x-stainless-retry-count").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Reads a body up to the bound.
async fn read_body(body: Body, headers: &HeaderMap, bytes_max: i64) -> Result<bytes::Bytes> {
    check_content_type(headers)?;
    let limit = usize::try_from(bytes_max).unwrap_or(0);
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Error::new(ErrorCode::BodyTooLarge, format!("the body is larger than {bytes_max} bytes")))
        }
        Err(error) => Err(Error::new(ErrorCode::InvalidRequest, "the body ended early").context(error.to_string())),
    }
}

/// No content type is taken as JSON; one that says something else is refused before its body is guessed at.
fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return Ok(()) };
    let kind = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let tolerated = kind.is_empty() || kind.contains("json") || kind == "text/plain" || kind == "application/x-www-form-urlencoded";
    if tolerated {
        // curl's --data sends a form's type for whatever it is given.
        return Ok(());
    }
    Err(Error::new(ErrorCode::UnsupportedMediaType, "this route reads JSON").alternative("send Content-Type: application/json"))
}

/// Checks the fields, finds the model, and tokenizes.
async fn prepare(
    gateway: &Arc<Gateway>,
    access: &Arc<Access>,
    endpoint: Endpoint,
    body: bytes::Bytes,
) -> Result<(Call, Vec<PreparedPrompt>)> {
    let inline = body.len() <= INLINE_BODY_BYTES_MAX;
    let (gateway, access) = (Arc::clone(gateway), Arc::clone(access));
    let work = move || {
        let call = parse(endpoint, &body)?;
        let model = find_model(&gateway, &access, &call.model)?;
        check_vocabulary(&call, &model)?;
        let prepared = call.prompts.iter().map(|prompt| gateway.engine.prepare(&call.model, prompt));
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        for prompt in &prepared {
            check_context(prompt, &model)?;
        }
        Ok((call, prepared))
    };
    if inline {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::internal(format!("reading a large request failed: {e}"))))
}

/// A model by name, if the key may call it.
pub(crate) fn find_model(gateway: &Gateway, access: &Access, name: &str) -> Result<ModelInfo> {
    let models = gateway.engine.models();
    let (code, message) = match models.iter().find(|model| model.name == name) {
        Some(model) if access.models.allows(name) => return Ok(model.clone()),
        Some(_) => (ErrorCode::ModelNotAllowed, "this key may not use the model"),
        None => (ErrorCode::ModelNotFound, "there is no model"),
    };
    let shown: String = name.chars().take(80).collect();
    let allowed = models.iter().filter(|model| access.models.allows(&model.name)).take(ALTERNATIVES_MAX);
    let error = Error::new(code, format!("{message} '{shown}'")).param("model");
    Err(allowed.fold(error, |error, model| error.alternative(model.name.clone())))
}

fn check_vocabulary(call: &Call, model: &ModelInfo) -> Result<()> {
    let unknown = |token: u32| i64::from(token) >= model.vocabulary.get();
    let wrong = |param: &str, token: u32| {
        let last = model.vocabulary.get() - 1;
        Error::new(ErrorCode::InvalidRequest, format!("token {token} is not in the model's vocabulary, which ends at {last}"))
            .param(param)
    };
    if let Some((token, _)) = call.sampling.logit_bias.iter().find(|(token, _)| unknown(*token)) {
        return Err(wrong("logit_bias", *token));
    }
    for prompt in &call.prompts {
        if let Prompt::Tokens(tokens) = prompt
            && let Some(token) = tokens.iter().find(|token| unknown(**token))
        {
            return Err(wrong("prompt", *token));
        }
    }
    Ok(())
}

fn check_context(prompt: &PreparedPrompt, model: &ModelInfo) -> Result<()> {
    if prompt.count() < model.context_window {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::ContextLengthExceeded,
        format!("the prompt has {} tokens and the model's context is {}, output included", prompt.count(), model.context_window),
    )
    .alternative(format!("shorten the prompt to at most {} tokens", model.context_window.get() - 1)))
}

/// Holds the money, then starts every answer.
async fn start(
    gateway: &Arc<Gateway>,
    state: &KeyState,
    (facts, guards): (Facts, Guards),
    (call, prepared): (Call, Vec<PreparedPrompt>),
) -> Result<Generation> {
    let model = find_model(gateway, &facts.access, &call.model)?;
    let caps: Vec<TokenCount> = prepared.iter().map(|prompt| cap(&call, prompt, &model)).collect();
    let (money, slice) = hold(gateway, state, &facts, &sizes(&call, &prepared, &caps)).await?;
    let mut spare = covered(&facts.prices, &prepared, money.amount())?;
    let mut branches = Vec::with_capacity(prepared.len() * call.answers);
    for (prompt, cap) in prepared.iter().zip(&caps) {
        for answer in 0..call.answers {
            let left = i64::try_from(prepared.len() * call.answers - branches.len()).unwrap_or(i64::MAX);
            let paid = first_step(gateway, state, *cap).min(spare / left);
            spare -= paid;
            let allowance = Arc::new(Allowance::new(TokenCount::new(paid)));
            let mut sampling = call.sampling.clone();
            // Answers to one prompt differ, and each can be repeated.
            let nth = u64::try_from(answer).unwrap_or(0);
            sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(nth));
            let events = gateway.engine.generate(GenerateRequest {
                prompt: prompt.clone(),
                sampling,
                stop: call.stop.clone(),
                max_output: Some(*cap),
                allowance: Arc::clone(&allowance),
            })?;
            let prompt = if answer == 0 { prompt.count() } else { TokenCount::ZERO };
            branches.push(Branch::new(events, allowance, BranchSizes { prompt, cap: *cap, paid: TokenCount::new(paid) }));
        }
    }
    Ok(Generation::new(Arc::clone(gateway), facts, guards, (money, slice), branches))
}

/// Output tokens that the request, the model and the context allow.
fn cap(call: &Call, prompt: &PreparedPrompt, model: &ModelInfo) -> TokenCount {
    let room = model.context_window.saturating_sub(prompt.count());
    call.output_max.map_or(room, |max| max.min(room))
}

fn first_step(gateway: &Gateway, state: &KeyState, cap: TokenCount) -> i64 {
    let config = &gateway.config;
    let step = if state.current().is_tight() { config.tight_output_step } else { config.output_step };
    step.min(cap).get().max(1)
}

struct Sizes {
    prompt: TokenCount,
    caps: Vec<TokenCount>,
}

fn sizes(call: &Call, prepared: &[PreparedPrompt], caps: &[TokenCount]) -> Sizes {
    let prompt = prepared.iter().fold(TokenCount::ZERO, |sum, prompt| sum.saturating_add(prompt.count()));
    let caps = caps.iter().flat_map(|cap| std::iter::repeat_n(*cap, call.answers)).collect();
    Sizes { prompt, caps }
}

/// Output tokens that the first hold covers beside the prompts.
fn covered(prices: &TokenPrices, prepared: &[PreparedPrompt], money: Nanos) -> Result<i64> {
    let prompt = prepared.iter().fold(TokenCount::ZERO, |sum, prompt| sum.saturating_add(prompt.count()));
    Ok(output_covered(prices, money.checked_sub(prompt_hold(prices, prompt)?)?).get())
}

/// Money for the prompts and a first step of each answer; at least for one token of each.
async fn hold(gateway: &Gateway, state: &KeyState, facts: &Facts, sizes: &Sizes) -> Result<(Money, SliceId)> {
    let answers = TokenCount::new(i64::try_from(sizes.caps.len()).unwrap_or(i64::MAX));
    let wanted: i64 = sizes.caps.iter().map(|cap| first_step(gateway, state, *cap)).sum();
    let ask = Ask {
        least: hold_for(&facts.prices, sizes.prompt, answers)?,
        wanted: hold_for(&facts.prices, sizes.prompt, TokenCount::new(wanted))?,
    };
    for _ in 0..PURSES_MAX {
        let purse = state.current();
        let money = match purse.hold(ask) {
            Held::Now(money) => money,
            Held::Retired => {
                gateway.keys.rotate(&facts.access.key, state, &purse);
                continue;
            }
            Held::Wait(answer) => match tokio::time::timeout(GRANT_WAIT.to_std(), answer).await {
                Ok(Ok(Ok(money))) => money,
                Ok(Ok(Err(error))) if error.code() == ErrorCode::Conflict => continue,
                Ok(Ok(Err(error))) => return Err(error),
                Ok(Err(_)) => return Err(Error::internal("a purse dropped its waiter")),
                Err(_) => {
                    return Err(Error::new(ErrorCode::StoreUnavailable, "the budget could not be asked in time")
                        .retry_after(DurationMs::from_seconds(1)));
                }
            },
        };
        let slice = purse.slice().ok_or_else(|| Error::internal("money was held without a slice"))?;
        return Ok((money, slice));
    }
    Err(Error::internal("every slice closed before it could be used"))
}
