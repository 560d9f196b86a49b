//! What every dialect reads alike: the JSON object, the model's name, and how the next token is chosen.

use std::fmt::Write;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sublet_api::openai::StreamOptionFields;
use sublet_core::engine::{ChatMessage, Millionths, Role, STOP_STRINGS_MAX, ToolCall};
use sublet_core::rate::EndUser;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, ErrorCode, Result, TokenCount};

use super::STOP_BYTES_MAX;
use super::field::{Bounded, Field, field, invalid};

/// One, in the engine's millionths.
pub(crate) const UNIT: i64 = 1_000_000;
/// Longest name of a model or of a value.
const NAME_BYTES_MAX: usize = 256;
/// Of the hash of an end user's name: enough that two names never have the same.
const MARK_BYTES: usize = 16;

/// The body as one object of raw fields.
pub(crate) fn json_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let invalid_json = |message: String| {
        Error::new(ErrorCode::InvalidJson, message).alternative("send one JSON object with Content-Type: application/json")
    };
    let text =
        std::str::from_utf8(body).map_err(|e| invalid_json(format!("the body is not UTF-8 from byte {} on", e.valid_up_to())))?;
    match text.trim_start().as_bytes().first() {
        Some(b'{') => serde_json::from_str(text).map_err(|e| invalid_json(format!("the body is not valid JSON: {e}"))),
        Some(_) => Err(invalid_json("the body is not a JSON object".to_owned())),
        None => Err(invalid_json("the body is empty".to_owned())),
    }
}

/// The name of the model that a body is for, before anything else of it is read.
pub(crate) fn model_of(body: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        model: Option<&'a RawValue>,
    }
    let named: Named<'_> = json_object(body)?;
    model_name(named.model.filter(|raw| raw.get() != "null"))
}

pub(crate) fn model_name(raw: Option<&RawValue>) -> Result<String> {
    field("model", raw).ok_or_else(|| invalid("model", "'model' is missing"))?.text(NAME_BYTES_MAX)
}

/// Who calls: OpenAI's clients say it in `safety_identifier`, or in `user` before there was that; Anthropic's in their
/// metadata.
pub(crate) fn end_user(body: &[u8], in_metadata: bool) -> Result<Option<EndUser>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        safety_identifier: Option<&'a RawValue>,
        #[serde(borrow, default)]
        user: Option<&'a RawValue>,
        #[serde(borrow, default)]
        metadata: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        user_id: Option<&'a RawValue>,
    }
    let named: Named<'_> = json_object(body)?;
    let found = if in_metadata {
        let metadata = field("metadata", named.metadata).map(|field| field.parse::<Metadata<'_>>("an object")).transpose()?;
        field("metadata.user_id", metadata.and_then(|metadata| metadata.user_id))
    } else {
        field("safety_identifier", named.safety_identifier).or(field("user", named.user))
    };
    let Some(found) = found else { return Ok(None) };
    let name = found.text(NAME_BYTES_MAX)?;
    let mark = Sha256::digest(name.as_bytes()).iter().take(MARK_BYTES).fold(String::new(), |mut mark, byte| {
        // Writing to a string cannot fail.
        let _ = write!(mark, "{byte:02x}");
        mark
    });
    Ok(Some(EndUser { name, mark }))
}

/// A switch that is off unless it is turned on.
pub(crate) fn boolean(name: &'static str, raw: Option<&RawValue>) -> Result<bool> {
    field(name, raw).map_or(Ok(false), |field| field.boolean())
}

/// A number in millionths; `expected` says the range in words.
pub(crate) fn decimal(field: Option<Field<'_>>, default: i64, range: RangeInclusive<i64>, expected: &str) -> Result<Millionths> {
    field.map_or(Ok(Millionths(default)), |field| field.decimal(range, expected))
}

pub(crate) fn top_p(raw: Option<&RawValue>) -> Result<Millionths> {
    decimal(field("top_p", raw), UNIT, 1..=UNIT, "a number above 0 and at most 1")
}

/// -1 and 0 mean all tokens.
pub(crate) fn top_k(raw: Option<&RawValue>) -> Result<Option<u32>> {
    let Some(field) = field("top_k", raw) else { return Ok(None) };
    Ok(u32::try_from(field.integer(-1..=i64::from(u32::MAX))?).ok())
}

/// What OpenAI's clients call the tiers. `auto` leaves the choice to the cloud, which chooses the default.
pub(crate) const TIERS: [(&str, ServiceTier); 5] = [
    ("auto", ServiceTier::Default),
    ("default", ServiceTier::Default),
    ("flex", ServiceTier::Flex),
    ("priority", ServiceTier::Priority),
    ("fast", ServiceTier::Priority),
];

/// The tier that is asked for by one of these names; the default one if none is.
pub(crate) fn service_tier(raw: Option<&RawValue>, tiers: &[(&str, ServiceTier)]) -> Result<ServiceTier> {
    let Some(field) = field("service_tier", raw) else { return Ok(ServiceTier::Default) };
    let asked = field.text(NAME_BYTES_MAX)?;
    if let Some((_, tier)) = tiers.iter().find(|(name, _)| *name == asked) {
        return Ok(*tier);
    }
    let error = invalid("service_tier", "'service_tier' has an unknown value");
    Err(tiers.iter().fold(error, |error, (name, _)| error.alternative(*name)))
}

/// The smaller of `max_tokens` and `max_completion_tokens`: neither may be exceeded.
pub(crate) fn output_max(old: Option<&RawValue>, new: Option<&RawValue>) -> Result<Option<TokenCount>> {
    let read = |field: Option<Field<'_>>| field.map(|field| field.integer(1..=i64::from(i32::MAX))).transpose();
    let (old, new) = (read(field("max_tokens", old))?, read(field("max_completion_tokens", new))?);
    Ok(old.into_iter().chain(new).min().map(TokenCount::new))
}

/// Whether `stream_options` asks for the counts.
pub(crate) fn include_usage(raw: Option<&RawValue>) -> Result<bool> {
    let Some(options) = field("stream_options", raw) else { return Ok(false) };
    let options: StreamOptionFields<'_> = options.parse("an object")?;
    field("stream_options.include_usage", options.include_usage).map_or(Ok(false), |field| field.boolean())
}

/// Turns of one role in a row are one turn: templates expect roles to alternate.
pub(crate) fn push_turn(messages: &mut Vec<ChatMessage>, role: Role, content: String) {
    match messages.last_mut() {
        Some(last) if last.role == role => {
            if !last.content.is_empty() {
                last.content.push_str("\n\n");
            }
            last.content.push_str(&content);
        }
        _ => messages.push(ChatMessage::text(role, content)),
    }
}

/// A call belongs to the turn in which the assistant speaks, also where it comes apart from it.
pub(crate) fn push_call(messages: &mut Vec<ChatMessage>, call: ToolCall) {
    match messages.last_mut() {
        Some(last) if last.role == Role::Assistant => last.tool_calls.push(call),
        _ => messages.push(ChatMessage { tool_calls: vec![call], ..ChatMessage::text(Role::Assistant, "") }),
    }
}

/// What a tool answered. Each answer is a turn of its own, because it names its call.
pub(crate) fn push_result(messages: &mut Vec<ChatMessage>, call: String, content: String) {
    messages.push(ChatMessage { tool_call_id: Some(call), ..ChatMessage::text(Role::Tool, content) });
}

/// One string or a list of them.
pub(crate) fn stop_strings(field: Option<Field<'_>>) -> Result<Vec<String>> {
    let Some(field) = field else { return Ok(Vec::new()) };
    let expected = format!("a string or a list of at most {STOP_STRINGS_MAX} strings, each of 1 to {STOP_BYTES_MAX} bytes");
    let strings = if field.raw.get().starts_with('"') {
        vec![field.parse::<String>(&expected)?]
    } else {
        field.parse::<Bounded<String, STOP_STRINGS_MAX>>(&expected)?.0
    };
    if strings.iter().any(|text| text.is_empty() || text.len() > STOP_BYTES_MAX) {
        return Err(invalid(field.name, format!("'{}' must be {expected}", field.name)));
    }
    Ok(strings)
}
