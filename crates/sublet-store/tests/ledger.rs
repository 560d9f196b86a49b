//! Entries that are posted at once, on both databases: as if one after the other.
#![cfg(test)]

use sublet_core::id::{JournalEntryId, OrganizationId};
use sublet_core::{Currency, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, CreditKind, LedgerAccount};
use sublet_money::balance::AccountTotals;
use sublet_money::posting::{CreditSplit, EntryHead, Fact, JournalEntry, post};
use sublet_store::ledger::{self, JournalCursor, Posted};
use sublet_store::{Store, params, row::Value};
use sublet_testkit::database::Database;

/// Writers at once, what each takes, and how many of them the balance suffices for.
const WRITERS: usize = 8;
const TAKES: i64 = 3;
const PAID_FOR: usize = 3;

fn organization(number: usize) -> OrganizationId {
    format!("org_{number}").parse().expect("an id")
}

fn entry(id: &str, organization: &OrganizationId, fact: &Fact) -> JournalEntry {
    let id: JournalEntryId = format!("jnl_{id}").parse().expect("an id");
    let head = EntryHead { id, at: Timestamp::from_seconds(1), currency: Currency::EUR, memo: String::new() };
    post(head, organization, fact).expect("an entry")
}

fn grant(id: &str, amount: i64) -> JournalEntry {
    entry(id, &organization(1), &Fact::CreditGranted { credit: CreditKind::Paid, amount: Nanos::new(amount) })
}

fn take(id: &str, amount: i64) -> JournalEntry {
    let from = CreditSplit { committed: Nanos::ZERO, promotional: Nanos::ZERO, paid: Nanos::new(amount) };
    entry(id, &organization(1), &Fact::SliceGranted { from })
}

async fn post_all(store: &Store, entries: Vec<JournalEntry>) -> Result<Vec<Posted>> {
    store.write(entries, |entries, tx| Box::pin(ledger::post_all(tx, entries))).await
}

async fn totals(store: &Store) -> AccountTotals {
    let account = LedgerAccount::customer(AccountKind::Available(CreditKind::Paid), &organization(1));
    store.read(account, |account, tx| Box::pin(ledger::totals(tx, account))).await.expect("totals")
}

const fn expected(credits: i64, debits: i64) -> AccountTotals {
    AccountTotals { debits: Nanos::new(debits), credits: Nanos::new(credits) }
}

async fn count(store: &Store, sql: &'static str) -> i64 {
    let none: [Value<'static>; 0] = [];
    store.read(none, |none, tx| Box::pin(async move { tx.fetch_one(sql, none).await?.reader().int() })).await.expect("a count")
}

fn on_both(test: impl AsyncFn(&Store)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for database in [Database::sqlite(), Database::postgresql()] {
        runtime.block_on(async {
            let store = Store::open(&database.config).await.expect("the database opens");
            test(&store).await;
            store.close().await;
        });
    }
}

#[test]
fn each_entry_finds_what_those_before_it_left() {
    on_both(async |store| {
        let posted = post_all(store, vec![grant("a", 5), take("b", 5), grant("c", 2), take("d", 1)]).await.expect("posted");
        assert_eq!(posted, [Posted::New; 4]);
        assert_eq!(totals(store).await, expected(7, 6));
        assert_eq!(count(store, "SELECT COUNT(*) FROM transfers").await, 4);
    });
}

#[test]
fn an_overdraft_that_a_later_entry_would_cover_refuses_all() {
    on_both(async |store| {
        post_all(store, vec![grant("a", 5)]).await.expect("posted");
        let refused = post_all(store, vec![take("b", 3), take("c", 3), grant("d", 9)]).await.expect_err("too much");
        assert_eq!(
            (refused.code(), refused.to_string()),
            (ErrorCode::InsufficientQuota, "the balance is 0.000000002, and 0.000000003 is needed".to_owned())
        );
        assert_eq!(totals(store).await, expected(5, 0));
        assert_eq!(count(store, "SELECT COUNT(*) FROM journal_entries").await, 1);
    });
}

#[test]
fn an_id_stands_for_one_entry_within_a_batch_and_after_it() {
    on_both(async |store| {
        let posted = post_all(store, vec![grant("a", 5), grant("a", 5)]).await.expect("posted");
        assert_eq!(posted, [Posted::New, Posted::Duplicate]);
        let posted = post_all(store, vec![take("b", 1), grant("a", 5), take("b", 1)]).await.expect("posted");
        assert_eq!(posted, [Posted::New, Posted::Duplicate, Posted::Duplicate]);
        for entries in [vec![grant("a", 6)], vec![take("c", 1), take("c", 2)]] {
            assert_eq!(post_all(store, entries).await.expect_err("other transfers").code(), ErrorCode::IdempotencyMismatch);
        }
        assert_eq!(totals(store).await, expected(5, 1));
        assert_eq!(count(store, "SELECT COUNT(*) FROM journal_entries").await, 2);
    });
}

#[test]
fn writers_at_once_never_overdraw_an_account() {
    on_both(async |store| {
        let paid_for = i64::try_from(PAID_FOR).expect("few");
        post_all(store, vec![grant("a", paid_for * TAKES + 1)]).await.expect("posted");
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                let takes = (0..TAKES).map(|part| take(&format!("w{writer}x{part}"), 1)).collect();
                tokio::spawn(async move { post_all(&store, takes).await })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(_) => done += 1,
                Err(error) => assert_eq!(error.code(), ErrorCode::InsufficientQuota),
            }
        }
        assert_eq!(done, PAID_FOR);
        assert_eq!(totals(store).await, expected(paid_for * TAKES + 1, paid_for * TAKES));
    });
}

/// The last version in which transfers named accounts by their paths.
const BEFORE_NUMBERS: i64 = 27;

/// Writes an entry as programs of that version did.
async fn write_as_before(store: &Store, entry: &JournalEntry) {
    let write = async |sql: &'static str, params: &[Value<'static>]| {
        store.write(params, |params, tx| Box::pin(async move { tx.execute(sql, params).await })).await.expect("it was so");
    };
    write(
        "INSERT INTO journal_entries (id, kind, organization_id, currency, posted_at, memo) VALUES ($1, $2, $3, 'EUR', $4, '')",
        params![entry.id.to_string(), entry.kind.to_string(), organization(1).to_string(), entry.at],
    )
    .await;
    for (position, transfer) in (1_i64..).zip(&entry.transfers) {
        for (account, debits, credits) in
            [(&transfer.debit, transfer.amount, Nanos::ZERO), (&transfer.credit, Nanos::ZERO, transfer.amount)]
        {
            let minimum = account.to_string().starts_with("liabilities:").then_some(0);
            write(
                "INSERT INTO accounts (path, organization_id, currency, debits, credits, minimum) VALUES ($1, $2, 'EUR', $3, $4, $5)
                 ON CONFLICT (path) DO UPDATE
                 SET debits = accounts.debits + excluded.debits, credits = accounts.credits + excluded.credits",
                params![account.to_string(), account.organization().map(ToString::to_string), debits, credits, minimum],
            )
            .await;
        }
        write(
            "INSERT INTO transfers (entry_id, position, debit, credit, amount) VALUES ($1, $2, $3, $4, $5)",
            params![entry.id.to_string(), position, transfer.debit.to_string(), transfer.credit.to_string(), transfer.amount],
        )
        .await;
    }
}

#[test]
fn books_of_an_earlier_version_go_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for database in [Database::sqlite(), Database::postgresql()] {
        runtime.block_on(async {
            let before = [grant("a", 7), take("b", 3), take("c", 2)];
            let old = Store::open_as_of(&database.config, BEFORE_NUMBERS).await.expect("a database of that version");
            for entry in &before {
                write_as_before(&old, entry).await;
            }
            old.close().await;

            let store = Store::open(&database.config).await.expect("it is brought up to date");
            assert_eq!(totals(&store).await, expected(7, 5));
            let journal = store
                .read(JournalCursor::default(), |after, tx| Box::pin(ledger::list_entries(tx, &Scope::Operator, after)))
                .await
                .expect("the journal");
            assert_eq!(journal.0, before);
            assert_eq!(post_all(&store, before.to_vec()).await.expect("known"), [Posted::Duplicate; 3]);
            assert_eq!(post_all(&store, vec![take("b", 4)]).await.expect_err("another").code(), ErrorCode::IdempotencyMismatch);
            let refused = post_all(&store, vec![take("d", 3)]).await.expect_err("only two are left");
            assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
            assert_eq!(post_all(&store, vec![take("d", 2)]).await.expect("posted"), [Posted::New]);
            assert_eq!(totals(&store).await, expected(7, 7));
            store.close().await;
        });
    }
}
