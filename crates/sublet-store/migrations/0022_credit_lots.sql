-- Credit that expires, burns in an order of its own or is for some use only; remaining is what of the available credit is
-- its own.
CREATE TABLE credit_lots (
    grant_id TEXT PRIMARY KEY REFERENCES credit_grants (id), organization_id TEXT NOT NULL, kind TEXT NOT NULL,
    priority BIGINT NOT NULL, expires_at BIGINT, scope TEXT NOT NULL, remaining BIGINT NOT NULL CHECK (remaining >= 0)
);
CREATE INDEX credit_lots_left ON credit_lots (organization_id, grant_id) WHERE remaining > 0;
CREATE INDEX credit_lots_ends ON credit_lots (expires_at, grant_id) WHERE remaining > 0 AND expires_at IS NOT NULL;

ALTER TABLE credit_grants ADD COLUMN priority BIGINT NOT NULL DEFAULT 100;
ALTER TABLE credit_grants ADD COLUMN scope TEXT NOT NULL DEFAULT 'all';

-- What slices and holds are made of, in the order in which it burned; empty where all of it is free credit.
ALTER TABLE slices ADD COLUMN parts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE holds ADD COLUMN parts TEXT NOT NULL DEFAULT '[]';
