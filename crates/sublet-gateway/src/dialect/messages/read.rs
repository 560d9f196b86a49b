//! Reads message requests.

use serde_json::value::RawValue;
use sublet_api::messages::{BlockFields, MessageRequestFields, OutputConfigFields, TurnFields};
use sublet_core::engine::{ChatMessage, Prompt, Role, Sampling};
use sublet_core::{Result, TokenCount};

use super::Form;
use crate::dialect::body::{UNIT, boolean, decimal, json_object, model_name, push_turn, service_tier, stop_strings, top_k, top_p};
use crate::dialect::field::{Bounded, field, invalid, unsupported};
use crate::dialect::{self, Call};

const TURNS_MAX: usize = 8_192;
const BLOCKS_MAX: usize = 1_024;
/// Both names mean what is served and charged here as the default tier.
const TIERS: [&str; 2] = ["auto", "standard_only"];

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
    service_tier(fields.service_tier, &TIERS)?;
    let stop = stop_strings(field("stop_sequences", fields.stop_sequences))?;
    Ok(Call {
        model: model_name(fields.model)?,
        prompts: vec![Prompt::Chat(messages(&fields)?.into())],
        answers: 1,
        sampling: Sampling {
            temperature: decimal(field("temperature", fields.temperature), UNIT, 0..=UNIT, "a number from 0 to 1")?,
            top_p: top_p(fields.top_p)?,
            top_k: top_k(fields.top_k)?,
            ..Sampling::default()
        },
        form: dialect::Form::Message(Form { stop: stop.clone() }),
        stop,
        output_max: output_max(&fields, purpose)?,
        stream: boolean("stream", fields.stream)?,
    })
}

/// Fields with the JSON values that mean the same as leaving them out.
fn refuse_unsupported(fields: &MessageRequestFields<'_>) -> Result<()> {
    const DISABLED: &str = r#"{"type":"disabled"}"#;
    let table: [(&'static str, Option<&RawValue>, &[&str]); 17] = [
        ("tools", fields.tools, &["[]"]),
        ("tool_choice", fields.tool_choice, &[r#"{"type":"none"}"#, r#"{"type":"auto"}"#]),
        ("thinking", fields.thinking, &[DISABLED]),
        ("mcp_servers", fields.mcp_servers, &["[]"]),
        ("container", fields.container, &[]),
        ("output_format", fields.output_format, &[]),
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
    // How hard a model that reasons should try changes nothing for one that does not.
    let Some(config) = field("output_config", fields.output_config) else { return Ok(()) };
    let config: OutputConfigFields<'_> = config.parse("an object")?;
    field("output_config.format", config.format).map_or(Ok(()), |format| format.refuse_unless_neutral(&[]))
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
        let (role, content) = self::turn(index, turn)?;
        push_turn(&mut messages, role, content);
    }
    match messages.last().map(|last| last.role) {
        Some(Role::User) => Ok(messages),
        Some(Role::Assistant) => {
            Err(unsupported("messages", "ending with the assistant's turn is not supported: it cannot be continued here"))
        }
        _ => Err(invalid("messages", "'messages' must have at least one message")),
    }
}

fn turn(index: usize, fields: &TurnFields<'_>) -> Result<(Role, String)> {
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
    Ok((role, text(&param("content"), content)?))
}

/// A string, or blocks of text. What a model thought before is not part of what it reads.
fn text(param: &str, raw: &RawValue) -> Result<String> {
    let wrong = || invalid(param, format!("'{param}' must be a string or a list of at most {BLOCKS_MAX} text blocks"));
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map_err(|_| wrong());
    }
    let Bounded(blocks) = serde_json::from_str::<Bounded<BlockFields<'_>, BLOCKS_MAX>>(raw.get()).map_err(|_| wrong())?;
    let mut texts: Vec<String> = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let kind = block.r#type.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()).ok_or_else(wrong)?;
        match kind {
            "text" => texts.push(block.text.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(wrong)?),
            "thinking" | "redacted_thinking" => {}
            _ => {
                let param = format!("{param}.{index}.type");
                return Err(unsupported(&param, "other than text is not supported by the models served here"));
            }
        }
    }
    Ok(texts.join("\n\n"))
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
            (json!({ "tools": [{ "name": "f" }] }), "tools"),
            (json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }), "thinking"),
            (json!({ "service_tier": "priority" }), "service_tier"),
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
