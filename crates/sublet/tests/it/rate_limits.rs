//! Limits on speed over HTTP: set by administrators, shared by every gateway.

use serde_json::{Value, json};

use crate::http::Answer;
use crate::on_both;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, chat, decimal, merge, nanos, never_end, stopwatch, text, wait_for};
use crate::two::beside;

on_both! {
    a_limit_on_each_end_user_is_set_changed_and_removed: end_users;
    what_was_used_of_a_day_stays_used_when_a_gateway_is_killed: a_day_outlives_the_process;
    a_limit_that_is_wrong_is_refused_by_the_field: wrong_limits;
    what_each_end_user_and_a_model_may_spend_is_limited_apart: spending;
}

const PATH: &str = "/v1/organization/rate_limits";
/// Requests per minute, and clients, in the test of two gateways.
const SHARED: u32 = 60;
const CLIENTS: usize = 6;

fn limit(server: &Server, body: &Value) -> Value {
    server.make(PATH, &server.keys.admin, body)
}

fn ask(server: &Server, extra: &Value) -> Answer {
    let mut body = chat(&server.keys.model, 2, &json!({}));
    merge(&mut body, extra);
    server.post("/v1/chat/completions", &server.keys.project, &body).unwrap()
}

fn asks_of(server: &Server, user: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| ask(server, &json!({ "user": user })).status).collect()
}

fn end_users(database: Database) {
    let server = Home::new(database).start();
    let body = json!({ "subject": server.project(), "metric": "requests_per_minute", "value": 2, "each_end_user": true });
    let made = limit(&server, &body);
    assert_eq!((&made["object"], &made["each_end_user"], &made["remaining"]), (&json!("rate_limit"), &json!(true), &Value::Null));
    let other = json!({ "metric": "tokens_per_day", "value": 1_000_000, "model": "no/such", "end_user": "ann@x" });
    limit(&server, &other);
    assert_eq!(asks_of(&server, "ann@x", 3), [200, 200, 429]);
    assert_eq!(asks_of(&server, "bob", 2), [200, 200]);
    let refused = ask(&server, &json!({ "safety_identifier": "ann@x" }));
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limit_exceeded"), "{}", refused.text());
    let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=30_000).contains(&wait), "{wait}");
    assert_eq!(
        (refused.header("x-ratelimit-limit-requests"), refused.header("x-ratelimit-remaining-requests")),
        (Some("2"), Some("0"))
    );
    let path = format!("{PATH}/{}", text(&made["id"]));
    let admin = &server.keys.admin;
    let changed = server.ask("PUT", &path).key(admin).json(&json!({ "value": 4 })).send().unwrap().good();
    assert_eq!(changed["value"], json!(4));
    assert_eq!(asks_of(&server, "ann@x", 3)[..2], [200, 200], "what was used stays used");
    assert_eq!(server.see(PATH, admin)["data"].as_array().unwrap().len(), 2);
    server.ask("DELETE", &path).key(admin).send().unwrap().good();
    assert_eq!(asks_of(&server, "ann@x", 6), [200; 6]);
    let log = server.see("/v1/organization/audit_logs", admin).to_string();
    assert!(log.contains("rate_limit.remove") && !log.contains("ann@x"), "{log}");
}

fn a_day_outlives_the_process(database: Database) {
    let mut server = Home::new(database).start();
    let made = limit(&server, &json!({ "metric": "tokens_per_day", "value": 100 }));
    assert_eq!(
        (&made["subject"], &made["remaining"]),
        (&server.see("/v1/organization/self", &server.keys.admin)["id"], &json!(100))
    );
    let mut last = 200;
    for _ in 0..60 {
        last = ask(&server, &json!({})).status;
        if last != 200 {
            break;
        }
    }
    assert_eq!(last, 429, "a hundred tokens are used up");
    server.kill();
    server.restart();
    let refused = ask(&server, &json!({}));
    assert_eq!((refused.status, refused.header("x-should-retry")), (429, Some("false")), "{}", refused.text());
    let seen = server.see(&format!("{PATH}/{}", text(&made["id"])), &server.keys.admin);
    assert!(seen["remaining"].as_i64().unwrap() <= 0, "{seen}");
}

fn wrong_limits(database: Database) {
    let server = Home::new(database).start();
    let stranger = Stranger::make(&server, None);
    let good = json!({ "metric": "requests_per_minute", "value": 5 });
    limit(&server, &good);
    for (extra, status, code) in [
        (json!({}), 409, "conflict"),
        (json!({ "metric": "requests_per_hour" }), 400, "invalid_request"),
        (json!({ "value": 0 }), 400, "limit_unenforceable"),
        (json!({ "value": -1 }), 400, "invalid_request"),
        (json!({ "value": 4_294_967_296_i64 }), 400, "invalid_request"),
        (json!({ "value": "5" }), 400, "invalid_request"),
        (json!({ "subject": "user_1" }), 400, "invalid_id"),
        (json!({ "subject": "proj_01h00000000000000000000000" }), 404, "not_found"),
        (json!({ "model": "" }), 400, "invalid_request"),
        (json!({ "end_user": "x".repeat(257) }), 400, "invalid_request"),
        (json!({ "end_user": "a", "each_end_user": true }), 400, "invalid_request"),
        (json!({ "minutes": 1 }), 400, "invalid_request"),
    ] {
        let mut body = good.clone();
        merge(&mut body, &extra);
        let refused = server.post(PATH, &server.keys.admin, &body).unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{extra}: {}", refused.text());
    }
    let theirs = json!({ "subject": server.project(), "metric": "tokens_per_day", "value": 1 });
    assert_eq!(server.post(PATH, &stranger.admin, &theirs).unwrap().status, 404);
    assert_eq!(server.see(PATH, &stranger.admin)["data"], json!([]));
}

fn spending(database: Database) {
    let server = Home::new(database).start();
    let admin = &server.keys.admin;
    let probe = ask(&server, &json!({ "user": "probe" })).good();
    server.wait_until_settled();
    let cost = nanos(&server.see(&format!("/v1/requests/{}", text(&probe["id"])), &server.keys.project)["cost"]);
    let path = "/v1/organization/spend_limits/day";
    let put = |query: &str, amount: i128| {
        let asked = server.ask("PUT", &format!("{path}?{query}")).key(admin).json(&json!({ "amount": decimal(amount) }));
        asked.send().unwrap().good()
    };
    let each = put("each_end_user=true", cost * 3);
    assert_eq!(
        (&each["each_end_user"], &each["model"], &each["owner"]["kind"]),
        (&json!(true), &Value::Null, &json!("organization"))
    );
    let model = put(&format!("model={}&end_user=bob", server.keys.model), cost);
    assert_eq!((&model["model"], &model["end_user"]), (&json!(server.keys.model), &json!("bob")));
    let served = |user: &str| asks_of(&server, user, 6).iter().filter(|status| **status == 200).count();
    let (ann, bob, cem) = (served("ann"), served("bob"), served("cem"));
    assert!((1..=3).contains(&ann) && ann == cem && bob <= 1, "ann {ann}, bob {bob}, cem {cem}");
    let refused = ask(&server, &json!({ "user": "bob" }));
    assert_eq!((refused.status, refused.code().as_str()), (429, "insufficient_quota"), "{}", refused.text());
    assert!(refused.text().contains("end_user=bob"), "{}", refused.text());
    server.wait_until_settled();
    let limits = server.see("/v1/organization/spend_limits", admin);
    let of_bob = limits["data"].as_array().unwrap().iter().find(|limit| limit["end_user"] == json!("bob")).unwrap();
    assert!(nanos(&of_bob["spent"]) <= cost, "{of_bob}");
    assert!(nanos(&server.see("/v1/account", &server.keys.project)["spendable"]) > cost * 100, "others are not bound");
    for query in ["each_end_user=true", &format!("model={}&end_user=bob", server.keys.model)] {
        server.ask("DELETE", &format!("{path}?{query}")).key(admin).send().unwrap().good();
    }
    assert_eq!(asks_of(&server, "bob", 3), [200; 3]);
    let both = server.ask("PUT", &format!("{path}?each_end_user=true&end_user=a")).key(admin).json(&json!({ "amount": "1" }));
    assert_eq!(both.send().unwrap().status, 400);
    server.wait_until_settled();
    server.assert_books();
}

#[test]
fn two_gateways_share_a_limit_on_requests_and_one_on_places() {
    let first = Home::new(Database::Postgresql).start();
    let second = beside(&first);
    let made = limit(&first, &json!({ "metric": "requests_per_minute", "value": SHARED }));
    // The second process hears of it with its next look at what changed.
    wait_for("the second gateway to know the limit", || ask(&second, &json!({})).header("x-ratelimit-limit-requests").map(drop));
    let elapsed = stopwatch();
    let served: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| if client % 2 == 0 { &first } else { &second })
            .map(|server| scope.spawn(|| (0..SHARED).filter(|_| ask(server, &json!({})).status == 200).count()))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let served = u128::try_from(served).unwrap();
    let returned = elapsed().as_millis() * u128::from(SHARED) / 60_000 + 1;
    let most = u128::from(SHARED) + returned;
    assert!(served <= most, "{served} of {most}");
    assert!(served >= u128::from(SHARED) * 3 / 4, "only {served} of {SHARED}");
    first.ask("DELETE", &format!("{PATH}/{}", text(&made["id"]))).key(&first.keys.admin).send().unwrap().good();

    limit(&first, &json!({ "metric": "concurrent_requests", "value": 1 }));
    let mut body = chat(&first.keys.model, 1_500, &json!({ "stream": true, "logit_bias": never_end() }));
    merge(&mut body, &json!({ "user": "first" }));
    let mut stream = wait_for("a stream", || {
        let answer = first.ask("POST", "/v1/chat/completions").key(&first.keys.project).json(&body).open().unwrap();
        (answer.status == 200).then(|| answer.events())
    });
    stream.next().expect("the stream has begun").unwrap();
    wait_for("the second gateway to know that the place is taken", || {
        let refused = ask(&second, &json!({}));
        (refused.status == 429 && refused.code() == "concurrency_exceeded").then_some(())
    });
    drop(stream);
    wait_for("the place to be given back", || (ask(&second, &json!({})).status == 200).then_some(()));
    for server in [&first, &second] {
        server.wait_until_settled();
    }
    first.assert_books();
}
