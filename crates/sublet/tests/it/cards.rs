//! Model cards over HTTP: set by the operator, told to callers, licences accepted by organizations.

use serde_json::{Value, json};

use crate::batches::{create, ended, line};
use crate::files::batch_file;
use crate::on_both;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, chat, text};

on_both! {
    a_licence_is_accepted_once_by_each_organization_and_outlives_the_process: licences;
    a_name_means_one_model_and_aliases_form_no_cycle: aliases;
    a_card_that_is_wrong_is_refused_by_the_field: wrong_cards;
    a_model_ends_when_its_card_says: ends;
}

fn put(server: &Server, model: &str, card: &Value) -> crate::http::Answer {
    let path = format!("/operator/v1/model_cards/{model}");
    server.ask("PUT", &path).key(&server.keys.operator).json(card).send().unwrap()
}

fn gated() -> Value {
    json!({ "licence": { "name": "llama3.1", "url": "https://example.com/licence", "acceptance_required": true } })
}

fn call(server: &Server, key: &str, model: &str) -> crate::http::Answer {
    server.post("/v1/chat/completions", key, &chat(model, 2, &json!({}))).unwrap()
}

fn told(server: &Server, model: &str) -> Value {
    server.see(&format!("/v1/models/{model}"), &server.keys.project)
}

fn licences(database: Database) {
    let mut server = Home::new(database).start();
    let (key, model) = (server.keys.project.clone(), server.keys.model.clone());
    let stranger = Stranger::make(&server, Some("5"));
    put(&server, &model, &gated()).good();
    let refused = call(&server, &key, &model);
    assert_eq!((refused.status, refused.code().as_str()), (403, "licence_not_accepted"), "{}", refused.text());
    assert!(refused.json()["error"]["alternatives"].to_string().contains("/v1/organization/licences"));
    assert_eq!(told(&server, &model)["sublet"]["licence"]["accepted"], json!(false));
    let body = chat(&model, 2, &json!({}));
    let file = batch_file(&server, &key, line("one", "/v1/chat/completions", &body).as_bytes());
    let batch = ended(&server, &key, &create(&server, &key, &file, &json!({})));
    assert_eq!(batch["errors"]["data"][0]["code"], json!("licence_not_accepted"), "{batch}");

    let path = "/v1/organization/licences";
    let other = server.post(path, &server.keys.admin, &json!({ "model": model, "licence": "MIT" })).unwrap();
    assert_eq!((other.status, &other.json()["error"]["alternatives"]), (409, &json!(["llama3.1"])), "{}", other.text());
    let nothing = server.post(path, &server.keys.admin, &json!({ "model": "none/such", "licence": "MIT" })).unwrap();
    assert_eq!(nothing.status, 404, "{}", nothing.text());
    let accepted = server.make(path, &server.keys.admin, &json!({ "model": model, "licence": "llama3.1" }));
    assert_eq!((&accepted["object"], &accepted["url"]), (&json!("organization.licence"), &json!("https://example.com/licence")));
    assert!(text(&accepted["accepted_by"]).starts_with("key_") && accepted["accepted_at"].as_i64().unwrap() > 1_700_000_000);
    let again = server.make(path, &server.keys.admin, &json!({ "model": model, "licence": "llama3.1" }));
    assert_eq!(again, accepted, "the first acceptance stays");
    call(&server, &key, &model).good();
    assert_eq!(told(&server, &model)["sublet"]["licence"]["accepted"], json!(true));
    assert_eq!(call(&server, &stranger.project, &model).status, 403, "nobody accepts for others");
    assert_eq!(server.see(path, &stranger.admin)["data"], json!([]));
    let audit = server.see("/v1/organization/audit_logs", &server.keys.admin);
    assert!(audit["data"].as_array().unwrap().iter().any(|entry| entry["type"] == json!("licence.accept")), "{audit}");
    server.wait_until_settled();
    server.kill();
    server.restart();
    call(&server, &key, &model).good();
    // Another licence is another agreement.
    put(&server, &model, &json!({ "licence": { "name": "llama4", "url": "https://example.com/4", "acceptance_required": true } }))
        .good();
    assert_eq!(call(&server, &key, &model).code(), "licence_not_accepted");
    assert_eq!(server.see(path, &server.keys.admin)["data"].as_array().map(Vec::len), Some(1));
}

fn aliases(database: Database) {
    let server = Home::new(database).start();
    let (key, model) = (&server.keys.project, &server.keys.model);
    let card = put(&server, model, &json!({ "aliases": ["best", "maker/best"] })).good();
    assert_eq!((&card["id"], &card["generation"], &card["aliases"]), (&json!(model), &json!(1), &json!(["best", "maker/best"])));
    let answer = call(&server, key, "maker/best").good();
    assert_eq!(answer["model"], json!(model));
    server.wait_until_settled();
    let record = server.see(&format!("/v1/requests/{}", text(&answer["id"])), key);
    assert_eq!(record["model"], json!(model), "{record}");
    assert_eq!(told(&server, "maker/best")["id"], json!(model));
    for (name, aliases, param) in [
        // An alias is no model, so that nothing leads on from it.
        ("best", json!([model]), None),
        ("other", json!(["best"]), Some("aliases")),
        ("other", json!([model]), Some("aliases")),
        ("other", json!(["other"]), Some("aliases")),
    ] {
        let refused = put(&server, name, &json!({ "aliases": aliases }));
        assert!(matches!(refused.status, 400 | 409), "{name} {aliases}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"].as_str(), param, "{}", refused.text());
    }
    let taken = json!({ "name": "best", "owned_by": "someone", "context_window": 512 });
    let refused = server.post("/operator/v1/remote_models", &server.keys.operator, &taken).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"), "{}", refused.text());
    put(&server, model, &json!({ "aliases": ["maker/best"] })).good();
    assert_eq!(call(&server, key, "best").code(), "model_not_found");
    let path = format!("/operator/v1/model_cards/{model}");
    server.ask("DELETE", &path).key(&server.keys.operator).send().unwrap().good();
    assert_eq!(call(&server, key, "maker/best").code(), "model_not_found");
    assert_eq!(server.see("/operator/v1/model_cards", &server.keys.operator)["data"], json!([]));
}

fn wrong_cards(database: Database) {
    let server = Home::new(database).start();
    let model = &server.keys.model;
    for (card, param) in [
        (json!({ "licence": { "name": "x".repeat(200) } }), "licence.name"),
        (json!({ "licence": { "name": "own", "acceptance_required": true } }), "licence.url"),
        (json!({ "licence": { "name": "own", "url": "javascript:x" } }), "licence.url"),
        (json!({ "description": "x".repeat(3_000) }), "description"),
        (json!({ "data_policy": { "retention": "x".repeat(300) } }), "data_policy.retention"),
        (json!({ "organizations": [] }), "organizations"),
        (json!({ "organizations": ["org_00000000000000000000000000"] }), "organizations"),
        (json!({ "replacement": model }), "replacement"),
        (json!({ "shutdown_date": "tomorrow" }), "shutdown_date"),
        (json!({ "weights": "heavy" }), "weights"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        let refused = put(&server, model, &card);
        assert!((400..=404).contains(&refused.status), "{card}: {}", refused.text());
        assert_eq!(refused.json()["error"]["param"], json!(param), "{card}: {}", refused.text());
    }
    let refused = put(&server, "with%20space", &json!({}));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(server.get(&format!("/operator/v1/model_cards/{model}"), &server.keys.operator).unwrap().status, 404);
}

fn ends(database: Database) {
    let server = Home::new(database).start();
    let (key, model) = (&server.keys.project, &server.keys.model);
    let policy = json!({ "retention": "none", "used_for_training": false, "served_in": ["DE"] });
    let card = json!({
        "owned_by": "Example Works", "weights": "open", "licence": { "name": "Apache-2.0" }, "data_policy": policy,
        "shutdown_date": "2099-01-01T00:00:00Z", "replacement": "maker/next",
    });
    put(&server, model, &card).good();
    let answer = call(&server, key, model);
    assert_eq!(
        answer.header("x-sublet-deprecation"),
        Some(format!("model={model}; shutdown=2099-01-01; replacement=maker/next").as_str())
    );
    assert_eq!(answer.header("sunset"), Some("Thu, 01 Jan 2099 00:00:00 GMT"));
    answer.good();
    for _ in 0..3 {
        let body = chat(model, 8, &json!({ "logit_bias": crate::server::never_end() }));
        server.make("/v1/chat/completions", key, &body);
    }
    let found = told(&server, model);
    assert_eq!((&found["owned_by"], &found["shutdown_date"]), (&json!("Example Works"), &json!(4_070_908_800_i64)), "{found}");
    assert_eq!((&found["sublet"]["data_policy"], &found["sublet"]["weights"]), (&policy, &json!("open")));
    let measured = &found["sublet"]["measured"];
    assert_eq!(measured["requests"], json!(4), "{found}");
    let figure = |of: &str, which: &str| measured[of][which].as_u64().unwrap_or_else(|| panic!("{measured}"));
    assert!(figure("first_token_ms", "p50") <= figure("first_token_ms", "p90"));
    assert!(figure("output_tokens_per_second", "p50") >= figure("output_tokens_per_second", "p90"));
    let past = json!({ "shutdown_date": "2020-01-01T00:00:00Z", "replacement": "maker/next" });
    put(&server, model, &past).good();
    let gone = call(&server, key, model);
    assert_eq!((gone.status, gone.code().as_str()), (404, "model_not_found"));
    assert_eq!(gone.json()["error"]["alternatives"], json!(["maker/next"]), "{}", gone.text());
    assert_eq!(server.see("/v1/models", key)["data"], json!([]));
    // A card can keep a model of this process for some.
    let stranger = Stranger::make(&server, Some("5"));
    let own = text(&server.see("/v1/organization/self", &server.keys.admin)["id"]);
    put(&server, model, &json!({ "organizations": [own] })).good();
    call(&server, key, model).good();
    assert_eq!(call(&server, &stranger.project, model).code(), "model_not_found");
    assert_eq!(server.see("/v1/models", &stranger.project)["data"], json!([]));
}
