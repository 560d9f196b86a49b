-- What customers asked for and did not get: of each hour, project, kind, notice and reason the largest request, whole.
-- wanted_ms is how long it counts, device_ms that for all units, price what would have been paid for a device-hour.
CREATE TABLE unfilled_asks (
    hour BIGINT NOT NULL, project_id TEXT NOT NULL REFERENCES projects (id), kind TEXT NOT NULL, notice TEXT NOT NULL,
    reason TEXT NOT NULL, site TEXT, units BIGINT NOT NULL, wanted_ms BIGINT NOT NULL, device_ms BIGINT NOT NULL, price BIGINT,
    currency TEXT NOT NULL, asked_at BIGINT NOT NULL, PRIMARY KEY (hour, project_id, kind, notice, reason)
) {CLUSTERED};

-- Leases by when they were over: what became of promises in a month.
CREATE INDEX leases_ended ON leases (ended_at, id) WHERE state = 'ended';
