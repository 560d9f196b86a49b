//! The idle loop: demand is recorded, learned, sold by notice, and given back before the owner asks.

use sublet_cloud::Actor;
use sublet_cloud::compute::Compute;
use sublet_cloud::data::{DemandStep, Pool, SellingMode};
use sublet_cloud::demand::{NewReport, PoolStatement};
use sublet_core::job::JobState;
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, ErrorCode, Result, Timestamp};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;

use crate::world::{CutShort, World, command, compute_on, wanted};

const HOUR_S: i64 = 3_600;

pub fn pool() -> Pool {
    Pool { kind: "cpu".parse().expect("a kind"), site: "site_local".parse().expect("a site") }
}

/// Hours of demand until now: quiet but for one or two units that come and go.
pub async fn import(world: &World<'_>, hours: i64, capacity: u32) -> Result<usize> {
    let end_s = world.now().seconds() - 60;
    let steps: Vec<DemandStep> = (0..hours * 4)
        .map(|quarter| DemandStep {
            at_s: end_s - hours * HOUR_S + quarter * 900,
            capacity,
            in_use: [1, 2, 1, 3, 2, 1][usize::try_from(quarter % 6).expect("small")],
            queued: 0,
            valid: true,
        })
        .collect();
    let mut added = 0;
    for chunk in steps.chunks(100) {
        added += world.compute.import_demand(&Actor::system(), &pool(), chunk).await?;
    }
    Ok(added)
}

pub async fn outside(world: &World<'_>, in_use: u32) {
    let report = NewReport { pool: pool(), at: None, in_use, queued: 0, valid: true, good_for: None };
    world.compute.report_demand(&Actor::system(), &report).await.expect("heard");
}

pub async fn see(compute: &Compute) -> PoolStatement {
    compute.list_pools(&Actor::system()).await.expect("pools").pop().expect("one pool")
}

pub async fn set(world: &World<'_>, mode: SellingMode) {
    world.compute.set_selling_mode(&Actor::system(), mode).await.expect("set");
}

pub fn levels(statement: &PoolStatement) -> [u32; 6] {
    statement.curve.expect("a curve").levels.map(|level| level.units)
}

/// Until the policy has heard all of the history.
pub async fn learned(world: &World<'_>) -> PoolStatement {
    for _ in 0..60 {
        world.live(1, 1).await;
        let seen = see(&world.compute).await;
        if seen.is_fresh() {
            return seen;
        }
    }
    panic!("it is not learned: {:?}", see(&world.compute).await);
}

pub async fn shown(world: &World<'_>, notice: NoticeClass) -> u32 {
    let rows = world.compute.list_availability(&world.customer).await.expect("rows");
    rows.into_iter().find(|row| row.notice == notice).expect("it is priced").available_units
}

pub async fn refused(world: &World<'_>, units: u32, notice: NoticeClass) -> String {
    let error = world.quote(&wanted(units, notice)).await.expect_err("refused");
    assert_eq!(error.code(), ErrorCode::CapacityUnavailable);
    error.to_string()
}

on_both_databases! {
    async fn what_was_learned_is_sold_in_layers_and_given_back_before_the_owner_asks(cloud: &TestCloud) {
        let world = World::start(cloud, 12, Manners::Prompt).await;
        assert_eq!(import(&world, 30, 12).await.expect("imported"), 120);
        set(&world, SellingMode::Learned).await;
        assert!(refused(&world, 1, NoticeClass::N0).await.contains("is not known"));
        let seen = learned(&world).await;
        let curve = levels(&seen);
        // Nothing above what is always idle, nothing longer than what was seen often enough.
        assert!(curve[0] >= curve[1] && curve[1] >= curve[2] && curve[2] >= 4 && curve[0] >= 6, "{seen:?}");
        assert_eq!(&curve[3..], [0, 0, 0]);
        assert_eq!(shown(&world, NoticeClass::N2m).await, curve[1]);
        let reason = refused(&world, 1, NoticeClass::N1h).await;
        assert!(reason.contains("no rule has shown yet"), "{reason}");

        // All levels are filled, the longest notice first.
        let (mut quarters, mut spots) = (Vec::new(), Vec::new());
        for number in 0..curve[0] {
            cloud.clock.advance(DurationMs::from_millis(10));
            let (leases, notice) = if number < 4 { (&mut quarters, NoticeClass::N15m) } else { (&mut spots, NoticeClass::N0) };
            leases.push(world.run(wanted(1, notice), command("x")).await.expect("within the levels").lease.lease.id);
        }
        assert_eq!(shown(&world, NoticeClass::N0).await, 0);
        let reason = refused(&world, 1, NoticeClass::N0).await;
        assert!(reason.contains("may be promised at notice"), "{reason}");
        // The owner's team takes what was kept free for it, at once.
        let free = see(&world.compute).await.figures.idle;
        let team = world.run_as(&world.team, wanted(free, NoticeClass::N0), command("team")).await.expect("free units");
        assert_eq!(team.lease.lease.state, LeaseState::Active);
        world.live(10, 5).await;

        // Demand rises further than it ever did, outside at first. What has no notice goes at once, and of the rest the youngest.
        outside(&world, 6).await;
        let told_at = world.now();
        world.live(30, 1).await;
        let seen = see(&world.compute).await;
        assert!(levels(&seen)[0] <= 12 - free - 6, "{seen:?}");
        for id in &spots {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        }
        let level = usize::try_from(levels(&seen)[2]).expect("small");
        assert!(level < quarters.len());
        let (stay, go) = quarters.split_at(level);
        for id in go {
            let LeaseState::Ending { reason, deadline } = world.lease(id).await.lease.state else { panic!("it was not told") };
            assert_eq!(reason, EndReason::Reclaimed);
            let notice = deadline.since(told_at);
            assert!((900_000..=902_000).contains(&notice.millis()), "{notice:?}");
        }
        world.live(930, 30).await;
        for id in stay {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Active, "no more than needed");
        }
        for id in go {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        }
        // The units are there before the owner's next job asks for them: it displaces nobody, and waits for nobody.
        outside(&world, 0).await;
        let room = see(&world.compute).await.figures.idle;
        assert!(room >= 6, "{room}");
        let next = world.run_as(&world.team, wanted(room, NoticeClass::N0), command("next")).await.expect("free units");
        assert_eq!(next.lease.lease.state, LeaseState::Active);
        world.live(2, 1).await;
        assert_eq!(world.job(&next.job.job.id).await.job.state, JobState::Running);
        world.assert_invariants().await;
        for id in world.runner.live() {
            world.runner.exit(&id, Exit::Code { code: 0 });
        }
        world.live(5, 1).await;
        world.assert_all_over().await;
    }

    async fn a_shadow_sells_as_before_and_nothing_sells_nothing(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        import(&world, 8, 6).await.expect("imported");
        world.pass().await;
        assert_eq!(see(&world.compute).await.curve, None, "nothing is learned while nobody wants it");
        set(&world, SellingMode::Shadow).await;
        let seen = learned(&world).await;
        assert!(levels(&seen)[0] < 6);
        assert_eq!(shown(&world, NoticeClass::N24h).await, 6);
        let run = world.run(wanted(6, NoticeClass::N2m), command("x")).await.expect("as before");
        world.live(180, 30).await;
        assert_eq!(world.lease(&run.lease.lease.id).await.lease.state, LeaseState::Active, "a shadow ends nothing");
        set(&world, SellingMode::Nothing).await;
        world.live(120, 30).await;
        assert_eq!(world.lease(&run.lease.lease.id).await.lease.state, LeaseState::Active, "what runs stays");
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.live(2, 1).await;
        assert_eq!(shown(&world, NoticeClass::N0).await, 0);
        assert!(refused(&world, 1, NoticeClass::N0).await.contains("leases nothing to customers"));
        set(&world, SellingMode::Static).await;
        assert_eq!(shown(&world, NoticeClass::N24h).await, 6);
        world.live(2, 1).await;
        world.assert_all_over().await;
    }

    async fn a_curve_that_nobody_renews_sells_nothing_and_ends_nothing(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        import(&world, 14, 6).await.expect("imported");
        set(&world, SellingMode::Learned).await;
        let before = learned(&world).await;
        let run = world.run(wanted(1, NoticeClass::N15m), command("x")).await.expect("within the curve");
        world.pass().await;
        cloud.clock.advance(DurationMs::from_seconds(300));
        assert!(!see(&world.compute).await.is_fresh());
        assert_eq!(shown(&world, NoticeClass::N0).await, 0);
        assert!(refused(&world, 1, NoticeClass::N0).await.contains("is not known"));
        // Another process takes over from the rows alone, at once and with the same levels.
        let restarted = world.restarted();
        for _ in 0..3 {
            restarted.reconcile().await;
            cloud.clock.advance(DurationMs::from_seconds(1));
            world.runner.beat();
        }
        let after = see(&restarted).await;
        assert!(after.is_fresh());
        assert_eq!(levels(&after)[1], levels(&before)[1]);
        assert_eq!(world.lease(&run.lease.lease.id).await.lease.state, LeaseState::Active);
        world.assert_invariants().await;
    }

    async fn two_processes_publish_one_curve(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        let other = compute_on(&cloud.another(7).await, &world.runner);
        import(&world, 8, 6).await.expect("imported");
        set(&world, SellingMode::Learned).await;
        let mut decided = None;
        for second in 0..40 {
            let (one, two) = tokio::join!(world.compute.reconcile(), other.reconcile());
            assert_eq!((one.errors, two.errors), (Vec::new(), Vec::new()));
            let seen = see(&world.compute).await;
            assert_eq!(seen.curve, see(&other).await.curve);
            let at = seen.curve.map(|curve| curve.decided_at);
            assert!(at >= decided, "it never goes back");
            decided = at;
            // A row comes in between now and then, from outside.
            if second % 7 == 3 {
                let report = NewReport { pool: pool(), at: None, in_use: 1 + second % 3, queued: 0, valid: true, good_for: None };
                other.report_demand(&Actor::system(), &report).await.expect("heard");
            }
            cloud.clock.advance(DurationMs::from_millis(4_100));
            world.runner.beat();
        }
        assert!(decided.is_some());
        // Whoever begins anew says the same.
        let live = see(&world.compute).await.curve.expect("a curve");
        cloud.clock.advance(DurationMs::from_seconds(60));
        let fresh = world.restarted();
        for _ in 0..3 {
            fresh.reconcile().await;
            cloud.clock.advance(DurationMs::from_seconds(1));
        }
        let again = see(&fresh).await.curve.expect("a curve");
        assert!(again.decided_at > live.decided_at);
        // Now only the process that stayed decides.
        cloud.clock.advance(DurationMs::from_seconds(60));
        world.compute.reconcile().await;
        let kept = see(&world.compute).await.curve.expect("a curve");
        assert!(kept.decided_at > again.decided_at);
        assert!(kept.levels[0].units > 0);
        assert_eq!(again.levels[..2], kept.levels[..2], "a restart and a process that stayed agree");
    }

    async fn a_pass_that_is_cut_loses_no_row_and_no_curve(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        set(&world, SellingMode::Learned).await;
        let mut polls = 1;
        while see(&world.compute).await.curve.is_none() {
            cloud.clock.advance(DurationMs::from_seconds(1));
            CutShort::new(world.restarted().reconcile(), polls).await;
            polls += 1;
            assert!(polls < 1_000, "it is never published");
        }
        let rows = world.compute.list_demand(&Actor::system(), &pool(), Timestamp::EPOCH, 100).await.expect("rows");
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].capacity, rows[0].in_use, rows[0].valid), (4, 0, true));
    }

    async fn what_is_used_outside_is_recorded_and_not_sold(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        world.pass().await;
        let report = |in_use, at: Option<Timestamp>| NewReport { pool: pool(), at, in_use, queued: 2, valid: true, good_for: None };
        let say = async |new: NewReport| world.compute.report_demand(&Actor::system(), &new).await;
        let code = |result: Result<_>| result.map(|_| ()).expect_err("refused").code();
        assert_eq!(code(say(report(7, None)).await), ErrorCode::InvalidRequest);
        let late = Some(world.now().plus(DurationMs::from_seconds(61)));
        assert_eq!(code(say(report(1, late)).await), ErrorCode::InvalidRequest);
        let at = Some(world.now());
        let first = say(report(4, at)).await.expect("heard");
        assert_eq!(say(report(4, at)).await.expect("the same"), first);
        assert_eq!(code(say(report(3, at)).await), ErrorCode::Conflict);
        let earlier = Some(world.now().minus(DurationMs::from_seconds(1)));
        assert_eq!(code(say(report(3, earlier)).await), ErrorCode::Conflict);
        let other = NewReport { pool: Pool { kind: "h100".parse().expect("a kind"), ..pool() }, ..report(1, None) };
        assert_eq!(code(say(other).await), ErrorCode::InvalidRequest);
        // In every mode.
        assert_eq!(shown(&world, NoticeClass::N24h).await, 2);
        assert!(refused(&world, 3, NoticeClass::N0).await.contains("uses 4 outside"));
        world.live(2, 1).await;
        let rows = || async { world.compute.list_demand(&Actor::system(), &pool(), Timestamp::EPOCH, 100).await.expect("rows") };
        assert_eq!(rows().await.iter().map(|row| (row.in_use, row.queued, row.valid)).collect::<Vec<_>>(), [(0, 0, true), (4, 2, true)]);
        // A team's job is demand, too; what only falls is written down once a minute.
        let run = world.run_as(&world.team, wanted(1, NoticeClass::N0), command("x")).await.expect("internal");
        world.live(2, 1).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.live(90, 1).await;
        // A report that is good for a while leaves a hole behind it.
        cloud.clock.advance(DurationMs::from_seconds(1));
        let short = NewReport { good_for: Some(DurationMs::from_seconds(30)), ..report(4, None) };
        say(short).await.expect("heard");
        world.live(40, 1).await;
        let seen = rows().await;
        let told: Vec<_> = seen.iter().map(|row| (row.in_use, row.valid)).collect();
        assert_eq!(told, [(0, true), (4, true), (5, true), (4, true), (4, false)]);
        assert!(seen[3].at_s >= seen[2].at_s + 60);
        world.assert_all_over().await;
    }

    async fn history_is_imported_once_and_before_what_was_seen(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        world.pass().await;
        let since = see(&world.compute).await.observed_from.expect("observed").seconds();
        let row = |at_s, in_use| DemandStep { at_s, capacity: 6, in_use, queued: 0, valid: true };
        let add = async |steps: &[DemandStep]| world.compute.import_demand(&Actor::system(), &pool(), steps).await;
        let code = |result: Result<usize>| result.expect_err("refused").code();
        let good = [row(since - 300, 1), row(since - 60, 2)];
        assert_eq!(add(&good).await.expect("new"), 2);
        assert_eq!(add(&good).await.expect("the same"), 0);
        assert_eq!(code(add(&[row(since - 60, 3)]).await), ErrorCode::Conflict);
        assert_eq!(code(add(&[row(since - 100, 3), row(since - 30, 3)]).await), ErrorCode::Conflict);
        assert_eq!(code(add(&[row(since, 1)]).await), ErrorCode::Conflict);
        assert_eq!(code(add(&[row(since - 9, 1), row(since - 9, 1)]).await), ErrorCode::InvalidRequest);
        assert_eq!(code(add(&[row(-1, 1)]).await), ErrorCode::InvalidRequest);
        assert_eq!(code(add(&[]).await), ErrorCode::InvalidRequest);
        let rows = world.compute.list_demand(&Actor::system(), &pool(), Timestamp::EPOCH, 100).await.expect("rows");
        assert_eq!(rows.iter().map(|row| row.at_s).collect::<Vec<_>>(), [since - 300, since - 60, since]);
    }
}
