//! What a month returned: what devices did, what was not filled, and which promises were kept.

use sublet_cloud::Actor;
use sublet_cloud::data::{ClassTimes, Pool, TimeClass, UnfilledReason};
use sublet_cloud::demand::NewReport;
use sublet_cloud::monthly_return::ReturnReport;
use sublet_cloud::quote::NewQuote;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos};
use sublet_money::period::BillingCalendar;
use sublet_store::unfilled::{StoredAsk, of_time};
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::actor;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::compensations::{given, stop};
use crate::owner::{costs, publish};
use crate::world::{World, command, compute_on, wanted};

const HOUR_MILLIS: i64 = 3_600_000;

async fn report(cloud: &TestCloud) -> ReturnReport {
    cloud.cloud.return_report(&Actor::system(), Some("2026-03".parse().expect("a month")), None).await.expect("a report")
}

/// As it is two days from now, when what was wanted is over.
async fn report_later(cloud: &TestCloud) -> ReturnReport {
    let now = cloud.now();
    cloud.clock.set(now.plus(DurationMs::from_hours(48)));
    let made = report(cloud).await;
    cloud.clock.set(now);
    made
}

fn cpu(report: &ReturnReport) -> ClassTimes {
    report.times[&"cpu".parse().expect("a kind")].clone()
}

fn seconds(times: &ClassTimes, class: TimeClass) -> i64 {
    times.of(class) / 1_000_000
}

async fn pool(world: &World<'_>) -> Pool {
    world.compute.list_pools(&Actor::system()).await.expect("pools").remove(0).pool
}

async fn use_outside(world: &World<'_>, in_use: u32) {
    let new = NewReport { pool: pool(world).await, at: None, in_use, queued: 0, valid: true, good_for: None };
    world.compute.report_demand(&Actor::system(), &new).await.expect("reported");
}

/// What is kept of refusals.
async fn rows(cloud: &TestCloud) -> Vec<StoredAsk> {
    let month = BillingCalendar::new("UTC").expect("a calendar").period("2026-03".parse().expect("a month")).expect("a month");
    let read = cloud.cloud.store().read(month.interval, |when, tx| Box::pin(of_time(tx, *when, when.starts_at))).await;
    read.expect("rows").0
}

fn for_hours(units: u32, notice: NoticeClass, hours: i64) -> NewQuote {
    NewQuote { max_duration: Some(DurationMs::from_hours(hours)), ..wanted(units, notice) }
}

/// Hours that were not filled, and why, two days from now.
async fn unfilled(cloud: &TestCloud) -> (i64, Vec<(UnfilledReason, i64)>) {
    let report = report_later(cloud).await;
    let Some(found) = report.unfilled.kinds.get(&"cpu".parse().expect("a kind")) else { return (0, Vec::new()) };
    let reasons = found.by_reason.iter().map(|(reason, millis)| (*reason, millis / HOUR_MILLIS)).collect();
    (found.device_millis / HOUR_MILLIS, reasons)
}

on_both_databases! {
    async fn every_moment_of_every_device_is_in_one_class_and_use_outside_is_taken_out_of_idle_time(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        publish(cloud, costs("2026-03", "0.2")).await.expect("published");
        let since = world.now();
        world.run_as(&world.team, wanted(1, NoticeClass::N2m), command("own")).await.expect("own");
        world.run(wanted(1, NoticeClass::N2m), command("sold")).await.expect("sold");
        world.pass().await;
        world.live(3_600, 30).await;
        use_outside(&world, 1).await;
        world.live(1_800, 30).await;
        use_outside(&world, 0).await;
        let devices = world.compute.list_devices(&Actor::system(), None, &Default::default()).await.expect("devices").items;
        let (idle, _) = devices.iter().find(|(device, lease)| lease.is_none() && device.promised_to.is_none()).expect("one is idle");
        world.compute.cordon_device(&Actor::system(), &idle.id).await.expect("cordoned");
        world.live(600, 30).await;
        let made = report(cloud).await;
        let times = cpu(&made);
        let owned = 4 * (world.now().micros() - since.micros());
        assert_eq!(times.owned(), owned, "classes add up to what was owned: {times:?}");
        assert!((5_990..=6_000).contains(&seconds(&times, TimeClass::OwnUse)), "{times:?}");
        assert!((5_990..=6_000).contains(&seconds(&times, TimeClass::Sold(NoticeClass::N2m))), "{times:?}");
        assert_eq!(seconds(&times, TimeClass::Unhealthy), 600);
        // It is heard at the next pass, and forgotten at the one after the report; what falls is written within a minute.
        assert!((1_770..=1_860).contains(&seconds(&times, TimeClass::OutsideUse)), "{times:?}");
        assert_eq!(times.of(TimeClass::Unknown), 0);
        let own = i128::from(times.own()) * 1_000 / i128::from(owned);
        assert_eq!(times.before_per_mille().map(i128::from), Some(own));
        assert!(times.after_per_mille() > times.before_per_mille());
        // 87.6 for each of four devices; a margin with what was depreciated of it added back.
        let payback = made.capital.payback;
        assert_eq!((payback.capital.get(), made.capital.priced, made.capital.devices), (4 * 87_600_000_000, 4, 4));
        let depreciation = made.margin.figures(false).expect("figures").costs.device.depreciation;
        assert!(depreciation > Nanos::ZERO);
        let margin = made.margin.gross_margin().expect("a margin");
        assert_eq!(payback.cash, margin.checked_add(depreciation).expect("a sum"));
        assert_eq!(payback.time, world.now().since(since));
        let alone = cloud.cloud.margin_report(&Actor::system(), Some("2026-03".parse().expect("a month")), None).await.expect("one");
        assert_eq!(alone, made.margin);
        assert!(cloud.cloud.return_report(&world.customer, None, None).await.is_err(), "no customer sees it");
        assert!(cloud.cloud.return_report(&actor(&cloud.cloud, &cloud.keys.admin).await, None, None).await.is_err());
    }

    async fn what_was_refused_is_kept_once_and_what_was_leased_then_is_taken_off(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        for _ in 0..20 {
            let refused = world.quote(&for_hours(4, NoticeClass::N1h, 2)).await.expect_err("there are two");
            assert_eq!(refused.code(), ErrorCode::CapacityUnavailable);
            world.quote(&for_hours(3, NoticeClass::N1h, 2)).await.expect_err("there are two");
        }
        assert_eq!(unfilled(cloud).await, (4, vec![(UnfilledReason::NotEnough, 4)]));
        let kept = rows(cloud).await;
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].ask.units, kept[0].ask.price, kept[0].currency), (2, Some(Nanos::new(42_000_000)), Currency::EUR));
        // Another process with nothing in its memory, another notice, and a job that is refused with its lease.
        let other = compute_on(&cloud.cloud, &world.runner);
        let call = || sublet_cloud::idempotency::Call::once(world.customer.clone());
        other.create_quote(&call(), &for_hours(4, NoticeClass::N1h, 2), &|_| Ok(String::new())).await.expect_err("there are two");
        world.run(for_hours(3, NoticeClass::N2m, 2), command("x")).await.expect_err("there are two");
        assert_eq!((rows(cloud).await.len(), unfilled(cloud).await.0), (2, 4));
        // One unit for a day at less than it costs.
        let cheap = NewQuote { max_price: Some(Nanos::new(1)), ..for_hours(1, NoticeClass::N24h, 24) };
        assert_eq!(world.quote(&cheap).await.expect_err("it costs more").code(), ErrorCode::PriceAboveMaximum);
        assert_eq!(unfilled(cloud).await, (26, vec![(UnfilledReason::NotEnough, 4), (UnfilledReason::Price, 22)]));
        // Teams, kinds that nobody has and wrong requests are no lost sales.
        world.run_as(&world.team, wanted(9, NoticeClass::N0), command("x")).await.expect_err("there are two");
        let unheard = NewQuote { kind: "b900".parse().expect("a kind"), ..wanted(1, NoticeClass::N0) };
        world.quote(&unheard).await.expect_err("nobody has it");
        world.quote(&wanted(0, NoticeClass::N0)).await.expect_err("of nothing");
        assert_eq!(rows(cloud).await.len(), 3);
        assert!(report(cloud).await.unfilled.kinds.is_empty(), "none of that time is over");
        let best = report_later(cloud).await.unfilled.kinds[&"cpu".parse().expect("a kind")].best.expect("a price");
        assert_eq!((best.price.get(), best.device_millis, best.worth.get()), (42_000_000, 4 * HOUR_MILLIS, 4 * 42_000_000));
        // It takes one of two in the same hour.
        cloud.clock.advance(DurationMs::from_seconds(60));
        let quote = world.quote(&wanted(1, NoticeClass::N1h)).await.expect("a quote");
        world.accept(&quote).await.expect("a lease");
        assert_eq!(unfilled(cloud).await.0, 2, "one of two for two hours, both for a minute");
        // An hour later it asks again, for an hour that the first request covered.
        cloud.clock.advance(DurationMs::from_hours(1));
        world.quote(&for_hours(3, NoticeClass::N1h, 1)).await.expect_err("there are two");
        assert_eq!(unfilled(cloud).await.0, 3);
    }

    async fn a_quote_that_cannot_be_taken_any_more_is_unfilled_demand(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let quote = world.quote(&for_hours(2, NoticeClass::N2m, 3)).await.expect("a quote");
        world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
        assert_eq!(world.accept(&quote).await.expect_err("it was taken").code(), ErrorCode::CapacityUnavailable);
        assert_eq!(unfilled(cloud).await, (6, vec![(UnfilledReason::NotEnough, 6)]));
        assert_eq!(rows(cloud).await[0].ask.price, Some(Nanos::new(24_000_000)));
    }

    async fn what_a_project_can_leave_behind_in_an_hour_is_bounded(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        // Each of six notices for two reasons, and the size of each grows.
        for units in 2..40_u32 {
            for notice in NoticeClass::ALL {
                world.quote(&for_hours(units, notice, 24 * 7)).await.expect_err("there is one");
                let dear = NewQuote { max_price: Some(Nanos::new(1)), ..for_hours(1, notice, 24 * 7) };
                world.quote(&dear).await.expect_err("it costs more");
            }
        }
        assert_eq!(rows(cloud).await.len(), 12);
        assert!(rows(cloud).await.iter().all(|row| row.ask.units == 1), "no more than is owned");
        assert_eq!(unfilled(cloud).await.0, 48, "of all that only the largest request");
    }

    async fn promises_are_those_that_compensation_judges(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let own = world.run(wanted(1, NoticeClass::N15m), command("x")).await.expect("a run");
        let noticed = world.run(wanted(2, NoticeClass::N2m), command("x")).await.expect("a run");
        world.pass().await;
        world.live(200, 20).await;
        world.compute.end_lease(&world.customer, &own.lease.lease.id, None).await.expect("ended");
        world.pass().await;
        let team = world.run_as(&world.team, wanted(4, NoticeClass::N0), command("own")).await.expect("own");
        world.pass().await;
        world.live(150, 5).await;
        assert!(world.lease(&noticed.lease.lease.id).await.lease.state.is_final());
        world.runner.exit(&world.attempt(&team.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        world.run(wanted(2, NoticeClass::N15m), command("x")).await.expect("a run");
        world.pass().await;
        world.live(1_000, 50).await;
        stop(&world, 3).await;
        let made = report(cloud).await.promises;
        let of = |notice| {
            let promises = &made[&notice];
            (promises.ended, promises.ended_by_owner, promises.kept, promises.broken)
        };
        assert_eq!(of(NoticeClass::N15m), (2, 1, 0, 1));
        assert_eq!(of(NoticeClass::N2m), (1, 1, 1, 0));
        assert_eq!(of(NoticeClass::Firm), (0, 0, 0, 0));
        let paid = given(&world).await;
        assert_eq!(paid.len(), 1, "{paid:?}");
        assert_eq!(made[&NoticeClass::N15m].compensated.get(&Currency::EUR), Some(&paid[0].amount));
        assert!(made[&NoticeClass::N2m].compensated.is_empty());
    }
}
