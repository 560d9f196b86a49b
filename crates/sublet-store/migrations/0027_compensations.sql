-- What leases were told of their end, in order: evidence of the notice that was given. is_busy: something ran then.
CREATE TABLE lease_notices (
    lease_id TEXT NOT NULL REFERENCES leases (id), told_at BIGINT NOT NULL, reason TEXT NOT NULL, deadline BIGINT NOT NULL,
    is_busy BIGINT NOT NULL,
    PRIMARY KEY (lease_id, told_at, deadline)
);
CREATE INDEX attempt_intervals_lease ON attempt_intervals (lease_id, ended_at);

-- What interrupted leases are owed, by the rule that held when they were sold; never changed, only followed by another.
CREATE TABLE compensation_rules (version BIGINT PRIMARY KEY, rules TEXT NOT NULL, created_by TEXT NOT NULL, created_at BIGINT NOT NULL);
CREATE INDEX compensation_rules_at ON compensation_rules (created_at, version);

-- Credit for promises that were not kept. subject is a lease, or a month in which a level of service was missed;
-- share_ppm how much of its charges were given back.
CREATE TABLE compensations (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), kind TEXT NOT NULL, subject TEXT NOT NULL,
    family TEXT NOT NULL, share_ppm BIGINT NOT NULL, amount BIGINT NOT NULL, currency TEXT NOT NULL, evidence TEXT NOT NULL,
    note TEXT NOT NULL, grant_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX compensations_lease ON compensations (subject) WHERE kind = 'reclaim';
CREATE INDEX compensations_organization ON compensations (organization_id, id);
CREATE INDEX compensations_subject ON compensations (organization_id, subject);

-- Keys by their owner: of a project, an organization, or the operator.
CREATE INDEX api_keys_owner ON api_keys (COALESCE(organization_id, ''), COALESCE(project_id, ''), id);
