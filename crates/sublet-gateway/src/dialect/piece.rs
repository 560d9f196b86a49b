//! From the text of a model to the pieces of an answer: text, and calls of tools.
//!
//! What is written of a call does not depend on how the text came in parts. Text that may still turn
//! out to be a tag is kept back until that is known.
//!
//! Invariants: calls of one answer are numbered from 0 without gaps; the first piece of a call, and no
//! other, says its name; text is lost nowhere but around calls, where it is white space.
//!
//! Deliberately absent: knowing an API, and ids, which whoever writes the pieces makes.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

const OPEN: &str = "<tool_call>";
/// Ends a call.
pub(crate) const CLOSE: &str = "</tool_call>";
/// Longest call between tags; what is longer is text.
const CALL_BYTES_MAX: usize = 1_024 * 1_024;

/// How the output of a model is to be read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) enum Reading {
    /// All of it is text.
    #[default]
    Text,
    /// Text, with calls of these tools between tags.
    Tagged(Arc<[String]>),
    /// The arguments of a call of this tool.
    Named(String),
    /// An object with the name and the arguments of a call.
    Called,
}

/// A part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    Text(String),
    Call(CallPiece),
}

/// More of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CallPiece {
    /// Counts the calls of one answer.
    pub index: usize,
    /// With the first piece of a call.
    pub start: Option<CallStart>,
    /// JSON text.
    pub arguments: String,
}

/// Which call begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CallStart {
    /// Given by whoever made the call; `None` leaves it to the writer.
    pub id: Option<String>,
    pub name: String,
}

/// Reads one answer as it comes.
#[derive(Debug)]
pub(crate) struct Splitter {
    reading: Reading,
    state: State,
    /// Text whose meaning is not known yet.
    pending: String,
    /// The white space before the tag of the call that is being read.
    blank: String,
    calls: usize,
    /// The arguments of a forced call.
    object: Object,
}

/// How far an object of JSON has come.
#[derive(Default, Debug)]
struct Object {
    depth: usize,
    in_text: bool,
    escaped: bool,
    is_over: bool,
}

impl Object {
    /// How many of these bytes belong to it.
    fn take(&mut self, text: &str) -> usize {
        for (at, byte) in text.bytes().enumerate() {
            if self.is_over {
                return at;
            }
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_text = false,
                (false, b'"') => self.in_text = true,
                (false, b'{' | b'[') => self.depth += 1,
                (false, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.is_over = self.depth == 0;
                }
                (_, _) => {}
            }
        }
        text.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before anything, or between calls: white space is not worth a piece.
    Blank,
    /// In text.
    Text,
    /// In a call.
    Call,
}

/// A call between tags, as models write it.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl Splitter {
    pub fn new(reading: Reading) -> Self {
        Self { reading, state: State::Blank, pending: String::new(), blank: String::new(), calls: 0, object: Object::default() }
    }

    /// More of the output.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        match &self.reading {
            Reading::Text => {
                if text.is_empty() {
                    Vec::new()
                } else {
                    vec![Piece::Text(text.to_owned())]
                }
            }
            Reading::Named(name) => {
                let start = (self.calls == 0).then(|| CallStart { id: None, name: name.clone() });
                self.calls = 1;
                self.arguments(start, text).into_iter().collect()
            }
            Reading::Called => {
                self.pending.push_str(text);
                self.called().into_iter().collect()
            }
            Reading::Tagged(tools) => {
                let tools = Arc::clone(tools);
                self.pending.push_str(text);
                let mut pieces = Vec::new();
                while self.tagged(&tools, &mut pieces) {}
                pieces
            }
        }
    }

    /// What is left at the end of the output.
    pub fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.pending);
        let reading = self.reading.clone();
        match (reading, self.state) {
            (Reading::Tagged(tools), State::Call) => match self.call(&tools, &rest) {
                // A stop string may have taken the tag that ends a call.
                Some(call) => vec![call],
                None => vec![self.no_call(&rest)],
            },
            (Reading::Tagged(_), State::Text) if !rest.is_empty() => vec![Piece::Text(rest)],
            (Reading::Tagged(_), State::Blank) if !rest.trim().is_empty() || (self.calls == 0 && !rest.is_empty()) => {
                vec![Piece::Text(rest)]
            }
            // Cut before its name was known: it is nothing that can be called.
            (Reading::Called, State::Blank | State::Text) if !rest.is_empty() => vec![Piece::Text(rest)],
            // What is left of a call is the end of the object around it.
            (Reading::Text | Reading::Tagged(_) | Reading::Named(_) | Reading::Called, _) => Vec::new(),
        }
    }

    /// Reads on in the object around a call.
    fn called(&mut self) -> Option<Piece> {
        let mut start = None;
        if self.state != State::Call {
            let (name, arguments) = head(&self.pending)?;
            start = Some(CallStart { id: None, name: name.to_owned() });
            self.pending = arguments.to_owned();
            self.state = State::Call;
            self.calls = 1;
        }
        let arguments = std::mem::take(&mut self.pending);
        self.arguments(start, &arguments)
    }

    /// What of the text belongs to the arguments. What ends a call may follow them.
    fn arguments(&mut self, start: Option<CallStart>, text: &str) -> Option<Piece> {
        let arguments = text[..self.object.take(text)].to_owned();
        (start.is_some() || !arguments.is_empty()).then_some(Piece::Call(CallPiece { index: 0, start, arguments }))
    }

    /// Reads on where calls are between tags; says whether there may be more.
    fn tagged(&mut self, tools: &[String], pieces: &mut Vec<Piece>) -> bool {
        if self.state == State::Call {
            let Some(end) = self.pending.find(CLOSE) else {
                if self.pending.len() > CALL_BYTES_MAX {
                    let written = std::mem::take(&mut self.pending);
                    pieces.push(self.no_call(&written));
                }
                return false;
            };
            let written: String = self.pending.drain(..end + CLOSE.len()).collect();
            let written = &written[..end];
            match self.call(tools, written) {
                Some(call) => {
                    pieces.push(call);
                    self.state = State::Blank;
                }
                None => pieces.push(self.no_call(&format!("{written}{CLOSE}"))),
            }
            return true;
        }
        let (text_end, found) = match self.pending.find(OPEN) {
            Some(at) => (at, true),
            None => (self.pending.len() - tag_started(&self.pending), false),
        };
        // White space before a tag, or what may become one, belongs to it.
        let text_end = self.pending[..text_end].trim_end().len();
        if text_end > 0 {
            let text: String = self.pending.drain(..text_end).collect();
            pieces.push(Piece::Text(text));
            self.state = State::Text;
        }
        if found {
            let at = self.pending.find(OPEN).unwrap_or(0);
            self.blank = self.pending[..at].to_owned();
            self.pending.drain(..at + OPEN.len());
            self.state = State::Call;
        }
        found
    }

    /// What looked like a call is text.
    fn no_call(&mut self, written: &str) -> Piece {
        self.state = State::Text;
        Piece::Text(format!("{}{OPEN}{written}", std::mem::take(&mut self.blank)))
    }

    /// The call that is written between two tags, if it is one of a tool that was offered.
    fn call(&mut self, tools: &[String], written: &str) -> Option<Piece> {
        let call: Written<'_> = serde_json::from_str(written.trim()).ok()?;
        if !tools.iter().any(|tool| *tool == call.name) {
            return None;
        }
        let start = Some(CallStart { id: None, name: call.name.into_owned() });
        let index = self.calls;
        self.calls += 1;
        Some(Piece::Call(CallPiece { index, start, arguments: call.arguments.map_or_else(|| "{}".to_owned(), arguments_text) }))
    }
}

/// The name in the object around a call, and its arguments as far as they came. The output is constrained to
/// this order; names need no escapes.
fn head(text: &str) -> Option<(&str, &str)> {
    let skip = |text: &'static [&'static str], mut rest| {
        for token in text {
            rest = str::trim_start(rest).strip_prefix(token)?;
        }
        Some(rest)
    };
    let (name, rest) = skip(&["{", "\"name\"", ":", "\""], text)?.split_once('"')?;
    let arguments = skip(&[",", "\"arguments\"", ":"], rest)?.trim_start();
    (!arguments.is_empty()).then_some((name, arguments))
}

/// Some models write the arguments as a text that holds the object.
fn arguments_text(raw: &RawValue) -> String {
    let text = raw.get();
    if text.starts_with('"')
        && let Ok(inner) = serde_json::from_str::<String>(text)
        && inner.trim_start().starts_with('{')
    {
        return inner;
    }
    text.to_owned()
}

/// Bytes at the end that may begin a tag.
fn tag_started(text: &str) -> usize {
    let longest = (OPEN.len() - 1).min(text.len());
    (1..=longest).rev().find(|length| text.ends_with(&OPEN[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged() -> Reading {
        Reading::Tagged(["f".to_owned(), "g".to_owned()].into())
    }

    /// Text, and calls as `name(arguments)`; checks what every sequence of pieces keeps.
    fn shown(pieces: &[Piece]) -> String {
        let (mut out, mut calls) = (String::new(), 0);
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Call(call) => {
                    if let Some(start) = &call.start {
                        assert_eq!(call.index, calls, "numbered without gaps");
                        calls += 1;
                        out.push_str(&format!("|{}|", start.name));
                    }
                    assert_eq!(call.index + 1, calls, "a call begins before it goes on");
                    out.push_str(&call.arguments);
                }
            }
        }
        out
    }

    /// The same text in parts of every length gives the same.
    fn split(reading: &Reading, text: &str) -> String {
        let mut results: Vec<String> = (1..=text.chars().count().max(1))
            .map(|length| {
                let mut splitter = Splitter::new(reading.clone());
                let chars: Vec<char> = text.chars().collect();
                let mut pieces: Vec<Piece> =
                    chars.chunks(length).flat_map(|part| splitter.push(&part.iter().collect::<String>())).collect();
                pieces.extend(splitter.finish());
                shown(&pieces)
            })
            .collect();
        results.dedup();
        assert_eq!(results.len(), 1, "{text}: {results:?}");
        results.remove(0)
    }

    #[test]
    fn calls_between_tags_are_found_and_everything_else_is_text() {
        for (text, expected) in [
            ("hello <b> you\n", "hello <b> you\n"),
            ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1.0}}</tool_call>", "|f|{\"a\": 1.0}"),
            ("\n<tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call>\n", "|f|{}"),
            (
                "Let me see. \n<tool_call>{\"arguments\":{\"é\":\"</b>\"},\"name\":\"g\"}</tool_call>",
                "Let me see.|g|{\"é\":\"</b>\"}",
            ),
            (
                "<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"parameters\":{\"b\":[]}}</tool_call>",
                "|f|{}|g|{\"b\":[]}",
            ),
            ("<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>", "|f|{\"a\":1}"),
            ("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}", "|f|{\"a\":1}"),
            ("<tool_call>{\"name\":\"unknown\"}</tool_call> then", "<tool_call>{\"name\":\"unknown\"}</tool_call> then"),
            ("<tool_call>{'name': 'f'}</tool_call>", "<tool_call>{'name': 'f'}</tool_call>"),
            ("<tool_call>{\"name\":\"f\",\"argum", "<tool_call>{\"name\":\"f\",\"argum"),
            ("a <tool_cal", "a <tool_cal"),
            ("a \n<tool_call>no</tool_call>\nb ", "a \n<tool_call>no</tool_call>\nb "),
            ("  \n", "  \n"),
            ("a <<tool_call>{\"name\":\"f\"}</tool_call>", "a <|f|{}"),
            ("", ""),
        ] {
            assert_eq!(split(&tagged(), text), expected, "{text}");
        }
    }

    #[test]
    fn a_forced_call_is_its_arguments() {
        let named = Reading::Named("f".to_owned());
        for text in ["{\"a\":{\"b\":\"}\\\"\"}}", "{\"a\":{\"b\":\"}\\\"\"}}}\n</tool_call>"] {
            assert_eq!(split(&named, text), "|f|{\"a\":{\"b\":\"}\\\"\"}}");
        }
        for (text, expected) in [
            ("{\"name\":\"f\",\"arguments\":{\"a\":{\"b\":1}}}", "|f|{\"a\":{\"b\":1}}"),
            ("{\"name\":\"g\",\"arguments\":{}}", "|g|{}"),
            ("{\"name\":\"g\",\"arguments\":{\"a\":[{}]}}</tool_call>", "|g|{\"a\":[{}]}"),
            ("{\"name\": \"g\", \"arguments\": {\"a\": {}}}", "|g|{\"a\": {}}"),
            ("{\"name\":\"g\",\"arguments\":{\"a\":\"cut", "|g|{\"a\":\"cut"),
            ("{\"name\":\"g\",\"argum", "{\"name\":\"g\",\"argum"),
        ] {
            assert_eq!(split(&Reading::Called, text), expected, "{text}");
        }
    }

    #[test]
    fn arguments_leave_before_the_call_is_complete() {
        let mut splitter = Splitter::new(Reading::Called);
        assert_eq!(splitter.push("{\"name\":\"f\",\"arg"), []);
        assert_eq!(shown(&splitter.push("uments\":{\"a\":")), "|f|{\"a\":");
        let more = splitter.push("1}}");
        assert_eq!(more, [Piece::Call(CallPiece { index: 0, start: None, arguments: "1}".to_owned() })], "without what is around");
        assert_eq!(splitter.finish(), []);
    }

    #[test]
    fn what_is_far_too_long_for_a_call_is_text() {
        let mut splitter = Splitter::new(tagged());
        let long = "x".repeat(CALL_BYTES_MAX + 1);
        let pieces = splitter.push(&format!("{OPEN}{long}"));
        assert_eq!(shown(&pieces).len(), OPEN.len() + long.len());
    }
}
