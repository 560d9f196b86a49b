-- Only BIGINT, TEXT and BYTEA; instants are microseconds UTC; amounts are nano-units.

CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE organizations (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, class TEXT NOT NULL, currency TEXT NOT NULL, time_zone TEXT NOT NULL,
    credit_limit BIGINT NOT NULL, state TEXT NOT NULL, generation BIGINT NOT NULL, created_at BIGINT NOT NULL, metadata TEXT NOT NULL
);

CREATE TABLE projects (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), name TEXT NOT NULL, state TEXT NOT NULL,
    generation BIGINT NOT NULL, created_at BIGINT NOT NULL, metadata TEXT NOT NULL
);
CREATE INDEX projects_organization ON projects (organization_id, id);

CREATE TABLE users (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), email TEXT NOT NULL, name TEXT NOT NULL,
    role TEXT NOT NULL, state TEXT NOT NULL, generation BIGINT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX users_email ON users (organization_id, email);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, plane TEXT NOT NULL, organization_id TEXT REFERENCES organizations (id),
    project_id TEXT REFERENCES projects (id), name TEXT NOT NULL, secret_hash TEXT NOT NULL, hint TEXT NOT NULL,
    models TEXT NOT NULL, requests_per_minute BIGINT, tokens_per_minute BIGINT, concurrent_requests BIGINT,
    expires_at BIGINT, revoked_at BIGINT, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX api_keys_secret ON api_keys (secret_hash);
CREATE INDEX api_keys_project ON api_keys (project_id, id);

CREATE TABLE sessions (
    secret_hash TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES api_keys (id), created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL
);

-- Spend limits. A subject is an organization, a project or a key.
CREATE TABLE spend_limits (
    subject TEXT NOT NULL, budget_window TEXT NOT NULL, organization_id TEXT NOT NULL REFERENCES organizations (id),
    amount BIGINT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (subject, budget_window)
);
CREATE INDEX spend_limits_organization ON spend_limits (organization_id);

-- What was settled and is reserved (slices and holds) in one window of one limit. A new window is a new row.
CREATE TABLE budgets (
    subject TEXT NOT NULL, budget_window TEXT NOT NULL, starts_at BIGINT NOT NULL, ends_at BIGINT,
    amount BIGINT NOT NULL, settled BIGINT NOT NULL, reserved BIGINT NOT NULL,
    PRIMARY KEY (subject, budget_window, starts_at)
);

-- The ledger. balance = credits - debits; an account with a minimum never falls below it.
CREATE TABLE accounts (
    path TEXT PRIMARY KEY, organization_id TEXT, currency TEXT NOT NULL, debits BIGINT NOT NULL, credits BIGINT NOT NULL,
    minimum BIGINT
);
CREATE INDEX accounts_organization ON accounts (organization_id);

-- One business fact; its id is idempotent for ever.
CREATE TABLE journal_entries (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, organization_id TEXT, currency TEXT NOT NULL, posted_at BIGINT NOT NULL, memo TEXT NOT NULL
);
CREATE INDEX journal_entries_posted ON journal_entries (posted_at, id);

CREATE TABLE transfers (
    entry_id TEXT NOT NULL REFERENCES journal_entries (id), position BIGINT NOT NULL, debit TEXT NOT NULL REFERENCES accounts (path),
    credit TEXT NOT NULL REFERENCES accounts (path), amount BIGINT NOT NULL, PRIMARY KEY (entry_id, position)
);

CREATE TABLE credit_grants (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), kind TEXT NOT NULL, amount BIGINT NOT NULL,
    currency TEXT NOT NULL, reference TEXT NOT NULL, expires_at BIGINT, created_at BIGINT NOT NULL
);
CREATE INDEX credit_grants_organization ON credit_grants (organization_id, id);

CREATE TABLE gateways (id TEXT PRIMARY KEY, fence BIGINT NOT NULL, started_at BIGINT NOT NULL);

CREATE TABLE slices (
    id TEXT PRIMARY KEY, gateway_id TEXT NOT NULL, fence BIGINT NOT NULL, organization_id TEXT NOT NULL, project_id TEXT NOT NULL,
    key_id TEXT NOT NULL, currency TEXT NOT NULL, promotional BIGINT NOT NULL, paid BIGINT NOT NULL, spent BIGINT NOT NULL, records BIGINT NOT NULL,
    budgets TEXT NOT NULL, window_ends_at BIGINT, state TEXT NOT NULL, opened_at BIGINT NOT NULL, closed_at BIGINT
);
CREATE INDEX slices_open ON slices (gateway_id, state);
CREATE INDEX slices_organization ON slices (organization_id, state);

CREATE TABLE usage_events (
    request_id TEXT NOT NULL, attempt BIGINT NOT NULL, body_hash TEXT NOT NULL, organization_id TEXT NOT NULL,
    project_id TEXT NOT NULL, key_id TEXT NOT NULL, slice_id TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    model TEXT NOT NULL, input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    amount BIGINT NOT NULL, currency TEXT NOT NULL, admitted_at BIGINT NOT NULL, finished_at BIGINT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (request_id, attempt)
);
CREATE INDEX usage_events_project ON usage_events (project_id, request_id);
CREATE INDEX usage_events_state ON usage_events (state, request_id);

-- One charge for one line of one metered event.
CREATE TABLE charges (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, key_id TEXT, source TEXT NOT NULL,
    sku TEXT NOT NULL, quantity BIGINT NOT NULL, amount BIGINT NOT NULL, currency TEXT NOT NULL, price_version TEXT NOT NULL,
    period TEXT NOT NULL, quantity_before BIGINT NOT NULL, charged_before BIGINT NOT NULL,
    occurred_at BIGINT NOT NULL, posted_at BIGINT NOT NULL
);
CREATE INDEX charges_source ON charges (source);
CREATE INDEX charges_period ON charges (organization_id, period, id);
CREATE INDEX charges_project ON charges (project_id, id);
CREATE INDEX charges_key ON charges (key_id, occurred_at);

CREATE TABLE charge_lines (
    organization_id TEXT NOT NULL, project_id TEXT NOT NULL, period TEXT NOT NULL, price_version TEXT NOT NULL,
    sku TEXT NOT NULL, quantity BIGINT NOT NULL, charged BIGINT NOT NULL,
    PRIMARY KEY (organization_id, project_id, period, price_version, sku)
);

CREATE TABLE price_list_versions (
    price_list_id TEXT NOT NULL, number BIGINT NOT NULL, name TEXT NOT NULL, currency TEXT NOT NULL, version TEXT NOT NULL,
    effective_at BIGINT NOT NULL, body TEXT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (price_list_id, number)
);
CREATE UNIQUE INDEX price_list_versions_hash ON price_list_versions (version);

CREATE TABLE invoices (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), period TEXT NOT NULL,
    state TEXT NOT NULL, currency TEXT NOT NULL, total BIGINT NOT NULL, body TEXT NOT NULL,
    generation BIGINT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX invoices_period ON invoices (organization_id, period);

-- Money set aside for long-running work.
CREATE TABLE holds (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, key_id TEXT, subject TEXT NOT NULL,
    currency TEXT NOT NULL, promotional BIGINT NOT NULL, paid BIGINT NOT NULL, captured BIGINT NOT NULL, budgets TEXT NOT NULL, state TEXT NOT NULL,
    created_at BIGINT NOT NULL, closed_at BIGINT
);
CREATE INDEX holds_state ON holds (state, id);
CREATE INDEX holds_subject ON holds (subject);

CREATE TABLE nodes (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, runner TEXT NOT NULL, site TEXT NOT NULL, isolation TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX nodes_name ON nodes (name);

-- lease_id is the one lease that has the device; promised_to the pending lease that gets it next.
CREATE TABLE devices (
    id TEXT PRIMARY KEY, node_id TEXT NOT NULL REFERENCES nodes (id), site TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    uuid TEXT NOT NULL, memory BIGINT NOT NULL, health TEXT NOT NULL, lease_id TEXT, promised_to TEXT, generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX devices_uuid ON devices (node_id, uuid);
CREATE INDEX devices_lease ON devices (lease_id);

-- What each device did and does: half-open spans without gaps or overlaps; one open span for each device.
CREATE TABLE device_spans (
    device_id TEXT NOT NULL REFERENCES devices (id), number BIGINT NOT NULL, class TEXT NOT NULL, lease_id TEXT, started_at BIGINT NOT NULL,
    ended_at BIGINT, PRIMARY KEY (device_id, number)
);
CREATE UNIQUE INDEX device_spans_open ON device_spans (device_id) WHERE ended_at IS NULL;

CREATE TABLE quotes (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, terms TEXT NOT NULL, state TEXT NOT NULL,
    lease_id TEXT, expires_at BIGINT NOT NULL, created_at BIGINT NOT NULL, metadata TEXT NOT NULL
);
CREATE INDEX quotes_project ON quotes (project_id, id);

CREATE TABLE leases (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, quote_id TEXT NOT NULL, key_id TEXT,
    holder TEXT NOT NULL, sku TEXT NOT NULL, units BIGINT NOT NULL, notice TEXT NOT NULL, site TEXT NOT NULL, node_id TEXT NOT NULL,
    isolation TEXT NOT NULL, devices TEXT NOT NULL, price_version TEXT NOT NULL, price BIGINT NOT NULL, currency TEXT NOT NULL,
    max_cost BIGINT, cost BIGINT NOT NULL, starts_at BIGINT NOT NULL, ends_at BIGINT, ended_at BIGINT, state TEXT NOT NULL,
    reason TEXT NOT NULL, deadline BIGINT, unused_since BIGINT, job_over BIGINT NOT NULL, hold_bound TEXT NOT NULL,
    hold_refusal TEXT NOT NULL, generation BIGINT NOT NULL, created_at BIGINT NOT NULL, metadata TEXT NOT NULL
);
CREATE INDEX leases_project ON leases (project_id, id);
CREATE INDEX leases_state ON leases (state, id);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, lease_id TEXT NOT NULL, key_id TEXT,
    spec TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, attempt_id TEXT, exit TEXT,
    generation BIGINT NOT NULL, created_at BIGINT NOT NULL, started_at BIGINT, ended_at BIGINT, metadata TEXT NOT NULL
);
CREATE INDEX jobs_project ON jobs (project_id, id);
CREATE INDEX jobs_lease ON jobs (lease_id, id);
CREATE INDEX jobs_state ON jobs (state, id);

CREATE TABLE job_files (
    job_id TEXT NOT NULL REFERENCES jobs (id), path TEXT NOT NULL, content BYTEA NOT NULL, PRIMARY KEY (job_id, path)
);

CREATE TABLE attempts (
    id TEXT PRIMARY KEY, job_id TEXT NOT NULL, lease_id TEXT NOT NULL, organization_id TEXT NOT NULL, project_id TEXT NOT NULL,
    number BIGINT NOT NULL, runner TEXT NOT NULL, devices TEXT NOT NULL, state TEXT NOT NULL, placed_at BIGINT NOT NULL,
    started_at BIGINT, alive_at BIGINT, ended_at BIGINT, settled_until BIGINT, notified_for BIGINT, exit TEXT, isolation TEXT,
    contained TEXT NOT NULL, cpu_time_ms BIGINT NOT NULL, peak_memory BIGINT NOT NULL, kept TEXT NOT NULL, generation BIGINT NOT NULL
);
CREATE UNIQUE INDEX attempts_job ON attempts (job_id, number);
CREATE INDEX attempts_lease ON attempts (lease_id);
CREATE INDEX attempts_state ON attempts (state, id);

-- The attempt-interval log: append-only truth about device use, half-open.
CREATE TABLE attempt_intervals (
    attempt_id TEXT NOT NULL, device_id TEXT NOT NULL, started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL, close_reason TEXT NOT NULL,
    source TEXT NOT NULL, source_sequence BIGINT NOT NULL, lease_id TEXT NOT NULL,
    PRIMARY KEY (attempt_id, device_id, started_at)
);
CREATE INDEX attempt_intervals_device ON attempt_intervals (device_id, started_at);

CREATE TABLE runner_cursors (runner TEXT PRIMARY KEY, sequence BIGINT NOT NULL);

CREATE TABLE idempotency_keys (
    scope TEXT NOT NULL, key TEXT NOT NULL, request_hash TEXT NOT NULL, status BIGINT NOT NULL, response TEXT NOT NULL,
    created_at BIGINT NOT NULL, PRIMARY KEY (scope, key)
);

CREATE TABLE audit_entries (
    id TEXT PRIMARY KEY, organization_id TEXT, actor TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    result TEXT NOT NULL, detail TEXT NOT NULL, occurred_at BIGINT NOT NULL
);
CREATE INDEX audit_entries_organization ON audit_entries (organization_id, id);

CREATE TABLE outbox (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, dedup_key TEXT NOT NULL, payload TEXT NOT NULL, state TEXT NOT NULL,
    attempts BIGINT NOT NULL, run_at BIGINT NOT NULL, claimed_by TEXT, claimed_until BIGINT, last_error TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX outbox_dedup ON outbox (kind, dedup_key);
CREATE INDEX outbox_due ON outbox (state, run_at);
