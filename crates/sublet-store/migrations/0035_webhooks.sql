-- What was sent of a file, for accounts that are suspended.
CREATE INDEX downloads_file ON downloads (file_id, opened_at);

-- Where events of an organization are posted, and what they are signed with.
CREATE TABLE webhook_endpoints (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), url TEXT NOT NULL, secret TEXT NOT NULL,
    state TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX webhook_endpoints_organization ON webhook_endpoints (organization_id, id);
