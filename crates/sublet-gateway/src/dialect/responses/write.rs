//! Writes responses, whole or as events.
//!
//! An item has one id in every event and in the finished response, and events are numbered without gaps.

use sublet_api::openai::ChatTokenLogprob;
use sublet_api::responses::{
    CountedInput, IncompleteDetails, InputTokensDetails, OutputCall, OutputItem, OutputMessage, OutputText, OutputTokensDetails,
    Response, ResponseError, ResponseEvent, ResponseUsage,
};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, PositionLogprobs};
use sublet_core::id::RequestId;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, Timestamp, TokenCount};

use super::Form;
use crate::dialect::openai::chat_logprobs;
use crate::dialect::parts::{self, Answer, Call, Part, PartWriter};
use crate::dialect::piece::{CallPiece, Piece};
use crate::dialect::{CallIds, End, Subject, Text, json, push_event, push_json};

const IN_PROGRESS: &str = "in_progress";
const COMPLETED: &str = "completed";

/// The answer to a request to count.
pub(crate) fn count(tokens: TokenCount) -> Vec<u8> {
    json(&CountedInput { object: "response.input_tokens".to_owned(), input_tokens: tokens.get() })
}

pub(crate) struct Events {
    form: Form,
    id: String,
    message_id: String,
    item_ids: CallIds,
    call_ids: CallIds,
    created: Timestamp,
    tier: ServiceTier,
    /// The number of the next event.
    sequence: u64,
    /// Items so far; the last one is open.
    items: Vec<Item>,
    calls: usize,
}

/// One item of the output.
enum Item {
    Text(Text),
    Call { id: String, name: String, arguments: String },
}

impl Events {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        Self {
            form,
            id: subject.id("resp"),
            message_id: subject.id("msg"),
            item_ids: subject.call_ids("fc"),
            call_ids: subject.call_ids("call"),
            created: subject.created,
            tier: subject.tier,
            sequence: 0,
            items: Vec::new(),
            calls: 0,
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.sequence;
        self.sequence += 1;
        number
    }

    fn response(&self, status: &str) -> Response {
        Response {
            id: self.id.clone(),
            object: "response".to_owned(),
            created_at: self.created.seconds(),
            completed_at: None,
            status: status.to_owned(),
            error: None,
            incomplete_details: None,
            output: Vec::new(),
            usage: None,
            service_tier: self.tier.to_string(),
            request: self.form.echo.clone(),
            sublet: None,
            sublet_stop: None,
        }
    }

    /// The id of the item at a place: the same in every event.
    fn item_id(&self, place: usize) -> String {
        match &self.items[place] {
            Item::Call { .. } => self.item_ids.id(0, place),
            Item::Text(_) if place == 0 => self.message_id.clone(),
            Item::Text(_) => format!("{}_{place}", self.message_id),
        }
    }

    /// The item at a place as it is shown, with or without what it holds.
    fn item(&self, place: usize, status: &str) -> OutputItem {
        let is_begun = status == IN_PROGRESS;
        let (id, status) = (self.item_id(place), status.to_owned());
        match &self.items[place] {
            Item::Text(text) => {
                let content = if is_begun { Vec::new() } else { vec![self.part_of(text)] };
                let (kind, role) = ("message".to_owned(), "assistant".to_owned());
                OutputItem::Message(OutputMessage { id, r#type: kind, status, role, content })
            }
            Item::Call { id: call_id, name, arguments } => OutputItem::Call(OutputCall {
                id,
                r#type: "function_call".to_owned(),
                status,
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: if is_begun { String::new() } else { arguments.clone() },
            }),
        }
    }

    fn part_of(&self, text: &Text) -> OutputText {
        OutputText {
            r#type: "output_text".to_owned(),
            text: text.text.clone(),
            annotations: Vec::new(),
            logprobs: self.logprobs(&text.logprobs),
        }
    }

    fn logprobs(&self, positions: &[PositionLogprobs]) -> Vec<ChatTokenLogprob> {
        if self.form.logprobs { chat_logprobs(positions).content } else { Vec::new() }
    }

    /// Ends the open item and announces another one.
    fn open(&mut self, out: &mut Vec<u8>, item: Item) {
        self.close(out, COMPLETED);
        self.items.push(item);
        let place = self.items.len() - 1;
        let item = self.item(place, IN_PROGRESS);
        push(out, &ResponseEvent::ItemAdded { sequence_number: self.number(), output_index: index(place), item });
        if matches!(self.items[place], Item::Text(_)) {
            let (part, item_id) = (self.part_of(&Text::default()), self.item_id(place));
            let (sequence_number, output_index) = (self.number(), index(place));
            push(out, &ResponseEvent::PartAdded { sequence_number, item_id, output_index, content_index: 0, part });
        }
    }

    /// Ends the open item, if there is one.
    fn close(&mut self, out: &mut Vec<u8>, status: &str) {
        let Some(place) = self.items.len().checked_sub(1) else { return };
        let (item_id, output_index) = (self.item_id(place), index(place));
        match self.item(place, status) {
            OutputItem::Message(message) => {
                let sequence_number = self.number();
                for part in message.content {
                    let (text, logprobs, item_id) = (part.text.clone(), part.logprobs.clone(), item_id.clone());
                    let content_index = 0;
                    push(
                        out,
                        &ResponseEvent::TextDone {
                            sequence_number,
                            item_id: item_id.clone(),
                            output_index,
                            content_index,
                            text,
                            logprobs,
                        },
                    );
                    push(
                        out,
                        &ResponseEvent::PartDone { sequence_number: self.number(), item_id, output_index, content_index, part },
                    );
                }
            }
            OutputItem::Call(OutputCall { name, arguments, .. }) => {
                let sequence_number = self.number();
                push(out, &ResponseEvent::ArgumentsDone { sequence_number, item_id, output_index, name, arguments });
            }
        }
        let item = self.item(place, status);
        push(out, &ResponseEvent::ItemDone { sequence_number: self.number(), output_index, item });
    }

    /// Written as text, because an answer has many of these.
    fn text(&mut self, out: &mut Vec<u8>, added: &str, logprobs: &[PositionLogprobs]) {
        if !matches!(self.items.last(), Some(Item::Text(_))) {
            self.open(out, Item::Text(Text::default()));
        }
        if let Some(Item::Text(text)) = self.items.last_mut() {
            text.text.push_str(added);
            if self.form.logprobs {
                text.logprobs.extend_from_slice(logprobs);
            }
        }
        let place = self.items.len() - 1;
        let number = self.number();
        out.extend_from_slice(
            b"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":",
        );
        push_json(out, &number);
        out.extend_from_slice(b",\"item_id\":");
        push_json(out, &self.item_id(place));
        out.extend_from_slice(b",\"output_index\":");
        push_json(out, &place);
        out.extend_from_slice(b",\"content_index\":0,\"delta\":");
        push_json(out, added);
        out.extend_from_slice(b",\"logprobs\":");
        push_json(out, &self.logprobs(logprobs));
        out.extend_from_slice(b"}\n\n");
    }

    fn call(&mut self, out: &mut Vec<u8>, call: &CallPiece) {
        if let Some(start) = &call.start {
            let item = self.called(start.id.clone(), start.name.clone(), String::new());
            self.open(out, item);
        }
        let Some(Item::Call { arguments, .. }) = self.items.last_mut() else { return };
        if call.arguments.is_empty() {
            return;
        }
        arguments.push_str(&call.arguments);
        let place = self.items.len() - 1;
        let (sequence_number, item_id) = (self.number(), self.item_id(place));
        let delta = call.arguments.clone();
        push(out, &ResponseEvent::ArgumentsDelta { sequence_number, item_id, output_index: index(place), delta });
    }

    fn called(&mut self, id: Option<String>, name: String, arguments: String) -> Item {
        let id = id.unwrap_or_else(|| self.call_ids.id(0, self.calls));
        self.calls += 1;
        Item::Call { id, name, arguments }
    }

    /// The finished response. Only its last item can have been cut.
    fn finished(&self, end: &End<'_>) -> Response {
        let is_cut = end.finishes.iter().any(|reason| matches!(reason, FinishReason::Length | FinishReason::Allowance));
        let status = if is_cut { "incomplete" } else { COMPLETED };
        let item = |place: usize| self.item(place, if place + 1 == self.items.len() { status } else { COMPLETED });
        Response {
            completed_at: Some(end.at.seconds()),
            incomplete_details: is_cut.then(|| IncompleteDetails { reason: "max_output_tokens".to_owned() }),
            output: (0..self.items.len()).map(item).collect(),
            usage: Some(usage(end.tokens)),
            sublet: Some(end.cost.clone()),
            sublet_stop: end.stop(),
            ..self.response(status)
        }
    }
}

/// A place in the output, as events give it.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn push(out: &mut Vec<u8>, event: &ResponseEvent) {
    push_event(out, event.name(), event);
}

fn usage(tokens: &TokenUsage) -> ResponseUsage {
    ResponseUsage {
        input_tokens: tokens.prompt().get(),
        input_tokens_details: InputTokensDetails { cached_tokens: tokens.cached_input.get(), cache_write_tokens: 0 },
        output_tokens: tokens.output.get(),
        output_tokens_details: OutputTokensDetails { reasoning_tokens: 0 },
        total_tokens: tokens.total().get(),
    }
}

impl PartWriter for Events {
    fn begin(&mut self, out: &mut Vec<u8>, _prompt: &TokenUsage) {
        let response = Box::new(self.response(IN_PROGRESS));
        push(out, &ResponseEvent::Created { sequence_number: self.number(), response: response.clone() });
        push(out, &ResponseEvent::InProgress { sequence_number: self.number(), response });
    }

    fn part(&mut self, out: &mut Vec<u8>, part: &Part) {
        match &part.piece {
            Piece::Text(text) => self.text(out, text, &part.logprobs),
            Piece::Call(call) => self.call(out, call),
        }
    }

    fn rest(&mut self, out: &mut Vec<u8>) {
        if self.items.is_empty() {
            // An answer without text has its item all the same, as it has in one object.
            self.open(out, Item::Text(Text::default()));
        }
    }

    fn object(&self, end: &End<'_>) -> Option<Vec<u8>> {
        Some(json(&self.finished(end)))
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        self.rest(out);
        let response = Box::new(self.finished(end));
        self.close(out, &response.status);
        let (sequence_number, is_complete) = (self.number(), response.status == COMPLETED);
        let last = if is_complete {
            ResponseEvent::Completed { sequence_number, response }
        } else {
            ResponseEvent::Incomplete { sequence_number, response }
        };
        push(out, &last);
    }

    /// What came so far stays with the client; the response is told to have failed.
    fn failure(&mut self, out: &mut Vec<u8>, _request: &RequestId, error: &Error) {
        let (code, message) = (error.code().as_str().to_owned(), error.message().to_owned());
        let event = ResponseEvent::Error {
            sequence_number: self.number(),
            code: Some(code.clone()),
            message: message.clone(),
            param: error.param_name().map(str::to_owned),
        };
        push(out, &event);
        let response = Response { error: Some(ResponseError { code, message }), ..self.response("failed") };
        push(out, &ResponseEvent::Failed { sequence_number: self.number(), response: Box::new(response) });
    }

    fn whole(&mut self, answers: Vec<Answer>, end: &End<'_>) -> Vec<u8> {
        for Answer { items, mut logprobs } in answers {
            for item in items {
                let item = match item {
                    // All of them go with the first text.
                    parts::Item::Text(text) => {
                        Item::Text(Text { text, logprobs: std::mem::take(&mut logprobs), ..Text::default() })
                    }
                    parts::Item::Call(Call { id, name, arguments }) => self.called(id, name, arguments),
                };
                self.items.push(item);
            }
        }
        if self.items.is_empty() {
            self.items.push(Item::Text(Text::default()));
        }
        json(&self.finished(end))
    }
}
