//! The OpenAPI 3.1 document, made from the route table and the types' schemas.
//!
//! Deliberately absent: anything written by hand about a single route. What the document should
//! say belongs into the table or into the types' comments.

use std::collections::{BTreeMap, BTreeSet};

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::error::ErrorBody;
use crate::route::{Answer, Idempotency, Plane, ROUTES, Route, SchemaOf};

const SCHEMAS: &str = "/components/schemas";

/// The whole document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = SCHEMAS.into();
    settings.meta_schema = None;
    let mut builder = Builder { generator: settings.into_generator(), queries: BTreeSet::new() };
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        if !paths.contains_key(&path) {
            order.push(path.clone());
        }
        let operation = builder.operation(route);
        paths.entry(path).or_default().insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    let in_order: Map<String, Value> =
        order.into_iter().filter_map(|path| paths.remove(&path).map(|item| (path, Value::Object(item)))).collect();
    json!({
        "openapi": "3.1.0",
        "info": info(),
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "tags": tags(),
        "paths": in_order,
        "components": { "schemas": builder.schemas(), "securitySchemes": security_schemes(), "responses": responses() },
    })
}

fn info() -> Value {
    json!({
        "title": "Sublet",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        "description": "Model access and raw compute, by usage. Money is a decimal string with a currency. \
            Lists are paged with limit, after, before and order. Every POST that creates or charges takes an \
            Idempotency-Key. Errors have OpenAI's shape, with a stable code and what would work instead.",
    })
}

fn tags() -> Value {
    let tag = |plane: Plane, description: &str| json!({ "name": tag_of(plane), "description": description });
    json!([
        tag(Plane::Public, "Without a key."),
        tag(Plane::Project, "Models and compute of one project: keys that start with sk-sub-."),
        tag(Plane::Admin, "One organization: keys that start with sk-adm-."),
        tag(Plane::Operator, "The cloud itself: keys that start with sk-opr-."),
    ])
}

fn tag_of(plane: Plane) -> &'static str {
    match plane {
        Plane::Public => "public",
        Plane::Project => "project",
        Plane::Admin => "organization",
        Plane::Operator => "operator",
    }
}

/// One event of a stream: its data are the JSON, they are not it.
fn event_schema(data: &Value) -> Value {
    json!({
        "type": "object",
        "description": "One event. A failure in the middle of a stream is an event with an error, and the last.",
        "properties": {
            "event": { "type": "string" },
            "data": { "anyOf": [
                { "const": "[DONE]" },
                { "type": "string", "contentMediaType": "application/json",
                    "contentSchema": { "anyOf": [data, { "$ref": format!("#{SCHEMAS}/ErrorBody") }] } },
            ] },
        },
        "required": ["data"],
    })
}

fn security_schemes() -> Value {
    let scheme = |prefix: &str| json!({ "type": "http", "scheme": "bearer", "bearerFormat": format!("{prefix}…") });
    json!({
        "project": scheme("sk-sub-"),
        "organization": scheme("sk-adm-"),
        "operator": scheme("sk-opr-"),
    })
}

fn responses() -> Value {
    json!({
        "Error": {
            "description": "A refusal or a failure; the code says which.",
            "headers": { "x-request-id": request_id_header() },
            "content": { "application/json": { "schema": { "$ref": format!("#{SCHEMAS}/ErrorBody") } } },
        }
    })
}

fn request_id_header() -> Value {
    json!({ "description": "Id of this request: name it in questions about it.", "schema": { "type": "string" } })
}

struct Builder {
    generator: SchemaGenerator,
    /// Schemas whose fields became parameters.
    queries: BTreeSet<String>,
}

impl Builder {
    fn operation(&mut self, route: &Route) -> Value {
        let mut operation = Map::new();
        operation.insert("operationId".to_owned(), json!(route.operation.name()));
        operation.insert("summary".to_owned(), json!(route.summary));
        operation.insert("tags".to_owned(), json!([tag_of(route.plane)]));
        if let Some(description) = alias_note(route) {
            operation.insert("description".to_owned(), json!(description));
        }
        let parameters = self.parameters(route);
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), Value::Array(parameters));
        }
        if let Some(request) = route.request {
            let schema = self.schema(request);
            let kind = if route.takes_form { "multipart/form-data" } else { "application/json" };
            operation.insert("requestBody".to_owned(), json!({ "required": true, "content": { kind: { "schema": schema } } }));
        }
        operation.insert("responses".to_owned(), self.answers(route));
        let security = match route.plane {
            Plane::Public => json!([]),
            Plane::Project | Plane::Admin | Plane::Operator => json!([{ tag_of(route.plane): [] }]),
        };
        operation.insert("security".to_owned(), security);
        if route.billable {
            operation.insert("x-sublet-billable".to_owned(), json!(true));
        }
        if route.body_bytes_max > 0 {
            operation.insert("x-sublet-body-bytes-max".to_owned(), json!(route.body_bytes_max));
        }
        Value::Object(operation)
    }

    fn schema(&mut self, of: SchemaOf) -> Value {
        of(&mut self.generator).to_value()
    }

    fn parameters(&mut self, route: &Route) -> Vec<Value> {
        let mut parameters: Vec<Value> = route
            .path_parameters()
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        if let Some(query) = route.query {
            parameters.extend(self.query_parameters(query));
        }
        let idempotency = match route.idempotency {
            Idempotency::Ignored => return parameters,
            Idempotency::Stored => "The same key and body give the same answer for 24 hours; another body is refused.",
            Idempotency::OutcomeOnly => {
                "A repeat of a finished request is refused with its id and is never charged; outputs are not stored for repeats."
            }
        };
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "description": idempotency,
            "schema": { "type": "string", "minLength": 1, "maxLength": crate::route::IDEMPOTENCY_KEY_BYTES_MAX },
        }));
        parameters
    }

    /// The fields of a query's schema, each as a parameter.
    fn query_parameters(&mut self, query: SchemaOf) -> Vec<Value> {
        let reference = self.schema(query);
        let name = reference["$ref"].as_str().and_then(|text| text.rsplit('/').next()).unwrap_or_default().to_owned();
        let schema = self.generator.definitions().get(&name).cloned().unwrap_or_default();
        self.queries.insert(name);
        let required: BTreeSet<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
        properties
            .iter()
            .map(|(name, field)| {
                let mut field = without_null(field.clone());
                let description = field.as_object_mut().and_then(|field| field.remove("description"));
                let mut parameter = json!({ "name": name, "in": "query", "schema": field });
                if required.contains(name.as_str()) {
                    parameter["required"] = json!(true);
                }
                if let Some(description) = description {
                    parameter["description"] = description;
                }
                parameter
            })
            .collect()
    }

    fn answers(&mut self, route: &Route) -> Value {
        let content = match route.answer {
            Answer::Json(schema) => json!({ "application/json": { "schema": self.schema(schema) } }),
            Answer::JsonOrEvents(whole, event) => json!({
                "application/json": { "schema": self.schema(whole) },
                "text/event-stream": { "schema": event_schema(&self.schema(event)) },
            }),
            Answer::File => json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } }),
            Answer::Table => json!({
                "text/csv": { "schema": { "type": "string" } },
                "application/vnd.apache.parquet": { "schema": { "type": "string", "format": "binary" } },
            }),
            Answer::Document => json!({
                "application/pdf": { "schema": { "type": "string", "format": "binary" } },
                "application/xml": { "schema": { "type": "string" } },
            }),
            Answer::Refusal => return json!({ "default": { "$ref": "#/components/responses/Error" } }),
            Answer::Text | Answer::TextStream => json!({ "text/plain": { "schema": { "type": "string" } } }),
        };
        json!({
            "200": { "description": route.summary, "headers": { "x-request-id": request_id_header() }, "content": content },
            "default": { "$ref": "#/components/responses/Error" },
        })
    }

    /// Every schema that something refers to, by name.
    fn schemas(mut self) -> Value {
        self.generator.subschema_for::<ErrorBody>();
        let definitions = self.generator.take_definitions(true);
        let kept: BTreeMap<String, Value> = definitions.into_iter().filter(|(name, _)| !self.queries.contains(name)).collect();
        json!(kept)
    }
}

fn alias_note(route: &Route) -> Option<String> {
    let paths = route.paths();
    let aliases: Vec<String> = paths.get(1..)?.iter().map(|path| format!("`{}`", path.replace("{*", "{"))).collect();
    (!aliases.is_empty()).then(|| format!("Also served at {}.", aliases.join(" and ")))
}

/// A parameter that may be left out is not a parameter that may be null.
fn without_null(mut schema: Value) -> Value {
    if let Some(kinds) = schema["type"].as_array() {
        let kinds: Vec<Value> = kinds.iter().filter(|kind| *kind != "null").cloned().collect();
        schema["type"] = if let [only] = kinds.as_slice() { only.clone() } else { Value::Array(kinds) };
    }
    if let Some(values) = schema["enum"].as_array() {
        schema["enum"] = values.iter().filter(|value| !value.is_null()).cloned().collect();
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let real: Vec<Value> = any.iter().filter(|one| one["type"] != "null").cloned().collect();
        if let [only] = real.as_slice() {
            let mut merged = only.clone();
            if let (Some(target), Some(description)) = (merged.as_object_mut(), schema.get("description")) {
                target.insert("description".to_owned(), description.clone());
            }
            return merged;
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a value.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#{SCHEMAS}/{name}")), "nothing uses {name}");
        }
    }

    #[test]
    fn the_data_of_an_event_are_described_and_not_the_event() {
        let content = &document()["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"];
        let event = &content["text/event-stream"]["schema"];
        assert_eq!(event["required"], json!(["data"]));
        let data = &event["properties"]["data"]["anyOf"];
        assert_eq!(data[0]["const"], "[DONE]");
        assert_eq!(data[1]["contentSchema"]["anyOf"][0]["$ref"], "#/components/schemas/CompletionChunk");
    }

    #[test]
    fn every_route_of_the_table_is_in_the_document_with_its_plane() {
        let document = document();
        for route in ROUTES {
            let path = route.path.replace("{*", "{");
            let operation = &document["paths"][&path][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.operation.name(), "{route:?}");
            assert_eq!(operation["security"].as_array().unwrap().is_empty(), route.plane == Plane::Public, "{route:?}");
        }
    }

    #[test]
    fn query_parameters_are_bounded_and_never_null() {
        let document = document();
        let parameters = document["paths"]["/v1/jobs"]["get"]["parameters"].as_array().unwrap();
        let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
        let pointer = limit["schema"]["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')).unwrap();
        let schema = document.pointer(pointer).unwrap();
        assert_eq!((&schema["minimum"], &schema["maximum"]), (&json!(1), &json!(100)), "{schema}");
        assert!(!document["paths"].to_string().contains(r#""type":"null""#));
    }
}
