-- What is told of models, by their names. An alias belongs to one model.
CREATE TABLE model_cards (model TEXT PRIMARY KEY, card TEXT NOT NULL, generation BIGINT NOT NULL, changed_at BIGINT NOT NULL);
CREATE TABLE model_aliases (alias TEXT PRIMARY KEY, model TEXT NOT NULL);
CREATE INDEX model_aliases_model ON model_aliases (model);

-- Which organization agreed to which licence: by which key, and when.
CREATE TABLE licence_acceptances (
    organization_id TEXT NOT NULL, model TEXT NOT NULL, licence TEXT NOT NULL, url TEXT, actor TEXT NOT NULL,
    accepted_at BIGINT NOT NULL, PRIMARY KEY (organization_id, model, licence)
);
