//! How the process starts, ends, and refuses to start.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use sublet_testkit::postgres::PostgresServer;

use crate::on_both;
use crate::server::{Database, Home, Server, chat, merge, nanos, never_end, sublet, text, wait_for};

on_both! {
    a_told_process_drains_and_ends_well: drains_and_exits;
    a_busy_data_directory_is_named_and_goes_on_serving: busy_directory;
    a_process_may_be_told_to_stop_as_soon_as_it_is_ready: early_stops;
    an_imported_model_is_served_once_it_has_a_price: imported_model;
    a_corrupt_model_is_refused_and_nothing_of_it_is_kept: corrupt_model;
}

fn drains_and_exits(database: Database) {
    let mut server = Home::new(database).start();
    let lease = server.lease(&server.keys.project, "n2m", &json!({}));
    let job = server.job(&server.keys.project, &lease, "trap 'echo told; exit 0' TERM; echo begun; while :; do sleep 0.1; done");
    wait_for("the job to begin", || {
        let log = server.get(&format!("/v1/jobs/{}/logs", text(&job["id"])), &server.keys.project).unwrap().text();
        log.contains("begun").then_some(())
    });
    let extra = json!({ "stream": true, "stream_options": { "include_usage": true }, "logit_bias": never_end() });
    let body = chat(&server.keys.model, 400, &extra);
    let mut events = server.ask("POST", "/v1/chat/completions").key(&server.keys.project).json(&body).open().unwrap().events();
    events.next().unwrap().unwrap();
    server.terminate();
    let rest: Vec<String> = events.map(Result::unwrap).collect();
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"), "a stream finishes while the process drains");
    let usage: Value = serde_json::from_str(&rest[rest.len() - 2]).unwrap();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());

    server.restart();
    let settled = server.see(&format!("/v1/requests/{}", text(&usage["id"])), &server.keys.project);
    assert_eq!(settled["usage"]["output_tokens"], usage["usage"]["completion_tokens"]);
    let ended = server.ended_job(&server.keys.project, &job["id"]);
    assert!(nanos(&ended["cost"]) > 0, "{ended}");
    let log = server.get(&format!("/v1/jobs/{}/logs", text(&job["id"])), &server.keys.project).unwrap().text();
    assert!(log.contains("told"), "the job was told before it was ended: {log}");
    server.wait_until_settled();
    server.assert_books();
}

/// Runs a start that must fail: its exit status and what it says.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = Home::new(Database::Sqlite);
    let (status, said) = refused(&mut home.up(&address));
    assert_eq!(status, Some(5), "{said}");
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
}

fn busy_directory(database: Database) {
    let server = Home::new(database).start();
    let (status, said) = refused(&mut server.home.up("127.0.0.1:0"));
    assert_eq!(status, Some(5), "{said}");
    assert!(said.contains("data_directory_busy") && said.contains("--data-dir"), "{said}");
    assert_eq!(server.get("/readyz", "").unwrap().status, 200);
}

#[test]
fn a_schema_of_a_newer_program_is_left_as_it_is() {
    let mut server = Home::new(Database::Postgresql).start();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let url = server.home.database_url.clone().unwrap();
    PostgresServer::shared().pretend_newer_schema(&url);
    let (status, said) = refused(&mut server.home.up("127.0.0.1:0"));
    assert_eq!(status, Some(5), "{said}");
    assert!(said.contains("newer") && said.contains("backup"), "{said}");
    PostgresServer::shared().forget_newer_schema(&url);
    server.restart();
    server.see("/v1/account", &server.keys.project);
}

#[test]
fn wrong_flags_are_usage_errors() {
    let cases: [&[&str]; 7] = [
        &["--nope"],
        &["up", "--listen", "nowhere"],
        &["up", "--currency", "euro"],
        &["up", "extra"],
        &["jobs", "show"],
        &["frobnicate"],
        &["demo", "--listen", "127.0.0.1:99999"],
    ];
    for case in cases {
        let (status, said) = refused(sublet().args(case));
        assert_eq!(status, Some(2), "{case:?}: {said}");
        assert!(said.contains("error:"), "{case:?}: {said}");
    }
}

#[test]
fn a_data_directory_that_is_a_file_is_a_usage_error() {
    let home = Home::new(Database::Sqlite);
    std::fs::write(&home.data_dir, b"not a directory").unwrap();
    let (status, said) = refused(&mut home.up("127.0.0.1:0"));
    assert_eq!(status, Some(2), "{said}");
    assert_eq!(std::fs::read(&home.data_dir).unwrap(), b"not a directory");
}

#[test]
fn the_demo_tells_its_story_again_and_again() {
    let home = Home::new(Database::Sqlite);
    for telling in 1..=2 {
        let mut demo = sublet();
        demo.args(["demo", "--exit", "--listen", "127.0.0.1:0"]).arg("--data-dir").arg(&home.data_dir);
        let told = demo.output().unwrap();
        let (story, said) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert_eq!(told.status.code(), Some(0), "{story}{said}");
        // A request has two charges and each of three jobs has one, in each telling anew.
        let charges = format!("{} charges add up to", telling * 5);
        assert!(story.contains("the owner's work on") && story.contains("promise broken"), "{story}");
        assert!(story.contains(&charges) && story.contains("the ledger has captured"), "{charges}? {story}{said}");
    }
}

fn early_stops(database: Database) {
    let mut server = Home::new(database).start();
    for start in 0..5 {
        server.terminate();
        assert_eq!(server.wait().code(), Some(0), "start {start}: {}", server.log());
        server.restart();
    }
    server.assert_books();
}

fn imported_model(database: Database) {
    let server = Home::new(database).start();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sublet-mini");
    let import = |name: &str| {
        let mut command = sublet();
        command.args(["models", "import", "--name", name]).arg(&shipped).arg("--data-dir").arg(&server.home.data_dir);
        command.output().unwrap()
    };
    let imported = import("second");
    assert_eq!(imported.status.code(), Some(0), "{}", String::from_utf8_lossy(&imported.stderr));
    assert!(String::from_utf8_lossy(&imported.stderr).contains("sublet prices publish"), "it says what is missing");
    let body = chat("second", 4, &json!({}));
    let refused = server.post("/v1/chat/completions", &server.keys.project, &body).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (409, "unknown_price"), "{}", refused.text());
    let list = server.see("/v1/prices", &server.keys.project);
    let mut prices = list["prices"].as_array().unwrap().clone();
    for price in list["prices"].as_array().unwrap().iter().filter(|price| price["subject"]["name"] == json!("sublet-mini")) {
        let mut second = price.clone();
        second["subject"]["name"] = json!("second");
        prices.push(second);
    }
    let file = server.home.data_dir.join("prices.json");
    let published = json!({ "name": list["name"], "currency": list["currency"], "prices": prices });
    std::fs::write(&file, published.to_string()).unwrap();
    let mut publish = sublet();
    let publish = publish.args(["prices", "publish"]).arg(&file).arg("--data-dir").arg(&server.home.data_dir).output().unwrap();
    assert_eq!(publish.status.code(), Some(0), "{}", String::from_utf8_lossy(&publish.stderr));
    let answer = server.make("/v1/chat/completions", &server.keys.project, &body);
    assert_eq!(answer["model"], json!("second"), "{answer}");
    server.wait_until_settled();
    let charged = server.charges();
    assert!(!charged.is_empty() && charged.iter().all(|charge| charge["subject"]["name"] == json!("second")), "{charged:?}");
}

fn corrupt_model(database: Database) {
    let server = Home::new(database).start();
    let temporary = tempfile::tempdir().unwrap();
    let source = temporary.path().join("broken");
    std::fs::create_dir(&source).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sublet-mini");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(shipped.join(name), source.join(name)).unwrap();
    }
    let mut weights = std::fs::read(shipped.join("model.safetensors")).unwrap();
    weights.truncate(weights.len() / 2);
    std::fs::write(source.join("model.safetensors"), weights).unwrap();
    let imported = server.post("/operator/v1/models", &server.keys.operator, &json!({ "path": source })).unwrap();
    assert_eq!((imported.status, imported.code().as_str()), (400, "model_file_invalid"), "{}", imported.text());
    let command = sublet().args(["models", "import"]).arg(&source).arg("--data-dir").arg(&server.home.data_dir).output().unwrap();
    assert_eq!(command.status.code(), Some(2), "{}", String::from_utf8_lossy(&command.stderr));
    assert_eq!(std::fs::read_dir(server.home.data_dir.join("models")).unwrap().count(), 0);
    assert_eq!(server.see("/v1/models", &server.keys.project)["data"].as_array().unwrap().len(), 1);
}

/// A small file system of its own, unmounted in the end.
struct SmallDisk {
    mount: tempfile::TempDir,
}

/// What the cloud needs for itself and a little load, in mebibytes.
const SMALL_DISK_MIB: u32 = 24;

impl SmallDisk {
    fn mount() -> Self {
        let mount = tempfile::Builder::new().prefix("sublet-it-disk-").tempdir().unwrap();
        let size = format!("size={SMALL_DISK_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(mount.path()).status().unwrap();
        assert!(mounted.success(), "this test mounts a small file system and so needs to run as root");
        Self { mount }
    }

    /// Leaves no byte free.
    fn fill(&self) -> std::path::PathBuf {
        let ballast = self.mount.path().join("ballast");
        let filled = Command::new("sh").arg("-c").arg("cat /dev/zero > \"$0\" 2>/dev/null").arg(&ballast).status().unwrap();
        assert!(!filled.success(), "the disk takes everything");
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A detached mount goes when its last user does.
        let _ = Command::new("umount").arg("-l").arg(self.mount.path()).status();
    }
}

/// Requests that are asked while the disk is full.
const ASKED_WHEN_FULL: usize = 40;

#[test]
fn a_full_disk_refuses_work_loses_nothing_and_heals() {
    let disk = SmallDisk::mount();
    let mut server = Home::at(disk.mount.path().join("data")).start();
    let mut body = chat(&server.keys.model, 8, &json!({}));
    merge(&mut body, &json!({ "logit_bias": never_end() }));
    let ask = |server: &Server| server.post("/v1/chat/completions", &server.keys.project, &body).unwrap();
    let mut acknowledged = vec![ask(&server).good()];
    server.wait_until_settled();
    // Takes a slice, so that the first requests with the disk full meet the journal and later ones the database.
    acknowledged.push(ask(&server).good());

    let ballast = disk.fill();
    let mut refusals = 0;
    for _ in 0..ASKED_WHEN_FULL {
        let answer = ask(&server);
        match answer.status {
            200 => acknowledged.push(answer.json()),
            _ => {
                assert_eq!(answer.code(), "storage_full", "{} {}", answer.status, answer.text());
                refusals += 1;
            }
        }
    }
    assert!(refusals > 0, "the full disk was never noticed");
    let project = server.post("/v1/organization/projects", &server.keys.admin, &json!({ "name": "late" })).unwrap();
    assert!(project.status == 200 || project.code() == "storage_full", "{} {}", project.status, project.text());

    std::fs::remove_file(ballast).unwrap();
    let healed = wait_for("work to be taken again", || Some(ask(&server)).filter(|answer| answer.status == 200));
    acknowledged.push(healed.good());
    server.wait_until_settled();
    server.kill();
    server.restart();
    for answer in &acknowledged {
        let settled = server.see(&format!("/v1/requests/{}", text(&answer["id"])), &server.keys.project);
        assert_eq!(settled["usage"]["output_tokens"], answer["usage"]["completion_tokens"]);
    }
    eprintln!("{} acknowledged, {refusals} refused with the disk full", acknowledged.len());
    server.assert_books();
    drop(server);
}
