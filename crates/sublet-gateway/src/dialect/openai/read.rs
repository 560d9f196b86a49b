//! Reads chat completions and completions.
//!
//! Unknown harmless fields are ignored; fields that would change the answer are refused by name.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sublet_api::openai::{CallFields, GenerationFields, MessageFields, PartFields, ToolChoiceFields};
use sublet_core::Result;
use sublet_core::engine::{ChatMessage, Millionths, Prompt, Role, Sampling, ToolCall};

use super::Kind;
use crate::dialect::body::{
    TIERS, UNIT, boolean, decimal, include_usage, json_object, model_name, output_max, service_tier, stop_strings, top_k, top_p,
};
use crate::dialect::field::{Bounded, Field, field, invalid, unsupported};
use crate::dialect::piece::Reading;
use crate::dialect::tools::{Choice, Offer, TOOLS_MAX, ToolShape, name, read_tools, text};
use crate::dialect::{CHOICES_MAX, Call, Form, Shape, format};

const MESSAGES_MAX: usize = 8_192;
const PARTS_MAX: usize = 1_024;
const PROMPT_TOKENS_MAX: usize = 2_097_152;
const LOGIT_BIAS_MAX: usize = 1_024;
const TOP_LOGPROBS_MAX: i64 = 20;
const COMPLETION_LOGPROBS_MAX: i64 = 5;

/// Reads a body.
pub(crate) fn read(kind: Kind, body: &[u8]) -> Result<Call> {
    let fields: GenerationFields<'_> = json_object(body)?;
    refuse_unsupported(kind, &fields)?;
    let tier = service_tier(fields.service_tier, &TIERS)?;
    let answers = match field("n", fields.n) {
        Some(n) => n.integer(1..=i64::try_from(CHOICES_MAX).unwrap_or(1))?,
        None => 1,
    };
    let answers = usize::try_from(answers).unwrap_or(1);
    let rule = format::of_generation(&fields)?;
    let (prompts, reading, rule) = match kind {
        Kind::Chat => {
            let plan = offer(&fields)?.plan(messages(&fields)?, rule)?;
            (vec![Prompt::Chat(plan.chat)], plan.reading, plan.rule)
        }
        Kind::Completion => (text_prompts(&fields)?, Reading::Text, rule),
    };
    if prompts.len() * answers > CHOICES_MAX {
        return Err(invalid("n", format!("a request has at most {CHOICES_MAX} answers: prompts multiplied by n")));
    }
    best_of(&fields, answers)?;
    let sampling = sampling(kind, &fields)?;
    let form = super::Form { kind, include_usage: include_usage(fields.stream_options)?, logprobs: sampling.logprobs.is_some() };
    Ok(Call {
        tier,
        model: model_name(fields.model)?,
        prompts,
        answers,
        sampling,
        stop: stop_strings(field("stop", fields.stop))?,
        output_max: output_max(fields.max_tokens, fields.max_completion_tokens)?,
        rule,
        parallel_calls: field("parallel_tool_calls", fields.parallel_tool_calls).map_or(Ok(true), |field| field.boolean())?,
        stream: boolean("stream", fields.stream)?,
        form: Form { shape: Shape::OpenAi(form), reading },
    })
}

/// What a body asks about, whatever else it says: for those who count it.
pub(crate) fn prompts(kind: Kind, body: &[u8]) -> Result<Vec<Prompt>> {
    let fields: GenerationFields<'_> = json_object(body)?;
    match kind {
        Kind::Chat => Ok(vec![Prompt::Chat(offer(&fields)?.plan(messages(&fields)?, None)?.chat)]),
        Kind::Completion => text_prompts(&fields),
    }
}

fn offer(fields: &GenerationFields<'_>) -> Result<Offer> {
    let tools = read_tools(fields.tools, ToolShape::Chat)?.into_iter().map(|(tool, _)| tool).collect();
    Ok(Offer { tools, choice: tool_choice(fields.tool_choice, |choice| choice.function)? })
}

/// `none`, `auto`, `required`, or a function: nested in what `nested` finds, or flat.
pub(crate) fn tool_choice<'a>(
    raw: Option<&'a RawValue>,
    nested: impl Fn(&ToolChoiceFields<'a>) -> Option<&'a RawValue>,
) -> Result<Choice> {
    const EXPECTED: &str = "none, auto, required, or an object that names a function";
    let Some(field) = field("tool_choice", raw) else { return Ok(Choice::Auto) };
    if field.raw.get().starts_with('"') {
        return match field.parse::<&str>(EXPECTED)? {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" => Ok(Choice::Required),
            _ => Err(invalid("tool_choice", format!("'tool_choice' must be {EXPECTED}"))),
        };
    }
    let choice: ToolChoiceFields<'a> = field.parse(EXPECTED)?;
    match choice.r#type.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()) {
        Some("function") => {
            let function = nested(&choice).map(|raw| Field { name: "tool_choice", raw }.parse::<ToolChoiceFields<'_>>(EXPECTED));
            let named = function.transpose()?.map_or(choice.name, |function| function.name);
            Ok(Choice::Named(name("tool_choice", named)?))
        }
        Some(_) => Err(unsupported("tool_choice", "of this type is not supported")),
        None => Err(invalid("tool_choice", format!("'tool_choice' must be {EXPECTED}"))),
    }
}

/// Fields with the JSON values that mean the same as leaving them out.
fn refuse_unsupported(kind: Kind, fields: &GenerationFields<'_>) -> Result<()> {
    const OFF: &[&str] = &["false"];
    let table: [(&'static str, Option<&RawValue>, &[&str]); 14] = [
        ("functions", fields.functions, &["[]"]),
        ("function_call", fields.function_call, &["\"none\"", "\"auto\""]),
        ("modalities", fields.modalities, &[r#"["text"]"#]),
        ("audio", fields.audio, &[]),
        ("web_search_options", fields.web_search_options, &[]),
        ("min_p", fields.min_p, &["0", "0.0"]),
        ("repetition_penalty", fields.repetition_penalty, &["1", "1.0"]),
        ("min_tokens", fields.min_tokens, &["0"]),
        ("ignore_eos", fields.ignore_eos, OFF),
        ("use_beam_search", fields.use_beam_search, OFF),
        ("echo", fields.echo, OFF),
        ("suffix", fields.suffix, &["\"\""]),
        ("grammar", fields.grammar, &[]),
        ("logits_processors", fields.logits_processors, &["[]"]),
    ];
    for (name, raw, neutral) in table {
        if let Some(field) = field(name, raw) {
            field.refuse_unless_neutral(neutral)?;
        }
    }
    match kind {
        Kind::Chat => field("best_of", fields.best_of).map_or(Ok(()), |best_of| best_of.refuse_unless_neutral(&["1"])),
        Kind::Completion => {
            field("tools", fields.tools).map_or(Ok(()), |tools| tools.refuse_unless_neutral(&["[]"]))?;
            field("tool_choice", fields.tool_choice)
                .map_or(Ok(()), |choice| choice.refuse_unless_neutral(&["\"none\"", "\"auto\""]))
        }
    }
}

/// `best_of` larger than `n` would generate answers that are thrown away.
fn best_of(fields: &GenerationFields<'_>, answers: usize) -> Result<()> {
    let Some(field) = field("best_of", fields.best_of) else { return Ok(()) };
    let best_of = field.integer(1..=i64::try_from(CHOICES_MAX).unwrap_or(1))?;
    if usize::try_from(best_of).is_ok_and(|best_of| best_of == answers) {
        return Ok(());
    }
    Err(unsupported("best_of", "other than n is not supported"))
}

fn messages(fields: &GenerationFields<'_>) -> Result<Vec<ChatMessage>> {
    let field = field("messages", fields.messages).ok_or_else(|| invalid("messages", "'messages' is missing"))?;
    let expected = format!("a list of at most {MESSAGES_MAX} messages, each with role and content");
    let Bounded(list) = field.parse::<Bounded<MessageFields<'_>, MESSAGES_MAX>>(&expected)?;
    if list.is_empty() {
        return Err(invalid("messages", "'messages' must have at least one message"));
    }
    list.iter().enumerate().map(|(index, message)| self::message(index, message)).collect()
}

fn message(index: usize, fields: &MessageFields<'_>) -> Result<ChatMessage> {
    let param = |name: &str| format!("messages[{index}].{name}");
    for (name, raw) in [("function_call", fields.function_call), ("audio", fields.audio)] {
        if raw.is_some_and(|raw| raw.get() != "[]") {
            return Err(unsupported(&param(name), "is not supported by the models served here"));
        }
    }
    let wrong_role = || invalid(&param("role"), format!("'{}' must be system, developer, user, assistant or tool", param("role")));
    let role: &str = fields.role.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(wrong_role)?;
    let role = match role {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => return Err(wrong_role()),
    };
    let name = match fields.name {
        Some(raw) => {
            Some(serde_json::from_str(raw.get()).map_err(|_| invalid(&param("name"), "a message's name must be a string"))?)
        }
        None => None,
    };
    let tool_calls = match role {
        Role::Assistant => earlier_calls(&param("tool_calls"), fields.tool_calls)?,
        Role::System | Role::Developer | Role::User | Role::Tool => Vec::new(),
    };
    let content = match fields.content {
        Some(content) => message_text(&param("content"), content)?,
        // Who calls need not say anything.
        None if !tool_calls.is_empty() => String::new(),
        None => return Err(invalid(&param("content"), format!("'{}' is missing", param("content")))),
    };
    let answered = text::<String>(&param("tool_call_id"), fields.tool_call_id, "a string")?;
    Ok(ChatMessage { role, content, name, tool_calls, tool_call_id: answered.filter(|_| role == Role::Tool) })
}

/// The calls of an earlier turn.
fn earlier_calls(param: &str, raw: Option<&RawValue>) -> Result<Vec<ToolCall>> {
    let expected = format!("a list of at most {TOOLS_MAX} calls");
    let list = text::<Bounded<CallFields<'_>, TOOLS_MAX>>(param, raw, &expected)?;
    let call = |(index, fields): (usize, CallFields<'_>)| {
        let part = |name: &str| format!("{param}[{index}].{name}");
        let function = text::<CallFields<'_>>(&part("function"), fields.function, "an object with name and arguments")?;
        let function =
            function.ok_or_else(|| unsupported(&part("function"), "is missing, and calls of other kinds are not supported"))?;
        Ok(ToolCall {
            id: text(&part("id"), fields.id, "a string")?.unwrap_or_default(),
            name: name(&part("function.name"), function.name)?,
            arguments: text(&part("function.arguments"), function.arguments, "JSON as a string")?.unwrap_or_default(),
        })
    };
    list.map_or_else(Vec::new, |Bounded(list)| list).into_iter().enumerate().map(call).collect()
}

fn message_text(param: &str, raw: &RawValue) -> Result<String> {
    let wrong = || invalid(param, format!("'{param}' must be a string or a list of at most {PARTS_MAX} text parts"));
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map_err(|_| wrong());
    }
    let Bounded(parts) = serde_json::from_str::<Bounded<PartFields<'_>, PARTS_MAX>>(raw.get()).map_err(|_| wrong())?;
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let kind: &str = part.r#type.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(wrong)?;
        let value = match kind {
            "text" => part.text,
            "refusal" => part.refusal,
            _ => {
                return Err(unsupported(
                    &format!("{param}[{index}].type"),
                    "other than text is not supported by the models served here",
                ));
            }
        };
        let value: String = value.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(wrong)?;
        text.push_str(&value);
    }
    Ok(text)
}

fn text_prompts(fields: &GenerationFields<'_>) -> Result<Vec<Prompt>> {
    const EXPECTED: &str = "a string, a list of strings, a list of token ids, or a list of lists of token ids";
    let field = field("prompt", fields.prompt).ok_or_else(|| invalid("prompt", "'prompt' is missing"))?;
    let raw = field.raw.get();
    if raw.starts_with('"') {
        return Ok(vec![Prompt::Text(field.parse(EXPECTED)?)]);
    }
    let first = raw.strip_prefix('[').map(str::trim_start).and_then(|rest| rest.bytes().next());
    let prompts: Vec<Prompt> = match first {
        Some(b'"') => field.parse::<Bounded<String, CHOICES_MAX>>(EXPECTED)?.0.into_iter().map(Prompt::Text).collect(),
        Some(b'[') => {
            let Bounded(lists) = field.parse::<Bounded<Bounded<u32, PROMPT_TOKENS_MAX>, CHOICES_MAX>>(EXPECTED)?;
            lists.into_iter().map(|tokens| Prompt::Tokens(tokens.0)).collect()
        }
        Some(b'0'..=b'9') => vec![Prompt::Tokens(field.parse::<Bounded<u32, PROMPT_TOKENS_MAX>>(EXPECTED)?.0)],
        _ => return Err(invalid("prompt", format!("'prompt' must be {EXPECTED}"))),
    };
    if prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(tokens) if tokens.is_empty())) {
        return Err(invalid("prompt", "a list of token ids must not be empty"));
    }
    Ok(prompts)
}

fn sampling(kind: Kind, fields: &GenerationFields<'_>) -> Result<Sampling> {
    let penalty = |name, raw| decimal(field(name, raw), 0, -2 * UNIT..=2 * UNIT, "a number from -2 to 2");
    Ok(Sampling {
        temperature: decimal(field("temperature", fields.temperature), UNIT, 0..=2 * UNIT, "a number from 0 to 2")?,
        top_p: top_p(fields.top_p)?,
        top_k: top_k(fields.top_k)?,
        presence_penalty: penalty("presence_penalty", fields.presence_penalty)?,
        frequency_penalty: penalty("frequency_penalty", fields.frequency_penalty)?,
        seed: seed(fields)?,
        logit_bias: logit_bias(fields)?,
        logprobs: logprobs(kind, fields)?,
    })
}

fn seed(fields: &GenerationFields<'_>) -> Result<Option<u64>> {
    let Some(field) = field("seed", fields.seed) else { return Ok(None) };
    if let Ok(seed) = serde_json::from_str::<u64>(field.raw.get()) {
        return Ok(Some(seed));
    }
    let signed: i64 = field.parse("a 64-bit integer")?;
    Ok(Some(u64::from_ne_bytes(signed.to_ne_bytes())))
}

fn logit_bias(fields: &GenerationFields<'_>) -> Result<Vec<(u32, Millionths)>> {
    let expected = format!("an object of at most {LOGIT_BIAS_MAX} token ids with numbers from -100 to 100");
    let Some(field) = field("logit_bias", fields.logit_bias) else { return Ok(Vec::new()) };
    let map: BTreeMap<String, &RawValue> = field.parse(&expected)?;
    let wrong = || invalid("logit_bias", format!("'logit_bias' must be {expected}"));
    if map.len() > LOGIT_BIAS_MAX {
        return Err(wrong());
    }
    let entry = |(token, raw): (&String, &&RawValue)| {
        let bias = Field { name: "logit_bias", raw }.decimal(-100 * UNIT..=100 * UNIT, &expected)?;
        Ok((token.parse().map_err(|_| wrong())?, bias))
    };
    map.iter().map(entry).collect()
}

fn logprobs(kind: Kind, fields: &GenerationFields<'_>) -> Result<Option<u8>> {
    let count = match kind {
        Kind::Chat => {
            let on = field("logprobs", fields.logprobs).map_or(Ok(false), |field| field.boolean())?;
            let top = field("top_logprobs", fields.top_logprobs).map(|field| field.integer(0..=TOP_LOGPROBS_MAX)).transpose()?;
            if !on && top.is_some_and(|top| top > 0) {
                return Err(invalid("top_logprobs", "'top_logprobs' needs 'logprobs': true"));
            }
            on.then(|| top.unwrap_or(0))
        }
        Kind::Completion => {
            field("logprobs", fields.logprobs).map(|field| field.integer(0..=COMPLETION_LOGPROBS_MAX)).transpose()?
        }
    };
    Ok(count.and_then(|count| u8::try_from(count).ok()))
}
