//! Reads single fields of a request from their JSON text, and names the field when it cannot.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;
use sublet_core::engine::Millionths;
use sublet_core::{Error, ErrorCode, Result};

use super::number::millionths;

/// Longest JSON text that is looked at to see whether a field is neutral.
const NEUTRAL_CHARS_MAX: usize = 64;

/// A field that is present.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub name: &'static str,
    pub raw: &'a RawValue,
}

pub(crate) fn field<'a>(name: &'static str, raw: Option<&'a RawValue>) -> Option<Field<'a>> {
    raw.map(|raw| Field { name, raw })
}

/// A refusal that names a field.
pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

/// A refusal of a field that would change the answer.
pub(crate) fn unsupported(param: &str, what: &str) -> Error {
    Error::new(ErrorCode::UnsupportedField, format!("'{param}' {what}")).param(param).alternative(format!("leave '{param}' out"))
}

impl<'a> Field<'a> {
    fn wrong(&self, expected: &str) -> Error {
        invalid(self.name, format!("'{}' must be {expected}", self.name))
    }

    pub fn parse<T: Deserialize<'a>>(&self, expected: &str) -> Result<T> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.wrong(expected))
    }

    pub fn text(&self, chars_max: usize) -> Result<String> {
        let text: String = self.parse("a string")?;
        if text.is_empty() || text.len() > chars_max {
            return Err(self.wrong(&format!("a string of 1 to {chars_max} bytes")));
        }
        Ok(text)
    }

    pub fn boolean(&self) -> Result<bool> {
        self.parse("true or false")
    }

    pub fn integer(&self, range: RangeInclusive<i64>) -> Result<i64> {
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        let value: i64 = self.parse(&expected())?;
        if range.contains(&value) { Ok(value) } else { Err(self.wrong(&expected())) }
    }

    /// A number within a range of millionths; `expected` says the range in words.
    pub fn decimal(&self, range: RangeInclusive<i64>, expected: &str) -> Result<Millionths> {
        millionths(self.raw.get()).filter(|value| range.contains(&value.0)).ok_or_else(|| self.wrong(expected))
    }

    /// Refuses the field unless its value means what leaving it out means.
    pub fn refuse_unless_neutral(&self, neutral: &[&str]) -> Result<()> {
        let text = self.raw.get();
        let is_neutral = text.len() <= NEUTRAL_CHARS_MAX
            && serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| {
                neutral
                    .iter()
                    .any(|neutral| serde_json::from_str::<serde_json::Value>(neutral).is_ok_and(|neutral| value == neutral))
            });
        if is_neutral { Ok(()) } else { Err(unsupported(self.name, "is not supported by the models served here")) }
    }
}

/// A list that stops reading at `MAX` items, before more are allocated.
pub(crate) struct Bounded<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} items")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Items::<T, MAX>(PhantomData)).map(Self)
    }
}
