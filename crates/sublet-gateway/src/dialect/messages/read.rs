//! Reads message requests.

use serde_json::value::RawValue;
use sublet_api::messages::{BlockFields, MessageRequestFields, OutputConfigFields, TurnFields};
use sublet_api::openai::ToolChoiceFields;
use sublet_core::engine::{ChatMessage, Prompt, Role, Sampling, ToolCall};
use sublet_core::tier::ServiceTier;
use sublet_core::{Result, TokenCount};

use super::Form;
use crate::dialect::body::{
    UNIT, boolean, decimal, json_object, model_name, push_call, push_result, push_turn, service_tier, stop_strings, top_k, top_p,
};
use crate::dialect::field::{Bounded, field, invalid, unsupported};
use crate::dialect::format::{Rule, openai_format};
use crate::dialect::tools::{self, Choice, Offer, ToolShape, name, read_tools};
use crate::dialect::{self, Call, Shape};

const TURNS_MAX: usize = 8_192;
const BLOCKS_MAX: usize = 1_024;
/// Anthropic's names, and ours for the tiers that it has none for.
const TIERS: [(&str, ServiceTier); 5] = [
    ("auto", ServiceTier::Default),
    ("standard_only", ServiceTier::Default),
    ("default", ServiceTier::Default),
    ("flex", ServiceTier::Flex),
    ("priority", ServiceTier::Priority),
];

/// What a request is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Answer,
    /// Bounds of the output may be left out.
    Count,
}

/// Reads a body.
pub(crate) fn read(body: &[u8], purpose: Purpose) -> Result<Call> {
    let fields: MessageRequestFields<'_> = json_object(body)?;
    refuse_unsupported(&fields)?;
    let tier = service_tier(fields.service_tier, &TIERS)?;
    let stop = stop_strings(field("stop_sequences", fields.stop_sequences))?;
    let (offer, parallel_calls) = offer(&fields)?;
    let plan = offer.plan(messages(&fields)?, format(&fields)?)?;
    Ok(Call {
        tier,
        model: model_name(fields.model)?,
        prompts: vec![Prompt::Chat(plan.chat)],
        answers: 1,
        sampling: Sampling {
            temperature: decimal(field("temperature", fields.temperature), UNIT, 0..=UNIT, "a number from 0 to 1")?,
            top_p: top_p(fields.top_p)?,
            top_k: top_k(fields.top_k)?,
            ..Sampling::default()
        },
        form: dialect::Form { shape: Shape::Message(Form { stop: stop.clone() }), reading: plan.reading },
        rule: plan.rule,
        parallel_calls,
        stop,
        output_max: output_max(&fields, purpose)?,
        stream: boolean("stream", fields.stream)?,
    })
}

/// What may be called, and whether several calls may come at once.
fn offer(fields: &MessageRequestFields<'_>) -> Result<(Offer, bool)> {
    const EXPECTED: &str = "an object of type auto, any, tool or none";
    let tools = read_tools(fields.tools, ToolShape::Message)?.into_iter().map(|(tool, _)| tool).collect();
    let Some(field) = field("tool_choice", fields.tool_choice) else {
        return Ok((Offer { tools, choice: Choice::Auto }, true));
    };
    let fields: ToolChoiceFields<'_> = field.parse(EXPECTED)?;
    let choice = match fields.r#type.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()) {
        Some("auto") => Choice::Auto,
        Some("any") => Choice::Required,
        Some("none") => Choice::None,
        Some("tool") => Choice::Named(name("tool_choice.name", fields.name)?),
        _ => return Err(invalid("tool_choice", format!("'tool_choice' must be {EXPECTED}"))),
    };
    let is_single = boolean("tool_choice.disable_parallel_tool_use", fields.disable_parallel_tool_use)?;
    Ok((Offer { tools, choice }, !is_single))
}

/// What the text has to be: under its first name or under its later one.
fn format(fields: &MessageRequestFields<'_>) -> Result<Option<Rule>> {
    if let Some(rule) = openai_format("output_format", fields.output_format)? {
        return Ok(Some(rule));
    }
    // How hard a model that reasons should try changes nothing for one that does not.
    let Some(config) = field("output_config", fields.output_config) else { return Ok(None) };
    let config: OutputConfigFields<'_> = config.parse("an object")?;
    openai_format("output_config.format", config.format)
}

/// Fields with the JSON values that mean the same as leaving them out.
fn refuse_unsupported(fields: &MessageRequestFields<'_>) -> Result<()> {
    const DISABLED: &str = r#"{"type":"disabled"}"#;
    let table: [(&'static str, Option<&RawValue>, &[&str]); 14] = [
        ("thinking", fields.thinking, &[DISABLED]),
        ("mcp_servers", fields.mcp_servers, &["[]"]),
        ("container", fields.container, &[]),
        ("speed", fields.speed, &["\"standard\""]),
        // Where it runs is a promise, which this cloud does not make by that name.
        ("inference_geo", fields.inference_geo, &[]),
        // Names of the other APIs: whoever sends them expects something of them.
        ("stop", fields.stop, &["[]"]),
        ("seed", fields.seed, &[]),
        ("n", fields.n, &["1"]),
        ("max_completion_tokens", fields.max_completion_tokens, &[]),
        ("logit_bias", fields.logit_bias, &["{}"]),
        ("frequency_penalty", fields.frequency_penalty, &["0", "0.0"]),
        ("presence_penalty", fields.presence_penalty, &["0", "0.0"]),
        ("response_format", fields.response_format, &[r#"{"type":"text"}"#]),
        ("context_management", fields.context_management, &["{}", r#"{"edits":[]}"#]),
    ];
    for (name, raw, neutral) in table {
        if let Some(field) = field(name, raw) {
            field.refuse_unless_neutral(neutral)?;
        }
    }
    Ok(())
}

fn output_max(fields: &MessageRequestFields<'_>, purpose: Purpose) -> Result<Option<TokenCount>> {
    match (field("max_tokens", fields.max_tokens), purpose) {
        (Some(field), _) => Ok(Some(TokenCount::new(field.integer(1..=i64::from(i32::MAX))?))),
        (None, Purpose::Count) => Ok(None),
        (None, Purpose::Answer) => {
            Err(invalid("max_tokens", "'max_tokens' is missing").alternative("say how many tokens the answer may have at most"))
        }
    }
}

/// The system prompt, if any, before the turns. Turns of one role in a row are one turn.
fn messages(fields: &MessageRequestFields<'_>) -> Result<Vec<ChatMessage>> {
    let field = field("messages", fields.messages).ok_or_else(|| invalid("messages", "'messages' is missing"))?;
    let expected = format!("a list of at most {TURNS_MAX} messages, each with role and content");
    let Bounded(turns) = field.parse::<Bounded<TurnFields<'_>, TURNS_MAX>>(&expected)?;
    let mut messages: Vec<ChatMessage> = Vec::with_capacity(turns.len() + 1);
    if let Some(system) = fields.system {
        let content = text("system", system)?;
        if !content.is_empty() {
            push_turn(&mut messages, Role::System, content);
        }
    }
    for (index, turn) in turns.iter().enumerate() {
        self::turn(index, turn, &mut messages)?;
    }
    match messages.last().map(|last| last.role) {
        Some(Role::User | Role::Tool) => Ok(messages),
        Some(Role::Assistant) => {
            Err(unsupported("messages", "ending with the assistant's turn is not supported: it cannot be continued here"))
        }
        _ => Err(invalid("messages", "'messages' must have at least one message")),
    }
}

fn turn(index: usize, fields: &TurnFields<'_>, messages: &mut Vec<ChatMessage>) -> Result<()> {
    let param = |name: &str| format!("messages.{index}.{name}");
    let role = match fields.role.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()) {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => {
            let error = invalid(&param("role"), format!("'{}' must be user or assistant", param("role")));
            return Err(error.alternative("put a system prompt into the field 'system'"));
        }
    };
    let content = fields.content.ok_or_else(|| invalid(&param("content"), format!("'{}' is missing", param("content"))))?;
    let Content { texts, calls, results } = read_content(&param("content"), content)?;
    // What was called is answered before anything else is said.
    for (call, result) in results {
        push_result(messages, call, result);
    }
    if !texts.is_empty() || (calls.is_empty() && messages.last().is_none_or(|last| last.role != Role::Tool)) {
        push_turn(messages, role, texts.join("\n\n"));
    }
    match (role, calls.is_empty()) {
        (Role::Assistant, _) | (_, true) => calls.into_iter().for_each(|call| push_call(messages, call)),
        (_, false) => return Err(invalid(&param("content"), "only the assistant's turns have tool_use blocks")),
    }
    Ok(())
}

/// What a turn holds.
#[derive(Default)]
struct Content {
    texts: Vec<String>,
    calls: Vec<ToolCall>,
    /// By the ids of their calls.
    results: Vec<(String, String)>,
}

/// A string, or blocks. What a model thought before is not part of what it reads.
fn read_content(param: &str, raw: &RawValue) -> Result<Content> {
    let wrong = || invalid(param, format!("'{param}' must be a string or a list of at most {BLOCKS_MAX} blocks"));
    let mut content = Content::default();
    if raw.get().starts_with('"') {
        content.texts.push(serde_json::from_str(raw.get()).map_err(|_| wrong())?);
        return Ok(content);
    }
    let Bounded(blocks) = serde_json::from_str::<Bounded<BlockFields<'_>, BLOCKS_MAX>>(raw.get()).map_err(|_| wrong())?;
    for (index, block) in blocks.iter().enumerate() {
        let kind = block.r#type.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()).ok_or_else(wrong)?;
        let param = |name: &str| format!("{param}.{index}.{name}");
        let string = |name: &str, raw| {
            tools::text::<String>(&param(name), raw, "a string")?
                .ok_or_else(|| invalid(&param(name), format!("'{}' is missing", param(name))))
        };
        match kind {
            "text" => content.texts.push(block.text.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(wrong)?),
            "tool_use" => content.calls.push(ToolCall {
                id: string("id", block.id)?,
                name: name(&param("name"), block.name)?,
                arguments: block.input.map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned()),
            }),
            "tool_result" => {
                let result = block.content.map_or_else(|| Ok(String::new()), |raw| text(&param("content"), raw))?;
                content.results.push((string("tool_use_id", block.tool_use_id)?, result));
            }
            "thinking" | "redacted_thinking" => {}
            _ => {
                let what = "other than text, tool_use and tool_result is not supported by the models served here";
                return Err(unsupported(&param("type"), what));
            }
        }
    }
    Ok(content)
}

/// A string, or blocks of text.
fn text(param: &str, raw: &RawValue) -> Result<String> {
    let Content { texts, calls, results } = read_content(param, raw)?;
    if calls.is_empty() && results.is_empty() {
        return Ok(texts.join("\n\n"));
    }
    Err(unsupported(param, "can hold text only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sublet_core::engine::Chat;

    fn read_with(change: &Value) -> Result<Call> {
        let mut body = json!({ "model": "m", "max_tokens": 8, "messages": [{ "role": "user", "content": "hi" }] });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(body.to_string().as_bytes(), Purpose::Answer)
    }

    fn prompt(change: &Value) -> Vec<(Role, String)> {
        let call = read_with(change).unwrap();
        let Prompt::Chat(Chat { messages, .. }) = &call.prompts[0] else { panic!("a chat") };
        messages.iter().map(|message| (message.role, message.content.clone())).collect()
    }

    #[test]
    fn turns_blocks_and_the_system_prompt_become_messages() {
        let text = |text: &str| json!({ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } });
        let asked = json!({
            "system": [text("be"), text("brief")],
            "messages": [
                { "role": "user", "content": "a" },
                { "role": "user", "content": [text("b")] },
                { "role": "assistant", "content": [{ "type": "thinking", "thinking": "hm", "signature": "x" }, text("c")] },
                { "role": "user", "content": [text("d")] },
            ],
        });
        let expected = [(Role::System, "be\n\nbrief"), (Role::User, "a\n\nb"), (Role::Assistant, "c"), (Role::User, "d")];
        assert_eq!(prompt(&asked), expected.map(|(role, text)| (role, text.to_owned())));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let table = [
            (json!({ "max_tokens": null }), "max_tokens"),
            (json!({ "max_tokens": 0 }), "max_tokens"),
            (json!({ "messages": [] }), "messages"),
            (json!({ "messages": [{ "role": "system", "content": "x" }] }), "messages.0.role"),
            (json!({ "messages": [{ "role": "user" }] }), "messages.0.content"),
            (json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }] }), "messages.0.content.0.type"),
            (json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }] }), "messages"),
            (json!({ "system": 5 }), "system"),
            (json!({ "temperature": 1.5 }), "temperature"),
            (json!({ "top_p": 0 }), "top_p"),
            (json!({ "stop_sequences": [""] }), "stop_sequences"),
            (json!({ "tools": [{ "name": "f g" }] }), "tools[0].name"),
            (json!({ "tools": [{ "name": "f" }], "tool_choice": "any" }), "tool_choice"),
            (json!({ "tools": [{ "name": "f" }], "tool_choice": { "type": "tool", "name": "g" } }), "tool_choice"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "tool_result" }] }] }),
                "messages.0.content.0.tool_use_id",
            ),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "tool_use", "id": "a", "name": "f" }] }] }),
                "messages.0.content",
            ),
            (json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }), "thinking"),
            (json!({ "service_tier": "fast" }), "service_tier"),
            (json!({ "seed": 5 }), "seed"),
            (json!({ "speed": "fast" }), "speed"),
            (json!({ "inference_geo": "us" }), "inference_geo"),
            (json!({ "output_config": { "effort": "low", "format": { "type": "json_schema" } } }), "output_config.format"),
            (json!({ "stream": "yes" }), "stream"),
        ];
        for (change, param) in table {
            let error = read_with(&change).unwrap_err();
            assert_eq!(error.param_name(), Some(param), "{change}: {error}");
        }
    }

    #[test]
    fn only_an_answer_needs_a_bound() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        assert!(read(body, Purpose::Answer).is_err());
        assert_eq!(read(body, Purpose::Count).unwrap().output_max, None);
    }
}
