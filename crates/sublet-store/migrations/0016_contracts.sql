-- Contracts; the notice that was given, if any: the last month, the fee, who gave it and when.
CREATE TABLE contracts (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), name TEXT NOT NULL,
    last_month TEXT, exit_fee BIGINT, notice_by TEXT, notice_at BIGINT, created_at BIGINT NOT NULL
);
CREATE INDEX contracts_organization ON contracts (organization_id, id);

-- Versions of a contract's terms: offered, and accepted or withdrawn. What is accepted is never changed.
CREATE TABLE contract_terms (
    contract_id TEXT NOT NULL REFERENCES contracts (id), number BIGINT NOT NULL, state TEXT NOT NULL,
    hash TEXT NOT NULL, body TEXT NOT NULL, offered_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, answered_by TEXT,
    answered_at BIGINT, PRIMARY KEY (contract_id, number)
);

-- What each issued invoice counted towards a contract's commitment period, and what it settled.
CREATE TABLE contract_months (
    contract_id TEXT NOT NULL REFERENCES contracts (id), period TEXT NOT NULL, number BIGINT NOT NULL,
    counted BIGINT NOT NULL, shortfall BIGINT NOT NULL, roll_over_used BIGINT NOT NULL, roll_over_periods BIGINT NOT NULL,
    exit_fee BIGINT NOT NULL, PRIMARY KEY (contract_id, period)
);
