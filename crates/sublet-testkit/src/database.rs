//! A cloud on a fresh database, with its ledger verified at the end of every test.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use sublet_cloud::bootstrap::{FirstKeys, FirstStart};
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::id::InvoiceId;
use sublet_core::{Currency, DurationMs, ErrorCode, Timestamp};
use sublet_store::invoice::InvoiceFilter;
use sublet_store::{PageRequest, Store, StoreConfig};

use crate::bundle::{bundle, verify};
use crate::clock::{ManualClock, START, mint};
use crate::postgres::PostgresServer;

/// Where a test's data is. The directory lives as long as this.
pub struct Database {
    pub config: StoreConfig,
    _directory: Option<tempfile::TempDir>,
}

impl Database {
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { config: StoreConfig::Sqlite(directory.path().join("sublet.db")), _directory: Some(directory) }
    }
    /// In memory where there is room for files in it: for runs that write for minutes and are not about disks.
    pub fn sqlite_in_memory() -> Self {
        let memory = std::path::Path::new(MEMORY_DIRECTORY);
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = made.expect("a temporary directory");
        Self { config: StoreConfig::Sqlite(directory.path().join("sublet.db")), _directory: Some(directory) }
    }
    pub fn postgresql() -> Self {
        Self { config: StoreConfig::Postgres(PostgresServer::shared().fresh_database()), _directory: None }
    }
}

/// The models that a test cloud has prices for.
pub const MODEL: &str = "sublet-mini";

/// Files in it are in memory.
const MEMORY_DIRECTORY: &str = "/dev/shm";

/// So long after a test its months are over wherever an account is.
const AFTER_ALL: DurationMs = DurationMs::from_hours(24 * 33);

/// A cloud after its first start, on a clock that stands still.
pub struct TestCloud {
    pub cloud: Cloud,
    pub clock: Arc<ManualClock>,
    pub keys: FirstKeys,
    pub database: Database,
    /// Invoices whose seals a scenario deleted.
    erased: Mutex<BTreeSet<InvoiceId>>,
}

impl TestCloud {
    pub async fn start(database: Database) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let cloud = open(&database.config, clock.clone(), 1).await;
        let start = first_start();
        let plan = cloud.plan_first_start(&start).await.expect("a plan").expect("a new database");
        let keys = plan.keys();
        assert!(cloud.apply_first_start(&plan).await.expect("the first start"), "the database was not new");
        cloud.ensure_prices(&start).await.expect("the price list");
        Self { cloud, clock, keys, database, erased: Mutex::default() }
    }

    /// Another process on the same database.
    pub async fn another(&self, seed: u64) -> Cloud {
        self.with(seed, CloudSettings::default()).await
    }

    /// Another process on the same database, with settings.
    pub async fn with(&self, seed: u64, settings: CloudSettings) -> Cloud {
        let store = Store::open(&self.database.config).await.expect("the database opens");
        Cloud::open_with(store, mint(self.clock.clone(), seed), settings).await.expect("the cloud opens")
    }

    pub fn now(&self) -> Timestamp {
        self.cloud.clock().now()
    }

    /// An invoice whose seal a scenario deleted: there is no bundle of it in the end.
    pub fn expect_erased(&self, invoice: &InvoiceId) {
        self.erased.lock().expect("one thread").insert(invoice.clone());
    }

    /// Adds the books up and fails if anything does not fit.
    pub async fn assert_books_balance(&self) {
        let verification = self.cloud.verify_ledger(&Actor::system()).await.expect("the ledger can be read");
        assert!(verification.balanced(), "{:#?}", verification.findings);
    }

    /// Closes all months, and computes every invoice again from what its customer gets.
    async fn assert_invoices_proven(&self) {
        self.clock.advance(AFTER_ALL);
        let report = self.cloud.close_months().await.expect("months are looked at");
        assert_eq!(report.failed, 0, "an account could not be billed");
        let (mut page, operator) = (PageRequest { limit: Some(100), ..PageRequest::default() }, Actor::system());
        loop {
            let bills = self.cloud.list_invoices(&operator, &InvoiceFilter::default(), &page).await.expect("invoices");
            for bill in bills.items.iter().filter(|bill| bill.invoice.number.is_some()) {
                let text = bundle(&self.cloud, &operator, &bill.invoice.id).await;
                if self.erased.lock().expect("one thread").contains(&bill.invoice.id) {
                    assert_eq!(text.expect_err("it is erased").code(), ErrorCode::Conflict);
                } else {
                    verify(&text.expect("a bundle"), None).expect("a right bundle");
                }
            }
            page.after = bills.items.last().map(|bill| bill.invoice.id.to_string());
            if !bills.has_more {
                return;
            }
        }
    }
}

/// What test clouds start with.
pub fn first_start() -> FirstStart {
    FirstStart {
        currency: Currency::EUR,
        time_zone: "Europe/Berlin".to_owned(),
        models: vec![MODEL.to_owned()],
        device_kinds: vec!["cpu".to_owned()],
    }
}

async fn open(config: &StoreConfig, clock: Arc<ManualClock>, seed: u64) -> Cloud {
    let store = Store::open(config).await.expect("the database opens");
    Cloud::open(store, mint(clock, seed)).await.expect("the cloud opens")
}

type Scenario<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs a scenario on a fresh cloud and verifies the ledger.
pub fn run(database: Database, scenario: impl for<'a> FnOnce(&'a TestCloud) -> Scenario<'a>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let cloud = TestCloud::start(database).await;
        scenario(&cloud).await;
        cloud.assert_books_balance().await;
        cloud.assert_invoices_proven().await;
        cloud.cloud.store().close().await;
    });
}
