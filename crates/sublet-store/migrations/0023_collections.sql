-- Whose an outside effect is, and what became of it when it was done.
ALTER TABLE outbox ADD COLUMN organization_id TEXT;
ALTER TABLE outbox ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN done_at BIGINT;
CREATE INDEX outbox_listed ON outbox (kind, state, id);

-- How an account is dunned where it is said, and whether it is suspended. policy is its own, on_suspension what its
-- running work does then, paused why it is left alone, overdue what refusals of a suspended one say.
CREATE TABLE dunning_accounts (
    organization_id TEXT PRIMARY KEY REFERENCES organizations (id), policy TEXT, on_suspension TEXT NOT NULL,
    suspended_at BIGINT, paused TEXT, overdue TEXT
);
CREATE INDEX dunning_accounts_suspended ON dunning_accounts (organization_id) WHERE suspended_at IS NOT NULL;
-- The latest reminder of an invoice: so many days after its due day, and the day on which it was queued.
CREATE TABLE dunning_debts (
    invoice_id TEXT PRIMARY KEY REFERENCES invoices (id), organization_id TEXT NOT NULL, reminded_after BIGINT,
    reminded_on TEXT, paused TEXT
);
CREATE INDEX dunning_debts_organization ON dunning_debts (organization_id);
