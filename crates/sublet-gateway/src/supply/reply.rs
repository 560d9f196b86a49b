//! What a replica says, read as far as money and control need it: counts, ends, errors, and how much text.
//!
//! Servers spell usage in two ways, and say more than asked or nothing at all: whatever cannot be read
//! as a count is no count.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;
use sublet_core::engine::FinishReason;
use sublet_core::{DurationMs, Error, ErrorCode, TokenCount};

use super::members::{Member, distinct, string_bytes};
use super::request::{FIELDS_MAX, Fields};

/// Bytes of text that count as one token where nobody counted: what English text has on average
/// (<https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them>).
pub(crate) const BYTES_PER_TOKEN: u64 = 4;
/// The longest wait that a busy server is believed.
const BUSY_WAIT_MAX: DurationMs = DurationMs::from_hours(1);
/// Milliseconds, as OpenAI says it beside the seconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Most characters of a replica's own message that are shown to a caller.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// Counts that a server reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// All of the prompt.
    pub prompt: TokenCount,
    pub cached: TokenCount,
    pub output: TokenCount,
}

/// One event of a stream, or a whole answer.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub counts: Option<Counts>,
    /// Answers it speaks of.
    pub choices: usize,
    /// Ends among them.
    pub finishes: usize,
    /// The last of these ends.
    pub reason: Option<FinishReason>,
    /// Bytes of text, reasoning and calls.
    pub text_bytes: u64,
    /// That text by the index of its answer, where somebody may have to count it.
    pub said: Vec<(usize, String)>,
    /// The server's own error.
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct CallPart<'a> {
    #[serde(borrow, default)]
    function: Option<FunctionPart<'a>>,
}

#[derive(Deserialize)]
struct FunctionPart<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
}

/// Bytes of everything that a message says, also in fields that nobody here knows.
fn said_bytes(message: &RawValue, keep: &mut Option<String>) -> Result<usize, Unreadable> {
    let text = message.get();
    if text == "null" {
        return Ok(0);
    }
    let members = fields(text).ok_or(Unreadable("a message of another shape"))?;
    let said = members.iter().filter(|(name, _)| name != "role");
    Ok(said.map(|(name, member)| value_bytes(name, member.value, keep)).sum())
}

fn value_bytes(name: &str, text: &str, keep: &mut Option<String>) -> usize {
    if matches!(text, "null" | "\"\"" | "[]" | "{}" | "false") {
        return 0;
    }
    if let Some(bytes) = string_bytes(text) {
        if let Some(keep) = keep {
            // Escapes that are no text were no string either.
            keep.push_str(&serde_json::from_str::<Cow<'_, str>>(text).unwrap_or(Cow::Borrowed(text)));
        }
        return bytes;
    }
    let calls = (name == "tool_calls").then(|| serde_json::from_str::<Vec<CallPart<'_>>>(text).ok()).flatten();
    let functions = calls.iter().flatten().filter_map(|call| call.function.as_ref());
    let parts: Vec<&str> = functions.flat_map(|call| [&call.name, &call.arguments]).filter_map(Option::as_deref).collect();
    let known = parts.iter().map(|part| part.len()).sum();
    let said = if known > 0 { parts } else { vec![text] };
    if let Some(keep) = keep {
        said.iter().for_each(|part| keep.push_str(part));
    }
    if known > 0 { known } else { text.len() }
}

/// What makes an answer no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub &'static str);

/// What is read of an event, in one pass over it.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    /// What embeddings have in the place of choices.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl Seen {
    /// Reads one JSON object of an answer.
    ///
    /// With its text if `keeps_text`.
    pub fn read(data: &[u8], keeps_text: bool) -> Result<Self, Unreadable> {
        const NO_OBJECT: Unreadable = Unreadable("something that is not a JSON object");
        let text = std::str::from_utf8(data).map_err(|_| NO_OBJECT)?;
        let event: Event<'_> = serde_json::from_str(text).map_err(|_| match serde_json::from_str::<Fields<'_>>(text) {
            Ok(_) => Unreadable("choices of another shape"),
            Err(_) => NO_OBJECT,
        })?;
        if fields(text).is_none() {
            return Err(NO_OBJECT);
        }
        let mut seen = Self { counts: event.usage.and_then(counts), ..Self::default() };
        seen.error = event.error.map(error_message);
        let Some(choices) = event.choices else {
            seen.choices = usize::from(event.data.is_some());
            return Ok(seen);
        };
        seen.choices = choices.len();
        for (place, choice) in choices.iter().enumerate() {
            let mut keep = keeps_text.then(String::new);
            let completion = choice.text.as_deref().unwrap_or_default();
            if let Some(keep) = &mut keep {
                keep.push_str(completion);
            }
            let mut said = completion.len();
            for message in [choice.delta, choice.message].into_iter().flatten() {
                said += said_bytes(message, &mut keep)?;
            }
            if let Some(text) = keep {
                let index = choice.index.and_then(|index| index.get().parse().ok());
                seen.said.push((index.unwrap_or(place), text));
            }
            seen.text_bytes += u64::try_from(said).unwrap_or(u64::MAX);
            if let Some(reason) = choice.finish_reason.as_deref().filter(|reason| !reason.is_empty()) {
                seen.finishes += 1;
                seen.reason = Some(if reason == "length" { FinishReason::Length } else { FinishReason::Stop });
            }
        }
        Ok(seen)
    }
}

/// What an object says, if a JSON value is one and has few enough fields, each given once: which of two counts would be
/// anybody's guess.
fn fields(object: &str) -> Option<Vec<(Cow<'_, str>, Member<'_>)>> {
    if object.trim_ascii_start().starts_with('{') { distinct(object, FIELDS_MAX) } else { None }
}

/// Reads a usage object in either spelling.
pub(crate) fn counts(raw: &RawValue) -> Option<Counts> {
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        cached_tokens: Option<i64>,
    }
    #[derive(Deserialize)]
    struct Usage {
        #[serde(alias = "input_tokens")]
        prompt_tokens: i64,
        /// Embeddings have none.
        #[serde(default, alias = "output_tokens")]
        completion_tokens: Option<i64>,
        #[serde(default, alias = "input_tokens_details")]
        prompt_tokens_details: Option<Details>,
    }
    let usage: Usage = serde_json::from_str(raw.get()).ok()?;
    let output = usage.completion_tokens.unwrap_or(0);
    // Nothing was ever asked with an empty prompt: zero is how some servers say that they do not know yet.
    if usage.prompt_tokens <= 0 || output < 0 {
        return None;
    }
    let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
    Some(Counts {
        prompt: TokenCount::new(usage.prompt_tokens),
        cached: TokenCount::new(cached.clamp(0, usage.prompt_tokens)),
        output: TokenCount::new(output),
    })
}

/// A server's message, from the shapes in use: an object with a message, an object with an error, a string.
fn error_message(raw: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow, default)]
        message: Option<Cow<'a, str>>,
    }
    let text = serde_json::from_str::<Shape<'_>>(raw.get())
        .ok()
        .and_then(|shape| shape.message.map(Cow::into_owned))
        .or_else(|| serde_json::from_str::<String>(raw.get()).ok())
        .unwrap_or_else(|| raw.get().to_owned());
    shorten(&text)
}

fn shorten(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// How a status that is not 200 is taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is wrong; another replica would say the same.
    Request(Error),
    /// This replica has too much to do.
    Busy,
    /// This replica does not serve such requests; which may be the caller's doing, so it is no failure.
    Unfit(String),
    /// This replica is broken, or badly set up.
    Broken(String),
}

/// Reads an answer that is an error. `shown_as` is what the caller calls the model.
pub(crate) fn refusal(status: u16, body: &[u8], (upstream_model, shown_as): (&str, &str)) -> Refusal {
    let fields = serde_json::from_slice::<Fields<'_>>(body).ok();
    let error = fields.as_ref().and_then(|fields| fields.get("error"));
    let message = match (error, &fields) {
        (Some(error), _) => error_message(error),
        // FastAPI says what is wrong in `detail`, some servers in `message`.
        (None, Some(fields)) => fields.get("message").or_else(|| fields.get("detail")).map(error_message).unwrap_or_default(),
        (None, None) => shorten(&String::from_utf8_lossy(body)),
    };
    match status {
        400 | 413 | 415 | 422 => {
            let shown = if upstream_model.is_empty() { message } else { shorten(&message.replace(upstream_model, shown_as)) };
            let code = if is_about_context(error, &shown) { ErrorCode::ContextLengthExceeded } else { ErrorCode::InvalidRequest };
            let shown = if shown.is_empty() { "the model's server refuses this request".to_owned() } else { shown };
            let refused = Error::new(code, shown);
            Refusal::Request(match error.and_then(param_of) {
                Some(param) => refused.param(param),
                None => refused,
            })
        }
        429 | 503 | 529 => Refusal::Busy,
        // Its words may repeat the prompt, so they are not for the log.
        404 | 405 | 501 => Refusal::Unfit(format!("status {status}")),
        _ => Refusal::Broken(format!("status {status}")),
    }
}

/// How long a busy server wants to be left alone, at most [`BUSY_WAIT_MAX`]. Dates are not read: clocks differ.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<DurationMs> {
    let read = |name: HeaderName, unit_millis: i64| {
        let text = headers.get(name)?.to_str().ok()?.trim();
        let (units, part) = text.split_once('.').unwrap_or((text, ""));
        let is_number = [units, part].iter().all(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        // A part of a unit is a whole one: never too early.
        let units = units.parse::<i64>().ok().filter(|_| is_number)?.saturating_add(i64::from(!part.is_empty()));
        Some(DurationMs::from_millis(units.saturating_mul(unit_millis)).min(BUSY_WAIT_MAX))
    };
    read(RETRY_AFTER_MS, 1).or_else(|| read(http::header::RETRY_AFTER, 1_000))
}

#[derive(Deserialize)]
struct ErrorFields<'a> {
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    param: Option<Cow<'a, str>>,
}

fn param_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<ErrorFields<'_>>(raw.get()).ok()?.param.map(|param| shorten(&param))
}

/// OpenAI has a code for it; vLLM and llama.cpp say it in words.
fn is_about_context(error: Option<&RawValue>, message: &str) -> bool {
    let code = error.and_then(|raw| serde_json::from_str::<ErrorFields<'_>>(raw.get()).ok()).and_then(|fields| fields.code);
    code.is_some_and(|code| code.get() == "\"context_length_exceeded\"")
        || message.contains("maximum context length")
        || message.contains("context size")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Seen {
        Seen::read(text.as_bytes(), false).unwrap()
    }

    fn three(prompt: i64, cached: i64, output: i64) -> Option<Counts> {
        Some(Counts { prompt: TokenCount::new(prompt), cached: TokenCount::new(cached), output: TokenCount::new(output) })
    }

    #[test]
    fn both_spellings_of_usage_are_read_and_nonsense_is_no_count() {
        for (usage, expected) in [
            (r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}"#, three(5, 0, 7)),
            (r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}"#, three(5, 4, 7)),
            (r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":99}}"#, three(5, 5, 7)),
            (r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":null}"#, three(5, 0, 7)),
            (r#"{"input_tokens":5,"output_tokens":7,"input_tokens_details":{"cached_tokens":1}}"#, three(5, 1, 7)),
            (r#"{"prompt_tokens":8,"total_tokens":8}"#, three(8, 0, 0)),
            ("{}", None),
            ("null", None),
            ("[]", None),
            (r#"{"prompt_tokens":0,"completion_tokens":7}"#, None),
            (r#"{"prompt_tokens":-5,"completion_tokens":7}"#, None),
            (r#"{"prompt_tokens":5,"completion_tokens":-7}"#, None),
            (r#"{"prompt_tokens":5.5,"completion_tokens":7}"#, None),
            (r#"{"prompt_tokens":"5","completion_tokens":7}"#, None),
            (r#"{"prompt_tokens":99999999999999999999,"completion_tokens":7}"#, None),
        ] {
            assert_eq!(read(&format!(r#"{{"choices":[],"usage":{usage}}}"#)).counts, expected, "{usage}");
        }
    }

    #[test]
    fn text_is_measured_wherever_it_is() {
        for (choices, bytes, finishes) in [
            (r#"[{"delta":{"role":"assistant","content":""},"finish_reason":null}]"#, 0, 0),
            (r#"[{"delta":{"content":"é\n"}},{"index":1,"delta":{"content":"abc"},"finish_reason":"stop"}]"#, 6, 1),
            (r#"[{"delta":{"reasoning_content":"think"}}]"#, 5, 0),
            (r#"[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]"#, 3, 0),
            (r#"[{"text":"abcd","finish_reason":"length"}]"#, 4, 1),
            (r#"[{"message":{"content":null,"tool_calls":null},"finish_reason":"tool_calls"}]"#, 0, 1),
            (r#"[{"delta":{"content":[{"type":"text","text":"x"}]}}]"#, 28, 0),
            (r#"[{"delta":{"their_field":{"a":1}}}]"#, 7, 0),
            (r#"[{"delta":null}]"#, 0, 0),
        ] {
            let seen = read(&format!(r#"{{"choices":{choices}}}"#));
            assert_eq!((seen.text_bytes, seen.finishes), (bytes, finishes), "{choices}");
        }
    }

    #[test]
    fn text_that_may_have_to_be_counted_is_what_was_measured() {
        for (choices, expected) in [
            (r#"[{"index":1,"delta":{"role":"assistant","content":"é\n"}},{"delta":{"content":"b"}}]"#, vec![(1, "é\n"), (1, "b")]),
            (r#"[{"delta":{"reasoning_content":"c","content":null}}]"#, vec![(0, "c")]),
            (r#"[{"index":"x","delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]"#, vec![(0, "f{}")]),
            (
                r#"[{"delta":{"tool_calls":[{"type":"custom","custom":{"a":1}}]}}]"#,
                vec![(0, r#"[{"type":"custom","custom":{"a":1}}]"#)],
            ),
            (r#"[{"message":{"content":"\ud83d","tool_calls":[]},"logprobs":[1e999]}]"#, vec![(0, r#""\ud83d""#)]),
            (r#"[{"text":"t","delta":{"their_field":{"a":1}}}]"#, vec![(0, r#"t{"a":1}"#)]),
        ] {
            let seen = Seen::read(format!(r#"{{"choices":{choices}}}"#).as_bytes(), true).unwrap();
            let said: Vec<(usize, &str)> = seen.said.iter().map(|(index, text)| (*index, text.as_str())).collect();
            assert_eq!(said, expected, "{choices}");
            assert_eq!(seen.text_bytes, said.iter().map(|(_, text)| u64::try_from(text.len()).unwrap()).sum::<u64>(), "{choices}");
        }
    }

    #[test]
    fn what_is_no_answer_is_said() {
        for text in ["", "[]", "nope", "{", r#"{"choices":3}"#, r#"{"choices":[{"delta":7}]}"#] {
            assert!(Seen::read(text.as_bytes(), false).is_err(), "{text}");
        }
        assert_eq!(read(r#"{"error":{"message":"boom","code":500}}"#).error.as_deref(), Some("boom"));
        assert_eq!(read(r#"{"error":"boom"}"#).error.as_deref(), Some("boom"));
    }

    #[test]
    fn a_busy_server_says_how_long_in_seconds_or_milliseconds() {
        let wait = |pairs: &[(&'static str, &str)]| {
            let header = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
            retry_after(&pairs.iter().map(header).collect()).map(DurationMs::millis)
        };
        for (value, expected) in [
            ("2", Some(2_000)),
            (" 30 ", Some(30_000)),
            ("0.5", Some(1_000)),
            ("0", Some(0)),
            ("86400", Some(3_600_000)),
            ("9999999999999999", Some(3_600_000)),
            ("99999999999999999999", None),
            ("-1", None),
            ("1.x", None),
            ("", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            assert_eq!(wait(&[("retry-after", value)]), expected, "{value:?}");
        }
        assert_eq!(wait(&[("retry-after-ms", "250"), ("retry-after", "1")]), Some(250));
        assert_eq!(wait(&[("retry-after-ms", "soon"), ("retry-after", "1")]), Some(1_000));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn a_refusal_is_short_however_long_a_server_makes_it() {
        let long = "x".repeat(60_000);
        let body = format!(r#"{{"error":{{"message":"{long}","param":"{long}"}}}}"#);
        let Refusal::Request(error) = refusal(400, body.as_bytes(), ("x", &"m".repeat(200))) else { panic!("the request's fault") };
        let param = error.param_name().unwrap();
        assert_eq!((error.message().len(), param.len()), (MESSAGE_CHARS_MAX, MESSAGE_CHARS_MAX));
    }

    #[test]
    fn refusals_are_told_apart() {
        let names = ("org/secret-name", "m");
        let Refusal::Request(error) =
            refusal(400, br#"{"error":{"message":"org/secret-name: bad top_k","param":"top_k","code":400}}"#, names)
        else {
            panic!("the request's fault")
        };
        assert_eq!((error.code(), error.message(), error.param_name()), (ErrorCode::InvalidRequest, "m: bad top_k", Some("top_k")));
        for body in [
            r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}"#,
        ] {
            let Refusal::Request(error) = refusal(400, body.as_bytes(), names) else { panic!("{body}") };
            assert_eq!(error.code(), ErrorCode::ContextLengthExceeded, "{body}");
        }
        assert_eq!(refusal(429, b"", names), Refusal::Busy);
        for status in [404, 405, 501] {
            assert!(matches!(refusal(status, b"{}", names), Refusal::Unfit(_)), "{status}");
        }
        for status in [401, 403, 500, 502, 504, 302] {
            assert!(matches!(refusal(status, b"<html>", names), Refusal::Broken(_)), "{status}");
        }
    }
}
