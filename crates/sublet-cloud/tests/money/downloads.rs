//! Contents of files that are fetched: held before the first byte, charged for what was handed on.

use sublet_cloud::Actor;
use sublet_cloud::idempotency::Call;
use sublet_cloud::limit::LimitSubject;
use sublet_cloud::rerate::NewRerate;
use sublet_core::id::FileId;
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_money::period::Interval;
use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::{GIBIBYTE, Quantity, SkuFamily, SkuName};
use sublet_store::budget::BudgetWindow;
use sublet_store::dunning::{self, AccountDunning};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{created, pay_in};
use sublet_testkit::{TestCloud, on_both_databases};

use crate::contracts::owed;
use crate::files::{World, charged, publish, world};
use crate::months::{close, customer, issued, month};
use crate::year::{rerated, write_bundles};
use crate::{UNIT, set_limit};

const PIECE: i64 = 256 * 1024;
const MONTH: &str = "2026-04";
const HOUR: DurationMs = DurationMs::from_hours(1);

fn sent_at(price: i64) -> PriceEntry {
    PriceEntry::per_unit(SkuName::FileEgress, Nanos::new(price))
}

/// A customer of April, in a list with a nano-unit for each byte that is sent.
async fn start(cloud: &TestCloud, credit_limit: i64) -> (Session, World) {
    publish(cloud, &[sent_at(GIBIBYTE)]).await;
    cloud.clock.set(month("UTC", MONTH));
    let session = customer(cloud, "c1", "UTC", credit_limit).await;
    let world = world(cloud, &session);
    (session, world)
}

async fn sent(cloud: &TestCloud, of: &Session) -> (i64, i64) {
    charged(cloud, &of.access.organization, MONTH, &SkuName::FileEgress).await
}

async fn held(cloud: &TestCloud, of: &Session) -> i64 {
    cloud.cloud.credit_balance(&Actor::system(), &of.access.organization).await.expect("a balance").funds.held.get()
}

on_both_databases! {
    async fn what_was_handed_on_is_charged_whenever_the_client_leaves(cloud: &TestCloud) {
        let (session, world) = start(cloud, UNIT).await;
        let whole = 2 * PIECE + 1_000;
        let file = world.put(usize::try_from(whole).expect("small")).await;
        let mut total = 0;
        for (pieces, bytes) in [(0, 0), (1, PIECE), (2, 2 * PIECE), (3, whole), (4, whole)] {
            let mut download = world.files.open(&world.actor, &file).await.expect("it is covered");
            let most = held(cloud, &session).await;
            assert!((whole..=whole + 1).contains(&most), "{most} is held");
            for _ in 0..pieces {
                download.next().await.expect("a piece, or the end");
            }
            drop(download);
            assert_eq!(world.files.settle_downloads().await.expect("settled"), 1);
            assert_eq!(world.files.settle_downloads().await.expect("nothing is left"), 0);
            total += bytes;
            assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((total, total), 0), "{pieces} pieces");
        }
        let path = format!("income:usage:{}:{}", SkuFamily::FileEgress, session.access.organization);
        let accounts = cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.expect("accounts");
        let income = accounts.iter().find(|account| account.account.to_string() == path).expect("an account");
        assert_eq!(income.totals.credits, Nanos::new(total));
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let bills = issued(cloud, &session.access.organization).await;
        assert_eq!(bills[0].invoice.content.lines[0].quantity.get(), total);
        let folder = tempfile::tempdir().expect("a folder");
        let (is_right, said) = rerated(&write_bundles(cloud, folder.path()).await);
        assert!(is_right, "{said}");
    }

    async fn downloads_at_once_hold_apart_and_share_the_tiers_of_their_line(cloud: &TestCloud) {
        let (session, world) = start(cloud, UNIT).await;
        let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
        let tiers = vec![tier(Some(1_500), 2 * GIBIBYTE), tier(None, GIBIBYTE)];
        publish(cloud, &[PriceEntry::new(SkuName::FileEgress, PriceModel::Graduated { tiers })]).await;
        let file = world.put(1_000).await;
        let mut downloads = Vec::new();
        for _ in 0..3 {
            let mut download = world.files.open(&world.actor, &file).await.expect("it is covered");
            download.next().await.expect("a piece");
            downloads.push(download);
        }
        assert_eq!(held(cloud, &session).await, 3 * 2_001, "each at the dearest");
        drop(downloads);
        assert_eq!(world.files.settle_downloads().await.expect("settled"), 3);
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((3_000, 2 * 1_500 + 1_500), 0));
    }

    async fn without_credit_or_room_in_a_limit_nothing_is_sent(cloud: &TestCloud) {
        let (session, world) = start(cloud, 0).await;
        let file = world.put(1_000).await;
        let refused = world.files.open(&world.actor, &file).await.err().expect("no credit");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        pay_in(&cloud.cloud, &session.access.organization, Nanos::new(1_500)).await;
        let first = world.files.open(&world.actor, &file).await.expect("it is covered");
        let refused = world.files.open(&world.actor, &file).await.err().expect("what is held is not there twice");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        drop(first);
        world.files.settle_downloads().await.expect("settled");
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((0, 0), 0), "nothing was sent");
        world.files.open(&world.actor, &file).await.expect("it is there again");
    }

    async fn a_suspended_account_gets_each_file_out_and_owes_what_was_sent(cloud: &TestCloud) {
        let (session, world) = start(cloud, 0).await;
        let organization = session.access.organization.clone();
        let files = [world.put(1_000).await, world.put(500).await];
        world.files.open(&world.actor, &files[0]).await.err().expect("without credit nothing is held");
        let suspended = AccountDunning { suspended_at: Some(cloud.now()), ..AccountDunning::default() };
        let of = (&organization, suspended);
        cloud.cloud.store().write(of, |(id, account), tx| Box::pin(dunning::put_account(tx, id, account))).await.expect("written");
        let fetch = async |file: &FileId, pieces: usize| {
            let mut download = world.files.open(&world.actor, file).await?;
            assert_eq!(held(cloud, &session).await, 0);
            for _ in 0..pieces {
                download.next().await.expect("a piece, or the end");
            }
            drop(download);
            world.files.settle_downloads().await
        };
        fetch(&files[0], 0).await.expect("it broke off");
        fetch(&files[0], 2).await.expect("once");
        let open = world.files.open(&world.actor, &files[0]).await.expect("twice");
        let refused = world.files.open(&world.actor, &files[0]).await.err().expect("what is open counts");
        assert_eq!(refused.code(), ErrorCode::InsufficientQuota);
        assert!(refused.message().starts_with("the account is suspended"), "{refused}");
        drop(open);
        world.files.settle_downloads().await.expect("settled");
        fetch(&files[0], 2).await.expect("twice");
        fetch(&files[0], 2).await.expect_err("it was sent twice");
        fetch(&files[1], 2).await.expect("another one");
        assert_eq!(sent(cloud, &session).await, (2_500, 2_500));
        assert_eq!(owed(&cloud.cloud, &organization).await, (2_500, 0));
        cloud.assert_books_balance().await;
        pay_in(&cloud.cloud, &organization, Nanos::new(2_500)).await;
        assert_eq!(owed(&cloud.cloud, &organization).await, (0, 0));
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (is_right, said) = rerated(&write_bundles(cloud, folder.path()).await);
        assert!(is_right, "{said}");
    }

    async fn every_limit_covers_a_download(cloud: &TestCloud) {
        publish(cloud, &[sent_at(GIBIBYTE)]).await;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let world = world(cloud, &session);
        let file = world.put(1_000).await;
        set_limit(cloud, &LimitSubject::Key(session.access.key.clone()), BudgetWindow::Day, 2_500).await;
        for _ in 0..2 {
            let mut download = world.files.open(&world.actor, &file).await.expect("there is room");
            while download.next().await.expect("a piece").is_some() {}
            drop(download);
            world.files.settle_downloads().await.expect("settled");
        }
        let refused = world.files.open(&world.actor, &file).await.err().expect("500 are left");
        assert!(refused.message().contains(session.access.key.as_str()), "{refused}");
    }

    async fn what_a_process_that_died_had_sent_costs_nothing_and_its_hold_goes_back(cloud: &TestCloud) {
        let (session, world) = start(cloud, UNIT).await;
        let file = world.put(1_000).await;
        let mut download = world.files.open(&world.actor, &file).await.expect("it is covered");
        download.next().await.expect("a piece");
        let after = self::world(cloud, &session);
        cloud.clock.advance(DurationMs::from_hours(3));
        after.files.sweep().await.expect("swept");
        assert!(held(cloud, &session).await > 0, "it may be settled yet");
        cloud.clock.advance(DurationMs::from_seconds(1));
        after.files.sweep().await.expect("swept");
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((0, 0), 0));
        // It lived after all, and comes too late.
        drop(download);
        world.files.settle_downloads().await.expect("nothing to do");
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((0, 0), 0));
    }

    async fn who_stops_reading_pays_for_what_was_handed_on(cloud: &TestCloud) {
        let (session, world) = start(cloud, UNIT).await;
        let file = world.put(usize::try_from(3 * PIECE).expect("small")).await;
        let mut download = world.files.open(&world.actor, &file).await.expect("it is covered");
        download.next().await.expect("a piece");
        cloud.clock.advance(DurationMs::from_hours(2));
        assert_eq!(download.next().await.expect_err("it takes too long").code(), ErrorCode::Unreachable);
        assert_eq!(world.files.settle_downloads().await.expect("ended"), 1);
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((PIECE, PIECE), 0));
        drop(download);
        assert_eq!(world.files.settle_downloads().await.expect("nothing to do"), 0);
        assert_eq!(sent(cloud, &session).await, (PIECE, PIECE));
    }

    async fn what_could_not_be_settled_for_hours_is_not_lost_to_the_process_that_knows_it(cloud: &TestCloud) {
        let (session, world) = start(cloud, UNIT).await;
        let file = world.put(1_000).await;
        let mut ended = world.files.open(&world.actor, &file).await.expect("it is covered");
        ended.next().await.expect("a piece");
        drop(ended);
        let mut stalled = world.files.open(&world.actor, &file).await.expect("it is covered");
        stalled.next().await.expect("a piece");
        cloud.clock.advance(DurationMs::from_hours(4));
        world.files.sweep().await.expect("swept");
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((2_000, 2_000), 0));
        drop(stalled);
    }

    async fn what_became_dearer_while_it_was_sent_is_paid_beyond_its_hold(cloud: &TestCloud) {
        let wrong = publish(cloud, &[sent_at(GIBIBYTE)]).await;
        let (april, may) = (month("UTC", MONTH), month("UTC", "2026-05"));
        cloud.clock.set(april);
        let session = customer(cloud, "c1", "UTC", UNIT).await;
        let world = world(cloud, &session);
        let file = world.put(1_000).await;
        cloud.clock.set(may.minus(DurationMs::from_seconds(60)));
        let mut downloads = Vec::new();
        for _ in 0..2 {
            let mut download = world.files.open(&world.actor, &file).await.expect("it is covered");
            download.next().await.expect("a piece");
            downloads.push(download);
        }
        downloads.pop();
        world.files.settle_downloads().await.expect("settled");
        cloud.clock.set(may.plus(DurationMs::from_seconds(60)));
        let right = publish(cloud, &[sent_at(3 * GIBIBYTE)]).await;
        let interval = Interval { starts_at: april, ends_at: may };
        let new = NewRerate { of: wrong, to: right, interval, organization: None, reason: "three times that was meant".to_owned() };
        let by = |key: &str| Actor { key: Some(key.parse().expect("an id")), ..Actor::system() };
        let call = Call::once(by("key_simulates"));
        let simulated = created(cloud.cloud.simulate_rerate(&call, &new, &|_| Ok(String::new())).await);
        cloud.cloud.apply_rerate(&by("key_applies"), &simulated.rerate.id).await.expect("applied");
        let before = sent(cloud, &session).await;
        drop(downloads);
        assert_eq!(world.files.settle_downloads().await.expect("settled"), 1);
        let after = sent(cloud, &session).await;
        assert_eq!((after.0 - before.0, after.1 - before.1, held(cloud, &session).await), (1_000, 3_000, 0));
    }

    async fn a_list_without_a_price_sends_for_nothing(cloud: &TestCloud) {
        cloud.clock.set(month("UTC", MONTH));
        let session = customer(cloud, "c1", "UTC", 0).await;
        let world = world(cloud, &session);
        let file = world.put(1_000).await;
        let mut download = world.files.open(&world.actor, &file).await.expect("it is free");
        assert_eq!(download.next().await.expect("a piece"), Some(vec![7; 1_000]));
        drop(download);
        assert_eq!(world.files.settle_downloads().await.expect("nothing to do"), 0);
        assert_eq!((sent(cloud, &session).await, held(cloud, &session).await), ((0, 0), 0));
    }

    async fn a_download_over_the_end_of_a_month_is_in_that_of_its_beginning(cloud: &TestCloud) {
        let (session, world) = start(cloud, UNIT).await;
        let file = world.put(1_000).await;
        cloud.clock.set(month("UTC", "2026-05").minus(HOUR));
        let mut download = world.files.open(&world.actor, &file).await.expect("it is covered");
        cloud.clock.set(month("UTC", "2026-05").plus(DurationMs::from_seconds(1_800)));
        download.next().await.expect("a piece");
        drop(download);
        // Its month is closed before it is settled: then it is in the next invoice, as what comes late is.
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        world.files.settle_downloads().await.expect("settled");
        assert_eq!(sent(cloud, &session).await, (1_000, 1_000));
        cloud.clock.set(month("UTC", "2026-06").plus(HOUR));
        close(&cloud.cloud).await;
        let bills = issued(cloud, &session.access.organization).await;
        let late: Vec<_> = bills.iter().flat_map(|bill| &bill.invoice.content.lines).map(|line| line.late.is_some()).collect();
        assert_eq!(late, [true]);
    }
}
