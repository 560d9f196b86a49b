//! Entries that are posted at once, on both databases: as if one after the other.
#![cfg(test)]

use sublet_core::id::{JournalEntryId, OrganizationId};
use sublet_core::{Currency, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::account::{AccountKind, CreditKind, LedgerAccount};
use sublet_money::balance::AccountTotals;
use sublet_money::posting::{CreditSplit, EntryHead, Fact, JournalEntry, post};
use sublet_store::ledger::{self, Posted};
use sublet_store::{Store, row::Value};
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
    let from = CreditSplit { promotional: Nanos::ZERO, paid: Nanos::new(amount) };
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
