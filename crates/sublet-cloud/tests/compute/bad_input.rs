//! What nobody planned: demand of which a tenth was foreseen, more than can be taken back, an engine that does not answer.
//! Always the owner's work first, firm leases last, and nobody worse off than was sold.

use sublet_cloud::data::SellingMode;
use sublet_core::job::JobState;
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, ErrorCode};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;

use crate::compensations::given;
use crate::idle::{import, learned, levels, outside, refused, see, set, shown};
use crate::world::{World, command, wanted};

on_both_databases! {
    async fn demand_ten_times_as_high_as_was_foreseen_gets_what_was_sold_back(cloud: &TestCloud) {
        let world = World::start(cloud, 20, Manners::Prompt).await;
        import(&world, 30, 20).await.expect("imported");
        set(&world, SellingMode::Learned).await;
        let curve = levels(&learned(&world).await);
        assert!(curve[0] >= 12, "one to three of twenty were ever in use: {curve:?}");
        let mut sold = Vec::new();
        for number in 0..curve[0] {
            let notice = if number < curve[1] / 2 { NoticeClass::N2m } else { NoticeClass::N0 };
            sold.push(world.run(wanted(1, notice), command("x")).await.expect("within the curve").lease.lease.id);
        }
        world.live(400, 50).await;
        // The team asks for eighteen, with two in use on average until now.
        let asked_at = world.now();
        let team = world.run_as(&world.team, wanted(18, NoticeClass::N0), command("team")).await.expect("internal first");
        assert_eq!(team.lease.lease.state, LeaseState::Pending);
        assert_eq!(shown(&world, NoticeClass::N0).await, 0);
        world.live(150, 1).await;
        assert_eq!(world.job(&team.job.job.id).await.job.state, JobState::Running);
        let waited = world.lease(&team.lease.lease.id).await.lease.starts_at.since(asked_at);
        assert!(waited <= DurationMs::from_seconds(140), "the longest notice that was sold, and a stop: {waited:?}");
        // Whoever had no notice is paid, everybody else had two minutes.
        let mut ended = 0;
        for id in &sold {
            let lease = world.lease(id).await.lease;
            if lease.state == (LeaseState::Ended { reason: EndReason::Reclaimed }) {
                ended += 1;
                let is_paid = given(&world).await.iter().any(|one| one.subject == id.as_str());
                assert_eq!(is_paid, lease.notice == NoticeClass::N0, "{lease:?}");
            }
        }
        assert!(ended >= sold.len() - 2, "{ended} of {}", sold.len());
        // What was learned is corrected at once: nothing is sold that the team has.
        assert!(levels(&see(&world.compute).await)[0] <= 2);
        world.assert_invariants().await;
    }

    async fn a_burst_beyond_all_that_can_be_taken_back_takes_nothing_in_vain(cloud: &TestCloud) {
        let world = World::start(cloud, 12, Manners::Prompt).await;
        let week = Some(DurationMs::from_hours(8 * 24));
        let firm = sublet_cloud::quote::NewQuote { max_duration: week, ..wanted(2, NoticeClass::Firm) };
        let firm = world.run(firm, command("firm")).await.expect("a run").lease.lease.id;
        let spot = world.run(wanted(3, NoticeClass::N0), command("x")).await.expect("a run").lease.lease.id;
        let noticed = world.run(wanted(3, NoticeClass::N2m), command("x")).await.expect("a run").lease.lease.id;
        world.live(200, 20).await;
        let burst = world.run_as(&world.team, wanted(12, NoticeClass::N0), command("team")).await.expect_err("two are firm");
        assert_eq!(burst.code(), ErrorCode::CapacityUnavailable);
        assert!(burst.to_string().contains("10"), "it says how much can be had: {burst}");
        for id in [&firm, &spot, &noticed] {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Active, "nobody ends for what does not fit anyway");
        }
        let team = world.run_as(&world.team, wanted(10, NoticeClass::N0), command("team")).await.expect("all but the firm ones");
        world.live(150, 1).await;
        assert_eq!(world.job(&team.job.job.id).await.job.state, JobState::Running);
        assert_eq!(world.lease(&firm).await.lease.state, LeaseState::Active);
        for id in [&spot, &noticed] {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        }
        world.assert_invariants().await;
    }

    async fn demand_beyond_the_whole_pool_takes_all_but_the_firm_leases_with_their_notice(cloud: &TestCloud) {
        let world = World::start(cloud, 8, Manners::Prompt).await;
        let week = Some(DurationMs::from_hours(8 * 24));
        let firm = sublet_cloud::quote::NewQuote { max_duration: week, ..wanted(2, NoticeClass::Firm) };
        let firm = world.run(firm, command("firm")).await.expect("a run").lease.lease.id;
        let quarter = world.run(wanted(2, NoticeClass::N15m), command("x")).await.expect("a run").lease.lease.id;
        let spot = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run").lease.lease.id;
        import(&world, 14, 8).await.expect("imported");
        set(&world, SellingMode::Learned).await;
        learned(&world).await;
        world.live(120, 20).await;
        outside(&world, 8).await;
        world.live(2, 1).await;
        assert_eq!(world.lease(&spot).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        assert!(matches!(world.lease(&quarter).await.lease.state, LeaseState::Ending { reason: EndReason::Reclaimed, .. }));
        assert_eq!(world.lease(&firm).await.lease.state, LeaseState::Active);
        refused(&world, 1, NoticeClass::N0).await;
        world.live(920, 20).await;
        assert_eq!(world.lease(&quarter).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        assert_eq!(world.lease(&firm).await.lease.state, LeaseState::Active, "and never does");
        world.assert_invariants().await;
    }

    async fn a_device_whose_engine_does_not_answer_a_kill_is_given_to_nobody(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Scripted).await;
        let run = world.run(wanted(2, NoticeClass::N0), command("deaf")).await.expect("a run");
        world.pass().await;
        let attempt = world.attempt(&run.job.job.id).await;
        world.runner.start(&attempt);
        world.live(300, 20).await;
        let team = world.run_as(&world.team, wanted(2, NoticeClass::N0), command("team")).await.expect("internal first");
        world.live(60, 5).await;
        // It was told to stop and does not: the job says so, its devices are nobody else's, and its customer pays no more.
        assert!(world.runner.attempts()[0].stops > 0);
        assert!(matches!(world.job(&run.job.job.id).await.job.state, JobState::Stopping { .. }));
        assert_eq!(world.lease(&team.lease.lease.id).await.lease.state, LeaseState::Pending);
        let paid = world.lease(&run.lease.lease.id).await.lease.cost;
        assert!(world.quote(&wanted(1, NoticeClass::N0)).await.is_err());
        world.assert_invariants().await;
        world.live(600, 20).await;
        assert_eq!(world.lease(&team.lease.lease.id).await.lease.state, LeaseState::Pending);
        let later = world.lease(&run.lease.lease.id).await.lease;
        assert_eq!((later.cost, later.state.is_final()), (paid, false));
        world.runner.assert_no_device_is_shared();
        // Somebody pulls the plug: the team has the devices at once.
        world.runner.exit(&attempt, Exit::Stopped { forced: true });
        world.live(2, 1).await;
        assert_eq!(world.lease(&team.lease.lease.id).await.lease.state, LeaseState::Active);
        world.assert_invariants().await;
    }
}
