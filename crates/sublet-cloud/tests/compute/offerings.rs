//! Device time that is sold to some, for a while, or not any more.

use sublet_cloud::Actor;
use sublet_cloud::offering::{InvitationState, NewOffering};
use sublet_cloud::quote::NewQuote;
use sublet_core::notice::NoticeClass;
use sublet_core::offering::{OfferingChange, OfferingState, Product};
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, ErrorCode, Timestamp};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;

use crate::world::{World, command, wanted};

async fn say(world: &World<'_>, product: &str, state: OfferingState, ends_at: Option<Timestamp>) {
    let successor = ends_at.map(|_| "device/h100".parse::<Product>().expect("a product"));
    let change = OfferingChange { state, ends_at, successor };
    let new = NewOffering { product: product.parse().expect("a product"), change, used_within_days: None, note: String::new() };
    world.cloud.cloud.set_offering(&Actor::system(), &new).await.expect("it is said");
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
        assert_eq!(seen(&world, &world.team).await, []);
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
        assert_eq!(seen(&world, &world.customer).await, []);
        // What was begun ends as it was agreed.
        world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
        assert_eq!(world.job(&run.job.job.id).await.job.state, sublet_core::job::JobState::Succeeded);
        world.assert_all_over().await;
    }
}
