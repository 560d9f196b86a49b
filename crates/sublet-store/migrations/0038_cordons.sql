-- A device that the operator keeps out of sale stays so when it was lost and is back.
ALTER TABLE devices ADD COLUMN cordoned BIGINT NOT NULL DEFAULT 0;
UPDATE devices SET cordoned = 1 WHERE health = 'cordoned';
