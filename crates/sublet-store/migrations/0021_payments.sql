-- What customers mean to pay in. step is what is to be done with the processor next, at next_at; calls counts the keys
-- that were used up and tries what went wrong in a row. checkout is the processor's name of the place to pay, payment
-- that of the payment.
CREATE TABLE top_ups (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), method TEXT NOT NULL,
    amount BIGINT NOT NULL, currency TEXT NOT NULL, reference TEXT NOT NULL, state TEXT NOT NULL, step TEXT NOT NULL,
    next_at BIGINT, calls BIGINT NOT NULL, tries BIGINT NOT NULL, checkout TEXT, url TEXT, payment TEXT, reason TEXT,
    grant_id TEXT, refunded BIGINT NOT NULL, fee BIGINT, fee_currency TEXT, created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL, created_at BIGINT NOT NULL, ended_at BIGINT
);
CREATE UNIQUE INDEX top_ups_reference ON top_ups (reference);
CREATE UNIQUE INDEX top_ups_payment ON top_ups (method, payment) WHERE payment IS NOT NULL;
CREATE INDEX top_ups_organization ON top_ups (organization_id, id);
CREATE INDEX top_ups_pending ON top_ups (organization_id) WHERE state = 'pending';
CREATE INDEX top_ups_next ON top_ups (next_at, id) WHERE next_at IS NOT NULL;

-- Money that arrived: every transaction of the bank account once, and what a processor told that nobody here knows of.
-- problem says why it is not counted; answer what the operator did with it.
CREATE TABLE incoming_payments (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, transaction_id TEXT NOT NULL, amount BIGINT, currency TEXT,
    reference TEXT NOT NULL, state TEXT NOT NULL, problem TEXT, top_up_id TEXT, organization_id TEXT, answer TEXT,
    answered_by TEXT, grant_id TEXT, created_at BIGINT NOT NULL, answered_at BIGINT
);
CREATE UNIQUE INDEX incoming_payments_transaction ON incoming_payments (source, transaction_id);
CREATE INDEX incoming_payments_quarantined ON incoming_payments (id) WHERE state = 'quarantined';

-- Paid credit on its way back. transaction_id is the bank's, or the processor's name of the refund.
CREATE TABLE refunds (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), amount BIGINT NOT NULL,
    currency TEXT NOT NULL, note TEXT NOT NULL, state TEXT NOT NULL, method TEXT, top_up_id TEXT, payment TEXT,
    requested_by TEXT NOT NULL, answered_by TEXT, reason TEXT, transaction_id TEXT, next_at BIGINT, calls BIGINT NOT NULL,
    tries BIGINT NOT NULL, created_at BIGINT NOT NULL, answered_at BIGINT, ended_at BIGINT, tax BIGINT NOT NULL
);
CREATE UNIQUE INDEX refunds_transaction ON refunds (method, transaction_id) WHERE transaction_id IS NOT NULL;
CREATE INDEX refunds_organization ON refunds (organization_id, id);
CREATE INDEX refunds_next ON refunds (next_at, id) WHERE next_at IS NOT NULL;
