//! The items of an input: what a request sends, what was kept of earlier ones, and what is kept of it.
//!
//! Items that were kept are read by the same code as those that are sent, so that going on from a
//! response and sending its items again is the same conversation.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sublet_api::openai::PartFields;
use sublet_api::responses::{
    CallOutput, InputItem, InputItemFields, InputMessage, InputPart, InputText, KeptOutputFields, OutputCall, OutputText,
};
use sublet_core::engine::{ChatMessage, Role, ToolCall};
use sublet_core::id::{RequestId, ResponseId};
use sublet_core::response::Turn;
use sublet_core::{Error, Result};

use crate::dialect::body::{push_call, push_result, push_turn};
use crate::dialect::field::{Bounded, invalid, unsupported};
use crate::dialect::json;
use crate::dialect::tools::{self, name};

pub(super) const ITEMS_MAX: usize = 8_192;
const PARTS_MAX: usize = 1_024;
/// Longest id of an item that is looked for, in bytes.
const ITEM_ID_BYTES_MAX: usize = 128;
const COMPLETED: &str = "completed";

/// One thing that was said before the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Message {
        role: Role,
        parts: Vec<String>,
    },
    Call(ToolCall),
    /// What a call gave.
    Output {
        call: String,
        text: String,
    },
}

/// What a request refers to that was kept before it.
#[derive(Default, Debug)]
pub(crate) struct Earlier {
    /// The response that is gone on from.
    pub previous: Option<ResponseId>,
    /// Its conversation, oldest first.
    items: Vec<Item>,
    /// Single items by their ids.
    referred: BTreeMap<String, Item>,
}

/// What is to be kept of a request.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub previous: Option<ResponseId>,
    items: Vec<Item>,
}

impl Earlier {
    /// A conversation that is gone on from.
    pub fn conversation(previous: ResponseId, turns: &[Turn]) -> Result<Self> {
        let mut items = Vec::new();
        for turn in turns {
            items.extend(stored(turn)?.into_iter().map(|(_, item)| item));
        }
        Ok(Self { previous: Some(previous), items, ..Self::default() })
    }

    /// Adds the items of responses that are referred to one by one.
    pub fn refer_to(&mut self, turns: &[Turn]) -> Result<()> {
        for turn in turns {
            self.referred.extend(stored(turn)?);
        }
        Ok(())
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }
}

impl Draft {
    pub fn new(previous: Option<ResponseId>, items: Vec<Item>) -> Self {
        Self { previous, items }
    }

    /// The items as they are kept, each with an id that names its response.
    pub fn into_input(self, request: &RequestId) -> Vec<u8> {
        let body = request.as_str().split_once('_').map_or(request.as_str(), |(_, body)| body);
        let written = |(place, item): (usize, Item)| item.written(body, place);
        json(&self.items.into_iter().enumerate().map(written).collect::<Vec<_>>())
    }
}

/// The response that an item belongs to: items of this cloud are named after theirs.
pub(crate) fn response_of(item: &str) -> Option<ResponseId> {
    let (_, rest) = item.split_once('_').filter(|_| item.len() <= ITEM_ID_BYTES_MAX)?;
    let body = rest.split('_').next()?;
    format!("resp_{body}").parse().ok()
}

/// What a kept response was asked and answered, each item with its id.
fn stored(turn: &Turn) -> Result<Vec<(String, Item)>> {
    let broken = |error: serde_json::Error| Error::internal(format!("what is kept of {} cannot be read: {error}", turn.id));
    let input: Vec<InputItemFields<'_>> = serde_json::from_str(&turn.input).map_err(broken)?;
    let object: KeptOutputFields<'_> = serde_json::from_str(&turn.object).map_err(broken)?;
    let output: Vec<InputItemFields<'_>> =
        object.output.map_or(Ok(Vec::new()), |output| serde_json::from_str(output.get())).map_err(broken)?;
    let mut items = Vec::with_capacity(input.len() + output.len());
    for (index, fields) in input.iter().chain(&output).enumerate() {
        let id = fields.id.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).unwrap_or_default();
        let is_call = fields.r#type.is_some_and(|raw| raw.get() == "\"function_call\"");
        let item = if is_call { called(index, fields).map(Some) } else { Item::read(index, fields, &Earlier::default()) };
        let item = item.map_err(|error| Error::internal(format!("what is kept of {} cannot be used: {error}", turn.id)))?;
        items.extend(item.map(|item| (id, item)));
    }
    Ok(items)
}

impl Item {
    /// Reads one item; `None` for what is not part of what a model reads.
    pub fn read(index: usize, fields: &InputItemFields<'_>, earlier: &Earlier) -> Result<Option<Self>> {
        let kind = fields.r#type.map_or(Some("message"), |raw| serde_json::from_str::<&str>(raw.get()).ok());
        match kind {
            Some("message") => message(index, fields).map(Some),
            Some("function_call") => call(index, fields).map(|call| Some(Self::Call(call))),
            Some("function_call_output") => call_output(index, fields).map(Some),
            // What a model thought before is not part of what it reads.
            Some("reasoning") => Ok(None),
            Some("item_reference") => referred(index, fields, earlier).map(Some),
            Some(_) => {
                let param = format!("input[{index}].type");
                Err(unsupported(&param, "other than messages and functions is not supported by the models served here"))
            }
            None => Err(invalid(&format!("input[{index}].type"), "an item's type must be a string")),
        }
    }

    /// Adds it to what the model reads.
    pub fn push(self, messages: &mut Vec<ChatMessage>) {
        match self {
            Self::Message { role, parts } => push_turn(messages, role, parts.concat()),
            Self::Call(call) => push_call(messages, call),
            Self::Output { call, text } => push_result(messages, call, text),
        }
    }

    fn written(self, body: &str, place: usize) -> InputItem {
        let id = |prefix: &str| format!("{prefix}_{body}_i{place}");
        let status = COMPLETED.to_owned();
        match self {
            Self::Message { role, parts } => InputItem::Message(InputMessage {
                id: id("msg"),
                r#type: "message".to_owned(),
                status,
                role: role_name(role).to_owned(),
                content: parts.into_iter().map(|text| part(role, text)).collect(),
            }),
            Self::Call(ToolCall { id: call_id, name, arguments }) => {
                InputItem::Call(OutputCall { id: id("fc"), r#type: "function_call".to_owned(), status, call_id, name, arguments })
            }
            Self::Output { call, text } => InputItem::CallOutput(CallOutput {
                id: id("fco"),
                r#type: "function_call_output".to_owned(),
                status,
                call_id: call,
                output: text,
            }),
        }
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

fn part(role: Role, text: String) -> InputPart {
    if role == Role::Assistant {
        let r#type = "output_text".to_owned();
        return InputPart::Output(OutputText { r#type, text, annotations: Vec::new(), logprobs: Vec::new() });
    }
    InputPart::Text(InputText { r#type: "input_text".to_owned(), text })
}

/// The ids that items of an input refer to. Whatever cannot be read is refused later, by name.
pub(crate) fn references(input: &RawValue) -> Vec<String> {
    let Ok(Bounded(items)) = serde_json::from_str::<Bounded<InputItemFields<'_>, ITEMS_MAX>>(input.get()) else {
        return Vec::new();
    };
    let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let is_reference = |item: &&InputItemFields<'_>| text(item.r#type).as_deref() == Some("item_reference");
    items.iter().filter(is_reference).filter_map(|item| text(item.id)).collect()
}

fn referred(index: usize, fields: &InputItemFields<'_>, earlier: &Earlier) -> Result<Item> {
    let param = format!("input[{index}]");
    let id = text_of(&format!("{param}.id"), fields.id)?;
    earlier.referred.get(&id).cloned().ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        invalid(&param, format!("Item with id '{shown}' not found"))
            .alternative("send whole items; clients do so with 'store': false")
            .alternative("send 'store': true with the request whose items are referred to")
    })
}

/// A call that a model made: its name is whatever the model said.
fn called(index: usize, item: &InputItemFields<'_>) -> Result<Item> {
    let text = |name: &str, raw| text_of(&format!("input[{index}].{name}"), raw);
    let (id, name, arguments) = (text("call_id", item.call_id)?, text("name", item.name)?, text("arguments", item.arguments)?);
    Ok(Item::Call(ToolCall { id, name, arguments }))
}

/// A call of an earlier turn.
fn call(index: usize, item: &InputItemFields<'_>) -> Result<ToolCall> {
    let param = |name: &str| format!("input[{index}].{name}");
    Ok(ToolCall {
        id: text_of(&param("call_id"), item.call_id)?,
        name: name(&param("name"), item.name)?,
        arguments: text_of(&param("arguments"), item.arguments)?,
    })
}

/// Which call it answers, and how.
fn call_output(index: usize, item: &InputItemFields<'_>) -> Result<Item> {
    let param = |name: &str| format!("input[{index}].{name}");
    let output = item.output.ok_or_else(|| invalid(&param("output"), format!("'{}' is missing", param("output"))))?;
    let call = text_of(&param("call_id"), item.call_id)?;
    Ok(Item::Output { call, text: texts(&param("output"), output)?.concat() })
}

fn text_of(param: &str, raw: Option<&RawValue>) -> Result<String> {
    tools::text(param, raw, "a string")?.ok_or_else(|| invalid(param, format!("'{param}' is missing")))
}

fn message(index: usize, item: &InputItemFields<'_>) -> Result<Item> {
    let param = |name: &str| format!("input[{index}].{name}");
    let role = match item.role.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()) {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err(invalid(&param("role"), format!("'{}' must be system, developer, user or assistant", param("role")))),
    };
    let content = item.content.ok_or_else(|| invalid(&param("content"), format!("'{}' is missing", param("content"))))?;
    Ok(Item::Message { role, parts: texts(&param("content"), content)? })
}

/// A string, or parts of text.
fn texts(param: &str, raw: &RawValue) -> Result<Vec<String>> {
    let wrong = || invalid(param, format!("'{param}' must be a string or a list of at most {PARTS_MAX} text parts"));
    if raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map(|text| vec![text]).map_err(|_| wrong());
    }
    let Bounded(parts) = serde_json::from_str::<Bounded<PartFields<'_>, PARTS_MAX>>(raw.get()).map_err(|_| wrong())?;
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let kind = part.r#type.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()).ok_or_else(wrong)?;
        let value = match kind {
            "input_text" | "output_text" | "text" => part.text,
            "refusal" => part.refusal,
            _ => {
                let param = format!("{param}[{index}].type");
                return Err(unsupported(&param, "other than text is not supported by the models served here"));
            }
        };
        texts.push(value.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(wrong)?);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(items: &Value) -> Vec<Item> {
        let text = items.to_string();
        let fields: Vec<InputItemFields<'_>> = serde_json::from_str(&text).unwrap();
        fields.iter().enumerate().filter_map(|(index, fields)| Item::read(index, fields, &Earlier::default()).unwrap()).collect()
    }

    fn request() -> RequestId {
        "req_01abc".parse().unwrap()
    }

    #[test]
    fn what_is_kept_reads_as_what_was_sent() {
        let sent = json!([
            { "role": "user", "content": "a" },
            { "role": "assistant", "content": [{ "type": "output_text", "text": "b" }, { "type": "refusal", "refusal": "c" }] },
            { "type": "reasoning", "summary": [] },
            { "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{\"a\": 1.0}" },
            { "type": "function_call_output", "call_id": "call_1", "output": [{ "type": "input_text", "text": "d" }] },
        ]);
        let items = read(&sent);
        let input = String::from_utf8(Draft::new(None, items.clone()).into_input(&request())).unwrap();
        let kept: Value = serde_json::from_str(&input).unwrap();
        assert_eq!(read(&kept), items);
        let ids: Vec<&str> = kept.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["msg_01abc_i0", "msg_01abc_i1", "fc_01abc_i2", "fco_01abc_i3"]);
        assert!(ids.iter().all(|id| response_of(id) == Some(ResponseId::of(&request()))));
        assert_eq!((&kept[0]["content"][0]["type"], &kept[1]["content"][1]["text"]), (&json!("input_text"), &json!("c")));
    }

    #[test]
    fn a_conversation_is_what_was_asked_and_answered_in_order() {
        let turn = |id: &str, asked: &str, said: &str| {
            Turn {
            id: id.parse().unwrap(),
            input: json!([{ "id": "msg_1_i0", "type": "message", "role": "user", "content": [{ "type": "input_text", "text": asked }] }])
                .to_string(),
            object: json!({ "instructions": "be brief", "output": [
                { "id": "msg_1", "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": said }] },
            ] })
            .to_string(),
        }
        };
        let earlier = Earlier::conversation("resp_2".parse().unwrap(), &[turn("resp_1", "a", "b"), turn("resp_2", "c", "d")]);
        let said: Vec<String> = earlier
            .unwrap()
            .items()
            .iter()
            .map(|item| match item {
                Item::Message { parts, .. } => parts.concat(),
                Item::Call(_) | Item::Output { .. } => panic!("messages only"),
            })
            .collect();
        assert_eq!(said, ["a", "b", "c", "d"], "without the instructions");
    }

    #[test]
    fn an_item_names_its_response() {
        for (item, response) in [
            ("msg_01abc", Some("resp_01abc")),
            ("msg_01abc_2", Some("resp_01abc")),
            ("fc_01abc_0_1", Some("resp_01abc")),
            ("msg", None),
            ("msg_ABC", None),
            ("", None),
        ] {
            assert_eq!(response_of(item).as_ref().map(ResponseId::as_str), response, "{item}");
        }
    }
}
