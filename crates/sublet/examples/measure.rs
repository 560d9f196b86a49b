//! What `bench/run.sh` cannot measure from outside: the ledger's calls.
//!
//! `measure DIRECTORY ROUNDS` times grant, settlement and return on a new SQLite database in
//! DIRECTORY, beside plain synchronized writes to the same disk. One JSON object, in microseconds.
// A measuring tool is a binary: it has the real clock, and prints.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::expect_used, reason = "a tool that fails loudly")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sublet_cloud::slice::GatewayPort;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::{Access, Admission, SliceClosed, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenUsage};
use sublet_core::id::{GatewayId, RequestId, SliceId};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{Measured, Outcome, UsageRecord, UsageSink};
use sublet_core::{Clock, IdMint, Nanos, Rng, Timestamp, TokenCount};
use sublet_store::{Store, StoreConfig};
use sublet_testkit::SeededRng;
use sublet_testkit::database::{MODEL, first_start};

/// Records in one settlement, as the gateway's settler sends under load.
const BATCH: usize = 64;
/// What one slice is granted: one hundredth of a currency unit.
const GRANT: Nanos = Nanos::new(10_000_000);
/// Bytes of one plain synchronized write: a page of SQLite's log.
const PAGE_BYTES: usize = 4_096;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        Timestamp::from_micros(i64::try_from(since.as_micros()).expect("a year that fits"))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let [directory, rounds] = arguments.as_slice() else { panic!("measure DIRECTORY ROUNDS") };
    let result = runtime.block_on(money(Path::new(directory), rounds.parse().expect("a number")));
    println!("{result}");
}

/// Median, 95th percentile and extremes, in microseconds.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort();
    let at = |percent: usize| times.get((times.len() - 1) * percent / 100).expect("a measured time").as_micros();
    json!({ "median": at(50), "p95": at(95), "least": at(0), "most": at(100), "rounds": times.len() })
}

struct Ledger {
    cloud: Cloud,
    port: GatewayPort,
    gateway: GatewayId,
    fence: i64,
    access: Arc<Access>,
}

impl Ledger {
    async fn open(directory: &Path) -> Self {
        let rng: Arc<dyn Rng> = Arc::new(SeededRng::new(1));
        let ids = IdMint::new(Arc::new(SystemClock), rng);
        let store = Store::open(&StoreConfig::Sqlite(directory.join("sublet.db"))).await.expect("the database opens");
        let cloud = Cloud::open(store, ids).await.expect("the cloud opens");
        let start = first_start();
        let plan = cloud.plan_first_start(&start).await.expect("a plan").expect("a new database");
        assert!(cloud.apply_first_start(&plan).await.expect("the first start"), "the database was not new");
        cloud.ensure_prices(&start).await.expect("the price list");
        let gateway: GatewayId = cloud.ids().mint();
        let fence = cloud.start_gateway(&gateway).await.expect("a session");
        let port = GatewayPort::new(cloud.clone(), gateway.clone());
        let access = port.authenticate(&plan.keys().project).await.expect("the key works");
        Self { cloud, port, gateway, fence, access }
    }

    async fn grant(&self) -> SliceId {
        let request = SliceRequest {
            gateway: self.gateway.clone(),
            fence: self.fence,
            key: self.access.key.clone(),
            class: SpendClass::default(),
            slice: SliceTarget::Open(self.cloud.ids().mint()),
            wanted: GRANT,
            least: GRANT,
            is_final: true,
        };
        self.port.grant_slice(request).await.expect("a grant").slice
    }

    async fn give_back(&self, slice: SliceId, records: i64) {
        let closed = self.port.return_slice(SliceReturn { slice, fence: self.fence, records }).await.expect("a return");
        assert!(matches!(closed, SliceClosed::Released(_)), "records are missing");
    }

    fn record(&self, slice: &SliceId) -> UsageRecord {
        let now = self.cloud.clock().now();
        UsageRecord {
            tier: ServiceTier::Default,
            request: self.cloud.ids().mint::<RequestId>(),
            attempt: 1,
            gateway: self.gateway.clone(),
            fence: self.fence,
            slice: slice.clone(),
            key: self.access.key.clone(),
            project: self.access.project.clone(),
            organization: self.access.organization.clone(),
            model: MODEL.to_owned(),
            route: "/v1/completions".to_owned(),
            price_version: self.port.prices(&self.access, (MODEL, ServiceTier::Default), now).expect("a price").version.clone(),
            admitted_at: now,
            first_token_at: Some(now),
            finished_at: now,
            tokens: TokenUsage { input: TokenCount::new(20), cached_input: TokenCount::ZERO, output: TokenCount::new(20) },
            outcome: Outcome::Completed,
            measured: Measured::Engine,
            client_retry: 0,
            line: None,
            replica: None,
            purchases: Vec::new(),
        }
    }
}

async fn money(directory: &Path, rounds: usize) -> Value {
    let ledger = Ledger::open(directory).await;
    let (mut grants, mut settlements, mut returns, mut both, mut batches) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let started = Instant::now();
        let slice = ledger.grant().await;
        let granted = started.elapsed();
        let record = ledger.record(&slice);
        let started = Instant::now();
        let report = ledger.cloud.settle(std::slice::from_ref(&record)).await.expect("a settlement");
        let settled = started.elapsed();
        assert_eq!(report.settled, 1);
        let started = Instant::now();
        ledger.give_back(slice, 1).await;
        returns.push(started.elapsed());
        grants.push(granted);
        settlements.push(settled);
        both.push(granted + settled);
    }
    for _ in 0..(rounds / BATCH).max(3) {
        let slice = ledger.grant().await;
        let records: Vec<UsageRecord> = (0..BATCH).map(|_| ledger.record(&slice)).collect();
        let started = Instant::now();
        ledger.cloud.settle(&records).await.expect("a settlement");
        batches.push(started.elapsed());
        ledger.give_back(slice, i64::try_from(BATCH).expect("a small number")).await;
    }
    let verification = ledger.cloud.verify_ledger(&Actor::system()).await.expect("the ledger can be read");
    assert!(verification.balanced(), "the books do not balance");
    ledger.cloud.store().close().await;
    json!({
        "grant": spread(grants), "settle": spread(settlements), "return": spread(returns),
        "grant_and_settle": spread(both), "settle_64": spread(batches), "plain_sync": spread(plain_syncs(directory, rounds)),
    })
}

/// What the disk itself takes: one appended page and its synchronization.
fn plain_syncs(directory: &Path, rounds: usize) -> Vec<Duration> {
    let mut file = std::fs::File::create(directory.join("plain")).expect("a file");
    let page = [7_u8; PAGE_BYTES];
    (0..rounds)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&page).and_then(|()| file.sync_data()).expect("a synchronized write");
            started.elapsed()
        })
        .collect()
}
