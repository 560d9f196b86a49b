//! Suppliers outside: when they are asked, and what they are owed.

use http::Request;
use serde_json::{Value, json};
use sublet_core::admission::TokenRates;
use sublet_core::supplier::{CostPrice, CostVersion, ExternalSupply, Purchase, Retention, SupplierPolicy, SupplierTerms};
use sublet_core::supply::{Replica, ReplicaSource, ReplicaState};
use sublet_core::usage::{Measured, Outcome};
use sublet_core::{Currency, DurationMs, Timestamp};

use crate::cloud::{INPUT, organization_id, per_token};
use crate::supply::{ask, counts, only_record, post, streamed};
use crate::upstream::{Part, Reply, Upstream, counted, ended, model, replica, said, usage, whole, words};
use crate::world::{World, config, event, events, read, text};

/// Half of the default price; as much as the price of `flex`.
pub fn costs() -> Vec<CostPrice> {
    let rates = TokenRates { input: per_token(5), cached_input: per_token(0), output: per_token(50) };
    let version = CostVersion("c1".into());
    vec![CostPrice { version, currency: Currency::EUR, effective_at: Timestamp::EPOCH, rates }]
}

/// A supplier that keeps nothing.
pub fn supplier(number: u32, base_url: &str) -> Replica {
    let data = SupplierPolicy { retention: Retention::None, used_for_training: false, region: None };
    let terms = SupplierTerms { supplier: organization_id("maker"), data, margin_min: Default::default() };
    Replica { source: ReplicaSource::Supplier, terms: Some(terms), costs: costs(), ..replica(number, base_url) }
}

/// Lets the organization of the world's key be served by suppliers.
pub fn permit(world: &World, external: ExternalSupply) {
    world.cloud.change_key(&world.key, |access| access.data.external = external);
}

async fn world(replicas: Vec<Replica>) -> World {
    let world = World::new().await;
    world.cloud.offer([model("far/away", replicas)]);
    permit(&world, ExternalSupply::NoRetention);
    world
}

/// What was owed for one request: (input, cached, output) and who counted.
fn owed(purchases: &[Purchase]) -> Vec<(i64, i64, i64, Measured)> {
    let row = |bought: &Purchase| {
        assert_eq!((&*bought.cost.0, bought.replica.as_str().starts_with("rep_")), ("c1", true));
        (bought.tokens.input.get(), bought.tokens.cached_input.get(), bought.tokens.output.get(), bought.measured)
    };
    purchases.iter().map(row).collect()
}

#[tokio::test]
async fn the_fleet_serves_before_anybody_is_paid_for_it() {
    let (own, theirs) = (Upstream::start().await, Upstream::start().await);
    own.then(whole("own", usage(7, 3))).then(whole("own", usage(7, 3)));
    let world = world(vec![supplier(1, &theirs.base_url), replica(2, &own.base_url)]).await;
    for _ in 0..2 {
        assert_eq!(post(&world, &ask()).await.1["choices"][0]["message"]["content"], "own");
    }
    world.at_rest().await;
    assert!(world.cloud.records().iter().all(|record| record.purchases.is_empty()));
    assert!(theirs.received().is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_full_fleet_overflows_to_a_supplier_who_is_owed_for_it() {
    let (own, theirs) = (Upstream::start().await, Upstream::start().await);
    own.then(Reply::Stream(vec![said("word"), Part::Wait, ended("stop"), counted(7, 1), Part::Done]));
    theirs.then(whole("theirs", usage(7, 3)));
    let seat = Replica { in_flight_max: 1, ..replica(2, &own.base_url) };
    let world = world(vec![supplier(1, &theirs.base_url), seat]).await;
    let mut first = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut first).await.unwrap();
    assert_eq!(post(&world, &ask()).await.1["choices"][0]["message"]["content"], "theirs");
    own.go_on();
    read(first).await;
    world.at_rest().await;
    let records = world.cloud.records();
    let bought: Vec<_> = records.iter().filter(|record| !record.purchases.is_empty()).collect();
    assert_eq!((records.len(), bought.len()), (2, 1));
    assert_eq!(bought[0].replica.as_ref().unwrap().as_str(), "rep_1");
    assert_eq!(owed(&bought[0].purchases), [(5, 2, 3, Measured::Engine)]);
    assert_eq!(counts(bought[0]), (5, 2, 3));
    world.close().await;
}

#[tokio::test]
async fn who_may_be_served_by_suppliers_does_not_wait_behind_those_who_may_not() {
    let (own, theirs) = (Upstream::start().await, Upstream::start().await);
    own.then(Reply::Stream(vec![said("word"), Part::Wait, ended("stop"), counted(7, 1), Part::Done]))
        .then(whole("own", usage(7, 3)));
    theirs.then(whole("theirs", usage(7, 3)));
    let mut patient = config();
    patient.supply.queue_wait = DurationMs::from_seconds(60);
    let world = World::with(patient).await;
    world
        .cloud
        .offer([model("far/away", vec![supplier(1, &theirs.base_url), Replica { in_flight_max: 1, ..replica(2, &own.base_url) }])]);
    let open = world.cloud.add_key(2, "b", Default::default());
    world.cloud.limit("b", 1_000_000_000);
    world.cloud.change_key(&open, |access| access.data.external = ExternalSupply::Any);
    let mut first = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut first).await.unwrap();
    let body = ask();
    let waits = world.post("/v1/chat/completions", &body);
    let passes = async {
        // The other one is in the queue by now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {open}"));
        let request = request.body(body.to_string().into()).unwrap();
        let answer = text(world.send(request).await).await;
        own.go_on();
        read(first).await;
        answer
    };
    let (waited, passed) = tokio::join!(waits, passes);
    assert!(passed.contains("theirs"), "{passed}");
    assert!(text(waited).await.contains("own"));
    world.close().await;
}

#[tokio::test]
async fn without_permission_or_margin_nobody_is_asked_and_the_caller_learns_what_would_work() {
    let theirs = Upstream::start().await;
    let world = world(vec![supplier(1, &theirs.base_url)]).await;
    permit(&world, ExternalSupply::None);
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("policy_refused")), "{answer}");
    let works = answer["error"]["alternatives"][0].as_str().unwrap();
    assert!(works.starts_with("PUT /v1/organization/data_policy {\"external\":\"no_retention\""), "{answer}");
    permit(&world, ExternalSupply::Any);
    let dear = |nanos| CostPrice { rates: TokenRates { input: per_token(nanos), ..costs()[0].rates }, ..costs()[0].clone() };
    world.cloud.offer([model("far/away", vec![Replica { costs: vec![dear(6)], ..supplier(1, &theirs.base_url) }])]);
    let mut body = ask();
    body["service_tier"] = json!("flex");
    let (status, answer) = post(&world, &body).await;
    assert_eq!((status, &answer["error"]["param"]), (403, &json!("service_tier")), "{answer}");
    assert_eq!(answer["error"]["alternatives"], json!(["service_tier 'default'"]), "{answer}");
    world.cloud.offer([model("far/away", vec![Replica { costs: Vec::new(), ..supplier(1, &theirs.base_url) }])]);
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("model_unavailable")), "{answer}");
    assert!(theirs.received().is_empty());
    world.close().await;
}

#[tokio::test]
async fn where_the_fleet_alone_is_left_streams_are_paid_step_by_step() {
    let own = Upstream::start().await;
    own.then(words(3));
    let world = world(vec![replica(1, &own.base_url), supplier(2, "http://127.0.0.1:9/v1")]).await;
    permit(&world, ExternalSupply::None);
    world.cloud.limit("a", 1_300 * INPUT + 50 * crate::cloud::OUTPUT);
    let answer = text(world.post("/v1/chat/completions", &streamed()).await).await;
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
    let sent = &own.received()[0].body;
    assert!(sent.get("max_completion_tokens").is_none_or(|max| max == &json!(1_024)), "no worst case was held: {sent}");
    world.close().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_take_the_suppliers_bill_with_it() {
    let theirs = Upstream::start().await;
    theirs.then(Reply::Stream(vec![said("word"), said("word"), Part::Wait, ended("stop"), counted(7, 9), Part::Done]));
    let world = world(vec![supplier(1, &theirs.base_url)]).await;
    let mut body = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut body).await.unwrap();
    drop(body);
    theirs.closed().await;
    let record = only_record(&world).await;
    assert_eq!(record.outcome, Outcome::ClientCancelled);
    let bought = owed(&record.purchases);
    assert!(bought.len() == 1 && bought[0].2 >= 1 && bought[0].3 == Measured::Estimated, "{bought:?}");
    world.close().await;
}

#[tokio::test]
async fn a_failure_costs_what_was_counted_and_the_customer_nothing() {
    let theirs = Upstream::start().await;
    let nothing = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": usage(7, 4)});
    theirs.then(Reply::Json(200, nothing));
    let world = world(vec![supplier(1, &theirs.base_url)]).await;
    assert_eq!(post(&world, &ask()).await.0, 502);
    let record = only_record(&world).await;
    assert_eq!((counts(&record), record.replica.clone()), ((0, 0, 0), None));
    assert_eq!(owed(&record.purchases), [(5, 2, 4, Measured::Engine)]);
    assert_eq!(world.cloud.settled("a"), 0);
    let metrics = world.gateway.metrics();
    assert_eq!((metrics.voided, metrics.unsold, metrics.calls_unaccounted), (1, 1, 0));
    world.close().await;
}

#[tokio::test]
async fn a_failure_that_counted_nothing_is_owed_nothing_and_counted() {
    let theirs = Upstream::start().await;
    theirs.then(Reply::Json(500, json!({})));
    theirs.then(Reply::Stream(vec![Part::Event(json!({"error": {"message": "no"}})), Part::Done]));
    let world = world(vec![supplier(1, &theirs.base_url)]).await;
    assert_eq!(post(&world, &ask()).await.0, 502);
    assert!(matches!(world.post("/v1/chat/completions", &streamed()).await.status().as_u16(), 502 | 503));
    world.at_rest().await;
    assert!(world.cloud.records().is_empty());
    let metrics = world.gateway.metrics();
    assert_eq!((metrics.voided, metrics.unsold, metrics.calls_unaccounted), (2, 0, 2));
    world.close().await;
}

#[tokio::test]
async fn each_supplier_that_counted_in_vain_is_owed() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let nothing = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": usage(7, 4)});
    for upstream in [&first, &second] {
        upstream.then(Reply::Json(200, nothing.clone()));
    }
    let world = world(vec![supplier(1, &first.base_url), supplier(2, &second.base_url)]).await;
    assert_eq!(post(&world, &ask()).await.0, 502);
    let record = only_record(&world).await;
    assert_eq!(owed(&record.purchases), [(5, 2, 4, Measured::Engine), (5, 2, 4, Measured::Engine)]);
    world.close().await;
}

#[tokio::test]
async fn a_supplier_that_is_broken_ends_no_request_that_can_wait_for_the_fleet() {
    let (own, theirs) = (Upstream::start().await, Upstream::start().await);
    own.then(Reply::Stream(vec![said("word"), Part::Wait, ended("stop"), counted(7, 1), Part::Done]))
        .then(whole("own", usage(7, 3)));
    for _ in 0..3 {
        theirs.then(Reply::Json(500, json!({})));
    }
    let mut patient = config();
    patient.supply.queue_wait = DurationMs::from_seconds(60);
    let world = World::with(patient).await;
    permit(&world, ExternalSupply::Any);
    world
        .cloud
        .offer([model("far/away", vec![supplier(1, &theirs.base_url), Replica { in_flight_max: 1, ..replica(2, &own.base_url) }])]);
    let mut first = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut first).await.unwrap();
    let body = ask();
    let second = world.post("/v1/chat/completions", &body);
    let goes = async {
        while theirs.received().is_empty() {
            tokio::task::yield_now().await;
        }
        own.go_on();
        read(first).await;
    };
    let (second, ()) = tokio::join!(second, goes);
    assert!(text(second).await.contains("own"));
    world.close().await;
}

#[tokio::test]
async fn a_fleet_that_drains_is_made_up_for_by_suppliers() {
    let theirs = Upstream::start().await;
    theirs.then(words(2));
    let draining = Replica { state: ReplicaState::Draining, ..replica(2, "http://127.0.0.1:9/v1") };
    let world = world(vec![draining, supplier(1, &theirs.base_url)]).await;
    let answer = text(world.post("/v1/chat/completions", &streamed()).await).await;
    let (found, _) = events(&answer);
    assert!(found.iter().any(|event: &Value| event["usage"]["completion_tokens"] == json!(2)), "{answer}");
    let record = only_record(&world).await;
    assert_eq!(owed(&record.purchases), [(5, 2, 2, Measured::Engine)]);
    world.close().await;
}
