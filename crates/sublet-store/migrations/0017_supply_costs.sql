-- What supply costs the owner, as he declares it: never changed. Of the versions for a month or earlier ones, the one of
-- the latest month is in force, and of those the last one published.
CREATE TABLE supply_costs (
    version TEXT PRIMARY KEY, number BIGINT NOT NULL, currency TEXT NOT NULL, period TEXT NOT NULL, body TEXT NOT NULL,
    created_at BIGINT NOT NULL, UNIQUE (currency, number)
);

-- Time that nobody paid for: there should be none.
CREATE INDEX attempt_intervals_unpaid ON attempt_intervals (ended_at) WHERE close_reason = 'unpaid';
CREATE INDEX attempts_ended ON attempts (ended_at) WHERE state = 'ended';
