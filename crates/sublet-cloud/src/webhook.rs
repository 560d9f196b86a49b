//! Webhooks: events of an organization, posted to where its administrators want them.
//!
//! An event is queued in the transaction of its cause, one row of the outbox for each endpoint, and posted by a reconciler
//! as often as it takes, within bounds. Its row's id is the event's for ever: who gets it twice knows it again.
//!
//! Invariants: nothing is posted in a transaction; who is slow or away holds up only what is his, because an endpoint has
//! one event on its way and an organization few; a secret is told once.
//!
//! Deliberately absent: an order of events, and contents of requests. What an event says can be read from the API, too.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sublet_core::id::{OrganizationId, OutboxId, WebhookEndpointId};
use sublet_core::rate::EndUsers;
use sublet_core::webhook::{SECRET_PREFIX, WebhookCall, WebhookFailure, WebhookSecret, WebhookUrl};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_store::outbox::{self, Effect, OutboxJob, OutboxState};
use sublet_store::spend_alert::SpendAlert;
use sublet_store::webhook::{self as stored, ENDPOINTS_MAX, WebhookEndpoint, WebhookEvent, WebhookState};
use sublet_store::{Page, PageRequest, Tx};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::limit::{LimitSubject, LimitTarget};
use crate::{Action, Actor, Cloud};

/// What rows of the outbox are called that are events.
const KIND: &str = "webhook";
/// How often it is looked for events that are due.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(2);
/// Events that are posted at once.
const AT_ONCE: usize = 16;
/// Of these, those of one organization.
const AT_ONCE_OF_ONE: i64 = 3;
/// Events that wait for one endpoint; what is above fails at once.
pub const QUEUED_MAX: i64 = 1_000;
/// How long events are kept that were taken or failed.
const KEPT: DurationMs = DurationMs::from_hours(35 * 24);
/// How often it is looked for older ones, and how many are deleted at once.
const SWEEP_PERIOD: DurationMs = DurationMs::from_hours(1);
const SWEEP_STEP: i64 = 500;
/// Nobody else posts the same one meanwhile: longer than an attempt takes.
const CLAIM: DurationMs = DurationMs::from_seconds(60);
/// The first repetition comes so much later; each one after twice as late.
const BACKOFF_BASE: DurationMs = DurationMs::from_seconds(30);
const BACKOFF_MAX: DurationMs = DurationMs::from_hours(4);
/// With these pauses three days.
pub const ATTEMPTS_MAX: i64 = 26;
/// What is kept of why an attempt failed, in characters.
const PROBLEM_CHARS_MAX: usize = 300;
/// One test of an endpoint in so long.
const TEST_EVERY: DurationMs = DurationMs::from_seconds(10);
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// What an event is of that nobody has to ask for.
const TEST: &str = "webhook_endpoint.test";
/// What keys of tests begin with.
const TEST_KEY: &str = "test:";

/// What the row of an event says of it.
#[derive(Serialize, Deserialize)]
struct Payload {
    endpoint: WebhookEndpointId,
    #[serde(rename = "type")]
    kind: String,
    /// As it is posted, byte for byte.
    body: String,
}

/// Where events are to be posted, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewWebhookEndpoint {
    pub url: WebhookUrl,
    /// At least one.
    pub events: BTreeSet<WebhookEvent>,
}

/// An event on its way to an endpoint, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookDelivery {
    /// The event's, as in `webhook-id`.
    pub id: OutboxId,
    pub endpoint: WebhookEndpointId,
    pub kind: String,
    pub state: OutboxState,
    pub attempts: i64,
    /// While it is queued.
    pub next_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub problem: Option<String>,
    /// What the endpoint answered.
    pub outcome: Option<String>,
    pub created_at: Timestamp,
}

impl WebhookDelivery {
    fn of(job: OutboxJob) -> Result<Self> {
        let payload = read(&job.effect)?;
        Ok(Self {
            id: job.effect.id,
            endpoint: payload.endpoint,
            kind: payload.kind,
            state: job.state,
            attempts: job.attempts,
            next_at: (job.state == OutboxState::Queued).then_some(job.run_at),
            problem: Some(job.last_error).filter(|error| !error.is_empty()),
            outcome: Some(job.outcome).filter(|outcome| !outcome.is_empty()),
            created_at: job.effect.created_at,
        })
    }
}

fn read(effect: &Effect) -> Result<Payload> {
    let payload = serde_json::from_str(&effect.payload);
    payload.map_err(|error| Error::internal(format!("the event {} cannot be read: {error}", effect.id)))
}

/// What one look did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WebhookReport {
    pub delivered: u64,
    /// Not taken yet.
    pub later: u64,
    /// Given up.
    pub failed: u64,
}

impl WebhookReport {
    fn count(&mut self, done: std::result::Result<Result<Outcome>, JoinError>) {
        match done.unwrap_or_else(|error| Err(Error::internal(format!("posting an event failed: {error}")))) {
            Ok(Outcome::Delivered) => self.delivered += 1,
            Ok(Outcome::Later) => self.later += 1,
            Ok(Outcome::Failed) => self.failed += 1,
            // It does not stand in the way of the others; its claim ends by itself.
            Err(error) => {
                self.later += 1;
                tracing::error!(%error, private = ?error, "what became of an event was not noted; it is posted again");
            }
        }
    }
}

/// What became of one attempt.
enum Outcome {
    Delivered,
    Later,
    Failed,
}

/// What a limit's alert says, as the API has it.
pub fn alert_data(alert: &SpendAlert, currency: Currency) -> Result<Value> {
    let LimitTarget { subject, requests } = LimitTarget::parse(&alert.budget.subject)?;
    let (kind, id) = match &subject {
        LimitSubject::Organization(id) => ("organization", id.to_string()),
        LimitSubject::Project(id) => ("project", id.to_string()),
        LimitSubject::Key(id) => ("key", id.to_string()),
    };
    let money = |amount: Nanos| json!({ "amount": amount.to_string(), "currency": currency.as_str() });
    let end_user = match &requests.end_users {
        EndUsers::One(user) => Some(user.to_string()),
        EndUsers::All | EndUsers::Each => None,
    };
    Ok(json!({
        "object": "spend_alert",
        "id": alert.id,
        "owner": { "kind": kind, "id": id },
        "window": alert.budget.window.as_str(),
        "model": requests.model.as_deref(),
        "end_user": end_user,
        "starts_at": alert.ends_at.map(|_| alert.budget.starts_at.to_string()),
        "ends_at": alert.ends_at.map(|at| at.to_string()),
        "on": alert.rule.basis.as_str(),
        "percent": alert.rule.percent,
        "refused": alert.is_refusal(),
        "amount": money(alert.amount),
        "spent": money(alert.settled),
        "held": money(alert.reserved),
        "forecast": alert.forecast.map(money),
        "created_at": alert.created_at.to_string(),
    }))
}

impl Cloud {
    /// Has events posted to an address; the secret that they are signed with is in this one answer only.
    pub async fn create_webhook_endpoint(
        &self,
        call: &Call,
        NewWebhookEndpoint { url, events }: &NewWebhookEndpoint,
        render: &Render<WebhookEndpoint>,
    ) -> Result<Answer<WebhookEndpoint>> {
        call.actor.require(Action::ManageLimits)?;
        if events.is_empty() {
            let all: Vec<&str> = WebhookEvent::ALL.iter().map(|event| event.as_str()).collect();
            let message = format!("an endpoint asks for at least one of {}", all.join(", "));
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("events"));
        }
        if !self.settings.webhooks.as_ref().is_some_and(|port| port.goes_anywhere()) {
            url.check_public()?;
        }
        let mut random = [0_u8; SECRET_BYTES];
        self.ids.rng().fill(&mut random);
        let endpoint = WebhookEndpoint {
            id: self.ids.mint(),
            organization: call.actor.organization()?.clone(),
            url: url.clone(),
            events: events.clone(),
            secret: WebhookSecret::new(&format!("{SECRET_PREFIX}{}", STANDARD.encode(random))),
            state: WebhookState::Active,
            created_at: self.now(),
        };
        self.once(call, render, (self, &call.actor, endpoint), |(cloud, actor, endpoint), tx| {
            Box::pin(async move {
                if stored::list(tx, &endpoint.organization).await?.len() >= ENDPOINTS_MAX {
                    return Err(Error::new(
                        ErrorCode::Conflict,
                        format!("an organization has at most {ENDPOINTS_MAX} webhook endpoints"),
                    )
                    .alternative("delete one first"));
                }
                stored::insert(tx, endpoint).await?;
                cloud.note_endpoint(tx, actor, endpoint, "webhook_endpoint.create").await?;
                Ok(endpoint.clone())
            })
        })
        .await
    }

    /// Those of the actor's organization; there are few.
    pub async fn list_webhook_endpoints(&self, actor: &Actor) -> Result<Vec<WebhookEndpoint>> {
        actor.require(Action::ManageLimits)?;
        let organization = actor.organization()?;
        self.store.read(organization, |organization, tx| Box::pin(stored::list(tx, organization))).await
    }

    /// Has nothing posted there any more. What waits is given up when its turn comes.
    pub async fn delete_webhook_endpoint(&self, actor: &Actor, id: &WebhookEndpointId) -> Result<()> {
        actor.require(Action::ManageLimits)?;
        let organization = actor.organization()?;
        self.store
            .write((self, actor, organization, id), |(cloud, actor, organization, id), tx| {
                Box::pin(async move {
                    let endpoint = stored::get(tx, organization, id).await?;
                    stored::delete(tx, organization, id).await?;
                    cloud.note_endpoint(tx, actor, &endpoint, "webhook_endpoint.delete").await
                })
            })
            .await
    }

    async fn note_endpoint(&self, tx: &mut Tx, actor: &Actor, endpoint: &WebhookEndpoint, action: &'static str) -> Result<()> {
        let (target, detail) = (endpoint.id.as_str(), endpoint.url.host().to_owned());
        let deed = Deed { organization: Some(&endpoint.organization), action, target, detail };
        self.record(tx, actor, deed, self.now()).await
    }

    /// Queues an event that says nothing, for an endpoint to show that it can be reached.
    pub async fn test_webhook_endpoint(&self, actor: &Actor, id: &WebhookEndpointId) -> Result<WebhookDelivery> {
        actor.require(Action::ManageLimits)?;
        let organization = actor.organization()?;
        let now = self.now();
        let turn = now.micros().div_euclid(TEST_EVERY.millis() * 1_000);
        let job = self
            .store
            .write((self, actor, organization, id), move |(cloud, actor, organization, id), tx| {
                Box::pin(async move {
                    let endpoint = stored::get(tx, organization, id).await?;
                    if let Some(queued) = outbox::queued_id(tx, id, TEST_KEY).await? {
                        let message = format!("a test of '{id}' waits already: '{queued}'");
                        return Err(Error::new(ErrorCode::Conflict, message)
                            .alternative("look at the deliveries, and have that one posted again at once"));
                    }
                    cloud.note_endpoint(tx, actor, &endpoint, "webhook_endpoint.test").await?;
                    let event =
                        Event { key: format!("{TEST_KEY}{turn}"), kind: TEST, data: json!({ "endpoint": endpoint.id }), at: now };
                    let queued = cloud.queue_event(tx, &endpoint, &event).await?;
                    let found = outbox::find(tx, organization, (KIND, &event.key_for(&endpoint))).await?;
                    found.ok_or_else(|| Error::internal(format!("the event {queued} was not queued")))
                })
            })
            .await?;
        WebhookDelivery::of(job)
    }

    /// Tells every endpoint of an organization of an alert.
    pub(crate) async fn queue_alert(&self, tx: &mut Tx, alert: &SpendAlert, currency: Currency) -> Result<()> {
        let endpoints = self.endpoints_for(tx, &alert.organization, WebhookEvent::SpendAlertCreated).await?;
        if endpoints.is_empty() {
            return Ok(());
        }
        let kind = WebhookEvent::SpendAlertCreated.as_str();
        let data = alert_data(alert, currency)?;
        let event = Event { key: format!("spend_alert:{}", alert.id), kind, data, at: alert.created_at };
        self.queue_for(tx, &endpoints, &event).await
    }

    /// Where an event of an organization is to be posted. Who makes the event asks first, since most have nobody to tell.
    pub(crate) async fn endpoints_for(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        event: WebhookEvent,
    ) -> Result<Vec<WebhookEndpoint>> {
        let mut endpoints = stored::list(tx, organization).await?;
        endpoints.retain(|endpoint| endpoint.state == WebhookState::Active && endpoint.events.contains(&event));
        Ok(endpoints)
    }

    pub(crate) async fn queue_for(&self, tx: &mut Tx, endpoints: &[WebhookEndpoint], event: &Event) -> Result<()> {
        for endpoint in endpoints {
            self.queue_event(tx, endpoint, event).await?;
        }
        Ok(())
    }

    async fn queue_event(&self, tx: &mut Tx, endpoint: &WebhookEndpoint, event: &Event) -> Result<OutboxId> {
        let body = json!({ "type": event.kind, "timestamp": event.at.to_string(), "data": event.data }).to_string();
        let payload = Payload { endpoint: endpoint.id.clone(), kind: event.kind.to_owned(), body };
        let payload =
            serde_json::to_string(&payload).map_err(|error| Error::internal(format!("an event cannot be written: {error}")))?;
        let effect = Effect {
            id: self.ids.mint(),
            kind: KIND.to_owned(),
            dedup_key: event.key_for(endpoint),
            organization: Some(endpoint.organization.clone()),
            endpoint: Some(endpoint.id.clone()),
            payload,
            created_at: event.at,
        };
        if outbox::count_queued(tx, &endpoint.id, QUEUED_MAX).await? < QUEUED_MAX {
            outbox::enqueue(tx, &effect).await?;
        } else {
            let why = format!("it was not posted: {QUEUED_MAX} events wait for its endpoint");
            tracing::warn!(id = %effect.id, endpoint = %endpoint.id, why, "an event is given up");
            outbox::insert_failed(tx, &effect, &why).await?;
        }
        Ok(effect.id)
    }

    /// Posts events until `stop` says so.
    pub async fn run_webhooks(&self, mut stop: watch::Receiver<bool>) {
        // What is under way when it stops is posted again when its claim is over.
        let (mut posting, mut report) = (JoinSet::new(), WebhookReport::default());
        let mut sweep_at = self.now();
        while !*stop.borrow() {
            if let Err(error) = self.fill(&mut posting).await {
                tracing::error!(%error, private = ?error, "events were not looked for; it is tried again");
            }
            if self.now() >= sweep_at {
                match self.sweep_webhooks().await {
                    Ok(true) => {}
                    Ok(false) => sweep_at = self.now().plus(SWEEP_PERIOD),
                    Err(error) => tracing::error!(%error, private = ?error, "old events were not deleted; it is tried again"),
                }
            }
            tokio::select! {
                Some(done) = posting.join_next() => report.count(done),
                () = tokio::time::sleep(LOOK_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Posts what is due now, and deletes some of what is old. Where nobody posts events they wait.
    pub async fn reconcile_webhooks(&self) -> Result<WebhookReport> {
        let (mut posting, mut report) = (JoinSet::new(), WebhookReport::default());
        let mut filled = self.fill(&mut posting).await;
        while let Some(done) = posting.join_next().await {
            report.count(done);
            if filled.is_ok() {
                filled = self.fill(&mut posting).await;
            }
        }
        filled?;
        self.sweep_webhooks().await?;
        Ok(report)
    }

    /// Deletes a step of what is old: whether there may be more.
    async fn sweep_webhooks(&self) -> Result<bool> {
        let before = self.now().minus(KEPT);
        let deleted = self.store.write(before, |before, tx| Box::pin(outbox::delete_old(tx, KIND, *before, SWEEP_STEP))).await?;
        Ok(i64::try_from(deleted).is_ok_and(|deleted| deleted >= SWEEP_STEP))
    }

    /// Begins to post what is due, as far as there is room.
    async fn fill(&self, posting: &mut JoinSet<Result<Outcome>>) -> Result<()> {
        if self.settings.webhooks.is_none() {
            return Ok(());
        }
        while posting.len() < AT_ONCE {
            let now = self.now();
            let claimed =
                self.store.write(now, |now, tx| Box::pin(outbox::claim_in_turn(tx, (KIND, KIND), AT_ONCE_OF_ONE, *now, CLAIM)));
            let Some(job) = claimed.await? else { return Ok(()) };
            let cloud = self.clone();
            posting.spawn(async move { cloud.post_event(&job).await });
        }
        Ok(())
    }

    async fn post_event(&self, job: &OutboxJob) -> Result<Outcome> {
        let Some(port) = &self.settings.webhooks else { return Ok(Outcome::Later) };
        let payload = match read(&job.effect) {
            Ok(payload) => payload,
            Err(error) => return self.give_up(job, error.message()).await,
        };
        let endpoint = self.endpoint_of(job, &payload).await?;
        let Some(endpoint) = endpoint else {
            return self.give_up(job, "the endpoint was deleted, or wants nothing any more").await;
        };
        let call = WebhookCall { id: job.effect.id.clone(), url: endpoint.url, secret: endpoint.secret, body: payload.body };
        match port.post(&call).await {
            Ok(status) => {
                let done = (&job.effect.id, format!("status {status}"), self.now());
                self.store.write(done, |(id, outcome, at), tx| Box::pin(outbox::complete(tx, id, (outcome, *at)))).await?;
                Ok(Outcome::Delivered)
            }
            Err(WebhookFailure::Gone) => {
                let of = (&endpoint.organization, &endpoint.id);
                self.store.write(of, |(organization, id), tx| Box::pin(stored::set_gone(tx, organization, id))).await?;
                self.give_up(job, "status 410: nobody wants events there any more").await
            }
            Err(WebhookFailure::Unclear(why)) if job.attempts >= ATTEMPTS_MAX => self.give_up(job, &why).await,
            Err(WebhookFailure::Unclear(why)) => {
                self.put_back(job, &why, Some(backoff(self.now(), job.attempts))).await?;
                Ok(Outcome::Later)
            }
        }
    }

    async fn endpoint_of(&self, job: &OutboxJob, payload: &Payload) -> Result<Option<WebhookEndpoint>> {
        let Some(organization) = &job.effect.organization else { return Ok(None) };
        let of = (organization, &payload.endpoint);
        let found = self.store.read(of, |(organization, id), tx| Box::pin(stored::find(tx, organization, id))).await?;
        Ok(found.filter(|endpoint| endpoint.state == WebhookState::Active))
    }

    async fn give_up(&self, job: &OutboxJob, why: &str) -> Result<Outcome> {
        self.put_back(job, why, None).await?;
        Ok(Outcome::Failed)
    }

    async fn put_back(&self, job: &OutboxJob, why: &str, retry_at: Option<Timestamp>) -> Result<()> {
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROBLEM_CHARS_MAX).collect();
        tracing::info!(id = %job.effect.id, attempts = job.attempts, why, is_over = retry_at.is_none(), "an event was not taken");
        self.store.write((job, why), move |(job, why), tx| Box::pin(outbox::fail(tx, job, why, retry_at))).await.map(|_| ())
    }

    /// Events of the actor's organization, in a state or all of them.
    pub async fn list_webhook_deliveries(
        &self,
        actor: &Actor,
        state: Option<OutboxState>,
        page: &PageRequest,
    ) -> Result<Page<WebhookDelivery>> {
        actor.require(Action::ManageLimits)?;
        let found = self
            .store
            .read((actor, page), move |(actor, page), tx| Box::pin(outbox::list(tx, &actor.scope, (KIND, state), page)))
            .await?;
        let items = found.items.into_iter().map(WebhookDelivery::of).collect::<Result<_>>()?;
        Ok(Page { items, has_more: found.has_more })
    }

    /// Has an event posted again that was not taken, at once.
    pub async fn retry_webhook_delivery(&self, actor: &Actor, id: &OutboxId) -> Result<WebhookDelivery> {
        actor.require(Action::ManageLimits)?;
        let now = self.now();
        let job = self
            .store
            .write((self, actor, id), move |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let known = outbox::get(tx, &actor.scope, (KIND, id)).await?;
                    if known.state == OutboxState::Done {
                        return Err(Error::new(ErrorCode::Conflict, format!("it was taken: {}", known.outcome)));
                    }
                    if outbox::retry(tx, id, now).await? {
                        let (organization, detail) = (known.effect.organization.as_ref(), known.last_error);
                        let deed = Deed { organization, action: "webhook_delivery.retry", target: id.as_str(), detail };
                        cloud.record(tx, actor, deed, now).await?;
                    }
                    outbox::get(tx, &actor.scope, (KIND, id)).await
                })
            })
            .await?;
        WebhookDelivery::of(job)
    }
}

/// Something to be told.
pub(crate) struct Event {
    /// The same is told once for ever.
    pub key: String,
    pub kind: &'static str,
    pub data: Value,
    pub at: Timestamp,
}

impl Event {
    fn key_for(&self, endpoint: &WebhookEndpoint) -> String {
        format!("{}:{}", self.key, endpoint.id)
    }
}

/// When an event is posted again that was not taken so often.
fn backoff(now: Timestamp, attempts: i64) -> Timestamp {
    let doublings = u32::try_from(attempts.clamp(1, 20)).unwrap_or(1) - 1;
    let wait = BACKOFF_BASE.millis().saturating_mul(1_i64 << doublings);
    now.plus(DurationMs::from_millis(wait.min(BACKOFF_MAX.millis())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_posted_for_about_three_days() {
        let start = Timestamp::EPOCH;
        let end = (1..ATTEMPTS_MAX).fold(start, backoff);
        let hours = end.since(start).millis() / 3_600_000;
        assert!((60..=76).contains(&hours), "{hours} hours");
    }
}
