-- How accounts are invoiced: the buyer, its exemption if it has one, and terms of payment of its own.
CREATE TABLE billing_profiles (
    organization_id TEXT PRIMARY KEY REFERENCES organizations (id), body TEXT NOT NULL, updated_at BIGINT NOT NULL
);

-- Images that invoices name by their SHA-256. They are kept as long as invoices are.
CREATE TABLE logos (sha256 TEXT PRIMARY KEY, body BYTEA NOT NULL, created_at BIGINT NOT NULL);

-- What invoices add to their totals, what of it credit notes gave back, and the gifts that lowered its base: no value
-- where the invoice has no taxes.
ALTER TABLE invoices ADD COLUMN tax BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoices ADD COLUMN credited_tax BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invoices ADD COLUMN gifts BIGINT;
ALTER TABLE credit_notes ADD COLUMN tax BIGINT NOT NULL DEFAULT 0;
CREATE INDEX invoices_taxed ON invoices (organization_id) WHERE tax <> 0;
