-- Indexes that market prices follow. lead_ms is how long before it holds a point is published at least; it never changes.
CREATE TABLE price_indexes (
    name TEXT PRIMARY KEY, lead_ms BIGINT NOT NULL, note TEXT NOT NULL, created_by TEXT NOT NULL, created_at BIGINT NOT NULL
);

-- Their points, never changed. level is in thousandths; hash is over the point and the hash of the one before it.
CREATE TABLE price_index_points (
    index_name TEXT NOT NULL REFERENCES price_indexes (name), number BIGINT NOT NULL, begins_at BIGINT NOT NULL, level BIGINT NOT NULL,
    published_at BIGINT NOT NULL, hash TEXT NOT NULL, published_by TEXT NOT NULL,
    PRIMARY KEY (index_name, number)
);
CREATE UNIQUE INDEX price_index_points_begin ON price_index_points (index_name, begins_at);

-- The highest price of a device for an hour at which a lease goes on; none if its holder set none.
ALTER TABLE leases ADD COLUMN max_price BIGINT;
