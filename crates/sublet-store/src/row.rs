//! Values that go into and come out of SQL: integers, text, bytes.

use std::borrow::Cow;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use sublet_core::{Error, Nanos, Result, Timestamp};

/// A parameter or a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value<'q> {
    Int(Option<i64>),
    Text(Option<Cow<'q, str>>),
    Bytes(Option<Cow<'q, [u8]>>),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<Nanos> for Value<'_> {
    fn from(value: Nanos) -> Self {
        Self::Int(Some(value.get()))
    }
}
impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(Some(value.micros()))
    }
}
impl From<Option<Timestamp>> for Value<'_> {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(Timestamp::micros))
    }
}
impl<'q> From<&'q str> for Value<'q> {
    fn from(value: &'q str) -> Self {
        Self::Text(Some(Cow::Borrowed(value)))
    }
}
impl<'q> From<Option<&'q str>> for Value<'q> {
    fn from(value: Option<&'q str>) -> Self {
        Self::Text(value.map(Cow::Borrowed))
    }
}
impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Some(Cow::Owned(value)))
    }
}
impl From<Option<String>> for Value<'_> {
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(Cow::Owned))
    }
}
impl<'q> From<&'q [u8]> for Value<'q> {
    fn from(value: &'q [u8]) -> Self {
        Self::Bytes(Some(Cow::Borrowed(value)))
    }
}

/// Builds the parameter list of a statement.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::row::Value::from($value)),*] };
}

impl Value<'_> {
    /// With a copy of what it borrows.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Value::Int(value) => Value::Int(value),
            Value::Text(value) => Value::Text(value.map(|text| Cow::Owned(text.into_owned()))),
            Value::Bytes(value) => Value::Bytes(value.map(|bytes| Cow::Owned(bytes.into_owned()))),
        }
    }
}

/// One row of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row(pub(crate) Vec<Value<'static>>);

impl Row {
    /// Reads the columns from left to right.
    pub fn reader(&self) -> RowReader<'_> {
        RowReader::of(&self.0)
    }
}

/// Reads columns in the order of the select list. A mismatch is a programming error and says which column.
pub struct RowReader<'r> {
    columns: &'r [Value<'r>],
    next: usize,
}

impl<'r> RowReader<'r> {
    /// Of a row that is still the driver's.
    pub(crate) const fn of(columns: &'r [Value<'r>]) -> Self {
        Self { columns, next: 0 }
    }
    /// A copy of the whole row.
    pub(crate) fn to_owned(&self) -> Row {
        Row(self.columns.iter().cloned().map(Value::into_owned).collect())
    }
    fn column(&mut self) -> Result<&'r Value<'r>> {
        let value = self.columns.get(self.next).ok_or_else(|| Error::internal(format!("row has no column {}", self.next)))?;
        self.next += 1;
        Ok(value)
    }
    fn mismatch(&self, wanted: &str) -> Error {
        Error::internal(format!("column {} is not {wanted}", self.next.saturating_sub(1)))
    }
    pub fn optional_int(&mut self) -> Result<Option<i64>> {
        match self.column()? {
            Value::Int(value) => Ok(*value),
            Value::Text(None) | Value::Bytes(None) => Ok(None),
            Value::Text(Some(_)) | Value::Bytes(Some(_)) => Err(self.mismatch("an integer")),
        }
    }
    pub fn int(&mut self) -> Result<i64> {
        self.optional_int()?.ok_or_else(|| self.mismatch("present"))
    }
    pub fn optional_text(&mut self) -> Result<Option<&'r str>> {
        match self.column()? {
            Value::Text(value) => Ok(value.as_deref()),
            Value::Int(None) | Value::Bytes(None) => Ok(None),
            Value::Int(Some(_)) | Value::Bytes(Some(_)) => Err(self.mismatch("text")),
        }
    }
    pub fn text(&mut self) -> Result<&'r str> {
        self.optional_text()?.ok_or_else(|| self.mismatch("present"))
    }
    pub fn string(&mut self) -> Result<String> {
        self.text().map(str::to_owned)
    }
    pub fn bytes(&mut self) -> Result<&'r [u8]> {
        match self.column()? {
            Value::Bytes(Some(bytes)) => Ok(bytes),
            Value::Bytes(None) | Value::Int(_) | Value::Text(_) => Err(self.mismatch("bytes")),
        }
    }
    pub fn time(&mut self) -> Result<Timestamp> {
        self.int().map(Timestamp::from_micros)
    }
    pub fn optional_time(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.optional_int()?.map(Timestamp::from_micros))
    }
    pub fn nanos(&mut self) -> Result<Nanos> {
        self.int().map(Nanos::new)
    }
    pub fn parse<T>(&mut self) -> Result<T>
    where
        T: FromStr<Err = Error>,
    {
        let text = self.text()?;
        text.parse().map_err(|error: Error| Error::internal(format!("stored value '{text}': {error}")))
    }
    pub fn optional_parse<T>(&mut self) -> Result<Option<T>>
    where
        T: FromStr<Err = Error>,
    {
        self.optional_text()?
            .map(|text| text.parse().map_err(|error: Error| Error::internal(format!("stored value '{text}': {error}"))))
            .transpose()
    }
    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let text = self.text()?;
        serde_json::from_str(text).map_err(|error| Error::internal(format!("stored JSON: {error}")))
    }
}

/// Serializes what a later version must still be able to read.
pub fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("cannot encode: {error}")))
}
