//! A month of charges, closed, sealed and verified: what `bench/money.sh` prints.
//!
//! `month REQUESTS [sqlite|postgresql]` settles so many requests through the production store in batches of 1,000, each
//! with a charge for its input and one for its output, closes their month, reads the invoice's bundle and verifies it.
//! One JSON object: milliseconds, and charges in a second.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Duration;

use serde_json::{Value, json};
use sublet_cloud::Actor;
use sublet_cloud::invoice::Bill;
use sublet_core::DurationMs;
use sublet_core::usage::UsageSink;
use sublet_proof::bundle::Verifier;
use sublet_store::PageRequest;
use sublet_store::invoice::InvoiceFilter;
use sublet_testkit::database::{Database, TestCloud};
use sublet_testkit::session::Session;
use tokio::time::Instant;

/// Records in one settlement.
const BATCH: usize = 1_000;
/// What the slice is granted, in nano-units.
const GRANT_NANOS: i64 = 10_000_000_000;
/// Synchronized writes whose median is shown beside the rest.
const SYNCS: usize = 101;
/// Bytes of one of them: a page of SQLite's log.
const PAGE_BYTES: usize = 4_096;
/// How far apart requests are admitted.
const BETWEEN: DurationMs = DurationMs::from_millis(1);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (requests, database) = match arguments.as_slice() {
        [requests] => (requests, Database::sqlite()),
        [requests, kind] if kind == "sqlite" => (requests, Database::sqlite()),
        [requests, kind] if kind == "postgresql" => (requests, Database::postgresql()),
        _ => panic!("month REQUESTS [sqlite|postgresql]"),
    };
    let requests: usize = requests.parse().expect("a number of requests");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let figures = runtime.block_on(month(requests, database));
    writeln!(std::io::stdout(), "{figures}").expect("somebody who reads");
}

async fn month(requests: usize, database: Database) -> Value {
    let world = TestCloud::start(database).await;
    let session = Session::start(&world.cloud, &world.keys.project, "gw_1").await;
    let slice = session.grant(None, GRANT_NANOS, GRANT_NANOS).await.expect("a grant").slice;
    let few = |count: usize| i64::try_from(count).expect("few");
    let started = Instant::now();
    let mut settled = 0;
    while settled < requests {
        let batch = BATCH.min(requests - settled);
        let records: Vec<_> = (0..batch)
            .map(|index| {
                world.clock.set(world.now().plus(BETWEEN));
                session.record(&slice, 1 + few((settled + index) % 17), 1 + few((settled + index) % 13))
            })
            .collect();
        let report = world.cloud.settle(&records).await.expect("a settlement");
        assert_eq!(report.settled, u64::try_from(batch).expect("few"));
        settled += batch;
    }
    let settling = started.elapsed();
    session.give_back(&slice, i64::try_from(requests).expect("a count")).await.expect("a return");
    let before_kib = peak_kib();
    world.clock.set(world.now().plus(DurationMs::from_hours(24 * 32)));
    let started = Instant::now();
    let report = world.cloud.close_months().await.expect("a look");
    let closing = started.elapsed();
    assert_eq!((report.issued, report.failed), (1, 0));
    let closing_kib = peak_kib() - before_kib;
    let page = PageRequest::default();
    let bills = world.cloud.list_invoices(&Actor::system(), &InvoiceFilter::default(), &page).await.expect("invoices").items;
    let bill = bills.into_iter().find(|bill| bill.invoice.number.is_some()).expect("an invoice");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let started = Instant::now();
    write_bundle(&world, &bill, file.as_file()).await;
    let writing = started.elapsed();
    let started = Instant::now();
    let leaves = verify(file.path());
    let verifying = started.elapsed();
    let rate = |time: Duration| u128::from(leaves) * 1_000_000 / time.as_micros().max(1);
    json!({
        "charges": leaves,
        "settle_ms": settling.as_millis(), "settled_per_s": rate(settling),
        "close_and_seal_ms": closing.as_millis(), "sealed_per_s": rate(closing), "close_peak_growth_kib": closing_kib,
        "bundle_ms": writing.as_millis(), "bundled_per_s": rate(writing), "bundle_bytes": file.as_file().metadata().expect("a size").len(),
        "verify_ms": verifying.as_millis(), "verified_per_s": rate(verifying),
        "synchronized_write_us": synchronized_write_us(),
    })
}

async fn write_bundle(world: &TestCloud, bill: &Bill, file: &File) {
    let mut file = BufWriter::new(file);
    let (header, mut cursor) = world.cloud.open_bundle(&Actor::system(), &bill.invoice.id).await.expect("a bundle");
    writeln!(file, "{header}").expect("room");
    while let Some(lines) = world.cloud.next_bundle_lines(&mut cursor).await.expect("leaves") {
        file.write_all(lines.as_bytes()).expect("room");
    }
    file.flush().expect("room");
}

fn verify(path: &std::path::Path) -> u64 {
    let mut file = BufReader::new(File::open(path).expect("the bundle"));
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        file.read_line(line).expect("text") > 0
    };
    assert!(next(&mut line), "a header");
    let mut verifier = Verifier::new(line.trim_end_matches('\n'), None).expect("a right header");
    while next(&mut line) {
        verifier.leaf(line.trim_end_matches('\n')).expect("a right leaf");
    }
    verifier.finish().expect("a right bundle").seal.leaves()
}

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

fn synchronized_write_us() -> u128 {
    let mut file = tempfile::tempfile().expect("a file");
    let mut times: Vec<_> = (0..SYNCS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[7; PAGE_BYTES]).and_then(|()| file.sync_data()).expect("room");
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[SYNCS / 2]
}
