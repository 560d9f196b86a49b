//! Webhooks: where events of the organization are posted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{OutboxId, WebhookEndpointId};

use crate::key::SecretText;
use crate::list::list_query;
use crate::object::{WebhookDeliveryTag, WebhookEndpointTag};
use crate::payment::words;
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

words! {
    /// Whether events are posted to an endpoint.
    WebhookEndpointStatus {
        Active = "active",
        /// It answered 410: nobody wants events there any more.
        Gone = "gone",
    }
}

words! {
    /// What became of an event.
    WebhookDeliveryStatus {
        /// It is to be posted, or posted again.
        Queued = "queued",
        /// It was answered with success.
        Delivered = "delivered",
        /// It was given up; it can be tried again.
        Failed = "failed",
    }
}

/// What an endpoint can ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub enum WebhookEvent {
    #[serde(rename = "spend_alert.created")]
    SpendAlertCreated,
    /// A lease was told that it ends.
    #[serde(rename = "lease.notice")]
    LeaseNotice,
    #[serde(rename = "lease.ended")]
    LeaseEnded,
}

impl WebhookEvent {
    pub const ALL: [Self; 3] = [Self::SpendAlertCreated, Self::LeaseNotice, Self::LeaseEnded];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpendAlertCreated => "spend_alert.created",
            Self::LeaseNotice => "lease.notice",
            Self::LeaseEnded => "lease.ended",
        }
    }
}

impl std::str::FromStr for WebhookEvent {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| {
            Error::new(ErrorCode::InvalidRequest, format!("it is one of {}", Self::ALL.map(Self::as_str).join(", ")))
        })
    }
}

/// Where events of the organization are posted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WebhookEndpoint {
    pub object: WebhookEndpointTag,
    #[schemars(with = "IdText<WebhookEndpointId>")]
    pub id: WebhookEndpointId,
    pub url: String,
    /// Those that it asked for.
    pub events: Vec<WebhookEvent>,
    pub status: WebhookEndpointStatus,
    pub created_at: UnixSeconds,
}

/// A new endpoint, with what its events are signed with: in this one answer only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreatedWebhookEndpoint {
    #[serde(flatten)]
    pub endpoint: WebhookEndpoint,
    /// `whsec_` and 32 bytes in Base64, as libraries of Standard Webhooks take it.
    pub secret: SecretText,
}

/// Body that has events posted to an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhookEndpoint {
    /// An https address on the public internet, unless the operator allows others; at most 512 bytes.
    pub url: String,
    /// Which events; those of spend alerts if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<WebhookEvent>>,
}

/// An event on its way to an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WebhookDelivery {
    pub object: WebhookDeliveryTag,
    /// The event's, as in the header `webhook-id`.
    #[schemars(with = "IdText<OutboxId>")]
    pub id: OutboxId,
    #[schemars(with = "IdText<WebhookEndpointId>")]
    pub endpoint: WebhookEndpointId,
    /// What it is of: `spend_alert.created`, `lease.notice`, `lease.ended` or `webhook_endpoint.test`.
    #[serde(rename = "type")]
    pub kind: String,
    pub status: WebhookDeliveryStatus,
    pub attempts: i64,
    /// Why the last attempt failed.
    pub problem: Option<String>,
    /// What the endpoint answered.
    pub outcome: Option<String>,
    /// While it is queued.
    pub next_at: Option<Rfc3339>,
    pub created_at: UnixSeconds,
}

list_query! {
    /// Which events.
    WebhookDeliveryListQuery { status: WebhookDeliveryStatus }
}
