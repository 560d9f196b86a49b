-- Fees that were charged once, with what the operator wrote for the customer. Their charges have the same source.
CREATE TABLE fees (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id),
    project_id TEXT NOT NULL REFERENCES projects (id), name TEXT NOT NULL, quantity BIGINT NOT NULL, amount BIGINT NOT NULL,
    currency TEXT NOT NULL, price_version TEXT NOT NULL, note TEXT NOT NULL, created_by TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX fees_organization ON fees (organization_id, id);
