//! `sublet run` from quote to exit code.

use serde_json::{Value, json};
use sublet_cli::ExitStatus;

use crate::cloud::{Answer, Cloud, refusal};
use crate::object;
use crate::terminal::Terminal;

const FINISHED: fn() -> Value = || object::job("failed", json!({"kind": "code", "code": 3}));

/// A cloud that leases.
fn leasing() -> Cloud {
    let cloud = Cloud::start();
    cloud
        .gives("GET /v1/account", object::account())
        .gives("GET /v1/skus", object::list(vec![object::sku("cpu")]))
        .gives("POST /v1/quotes", object::quote())
        .gives("POST /v1/leases", object::lease());
    cloud
}

/// A cloud that leases and starts jobs.
fn selling() -> Cloud {
    let cloud = leasing();
    cloud.gives("POST /v1/jobs", object::job("queued", Value::Null));
    cloud
}

#[test]
fn a_run_quotes_leases_follows_the_log_and_exits_like_the_job() {
    let cloud = selling();
    cloud
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec!["epoch 1\n", "epoch 2\n"], cut: false })
        .gives("GET /v1/jobs/job_1", object::job("running", Value::Null))
        .gives("GET /v1/jobs/job_1", FINISHED());
    let words = ["run", "--units", "2", "--max-cost", "5", "--memory", "512M", "--env", "A=b=c", "--", "python3", "train.py"];
    let printed = Terminal::at(cloud.url()).run(&words);
    assert_eq!((printed.status, printed.pauses), (ExitStatus(3), 1), "{}", printed.err);
    assert_eq!(printed.out, "epoch 1\nepoch 2\n");
    insta::assert_snapshot!(printed.err);
    assert_eq!(
        cloud.lines(),
        [
            "GET /v1/account",
            "GET /v1/skus",
            "POST /v1/quotes",
            "POST /v1/leases",
            "POST /v1/jobs",
            "GET /v1/jobs/job_1/logs?offset=0&follow=true",
            "GET /v1/jobs/job_1",
            "GET /v1/jobs/job_1",
        ]
    );
    let asked = cloud.asked();
    assert_eq!(asked[2].body, json!({"sku": "cpu", "units": 2, "notice": "n0", "maximum_cost": object::eur("5")}));
    assert_eq!(
        asked[4].body,
        json!({"lease": "lease_1", "command": ["python3", "train.py"], "environment": {"A": "b=c"},
        "memory_bytes": 536_870_912, "on_end": "end_lease"})
    );
    let keys: std::collections::BTreeSet<_> = asked.iter().filter_map(|asked| asked.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 3, "quote, lease and job each have their own");
    assert_eq!(asked[4].header("authorization"), Some("Bearer sk-sub-1"));
}

#[test]
fn a_lease_whose_job_does_not_start_is_ended() {
    let cloud = leasing();
    cloud
        .answers("POST /v1/jobs", Answer::Json(403, refusal("policy_refused", "the sandbox is not strict enough")))
        .gives("POST /v1/leases/lease_1/cancel", object::lease());
    let printed = Terminal::at(cloud.url()).run(&["run", "--", "true"]);
    assert_eq!(printed.status, ExitStatus(8), "{}", printed.err);
    assert_eq!(cloud.lines().last().map(String::as_str), Some("POST /v1/leases/lease_1/cancel"));
    assert!(printed.err.contains("the sandbox is not strict enough"), "{}", printed.err);
}

#[test]
fn a_log_that_breaks_off_is_taken_up_where_it_broke() {
    let cloud = selling();
    cloud
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec!["epoch 1\n"], cut: true })
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec!["epoch 2\n"], cut: false })
        .gives("GET /v1/jobs/job_1", object::job("succeeded", json!({"kind": "code", "code": 0})));
    let printed = Terminal::at(cloud.url()).run(&["run", "--", "true"]);
    assert_eq!((printed.status, printed.out.as_str()), (ExitStatus::OK, "epoch 1\nepoch 2\n"), "{}", printed.err);
    assert!(cloud.lines().contains(&"GET /v1/jobs/job_1/logs?offset=8&follow=true".to_owned()));
}

#[test]
fn a_log_that_never_holds_is_given_up_with_the_way_on() {
    let cloud = selling();
    cloud.answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec![], cut: true });
    let printed = Terminal::at(cloud.url()).run(&["run", "--", "true"]);
    assert_eq!((printed.status, printed.pauses), (ExitStatus(9), 5), "{}", printed.err);
    assert!(printed.err.contains("sublet jobs logs job_1 --follow --offset 0"), "{}", printed.err);
}

#[test]
fn a_run_that_may_be_restarted_says_how() {
    let cloud = selling();
    let words = ["run", "--requeue", "--retry-on", "3", "--max-restarts", "5", "--max-wait", "60", "--detach", "--", "true"];
    let printed = Terminal::at(cloud.url()).run(&words);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let restart = json!({"on_interruption": true, "exit_codes": [3], "restarts_max": 5, "wait_seconds_max": 60});
    assert_eq!(cloud.asked().last().unwrap().body["restart"], restart);
    let cloud = selling();
    let printed = Terminal::at(cloud.url()).run(&["run", "--max-wait", "60", "--", "true"]);
    assert_eq!(printed.status, ExitStatus(2), "{}", printed.err);
    assert!(printed.err.contains("--requeue") && cloud.lines().is_empty(), "{}", printed.err);
}

#[test]
fn the_output_of_each_attempt_is_followed_until_the_job_has_ended() {
    let cloud = selling();
    cloud
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec!["epoch 1\n"], cut: false })
        .gives("GET /v1/jobs/job_1", object::restarted_job("requeued", object::waiting()))
        .gives("GET /v1/jobs/job_1", object::restarted_job("running", Value::Null))
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec!["epoch 2\n"], cut: false })
        .gives("GET /v1/jobs/job_1", object::job("succeeded", json!({"kind": "code", "code": 0})));
    let printed = Terminal::at(cloud.url()).run(&["run", "--requeue", "--", "true"]);
    assert_eq!((printed.status, printed.out.as_str()), (ExitStatus::OK, "epoch 1\nepoch 2\n"), "{}", printed.err);
    assert!(printed.err.contains("restart 1"), "{}", printed.err);
}

#[test]
fn a_job_that_waits_to_go_on_is_left_with_the_way_back_to_it() {
    let cloud = selling();
    cloud
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec![], cut: false })
        .gives("GET /v1/jobs/job_1", object::restarted_job("requeued", object::waiting()));
    let printed = Terminal::at(cloud.url()).run(&["run", "--requeue", "--", "true"]);
    assert_eq!((printed.status, printed.pauses), (ExitStatus(75), 60), "{}", printed.err);
    let told = ["waits to go on: 0 of 2 devices are free", "sublet jobs logs --follow job_1"];
    assert!(told.iter().all(|words| printed.err.contains(words)), "{}", printed.err);
}

#[test]
fn a_detached_run_prints_the_id_alone() {
    let cloud = selling();
    let printed = Terminal::at(cloud.url()).run(&["run", "--detach", "--", "true"]);
    assert_eq!((printed.status, printed.out.as_str()), (ExitStatus::OK, "job_1\n"));
}

#[test]
fn with_json_the_object_is_on_standard_output_and_the_log_is_not() {
    let cloud = selling();
    cloud
        .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec!["epoch 1\n"], cut: false })
        .gives("GET /v1/jobs/job_1", FINISHED());
    let printed = Terminal::at(cloud.url()).run(&["run", "--json", "--", "true"]);
    assert_eq!(printed.status, ExitStatus(3));
    assert_eq!(serde_json::from_str::<Value>(&printed.out).unwrap()["id"], "job_1");
    assert!(printed.err.contains("epoch 1\n"));
}

#[test]
fn files_that_cannot_be_sent_stop_the_run_before_anything_is_leased() {
    let cloud = selling();
    for file in ["/nonexistent/file", "/"] {
        let words = ["run", "--file", &format!("{file}=data"), "--", "true"];
        let printed = Terminal::at(cloud.url()).run(&words);
        assert_eq!(printed.status, ExitStatus(2), "{}", printed.err);
    }
    assert!(cloud.lines().is_empty());
}

#[test]
fn how_a_job_ended_decides_the_exit_status() {
    for (exit, status) in [
        (json!({"kind": "code", "code": 0}), 0),
        (json!({"kind": "code", "code": 255}), 255),
        (json!({"kind": "signal", "signal": 11}), 139),
        (json!({"kind": "out_of_memory"}), 137),
        (json!({"kind": "stopped", "forced": false}), 143),
        (json!({"kind": "not_started", "reason": "no such program"}), 127),
        (json!({"kind": "lost"}), 9),
    ] {
        let cloud = selling();
        cloud
            .answers("GET /v1/jobs/job_1/logs", Answer::Text { chunks: vec![], cut: false })
            .gives("GET /v1/jobs/job_1", object::job("failed", exit.clone()));
        let printed = Terminal::at(cloud.url()).run(&["run", "--", "true"]);
        assert_eq!(printed.status, ExitStatus(status), "{exit}: {}", printed.err);
    }
}

#[test]
fn with_several_skus_one_has_to_be_named() {
    let cloud = Cloud::start();
    cloud.gives("GET /v1/skus", object::list(vec![object::sku("cpu"), object::sku("h100")]));
    let printed = Terminal::at(cloud.url()).run(&["run", "--", "true"]);
    assert_eq!(printed.status, ExitStatus(2));
    assert!(printed.err.contains("--sku with one of cpu, h100"), "{}", printed.err);
}
