//! Responses that are kept: read again, gone on from, forgotten; by their project only, and for their time only.

use serde_json::{Value, json};

use crate::on_both;
use crate::privacy::holds_anywhere;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, merge, text, wait_for};

on_both! {
    responses_are_kept_read_and_forgotten: life;
    a_conversation_is_gone_on_from_and_charged: conversation;
    what_is_not_offered_is_refused_by_name: refusals;
    a_cloud_that_keeps_nothing_says_so: turned_off;
    forgotten_responses_leave_nothing_behind: left_behind;
}

const PATH: &str = "/v1/responses";
const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Not the one of the other privacy tests: databases of one server share its files, and there it must not be found.
const SECRET: &str = "quetzal-marzipan-0815";

fn request(server: &Server, input: &Value, extra: &Value) -> Value {
    let mut body = json!({ "model": server.keys.model, "input": input, "max_output_tokens": 8, "temperature": 0, "store": true });
    merge(&mut body, extra);
    body
}

#[track_caller]
fn make(server: &Server, input: &Value, extra: &Value) -> Value {
    server.make(PATH, &server.keys.project, &request(server, input, extra))
}

/// The response that a stream ended with.
fn streamed(server: &Server, input: &Value, extra: &Value) -> Value {
    let mut body = request(server, input, extra);
    merge(&mut body, &json!({ "stream": true }));
    let opened = server.ask("POST", PATH).key(&server.keys.project).json(&body).open().unwrap();
    let last = opened.events().last().unwrap().unwrap();
    let event: Value = serde_json::from_str(&last).unwrap();
    assert!(["response.completed", "response.incomplete"].contains(&event["type"].as_str().unwrap()), "{event}");
    event["response"].clone()
}

fn path(response: &Value) -> String {
    format!("{PATH}/{}", text(&response["id"]))
}

/// What lasts of an answer: not what was left to spend at that moment.
fn lasting(mut response: Value) -> Value {
    response["sublet"].as_object_mut().unwrap().remove("remaining_budget");
    response
}

fn life(database: Database) {
    let mut server = Home::new(database).start();
    let key = server.keys.project.clone();
    let asked = json!([
        { "role": "developer", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "input_text", "text": "Name three" }, { "type": "input_text", "text": " colours." }] },
        { "role": "assistant", "content": "Red." },
        { "role": "user", "content": "Go on." },
    ]);
    let extra = json!({ "metadata": { "case": "7" }, "instructions": "Answer in English." });
    let answers = [make(&server, &asked, &extra), streamed(&server, &asked, &extra)];
    for answer in &answers {
        assert_eq!((&answer["store"], &answer["metadata"]), (&json!(true), &json!({ "case": "7" })));
        assert_eq!(server.see(&path(answer), &key), lasting(answer.clone()));
    }
    let first = &answers[0];
    let items = |query: &str| server.see(&format!("{}/input_items{query}", path(first)), &key);
    let said = |page: &Value| -> Vec<String> {
        let texts = |item: &Value| item["content"].as_array().unwrap().iter().map(|part| text(&part["text"])).collect::<String>();
        page["data"].as_array().unwrap().iter().map(texts).collect()
    };
    let newest = items("");
    assert_eq!(said(&newest), ["Go on.", "Red.", "Name three colours.", "Be brief."], "newest first");
    let page = items("?order=asc&limit=3");
    assert_eq!((said(&page).len(), &page["has_more"], &page["object"]), (3, &json!(true), &json!("list")));
    let rest = items(&format!("?order=asc&limit=3&after={}", text(&page["last_id"])));
    assert_eq!((said(&rest), &rest["has_more"]), (vec!["Go on.".to_owned()], &json!(false)));
    assert_eq!((&rest["first_id"], &rest["data"][0]["type"]), (&rest["data"][0]["id"], &json!("message")));
    assert_eq!(server.see(&path(first).replace("/v1", ""), &key), server.see(&path(first), &key), "without /v1 too");
    server.kill();
    server.restart();
    assert_eq!(server.see(&path(first), &key), lasting(first.clone()), "what was answered is durable");
    let deleted = server.ask("DELETE", &path(first)).key(&key).send().unwrap().good();
    assert_eq!(deleted, json!({ "id": first["id"], "object": "response", "deleted": true }));
    for (method, path) in [("GET", path(first)), ("GET", format!("{}/input_items", path(first))), ("DELETE", path(first))] {
        let gone = server.ask(method, &path).key(&key).send().unwrap();
        assert_eq!((gone.status, gone.code().as_str()), (404, "not_found"), "{method} {path}");
    }
    let unkept = make(&server, &json!("Hello"), &json!({ "store": false }));
    assert_eq!(server.get(&path(&unkept), &key).unwrap().status, 404);
    server.wait_until_settled();
    server.assert_books();
}

fn conversation(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let long = json!("Name three colours, and for each of them a flower, a fruit and a bird. ".repeat(6));
    let first = make(&server, &long, &json!({ "instructions": "Be brief." }));
    let second = streamed(&server, &json!("And three more?"), &json!({ "previous_response_id": first["id"] }));
    let follow = json!({ "previous_response_id": second["id"], "store": false });
    let third = make(&server, &json!("And the last three?"), &follow);
    assert_eq!((&second["previous_response_id"], &third["previous_response_id"]), (&first["id"], &second["id"]));
    let said = |response: &Value| response["output"][0].clone();
    let user = |said: &Value| json!({ "role": "user", "content": said });
    let whole =
        json!([user(&long), said(&first), user(&json!("And three more?")), said(&second), user(&json!("And the last three?")),]);
    let by_hand = make(&server, &whole, &json!({ "store": false }));
    let counted = json!({ "model": server.keys.model, "input": "And the last three?", "previous_response_id": second["id"] });
    let counted = server.make("/v1/responses/input_tokens", key, &counted);
    for usage in [&by_hand["usage"]["input_tokens"], &counted["input_tokens"]] {
        assert_eq!(*usage, third["usage"]["input_tokens"], "earlier turns are input like any other");
    }
    assert_eq!(third["output"][0]["content"], by_hand["output"][0]["content"], "and are read alike");
    let cached = third["usage"]["input_tokens_details"]["cached_tokens"].as_i64().unwrap();
    assert!(cached > 0, "what was computed before costs the cached price: {third}");
    server.wait_until_settled();
    let settled = server.see(&format!("/v1/requests/{}", text(&third["id"]).replace("resp_", "req_")), key);
    let charged = ["input_tokens", "cached_input_tokens"].map(|kind| settled["usage"][kind].as_i64().unwrap());
    assert_eq!(charged, [third["usage"]["input_tokens"].as_i64().unwrap() - cached, cached], "{settled}");
    server.assert_books();
    server.ask("DELETE", &path(&first)).key(key).send().unwrap().good();
    let broken = server.post(PATH, key, &request(&server, &json!("More"), &follow)).unwrap();
    assert_eq!((broken.status, broken.code().as_str()), (400, "previous_response_not_found"));
    assert!(broken.text().contains(&text(&first["id"])), "{}", broken.text());
}

fn refusals(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let kept = make(&server, &json!("Hello"), &json!({}));
    let stranger = Stranger::make(&server, Some("5"));
    let follow = request(&server, &json!("More"), &json!({ "previous_response_id": kept["id"] }));
    for (key, body, code) in [
        (&stranger.project, &follow, "previous_response_not_found"),
        (key, &request(&server, &json!("a"), &json!({ "previous_response_id": "resp_0" })), "previous_response_not_found"),
        (key, &request(&server, &json!("a"), &json!({ "background": true })), "unsupported_field"),
        (key, &request(&server, &json!("a"), &json!({ "conversation": "conv_1" })), "unsupported_field"),
    ] {
        let refused = server.post(PATH, key, body).unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{}", refused.text());
    }
    let stream = server.get(&format!("{}?stream=true", path(&kept)), key).unwrap();
    assert_eq!((stream.status, stream.json()["error"]["param"].clone()), (400, json!("stream")), "{}", stream.text());
    assert_eq!(server.get(&format!("{}?stream=false", path(&kept)), key).unwrap().status, 200);
    let cancel = server.post(&format!("{}/cancel", path(&kept)), key, &json!({})).unwrap();
    assert_eq!((cancel.status, cancel.code().as_str()), (404, "not_offered"), "{}", cancel.text());
    let wrong = server.get(&format!("{}/input_items?after=msg_1", path(&kept)), key).unwrap();
    assert_eq!((wrong.status, wrong.json()["error"]["param"].clone()), (400, json!("after")));
}

fn turned_off(database: Database) {
    let mut home = Home::new(database);
    home.keep_responses_days = Some(0);
    let server = home.start();
    let key = &server.keys.project;
    let refused = server.post(PATH, key, &request(&server, &json!("Hello"), &json!({}))).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (400, "unsupported_field"), "{}", refused.text());
    assert_eq!(refused.json()["error"]["param"], "store");
    make(&server, &json!("Hello"), &json!({ "store": false }));
}

/// One is deleted, the other one expires. PostgreSQL has a clock of its own, and forgets rows in its own time.
fn left_behind(database: Database) {
    let mut server = Home::new(database).start();
    let key = server.keys.project.clone();
    let asked = json!(format!("My secret is {SECRET}. Count to ten. {}", "Tell me. ".repeat(20)));
    let extra = json!({ "metadata": { "a": SECRET }, "instructions": SECRET });
    let deleted = make(&server, &asked, &extra);
    let expires = streamed(&server, &asked, &extra);
    assert!(server.see(&path(&deleted), &key).to_string().contains(SECRET));
    server.ask("DELETE", &path(&deleted)).key(&key).send().unwrap().good();
    if database == Database::Postgresql {
        server.ask("DELETE", &path(&expires)).key(&key).send().unwrap().good();
        assert_eq!(server.get(&path(&expires), &key).unwrap().status, 404);
        return;
    }
    server.wait_until_settled();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert!(holds_anywhere(&server.home.data_dir, SECRET), "what is kept is there");
    server.home.clock_skew_ms = 31 * DAY_MS;
    server.restart();
    assert_eq!(server.get(&path(&expires), &key).unwrap().status, 404, "it is not waited for the sweep");
    wait_for("the sweep", || server.log().contains("expired responses were deleted").then_some(()));
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert!(!holds_anywhere(&server.home.data_dir, SECRET), "not one byte of it is left");
}
