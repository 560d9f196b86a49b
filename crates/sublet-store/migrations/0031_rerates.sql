-- Use of a past time that is rated by another list than the one that it was admitted under.
CREATE TABLE rerates (
    id TEXT PRIMARY KEY, of_version TEXT NOT NULL, to_version TEXT NOT NULL, currency TEXT NOT NULL, starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL, organization_id TEXT REFERENCES organizations (id), reason TEXT NOT NULL, state TEXT NOT NULL,
    requested_by TEXT NOT NULL, applied_by TEXT, created_at BIGINT NOT NULL, approved_at BIGINT, ended_at BIGINT
);
CREATE INDEX rerates_approved ON rerates (id) WHERE state = 'approved';

-- What it comes to for each customer; number is the order in which what was rated anew holds for its use.
CREATE TABLE rerate_accounts (
    rerate_id TEXT NOT NULL REFERENCES rerates (id), organization_id TEXT NOT NULL REFERENCES organizations (id), state TEXT NOT NULL,
    charged BIGINT NOT NULL, would_be BIGINT NOT NULL, lines BIGINT NOT NULL, shown TEXT NOT NULL, refusal TEXT NOT NULL,
    number BIGINT, PRIMARY KEY (rerate_id, organization_id)
);
CREATE UNIQUE INDEX rerate_accounts_number ON rerate_accounts (organization_id, number);

-- How often use of an account was rated anew. Every settlement reads this row anyway, and nothing else where it is zero.
ALTER TABLE billing_accounts ADD COLUMN rerates BIGINT NOT NULL DEFAULT 0;
