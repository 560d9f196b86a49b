//! `sublet webhooks`.

use clap::Subcommand;
use sublet_api::webhook::{
    CreateWebhookEndpoint, CreatedWebhookEndpoint, WebhookDelivery, WebhookDeliveryListQuery, WebhookDeliveryStatus,
    WebhookEndpoint, WebhookEvent,
};
use sublet_core::error::Result;
use sublet_core::id::{OutboxId, WebhookEndpointId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Where events of the organization are posted.
#[derive(Subcommand, Debug)]
pub enum WebhookCommand {
    /// List endpoints
    List,
    /// Have events posted to an address; shows what they are signed with, once
    Create {
        #[arg(value_name = "URL")]
        address: String,
        /// Which: spend_alert.created, lease.notice or lease.ended; may be repeated. Spend alerts if left out
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<WebhookEvent>,
    },
    /// Have nothing posted there any more
    Delete { endpoint: WebhookEndpointId },
    /// Post an event that says nothing, to see whether it arrives
    Test { endpoint: WebhookEndpointId },
    /// List events, and what became of them
    Deliveries {
        /// queued, delivered or failed
        #[arg(long)]
        status: Option<WebhookDeliveryStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Post one again at once that was not taken
    Retry { delivery: OutboxId },
}

impl WebhookCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List => show_page(context, &client.webhook_endpoints()?, table),
            Self::Create { address: url, events } => {
                let body = CreateWebhookEndpoint { url, events: Some(events).filter(|events| !events.is_empty()) };
                let created = client.create_webhook_endpoint(&body, &context.fresh_key())?;
                context.show(&created, details)
            }
            Self::Delete { endpoint } => {
                let deleted = client.delete_webhook_endpoint(&endpoint)?;
                context.show(&deleted, |deleted| Table::of_fields(vec![("deleted", Cell::text(&deleted.id))]))
            }
            Self::Test { endpoint } => {
                let delivery = client.test_webhook_endpoint(&endpoint)?;
                context.show(&delivery, |delivery| deliveries(std::slice::from_ref(delivery)))
            }
            Self::Deliveries { status, page } => {
                let order = page.order();
                let query = WebhookDeliveryListQuery { status, limit: page.limit, after: page.after, before: None, order };
                show_page(context, &client.webhook_deliveries(&query)?, deliveries)
            }
            Self::Retry { delivery } => {
                let delivery = client.retry_webhook_delivery(&delivery)?;
                context.show(&delivery, |delivery| deliveries(std::slice::from_ref(delivery)))
            }
        }
    }
}

fn details(created: &CreatedWebhookEndpoint) -> Table {
    Table::of_fields(vec![
        ("endpoint", Cell::text(created.endpoint.id.as_str())),
        ("url", Cell::text(render::plain(&created.endpoint.url))),
        ("secret", Cell::text(created.secret.reveal())),
        ("", Cell::text("this is the only time it is shown")),
    ])
}

fn table(endpoints: &[WebhookEndpoint]) -> Table {
    let rows = endpoints.iter().map(|endpoint| {
        [
            Cell::text(endpoint.id.as_str()),
            Cell::text(endpoint.status.as_str()),
            Cell::text(render::unix(endpoint.created_at)),
            Cell::text(endpoint.events.iter().map(|event| event.as_str()).collect::<Vec<_>>().join(", ")),
            Cell::text(render::plain(&endpoint.url)),
        ]
    });
    Table::new(["endpoint", "status", "created", "events", "url"], "events are posted nowhere").rows(rows)
}

fn deliveries(events: &[WebhookDelivery]) -> Table {
    let rows = events.iter().map(|event| {
        [
            Cell::text(event.id.as_str()),
            Cell::text(render::instant(event.created_at.into())),
            Cell::text(&event.kind),
            Cell::text(event.status.as_str()),
            Cell::number(event.attempts.to_string()),
            Cell::optional(event.outcome.as_ref().or(event.problem.as_ref())),
        ]
    });
    let titles = ["event", "queued", "type", "status", "attempts", "answer, or problem"];
    Table::new(titles, "there are no events").rows(rows)
}
