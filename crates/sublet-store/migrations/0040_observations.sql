-- Up to when a pool was looked at, to the minute: a longer time until the next look is a hole in what is known. Null where that
-- was not written down.
ALTER TABLE demand_pools ADD COLUMN observed_until BIGINT;
