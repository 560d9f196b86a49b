//! Outputs that keep a rule: what is generated, what is refused, and what a rule must not change.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use sublet_core::ErrorCode;
use sublet_core::TokenCount;
use sublet_core::engine::{
    Allowance, Calling, Chat, ChatMessage, Constraint, FinishReason, Millionths, ModelEngine, Prompt, Role, Tool,
};

use super::harness::*;
use super::reference::shipped_directory;
use super::validate::is_valid;
use crate::load::load;
use crate::test_model::{END_TOKEN, Noise, TinyModel};
use crate::{Engine, EngineConfig, ModelSource};

/// Seeds per schema; run whole with `SUBLET_FULL=1`.
fn seeds() -> u64 {
    if option_env!("SUBLET_FULL").is_some() { 200 } else { 12 }
}

/// A model of random weights that says anything at all, with room for long answers.
fn babbler() -> Engine {
    engine_with(EngineConfig::default(), &TinyModel { hidden: 32, layers: 1, context: 1_024, ..TinyModel::default() })
}

fn schema(schema: &Value) -> Constraint {
    Constraint::JsonSchema(schema.to_string().into())
}

/// Drawn by a seed, under a rule; texts end sooner than a model of random weights would end them.
fn ask_ruled(constraint: Constraint, seed: u64) -> Ask {
    let mut ask = Ask { constraint: Some(constraint), max_output: Some(900), ..ask_seeded("Say something", seed) };
    ask.sampling.logit_bias = vec![(u32::from(b'"') + 3, Millionths(4_000_000)), (u32::from(b'}') + 3, Millionths(2_000_000))];
    ask
}

/// Schemas in the manner of Pydantic and zod, and what else is written by hand.
fn schemas() -> Vec<(&'static str, Value)> {
    [generated_schemas(), written_schemas()].concat()
}

fn generated_schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "pydantic: nested models, an enum, an optional field",
            json!({
                "$defs": {
                    "Colour": {"enum": ["red", "green", "blue"], "title": "Colour", "type": "string"},
                    "Step": {
                        "description": "One step.", "title": "Step", "type": "object", "required": ["text", "colour"],
                        "properties": {
                            "text": {"maxLength": 12, "title": "Text", "type": "string"},
                            "colour": {"$ref": "#/$defs/Colour", "description": "Its colour."},
                        },
                    },
                },
                "title": "Plan", "type": "object", "required": ["steps", "count", "note"],
                "properties": {
                    "steps": {"items": {"$ref": "#/$defs/Step"}, "maxItems": 3, "title": "Steps", "type": "array"},
                    "count": {"maximum": 99, "minimum": 0, "title": "Count", "type": "integer"},
                    "note": {"anyOf": [{"maxLength": 8, "type": "string"}, {"type": "null"}], "default": null, "title": "Note"},
                },
            }),
        ),
        (
            "openai's strict form: closed objects, all required",
            json!({
                "type": "object", "additionalProperties": false, "required": ["kind", "ok", "ratio"],
                "properties": {
                    "kind": {"const": "answer", "type": "string"}, "ok": {"type": "boolean"},
                    "ratio": {"type": "number", "minimum": -1, "maximum": 1},
                },
            }),
        ),
        (
            "zod: a union by a discriminator, a record, numbers with bounds",
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
                "required": ["shape", "tags"],
                "properties": {
                    "shape": {"oneOf": [
                        {"type": "object", "required": ["is", "r"], "additionalProperties": false,
                         "properties": {"is": {"type": "string", "const": "circle"}, "r": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9_007_199_254_740_991_i64}}},
                        {"type": "object", "required": ["is", "sides"], "additionalProperties": false,
                         "properties": {"is": {"type": "string", "const": "box"}, "sides": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 5}, "minItems": 2, "maxItems": 2}}},
                    ]},
                    "tags": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "boolean"}},
                },
            }),
        ),
    ]
}

fn written_schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "draft 7, definitions that refer to themselves, a format nobody knows",
            json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": {"Tree": {"type": "object", "required": ["leaf"], "properties": {
                    "leaf": {"type": ["string", "null"], "format": "secret", "maxLength": 4}, "left": {"$ref": "#/definitions/Tree"},
                }}},
                "$ref": "#/definitions/Tree",
            }),
        ),
        (
            "parts that add to each other stay open",
            json!({"allOf": [
                {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"enum": ["x"]}}, "required": ["b"]},
            ], "maxProperties": 2}),
        ),
        ("a bare enum", json!({"enum": ["yes", "no", 3, null, true]})),
        (
            "a tuple",
            json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": ["é", "€"]}], "minItems": 2, "maxItems": 2}),
        ),
    ]
}

#[test]
fn every_finished_output_is_what_its_schema_describes() {
    let engine = babbler();
    let (mut finished, mut all) = (0, 0);
    for (name, schema) in schemas() {
        let (mut these, constraint) = (0, self::schema(&schema));
        let streams: Vec<_> =
            (0..seeds()).map(|seed| ask_ruled(constraint.clone(), seed).start(&engine).expect("the schema is taken")).collect();
        for outcome in streams.into_iter().map(collect) {
            all += 1;
            if outcome.reason == Some(FinishReason::Stop) {
                let value: Value = serde_json::from_str(&outcome.text).unwrap_or_else(|e| panic!("{name}: {e}: {}", outcome.text));
                assert!(is_valid(&without_unknown(&schema), &value), "{name}: {value}");
                assert_eq!(outcome.output, outcome.text.len() as i64, "one token for each byte, and no other");
                these += 1;
            } else {
                assert_eq!(outcome.reason, Some(FinishReason::Length), "{name}: {:?}", outcome.failure);
            }
        }
        assert!(these > 0, "{name}: no output came to its end");
        finished += these;
    }
    assert!(finished * 2 > all, "{finished} of {all} outputs came to their end");
}

/// The validator of the tests does not count properties.
fn without_unknown(schema: &Value) -> Value {
    let mut schema = schema.clone();
    schema.as_object_mut().unwrap().remove("maxProperties");
    schema
}

#[test]
fn json_objects_regular_expressions_and_grammars_are_kept() {
    let engine = babbler();
    for seed in 0..seeds() {
        let outcome = ask_ruled(Constraint::JsonObject, seed).run(&engine);
        if outcome.reason == Some(FinishReason::Stop) {
            // Not as values: JSON has numbers that no float holds.
            assert!(serde_json::from_str::<Box<RawValue>>(&outcome.text).is_ok(), "{}", outcome.text);
        }
        assert!(outcome.text.starts_with('{'));
        for regex in ["[a-c]{3}-[0-9]{2}", "^[a-c]{3}-[0-9]{2}$"] {
            let outcome = ask_ruled(Constraint::Regex(regex.into()), seed).run(&engine);
            let text = outcome.text.as_bytes();
            assert_eq!((text.len(), text[3], outcome.reason), (6, b'-', Some(FinishReason::Stop)), "{}", outcome.text);
            assert!(text[..3].iter().all(|b| (b'a'..=b'c').contains(b)) && text[4..].iter().all(u8::is_ascii_digit));
        }
        let sums = "start: term (\"+\" term){2}\nterm: /[0-9]/ | \"(\" term \")\"";
        let outcome = ask_ruled(Constraint::Grammar(sums.into()), seed).run(&engine);
        assert_eq!(outcome.reason, Some(FinishReason::Stop), "{}", outcome.text);
        let depth = |text: &str, c: char| text.matches(c).count();
        assert_eq!((depth(&outcome.text, '+'), depth(&outcome.text, '(')), (2, depth(&outcome.text, ')')), "{}", outcome.text);
    }
}

#[test]
fn an_output_that_may_go_on_ends_where_the_model_ends_it() {
    let engine = babbler();
    let mut ask = ask_ruled(Constraint::Regex("a+".into()), 1);
    ask.max_output = Some(30);
    ask.sampling.logit_bias = vec![(END_TOKEN, Millionths(-100_000_000))];
    let outcome = ask.run(&engine);
    assert_eq!((outcome.text.as_str(), outcome.reason), ("a".repeat(30).as_str(), Some(FinishReason::Length)));
    ask.sampling.logit_bias = vec![(END_TOKEN, Millionths(100_000_000))];
    let outcome = ask.run(&engine);
    assert_eq!(
        (outcome.text.as_str(), outcome.reason),
        ("a", Some(FinishReason::Stop)),
        "the end is allowed after one, not before"
    );
}

#[test]
fn what_fits_exactly_is_complete_and_what_does_not_is_cut() {
    let engine = babbler();
    let exact = Ask { max_output: Some(4), ..ask_ruled(schema(&json!({"const": true})), 3) }.run(&engine);
    assert_eq!((exact.text.as_str(), exact.reason, exact.output), ("true", Some(FinishReason::Stop), 4));
    let cut = Ask { max_output: Some(3), ..ask_ruled(schema(&json!({"const": true})), 3) }.run(&engine);
    assert_eq!((cut.text.as_str(), cut.reason, cut.output), ("tru", Some(FinishReason::Length), 3));
}

#[test]
fn bias_and_stop_strings_work_inside_a_rule() {
    let engine = babbler();
    let digits = Constraint::Regex("[0-9]{20}".into());
    let mut ask = ask_ruled(digits, 1);
    ask.sampling.logit_bias = vec![(u32::from(b'x') + 3, Millionths(100_000_000)), (u32::from(b'7') + 3, Millionths(90_000_000))];
    assert_eq!(ask.run(&engine).text, "7".repeat(20), "a bias chooses among what is allowed, and only there");
    ask.stop = vec!["777".to_owned()];
    let outcome = ask.run(&engine);
    assert_eq!((outcome.text.as_str(), outcome.reason), ("", Some(FinishReason::StopString(0))));
    ask.stop = Vec::new();
    ask.sampling.logprobs = Some(2);
    let outcome = ask.run(&engine);
    assert_eq!(outcome.logprobs.len(), 20);
    let free = Ask { constraint: None, max_output: Some(1), ..ask.clone() };
    assert_eq!(free.run(&engine).logprobs[0].top, outcome.logprobs[0].top, "log-probabilities are the model's own");
}

#[test]
fn a_rule_depends_on_nothing_but_its_own_output() {
    let engine = babbler();
    let asks: Vec<Ask> = (0..8)
        .map(|i| {
            let schemas = schemas();
            let ruled = ask_ruled(schema(&schemas[i as usize % schemas.len()].1), i);
            let ask = if i % 3 == 2 { Ask { constraint: None, max_output: Some(60), ..ruled } } else { ruled };
            Ask { prompt: Prompt::Text(format!("prompt {i} {}", "wide ".repeat(i as usize * 5))), ..ask }
        })
        .collect();
    let alone: Vec<Outcome> = asks.iter().map(|ask| ask.run(&engine)).collect();
    let streams: Vec<_> = asks.iter().map(|ask| ask.start(&engine).expect("accepted")).collect();
    for (alone, together) in alone.iter().zip(streams.into_iter().map(collect)) {
        assert_eq!((&alone.text, alone.output, alone.reason), (&together.text, together.output, together.reason));
    }
    let parked = Ask { allowance: std::sync::Arc::new(Allowance::new(TokenCount::new(5))), ..asks[0].clone() };
    let stream = parked.start(&engine).expect("accepted");
    wait_for(&engine, |load| load.parked == 1);
    parked.allowance.raise_to(TokenCount::new(10_000));
    engine.wake();
    assert_eq!(collect(stream).text, alone[0].text, "waiting for money changes nothing");
}

#[test]
fn what_cannot_be_kept_is_refused_before_it_begins() {
    let engine = babbler();
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let wide = json!({"enum": ["x".repeat(crate::constraint::SCHEMA_BYTES_MAX)]}).to_string();
    for constraint in [
        Constraint::JsonSchema("{\"type\":".into()),
        Constraint::JsonSchema("7".into()),
        Constraint::JsonSchema("".into()),
        Constraint::JsonSchema(deep.into()),
        Constraint::JsonSchema(wide.into()),
        schema(&json!({"type": "strin"})),
        schema(&json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true})),
        schema(&json!({"$ref": "#/$defs/Nowhere"})),
        schema(&json!({"$ref": "https://example.org/schema.json"})),
        schema(&json!({"type": "object", "properties": {"a": false}, "required": ["a"]})),
        schema(&json!({"type": "string", "pattern": "(?=x)y"})),
        schema(&json!({"type": "array", "minItems": 3, "maxItems": 1})),
        schema(&json!({"not": {"type": "string"}})),
        Constraint::Regex("a(".into()),
        Constraint::Regex("(?=a)b".into()),
        Constraint::Regex("a".repeat(crate::constraint::REGEX_BYTES_MAX + 1).into()),
        Constraint::Grammar("start: nowhere".into()),
        Constraint::Grammar("".into()),
        Constraint::Grammar("a".repeat(crate::constraint::GRAMMAR_BYTES_MAX + 1).into()),
    ] {
        let shown: String = format!("{constraint:?}").chars().take(80).collect();
        let Err(error) = ask_ruled(constraint, 1).start(&engine) else { panic!("{shown} was taken") };
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("response_format")), "{shown}");
        assert!(error.message().len() < 600, "{shown}: {error}");
    }
    assert_eq!(engine.load().steps, 0, "nothing of it was computed");
}

/// What recursion in a compiler could not bear: long chains and deep nests.
fn towers() -> Vec<Constraint> {
    let chain = |count: usize, link: &dyn Fn(usize) -> String| (0..count).map(link).collect::<Vec<_>>();
    let rules = chain(5_000, &|i| format!("r{i}: r{}\n", i + 1)).concat();
    let terminals = chain(5_000, &|i| format!("T{i}: T{}\n", i + 1)).concat();
    let definitions = chain(8_000, &|i| format!("\"d{i}\":{{\"$ref\":\"#/$defs/d{}\"}}", i + 1)).join(",");
    let objects =
        chain(3_500, &|i| format!("\"d{i}\":{{\"type\":\"object\",\"properties\":{{\"a\":{{\"$ref\":\"#/$defs/d{}\"}}}}}}", i + 1));
    let objects = objects.join(",");
    let both =
        chain(3_500, &|i| format!("\"d{i}\":{{\"allOf\":[{{\"$ref\":\"#/$defs/d{}\"}},{{\"minLength\":1}}]}}", i + 1)).join(",");
    vec![
        Constraint::Grammar(format!("start: r0\n{rules}r5000: \"a\"").into()),
        Constraint::Grammar(format!("start: T0\n{terminals}T5000: \"a\"").into()),
        Constraint::Grammar(format!("start: {}\"a\"{}", "(".repeat(30_000), ")".repeat(30_000)).into()),
        Constraint::Grammar(format!("start: {}\"a\"{}", "[".repeat(30_000), "]".repeat(30_000)).into()),
        Constraint::Grammar(format!("start: \"a\"{}", "?".repeat(30_000)).into()),
        Constraint::Regex(format!("{}a{}", "(".repeat(4_000), ")".repeat(4_000)).into()),
        Constraint::Regex(format!("a{}", "*".repeat(8_000)).into()),
        Constraint::Regex("(?:a|".repeat(200).into()),
        Constraint::JsonSchema(
            format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{definitions},\"d8000\":{{\"type\":\"null\"}}}}}}").into(),
        ),
        Constraint::JsonSchema(
            format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{objects},\"d3500\":{{\"type\":\"null\"}}}}}}").into(),
        ),
        Constraint::JsonSchema(
            format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{both},\"d3500\":{{\"type\":\"string\"}}}}}}").into(),
        ),
        Constraint::JsonSchema("{\"$ref\":\"#\"}".into()),
        Constraint::JsonSchema(
            "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}".into(),
        ),
    ]
}

#[test]
fn towers_of_rules_are_taken_or_refused_and_nothing_else() {
    let engine = babbler();
    for constraint in towers() {
        let shown: String = format!("{constraint:?}").chars().take(60).collect();
        let ask = Ask { max_output: Some(8), ..ask_ruled(constraint, 1) };
        let error = match ask.start(&engine) {
            Ok(stream) => collect(stream).failure,
            Err(error) => Some(error),
        };
        assert!(error.as_ref().is_none_or(|error| error.code() == ErrorCode::InvalidRequest), "{shown}: {error:?}");
    }
}

#[test]
fn damaged_schemas_are_taken_or_refused_and_nothing_else() {
    let model = load(ModelSource::Embedded(embedded(&TinyModel::default()))).expect("the tiny model loads");
    let mut noise = Noise(99);
    for (_, schema) in schemas() {
        let text = schema.to_string();
        for _ in 0..seeds() * 10 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..=noise.bits() % 3 {
                if bytes.is_empty() {
                    break;
                }
                let at = (noise.bits() % bytes.len() as u64) as usize;
                match noise.bits() % 3 {
                    0 => bytes[at] = b"{}[]\",:0a$"[(noise.bits() % 10) as usize],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if let Err(error) = model.compile(&Constraint::JsonSchema(text.as_str().into())) {
                assert_eq!(error.param_name(), Some("response_format"), "{text}: {error}");
            }
        }
    }
}

#[test]
fn a_rule_that_grows_beyond_its_bounds_ends_its_own_sequence_alone() {
    let engine = babbler();
    let other = ask_ruled(schema(&schemas()[0].1), 5);
    let alone = other.run(&engine);
    // Every text has more readings than the one before it.
    let ambiguous = Constraint::Grammar("start: text\ntext: text text | text text text | /[ab]/".into());
    let mut hungry = ask_ruled(ambiguous, 1);
    hungry.sampling.logit_bias = vec![(END_TOKEN, Millionths(-100_000_000))];
    let hungry = hungry.start(&engine).expect("it looks harmless");
    let beside = other.run(&engine);
    let outcome = collect(hungry);
    let failure = outcome.failure.expect("it is too much");
    assert_eq!((failure.code(), failure.message().contains('<')), (ErrorCode::InvalidRequest, false), "{failure}");
    assert_eq!((beside.text, beside.reason), (alone.text, alone.reason));
}

#[test]
fn the_shipped_model_fills_a_schema() {
    let engine = empty_engine(EngineConfig::default());
    engine.add_model(MODEL, ModelSource::Directory(shipped_directory())).expect("the shipped model loads");
    let place = json!({
        "type": "object", "required": ["city", "unit", "days"], "additionalProperties": false,
        "properties": {
            "city": {"type": "string", "maxLength": 24}, "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
        },
    });
    for seed in 0..seeds() {
        let ask = Ask { prompt: chat("What is the weather in Rome?"), max_output: Some(120), ..ask_seeded("", seed) };
        let outcome = Ask { constraint: Some(schema(&place)), ..ask }.run(&engine);
        assert_eq!(outcome.reason, Some(FinishReason::Stop), "{}", outcome.text);
        let value: Value = serde_json::from_str(&outcome.text).expect("it is JSON");
        assert!(is_valid(&place, &value), "{value}");
    }
}

/// What the shipped model writes as a call, if it has to.
fn called(calling: Calling, schema: &Value) -> String {
    let engine = empty_engine(EngineConfig::default());
    engine.add_model(MODEL, ModelSource::Directory(shipped_directory())).expect("the shipped model loads");
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}).to_string();
    let tool = Tool { name: "get_weather".to_owned(), description: None, parameters: Some(parameters) };
    let messages = vec![ChatMessage::text(Role::User, "What is the weather in Rome?")];
    let prompt = Prompt::Chat(Chat { messages, tools: vec![tool], calling: calling.clone() });
    let constraint = Constraint::Call { schema: schema.to_string().into(), calling };
    let outcome = Ask { prompt, constraint: Some(constraint), max_output: Some(60), ..ask("") }.run(&engine);
    assert_eq!(outcome.reason, Some(FinishReason::Stop), "{}", outcome.text);
    outcome.text
}

#[test]
fn the_shipped_model_fills_a_forced_call_with_what_was_asked() {
    let arguments = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let named = called(Calling::Named("get_weather".to_owned()), &arguments);
    assert_eq!(named, "{\"city\": \"Rome\"}}</tool_call>");
    let call = json!({"anyOf": [{
        "type": "object", "properties": {"name": {"const": "get_weather"}, "arguments": arguments}, "required": ["name", "arguments"],
    }]});
    let forced = called(Calling::Forced, &call);
    assert_eq!(forced, "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call>");
}
