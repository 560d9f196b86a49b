//! What is not known of the owner's demand: time in which nobody looked, classes of which too little was seen, and devices
//! of which only the number is known. Nothing is sold for it, and nobody ends for it.

use sublet_cloud::Actor;
use sublet_cloud::compute::Compute;
use sublet_cloud::data::{DemandStep, Pool, SellingMode};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::{DeviceInfo, Exit};
use sublet_core::{DurationMs, ErrorCode, Timestamp};
use sublet_store::device;
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::{FakeRunner, Manners, cpu_slots, sandbox};

use crate::idle::{import, learned, levels, outside, pool, refused, see, set, shown};
use crate::world::{World, command, compute_on, wanted};

async fn rows(compute: &Compute) -> Vec<DemandStep> {
    let mut rows = compute.list_demand(&Actor::system(), &pool(), Timestamp::EPOCH, 10_000).await.expect("rows");
    let from = see(compute).await.observed_from.expect("observed").seconds();
    rows.retain(|row| row.at_s >= from);
    rows
}

/// Some passes of a process that has forgotten everything, within as many seconds.
async fn begun_anew(world: &World<'_>) -> Compute {
    let restarted = world.restarted();
    for _ in 0..3 {
        world.runner.beat();
        assert_eq!(restarted.reconcile().await.errors, Vec::new());
        world.cloud.clock.advance(DurationMs::from_seconds(1));
    }
    restarted
}

on_both_databases! {
    async fn time_in_which_nobody_looked_is_a_hole_and_what_is_needed_behind_it_is_given_back_at_once(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        import(&world, 14, 6).await.expect("imported");
        set(&world, SellingMode::Learned).await;
        learned(&world).await;
        let quarter = world.run(wanted(1, NoticeClass::N15m), command("x")).await.expect("within the curve").lease.lease.id;
        let spot = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("within the curve").lease.lease.id;
        world.live(70, 10).await;
        // Nobody looked for a while, but not for long.
        cloud.clock.advance(DurationMs::from_seconds(200));
        begun_anew(&world).await;
        assert!(rows(&world.compute).await.iter().all(|row| row.valid));
        let looked = world.now();
        cloud.clock.advance(DurationMs::from_seconds(420));
        let restarted = begun_anew(&world).await;
        let seen = rows(&restarted).await;
        let [.., hole, after] = seen.as_slice() else { panic!("{seen:?}") };
        assert!(!hole.valid && after.valid, "{seen:?}");
        assert!((looked.seconds() - 62..=looked.seconds()).contains(&hole.at_s), "{hole:?} at {looked}");
        assert!(after.at_s >= looked.seconds() + 420);
        let statement = see(&restarted).await;
        assert!(statement.is_fresh());
        assert_eq!(levels(&statement), [0; 6]);
        assert!(refused(&world, 1, NoticeClass::N0).await.contains("ended and began again"));
        // Nobody ends for that alone, and the hole is written down once.
        world.live(90, 10).await;
        for id in [&quarter, &spot] {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Active);
        }
        assert_eq!(rows(&world.compute).await.iter().filter(|row| !row.valid).count(), 1);
        // Demand rises behind the hole: what is needed goes, and no more.
        outside(&world, 5).await;
        world.live(2, 1).await;
        assert_eq!(world.lease(&spot).await.lease.state, LeaseState::Ended { reason: EndReason::Reclaimed });
        assert_eq!(world.lease(&quarter).await.lease.state, LeaseState::Active, "one unit is not needed");
        outside(&world, 6).await;
        world.live(2, 1).await;
        assert!(matches!(world.lease(&quarter).await.lease.state, LeaseState::Ending { reason: EndReason::Reclaimed, .. }));
        world.assert_invariants().await;
    }

    async fn a_class_that_is_not_trusted_yet_is_not_sold_and_its_leases_end_only_if_they_are_needed(cloud: &TestCloud) {
        let world = World::start(cloud, 12, Manners::Prompt).await;
        let hour = world.run(wanted(2, NoticeClass::N1h), command("x")).await.expect("by the reserve rule").lease.lease.id;
        let day = world.run(wanted(1, NoticeClass::N24h), command("x")).await.expect("by the reserve rule").lease.lease.id;
        world.live(60, 20).await;
        import(&world, 30, 12).await.expect("imported");
        set(&world, SellingMode::Learned).await;
        let seen = learned(&world).await;
        assert!(levels(&seen)[2] > 3 && levels(&seen)[3..] == [0, 0, 0], "{seen:?}");
        assert!(refused(&world, 1, NoticeClass::N1h).await.contains("no rule has shown yet"));
        world.live(180, 30).await;
        for id in [&hour, &day] {
            assert_eq!(world.lease(id).await.lease.state, LeaseState::Active, "little was seen, and nothing is needed");
        }
        outside(&world, 10).await;
        let told_at = world.now();
        world.live(2, 1).await;
        let LeaseState::Ending { reason, deadline } = world.lease(&hour).await.lease.state else { panic!("it is needed") };
        assert_eq!(reason, EndReason::Reclaimed);
        assert!(deadline.since(told_at) >= DurationMs::from_hours(1));
        assert_eq!(world.lease(&day).await.lease.state, LeaseState::Active, "two units are left, and it has one");
    }

    async fn cordoned_devices_that_are_used_outside_count_once_and_nobody_gets_more_than_is_left(cloud: &TestCloud) {
        let world = World::start(cloud, 6, Manners::Prompt).await;
        let devices = cloud.cloud.store().read((), |(), tx| Box::pin(device::list_all(tx))).await.expect("devices");
        for device in devices.iter().take(3) {
            world.compute.cordon_device(&Actor::system(), &device.id).await.expect("kept out of sale");
        }
        world.pass().await;
        outside(&world, 3).await;
        world.live(2, 1).await;
        assert_eq!(shown(&world, NoticeClass::N2m).await, 3, "which devices those are is known");
        let last = *rows(&world.compute).await.last().expect("a row");
        assert_eq!((last.capacity, last.in_use), (3, 0));
        outside(&world, 4).await;
        world.live(2, 1).await;
        assert_eq!(shown(&world, NoticeClass::N2m).await, 2);
        let last = *rows(&world.compute).await.last().expect("a row");
        assert_eq!((last.capacity, last.in_use), (3, 1));
        // Teams get no device that may be occupied either.
        let refused = world.run_as(&world.team, wanted(3, NoticeClass::N0), command("team")).await.expect_err("one is occupied");
        assert_eq!(refused.code(), ErrorCode::CapacityUnavailable);
        world.run_as(&world.team, wanted(2, NoticeClass::N0), command("team")).await.expect("as many as are left");
        assert_eq!(shown(&world, NoticeClass::N2m).await, 0);
        world.runner.live().iter().for_each(|id| world.runner.exit(id, Exit::Code { code: 0 }));
        world.live(2, 1).await;
    }

    async fn a_pass_learns_no_more_of_many_pools_than_of_one(cloud: &TestCloud) {
        let kinds = ["cpu", "h100", "a100"];
        let slot = |(place, info): (usize, DeviceInfo)| DeviceInfo { kind: kinds[place / 2].to_owned(), ..info };
        let slots = cpu_slots(6).into_iter().enumerate().map(slot).collect();
        let runner = FakeRunner::new(cloud.clock.clone(), slots, sandbox(), Manners::Prompt);
        let compute = compute_on(&cloud.cloud, &runner);
        compute.register_devices().await.expect("registered");
        let now_s = cloud.now().seconds();
        // Each has more to decide than half of what a pass may.
        let row = |hour: i64| DemandStep { at_s: now_s - 60 - hour * 3_600, capacity: 2, in_use: u32::from(hour % 5 == 0), queued: 0, valid: true };
        let steps: Vec<DemandStep> = (1..=50).rev().map(row).collect();
        for kind in kinds {
            let pool = Pool { kind: kind.parse().expect("a kind"), ..pool() };
            compute.import_demand(&Actor::system(), &pool, &steps).await.expect("imported");
        }
        compute.set_selling_mode(&Actor::system(), SellingMode::Shadow).await.expect("set");
        let mut fresh = Vec::new();
        for _ in 0..4 {
            cloud.clock.advance(DurationMs::from_seconds(1));
            assert_eq!(compute.reconcile().await.errors, Vec::new());
            fresh.push(compute.list_pools(&Actor::system()).await.expect("pools").iter().filter(|pool| pool.is_fresh()).count());
        }
        assert!(fresh[0] < 3, "9,000 decisions are more than a pass makes: {fresh:?}");
        assert_eq!(fresh[3], 3, "each had its turn: {fresh:?}");
        // Who has heard everything stays so, pass by pass.
        for _ in 0..3 {
            cloud.clock.advance(DurationMs::from_seconds(60));
            assert_eq!(compute.reconcile().await.errors, Vec::new());
            let pools = compute.list_pools(&Actor::system()).await.expect("pools");
            assert!(pools.iter().all(|pool| pool.curve.is_some_and(|curve| cloud.now().since(curve.decided_at) < DurationMs::from_seconds(60))));
        }
    }
}
