//! Crashes, lost machines, and several instances on one database.

use sublet_core::DurationMs;
use sublet_core::job::{JobState, StopReason};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;

use crate::world::{CutShort, World, command, compute_on, cost, wanted};

on_both_databases! {
    async fn a_pass_that_is_cut_anywhere_is_taken_up_by_the_next(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let run = world.run(wanted(2, NoticeClass::N0), command("x")).await.expect("a run");
        let job = run.job.job.id;
        // Every pass of a new process comes a little further before it dies.
        let mut polls = 1;
        while world.job(&job).await.job.state != JobState::Running {
            CutShort::new(world.restarted().reconcile(), polls).await;
            polls += 1;
            assert!(polls < 1_000, "it never starts");
        }
        for step in 0..30 {
            cloud.clock.advance(DurationMs::from_seconds(5));
            world.runner.beat();
            CutShort::new(world.restarted().reconcile(), 3 + step * 3).await;
        }
        world.pass().await;
        world.runner.exit(&world.attempt(&job).await, Exit::Code { code: 0 });
        let mut polls = 1;
        while !world.lease(&run.lease.lease.id).await.lease.state.is_final() {
            CutShort::new(world.restarted().reconcile(), polls).await;
            polls += 1;
            assert!(polls < 1_000, "it never ends");
        }
        assert_eq!(world.runner.begun(), 1, "it was started once");
        let over = world.job(&job).await;
        assert_eq!((over.job.state, over.cost), (JobState::Succeeded, cost(NoticeClass::N0, 2 * 150_000)));
        world.assert_all_over().await;
    }

    async fn two_instances_start_and_charge_everything_once(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        let other = compute_on(&cloud.another(7).await, &world.runner);
        let mut jobs = Vec::new();
        for _ in 0..3 {
            jobs.push(world.run(wanted(2, NoticeClass::N0), command("x")).await.expect("a run").job.job.id);
        }
        for _ in 0..13 {
            tokio::join!(world.compute.reconcile(), other.reconcile());
            cloud.clock.advance(DurationMs::from_seconds(10));
            world.runner.beat();
        }
        assert_eq!(world.runner.begun(), 3);
        for id in world.runner.live() {
            world.runner.exit(&id, Exit::Code { code: 0 });
        }
        for _ in 0..4 {
            tokio::join!(world.compute.reconcile(), other.reconcile());
        }
        let mut total = 0;
        for job in &jobs {
            let over = world.job(job).await;
            assert_eq!((over.job.state, over.device_time.get()), (JobState::Succeeded, 2 * 130_000));
            total += over.cost.get();
        }
        assert_eq!(total, cost(NoticeClass::N0, 3 * 2 * 130_000).get(), "the line is rounded once");
        world.assert_all_over().await;
    }

    async fn concurrent_takers_never_get_the_same_device(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let other = compute_on(&cloud.another(8).await, &world.runner);
        let new = sublet_cloud::job::NewRun { quote: wanted(1, NoticeClass::N0), job: command("x") };
        let takers: Vec<_> = (0..10)
            .map(|index| {
                let (compute, actor, new) = (if index % 2 == 0 { world.compute.clone() } else { other.clone() }, world.customer.clone(), new.clone());
                tokio::spawn(async move {
                    compute.run(&sublet_cloud::idempotency::Call::once(actor), &new, &|_| Ok(String::new())).await.is_ok()
                })
            })
            .collect();
        let mut got = 0;
        for taker in takers {
            got += usize::from(taker.await.expect("no panic"));
        }
        assert_eq!(got, 4);
        tokio::join!(world.compute.reconcile(), other.reconcile());
        assert_eq!(world.runner.begun(), 4);
        world.assert_invariants().await;
    }

    async fn a_lost_machine_is_charged_to_its_last_proof_of_life(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        world.pass().await;
        world.live(70, 10).await;
        cloud.clock.advance(DurationMs::from_seconds(46));
        world.runner.crash();
        world.pass().await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!(job.job.state, JobState::Interrupted { reason: StopReason::Lost });
        assert_eq!(job.cost, cost(NoticeClass::N0, 70_000));
        world.assert_all_over().await;
    }

    async fn what_the_runner_forgot_is_closed_at_its_last_proof_of_life(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        world.pass().await;
        world.live(20, 10).await;
        world.runner.lose_memory();
        world.pass().await;
        cloud.clock.advance(DurationMs::from_millis(9_999));
        world.pass().await;
        assert_eq!(world.job(&run.job.job.id).await.job.state, JobState::Running, "an end takes a moment to be written down");
        cloud.clock.advance(DurationMs::from_millis(1));
        world.pass().await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!((job.job.state, job.cost), (JobState::Interrupted { reason: StopReason::Lost }, cost(NoticeClass::N0, 20_000)));
        world.assert_all_over().await;
    }

    async fn what_runs_while_nobody_looks_is_not_charged_beyond_its_hold(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        world.pass().await;
        world.pass().await;
        // The hold covers 75 seconds; the cloud comes back after an hour and finds the program ended.
        cloud.clock.advance(DurationMs::from_hours(1));
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        let restarted = world.restarted();
        restarted.reconcile().await;
        let job = world.job(&run.job.job.id).await;
        assert_eq!((job.job.state, job.cost), (JobState::Succeeded, cost(NoticeClass::N0, 75_000)));
        let why = format!("{:?}", cloud.cloud.why(&world.customer, job.job.id.as_str()).await.expect("why"));
        assert!(why.contains("beyond the hold, not charged"), "{why}");
        world.assert_all_over().await;
    }
}
