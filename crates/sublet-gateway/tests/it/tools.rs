//! Tools and forms of answers: what the engine is asked, what is refused, and how calls are written in each dialect.

use serde_json::{Value, json};
use sublet_core::engine::{Calling, Constraint, Role};

use crate::world::{World, chat, events, text, value};

/// What a model writes that thinks aloud and calls twice.
const TWO_CALLS: &str = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool_call>";
const WEATHER: &str = r#"{"city":"Rome"}"#;

fn parameters() -> Value {
    json!({"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "$defs": {"City": {"type": "string"}}})
}

fn with(mut body: Value, change: &Value) -> Value {
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

/// The same two tools in each API's shape: path, body, and where a choice names a tool.
fn offers() -> [(&'static str, Value); 3] {
    let question = "what is the weather";
    let nested = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}});
    let flat = |name: &str, parameters: Value| json!({"type": "function", "name": name, "parameters": parameters, "strict": true});
    let input = |name: &str, schema: Value| json!({"name": name, "input_schema": schema, "cache_control": {"type": "ephemeral"}});
    let clock = json!({"type": "object", "properties": {}});
    [
        (
            "/v1/chat/completions",
            with(chat(question), &json!({"tools": [nested("weather", parameters()), nested("clock", clock.clone())]})),
        ),
        (
            "/v1/responses",
            json!({"model": "tiny", "input": question, "tools": [{"type": "web_search"}, flat("weather", parameters()), flat("clock", clock.clone()), {"type": "namespace", "name": "n"}]}),
        ),
        (
            "/v1/messages",
            json!({"model": "tiny", "max_tokens": 900, "messages": [{"role": "user", "content": question}], "tools": [input("weather", parameters()), {"type": "web_search_20250305", "name": "web_search"}, input("clock", clock)]}),
        ),
    ]
}

/// A choice in each API's words: no choice, any of the tools, or the one of a name.
fn forced(path: &str, name: Option<&str>) -> Value {
    let choice = match (path, name) {
        ("/v1/messages", None) => json!({"type": "any"}),
        ("/v1/messages", Some(name)) => json!({"type": "tool", "name": name}),
        (_, None) => json!("required"),
        ("/v1/responses", Some(name)) => json!({"type": "function", "name": name}),
        (_, Some(name)) => json!({"type": "function", "function": {"name": name}}),
    };
    json!({"tool_choice": choice})
}

async fn streamed(world: &World, path: &str, body: &Value) -> String {
    text(world.post(path, &with(body.clone(), &json!({"stream": true}))).await).await
}

#[tokio::test]
async fn calls_are_written_in_the_words_of_each_dialect() {
    let world = World::new().await;
    world.engine.write(TWO_CALLS);
    for (path, body) in offers() {
        let name = path.rsplit('/').next().unwrap();
        let (status, _, answer) = value(world.post(path, &body).await).await;
        assert_eq!(status, 200, "{answer}");
        insta::assert_json_snapshot!(format!("calls_{name}"), answer);
        insta::assert_snapshot!(format!("calls_{name}_events"), streamed(&world, path, &body).await);
    }
    world.close().await;
}

#[tokio::test]
async fn a_forced_call_is_constrained_and_streams_its_arguments() {
    let world = World::new().await;
    world.engine.write(WEATHER);
    for (path, body) in offers() {
        let body = with(body, &forced(path, Some("weather")));
        let events = streamed(&world, path, &body).await;
        let name = path.rsplit('/').next().unwrap();
        insta::assert_snapshot!(format!("forced_{name}_events"), events);
        let asked = world.engine.asked();
        assert_eq!(asked.chat.calling, Calling::Named("weather".to_owned()), "{path}");
        assert_eq!(asked.chat.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["weather", "clock"], "{path}");
        let Some(Constraint::Call { schema, calling }) = asked.constraint else { panic!("{path}: {:?}", asked.constraint) };
        assert_eq!(calling, asked.chat.calling, "{path}");
        assert_eq!(serde_json::from_str::<Value>(&schema).unwrap(), parameters(), "{path}");
    }
    world.close().await;
}

#[tokio::test]
async fn one_of_several_tools_is_named_by_the_output() {
    let world = World::new().await;
    world.engine.write(&format!("{{\"name\":\"weather\",\"arguments\":{WEATHER}}}"));
    for (path, body) in offers() {
        let body = with(body, &forced(path, None));
        let (status, _, answer) = value(world.post(path, &body).await).await;
        assert_eq!(status, 200, "{answer}");
        let (name, arguments, end) = match path {
            "/v1/messages" => {
                (&answer["content"][0]["name"], answer["content"][0]["input"].to_string(), (&answer["stop_reason"], "tool_use"))
            }
            "/v1/responses" => {
                let call = &answer["output"][0];
                (&call["name"], call["arguments"].as_str().unwrap().to_owned(), (&call["status"], "completed"))
            }
            _ => {
                let choice = &answer["choices"][0];
                let call = &choice["message"]["tool_calls"][0]["function"];
                (&call["name"], call["arguments"].as_str().unwrap().to_owned(), (&choice["finish_reason"], "tool_calls"))
            }
        };
        assert_eq!((name, arguments.as_str(), end.0), (&json!("weather"), WEATHER, &json!(end.1)), "{path}: {answer}");
        let asked = world.engine.asked();
        assert_eq!(asked.chat.calling, Calling::Forced);
        let Some(Constraint::Call { schema, .. }) = asked.constraint else { panic!("{path}") };
        insta::assert_json_snapshot!("any_call_schema", serde_json::from_str::<Value>(&schema).unwrap());
    }
    world.close().await;
}

#[tokio::test]
async fn deltas_of_a_chat_number_calls_from_0_and_name_them_once() {
    let world = World::new().await;
    world.engine.write(TWO_CALLS);
    let [(path, body), ..] = offers();
    let (all, is_done) = events(&streamed(&world, path, &with(body, &json!({"n": 2}))).await);
    assert!(is_done);
    let mut ids = std::collections::BTreeSet::new();
    for choice in 0..2 {
        let mine: Vec<&Value> =
            all.iter().flat_map(|event| event["choices"].as_array().unwrap()).filter(|c| c["index"] == choice).collect();
        let calls: Vec<&Value> = mine.iter().filter_map(|c| c["delta"]["tool_calls"].as_array()).flatten().collect();
        let begun: Vec<&&Value> = calls.iter().filter(|call| call.get("id").is_some()).collect();
        assert_eq!(begun.iter().map(|call| call["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
        assert!(begun.iter().all(|call| call["type"] == "function" && call["function"]["name"].is_string()));
        assert!(calls.iter().all(|call| call["index"].is_u64() && call["function"]["arguments"].is_string()));
        ids.extend(begun.iter().map(|call| call["id"].as_str().unwrap().to_owned()));
        let said: String = mine.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
        assert_eq!((said.as_str(), &mine.last().unwrap()["finish_reason"]), ("Let me look.", &json!("tool_calls")));
    }
    assert_eq!(ids.len(), 4, "no two calls share an id");
    world.close().await;
}

#[tokio::test]
async fn events_of_a_response_give_each_item_one_id_and_no_number_twice() {
    let world = World::new().await;
    world.engine.write(TWO_CALLS);
    let [_, (path, body), _] = offers();
    let events = streamed(&world, path, &body).await;
    let events: Vec<Value> =
        events.split("\n\n").filter_map(|block| serde_json::from_str(block.split_once("data: ")?.1).ok()).collect();
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..u64::try_from(events.len()).unwrap()), "{numbers:?}");
    let output = events.last().unwrap()["response"]["output"].as_array().unwrap().clone();
    assert_eq!(
        output.iter().map(|item| item["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["message", "function_call", "function_call"]
    );
    for event in &events {
        if let Some(place) = event["output_index"].as_u64() {
            let id = event["item_id"].as_str().or_else(|| event["item"]["id"].as_str());
            assert_eq!(id, output[usize::try_from(place).unwrap()]["id"].as_str(), "{event}");
        }
    }
    let done: Vec<&Value> = events.iter().filter(|event| event["type"] == "response.output_item.done").collect();
    assert!(done.iter().zip(&output).all(|(event, item)| event["item"] == *item) && done.len() == 3);
    world.close().await;
}

#[tokio::test]
async fn a_call_that_is_cut_says_so() {
    let world = World::new().await;
    world.engine.write(WEATHER);
    for (path, body) in offers() {
        let limit = match path {
            "/v1/messages" => json!({"max_tokens": 2}),
            "/v1/responses" => json!({"max_output_tokens": 2}),
            _ => json!({"max_tokens": 2}),
        };
        let (_, _, answer) = value(world.post(path, &with(with(body, &forced(path, Some("weather"))), &limit)).await).await;
        let (arguments, end) = match path {
            "/v1/messages" => (&answer["content"][0]["input"], (&answer["stop_reason"], "max_tokens")),
            "/v1/responses" => (&answer["output"][0]["arguments"], (&answer["status"], "incomplete")),
            _ => (
                &answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
                (&answer["choices"][0]["finish_reason"], "length"),
            ),
        };
        let cut = if path == "/v1/messages" { json!({}) } else { json!("{\"city") };
        assert_eq!((arguments, end.0), (&cut, &json!(end.1)), "{path}: {answer}");
    }
    world.close().await;
}

#[tokio::test]
async fn earlier_calls_and_their_answers_reach_the_template() {
    let world = World::new().await;
    let called = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":"}}]});
    let chat = json!({"messages": [{"role": "user", "content": "a"}, called, {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]}, {"role": "user", "content": "say 2"}]});
    let response = json!({"input": [
        {"role": "user", "content": "a"}, {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"city\":"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"}, {"role": "user", "content": "say 2"},
    ]});
    let message = json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": 1.0}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "rain"}]}, {"type": "text", "text": "say 2"}]},
    ]});
    for ((path, body), (change, arguments)) in
        offers().into_iter().zip([(chat, "{\"city\":"), (response, "{\"city\":"), (message, "{\"city\":1.0}")])
    {
        let (status, _, answer) = value(world.post(path, &with(body, &change)).await).await;
        assert_eq!(status, 200, "{answer}");
        let messages = world.engine.asked().chat.messages;
        let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::User], "{path}");
        let call = &messages[1].tool_calls[0];
        assert_eq!((call.id.as_str(), call.name.as_str(), call.arguments.as_str()), ("c1", "weather", arguments), "{path}");
        assert_eq!((messages[2].content.as_str(), messages[2].tool_call_id.as_deref()), ("rain", Some("c1")), "{path}");
        assert_eq!(messages[3].content, "say 2");
    }
    world.close().await;
}

#[tokio::test]
async fn what_the_model_may_choose_depends_on_its_template_and_on_the_request() {
    let world = World::new().await;
    world.engine.write("<tool_call>");
    for (path, body) in offers() {
        let none = if path == "/v1/messages" { json!({"tool_choice": {"type": "none"}}) } else { json!({"tool_choice": "none"}) };
        let (status, _, answer) = value(world.post(path, &with(body.clone(), &none)).await).await;
        assert_eq!((status, world.engine.asked().chat.tools.len()), (200, 0), "{answer}");
        assert!(answer.to_string().contains("\"<tool_call>\""), "text is not read for calls: {answer}");
        let single = match path {
            "/v1/messages" => json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
            _ => json!({"parallel_tool_calls": false}),
        };
        value(world.post(path, &with(body.clone(), &single)).await).await;
        assert_eq!(world.engine.asked().stop, ["</tool_call>"], "{path}");
        let blind = with(body, &json!({"model": "lab/tiny"}));
        let (status, _, answer) = value(world.post(path, &blind).await).await;
        assert_eq!(
            (status, &answer["error"]["code"], &answer["error"]["param"]),
            (400, &json!("unsupported_field"), &json!("tools"))
        );
        world.engine.write("{}");
        let (status, _, answer) = value(world.post(path, &with(blind, &forced(path, Some("clock")))).await).await;
        assert_eq!(status, 200, "a call can be forced: {answer}");
        world.engine.write("<tool_call>");
    }
    world.close().await;
}

#[tokio::test]
async fn forms_of_answers_become_constraints() {
    let world = World::new().await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let keeps = Constraint::JsonSchema(schema.to_string().into());
    let named = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let flat = json!({"type": "json_schema", "name": "x", "schema": schema});
    let (chat_path, text_path) = ("/v1/chat/completions", "/v1/completions");
    let text_body = json!({"model": "tiny", "prompt": "please say 2"});
    let message = json!({"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "say 2"}]});
    let response = json!({"model": "tiny", "input": "say 2"});
    for (path, body, change, constraint) in [
        (chat_path, chat("say 2"), json!({"response_format": {"type": "text"}}), None),
        (chat_path, chat("say 2"), json!({"response_format": {"type": "json_object"}}), Some(Constraint::JsonObject)),
        (chat_path, chat("say 2"), json!({"response_format": named}), Some(keeps.clone())),
        (chat_path, chat("say 2"), json!({"guided_json": schema}), Some(keeps.clone())),
        (chat_path, chat("say 2"), json!({"guided_json": schema.to_string()}), Some(keeps.clone())),
        (chat_path, chat("say 2"), json!({"structured_outputs": {"json": schema}}), Some(keeps.clone())),
        (chat_path, chat("say 2"), json!({"structured_outputs": {"json_object": true}}), Some(Constraint::JsonObject)),
        (chat_path, chat("say 2"), json!({"guided_regex": "[ab]+"}), Some(Constraint::Regex("[ab]+".into()))),
        (chat_path, chat("say 2"), json!({"guided_choice": ["a.b", "é"]}), Some(Constraint::Regex("a\\u{2e}b|é".into()))),
        (chat_path, chat("say 2"), json!({"guided_grammar": "start: \"a\""}), Some(Constraint::Grammar("start: \"a\"".into()))),
        (text_path, text_body.clone(), json!({"guided_json": schema}), Some(keeps.clone())),
        (text_path, text_body, json!({"response_format": named}), Some(keeps.clone())),
        ("/v1/responses", response, json!({"text": {"format": flat}}), Some(keeps.clone())),
        ("/v1/messages", message.clone(), json!({"output_format": flat}), Some(keeps.clone())),
        ("/v1/messages", message, json!({"output_config": {"effort": "low", "format": flat}}), Some(keeps)),
    ] {
        let (status, _, answer) = value(world.post(path, &with(body, &change)).await).await;
        assert_eq!(status, 200, "{change}: {answer}");
        assert_eq!(world.engine.asked().constraint, constraint, "{change}");
    }
    world.close().await;
}

#[tokio::test]
async fn tools_and_forms_that_cannot_be_honoured_are_refused_by_name() {
    let world = World::new().await;
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {}}});
    let many: Vec<Value> = (0..129).map(|n| function(&format!("f{n}"))).collect();
    let unkeepable = json!({"type": "json_schema", "json_schema": {"schema": {"type": "array", "uniqueItems": true}}});
    let unkeepable_tool = json!({"type": "function", "function": {"name": "f", "parameters": {"uniqueItems": true}}});
    for (change, param) in [
        (json!({"tools": "f"}), "tools"),
        (json!({"tools": many}), "tools"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
        (json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]}), "tools[0].type"),
        (json!({"tools": [function("a b")]}), "tools[0].function.name"),
        (json!({"tools": [function(&"x".repeat(65))]}), "tools[0].function.name"),
        (json!({"tools": [function("f"), function("f")]}), "tools[1]"),
        (json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]}), "tools[0].function.parameters"),
        (json!({"tools": [function("f")], "tool_choice": "maybe"}), "tool_choice"),
        (json!({"tools": [function("f")], "tool_choice": {"type": "function", "function": {"name": "g"}}}), "tool_choice"),
        (json!({"tools": [function("f")], "tool_choice": {"type": "allowed_tools"}}), "tool_choice"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [function("f")], "parallel_tool_calls": "no"}), "parallel_tool_calls"),
        (json!({"tools": [function("f")], "response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tools": [unkeepable_tool], "tool_choice": "required"}), "tools"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"response_format": {"type": "xml"}}), "response_format"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}), "response_format"),
        (json!({"response_format": unkeepable}), "response_format"),
        (json!({"guided_json": {"uniqueItems": true}}), "guided_json"),
        (json!({"guided_regex": ""}), "guided_regex"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"guided_choice": ["a", ""]}), "guided_choice"),
        (json!({"guided_grammar": 5}), "guided_grammar"),
        (json!({"guided_regex": "a", "response_format": {"type": "json_object"}}), "guided_regex"),
        (json!({"structured_outputs": {"json": {}, "regex": "a"}}), "structured_outputs"),
    ] {
        let (status, _, answer) = value(world.post("/v1/chat/completions", &with(chat("say 3"), &change)).await).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(param)), "{change}: {answer}");
    }
    world.close().await;
    assert!(world.cloud.records().is_empty(), "nothing of it is charged");
}
