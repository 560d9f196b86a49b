-- Cards that a processor keeps for organizations: one that is charged, at most, and one that is being saved, at most.
-- step is what is to be done with the processor next, at next_at; calls counts the keys that were used up and tries what
-- went wrong in a row. customer and name are what the processor calls the card and whom it belongs to.
CREATE TABLE saved_cards (
    id TEXT PRIMARY KEY, organization_id TEXT NOT NULL REFERENCES organizations (id), state TEXT NOT NULL,
    step TEXT NOT NULL, next_at BIGINT, calls BIGINT NOT NULL, tries BIGINT NOT NULL, page TEXT, url TEXT, customer TEXT,
    name TEXT, brand TEXT, last4 TEXT, expires_month BIGINT, expires_year BIGINT, reason TEXT, created_by TEXT NOT NULL,
    page_expires_at BIGINT NOT NULL, created_at BIGINT NOT NULL, saved_at BIGINT
);
CREATE UNIQUE INDEX saved_cards_saved ON saved_cards (organization_id) WHERE state = 'saved';
CREATE UNIQUE INDEX saved_cards_pending ON saved_cards (organization_id) WHERE state = 'pending';
CREATE INDEX saved_cards_next ON saved_cards (next_at, id) WHERE next_at IS NOT NULL;

-- What accounts want charged by itself. terms is what they set; look_at is when it is looked at next, and is null while
-- it is paused. day_at is the next day of the rule; nothing is tried before retry_at.
CREATE TABLE top_up_rules (
    organization_id TEXT PRIMARY KEY REFERENCES organizations (id), terms TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
    declines BIGINT NOT NULL, look_at BIGINT, retry_at BIGINT, day_at BIGINT, set_by TEXT NOT NULL, set_at BIGINT NOT NULL
);
CREATE INDEX top_up_rules_look ON top_up_rules (look_at, organization_id) WHERE look_at IS NOT NULL;

-- card_id is the card that a top-up charges; cause says why there is one that nobody asked for by itself.
ALTER TABLE top_ups ADD COLUMN card_id TEXT;
ALTER TABLE top_ups ADD COLUMN cause TEXT;
-- A card is charged for one thing at a time, whoever asks.
CREATE UNIQUE INDEX top_ups_card ON top_ups (organization_id) WHERE method = 'card' AND state = 'pending';
CREATE INDEX top_ups_automatic ON top_ups (organization_id, created_at) WHERE cause IS NOT NULL;

-- What a processor paid out to the owner's bank account, by its own name; posted_at and returned_at say what of it is in
-- the books.
CREATE TABLE payouts (
    id TEXT PRIMARY KEY, processor TEXT NOT NULL, name TEXT NOT NULL, amount BIGINT NOT NULL, currency TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT, made_at BIGINT NOT NULL, posted_at BIGINT, returned_at BIGINT
);
CREATE UNIQUE INDEX payouts_name ON payouts (processor, name);
CREATE INDEX payouts_pending ON payouts (made_at) WHERE state = 'pending';
