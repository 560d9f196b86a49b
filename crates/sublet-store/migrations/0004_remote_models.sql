-- Models that other servers answer for, and the servers.
CREATE TABLE remote_models (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owned_by TEXT NOT NULL,
    context_window BIGINT NOT NULL,
    output_max BIGINT NOT NULL,
    audience TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE replicas (
    id TEXT PRIMARY KEY,
    model_id TEXT NOT NULL REFERENCES remote_models (id),
    definition TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX replicas_by_model ON replicas (model_id, id);
INSERT INTO changes (subject, number) VALUES ('models', 1);
