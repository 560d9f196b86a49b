//! What customers ask and are answered is nowhere but in their answers.
//!
//! Secrets are planted in every field that is meant for a model, in good and bad requests of every
//! dialect, with the log at its most talkative; then every byte that the cloud left behind is read.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, Server, merge};

const SECRET: &str = "zanzibar-heliotrope-4711";
const CHAT: &str = "/v1/chat/completions";
/// Shorter pieces of an answer could be anywhere.
const ANSWER_BYTES_MIN: usize = 24;

on_both! {
    prompts_and_answers_are_not_kept: planted_secrets;
}

/// Good requests of every dialect, each with the secret in all that a model reads.
fn good(model: &str) -> Vec<(&'static str, Value)> {
    let asked = format!("My secret is {SECRET}. What is a lease?");
    let turns = json!([
        { "role": "user", "content": asked },
        { "role": "assistant", "content": [{ "type": "text", "text": format!("You said {SECRET}.") }] },
        { "role": "user", "content": "What is a hold?" },
    ]);
    vec![
        (CHAT, json!({ "model": model, "messages": turns, "max_tokens": 40, "user": SECRET, "metadata": { "a": SECRET } })),
        (CHAT, json!({ "model": model, "messages": turns, "max_tokens": 40, "stop": [SECRET], "stream": true })),
        ("/v1/completions", json!({ "model": model, "prompt": asked, "max_tokens": 20 })),
        ("/v1/responses", json!({ "model": model, "input": asked, "instructions": SECRET, "max_output_tokens": 40 })),
        (
            "/v1/responses",
            json!({ "model": model, "input": asked, "metadata": { "a": SECRET }, "max_output_tokens": 4, "stream": true, "store": false }),
        ),
        ("/v1/messages", json!({ "model": model, "messages": turns, "system": SECRET, "max_tokens": 40 })),
        ("/v1/messages", json!({ "model": model, "messages": turns, "stop_sequences": [SECRET], "max_tokens": 4, "stream": true })),
        ("/v1/messages/count_tokens", json!({ "model": model, "messages": turns })),
        ("/v1/responses/input_tokens", json!({ "model": model, "input": asked })),
    ]
}

/// Requests that are refused somewhere on the way, or cost nothing.
fn bad(model: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&str, Vec<u8>)> = Vec::new();
    for (path, body) in good(model) {
        for change in [json!({ "model": format!("no-{SECRET}") }), json!({ "temperature": SECRET }), json!({ "tools": [SECRET] })] {
            let mut wrong = body.clone();
            merge(&mut wrong, &change);
            all.push((path, wrong.to_string().into_bytes()));
        }
        let mut long = body.clone();
        let words = json!(format!("{SECRET} ").repeat(2_000));
        merge(&mut long, &json!({ "prompt": words, "input": words, "messages": [{ "role": "user", "content": words }] }));
        all.push((path, long.to_string().into_bytes()));
        let mut torn = body.to_string().into_bytes();
        torn.truncate(torn.len() - 3);
        all.push((path, torn));
    }
    all
}

fn planted_secrets(database: Database) {
    let mut home = Home::new(database);
    home.log_filter = "trace";
    let mut server = home.start();
    let (key, model) = (server.keys.project.clone(), server.keys.model.clone());
    let mut answers = Vec::new();
    for (path, mut body) in good(&model) {
        // The same words each time.
        merge(&mut body, &json!({ "temperature": 0 }));
        let asked = server.ask("POST", path).key(&key).header("idempotency-key", format!("{path}{}", answers.len()));
        let answer = asked.json(&body).send().unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answers.push(spoken(&answer.text()));
    }
    assert!(answers.iter().filter(|answer| answer.len() >= ANSWER_BYTES_MIN).count() >= 3, "{answers:?}");
    for (path, body) in bad(&model) {
        let answer = server.ask("POST", path).key(&key).bytes(&body).send().unwrap();
        let is_ignored = answer.status == 200 && path.contains("tokens");
        assert!((400..500).contains(&answer.status) || is_ignored, "{path}: {} {}", answer.status, answer.text());
    }
    hang_up(&server, &model);
    server.wait_until_settled();
    // One end that is told and one that is not.
    server.kill();
    server.restart();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_left_behind(&server, &answers);
}

/// A client that leaves in the middle of its answer.
fn hang_up(server: &Server, model: &str) {
    let body = json!({
        "model": model, "stream": true, "max_tokens": 200,
        "messages": [{ "role": "user", "content": format!("Remember {SECRET} and speak.") }],
    });
    let opened = server.ask("POST", CHAT).key(&server.keys.project).json(&body).open().unwrap();
    assert!(opened.events().take(3).all(|event| event.is_ok()));
}

/// What a model said in one object or in events: its longest piece that JSON and logs write as it is.
fn spoken(answer: &str) -> String {
    let whole = ["/choices/0/message/content", "/choices/0/text", "/output/0/content/0/text", "/content/0/text"];
    let delta = ["/choices/0/delta/content", "/delta/text", "/delta"];
    let find = |value: &Value, places: &[&str]| places.iter().find_map(|place| value.pointer(place)?.as_str().map(str::to_owned));
    let text = match serde_json::from_str::<Value>(answer) {
        Ok(object) => find(&object, &whole).unwrap_or_default(),
        Err(_) => {
            let data = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
            data.filter_map(|event| find(&event, &delta)).collect()
        }
    };
    let pieces = text.split(|character: char| character.is_control() || ['"', '\\'].contains(&character));
    pieces.max_by_key(|piece| piece.len()).unwrap_or_default().to_owned()
}

fn assert_left_behind(server: &Server, answers: &[String]) {
    let mut files = vec![server.home.log_path()];
    collect(&server.home.data_dir, &mut files);
    if let Some((_, directory)) = server.home.database_url.as_deref().and_then(|url| url.split_once("?host=")) {
        collect(Path::new(directory), &mut files);
    }
    let mut bytes = 0;
    for file in &files {
        // A running database removes files of its own.
        let Ok(content) = std::fs::read(file) else { continue };
        bytes += content.len();
        let planted = answers.iter().map(String::as_str).filter(|answer| answer.len() >= ANSWER_BYTES_MIN);
        for secret in planted.chain([SECRET]) {
            assert!(!holds(&content, secret.as_bytes()), "{} holds {secret:?}", file.display());
        }
    }
    assert!(files.len() >= 4 && bytes > 100_000, "{} files, {bytes} bytes", files.len());
    // The search finds what is there: each request left its route with its usage.
    assert!(files.iter().any(|file| std::fs::read(file).is_ok_and(|content| holds(&content, b"/v1/messages"))));
    assert!(server.log().contains("the gateway is open"));
}

/// Whether any file below a directory holds a text.
pub fn holds_anywhere(directory: &Path, wanted: &str) -> bool {
    let mut files = Vec::new();
    collect(directory, &mut files);
    files.iter().any(|file| std::fs::read(file).is_ok_and(|content| holds(&content, wanted.as_bytes())))
}

fn holds(content: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return false };
    let starts = content.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts.map(|(at, _)| &content[at + 1..]).any(|tail| tail.starts_with(rest))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            // The model's own files are what the project published.
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}
