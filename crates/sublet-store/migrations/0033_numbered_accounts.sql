-- What changes with every transfer is kept apart from what never does, in as few bytes as it takes: an account has a
-- number, by which transfers name it, and its balance is a row of four numbers.
-- IDENTITY, KEY and CLUSTERED are said in each engine's own words (migration.rs).

DROP INDEX accounts_organization;
DROP INDEX journal_entries_posted;
ALTER TABLE transfers RENAME TO old_transfers;
ALTER TABLE journal_entries RENAME TO old_journal_entries;
ALTER TABLE accounts RENAME TO old_accounts;

CREATE TABLE account_names (
    number {IDENTITY}, path TEXT NOT NULL UNIQUE, organization_id TEXT, currency TEXT NOT NULL
);
CREATE INDEX account_names_organization ON account_names (organization_id);

-- balance = credits - debits; one with a minimum never falls below it.
CREATE TABLE balances (
    account {KEY} REFERENCES account_names (number), debits BIGINT NOT NULL, credits BIGINT NOT NULL, minimum BIGINT
);

CREATE TABLE journal_entries (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, organization_id TEXT, currency TEXT NOT NULL, posted_at BIGINT NOT NULL, memo TEXT NOT NULL
) {CLUSTERED};
CREATE INDEX journal_entries_posted ON journal_entries (posted_at, id);

CREATE TABLE transfers (
    entry_id TEXT NOT NULL REFERENCES journal_entries (id), position BIGINT NOT NULL,
    debit BIGINT NOT NULL REFERENCES account_names (number), credit BIGINT NOT NULL REFERENCES account_names (number),
    amount BIGINT NOT NULL, PRIMARY KEY (entry_id, position)
) {CLUSTERED};

INSERT INTO account_names (path, organization_id, currency) SELECT path, organization_id, currency FROM old_accounts ORDER BY path;
INSERT INTO balances (account, debits, credits, minimum)
    SELECT account_names.number, old_accounts.debits, old_accounts.credits, old_accounts.minimum
    FROM old_accounts JOIN account_names ON account_names.path = old_accounts.path ORDER BY account_names.number;
INSERT INTO journal_entries (id, kind, organization_id, currency, posted_at, memo)
    SELECT id, kind, organization_id, currency, posted_at, memo FROM old_journal_entries ORDER BY id;
INSERT INTO transfers (entry_id, position, debit, credit, amount)
    SELECT old_transfers.entry_id, old_transfers.position, debited.number, credited.number, old_transfers.amount
    FROM old_transfers JOIN account_names AS debited ON debited.path = old_transfers.debit
    JOIN account_names AS credited ON credited.path = old_transfers.credit ORDER BY old_transfers.entry_id, old_transfers.position;

DROP TABLE old_transfers;
DROP TABLE old_journal_entries;
DROP TABLE old_accounts;

-- An account with its name and its balance.
CREATE VIEW accounts AS
    SELECT account_names.number, account_names.path, account_names.organization_id, account_names.currency,
        balances.debits, balances.credits, balances.minimum
    FROM account_names JOIN balances ON balances.account = account_names.number;
