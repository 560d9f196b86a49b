//! Malformed requests: each gets the right status and code, none a server's error, none a charge.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, Server, chat, merge};

const CHAT: &str = "/v1/chat/completions";

/// Bodies that are not even the right kind of text.
const RAW: &[(&str, &[u8], u16, &str)] = &[
    (CHAT, b"", 400, "invalid_json"),
    (CHAT, b"{", 400, "invalid_json"),
    (CHAT, b"[]", 400, "invalid_json"),
    (CHAT, b"null", 400, "invalid_json"),
    (CHAT, b"\"text\"", 400, "invalid_json"),
    (CHAT, b"{\"model\":\"sublet-mini\",}", 400, "invalid_json"),
    (CHAT, b"{\"model\":\"sublet-mini\"} trailing", 400, "invalid_json"),
    (CHAT, b"\xff\xfe{}", 400, "invalid_json"),
    ("/v1/completions", b"{\"model\":", 400, "invalid_json"),
    ("/v1/quotes", b"{", 400, "invalid_json"),
    ("/v1/quotes", b"[1]", 400, "invalid_json"),
    ("/v1/jobs", b"nope", 400, "invalid_json"),
];

on_both! {
    bodies_that_are_no_json_object_are_named_so: raw_bodies;
    chat_fields_that_cannot_be_used_are_named: chat_fields;
    fields_of_platform_and_organization_bodies_are_checked: platform_fields;
    job_bodies_are_checked_before_anything_runs: job_bodies;
    ids_queries_and_sizes_are_checked: ids_and_queries;
}

fn raw_bodies(database: Database) {
    let server = Home::new(database).start();
    let nested = [b"{\"messages\":".as_slice(), &b"[".repeat(50_000), &b"]".repeat(50_000), b"}"].concat();
    let nested = (CHAT, nested.as_slice(), 400, "invalid_request");
    for (path, body, status, code) in RAW.iter().chain([&nested]) {
        let asked = server.ask("POST", path).key(&server.keys.project).header("content-type", "application/json".to_owned());
        let answer = asked.bytes(body).send().unwrap();
        let shown = String::from_utf8_lossy(body.get(..80).unwrap_or(body));
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{path} {shown}: {}", answer.text());
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|message| message.len() > 10));
    }
    assert_nothing_was_done(&server);
}

fn chat_fields(database: Database) {
    let server = Home::new(database).start();
    let long = "word ".repeat(4_000);
    let table: Vec<(Value, u16, &str, &str)> = vec![
        (json!({ "model": "gpt-4" }), 404, "model_not_found", "model"),
        (json!({ "model": 7 }), 400, "invalid_request", "model"),
        (json!({ "messages": [] }), 400, "invalid_request", "messages"),
        (json!({ "messages": "hello" }), 400, "invalid_request", "messages"),
        (json!({ "messages": [{ "role": "wizard", "content": "x" }] }), 400, "invalid_request", "messages"),
        (json!({ "messages": [{ "role": "user", "content": long }] }), 400, "context_length_exceeded", "messages"),
        (json!({ "max_tokens": 0 }), 400, "invalid_request", "max_tokens"),
        (json!({ "max_tokens": -1 }), 400, "invalid_request", "max_tokens"),
        (json!({ "max_tokens": 1.5 }), 400, "invalid_request", "max_tokens"),
        (json!({ "max_tokens": "many" }), 400, "invalid_request", "max_tokens"),
        (json!({ "temperature": 3 }), 400, "invalid_request", "temperature"),
        (json!({ "temperature": "hot" }), 400, "invalid_request", "temperature"),
        (json!({ "top_p": -0.5 }), 400, "invalid_request", "top_p"),
        (json!({ "n": 0 }), 400, "invalid_request", "n"),
        (json!({ "n": 1_000_000_000 }), 400, "invalid_request", "n"),
        (json!({ "stream": "yes" }), 400, "invalid_request", "stream"),
        (json!({ "stop": 5 }), 400, "invalid_request", "stop"),
        (json!({ "logit_bias": { "99999999": 1 } }), 400, "invalid_request", "logit_bias"),
        (json!({ "seed": "one" }), 400, "invalid_request", "seed"),
    ];
    for (change, status, code, param) in table {
        let mut body = chat(&server.keys.model, 2, &json!({}));
        merge(&mut body, &change);
        let answer = server.post(CHAT, &server.keys.project, &body).unwrap();
        let shown: String = change.to_string().chars().take(80).collect();
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{shown}: {}", answer.text());
        assert!(error["param"].as_str().is_some_and(|named| named.starts_with(param)), "{shown}: {error}");
        assert!(error["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{shown}: {error}");
    }
}

fn platform_fields(database: Database) {
    let server = Home::new(database).start();
    let keys = &server.keys;
    let table: Vec<(&str, &str, Value, &[u16])> = vec![
        ("/v1/quotes", &keys.project, json!({}), &[400]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "units": 0 }), &[400]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "units": 1_000_000 }), &[400]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "units": 900 }), &[409]),
        ("/v1/quotes", &keys.project, json!({ "sku": "nothing" }), &[404]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "notice": "n3m" }), &[400]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "unknown": 1 }), &[400]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "maximum_cost": { "amount": 5, "currency": "EUR" } }), &[400]),
        ("/v1/quotes", &keys.project, json!({ "sku": "cpu", "maximum_cost": { "amount": "1", "currency": "XXX" } }), &[400]),
        ("/v1/leases", &keys.project, json!({ "quote": "lease_1" }), &[400]),
        ("/v1/leases", &keys.project, json!({ "quote": "quote_00000000000000000000000000" }), &[404]),
        ("/v1/organization/projects", &keys.admin, json!({}), &[400]),
        ("/v1/organization/projects", &keys.admin, json!({ "name": "" }), &[400]),
        ("/v1/organization/projects", &keys.admin, json!({ "name": "x".repeat(100_000) }), &[400]),
        ("/v1/organization/users", &keys.admin, json!({ "name": "a", "email": "nobody", "role": "reader" }), &[400]),
        ("/v1/organization/billing/invoices", &keys.admin, json!({ "period": "yesterday" }), &[400]),
        ("/operator/v1/organizations", &keys.operator, json!({ "name": "a", "class": "odd", "currency": "EUR" }), &[400]),
        ("/operator/v1/organizations", &keys.operator, json!({ "name": "a", "class": "external", "currency": "eur" }), &[400]),
        ("/operator/v1/models", &keys.operator, json!({ "path": "/nowhere/at/all" }), &[400]),
        ("/operator/v1/price_lists", &keys.operator, json!({ "currency": "EUR", "prices": [{ "amount": "-1" }] }), &[400]),
    ];
    for (path, key, body, statuses) in table {
        let answer = server.post(path, key, &body).unwrap();
        let shown: String = body.to_string().chars().take(80).collect();
        assert!(statuses.contains(&answer.status), "{path} {shown}: {} {}", answer.status, answer.text());
        assert!(!answer.code().is_empty(), "{path} {shown}: {}", answer.text());
    }
    assert_nothing_was_done(&server);
}

fn job_bodies(database: Database) {
    let server = Home::new(database).start();
    let lease = server.lease(&server.keys.project, "n2m", &json!({}));
    let table = [
        json!({ "command": [] }),
        json!({ "command": "true" }),
        json!({ "command": ["a\u{0}b"] }),
        json!({ "files": [{ "path": "../x", "content_base64": "" }] }),
        json!({ "files": [{ "path": "/etc/x", "content_base64": "" }] }),
        json!({ "files": [{ "path": "x", "content_base64": "%" }] }),
        json!({ "environment": { "A=B": "x" } }),
        json!({ "environment": { "A": 1 } }),
        json!({ "memory_bytes": -1 }),
        json!({ "lease": "quote_1" }),
        json!({ "unknown": true }),
    ];
    for change in table {
        let mut body = json!({ "lease": lease["id"], "command": ["true"] });
        merge(&mut body, &change);
        let answer = server.post("/v1/jobs", &server.keys.project, &body).unwrap();
        assert_eq!(answer.status, 400, "{change}: {}", answer.text());
    }
    assert_eq!(server.see("/v1/jobs", &server.keys.project)["data"], json!([]));
}

fn ids_and_queries(database: Database) {
    let server = Home::new(database).start();
    let (project, admin) = (&server.keys.project, &server.keys.admin);
    let gets: &[(&str, &str, u16)] = &[
        ("/v1/jobs/job_", project, 404),
        ("/v1/jobs/JOB_00000000000000000000000000", project, 404),
        ("/v1/jobs/job_00000000000000000000000000", project, 404),
        ("/v1/requests/job_00000000000000000000000000", project, 404),
        ("/v1/jobs?limit=0", project, 400),
        ("/v1/jobs?limit=101", project, 400),
        ("/v1/jobs?limit=many", project, 400),
        ("/v1/jobs?status=odd", project, 400),
        ("/v1/jobs?unknown=1", project, 400),
        ("/v1/usage?start_time=yesterday", project, 400),
        ("/v1/models/none/such", project, 404),
        ("/v1/why/nothing", project, 400),
        ("/v1/organization/spend_limits/fortnight", admin, 405),
    ];
    for (path, key, status) in gets {
        let answer = server.get(path, key).unwrap();
        assert_eq!(answer.status, *status, "{path}: {}", answer.text());
    }
    let window = server.ask("PUT", "/v1/organization/spend_limits/fortnight").key(admin).json(&json!({ "amount": "1" })).send();
    assert_eq!(window.unwrap().status, 400);
    for amount in ["", "1e3", "-1", "0.0000000001", "99999999999999999999", "one"] {
        let limit =
            server.ask("PUT", "/v1/organization/spend_limits/day").key(admin).json(&json!({ "amount": amount })).send().unwrap();
        assert_eq!(limit.status, 400, "{amount}: {}", limit.text());
    }
    let dry = server.ask("POST", "/v1/quotes?dry_run=true").key(project).json(&json!({ "sku": "cpu" })).send().unwrap();
    assert_eq!((dry.status, &dry.json()["error"]["param"]), (400, &json!("dry_run")), "{}", dry.text());
    let large = vec![b' '; 9 * 1024 * 1024];
    for path in [CHAT, "/v1/quotes"] {
        let answer = server.ask("POST", path).key(project).bytes(&large).send().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "{path}");
    }
}

fn assert_nothing_was_done(server: &Server) {
    assert_eq!(server.figure("sublet_engine_tokens_total"), 0);
    assert_eq!(server.charges(), Vec::<Value>::new());
    server.assert_books();
}
