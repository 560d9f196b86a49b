//! Files that are kept: metered by the hour, once, charged, and paid as far as there is money.

use std::sync::Arc;

use sublet_cloud::export::Dataset;
use sublet_cloud::file::{Files, NewFile};
use sublet_cloud::file_room::FileLimits;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::limit::LimitSubject;
use sublet_cloud::rerate::NewRerate;
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::admission::PriceVersion;
use sublet_core::file::FilePurpose;
use sublet_core::id::{FileId, OrganizationId};
use sublet_core::key::KeyPlane;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::price_model::PriceModel;
use sublet_money::sku::{GIBIBYTE, STORAGE_MONTH_HOURS, SkuFamily, SkuName};
use sublet_store::budget::BudgetWindow;
use sublet_store::file::File;
use sublet_store::{PageRequest, charge, project, storage};
use sublet_testkit::prices::{band, by_time, per_unit};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{created, pay_in};
use sublet_testkit::{MemoryBlobs, TestCloud, on_both_databases};

use crate::contracts::{admin_of, owed};
use crate::exports::{file, rows, wanted};
use crate::months::{close, customer, issued, month};
use crate::year::{rerated, write_bundles};
use crate::{UNIT, set_limit};

const HOUR: DurationMs = DurationMs::from_hours(1);
const MINUTE: DurationMs = DurationMs::from_seconds(60);
/// One nano-unit for a byte-hour.
pub const STORED: i64 = GIBIBYTE * STORAGE_MONTH_HOURS;

/// The files of a customer in one process.
pub struct World {
    pub files: Files,
    pub actor: Actor,
}

pub fn world(cloud: &TestCloud, of: &Session) -> World {
    let blobs = Arc::new(MemoryBlobs::new("home", Arc::clone(cloud.cloud.clock())));
    let (organization, project) = (of.access.organization.clone(), of.access.project.clone());
    let scope = Scope::Project { organization, project };
    let actor = Actor { plane: KeyPlane::Project, scope, key: Some(of.access.key.clone()), ..Actor::system() };
    World { files: Files::new(cloud.cloud.clone(), blobs, FileLimits::default()), actor }
}

impl World {
    pub async fn try_put(&self, bytes: usize, expires_after: Option<DurationMs>) -> Result<File> {
        let call = Call::once(self.actor.clone());
        let mut upload = self.files.begin(self.files.admit(&call, 0).await?).await?;
        upload.append(&vec![7; bytes]).await?;
        let new = NewFile { purpose: FilePurpose::UserData, filename: "a".to_owned(), expires_after };
        match self.files.create(&call, upload.commit().await?, &new, &|_| Ok(String::new())).await? {
            Answer::New(file) => Ok(file),
            Answer::Replayed(text) => panic!("the call was a repeat: {text}"),
        }
    }

    pub async fn put(&self, bytes: usize) -> FileId {
        self.try_put(bytes, None).await.expect("a file").id
    }

    async fn delete(&self, id: &FileId) {
        self.files.delete(&self.actor, id).await.expect("deleted");
    }
}

/// The newest version, with these prices beside its own or instead of them.
pub fn with_prices(cloud: &Cloud, prices: &[PriceEntry]) -> PriceListDraft {
    let lists = cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let newest = list.versions().last().expect("a version").entries();
    let mut entries: Vec<PriceEntry> = newest.filter(|entry| prices.iter().all(|other| other.sku != entry.sku)).cloned().collect();
    entries.extend_from_slice(prices);
    PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.clock().now(), entries }
}

pub async fn publish(cloud: &TestCloud, prices: &[PriceEntry]) -> PriceVersion {
    cloud.clock.advance(DurationMs::from_seconds(1));
    let draft = with_prices(&cloud.cloud, prices);
    let name = cloud.cloud.prices().snapshot().values().next().expect("a list").name.clone();
    let at = draft.effective_at;
    created(cloud.cloud.publish_prices(&Call::once(Actor::system()), &name, draft, at).await).version().clone()
}

fn stored_at(price: i64) -> PriceEntry {
    PriceEntry::new(SkuName::FileStorage, per_unit(price))
}

/// What is charged for a thing in a month: the quantity and the amount of all its lines.
pub async fn charged(cloud: &TestCloud, organization: &OrganizationId, month: &str, sku: &SkuName) -> (i64, i64) {
    let of = (organization, month.parse::<PeriodKey>().expect("a month"));
    let lines = cloud.cloud.store().read(of, |(id, month), tx| Box::pin(charge::list_lines(tx, id, *month))).await.expect("lines");
    let lines = lines.iter().filter(|(key, _)| key.sku == *sku);
    lines.fold((0, 0), |sum, (_, state)| (sum.0 + state.quantity.get(), sum.1 + state.charged.get()))
}

async fn kept(cloud: &TestCloud, organization: &OrganizationId, month: &str) -> (i64, i64) {
    charged(cloud, organization, month, &SkuName::FileStorage).await
}

/// What was metered in a month, by hour and part.
async fn metered(cloud: &TestCloud, organization: &OrganizationId, month: &str) -> Vec<(Timestamp, i64)> {
    let of = (organization, month.parse::<PeriodKey>().expect("a month"));
    let parts = cloud.cloud.store().read(of, |(organization, month), tx| {
        Box::pin(async move { storage::list_month(tx, (organization, *month), &mut Default::default()).await })
    });
    parts.await.expect("hours").iter().map(|part| (part.starts_at, part.byte_hours.get())).collect()
}

on_both_databases! {
    async fn files_count_for_their_part_of_an_hour_whoever_meters_it_and_however_often(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        let session = customer(cloud, "c1", "UTC", UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        let ten = month("UTC", "2026-04").plus(DurationMs::from_hours(10));
        cloud.clock.set(ten);
        world.put(1_000).await;
        cloud.clock.set(ten.plus(DurationMs::from_seconds(30 * 60)));
        let second = world.put(600).await;
        // Gone within a minute, over the end of the hour.
        cloud.clock.set(ten.plus(HOUR).minus(DurationMs::from_seconds(20)));
        let brief = world.put(1_000_000).await;
        cloud.clock.advance(DurationMs::from_seconds(59));
        world.delete(&brief).await;
        cloud.clock.set(ten.plus(HOUR).plus(MINUTE));
        close(&cloud.cloud).await;
        assert_eq!(metered(cloud, &organization, "2026-04").await, [], "what lives too short is not known yet");
        cloud.clock.set(ten.plus(HOUR).plus(DurationMs::from_seconds(15 * 60)));
        close(&cloud.cloud).await;
        assert_eq!(metered(cloud, &organization, "2026-04").await, [(ten, 1_300)]);
        world.delete(&second).await;
        cloud.clock.set(ten.plus(HOUR).plus(HOUR).plus(DurationMs::from_seconds(5 * 60)));
        let other = cloud.another(7).await;
        for _ in 0..2 {
            tokio::join!(close(&cloud.cloud), close(&other));
            assert_eq!(metered(cloud, &organization, "2026-04").await, [(ten, 1_300), (ten.plus(HOUR), 1_150)]);
            assert_eq!(kept(cloud, &organization, "2026-04").await, (2_450, 2_450));
            assert_eq!(owed(&cloud.cloud, &organization).await, (0, UNIT - 2_450));
        }
        let path = format!("income:usage:{}:{organization}", SkuFamily::FileStorage);
        let accounts = cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.expect("accounts");
        let income = accounts.iter().find(|account| account.account.to_string() == path).expect("an account");
        assert_eq!(income.totals.credits, Nanos::new(2_450));
    }

    async fn what_was_missed_is_metered_when_the_cloud_is_up_again(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        let april = month("UTC", "2026-04");
        cloud.clock.set(april);
        let session = customer(cloud, "c1", "UTC", UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(100).await;
        world.try_put(1_000, Some(DurationMs::from_hours(48))).await.expect("a file that expires");
        cloud.clock.advance(DurationMs::from_hours(10));
        let gone = world.put(70).await;
        cloud.clock.advance(DurationMs::from_hours(3));
        world.delete(&gone).await;
        // Down for five weeks; what has expired is swept before it is metered.
        let behind = DurationMs::from_hours(35 * 24);
        cloud.clock.set(april.plus(behind).plus(DurationMs::from_seconds(5 * 60)));
        assert_eq!(world.files.sweep().await.expect("swept"), 1);
        close(&cloud.cloud).await;
        let april_sum = 100 * 720 + 1_000 * 48 + 70 * 3;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (april_sum, april_sum));
        assert_eq!(kept(cloud, &organization, "2026-05").await, (100 * 120, 100 * 120));
        let bills = issued(cloud, &organization).await;
        assert_eq!(bills.len(), 1);
        assert_eq!(bills[0].invoice.content.subtotal, Nanos::new(april_sum));
    }

    async fn a_month_waits_for_its_hours_and_an_hour_is_cut_where_it_ends(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        let zone = "Asia/Kolkata";
        let april = month(zone, "2026-04");
        cloud.clock.set(april.minus(MINUTE));
        let session = customer(cloud, "c1", zone, UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(6_000).await;
        let own = cloud.with(7, CloudSettings { close_after: DurationMs::ZERO, ..CloudSettings::default() }).await;
        for wait in [0, 34] {
            cloud.clock.set(april.plus(DurationMs::from_seconds(60 * wait)));
            assert_eq!(close(&own).await, (0, 0), "the hour that April begins in is not metered");
        }
        cloud.clock.set(april.plus(DurationMs::from_seconds(60 * 35)));
        assert_eq!(close(&own).await, (1, 1));
        // The month begins at half past the hour: a minute is March's, the rest of the hour April's.
        assert_eq!(kept(cloud, &organization, "2026-03").await, (100, 100));
        assert_eq!(kept(cloud, &organization, "2026-04").await, (3_000, 3_000));
    }

    async fn a_month_has_the_hours_that_its_clocks_have(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        let zone = "Europe/Berlin";
        cloud.clock.set(month(zone, "2026-10"));
        let session = customer(cloud, "c1", zone, UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        let kept_file = world.put(100).await;
        cloud.clock.set(month(zone, "2026-11").plus(HOUR));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-10").await, (100 * 745, 100 * 745), "an hour comes twice");
        world.delete(&kept_file).await;
        cloud.clock.set(month(zone, "2027-03"));
        world.put(100).await;
        cloud.clock.set(month(zone, "2027-04").plus(HOUR));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2027-03").await, (100 * 743, 100 * 743), "an hour is left out");
        assert_eq!(kept(cloud, &organization, "2026-12").await, (0, 0), "nothing was kept");
    }

    async fn an_hour_is_cut_where_a_band_of_the_price_ends(cloud: &TestCloud) {
        let bands = by_time(vec![band("night", &["22:15-06:00".to_owned()], per_unit(STORED / 2))]);
        publish(cloud, &[PriceEntry { time_of_use: bands, ..stored_at(STORED) }]).await;
        let evening = month("UTC", "2026-04").plus(DurationMs::from_hours(22));
        cloud.clock.set(evening);
        let session = customer(cloud, "c1", "UTC", UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(4_000).await;
        cloud.clock.set(evening.plus(HOUR).plus(HOUR).minus(MINUTE));
        close(&cloud.cloud).await;
        let quarter = DurationMs::from_seconds(15 * 60);
        assert_eq!(metered(cloud, &organization, "2026-04").await, [(evening, 1_000), (evening.plus(quarter), 3_000)]);
        assert_eq!(kept(cloud, &organization, "2026-04").await, (4_000, 1_000 + 1_500));
    }

    async fn what_credit_does_not_pay_is_owed_and_new_files_are_refused(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", 0).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        assert_eq!(world.try_put(1_000, None).await.expect_err("no credit").code(), ErrorCode::InsufficientQuota);
        pay_in(&cloud.cloud, &organization, Nanos::new(2_500)).await;
        let file = world.put(1_000).await;
        assert_eq!(world.try_put(1_500, None).await.expect_err("not for an hour of both").code(), ErrorCode::InsufficientQuota);
        cloud.clock.advance(DurationMs::from_hours(5));
        cloud.clock.advance(DurationMs::from_seconds(5 * 60));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (5_000, 5_000));
        assert_eq!(owed(&cloud.cloud, &organization).await, (2_500, 0));
        assert_eq!(world.try_put(1, None).await.expect_err("nothing is left").code(), ErrorCode::InsufficientQuota);
        assert_eq!(world.files.get(&world.actor, &file).await.expect("it is still there").id, file);
        pay_in(&cloud.cloud, &organization, Nanos::new(10_000)).await;
        assert_eq!(owed(&cloud.cloud, &organization).await, (0, 7_500));
        world.put(1_000).await;
    }

    async fn limits_count_what_is_kept_and_refuse_new_files_but_delete_nothing(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        cloud.clock.set(month("Europe/Berlin", "2026-04"));
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        let project = LimitSubject::Project(session.access.project.clone());
        set_limit(cloud, &project, BudgetWindow::Month, 3_500).await;
        world.put(1_000).await;
        cloud.clock.advance(DurationMs::from_hours(2));
        cloud.clock.advance(DurationMs::from_seconds(5 * 60));
        close(&cloud.cloud).await;
        // 1,500 are left.
        let refused = world.try_put(1_000, None).await.expect_err("the limit does not cover an hour of both");
        assert!(refused.message().contains(session.access.project.as_str()), "{refused}");
        session.grant(None, 1_501, 1_501).await.expect_err("it is used up by what is kept");
        session.grant(None, 1_500, 1_500).await.expect("what is left");
        cloud.clock.advance(DurationMs::from_hours(3));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (5_000, 5_000));
    }

    async fn files_without_a_mark_are_metered_from_their_beginning(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        close(&cloud.cloud).await;
        cloud.clock.set(month("UTC", "2026-04").plus(MINUTE));
        let session = customer(cloud, "c1", "UTC", UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(6_000).await;
        let statement = include_str!("../../../sublet-store/tests/marks_lost.sql");
        let forgotten = cloud.cloud.store().write((), move |(), tx| Box::pin(async move { tx.execute(statement, &[]).await }));
        assert_eq!(forgotten.await.expect("forgotten"), 1);
        cloud.clock.advance(HOUR);
        cloud.clock.advance(HOUR);
        cloud.clock.advance(DurationMs::from_seconds(5 * 60));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (5_900 + 6_000, 5_900 + 6_000));
    }

    async fn a_minimum_is_asked_for_once_a_month(cloud: &TestCloud) {
        let least = PriceModel::Minimum { least: Nanos::new(10_000), of: Box::new(per_unit(STORED)) };
        publish(cloud, &[PriceEntry::new(SkuName::FileStorage, least)]).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", 12_000).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(100).await;
        cloud.clock.advance(HOUR);
        cloud.clock.advance(DurationMs::from_seconds(5 * 60));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (100, 10_000));
        world.put(100).await;
        assert_eq!(world.try_put(2_000, None).await.expect_err("2,000 are left").code(), ErrorCode::InsufficientQuota);
    }

    async fn a_project_that_keeps_files_is_not_archived(cloud: &TestCloud) {
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", UNIT).await;
        let (world, admin, project) = (self::world(cloud, &session), admin_of(&session), &session.access.project);
        let file = world.put(1_000).await;
        world.try_put(1_000, Some(HOUR)).await.expect("a file that expires");
        let refused = cloud.cloud.archive_project(&admin, project).await.expect_err("nobody could delete it any more");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        assert!(refused.alternatives()[0].contains("DELETE /v1/files/{id}"), "{refused}");
        world.delete(&file).await;
        cloud.cloud.archive_project(&admin, project).await.expect_err("one is left");
        cloud.clock.advance(HOUR);
        assert!(cloud.cloud.archive_project(&admin, project).await.expect("it keeps nothing").archived);
        let refused = world.try_put(1_000, None).await.expect_err("whoever began it before");
        assert_eq!(refused.code(), ErrorCode::Conflict);
    }

    async fn what_archived_projects_keep_is_deleted_by_their_administrators_and_by_operators(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        cloud.clock.set(month("UTC", "2026-04"));
        let session = customer(cloud, "c1", "UTC", 1_000_000).await;
        let (world, admin, organization) = (self::world(cloud, &session), admin_of(&session), session.access.organization.clone());
        let project = session.access.project.clone();
        let files = [world.put(1_000).await, world.put(2_000).await];
        let page = PageRequest::default();
        let listed = async |actor: &Actor| world.files.list_archived(actor, Some(&project), &page).await.map(|page| page.items.len());
        assert_eq!(listed(&admin).await.expect("a list"), 0, "the project has keys");
        let refused = world.files.delete_archived(&admin, &files[0]).await.expect_err("its keys delete it");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        // As it was before projects that keep files were refused.
        let archived = (Scope::Organization(organization.clone()), &project, cloud.now());
        let store = cloud.cloud.store();
        store
            .write(archived, |(scope, project, now), tx| Box::pin(project::archive(tx, scope, project, *now)))
            .await
            .expect("archived");
        cloud.clock.advance(HOUR);
        let stranger = Actor { scope: Scope::Organization("org_stranger".parse().expect("an id")), ..admin.clone() };
        assert_eq!(listed(&stranger).await.expect("nothing of others"), 0);
        let refused = world.files.delete_archived(&stranger, &files[0]).await.expect_err("another's");
        assert_eq!(refused.code(), ErrorCode::NotFound);
        assert_eq!(listed(&world.actor).await.expect_err("a project's key").code(), ErrorCode::WrongKeyPlane);
        assert_eq!(listed(&Actor::system()).await.expect("a list"), 2);
        world.files.delete_archived(&Actor::system(), &files[0]).await.expect("deleted");
        cloud.clock.advance(DurationMs::from_seconds(30 * 60));
        world.files.delete_archived(&admin, &files[1]).await.expect("deleted");
        world.files.delete_archived(&admin, &files[1]).await.expect_err("it is gone");
        assert_eq!(listed(&admin).await.expect("a list"), 0);
        cloud.clock.advance(DurationMs::from_hours(48));
        close(&cloud.cloud).await;
        // An hour of both, half an hour of the second, and nothing since.
        assert_eq!(kept(cloud, &organization, "2026-04").await, (4_000, 4_000));
        assert_eq!(metered(cloud, &organization, "2026-04").await.len(), 2);
        let entries = cloud.cloud.list_audit(&Actor::system(), &PageRequest { limit: Some(100), ..PageRequest::default() }).await.expect("entries");
        let deleted = entries.items.iter().filter(|entry| entry.action == "file.delete").count();
        assert_eq!(deleted, 2);
    }

    async fn a_limit_below_what_is_spent_does_not_stop_the_meter(cloud: &TestCloud) {
        publish(cloud, &[stored_at(STORED)]).await;
        cloud.clock.set(month("Europe/Berlin", "2026-04"));
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        let project = LimitSubject::Project(session.access.project.clone());
        set_limit(cloud, &project, BudgetWindow::Month, 5_000).await;
        world.put(1_000).await;
        for hours in [2, 3] {
            cloud.clock.advance(DurationMs::from_hours(hours));
            cloud.clock.advance(DurationMs::from_seconds(5 * 60));
            close(&cloud.cloud).await;
            set_limit(cloud, &project, BudgetWindow::Month, 500).await;
        }
        assert_eq!(kept(cloud, &organization, "2026-04").await, (5_000, 5_000));
        cloud.clock.set(month("Europe/Berlin", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        assert_eq!(issued(cloud, &organization).await[0].invoice.content.subtotal, Nanos::new(720_000));
    }

    async fn a_list_without_a_price_charges_nothing_and_a_simulation_says_what_one_would_bring(cloud: &TestCloud) {
        let april = month("UTC", "2026-04");
        cloud.clock.set(april);
        let session = customer(cloud, "c1", "UTC", 0).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(1_000).await;
        cloud.clock.set(april.plus(DurationMs::from_hours(10)));
        cloud.clock.advance(DurationMs::from_seconds(5 * 60));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (0, 0));
        assert_eq!(metered(cloud, &organization, "2026-04").await.len(), 10);
        let simulate = async |prices: &[PriceEntry]| {
            let draft = with_prices(&cloud.cloud, prices);
            let (operator, april) = (Actor::system(), Some("2026-04".parse().expect("a month")));
            cloud.cloud.simulate_prices(&operator, draft, april).await.expect("a simulation").total
        };
        assert_eq!(simulate(&[stored_at(STORED)]).await.would_be, Nanos::new(10_000));
        assert_eq!(simulate(&[]).await.would_be, Nanos::ZERO);
        // The price of an hour is that of its beginning, so what was kept before stays free.
        publish(cloud, &[stored_at(STORED)]).await;
        cloud.clock.set(april.plus(DurationMs::from_hours(12)));
        cloud.clock.advance(DurationMs::from_seconds(5 * 60));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (1_000, 1_000));
        assert_eq!(owed(&cloud.cloud, &organization).await, (1_000, 0));
    }

    async fn what_was_kept_is_rated_anew_and_proven_outside(cloud: &TestCloud) {
        let wrong = publish(cloud, &[stored_at(2 * STORED), PriceEntry::new(SkuName::ProjectMonth, per_unit(UNIT))]).await;
        let april = month("Asia/Kolkata", "2026-04");
        cloud.clock.set(april);
        let session = customer(cloud, "c1", "Asia/Kolkata", 10 * UNIT).await;
        let (world, organization) = (world(cloud, &session), session.access.organization.clone());
        world.put(1_000).await;
        cloud.clock.set(month("Asia/Kolkata", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        assert_eq!(kept(cloud, &organization, "2026-04").await, (720_000, 1_440_000));
        let right = publish(cloud, &[stored_at(STORED)]).await;
        let new = NewRerate {
            of: wrong,
            to: right,
            interval: Interval { starts_at: april, ends_at: month("Asia/Kolkata", "2026-05") },
            organization: None,
            reason: "half the price was meant".to_owned(),
        };
        let call = Call::once(Actor { key: Some("key_simulates".parse().expect("an id")), ..Actor::system() });
        let simulated = created(cloud.cloud.simulate_rerate(&call, &new, &|_| Ok(String::new())).await);
        let applies = Actor { key: Some("key_applies".parse().expect("an id")), ..Actor::system() };
        let applied = cloud.cloud.apply_rerate(&applies, &simulated.rerate.id).await.expect("applied");
        assert_eq!((applied.sums.charged.get(), applied.sums.would_be.get()), (1_440_000, 720_000));
        cloud.clock.set(month("Asia/Kolkata", "2026-06").plus(HOUR));
        close(&cloud.cloud).await;
        let focus = rows(file(&cloud.cloud, &admin_of(&session), &wanted(Dataset::Focus, "2026-05")).await.expect("a file"));
        let hour = focus.iter().find(|row| row["ChargeClass"].is_empty() && row["ChargeCategory"] == "Usage").expect("an hour");
        let names = ["ServiceCategory", "ServiceSubcategory", "ServiceName", "ConsumedUnit", "PricingUnit", "BilledCost"];
        let shown = names.map(|name| hour[name].as_str());
        assert_eq!(shown, ["Storage", "Object Storage", "File Storage", "GiB-Hours", "GiB-Months", "0.000001"]);
        assert_eq!(focus.iter().filter(|row| row["ChargeClass"] == "Correction").count(), 2);
        let folder = tempfile::tempdir().expect("a folder");
        let (is_right, said) = rerated(&write_bundles(cloud, folder.path()).await);
        assert!(is_right, "{said}");
        // Keeping files is no use that a project is charged a month for.
        assert_eq!(charged(cloud, &organization, "2026-04", &SkuName::ProjectMonth).await, (0, 0));
    }
}
