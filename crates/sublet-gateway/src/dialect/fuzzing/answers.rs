//! What servers and models say, on its way to a client.
//!
//! Whatever comes: no panic; counts are counts; each event is one line of JSON whose fields are given
//! once; nothing that a server says gets lost or takes the place of what is ours; and how the text
//! is cut changes nothing.

use serde_json::Value;
use serde_json::value::RawValue;
use sublet_api::openai::{CostNote, Logprob};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, Millionths};
use sublet_core::id::{Identifier, RequestId};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Money, Nanos, Timestamp, TokenCount};

use crate::dialect::number::millionths;
use crate::dialect::piece::{Piece, Splitter};
use crate::dialect::{Earlier, End, Endpoint, Form, Reading, Shape, Subject, Text, Writer, relay};
use crate::generation::Delta;
use crate::supply::reply::{Refusal, Seen, refusal};
use crate::supply::request::Fields;

/// Longest error that a server's words can become, in bytes.
const REFUSAL_BYTES_MAX: usize = 8 * 1_024;
/// As much of a model's text as is read: more of it says nothing new.
const MODEL_TEXT_BYTES_MAX: usize = 2_048;

/// JSON text as a number: read to millionths, it is written and read again as the same.
pub fn numbers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(value) = millionths(text) else { return };
    let written = Logprob::from(value).0.get().to_owned();
    assert_eq!(millionths(&written), Some(value), "{text} was written as {written}");
    if let Ok(integer) = text.parse::<i32>() {
        assert_eq!(value, Millionths(i64::from(integer) * 1_000_000));
    }
}

/// One event of a server, or a whole answer, or an error.
pub fn upstream_answer(data: &[u8]) {
    for status in [400, 404, 422, 429, 500] {
        if let Refusal::Request(error) = refusal(status, data, ("upstream", "m")) {
            let body = Endpoint::Chat.envelope().body(&request(), &error);
            assert!(body.len() <= REFUSAL_BYTES_MAX, "an error of {} bytes", body.len());
        }
    }
    let (Ok(seen), Ok(text)) = (Seen::read(data, true), std::str::from_utf8(data)) else { return };
    let kept: u64 = seen.said.iter().map(|(_, text)| u64::try_from(text.len()).unwrap_or(u64::MAX)).sum();
    assert_eq!(kept, seen.text_bytes, "what may have to be counted is what was measured");
    if let Some(counts) = seen.counts {
        assert!(counts.prompt > TokenCount::ZERO && counts.output >= TokenCount::ZERO);
        assert!((TokenCount::ZERO..=counts.prompt).contains(&counts.cached));
    }
    assert!(seen.finishes <= seen.choices);
    for kind in [relay::Kind::Chat, relay::Kind::Completion, relay::Kind::Embedding] {
        for include_usage in [false, true] {
            check_relay(relay::Form { kind, include_usage }, text);
        }
    }
    for endpoint in [Endpoint::Response, Endpoint::Message] {
        check_events(&told(translated(endpoint), text), endpoint);
        check_object(&whole(translated(endpoint), text));
    }
}

/// What a model writes where it may call tools.
pub fn tool_text(data: &[u8]) {
    let Some((step, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(&text[..text.len().min(MODEL_TEXT_BYTES_MAX)]);
    let tools = ["f".to_owned(), "weather".to_owned()];
    for reading in [Reading::Text, Reading::Tagged(tools.into()), Reading::Named("f".to_owned()), Reading::Called] {
        let step = usize::from(*step).max(1);
        assert_eq!(split(&reading, &text, step), split(&reading, &text, usize::MAX), "in parts of {step}");
        for endpoint in [Endpoint::Chat, Endpoint::Response, Endpoint::Message] {
            let form = || Form { shape: shape(endpoint), reading: reading.clone() };
            check_events(&told(form(), &text), endpoint);
            check_object(&whole(form(), &text));
        }
    }
}

/// Text and calls, joined.
fn split(reading: &Reading, text: &str, step: usize) -> Vec<String> {
    let mut splitter = Splitter::new(reading.clone());
    let letters: Vec<char> = text.chars().collect();
    let mut pieces: Vec<Piece> =
        letters.chunks(step.min(letters.len().max(1))).flat_map(|part| splitter.push(&part.iter().collect::<String>())).collect();
    pieces.extend(splitter.finish());
    let (mut joined, mut calls) = (vec![String::new()], 0);
    for piece in pieces {
        match piece {
            Piece::Text(text) => joined.last_mut().expect("there is one").push_str(&text),
            Piece::Call(call) => {
                if let Some(start) = call.start {
                    assert_eq!(call.index, calls, "calls are numbered without gaps");
                    calls += 1;
                    joined.extend([start.name, String::new()]);
                }
                assert_eq!(call.index + 1, calls, "a call begins before it goes on");
                joined.last_mut().expect("there is one").push_str(&call.arguments);
            }
        }
    }
    joined
}

fn request() -> RequestId {
    RequestId::from_trusted("req_1".into())
}

fn shape(endpoint: Endpoint) -> Shape {
    let body: &[u8] = match endpoint {
        Endpoint::Chat | Endpoint::Completion | Endpoint::Embedding => {
            br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream_options":{"include_usage":true}}"#
        }
        Endpoint::Response => br#"{"model":"m","input":"hi"}"#,
        Endpoint::Message => br#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#,
    };
    endpoint.read(body, &Earlier::default()).expect("a good request").form.shape
}

fn translated(endpoint: Endpoint) -> Form {
    Form { shape: Shape::Translated(Box::new(shape(endpoint))), reading: Reading::Text }
}

fn writer(form: Form) -> Box<dyn Writer> {
    form.writer(Subject { request: &request(), model: "m", created: Timestamp::EPOCH, choices: 1, tier: ServiceTier::Default })
}

fn ended<T>(finish: impl FnOnce(&End<'_>) -> T) -> T {
    let cost =
        CostNote { cost: Money { amount: Nanos::ZERO, currency: Currency::EUR }.into(), provisional: true, remaining_budget: None };
    let tokens = TokenUsage { input: TokenCount::new(3), cached_input: TokenCount::ZERO, output: TokenCount::new(5) };
    finish(&End { tokens: &tokens, finishes: &[FinishReason::Allowance], cost: &cost, at: Timestamp::EPOCH })
}

/// The events of an answer.
fn told(form: Form, text: &str) -> Vec<u8> {
    let (mut writer, mut out) = (writer(form), Vec::new());
    writer.begin(&mut out, &TokenUsage::default());
    writer.delta(&mut out, &Delta { choice: 0, text: text.to_owned(), logprobs: Vec::new() });
    ended(|end| writer.end(&mut out, end));
    out
}

fn whole(form: Form, text: &str) -> Vec<u8> {
    ended(|end| writer(form).whole(vec![Text { text: text.to_owned(), logprobs: Vec::new(), vectors: Vec::new() }], end))
}

/// The answer of a server in the words of its own API.
fn check_relay(form: relay::Form, text: &str) {
    let came: Fields<'_> = serde_json::from_str(text).expect("it was read before");
    let (request, mut out) = (request(), Vec::new());
    let mut relay = relay::Relay::new(form, subject_of(&request));
    // A line end would have ended the event.
    if !text.contains('\n') {
        relay.delta(&mut out, &Delta { choice: 0, text: text.to_owned(), logprobs: Vec::new() });
    }
    for data in events(&out) {
        check_said(&came, data.1);
    }
    ended(|end| relay.end(&mut out, end));
    check_events(&out, Endpoint::Chat);
    if came.get("choices").is_none_or(|choices| choices.get() != "[]") {
        let said = ended(|end| relay::Relay::new(form, subject_of(&request)).whole(vec![of(text)], end));
        let said = std::str::from_utf8(&said).expect("an answer is UTF-8");
        assert!(!said.contains('\n'), "an answer is one line");
        check_said(&came, said);
    }
}

fn subject_of(request: &RequestId) -> Subject<'_> {
    Subject { request, model: "m", created: Timestamp::EPOCH, choices: 1, tier: ServiceTier::Default }
}

fn of(text: &str) -> Text {
    Text { text: text.to_owned(), logprobs: Vec::new(), vectors: Vec::new() }
}

/// Everything that the server said is there once, and what is ours is ours.
fn check_said(came: &Fields<'_>, said: &str) {
    let said: Fields<'_> = serde_json::from_str(said).expect("an object whose fields are given once");
    for (name, value) in came.iter().filter(|(name, _)| !relay::OURS.contains(name)) {
        let kept = said.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        let plain = |raw: &RawValue| raw.get().split_ascii_whitespace().collect::<String>();
        assert_eq!(kept.map(plain), Some(plain(value)), "'{name}' went on as it came");
    }
    let text = |name| said.get(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    assert_eq!((text("id").as_deref(), text("model").as_deref()), (Some("req_1"), Some("m")));
}

/// Name and data of each event.
fn events(out: &[u8]) -> Vec<(&str, &str)> {
    let text = std::str::from_utf8(out).expect("events are UTF-8");
    assert!(text.is_empty() || text.ends_with("\n\n"), "an event ends");
    // A parser takes each of these as the end of a line.
    assert!(!text.contains('\r'), "an event has no other line ends");
    let read = |event| {
        let (name, data) = match str::strip_prefix(event, "event: ") {
            Some(rest) => rest.split_once('\n').expect("data follow a name"),
            None => ("", event),
        };
        let data = data.strip_prefix("data: ").expect("an event has data");
        assert!(!data.contains('\n'), "data are one line");
        (name, data)
    };
    text.split_terminator("\n\n").map(read).collect()
}

fn check_events(out: &[u8], endpoint: Endpoint) {
    let (mut sequence, mut open) = (0, None);
    for (name, data) in events(out) {
        if data == "[DONE]" {
            continue;
        }
        check_object(data.as_bytes());
        let event = || serde_json::from_str::<Value>(data).expect("an object");
        match endpoint {
            Endpoint::Chat | Endpoint::Completion | Endpoint::Embedding => assert_eq!(name, ""),
            Endpoint::Response => {
                let event = event();
                assert_eq!((event["type"].as_str(), event["sequence_number"].as_u64()), (Some(name), Some(sequence)));
                sequence += 1;
            }
            Endpoint::Message => {
                let event = event();
                assert_eq!(event["type"].as_str(), Some(name));
                check_block(name, event["index"].as_u64(), &mut open, &mut sequence);
            }
        }
    }
    assert_eq!(open, None, "every block was closed");
}

/// Blocks are numbered without gaps, and one is open at a time.
fn check_block(name: &str, index: Option<u64>, open: &mut Option<u64>, blocks: &mut u64) {
    match name {
        "content_block_start" => {
            assert_eq!((index, *open), (Some(*blocks), None));
            (*open, *blocks) = (index, *blocks + 1);
        }
        "content_block_delta" => assert_eq!(index, *open),
        "content_block_stop" => assert_eq!(index, open.take()),
        _ => {}
    }
}

fn check_object(json: &[u8]) {
    serde_json::from_slice::<Fields<'_>>(json).expect("an object whose fields are given once");
}
