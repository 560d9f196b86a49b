-- Suppliers outside: what their replicas cost, what was bought of them, and who may be served by them.
ALTER TABLE organizations ADD COLUMN data_consent TEXT NOT NULL DEFAULT '{}';

-- Versions of a replica's cost: never changed, and kept when the replica is gone.
CREATE TABLE cost_versions (
    version TEXT PRIMARY KEY, replica_id TEXT NOT NULL, supplier_id TEXT NOT NULL REFERENCES organizations (id),
    currency TEXT NOT NULL, effective_at BIGINT NOT NULL, body TEXT NOT NULL, created_at BIGINT NOT NULL,
    UNIQUE (replica_id, effective_at)
);

-- What purchases add up to: each line is rounded as a whole.
CREATE TABLE cost_lines (
    supplier_id TEXT NOT NULL, replica_id TEXT NOT NULL, period TEXT NOT NULL, cost_version TEXT NOT NULL, kind TEXT NOT NULL,
    quantity BIGINT NOT NULL, owed BIGINT NOT NULL,
    PRIMARY KEY (supplier_id, replica_id, period, cost_version, kind)
);

-- What was bought for which attempt of a request. The revenue is what the customer was charged, beside the purchase
-- that served.
CREATE TABLE purchases (
    request_id TEXT NOT NULL, attempt BIGINT NOT NULL, position BIGINT NOT NULL, supplier_id TEXT NOT NULL,
    replica_id TEXT NOT NULL, model TEXT NOT NULL, period TEXT NOT NULL, cost_version TEXT NOT NULL,
    input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    amount BIGINT NOT NULL, revenue BIGINT NOT NULL, currency TEXT NOT NULL, measured TEXT NOT NULL,
    occurred_at BIGINT NOT NULL, posted_at BIGINT NOT NULL,
    PRIMARY KEY (request_id, attempt, position)
);
CREATE INDEX purchases_time ON purchases (occurred_at);
CREATE INDEX purchases_line ON purchases (supplier_id, replica_id, period, cost_version);
