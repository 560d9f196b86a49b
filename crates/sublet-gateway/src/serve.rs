//! Admission: from a request to a running generation, or to the reason why not.
//!
//! The order is fixed and the cheap checks come first: readiness, key, body, fields, speed, model,
//! prompt, price, money. Nothing is generated and nothing is recorded before the money is held.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sublet_core::admission::Access;
use sublet_core::engine::{Allowance, GenerateRequest, GenerationStream, ModelInfo, PreparedPrompt, Prompt, Sampling};
use sublet_core::id::SliceId;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp, TokenCount};

use crate::answer;
use crate::branch::{Branch, BranchSizes};
use crate::dialect::{Call, Endpoint, Form};
use crate::gateway::{Entered, Gateway};
use crate::generation::{Facts, Generation, Guards};
use crate::idempotency::Attempt;
use crate::keys::KeyState;
use crate::pricing::{hold_for, output_covered, prompt_hold};
use crate::purse::{Ask, Held, Money};
use crate::rate::InFlight;
use crate::reply::Head;

/// Larger bodies are parsed and tokenized off the request threads.
const INLINE_BODY_BYTES_MAX: usize = 64 * 1_024;
/// How long a body may take to arrive.
const BODY_WAIT: DurationMs = DurationMs::from_seconds(30);
/// How long a new request waits for a slice.
const GRANT_WAIT: DurationMs = DurationMs::from_seconds(10);
/// Purses that may close under one request before it gives up.
const PURSES_MAX: usize = 4;
/// Names listed as alternatives to an unknown model.
const ALTERNATIVES_MAX: usize = 20;

/// Counts the tokens of a request: everything that serving it would check before its money.
pub(crate) async fn count(gateway: Arc<Gateway>, endpoint: Endpoint, request: Request<Body>) -> Response {
    let mut head = Head::new(gateway.ids.mint(), endpoint.envelope());
    match admit_and_count(&gateway, endpoint, request, &mut head).await {
        Ok(tokens) => head.json(StatusCode::OK, endpoint.count(tokens)),
        Err(error) => head.error(&error),
    }
}

async fn admit_and_count(
    gateway: &Arc<Gateway>,
    endpoint: Endpoint,
    request: Request<Body>,
    head: &mut Head,
) -> Result<TokenCount> {
    let admitted = admit(gateway, request, head).await?;
    let prepared = prepare(gateway, &admitted.access, (endpoint, Endpoint::read_to_count), admitted.body.clone()).await?;
    admitted.spend(&prepared, head);
    Ok(prepared.prompt())
}

/// A request whose key, speed and body are good.
struct Admitted {
    entered: Entered,
    in_flight: InFlight,
    access: Arc<Access>,
    state: Arc<KeyState>,
    now: Timestamp,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Admitted {
    /// Reading a prompt is work, whatever comes of it.
    fn spend(&self, prepared: &Prepared, head: &mut Head) {
        self.state.rate.spend_tokens(prepared.prompt(), self.now);
        head.rate = self.state.rate.report(self.now);
    }
}

async fn admit(gateway: &Gateway, request: Request<Body>, head: &mut Head) -> Result<Admitted> {
    let entered = gateway.enter()?;
    let (parts, body) = request.into_parts();
    let access = gateway.access.authenticate(&parts.headers).await?;
    let state = gateway.keys.get(&access)?;
    let now = gateway.clock.now();
    let in_flight = state.rate.enter(access.rates, now);
    head.rate = state.rate.report(now);
    let in_flight = in_flight?;
    let body = read_body(gateway, body, &parts.headers).await?;
    Ok(Admitted { entered, in_flight, access, state, now, headers: parts.headers, body })
}

/// Serves one billable request.
pub(crate) async fn serve(gateway: Arc<Gateway>, endpoint: Endpoint, request: Request<Body>) -> Response {
    let mut head = Head::new(gateway.ids.mint(), endpoint.envelope());
    match admit_and_answer(&gateway, endpoint, request, &mut head).await {
        Ok(response) => response,
        Err(error) => {
            gateway.metrics.refused();
            head.error(&error)
        }
    }
}

async fn admit_and_answer(gateway: &Arc<Gateway>, endpoint: Endpoint, request: Request<Body>, head: &mut Head) -> Result<Response> {
    let admitted = admit(gateway, request, head).await?;
    let attempt =
        Attempt { project: &admitted.access.project, route: endpoint.route(), body: &admitted.body, request: &head.request };
    let claim = gateway.idempotency.claim(&admitted.headers, &attempt)?;
    let prepared = prepare(gateway, &admitted.access, (endpoint, Endpoint::read), admitted.body.clone()).await?;
    admitted.spend(&prepared, head);
    let Admitted { entered, in_flight, access, state, now, headers, .. } = admitted;
    let call = &prepared.call;
    let facts = Facts {
        request: head.request.clone(),
        route: endpoint.route(),
        prices: gateway.admission.prices(&access, &call.model)?,
        access,
        model: call.model.clone(),
        admitted_at: now,
        client_retry: client_retry(&headers),
        streamed: call.stream,
    };
    let guards = Guards::new(entered, in_flight, Arc::clone(&state.rate), claim);
    let (generation, form) = start(gateway, &state, (facts, guards), prepared).await?;
    answer::answer(head.clone(), form, generation).await
}

fn client_retry(headers: &HeaderMap) -> u32 {
    headers.get("x-stainless-retry-count").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Reads a body up to its bounds in bytes and time. Large ones wait for each other.
async fn read_body(gateway: &Gateway, body: Body, headers: &HeaderMap) -> Result<bytes::Bytes> {
    check_content_type(headers)?;
    let bytes_max = gateway.config.body_max.get();
    let announced = headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let limit = usize::try_from(bytes_max).unwrap_or(0);
    let too_large = || Error::new(ErrorCode::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"));
    if announced.is_some_and(|announced| announced > limit) {
        return Err(too_large());
    }
    let read = async {
        let small = announced.is_some_and(|announced| announced <= INLINE_BODY_BYTES_MAX);
        let _turn = if small { None } else { gateway.large_bodies.acquire().await.ok() };
        Limited::new(body, limit).collect().await
    };
    match tokio::time::timeout(BODY_WAIT.to_std(), read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Error::new(ErrorCode::InvalidRequest, "the body ended early").context(error.to_string())),
        Err(_) => {
            Err(Error::new(ErrorCode::InvalidRequest, format!("the body did not arrive within {} s", BODY_WAIT.seconds_ceil())))
        }
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

/// A request that could be generated.
struct Prepared {
    call: Call,
    prompts: Vec<PreparedPrompt>,
    model: ModelInfo,
}

impl Prepared {
    /// Tokens of all prompts.
    fn prompt(&self) -> TokenCount {
        self.prompts.iter().fold(TokenCount::ZERO, |sum, prompt| sum.saturating_add(prompt.count()))
    }
    /// Output tokens of each answer to a prompt that the request, the model and the context allow.
    fn cap(&self, prompt: &PreparedPrompt) -> TokenCount {
        let room = self.model.context_window.saturating_sub(prompt.count());
        self.call.output_max.map_or(room, |max| max.min(room))
    }
    fn answers(&self) -> usize {
        self.prompts.len() * self.call.answers
    }
}

/// How a body is read.
type Read = fn(Endpoint, &[u8]) -> Result<Call>;

/// Checks the fields, finds the model, and tokenizes.
async fn prepare(
    gateway: &Arc<Gateway>,
    access: &Arc<Access>,
    (endpoint, read): (Endpoint, Read),
    body: bytes::Bytes,
) -> Result<Prepared> {
    let inline = body.len() <= INLINE_BODY_BYTES_MAX;
    let (gateway, access) = (Arc::clone(gateway), Arc::clone(access));
    let work = move || {
        let mut call = read(endpoint, &body)?;
        let model = find_model(&gateway, &access, &call.model)?;
        call.fit(&model)?;
        check_vocabulary(&call, &model)?;
        let prepared = call.prompts.iter().map(|prompt| gateway.engine.prepare(&call.model, prompt));
        let prepared = prepared.collect::<Result<Vec<_>>>().map_err(|error| endpoint.rename(error))?;
        for prompt in &prepared {
            check_context(prompt, &model)?;
        }
        Ok(Prepared { call, prompts: prepared, model })
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
    prepared: Prepared,
) -> Result<(Generation, Form)> {
    let (money, slice) = hold(gateway, state, &facts, &prepared).await?;
    let for_output = money.amount().checked_sub(prompt_hold(&facts.prices, prepared.prompt())?)?;
    let mut spare = output_covered(&facts.prices, for_output).get();
    let mut branches = Vec::with_capacity(prepared.answers());
    let salt: Arc<str> = facts.access.organization.as_str().into();
    for prompt in &prepared.prompts {
        let cap = prepared.cap(prompt);
        for answer in 0..prepared.call.answers {
            let left = i64::try_from(prepared.answers() - branches.len()).unwrap_or(i64::MAX);
            // Rounded down; what remains is for the last ones.
            let paid = TokenCount::new(first_step(gateway, state, cap).min(spare / left));
            spare -= paid.get();
            let allowance = Arc::new(Allowance::new(paid));
            let request = GenerateRequest {
                prompt: prompt.clone(),
                sampling: sampling(&prepared.call, answer),
                stop: prepared.call.stop.clone(),
                max_output: Some(cap),
                allowance: Arc::clone(&allowance),
                constraint: prepared.call.constraint(),
                salt: Arc::clone(&salt),
            };
            let events = generate(gateway, request).await.map_err(|error| prepared.call.blame(error))?;
            let prompt = if answer == 0 { prompt.count() } else { TokenCount::ZERO };
            branches.push(Branch::new(events, allowance, BranchSizes { prompt, cap, paid }));
        }
    }
    Ok((Generation::new(Arc::clone(gateway), facts, guards, (money, slice), branches), prepared.call.form))
}

/// Compiling a constraint takes long enough to be kept off the request threads.
async fn generate(gateway: &Gateway, request: GenerateRequest) -> Result<GenerationStream> {
    if request.constraint.is_none() {
        return gateway.engine.generate(request);
    }
    let engine = Arc::clone(&gateway.engine);
    let work = tokio::task::spawn_blocking(move || engine.generate(request));
    work.await.unwrap_or_else(|e| Err(Error::internal(format!("compiling a constraint failed: {e}"))))
}

/// Answers to one prompt differ, and each can be repeated.
fn sampling(call: &Call, answer: usize) -> Sampling {
    let nth = u64::try_from(answer).unwrap_or(0);
    let seed = call.sampling.seed.map(|seed| seed.wrapping_add(nth));
    Sampling { seed, ..call.sampling.clone() }
}

fn first_step(gateway: &Gateway, state: &KeyState, cap: TokenCount) -> i64 {
    let config = &gateway.config;
    let step = if state.current().is_tight() { config.tight_output_step } else { config.output_step };
    step.min(cap).get().max(1)
}

/// Money for the prompts and a first step of each answer; at least for one token of each.
async fn hold(gateway: &Gateway, state: &KeyState, facts: &Facts, prepared: &Prepared) -> Result<(Money, SliceId)> {
    let each = i64::try_from(prepared.call.answers).unwrap_or(1);
    let answers = TokenCount::new(i64::try_from(prepared.answers()).unwrap_or(i64::MAX));
    let wanted: i64 = prepared.prompts.iter().map(|prompt| each * first_step(gateway, state, prepared.cap(prompt))).sum();
    let ask = Ask {
        least: hold_for(&facts.prices, prepared.prompt(), answers)?,
        wanted: hold_for(&facts.prices, prepared.prompt(), TokenCount::new(wanted))?,
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
