//! Webhooks.

use sublet_api::key::SecretText;
use sublet_api::list::List;
use sublet_api::object::{Deleted, WebhookDeliveryTag, WebhookEndpointTag};
use sublet_api::webhook as wire;
use sublet_cloud::data::{OutboxState, WebhookEndpoint, WebhookEvent, WebhookState};
use sublet_cloud::idempotency::Answer as Once;
use sublet_cloud::webhook::{NewWebhookEndpoint, WebhookDelivery};
use sublet_core::Result;
use sublet_core::id::{OutboxId, WebhookEndpointId};
use sublet_core::webhook::WebhookUrl;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::shown_before;

const fn event_to_wire(event: WebhookEvent) -> wire::WebhookEvent {
    match event {
        WebhookEvent::SpendAlertCreated => wire::WebhookEvent::SpendAlertCreated,
        WebhookEvent::LeaseNotice => wire::WebhookEvent::LeaseNotice,
        WebhookEvent::LeaseEnded => wire::WebhookEvent::LeaseEnded,
    }
}

const fn event_from_wire(event: wire::WebhookEvent) -> WebhookEvent {
    match event {
        wire::WebhookEvent::SpendAlertCreated => WebhookEvent::SpendAlertCreated,
        wire::WebhookEvent::LeaseNotice => WebhookEvent::LeaseNotice,
        wire::WebhookEvent::LeaseEnded => WebhookEvent::LeaseEnded,
    }
}

fn to_wire(endpoint: &WebhookEndpoint) -> wire::WebhookEndpoint {
    wire::WebhookEndpoint {
        object: WebhookEndpointTag,
        id: endpoint.id.clone(),
        url: endpoint.url.to_string(),
        events: endpoint.events.iter().copied().map(event_to_wire).collect(),
        status: match endpoint.state {
            WebhookState::Active => wire::WebhookEndpointStatus::Active,
            WebhookState::Gone => wire::WebhookEndpointStatus::Gone,
        },
        created_at: endpoint.created_at.into(),
    }
}

fn delivery_to_wire(delivery: WebhookDelivery) -> wire::WebhookDelivery {
    wire::WebhookDelivery {
        object: WebhookDeliveryTag,
        id: delivery.id,
        endpoint: delivery.endpoint,
        kind: delivery.kind,
        status: match delivery.state {
            OutboxState::Queued => wire::WebhookDeliveryStatus::Queued,
            OutboxState::Done => wire::WebhookDeliveryStatus::Delivered,
            OutboxState::Failed => wire::WebhookDeliveryStatus::Failed,
        },
        attempts: delivery.attempts,
        problem: delivery.problem,
        outcome: delivery.outcome,
        next_at: delivery.next_at.map(Into::into),
        created_at: delivery.created_at.into(),
    }
}

const fn state_of(status: wire::WebhookDeliveryStatus) -> OutboxState {
    match status {
        wire::WebhookDeliveryStatus::Queued => OutboxState::Queued,
        wire::WebhookDeliveryStatus::Delivered => OutboxState::Done,
        wire::WebhookDeliveryStatus::Failed => OutboxState::Failed,
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateWebhookEndpoint = context.body()?;
    let url: WebhookUrl = body.url.parse()?;
    let events = body.events.unwrap_or_else(|| vec![wire::WebhookEvent::SpendAlertCreated]);
    let new = NewWebhookEndpoint { url, events: events.into_iter().map(event_from_wire).collect() };
    let outcome = app.cloud.create_webhook_endpoint(&context.call()?, &new, &|endpoint| Ok(endpoint.id.to_string())).await?;
    match outcome {
        Once::New(endpoint) => {
            json(&wire::CreatedWebhookEndpoint { endpoint: to_wire(&endpoint), secret: SecretText::new(endpoint.secret.reveal()) })
        }
        Once::Replayed(id) => Err(shown_before(&id)),
    }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let endpoints = app.cloud.list_webhook_endpoints(&context.actor).await?;
    json(&List::page(endpoints.iter().map(to_wire).collect(), false, |wire: &wire::WebhookEndpoint| wire.id.to_string()))
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: WebhookEndpointId = context.path("id")?;
    app.cloud.delete_webhook_endpoint(&context.actor, &id).await?;
    json(&Deleted::new(WebhookEndpointTag::TEXT, id.as_str()))
}

pub async fn test(app: App, context: Context) -> Result<Answer> {
    let id: WebhookEndpointId = context.path("id")?;
    json(&delivery_to_wire(app.cloud.test_webhook_endpoint(&context.actor, &id).await?))
}

pub async fn list_deliveries(app: App, context: Context) -> Result<Answer> {
    let query: wire::WebhookDeliveryListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_webhook_deliveries(&context.actor, query.status.map(state_of), &page_request(&asked)?).await?;
    page_answer(&asked, page, delivery_to_wire, |wire| wire.id.to_string())
}

pub async fn retry_delivery(app: App, context: Context) -> Result<Answer> {
    let id: OutboxId = context.path("id")?;
    json(&delivery_to_wire(app.cloud.retry_webhook_delivery(&context.actor, &id).await?))
}
