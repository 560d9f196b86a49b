//! A cloud over a simulated fleet: its machines go on while its process is killed, and its books stay apart.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, text, wait_for};

on_both! {
    work_on_simulated_machines_goes_on_while_the_process_is_killed: killed;
}

const FLEET: &str = r#"{"pools":[
    {"site":"site_north","kind":"h200","machines":3,"devices":8,"memory_gib":141},
    {"site":"site_south","kind":"l4","machines":1,"devices":4,"memory_gib":24}]}"#;

fn described(home: &Home, text: &str) -> PathBuf {
    let path = home.data_dir.with_extension("fleet.json");
    fs::write(&path, text).unwrap();
    path
}

fn killed(database: Database) {
    let mut home = Home::new(database);
    home.fleet = Some(described(&home, FLEET));
    let mut server = home.start();
    let key = server.keys.project.clone();
    let lease = server.lease(&key, "n2m", &json!({ "sku": "h200", "units": 8 }));
    let job =
        server.make("/v1/jobs", &key, &json!({ "lease": lease["id"], "command": ["simulate", "--seconds", "4", "--exit", "3"] }));
    let path = format!("/v1/jobs/{}", text(&job["id"]));
    wait_for("the work to begin", || (server.see(&path, &key)["status"] == json!("running")).then_some(()));
    server.kill();
    // The description is kept: a later start need not give it.
    server.home.fleet = None;
    server.restart();
    let ended = server.ended_job(&key, &job["id"]);
    assert_eq!((&ended["status"], &ended["exit"]), (&json!("failed"), &json!({ "kind": "code", "code": 3 })), "{ended}");
    assert_eq!(ended["device_milliseconds"], json!(8 * 4_000), "to the millisecond: {ended}");
    let log = server.get(&format!("{path}/logs"), &key).unwrap().text();
    assert!(log.contains("simulated work of 4 s began") && log.contains("exit code 3"), "{log}");
    let lease = server.lease(&key, "n2m", &json!({ "sku": "l4", "units": 1 }));
    let job = server.make("/v1/jobs", &key, &json!({ "lease": lease["id"], "command": ["./train.sh"] }));
    let refused = server.ended_job(&key, &job["id"]);
    assert_eq!((&refused["status"], &refused["device_milliseconds"]), (&json!("failed"), &json!(0)), "{refused}");
    assert!(refused["exit"].to_string().contains("run one program"), "{refused}");
    server.assert_books();
}

fn refused(home: &Home) -> String {
    let output = home.up("127.0.0.1:0").output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_description_with_a_fault_and_a_cloud_with_a_real_machine_are_refused() {
    let mut home = Home::new(Database::Sqlite);
    home.fleet = Some(described(&home, r#"{"pools":[{"site":"site_a","kind":"h200","machines":0,"devices":8,"memory_gib":80}]}"#));
    let text = refused(&home);
    assert!(text.contains("'pools[0].machines' is 0") && text.contains("for example"), "{text}");
    home.fleet = Some(home.data_dir.with_extension("missing"));
    let text = refused(&home);
    assert!(text.contains("cannot be read"), "{text}");
    home.fleet = None;
    let mut server = home.start();
    server.kill();
    server.home.fleet = Some(described(&server.home, FLEET));
    let text = refused(&server.home);
    assert!(text.contains("machines are real") && text.contains("a database of its own"), "{text}");
    server.home.fleet = None;
    server.restart();
    let devices: Value = server.see("/operator/v1/devices", &server.keys.operator);
    assert!(devices["data"].as_array().unwrap().iter().all(|device| device["kind"] == json!("cpu")), "{devices}");
}
