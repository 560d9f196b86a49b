-- Commitments in quantities, in base units: what each invoice counted, what was missing and what was used up of it later,
-- and what overage cost more than the contract's price. And what all use of the month came to; earlier rows do not know it.
ALTER TABLE contract_months ADD COLUMN quantity BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN quantity_used BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN overage BIGINT NOT NULL DEFAULT 0;
ALTER TABLE contract_months ADD COLUMN used BIGINT;
