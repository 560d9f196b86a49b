//! Files over HTTP: up in pieces, down byte for byte, seen by their project only.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::on_both;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, nanos, text, wait_for};

on_both! {
    files_are_uploaded_listed_read_and_deleted: life;
    an_upload_that_cannot_be_taken_is_refused_by_name: refusals;
    an_upload_is_made_once_under_its_key: idempotency;
    what_files_may_fill_is_bounded_and_nothing_of_a_refused_one_stays: bounds;
    an_upload_that_breaks_off_leaves_nothing_and_frees_its_place: broken;
    what_a_client_leaves_before_it_came_is_not_paid: paid_downloads;
}

const BOUNDARY: &str = "----sublet-test-boundary";

/// A form with a file and some fields around it.
pub fn form(content: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let field = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(field.as_bytes());
    }
    let head = "content-disposition: form-data; name=\"file\"; filename=\"lines.jsonl\"\r\ncontent-type: application/octet-stream";
    body.extend_from_slice(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").as_bytes());
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body
}

pub fn upload(server: &Server, key: &str, body: &[u8]) -> Answer {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    server.ask("POST", "/v1/files").key(key).header("content-type", kind).bytes(body).send().unwrap()
}

/// A file for batches.
pub fn batch_file(server: &Server, key: &str, content: &[u8]) -> String {
    text(&upload(server, key, &form(content, &[("purpose", "batch")])).good()["id"])
}

/// The content of a file.
#[track_caller]
pub fn content(server: &Server, key: &str, id: &str) -> Vec<u8> {
    let answer = server.get(&format!("/v1/files/{id}/content"), key).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

fn blobs(server: &Server, kind: &str) -> usize {
    std::fs::read_dir(server.home.data_dir.join("files").join(kind)).unwrap().count()
}

/// Bytes of every value, with line breaks and boundaries' beginnings in them.
fn hard_content(length: u32) -> Vec<u8> {
    let pattern = b"\r\n--\r\n----sublet-test\0\xff";
    (0..length).flat_map(u32::to_le_bytes).zip(pattern.iter().cycle()).map(|(a, b)| if a % 7 == 0 { *b } else { a }).collect()
}

fn life(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let sent = hard_content(500_000);
    let fields = [("purpose", "user_data"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")];
    let file = upload(&server, key, &form(&sent, &fields)).good();
    let id = text(&file["id"]);
    assert_eq!((&file["object"], &file["bytes"], &file["status"]), (&json!("file"), &json!(2_000_000), &json!("processed")));
    assert_eq!((&file["filename"], &file["purpose"]), (&json!("lines.jsonl"), &json!("user_data")));
    assert_eq!(file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap(), 3_600);
    assert!(content(&server, key, &id) == sent, "the content came back changed");
    assert_eq!(server.see(&format!("/v1/files/{id}"), key), file);
    let second = batch_file(&server, key, b"{}\n");
    let ids = |path: &str| -> Vec<String> {
        server.see(path, key)["data"].as_array().unwrap().iter().map(|file| text(&file["id"])).collect()
    };
    assert_eq!(ids("/v1/files"), [second.clone(), id.clone()]);
    assert_eq!(ids("/files?order=asc"), [id.clone(), second.clone()], "without /v1 too");
    assert_eq!(ids("/v1/files?purpose=batch"), [second.as_str()]);
    assert_eq!(ids(&format!("/v1/files?limit=1&after={second}")), [id.as_str()]);
    let stranger = Stranger::make(&server, None);
    for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
        assert_eq!(server.get(&path, &stranger.project).unwrap().status, 404, "{path}");
    }
    assert_eq!(server.see("/v1/files", &stranger.project)["data"], json!([]));
    let path = format!("/v1/files/{id}");
    assert_eq!(server.ask("DELETE", &path).key(&stranger.project).send().unwrap().status, 404);
    let deleted = server.ask("DELETE", &path).key(key).send().unwrap().good();
    assert_eq!(deleted, json!({ "id": id, "object": "file", "deleted": true }));
    assert_eq!(server.get(&path, key).unwrap().status, 404);
    assert_eq!((blobs(&server, "whole"), blobs(&server, "unfinished")), (1, 0));
}

fn refusals(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let short_life = [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "5")];
    let cases: [(Vec<u8>, u16, &str, Value); 7] = [
        (form(b"x", &[]), 400, "invalid_request", json!("purpose")),
        (form(b"x", &[("purpose", "nonsense")]), 400, "invalid_request", json!("purpose")),
        (form(b"x", &[("purpose", "batch_output")]), 400, "invalid_request", json!("purpose")),
        (form(b"", &[("purpose", "batch")]), 400, "invalid_request", json!("file")),
        (form(b"x", &[("purpose", "batch"), ("colour", "red")]), 400, "unsupported_field", json!("colour")),
        (form(b"x", &short_life), 400, "invalid_request", json!("expires_after")),
        (form(b"x", &[("purpose", &"p".repeat(5_000))]), 413, "body_too_large", Value::Null),
    ];
    for (body, status, code, param) in cases {
        let refused = upload(&server, key, &body);
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{}", refused.text());
        assert_eq!(refused.json()["error"]["param"], param, "{}", refused.text());
    }
    let cut = form(b"x", &[("purpose", "batch")]);
    let refused = upload(&server, key, &cut[..cut.len() - 20]);
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_request"), "{}", refused.text());
    let json_body = server.post("/v1/files", key, &json!({ "purpose": "batch" })).unwrap();
    assert_eq!((json_body.status, json_body.code().as_str()), (415, "unsupported_media_type"));
    assert_eq!(server.see("/v1/files", key)["data"], json!([]));
    assert_eq!((blobs(&server, "whole"), blobs(&server, "unfinished")), (0, 0), "nothing refused is kept");
}

fn idempotency(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let send = |content: &[u8]| {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let asked = server.ask("POST", "/v1/files").key(key).header("content-type", kind);
        asked.header("idempotency-key", "upload-1".to_owned()).bytes(&form(content, &[("purpose", "batch")])).send().unwrap()
    };
    let first = send(b"one").good();
    assert_eq!(send(b"one").good(), first);
    let other = send(b"two");
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_mismatch"), "{}", other.text());
    assert_eq!(server.see("/v1/files", key)["data"].as_array().unwrap().len(), 1);
    assert_eq!(blobs(&server, "whole"), 1);
}

/// Sends the beginning of an upload, as these header lines say it is sent.
fn begin(server: &Server, key: &str, (headers, body): (&str, &[u8])) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n{headers}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may have answered before it has read all.
    let _ = stream.write_all(body);
    stream
}

fn answer_of(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is closed before all was read ends with an error; what came before it counts.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn bounds(database: Database) {
    let mut home = Home::new(database);
    home.options = &["--project-files", "3", "--project-files-mib", "3"];
    let server = home.start();
    let key = &server.keys.project;
    let mebibyte = vec![b'x'; 1024 * 1024];
    let first = batch_file(&server, key, &[&mebibyte[..], &mebibyte[..]].concat());
    let unsent = answer_of(begin(&server, key, ("content-length: 100000000", b"")));
    assert!(unsent.starts_with("HTTP/1.1 507") && unsent.contains("come to at most 3145728 bytes"), "{unsent}");
    let unsent = answer_of(begin(&server, key, ("content-length: 300000000", b"")));
    assert!(unsent.starts_with("HTTP/1.1 413") && unsent.contains("a file has at most 209715200 bytes"), "{unsent}");
    let chunk = form(&[&mebibyte[..], &mebibyte[..]].concat(), &[("purpose", "batch")]);
    let chunked = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n0\r\n\r\n"].concat();
    let sent = answer_of(begin(&server, key, ("transfer-encoding: chunked", &chunked)));
    assert!(sent.starts_with("HTTP/1.1 507") && sent.contains("DELETE /v1/files/{id}"), "{sent}");
    assert_eq!((blobs(&server, "whole"), blobs(&server, "unfinished")), (1, 0), "nothing refused is kept");
    let small = form(b"{}\n", &[("purpose", "batch")]);
    let send = |name: &str| {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let asked = server.ask("POST", "/v1/files").key(key).header("content-type", kind);
        asked.header("idempotency-key", name.to_owned()).bytes(&small).send().unwrap()
    };
    let (second, third) = (send("second").good(), send("third").good());
    let refused = send("fourth");
    assert_eq!((refused.status, refused.code().as_str()), (507, "storage_full"), "{}", refused.text());
    assert!(refused.text().contains("at most 3 files, and this one has 3"), "{}", refused.text());
    assert_eq!((send("second").good(), send("third").good()), (second.clone(), third), "what was taken is answered again");
    let body = json!({ "input_file_id": second["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let full = server.post("/v1/batches", key, &body).unwrap();
    assert_eq!((full.status, full.code().as_str()), (507, "storage_full"), "{}", full.text());
    let stranger = Stranger::make(&server, None);
    batch_file(&server, &stranger.project, b"{}\n");
    server.ask("DELETE", &format!("/v1/files/{first}")).key(key).send().unwrap().good();
    send("fourth").good();
    assert_eq!((blobs(&server, "whole"), blobs(&server, "unfinished")), (4, 0));
}

fn broken(database: Database) {
    let mut home = Home::new(database);
    home.options = &["--uploads", "8"];
    let server = home.start();
    let key = &server.keys.project;
    let body = form(&vec![b'x'; 1024 * 1024], &[("purpose", "batch")]);
    let length = format!("content-length: {}", body.len());
    let half = &body[..body.len() / 2];
    let under_way: Vec<TcpStream> = (0..2).map(|_| begin(&server, key, (&length, half))).collect();
    wait_for("the uploads to begin", || (blobs(&server, "unfinished") == 2).then_some(()));
    let third = upload(&server, key, &body);
    assert_eq!((third.status, third.code().as_str()), (429, "concurrency_exceeded"), "{}", third.text());
    assert!(third.text().contains("at most 2 files at once"), "{}", third.text());
    drop(under_way);
    wait_for("what was begun to be forgotten", || (blobs(&server, "unfinished") == 0).then_some(()));
    let taken = wait_for("a place", || Some(upload(&server, key, &body)).filter(|answer| answer.status == 200));
    assert_eq!(taken.json()["bytes"], json!(1024 * 1024));
    assert_eq!((blobs(&server, "whole"), blobs(&server, "unfinished")), (1, 0));
}

/// Bytes that the project was charged for, and what they cost.
fn sent(server: &Server) -> (u64, i128) {
    let usage = server.see("/v1/usage", &server.keys.project);
    let line = usage["lines"].as_array().unwrap().iter().find(|line| line["meter"] == "bytes_sent");
    line.map_or((0, 0), |line| (line["quantity"].as_u64().unwrap(), nanos(&line["cost"])))
}

fn paid_downloads(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let length: u64 = 24 * 1024 * 1024;
    let whole = hard_content(u32::try_from(length / 4).unwrap());
    let id = batch_file(&server, key, &whole);
    let list = server.see("/operator/v1/price_lists", &server.keys.operator)["data"][0].clone();
    let mut prices = list["prices"].as_array().unwrap().clone();
    // A nano-unit for each byte.
    let files = json!({ "kind": "sku", "name": "files" });
    prices.push(json!({ "subject": files, "meter": "bytes_sent", "per": 1_u64 << 30, "amount": "1.073741824" }));
    prices.push(json!({ "subject": files, "meter": "byte_hours", "per": 730_u64 << 30, "amount": "0.02" }));
    let body = json!({ "name": list["name"], "currency": list["currency"], "prices": prices });
    let published = server.make("/operator/v1/price_lists", &server.keys.operator, &body);
    assert_eq!(published["prices"].as_array().unwrap().len(), prices.len());
    let head = format!("GET /v1/files/{id}/content HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let mut connection = TcpStream::connect(&server.address).unwrap();
    connection.write_all(head.as_bytes()).unwrap();
    connection.read_exact(&mut [0; 100_000]).unwrap();
    drop(connection);
    let (left_at, cost) =
        wait_for("the charge of a download that was left", || Some(sent(&server)).filter(|(bytes, _)| *bytes > 0));
    assert!((99_000..length).contains(&left_at), "{left_at} of {length} bytes");
    assert_eq!(cost, i128::from(left_at));
    assert!(content(&server, key, &id) == whole, "the content came back changed");
    let all = wait_for("the charge of the whole", || Some(sent(&server).0).filter(|bytes| *bytes > left_at));
    assert_eq!(all, left_at + length);
}
