//! SIGKILL at seeded random moments under load, and a new start on the same data each time.
//!
//! What a client has seen complete is charged exactly once with the tokens it saw; what it has not
//! seen complete is charged at most once; books balance; nothing of a dead session stays held.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, Sequence, Server, chat, full, merge, nanos, never_end, text, wait_for};

on_both! {
    nothing_is_lost_or_doubled_when_the_process_is_killed: killed_again_and_again;
}

const SEED: u64 = 20_260;
/// A kill comes after this many milliseconds of load at the latest.
const LOAD_MS_MAX: u64 = 900;
/// What a job may have run before the load began: starting it and seeing that, on a busy machine.
const LIFE_MS_MAX: u64 = 10_000;
/// Clients that ask again and again: every second one streams.
const CLIENTS: u32 = 6;
/// Output tokens of the longest request.
const TOKENS_MAX: u64 = 160;
/// Requests of one client in one round.
const REQUESTS_MAX: u32 = 10_000;

/// What clients saw of the requests of all rounds.
#[derive(Default)]
struct Seen {
    /// Requests whose end the client saw, with their output tokens.
    acknowledged: Mutex<BTreeMap<String, u64>>,
    /// Requests that broke off after their id was known, with the tokens the client had asked for.
    broken: Mutex<BTreeMap<String, u64>>,
    asked: AtomicU32,
}

fn killed_again_and_again(database: Database) {
    let rounds = match (full(), database) {
        (true, Database::Sqlite) => 130,
        (true, Database::Postgresql) => 70,
        (false, Database::Sqlite) => 6,
        (false, Database::Postgresql) => 3,
    };
    let mut server = Home::new(database).start();
    let mut moments = Sequence(SEED);
    let (seen, mut jobs) = (Seen::default(), Vec::new());
    for round in 0..rounds {
        jobs.push(start_job(&server, round));
        let moment = Duration::from_millis(moments.below(LOAD_MS_MAX));
        load_until_killed(&mut server, &seen, moment, round);
        server.restart();
        assert_nothing_survived(&server);
        server.assert_books();
    }
    server.wait_until_settled();
    check_jobs(&server, &jobs);
    check_requests(&server, &seen);
    server.assert_books();
    eprintln!("count: kills under load on {database:?} = {rounds}");
    eprintln!(
        "seed {SEED}: {} requests asked, {} acknowledged, {} broken off",
        seen.asked.load(Ordering::Relaxed),
        seen.acknowledged.lock().unwrap().len(),
        seen.broken.lock().unwrap().len()
    );
}

/// A job that outlives its round by far, on a lease that may be taken back at once.
fn start_job(server: &Server, round: u32) -> Value {
    let lease = server.lease(&server.keys.project, "n0", &json!({ "metadata": { "round": round.to_string() } }));
    let job = server.job(&server.keys.project, &lease, &format!("echo begun; sleep 600; {}", marker(server)));
    wait_for("the job to start", || {
        let job = server.see(&format!("/v1/jobs/{}", text(&job["id"])), &server.keys.project);
        (job["status"] == json!("running")).then_some(())
    });
    assert_ne!(sleepers_of(&marker(server)), Vec::<String>::new(), "the job's process is not seen, so its end could not be either");
    job
}

fn load_until_killed(server: &mut Server, seen: &Seen, moment: Duration, round: u32) {
    let (address, key, model) = (server.address.clone(), server.keys.project.clone(), server.keys.model.clone());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, key, model) = (&address, &key, &model);
            scope.spawn(move || {
                let mut sizes = Sequence(SEED ^ (u64::from(round) << 32) ^ u64::from(client));
                for _ in 0..REQUESTS_MAX {
                    let tokens = 1 + sizes.below(TOKENS_MAX);
                    let asking = Asking { address, key, model, tokens, streamed: client % 2 == 0 };
                    seen.asked.fetch_add(1, Ordering::Relaxed);
                    if asking.ask(seen).is_err() {
                        return;
                    }
                }
            });
        }
        std::thread::sleep(moment);
        server.kill();
    });
}

struct Asking<'a> {
    address: &'a str,
    key: &'a str,
    model: &'a str,
    tokens: u64,
    streamed: bool,
}

impl Asking<'_> {
    /// One request; an error means that the server is gone.
    fn ask(&self, seen: &Seen) -> std::io::Result<()> {
        let tokens = u32::try_from(self.tokens).unwrap();
        let mut body = chat(self.model, tokens, &json!({ "logit_bias": never_end() }));
        if self.streamed {
            merge(&mut body, &json!({ "stream": true, "stream_options": { "include_usage": true } }));
        }
        let opened = crate::http::Ask::new(self.address, "POST", "/v1/chat/completions").key(self.key).json(&body).open()?;
        let id = opened.headers.iter().find(|(name, _)| name == "x-request-id").unwrap().1.clone();
        assert_eq!(opened.status, 200, "{id}");
        let ended = if self.streamed { read_stream(opened) } else { read_whole(opened) };
        match ended {
            Ok(output) => assert_eq!(seen.acknowledged.lock().unwrap().insert(id, output), None),
            Err(error) => {
                seen.broken.lock().unwrap().insert(id, self.tokens);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The output tokens of the usage, once `[DONE]` has come.
fn read_stream(opened: crate::http::Opened) -> std::io::Result<u64> {
    let mut output = 0;
    for event in opened.events() {
        let event = event?;
        if event == "[DONE]" {
            return Ok(output);
        }
        let chunk: Value = serde_json::from_str(&event)?;
        output = chunk["usage"]["completion_tokens"].as_u64().unwrap_or(output);
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

fn read_whole(opened: crate::http::Opened) -> std::io::Result<u64> {
    let answer: Value = serde_json::from_str(&opened.text()?)?;
    answer["usage"]["completion_tokens"].as_u64().ok_or(std::io::ErrorKind::InvalidData.into())
}

/// No process of a sandbox and no slice of the dead session is left.
fn assert_nothing_survived(server: &Server) {
    wait_for("money of the dead session to be free", || {
        let credits = server.see("/v1/organization/billing/credits", &server.keys.admin);
        (nanos(&credits["sliced"]) == 0 && nanos(&credits["held"]) == 0 && nanos(&credits["suspense"]) == 0).then_some(())
    });
    let left = sleepers_of(&marker(server));
    assert_eq!(left, Vec::<String>::new(), "processes of dead sandboxes");
}

/// Text that only this cloud's jobs have on their command lines.
fn marker(server: &Server) -> String {
    format!(": {}", server.home.data_dir.display())
}

fn sleepers_of(marker: &str) -> Vec<String> {
    let listed = Command::new("ps").args(["-eo", "pid=,ppid=,args="]).output().unwrap();
    assert!(listed.status.success());
    String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(marker)).map(str::to_owned).collect()
}

fn check_jobs(server: &Server, jobs: &[Value]) {
    for job in jobs {
        let ended = server.ended_job(&server.keys.project, &job["id"]);
        assert_eq!(ended["exit"]["kind"], json!("lost"), "{ended}");
        let (device_ms, cost) = (ended["device_milliseconds"].as_u64().unwrap(), nanos(&ended["cost"]));
        assert!(device_ms <= LOAD_MS_MAX + LIFE_MS_MAX, "charged beyond its last proof of life: {ended}");
        assert_eq!(cost > 0, device_ms > 0, "charged for what ran, and for nothing else: {ended}");
    }
}

fn check_requests(server: &Server, seen: &Seen) {
    let acknowledged = seen.acknowledged.lock().unwrap();
    for (id, output) in acknowledged.iter() {
        let settled = server.see(&format!("/v1/requests/{id}"), &server.keys.project);
        assert_eq!(settled["usage"]["output_tokens"], json!(output), "{settled}");
        assert!(nanos(&settled["cost"]) > 0, "{settled}");
    }
    for (id, asked) in seen.broken.lock().unwrap().iter() {
        let answer = server.get(&format!("/v1/requests/{id}"), &server.keys.project).unwrap();
        assert!(matches!(answer.status, 200 | 404), "{}", answer.text());
        if answer.status == 200 {
            let output = answer.json()["usage"]["output_tokens"].as_u64().unwrap();
            assert!(output <= *asked, "{}", answer.text());
        }
    }
    assert_each_is_charged_once(server, &acknowledged);
}

fn assert_each_is_charged_once(server: &Server, acknowledged: &BTreeMap<String, u64>) {
    let (mut meters, mut charged) = (BTreeSet::new(), BTreeSet::new());
    for charge in server.charges() {
        if let Some(request) = charge["request"].as_str() {
            assert!(meters.insert((request.to_owned(), charge["meter"].to_string())), "charged twice: {charge}");
            charged.insert(request.to_owned());
        }
    }
    for id in acknowledged.keys() {
        assert!(charged.contains(id), "{id} was acknowledged and not charged");
    }
}
