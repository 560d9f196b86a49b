//! Instants on the wire.
//!
//! Requests carry RFC 3339 text. Answers carry Unix seconds where OpenAI's objects do (every
//! `created_at`, and the fields of users, projects, keys, usage and audit entries) and RFC 3339
//! text with microseconds everywhere else, so that what is billed can be recomputed.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode};

/// Seconds since 1970, as OpenAI writes instants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UnixSeconds(pub i64);

impl From<Timestamp> for UnixSeconds {
    fn from(at: Timestamp) -> Self {
        Self(at.seconds())
    }
}
impl From<UnixSeconds> for Timestamp {
    fn from(at: UnixSeconds) -> Self {
        Self::from_seconds(at.0)
    }
}

/// An instant as RFC 3339 text; written in UTC with microseconds, read with any offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rfc3339(pub Timestamp);

impl FromStr for Rfc3339 {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        parsed.map(|at| Self(Timestamp::from_micros(at.as_microsecond()))).map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not an RFC 3339 instant"))
                .alternative("write it with an offset, such as 2026-03-01T00:00:00Z or 2026-03-01T01:00:00+01:00")
        })
    }
}
impl TryFrom<String> for Rfc3339 {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}
impl From<Rfc3339> for String {
    fn from(at: Rfc3339) -> Self {
        at.0.to_string()
    }
}
impl From<Timestamp> for Rfc3339 {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}
impl JsonSchema for Rfc3339 {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Rfc3339")
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// An instant in a query string: RFC 3339 text, or Unix seconds as OpenAI's tools send them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueryInstant(pub Timestamp);

impl TryFrom<String> for QueryInstant {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        match text.parse::<i64>() {
            Ok(seconds) => Ok(Self(Timestamp::from_seconds(seconds))),
            Err(_) => text.parse::<Rfc3339>().map(|at| Self(at.0)),
        }
    }
}
impl From<QueryInstant> for String {
    fn from(at: QueryInstant) -> Self {
        at.0.to_string()
    }
}
impl JsonSchema for QueryInstant {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("QueryInstant")
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "RFC 3339 instant, or Unix seconds" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_with_any_offset_and_written_in_utc() {
        for (text, written) in [
            ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00.000000Z"),
            ("2026-03-01T01:30:00+01:30", "2026-03-01T00:00:00.000000Z"),
            ("2026-02-28T19:00:00.000001-05:00", "2026-03-01T00:00:00.000001Z"),
        ] {
            let at: Rfc3339 = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(at).unwrap(), written);
        }
    }

    #[test]
    fn instants_without_an_offset_are_refused() {
        for text in ["2026-03-01", "2026-03-01T00:00:00", "yesterday", "", "1772323200"] {
            assert!(text.parse::<Rfc3339>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_takes_unix_seconds_too() {
        assert_eq!(QueryInstant::try_from("1772323200".to_owned()), QueryInstant::try_from("2026-03-01T00:00:00Z".to_owned()));
    }
}
