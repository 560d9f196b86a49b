-- Responses that were asked to be kept. What is large comes last, so that the rest is read without it.
CREATE TABLE responses (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, key_id TEXT NOT NULL, previous_id TEXT,
    bytes BIGINT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, input TEXT NOT NULL, object TEXT NOT NULL
);
CREATE INDEX responses_project ON responses (project_id, bytes);
CREATE INDEX responses_expiry ON responses (expires_at, id);
