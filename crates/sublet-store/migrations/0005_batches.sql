-- Files of projects. The content is elsewhere, under the file's id; it is whole before the row is.
CREATE TABLE files (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, home TEXT NOT NULL, purpose TEXT NOT NULL,
    filename TEXT NOT NULL, bytes BIGINT NOT NULL, content_hash TEXT NOT NULL, expires_at BIGINT, created_at BIGINT NOT NULL
);
CREATE INDEX files_project ON files (project_id, id);
CREATE INDEX files_expiry ON files (expires_at);

-- generation grows with each claim and fences what earlier claims still send. sealed: no line is answered any more.
CREATE TABLE batches (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL, project_id TEXT NOT NULL, key_id TEXT NOT NULL, endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL, home TEXT NOT NULL, completion_window TEXT NOT NULL, status TEXT NOT NULL, problems TEXT NOT NULL,
    quote TEXT, output_file_id TEXT, error_file_id TEXT, output_expires_after BIGINT, end_code TEXT NOT NULL,
    end_message TEXT NOT NULL, sealed BIGINT NOT NULL, lines_total BIGINT NOT NULL, lines_completed BIGINT NOT NULL,
    lines_failed BIGINT NOT NULL, input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    times TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, metadata TEXT NOT NULL,
    generation BIGINT NOT NULL, owner TEXT, claimed_until BIGINT NOT NULL, forecast_at BIGINT, purged BIGINT NOT NULL
);
CREATE INDEX batches_project ON batches (project_id, id);
CREATE INDEX batches_status ON batches (status, id);
CREATE INDEX batches_input ON batches (input_file_id);

-- A line is answered in the transaction that charges it. Rows are deleted when their answers are in files.
CREATE TABLE batch_lines (
    batch_id TEXT NOT NULL REFERENCES batches (id), number BIGINT NOT NULL, custom_id TEXT NOT NULL, request_id TEXT NOT NULL,
    starts_at_byte BIGINT NOT NULL, bytes BIGINT NOT NULL, state TEXT NOT NULL, status_code BIGINT NOT NULL, answer TEXT NOT NULL,
    input_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    PRIMARY KEY (batch_id, number)
);
CREATE INDEX batch_lines_state ON batch_lines (batch_id, state, number);
