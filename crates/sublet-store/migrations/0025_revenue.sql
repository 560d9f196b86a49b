-- Commitments in quantities, in base units: what each invoice counted, what was missing and what was used up of it later,
-- and what overage cost more than the contract's price. And what all use of the month came to; earlier rows do not know it.
ALTER TABLE contract_months ADD COLUMN quantity BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN quantity_used BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN overage BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN used BIGINT;

-- What contracts billed in advance, one row for each period with a fee, and how much of it is earned.
CREATE TABLE contract_advances (
    contract_id TEXT NOT NULL REFERENCES contracts (id), number BIGINT NOT NULL, billed_in TEXT NOT NULL, terms TEXT NOT NULL,
    first_month TEXT NOT NULL, last_month TEXT NOT NULL, fee BIGINT NOT NULL, earned BIGINT NOT NULL,
    PRIMARY KEY (contract_id, number)
);

-- What of that each month earned, when it was closed.
CREATE TABLE contract_earnings (
    contract_id TEXT NOT NULL, number BIGINT NOT NULL, period TEXT NOT NULL, amount BIGINT NOT NULL,
    PRIMARY KEY (contract_id, number, period)
);
CREATE INDEX contract_earnings_period ON contract_earnings (period);
