-- Jobs that are run again: how often, since when they wait to go on, before when they are not tried, and the lease on which they
-- ran first.
ALTER TABLE jobs ADD COLUMN restarts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN requeued_at BIGINT;
ALTER TABLE jobs ADD COLUMN not_before BIGINT;
ALTER TABLE jobs ADD COLUMN start_lease_id TEXT;
