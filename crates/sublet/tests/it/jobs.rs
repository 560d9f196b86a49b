//! Jobs on leases: what they cost, what contains them, and what ends them.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, LOOK_PAUSE, Server, decimal, nanos, text, wait_for};

on_both! {
    a_job_is_run_in_a_sandbox_metered_and_charged: a_job_costs_its_device_time;
    an_attacking_job_is_contained_and_explained: attacks_are_contained;
    a_job_that_is_cancelled_ends_and_is_charged_until_then: a_cancelled_job_ends;
    a_lease_at_the_end_of_its_window_ends_its_job: a_window_ends_a_job;
    a_lease_without_money_ends_its_job_within_its_limit: without_money;
}

/// What a job may take to end after it was told to, in milliseconds.
const GRACE_MS_MAX: u64 = 15_000;

fn log_of(server: &Server, job: &Value) -> String {
    server.get(&format!("/v1/jobs/{}/logs?follow=true", text(&job["id"])), &server.keys.project).unwrap().text()
}

fn why(server: &Server, job: &Value) -> Value {
    server.see(&format!("/v1/why/{}", text(&job["id"])), &server.keys.project)
}

fn running(server: &Server, job: &Value) {
    let path = format!("/v1/jobs/{}", text(&job["id"]));
    wait_for("the job to run", || (server.see(&path, &server.keys.project)["status"] == json!("running")).then_some(()));
}

fn a_job_costs_its_device_time(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let lease = server.lease(key, "n2m", &json!({}));
    let job = server.job(key, &lease, "echo out; echo err >&2; sleep 0.2; exit 7");
    let log = log_of(&server, &job);
    assert!(log.contains("out") && log.contains("err"), "{log}");
    let ended = server.ended_job(key, &job["id"]);
    assert_eq!((&ended["status"], &ended["exit"]), (&json!("failed"), &json!({ "kind": "code", "code": 7 })), "{ended}");
    assert_eq!(ended["isolation"]["level"], json!("sandbox"), "{ended}");
    assert!(nanos(&ended["cost"]) > 0 && ended["device_milliseconds"].as_u64() > Some(0), "{ended}");
    wait_for("the lease to end with its job", || {
        let lease = server.see(&format!("/v1/leases/{}", text(&lease["id"])), key);
        (lease["status"] == json!("ended")).then_some(())
    });
    server.wait_until_settled();
    let charged: i128 = server.charges().iter().map(|charge| nanos(&charge["amount"])).sum();
    assert_eq!(nanos(&server.ended_job(key, &job["id"])["cost"]), charged);
    assert_eq!(why(&server, &job)["id"], job["id"]);
    server.assert_books();
}

/// One line for each attack: its name and whether it was held.
const ATTACKS: &str = r#"
held() { if "$@" >/dev/null 2>&1; then echo "$NAME: got through"; else echo "$NAME: held"; fi; }
NAME=shadow held cat /etc/shadow
NAME=neighbour held cat "$VICTIM/credentials.json"
NAME=neighbours-work held ls "$VICTIM/runner"
NAME=root-write held touch /usr/bin/planted
NAME=mount held mount -t tmpfs none /mnt
NAME=processes; if [ "$(ls -d /proc/[0-9]* | wc -l)" -lt 12 ]; then echo "$NAME: held"; else echo "$NAME: got through"; fi
NAME=signals held kill -0 "$SERVER"
(exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && echo "network: got through" || echo "network: held"
echo done
"#;

fn attacks_are_contained(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let lease = server.lease(key, "n2m", &json!({ "units": 1 }));
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let body = json!({
        "lease": lease["id"],
        "command": ["bash", "-c", ATTACKS],
        "environment": { "VICTIM": server.home.data_dir, "PORT": port, "SERVER": server.process_id().to_string() },
        "on_end": "keep_lease",
    });
    let job = server.make("/v1/jobs", key, &body);
    let log = log_of(&server, &job);
    assert!(log.contains("done") && log.matches(": held").count() == 8 && !log.contains("got through"), "{log}");
    server.ended_job(key, &job["id"]);
    fork_bomb(&server, &lease);
    memory_hog(&server, &lease);
    disk_hog(&server, &lease);
    assert_eq!(server.get("/healthz", "").unwrap().status, 200);
    server.assert_books();
}

fn bounded_job(server: &Server, lease: &Value, script: &str) -> Value {
    let body = json!({
        "lease": lease["id"],
        "command": ["bash", "-c", script],
        "memory_bytes": 64 << 20,
        "disk_bytes": 16 << 20,
        "on_end": "keep_lease",
    });
    let job = server.make("/v1/jobs", &server.keys.project, &body);
    server.ended_job(&server.keys.project, &job["id"])
}

fn fork_bomb(server: &Server, lease: &Value) {
    let job = bounded_job(server, lease, "i=0; while [ $i -lt 3000 ]; do sleep 5 & i=$((i+1)); done 2>/dev/null; exit 3");
    assert_explained(server, &job, "process");
}

fn memory_hog(server: &Server, lease: &Value) {
    let job = bounded_job(server, lease, "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${#x}; exit 0");
    assert_ne!(job["status"], json!("succeeded"), "{job}");
    assert_explained(server, &job, "memory");
}

fn disk_hog(server: &Server, lease: &Value) {
    let job = bounded_job(server, lease, "head -c 100000000 /dev/zero > big");
    assert_ne!(job["exit"], json!({ "kind": "code", "code": 0 }), "{job}");
    assert_explained(server, &job, "disk");
}

/// The job says what held it, and so does its explanation.
fn assert_explained(server: &Server, job: &Value, what: &str) {
    assert!(job["contained"].to_string().contains(what), "{what}: {job}");
    let why = why(server, job);
    assert!(why.to_string().contains(what), "{what}: {why}");
}

fn a_cancelled_job_ends(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let lease = server.lease(key, "n2m", &json!({}));
    let job = server.job(key, &lease, "sleep 600");
    running(&server, &job);
    server.make(&format!("/v1/jobs/{}/cancel", text(&job["id"])), key, &json!({}));
    let ended = server.ended_job(key, &job["id"]);
    assert_eq!(ended["status"], json!("cancelled"), "{ended}");
    assert!(nanos(&ended["cost"]) > 0, "{ended}");
    server.wait_until_settled();
    server.assert_books();
}

/// Looks at a lease that lives for its first interval, [`LOOK_PAUSE`] apart: three minutes.
const INTERVAL_LOOKS_MAX: u32 = 9_000;

/// The least that is sold is one interval with notice and grace, so this test takes as long; it only waits.
fn without_money(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let tiny = json!({ "sku": "cpu", "maximum_cost": { "amount": "0.000000001", "currency": "EUR" } });
    let refused = server.post("/v1/quotes", key, &tiny).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (409, "price_above_maximum"), "{}", refused.text());
    let limit = nanos(&server.make("/v1/quotes", key, &json!({ "sku": "cpu" }))["hold"]);
    let lease = server.lease(key, "n0", &json!({ "maximum_cost": { "amount": decimal(limit), "currency": "EUR" } }));
    let job = server.job(key, &lease, "sleep 600");
    let path = format!("/v1/leases/{}", text(&lease["id"]));
    let lease = (0..INTERVAL_LOOKS_MAX).find_map(|_| {
        std::thread::sleep(LOOK_PAUSE);
        Some(server.see(&path, key)).filter(|lease| lease["status"] == json!("ended"))
    });
    let lease = lease.expect("the lease ends when its money does");
    assert_eq!(lease["end_reason"], json!("it reached the maximum cost that was set for it"), "{lease}");
    assert!(nanos(&lease["cost"]) <= limit && nanos(&lease["cost"]) * 2 >= limit, "{limit}: {lease}");
    assert_eq!(nanos(&server.ended_job(key, &job["id"])["cost"]), nanos(&lease["cost"]));
    server.assert_books();
}

fn a_window_ends_a_job(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let lease = server.lease(key, "n0", &json!({ "maximum_seconds": 2 }));
    let job = server.job(key, &lease, "sleep 600");
    let ended = server.ended_job(key, &job["id"]);
    assert_ne!(ended["status"], json!("succeeded"), "{ended}");
    assert!(ended["device_milliseconds"].as_u64() <= Some(2_000 + GRACE_MS_MAX), "{ended}");
    let lease = server.see(&format!("/v1/leases/{}", text(&lease["id"])), key);
    assert_eq!(lease["end_reason"], json!("its window is over"), "{lease}");
    server.wait_until_settled();
    server.assert_books();
}
