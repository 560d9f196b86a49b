-- When a gateway was last heard of: one that is silent may be declared lost, and then its slices have the state 'lost'.
ALTER TABLE gateways ADD COLUMN seen_at BIGINT NOT NULL DEFAULT 0;
UPDATE gateways SET seen_at = started_at;
