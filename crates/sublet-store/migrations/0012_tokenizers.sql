-- The tokenizer that counts what a remote model's servers do not, as JSON: null is none.
ALTER TABLE remote_models ADD COLUMN tokenizer TEXT NOT NULL DEFAULT 'null';
