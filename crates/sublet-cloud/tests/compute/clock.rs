//! Clocks that are set right while something runs.

use sublet_core::DurationMs;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;

use crate::world::{World, command, cost, wanted};

on_both_databases! {
    async fn a_clock_that_is_set_back_sells_no_instant_of_a_device_twice(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let first = world.run(wanted(1, NoticeClass::N0), command("first")).await.expect("a run");
        world.pass().await;
        world.live(30, 10).await;
        world.runner.exit(&world.attempt(&first.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        let freed = world.now();
        cloud.clock.set(freed.minus(DurationMs::from_seconds(8)));
        let second = world.run(wanted(1, NoticeClass::N0), command("second")).await.expect("a run");
        world.pass().await;
        world.live(28, 7).await;
        world.runner.exit(&world.attempt(&second.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        assert_eq!(world.job(&second.job.job.id).await.cost, cost(NoticeClass::N0, 20_000), "from when the device was free");
        world.assert_all_over().await;
    }

    async fn what_was_charged_before_a_clock_was_set_back_is_not_sold_again(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let first = world.run(wanted(1, NoticeClass::N0), command("first")).await.expect("a run");
        world.pass().await;
        world.live(120, 10).await;
        let charged = world.job(&first.job.job.id).await.cost;
        cloud.clock.set(world.now().minus(DurationMs::from_seconds(40)));
        world.runner.exit(&world.attempt(&first.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        assert_eq!(world.job(&first.job.job.id).await.cost, charged, "it ended in the past");
        let second = world.run(wanted(1, NoticeClass::N0), command("second")).await.expect("a run");
        world.pass().await;
        world.live(60, 10).await;
        world.runner.exit(&world.attempt(&second.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        assert_eq!(charged, cost(NoticeClass::N0, 120_000));
        assert_eq!(world.job(&second.job.job.id).await.cost, cost(NoticeClass::N0, 20_000), "from when the device was free");
        world.assert_all_over().await;
    }
}
