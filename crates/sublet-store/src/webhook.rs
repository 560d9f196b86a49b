//! Where organizations want events posted.
//!
//! The secret of a row has to be read again for signing, so it is kept as it is; nothing lists it.

use std::collections::BTreeSet;

use sublet_core::id::{OrganizationId, WebhookEndpointId};
use sublet_core::webhook::{WebhookSecret, WebhookUrl};
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::params;
use crate::row::Row;
use crate::top_up::stored_as_text;

/// Most of one organization.
pub const ENDPOINTS_MAX: usize = 5;

stored_as_text! {
    /// Whether events are posted to an endpoint.
    WebhookState {
        Active = "active",
        /// It answered that nobody wants them there any more.
        Gone = "gone",
    }
}

stored_as_text! {
    /// What an endpoint can ask for.
    WebhookEvent {
        SpendAlertCreated = "spend_alert.created",
        /// A lease was told that it ends.
        LeaseNotice = "lease.notice",
        LeaseEnded = "lease.ended",
    }
}

/// Where events of an organization are posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookEndpoint {
    pub id: WebhookEndpointId,
    pub organization: OrganizationId,
    pub url: WebhookUrl,
    pub secret: WebhookSecret,
    /// Those that it asked for.
    pub events: BTreeSet<WebhookEvent>,
    pub state: WebhookState,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<WebhookEndpoint> {
    let mut row = row.reader();
    Ok(WebhookEndpoint {
        id: row.parse()?,
        organization: row.parse()?,
        url: row.parse()?,
        secret: WebhookSecret::new(row.text()?),
        events: row.text()?.split(' ').map(str::parse).collect::<Result<_>>()?,
        state: row.parse()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, endpoint: &WebhookEndpoint) -> Result<()> {
    let events: Vec<&str> = endpoint.events.iter().map(|event| event.as_str()).collect();
    tx.execute(
        "INSERT INTO webhook_endpoints (id, organization_id, url, secret, events, state, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            endpoint.id.as_str(),
            endpoint.organization.as_str(),
            endpoint.url.as_str(),
            endpoint.secret.reveal(),
            events.join(" "),
            endpoint.state.as_str(),
            endpoint.created_at
        ],
    )
    .await?;
    Ok(())
}

/// The endpoints of an organization, oldest first; at most [`ENDPOINTS_MAX`].
pub async fn list(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<WebhookEndpoint>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, url, secret, events, state, created_at FROM webhook_endpoints
             WHERE organization_id = $1 ORDER BY id LIMIT $2",
            params![organization.as_str(), i64::try_from(ENDPOINTS_MAX).unwrap_or(i64::MAX)],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// An endpoint of an organization.
pub async fn find(tx: &mut Tx, organization: &OrganizationId, id: &WebhookEndpointId) -> Result<Option<WebhookEndpoint>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, url, secret, events, state, created_at FROM webhook_endpoints
             WHERE organization_id = $1 AND id = $2",
            params![organization.as_str(), id.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub async fn get(tx: &mut Tx, organization: &OrganizationId, id: &WebhookEndpointId) -> Result<WebhookEndpoint> {
    let found = find(tx, organization, id).await?;
    found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no webhook endpoint '{id}'")))
}

/// Nothing is posted to it any more. False if there was none.
pub async fn delete(tx: &mut Tx, organization: &OrganizationId, id: &WebhookEndpointId) -> Result<bool> {
    let sql = "DELETE FROM webhook_endpoints WHERE organization_id = $1 AND id = $2";
    Ok(tx.execute(sql, params![organization.as_str(), id.as_str()]).await? == 1)
}

/// Notes that an endpoint wants nothing any more.
pub async fn set_gone(tx: &mut Tx, organization: &OrganizationId, id: &WebhookEndpointId) -> Result<()> {
    let sql = "UPDATE webhook_endpoints SET state = 'gone' WHERE organization_id = $1 AND id = $2";
    tx.execute(sql, params![organization.as_str(), id.as_str()]).await?;
    Ok(())
}
