//! What leases are owed that the owner ended, by the rule of their class; and what they are not.

use sublet_cloud::Actor;
use sublet_cloud::data::{CompensationKind, CompensationRules, StoredCompensation};
use sublet_core::id::LeaseId;
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::EndReason;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Nanos};
use sublet_store::PageRequest;
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::{Manners, cpu_slots};
use sublet_testkit::tenant::actor;

use crate::world::{World, command, compute_on, cost, kept, wanted};

pub async fn given(world: &World<'_>) -> Vec<StoredCompensation> {
    let admin = actor(&world.cloud.cloud, &world.cloud.keys.admin).await;
    world.cloud.cloud.list_compensations(&admin, None, &PageRequest::default()).await.expect("compensations").items
}

/// What was given for promises that were not kept, and not for leaving early.
pub async fn made_good(world: &World<'_>) -> Vec<StoredCompensation> {
    given(world).await.into_iter().filter(|one| one.kind != CompensationKind::Early).collect()
}

async fn deposited(world: &World<'_>) -> Nanos {
    let (organization, _) = world.customer.project().expect("a project");
    world.cloud.cloud.credit_balance(&Actor::system(), organization).await.expect("a balance").funds.deposited
}

pub fn evidence(one: &StoredCompensation, member: &str) -> serde_json::Value {
    one.evidence[member].clone()
}

/// A running lease of a class, and its cost after so many seconds.
async fn running(world: &World<'_>, units: u32, class: NoticeClass, seconds: i64) -> LeaseId {
    let run = world.run(wanted(units, class), command("x")).await.expect("a run");
    world.pass().await;
    world.live(seconds, seconds.min(60)).await;
    run.lease.lease.id
}

/// The machine stops, and tells what runs so many seconds before.
pub async fn stop(world: &World<'_>, seconds: i64) {
    world.compute.drain(DurationMs::from_seconds(seconds)).await.expect("draining");
    world.pass().await;
    world.live(seconds + 2, 1).await;
    world.pass().await;
}

/// A share of the price of a device for a time.
fn priced(class: NoticeClass, millis: i64, percent: i64) -> Nanos {
    let exact = i128::from(cost(class, 3_600_000).get()) * i128::from(millis) * i128::from(percent);
    Nanos::new(i64::try_from(sublet_core::money::divide_half_even(exact, 360_000_000)).expect("fits"))
}

on_both_databases! {
    async fn what_is_lost_without_notice_is_not_charged_and_what_was_told_in_time_is_owed_nothing(cloud: &TestCloud) {
        let world = World::start(cloud, 3, Manners::Prompt).await;
        let before = deposited(&world).await;
        let spot = world.run(wanted(1, NoticeClass::N0), command("spot")).await.expect("spot");
        let noticed = world.run(wanted(2, NoticeClass::N2m), command("noticed")).await.expect("noticed");
        world.pass().await;
        world.live(200, 20).await;
        world.run_as(&world.team, wanted(3, NoticeClass::N0), command("own")).await.expect("own");
        world.pass().await;
        world.live(123, 1).await;
        world.pass().await;
        let reclaimed = JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::Reclaimed) };
        for job in [&spot, &noticed] {
            assert_eq!(world.job(&job.job.job.id).await.job.state, reclaimed);
        }
        let given = given(&world).await;
        let lease = world.lease(&spot.lease.lease.id).await.lease;
        assert_eq!(given.len(), 1, "{given:?}");
        let one = &given[0];
        assert_eq!((one.kind, one.subject.as_str(), one.amount), (CompensationKind::Reclaim, lease.id.as_str(), lease.cost));
        assert!(lease.cost > cost(NoticeClass::N0, 199_000), "it had run");
        assert_eq!((evidence(one, "reason"), evidence(one, "free")), ("reclaimed".into(), lease.cost.to_string().into()));
        assert_eq!(deposited(&world).await, before.checked_add(lease.cost).expect("a sum"));
        let why = cloud.cloud.why(&Actor::system(), lease.id.as_str()).await.expect("an explanation");
        assert!(why.related.contains(&one.id.to_string()), "{why:?}");
        world.assert_invariants().await;
    }

    async fn a_stop_costs_twice_what_was_left_of_the_hour(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world, 2, NoticeClass::N15m, 2_000).await;
        let started = world.lease(&id).await.lease.starts_at;
        stop(&world, 3).await;
        let one = &given(&world).await[0];
        let lease = world.lease(&id).await.lease;
        let ended = lease.state.reason().map(|_| world.now()).expect("ended");
        assert!(ended > started);
        // Told 3 seconds before: 2,003 seconds of the hour were used by two devices.
        assert_eq!(one.amount, cost(NoticeClass::N15m, 2 * 2 * (3_600 - 2_003) * 1_000));
        assert_eq!(evidence(one, "notice_given_ms"), 3_000);
        assert_eq!(evidence(one, "missing_ms"), 897_000);
        world.assert_all_over().await;
    }

    async fn the_missing_notice_and_the_rest_of_a_firm_window_are_owed(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let hourly = running(&world, 1, NoticeClass::N1h, 60).await;
        let firm = world.accept(&world.quote(&sublet_cloud::quote::NewQuote {
            max_duration: Some(DurationMs::from_hours(8 * 24)), ..wanted(1, NoticeClass::Firm)
        }).await.expect("a quote")).await.expect("a lease").lease;
        stop(&world, 60).await;
        let given = given(&world).await;
        let of = |lease: &LeaseId| given.iter().find(|one| one.subject == lease.as_str()).map(|one| one.amount);
        assert_eq!(of(&hourly), Some(priced(NoticeClass::N1h, 3_540_000, 125)));
        let end = world.lease(&firm.id).await.lease.state;
        let left = firm.ends_at.expect("a window").since(firm.starts_at).millis() - 60_000;
        assert_eq!(of(&firm.id), Some(priced(NoticeClass::Firm, left, 25)), "nothing ran on it, and its window was promised: {end:?}");
        world.assert_all_over().await;
    }

    async fn nothing_is_owed_where_the_owner_kept_its_word(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        // The holder ends it.
        let own = running(&world, 1, NoticeClass::N15m, 100).await;
        world.compute.end_lease(&world.customer, &own, None).await.expect("ended");
        world.pass().await;
        // Its job ends.
        let job = world.run(wanted(1, NoticeClass::N24h), command("x")).await.expect("a run");
        world.pass().await;
        world.runner.exit(&world.attempt(&job.job.job.id).await, sublet_core::runner::Exit::Code { code: 0 });
        world.pass().await;
        // The owner's own team.
        world.run_as(&world.team, wanted(1, NoticeClass::N24h), command("x")).await.expect("own");
        // Nothing runs on it.
        let idle = world.run(wanted(1, NoticeClass::N24h), kept("x")).await.expect("a run");
        world.pass().await;
        world.runner.exit(&world.attempt(&idle.job.job.id).await, sublet_core::runner::Exit::Code { code: 0 });
        world.pass().await;
        stop(&world, 3).await;
        assert_eq!(given(&world).await, Vec::new());
        world.assert_all_over().await;
    }

    async fn a_lost_device_is_made_good_once_whoever_looks(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world, 2, NoticeClass::N2m, 300).await;
        world.runner.set_devices(cpu_slots(1));
        world.compute.register_devices().await.expect("registered");
        let other = compute_on(&cloud.cloud, &world.runner);
        for _ in 0..3 {
            tokio::join!(world.compute.reconcile(), other.reconcile());
        }
        let given = given(&world).await;
        let lease = world.lease(&id).await.lease;
        assert_eq!(given.iter().map(|one| (one.subject.as_str(), one.amount)).collect::<Vec<_>>(), [(id.as_str(), lease.cost)]);
        assert_eq!(evidence(&given[0], "reason"), "device_lost");
        world.assert_all_over().await;
    }

    async fn a_machine_that_died_is_judged_by_its_last_proof_of_life(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let short = running(&world, 1, NoticeClass::N2m, 300).await;
        let hourly = running(&world, 1, NoticeClass::N1h, 300).await;
        // Five hours pass until somebody looks again.
        world.runner.crash();
        cloud.clock.advance(DurationMs::from_hours(5));
        world.pass().await;
        world.pass().await;
        let given = given(&world).await;
        let of = |lease: &LeaseId| given.iter().find(|one| one.subject == lease.as_str()).expect("it is made good");
        assert_eq!(of(&short).amount, world.lease(&short).await.lease.cost, "the last hour, though it is long ago");
        assert_eq!(of(&hourly).amount, priced(NoticeClass::N1h, 3_600_000, 125));
        assert_eq!((evidence(of(&hourly), "reason"), evidence(of(&hourly), "notice_given_ms")), ("device_lost".into(), 0.into()));
        world.assert_all_over().await;
    }

    async fn of_a_device_that_is_missed_the_last_hour_of_use_is_free(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N2m), kept("x")).await.expect("a run");
        world.pass().await;
        world.live(300, 60).await;
        world.runner.set_devices(cpu_slots(0));
        cloud.clock.advance(DurationMs::from_hours(5));
        world.compute.register_devices().await.expect("registered");
        for _ in 0..3 {
            world.pass().await;
        }
        let lease = world.lease(&run.lease.lease.id).await.lease;
        let hour = cost(NoticeClass::N2m, 3_600_000);
        assert!(lease.cost > hour, "it went on being used");
        assert_eq!(given(&world).await.iter().map(|one| one.amount).collect::<Vec<_>>(), [hour]);
    }

    async fn who_gives_back_what_is_taken_without_notice_is_owed_the_same(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let id = running(&world, 1, NoticeClass::N1h, 60).await;
        world.compute.drain(DurationMs::from_seconds(60)).await.expect("draining");
        world.compute.end_lease(&world.customer, &id, None).await.expect("given back");
        world.pass().await;
        world.pass().await;
        let given = given(&world).await;
        assert_eq!(given.iter().map(|one| one.amount).collect::<Vec<_>>(), [priced(NoticeClass::N1h, 3_540_000, 125)]);
        world.assert_all_over().await;
    }

    async fn a_lease_keeps_the_rule_that_held_when_it_was_sold(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let before = running(&world, 1, NoticeClass::N2m, 100).await;
        let operator = Actor::system();
        let usual = CompensationRules::default();
        let none = usual.iter().map(|(class, mut rule)| {
            (rule.free_ms, rule.hour_ppm, rule.missing_ppm) = (DurationMs::ZERO, 0, 0);
            (class, rule)
        });
        let none = CompensationRules::new(none.collect()).expect("rules");
        let set = cloud.cloud.set_compensation_rules(&operator, &none).await.expect("set");
        assert_eq!((set.version, cloud.cloud.set_compensation_rules(&operator, &none).await.expect("the same").version), (1, 1));
        cloud.clock.advance(DurationMs::from_seconds(1));
        let after = running(&world, 1, NoticeClass::N2m, 100).await;
        stop(&world, 3).await;
        let given = given(&world).await;
        assert_eq!(given.iter().map(|one| one.subject.as_str()).collect::<Vec<_>>(), [before.as_str()], "and not {after}");
        assert_eq!(evidence(&given[0], "rules_version"), 0);
        world.assert_all_over().await;
    }
}
