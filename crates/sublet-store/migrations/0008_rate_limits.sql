-- Limits on speed. The subject is an organization, a project or a key; the empty model is all models together;
-- end users are 'all', 'each', or 'one:' and a name.
CREATE TABLE rate_limits (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), subject TEXT NOT NULL,
    metric TEXT NOT NULL, value BIGINT NOT NULL, model TEXT NOT NULL, end_users TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX rate_limits_subject ON rate_limits (subject, metric, model, end_users);
CREATE INDEX rate_limits_organization ON rate_limits (organization_id, id);

-- What is left of a limit at an instant, and which gateways hold how much of it (JSON).
CREATE TABLE rate_buckets (
    bucket TEXT PRIMARY KEY, metric TEXT NOT NULL, value BIGINT NOT NULL, parts BIGINT NOT NULL, at BIGINT NOT NULL,
    holders TEXT NOT NULL
);
CREATE INDEX rate_buckets_at ON rate_buckets (at);
