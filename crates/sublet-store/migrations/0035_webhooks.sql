-- What was sent of a file, for accounts that are suspended.
CREATE INDEX downloads_file ON downloads (file_id, opened_at);

-- Where events of an organization are posted, and what they are signed with.
CREATE TABLE webhook_endpoints (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), url TEXT NOT NULL, secret TEXT NOT NULL,
    state TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX webhook_endpoints_organization ON webhook_endpoints (organization_id, id);

-- Whose turn it is, and what waits for an endpoint.
ALTER TABLE outbox ADD COLUMN endpoint_id TEXT;
CREATE INDEX outbox_endpoint ON outbox (endpoint_id, state);
CREATE INDEX outbox_endpoint_claimed ON outbox (endpoint_id, claimed_until);
CREATE INDEX outbox_organization_claimed ON outbox (organization_id, claimed_until);
CREATE INDEX outbox_organization ON outbox (organization_id, kind, id);
CREATE INDEX outbox_kind_due ON outbox (kind, state, run_at, id);
