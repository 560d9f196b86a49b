//! Command lines: help, bad values, keys, the data directory, chats.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde_json::json;
use sublet_api::client::Keys;
use sublet_cli::credentials::keys_by_plane;
use sublet_cli::{ExitStatus, Style};

use crate::cloud::{Answer, Cloud};
use crate::object;
use crate::terminal::{Line, Terminal};

fn leaves(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
    found.push(path.to_vec());
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let mut below = path.to_vec();
        below.push(sub.get_name().to_owned());
        leaves(sub, &below, found);
    }
}

#[test]
fn every_command_explains_itself() {
    Line::command().debug_assert();
    let mut found = Vec::new();
    leaves(&Line::command(), &[], &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for path in found {
        let words = std::iter::once("sublet".to_owned()).chain(path.iter().cloned()).chain(["--help".to_owned()]);
        let outcome = Line::try_parse_from(words).map(|_| ()).unwrap_err();
        assert_eq!(outcome.kind(), ErrorKind::DisplayHelp, "{path:?}");
    }
}

#[test]
fn the_table_of_commands() {
    insta::assert_snapshot!(Line::command().render_help());
}

#[test]
fn bad_values_are_usage_errors() {
    for words in [
        vec!["jobs", "show", "lease_1"],
        vec!["jobs", "list", "--limit", "101"],
        vec!["jobs", "list", "--status", "sleeping"],
        vec!["quotes", "create", "--units", "0"],
        vec!["quotes", "create", "--notice", "n3m"],
        vec!["run", "--memory", "lots", "--", "true"],
        vec!["run", "--env", "=x", "--", "true"],
        vec!["run"],
        vec!["billing", "limits", "set", "week", "5"],
        vec!["billing", "credits", "grant", "org_1", "5 XXX"],
        vec!["usage", "--from", "yesterday"],
        vec!["files", "upload", "x", "--purpose", "fun"],
        vec!["files", "upload", "x", "--expires-after-hours", "721"],
        vec!["files", "show", "batch_1"],
        vec!["batches", "create", "x", "--endpoint", "/v1/videos"],
        vec!["batches", "results"],
        vec!["reclaim", "--need", "16"],
        vec!["reclaim", "--need", "0xh200", "--by", "18:00"],
        vec!["reclaim", "--need", "16xh200"],
        vec!["reclaim", "show", "lease_1"],
        vec!["nonsense"],
    ] {
        let error = Line::try_parse_from(std::iter::once("sublet").chain(words.clone())).map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}

fn data_dir(name: &str, api_base: &str) -> std::path::PathBuf {
    let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let text = json!({"api_base": api_base, "console_url": "x", "operator_key": "sk-opr-file", "admin_key": "sk-adm-file",
        "project_key": "sk-sub-file", "model": "tiny"});
    std::fs::write(dir.join("credentials.json"), text.to_string()).unwrap();
    dir
}

#[test]
fn the_data_directory_names_the_cloud_and_its_keys() {
    let cloud = Cloud::start();
    cloud.gives("GET /v1/jobs", object::list(vec![]));
    let dir = data_dir("names", &format!("{}/v1", cloud.url()));
    let printed = Terminal { data_dir: Some(dir), ..Terminal::default() }.run(&["jobs", "list"]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    assert_eq!(cloud.asked()[0].header("authorization"), Some("Bearer sk-sub-file"));
    assert_eq!(printed.out, "no jobs yet; start one with 'sublet run -- COMMAND'\n");
}

#[test]
fn keys_of_a_data_directory_go_to_no_other_address() {
    let cloud = Cloud::start();
    let dir = data_dir("other", "http://127.0.0.1:1/v1");
    let printed = Terminal { url: Some(cloud.url()), data_dir: Some(dir), ..Terminal::default() }.run(&["jobs", "list"]);
    assert_eq!(printed.status, ExitStatus(3));
    assert!(cloud.lines().is_empty());
}

#[test]
fn damaged_credentials_are_named() {
    let dir = data_dir("damaged", "x");
    std::fs::write(dir.join("credentials.json"), "{").unwrap();
    let printed = Terminal { data_dir: Some(dir), ..Terminal::default() }.run(&["jobs", "list"]);
    assert_eq!(printed.status, ExitStatus(2));
    assert!(printed.err.contains("credentials.json cannot be used"), "{}", printed.err);
}

#[test]
fn keys_are_sorted_by_the_plane_their_prefix_names() {
    let body = "0".repeat(64);
    let Keys { project, admin, operator } = keys_by_plane([format!("sk-opr-{body}"), format!("sk-sub-{body}")]).unwrap();
    assert_eq!((project.is_some(), admin.is_some(), operator.is_some()), (true, false, true));
    assert!(keys_by_plane(["sk-live-1".to_owned()]).is_err());
}

#[test]
fn what_is_said_of_a_model_is_added_to_what_was_said_before() {
    let cloud = Cloud::start();
    let card = json!({"object": "model_card", "id": "a/b", "owned_by": "Maker", "aliases": ["best"], "generation": 1, "changed_at": 1,
        "data_policy": {"retention": "none"}});
    cloud.gives("GET /operator/v1/model_cards/a/b", card.clone()).gives("PUT /operator/v1/model_cards/a/b", card);
    let say = |more: &[&str]| {
        let printed = Terminal::at(cloud.url()).run(&[&["models", "describe", "a/b"], more].concat());
        assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
        cloud.asked().pop().unwrap().body
    };
    assert_eq!(
        say(&["--served-in", "DE", "--shutdown-date", "2099-01-01T00:00:00Z"]),
        json!({"owned_by": "Maker", "aliases": ["best"], "data_policy": {"retention": "none", "served_in": ["DE"]},
            "shutdown_date": "2099-01-01T00:00:00.000000Z"})
    );
    assert_eq!(say(&["--replace", "--alias", "other"]), json!({"aliases": ["other"]}));
}

#[test]
fn another_list_is_compared_with_the_newest() {
    let cloud = Cloud::start();
    let mut list = object::price_list();
    list["prices"].as_array_mut().unwrap().push(json!({"subject": {"kind": "model", "name": "old"}, "meter": "input_tokens",
        "amount": "1", "per": 1_000_000}));
    cloud.gives("GET /operator/v1/price_lists", object::list(vec![list.clone()]));
    let prices = list["prices"].as_array_mut().unwrap();
    prices.pop();
    prices[0]["amount"] = json!("0.25");
    prices[1]["model"]["tiers"][1]["amount"] = json!("0.4");
    prices.push(json!({"subject": {"kind": "model", "name": "new"}, "meter": "input_tokens", "amount": "0", "per": 1_000_000}));
    let body = json!({"name": "standard", "currency": "EUR", "prices": prices});
    let file = data_dir("prices_diff", &cloud.url()).join("prices.json");
    std::fs::write(&file, body.to_string()).unwrap();
    let printed = Terminal::at(cloud.url()).run(&["prices", "diff", file.to_str().unwrap()]);
    insta::assert_snapshot!(printed.out);
    std::fs::write(&file, json!({"name": "standard", "currency": "USD", "prices": []}).to_string()).unwrap();
    let refused = Terminal::at(cloud.url()).run(&["price", "diff", file.to_str().unwrap()]);
    assert!(refused.err.contains("no price list in USD to compare with"), "{}", refused.err);
}

#[test]
fn more_pages_are_announced_and_asked_for() {
    let cloud = Cloud::start();
    let mut page = object::list(vec![object::job("queued", json!(null))]);
    page["has_more"] = json!(true);
    cloud.gives("GET /v1/jobs", page);
    let printed = Terminal::at(cloud.url()).run(&["jobs", "list", "--limit", "1", "--after", "job_0", "--oldest-first"]);
    assert_eq!(printed.err, "more: --after job_1\n");
    assert_eq!(cloud.lines(), ["GET /v1/jobs?limit=1&after=job_0&order=asc"]);
}

const STREAM: [&str; 4] = [
    "data: {\"id\":\"req_1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"req_1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello \\u001b[2Jyou\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"req_1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11},\"sublet\":{\"cost\":{\"amount\":\"0.000003\",\"currency\":\"EUR\"},\"provisional\":true}}\n\n",
    "data: [DONE]\n\n",
];

fn talking() -> Cloud {
    let cloud = Cloud::start();
    let model = json!({"id": "tiny", "object": "model", "created": 1, "owned_by": "sublet", "context_window": 512});
    cloud
        .gives(
            "GET /v1/models",
            json!({"object": "list", "data": [model], "first_id": "tiny", "last_id": "tiny", "has_more": false}),
        )
        .answers("POST /v1/chat/completions", Answer::Text { chunks: STREAM.to_vec(), cut: false });
    cloud
}

#[test]
fn a_chat_streams_its_answer_and_says_what_it_cost() {
    let cloud = talking();
    let printed = Terminal::at(cloud.url()).run(&["chat", "Good morning", "--seed", "7"]);
    assert_eq!(printed.out, "Hello \u{fffd}[2Jyou\n");
    assert_eq!(printed.err, "9 tokens in, 2 out · cost 0.000003 EUR · req_1\n");
    let body = &cloud.asked()[1].body;
    assert_eq!(
        (&body["messages"][0]["content"], &body["seed"], &body["stream"]),
        (&json!("Good morning"), &json!(7), &json!(true))
    );
}

#[test]
fn a_conversation_carries_what_was_said_before() {
    let cloud = talking();
    let style = Style { interactive: true, ..Style::default() };
    let terminal = Terminal { input: "Hi\nAnd you?\n\n", style, ..Terminal::at(cloud.url()) };
    let printed = terminal.run(&["chat", "tiny", "--system", "be brief"]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let asked = cloud.asked();
    let said: Vec<_> = asked[2].body["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(said, ["system", "user", "assistant", "user"]);
}

#[test]
fn a_stream_that_breaks_is_an_error_after_what_was_delivered() {
    let cloud = Cloud::start();
    cloud.answers("POST /v1/chat/completions", Answer::Text { chunks: STREAM[..2].to_vec(), cut: true });
    let printed = Terminal::at(cloud.url()).run(&["chat", "tiny", "Hi"]);
    assert_eq!(printed.status, ExitStatus(9));
    assert!(printed.out.starts_with("Hello "), "{}", printed.out);
}

#[test]
fn explain_needs_no_cloud() {
    let terminal = Terminal::default();
    insta::assert_snapshot!(terminal.run(&["explain", "insufficient_quota"]).out);
    assert_eq!(terminal.run(&["explain"]).out.lines().count(), 1 + sublet_core::error::ErrorCode::ALL.len());
    assert_eq!(terminal.run(&["explain", "nonsense"]).status, ExitStatus(4));
}

#[test]
fn a_limit_is_set_in_the_account_s_currency() {
    let cloud = Cloud::start();
    cloud
        .gives("GET /v1/organization/self", object::organization())
        .gives("GET /v1/account", object::account())
        .gives("PUT /v1/organization/projects/proj_1/api_keys/key_1/spend_limits/month", object::limit());
    let printed = Terminal::at(cloud.url()).run(&["billing", "limits", "set", "--of-key", "key_1", "month", "20"]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    assert_eq!(cloud.asked()[2].body, json!({"amount": "20"}));
    let words =
        ["billing", "limits", "set", "--of-key", "key_1", "month", "20", "--at-limit", "finish_then_stop", "--overrun-max", "3"];
    let more = ["--alert", "80", "--forecast-alert", "100"];
    let printed = Terminal::at(cloud.url()).run(&[&words[..], &more].concat());
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let alerts = json!([{"on": "actual", "percent": 80}, {"on": "forecast", "percent": 100}]);
    let said = json!({"amount": "20", "at_limit": "finish_then_stop", "overrun_max": "3", "alerts": alerts});
    assert_eq!(cloud.asked().last().unwrap().body, said);
    for wrong in [vec!["20 USD"], vec!["20", "--overrun-max", "3"], vec!["20", "--at-limit", "finish_then_stop"]] {
        let printed = Terminal::at(cloud.url()).run(&[vec!["billing", "limits", "set", "month"], wrong].concat());
        assert_eq!(printed.status, ExitStatus(2), "{}", printed.err);
    }
}

#[test]
fn a_grant_travels_with_everything_that_was_said() {
    let cloud = Cloud::start();
    let grant = json!({"object": "credit_grant", "id": "grant_1", "organization": "org_1", "kind": "promotional",
        "amount": object::eur("50"), "reference": "hello", "expires_at": null,
        "priority": 7, "scope": "device_time", "remaining": object::eur("50"),
        "created_at": 1, "metadata": {}});
    cloud
        .gives("GET /operator/v1/organizations/org_1/credits", object::balance())
        .gives("POST /operator/v1/organizations/org_1/credits", grant);
    let words = ["billing", "credits", "grant", "org_1", "50", "--kind", "promotional", "--reference", "hello", "--expires-at"];
    let more = ["2026-12-31T00:00:00+01:00", "--priority", "7", "--scope", "device-time"];
    let printed = Terminal::at(cloud.url()).run(&[words.as_slice(), &more].concat());
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let asked = cloud.asked();
    assert_eq!(
        asked[1].body,
        json!({"amount": object::eur("50"), "kind": "promotional", "reference": "hello",
        "expires_at": "2026-12-30T23:00:00.000000Z", "priority": 7, "scope": "device_time"})
    );
    assert!(asked[1].header("idempotency-key").is_some());
}

#[test]
fn a_credit_note_is_in_the_currency_of_its_invoice() {
    let cloud = Cloud::start();
    cloud
        .gives("GET /operator/v1/invoices/inv_1", object::issued_invoice())
        .gives("POST /operator/v1/invoices/inv_1/credit_notes", object::credit_note());
    let words = ["billing", "credit-notes", "create", "inv_1", "0.02", "--kind", "paid", "--reason", "slow answers"];
    let printed = Terminal::at(cloud.url()).run(&words);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let asked = cloud.asked();
    assert_eq!(asked[1].body, json!({"amount": object::eur("0.02"), "kind": "paid", "reason": "slow answers"}));
    assert!(asked[1].header("idempotency-key").is_some());
    let wrong =
        Terminal::at(cloud.url()).run(&["billing", "credit-notes", "create", "inv_1", "2 USD", "--kind", "paid", "--reason", "x"]);
    assert_eq!(wrong.status, ExitStatus(2), "{}", wrong.err);
}

#[test]
fn what_is_accepted_and_left_is_named() {
    let cloud = Cloud::start();
    cloud
        .gives("POST /v1/organization/contracts/ctr_1/accept", object::contract())
        .gives("POST /v1/organization/contracts/ctr_1/leave", object::contract());
    let accepted = Terminal::at(cloud.url()).run(&["contracts", "accept", "ctr_1", "--terms", "c0ffee02"]);
    assert_eq!(accepted.status, ExitStatus::OK, "{}", accepted.err);
    let left = Terminal::at(cloud.url()).run(&["contracts", "exit", "ctr_1", "--after", "2026-12"]);
    assert_eq!(left.status, ExitStatus::OK, "{}", left.err);
    let asked = cloud.asked();
    assert_eq!((&asked[0].body, &asked[1].body), (&json!({"terms_hash": "c0ffee02"}), &json!({"last_month": "2026-12"})));
}

#[test]
fn a_contract_is_offered_from_a_file() {
    let cloud = Cloud::start();
    cloud.gives("POST /operator/v1/contracts", object::contract());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("terms.json");
    let terms = object::contract()["versions"][0]["terms"].clone();
    std::fs::write(&file, terms.to_string()).expect("room");
    let path = file.to_string_lossy().into_owned();
    let offer = |path: &str| Terminal::at(cloud.url()).run(&["contracts", "offer", "org_1", "--name", "x", "-f", path]);
    let offered = offer(&path);
    assert_eq!(offered.status, ExitStatus::OK, "{}", offered.err);
    assert_eq!(cloud.asked()[0].body, json!({"organization": "org_1", "name": "x", "terms": terms}));
    for (text, said) in [("{\"months\": 1}", "missing field"), ("nonsense", "JSON")] {
        std::fs::write(&file, text).expect("room");
        let wrong = offer(&path);
        assert!(wrong.status == ExitStatus(2) && wrong.err.contains(said), "{}", wrong.err);
    }
    assert_eq!(offer("/no/such/file").status, ExitStatus(2));
}

#[test]
fn a_secret_is_printed_alone_so_that_it_can_be_piped() {
    let cloud = Cloud::start();
    let mut created = object::key();
    created["value"] = json!("sk-sub-secret");
    cloud.gives("POST /v1/organization/projects/proj_1/api_keys", created);
    let printed = Terminal::at(cloud.url()).run(&["keys", "create", "ci", "--project", "proj_1", "--model", "tiny"]);
    assert_eq!(printed.out, "sk-sub-secret\n");
    assert!(!printed.err.contains("secret\n") && printed.err.contains("key_1"), "{}", printed.err);
}
