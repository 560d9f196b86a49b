//! A real training in the real sandbox: interrupted, it saves, its devices go to the owner, and it ends as if nobody had
//! interrupted it.

use serde_json::{Value, json};
use sublet_api::time::Rfc3339;
use sublet_core::Timestamp;

use crate::on_both;
use crate::server::{Database, Home, Server, nanos, text, wait_for};

on_both! {
    a_training_that_the_owner_interrupts_ends_with_the_same_result: reclaimed;
    a_training_outlives_the_death_of_the_control_plane: killed;
}

/// Stochastic gradient descent that takes some seconds. It saves now and then, and when it is told to leave.
const TRAINING: &str = r#"
import json, math, os, signal, sys, time

STEPS, BATCH, EVERY = 120000, 24, 400
place = os.path.join(os.environ["SUBLET_CHECKPOINT_DIR"], "checkpoint.json")
told = False

def hear(*_):
    global told
    told = True

def save():
    with open(place + ".new", "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(place + ".new", place)

signal.signal(signal.SIGUSR1, hear)
state = {"step": 0, "seed": 1, "weights": [0.0, 0.0, 0.0]}
if os.path.exists(place):
    with open(place) as file:
        state = json.load(file)
    print("resumed at step", state["step"], "restart", os.environ["SUBLET_RESTART_COUNT"], flush=True)
while state["step"] < STEPS:
    if told:
        save()
        with open(os.environ["SUBLET_NOTICE_FILE"]) as file:
            deadline = json.load(file)["deadline_unix_ms"]
        print("saved at step", state["step"], "and", deadline - int(time.time() * 1000), "ms are left", flush=True)
        sys.exit(75)
    weights, seed = state["weights"], state["seed"]
    gradient = [0.0, 0.0, 0.0]
    for _ in range(BATCH):
        seed = (seed * 1103515245 + 12345) % 2147483648
        x = seed / 2147483648 * 2 - 1
        features = (1.0, x, math.sin(3 * x))
        error = sum(w * f for w, f in zip(weights, features)) - math.exp(x) * math.cos(2 * x)
        gradient = [g + error * f for g, f in zip(gradient, features)]
    state["weights"] = [w - 0.01 * g / BATCH for w, g in zip(weights, gradient)]
    state["seed"] = seed
    state["step"] += 1
    if state["step"] % EVERY == 0:
        save()
    if state["step"] == EVERY:
        print("under way", flush=True)
print("result", [weight.hex() for weight in state["weights"]], state["seed"], flush=True)
"#;

fn train(server: &Server, lease: &Value) -> Value {
    let body = json!({
        "lease": lease["id"],
        "command": ["python3", "-c", TRAINING],
        "restart": { "on_interruption": true },
    });
    server.make("/v1/jobs", &server.keys.project, &body)
}

fn job(server: &Server, id: &Value) -> Value {
    server.see(&format!("/v1/jobs/{}", text(id)), &server.keys.project)
}

/// What an attempt has printed.
fn printed(server: &Server, id: &Value, attempt: u32) -> String {
    server.get(&format!("/v1/jobs/{}/logs?attempt={attempt}", text(id)), &server.keys.project).unwrap().text()
}

/// The whole number after some words of a text.
fn number_after(text: &str, words: &str) -> i64 {
    let rest = text.split(words).nth(1).unwrap_or_else(|| panic!("'{words}' is not in {text}"));
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number after '{words}': {text}"))
}

fn result_in(log: &str) -> &str {
    log.lines().find(|line| line.starts_with("result ")).unwrap_or_else(|| panic!("no result in {log}"))
}

/// What the training finds if nobody interrupts it.
fn undisturbed(server: &Server) -> String {
    let lease = server.lease(&server.keys.project, "n2m", &json!({}));
    let trained = train(server, &lease);
    let ended = server.ended_job(&server.keys.project, &trained["id"]);
    assert_eq!((&ended["status"], &ended["restarts"]), (&json!("succeeded"), &json!(0)), "{ended}");
    result_in(&printed(server, &trained["id"], 1)).to_owned()
}

fn under_way(server: &Server, id: &Value) {
    wait_for("the training to be under way", || printed(server, id, 1).contains("under way").then_some(()));
}

/// A key of a team of the owner's.
fn team(server: &Server) -> String {
    let body = json!({ "name": "Team", "class": "internal", "currency": "EUR", "credit_limit": "100" });
    let admin = text(&server.make("/operator/v1/organizations", &server.keys.operator, &body)["admin_key"]["value"]);
    let project = text(&server.make("/v1/organization/projects", &admin, &json!({ "name": "own" }))["id"]);
    let key = server.make(&format!("/v1/organization/projects/{project}/api_keys"), &admin, &json!({ "name": "own" }));
    text(&key["value"])
}

/// When something happened, in seconds.
fn second(at: &Value) -> i64 {
    text(at).parse::<Rfc3339>().unwrap().0.millis().div_euclid(1_000)
}

fn reclaimed(database: Database) {
    let server = Home::new(database).start();
    let expected = undisturbed(&server);
    let (key, own) = (server.keys.project.clone(), team(&server));
    let devices = server.see("/operator/v1/devices?limit=100", &server.keys.operator)["data"].as_array().unwrap().len();
    let lease = server.lease(&key, "n2m", &json!({ "units": devices }));
    let training = train(&server, &lease);
    under_way(&server, &training["id"]);
    // Half a minute, the grace and the slack from now: less than was sold.
    let quote = server.make("/v1/quotes", &own, &json!({ "sku": "cpu", "units": devices, "notice": "n0" }));
    let by = quote["created_at"].as_i64().unwrap() + 30 + 15;
    let order = json!({ "kind": "cpu", "units": devices, "by": Timestamp::from_seconds(by).to_string(), "break_promises": true });
    let order = server.make("/operator/v1/reclaims", &server.keys.operator, &order);
    let lease_of_own = server.make("/v1/leases", &own, &json!({ "quote": quote["id"] }));
    let owners = server.job(&own, &lease_of_own, "echo the owner works");
    let waiting =
        wait_for("the training to wait", || Some(job(&server, &training["id"])).filter(|job| job["status"] == json!("requeued")));
    assert!(text(&waiting["waiting"]["reason"]).len() > 10 && waiting["attempts"][0]["exit"]["code"] == json!(75), "{waiting}");
    let owners = server.ended_job(&own, &owners["id"]);
    assert_eq!(owners["status"], json!("succeeded"), "{owners}");
    assert!(second(&owners["started_at"]) < by - 15, "the owner had the devices before the deadline: {owners}");
    let told = printed(&server, &training["id"], 1);
    let left = number_after(&told, " and ");
    assert!((1..=30_000).contains(&left), "{left} ms of thirty seconds were left when it had saved");
    assert_eq!(job(&server, &training["id"])["status"], json!("requeued"), "the devices are held for the owner");
    server.make(&format!("/operator/v1/reclaims/{}/cancel", text(&order["id"])), &server.keys.operator, &json!({}));
    let ended = server.ended_job(&key, &training["id"]);
    assert_eq!((&ended["status"], &ended["restarts"]), (&json!("succeeded"), &json!(1)), "{ended}");
    assert_ne!(ended["attempts"][0]["lease"], ended["attempts"][1]["lease"], "{ended}");
    let again = printed(&server, &training["id"], 2);
    assert_eq!(number_after(&again, "resumed at step"), number_after(&told, "saved at step"), "{again}");
    assert_eq!(number_after(&again, "restart"), 1);
    assert_eq!(result_in(&again), expected, "to the last digit");
    let given = server.see("/v1/organization/compensations", &server.keys.admin)["data"].clone();
    let is_given = |kind: &str| {
        let given = given.as_array().into_iter().flatten();
        given.filter(|one| one["subject"] == lease["id"] && one["kind"] == kind).count() == 1
    };
    assert!(is_given("reclaim"), "less notice was given than sold: {given}");
    assert!(is_given("early"), "it left before its deadline: {given}");
    assert!(nanos(&ended["cost"]) > 0);
    server.wait_until_settled();
    server.assert_books();
}

fn killed(database: Database) {
    let mut server = Home::new(database).start();
    let expected = undisturbed(&server);
    let key = server.keys.project.clone();
    let lease = server.lease(&key, "n2m", &json!({}));
    let training = train(&server, &lease);
    under_way(&server, &training["id"]);
    server.kill();
    server.restart();
    let ended = server.ended_job(&key, &training["id"]);
    assert_eq!((&ended["status"], &ended["restarts"]), (&json!("succeeded"), &json!(1)), "{ended}");
    assert_eq!(ended["attempts"][0]["exit"], json!({ "kind": "lost" }), "{ended}");
    let again = printed(&server, &training["id"], 2);
    assert!(number_after(&again, "resumed at step") >= 400, "{again}");
    assert_eq!(result_in(&again), expected, "to the last digit");
    server.wait_until_settled();
    server.assert_books();
}
