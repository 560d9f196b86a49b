//! Reads response requests.

use serde_json::value::RawValue;
use sublet_api::responses::{InputItemFields, RequestEcho, ResponseRequestFields, TextFields, Verbatim};
use sublet_core::engine::{Prompt, Role, Sampling};
use sublet_core::{Result, TokenCount};

use super::Form;
use super::item::{Draft, Earlier, ITEMS_MAX, Item};
use crate::dialect::body::{TIERS, UNIT, boolean, decimal, json_object, model_name, push_turn, service_tier, top_p};
use crate::dialect::field::{Bounded, field, invalid, unsupported};
use crate::dialect::format::{Rule, openai_format};
use crate::dialect::tools::{Offer, ToolShape, read_tools};
use crate::dialect::{self, Call, Shape, openai};

const INCLUDES_MAX: usize = 32;
const TOP_LOGPROBS_MAX: i64 = 20;
/// Longest text that is repeated to whoever sent it, beside instructions.
const ECHO_BYTES_MAX: usize = 16 * 1_024;
const LABEL_BYTES_MAX: usize = 1_024;
const LOGPROBS: &str = "message.output_text.logprobs";

/// Reads a body.
pub(crate) fn read(body: &[u8], earlier: &Earlier) -> Result<Call> {
    let fields: ResponseRequestFields<'_> = json_object(body)?;
    refuse_unsupported(&fields)?;
    let store = boolean("store", fields.store)?;
    let tier = service_tier(fields.service_tier, &TIERS)?;
    let model = model_name(fields.model)?;
    let instructions = field("instructions", fields.instructions).map(|field| field.parse::<String>("a string")).transpose()?;
    let mut messages = Vec::new();
    if let Some(instructions) = instructions.as_deref().filter(|text| !text.is_empty()) {
        push_turn(&mut messages, Role::System, instructions.to_owned());
    }
    let items = input(&fields, earlier)?;
    let draft = store.then(|| Draft::new(earlier.previous.clone(), items.clone()));
    earlier.items().iter().cloned().chain(items).for_each(|item| item.push(&mut messages));
    let logprobs = logprobs(&fields)?;
    let output_max =
        field("max_output_tokens", fields.max_output_tokens).map(|field| field.integer(1..=i64::from(i32::MAX))).transpose()?;
    let sampling = Sampling {
        temperature: decimal(field("temperature", fields.temperature), UNIT, 0..=2 * UNIT, "a number from 0 to 2")?,
        top_p: top_p(fields.top_p)?,
        logprobs,
        ..Sampling::default()
    };
    let tools = read_tools(fields.tools, ToolShape::Response)?;
    let echoed = tools.iter().map(|(_, raw)| repeated(Some(raw), "{}")).collect();
    let offer = Offer {
        tools: tools.into_iter().map(|(tool, _)| tool).collect(),
        choice: openai::tool_choice(fields.tool_choice, |_| None)?,
    };
    let plan = offer.plan(messages, text_format(&fields)?)?;
    let parallel_calls = field("parallel_tool_calls", fields.parallel_tool_calls).map_or(Ok(true), |field| field.boolean())?;
    let echo = RequestEcho {
        model: model.clone(),
        instructions,
        max_output_tokens: output_max,
        metadata: metadata(&fields)?,
        parallel_tool_calls: parallel_calls,
        temperature: repeated(fields.temperature, "1.0"),
        top_p: repeated(fields.top_p, "1.0"),
        top_logprobs: logprobs.unwrap_or(0),
        reasoning: object("reasoning", fields.reasoning, r#"{"effort":null,"summary":null}"#)?,
        text: object("text", fields.text, r#"{"format":{"type":"text"}}"#)?,
        tool_choice: repeated(fields.tool_choice, "\"auto\""),
        tools: echoed,
        truncation: "disabled".to_owned(),
        store,
        background: false,
        previous_response_id: earlier.previous.as_ref().map(ToString::to_string),
        prompt_cache_key: label("prompt_cache_key", fields.prompt_cache_key)?,
        safety_identifier: label("safety_identifier", fields.safety_identifier)?,
        user: label("user", fields.user)?,
    };
    Ok(Call {
        tier,
        model,
        prompts: vec![Prompt::Chat(plan.chat)],
        answers: 1,
        sampling,
        stop: Vec::new(),
        output_max: output_max.map(TokenCount::new),
        rule: plan.rule,
        parallel_calls,
        stream: boolean("stream", fields.stream)?,
        form: dialect::Form {
            shape: Shape::Response(Box::new(Form { echo, logprobs: logprobs.is_some(), draft })),
            reading: plan.reading,
        },
    })
}

fn text_format(fields: &ResponseRequestFields<'_>) -> Result<Option<Rule>> {
    let Some(text) = field("text", fields.text) else { return Ok(None) };
    let text: TextFields<'_> = text.parse("an object")?;
    openai_format("text.format", text.format)
}

/// Fields with the JSON values that mean the same as leaving them out.
fn refuse_unsupported(fields: &ResponseRequestFields<'_>) -> Result<()> {
    const OFF: &[&str] = &["false"];
    if boolean("background", fields.background)? {
        return Err(unsupported("background", "is not offered: a response is answered on its connection")
            .alternative("send 'stream': true for an answer that takes long")
            .alternative("POST /v1/batches for many answers that may take hours"));
    }
    if field("conversation", fields.conversation).is_some() {
        return Err(unsupported("conversation", "is not offered")
            .alternative("send 'store': true, and 'previous_response_id' with the id of the response to go on from"));
    }
    let table: [(&'static str, Option<&RawValue>, &[&str]); 15] = [
        ("prompt", fields.prompt, &[]),
        ("context_management", fields.context_management, &["[]"]),
        ("truncation", fields.truncation, &["\"disabled\""]),
        // Names of the other APIs: whoever sends them expects something of them.
        ("messages", fields.messages, &[]),
        ("max_tokens", fields.max_tokens, &[]),
        ("max_completion_tokens", fields.max_completion_tokens, &[]),
        ("stop", fields.stop, &["[]"]),
        ("seed", fields.seed, &[]),
        ("n", fields.n, &["1"]),
        ("top_k", fields.top_k, &["0", "-1"]),
        ("logprobs", fields.logprobs, OFF),
        ("logit_bias", fields.logit_bias, &["{}"]),
        ("frequency_penalty", fields.frequency_penalty, &["0", "0.0"]),
        ("presence_penalty", fields.presence_penalty, &["0", "0.0"]),
        ("response_format", fields.response_format, &[r#"{"type":"text"}"#]),
    ];
    for (name, raw, neutral) in table {
        if let Some(field) = field(name, raw) {
            field.refuse_unless_neutral(neutral)?;
        }
    }
    Ok(())
}

/// What was sent, on one line: a line's end inside it would cut the event that repeats it. Strings have none.
fn repeated(raw: Option<&RawValue>, default: &str) -> Verbatim {
    let text = raw.map_or_else(|| default.to_owned(), |raw| raw.get().replace(['\n', '\r'], " "));
    Verbatim(RawValue::from_string(text).expect("JSON stays JSON without its lines"))
}

/// An object that is repeated as it came.
fn object(name: &'static str, raw: Option<&RawValue>, default: &str) -> Result<Verbatim> {
    if let Some(raw) = raw
        && (!raw.get().starts_with('{') || raw.get().len() > ECHO_BYTES_MAX)
    {
        return Err(invalid(name, format!("'{name}' must be an object of at most {ECHO_BYTES_MAX} bytes")));
    }
    Ok(repeated(raw, default))
}

/// At most 16 names, each with a text.
fn metadata(fields: &ResponseRequestFields<'_>) -> Result<Verbatim> {
    const EXPECTED: &str = "an object of at most 16 names of 64 bytes with texts of 512 bytes";
    if let Some(field) = field("metadata", fields.metadata) {
        let map: std::collections::BTreeMap<String, String> = field.parse(EXPECTED)?;
        if map.len() > 16 || map.iter().any(|(name, text)| name.len() > 64 || text.len() > 512) {
            return Err(invalid("metadata", format!("'metadata' must be {EXPECTED}")));
        }
    }
    object("metadata", fields.metadata, "{}")
}

fn label(name: &'static str, raw: Option<&RawValue>) -> Result<Option<String>> {
    field(name, raw).map(|field| field.text(LABEL_BYTES_MAX)).transpose()
}

/// Log-probabilities are reported if they are included.
fn logprobs(fields: &ResponseRequestFields<'_>) -> Result<Option<u8>> {
    let top = field("top_logprobs", fields.top_logprobs).map(|field| field.integer(0..=TOP_LOGPROBS_MAX)).transpose()?;
    let Some(include) = field("include", fields.include) else { return Ok(None) };
    let Bounded(include) = include.parse::<Bounded<String, INCLUDES_MAX>>(&format!("a list of at most {INCLUDES_MAX} names"))?;
    let is_on = include.iter().any(|name| name == LOGPROBS);
    Ok(is_on.then(|| u8::try_from(top.unwrap_or(0)).unwrap_or(0)))
}

/// The items of the input, and the text that stands for one message.
fn input(fields: &ResponseRequestFields<'_>, earlier: &Earlier) -> Result<Vec<Item>> {
    let field = field("input", fields.input).ok_or_else(|| invalid("input", "'input' is missing"))?;
    if field.raw.get().starts_with('"') {
        return Ok(vec![Item::Message { role: Role::User, parts: vec![field.parse("a string")?] }]);
    }
    let expected = format!("a string or a list of at most {ITEMS_MAX} items");
    let Bounded(sent) = field.parse::<Bounded<InputItemFields<'_>, ITEMS_MAX>>(&expected)?;
    let mut items = Vec::with_capacity(sent.len());
    for (index, fields) in sent.iter().enumerate() {
        items.extend(Item::read(index, fields, earlier)?);
    }
    if items.is_empty() {
        return Err(invalid("input", "'input' must have at least one message"));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sublet_core::engine::Chat;

    fn read_with(change: &Value) -> Result<Call> {
        let mut body = json!({ "model": "m", "input": "hi" });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(body.to_string().as_bytes(), &Earlier::default())
    }

    fn prompt(call: &Call) -> Vec<(Role, String)> {
        let Prompt::Chat(Chat { messages, .. }) = &call.prompts[0] else { panic!("a chat") };
        messages.iter().map(|message| (message.role, message.content.clone())).collect()
    }

    #[test]
    fn what_an_agent_replays_is_understood() {
        let asked = json!({
            "instructions": "be brief",
            "input": [
                { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "a" }] },
                { "type": "reasoning", "summary": [], "encrypted_content": "x" },
                { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "b" }] },
                { "role": "developer", "content": "c" },
                { "role": "user", "content": "d" },
            ],
            "store": false, "include": ["reasoning.encrypted_content"], "parallel_tool_calls": false, "tool_choice": "auto",
            "tools": [{ "type": "web_search" }, { "type": "namespace", "name": "n" }],
            "prompt_cache_key": "k", "client_metadata": { "a": "b" }, "reasoning": { "effort": "low" },
        });
        let call = read_with(&asked).unwrap();
        let expected =
            [(Role::System, "be brief"), (Role::User, "a"), (Role::Assistant, "b"), (Role::Developer, "c"), (Role::User, "d")];
        assert_eq!(prompt(&call), expected.map(|(role, text)| (role, text.to_owned())));
        let Shape::Response(form) = call.form.shape else { panic!("a response") };
        let echo = serde_json::to_value(&form.echo).unwrap();
        assert_eq!((&echo["store"], &echo["reasoning"]["effort"], &echo["tools"]), (&json!(false), &json!("low"), &json!([])));
        assert_eq!((&echo["parallel_tool_calls"], &echo["prompt_cache_key"]), (&json!(false), &json!("k")));
        assert!(!form.logprobs);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let many: serde_json::Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        let table = [
            (json!({ "input": null }), "input"),
            (json!({ "input": [] }), "input"),
            (json!({ "input": 7 }), "input"),
            (json!({ "input": [{ "role": "tool", "content": "x" }] }), "input[0].role"),
            (json!({ "input": [{ "role": "user" }] }), "input[0].content"),
            (json!({ "input": [{ "role": "user", "content": [{ "type": "input_image" }] }] }), "input[0].content[0].type"),
            (json!({ "input": [{ "type": "function_call_output" }] }), "input[0].output"),
            (json!({ "input": [{ "type": "function_call", "call_id": "c", "name": "a b" }] }), "input[0].name"),
            (json!({ "input": [{ "type": "custom_tool_call" }] }), "input[0].type"),
            (json!({ "instructions": 5 }), "instructions"),
            (json!({ "max_output_tokens": 0 }), "max_output_tokens"),
            (json!({ "temperature": 3 }), "temperature"),
            (json!({ "store": 1 }), "store"),
            (json!({ "conversation": "conv_1" }), "conversation"),
            (json!({ "background": true }), "background"),
            (json!({ "truncation": "auto" }), "truncation"),
            (json!({ "tools": [{ "type": "web_search" }, { "type": "function", "name": "f g" }] }), "tools[1].name"),
            (json!({ "tools": [{ "type": "function", "name": "f", "parameters": [] }] }), "tools[0].parameters"),
            (json!({ "tool_choice": { "type": "function", "name": "f" } }), "tool_choice"),
            (json!({ "tool_choice": { "type": "web_search" } }), "tool_choice"),
            (json!({ "text": { "format": { "type": "json_schema" } } }), "text.format"),
            (json!({ "text": { "format": { "type": "xml" } } }), "text.format"),
            (json!({ "metadata": many }), "metadata"),
            (json!({ "top_logprobs": 21 }), "top_logprobs"),
            (json!({ "stream": "yes" }), "stream"),
            (json!({ "max_tokens": 5 }), "max_tokens"),
            (json!({ "response_format": { "type": "json_object" } }), "response_format"),
            (json!({ "input": [{ "type": "item_reference", "id": "msg_1" }] }), "input[0]"),
        ];
        for (change, param) in table {
            let error = read_with(&change).unwrap_err();
            assert_eq!(error.param_name(), Some(param), "{change}: {error}");
        }
    }

    #[test]
    fn what_is_repeated_fits_on_one_line() {
        let body = "{\"model\": \"m\",\n\"input\": \"hi\",\n\"metadata\": {\n  \"a\":\r\n \"b\\n\"\n}}";
        let Shape::Response(form) = read(body.as_bytes(), &Earlier::default()).unwrap().form.shape else { panic!("a response") };
        let echo = serde_json::to_string(&form.echo).unwrap();
        assert!(!echo.contains(['\n', '\r']), "{echo}");
        assert_eq!(serde_json::from_str::<Value>(&echo).unwrap()["metadata"], json!({ "a": "b\n" }));
    }

    #[test]
    fn turns_of_one_role_are_one_and_empty_instructions_are_none() {
        let asked =
            json!({ "instructions": "", "input": [{ "role": "user", "content": "a" }, { "role": "user", "content": "b" }] });
        assert_eq!(prompt(&read_with(&asked).unwrap()), [(Role::User, "a\n\nb".to_owned())]);
    }

    #[test]
    fn log_probabilities_are_reported_if_they_are_included() {
        let asked = json!({ "include": [LOGPROBS], "top_logprobs": 3 });
        assert_eq!(read_with(&asked).unwrap().sampling.logprobs, Some(3));
        assert_eq!(read_with(&json!({ "include": [LOGPROBS] })).unwrap().sampling.logprobs, Some(0));
        assert_eq!(read_with(&json!({ "top_logprobs": 3 })).unwrap().sampling.logprobs, None);
    }
}
