//! Device time that is sold to some, for a while, or not any more.

use sublet_cloud::Actor;
use sublet_cloud::offering::{InvitationState, NewOffering, OfferingRecord};
use sublet_cloud::quote::NewQuote;
use sublet_core::notice::NoticeClass;
use sublet_core::offering::{OfferingChange, OfferingState, Product};
use sublet_core::runner::{DeviceInfo, Exit};
use sublet_core::{DurationMs, ErrorCode, Timestamp};
use sublet_money::price_book::PriceEntry;
use sublet_money::sku::SkuName;
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::republish;
use sublet_testkit::runner::{Manners, cpu_slots};

use crate::world::{World, command, wanted};

fn new(product: &str, state: OfferingState, ends_at: Option<Timestamp>) -> NewOffering {
    let successor = ends_at.map(|_| "device/h100".parse::<Product>().expect("a product"));
    let change = OfferingChange { state, ends_at, successor };
    NewOffering { product: product.parse().expect("a product"), change, used_within_days: None, note: String::new() }
}

async fn set(world: &World<'_>, new: &NewOffering) -> OfferingRecord {
    world.cloud.cloud.set_offering(&Actor::system(), new).await.expect("it is said")
}

async fn say(world: &World<'_>, product: &str, state: OfferingState, ends_at: Option<Timestamp>) {
    set(world, &new(product, state, ends_at)).await;
}

/// Kinds of devices of which somebody may know.
async fn known(world: &World<'_>, actor: &Actor) -> Vec<String> {
    let kinds = world.compute.list_kinds(actor).await.expect("kinds");
    kinds.iter().map(ToString::to_string).collect()
}

/// Notices at which a customer sees device time.
async fn seen(world: &World<'_>, actor: &Actor) -> Vec<NoticeClass> {
    let rows = world.compute.list_availability(actor).await.expect("rows");
    rows.into_iter().map(|row| row.notice).collect()
}

fn for_minutes(minutes: i64) -> NewQuote {
    NewQuote { max_duration: Some(DurationMs::from_seconds(60 * minutes)), ..wanted(1, NoticeClass::N0) }
}

on_both_databases! {
    async fn what_is_hidden_is_neither_shown_nor_leased_and_refused_as_what_has_no_price(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        say(&world, "device/cpu", OfferingState::Draft, None).await;
        say(&world, "device/n0/cpu", OfferingState::Invited, None).await;
        assert_eq!(seen(&world, &world.customer).await, []);
        assert_eq!(known(&world, &world.customer).await, [""; 0]);
        assert_eq!(known(&world, &Actor::system()).await, ["cpu"]);
        assert_eq!(seen(&world, &Actor::system()).await.len(), 6, "the operator sees what is not sold yet");
        for notice in [NoticeClass::N0, NoticeClass::N1h] {
            let refused = world.quote(&wanted(1, notice)).await.expect_err("hidden");
            let unpriced = format!("device/{notice}/cpu has no price in the list in force");
            assert_eq!((refused.code(), refused.message()), (ErrorCode::UnknownPrice, unpriced.as_str()));
        }
        let refused = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect_err("a job is a lease too");
        assert_eq!(refused.code(), ErrorCode::UnknownPrice);
        let (organization, _) = world.customer.project().expect("a project");
        let product = "device/n0/cpu".parse().expect("a product");
        cloud.cloud.set_invitation(&Actor::system(), &product, organization, InvitationState::Invited).await.expect("invited");
        assert_eq!(seen(&world, &world.customer).await, [NoticeClass::N0], "the more exact offering counts alone");
        assert_eq!(seen(&world, &world.team).await, []);
        let quote = world.quote(&for_minutes(10)).await.expect("a quote");
        cloud.cloud.set_invitation(&Actor::system(), &product, organization, InvitationState::Withdrawn).await.expect("withdrawn");
        assert_eq!(world.accept(&quote).await.expect_err("asked again").code(), ErrorCode::UnknownPrice);
        cloud.cloud.set_invitation(&Actor::system(), &product, organization, InvitationState::Invited).await.expect("invited");
        let lease = world.accept(&quote).await.expect("a lease").lease;
        world.compute.end_lease(&world.customer, &lease.id, None).await.expect("ended");
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn what_retires_is_leased_by_its_users_until_its_end_and_what_runs_goes_on(cloud: &TestCloud) {
        let world = World::start(cloud, 4, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        let end = cloud.now().plus(DurationMs::from_seconds(1_200));
        say(&world, "device/cpu", OfferingState::Retiring, Some(end)).await;
        // The lease makes its organization a user, though nothing was charged yet.
        assert_eq!(seen(&world, &world.customer).await.len(), 6);
        assert_eq!((seen(&world, &world.team).await, known(&world, &world.team).await), (vec![], vec!["cpu".to_owned()]));
        let refused = world.run_as(&world.team, for_minutes(10), command("x")).await.expect_err("a new user");
        assert_eq!((refused.code(), refused.alternatives()), (ErrorCode::PolicyRefused, &["device/h100".to_owned()][..]));
        for too_long in [wanted(1, NoticeClass::N0), for_minutes(21)] {
            let refused = world.quote(&too_long).await.expect_err("longer than it is sold");
            assert_eq!((refused.code(), refused.param_name()), (ErrorCode::PolicyRefused, Some("maximum_seconds")));
        }
        let lease = world.accept(&world.quote(&for_minutes(19)).await.expect("a quote")).await.expect("a lease").lease;
        world.compute.end_lease(&world.customer, &lease.id, None).await.expect("ended");
        world.live(1_300, 20).await;
        let refused = world.quote(&for_minutes(1)).await.expect_err("retired");
        assert!(refused.code() == ErrorCode::PolicyRefused && refused.message().contains("was retired at"), "{refused}");
        assert_eq!((seen(&world, &world.customer).await, known(&world, &world.team).await), (vec![], vec!["cpu".to_owned()]));
        // What was begun ends as it was agreed.
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        assert_eq!(world.job(&run.job.job.id).await.job.state, sublet_core::job::JobState::Succeeded);
        world.assert_all_over().await;
    }

    async fn what_is_said_of_one_notice_tells_nobody_else_of_an_invited_kind(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        say(&world, "device/cpu", OfferingState::Invited, None).await;
        let (organization, _) = world.customer.project().expect("a project");
        let (kind, invited) = ("device/cpu".parse().expect("a product"), InvitationState::Invited);
        cloud.cloud.set_invitation(&Actor::system(), &kind, organization, invited).await.expect("invited");
        let run = world.run(wanted(1, NoticeClass::N2m), command("long")).await.expect("a run");
        world.pass().await;
        say(&world, "device/n2m/cpu", OfferingState::Retiring, Some(cloud.now().plus(DurationMs::from_hours(5)))).await;
        assert_eq!(seen(&world, &world.customer).await.len(), 6, "it may go on at that notice");
        assert_eq!((seen(&world, &world.team).await, known(&world, &world.team).await), (vec![], vec![]));
        let refused = world.run_as(&world.team, wanted(1, NoticeClass::N2m), command("x")).await.expect_err("hidden");
        assert_eq!((refused.code(), refused.alternatives()), (ErrorCode::UnknownPrice, &[][..]));
        say(&world, "device/n2m/cpu", OfferingState::Retired, None).await;
        assert_eq!(known(&world, &world.team).await, [""; 0]);
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        world.assert_all_over().await;
    }

    async fn users_of_a_kind_that_retires_go_on_at_a_notice_that_retires_at_another_time(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let run = world.run(wanted(1, NoticeClass::N0), command("x")).await.expect("a run");
        world.pass().await;
        say(&world, "device/cpu", OfferingState::Retiring, Some(cloud.now().plus(DurationMs::from_hours(24 * 30)))).await;
        world.live(60, 20).await;
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        world.live(20, 20).await;
        world.assert_all_over().await;
        cloud.clock.advance(DurationMs::from_hours(24 * 9));
        let sooner = new("device/n0/cpu", OfferingState::Retiring, Some(cloud.now().plus(DurationMs::from_hours(24))));
        let record = set(&world, &NewOffering { used_within_days: Some(1), ..sooner }).await;
        assert_eq!((record.users, seen(&world, &world.customer).await.len()), (1, 6), "however long they paused");
        assert_eq!(seen(&world, &world.team).await, []);
    }

    async fn refusals_name_kinds_that_are_sold_to_the_caller_alone(cloud: &TestCloud) {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let other = DeviceInfo { name: "slot-1".to_owned(), kind: "h100".to_owned(), uuid: "h100-1".to_owned(), ..cpu_slots(1).remove(0) };
        world.runner.set_devices(cpu_slots(1).into_iter().chain([other]).collect());
        world.compute.register_devices().await.expect("the devices are registered");
        let quote = world.quote(&wanted(1, NoticeClass::N0)).await.expect("a quote");
        let lease = world.accept(&world.quote(&wanted(1, NoticeClass::N0)).await.expect("a quote")).await.expect("a lease").lease;
        let elsewhere = NewQuote { kind: "b200".parse().expect("a kind"), ..wanted(1, NoticeClass::N0) };
        let told = async || {
            let quoted = world.quote(&wanted(1, NoticeClass::N0)).await.expect_err("none is free");
            let accepted = world.accept(&quote).await.expect_err("none is free");
            assert_eq!((quoted.code(), accepted.code()), (ErrorCode::CapacityUnavailable, ErrorCode::CapacityUnavailable));
            let named = |error: &sublet_core::Error| error.alternatives().iter().any(|alternative| alternative.contains("h100"));
            let unknown = world.quote(&elsewhere).await.expect_err("there is none");
            let (_, kinds) = unknown.message().split_once("there are: ").expect("the kinds");
            assert_eq!(named(&quoted), named(&accepted), "a quote that is taken too late is refused likewise");
            (named(&quoted), kinds.to_owned())
        };
        assert_eq!(told().await, (false, "cpu".to_owned()), "what has no price is not sold");
        let sold = |entry: &PriceEntry| match &entry.sku {
            SkuName::Device { notice: NoticeClass::N24h, .. } => {
                PriceEntry::new("device/n0/h100".parse().expect("a sku"), entry.model.clone())
            }
            _ => entry.clone(),
        };
        republish(&cloud.cloud, &cloud.clock, sold).await;
        assert_eq!(told().await, (true, "cpu, h100".to_owned()));
        say(&world, "device/h100", OfferingState::Draft, None).await;
        assert_eq!(told().await, (false, "cpu".to_owned()));
        say(&world, "device/n0/h100", OfferingState::Invited, None).await;
        assert_eq!(told().await, (false, "cpu".to_owned()));
        let (organization, _) = world.customer.project().expect("a project");
        let product = "device/n0/h100".parse().expect("a product");
        cloud.cloud.set_invitation(&Actor::system(), &product, organization, InvitationState::Invited).await.expect("invited");
        assert_eq!(told().await, (true, "cpu, h100".to_owned()));
        world.compute.end_lease(&world.customer, &lease.id, None).await.expect("ended");
        world.pass().await;
        world.assert_all_over().await;
    }
}
