-- Whose an outside effect is, and what became of it when it was done.
ALTER TABLE outbox ADD COLUMN organization_id TEXT;
ALTER TABLE outbox ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
CREATE INDEX outbox_listed ON outbox (kind, state, id);
