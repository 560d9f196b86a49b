//! Files and batches: from a local file to answers in another.

use std::path::PathBuf;

use serde_json::{Value, json};
use sublet_cli::ExitStatus;

use crate::cloud::{Answer, Cloud, refusal};
use crate::object;
use crate::terminal::{Printed, Terminal};

const LINE: &str = r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}}"#;

/// A local file of this test's own.
fn local(name: &str, content: Option<&str>) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    match content {
        Some(content) => std::fs::write(&path, content).unwrap(),
        None => drop(std::fs::remove_file(&path)),
    }
    path
}

fn run(cloud: &Cloud, words: &[&str]) -> Printed {
    Terminal::at(cloud.url()).run(words)
}

#[test]
fn a_file_goes_up_as_a_form_under_a_key_of_its_own() {
    let cloud = Cloud::start();
    cloud.gives("POST /v1/files", object::file());
    let path = local("up.jsonl", Some(LINE));
    let printed = run(&cloud, &["files", "upload", path.to_str().unwrap(), "--expires-after-hours", "2"]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    assert!(printed.out.contains("file_1") && printed.out.contains("2.0 MiB"), "{}", printed.out);
    let asked = &cloud.asked()[0];
    assert_eq!(asked.header("content-length").unwrap().parse(), Ok(asked.text.len()));
    assert!(asked.header("content-type").unwrap().starts_with("multipart/form-data; boundary=sublet-"));
    assert_eq!(asked.header("idempotency-key").map(str::len), Some(32));
    for part in ["name=\"purpose\"\r\n\r\nbatch\r\n", "[seconds]\"\r\n\r\n7200\r\n", "filename=\"up.jsonl\"", LINE] {
        assert!(asked.text.contains(part), "{part} in {}", asked.text);
    }
}

#[test]
fn what_cannot_be_sent_is_refused_before_anybody_is_asked() {
    let cloud = Cloud::start();
    let empty = local("empty.jsonl", Some(""));
    let wrong = local("wrong.jsonl", Some("{}\n"));
    for (words, says) in [
        (vec!["files", "upload", "/nonexistent"], "cannot be sent"),
        (vec!["files", "upload", empty.to_str().unwrap()], "it is empty"),
        (vec!["files", "upload", "/tmp"], "not a plain file"),
        (vec!["batches", "create", wrong.to_str().unwrap()], "not a request with a 'url'"),
        (vec!["batches", "create", "file_1"], "what the lines of file_1 call"),
        (vec!["batches", "results", "batch_1", "--json"], "--output PATH"),
    ] {
        let printed = run(&cloud, &words);
        assert_eq!(printed.status, ExitStatus(2), "{}", printed.err);
        assert!(printed.err.contains(says), "{}", printed.err);
    }
    assert_eq!(cloud.lines(), [""; 0]);
}

#[test]
fn a_content_is_printed_or_appears_whole_in_a_file() {
    let cloud = Cloud::start();
    let route = "GET /v1/files/file_1/content";
    cloud.answers(route, Answer::Text { chunks: vec!["one\n", "two\n"], cut: false });
    assert_eq!(run(&cloud, &["files", "content", "file_1"]).out, "one\ntwo\n");
    let path = local("content.jsonl", None);
    let words = ["files", "content", "file_1", "--output", path.to_str().unwrap()];
    let printed = run(&cloud, &words);
    assert_eq!((printed.status, printed.out.as_str()), (ExitStatus::OK, ""), "{}", printed.err);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    std::fs::remove_file(&path).unwrap();
    let cloud = Cloud::start();
    cloud.answers(route, Answer::Text { chunks: vec!["one\n"], cut: true });
    assert_eq!(run(&cloud, &words).status, ExitStatus(9));
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    assert!(!path.exists() && !partial.exists(), "half a content is none");
}

#[test]
fn a_batch_is_created_from_a_local_file_in_one_go() {
    let cloud = Cloud::start();
    cloud.gives("POST /v1/files", object::file()).gives("POST /v1/batches", object::batch("validating", (0, 0)));
    let path = local("batch.jsonl", Some(LINE));
    let words = ["batches", "create", path.to_str().unwrap(), "--window", "2h", "--output-expires-after-hours", "1"];
    let printed = run(&cloud, &words);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    assert!(printed.out.contains("batch_1") && printed.out.contains("validating"), "{}", printed.out);
    assert_eq!(printed.err, "its answers: sublet batches results batch_1\n");
    let expected = json!({"input_file_id": "file_1", "endpoint": "/v1/embeddings", "completion_window": "2h", "metadata": null,
        "output_expires_after": {"anchor": "created_at", "seconds": 3_600}});
    assert_eq!(cloud.asked()[1].body, expected, "the first line says what is called");
}

#[test]
fn a_file_of_a_batch_that_did_not_begin_is_deleted_again() {
    let cloud = Cloud::start();
    let deleted = json!({"id": "file_1", "object": "file", "deleted": true});
    cloud.gives("POST /v1/files", object::file()).gives("DELETE /v1/files/file_1", deleted);
    cloud.answers("POST /v1/batches", Answer::Json(507, refusal("storage_full", "too many files")));
    let path = local("refused.jsonl", Some(LINE));
    let printed = run(&cloud, &["batches", "create", path.to_str().unwrap()]);
    assert_eq!(printed.status, ExitStatus(9), "{}", printed.err);
    assert_eq!(cloud.lines(), ["POST /v1/files", "POST /v1/batches", "DELETE /v1/files/file_1"]);
    // A file that was there before stays.
    let printed = run(&cloud, &["batches", "create", "file_1", "--endpoint", "/v1/embeddings"]);
    assert_eq!((printed.status, cloud.lines().len()), (ExitStatus(9), 4));
}

/// A cloud whose batch gets on with each look.
fn getting_on(looks: &[Value]) -> Cloud {
    let cloud = Cloud::start();
    for look in looks {
        cloud.gives("GET /v1/batches/batch_1", look.clone());
    }
    cloud.answers("GET /v1/files/file_2/content", Answer::Text { chunks: vec!["{\"custom_id\":\"a\"}\n"], cut: false });
    cloud.answers("GET /v1/files/file_3/content", Answer::Text { chunks: vec!["{\"custom_id\":\"b\"}\n"], cut: false });
    cloud
}

#[test]
fn results_wait_for_the_end_and_say_how_far_it_is() {
    let runs = |completed| object::batch("in_progress", (completed, 0));
    let cloud = getting_on(&[runs(0), runs(1), runs(1), runs(2), object::batch("completed", (3, 0))]);
    let printed = run(&cloud, &["batches", "results", "batch_1"]);
    assert_eq!((printed.status, printed.out.as_str(), printed.pauses), (ExitStatus::OK, "{\"custom_id\":\"a\"}\n", 4));
    let said = "batch_1 in_progress: 0 of 3 lines answered
batch_1 in_progress: 1 of 3 lines answered
batch_1 in_progress: 2 of 3 lines answered
batch_1 completed: 3 of 3 lines answered
";
    assert_eq!(printed.err, said);
}

#[test]
fn lines_without_an_answer_are_told_and_kept_apart() {
    let looks = [object::batch("completed", (2, 1))];
    let printed = run(&getting_on(&looks), &["batches", "results", "batch_1"]);
    assert_eq!((printed.status, printed.out.as_str()), (ExitStatus(1), "{\"custom_id\":\"a\"}\n"));
    let said = "lines without an answer: sublet files content file_3
line 2: no model 'x' (model_not_found)
batch_1 completed: 2 of 3 lines answered, 1 failed
";
    assert_eq!(printed.err, said);
    let (output, errors) = (local("output.jsonl", None), local("errors.jsonl", None));
    let paths = ["--output", output.to_str().unwrap(), "--errors", errors.to_str().unwrap()];
    let words = [&["batches", "results", "batch_1", "--json"][..], &paths[..]].concat();
    let printed = run(&getting_on(&looks), &words);
    assert_eq!(serde_json::from_str::<Value>(&printed.out).unwrap()["id"], json!("batch_1"));
    let read = |path| std::fs::read_to_string(path).unwrap();
    assert_eq!((read(&output), read(&errors)), ("{\"custom_id\":\"a\"}\n".to_owned(), "{\"custom_id\":\"b\"}\n".to_owned()));
}

#[test]
fn results_can_be_asked_for_without_waiting() {
    let cloud = getting_on(&[object::batch("in_progress", (1, 0))]);
    let printed = run(&cloud, &["batches", "results", "batch_1", "--no-wait"]);
    assert_eq!((printed.status, printed.out.as_str(), printed.pauses), (ExitStatus(5), "", 0));
    assert!(printed.err.contains("1 of 3 lines answered"), "{}", printed.err);
}
