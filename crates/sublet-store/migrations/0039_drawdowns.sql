-- Commitments that are billed in advance: credit of their own kind, of which slices and holds may be made.
ALTER TABLE slices ADD COLUMN committed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE holds ADD COLUMN committed BIGINT NOT NULL DEFAULT 0;

-- What an invoice billed in advance of a period's commitment, beside the fee.
ALTER TABLE contract_advances ADD COLUMN commitment BIGINT NOT NULL DEFAULT 0;

-- What an invoice took off for it, and what lapsed of it; null where nothing was billed in advance. There, what is missing
-- and used up of roll-over was not charged and given back.
ALTER TABLE contract_months ADD COLUMN drawn BIGINT;
ALTER TABLE contract_months ADD COLUMN lapsed BIGINT NOT NULL DEFAULT 0;

-- When the credit of a contract's next period is due, and which month is its first.
CREATE TABLE contract_drawdown_plans (
    contract_id TEXT PRIMARY KEY REFERENCES contracts (id), first_month TEXT NOT NULL, due_at BIGINT NOT NULL
);
CREATE INDEX contract_drawdown_plans_due ON contract_drawdown_plans (due_at, contract_id);

-- The credit of each period: its grant, what was billed and what rolled over into it. settled is 0 until the period's last
-- invoice; from then on carried is what it gave to the next.
CREATE TABLE contract_drawdowns (
    contract_id TEXT NOT NULL REFERENCES contracts (id), number BIGINT NOT NULL, grant_id TEXT NOT NULL REFERENCES credit_grants (id),
    billed BIGINT NOT NULL, rolled_over BIGINT NOT NULL, carried BIGINT NOT NULL, settled BIGINT NOT NULL,
    PRIMARY KEY (contract_id, number)
);
CREATE UNIQUE INDEX contract_drawdowns_grant ON contract_drawdowns (grant_id);
