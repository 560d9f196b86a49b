//! The coming hours, as the owner and as customers see them.

use sublet_cloud::Actor;
use sublet_cloud::calendar::{PoolCalendar, SkuCalendar, Wanted};
use sublet_cloud::data::{Bucket, Need};
use sublet_cloud::idempotency::Call;
use sublet_cloud::quote::NewQuote;
use sublet_cloud::reclaim::NewReclaim;
use sublet_core::notice::NoticeClass;
use sublet_core::reclaim::{Promises, ReclaimShape};
use sublet_core::{DurationMs, ErrorCode};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::created;

use crate::world::{World, wanted};

async fn hours(world: &World<'_>, hours: usize) -> PoolCalendar {
    world.compute.capacity_calendar(&Actor::system(), Some(hours)).await.expect("a calendar").remove(0)
}

async fn shown(world: &World<'_>, viewer: &Actor, notice: NoticeClass) -> SkuCalendar {
    let wanted = Wanted { notice: Some(notice), hours: Some(40), ..Wanted::default() };
    let mut made = world.compute.availability_calendar(viewer, &wanted).await.expect("a calendar");
    assert_eq!(made.len(), 1);
    made.remove(0)
}

on_both_databases! {
    async fn leases_and_orders_are_in_the_coming_hours_and_customers_see_steps(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let day = NewQuote { max_duration: Some(DurationMs::from_hours(30)), ..wanted(2, NoticeClass::N24h) };
        world.accept(&world.quote(&day).await.expect("a quote")).await.expect("a lease");
        let own = hours(&world, 40).await.hours;
        let units = |hour: usize| (own[hour].owned, own[hour].internal, own[hour].sold_total(), own[hour].idle, own[hour].free);
        assert_eq!((units(0), units(28), units(31)), ((4, 0, 2, 2, 2), (4, 0, 2, 2, 2), (4, 0, 0, 4, 4)));
        let levels = shown(&world, &world.team, NoticeClass::N2m).await.levels;
        assert_eq!((levels[0], levels[28], levels[31]), (Bucket::Medium, Bucket::Medium, Bucket::High));
        // In so small a pool a step would tell a customer when another one leaves.
        let levels = shown(&world, &world.customer, NoticeClass::N2m).await.levels;
        assert!(levels.iter().all(|level| *level == Bucket::Low), "{levels:?}");
        // The owner takes one of the two that are free, for six hours.
        let need = Need {
            kind: "cpu".parse().expect("a kind"),
            units: 1,
            site: None,
            shape: ReclaimShape::Anywhere,
            by: world.now().plus(DurationMs::from_hours(1)),
            promises: Promises::Kept,
        };
        let until = world.now().plus(DurationMs::from_hours(7));
        let order = NewReclaim { need, until: Some(until) };
        created(world.compute.place_reclaim(&Call::once(Actor::system()), &order, &|_| Ok(String::new())).await);
        let own = hours(&world, 40).await.hours;
        assert!(own.iter().all(|hour| hour.internal == u32::from(hour.at < until)), "{own:?}");
        assert_eq!(shown(&world, &world.customer, NoticeClass::N2m).await.levels[0], Bucket::Low);
        for hour in &own {
            assert_eq!(hour.owned, hour.unhealthy + hour.internal + hour.sold_total() + hour.idle);
        }
    }

    async fn calendars_are_bounded_and_the_owner_s_is_the_owner_s(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        for wrong in [0, 337] {
            let error = world.compute.capacity_calendar(&Actor::system(), Some(wrong)).await.expect_err("too many or none");
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("hours")));
            let wanted = Wanted { hours: Some(wrong), ..Wanted::default() };
            world.compute.availability_calendar(&world.customer, &wanted).await.expect_err("too many or none");
        }
        assert_eq!(hours(&world, 336).await.hours.len(), 336);
        assert!(world.compute.capacity_calendar(&world.customer, None).await.is_err());
        let all = world.compute.availability_calendar(&world.customer, &Wanted::default()).await.expect("a calendar");
        assert_eq!((all.len(), all[0].levels.len()), (NoticeClass::ALL.len(), 48));
        let elsewhere = Wanted { site: Some("site_elsewhere".parse().expect("a site")), ..Wanted::default() };
        assert_eq!(world.compute.availability_calendar(&world.customer, &elsewhere).await.expect("a calendar"), []);
    }
}
