//! Offerings over HTTP: said by the operator, met by customers in models, SKUs, prices, quotes and batches.

use serde_json::{Value, json};

use crate::batches::{create, ended, line};
use crate::files::batch_file;
use crate::on_both;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, chat, text};

on_both! {
    an_invited_model_exists_for_those_invited_alone: invited;
    devices_of_a_draft_are_nowhere_to_be_seen: drafts;
    devices_that_are_not_sold_any_more_are_refused_with_their_successor: retired;
    an_offering_that_is_wrong_is_refused_by_the_field: wrong;
}

fn set(server: &Server, product: &str, body: &Value) -> crate::http::Answer {
    server.ask("PUT", &format!("/operator/v1/offerings/{product}")).key(&server.keys.operator).json(body).send().unwrap()
}

fn invite(server: &Server, method: &'static str, organization: &str, product: &str) -> crate::http::Answer {
    let path = format!("/operator/v1/organizations/{organization}/offerings/{product}");
    server.ask(method, &path).key(&server.keys.operator).send().unwrap()
}

/// Names with a price in what somebody sees of the price list.
fn priced(list: &Value, name: &str) -> usize {
    list["prices"].as_array().unwrap().iter().filter(|price| price["subject"]["name"] == json!(name)).count()
}

fn invited(database: Database) {
    let mut server = Home::new(database).start();
    let (key, model) = (server.keys.project.clone(), server.keys.model.clone());
    let stranger = Stranger::make(&server, Some("5"));
    let product = format!("model/{model}");
    let guest = text(&server.see("/v1/organization/self", &server.keys.admin)["id"]);
    let record = set(&server, &product, &json!({ "state": "invited", "note": "first customers" })).good();
    assert_eq!((&record["id"], &record["state"], &record["known_to"]), (&json!(product), &json!("invited"), &json!("invited")));
    let record = invite(&server, "PUT", &guest, &product).good();
    assert_eq!(record["invited"][0]["organization"], json!(guest), "{record}");
    assert_eq!(invite(&server, "PUT", &guest, &product).good(), record, "an invitation is made once");
    server.wait_until_settled();
    server.kill();
    server.restart();

    let body = chat(&model, 2, &json!({}));
    server.post("/v1/chat/completions", &key, &body).unwrap().good();
    let told = server.see(&format!("/v1/models/{model}"), &key);
    assert_eq!(told["sublet"]["offering"], json!({ "state": "invited" }), "{told}");
    let other = &stranger.project;
    let refused = server.post("/v1/chat/completions", other, &body).unwrap();
    let unknown = server.post("/v1/chat/completions", other, &chat("none/such", 2, &json!({}))).unwrap();
    assert_eq!((refused.status, refused.code()), (unknown.status, unknown.code()));
    let message = |answer: &crate::http::Answer| text(&answer.json()["error"]["message"]);
    assert_eq!(message(&refused).replace(&model, "none/such"), message(&unknown));
    assert_eq!(server.see("/v1/models", other)["data"], json!([]));
    for (path, who, sees) in [("/v1/prices", &key, false), ("/v1/account/prices", &key, true), ("/v1/account/prices", other, false)]
    {
        assert_eq!(priced(&server.see(path, who), &model) > 0, sees, "{path}");
    }
    let file = batch_file(&server, other, line("one", "/v1/chat/completions", &body).as_bytes());
    let batch = ended(&server, other, &create(&server, other, &file, &json!({})));
    assert_eq!(batch["errors"]["data"][0]["code"], json!("model_not_found"), "{batch}");
    let licence = json!({ "licence": { "name": "own", "url": "https://example.com/l", "acceptance_required": true } });
    let card = format!("/operator/v1/model_cards/{model}");
    server.ask("PUT", &card).key(&server.keys.operator).json(&licence).send().unwrap().good();
    let accept = json!({ "model": model, "licence": "own" });
    assert_eq!(server.post("/v1/organization/licences", &stranger.admin, &accept).unwrap().status, 404);
    server.make("/v1/organization/licences", &server.keys.admin, &accept);

    invite(&server, "DELETE", &guest, &product).good();
    assert_eq!(server.post("/v1/chat/completions", &key, &body).unwrap().code(), "model_not_found");
    set(&server, &product, &json!({ "state": "public" })).good();
    server.post("/v1/chat/completions", &key, &body).unwrap().good();
    let record = server.see(&format!("/operator/v1/offerings/{product}"), &server.keys.operator);
    assert_eq!((&record["number"], &record["history"][0]["note"]), (&json!(2), &json!("first customers")), "{record}");
    let listed = server.see("/operator/v1/offerings", &server.keys.operator);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    server.wait_until_settled();
    server.assert_books();
}

fn drafts(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let notices = || {
        server.see("/v1/skus", key)["data"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|sku| sku["prices"].as_array().unwrap().clone())
            .collect::<Vec<_>>()
    };
    let all = notices().len();
    set(&server, "device/n0/cpu", &json!({ "state": "preview" })).good();
    let shown = notices();
    let note = |notice: &str| shown.iter().find(|price| price["notice"] == json!(notice)).unwrap()["offering"].clone();
    assert_eq!((shown.len(), note("n0"), note("n1h")), (all, json!({ "state": "preview" }), Value::Null));
    set(&server, "device/cpu", &json!({ "state": "draft" })).good();
    set(&server, "device/n0/cpu", &json!({ "state": "draft" })).good();
    assert_eq!(notices(), Vec::<Value>::new());
    assert_eq!(server.see("/v1/availability", key)["data"], json!([]));
    for path in ["/v1/prices", "/v1/account/prices"] {
        assert_eq!(priced(&server.see(path, key), "cpu"), 0, "{path}");
    }
    let quote = |sku: &str| server.post("/v1/quotes", key, &json!({ "sku": sku, "notice": "n0" })).unwrap();
    let (hidden, unknown) = (quote("cpu"), quote("gpx"));
    assert_eq!((hidden.status, hidden.text().len()), (unknown.status, unknown.text().len()), "{}", hidden.text());
    assert_eq!(hidden.json()["error"]["alternatives"], unknown.json()["error"]["alternatives"]);
}

fn retired(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let body = |sku: &str| json!({ "sku": sku, "notice": "n0", "maximum_seconds": 600 });
    let id = text(&server.see("/v1/skus", key)["data"][0]["id"]);
    let retiring = json!({ "state": "retiring", "ends_at": "2099-01-01T00:00:00Z", "successor": "device/h100" });
    for (said, message) in [(&retiring, "takes no new users"), (&json!({ "state": "retired" }), "was retired at")] {
        set(&server, "device/cpu", said).good();
        assert_eq!(server.see("/v1/skus", key)["data"], json!([]));
        for name in ["cpu", &id] {
            let refused = server.post("/v1/quotes", key, &body(name)).unwrap();
            assert_eq!(refused.code(), "policy_refused", "{}", refused.text());
            assert_eq!(refused.json()["error"]["alternatives"], json!(["device/h100"]), "{}", refused.text());
            assert!(text(&refused.json()["error"]["message"]).contains(message), "{}", refused.text());
        }
        assert_eq!(server.see("/v1/availability?sku=cpu", key)["data"], json!([]));
    }
}

fn wrong(database: Database) {
    let server = Home::new(database).start();
    let product = format!("model/{}", server.keys.model);
    for (body, param) in [
        (json!({}), "state"),
        (json!({ "state": "sold_out" }), "state"),
        (json!({ "state": "retiring" }), "ends_at"),
        (json!({ "state": "retiring", "ends_at": "2020-01-01T00:00:00Z" }), "ends_at"),
        (json!({ "state": "retiring", "ends_at": "soon" }), "ends_at"),
        (json!({ "state": "retiring", "ends_at": "2099-01-01T00:00:00Z", "successor": product }), "successor"),
        (json!({ "state": "retiring", "ends_at": "2099-01-01T00:00:00Z", "successor": "device/cpu" }), "successor"),
        (json!({ "state": "retiring", "ends_at": "2099-01-01T00:00:00Z", "successor": "next" }), "successor"),
        (json!({ "state": "retiring", "ends_at": "2099-01-01T00:00:00Z", "used_within_days": 0 }), "used_within_days"),
        (json!({ "state": "public", "successor": "model/next" }), "successor"),
        (json!({ "state": "draft", "note": "x".repeat(600) }), "note"),
        (json!({ "state": "draft", "colour": "red" }), "colour"),
    ] {
        let refused = set(&server, &product, &body);
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(param)), "{body}: {}", refused.text());
    }
    for unnamed in ["model", "fee/setup", "device/", "model/with%20space"] {
        assert!((400..=404).contains(&set(&server, unnamed, &json!({ "state": "draft" })).status), "{unnamed}");
    }
    let nobody = invite(&server, "PUT", "org_00000000000000000000000000", &product);
    assert_eq!(nobody.status, 404, "{}", nobody.text());
    assert_eq!(server.see("/operator/v1/offerings", &server.keys.operator)["data"], json!([]));
}
