//! Exports that are delivered by themselves: when, once, whole, whatever dies or fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use sublet_cloud::data::{Cadence, Coverage, ExportContent, ExportRun, ExportSchedule};
use sublet_cloud::export::{Dataset, ExportRequest};
use sublet_cloud::export_schedule::NewExportSchedule;
use sublet_cloud::idempotency::Call;
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::delivery::{Delivered, Delivery, DeliveryFailure, DeliveryPort, Target};
use sublet_core::id::{ExportScheduleId, OrganizationId};
use sublet_core::usage::UsageSink;
use sublet_core::{BoxFuture, DurationMs, ErrorCode, Result};
use sublet_money::canonical::sha256_hex;
use sublet_money::focus_dataset::SupportingDataset;
use sublet_store::PageRequest;
use sublet_testkit::s3::{FakeS3, StoreTrouble, deliveries};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{Database, ManualClock, TestCloud, on_both_databases};
use tokio::sync::Notify;

use crate::UNIT;
use crate::exports::{file, wanted};
use crate::months::{close, customer, month};

const HOUR: DurationMs = DurationMs::from_hours(1);
const DAY: DurationMs = DurationMs::from_hours(24);
const BERLIN: &str = "Europe/Berlin";

/// A process that delivers.
async fn delivering(cloud: &TestCloud, seed: u64, port: Arc<dyn DeliveryPort>) -> Cloud {
    cloud.with(seed, CloudSettings { exports: Some(port), ..CloudSettings::default() }).await
}

fn port(cloud: &TestCloud, root: &Path) -> Arc<dyn DeliveryPort> {
    deliveries(root.to_owned(), cloud.clock.clone())
}

fn focus(organization: Option<&OrganizationId>, cadence: Cadence, target: Target) -> NewExportSchedule {
    let content = ExportContent::from_parts("focus", None, None).expect("a content");
    NewExportSchedule { organization: organization.cloned(), content, cadence, target, from: None }
}

fn folder(name: &str) -> Target {
    Target::Directory { folder: name.parse().expect("a folder") }
}

async fn try_schedule(cloud: &Cloud, new: &NewExportSchedule) -> Result<ExportSchedule> {
    let call = Call::once(Actor::system());
    cloud.create_export_schedule(&call, new, &|_| Ok(String::new())).await.map(|outcome| created(Ok(outcome)))
}

async fn schedule(cloud: &Cloud, new: &NewExportSchedule) -> ExportScheduleId {
    try_schedule(cloud, new).await.expect("it is created").id
}

async fn shown(cloud: &Cloud, id: &ExportScheduleId) -> (ExportSchedule, Vec<ExportRun>) {
    cloud.get_export_schedule(&Actor::system(), id).await.expect("it is there")
}

/// Files that a look delivered, attempts that failed, and files that somebody else took over.
async fn look(cloud: &Cloud) -> (u64, u64, u64) {
    let report = cloud.reconcile_exports().await.expect("a look");
    (report.delivered, report.failed, report.superseded)
}

/// What is in a folder, in the order of names.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).map(Vec::from_iter).unwrap_or_default();
    let mut names: Vec<String> =
        entries.into_iter().map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// The manifest says what is in the file, to the byte.
fn check_manifest(folder: &Path, name: &str) -> Value {
    let content = std::fs::read(folder.join(name)).expect("a file");
    let manifest = std::fs::read(folder.join(format!("{name}.manifest.json"))).expect("a manifest");
    checked(name, content, &manifest)
}

fn checked(name: &str, content: Vec<u8>, manifest: &[u8]) -> Value {
    let manifest: Value = serde_json::from_slice(manifest).expect("JSON");
    assert_eq!(manifest["file"], name);
    assert_eq!(manifest["sha256"], sha256_hex(&content));
    assert_eq!(manifest["bytes"], content.len());
    assert_eq!(manifest["rows"], String::from_utf8(content).expect("text").lines().count() - 1);
    manifest
}

async fn spend(session: &Session, uses: i64) {
    let grant = session.grant(None, UNIT, 5 * UNIT).await.expect("credit is there");
    for use_of in 1..=uses {
        let record = session.record(&grant.slice, 1_001 * use_of, 70_003);
        let report = session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
        assert_eq!(report.settled, 1);
    }
}

on_both_databases! {
    async fn a_month_is_delivered_each_day_and_for_the_last_time_when_it_is_closed(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
        let organization = session.access.organization.clone();
        let process = delivering(cloud, 5, port(cloud, root.path())).await;
        let id = schedule(&process, &focus(Some(&organization), Cadence::Daily, folder("finance"))).await;
        let (place, name) = (root.path().join("finance"), "focus-1.2-2026-03.csv");
        spend(&session, 2).await;
        assert_eq!(look(&process).await, (1, 0, 0));
        assert_eq!(names(&place), [name.to_owned(), format!("{name}.manifest.json")]);
        let manifest = check_manifest(&place, name);
        assert_eq!((&manifest["coverage"], &manifest["period"]), (&Value::from("open"), &Value::from("2026-03")));
        let first = std::fs::read(place.join(name)).expect("a file");
        spend(&session, 1).await;
        cloud.clock.advance(HOUR);
        assert_eq!(look(&process).await, (0, 0, 0), "once a day");
        cloud.clock.advance(DAY);
        assert_eq!(look(&process).await, (1, 0, 0));
        assert_ne!(std::fs::read(place.join(name)).expect("a file"), first, "in its place");

        // The month is over, and not closed: both are open.
        cloud.clock.set(month(BERLIN, "2026-04").plus(DurationMs::from_seconds(60)));
        assert_eq!(look(&process).await, (2, 0, 0));
        assert_eq!(check_manifest(&place, name)["coverage"], "open");
        cloud.clock.advance(HOUR);
        close(&cloud.cloud).await;
        assert_eq!(look(&process).await, (1, 0, 0));
        assert_eq!(check_manifest(&place, name)["coverage"], "closed");
        let mut request = wanted(Dataset::Focus, "2026-03");
        request.organization = Some(organization);
        let exported = file(&cloud.cloud, &Actor::system(), &request).await.expect("a file");
        let last = std::fs::read(place.join(name)).expect("a file");
        assert!(last == exported && last.windows(4).any(|bytes| bytes == b"INV-"), "it is the invoice");
        cloud.clock.advance(DAY);
        assert_eq!(look(&process).await, (1, 0, 0), "the next month alone");
        let (known, runs) = shown(&process, &id).await;
        assert_eq!(known.progress.next.map(|next| next.to_string()).as_deref(), Some("2026-04"));
        let written: Vec<(String, Coverage)> = runs.iter().rev().map(|run| (run.file.clone(), run.coverage)).collect();
        let expected = [("03", Coverage::Open), ("03", Coverage::Open), ("03", Coverage::Open), ("04", Coverage::Open),
            ("03", Coverage::Closed), ("04", Coverage::Open)];
        assert_eq!(written, expected.map(|(month, coverage)| (format!("focus-1.2-2026-{month}.csv"), coverage)));
        assert_eq!(runs[1].sha256, sha256_hex(&exported));
    }

    async fn what_is_beside_cost_and_usage_is_delivered_open_and_closed(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
        let organization = session.access.organization.clone();
        let process = delivering(cloud, 5, port(cloud, root.path())).await;
        for dataset in SupportingDataset::ALL {
            let content = ExportContent::from_parts(dataset.as_str(), None, None).expect("a content");
            schedule(&process, &NewExportSchedule { content, ..focus(Some(&organization), Cadence::Daily, folder("all")) }).await;
        }
        spend(&session, 2).await;
        assert_eq!(look(&process).await, (3, 0, 0));
        cloud.clock.set(month(BERLIN, "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        // Each is closed, and of April open.
        assert_eq!(look(&process).await, (6, 0, 0));
        for dataset in SupportingDataset::ALL {
            let request = ExportRequest { organization: Some(organization.clone()), ..wanted(Dataset::Supporting(dataset), "2026-03") };
            let exported = file(&cloud.cloud, &Actor::system(), &request).await.expect("a file");
            let name = format!("{}-1.4-2026-03.csv", dataset.as_str());
            let manifest = check_manifest(&root.path().join("all"), &name);
            let said = [&manifest["dataset"], &manifest["version"], &manifest["coverage"]];
            assert_eq!(said, [&Value::from(dataset.as_str()), &Value::from("1.4"), &Value::from("closed")]);
            assert!(std::fs::read(root.path().join("all").join(name)).expect("a file") == exported);
        }
    }

    async fn a_month_of_all_is_closed_when_it_is_closed_for_everybody(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        let first = customer(cloud, "first", "Pacific/Kiritimati", 1_000 * UNIT).await;
        let last = customer(cloud, "last", "Pacific/Pago_Pago", 1_000 * UNIT).await;
        let process = delivering(cloud, 5, port(cloud, root.path())).await;
        schedule(&process, &focus(None, Cadence::Monthly, folder(""))).await;
        spend(&first, 1).await;
        spend(&last, 1).await;
        assert_eq!(look(&process).await, (0, 0, 0), "nothing that is open");
        for hours in [1, 2, 12, 24] {
            cloud.clock.set(month("Pacific/Kiritimati", "2026-04").plus(DurationMs::from_hours(hours)));
            close(&cloud.cloud).await;
            assert_eq!(look(&process).await, (0, 0, 0), "{hours} hours after it ended where it ends first");
        }
        // Over everywhere, and nobody closed it yet.
        cloud.clock.set(month("Etc/GMT+12", "2026-04").plus(HOUR));
        assert_eq!(look(&process).await, (0, 0, 0));
        close(&cloud.cloud).await;
        cloud.clock.advance(HOUR);
        assert_eq!(look(&process).await, (1, 0, 0));
        let text = std::fs::read_to_string(root.path().join("focus-1.2-2026-03.csv")).expect("a file");
        assert!(text.contains(first.access.organization.as_str()) && text.contains(last.access.organization.as_str()));
        assert!(check_manifest(root.path(), "focus-1.2-2026-03.csv")["organization"].is_null());
    }

    async fn two_processes_deliver_a_file_once(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
        spend(&session, 3).await;
        let one = delivering(cloud, 5, port(cloud, root.path())).await;
        let other = delivering(cloud, 6, port(cloud, root.path())).await;
        let mut ids = Vec::new();
        for number in 0..4 {
            ids.push(schedule(&one, &focus(None, Cadence::Daily, folder(&format!("f{number}")))).await);
        }
        let (one_did, other_did) = tokio::join!(look(&one), look(&other));
        assert_eq!((one_did.0 + other_did.0, one_did.1 + other_did.1), (4, 0), "{one_did:?} {other_did:?}");
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(shown(&one, id).await.1.len(), 1);
            check_manifest(&root.path().join(format!("f{number}")), "focus-1.2-2026-03.csv");
        }
    }

    async fn whoever_dies_leaves_no_torn_file_and_the_next_one_finishes(cloud: &TestCloud) {
        let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
        spend(&session, 3).await;
        let name = "focus-1.2-2026-03.csv";
        for step in 0.. {
            let root = tempfile::tempdir().expect("a directory");
            let life = Arc::new(Life { steps_left: AtomicU64::new(step), is_over: Notify::new() });
            let mortal = Mortal { port: port(cloud, root.path()), life: Arc::clone(&life) };
            let dying = delivering(cloud, 100 + step, Arc::new(mortal)).await;
            let next = delivering(cloud, 200 + step, port(cloud, root.path())).await;
            let id = schedule(&next, &focus(Some(&session.access.organization), Cadence::Daily, folder("f"))).await;
            let place = root.path().join("f");
            std::fs::create_dir(&place).expect("a folder");
            std::fs::write(place.join(name), "the one before").expect("a file");
            let survived = tokio::select! {
                did = look(&dying) => Some(did),
                () = life.is_over.notified() => None,
            };
            let seen = std::fs::read_to_string(place.join(name)).expect("a file");
            assert!(seen == "the one before" || seen.lines().count() > 3, "torn at step {step}: {seen}");
            if survived.is_none() {
                assert_eq!(look(&next).await, (0, 0, 0), "the claim of the dead one holds for a while");
                cloud.clock.advance(DurationMs::from_seconds(181));
                assert_eq!(look(&next).await, (1, 0, 0), "step {step}");
            }
            check_manifest(&place, name);
            assert_eq!(names(&place), [name.to_owned(), format!("{name}.manifest.json")], "step {step}");
            assert_eq!(shown(&next, &id).await.1.len(), 1);
            next.delete_export_schedule(&Actor::system(), &id).await.expect("deleted");
            if survived.is_some() {
                assert!(step >= 6, "it died {step} times");
                return;
            }
        }
    }

    async fn a_slow_process_whose_claim_ended_changes_nothing(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        overtake(cloud, Moment::Begun, (port(cloud, root.path()), folder(""))).await;
        assert_eq!(names(root.path()).len(), 4);
        assert_eq!(check_manifest(root.path(), "focus-1.2-2026-03.csv")["coverage"], "closed");
    }

    async fn a_manifest_in_a_folder_never_follows_the_file_of_a_later_claim(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        overtake(cloud, Moment::Committed, (port(cloud, root.path()), folder(""))).await;
        assert_eq!(names(root.path()).len(), 4);
        assert_eq!(check_manifest(root.path(), "focus-1.2-2026-03.csv")["coverage"], "closed");
    }

    async fn a_manifest_in_a_bucket_never_follows_the_file_of_a_later_claim(cloud: &TestCloud) {
        let store = FakeS3::start();
        let target = Target::S3(store.bucket("finance"));
        overtake(cloud, Moment::Committed, (port(cloud, Path::new("/nonexistent")), target)).await;
        assert_eq!((store.keys().len(), store.unfinished()), (4, 0));
        let (name, place) = ("focus-1.2-2026-03.csv", "finance");
        let object = |name: &str| store.object(&format!("{place}/{name}")).expect("an object");
        let manifest = checked(name, object(name), &object(&format!("{name}.manifest.json")));
        assert_eq!(manifest["coverage"], "closed");
    }

    async fn what_fails_is_shown_and_tried_again_later_and_later(cloud: &TestCloud) {
        let store = FakeS3::start();
        let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
        spend(&session, 1).await;
        let process = delivering(cloud, 5, port(cloud, Path::new("/nonexistent"))).await;
        let target = Target::S3(store.bucket("finance"));
        let id = schedule(&process, &focus(Some(&session.access.organization), Cadence::Daily, target)).await;
        for (failures, minutes) in [(1, 1), (2, 2), (3, 4)] {
            store.fail_next(StoreTrouble::Refuse(403, "AccessDenied"));
            assert_eq!(look(&process).await, (0, 1, 0));
            let (known, runs) = shown(&process, &id).await;
            assert_eq!((known.failures, runs.len()), (failures, usize::try_from(failures).expect("a count")));
            assert!(known.problem.ends_with("focus-1.2-2026-03.csv: status 403, AccessDenied: you shall not"), "{}", known.problem);
            assert_eq!(known.next_at.since(cloud.now()), DurationMs::from_seconds(60 * minutes));
            assert_eq!(look(&process).await, (0, 0, 0), "not at once");
            cloud.clock.set(known.next_at);
        }
        assert_eq!(look(&process).await, (1, 0, 0));
        let (known, runs) = shown(&process, &id).await;
        assert_eq!((known.failures, known.problem.as_str()), (0, ""));
        assert!(runs[0].problem.is_empty() && !runs[1].problem.is_empty());
        let object = store.object("finance/focus-1.2-2026-03.csv").expect("an object");
        assert_eq!(sha256_hex(&object), runs[0].sha256);
        assert_eq!(store.keys().len(), 2);

        // By hand it does not wait, and is written again on the same day.
        assert_eq!(look(&process).await, (0, 0, 0));
        cloud.clock.advance(DurationMs::from_seconds(1));
        process.run_export_schedule(&Actor::system(), &id).await.expect("woken");
        cloud.clock.advance(DurationMs::from_seconds(1));
        assert_eq!(look(&process).await, (1, 0, 0));
        let page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let log = process.list_audit(&Actor::system(), &page).await.expect("a log").items;
        let deeds: Vec<&str> = log.iter().rev().map(|entry| entry.action.as_str()).filter(|action| action.starts_with("export_")).collect();
        let delivered = "export_schedule.deliver";
        assert_eq!(deeds, ["export_schedule.create", delivered, "export_schedule.run", delivered]);
    }

    async fn the_journal_is_delivered_whole_and_attempts_are_kept_in_bounds(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        let process = delivering(cloud, 5, port(cloud, root.path())).await;
        let content = ExportContent::from_parts("journal", None, None).expect("a content");
        let new = NewExportSchedule { content, ..focus(None, Cadence::Daily, folder("books")) };
        let id = schedule(&process, &new).await;
        for _ in 0..103 {
            assert_eq!(look(&process).await, (1, 0, 0));
            cloud.clock.advance(DAY);
        }
        let text = std::fs::read_to_string(root.path().join("books/journal.beancount")).expect("a file");
        assert!(text.contains("open Liabilities") && text.contains("balance "), "{text}");
        let (known, runs) = shown(&process, &id).await;
        assert_eq!((runs.len(), known.progress.next), (100, None));
        assert!(runs[0].attempt > runs[99].attempt && runs[0].rows > 0);
    }

    async fn a_schedule_that_contradicts_itself_or_another_is_refused(cloud: &TestCloud) {
        let root = tempfile::tempdir().expect("a directory");
        let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
        let process = delivering(cloud, 5, port(cloud, root.path())).await;
        let daily = focus(None, Cadence::Daily, folder("a"));
        let journal = ExportContent::from_parts("journal", None, None).expect("a content");
        let of = Some(session.access.organization.clone());
        let id = schedule(&process, &daily).await;
        for (new, code) in [
            (daily.clone(), ErrorCode::Conflict),
            (NewExportSchedule { organization: of.clone(), ..daily.clone() }, ErrorCode::Conflict),
            (NewExportSchedule { content: journal, cadence: Cadence::Monthly, ..daily.clone() }, ErrorCode::InvalidRequest),
            (NewExportSchedule { content: journal, organization: of, ..daily.clone() }, ErrorCode::InvalidRequest),
            (NewExportSchedule { content: journal, from: "2026-01".parse().ok(), ..daily.clone() }, ErrorCode::InvalidRequest),
            (NewExportSchedule { from: "2026-04".parse().ok(), ..focus(None, Cadence::Daily, folder("b")) }, ErrorCode::InvalidRequest),
            (NewExportSchedule { from: "1999-01".parse().ok(), ..focus(None, Cadence::Daily, folder("b")) }, ErrorCode::InvalidRequest),
            (NewExportSchedule { organization: "org_1".parse().ok(), ..focus(None, Cadence::Daily, folder("b")) }, ErrorCode::NotFound),
        ] {
            let refused = try_schedule(&process, &new).await.expect_err("refused");
            assert_eq!(refused.code(), code, "{new:?}: {refused}");
        }
        assert_eq!(try_schedule(&cloud.cloud, &daily).await.expect_err("nobody delivers here").code(), ErrorCode::Conflict);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        for refused in [
            process.list_export_schedules(&admin).await.map(|_| ()),
            process.get_export_schedule(&admin, &id).await.map(|_| ()),
            process.run_export_schedule(&admin, &id).await.map(|_| ()),
            process.delete_export_schedule(&admin, &id).await,
        ] {
            assert_eq!(refused.expect_err("customers see none").code(), ErrorCode::WrongKeyPlane);
        }
        assert_eq!(look(&process).await.0, 1);
        process.delete_export_schedule(&Actor::system(), &id).await.expect("deleted");
        assert_eq!(names(&root.path().join("a")).len(), 2, "what was delivered stays");
        schedule(&process, &daily).await;
        assert_eq!(process.list_export_schedules(&Actor::system()).await.expect("a list").len(), 1);
    }
}

/// So many steps, and then nothing more.
struct Life {
    steps_left: AtomicU64,
    is_over: Notify,
}

impl Life {
    async fn step(&self) {
        if self.steps_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            self.is_over.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// Dies before one of its steps: whoever waits for it waits for ever, and nothing is cleaned up.
struct Mortal {
    port: Arc<dyn DeliveryPort>,
    life: Arc<Life>,
}

impl DeliveryPort for Mortal {
    fn begin<'a>(&'a self, file: &'a Delivered) -> BoxFuture<'a, Result<Box<dyn Delivery>, DeliveryFailure>> {
        Box::pin(async move {
            self.life.step().await;
            let delivery = self.port.begin(file).await?;
            let mortal = MortalDelivery { delivery: Some(delivery), life: Arc::clone(&self.life) };
            mortal.life.step().await;
            let delivery: Box<dyn Delivery> = Box::new(mortal);
            Ok(delivery)
        })
    }
}

struct MortalDelivery {
    delivery: Option<Box<dyn Delivery>>,
    life: Arc<Life>,
}

impl Drop for MortalDelivery {
    fn drop(&mut self) {
        // A process that is killed drops nothing.
        std::mem::forget(self.delivery.take());
    }
}

impl Delivery for MortalDelivery {
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            self.life.step().await;
            self.delivery.as_mut().expect("it lives").append(bytes).await
        })
    }
    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            self.life.step().await;
            let delivery = self.delivery.take().expect("it lives");
            delivery.commit().await?;
            // Whole, and nobody knows.
            self.life.step().await;
            Ok(())
        })
    }
}

/// When a process is overtaken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Its file was begun.
    Begun,
    /// Its file is in its place, and has no manifest yet.
    Committed,
}

/// While it is at a file, its claim ends, the month is closed, and another process delivers that.
#[derive(Clone)]
struct Overtaken {
    port: Arc<dyn DeliveryPort>,
    clock: Arc<ManualClock>,
    by: Cloud,
    at: Moment,
    is_over: Arc<AtomicBool>,
}

impl Overtaken {
    async fn pass(&self, moment: Moment) {
        if moment == self.at && !self.is_over.swap(true, Ordering::SeqCst) {
            self.clock.set(month(BERLIN, "2026-04").plus(HOUR).plus(HOUR));
            close(&self.by).await;
            assert_eq!(look(&self.by).await, (2, 0, 0), "March for the last time, and April");
        }
    }
}

impl DeliveryPort for Overtaken {
    fn begin<'a>(&'a self, file: &'a Delivered) -> BoxFuture<'a, Result<Box<dyn Delivery>, DeliveryFailure>> {
        Box::pin(async move {
            let delivery = self.port.begin(file).await?;
            self.pass(Moment::Begun).await;
            let delivery: Box<dyn Delivery> = Box::new(OvertakenDelivery { delivery, of: self.clone() });
            Ok(delivery)
        })
    }
}

struct OvertakenDelivery {
    delivery: Box<dyn Delivery>,
    of: Overtaken,
}

impl Delivery for OvertakenDelivery {
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), DeliveryFailure>> {
        self.delivery.append(bytes)
    }
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            self.delivery.commit().await?;
            self.of.pass(Moment::Committed).await;
            Ok(())
        })
    }
}

/// Has a process overtaken that is at the file of a month. What it does after that changes nothing.
async fn overtake(cloud: &TestCloud, at: Moment, (port, target): (Arc<dyn DeliveryPort>, Target)) {
    let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
    spend(&session, 1).await;
    let fast = delivering(cloud, 6, Arc::clone(&port)).await;
    let id = schedule(&fast, &focus(Some(&session.access.organization), Cadence::Daily, target)).await;
    let overtaken = Overtaken { port, clock: cloud.clock.clone(), by: fast.clone(), at, is_over: Arc::default() };
    let slow = delivering(cloud, 5, Arc::new(overtaken)).await;
    assert_eq!(look(&slow).await, (0, 0, 1));
    let (known, runs) = shown(&fast, &id).await;
    assert_eq!((runs.len(), known.failures), (2, 0));
    assert!(runs.iter().all(|run| run.attempt > 1 && run.problem.is_empty()), "{runs:?}");
}

/// Each call takes longer than a claim lasts that is not kept up, and another process looks meanwhile.
#[derive(Clone)]
struct Slow {
    port: Arc<dyn DeliveryPort>,
    clock: Arc<ManualClock>,
    other: Cloud,
}

impl Slow {
    /// The runtime's time is paused, so both clocks are put forward, and nobody waits.
    async fn wait(&self) {
        for _ in 0..7 {
            tokio::time::advance(Duration::from_secs(31)).await;
            self.clock.advance(DurationMs::from_seconds(31));
            assert_eq!(look(&self.other).await, (0, 0, 0), "somebody is at it");
        }
    }
}

impl DeliveryPort for Slow {
    fn begin<'a>(&'a self, file: &'a Delivered) -> BoxFuture<'a, Result<Box<dyn Delivery>, DeliveryFailure>> {
        Box::pin(async move {
            self.wait().await;
            let delivery: Box<dyn Delivery> = Box::new(SlowDelivery { delivery: self.port.begin(file).await?, of: self.clone() });
            Ok(delivery)
        })
    }
}

struct SlowDelivery {
    delivery: Box<dyn Delivery>,
    of: Slow,
}

impl Delivery for SlowDelivery {
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            self.of.wait().await;
            self.delivery.append(bytes).await
        })
    }
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            self.of.wait().await;
            self.delivery.commit().await
        })
    }
}

/// On one database: the other one's answers come over a socket, for which paused time does not wait.
#[tokio::test(start_paused = true)]
async fn a_claim_is_kept_however_long_a_target_takes() {
    let root = tempfile::tempdir().expect("a directory");
    let cloud = &TestCloud::start(Database::sqlite()).await;
    let session = customer(cloud, "half", BERLIN, 1_000 * UNIT).await;
    spend(&session, 1).await;
    let port = port(cloud, root.path());
    let other = delivering(cloud, 6, Arc::clone(&port)).await;
    let id = schedule(&other, &focus(Some(&session.access.organization), Cadence::Daily, folder(""))).await;
    let slow = delivering(cloud, 5, Arc::new(Slow { port, clock: cloud.clock.clone(), other: other.clone() })).await;
    let began = cloud.now();
    assert_eq!(look(&slow).await, (1, 0, 0));
    assert!(cloud.now().since(began) > DurationMs::from_seconds(6 * 180), "it was slow");
    check_manifest(root.path(), "focus-1.2-2026-03.csv");
    let (_, runs) = shown(&other, &id).await;
    assert_eq!((runs.len(), runs[0].attempt), (1, 1));
}
