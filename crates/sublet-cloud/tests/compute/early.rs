//! Credit for leaving early: what who goes before its deadline gets, once, and who gets none.

use sublet_cloud::Actor;
use sublet_cloud::data::{CompensationKind, CompensationRules, Need, StoredCompensation};
use sublet_cloud::idempotency::Call;
use sublet_cloud::reclaim::NewReclaim;
use sublet_core::id::{AttemptId, LeaseId};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, Nanos};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::{actor, created};

use crate::bill::bill;
use crate::compensations::{evidence, given, stop};
use crate::world::{CutShort, World, command, compute_on, cost, kept, wanted};

/// What an hour of a device costs at two minutes' notice, in nano-units.
const HOUR: i64 = 24_000_000;

/// A customer's work on two devices that was used for 300 seconds.
async fn used(world: &World<'_>, notice: NoticeClass) -> (LeaseId, AttemptId) {
    let run = world.run(wanted(2, notice), command("x")).await.expect("a run");
    world.pass().await;
    world.live(300, 60).await;
    (run.lease.lease.id, world.attempt(&run.job.job.id).await)
}

/// The owner's team takes both devices.
pub async fn take(world: &World<'_>) {
    world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
    world.pass().await;
}

async fn leave(world: &World<'_>, attempt: &AttemptId) {
    world.runner.exit(attempt, Exit::Code { code: 75 });
    world.pass().await;
    world.pass().await;
}

fn early(given: &[StoredCompensation]) -> Vec<(&str, i64)> {
    let early = given.iter().filter(|one| one.kind == CompensationKind::Early);
    early.map(|one| (one.subject.as_str(), one.amount.get())).collect()
}

/// A quarter of what two devices cost for so long.
const fn quarter(seconds: i64) -> i64 {
    2 * HOUR * seconds / 3_600 / 4
}

on_both_databases! {
    async fn who_leaves_before_its_deadline_gets_a_quarter_of_the_rest_once_however_often_it_is_looked(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let (id, attempt) = used(&world, NoticeClass::N2m).await;
        take(&world).await;
        world.live(20, 5).await;
        let LeaseState::Ending { reason: EndReason::Reclaimed, deadline } = world.lease(&id).await.lease.state else { panic!("told") };
        assert_eq!(deadline.since(world.now()), DurationMs::from_seconds(100));
        world.runner.exit(&attempt, Exit::Code { code: 75 });
        // Processes die anywhere on their way, and others begin anew.
        for polls in 0..60 {
            CutShort::new(world.restarted().reconcile(), polls).await;
        }
        let other = compute_on(&cloud.cloud, &world.runner);
        for _ in 0..3 {
            tokio::join!(world.compute.reconcile(), other.reconcile());
        }
        let given = given(&world).await;
        assert_eq!((early(&given), given.len()), (vec![(id.as_str(), quarter(100))], 1), "{given:?}");
        let one = &given[0];
        assert_eq!((evidence(one, "unused_ms"), evidence(one, "early_ppm")), (100_000.into(), 250_000.into()));
        assert_eq!(evidence(one, "deadline"), deadline.to_string());
        let statement = world.lease(&id).await;
        assert_eq!((statement.made_good, statement.early_credit), (None, Some(one.amount)));
        assert_eq!(statement.lease.cost, cost(NoticeClass::N2m, 2 * 320_000), "nothing is charged for what was not used");
        let why = cloud.cloud.why(&Actor::system(), id.as_str()).await.expect("an explanation");
        assert!(why.facts.iter().any(|fact| fact.label == "credit for leaving early"), "{why:?}");
        let books = cloud.cloud.credit_balance(&Actor::system(), &one.organization).await.expect("a balance that verifies");
        assert!(books.funds.deposited > one.amount);
        world.assert_invariants().await;
        world.end_all().await;
        // It is credit: the charges stay what they were, and both programs find the bill right.
        let (content, _) = bill(cloud).await;
        assert_eq!(content.subtotal, statement.lease.cost);
        cloud.assert_books_balance().await;
    }

    async fn the_credit_is_never_more_than_the_lease_was_charged(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let run = world.run(wanted(2, NoticeClass::N15m), command("x")).await.expect("a run");
        world.pass().await;
        world.live(20, 5).await;
        let (id, attempt) = (run.lease.lease.id, world.attempt(&run.job.job.id).await);
        take(&world).await;
        leave(&world, &attempt).await;
        let statement = world.lease(&id).await;
        let charged = cost(NoticeClass::N15m, 2 * 20_000);
        assert_eq!((statement.lease.cost, statement.early_credit), (charged, Some(charged)), "and not a quarter of 15 minutes");
        let given = given(&world).await;
        assert_eq!(evidence(given.last().expect("a credit"), "charged"), charged.to_string());
        cloud.assert_books_balance().await;
    }

    async fn a_holder_that_yields_gets_the_same_and_one_that_stays_until_it_is_stopped_nothing(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let (yielded, _) = used(&world, NoticeClass::N2m).await;
        take(&world).await;
        world.live(30, 5).await;
        world.compute.yield_lease(&world.customer, &yielded).await.expect("given back");
        world.pass().await;
        world.pass().await;
        assert_eq!(early(&given(&world).await), [(yielded.as_str(), quarter(90))]);
        world.end_all().await;
        let (stayed, _) = used(&world, NoticeClass::N2m).await;
        take(&world).await;
        world.live(125, 1).await;
        assert_eq!(world.lease(&stayed).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        assert_eq!(given(&world).await.len(), 1);
    }

    async fn a_broken_promise_and_leaving_early_are_two_credits_for_different_times(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let (id, attempt) = used(&world, NoticeClass::N2m).await;
        let need = Need {
            kind: "cpu".parse().expect("a kind"),
            units: 2,
            site: None,
            shape: ReclaimShape::Anywhere,
            by: world.now().plus(DurationMs::from_seconds(60)),
            promises: Promises::MayBreak,
        };
        let order = NewReclaim { need, until: None };
        created(world.compute.place_reclaim(&Call::once(Actor::system()), &order, &|_| Ok(String::new())).await);
        world.live(5, 1).await;
        let LeaseState::Ending { deadline, .. } = world.lease(&id).await.lease.state else { panic!("told") };
        let rest = deadline.since(world.now()).millis() / 1_000;
        assert!((1..60).contains(&rest), "{rest}");
        leave(&world, &attempt).await;
        let statement = world.lease(&id).await;
        assert_eq!(statement.early_credit, Some(Nanos::new(quarter(rest))));
        assert_eq!(statement.made_good, Some(statement.lease.cost), "the last hour is free");
        assert_eq!(given(&world).await.len(), 2);
    }

    async fn nobody_else_gets_any(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        // Its holder ends it, and nobody asked.
        let (own, _) = used(&world, NoticeClass::N2m).await;
        world.compute.end_lease(&world.customer, &own, None).await.expect("ended");
        world.live(2, 1).await;
        // The cloud stops; leaving before that frees nothing for the owner.
        let (_, attempt) = used(&world, NoticeClass::N1h).await;
        let other = compute_on(&cloud.cloud, &world.runner);
        other.drain(DurationMs::from_seconds(60)).await.expect("draining");
        world.live(5, 1).await;
        leave(&world, &attempt).await;
        // Nothing ran when it was told.
        let idle = world.run(wanted(2, NoticeClass::N2m), kept("x")).await.expect("a run");
        world.pass().await;
        world.live(60, 20).await;
        leave(&world, &world.attempt(&idle.job.job.id).await).await;
        take(&world).await;
        world.live(2, 1).await;
        world.end_all().await;
        // The machine dies: nobody left.
        let lost = world.run(wanted(2, NoticeClass::N2m), kept("x")).await.expect("a run");
        world.pass().await;
        world.live(60, 20).await;
        take(&world).await;
        world.live(20, 5).await;
        world.runner.crash();
        cloud.clock.advance(DurationMs::from_seconds(20));
        world.pass().await;
        world.pass().await;
        assert!(matches!(world.lease(&lost.lease.lease.id).await.lease.state, LeaseState::Ended { .. }));
        assert_eq!(early(&given(&world).await), []);
    }

    async fn a_share_of_nothing_is_off_and_holds_for_what_is_sold_from_then_on(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let (before, attempt) = used(&world, NoticeClass::N2m).await;
        let usual = CompensationRules::default();
        let rules = usual.iter().map(|(class, mut rule)| {
            rule.early_ppm = 0;
            (class, rule)
        });
        let off = CompensationRules::new(rules.collect()).expect("rules");
        cloud.cloud.set_compensation_rules(&Actor::system(), &off).await.expect("set");
        take(&world).await;
        world.live(20, 5).await;
        leave(&world, &attempt).await;
        stop(&world, 1).await;
        assert_eq!(early(&given(&world).await), [(before.as_str(), quarter(100))], "it was sold with a quarter");
        let again = World { compute: compute_on(&cloud.cloud, &world.runner), ..world };
        let (_, attempt) = used(&again, NoticeClass::N2m).await;
        take(&again).await;
        again.live(20, 5).await;
        leave(&again, &attempt).await;
        assert_eq!(given(&again).await.len(), 1);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        assert_eq!(cloud.cloud.compensation_rules(&admin).await.expect("rules").rules, off);
    }
}
