-- What is for sale, to whom, and until when: one row for each change, none rewritten. A product without a row is public.
CREATE TABLE offerings (
    product TEXT NOT NULL, number BIGINT NOT NULL, state TEXT NOT NULL, reach TEXT NOT NULL, ends_at BIGINT, successor TEXT,
    users_of BIGINT, note TEXT NOT NULL, actor TEXT NOT NULL, changed_at BIGINT NOT NULL,
    PRIMARY KEY (product, number)
);

-- Who was invited to use a product, from when until when.
CREATE TABLE offering_invitations (
    product TEXT NOT NULL, organization_id TEXT NOT NULL REFERENCES organizations (id), number BIGINT NOT NULL,
    invited_by TEXT NOT NULL, invited_at BIGINT NOT NULL, withdrawn_by TEXT, withdrawn_at BIGINT,
    PRIMARY KEY (product, organization_id, number)
);
CREATE INDEX offering_invitations_organization ON offering_invitations (organization_id);

-- Who used a product when its end was announced, and may go on until then.
CREATE TABLE offering_users (
    product TEXT NOT NULL, number BIGINT NOT NULL, organization_id TEXT NOT NULL,
    PRIMARY KEY (product, number, organization_id)
);
CREATE INDEX offering_users_organization ON offering_users (organization_id);
