//! Responses that are kept: what is on the shelf, what is gone on from, and what is charged when keeping fails.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sublet_core::ErrorCode;
use sublet_core::admission::Admission;
use sublet_core::batch::{LineEnd, LineEndpoint, LineName, LineRequest, LineServer};
use sublet_core::rate::RateLimits;
use sublet_core::tier::ServiceTier;
use sublet_core::usage::Outcome;
use sublet_gateway::Lines;

use crate::cloud::{INPUT, OUTPUT};
use crate::upstream::{Part, Reply, Upstream, counted, ended, model, replica, said};
use crate::world::{World, text, value};

const PATH: &str = "/v1/responses";

fn kept(input: &Value) -> Value {
    json!({ "model": "tiny", "input": input, "store": true })
}

fn with(mut body: Value, change: &Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn ask(world: &World, body: &Value) -> Value {
    let (status, _, answer) = value(world.post(PATH, body).await).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn refused(world: &World, body: &Value) -> (u16, Value) {
    let (status, _, answer) = value(world.post(PATH, body).await).await;
    (status, answer["error"].clone())
}

/// The data of a stream's events.
async fn stream(world: &World, body: &Value) -> Vec<Value> {
    let stream = text(world.post(PATH, &with(body.clone(), &json!({ "stream": true }))).await).await;
    let blocks = stream.split("\n\n").filter(|block| block.starts_with("event: "));
    let events: Vec<Value> = blocks.map(|block| serde_json::from_str(block.split_once("data: ").unwrap().1).unwrap()).collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], json!(number), "{stream}");
    }
    events
}

fn object(world: &World, id: &Value) -> Value {
    serde_json::from_str(&world.shelf.find(id.as_str().unwrap()).expect("it is kept").object).unwrap()
}

/// An answer without what is true at its moment only.
fn lasting(mut answer: Value) -> Value {
    answer["sublet"].as_object_mut().unwrap().remove("remaining_budget");
    answer
}

/// What the engine read, turn by turn.
fn read(world: &World) -> Vec<String> {
    world.engine.asked().chat.messages.iter().map(|message| format!("{:?}: {}", message.role, message.content)).collect()
}

#[tokio::test]
async fn what_is_kept_is_what_was_answered() {
    let world = World::new().await;
    let body = with(kept(&json!("please say 2")), &json!({ "metadata": { "a": "b" }, "instructions": "brief" }));
    let answer = ask(&world, &body).await;
    assert_eq!((&answer["store"], &answer["status"]), (&json!(true), &json!("completed")));
    assert!(answer["sublet"]["remaining_budget"].is_object());
    assert_eq!(object(&world, &answer["id"]), lasting(answer.clone()));
    let stored = world.shelf.find(answer["id"].as_str().unwrap()).unwrap();
    assert_eq!((stored.project.as_str(), stored.key.as_str(), stored.previous), ("proj_a", "key_1", None));
    let body = answer["id"].as_str().unwrap().strip_prefix("resp_").unwrap();
    let content = json!([{ "type": "input_text", "text": "please say 2" }]);
    let item =
        json!({ "id": format!("msg_{body}_i0"), "type": "message", "status": "completed", "role": "user", "content": content });
    assert_eq!(serde_json::from_str::<Value>(&stored.input).unwrap(), json!([item]));
    let events = stream(&world, &with(kept(&json!("please say 20")), &json!({ "max_output_tokens": 3 }))).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.incomplete"), &json!("incomplete")));
    assert_eq!(events[0]["response"]["store"], json!(true));
    assert_eq!(object(&world, &last["response"]["id"]), lasting(last["response"].clone()));
    world.close().await;
    assert_eq!(world.cloud.settled("a"), (4 + 3) * INPUT + 5 * OUTPUT);
}

#[tokio::test]
async fn nothing_is_kept_that_was_not_asked_to_be() {
    let world = World::new().await;
    for change in [json!({}), json!({ "store": false }), json!({ "store": null })] {
        let body = with(json!({ "model": "tiny", "input": "please say 2" }), &change);
        assert_eq!(ask(&world, &body).await["store"], json!(false));
        stream(&world, &body).await;
    }
    let failed = stream(&world, &kept(&json!("please fail 2"))).await;
    assert_eq!(failed.last().unwrap()["type"], "response.failed");
    let counted = world.post("/v1/responses/input_tokens", &kept(&json!("please say 2"))).await;
    assert_eq!(value(counted).await.2["input_tokens"], json!(3));
    world.close().await;
    assert_eq!(world.shelf.all(), []);
}

#[tokio::test]
async fn a_conversation_is_gone_on_from_and_is_input() {
    let world = World::new().await;
    let first = ask(&world, &with(kept(&json!("please say 2")), &json!({ "instructions": "be brief" }))).await;
    let events = stream(&world, &with(kept(&json!("now say 1")), &json!({ "previous_response_id": first["id"] }))).await;
    let second = &events.last().unwrap()["response"];
    assert_eq!(second["previous_response_id"], first["id"]);
    assert_eq!(read(&world), ["User: please say 2", "Assistant: w1 w2 ", "User: now say 1"], "without the instructions");
    assert_eq!(second["usage"]["input_tokens"], json!(8), "earlier turns are input");
    let follow = json!({ "previous_response_id": second["id"], "store": false, "instructions": "loudly" });
    let third = ask(&world, &with(kept(&json!("again say 1")), &follow)).await;
    let expected =
        ["System: loudly", "User: please say 2", "Assistant: w1 w2 ", "User: now say 1", "Assistant: w1 ", "User: again say 1"];
    assert_eq!(read(&world), expected);
    let counted = with(kept(&json!("again say 1")), &follow);
    let counted = value(world.post("/v1/responses/input_tokens", &counted).await).await.2;
    assert_eq!(counted["input_tokens"], third["usage"]["input_tokens"], "counting goes on from it too");
    assert_eq!((world.shelf.all().len(), &third["store"]), (2, &json!(false)));
    world.close().await;
    assert_eq!(world.cloud.settled("a"), (5 + 8 + 13) * INPUT + 4 * OUTPUT);
}

#[tokio::test]
async fn calls_and_their_outputs_are_gone_on_from() {
    let world = World::new().await;
    world.engine.write("{\"city\":\"Rome\"}");
    let tools = json!([{ "type": "function", "name": "weather", "parameters": { "type": "object" } }]);
    let forced = json!({ "tools": tools, "tool_choice": { "type": "function", "name": "weather" } });
    let first = ask(&world, &with(kept(&json!("how is it?")), &forced)).await;
    let call = &first["output"][0];
    assert_eq!(call["type"], "function_call");
    let output = json!([{ "type": "function_call_output", "call_id": call["call_id"], "output": "rain" }]);
    let second = ask(&world, &with(kept(&output), &json!({ "previous_response_id": first["id"], "tools": tools }))).await;
    let messages = world.engine.asked().chat.messages;
    assert_eq!(messages[1].tool_calls[0].arguments, "{\"city\":\"Rome\"}");
    assert_eq!((messages[2].content.as_str(), messages[2].tool_call_id.as_deref()), ("rain", call["call_id"].as_str()));
    let input: Value = serde_json::from_str(&world.shelf.find(second["id"].as_str().unwrap()).unwrap().input).unwrap();
    assert_eq!((&input[0]["type"], &input[0]["output"]), (&json!("function_call_output"), &json!("rain")));
    // Clients that keep count of what is stored name single items instead.
    let named = json!([{ "role": "user", "content": "how is it?" }, { "type": "item_reference", "id": call["id"] }, output[0]]);
    ask(&world, &with(kept(&named), &json!({ "tools": tools }))).await;
    assert_eq!(world.engine.asked().chat.messages, messages);
    let (status, error) = refused(&world, &kept(&json!([{ "type": "item_reference", "id": "msg_01nothing" }]))).await;
    assert_eq!((status, &error["param"]), (400, &json!("input[0]")), "{error}");
    world.close().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_gone_on_from() {
    let mut world = World::new().await;
    let first = ask(&world, &json!({ "model": "tiny", "input": "please say 2" })).await;
    let stranger = world.cloud.add_key(2, "b", RateLimits::default());
    let theirs = ask(&world, &kept(&json!("please say 2"))).await;
    for id in [&first["id"], &json!("resp_1"), &json!("nonsense"), &json!("")] {
        let (status, error) = refused(&world, &with(kept(&json!("say 1")), &json!({ "previous_response_id": id }))).await;
        assert_eq!((status, &error["code"]), (400, &json!("previous_response_not_found")), "{error}");
        assert_eq!(error["param"], "previous_response_id");
        assert!(error["message"].as_str().unwrap().contains("not found"), "{error}");
    }
    let (status, error) = refused(&world, &with(kept(&json!("say 1")), &json!({ "previous_response_id": 7 }))).await;
    assert_eq!((status, &error["param"]), (400, &json!("previous_response_id")), "{error}");
    world.key = stranger;
    let (status, error) = refused(&world, &with(kept(&json!("say 1")), &json!({ "previous_response_id": theirs["id"] }))).await;
    assert_eq!((status, &error["code"]), (400, &json!("previous_response_not_found")), "{error}");
    world.at_rest().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_before_any_money() {
    let world = World::new().await;
    let long = format!("{} say 2", "w".repeat(4 * 1_024 * 1_024));
    let (status, error) = refused(&world, &kept(&json!(long))).await;
    assert_eq!((status, &error["code"], &error["param"]), (413, &json!("body_too_large"), &json!("store")), "{error}");
    world.shelf.full.store(true, Ordering::SeqCst);
    let (status, error) = refused(&world, &kept(&json!("please say 2"))).await;
    assert_eq!((status, &error["code"], &error["param"]), (507, &json!("storage_full"), &json!("store")));
    for (field, value) in [("background", json!(true)), ("conversation", json!("conv_1"))] {
        let (status, error) = refused(&world, &with(kept(&json!("say 2")), &json!({ field: value }))).await;
        assert_eq!((status, &error["param"]), (400, &json!(field)), "{error}");
    }
    assert_eq!((world.cloud.grants.load(Ordering::SeqCst), world.shelf.all().len()), (0, 0));
    world.at_rest().await;
}

#[tokio::test]
async fn a_store_that_fails_is_an_error_and_what_was_delivered_is_charged() {
    let world = World::new().await;
    world.shelf.away.store(true, Ordering::SeqCst);
    let (status, error) = refused(&world, &kept(&json!("please say 2"))).await;
    assert_eq!((status, &error["code"], &error["param"]), (503, &json!("store_unavailable"), &json!("store")), "{error}");
    world.at_rest().await;
    assert_eq!(world.cloud.settled("a"), 0, "nothing was delivered");
    let events = stream(&world, &kept(&json!("please say 2"))).await;
    let kinds: Vec<&str> = events.iter().rev().take(2).map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["response.failed", "error"]);
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["error"]["code"], "store_unavailable");
    world.shelf.away.store(false, Ordering::SeqCst);
    world.shelf.answers_lost.store(true, Ordering::SeqCst);
    let (status, _) = refused(&world, &kept(&json!("please say 2"))).await;
    assert_eq!(status, 503);
    world.close().await;
    assert_eq!(world.cloud.settled("a"), 3 * INPUT + 2 * OUTPUT, "the stream was delivered");
    assert_eq!(world.cloud.records()[0].outcome, Outcome::ServerStopped);
    assert_eq!(world.shelf.all(), [], "what may have been written is taken back");
}

#[tokio::test]
async fn what_is_not_on_the_record_is_not_kept() {
    for is_streamed in [false, true] {
        let world = World::new().await;
        ask(&world, &kept(&json!("please say 1"))).await;
        world.disk.set_capacity(Some(world.disk.used() + 100));
        if is_streamed {
            let events = stream(&world, &kept(&json!("please say 2"))).await;
            assert_eq!(events.last().unwrap()["response"]["error"]["code"], "storage_full");
        } else {
            let (status, error) = refused(&world, &kept(&json!("please say 2"))).await;
            assert_eq!((status, &error["code"]), (507, &json!("storage_full")), "{error}");
        }
        assert_eq!((world.shelf.all().len(), world.shelf.takings_back.load(Ordering::SeqCst)), (1, 1));
        world.disk.set_capacity(None);
        world.close().await;
        assert_eq!(world.cloud.settled("a"), 3 * INPUT + OUTPUT);
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_its_answer_is_being_kept_pays_for_what_it_got() {
    let world = World::new().await;
    world.shelf.slow.store(true, Ordering::SeqCst);
    let body = with(kept(&json!("please say 2")), &json!({ "stream": true }));
    let stream = world.post(PATH, &body).await.into_body();
    let reading = tokio::spawn(crate::world::read(stream));
    world.shelf.waiting.notified().await;
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    world.close().await;
    assert_eq!((world.cloud.records().len(), world.cloud.settled("a")), (1, 3 * INPUT + 2 * OUTPUT));
    assert_eq!(world.cloud.records()[0].outcome, Outcome::ClientCancelled);
}

#[tokio::test]
async fn answers_of_other_servers_are_kept_alike() {
    let upstream = Upstream::start().await;
    let reply = || Reply::Stream(vec![said("Let me "), said("look."), ended("stop"), counted(30, 12), Part::Done]);
    upstream.then(reply()).then(reply());
    let world = World::new().await;
    world.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    let far = json!({ "model": "far/away" });
    let events = stream(&world, &with(kept(&json!("Where?")), &far)).await;
    let first = &events.last().unwrap()["response"];
    assert_eq!(object(&world, &first["id"]), lasting(first.clone()));
    let follow = with(with(kept(&json!("And now?")), &far), &json!({ "previous_response_id": first["id"] }));
    let events = stream(&world, &follow).await;
    assert_eq!(events.last().unwrap()["type"], "response.completed");
    let asked: Value = upstream.received().last().unwrap().body.clone();
    let said: Vec<&str> = asked["messages"].as_array().unwrap().iter().map(|turn| turn["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["Where?", "Let me look.", "And now?"]);
    world.close().await;
}

#[tokio::test]
async fn lines_of_batches_are_not_kept() {
    let world = World::new().await;
    let line = LineRequest {
        tier: ServiceTier::Flex,
        access: world.cloud.authenticate(&world.key.parse().unwrap()).await.unwrap(),
        endpoint: LineEndpoint::Responses,
        body: kept(&json!("please say 2")).to_string().into_bytes(),
        request: "req_line1".parse().unwrap(),
        attempt: 1,
        name: LineName { batch: "batch_1".parse().unwrap(), number: 1 },
    };
    let LineEnd::Refused { error, .. } = Lines::new(&world.gateway).serve(line).await else { panic!("it was served") };
    assert_eq!((error.code(), error.param_name()), (ErrorCode::UnsupportedField, Some("store")));
    world.close().await;
    assert_eq!(world.shelf.all(), []);
}
