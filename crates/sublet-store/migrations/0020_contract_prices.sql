-- Versions of price lists that contracts have of their own: immutable, and named by charges as those of public lists are.
CREATE TABLE contract_prices (
    version TEXT PRIMARY KEY, contract_id TEXT NOT NULL REFERENCES contracts (id), body TEXT NOT NULL, created_at BIGINT NOT NULL
);

-- When each of them holds. What has not begun changes when something else is agreed or published.
CREATE TABLE contract_price_times (
    contract_id TEXT NOT NULL REFERENCES contracts (id), starts_at BIGINT NOT NULL, ends_at BIGINT,
    version TEXT NOT NULL REFERENCES contract_prices (version), PRIMARY KEY (contract_id, starts_at)
);
CREATE INDEX contract_price_times_ends ON contract_price_times (ends_at);
