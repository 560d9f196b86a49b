-- Devices of one kind at one site, and what is known of the owner's demand for them. generation changes with every row of
-- demand_steps and every curve, so that no curve rests on rows it has not seen. history counts imports: who follows the
-- history begins anew when it changes. levels is the curve that was decided for decided_at, as JSON.
CREATE TABLE demand_pools (
    kind TEXT NOT NULL, site_id TEXT NOT NULL, generation BIGINT NOT NULL, history BIGINT NOT NULL, observed_from BIGINT,
    reported_at BIGINT, reported_in_use BIGINT NOT NULL, reported_queued BIGINT NOT NULL, reported_valid BIGINT NOT NULL,
    reported_until BIGINT, decided_at BIGINT, valid_until BIGINT, levels TEXT, PRIMARY KEY (kind, site_id)
);

-- Their demand over time: what is so from an instant, a whole second, until the next row. valid is 0 where nothing is known.
CREATE TABLE demand_steps (
    kind TEXT NOT NULL, site_id TEXT NOT NULL, at BIGINT NOT NULL, capacity BIGINT NOT NULL, in_use BIGINT NOT NULL,
    queued BIGINT NOT NULL, valid BIGINT NOT NULL, PRIMARY KEY (kind, site_id, at)
) {CLUSTERED};
