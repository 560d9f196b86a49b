//! What the ledger, a purse and rating do in a second: what `bench/money.sh` prints beside a month of charges.
//!
//! `ledger [sqlite|postgresql]` posts entries of one transfer each through the production store, so many in a commit,
//! to accounts that may not be overdrawn: spread evenly over 10,000 customers, and all to one. It takes holds inside a
//! slice, and rates usage. One JSON object: transfers in a second by the size of a commit, nanoseconds of a hold, and
//! events rated in a second.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sublet_cloud::slice::GatewayPort;
use sublet_core::id::{JournalEntryId, OrganizationId};
use sublet_core::{Currency, Nanos};
use sublet_gateway::measuring::OpenPurse;
use sublet_money::account::CreditKind;
use sublet_money::posting::{CreditSplit, EntryHead, Fact, JournalEntry, post};
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineState, rate};
use sublet_money::sku::Quantity;
use sublet_money::starter::{StarterDevice, starter_price_list};
use sublet_store::{Store, ledger};
use sublet_testkit::database::{Database, MODEL, TestCloud};
use sublet_testkit::session::Session;
use tokio::time::Instant;

const CUSTOMERS: usize = 10_000;
/// What every customer is granted.
const GRANT: Nanos = Nanos::new(1_000_000_000_000);
/// Transfers in a commit, and commits that are timed.
const SHAPES: [(usize, usize); 4] = [(1, 1_000), (100, 200), (1_000, 60), (8_000, 15)];
const HOLDS: u32 = 1_000_000;
/// What a request holds.
const HOLD: Nanos = Nanos::new(1_000_000);
const EVENTS: u32 = 2_000_000;
/// Synchronized writes, of a page of SQLite's log each.
const SYNCS: u32 = 1_001;
const PAGE_BYTES: usize = 4_096;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kind = arguments.first().map_or("sqlite", String::as_str);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let figures = runtime.block_on(async {
        let mut transfers = serde_json::Map::new();
        for (name, customers) in [("uniform", CUSTOMERS), ("hot", 1)] {
            let database = match kind {
                "postgresql" => Database::postgresql(),
                _ => Database::sqlite(),
            };
            let store = Store::open(&database.config).await.expect("the database opens");
            transfers.insert(name.to_owned(), post_all(&store, customers).await);
            store.close().await;
        }
        json!({
            "transfers_per_s": transfers,
            "hold_ns": hold().await,
            "rated_per_s": per_second(u64::from(EVENTS), rate_events()),
            "synchronized_writes_per_s": synchronized_writes_per_s(),
        })
    });
    writeln!(std::io::stdout(), "{figures}").expect("somebody who reads");
}

fn per_second(count: u64, time: Duration) -> u128 {
    u128::from(count) * 1_000_000 / time.as_micros().max(1)
}

fn customer(number: usize) -> OrganizationId {
    format!("org_{number:026}").parse().expect("an id")
}

fn entry(number: usize, organization: &OrganizationId, fact: &Fact) -> JournalEntry {
    let id: JournalEntryId = format!("jnl_{number:026}").parse().expect("an id");
    let head = EntryHead { id, at: sublet_testkit::clock::START, currency: Currency::EUR, memo: String::new() };
    post(head, organization, fact).expect("an entry")
}

async fn commit(store: &Store, entries: &[JournalEntry]) {
    let posted = store.write(entries, |entries, tx| Box::pin(ledger::post_all(tx, entries))).await.expect("the books take it");
    assert_eq!(posted.len(), entries.len());
}

/// Every transfer takes credit from a customer, who must have it, into the customer's slices.
async fn post_all(store: &Store, customers: usize) -> Value {
    let mut number = 0;
    let granted = Fact::CreditGranted { credit: CreditKind::Paid, amount: GRANT };
    let grants: Vec<_> =
        (0..customers).map(|customer_number| entry(customer_number, &customer(customer_number), &granted)).collect();
    for batch in grants.chunks(1_000) {
        commit(store, batch).await;
    }
    number += customers;
    let taken = Fact::SliceGranted { from: CreditSplit { committed: Nanos::ZERO, promotional: Nanos::ZERO, paid: Nanos::new(1) } };
    let mut rates = serde_json::Map::new();
    for (batch, commits) in SHAPES {
        // Neighbours in a batch are far apart in the accounts.
        let made: Vec<_> =
            (number..number + batch * commits).map(|at| entry(at, &customer(at * 7_919 % customers), &taken)).collect();
        number += batch * commits;
        let started = Instant::now();
        for entries in made.chunks(batch) {
            commit(store, entries).await;
        }
        let rate = per_second(u64::try_from(batch * commits).expect("few"), started.elapsed());
        rates.insert(batch.to_string(), json!(rate));
    }
    Value::Object(rates)
}

async fn hold() -> u128 {
    let world = TestCloud::start(Database::sqlite()).await;
    let session = Session::start(&world.cloud, &world.keys.project, "gw_1").await;
    let port = Arc::new(GatewayPort::new(world.cloud.clone(), session.gateway.clone()));
    let of = (session.gateway.clone(), session.fence);
    let purse = OpenPurse::open(port, world.cloud.ids().clone(), of, &session.access, HOLD).await.expect("a slice");
    let started = Instant::now();
    for _ in 0..HOLDS {
        assert!(purse.hold(HOLD), "the slice suffices");
    }
    started.elapsed().as_nanos() / u128::from(HOLDS)
}

/// One event after the other on one line, with the line before and after each proven.
fn rate_events() -> Duration {
    let devices = [StarterDevice::at_list_price("cpu".parse().expect("a kind"))];
    let models = [MODEL.parse().expect("a model")];
    let draft =
        starter_price_list("plist_1".parse().expect("an id"), Currency::EUR, sublet_testkit::clock::START, &models, &devices);
    let version = PriceListVersion::new(draft.expect("prices")).expect("a price list");
    let price = version.entries().next().expect("a price").price_in(None).expect("outside of bands");
    let started = Instant::now();
    let mut line = LineState::default();
    for event in 0..i64::from(EVENTS) {
        let (_, after) = rate(line, price, Quantity::new(1 + event % 17).expect("some")).expect("a price");
        line = after;
    }
    assert!(line.charged > Nanos::ZERO);
    started.elapsed()
}

fn synchronized_writes_per_s() -> u128 {
    let mut file: File = tempfile::tempfile().expect("a file");
    let started = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&[7; PAGE_BYTES]).and_then(|()| file.sync_data()).expect("room");
    }
    per_second(u64::from(SYNCS), started.elapsed())
}
