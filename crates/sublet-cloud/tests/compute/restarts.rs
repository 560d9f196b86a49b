//! Jobs that are interrupted and go on, and jobs that are tried again.

use std::collections::BTreeSet;

use sublet_cloud::Actor;
use sublet_cloud::job::{NewJob, Run};
use sublet_cloud::limit::LimitSubject;
use sublet_cloud::quote::NewQuote;
use sublet_core::id::{AttemptId, JobId};
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::restart::EXIT_SAVED;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos};
use sublet_money::period::PeriodKey;
use sublet_money::price_book::PriceEntry;
use sublet_money::sku::{SkuFamily, SkuName};
use sublet_money::supply_cost::month_starts_at;
use sublet_store::budget::BudgetWindow;
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::{per_unit, republish};
use sublet_testkit::runner::{FakeAttempt, FakeRunner, Manners, sandbox};
use sublet_testkit::tenant::actor;

use crate::compensations::made_good;
use crate::starts::publish_start;
use crate::world::{CutShort, UNIT, World, command, compute_on, cost, kept, wanted};

const RECLAIMED: StopReason = StopReason::LeaseEnds(EndReason::Reclaimed);
const REQUEUED: JobState = JobState::Requeued { reason: RECLAIMED };
const DONE: Exit = Exit::Code { code: 0 };
const SAVED: Exit = Exit::Code { code: EXIT_SAVED };

fn restartable(program: &str) -> NewJob {
    let mut new = command(program);
    new.spec.restart.on_interruption = true;
    new
}

fn retried(exit_code: u8, times: u32) -> NewJob {
    let mut new = command("flaky");
    new.spec.restart.exit_codes = BTreeSet::from([exit_code]);
    new.spec.restart.restarts_max = times;
    new
}

/// A customer's job on the whole machine, which runs.
async fn training(world: &World<'_>, quote: NewQuote, job: NewJob) -> Run {
    let run = world.run(quote, job).await.expect("a run");
    world.pass().await;
    world.live(60, 20).await;
    run
}

async fn state(world: &World<'_>, job: &JobId) -> JobState {
    world.job(job).await.job.state
}

/// The owner's team needs both devices, and the customer is told.
async fn reclaim(world: &World<'_>) -> JobId {
    let own = world.run_as(&world.team, wanted(2, NoticeClass::N0), command("own")).await.expect("own");
    settle(world).await;
    own.job.job.id
}

async fn exit(world: &World<'_>, job: &JobId, exit: Exit) {
    world.runner.exit(&world.attempt(job).await, exit);
    settle(world).await;
}

/// The owner's work ends, and from then on its machine takes no more; so many passes of ten seconds.
async fn full_after(world: &World<'_>, own: &JobId, passes: usize) {
    world.runner.refuse(Some(Error::new(ErrorCode::CapacityUnavailable, "the machine is full")));
    world.runner.exit(&world.attempt(own).await, DONE);
    refused_for(world, passes).await;
}

async fn refused_for(world: &World<'_>, passes: usize) {
    for _ in 0..passes {
        world.cloud.clock.advance(DurationMs::from_seconds(10));
        world.compute.reconcile().await;
    }
}

/// What one pass starts, the next one hears of.
async fn settle(world: &World<'_>) {
    world.pass().await;
    world.pass().await;
}

/// A training that was told, saved and left, while the owner's team works.
async fn interrupted(world: &World<'_>, quote: NewQuote, job: NewJob) -> (Run, JobId) {
    let run = training(world, quote, job).await;
    let own = reclaim(world).await;
    exit(world, &run.job.job.id, SAVED).await;
    assert_eq!(state(world, &run.job.job.id).await, REQUEUED);
    assert_eq!(state(world, &own).await, JobState::Running, "the devices change hands at once, long before the deadline");
    (run, own)
}

async fn starts_charged(world: &World<'_>, job: &JobId) -> usize {
    let charges = world.job(job).await.charges;
    charges.iter().filter(|charge| charge.sku.family() == SkuFamily::JobStarts).count()
}

fn known(world: &World<'_>, id: &AttemptId) -> FakeAttempt {
    world.runner.attempts().into_iter().find(|attempt| attempt.spec.attempt == *id).expect("an attempt")
}

async fn limit(world: &World<'_>, amount: i64) {
    let admin = actor(&world.cloud.cloud, &world.cloud.keys.admin).await;
    let (_, project) = world.customer.project().expect("a project");
    let subject = LimitSubject::Project(project.clone());
    world.cloud.cloud.set_limit(&admin, &subject, BudgetWindow::Month, Nanos::new(amount)).await.expect("a limit");
}

/// The price of device time, for all notices.
async fn price(world: &World<'_>, nanos: i64) {
    let change = |entry: &PriceEntry| match entry.sku {
        SkuName::Device { .. } => PriceEntry { model: per_unit(nanos), ..entry.clone() },
        _ => entry.clone(),
    };
    republish(&world.cloud.cloud, &world.cloud.clock, change).await;
}

on_both_databases! {
    async fn an_interrupted_job_goes_on_as_one_job_with_a_lease_for_each_attempt(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let run = training(&world, wanted(2, NoticeClass::N2m), restartable("train")).await;
        let job = run.job.job.id.clone();
        let first = world.attempt(&job).await;
        let own = reclaim(&world).await;
        // It does not leave by itself: it is stopped when its notice is over.
        world.live(140, 1).await;
        assert_eq!((state(&world, &job).await, state(&world, &own).await), (REQUEUED, JobState::Running));
        let lease = world.lease(&run.lease.lease.id).await;
        assert_eq!((lease.lease.state, lease.held), (LeaseState::Ended { reason: EndReason::Reclaimed }, Nanos::ZERO));
        let waiting = world.job(&job).await;
        assert!(waiting.job.message.contains("0 of 2") || waiting.job.message.contains("free"), "{}", waiting.job.message);
        let why = world.cloud.cloud.why(&world.customer, job.as_str()).await.expect("why");
        assert!(format!("{why:?}").contains("given up at"), "{why:?}");
        assert_eq!(waiting.position, Some(1));
        assert!(!known(&world, &first).cleaned, "its directory is kept");
        exit(&world, &own, DONE).await;
        world.pass().await;
        let resumed = world.job(&job).await;
        assert_eq!((resumed.job.state, resumed.job.restarts, resumed.attempts.len()), (JobState::Running, 1, 2));
        assert_ne!(resumed.lease.id, run.lease.lease.id);
        let second = known(&world, &world.attempt(&job).await);
        assert_eq!(second.spec.continues, std::slice::from_ref(&first));
        assert_eq!(second.spec.environment["SUBLET_RESTART_COUNT"], "1");
        assert_eq!(second.spec.files, known(&world, &first).spec.files);
        world.live(60, 20).await;
        exit(&world, &job, DONE).await;
        let over = world.job(&job).await;
        assert_eq!((over.job.state, over.job.started_at), (JobState::Succeeded, resumed.job.started_at));
        let ran: i64 = over.attempts.iter().map(|one| one.ended_at.expect("over").since(one.started_at.expect("ran")).millis()).sum();
        assert_eq!(over.device_time.get(), 2 * ran, "each attempt is metered on its own");
        let of_leases = world.lease(&lease.lease.id).await.lease.cost.checked_add(world.lease(&over.lease.id).await.lease.cost);
        assert_eq!(of_leases, Ok(over.cost));
        assert_eq!(starts_charged(&world, &job).await, 1, "a start is paid once");
        assert_eq!(made_good(&world).await, Vec::new(), "the notice was kept, and the job went on");
        world.pass().await;
        assert!(known(&world, &first).cleaned && known(&world, &second.spec.attempt).cleaned);
        world.assert_all_over().await;
    }

    async fn who_saves_and_leaves_when_told_is_interrupted_and_who_fails_has_failed(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), restartable("train")).await;
        exit(&world, &own, DONE).await;
        world.pass().await;
        exit(&world, &run.job.job.id, SAVED).await;
        assert_eq!(state(&world, &run.job.job.id).await, JobState::Failed, "nobody had told it to leave");
        let failing = training(&world, wanted(2, NoticeClass::N2m), restartable("train")).await.job.job.id;
        let own = reclaim(&world).await;
        exit(&world, &failing, Exit::Code { code: 1 }).await;
        assert_eq!(state(&world, &failing).await, JobState::Failed);
        exit(&world, &own, DONE).await;
        let plain = training(&world, wanted(2, NoticeClass::N2m), command("plain")).await.job.job.id;
        let own = reclaim(&world).await;
        world.live(140, 1).await;
        assert_eq!(state(&world, &plain).await, JobState::Interrupted { reason: RECLAIMED }, "nobody asked for more");
        exit(&world, &own, DONE).await;
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn a_job_that_waits_can_be_cancelled_and_gets_its_start_back(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), restartable("train")).await;
        let job = run.job.job.id;
        let cancelled = world.compute.cancel_job(&world.customer, &job).await.expect("cancelled");
        assert_eq!(cancelled.job.state, JobState::Cancelled);
        exit(&world, &own, DONE).await;
        world.live(60, 20).await;
        assert_eq!(state(&world, &job).await, JobState::Cancelled, "it does not run again");
        let given: Vec<_> = made_good(&world).await.into_iter().map(|one| (one.subject, one.amount.get())).collect();
        assert_eq!(given, [(job.to_string(), UNIT / 4)]);
        world.assert_all_over().await;
    }

    async fn a_job_that_waits_too_long_is_given_up(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let mut new = restartable("train");
        new.spec.restart.wait_max = DurationMs::from_seconds(600);
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), new).await;
        let job = run.job.job.id;
        world.live(590, 10).await;
        assert_eq!(state(&world, &job).await, REQUEUED);
        world.live(20, 10).await;
        let over = world.job(&job).await.job;
        assert_eq!(over.state, JobState::Interrupted { reason: RECLAIMED });
        assert!(over.message.contains("longest wait"), "{}", over.message);
        assert_eq!(made_good(&world).await.len(), 1, "its start");
        exit(&world, &own, DONE).await;
        world.pass().await;
        assert_eq!(world.runner.begun(), 2);
        world.assert_all_over().await;
    }

    async fn what_a_job_was_charged_before_it_went_on_is_of_the_site_where_it_ran(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let month: PeriodKey = "2026-05".parse().expect("a month");
        world.cloud.clock.set(month_starts_at(month.next().expect("a month")).expect("an instant").minus(DurationMs::from_hours(6)));
        world.pass().await;
        let mut new = restartable("train");
        new.spec.restart.wait_max = DurationMs::from_hours(96);
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), new).await;
        let job = run.job.job.id;
        world.live(60 * 3_600, 600).await;
        exit(&world, &own, DONE).await;
        world.pass().await;
        assert_eq!(state(&world, &job).await, JobState::Running, "it goes on in the next month");
        let made = world.cloud.cloud.margin_report(&Actor::system(), Some(month), None).await.expect("a report").made;
        let revenue: Vec<_> = made.sites.iter().filter(|(_, figures)| figures.revenue > Nanos::ZERO).map(|(site, _)| site).collect();
        assert_eq!(revenue, [&Some("site_local".parse().expect("a site"))]);
        exit(&world, &job, DONE).await;
        world.assert_all_over().await;
    }

    async fn a_job_goes_on_when_there_is_money_and_at_no_price_above_its_maximum(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        price(&world, 60_000_000).await;
        let quote = NewQuote { max_price: Some(Nanos::new(70_000_000)), ..wanted(2, NoticeClass::N2m) };
        let (run, own) = interrupted(&world, quote, restartable("train")).await;
        let job = run.job.job.id;
        price(&world, 80_000_000).await;
        exit(&world, &own, DONE).await;
        world.live(30, 10).await;
        let waits = world.job(&job).await.job;
        assert_eq!(waits.state, REQUEUED);
        assert!(waits.message.contains("more than the maximum"), "{}", waits.message);
        price(&world, 65_000_000).await;
        limit(&world, 1).await;
        world.live(30, 10).await;
        let waits = world.job(&job).await.job;
        assert!(waits.state == REQUEUED && waits.message.contains("limit"), "{waits:?}");
        limit(&world, 100 * UNIT).await;
        world.live(10, 10).await;
        world.pass().await;
        let resumed = world.job(&job).await;
        assert_eq!((resumed.job.state, resumed.lease.price), (JobState::Running, Nanos::new(65_000_000)), "the price in force");
        assert_eq!(resumed.lease.max_price, Some(Nanos::new(70_000_000)));
        exit(&world, &job, DONE).await;
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn all_attempts_together_stay_within_the_maximum_cost(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let max_cost = cost(NoticeClass::N2m, 2 * 600_000).checked_add(Nanos::new(UNIT / 4)).expect("in range");
        let quote = NewQuote { max_cost: Some(max_cost), ..wanted(2, NoticeClass::N2m) };
        let (run, own) = interrupted(&world, quote, restartable("train")).await;
        exit(&world, &own, DONE).await;
        world.pass().await;
        let resumed = world.job(&run.job.job.id).await;
        assert_eq!(resumed.lease.max_cost, max_cost.checked_sub(world.lease(&run.lease.lease.id).await.lease.cost).ok());
        world.live(900, 10).await;
        let over = world.job(&run.job.job.id).await;
        assert_eq!(over.job.state, JobState::Interrupted { reason: StopReason::LeaseEnds(EndReason::MaximumCost) }, "its own limit");
        assert!(over.cost <= max_cost && over.cost > Nanos::ZERO);
        world.assert_all_over().await;
    }

    async fn exit_codes_are_retried_on_the_same_lease_with_growing_pauses(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let run = world.run(wanted(1, NoticeClass::N2m), retried(3, 2)).await.expect("a run");
        let job = run.job.job.id;
        world.pass().await;
        for pause in [10, 20] {
            exit(&world, &job, Exit::Code { code: 3 }).await;
            assert_eq!(state(&world, &job).await, JobState::Queued);
            world.live(pause - 1, 1).await;
            assert_eq!(state(&world, &job).await, JobState::Queued, "not before {pause} s");
            world.live(1, 1).await;
            world.pass().await;
            assert_eq!(state(&world, &job).await, JobState::Running);
        }
        exit(&world, &job, Exit::Code { code: 3 }).await;
        let over = world.job(&job).await;
        assert_eq!((over.job.state, over.job.restarts, over.attempts.len()), (JobState::Failed, 2, 3));
        assert!(over.attempts.iter().all(|attempt| attempt.lease == run.lease.lease.id));
        assert_eq!(starts_charged(&world, &job).await, 1);
        let other = world.run(wanted(1, NoticeClass::N2m), retried(3, 2)).await.expect("a run").job.job.id;
        world.pass().await;
        exit(&world, &other, Exit::Code { code: 4 }).await;
        assert_eq!(state(&world, &other).await, JobState::Failed, "this code was not named");
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn a_job_goes_on_after_its_machine_was_lost_and_after_the_cloud_stopped(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let run = training(&world, wanted(2, NoticeClass::N2m), restartable("train")).await;
        let job = run.job.job.id;
        world.runner.crash();
        world.pass().await;
        world.pass().await;
        let resumed = world.job(&job).await;
        assert_eq!((resumed.job.state, resumed.attempts.len()), (JobState::Running, 2));
        assert_ne!(resumed.lease.id, run.lease.lease.id, "its lease was lost with the machine");
        let lasting = world.run(wanted(1, NoticeClass::N2m), kept("none")).await;
        assert!(lasting.is_err(), "both devices are in use");
        world.live(20, 10).await;
        world.compute.drain(DurationMs::from_seconds(3)).await.expect("draining");
        for _ in 0..8 {
            cloud.clock.advance(DurationMs::from_seconds(1));
            world.pass().await;
        }
        assert_eq!(state(&world, &job).await, JobState::Requeued { reason: StopReason::LeaseEnds(EndReason::ShutDown) });
        assert_eq!(world.compute.live_attempts().await, Ok(0), "who stops starts nothing");
        let again = world.restarted();
        again.reconcile().await;
        again.reconcile().await;
        assert_eq!(state(&world, &job).await, JobState::Running);
        world.runner.exit(&world.attempt(&job).await, DONE);
        again.reconcile().await;
        again.reconcile().await;
        assert_eq!(world.job(&job).await.job.restarts, 2);
        world.assert_all_over().await;
    }

    async fn a_kept_lease_that_is_there_is_gone_on_with(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let mut new = kept("train");
        new.spec.restart.on_interruption = true;
        let run = training(&world, wanted(2, NoticeClass::N2m), new).await;
        let job = run.job.job.id;
        world.runner.crash();
        world.pass().await;
        assert_eq!(state(&world, &job).await, JobState::Queued);
        world.live(10, 10).await;
        world.pass().await;
        let resumed = world.job(&job).await;
        assert_eq!((resumed.job.state, resumed.lease.id), (JobState::Running, run.lease.lease.id.clone()));
        // The owner takes it back while the job is between two attempts.
        world.runner.crash();
        world.pass().await;
        assert_eq!(state(&world, &job).await, JobState::Queued);
        let own = reclaim(&world).await;
        assert_eq!((state(&world, &job).await, state(&world, &own).await), (REQUEUED, JobState::Running));
        exit(&world, &own, DONE).await;
        world.pass().await;
        assert_eq!(state(&world, &job).await, JobState::Running);
        exit(&world, &job, DONE).await;
        world.compute.end_lease(&world.customer, &world.job(&job).await.lease.id, None).await.expect("ended");
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn passes_that_are_cut_anywhere_let_a_job_go_on_once(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let job = training(&world, wanted(2, NoticeClass::N2m), restartable("train")).await.job.job.id;
        let own = reclaim(&world).await;
        world.runner.exit(&world.attempt(&job).await, SAVED);
        let other = cloud.another(7).await;
        for (end, wanted) in [(None, &own), (Some(&own), &job)] {
            if let Some(end) = end {
                world.runner.exit(&world.attempt(end).await, DONE);
            }
            let mut polls = 1;
            while state(&world, wanted).await != JobState::Running {
                let (first, second) = (world.restarted(), compute_on(&other, &world.runner));
                tokio::join!(CutShort::new(first.reconcile(), polls), CutShort::new(second.reconcile(), polls + polls % 5));
                assert!(world.runner.live().len() <= 1, "one attempt at a time");
                polls += 2;
                assert!(polls < 2_000, "it never goes on");
            }
        }
        assert_eq!(world.runner.begun(), 3);
        let resumed = world.job(&job).await;
        assert_eq!((resumed.job.restarts, resumed.attempts.len()), (1, 2));
        exit(&world, &job, DONE).await;
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn jobs_that_wait_go_on_one_each_in_two_processes(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let mut jobs = Vec::new();
        for _ in 0..2 {
            jobs.push(world.run(wanted(1, NoticeClass::N2m), restartable("train")).await.expect("a run").job.job.id);
        }
        world.pass().await;
        let own = reclaim(&world).await;
        for job in &jobs {
            world.runner.exit(&world.attempt(job).await, SAVED);
        }
        world.pass().await;
        exit(&world, &own, DONE).await;
        let other = compute_on(&cloud.another(8).await, &world.runner);
        for _ in 0..4 {
            tokio::join!(world.compute.reconcile(), other.reconcile());
        }
        assert_eq!((world.runner.begun(), world.runner.live().len()), (5, 2));
        for job in &jobs {
            assert_eq!(world.job(job).await.attempts.len(), 2);
            world.runner.exit(&world.attempt(job).await, DONE);
        }
        world.pass().await;
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn a_cancelled_job_is_not_run_again_however_it_ends(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), restartable("train")).await;
        let job = run.job.job.id;
        full_after(&world, &own, 3).await;
        assert_eq!(state(&world, &job).await, JobState::Starting);
        world.compute.cancel_job(&world.customer, &job).await.expect("cancelled");
        refused_for(&world, 20).await;
        world.runner.refuse(None);
        world.live(200, 10).await;
        assert_eq!((state(&world, &job).await, world.runner.begun()), (JobState::Cancelled, 2));
        assert_eq!(made_good(&world).await.len(), 1, "it was interrupted and did not go on");
        let flaky = world.run(wanted(1, NoticeClass::N2m), retried(3, 5)).await.expect("a run").job.job.id;
        settle(&world).await;
        world.compute.cancel_job(&world.customer, &flaky).await.expect("cancelled");
        exit(&world, &flaky, Exit::Code { code: 3 }).await;
        assert_eq!(state(&world, &flaky).await, JobState::Failed, "it left by itself before it was stopped");
        assert_eq!(made_good(&world).await.len(), 1);
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn an_interrupted_job_that_no_runner_starts_again_gets_its_start_back(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        publish_start(&world, Some(UNIT / 4)).await;
        let mut new = restartable("train");
        new.spec.restart.restarts_max = 1;
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), new).await;
        full_after(&world, &own, 20).await;
        assert_eq!(state(&world, &run.job.job.id).await, JobState::Refused);
        let given: Vec<_> = made_good(&world).await.into_iter().map(|one| (one.subject, one.amount.get())).collect();
        assert_eq!(given, [(run.job.job.id.to_string(), UNIT / 4)]);
        world.assert_all_over().await;
    }

    async fn a_wait_begins_when_it_is_noticed_and_does_not_end_untried(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let mut new = restartable("train");
        new.spec.restart.wait_max = DurationMs::from_seconds(600);
        let job = training(&world, wanted(2, NoticeClass::N2m), new).await.job.job.id;
        let own = reclaim(&world).await;
        world.runner.exit(&world.attempt(&job).await, SAVED);
        cloud.clock.advance(DurationMs::from_seconds(700));
        settle(&world).await;
        assert_eq!(state(&world, &job).await, REQUEUED, "the time that nobody looked is none that it waited");
        limit(&world, 1).await;
        exit(&world, &own, DONE).await;
        world.live(10, 10).await;
        assert_eq!(state(&world, &job).await, REQUEUED);
        limit(&world, 100 * UNIT).await;
        cloud.clock.advance(DurationMs::from_seconds(700));
        settle(&world).await;
        assert_eq!(state(&world, &job).await, JobState::Running, "it is tried before it is given up");
        exit(&world, &job, DONE).await;
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn another_process_gives_up_what_waits_for_a_runner_that_is_gone(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let mut new = restartable("train");
        new.spec.restart.wait_max = DurationMs::from_seconds(600);
        let (run, own) = interrupted(&world, wanted(2, NoticeClass::N2m), new).await;
        let job = run.job.job.id;
        let elsewhere = FakeRunner::named("elsewhere", cloud.clock.clone(), Vec::new(), (sandbox(), Manners::Prompt));
        let other = compute_on(&cloud.another(9).await, &elsewhere);
        cloud.clock.advance(DurationMs::from_seconds(900));
        other.reconcile().await;
        assert_eq!(state(&world, &job).await, REQUEUED, "its own process comes first");
        cloud.clock.advance(DurationMs::from_seconds(400));
        other.reconcile().await;
        assert_eq!(state(&world, &job).await, JobState::Interrupted { reason: RECLAIMED });
        exit(&world, &own, DONE).await;
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn limits_of_time_are_for_all_attempts_together(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let window = DurationMs::from_seconds(3_600);
        let quote = NewQuote { max_duration: Some(window), ..wanted(2, NoticeClass::N2m) };
        let mut new = restartable("train");
        new.spec.limits.time = Some(DurationMs::from_seconds(300));
        let (run, own) = interrupted(&world, quote, new).await;
        let job = run.job.job.id;
        exit(&world, &own, DONE).await;
        settle(&world).await;
        let resumed = world.job(&job).await;
        let (first, again) = (world.lease(&run.lease.lease.id).await.lease, resumed.lease);
        let used = first.ended_at.expect("ended").since(first.starts_at);
        let left = again.ends_at.expect("a window").since(again.starts_at);
        assert_eq!(left.millis() + used.millis(), window.millis());
        world.live(230, 10).await;
        assert_eq!(state(&world, &job).await, JobState::Running);
        world.live(40, 10).await;
        assert_eq!(state(&world, &job).await, JobState::Interrupted { reason: StopReason::TimeLimit });
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn only_the_newest_attempts_of_a_job_are_kept(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let job = world.run(wanted(1, NoticeClass::N2m), retried(3, 9)).await.expect("a run").job.job.id;
        settle(&world).await;
        for _ in 0..4 {
            exit(&world, &job, Exit::Code { code: 3 }).await;
            world.live(120, 10).await;
        }
        settle(&world).await;
        let attempts = world.job(&job).await.attempts;
        let cleaned: Vec<bool> = attempts.iter().map(|one| known(&world, &one.id).cleaned).collect();
        assert_eq!(cleaned, [true, true, false, false, false]);
        exit(&world, &job, DONE).await;
        world.pass().await;
        world.assert_all_over().await;
    }
}
