//! A demonstration: its time runs fast and never back, customers buy what the owner does not need, and a kill costs nothing.

use serde_json::{Value, json};

use crate::server::{Database, Home, Server, stopwatch, text, wait_for};

const DEMO: &[&str] = &["--demo", "--speed", "120", "--seed", "7"];

fn home() -> Home {
    let mut home = Home::new(Database::Sqlite);
    home.options = DEMO;
    home
}

fn now(server: &Server) -> String {
    text(&server.see("/operator/v1/clock", &server.keys.operator)["now"])
}

fn ready(server: &Server) -> String {
    server.get("/readyz", "").unwrap().text()
}

fn customers(server: &Server) -> Vec<Value> {
    let found = server.see("/operator/v1/organizations?class=external&limit=100", &server.keys.operator);
    found["data"].as_array().unwrap().clone()
}

/// Every lease, newest first.
fn leases(server: &Server) -> Vec<Value> {
    server.pages("/operator/v1/leases", &server.keys.operator)
}

fn pools(server: &Server) -> Vec<Value> {
    let capacity = server.see("/operator/v1/capacity", &server.keys.operator);
    capacity["data"].as_array().unwrap().iter().flat_map(|kind| kind["pools"].as_array().unwrap().clone()).collect()
}

/// When demand last changed at the pool that changes most often, in seconds.
fn last_row(server: &Server) -> i64 {
    let history = server.see("/operator/v1/demand?device_kind=h200&site=site_north", &server.keys.operator);
    history["steps"].as_array().unwrap().last().unwrap()["at"].as_i64().unwrap()
}

#[test]
fn customers_buy_what_the_owner_does_not_need_and_a_kill_costs_nothing() {
    let mut server = home().start();
    assert!(ready(&server).contains("120 times as fast"), "{}", ready(&server));
    let pools_there = wait_for("the owner's demand", || {
        Some(pools(&server)).filter(|pools| pools.iter().all(|pool| pool["outside"].as_u64().unwrap() > 0))
    });
    assert_eq!(pools_there.len(), 4, "three kinds, one of them at both sites: {pools_there:?}");
    let history = server.see("/operator/v1/demand?device_kind=h200&site=site_north&limit=2000", &server.keys.operator);
    let rows = history["steps"].as_array().unwrap();
    assert!(rows.len() > 1_000 && rows.iter().any(|row| row["queued"].as_u64().unwrap() > 0), "{} rows", rows.len());
    let watch = stopwatch();
    let sold = wait_for("a customer's lease with something that runs", || {
        leases(&server).into_iter().find(|lease| lease["status"] == json!("active"))
    });
    eprintln!("count: seconds until a simulated customer had a lease = {}", watch().as_secs());
    let organizations = customers(&server);
    let buyer = organizations.iter().find(|found| found["id"] == sold["organization"]).expect("a customer");
    assert_ne!(buyer["name"], json!("Example customer"));
    assert_eq!(organizations.len(), 7, "six simulated customers, and the first");
    let before = now(&server);
    server.kill();
    // Faster, so that somebody wants something soon whatever time it is.
    server.home.options = &["--demo", "--speed", "300", "--seed", "7"];
    server.restart();
    let after = now(&server);
    assert!(after >= before, "time went back from {before} to {after}");
    assert!(leases(&server).iter().any(|lease| lease["id"] == sold["id"]), "what was sold is in the books");
    let known = last_row(&server);
    wait_for("demand to be reported again", || (last_row(&server) > known).then_some(()));
    wait_for("a customer to buy again", || leases(&server).iter().any(|lease| text(&lease["starts_at"]) > after).then_some(()));
    assert_eq!(customers(&server).len(), 7, "nobody came twice");
    // A model is as real as ever, whatever its clock says.
    let body = crate::server::chat(&server.keys.model, 8, &json!({}));
    let answer = server.make("/v1/chat/completions", &server.keys.project, &body);
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{answer}");
    server.assert_books();
    let stopped = now(&server);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    server.restart();
    assert!(now(&server) >= stopped);
    server.assert_books();
}

fn refused(home: &Home) -> (Option<i32>, String) {
    let output = home.up("127.0.0.1:0").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_demonstration_has_nothing_real() {
    let real: [&'static [&'static str]; 9] = [
        &["--demo", "--fleet", "fleet.json"],
        &["--demo", "--test-clock"],
        &["--demo", "--database", "postgres://localhost/sublet"],
        &["--demo", "--stripe-key", "key", "--stripe-webhook-secret", "hook", "--stripe-return-url", "http://localhost"],
        &["--demo", "--smtp", "smtps://mail.example.com", "--mail-from", "a@example.com"],
        &["--demo", "--site", "site_here"],
        &["--demo", "--files", "files"],
        &["--demo", "--exports", "exports"],
        &["--speed", "10"],
    ];
    let mut home = home();
    for options in real {
        home.options = options;
        let (status, said) = refused(&home);
        assert_eq!(status, Some(2), "{options:?}: {said}");
        assert!(said.contains("--demo"), "{options:?}: {said}");
    }
    home.options = &["--demo", "--speed", "0"];
    let (status, said) = refused(&home);
    assert!(status == Some(2) && said.contains("from 1 to 600"), "{said}");
    assert!(!home.data_dir.join("sublet.db").exists(), "nothing was begun");
}

#[test]
fn keys_of_a_cloud_with_books_elsewhere_stay() {
    let home = home();
    std::fs::create_dir_all(&home.data_dir).unwrap();
    for kept in ["credentials.json", "gateway"] {
        let path = home.data_dir.join(kept);
        std::fs::write(&path, "a cloud in PostgreSQL").unwrap();
        let (_, said) = refused(&home);
        assert!(said.contains("PostgreSQL") && said.contains("new data directory"), "{said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a cloud in PostgreSQL");
        assert!(!home.data_dir.join("sublet.db").exists() && !home.data_dir.join("simulated").exists());
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_cloud_is_a_demonstration_from_its_first_start_on_or_never() {
    let mut server = Home::new(Database::Sqlite).start();
    server.kill();
    server.home.options = DEMO;
    let (_, said) = refused(&server.home);
    assert!(said.contains("time is real") && said.contains("new data directory"), "{said}");
    let mut server = home().start();
    server.kill();
    server.home.options = &[];
    let (_, said) = refused(&server.home);
    assert!(said.contains("demonstration") && said.contains("--demo"), "{said}");
}
