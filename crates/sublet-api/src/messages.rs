//! The data plane's wire types in Anthropic's shape: Messages, and counting their tokens.
//!
//! Deliberately absent: validation, which is the gateway's business, and fields that no model here can honour.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode};
use sublet_core::id::RequestId;

use crate::fields::raw_fields;
use crate::openai::{ChatMessage, CostNote};

raw_fields! {
    /// Every top-level field of a message request that the gateway looks at.
    MessageRequestFields {
        model, messages, system, max_tokens, stop_sequences, stream, temperature, top_p, top_k, service_tier,
        tools, tool_choice, output_config, output_format,
        // Would change the answer; refused by name unless neutral.
        thinking, mcp_servers, container, context_management, speed,
        inference_geo, stop, seed, n, max_completion_tokens, logit_bias, frequency_penalty, presence_penalty, response_format,
    }
}

raw_fields! {
    /// One turn: a role, and a string or blocks.
    TurnFields { role, content }
}

raw_fields! {
    /// One block of a turn's content or of the system prompt.
    BlockFields { r#type, text, id, name, input, tool_use_id, content, is_error }
}

raw_fields! {
    /// `output_config`.
    OutputConfigFields { format }
}

/// A message request as this cloud's own clients send it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageRequest {
    pub model: String,
    pub max_tokens: i64,
    pub messages: Vec<ChatMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(default)]
    pub stop_sequences: Vec<String>,
    #[serde(default)]
    pub stream: bool,
}

/// A request to count the tokens of a message request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountTokens {
    pub model: String,
    pub messages: Vec<ChatMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// Tokens the prompt has, exactly as it would be charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountedTokens {
    pub input_tokens: i64,
}

/// One text of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TextBlock {
    /// `text`.
    pub r#type: String,
    pub text: String,
}

impl TextBlock {
    pub fn new(text: String) -> Self {
        Self { r#type: "text".to_owned(), text }
    }
}

/// A call that the model asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToolUseBlock {
    /// `tool_use`.
    pub r#type: String,
    pub id: String,
    pub name: String,
    /// Empty where a stream begins it, and where the answer was cut inside it.
    pub input: serde_json::Map<String, serde_json::Value>,
}

impl ToolUseBlock {
    pub fn new(id: String, name: String, input: serde_json::Map<String, serde_json::Value>) -> Self {
        Self { r#type: "tool_use".to_owned(), id, name, input }
    }
}

/// One block of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AnswerBlock {
    ToolUse(ToolUseBlock),
    Text(TextBlock),
}

/// Tokens of one message. What was not computed again is in `cache_read_input_tokens` and not in `input_tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageUsage {
    pub input_tokens: i64,
    pub cache_creation_input_tokens: i64,
    pub cache_read_input_tokens: i64,
    pub output_tokens: i64,
    /// The tier that served, and is charged: `standard`, `flex` or `priority`.
    pub service_tier: String,
}

/// An answer; unfinished where a stream begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    pub id: String,
    /// `message`.
    pub r#type: String,
    /// `assistant`.
    pub role: String,
    pub model: String,
    pub content: Vec<AnswerBlock>,
    /// `end_turn`, `tool_use`, `max_tokens` or `stop_sequence`.
    pub stop_reason: Option<String>,
    pub stop_sequence: Option<String>,
    pub usage: MessageUsage,
    /// Set when something other than the model or the request ended the output: `budget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// One event of a streamed message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessageEvent {
    MessageStart {
        message: Message,
    },
    ContentBlockStart {
        index: u32,
        content_block: AnswerBlock,
    },
    ContentBlockDelta {
        index: u32,
        delta: BlockDelta,
    },
    ContentBlockStop {
        index: u32,
    },
    MessageDelta {
        delta: MessageEnd,
        usage: MessageUsage,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sublet: Option<CostNote>,
    },
    MessageStop,
    Ping,
    Error {
        error: MessageErrorDetail,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        request_id: Option<RequestId>,
    },
}

impl MessageEvent {
    /// The name of the event, which clients filter on.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
            Self::Error { .. } => "error",
        }
    }
}

/// More of a block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockDelta {
    TextDelta { text: String },
    InputJsonDelta { partial_json: String },
}

/// How a streamed message ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageEnd {
    pub stop_reason: Option<String>,
    pub stop_sequence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// The envelope of an error in Anthropic's shape.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageError {
    /// `error`.
    pub r#type: String,
    pub error: MessageErrorDetail,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub request_id: Option<RequestId>,
}

/// What went wrong, in Anthropic's vocabulary and in ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageErrorDetail {
    pub r#type: String,
    pub message: String,
    /// Our stable reason.
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<String>,
}

/// Anthropic's status and type of an error.
pub const fn status_and_type(code: ErrorCode) -> (u16, &'static str) {
    match code {
        ErrorCode::InsufficientQuota => (402, "billing_error"),
        ErrorCode::QueueFull | ErrorCode::Preempted => (529, "overloaded_error"),
        _ => match code.status() {
            401 => (401, "authentication_error"),
            403 => (403, "permission_error"),
            404 => (404, "not_found_error"),
            413 => (413, "request_too_large"),
            429 => (429, "rate_limit_error"),
            status @ 400..=499 => (status, "invalid_request_error"),
            504 => (504, "timeout_error"),
            status => (status, "api_error"),
        },
    }
}

impl MessageError {
    /// The public part of an error.
    pub fn new(error: &Error, request: Option<&RequestId>) -> Self {
        let (_, kind) = status_and_type(error.code());
        let detail = MessageErrorDetail {
            r#type: kind.to_owned(),
            message: error.message().to_owned(),
            code: error.code().as_str().to_owned(),
            param: error.param_name().map(str::to_owned),
            alternatives: error.alternatives().to_vec(),
        };
        Self { r#type: "error".to_owned(), error: detail, request_id: request.cloned() }
    }
}

/// A model in Anthropic's list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageModel {
    /// `model`.
    pub r#type: String,
    pub id: String,
    pub display_name: String,
    /// RFC 3339.
    pub created_at: String,
}

/// Anthropic's list of models.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MessageModelList {
    pub data: Vec<MessageModel>,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_and_a_type_that_anthropic_s_clients_know() {
        const TYPES: [&str; 10] = [
            "invalid_request_error",
            "authentication_error",
            "billing_error",
            "permission_error",
            "not_found_error",
            "request_too_large",
            "rate_limit_error",
            "timeout_error",
            "api_error",
            "overloaded_error",
        ];
        for code in ErrorCode::ALL {
            let (status, kind) = status_and_type(*code);
            assert!((400..600).contains(&status) && TYPES.contains(&kind), "{code}: {status} {kind}");
        }
        assert_eq!(status_and_type(ErrorCode::QueueFull), (529, "overloaded_error"));
        assert_eq!(status_and_type(ErrorCode::InsufficientQuota), (402, "billing_error"));
    }

    #[test]
    fn an_event_is_named_as_it_is_tagged() {
        let usage = MessageUsage {
            input_tokens: 1,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: 0,
            output_tokens: 1,
            service_tier: "standard".to_owned(),
        };
        let end = MessageEnd { stop_reason: None, stop_sequence: None, sublet_stop: None };
        let events = [
            MessageEvent::ContentBlockStart { index: 0, content_block: AnswerBlock::Text(TextBlock::new(String::new())) },
            MessageEvent::ContentBlockStop { index: 0 },
            MessageEvent::MessageDelta { delta: end, usage, sublet: None },
            MessageEvent::MessageStop,
            MessageEvent::Ping,
        ];
        for event in events {
            assert_eq!(serde_json::to_value(&event).unwrap()["type"], event.name());
        }
    }
}
