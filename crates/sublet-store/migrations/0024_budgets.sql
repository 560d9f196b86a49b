-- What happens when a limit is reached, and whom it tells before. Limits of before are hard and tell nobody.
ALTER TABLE spend_limits ADD COLUMN at_limit TEXT NOT NULL DEFAULT 'hard';
ALTER TABLE spend_limits ADD COLUMN overrun_max BIGINT NOT NULL DEFAULT 0;
ALTER TABLE spend_limits ADD COLUMN alerts TEXT NOT NULL DEFAULT '[]';
-- When a limit with alerts is looked at next, and the start of the window that was seen last.
ALTER TABLE spend_limits ADD COLUMN look_at BIGINT;
ALTER TABLE spend_limits ADD COLUMN looked_from BIGINT;
CREATE INDEX spend_limits_look ON spend_limits (look_at, subject, budget_window) WHERE look_at IS NOT NULL;

ALTER TABLE budgets ADD COLUMN at_limit TEXT NOT NULL DEFAULT 'hard';
ALTER TABLE budgets ADD COLUMN overrun_max BIGINT NOT NULL DEFAULT 0;
-- When something was refused, or went on beyond the limit, for the first time.
ALTER TABLE budgets ADD COLUMN reached_at BIGINT;

-- What limits told: once for a window, a threshold and the amount that the limit had.
CREATE TABLE spend_alerts (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), subject TEXT NOT NULL, budget_window TEXT NOT NULL,
    starts_at BIGINT NOT NULL, ends_at BIGINT, basis TEXT NOT NULL, percent BIGINT NOT NULL, amount BIGINT NOT NULL,
    settled BIGINT NOT NULL, reserved BIGINT NOT NULL, forecast BIGINT, created_at BIGINT NOT NULL,
    UNIQUE (subject, budget_window, starts_at, basis, percent, amount)
);
CREATE INDEX spend_alerts_organization ON spend_alerts (organization_id, id);

-- What was settled in a window by the last look of an hour: differences are the spend of hours, which forecasts are made of.
CREATE TABLE spend_samples (
    subject TEXT NOT NULL, budget_window TEXT NOT NULL, hour BIGINT NOT NULL, starts_at BIGINT NOT NULL, settled BIGINT NOT NULL,
    PRIMARY KEY (subject, budget_window, hour)
);

-- What forecasts add up: the open holds of an organization.
CREATE INDEX holds_open_organization ON holds (organization_id) WHERE state = 'open';
