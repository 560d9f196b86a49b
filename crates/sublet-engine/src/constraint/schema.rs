//! Makes a JSON Schema one that a small model can finish.
//!
//! Everything that the changed schema allows, the given one allows too, with one exception that
//! JSON Schema itself makes: `format` says something about a text and forbids nothing, so names
//! that the compiler does not know are left out.
//!
//! - White space is one blank after a comma and a colon, as Python writes it and models have read it
//!   in training. More is legal everywhere, and a model that is unsure fills its limit with it; less
//!   leads a model off its way, which then writes the missing blank into the next text.
//! - An object that lists its properties has no others unless its schema says so: invented ones
//!   are legal too.
//! - `oneOf` is compiled as `anyOf`: what one alternative derives may match a second one.
//!
//! Deliberately absent: checking a schema. The compiler refuses what it cannot keep.

use llguidance::JsonCompileOptions;
use serde_json::{Map, Value};

/// Formats that the compiler can keep.
const FORMATS: [&str; 10] = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];
/// Keywords whose values are schemas by name.
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Keywords whose value is a schema or a list of them.
const NESTED: [&str; 7] = ["items", "prefixItems", "additionalItems", "additionalProperties", "anyOf", "oneOf", "allOf"];
/// Keywords that say which other properties an object may have.
const OPENING: [&str; 3] = ["additionalProperties", "patternProperties", "unevaluatedProperties"];
/// Keywords beside which `properties` are only a part of what an object has.
const COMPOSING: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];

/// The schema with how it is to be compiled.
pub fn compact(mut schema: Value) -> Value {
    let closing = if composes(&schema) { Closing::Never } else { Closing::Listed };
    tighten(&mut schema, closing);
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        coerce_one_of: true,
        ..JsonCompileOptions::default()
    };
    if schema.is_object() {
        options.apply_to(&mut schema);
    }
    schema
}

/// Which objects are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Those that list their properties.
    Listed,
    /// None: parts that add to each other would forbid each other's properties.
    Never,
}

/// Whether any object is described by several schemas at once.
fn composes(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            let several = map.get("allOf").and_then(Value::as_array).is_some_and(|parts| parts.len() > 1);
            let beside = map.contains_key("properties") && COMPOSING.iter().any(|name| map.contains_key(*name));
            several || beside || map.values().any(composes)
        }
        Value::Array(values) => values.iter().any(composes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Changes a schema and those inside it. Recursion is bounded by what the parser of JSON takes.
fn tighten(schema: &mut Value, closing: Closing) {
    let Value::Object(map) = schema else { return };
    for (name, value) in map.iter_mut() {
        if NAMED.contains(&name.as_str()) {
            value.as_object_mut().into_iter().flatten().for_each(|(_, schema)| tighten(schema, closing));
        } else if NESTED.contains(&name.as_str()) {
            match value {
                Value::Array(schemas) => schemas.iter_mut().for_each(|schema| tighten(schema, closing)),
                schema => tighten(schema, closing),
            }
        }
    }
    map.retain(|name, value| !says_nothing(name, value));
    if closing == Closing::Listed && lists_its_properties(map) {
        map.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// Keywords that the compiler does not take and that forbid nothing.
fn says_nothing(name: &str, value: &Value) -> bool {
    match name {
        "format" => value.as_str().is_some_and(|format| !FORMATS.contains(&format)),
        "uniqueItems" => *value == Value::Bool(false),
        "propertyNames" => *value == serde_json::json!({"type": "string"}),
        _ => false,
    }
}

fn lists_its_properties(map: &Map<String, Value>) -> bool {
    let listed = map.get("properties").and_then(Value::as_object).is_some_and(|properties| !properties.is_empty());
    listed && !OPENING.iter().any(|name| map.contains_key(*name))
}
