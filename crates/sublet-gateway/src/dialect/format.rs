//! Reads what form an answer must have: a schema, an expression, a choice, a grammar.
//!
//! Whether the engine can keep it is found out by the engine, before anything is computed.

use serde_json::value::RawValue;
use sublet_api::openai::{FormatFields, GenerationFields, StructuredFields};
use sublet_core::engine::Constraint;
use sublet_core::{Error, Result};

use super::field::{Bounded, Field, field, invalid, unsupported};

/// Longest schema, expression or grammar, in bytes of JSON.
pub(crate) const RULE_BYTES_MAX: usize = 256 * 1_024;
const CHOICES_MAX: usize = 1_024;
const ANY_OBJECT: &str = r#"{"type":"object"}"#;

/// A rule for the whole output, and the field that it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub constraint: Constraint,
    pub param: &'static str,
}

impl Rule {
    /// An error of the rule names the field of the request.
    pub fn blame(&self, error: Error) -> Error {
        match error.param_name() {
            Some("response_format") => error.param(self.param),
            _ => error,
        }
    }
}

/// The rule of a chat or text completion: `response_format`, or one of the names that vLLM gave.
pub(crate) fn of_generation(fields: &GenerationFields<'_>) -> Result<Option<Rule>> {
    let found = [
        openai_format("response_format", fields.response_format)?,
        field("guided_json", fields.guided_json).map(schema).transpose()?,
        field("guided_regex", fields.guided_regex).map(regex).transpose()?,
        field("guided_choice", fields.guided_choice).map(choice).transpose()?,
        field("guided_grammar", fields.guided_grammar).map(grammar).transpose()?,
        field("structured_outputs", fields.structured_outputs).map(structured).transpose()?.flatten(),
    ];
    let mut found = found.into_iter().flatten();
    let first = found.next();
    match found.next() {
        Some(second) => Err(invalid(second.param, format!("'{}' says a second time what form the answer has", second.param))),
        None => Ok(first),
    }
}

/// OpenAI's format objects. `name` is that of the field.
pub(crate) fn openai_format(name: &'static str, raw: Option<&RawValue>) -> Result<Option<Rule>> {
    let Some(format) = field(name, raw) else { return Ok(None) };
    let fields: FormatFields<'_> = format.parse("an object with a type")?;
    let constraint = match fields.r#type.and_then(|raw| serde_json::from_str::<&str>(raw.get()).ok()) {
        Some("text") => return Ok(None),
        Some("json_object") => Constraint::JsonObject,
        Some("json_schema") => {
            let nested = fields.json_schema.map(|raw| Field { name, raw }.parse::<FormatFields<'_>>("an object with a schema"));
            let raw = nested.transpose()?.map_or(fields.schema, |nested| nested.schema);
            let raw = raw.ok_or_else(|| invalid(name, format!("'{name}' of type json_schema must have a schema")))?;
            schema(Field { name, raw })?.constraint
        }
        Some(_) => return Err(unsupported(name, "of this type is not supported").alternative("text, json_object or json_schema")),
        None => return Err(invalid(name, format!("'{name}' must be an object with a type"))),
    };
    Ok(Some(Rule { constraint, param: name }))
}

/// A schema; some clients send it as text.
fn schema(field: Field<'_>) -> Result<Rule> {
    let text = if field.raw.get().starts_with('"') { field.parse::<String>("a schema")? } else { field.raw.get().to_owned() };
    let constraint =
        if text == ANY_OBJECT { Constraint::JsonObject } else { Constraint::JsonSchema(bounded(&field, text)?.into()) };
    Ok(Rule { constraint, param: field.name })
}

fn regex(field: Field<'_>) -> Result<Rule> {
    let text = bounded(&field, field.parse("a string")?)?;
    Ok(Rule { constraint: Constraint::Regex(text.into()), param: field.name })
}

fn grammar(field: Field<'_>) -> Result<Rule> {
    let text = bounded(&field, field.parse("a string")?)?;
    Ok(Rule { constraint: Constraint::Grammar(text.into()), param: field.name })
}

/// One of some texts.
fn choice(field: Field<'_>) -> Result<Rule> {
    let expected = format!("a list of 1 to {CHOICES_MAX} texts that are not empty");
    let Bounded(texts) = field.parse::<Bounded<String, CHOICES_MAX>>(&expected)?;
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(invalid(field.name, format!("'{}' must be {expected}", field.name)));
    }
    let escaped = |text: &String| text.chars().map(escaped).collect::<String>();
    let regex = bounded(&field, texts.iter().map(escaped).collect::<Vec<_>>().join("|"))?;
    Ok(Rule { constraint: Constraint::Regex(regex.into()), param: field.name })
}

/// The expression of one character. What may mean something is given as a number.
fn escaped(character: char) -> String {
    if character.is_alphanumeric() { character.to_string() } else { format!("\\u{{{:x}}}", u32::from(character)) }
}

/// vLLM's later name for all of these.
fn structured(field: Field<'_>) -> Result<Option<Rule>> {
    let fields: StructuredFields<'_> = field.parse("an object")?;
    let under = |raw| Field { name: field.name, raw };
    match fields {
        StructuredFields { json: Some(raw), regex: None, choice: None, grammar: None, .. } => schema(under(raw)).map(Some),
        StructuredFields { json: None, regex: Some(raw), choice: None, grammar: None, .. } => regex(under(raw)).map(Some),
        StructuredFields { json: None, regex: None, choice: Some(raw), grammar: None, .. } => choice(under(raw)).map(Some),
        StructuredFields { json: None, regex: None, choice: None, grammar: Some(raw), .. } => grammar(under(raw)).map(Some),
        StructuredFields { json: None, regex: None, choice: None, grammar: None, json_object: Some(raw) } => {
            let is_on = under(raw).boolean()?;
            Ok(is_on.then_some(Rule { constraint: Constraint::JsonObject, param: field.name }))
        }
        _ => Err(unsupported(field.name, "must say one of json, regex, choice, grammar and json_object")),
    }
}

fn bounded(field: &Field<'_>, text: String) -> Result<String> {
    if text.is_empty() || text.len() > RULE_BYTES_MAX {
        return Err(invalid(field.name, format!("'{}' must have 1 to {RULE_BYTES_MAX} bytes", field.name)));
    }
    Ok(text)
}
