//! Embeddings by the engine, over HTTP: one after the other and as lines of a batch, charged to the token.

use serde_json::{Value, json};

use crate::batches::{assert_charged_as_answered, create, ended, line, output};
use crate::files::batch_file;
use crate::on_both;
use crate::server::{Database, Home, chat, nanos, text};

on_both! {
    embeddings_are_recorded_and_charged_for_their_input: online;
    j_lines_of_embeddings_are_answered_and_charged_once: lines;
}

const PATH: &str = "/v1/embeddings";

fn online(database: Database) {
    let server = Home::new(database).start();
    let (key, model) = (&server.keys.project, &server.keys.model);
    let body = json!({ "model": model, "input": ["What is Sublet?", "Once upon a time"], "encoding_format": "base64" });
    let answer = server.post(PATH, key, &body).unwrap();
    let request = answer.header("x-request-id").unwrap().to_owned();
    assert!(answer.header("x-sublet-cost").is_some() && answer.header("x-sublet-remaining-budget").is_some());
    let answer = answer.good();
    let prompts = ["What is Sublet?", "Once upon a time"].map(|prompt| {
        let body = json!({ "model": model, "prompt": prompt, "max_tokens": 1 });
        server.make("/v1/completions", key, &body)["usage"]["prompt_tokens"].as_i64().unwrap()
    });
    let tokens = prompts.iter().sum::<i64>();
    assert_eq!(answer["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }), "counted as prompts are");
    let alone = server.make(PATH, key, &json!({ "model": model, "input": "Once upon a time", "encoding_format": "base64" }));
    assert_eq!(alone["data"][0]["embedding"], answer["data"][1]["embedding"], "to the last bit");
    let floats = server.make(PATH, key, &json!({ "model": model, "input": "Once upon a time" }));
    let values: Vec<f64> = floats["data"][0]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let note = &server.see(&format!("/v1/models/{model}"), key)["sublet"]["embeddings"];
    assert_eq!((&note["dimensions"], &note["pooling"]), (&json!(values.len()), &json!("mean")), "{note}");
    assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)) && values.iter().any(|value| *value != 0.0));
    server.wait_until_settled();
    let record = server.see(&format!("/v1/requests/{request}"), key);
    assert_eq!(
        (&record["usage"]["input_tokens"], &record["usage"]["output_tokens"], &record["model"]),
        (&json!(tokens), &json!(0), &json!(model)),
        "{record}"
    );
    let charged: Vec<Value> = server.charges().into_iter().filter(|charge| charge["request"] == json!(request)).collect();
    assert_eq!(charged.len(), 1, "input alone: {charged:?}");
    assert!(nanos(&charged[0]["amount"]) > 0);
    server.assert_books();
}

fn lines(database: Database) {
    let server = Home::new(database).start();
    let (key, model) = (&server.keys.project, &server.keys.model);
    let input = |n: usize| json!({ "model": model, "input": [format!("text {n}"), "the same"] });
    let file: String = (0..12).map(|n| line(&format!("line-{n}"), PATH, &input(n))).collect();
    let file = batch_file(&server, key, file.as_bytes());
    let batch = ended(&server, key, &create(&server, key, &file, &json!({ "endpoint": PATH })));
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&json!("completed"), &json!(12)), "{batch}");
    assert_eq!(batch["usage"]["output_tokens"], json!(0));
    let answers = output(&server, key, &batch["output_file_id"]);
    let online = server.make(PATH, key, &input(3));
    let found = &answers["line-3"]["response"]["body"];
    assert_eq!((&found["data"], &found["usage"]), (&online["data"], &online["usage"]), "a line is answered as a request is");
    let tokens = answers.values().map(|line| line["response"]["body"]["usage"]["prompt_tokens"].as_i64().unwrap()).sum::<i64>();
    assert_eq!((&batch["usage"]["input_tokens"], &batch["sublet"]["quote"]["input_tokens"]), (&json!(tokens), &json!(tokens)));
    assert_charged_as_answered(&server, &with_online(&server, answers, &online));
    let wrong = line("chat", PATH, &chat(model, 2, &json!({})));
    let file = batch_file(&server, key, wrong.as_bytes());
    let refused = ended(&server, key, &create(&server, key, &file, &json!({ "endpoint": PATH })));
    assert_eq!((&refused["status"], &refused["errors"]["data"][0]["param"]), (&json!("failed"), &json!("messages")), "{refused}");
}

/// The answers with that of the request beside them, which was charged too.
fn with_online(
    server: &crate::server::Server,
    mut answers: std::collections::BTreeMap<String, Value>,
    online: &Value,
) -> std::collections::BTreeMap<String, Value> {
    assert_eq!(online["object"], json!("list"));
    server.wait_until_settled();
    let lines: Vec<String> = answers.values().map(|line| text(&line["response"]["request_id"])).collect();
    let other = crate::batches::charged(server).into_keys().find(|request| !lines.contains(request)).expect("one request beside");
    answers.insert("online".to_owned(), json!({ "response": { "request_id": other } }));
    answers
}
