//! Alerts as events that are posted: signed, at least once, within bounds, and never into this network unasked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sublet_cloud::data::{OutboxState, WebhookEndpoint, WebhookEvent, WebhookState};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::limit::{LimitChange, LimitSubject};
use sublet_cloud::webhook::{ATTEMPTS_MAX, NewWebhookEndpoint, QUEUED_MAX, WebhookDelivery, WebhookReport};
use sublet_cloud::{Actor, Cloud, CloudSettings};
use sublet_core::id::{OrganizationId, OutboxId, WebhookEndpointId};
use sublet_core::usage::UsageSink;
use sublet_core::webhook::{WebhookCall, WebhookFailure, WebhookPort, WebhookUrl};
use sublet_core::{BoxFuture, DurationMs, ErrorCode, Nanos, Result, Scope};
use sublet_money::spend_limit::{AlertBasis, AlertRule, AtLimit};
use sublet_store::budget::BudgetWindow;
use sublet_store::outbox::{self, Effect};
use sublet_store::{PageRequest, webhook};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::webhook::{FakeEndpoint, webhook_port};
use sublet_testkit::{TestCloud, on_both_databases};
use tokio::sync::{Notify, Semaphore};

/// What a million input tokens cost.
const MILLION: i64 = 150_000_000;
const MINUTE: DurationMs = DurationMs::from_seconds(60);
/// How many events of one tenant are on their way at once.
const TURNS: usize = 3;

/// A process that posts events, anywhere or only to the public internet.
async fn posting(cloud: &TestCloud, seed: u64, goes_anywhere: bool) -> Cloud {
    let webhooks = Some(webhook_port(Arc::clone(cloud.cloud.clock()), goes_anywhere));
    cloud.with(seed, CloudSettings { webhooks, ..CloudSettings::default() }).await
}

fn alerts_to(url: &WebhookUrl) -> NewWebhookEndpoint {
    NewWebhookEndpoint { url: url.clone(), events: BTreeSet::from([WebhookEvent::SpendAlertCreated]) }
}

async fn endpoint(cloud: &Cloud, admin: &Actor, url: &WebhookUrl) -> Result<WebhookEndpoint> {
    let answer = cloud.create_webhook_endpoint(&Call::once(admin.clone()), &alerts_to(url), &|_| Ok(String::new())).await?;
    Ok(created(Ok(answer)))
}

async fn deliveries(cloud: &Cloud, admin: &Actor, state: Option<OutboxState>) -> Vec<WebhookDelivery> {
    let page = PageRequest { limit: Some(100), ..PageRequest::default() };
    cloud.list_webhook_deliveries(admin, state, &page).await.expect("a page").items
}

/// Spends half of a limit of two million tokens, and has it told.
async fn tell_alert(cloud: &TestCloud) -> Session {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
    let alerts = Some(vec![AlertRule { basis: AlertBasis::Actual, percent: 50 }]);
    let change = LimitChange { amount: Nanos::new(2 * MILLION), at_limit: Some(AtLimit::Soft), alerts };
    let subject = LimitSubject::Project(session.access.project.clone());
    cloud.cloud.set_limit(&admin, &subject, BudgetWindow::Month, change).await.expect("the limit is set");
    let grant = session.grant(None, MILLION, MILLION).await.expect("credit is there");
    assert_eq!(session.cloud.settle(&[session.record(&grant.slice, 1_000_000, 0)]).await.expect("settled").settled, 1);
    cloud.clock.advance(MINUTE);
    assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 1);
    session
}

/// One that never answers hosts that are slow until it may, and tells when another was posted beside a tenant's turns.
struct Stuck {
    posted: Mutex<Vec<String>>,
    is_told: Notify,
    goes_on: Semaphore,
}

impl Stuck {
    fn hosts(&self) -> Vec<String> {
        self.posted.lock().expect("no panic").clone()
    }
}

impl WebhookPort for Stuck {
    fn post<'a>(&'a self, call: &'a WebhookCall) -> BoxFuture<'a, Result<u16, WebhookFailure>> {
        Box::pin(async move {
            self.posted.lock().expect("no panic").push(call.url.host().to_owned());
            let slow = self.hosts().iter().filter(|host| *host == "slow.example.com").count();
            // Posts begin in any order.
            if slow >= TURNS && slow < self.hosts().len() {
                self.is_told.notify_one();
            }
            if call.url.host() == "slow.example.com" {
                self.goes_on.acquire().await.expect("open").forget();
            }
            Ok(204)
        })
    }
    fn goes_anywhere(&self) -> bool {
        false
    }
}

/// Queues copies of an event for its endpoint.
async fn queue_more(cloud: &Cloud, of: (&OrganizationId, &WebhookEndpointId, &OutboxId), count: i64) {
    let write = cloud.store().write(of, move |(organization, endpoint, id), tx| {
        Box::pin(async move {
            let known = outbox::get(tx, &Scope::Operator, ("webhook", id)).await?.effect;
            for number in 0..count {
                let dedup_key = format!("spend_alert:{number}:{endpoint}");
                let id = format!("op_{}{number}", id.as_str().trim_start_matches("op_")).parse()?;
                let organization = Some((*organization).clone());
                outbox::enqueue(tx, &Effect { id, dedup_key, organization, ..known.clone() }).await?;
            }
            Ok(())
        })
    });
    write.await.expect("queued");
}

const fn report(delivered: u64, later: u64, failed: u64) -> WebhookReport {
    WebhookReport { delivered, later, failed }
}

on_both_databases! {
    async fn an_alert_is_posted_to_each_endpoint_signed_with_its_own_secret(cloud: &TestCloud) {
        let process = posting(cloud, 7, true).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let fake = [FakeEndpoint::start(), FakeEndpoint::start()];
        let [one, other] = [endpoint(&process, &admin, &fake[0].url()).await, endpoint(&process, &admin, &fake[1].url()).await]
            .map(|made| made.expect("an endpoint"));
        assert_ne!(one.secret, other.secret);
        let session = tell_alert(cloud).await;
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 0);
        fake[1].answer([500]);
        assert_eq!(process.reconcile_webhooks().await.expect("posted"), report(1, 1, 0));
        assert_eq!(process.reconcile_webhooks().await.expect("nothing is due"), report(0, 0, 0));
        let [event] = &fake[0].take()[..] else { panic!("one event") };
        assert!(event.is_signed_with(one.secret.reveal()) && !event.is_signed_with(other.secret.reveal()));
        let second = cloud.now().millis().div_euclid(1_000).to_string();
        assert_eq!((event.headers["webhook-timestamp"].as_str(), event.headers["content-type"].as_str()), (second.as_str(), "application/json"));
        let said = event.json();
        let alert = cloud.cloud.list_spend_alerts(&admin, &PageRequest::default()).await.expect("a page").items.remove(0);
        assert_eq!((said["type"].as_str(), said["data"]["id"].as_str()), (Some("spend_alert.created"), Some(alert.id.as_str())));
        let owner = serde_json::json!({ "kind": "project", "id": session.access.project });
        assert_eq!((&said["data"]["owner"], &said["data"]["percent"]), (&owner, &serde_json::json!(50)));
        assert_eq!(said["data"]["spent"], serde_json::json!({ "amount": "0.15", "currency": "EUR" }));
        // Posted again it is the same event, signed at another time.
        let [first] = &fake[1].take()[..] else { panic!("one event") };
        cloud.clock.advance(MINUTE);
        assert_eq!(process.reconcile_webhooks().await.expect("posted"), report(1, 0, 0));
        let [again] = &fake[1].take()[..] else { panic!("one event") };
        assert_eq!((&again.body, &again.headers["webhook-id"]), (&first.body, &first.headers["webhook-id"]));
        assert_ne!(again.headers["webhook-timestamp"], first.headers["webhook-timestamp"]);
        assert!(again.is_signed_with(other.secret.reveal()));
        let listed = deliveries(&process, &admin, Some(OutboxState::Done)).await;
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|delivery| delivery.outcome.as_deref() == Some("status 204")));
        let known: Vec<&str> = listed.iter().map(|delivery| delivery.id.as_str()).collect();
        assert!(known.contains(&first.headers["webhook-id"].as_str()));
    }

    async fn what_nobody_takes_is_given_up_and_can_be_posted_again(cloud: &TestCloud) {
        let process = posting(cloud, 7, true).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let fake = FakeEndpoint::start();
        let made = endpoint(&process, &admin, &fake.url()).await.expect("an endpoint");
        let tested = process.test_webhook_endpoint(&admin, &made.id).await.expect("queued");
        let refused = process.test_webhook_endpoint(&admin, &made.id).await.expect_err("one at a time");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        assert!(refused.message().contains(tested.id.as_str()), "{refused}");
        let attempts = usize::try_from(ATTEMPTS_MAX).expect("few");
        // A redirect is followed as little as a failure.
        fake.answer([302, 404].into_iter().chain(std::iter::repeat_n(503, attempts - 2)));
        for attempt in 1..=attempts {
            let last = attempt == attempts;
            assert_eq!(process.reconcile_webhooks().await.expect("posted"), report(0, u64::from(!last), u64::from(last)));
            cloud.clock.advance(DurationMs::from_hours(4));
        }
        assert_eq!(process.reconcile_webhooks().await.expect("it is given up"), report(0, 0, 0));
        assert_eq!(fake.take().len(), attempts);
        let [failed] = &deliveries(&process, &admin, Some(OutboxState::Failed)).await[..] else { panic!("one") };
        assert_eq!((failed.attempts, failed.next_at), (ATTEMPTS_MAX, None));
        assert!(failed.problem.as_ref().is_some_and(|problem| problem.ends_with("status 503")), "{failed:?}");
        process.retry_webhook_delivery(&admin, &failed.id).await.expect("queued");
        assert_eq!(process.reconcile_webhooks().await.expect("posted"), report(1, 0, 0));
        let refused = process.retry_webhook_delivery(&admin, &failed.id).await.expect_err("it was taken");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        let [event] = &fake.take()[..] else { panic!("one event") };
        assert_eq!(event.json()["type"], "webhook_endpoint.test");
    }

    async fn endpoints_that_never_answer_hold_up_nobody_elses_events(cloud: &TestCloud) {
        let port = Arc::new(Stuck { posted: Mutex::default(), is_told: Notify::new(), goes_on: Semaphore::new(0) });
        let webhooks: Option<Arc<dyn WebhookPort>> = Some(port.clone());
        let process = cloud.with(7, CloudSettings { webhooks, ..CloudSettings::default() }).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let team = actor(&cloud.cloud, &cloud.keys.internal).await;
        let (organization, _) = team.project().expect("a project");
        let other = Actor { scope: sublet_core::Scope::Organization(organization.clone()), ..admin.clone() };
        let slow: WebhookUrl = "https://slow.example.com/".parse().expect("an address");
        for _ in 0..5 {
            let made = endpoint(&process, &admin, &slow).await.expect("an endpoint");
            let tested = process.test_webhook_endpoint(&admin, &made.id).await.expect("queued");
            let queue = (admin.organization().expect("its own"), &made.id, &tested.id);
            queue_more(&process, queue, 5).await;
        }
        cloud.clock.advance(MINUTE);
        let quick = endpoint(&process, &other, &"https://quick.example.com/".parse().expect("an address")).await.expect("an endpoint");
        process.test_webhook_endpoint(&other, &quick.id).await.expect("queued");
        let looking = process.clone();
        let look = tokio::spawn(async move { looking.reconcile_webhooks().await });
        let told = tokio::time::timeout(std::time::Duration::from_secs(20), port.is_told.notified()).await;
        told.expect("the other tenant's event is posted while thirty older ones are stuck");
        assert_eq!(port.hosts().iter().filter(|host| *host == "slow.example.com").count(), TURNS, "one tenant's turns");
        port.goes_on.add_permits(100);
        assert_eq!(look.await.expect("no panic").expect("posted"), report(31, 0, 0));
    }

    async fn what_is_above_the_queue_of_an_endpoint_fails_and_what_is_old_is_deleted(cloud: &TestCloud) {
        let process = posting(cloud, 7, true).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let fake = FakeEndpoint::start();
        let made = endpoint(&process, &admin, &fake.url()).await.expect("an endpoint");
        let tested = process.test_webhook_endpoint(&admin, &made.id).await.expect("queued");
        assert_eq!(process.reconcile_webhooks().await.expect("posted"), report(1, 0, 0));
        queue_more(&process, (admin.organization().expect("its own"), &made.id, &tested.id), QUEUED_MAX).await;
        cloud.clock.advance(MINUTE);
        let dropped = process.test_webhook_endpoint(&admin, &made.id).await.expect("it is kept");
        assert_eq!(dropped.state, OutboxState::Failed);
        assert!(dropped.problem.is_some_and(|problem| problem.contains("1000 events wait")));
        process.delete_webhook_endpoint(&admin, &made.id).await.expect("deleted");
        assert_eq!(deliveries(&process, &admin, Some(OutboxState::Done)).await.len(), 1);
        cloud.clock.advance(DurationMs::from_hours(36 * 24));
        process.reconcile_webhooks().await.expect("looked");
        // What waited was given up now; three steps delete that and what was before.
        for _ in 0..3 {
            process.reconcile_webhooks().await.expect("looked");
        }
        assert_eq!(deliveries(&process, &admin, None).await, Vec::new());
    }

    async fn an_endpoint_that_is_gone_gets_nothing_more(cloud: &TestCloud) {
        let process = posting(cloud, 7, true).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let fake = [FakeEndpoint::start(), FakeEndpoint::start()];
        let gone = endpoint(&process, &admin, &fake[0].url()).await.expect("an endpoint");
        let deleted = endpoint(&process, &admin, &fake[1].url()).await.expect("an endpoint");
        for id in [&gone.id, &deleted.id] {
            process.test_webhook_endpoint(&admin, id).await.expect("queued");
        }
        process.delete_webhook_endpoint(&admin, &deleted.id).await.expect("deleted");
        fake[0].answer([410]);
        assert_eq!(process.reconcile_webhooks().await.expect("posted"), report(0, 0, 2));
        assert_eq!((fake[0].take().len(), fake[1].take().len()), (1, 0));
        let left = process.list_webhook_endpoints(&admin).await.expect("a list");
        assert_eq!(left.iter().map(|endpoint| (&endpoint.id, endpoint.state)).collect::<Vec<_>>(), [(&gone.id, WebhookState::Gone)]);
        tell_alert(cloud).await;
        assert_eq!(process.reconcile_webhooks().await.expect("nobody wants it"), report(0, 0, 0));
        process.delete_webhook_endpoint(&admin, &deleted.id).await.expect_err("it is deleted");
    }

    async fn endpoints_are_few_and_of_administrators_and_others_see_none_of_them(cloud: &TestCloud) {
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let url: WebhookUrl = "https://hooks.example.com/sublet".parse().expect("an address");
        assert_eq!(endpoint(&cloud.cloud, &project, &url).await.expect_err("a project's key").code(), ErrorCode::WrongKeyPlane);
        let call = Call::under_key(admin.clone(), "webhooks", "once", "body").expect("a call");
        let render = |endpoint: &WebhookEndpoint| Ok(endpoint.id.to_string());
        let first = created(cloud.cloud.create_webhook_endpoint(&call, &alerts_to(&url), &render).await);
        let again = cloud.cloud.create_webhook_endpoint(&call, &alerts_to(&url), &render).await.expect("a repeat");
        assert!(matches!(again, Answer::Replayed(id) if id == first.id.to_string()), "its secret is told once");
        for _ in 1..5 {
            endpoint(&cloud.cloud, &admin, &url).await.expect("up to five");
        }
        assert_eq!(endpoint(&cloud.cloud, &admin, &url).await.expect_err("a sixth").code(), ErrorCode::Conflict);
        let team = actor(&cloud.cloud, &cloud.keys.internal).await;
        let (organization, _) = team.project().expect("a project");
        let scope = sublet_core::Scope::Organization(organization.clone());
        let stranger = Actor { scope, ..admin.clone() };
        assert_eq!(cloud.cloud.list_webhook_endpoints(&stranger).await.expect("a list"), Vec::new());
        for refused in [
            cloud.cloud.delete_webhook_endpoint(&stranger, &first.id).await.expect_err("another's"),
            cloud.cloud.test_webhook_endpoint(&stranger, &first.id).await.expect_err("another's"),
        ] {
            assert_eq!(refused.code(), ErrorCode::NotFound);
        }
        let queued = cloud.cloud.test_webhook_endpoint(&admin, &first.id).await.expect("queued");
        assert_eq!(deliveries(&cloud.cloud, &stranger, None).await, Vec::new());
        let refused = cloud.cloud.retry_webhook_delivery(&stranger, &queued.id).await.expect_err("another's");
        assert_eq!(refused.code(), ErrorCode::NotFound);
        let audit = cloud.cloud.list_audit(&Actor::system(), &PageRequest { limit: Some(100), ..PageRequest::default() }).await;
        let entries = audit.expect("entries").items;
        assert_eq!(entries.iter().filter(|entry| entry.action == "webhook_endpoint.create").count(), 5);
        assert!(entries.iter().all(|entry| !entry.detail.contains("whsec_") && !entry.detail.contains("/sublet")));
    }

    async fn nothing_is_posted_into_this_network_unless_the_operator_allows_it(cloud: &TestCloud) {
        let process = posting(cloud, 7, false).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let fake = FakeEndpoint::start();
        for text in ["http://hooks.example.com/", "https://127.0.0.1/", "https://localhost/", "https://169.254.169.254/latest"] {
            let refused = endpoint(&process, &admin, &text.parse().expect("an address")).await.expect_err("inside");
            assert_eq!(refused.code(), ErrorCode::PolicyRefused, "{text}");
        }
        // One from when it was allowed, and names that stand for something else when they are looked up.
        let plain = fake.url();
        let names = [plain.clone(), fake.url_of("localhost")];
        let tls = format!("https://{}", fake.url_of("localhost").as_str().trim_start_matches("http://"));
        for (index, url) in names.into_iter().chain([tls.parse().expect("an address")]).enumerate() {
            let anywhere = posting(cloud, 20 + u64::try_from(index).expect("few"), true).await;
            let made = endpoint(&anywhere, &admin, &url).await.expect("it is allowed there");
            anywhere.test_webhook_endpoint(&admin, &made.id).await.expect("queued");
        }
        assert_eq!(process.reconcile_webhooks().await.expect("looked"), report(0, 3, 0));
        for delivery in deliveries(&process, &admin, Some(OutboxState::Queued)).await {
            assert!(delivery.problem.as_ref().is_some_and(|problem| problem.contains("public internet")), "{delivery:?}");
        }
        assert_eq!(fake.take(), Vec::new());
        let stored = cloud.cloud.store().read(&admin, |admin, tx| {
            Box::pin(async move { webhook::list(tx, admin.organization()?).await })
        });
        assert_eq!(stored.await.expect("a list").len(), 3);
    }
}
