-- Files for finance that are delivered by themselves. The target is JSON; place says where the files go, and no two go there.
-- next_period is the oldest month that was not delivered as closed; open_day and open_period what was delivered last of what
-- is open. attempt counts claims, and fences those before.
CREATE TABLE export_schedules (
    id TEXT PRIMARY KEY, organization_id TEXT REFERENCES organizations (id), dataset TEXT NOT NULL, version TEXT NOT NULL,
    format TEXT NOT NULL, cadence TEXT NOT NULL, target TEXT NOT NULL, place TEXT NOT NULL UNIQUE,
    next_period TEXT, open_day BIGINT, open_period TEXT, next_at BIGINT NOT NULL, claimed_until BIGINT, attempt BIGINT NOT NULL,
    failures BIGINT NOT NULL, problem TEXT NOT NULL, created_by TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX export_schedules_due ON export_schedules (next_at, id);

-- The latest attempts of each schedule; problem is empty for what was delivered.
CREATE TABLE export_runs (
    schedule_id TEXT NOT NULL REFERENCES export_schedules (id), attempt BIGINT NOT NULL, file TEXT NOT NULL, period TEXT,
    coverage TEXT NOT NULL, row_count BIGINT NOT NULL, byte_count BIGINT NOT NULL, sha256 TEXT NOT NULL, problem TEXT NOT NULL,
    started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL,
    PRIMARY KEY (schedule_id, attempt)
);
