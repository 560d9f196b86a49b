//! Two processes on one PostgreSQL: one cloud, whichever of them is asked.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::server::{Database, Home, NewKey, Server, chat, nanos, never_end, text, wait_for};

/// Clients of one key in the test of its limit, half at each process.
const CLIENTS: usize = 8;
/// What that key may spend, in nano-units.
const LIMIT: i128 = 400_000;

/// A second process on the database of the first, with a data directory of its own.
pub fn beside(first: &Server) -> Server {
    beside_with_clock(first, 0)
}

/// The same on a machine whose clock is wrong by so many milliseconds.
pub fn beside_with_clock(first: &Server, clock_skew_ms: i64) -> Server {
    let mut home = Home::new(Database::Sqlite);
    home.database_url.clone_from(&first.home.database_url);
    home.files.clone_from(&first.home.files);
    home.clock_skew_ms = clock_skew_ms;
    std::fs::create_dir_all(&home.data_dir).unwrap();
    let known = std::fs::read_to_string(first.home.data_dir.join("credentials.json")).unwrap();
    let elsewhere = known.replace(&first.address, "127.0.0.1:1");
    std::fs::write(home.data_dir.join("credentials.json"), elsewhere).unwrap();
    home.start()
}

/// The attempts that a process's runner was given.
fn attempts(server: &Server) -> Vec<PathBuf> {
    let found = std::fs::read_dir(server.home.data_dir.join("runner/attempts")).unwrap();
    found.map(|entry| entry.unwrap().path()).collect()
}

fn status(server: &Server, job: &Value) -> Value {
    server.see(&format!("/v1/jobs/{}", text(&job["id"])), &server.keys.project)["status"].clone()
}

#[test]
fn a_job_runs_once_whoever_is_asked_and_outlives_the_other_process() {
    let first = Home::new(Database::Postgresql).start();
    let mut second = beside(&first);
    let key = &first.keys.project;
    for server in [&first, &second] {
        let lease = server.lease(key, "n0", &json!({}));
        let job = server.job(key, &lease, "sleep 0.2");
        assert_eq!(server.ended_job(key, &job["id"])["status"], json!("succeeded"));
    }
    assert_eq!((attempts(&first).len(), attempts(&second).len()), (2, 0), "the machine's devices are the first process's");
    let devices = first.see("/operator/v1/devices", &first.keys.operator);
    let nodes: Vec<&Value> = devices["data"].as_array().unwrap().iter().map(|device| &device["node"]).collect();
    assert!(nodes.windows(2).all(|pair| pair[0] == pair[1]), "no device is offered twice: {devices}");
    let lease = second.lease(key, "n0", &json!({}));
    let job = second.job(key, &lease, "sleep 600");
    let refused = second.get(&format!("/v1/jobs/{}/logs?follow=true", text(&job["id"])), key).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (503, "unreachable"), "its log is at the first process");
    wait_for("the job to run", || (status(&first, &job) == json!("running")).then_some(()));
    second.terminate();
    assert!(second.wait().success());
    assert_eq!(status(&first, &job), json!("running"), "the end of one process is not the end of the other's work");
    first.make(&format!("/v1/jobs/{}/cancel", text(&job["id"])), key, &json!({}));
    first.ended_job(key, &job["id"]);
    first.wait_until_settled();
    first.assert_books();
}

#[test]
fn a_limit_holds_over_both_gateways_and_a_revoked_key_stops_at_both() {
    let first = Home::new(Database::Postgresql).start();
    let second = beside(&first);
    let key = first.new_key("shared");
    first.limit_key(&key, LIMIT);
    let served: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| if client % 2 == 0 { &first } else { &second })
            .map(|server| scope.spawn(|| ask_until_refused(server, &key)))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    for server in [&first, &second] {
        server.wait_until_settled();
    }
    let charges = first.charges();
    let spent: i128 = charges.iter().map(|charge| nanos(&charge["amount"])).sum();
    assert!(spent <= LIMIT, "{spent} of {LIMIT} spent");
    assert!(spent > LIMIT / 2, "only {spent} of {LIMIT} could be spent");
    let mut requests: Vec<String> = charges.iter().map(|charge| text(&charge["request"])).collect();
    requests.sort_unstable();
    requests.dedup();
    assert_eq!(requests.len(), served, "each answer is charged, at whichever gateway it was given");
    let other = first.new_key("revoked");
    let body = chat(&first.keys.model, 1, &json!({}));
    assert_eq!(second.post("/v1/chat/completions", &other.secret, &body).unwrap().status, 200);
    first.ask("DELETE", &other.path()).key(&first.keys.admin).send().unwrap().good();
    wait_for("the second process to hear of it", || {
        (second.post("/v1/chat/completions", &other.secret, &body).unwrap().status == 401).then_some(())
    });
    first.assert_books();
}

/// Chats until the budget is used up; says how many answers came.
fn ask_until_refused(server: &Server, key: &NewKey) -> usize {
    let body = chat(&server.keys.model, 8, &json!({ "logit_bias": never_end() }));
    let mut served = 0;
    // A key near its limit may be refused for a moment, until the other gateway gives back what it did not need.
    wait_for("the budget to be used up", || {
        let answer = server.post("/v1/chat/completions", &key.secret, &body).unwrap();
        served += usize::from(answer.status == 200);
        (answer.status == 429 && answer.code() == "insufficient_quota").then_some(())
    });
    served
}
