//! Tools that a request offers, and how its answer may use them.
//!
//! A forced call is constrained decoding: the model cannot write anything else. One tool constrains
//! the output to its arguments, several to an object that names one of them. A call that is left to the
//! model is found in its text, if its template says how it is written there.
//!
//! Invariants: names are letters, digits, `_` and `-`, so that they can stand in a grammar and in any
//! API; everything is bounded before it is parsed.
//!
//! Deliberately absent: running tools, and several calls where one is forced.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sublet_api::openai::ToolFields;
use sublet_core::engine::{Calling, Chat, ChatMessage, Constraint, ModelInfo, Tool, ToolTemplate};
use sublet_core::{Error, Result};

use super::field::{Bounded, field, invalid, unsupported};
use super::format::Rule;
use super::piece::Reading;

/// Functions one request may offer.
pub(crate) const TOOLS_MAX: usize = 128;
/// Tools of any kind that a list may have, those that are skipped included.
const LISTED_MAX: usize = 1_024;
/// JSON text of all tools, in bytes.
const TOOLS_BYTES_MAX: usize = 1_024 * 1_024;
pub(crate) const NAME_BYTES_MAX: usize = 64;
const DESCRIPTION_BYTES_MAX: usize = 64 * 1_024;
/// Keywords that say of which type a value is, or where that is said.
const TYPING: [&str; 7] = ["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"];
/// Keywords whose values are data: what looks like a reference in them is none.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

/// Which tool is to be called.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) enum Choice {
    None,
    /// The model decides.
    #[default]
    Auto,
    /// One of them.
    Required,
    Named(String),
}

/// What a request offers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Offer {
    pub tools: Vec<Tool>,
    pub choice: Choice,
}

/// What follows for the prompt, the output and its reading.
#[derive(Debug)]
pub(crate) struct Plan {
    pub chat: Chat,
    pub reading: Reading,
    pub rule: Option<Rule>,
}

impl Offer {
    /// Checks that what is chosen is offered, and says how it comes about. `format` is what the text of
    /// the answer has to be; the arguments of a forced call have a form of their own.
    pub fn plan(self, messages: Vec<ChatMessage>, format: Option<Rule>) -> Result<Plan> {
        let Self { tools, choice } = self;
        let only = if let [only] = tools.as_slice() { Some(only.name.clone()) } else { None };
        let choice = match (choice, only) {
            (Choice::Required, Some(only)) => Choice::Named(only),
            (choice, _) => choice,
        };
        let names = || tools.iter().map(|tool| tool.name.clone());
        let (calling, reading, rule) = match &choice {
            Choice::None => {
                return Ok(Plan { chat: messages.into(), reading: Reading::Text, rule: format });
            }
            Choice::Auto if tools.is_empty() => (Calling::Free, Reading::Text, format),
            Choice::Auto => {
                if let Some(format) = format {
                    let error = unsupported(format.param, "beside tools that the model may call is not supported");
                    return Err(error.alternative("send 'tool_choice': 'none', or force a call"));
                }
                (Calling::Free, Reading::Tagged(names().collect()), None)
            }
            Choice::Required if tools.is_empty() => {
                return Err(invalid("tool_choice", "'tool_choice' forces a call and there are no tools"));
            }
            Choice::Required => (Calling::Forced, Reading::Called, Some(rule(&any_call(&tools), Calling::Forced))),
            Choice::Named(name) => {
                let Some(tool) = tools.iter().find(|tool| tool.name == *name) else {
                    let error = invalid("tool_choice", "'tool_choice' names a function that is not among the tools");
                    return Err(names().take(TOOLS_MAX).fold(error, Error::alternative));
                };
                (
                    Calling::Named(name.clone()),
                    Reading::Named(name.clone()),
                    Some(rule(&arguments_schema(tool), Calling::Named(name.clone()))),
                )
            }
        };
        Ok(Plan { chat: Chat { messages, tools, calling }, reading, rule })
    }
}

fn rule(schema: &Value, calling: Calling) -> Rule {
    Rule { constraint: Constraint::Call { schema: schema.to_string().into(), calling }, param: "tools" }
}

/// How calls are found in the text of this model. One whose template shows no tools cannot choose one.
pub(crate) fn fit(reading: &mut Reading, model: &ModelInfo) -> Result<()> {
    match (&reading, model.tools) {
        (Reading::Tagged(_), ToolTemplate::Absent) => {
            let error = unsupported("tools", "needs a model that knows tools; this one can only be forced to call");
            Err(error.alternative("force a call with 'tool_choice'"))
        }
        (Reading::Tagged(_), ToolTemplate::Shown) => {
            *reading = Reading::Text;
            Ok(())
        }
        (Reading::Tagged(_), ToolTemplate::Tagged) | (Reading::Text | Reading::Named(_) | Reading::Called, _) => Ok(()),
    }
}

/// A schema of the arguments, which are an object in any case.
fn arguments_schema(tool: &Tool) -> Value {
    let parsed = tool.parameters.as_deref().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let Some(mut schema) = parsed else { return json!({"type": "object", "additionalProperties": false}) };
    if !TYPING.iter().any(|name| schema.contains_key(*name)) {
        schema.insert("type".to_owned(), json!("object"));
    }
    // Who writes that there are no properties means that there are none.
    if schema.get("properties").and_then(Value::as_object).is_some_and(Map::is_empty)
        && !schema.contains_key("additionalProperties")
    {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    Value::Object(schema)
}

/// An object with the name and the arguments of one of the tools.
fn any_call(tools: &[Tool]) -> Value {
    let mut definitions = Map::new();
    let mut calls = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        let place = format!("tool{index}");
        let mut schema = arguments_schema(tool);
        move_references(&mut schema, &place);
        definitions.insert(place.clone(), schema);
        calls.push(json!({
            "type": "object", "required": ["name", "arguments"], "additionalProperties": false,
            "properties": {"name": {"const": tool.name}, "arguments": {"$ref": format!("#/$defs/{place}")}},
        }));
    }
    json!({"anyOf": calls, "$defs": definitions})
}

/// A schema that became a definition refers to its own parts at their new place.
fn move_references(value: &mut Value, place: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(rest) = reference.strip_prefix('#')
            {
                *reference = format!("#/$defs/{place}{rest}");
            }
            let inner = map.iter_mut().filter(|(name, _)| !DATA.contains(&name.as_str()));
            inner.for_each(|(_, value)| move_references(value, place));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| move_references(value, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Where an API has the parts of a tool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ToolShape {
    /// In `function`; other kinds are refused.
    Chat,
    /// Flat; other kinds are skipped, because agents offer them to whoever can use them.
    Response,
    /// Flat, with `input_schema`; other kinds are skipped.
    Message,
}

/// Reads the field `tools`; with each function the text that it was sent as.
pub(crate) fn read_tools<'a>(raw: Option<&'a RawValue>, shape: ToolShape) -> Result<Vec<(Tool, &'a RawValue)>> {
    let Some(field) = field("tools", raw) else { return Ok(Vec::new()) };
    let expected = format!("a list of at most {TOOLS_MAX} functions in at most {TOOLS_BYTES_MAX} bytes");
    if field.raw.get().len() > TOOLS_BYTES_MAX {
        return Err(invalid("tools", format!("'tools' must be {expected}")));
    }
    let Bounded(list) = field.parse::<Bounded<&'a RawValue, LISTED_MAX>>(&expected)?;
    let mut tools: Vec<(Tool, &'a RawValue)> = Vec::new();
    for (index, raw) in list.into_iter().enumerate() {
        let param = format!("tools[{index}]");
        let fields: ToolFields<'a> =
            serde_json::from_str(raw.get()).map_err(|_| invalid(&param, format!("'{param}' must be an object")))?;
        let Some(tool) = read_tool(&param, &fields, shape)? else { continue };
        if tools.iter().any(|(other, _)| other.name == tool.name) {
            return Err(invalid(&param, format!("'{param}' has a name that another tool has")));
        }
        tools.push((tool, raw));
        if tools.len() > TOOLS_MAX {
            return Err(invalid("tools", format!("'tools' must be {expected}")));
        }
    }
    Ok(tools)
}

fn read_tool(param: &str, fields: &ToolFields<'_>, shape: ToolShape) -> Result<Option<Tool>> {
    let kind = text::<Option<String>>(&format!("{param}.type"), fields.r#type, "a string")?.flatten();
    match (shape, kind.as_deref()) {
        (ToolShape::Chat, Some("function")) => {
            let nested = format!("{param}.function");
            let function = text::<ToolFields<'_>>(&nested, fields.function, "an object with a name")?;
            let function = function.ok_or_else(|| invalid(&nested, format!("'{nested}' is missing")))?;
            function_of(&nested, &function, ("parameters", function.parameters)).map(Some)
        }
        (ToolShape::Chat, _) => Err(unsupported(&format!("{param}.type"), "other than function is not supported")),
        (ToolShape::Response, Some("function")) => function_of(param, fields, ("parameters", fields.parameters)).map(Some),
        (ToolShape::Message, None | Some("custom")) => function_of(param, fields, ("input_schema", fields.input_schema)).map(Some),
        (ToolShape::Response | ToolShape::Message, _) => Ok(None),
    }
}

fn function_of(param: &str, fields: &ToolFields<'_>, (schema_name, schema): (&str, Option<&RawValue>)) -> Result<Tool> {
    let name = name(&format!("{param}.name"), fields.name)?;
    let description = text::<String>(&format!("{param}.description"), fields.description, "a string")?;
    if description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_BYTES_MAX) {
        let param = format!("{param}.description");
        return Err(invalid(&param, format!("'{param}' must have at most {DESCRIPTION_BYTES_MAX} bytes")));
    }
    let parameters = match schema {
        Some(raw) if raw.get().starts_with('{') => Some(raw.get().to_owned()),
        Some(_) => {
            let param = format!("{param}.{schema_name}");
            return Err(invalid(&param, format!("'{param}' must be an object")));
        }
        None => None,
    };
    Ok(Tool { name, description, parameters })
}

/// The name of a function.
pub(crate) fn name(param: &str, raw: Option<&RawValue>) -> Result<String> {
    let expected = format!("1 to {NAME_BYTES_MAX} letters, digits, '_' and '-'");
    let name = text::<String>(param, raw, &expected)?.ok_or_else(|| invalid(param, format!("'{param}' is missing")))?;
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        return Ok(name);
    }
    Err(invalid(param, format!("'{param}' must be {expected}")))
}

/// A field of an object inside a list, if it is there.
pub(crate) fn text<'a, T: Deserialize<'a>>(param: &str, raw: Option<&'a RawValue>, expected: &str) -> Result<Option<T>> {
    let parse =
        |raw: &'a RawValue| serde_json::from_str(raw.get()).map_err(|_| invalid(param, format!("'{param}' must be {expected}")));
    raw.map(parse).transpose()
}
