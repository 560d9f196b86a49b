-- What is proven of an invoice: the secret that the salts of its leaves are made from, and, since it was issued, its
-- seal and the seal's place in the log.
CREATE TABLE seals (
    organization_id TEXT NOT NULL, period TEXT NOT NULL, secret BYTEA NOT NULL, seal TEXT, details TEXT,
    log_place BIGINT,
    PRIMARY KEY (organization_id, period)
);

-- Every 256 leaves of an invoice: their subtree, and the charge that ends it.
CREATE TABLE leaf_blocks (
    organization_id TEXT NOT NULL, period TEXT NOT NULL, place BIGINT NOT NULL, hash BYTEA NOT NULL,
    last_is_late BIGINT NOT NULL, last_charge TEXT NOT NULL, PRIMARY KEY (organization_id, period, place)
);

-- The log: its entries, and every full subtree over them, by level × 2⁵⁶ + place.
CREATE TABLE log_entries (place BIGINT PRIMARY KEY, entry BYTEA NOT NULL);
CREATE TABLE log_nodes (id BIGINT PRIMARY KEY, hash BYTEA NOT NULL);
