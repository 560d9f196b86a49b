//! Device time at market prices: the level of an index changes while leases run.

use std::path::Path;
use std::process::Command;

use sublet_cloud::Actor;
use sublet_cloud::data::Charge;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::price_index::{NewIndex, NewPoint};
use sublet_cloud::quote::NewQuote;
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::EndReason;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::price_index::{IndexName, Level, MarketPrice};
use sublet_money::sku::SkuName;
use sublet_store::PageRequest;
use sublet_store::charge;
use sublet_store::invoice::InvoiceFilter;
use sublet_store::price_index::StoredPoint;
use sublet_testkit::TestCloud;
use sublet_testkit::bundle::{bundle, verify};
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::{per_unit, republish};
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::created;

use crate::compensations::{evidence, given, stop};
use crate::world::{World, command, wanted};

/// 1,000 nano-units for a device-millisecond at a level of one.
const HOURLY: i64 = 3_600_000_000;
const LEAD: i64 = 300;

fn name() -> IndexName {
    "gpu-spot".parse().expect("a name")
}
fn level(text: &str) -> Level {
    text.parse().expect("a level")
}
const fn seconds(count: i64) -> DurationMs {
    DurationMs::from_seconds(count)
}

async fn make_index(world: &World<'_>, lead: i64) -> Result<()> {
    let new = NewIndex { name: name(), lead: seconds(lead), level: level("1"), note: String::new() };
    world.cloud.cloud.create_price_index(&Call::once(Actor::system()), &new).await.map(drop)
}

async fn publish_under(world: &World<'_>, call: &Call, from: Option<Timestamp>, text: &str) -> Result<Answer<StoredPoint>> {
    let new = NewPoint { index: name(), from, level: level(text) };
    world.cloud.cloud.publish_price_point(call, &new, &|stored| Ok(stored.number.to_string())).await
}

async fn publish(world: &World<'_>, from: Timestamp, text: &str) -> Result<StoredPoint> {
    publish_under(world, &Call::once(Actor::system()), Some(from), text).await.map(|answer| created(Ok(answer)))
}

fn follows(entry: &PriceEntry) -> PriceEntry {
    let market = MarketPrice { ceiling: level("3"), floor: level("0.5"), index: name() };
    match entry.sku {
        SkuName::Device { .. } => PriceEntry { market: Some(market), ..PriceEntry::new(entry.sku.clone(), per_unit(HOURLY)) },
        _ => entry.clone(),
    }
}

/// A fleet of which every price follows an index that is at one, and the instant from which it does.
async fn start(cloud: &TestCloud, lead: i64) -> (World<'_>, Timestamp) {
    let world = World::start(cloud, 2, Manners::Prompt).await;
    make_index(&world, lead).await.expect("an index");
    republish(&cloud.cloud, &cloud.clock, follows).await;
    let now = cloud.now();
    (world, now)
}

async fn charges(world: &World<'_>, job: &str) -> Vec<Charge> {
    let read = world.cloud.cloud.store().read(job, |job, tx| Box::pin(charge::list_of(tx, job, 1_000)));
    read.await.expect("charges")
}

/// Milliseconds and nano-units of a job in a band.
async fn used(world: &World<'_>, job: &str, band: &str) -> (i64, i64) {
    let charges = charges(world, job).await;
    let of_band = charges.iter().filter(|charge| charge.band.as_ref().is_some_and(|found| found.as_str() == band));
    of_band.fold((0, 0), |(quantity, amount), charge| (quantity + charge.quantity.get(), amount + charge.amount.get()))
}

fn at_most(price: i64, notice: NoticeClass) -> NewQuote {
    NewQuote { max_price: Some(Nanos::new(price)), ..wanted(1, notice) }
}

fn refused<T: std::fmt::Debug>(refused: Result<T>, reason: &str) -> Error {
    let error = refused.expect_err(reason);
    assert!(error.to_string().contains(reason), "{reason}: {error}");
    error
}

/// What the program in another language says of a bundle.
fn rerated(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("market.bundle");
    std::fs::write(&path, text).expect("room");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/test-env/python/bin/python");
    let mut command = Command::new(&python);
    command.arg(root.join("tests/outside/rerate.py")).arg(&path).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("run 'cargo xtask test-env'");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

on_both_databases! {
    async fn a_lease_is_charged_each_part_at_the_level_that_held_and_its_bill_is_proven(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        publish(&world, began.plus(seconds(600)), "0.25").await.expect("a point");
        publish(&world, began.plus(seconds(1_200)), "2").await.expect("a point");
        let run = world.run(wanted(1, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        world.live(1_500, 20).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        let done = world.job(&run.job.job.id).await;
        assert_eq!(done.job.state, JobState::Succeeded);
        let id = done.job.id.as_str();
        // The floor is charged where the index is below it.
        assert_eq!(used(&world, id, "level-500").await, (600_000, 300_000_000));
        let (first, cost) = used(&world, id, "level-1000").await;
        assert_eq!((first, cost), (600_000, 600_000_000));
        let (last, dear) = used(&world, id, "level-2000").await;
        assert_eq!((last + first + 600_000, dear), (done.device_time.get(), last * 2_000));
        assert_eq!(done.cost.get(), cost + 300_000_000 + dear);
        world.assert_all_over().await;

        cloud.clock.advance(DurationMs::from_hours(24 * 34));
        let report = cloud.cloud.close_months().await.expect("months are looked at");
        assert_eq!((report.issued, report.failed), (1, 0));
        let page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let bills = cloud.cloud.list_invoices(&Actor::system(), &InvoiceFilter::default(), &page).await.expect("invoices");
        let bill = bills.items.iter().find(|bill| bill.invoice.number.is_some()).expect("an invoice");
        let lines: Vec<_> = bill.invoice.content.lines.iter().map(|line| line.price.as_str()).collect();
        assert_eq!(lines, ["3.6 EUR per device-hour", "7.2 EUR per device-hour", "1.8 EUR per device-hour"]);
        let text = bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("a bundle");
        verify(&text, None).expect("it is right");
        let (is_right, said) = rerated(&text);
        assert!(is_right, "{said}");
        // Another level, another instant, another publication: neither the verifier nor the other program takes it.
        let from = format!("\"from_micros\":{}", began.plus(seconds(600)).micros());
        let moved = format!("\"from_micros\":{}", began.plus(seconds(601)).micros());
        for (said, instead) in [("\"level\":\"0.25\"", "\"level\":\"0.26\""), (&from, &moved)] {
            let changed = text.replacen(said, instead, 1);
            assert_ne!(changed, text, "{said}");
            let fault = verify(&changed, None).expect_err("it was changed");
            assert!(fault.to_string().contains("the points of the index gpu-spot"), "{fault}");
            let (is_right, said) = rerated(&changed);
            assert!(!is_right && said.contains("other points of an index"), "{said}");
        }
    }

    async fn what_is_missing_of_a_notice_is_worth_the_price_that_held_when_it_was_told(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        publish(&world, began.plus(seconds(600)), "2").await.expect("a point");
        let run = world.run(wanted(1, NoticeClass::N1h), command("long")).await.expect("a run");
        world.pass().await;
        world.live(900, 20).await;
        let lease = world.lease(&run.lease.lease.id).await.lease;
        assert_eq!(lease.price.get(), HOURLY, "as it was quoted");
        stop(&world, 60).await;
        let given = given(&world).await;
        assert_eq!(given.len(), 1, "{given:?}");
        // Of an hour of notice 3,540 seconds, at twice the price that was quoted, and a quarter more.
        assert_eq!(given[0].amount.get(), 2 * HOURLY / 3_600 * 3_540 / 4 * 5);
        assert_eq!(evidence(&given[0], "price_per_hour"), "7.2");
        world.assert_all_over().await;
    }

    async fn a_lease_ends_with_its_notice_before_the_price_goes_above_its_maximum(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        let run = world.run(at_most(HOURLY, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        world.live(400, 10).await;
        let rises = began.plus(seconds(400 + LEAD + 5));
        publish(&world, rises, "1.001").await.expect("a point");
        world.live(600, 5).await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::MaximumPrice) });
        let attempt = &world.runner.attempts()[0];
        let notice = attempt.notices.first().expect("a notice");
        assert!(notice.reason.contains("maximum"), "{notice:?}");
        let ended = attempt.ended_at.expect("it ended");
        assert!(ended >= notice.deadline && ended <= rises && notice.deadline.plus(seconds(15)) == rises, "{ended} {notice:?}");
        assert_eq!(job.cost.get(), job.device_time.get() * 1_000, "never more than the maximum");
        world.assert_all_over().await;
    }

    async fn time_above_the_maximum_is_not_charged_though_nobody_looked(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        let run = world.run(at_most(HOURLY, NoticeClass::N2m), command("long")).await.expect("a run");
        let unbound = world.run(wanted(1, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        publish(&world, began.plus(seconds(LEAD + 100)), "1.5").await.expect("a point");
        world.live(100, 10).await;
        // The process is down while the price rises; the workloads go on.
        cloud.clock.advance(seconds(LEAD));
        world.runner.beat();
        let again = world.restarted();
        for _ in 0..3 {
            assert_eq!(again.reconcile().await.errors, Vec::new());
        }
        world.live(60, 5).await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::MaximumPrice) });
        assert_eq!(job.cost.get(), job.device_time.get() * 1_000);
        assert_eq!(used(&world, job.job.id.as_str(), "level-1500").await, (0, 0));
        world.runner.exit(&world.attempt(&unbound.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn a_maximum_price_that_cannot_be_kept_is_refused(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        // What is above it now, and what could be above it before a lease could be told.
        let error = refused(world.quote(&at_most(HOURLY - 1, NoticeClass::N2m)).await, "more than the maximum");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::PriceAboveMaximum, Some("maximum_price")));
        assert!(error.alternatives()[0].contains("at least 3.6 EUR"), "{:?}", error.alternatives());
        let error = refused(world.quote(&at_most(HOURLY, NoticeClass::N15m)).await, "known 300 seconds ahead");
        assert!(error.alternatives()[0].contains("shorter notice"), "{:?}", error.alternatives());
        refused(world.quote(&at_most(0, NoticeClass::N2m)).await, "is positive");
        // One that no level reaches is as good as none.
        world.quote(&at_most(3 * HOURLY, NoticeClass::N15m)).await.expect("a quote");
        let quote = world.quote(&at_most(HOURLY, NoticeClass::N2m)).await.expect("a quote");
        publish(&world, began.plus(seconds(LEAD)), "2").await.expect("a point");
        cloud.clock.advance(seconds(200));
        let error = refused(world.accept(&quote).await, "more than the maximum");
        assert_eq!(error.code(), ErrorCode::PriceAboveMaximum);
        // A lease that nothing ran on ends instead of starting something.
        world.assert_all_over().await;
    }

    async fn what_waits_is_not_started_where_the_price_is_about_to_be_above_the_maximum(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        let quote = world.quote(&at_most(HOURLY, NoticeClass::N2m)).await.expect("a quote");
        let lease = world.accept(&quote).await.expect("a lease").lease;
        publish(&world, began.plus(seconds(LEAD)), "2").await.expect("a point");
        cloud.clock.advance(seconds(200));
        let job = world.add_job(&lease.id, &command("late")).await.expect("it is queued").job;
        world.pass().await;
        world.pass().await;
        assert_eq!(world.job(&job.id).await.cost, Nanos::ZERO);
        assert_eq!(world.runner.attempts().len(), 0);
        assert_eq!(world.lease(&lease.id).await.lease.state.reason(), Some(EndReason::MaximumPrice));
        world.assert_all_over().await;
    }

    async fn a_hold_is_at_the_level_that_will_hold_and_at_the_ceiling_where_that_is_not_known(cloud: &TestCloud) {
        let (world, began) = start(cloud, LEAD).await;
        // The quote may be taken after what is known: 195 seconds at the ceiling.
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote").terms;
        assert_eq!((quote.price_per_hour.get(), quote.hold.get()), (HOURLY, 195_000 * 3_000 + 1));
        // A maximum is as good as a ceiling.
        let quote = world.quote(&at_most(2 * HOURLY, NoticeClass::N2m)).await.expect("a quote").terms;
        assert_eq!(quote.hold.get(), 195_000 * 1_000 + 1, "what is above it is never held");
        let windowed = NewQuote { max_duration: Some(seconds(3_600)), ..at_most(2 * HOURLY, NoticeClass::N2m) };
        assert_eq!(world.quote(&windowed).await.expect("a quote").terms.window_cost, Some(Nanos::new(2 * HOURLY)));
        publish(&world, began.plus(seconds(3_600)), "0.7").await.expect("a point");
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote").terms;
        assert_eq!(quote.hold.get(), 195_000 * 1_000 + 1, "an hour ahead is known now");
        world.assert_all_over().await;
    }

    async fn points_are_never_back_dated_and_published_once(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let entries = cloud.cloud.prices().snapshot().values().next().expect("a list").versions()[0].entries().map(follows).collect();
        let list = cloud.cloud.prices().snapshot().keys().next().expect("a list").clone();
        let draft = PriceListDraft { list, currency: "EUR".parse().expect("a currency"), effective_at: cloud.now(), entries };
        let early = cloud.cloud.publish_prices(&Call::once(Actor::system()), "x", draft.clone(), cloud.now()).await;
        refused(early, "there is no price index 'gpu-spot'");
        refused(cloud.cloud.simulate_prices(&Actor::system(), draft.clone(), None).await, "there is no price index");
        for lead in [0, 59, 7 * 24 * 3_600 + 1] {
            assert_eq!(refused(make_index(&world, lead).await, "seconds ahead").param_name(), Some("lead_seconds"));
        }
        make_index(&world, LEAD).await.expect("an index");
        assert_eq!(refused(make_index(&world, LEAD).await, "already").code(), ErrorCode::Conflict);
        // The past month is priced at the level that the index began with.
        cloud.cloud.simulate_prices(&Actor::system(), draft, None).await.expect("a simulation");
        let now = cloud.now();
        refused(publish(&world, now, "2").await, "300 seconds after it is published");
        refused(publish(&world, now.plus(seconds(LEAD - 1)), "2").await, "300 seconds after it is published");
        let call = Call::under_key(Actor::system(), "publish", "key-1", "body").expect("a call");
        let first = publish_under(&world, &call, None, "2").await.expect("a point");
        let Answer::New(first) = first else { panic!("{first:?}") };
        assert_eq!((first.number, first.point.from_micros), (2, now.plus(seconds(LEAD))));
        let again = publish_under(&world, &call, None, "2").await.expect("the same point");
        assert_eq!(again, Answer::Replayed("2".to_owned()));
        refused(publish(&world, now.plus(seconds(LEAD + 299)), "2").await, "by at least 300 seconds");
        let view = cloud.cloud.get_price_index(&name()).await.expect("the index");
        assert_eq!((view.level, view.known_until, view.index.last.number), (level("1"), now.plus(seconds(LEAD)), 2));
        let page = cloud.cloud.list_price_points(&name(), &PageRequest { limit: Some(1), ..PageRequest::default() }).await;
        let page = page.expect("points");
        assert_eq!((page.items, page.has_more), (vec![first], true));
        let customer = Call::once(world.customer.clone());
        assert_eq!(refused(publish_under(&world, &customer, None, "9").await, "").code(), ErrorCode::WrongKeyPlane);
        cloud.clock.advance(seconds(LEAD));
        assert_eq!(cloud.cloud.list_price_indexes().await.expect("indexes")[0].level, level("2"));
    }
}
