//! SIGKILL at seeded random moments while a batch is read, run and written, and a new start each time.
//!
//! Each line is answered once in the output file and charged once with the tokens of its answer; nothing
//! else is charged; books balance; nothing of a dead session stays held.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::batches::{assert_charged_as_answered, chat_lines, create, ended, output, see};
use crate::files::batch_file;
use crate::on_both;
use crate::server::{Database, Home, Sequence, Server, full, text, wait_for};
use crate::two::beside;

on_both! {
    each_line_is_answered_and_charged_once_whenever_the_process_is_killed: killed_again_and_again;
}

const SEED: u64 = 40_110;
/// A kill comes after this many looks at the batch at the latest; a look takes longer the more lines it has.
const LOOKS_BEFORE_KILL_MAX: u64 = 400;
const LOOKS_BEFORE_KILL_MAX_FULL: u64 = 150;
/// Output tokens of each line.
const TOKENS: u32 = 6;
/// Most kills before a batch may end in peace.
const KILLS_MAX: u32 = 400;

fn killed_again_and_again(database: Database) {
    let (lines, kills_least, looks_max): (usize, u32, u64) = match full() {
        true => (10_000, 60, LOOKS_BEFORE_KILL_MAX_FULL),
        false => (400, 3, LOOKS_BEFORE_KILL_MAX),
    };
    let mut server = Home::new(database).start();
    let key = server.keys.project.clone();
    let file = batch_file(&server, &key, chat_lines(&server.keys.model, lines, TOKENS).as_bytes());
    let batch = create(&server, &key, &file, &json!({}));
    let mut moments = Sequence(SEED);
    let (mut kills, mut in_the_middle, mut before) = (0, 0, 0);
    while kills < KILLS_MAX && (kills < kills_least || in_the_middle < kills_least.div_ceil(4)) {
        for _ in 0..moments.below(looks_max) {
            see(&server, &key, &batch);
        }
        server.kill();
        kills += 1;
        server.restart();
        let seen = see(&server, &key, &batch);
        let answered = seen["request_counts"]["completed"].as_i64().unwrap();
        assert!(answered >= before, "answers were lost: {answered} of {before}");
        in_the_middle += u32::from(answered > before && seen["status"] == json!("in_progress"));
        before = answered;
        if seen["status"] == json!("completed") {
            break;
        }
    }
    assert!(in_the_middle > 0, "no kill came in the middle of the batch");
    let batch = ended_in_time(&server, &key, &batch, lines);
    let answers = output(&server, &key, &batch["output_file_id"]);
    assert_eq!((answers.len(), &batch["status"]), (lines, &json!("completed")), "{batch}");
    assert_charged_as_answered(&server, &answers);
    assert_meters(&server, &answers);
    wait_for("money of dead sessions to be free", || {
        let credits = server.see("/v1/organization/billing/credits", &server.keys.admin);
        (crate::server::nanos(&credits["sliced"]) == 0).then_some(())
    });
    eprintln!("count: lines of a batch under kills on {database:?} = {lines}");
    eprintln!("count: kills of a running batch on {database:?} = {kills}");
    eprintln!("seed {SEED}: {in_the_middle} kills came between two answers");
}

/// The end, awaited longer for more lines.
fn ended_in_time(server: &Server, key: &str, batch: &Value, lines: usize) -> Value {
    let mut last = 0;
    for _ in 0..lines {
        let answered = wait_for("another answer, or the end", || {
            let batch = see(server, key, batch);
            let answered = batch["request_counts"]["completed"].as_i64().unwrap();
            (answered > last || batch["status"] == json!("completed")).then_some((answered, batch["status"] == json!("completed")))
        });
        if answered.1 {
            break;
        }
        last = answered.0;
    }
    ended(server, key, batch)
}

/// Each answer's tokens are the quantities of its charges, and no meter of a request is charged twice.
fn assert_meters(server: &Server, answers: &BTreeMap<String, Value>) {
    let mut seen = BTreeSet::new();
    let mut output = BTreeMap::new();
    for charge in server.charges() {
        let meter = (charge["request"].to_string(), charge["meter"].to_string());
        assert!(seen.insert(meter), "charged twice: {charge}");
        if charge["meter"] == json!("output_tokens") {
            output.insert(text(&charge["request"]), charge["quantity"].clone());
        }
    }
    for line in answers.values() {
        let tokens = &line["response"]["body"]["usage"]["completion_tokens"];
        assert_eq!(output.get(&text(&line["response"]["request_id"])).map(Value::to_string), Some(tokens.to_string()), "{line}");
    }
}

#[test]
fn a_dead_processs_batch_is_taken_over_and_what_it_still_says_changes_nothing() {
    let shared = tempfile::tempdir().unwrap();
    let mut home = Home::new(Database::Postgresql);
    home.files = Some(shared.path().join("files"));
    let mut first = home.start();
    let key = first.keys.project.clone();
    let lines = 300;
    let file = batch_file(&first, &key, chat_lines(&first.keys.model, lines, 40).as_bytes());
    let batch = create(&first, &key, &file, &json!({}));
    wait_for("some lines to be answered", || {
        (see(&first, &key, &batch)["request_counts"]["completed"].as_i64().unwrap() >= 20).then_some(())
    });
    // What it has made durable and not yet settled stays in its journal.
    first.kill();
    let second = beside(&first);
    let batch = ended_in_time(&second, &key, &batch, lines);
    let answers = output(&second, &key, &batch["output_file_id"]);
    assert_eq!((answers.len(), &batch["status"]), (lines, &json!("completed")), "{batch}");
    first.restart();
    first.wait_until_settled();
    assert_charged_as_answered(&second, &answers);
    assert_meters(&second, &answers);
}
