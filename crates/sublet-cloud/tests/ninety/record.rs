//! What the checker reads: rows as they were written, and what was asked for and seen. No sums of the product.

use std::collections::{BTreeMap, BTreeSet};

use sublet_cloud::Cloud;
use sublet_core::device::DeviceKind;
use sublet_core::id::{AttemptId, LeaseId};
use sublet_core::{DurationMs, Result, Scope, Timestamp};
use sublet_money::compensation::CompensationRules;
use sublet_money::posting::JournalEntry;
use sublet_store::attempt::{Attempt, AttemptInterval};
use sublet_store::charge::Charge;
use sublet_store::compensation::{LeaseNotice, StoredCompensation};
use sublet_store::device::{Device, DeviceSpan, SPANS_PAGE};
use sublet_store::invoice::{InvoiceFilter, StoredInvoice};
use sublet_store::job::{Job, JobFilter};
use sublet_store::lease::Lease;
use sublet_store::ledger::{JournalCursor, StoredAccount};
use sublet_store::page::Order;
use sublet_store::{PageRequest, Tx, attempt, charge, compensation, compensation_rule, device, invoice, job, lease, ledger};

/// Rows of one page.
const PAGE: i64 = 100;

/// What the owner's team asked for, and what it got.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Timestamp,
    pub kind: DeviceKind,
    pub units: u32,
    pub got: Got,
}

#[derive(Clone, Debug)]
pub enum Got {
    AtOnce,
    /// It waits for devices whose holders were sold this notice at most.
    Waits {
        lease: LeaseId,
        notice: DurationMs,
    },
    /// So many units of one machine were free or sold with notice.
    Refused {
        reachable: u32,
    },
}

#[derive(Clone, Debug)]
pub struct LeaseRow {
    pub lease: Lease,
    pub notices: Vec<LeaseNotice>,
}

#[derive(Clone, Debug)]
pub struct AttemptRow {
    pub attempt: Attempt,
    pub intervals: Vec<AttemptInterval>,
}

#[derive(Clone, Debug)]
pub struct JobRow {
    pub job: Job,
    pub attempts: Vec<AttemptRow>,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub until: Timestamp,
    pub devices: Vec<(Device, Vec<DeviceSpan>)>,
    pub leases: BTreeMap<LeaseId, LeaseRow>,
    pub jobs: Vec<JobRow>,
    pub charges: Vec<Charge>,
    pub compensations: Vec<StoredCompensation>,
    pub invoices: Vec<StoredInvoice>,
    pub entries: Vec<JournalEntry>,
    pub accounts: Vec<StoredAccount>,
    pub rules: CompensationRules,
    /// Of the runner's own log: how often each attempt began and ended.
    pub begun: BTreeMap<AttemptId, (u32, u32)>,
    pub asked: Vec<Asked>,
    /// When the control plane was away or nobody looked.
    pub down: Vec<(Timestamp, Timestamp)>,
    /// Leases that their holders gave back before the end they were told.
    pub yielded: BTreeSet<LeaseId>,
    /// When all had ended.
    pub ended_at: Option<Timestamp>,
}

/// All pages of a list.
macro_rules! all {
    ($tx:ident, $list:expr) => {{
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let page = PageRequest { limit: Some(PAGE), after: after.take(), order: Order::Ascending };
            let found = $list($tx, &page).await?;
            after = found.items.last().map(|one| one.id.to_string());
            items.extend(found.items);
            if !found.has_more {
                break items;
            }
        }
    }};
}

impl Record {
    /// Everything that was written, in one transaction.
    pub async fn read(cloud: &Cloud) -> Self {
        let now = cloud.clock().now();
        cloud.store().read(now, |now, tx| Box::pin(read(tx, *now))).await.expect("what was written can be read")
    }
}

async fn read(tx: &mut Tx, until: Timestamp) -> Result<Record> {
    let operator = Scope::Operator;
    let mut devices = Vec::new();
    for device in device::list_all(tx).await? {
        let mut spans: Vec<DeviceSpan> = Vec::new();
        loop {
            let page = device::list_spans(tx, &device.id, spans.last().map_or(0, |span| span.number)).await?;
            let is_last = i64::try_from(page.len()).unwrap_or(0) < SPANS_PAGE;
            spans.extend(page);
            if is_last {
                break;
            }
        }
        devices.push((device, spans));
    }
    let mut leases = BTreeMap::new();
    for lease in all!(tx, async |tx: &mut Tx, page: &PageRequest| lease::list(tx, &operator, None, page).await) {
        let notices = compensation::list_notices(tx, &operator, &lease.id).await?;
        leases.insert(lease.id.clone(), LeaseRow { lease, notices });
    }
    let mut jobs = Vec::new();
    let any = JobFilter::default();
    for job in all!(tx, async |tx: &mut Tx, page: &PageRequest| job::list(tx, &operator, &any, page).await) {
        let mut attempts = Vec::new();
        for attempt in attempt::list_of(tx, &job.id).await? {
            let intervals = attempt::list_intervals(tx, &attempt.id).await?;
            attempts.push(AttemptRow { attempt, intervals });
        }
        jobs.push(JobRow { job, attempts });
    }
    let charges = all!(tx, async |tx: &mut Tx, page: &PageRequest| charge::list(tx, &operator, page).await);
    let compensations = all!(tx, async |tx: &mut Tx, page: &PageRequest| compensation::list(tx, &operator, None, page).await);
    Ok(Record {
        until,
        devices,
        leases,
        jobs,
        charges,
        compensations,
        invoices: invoices(tx).await?,
        entries: entries(tx).await?,
        accounts: accounts(tx).await?,
        rules: compensation_rule::find_at(tx, until).await?.rules,
        begun: BTreeMap::new(),
        asked: Vec::new(),
        down: Vec::new(),
        yielded: BTreeSet::new(),
        ended_at: None,
    })
}

async fn invoices(tx: &mut Tx) -> Result<Vec<StoredInvoice>> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: Some(PAGE), after: after.take(), order: Order::Ascending };
        let found = invoice::list(tx, &Scope::Operator, &InvoiceFilter::default(), &page).await?;
        after = found.items.last().map(|one| one.invoice.id.to_string());
        items.extend(found.items);
        if !found.has_more {
            return Ok(items);
        }
    }
}

async fn entries(tx: &mut Tx) -> Result<Vec<JournalEntry>> {
    let (mut items, mut cursor) = (Vec::new(), JournalCursor::default());
    loop {
        let (found, next) = ledger::list_entries(tx, &Scope::Operator, &cursor).await?;
        if found.is_empty() {
            return Ok(items);
        }
        items.extend(found);
        cursor = next;
    }
}

async fn accounts(tx: &mut Tx) -> Result<Vec<StoredAccount>> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let found: Vec<StoredAccount> = ledger::list_accounts(tx, &Scope::Operator, &after).await?;
        let Some(last) = found.last() else { return Ok(items) };
        after = last.account.to_string();
        items.extend(found);
    }
}
