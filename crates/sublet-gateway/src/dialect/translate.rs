//! Responses and Messages over servers that speak chat completions: the request is written as a chat, the
//! answer is read from its events, and the dialect's own writer says it.
//!
//! Deliberately absent: what a chat cannot carry. Reasoning that a server gives beside its answer is not
//! passed on, and log-probabilities are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{Calling, Chat, ChatMessage, Constraint, Millionths, Prompt, Role, Sampling, Tool, ToolCall};
use sublet_core::id::RequestId;
use sublet_core::{Error, Result};

use super::body::UNIT;
use super::field::unsupported;
use super::parts::{Answer, Part, PartWriter};
use super::piece::{CallPiece, CallStart, Piece};
use super::{Call, End, Text, Writer};
use crate::generation::Delta;
use crate::supply::request::Fields;

/// Calls of one answer that are told apart; more are left out.
const CALLS_MAX: usize = 1_024;

/// Writes a request as a chat for `model`.
pub(crate) fn chat(call: &Call) -> Result<Vec<u8>> {
    if call.sampling.logprobs.is_some() {
        return Err(unsupported("top_logprobs", "is not supported by this model in this form of the API"));
    }
    let Some(Prompt::Chat(chat)) = call.prompts.first() else {
        return Err(Error::internal("only conversations are written as chats"));
    };
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(call.model));
    body.insert("messages".to_owned(), chat.messages.iter().map(message).collect());
    push_tools(&mut body, chat, call.parallel_calls);
    if let (Calling::Free, Some(rule)) = (&chat.calling, &call.rule) {
        push_format(&mut body, &rule.constraint)?;
    }
    push_sampling(&mut body, &call.sampling)?;
    if !call.stop.is_empty() {
        body.insert("stop".to_owned(), json!(call.stop));
    }
    if let Some(max) = call.output_max {
        body.insert("max_completion_tokens".to_owned(), json!(max.get()));
    }
    if call.stream {
        body.insert("stream".to_owned(), json!(true));
    }
    serde_json::to_vec(&body).map_err(|error| Error::internal(error.to_string()))
}

fn message(message: &ChatMessage) -> Value {
    let role = match message.role {
        // Engines of open models know no developer; it is the newer name of the same role.
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut written = json!({ "role": role, "content": message.content });
    if let Some(name) = &message.name {
        written["name"] = json!(name);
    }
    if let Some(id) = &message.tool_call_id {
        written["tool_call_id"] = json!(id);
    }
    if !message.tool_calls.is_empty() {
        written["tool_calls"] = message.tool_calls.iter().map(tool_call).collect();
        if message.content.is_empty() {
            written["content"] = Value::Null;
        }
    }
    written
}

fn tool_call(call: &ToolCall) -> Value {
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}

fn push_tools(body: &mut Map<String, Value>, chat: &Chat, parallel: bool) {
    if chat.tools.is_empty() {
        return;
    }
    body.insert("tools".to_owned(), chat.tools.iter().map(tool).collect());
    let choice = match &chat.calling {
        Calling::Free => json!("auto"),
        Calling::Forced => json!("required"),
        Calling::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    };
    body.insert("tool_choice".to_owned(), choice);
    if !parallel {
        body.insert("parallel_tool_calls".to_owned(), json!(false));
    }
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    if let Some(parameters) = tool.parameters.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        function["parameters"] = parameters;
    }
    json!({ "type": "function", "function": function })
}

fn push_format(body: &mut Map<String, Value>, constraint: &Constraint) -> Result<()> {
    let format = match constraint {
        Constraint::JsonObject => json!({ "type": "json_object" }),
        Constraint::JsonSchema(text) => {
            let schema: Value = serde_json::from_str(text).map_err(|error| Error::internal(error.to_string()))?;
            json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema, "strict": true } })
        }
        Constraint::Regex(_) | Constraint::Grammar(_) | Constraint::Call { .. } => {
            return Err(Error::internal("these dialects have no such rules"));
        }
    };
    body.insert("response_format".to_owned(), format);
    Ok(())
}

/// What is not said is left to the server, whose model may have values of its own.
fn push_sampling(body: &mut Map<String, Value>, sampling: &Sampling) -> Result<()> {
    for (name, value, default) in [
        ("temperature", sampling.temperature, UNIT),
        ("top_p", sampling.top_p, UNIT),
        ("presence_penalty", sampling.presence_penalty, 0),
    ] {
        if value.0 != default {
            body.insert(name.to_owned(), decimal(value)?);
        }
    }
    if let Some(top_k) = sampling.top_k {
        body.insert("top_k".to_owned(), json!(top_k));
    }
    Ok(())
}

/// A number as its text says it, without a float on the way.
fn decimal(value: Millionths) -> Result<Value> {
    let text = sublet_api::openai::Logprob::from(value).0.get().to_owned();
    serde_json::from_str(&text).map_err(|error| Error::internal(error.to_string()))
}

/// Says what a chat's events hold in the words of another dialect.
pub(crate) struct Translated<W> {
    writer: W,
    /// Places of calls at the server, and ours.
    calls: BTreeMap<usize, usize>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default, alias = "message")]
    delta: Option<Said<'a>>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<SaidCall<'a>>>,
}

#[derive(Deserialize)]
struct SaidCall<'a> {
    /// Whole answers have none: their calls are in order.
    #[serde(default)]
    index: Option<usize>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<SaidFunction<'a>>,
}

#[derive(Deserialize)]
struct SaidFunction<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
}

impl<W: PartWriter> Translated<W> {
    pub fn new(writer: W) -> Self {
        Self { writer, calls: BTreeMap::new() }
    }

    /// The pieces of one event, or of a whole answer.
    fn pieces(&mut self, object: &str) -> Vec<Piece> {
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(object) else { return Vec::new() };
        let choices = fields.get("choices").map(RawValue::get).and_then(|text| serde_json::from_str::<Vec<Choice<'_>>>(text).ok());
        let said = choices.into_iter().flatten().filter_map(|choice| choice.delta);
        let mut pieces = Vec::new();
        for said in said {
            for text in [said.content, said.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
                pieces.push(Piece::Text(text.into_owned()));
            }
            for (place, call) in said.tool_calls.into_iter().flatten().enumerate() {
                pieces.extend(self.call(place, call));
            }
        }
        pieces
    }

    /// A call's first piece must name it; servers count calls from other places than zero, or leave some out.
    fn call(&mut self, place: usize, call: SaidCall<'_>) -> Option<Piece> {
        let place = call.index.unwrap_or(place);
        let function = call.function?;
        let arguments = function.arguments.map(Cow::into_owned).unwrap_or_default();
        if let Some(index) = self.calls.get(&place) {
            return Some(Piece::Call(CallPiece { index: *index, start: None, arguments }));
        }
        let index = self.calls.len();
        let name = function.name.filter(|name| !name.is_empty() && index < CALLS_MAX)?.into_owned();
        self.calls.insert(place, index);
        let id = call.id.filter(|id| !id.is_empty()).map(Cow::into_owned);
        Some(Piece::Call(CallPiece { index, start: Some(CallStart { id, name }), arguments }))
    }
}

impl<W: PartWriter> Writer for Translated<W> {
    fn begin(&mut self, out: &mut Vec<u8>, prompt: &TokenUsage) {
        self.writer.begin(out, prompt);
    }

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        for piece in self.pieces(&delta.text) {
            self.writer.part(out, &Part { choice: 0, piece, logprobs: Vec::new() });
        }
    }

    fn rest(&mut self, out: &mut Vec<u8>) {
        self.writer.rest(out);
    }

    fn object(&self, end: &End<'_>) -> Option<Vec<u8>> {
        self.writer.object(end)
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        self.writer.end(out, end);
    }

    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        self.writer.failure(out, request, error);
    }

    fn heartbeat(&self) -> &'static [u8] {
        self.writer.heartbeat()
    }

    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8> {
        let mut answer = Answer::default();
        for text in texts {
            self.pieces(&text.text).into_iter().for_each(|piece| answer.push(piece));
        }
        self.writer.whole(vec![answer], end)
    }
}
