//! Webhooks, with admin keys.

use sublet_core::error::Result;
use sublet_core::id::{OutboxId, WebhookEndpointId};

use super::{Client, IdempotencyKey};
use crate::list::List;
use crate::object::Deleted;
use crate::route::Operation;
use crate::webhook::{CreateWebhookEndpoint, CreatedWebhookEndpoint, WebhookDelivery, WebhookDeliveryListQuery, WebhookEndpoint};

impl Client {
    pub fn webhook_endpoints(&self) -> Result<List<WebhookEndpoint>> {
        self.call(Operation::ListWebhookEndpoints, &[]).json()
    }
    pub fn create_webhook_endpoint(&self, body: &CreateWebhookEndpoint, key: &IdempotencyKey) -> Result<CreatedWebhookEndpoint> {
        self.call(Operation::CreateWebhookEndpoint, &[]).body(body).idempotency_key(key).json()
    }
    pub fn delete_webhook_endpoint(&self, id: &WebhookEndpointId) -> Result<Deleted> {
        self.call(Operation::DeleteWebhookEndpoint, &[id.as_str()]).json()
    }
    pub fn test_webhook_endpoint(&self, id: &WebhookEndpointId) -> Result<WebhookDelivery> {
        self.call(Operation::TestWebhookEndpoint, &[id.as_str()]).json()
    }
    pub fn webhook_deliveries(&self, query: &WebhookDeliveryListQuery) -> Result<List<WebhookDelivery>> {
        self.call(Operation::ListWebhookDeliveries, &[]).query(query).json()
    }
    pub fn retry_webhook_delivery(&self, id: &OutboxId) -> Result<WebhookDelivery> {
        self.call(Operation::RetryWebhookDelivery, &[id.as_str()]).json()
    }
}
