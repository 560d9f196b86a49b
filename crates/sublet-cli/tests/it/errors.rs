//! Failures: the code decides the exit status, the text says what to do.

use sublet_api::client::Keys;
use sublet_cli::{ExitStatus, Style};
use sublet_core::error::ErrorCode;

use crate::cloud::{Answer, Cloud, refusal};
use crate::object;
use crate::terminal::Terminal;

#[test]
fn every_error_code_exits_with_its_own_status() {
    for code in ErrorCode::ALL {
        let cloud = Cloud::start();
        cloud.answers("GET /v1/jobs", Answer::Json(code.status(), refusal(code.as_str(), "it did not work")));
        let printed = Terminal::at(cloud.url()).run(&["jobs", "list"]);
        assert_eq!(printed.status, ExitStatus(code.exit_status()), "{code}");
        assert!(printed.out.is_empty() && printed.err.contains(&format!("sublet explain {code}")), "{code}: {}", printed.err);
    }
}

/// Fails as a disk that is full.
struct FullDisk;

impl std::io::Write for FullDisk {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_that_nobody_reads_any_more_ends_the_command_silently_and_a_full_disk_does_not() {
    let cloud = Cloud::start();
    cloud.gives("GET /v1/jobs", serde_json::json!({"object": "list", "data": [], "has_more": false}));
    let terminal = Terminal::at(cloud.url());
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    for words in [&["jobs", "list"][..], &["--json", "jobs", "list"]] {
        assert_eq!(terminal.run_into(words, &mut writer), (String::new(), ExitStatus(141), 0));
    }
    let (told, status, _) = terminal.run_into(&["jobs", "list"], &mut FullDisk);
    assert_eq!(status, ExitStatus(ErrorCode::StorageFull.exit_status()));
    assert!(told.contains("the output could not be written"), "{told}");
}

#[test]
fn an_error_prints_its_remedy() {
    let cloud = Cloud::start();
    cloud.answers("GET /v1/jobs", Answer::Json(429, refusal("rate_limit_exceeded", "too many requests")));
    let terminal = Terminal { style: Style { color: true, ..Style::default() }, ..Terminal::at(cloud.url()) };
    insta::assert_snapshot!(terminal.run(&["jobs", "list"]).err.replace('\u{1b}', "ESC"));
}

#[test]
fn a_cloud_that_does_not_answer_is_unreachable() {
    // A port that was free a moment ago and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let printed = Terminal::at(format!("http://{free}")).run(&["jobs", "list"]);
    assert_eq!(printed.status, ExitStatus(9));
    assert!(printed.err.contains("did not answer") && printed.err.contains("sublet up"), "{}", printed.err);
}

#[test]
fn an_answer_of_something_else_is_shown_and_mapped_by_status() {
    let cloud = Cloud::start();
    cloud.answers("GET /v1/jobs", Answer::Raw(502, "<h1>Bad Gateway</h1>"));
    let printed = Terminal::at(cloud.url()).run(&["jobs", "list"]);
    assert_eq!(printed.status, ExitStatus(9));
    assert!(printed.err.contains("<h1>Bad Gateway</h1>"), "{}", printed.err);
}

#[test]
fn a_key_does_not_follow_a_redirect() {
    let (elsewhere, cloud) = (Cloud::start(), Cloud::start());
    cloud.answers("GET /v1/jobs", Answer::Redirect(format!("{}/v1/jobs", elsewhere.url())));
    let printed = Terminal::at(cloud.url()).run(&["jobs", "list"]);
    assert_eq!(printed.status, ExitStatus(1), "{}", printed.err);
    assert!(elsewhere.lines().is_empty());
}

#[test]
fn an_object_of_another_shape_is_an_error_not_a_panic() {
    let cloud = Cloud::start();
    cloud.gives("GET /v1/jobs", serde_json::json!({"object": "list", "data": [{"object": "lease"}]}));
    assert_eq!(Terminal::at(cloud.url()).run(&["jobs", "list"]).status, ExitStatus(1));
}

#[test]
fn a_command_without_its_key_is_an_authentication_error() {
    let terminal = Terminal { keys: Some(Keys::default()), ..Terminal::at("http://127.0.0.1:9".to_owned()) };
    for words in [["jobs", "list"], ["projects", "list"], ["orgs", "list"], ["why", "job_1"]] {
        assert_eq!(terminal.run(&words).status, ExitStatus(3), "{words:?}");
    }
}

#[test]
fn books_that_do_not_balance_fail_the_command() {
    let cloud = Cloud::start();
    cloud.gives("GET /operator/v1/ledger/verify", object::verification(false));
    let printed = Terminal::at(cloud.url()).run(&["ledger", "verify"]);
    assert_eq!(printed.status, ExitStatus(ErrorCode::LedgerMismatch.exit_status()));
    assert!(printed.out.contains("acct_1: balance 2 but its postings sum to 3"), "{}", printed.out);
}

#[test]
fn an_unknown_id_is_looked_for_on_each_plane() {
    let cloud = Cloud::start();
    for path in ["/v1/why/job_1", "/v1/organization/why/job_1"] {
        cloud.answers(&format!("GET {path}"), Answer::Json(404, refusal("not_found", "there is no such job")));
    }
    cloud.gives("GET /operator/v1/why/job_1", object::why());
    let printed = Terminal::at(cloud.url()).run(&["why", "job_1"]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    let planes: Vec<_> = cloud.asked().iter().map(|asked| asked.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(planes, ["Bearer sk-sub-1", "Bearer sk-adm-1", "Bearer sk-opr-1"]);
    // Invoices are no project's business.
    cloud.answers("GET /v1/why/inv_1", Answer::Json(403, refusal("wrong_key_plane", "this needs a key of the admin plane")));
    cloud.gives("GET /v1/organization/why/inv_1", object::why());
    assert_eq!(Terminal::at(cloud.url()).run(&["why", "inv_1"]).status, ExitStatus::OK);
    assert_eq!(Terminal::at(cloud.url()).run(&["why", "nonsense"]).status, ExitStatus(2));
}
