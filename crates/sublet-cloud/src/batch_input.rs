//! The lines of a batch's input file: found in pieces of any size, and read one by one. Pure.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sublet_core::batch::LineEndpoint;
use sublet_core::{Error, ErrorCode, Result};

/// Most lines of one batch.
pub const LINES_MAX: u32 = 50_000;
/// Longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Longest `custom_id`, in bytes.
pub const CUSTOM_ID_BYTES_MAX: usize = 512;
/// Characters of a client's text that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A line as it stands in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawLine {
    /// Counted from 1, blank lines included.
    pub number: u32,
    pub starts_at_byte: u64,
    /// Without its line break; `None` if it is too long to be kept.
    pub bytes: Option<Vec<u8>>,
}

/// Cuts pieces into lines. Blank ones are passed over.
#[derive(Default, Debug)]
pub struct Splitter {
    line: Vec<u8>,
    too_long: bool,
    number: u32,
    starts_at_byte: u64,
    at_byte: u64,
}

impl Splitter {
    /// Goes on behind a line that was taken: `next_byte` is where the one after it stands.
    pub fn behind(number: u32, next_byte: u64) -> Self {
        Self { number, starts_at_byte: next_byte, at_byte: next_byte, ..Self::default() }
    }

    /// Takes a piece; gives the lines that end in it.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<RawLine> {
        let mut lines = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            self.at_byte += 1;
            lines.extend(self.end());
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        lines
    }

    /// The last line, if the file does not end in a line break.
    pub fn finish(&mut self) -> Option<RawLine> {
        self.end()
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.at_byte += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.too_long |= self.line.len() + bytes.len() > LINE_BYTES_MAX;
        if !self.too_long {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) -> Option<RawLine> {
        self.number = self.number.saturating_add(1);
        let starts_at_byte = std::mem::replace(&mut self.starts_at_byte, self.at_byte);
        let (line, too_long) = (std::mem::take(&mut self.line), std::mem::take(&mut self.too_long));
        if too_long {
            return Some(RawLine { number: self.number, starts_at_byte, bytes: None });
        }
        let is_blank = line.trim_ascii().is_empty();
        (!is_blank).then_some(RawLine { number: self.number, starts_at_byte, bytes: Some(line) })
    }
}

/// A line that asks for something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputLine {
    pub custom_id: String,
    /// JSON text.
    pub body: Vec<u8>,
}

#[derive(Deserialize)]
struct WireLine<'a> {
    custom_id: Option<Value>,
    method: Option<Value>,
    url: Option<Value>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

fn invalid(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string().chars().take(SHOWN_CHARS_MAX).collect())
}

/// Reads a line of a batch that calls `endpoint`.
pub fn parse_line(bytes: &[u8], endpoint: LineEndpoint) -> Result<InputLine> {
    let not_json = |what: String| Error::new(ErrorCode::InvalidJson, format!("the line is not a JSON object: {what}"));
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(not_json("it does not begin with a brace".to_owned()));
    }
    let line: WireLine<'_> = serde_json::from_slice(bytes).map_err(|error| not_json(error.to_string()))?;
    let custom_id = match &line.custom_id {
        Some(Value::String(id)) if (1..=CUSTOM_ID_BYTES_MAX).contains(&id.len()) => id.clone(),
        _ => return Err(invalid("custom_id", format!("'custom_id' is a string of 1 to {CUSTOM_ID_BYTES_MAX} bytes"))),
    };
    // Not all of them can be stored, and none names anything.
    if custom_id.chars().any(char::is_control) {
        return Err(invalid("custom_id", "'custom_id' has no control characters"));
    }
    if line.method != Some(Value::from("POST")) {
        return Err(invalid("method", format!("'method' is \"POST\", not {}", shown(line.method.as_ref()))));
    }
    if line.url != Some(Value::from(endpoint.as_str())) {
        return Err(invalid("url", format!("'url' is the batch's endpoint \"{endpoint}\", not {}", shown(line.url.as_ref()))));
    }
    let body = line.body.map(RawValue::get).filter(|body| body.starts_with('{'));
    let body = body.ok_or_else(|| invalid("body", "'body' is the JSON object that the endpoint takes"))?;
    Ok(InputLine { custom_id, body: body.as_bytes().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &[u8], piece: usize) -> Vec<RawLine> {
        let mut splitter = Splitter::default();
        let mut lines: Vec<RawLine> = text.chunks(piece.max(1)).flat_map(|piece| splitter.feed(piece)).collect();
        lines.extend(splitter.finish());
        lines
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_file_comes(text in "[ab \n\r]{0,80}", piece in 1_usize..9) {
            let lines = split(text.as_bytes(), piece);
            let expected: Vec<(u32, &str)> = text.split('\n').zip(1..).map(|(line, number)| (number, line))
                .filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
            let found: Vec<(u32, &str)> = lines.iter()
                .map(|line| (line.number, std::str::from_utf8(line.bytes.as_deref().unwrap()).unwrap())).collect();
            prop_assert_eq!(&found, &expected);
            for (position, line) in lines.iter().enumerate() {
                let next = line.starts_at_byte + u64::try_from(line.bytes.as_deref().unwrap().len()).unwrap() + 1;
                let mut again = Splitter::behind(line.number, next);
                let mut rest = again.feed(text.as_bytes().get(usize::try_from(next).unwrap()..).unwrap_or(b""));
                rest.extend(again.finish());
                prop_assert_eq!(&rest, &lines[position + 1..], "reading goes on behind any line");
                let start = usize::try_from(line.starts_at_byte).unwrap();
                let bytes = line.bytes.as_deref().unwrap();
                prop_assert_eq!(&text.as_bytes()[start..start + bytes.len()], bytes);
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_the_next_one_is_whole() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 1];
        text.extend_from_slice(b"\nshort");
        for piece in [1_000, 1 << 20, 1 << 22] {
            let lines = split(&text, piece);
            assert_eq!(lines[0], RawLine { number: 1, starts_at_byte: 0, bytes: None });
            assert_eq!((lines[1].number, lines[1].bytes.as_deref()), (2, Some(b"short".as_slice())));
            assert_eq!(lines[1].starts_at_byte, u64::try_from(LINE_BYTES_MAX).unwrap() + 2);
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let endpoint = LineEndpoint::ChatCompletions;
        let good = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}"#;
        let line = parse_line(good.as_bytes(), endpoint).unwrap();
        assert_eq!((line.custom_id.as_str(), line.body.as_slice()), ("a", br#"{"model":"m"}"#.as_slice()));
        for (wrong, code, param) in [
            (good.replace("\"a\"", "7"), ErrorCode::InvalidRequest, Some("custom_id")),
            (good.replace("\"a\"", "\"\""), ErrorCode::InvalidRequest, Some("custom_id")),
            (good.replace("\"a\"", "\"a\\u0000\""), ErrorCode::InvalidRequest, Some("custom_id")),
            (good.replace("\"a\"", "\"\\u0085\""), ErrorCode::InvalidRequest, Some("custom_id")),
            (good.replace("POST", "GET"), ErrorCode::InvalidRequest, Some("method")),
            (good.replace("/v1/chat", "/v1/nope"), ErrorCode::InvalidRequest, Some("url")),
            (good.replace("{\"model\":\"m\"}", "[]"), ErrorCode::InvalidRequest, Some("body")),
            (good.replace(",\"body\":{\"model\":\"m\"}", ""), ErrorCode::InvalidRequest, Some("body")),
            (good.replace("{\"model\"", "{model"), ErrorCode::InvalidJson, None),
            (format!("[{good}]"), ErrorCode::InvalidJson, None),
        ] {
            let error = parse_line(wrong.as_bytes(), endpoint).unwrap_err();
            assert_eq!((error.code(), error.param_name()), (code, param), "{wrong}");
        }
        assert!(parse_line(good.as_bytes(), LineEndpoint::Responses).is_err());
    }
}
