//! Reading request bodies and query strings: every refusal names the field.

use serde::de::DeserializeOwned;
use sublet_core::error::{Error, ErrorCode, Result};

/// Longest part of a parser's message that is repeated to the caller, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Parses a JSON object. Unknown fields of our own objects are refused by name.
pub fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // Without this an array would do as an object whose fields come in order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::new(ErrorCode::InvalidJson, "the body is not a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => data_error(&path, &inner.to_string()),
            serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
                json_error(&inner)
            }
        }
    })?;
    reader.end().map_err(|error| json_error(&error))?;
    Ok(parsed)
}

/// Parses a query string without its question mark.
pub fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T> {
    let pairs = serde_urlencoded::Deserializer::new(form_pairs(query));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let path = error.path().to_string();
        data_error(&path, &error.into_inner().to_string())
    })
}

fn form_pairs(query: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(query.as_bytes())
}

fn json_error(error: &serde_json::Error) -> Error {
    Error::new(ErrorCode::InvalidJson, format!("the body is not one JSON object: {}", shorten(&error.to_string())))
}

/// Makes the refusal of a value from the path to it and the parser's message.
fn data_error(path: &str, message: &str) -> Error {
    let plain = without_position(message);
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| plain.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    let param = match (path, named) {
        ("." | "?" | "", None) => None,
        ("." | "?" | "", Some(field)) => Some(field.to_owned()),
        (path, None) => Some(path.to_owned()),
        // The path ends in the unknown field itself, and in the parent of a missing one.
        (path, Some(field)) if path == field || path.ends_with(&format!(".{field}")) => Some(path.to_owned()),
        (path, Some(field)) => Some(format!("{path}.{field}")),
    };
    let shown = shorten(&plain.replace('`', "'"));
    match param {
        Some(param) => Error::new(ErrorCode::InvalidRequest, format!("{}: {shown}", shorten(&param))).param(shorten(&param)),
        None => Error::new(ErrorCode::InvalidRequest, shown),
    }
}

/// Drops serde_json's ` at line 1 column 5`, which means nothing to who sent one line.
fn without_position(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| message.get(..end).unwrap_or(message))
}

fn shorten(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::ListQuery;
    use crate::money::Money;
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code, reason = "only parsed")]
        cost: Money,
    }

    #[test]
    fn a_refused_body_names_the_field() {
        for (body, code, param, part) in [
            (r#"{"cost":{"amount":"1","currency":"EUR"},"colour":1}"#, ErrorCode::InvalidRequest, Some("colour"), "expected"),
            (r#"{"cost":{"amount":"1","currency":"EUR","x":1}}"#, ErrorCode::InvalidRequest, Some("cost.x"), "unknown field"),
            ("{}", ErrorCode::InvalidRequest, Some("cost"), "missing field"),
            (r#"{"cost":{"amount":"1"}}"#, ErrorCode::InvalidRequest, Some("cost.currency"), "missing field"),
            (r#"{"cost":{"amount":1,"currency":"EUR"}}"#, ErrorCode::InvalidRequest, Some("cost.amount"), "expected"),
            (r#"{"cost":{"amount":"x","currency":"EUR"}}"#, ErrorCode::InvalidRequest, Some("cost.amount"), "not an amount"),
            ("[1]", ErrorCode::InvalidJson, None, "not a JSON object"),
            ("{", ErrorCode::InvalidJson, None, "not one JSON object"),
            ("{}{}", ErrorCode::InvalidRequest, Some("cost"), "missing field"),
            ("", ErrorCode::InvalidJson, None, "not a JSON object"),
        ] {
            let error = parse_body::<Sample>(body.as_bytes()).expect_err(body);
            assert_eq!((error.code(), error.param_name()), (code, param), "{body}: {error}");
            assert!(error.message().contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn a_refused_query_names_the_parameter() {
        for (query, param) in
            [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("page=2", "page"), ("order=up", "order")]
        {
            let error = parse_query::<ListQuery>(query).unwrap_err();
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some(param)), "{query}: {error}");
        }
        assert_eq!(parse_query::<ListQuery>("").unwrap().page().limit.get(), 20);
        assert_eq!(parse_query::<ListQuery>("limit=100&after=job_1").unwrap().page().limit.get(), 100);
    }
}
