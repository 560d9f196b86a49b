//! Device time at prices that depend on when and how much.

use sublet_cloud::Actor;
use sublet_cloud::contract::NewContract;
use sublet_cloud::data::Charge;
use sublet_cloud::idempotency::Call;
use sublet_cloud::rerate::NewRerate;
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::EndReason;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{Currency, DurationMs, Nanos};
use sublet_money::contract::{Commitment, ContractTerms};
use sublet_money::contract_price::{Discount, Discounted, PriceTerms};
use sublet_money::period::Interval;
use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::PriceModel;
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_store::charge;
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::{band, by_time, per_unit, republish};
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::{actor, created};

use crate::world::{UNIT, World, command, wanted};

/// 1,000 nano-units for a device-millisecond.
const HOURLY: i64 = 3_600_000_000;

async fn publish(world: &World<'_>, model: &PriceModel, bands: impl Fn() -> Option<sublet_money::time_of_use::TimeOfUse>) {
    let change = |entry: &PriceEntry| match entry.sku {
        SkuName::Device { .. } => PriceEntry { time_of_use: bands(), ..PriceEntry::new(entry.sku.clone(), model.clone()) },
        _ => entry.clone(),
    };
    republish(&world.cloud.cloud, &world.cloud.clock, change).await;
}

/// Charges of a job, oldest first.
async fn charges(world: &World<'_>, job: &str) -> Vec<Charge> {
    let read = world.cloud.cloud.store().read(job, |job, tx| Box::pin(charge::list_of(tx, job, 1_000)));
    read.await.expect("charges")
}

/// A job that runs so many seconds, to its end. What it used in milliseconds, and what it cost.
async fn run_for(world: &World<'_>, seconds: i64) -> (i64, Nanos) {
    let run = world.run(wanted(1, NoticeClass::N2m), command("x")).await.expect("a run");
    world.pass().await;
    world.live(seconds, 10).await;
    world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
    world.pass().await;
    let done = world.job(&run.job.job.id).await;
    assert_eq!(done.job.state, JobState::Succeeded);
    (done.device_time.get(), done.cost)
}

on_both_databases! {
    async fn a_job_that_runs_into_the_night_is_charged_each_part_at_its_price(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let night = || by_time(vec![band("night", &["12:05-12:10".to_owned()], per_unit(HOURLY / 2))]);
        publish(&world, &per_unit(HOURLY), night).await;
        cloud.clock.set(cloud.now().plus(DurationMs::from_seconds(179)));
        let quote = world.quote(&wanted(2, NoticeClass::N2m)).await.expect("a quote");
        // It may begin later, when the price is the day's: 195 seconds of two devices.
        assert_eq!((quote.terms.price_per_hour.get(), quote.terms.hold.get()), (HOURLY, 195_000 * 2 * 1_000 + 1));
        let run = world.run(wanted(2, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        world.live(600, 20).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        let done = world.job(&run.job.job.id).await;
        let sum = |band: Option<&str>, charges: &[Charge]| -> (i64, i64) {
            let of_band = charges.iter().filter(|charge| charge.band.as_ref().map(|band| band.as_str()) == band);
            of_band.fold((0, 0), |(quantity, amount), charge| (quantity + charge.quantity.get(), amount + charge.amount.get()))
        };
        let charged = charges(&world, done.job.id.as_str()).await;
        // From 12:03 to 12:13, five minutes of them by night.
        assert_eq!(sum(Some("night"), &charged), (300_000 * 2, 300_000 * 2 * 500));
        let (by_day, cost) = sum(None, &charged);
        assert_eq!((by_day + 600_000, cost), (done.device_time.get(), by_day * 1_000));
        assert!((598_000..=602_000).contains(&by_day), "{by_day}");
        assert_eq!(done.cost.get(), cost + 300_000_000);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let (organization, _) = world.customer.project().expect("a project");
        let drafted = cloud.cloud.draft_invoice(&admin, organization, None).await.expect("a draft").invoice.content;
        assert_eq!((drafted.lines.len(), drafted.subtotal), (2, done.cost));
        let dear: Vec<_> = drafted.lines.iter().map(|line| (line.band.is_some(), line.price.as_str())).collect();
        assert_eq!(dear, [(false, "3.6 EUR per device-hour"), (true, "1.8 EUR per device-hour")]);
        world.assert_all_over().await;
    }

    async fn a_price_that_rises_while_a_job_runs_is_held_before_it_does(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let peak = || by_time(vec![band("peak", &["12:10-12:30".to_owned()], per_unit(HOURLY * 10))]);
        publish(&world, &per_unit(HOURLY), peak).await;
        // Enough for the ten minutes before and two of the peak.
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let (_, project) = world.customer.project().expect("a project");
        let limit = Nanos::new((600 + 120 * 10) * 1_000_000);
        let subject = sublet_cloud::limit::LimitSubject::Project(project.clone());
        let window = sublet_store::budget::BudgetWindow::Month;
        cloud.cloud.set_limit(&admin, &subject, window, limit).await.expect("the limit is set");
        let run = world.run(wanted(1, NoticeClass::N0), command("long")).await;
        let run = run.expect("a run: the first hold is at the dearest price");
        world.pass().await;
        world.live(900, 5).await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::Budget) });
        assert!(job.cost <= limit && job.cost.get() > 600_000_000, "{} of {limit}", job.cost);
        world.assert_all_over().await;
    }

    async fn a_started_hour_is_paid_once_and_used_by_whoever_comes_next(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let hour = PriceModel::Package { size: Quantity::new(3_600_000).expect("a size"), price: Nanos::new(UNIT) };
        publish(&world, &hour, || None).await;
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!((quote.terms.price_per_hour.get(), quote.terms.hold.get()), (UNIT, UNIT));
        let (first, cost) = run_for(&world, 600).await;
        assert_eq!(cost.get(), UNIT);
        let (second, cost) = run_for(&world, 600).await;
        assert_eq!(cost.get(), 0, "the hour is paid");
        let rest = (3_600_000 - first - second).div_euclid(1_000);
        assert_eq!(run_for(&world, rest + 60).await.1.get(), UNIT, "the second hour begins");
        world.assert_all_over().await;
    }

    async fn a_minimum_is_charged_at_once_and_then_used_up(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let minimum = PriceModel::Minimum { least: Nanos::new(UNIT), of: Box::new(per_unit(HOURLY)) };
        publish(&world, &minimum, || None).await;
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!(quote.terms.hold.get(), UNIT, "195 seconds cost less than the minimum");
        let (first, cost) = run_for(&world, 400).await;
        assert_eq!(cost.get(), UNIT, "400 seconds too");
        let (second, cost) = run_for(&world, 800).await;
        assert_eq!(cost.get(), (first + second) * 1_000 - UNIT);
        world.assert_all_over().await;
    }

    async fn a_lease_has_the_good_of_the_package_or_minimum_that_it_pays(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let hour = PriceModel::Package { size: Quantity::new(3_600_000).expect("a size"), price: Nanos::new(UNIT) };
        let minimum = PriceModel::Minimum { least: Nanos::new(2 * UNIT), of: Box::new(per_unit(2 * UNIT)) };
        for model in [hour, minimum] {
            publish(&world, &model, || None).await;
            let paid = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote").terms.hold;
            let quote = sublet_cloud::quote::NewQuote { max_cost: Some(paid), ..wanted(1, NoticeClass::N2m) };
            let run = world.run(quote, command("long")).await.expect("a run");
            world.pass().await;
            world.live(3_700, 20).await;
            let job = world.job(&run.job.job.id).await;
            // An hour is paid, and the notice, the grace and the slack are in it.
            assert!((3_400_000..=3_600_000).contains(&job.device_time.get()), "{model:?}: {}", job.device_time.get());
            assert_eq!(job.cost, paid, "{model:?}");
            let attempts = world.runner.attempts();
            let attempt = attempts.last().expect("an attempt");
            let notice = attempt.notices.first().expect("a notice");
            let told = attempt.ended_at.expect("it ended").since(notice.deadline);
            assert!(told >= DurationMs::ZERO, "{model:?}: stopped before its deadline");
            cloud.clock.advance(DurationMs::from_hours(24 * 31));
        }
        world.assert_all_over().await;
    }

    async fn a_job_is_quoted_held_and_charged_at_the_contract_s_price(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish(&world, &per_unit(HOURLY), || None).await;
        let (organization, _) = world.customer.project().expect("a project");
        let family = Discount { off_ppm: 100_000, on: Discounted::Family(SkuFamily::DeviceTime) };
        let exact = Discount { off_ppm: 250_000, on: Discounted::Sku("device/n2m/cpu".parse().expect("a sku")) };
        let terms = ContractTerms {
            billed: None,
            commitments: vec![Commitment { from_period: 1, amount: Nanos::ZERO }],
            covers: [SkuFamily::DeviceTime].into(),
            currency: Currency::EUR,
            exit: None,
            fee: None,
            months: 1,
            payment: None,
            period_months: 1,
            pricing: Some(PriceTerms { discounts: vec![family, exact], ..PriceTerms::default() }),
            quantities: None,
            renewal: None,
            roll_over_periods: 0,
            starts: "2026-03".parse().expect("a month"),
        };
        let new = NewContract { organization: organization.clone(), name: "prices".to_owned(), terms, expires_at: None };
        let offer = cloud.cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await;
        let offer = created(offer);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let hash = &offer.contract.offers[0].version.hash;
        cloud.cloud.accept_contract(&admin, &offer.contract.id, hash).await.expect("accepted");
        let quote = world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!((quote.terms.price_per_hour.get(), quote.terms.hold.get()), (HOURLY / 4 * 3, 195_000 * 750 + 1));
        let (used, cost) = run_for(&world, 600).await;
        assert_eq!(cost.get(), used * 750);
        let rows = world.compute.list_availability(&world.customer).await.expect("rows");
        let shown = |notice| rows.iter().find(|row| row.notice == notice).map(|row| row.price_per_hour.get());
        assert_eq!((shown(NoticeClass::N2m), shown(NoticeClass::N0)), (Some(HOURLY / 4 * 3), Some(HOURLY / 10 * 9)));
        let team = world.compute.list_availability(&world.team).await.expect("rows");
        assert!(team.iter().all(|row| row.price_per_hour.get() == HOURLY), "nobody else has them");
        world.assert_all_over().await;
    }

    async fn device_time_is_rated_anew_from_its_intervals(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let list = |model: PriceModel, bands: fn() -> Option<sublet_money::time_of_use::TimeOfUse>| {
            let change = move |entry: &PriceEntry| match entry.sku {
                SkuName::Device { .. } => PriceEntry { time_of_use: bands(), ..PriceEntry::new(entry.sku.clone(), model.clone()) },
                _ => entry.clone(),
            };
            republish(&world.cloud.cloud, &world.cloud.clock, change)
        };
        let starts_at = cloud.now();
        let of = list(per_unit(HOURLY), || None).await;
        let (first, first_cost) = run_for(&world, 300).await;
        let (second, second_cost) = run_for(&world, 200).await;
        assert_eq!((first_cost.get(), second_cost.get()), (first * 1_000, second * 1_000));
        let to = list(per_unit(HOURLY), || by_time(vec![band("lunch", &["12:00-14:00".to_owned()], per_unit(HOURLY / 4))])).await;
        let interval = Interval { starts_at, ends_at: cloud.now() };
        let new = NewRerate { of, to, interval, organization: None, reason: "lunch is cheap".to_owned() };
        let simulated = created(cloud.cloud.simulate_rerate(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        let all = first + second;
        assert_eq!((simulated.sums.charged.get(), simulated.sums.would_be.get()), (all * 1_000, all * 250));
        let applied = cloud.cloud.apply_rerate(&Actor::system(), &simulated.rerate.id).await.expect("applied");
        assert_eq!(applied.sums.would_be, simulated.sums.would_be);
        let moved = charges(&world, applied.rerate.id.as_str()).await;
        let quantities: Vec<_> = moved.iter().map(|charge| (charge.band.is_some(), charge.quantity.get(), charge.amount.get())).collect();
        assert_eq!(quantities.len(), 2);
        assert!(quantities.contains(&(false, -all, -all * 1_000)) && quantities.contains(&(true, all, all * 250)), "{quantities:?}");
    }
}
