//! Writes responses, whole or as events.
//!
//! An item has one id in every event and in the finished response, and events are numbered without gaps.

use sublet_api::openai::ChatTokenLogprob;
use sublet_api::responses::{
    CountedInput, IncompleteDetails, InputTokensDetails, OutputMessage, OutputText, OutputTokensDetails, Response, ResponseError,
    ResponseEvent, ResponseUsage,
};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, PositionLogprobs};
use sublet_core::id::RequestId;
use sublet_core::{Error, Timestamp, TokenCount};

use super::Form;
use crate::dialect::openai::chat_logprobs;
use crate::dialect::{End, Subject, Text, Writer, json, push_event, push_json};
use crate::generation::Delta;

/// The answer to a request to count.
pub(crate) fn count(tokens: TokenCount) -> Vec<u8> {
    json(&CountedInput { object: "response.input_tokens".to_owned(), input_tokens: tokens.get() })
}

pub(crate) struct Events {
    form: Form,
    id: String,
    item: String,
    created: Timestamp,
    /// The number of the next event.
    sequence: u64,
    opened: bool,
    text: Text,
}

impl Events {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        let (id, item) = (subject.id("resp"), subject.id("msg"));
        Self { form, id, item, created: subject.created, sequence: 0, opened: false, text: Text::default() }
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
            service_tier: "default".to_owned(),
            request: self.form.echo.clone(),
            sublet: None,
            sublet_stop: None,
        }
    }

    fn message(&self, status: &str, content: Vec<OutputText>) -> OutputMessage {
        OutputMessage {
            id: self.item.clone(),
            r#type: "message".to_owned(),
            status: status.to_owned(),
            role: "assistant".to_owned(),
            content,
        }
    }

    fn part(&self, text: &Text) -> OutputText {
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

    /// The item and its one part are announced before their text.
    fn open(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.opened, true) {
            return;
        }
        let item = self.message("in_progress", Vec::new());
        push(out, &ResponseEvent::ItemAdded { sequence_number: self.number(), output_index: 0, item });
        let part = self.part(&Text::default());
        let (sequence_number, item_id) = (self.number(), self.item.clone());
        push(out, &ResponseEvent::PartAdded { sequence_number, item_id, output_index: 0, content_index: 0, part });
    }

    fn close(&mut self, out: &mut Vec<u8>, status: &str) {
        let part = self.part(&self.text);
        let item_id = self.item.clone();
        let (text, logprobs) = (part.text.clone(), part.logprobs.clone());
        let done = ResponseEvent::TextDone {
            sequence_number: self.number(),
            item_id: item_id.clone(),
            output_index: 0,
            content_index: 0,
            text,
            logprobs,
        };
        push(out, &done);
        let item = self.message(status, vec![part.clone()]);
        push(out, &ResponseEvent::PartDone { sequence_number: self.number(), item_id, output_index: 0, content_index: 0, part });
        push(out, &ResponseEvent::ItemDone { sequence_number: self.number(), output_index: 0, item });
    }

    /// The finished response with its texts.
    fn finished(&self, texts: &[&Text], end: &End<'_>) -> Response {
        let is_cut = end.finishes.iter().any(|reason| matches!(reason, FinishReason::Length | FinishReason::Allowance));
        let status = if is_cut { "incomplete" } else { "completed" };
        Response {
            completed_at: Some(end.at.seconds()),
            incomplete_details: is_cut.then(|| IncompleteDetails { reason: "max_output_tokens".to_owned() }),
            output: texts.iter().map(|text| self.message(status, vec![self.part(text)])).collect(),
            usage: Some(usage(end.tokens)),
            sublet: Some(end.cost.clone()),
            sublet_stop: end.stop(),
            ..self.response(status)
        }
    }
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

impl Writer for Events {
    fn begin(&mut self, out: &mut Vec<u8>, _prompt: &TokenUsage) {
        let response = Box::new(self.response("in_progress"));
        push(out, &ResponseEvent::Created { sequence_number: self.number(), response: response.clone() });
        push(out, &ResponseEvent::InProgress { sequence_number: self.number(), response });
    }

    /// Written as text, because an answer has many of these.
    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        self.open(out);
        self.text.text.push_str(&delta.text);
        if self.form.logprobs {
            self.text.logprobs.extend_from_slice(&delta.logprobs);
        }
        let number = self.number();
        out.extend_from_slice(
            b"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":",
        );
        push_json(out, &number);
        out.extend_from_slice(b",\"item_id\":");
        push_json(out, self.item.as_str());
        out.extend_from_slice(b",\"output_index\":0,\"content_index\":0,\"delta\":");
        push_json(out, delta.text.as_str());
        out.extend_from_slice(b",\"logprobs\":");
        push_json(out, &self.logprobs(&delta.logprobs));
        out.extend_from_slice(b"}\n\n");
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        // An answer without text has its item all the same, as it has in one object.
        self.open(out);
        let text = std::mem::take(&mut self.text);
        let response = Box::new(self.finished(&[&text], end));
        self.text = text;
        let status = response.status.clone();
        self.close(out, &status);
        let sequence_number = self.number();
        let last = if status == "completed" {
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

    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8> {
        json(&self.finished(&texts.iter().collect::<Vec<_>>(), end))
    }
}
