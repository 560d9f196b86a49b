//! Writes messages, whole or as events.

use sublet_api::messages::{BlockDelta, CountedTokens, Message, MessageEnd, MessageError, MessageEvent, MessageUsage, TextBlock};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::FinishReason;
use sublet_core::id::RequestId;
use sublet_core::{Error, TokenCount};

use super::Form;
use crate::dialect::{End, Subject, Text, Writer, json, push_event};
use crate::generation::Delta;

const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The answer to a request to count.
pub(crate) fn count(tokens: TokenCount) -> Vec<u8> {
    json(&CountedTokens { input_tokens: tokens.get() })
}

pub(crate) struct Events {
    form: Form,
    id: String,
    model: String,
    /// Whether the block of text was announced.
    opened: bool,
}

impl Events {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        Self { form, id: subject.id("msg"), model: subject.model.to_owned(), opened: false }
    }

    fn message(&self, usage: MessageUsage) -> Message {
        Message {
            id: self.id.clone(),
            r#type: "message".to_owned(),
            role: "assistant".to_owned(),
            model: self.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage,
            sublet_stop: None,
        }
    }

    fn message_end(&self, end: &End<'_>) -> MessageEnd {
        let reason = end.finishes.first().copied();
        let stop_sequence = match reason {
            Some(FinishReason::StopString(index)) => self.form.stop.get(usize::from(index)).cloned(),
            _ => None,
        };
        MessageEnd { stop_reason: reason.map(|reason| reason_text(reason).to_owned()), stop_sequence, sublet_stop: end.stop() }
    }
}

fn push(out: &mut Vec<u8>, event: &MessageEvent) {
    push_event(out, event.name(), event);
}

fn usage(tokens: &TokenUsage) -> MessageUsage {
    MessageUsage {
        input_tokens: tokens.input.get(),
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: tokens.cached_input.get(),
        output_tokens: tokens.output.get(),
        service_tier: "standard".to_owned(),
    }
}

/// Anthropic's word for an end.
fn reason_text(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "end_turn",
        FinishReason::StopString(_) => "stop_sequence",
        FinishReason::Length | FinishReason::Allowance => "max_tokens",
    }
}

impl Writer for Events {
    fn begin(&mut self, out: &mut Vec<u8>, prompt: &TokenUsage) {
        // The output's count is a placeholder that the last event replaces.
        let usage = MessageUsage { output_tokens: 1, ..usage(prompt) };
        push(out, &MessageEvent::MessageStart { message: self.message(usage) });
    }

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        if delta.text.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.opened, true) {
            push(out, &MessageEvent::ContentBlockStart { index: 0, content_block: TextBlock::new(String::new()) });
        }
        let delta = BlockDelta { r#type: "text_delta".to_owned(), text: delta.text.clone() };
        push(out, &MessageEvent::ContentBlockDelta { index: 0, delta });
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        if self.opened {
            push(out, &MessageEvent::ContentBlockStop { index: 0 });
        }
        let delta = self.message_end(end);
        push(out, &MessageEvent::MessageDelta { delta, usage: usage(end.tokens), sublet: Some(end.cost.clone()) });
        push(out, &MessageEvent::MessageStop);
    }

    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        push_event(out, "error", &MessageError::new(error, Some(request)));
    }

    fn heartbeat(&self) -> &'static [u8] {
        PING
    }

    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8> {
        let MessageEnd { stop_reason, stop_sequence, sublet_stop } = self.message_end(end);
        let texts = texts.into_iter().map(|text| text.text).filter(|text| !text.is_empty());
        let content = texts.map(TextBlock::new).collect();
        json(&Message { content, stop_reason, stop_sequence, sublet_stop, ..self.message(usage(end.tokens)) })
    }
}
