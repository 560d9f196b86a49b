-- The month in whose invoice a use is that came to be known after its own month was closed; empty elsewhere.
ALTER TABLE charges ADD COLUMN billed_in TEXT NOT NULL DEFAULT '';
CREATE INDEX charges_late ON charges (organization_id, billed_in, id) WHERE billed_in <> '';

-- The oldest open month of an account, and when it ends. Every settlement reads it; only closing a month writes it.
CREATE TABLE billing_accounts (
    organization_id TEXT PRIMARY KEY REFERENCES organizations (id), open_period TEXT NOT NULL, open_ends_at BIGINT NOT NULL
);
CREATE INDEX billing_accounts_ends ON billing_accounts (open_ends_at, organization_id);

-- Months that are closed, and since when each has its invoice, or is known to need none; carry is the rounding after it.
CREATE TABLE closed_months (
    organization_id TEXT NOT NULL REFERENCES organizations (id), period TEXT NOT NULL, billed_at BIGINT, carry BIGINT NOT NULL,
    PRIMARY KEY (organization_id, period)
);
CREATE INDEX closed_months_unbilled ON closed_months (organization_id, period) WHERE billed_at IS NULL;

-- The last number of each kind of document and year, and when that document was issued.
CREATE TABLE document_series (
    kind TEXT NOT NULL, year BIGINT NOT NULL, last BIGINT NOT NULL, issued_at BIGINT NOT NULL, PRIMARY KEY (kind, year)
);

ALTER TABLE invoices ADD COLUMN number TEXT;
ALTER TABLE invoices ADD COLUMN credited BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX invoices_number ON invoices (number) WHERE number IS NOT NULL;
CREATE INDEX invoices_unpaid ON invoices (organization_id, period) WHERE state = 'issued';

CREATE TABLE credit_notes (
    id TEXT PRIMARY KEY, number TEXT NOT NULL, invoice_id TEXT NOT NULL REFERENCES invoices (id), organization_id TEXT NOT NULL,
    kind TEXT NOT NULL, amount BIGINT NOT NULL, currency TEXT NOT NULL, reason TEXT NOT NULL, issued_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX credit_notes_number ON credit_notes (number);
CREATE INDEX credit_notes_organization ON credit_notes (organization_id, id);
CREATE INDEX credit_notes_invoice ON credit_notes (invoice_id, id);
