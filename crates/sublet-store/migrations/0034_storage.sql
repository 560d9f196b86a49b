-- Files that were deleted or have expired, until the hours in which they were kept are metered.
CREATE TABLE ended_files (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects (id), bytes BIGINT NOT NULL, created_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL
);
CREATE INDEX ended_files_project ON ended_files (project_id, ended_at);

-- Up to which hour it is metered what a project keeps. There is a row while it keeps files, or has just kept some.
CREATE TABLE storage_meters (
    project_id TEXT PRIMARY KEY REFERENCES projects (id), organization_id TEXT NOT NULL REFERENCES organizations (id),
    metered_until BIGINT NOT NULL
);
CREATE INDEX storage_meters_organization ON storage_meters (organization_id, metered_until);

-- What was metered. An hour has more than one part where a month or a band of the price ended in it; parts of an hour have one
-- id, which is the source of their charges. Rows are never changed: an hour of a project is metered once.
CREATE TABLE storage_hours (
    project_id TEXT NOT NULL REFERENCES projects (id), hour BIGINT NOT NULL, part BIGINT NOT NULL, id TEXT NOT NULL,
    organization_id TEXT NOT NULL REFERENCES organizations (id), starts_at BIGINT NOT NULL, period TEXT NOT NULL,
    byte_hours BIGINT NOT NULL, price_version TEXT NOT NULL, band TEXT NOT NULL, PRIMARY KEY (project_id, hour, part)
);
CREATE INDEX storage_hours_period ON storage_hours (organization_id, period, project_id, hour, part);
CREATE INDEX storage_hours_id ON storage_hours (id);

-- Downloads that are paid for. bytes is what was handed to the connection, once that is known.
CREATE TABLE downloads (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id),
    project_id TEXT NOT NULL REFERENCES projects (id), key_id TEXT, file_id TEXT NOT NULL, price_version TEXT NOT NULL,
    state TEXT NOT NULL, bytes BIGINT NOT NULL, opened_at BIGINT NOT NULL, ended_at BIGINT
);
CREATE INDEX downloads_open ON downloads (opened_at) WHERE state = 'open';
