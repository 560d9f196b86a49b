//! How the end of a lease reaches programs of its holder: by an answer that they wait for, and by webhooks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use sublet_cloud::compute::Compute;
use sublet_cloud::data::{WebhookEndpoint, WebhookEvent};
use sublet_cloud::idempotency::Call;
use sublet_cloud::lease_notice::{NoticeStatement, NoticeWait, WAIT_MAX, WAITS_OF_ONE_MAX};
use sublet_cloud::webhook::NewWebhookEndpoint;
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::id::LeaseId;
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, ErrorCode, Result};
use sublet_testkit::on_both_databases;
use sublet_testkit::runner::Manners;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::webhook::{FakeEndpoint, PostedEvent, webhook_port};
use tokio::task::JoinHandle;

use crate::early::take;
use crate::world::{World, command, compute_on, wanted};

async fn running(world: &World<'_>) -> LeaseId {
    let run = world.run(wanted(2, NoticeClass::N2m), command("x")).await.expect("a run");
    world.pass().await;
    world.live(60, 20).await;
    run.lease.lease.id
}

async fn notice(compute: &Compute, actor: &Actor, id: &LeaseId, after: u64) -> NoticeStatement {
    compute.lease_notice(actor, id, NoticeWait { wait: DurationMs::ZERO, after }).await.expect("an answer")
}

/// Somebody who waits as long as may be.
fn waiting(compute: &Compute, actor: &Actor, id: &LeaseId, after: u64) -> JoinHandle<Result<NoticeStatement>> {
    let (compute, actor, id) = (compute.clone(), actor.clone(), id.clone());
    tokio::spawn(async move { compute.lease_notice(&actor, &id, NoticeWait { wait: WAIT_MAX, after }).await })
}

async fn until_they_wait(compute: &Compute, count: usize) {
    while compute.waits_for_notices() != count {
        tokio::task::yield_now().await;
    }
}

async fn endpoint(cloud: &Cloud, admin: &Actor, fake: &FakeEndpoint, events: &[WebhookEvent]) -> Result<WebhookEndpoint> {
    let new = NewWebhookEndpoint { url: fake.url(), events: events.iter().copied().collect::<BTreeSet<_>>() };
    Ok(created(Ok(cloud.create_webhook_endpoint(&Call::once(admin.clone()), &new, &|_| Ok(String::new())).await?)))
}

fn kinds(events: &[PostedEvent]) -> Vec<Value> {
    let mut kinds: Vec<Value> = events.iter().map(|event| event.json()["type"].clone()).collect();
    kinds.sort_by_key(ToString::to_string);
    kinds
}

on_both_databases! {
    async fn who_waits_for_a_notice_hears_of_it_in_the_pass_that_tells_it(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world).await;
        let none = notice(&world.compute, &world.customer, &id, 0).await;
        assert_eq!((none.generation, none.reason, none.deadline, none.lease.state), (0, None, None, LeaseState::Active));
        let waiters = [waiting(&world.compute, &world.customer, &id, 0), waiting(&world.compute, &world.customer, &id, 0)];
        until_they_wait(&world.compute, 2).await;
        // Passes that tell nothing wake nobody.
        world.live(20, 10).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        let told_at = world.now();
        take(&world).await;
        for waiter in waiters {
            let told = waiter.await.expect("no panic").expect("an answer");
            let deadline = told_at.plus(DurationMs::from_seconds(120));
            assert_eq!((told.generation, told.reason, told.told_at), (1, Some(EndReason::Reclaimed), Some(told_at)));
            assert_eq!(told.deadline, Some(deadline));
        }
        assert_eq!(world.compute.waits_for_notices(), 0);
        assert_eq!(notice(&world.compute, &world.customer, &id, 0).await.generation, 1, "who asks later is told at once");
        // Who knows it already waits for what comes after: that it is over.
        let waiter = waiting(&world.compute, &world.customer, &id, 1);
        until_they_wait(&world.compute, 1).await;
        world.compute.yield_lease(&world.customer, &id).await.expect("given back");
        world.pass().await;
        world.pass().await;
        let over = waiter.await.expect("no panic").expect("an answer");
        assert_eq!((over.generation, over.lease.state), (1, LeaseState::Ended { reason: EndReason::Reclaimed }));
    }

    async fn who_waits_at_another_process_hears_of_it_at_its_next_look(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world).await;
        let gateway = compute_on(&cloud.cloud, &world.runner);
        let waiters = [0, 0, 0].map(|after| waiting(&gateway, &world.customer, &id, after));
        until_they_wait(&gateway, 3).await;
        take(&world).await;
        gateway.look_for_notices().await.expect("a look");
        for waiter in waiters {
            assert_eq!(waiter.await.expect("no panic").expect("an answer").generation, 1);
        }
    }

    async fn of_all_who_wait_at_a_process_without_passes_one_looks(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world).await;
        let gateway = compute_on(&cloud.cloud, &world.runner);
        let first = waiting(&gateway, &world.customer, &id, 0);
        until_they_wait(&gateway, 1).await;
        let second = waiting(&gateway, &world.customer, &id, 0);
        until_they_wait(&gateway, 2).await;
        // Who looked goes away: it is the other's turn.
        first.abort();
        until_they_wait(&gateway, 1).await;
        take(&world).await;
        let half = WAIT_MAX.to_std() / 2;
        let told = tokio::time::timeout(half, second).await.expect("long before its wait is over");
        assert_eq!(told.expect("no panic").expect("an answer").generation, 1);
    }

    async fn waits_have_bounds_and_others_leases_are_not_found(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world).await;
        let long = NoticeWait { wait: DurationMs::from_seconds(61), after: 0 };
        let refused = world.compute.lease_notice(&world.customer, &id, long).await.expect_err("too long");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::InvalidRequest, Some("wait_s")));
        let stranger = world.compute.lease_notice(&world.team, &id, NoticeWait::default()).await.expect_err("another's");
        assert_eq!(stranger.code(), ErrorCode::NotFound);
        let waiters: Vec<_> = (0..WAITS_OF_ONE_MAX).map(|_| waiting(&world.compute, &world.customer, &id, 0)).collect();
        until_they_wait(&world.compute, WAITS_OF_ONE_MAX).await;
        let short = NoticeWait { wait: DurationMs::from_seconds(1), after: 0 };
        let refused = world.compute.lease_notice(&world.customer, &id, short).await.expect_err("one too many");
        assert_eq!((refused.code(), refused.alternatives().len()), (ErrorCode::ConcurrencyExceeded, 1));
        assert_eq!(notice(&world.compute, &world.customer, &id, 0).await.generation, 0, "who does not wait is answered");
        for waiter in waiters {
            waiter.abort();
        }
        until_they_wait(&world.compute, 0).await;
    }

    async fn notices_and_ends_are_posted_to_who_asked_for_them_once(cloud: &TestCloud) {
        let webhooks = Some(webhook_port(Arc::clone(cloud.cloud.clock()), true));
        let process = cloud.with(7, CloudSettings { webhooks, ..CloudSettings::default() }).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let fakes = [FakeEndpoint::start(), FakeEndpoint::start(), FakeEndpoint::start()];
        let both = [WebhookEvent::LeaseNotice, WebhookEvent::LeaseEnded];
        let asked = endpoint(&process, &admin, &fakes[0], &both).await.expect("an endpoint");
        endpoint(&process, &admin, &fakes[1], &[WebhookEvent::SpendAlertCreated]).await.expect("an endpoint");
        endpoint(&process, &admin, &fakes[2], &[WebhookEvent::LeaseEnded]).await.expect("an endpoint");
        let nothing = endpoint(&process, &admin, &fakes[0], &[]).await.expect_err("no events");
        assert_eq!(nothing.param_name(), Some("events"));
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let id = running(&world).await;
        let told_at = world.now();
        take(&world).await;
        process.reconcile_webhooks().await.expect("posted");
        let [event] = &fakes[0].take()[..] else { panic!("one event") };
        assert!(event.is_signed_with(asked.secret.reveal()));
        let said = event.json();
        let deadline = told_at.plus(DurationMs::from_seconds(120)).to_string();
        let end_reason = EndReason::Reclaimed.explanation();
        let (project, told) = (world.lease(&id).await.lease.project, told_at.to_string());
        let data = json!({
            "object": "lease.notice", "lease": id, "project": project, "status": "ending", "generation": 1,
            "reason": "reclaimed", "end_reason": end_reason, "told_at": told, "deadline": deadline,
        });
        assert_eq!((&said["type"], &said["data"]), (&json!("lease.notice"), &data));
        world.live(20, 5).await;
        let attempt = world.runner.live().remove(0);
        world.runner.exit(&attempt, Exit::Code { code: 75 });
        let other = compute_on(&cloud.cloud, &world.runner);
        for _ in 0..3 {
            tokio::join!(world.compute.reconcile(), other.reconcile());
        }
        for _ in 0..2 {
            process.reconcile_webhooks().await.expect("posted");
        }
        for fake in [&fakes[0], &fakes[2]] {
            let events = fake.take();
            assert_eq!(kinds(&events), ["lease.ended"]);
            let said = events[0].json()["data"].clone();
            let lease = world.lease(&id).await;
            assert_eq!((&said["id"], &said["reason"]), (&json!(id), &json!("reclaimed")));
            assert_eq!(said["early_credit"]["amount"], lease.early_credit.expect("a credit").to_string());
            assert_eq!((&said["cost"]["amount"], &said["made_good"]), (&json!(lease.lease.cost.to_string()), &Value::Null));
        }
        assert_eq!(fakes[1].take(), []);
        // What its holder ends is no notice.
        world.end_all().await;
        let own = running(&world).await;
        world.compute.end_lease(&world.customer, &own, None).await.expect("ended");
        world.pass().await;
        world.pass().await;
        for _ in 0..2 {
            process.reconcile_webhooks().await.expect("posted");
        }
        assert_eq!(kinds(&fakes[0].take()), ["lease.ended"]);
        assert_eq!(kinds(&fakes[2].take()), ["lease.ended"]);
    }
}
