//! Writes messages, whole or as events.

use sublet_api::messages::{
    AnswerBlock, BlockDelta, CountedTokens, Message, MessageEnd, MessageError, MessageEvent, MessageUsage, TextBlock, ToolUseBlock,
};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::FinishReason;
use sublet_core::id::RequestId;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, TokenCount};

use super::Form;
use crate::dialect::parts::{Answer, Call, Item, Part, PartWriter};
use crate::dialect::piece::Piece;
use crate::dialect::{CallIds, End, Subject, json, push_event};

const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The answer to a request to count.
pub(crate) fn count(tokens: TokenCount) -> Vec<u8> {
    json(&CountedTokens { input_tokens: tokens.get() })
}

pub(crate) struct Events {
    form: Form,
    id: String,
    model: String,
    ids: CallIds,
    /// Blocks that were announced; the last one is open.
    blocks: Vec<Block>,
    tier: ServiceTier,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Call,
}

impl Events {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        Self {
            form,
            id: subject.id("msg"),
            model: subject.model.to_owned(),
            ids: subject.call_ids("toolu"),
            blocks: Vec::new(),
            tier: subject.tier,
        }
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
            Some(FinishReason::Stop | FinishReason::Length | FinishReason::Allowance) | None => None,
        };
        let has_called = self.blocks.contains(&Block::Call);
        let text = |reason| match reason {
            FinishReason::Stop if has_called => "tool_use",
            // One that we added ends a call, or what looked like one.
            FinishReason::StopString(_) if stop_sequence.is_none() => {
                if has_called {
                    "tool_use"
                } else {
                    "end_turn"
                }
            }
            FinishReason::Stop => "end_turn",
            FinishReason::StopString(_) => "stop_sequence",
            FinishReason::Length | FinishReason::Allowance => "max_tokens",
        };
        MessageEnd { stop_reason: reason.map(|reason| text(reason).to_owned()), stop_sequence, sublet_stop: end.stop() }
    }

    /// Ends the open block and announces another one.
    fn open(&mut self, out: &mut Vec<u8>, block: Block, content_block: AnswerBlock) {
        self.close(out);
        self.blocks.push(block);
        push(out, &MessageEvent::ContentBlockStart { index: self.index(), content_block });
    }

    fn close(&self, out: &mut Vec<u8>) {
        if !self.blocks.is_empty() {
            push(out, &MessageEvent::ContentBlockStop { index: self.index() });
        }
    }

    /// The place of the open block.
    fn index(&self) -> u32 {
        u32::try_from(self.blocks.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn usage(&self, tokens: &TokenUsage) -> MessageUsage {
        // The default tier has another name here.
        let tier = if self.tier.is_default() { "standard" } else { self.tier.as_str() };
        MessageUsage {
            input_tokens: tokens.input.get(),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: tokens.cached_input.get(),
            output_tokens: tokens.output.get(),
            service_tier: tier.to_owned(),
        }
    }

    fn call_id(&self) -> String {
        self.ids.id(0, self.blocks.iter().filter(|block| **block == Block::Call).count())
    }
}

fn push(out: &mut Vec<u8>, event: &MessageEvent) {
    push_event(out, event.name(), event);
}

impl PartWriter for Events {
    fn begin(&mut self, out: &mut Vec<u8>, prompt: &TokenUsage) {
        // The output's count is a placeholder that the last event replaces.
        let usage = MessageUsage { output_tokens: 1, ..self.usage(prompt) };
        push(out, &MessageEvent::MessageStart { message: self.message(usage) });
    }

    fn part(&mut self, out: &mut Vec<u8>, part: &Part) {
        let delta = match &part.piece {
            Piece::Text(text) if text.is_empty() => return,
            Piece::Text(text) => {
                if self.blocks.last() != Some(&Block::Text) {
                    self.open(out, Block::Text, AnswerBlock::Text(TextBlock::new(String::new())));
                }
                BlockDelta::TextDelta { text: text.clone() }
            }
            Piece::Call(call) => {
                if let Some(start) = &call.start {
                    let id = start.id.clone().unwrap_or_else(|| self.call_id());
                    let block = ToolUseBlock::new(id, start.name.clone(), serde_json::Map::new());
                    self.open(out, Block::Call, AnswerBlock::ToolUse(block));
                }
                if call.arguments.is_empty() {
                    return;
                }
                BlockDelta::InputJsonDelta { partial_json: call.arguments.clone() }
            }
        };
        push(out, &MessageEvent::ContentBlockDelta { index: self.index(), delta });
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        self.close(out);
        let delta = self.message_end(end);
        push(out, &MessageEvent::MessageDelta { delta, usage: self.usage(end.tokens), sublet: Some(end.cost.clone()) });
        push(out, &MessageEvent::MessageStop);
    }

    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        push_event(out, "error", &MessageError::new(error, Some(request)));
    }

    fn heartbeat(&self) -> &'static [u8] {
        PING
    }

    fn whole(&mut self, answers: Vec<Answer>, end: &End<'_>) -> Vec<u8> {
        let mut content = Vec::new();
        for item in answers.into_iter().flat_map(|answer| answer.items) {
            match item {
                Item::Text(text) if text.is_empty() => {}
                Item::Text(text) => content.push(AnswerBlock::Text(TextBlock::new(text))),
                Item::Call(Call { id, name, arguments }) => {
                    let id = id.unwrap_or_else(|| self.call_id());
                    self.blocks.push(Block::Call);
                    // What was cut is no object; the stop reason says that it was.
                    let input = serde_json::from_str(&arguments).unwrap_or_default();
                    content.push(AnswerBlock::ToolUse(ToolUseBlock::new(id, name, input)));
                }
            }
        }
        let MessageEnd { stop_reason, stop_sequence, sublet_stop } = self.message_end(end);
        json(&Message { content, stop_reason, stop_sequence, sublet_stop, ..self.message(self.usage(end.tokens)) })
    }
}
