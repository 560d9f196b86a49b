//! A validator of JSON Schema, as far as the tests' schemas go, that shares nothing with the compiler of rules.

use serde_json::Value;

/// Whether `value` is what `schema` describes; panics on a keyword that it does not know.
pub fn is_valid(schema: &Value, value: &Value) -> bool {
    holds(schema, schema, value)
}

fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(map) = schema else { return schema.as_bool().expect("a schema is an object or a boolean") };
    map.iter().all(|(keyword, rule)| keeps(root, schema, (keyword, rule), value))
}

fn keeps(root: &Value, schema: &Value, (keyword, rule): (&str, &Value), value: &Value) -> bool {
    let schemas = || rule.as_array().expect("a list of schemas");
    let bound = || usize::try_from(rule.as_u64().expect("a bound")).expect("a small bound");
    match keyword {
        "$schema" | "$id" | "$defs" | "definitions" | "title" | "description" | "default" | "examples" | "discriminator"
        | "format" | "deprecated" => true,
        "$ref" => {
            let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference inside the schema");
            holds(root, root.pointer(pointer).expect("a reference leads somewhere"), value)
        }
        "const" => value == rule,
        "enum" => schemas().contains(value),
        "anyOf" | "oneOf" => schemas().iter().any(|schema| holds(root, schema, value)),
        "allOf" => schemas().iter().all(|schema| holds(root, schema, value)),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|name| has_type(name, value)),
            name => has_type(name, value),
        },
        "properties" => {
            let named = |(name, schema): (&String, &Value)| value.get(name).is_none_or(|value| holds(root, schema, value));
            rule.as_object().expect("schemas by name").iter().all(named)
        }
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let listed = |name: &String| schema["properties"].get(name).is_some();
            object.iter().all(|(name, value)| listed(name) || holds(root, rule, value))
        }),
        "propertyNames" => {
            value.as_object().is_none_or(|object| object.keys().all(|name| holds(root, rule, &name.as_str().into())))
        }
        "required" => {
            value.as_object().is_none_or(|object| schemas().iter().all(|name| object.contains_key(name.as_str().unwrap())))
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| holds(root, rule, item))),
        "prefixItems" => {
            value.as_array().is_none_or(|items| schemas().iter().zip(items).all(|(rule, item)| holds(root, rule, item)))
        }
        "minItems" => value.as_array().is_none_or(|items| items.len() >= bound()),
        "maxItems" => value.as_array().is_none_or(|items| items.len() <= bound()),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= bound()),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= bound()),
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > rule.as_f64().unwrap()),
        other => panic!("the test's validator does not know {other}"),
    }
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type's name") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type is named {other}"),
    }
}

#[test]
fn the_validator_can_fail() {
    use serde_json::json;
    let schema = json!({
        "$defs": {"A": {"enum": ["x", 1]}},
        "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"type": "array", "items": {"type": ["integer", "null"]}, "maxItems": 2}},
    });
    for (value, valid) in [
        (json!({"a": "x"}), true),
        (json!({"a": 1, "b": [1, null]}), true),
        (json!({"a": "y"}), false),
        (json!({"b": []}), false),
        (json!({"a": 1, "b": [1.5]}), false),
        (json!({"a": 1, "b": [1, 2, 3]}), false),
        (json!({"a": 1, "c": 2}), false),
        (json!([]), false),
    ] {
        assert_eq!(is_valid(&schema, &value), valid, "{value}");
    }
}
