-- The charges of a month in the order of their use, for exports that add them up by the hour.
CREATE INDEX charges_used ON charges (organization_id, period, occurred_at);
CREATE INDEX charges_late_used ON charges (organization_id, billed_in, occurred_at) WHERE billed_in <> '';
