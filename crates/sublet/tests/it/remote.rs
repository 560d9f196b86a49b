//! A cloud that sells what other servers make: here another cloud of ours, with its own prices and keys.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, Server, chat, nanos, text, wait_for};

on_both! {
    a_model_of_another_cloud_is_sold_at_our_price: models_are_resold;
    what_an_operator_gets_wrong_about_a_remote_model_is_said: mistakes_are_said;
    a_remote_model_is_counted_by_its_tokenizer: tokenizers_count;
}

/// Publishes a price for a model beside those in force.
pub fn price(server: &Server, model: &str) {
    let list = server.see("/operator/v1/price_lists", &server.keys.operator)["data"][0].clone();
    let list = server.see(&format!("/operator/v1/price_lists/{}", text(&list["version"])), &server.keys.operator);
    let mut prices = list["prices"].as_array().unwrap().clone();
    let known: Vec<Value> = prices.iter().filter(|price| price["subject"]["name"] == json!(server.keys.model)).cloned().collect();
    assert_eq!(known.len(), 9, "three kinds at three tiers: {list}");
    prices.extend(known.into_iter().map(|mut price| {
        price["subject"]["name"] = json!(model);
        price
    }));
    let body = json!({ "name": list["name"], "currency": list["currency"], "prices": prices });
    server.make("/operator/v1/price_lists", &server.keys.operator, &body);
}

/// Offers a model that another server answers for; answers the replica.
pub fn offer(server: &Server, name: &str, base_url: &str, more: &Value) -> Value {
    let body = json!({ "name": name, "owned_by": "someone", "context_window": 512 });
    let model = server.make("/operator/v1/remote_models", &server.keys.operator, &body);
    add(server, &text(&model["id"]), base_url, more)
}

fn add(server: &Server, model: &str, base_url: &str, more: &Value) -> Value {
    let mut body = json!({ "model": model, "base_url": base_url, "upstream_model": "sublet-mini" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.make("/operator/v1/replicas", &server.keys.operator, &body)
}

/// Puts a secret where the cloud looks for it.
fn keep_secret(server: &Server, name: &str, secret: &str) {
    let folder = server.home.data_dir.join("secrets");
    std::fs::write(folder.join(name), secret).unwrap();
}

fn models_are_resold(database: Database) {
    let mut maker = Home::new(Database::Sqlite).start();
    let seller = Home::new(database).start();
    keep_secret(&seller, "maker", &maker.keys.project);
    let replica = offer(&seller, "maker/mini", &format!("http://{}/v1", maker.address), &json!({ "secret": "maker" }));
    let key = &seller.keys.project;
    let unpriced = seller.post("/v1/chat/completions", key, &chat("maker/mini", 4, &json!({}))).unwrap();
    assert_eq!((unpriced.status, unpriced.code().as_str()), (409, "unknown_price"));
    price(&seller, "maker/mini");
    let models = seller.see("/v1/models", key);
    assert!(models["data"].as_array().unwrap().iter().any(|model| model["id"] == json!("maker/mini")), "{models}");

    let ours = seller.make("/v1/chat/completions", key, &chat(&seller.keys.model, 8, &json!({ "seed": 1 })));
    let theirs = seller.make("/v1/chat/completions", key, &chat("maker/mini", 8, &json!({ "seed": 1 })));
    assert_eq!(theirs["model"], json!("maker/mini"));
    assert_eq!(theirs["choices"][0]["message"]["content"], ours["choices"][0]["message"]["content"], "the same model, elsewhere");
    assert_eq!(theirs["usage"]["completion_tokens"], ours["usage"]["completion_tokens"]);
    let body = chat("maker/mini", 8, &json!({ "seed": 1, "stream": true, "stream_options": { "include_usage": true } }));
    let stream = seller.post("/v1/chat/completions", key, &body).unwrap().text();
    assert!(stream.ends_with("data: [DONE]\n\n") && stream.contains("\"sublet\":{\"cost\""), "{stream}");
    seller.wait_until_settled();
    maker.wait_until_settled();
    let request = seller.see(&format!("/v1/requests/{}", text(&theirs["id"])), key);
    assert_eq!(request["usage"]["output_tokens"], theirs["usage"]["completion_tokens"], "{request}");
    let spent = nanos(&seller.see("/v1/usage", key)["total"]);
    assert!(spent > 0);
    seller.assert_books();
    maker.assert_books();

    // Its server is gone: refused, not charged, and back when it is back.
    maker.kill();
    let refused = seller.post("/v1/chat/completions", key, &chat("maker/mini", 4, &json!({}))).unwrap();
    assert!(matches!(refused.status, 502 | 503), "{}", refused.text());
    let seen = |server: &Server| server.see(&format!("/operator/v1/replicas/{}", text(&replica["id"])), &server.keys.operator);
    assert_eq!(seen(&seller)["seen"]["in_flight"], json!(0));
    let path = format!("/operator/v1/replicas/{}", text(&replica["id"]));
    let drained = seller.ask("PUT", &path).key(&seller.keys.operator).json(&json!({ "state": "draining" })).send().unwrap().good();
    assert_eq!(drained["state"], json!("draining"));
    let refused = seller.post("/v1/chat/completions", key, &chat("maker/mini", 4, &json!({}))).unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(nanos(&seller.see("/v1/usage", key)["total"]), spent);
    maker.restart();
    let model = text(&replica["model"]);
    add(&seller, &model, &format!("http://{}/v1", maker.address), &json!({ "secret": "maker" }));
    let again = wait_for("the new replica", || {
        let answer = seller.post("/v1/chat/completions", key, &chat("maker/mini", 4, &json!({}))).unwrap();
        (answer.status == 200).then(|| answer.good())
    });
    assert_eq!(again["model"], json!("maker/mini"));
    seller.wait_until_settled();
    seller.assert_books();
}

/// The tokenizer of a model that another server answers for is a folder of ours.
fn tokenizers_count(database: Database) {
    let server = Home::new(database).start();
    let (operator, key) = (&server.keys.operator, &server.keys.project);
    let published = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/sublet-mini");
    let folder = server.home.data_dir.join("tokenizers/mini");
    std::fs::create_dir(&folder).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(published.join(file), folder.join(file)).unwrap();
    }
    let mut model = json!({ "name": "far/mini", "owned_by": "x", "context_window": 512, "tokenizer": "none-such" });
    for wrong in ["none-such", "../secrets", ""] {
        model["tokenizer"] = json!(wrong);
        let refused = server.post("/operator/v1/remote_models", operator, &model).unwrap();
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tokenizer")), "{}", refused.text());
    }
    model["tokenizer"] = json!("mini");
    let made = server.make("/operator/v1/remote_models", operator, &model);
    assert_eq!(made["tokenizer"], json!("mini"));
    price(&server, "far/mini");
    let count = |model: &str| {
        let body = json!({ "model": model, "system": "Be brief.", "messages": [{ "role": "user", "content": "Où est-il? 東京" }] });
        server.post("/v1/messages/count_tokens", key, &body).unwrap()
    };
    let ours = count(&server.keys.model).good()["input_tokens"].clone();
    assert_eq!(count("far/mini").good()["input_tokens"], ours, "the same model, counted without its weights");
    let path = format!("/operator/v1/remote_models/{}", text(&made["id"]));
    let change = |tokenizer: &str| server.ask("PUT", &path).key(operator).json(&json!({ "tokenizer": tokenizer })).send().unwrap();
    assert_eq!(change("none-such").status, 400);
    assert_eq!(change("").good()["tokenizer"], Value::Null);
    assert_eq!(count("far/mini").status, 400, "nobody can count it now");
}

/// Some organization.
fn organization_of(server: &Server) -> Value {
    server.see("/operator/v1/organizations", &server.keys.operator)["data"][0]["id"].clone()
}

fn mistakes_are_said(database: Database) {
    let server = Home::new(database).start();
    let operator = &server.keys.operator;
    let good = json!({ "name": "far", "owned_by": "someone", "context_window": 512 });
    let made = server.make("/operator/v1/remote_models", operator, &good);
    for (change, status, param) in [
        (json!({}), 409, "name"),
        (json!({ "name": server.keys.model }), 409, "name"),
        (json!({ "name": "a b" }), 400, "name"),
        (json!({ "name": "other", "context_window": 1 }), 400, "context_window"),
        (json!({ "name": "other", "max_output_tokens": 513 }), 400, "max_output_tokens"),
        (json!({ "name": "other", "organizations": [] }), 400, "organizations"),
        (json!({ "name": "other", "organizations": ["org_0"] }), 404, "organizations"),
        (json!({ "name": "other", "owned_by": "" }), 400, "owned_by"),
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = server.post("/operator/v1/remote_models", operator, &body).unwrap();
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (status, &json!(param)), "{change}: {}", refused.text());
    }
    let replica = json!({ "model": made["id"], "base_url": "http://127.0.0.1:9/v1", "upstream_model": "m" });
    for (change, status) in [
        (json!({ "base_url": "ftp://x" }), 400),
        (json!({ "base_url": "http://user:secret@host/v1" }), 400),
        (json!({ "secret": "../../etc/passwd" }), 400),
        (json!({ "upstream_model": "" }), 400),
        (json!({ "max_in_flight": 0 }), 400),
        (json!({ "engine": "other" }), 400),
        (json!({ "source": "supplier" }), 400),
        (json!({ "supplier": "org_0" }), 404),
        (json!({ "supplier": organization_of(&server) }), 400),
        (json!({ "min_margin_permille": 1 }), 400),
        (json!({ "supplier": organization_of(&server), "min_margin_permille": 1_001 }), 400),
        (json!({ "model": "model_0" }), 404),
        (json!({ "api_key": "sk-1" }), 400),
    ] {
        let mut body = replica.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = server.post("/operator/v1/replicas", operator, &body).unwrap();
        assert_eq!(refused.status, status, "{change}: {}", refused.text());
        assert!(!refused.text().contains("user:secret"), "{}", refused.text());
    }
    let added = server.make("/operator/v1/replicas", operator, &replica);
    let model = format!("/operator/v1/remote_models/{}", text(&made["id"]));
    let refused = server.ask("DELETE", &model).key(operator).send().unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"));
    server.ask("DELETE", &format!("/operator/v1/replicas/{}", text(&added["id"]))).key(operator).send().unwrap().good();
    server.ask("DELETE", &model).key(operator).send().unwrap().good();
    assert_eq!(server.see("/operator/v1/remote_models", operator)["data"], json!([]));
    let body = json!({ "name": "hidden", "owned_by": "x", "context_window": 512, "organizations": [organization_of(&server)] });
    server.make("/operator/v1/remote_models", operator, &body);
    price(&server, "hidden");
    assert!(!server.get("/v1/prices", "").unwrap().text().contains("hidden"), "the public list is for everybody");
    let audit = server.see("/operator/v1/audit_logs?limit=100", operator).to_string();
    for action in ["remote_model.create", "replica.create", "replica.delete", "remote_model.delete"] {
        assert!(audit.contains(action), "{action}");
    }
}
