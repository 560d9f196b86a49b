//! Admission: from a request to a running generation, or to the reason why not.
//!
//! The order is fixed and the cheap checks come first: readiness, key, body, fields, speed, model,
//! prompt, price, money. Nothing is generated and nothing is recorded before the money is held.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sublet_core::admission::{Access, SpendClass};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp, TokenCount};

use crate::answer;
use crate::dialect::Endpoint;
use crate::gateway::{Entered, Gateway};
use crate::generation::{Facts, Guards};
use crate::idempotency::Attempt;
use crate::keep::Keeping;
use crate::keys::KeyState;
use crate::limits::{Pass, Stage};
use crate::prepare::{INLINE_BODY_BYTES_MAX, Prepared, prepare};
use crate::reply::Head;
use crate::start::start;

/// How long a body may take to arrive.
const BODY_WAIT: DurationMs = DurationMs::from_seconds(30);

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
    let mut admitted = admit(gateway, request, head).await?;
    let prepared = prepare(gateway, &admitted.access, (endpoint, Endpoint::read_to_count), admitted.body.clone()).await?;
    admitted.pass_limits(gateway, endpoint, &prepared, head).await?;
    match prepared.elsewhere() {
        // What is known here of the prompt is an estimate: whoever serves the model is asked.
        Some((model, chat)) => gateway.supply.count(model, chat).await,
        None => Ok(prepared.prompt()),
    }
}

/// Refuses to classify, with what would work: whoever may ask learns that, and nobody else.
pub(crate) async fn refuse_moderation(gateway: Arc<Gateway>, headers: HeaderMap) -> Response {
    let head = Head::new(gateway.ids.mint(), Endpoint::Chat.envelope());
    match gateway.access.authenticate(&headers).await {
        Ok(_) => head.error(&Error::no_moderations()),
        Err(error) => head.error(&error),
    }
}

/// A request whose key, speed and body are good.
struct Admitted {
    entered: Entered,
    pass: Pass,
    access: Arc<Access>,
    state: Arc<KeyState>,
    now: Timestamp,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Admitted {
    /// Passes the limits that the body decides on. Reading a prompt is work, whatever comes of it.
    async fn pass_limits(
        &mut self,
        gateway: &Gateway,
        endpoint: Endpoint,
        prepared: &Prepared,
        head: &mut Head,
    ) -> Result<SpendClass> {
        head.warning.clone_from(&prepared.warning);
        let passed = pass_body(gateway, &mut self.pass, (&self.access, endpoint), (&self.body, prepared), self.now).await;
        head.rate = self.pass.report(self.now);
        passed
    }
}

/// Counts a request that was read against the limits on its model, its end user and its tokens. Answers what shares its
/// money with it.
pub(crate) async fn pass_body(
    gateway: &Gateway,
    pass: &mut Pass,
    (access, endpoint): (&Access, Endpoint),
    (body, prepared): (&[u8], &Prepared),
    now: Timestamp,
) -> Result<SpendClass> {
    let end_user = if access.needs_end_user() { endpoint.end_user(body)? } else { None };
    let stage = Stage::Body { model: &prepared.model, end_user: end_user.as_ref() };
    gateway.limits.enter(pass, access, stage, now).await?;
    pass.count(prepared.prompt(), now);
    Ok(access.spend_class(&prepared.model, end_user.as_ref()))
}

async fn admit(gateway: &Gateway, request: Request<Body>, head: &mut Head) -> Result<Admitted> {
    let entered = gateway.enter()?;
    let (parts, body) = request.into_parts();
    let access = gateway.access.authenticate(&parts.headers).await?;
    let state = gateway.keys.get(&access)?;
    let now = gateway.clock.now();
    let mut pass = Pass::default();
    let passed = gateway.limits.enter(&mut pass, &access, Stage::Key, now).await;
    head.rate = pass.report(now);
    passed?;
    let body = read_body(gateway, body, &parts.headers).await?;
    Ok(Admitted { entered, pass, access, state, now, headers: parts.headers, body })
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
    let mut admitted = admit(gateway, request, head).await?;
    let attempt =
        Attempt { project: &admitted.access.project, route: endpoint.route(), body: &admitted.body, request: &head.request };
    let claim = gateway.idempotency.claim(&admitted.headers, &attempt)?;
    let mut prepared = prepare(gateway, &admitted.access, (endpoint, Endpoint::read), admitted.body.clone()).await?;
    let class = admitted.pass_limits(gateway, endpoint, &prepared, head).await?;
    let keeping = match prepared.form.take_draft() {
        Some(draft) => Some(Keeping::prepare(gateway, &admitted.access, (&head.request, admitted.now), draft).await?),
        None => None,
    };
    let Admitted { entered, pass, access, state, now, headers, .. } = admitted;
    head.tier = Some(prepared.tier);
    let prices = gateway.admission.prices(&access, (&prepared.model, prepared.tier), now)?;
    prepared.permit(gateway, &access, &prices, now)?;
    let facts = Facts {
        request: head.request.clone(),
        route: endpoint.route(),
        prices,
        access,
        model: prepared.model.clone(),
        admitted_at: now,
        client_retry: client_retry(&headers),
        streamed: prepared.stream,
        bills: prepared.bills,
        served_by: prepared.served_by.clone(),
        attempt: 1,
        line: None,
    };
    let guards = Guards::new(entered, pass, claim);
    let generation = start(gateway, (&state, &class), (facts, guards), &prepared).await?;
    answer::answer(head.clone(), (prepared.form, keeping), generation).await
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
