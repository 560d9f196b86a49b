-- Orders by which the owner takes capacity back. units_per_node is 0 where units may lie anywhere; until_at is null where the
-- devices are held until the order is cancelled.
CREATE TABLE reclaims (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, site TEXT, units BIGINT NOT NULL, units_per_node BIGINT NOT NULL, whole_nodes BIGINT NOT NULL,
    by_at BIGINT NOT NULL, until_at BIGINT, may_break BIGINT NOT NULL, state TEXT NOT NULL, generation BIGINT NOT NULL,
    created_by TEXT NOT NULL, created_at BIGINT NOT NULL, ended_at BIGINT
);
CREATE INDEX reclaims_open ON reclaims (id) WHERE state IN ('placed', 'fulfilled');

-- What an order was decided to be, never changed: the devices it holds while it is open, and the leases that it ends.
CREATE TABLE reclaim_devices (
    reclaim_id TEXT NOT NULL REFERENCES reclaims (id), device_id TEXT NOT NULL REFERENCES devices (id), lease_id TEXT,
    free_at BIGINT NOT NULL, PRIMARY KEY (reclaim_id, device_id)
);
CREATE INDEX reclaim_devices_device ON reclaim_devices (device_id);
CREATE TABLE reclaim_victims (
    reclaim_id TEXT NOT NULL REFERENCES reclaims (id), lease_id TEXT NOT NULL REFERENCES leases (id), tell_at BIGINT NOT NULL,
    deadline BIGINT NOT NULL, breaks_promise BIGINT NOT NULL, owed BIGINT NOT NULL, lost_ms BIGINT NOT NULL,
    checkpoint_at BIGINT, PRIMARY KEY (reclaim_id, lease_id)
);
CREATE INDEX reclaim_victims_lease ON reclaim_victims (lease_id);

-- The last durable checkpoint that a lease's workload has declared.
CREATE TABLE lease_checkpoints (lease_id TEXT PRIMARY KEY REFERENCES leases (id), checkpoint_at BIGINT NOT NULL);
