-- Credit for leaving early, once for each lease.
CREATE UNIQUE INDEX compensations_early ON compensations (subject) WHERE kind = 'early';

-- Which events an endpoint asked for, by their types with blanks between them; those that are there were told of alerts.
ALTER TABLE webhook_endpoints ADD COLUMN events TEXT NOT NULL DEFAULT 'spend_alert.created';
