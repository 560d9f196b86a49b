//! The data plane's wire types of OpenAI's Responses.
//!
//! Deliberately absent: validation, which is the gateway's business; tools; reading answers back, for
//! which clients of this cloud use chat.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fields::raw_fields;
use crate::openai::{ChatTokenLogprob, CostNote};

raw_fields! {
    /// Every top-level field of a response request that the gateway looks at.
    ResponseRequestFields {
        model, input, instructions, max_output_tokens, stream, temperature, top_p, top_logprobs, include,
        metadata, user, service_tier, store, reasoning, text, truncation, parallel_tool_calls,
        prompt_cache_key, safety_identifier, tools, tool_choice,
        // Would change the answer; refused by name unless neutral.
        previous_response_id, conversation, background, prompt, context_management,
        messages, max_tokens, max_completion_tokens, stop, seed, n, top_k, logprobs, logit_bias, frequency_penalty,
        presence_penalty, response_format,
    }
}

raw_fields! {
    /// One item of the input: a message, or something that is recognized by its type.
    InputItemFields { r#type, id, role, content, call_id, name, arguments, output }
}

raw_fields! {
    /// What a request refers to that was kept before.
    EarlierFields { previous_response_id, input }
}

raw_fields! {
    /// The part of a kept response object that a later request goes on from.
    KeptOutputFields { output }
}

raw_fields! {
    /// `text`.
    TextFields { format }
}

/// A response request as this cloud's own clients send it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResponseRequest {
    pub model: String,
    /// A text, or a list of messages.
    pub input: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<i64>,
    #[serde(default)]
    pub stream: bool,
    /// Keeps the response with its input, for `previous_response_id` and to be read again. Nothing is kept unless this is true.
    #[serde(default)]
    pub store: bool,
    /// A kept response whose conversation is gone on from. Its instructions are not carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_response_id: Option<String>,
}

/// A request to count the tokens of a response request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountInput {
    pub model: String,
    /// A text, or a list of messages.
    pub input: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

/// Tokens the prompt has, exactly as it would be charged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountedInput {
    /// `response.input_tokens`.
    pub object: String,
    pub input_tokens: i64,
}

/// A JSON value with its text kept: numbers are repeated as they were sent.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Verbatim(#[schemars(with = "serde_json::Value")] pub Box<RawValue>);

/// What a response repeats of its request, defaults filled in.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RequestEcho {
    pub model: String,
    pub instructions: Option<String>,
    pub max_output_tokens: Option<i64>,
    pub metadata: Verbatim,
    pub parallel_tool_calls: bool,
    pub temperature: Verbatim,
    pub top_p: Verbatim,
    pub top_logprobs: u8,
    pub reasoning: Verbatim,
    pub text: Verbatim,
    pub tool_choice: Verbatim,
    /// The functions that were sent. Tools of other kinds are not used and not repeated.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub tools: Vec<Verbatim>,
    /// `disabled`.
    pub truncation: String,
    /// Whether it is kept.
    pub store: bool,
    /// Always false.
    pub background: bool,
    /// What it goes on from.
    pub previous_response_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A response; unfinished where a stream begins.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Response {
    pub id: String,
    /// `response`.
    pub object: String,
    pub created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<i64>,
    /// `in_progress`, `completed`, `incomplete` or `failed`.
    pub status: String,
    pub error: Option<ResponseError>,
    pub incomplete_details: Option<IncompleteDetails>,
    pub output: Vec<OutputItem>,
    pub usage: Option<ResponseUsage>,
    /// The tier that served, which is the tier that is charged.
    pub service_tier: String,
    #[serde(flatten)]
    pub request: RequestEcho,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet: Option<CostNote>,
    /// Set when something other than the model or the request ended the output: `budget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// Why a response failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResponseError {
    pub code: String,
    pub message: String,
}

/// Why a response is incomplete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens`.
    pub reason: String,
}

/// One item of a response.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OutputItem {
    Message(OutputMessage),
    Call(OutputCall),
}

/// A call that the model asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct OutputCall {
    pub id: String,
    /// `function_call`.
    pub r#type: String,
    /// `in_progress`, `completed` or `incomplete`.
    pub status: String,
    /// What the item with its output names.
    pub call_id: String,
    pub name: String,
    /// JSON as text; cut where the answer was cut.
    pub arguments: String,
}

/// What the model said.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OutputMessage {
    pub id: String,
    /// `message`.
    pub r#type: String,
    /// `in_progress`, `completed` or `incomplete`.
    pub status: String,
    /// `assistant`.
    pub role: String,
    pub content: Vec<OutputText>,
}

/// One text of an output message.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OutputText {
    /// `output_text`.
    pub r#type: String,
    pub text: String,
    #[schemars(with = "Vec<serde_json::Value>")]
    pub annotations: Vec<Verbatim>,
    pub logprobs: Vec<ChatTokenLogprob>,
}

/// One item of what a kept response was asked.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum InputItem {
    Message(InputMessage),
    Call(OutputCall),
    CallOutput(CallOutput),
}

/// What somebody said.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InputMessage {
    pub id: String,
    /// `message`.
    pub r#type: String,
    /// `completed`.
    pub status: String,
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    pub content: Vec<InputPart>,
}

/// One text of an input message.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum InputPart {
    Text(InputText),
    /// What an assistant said.
    Output(OutputText),
}

/// One text that was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct InputText {
    /// `input_text`.
    pub r#type: String,
    pub text: String,
}

/// What a call gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CallOutput {
    pub id: String,
    /// `function_call_output`.
    pub r#type: String,
    /// `completed`.
    pub status: String,
    pub call_id: String,
    pub output: String,
}

/// The query of a kept response.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseQuery {
    /// Must be left out or false: a kept response is given whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// Tokens of one response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResponseUsage {
    pub input_tokens: i64,
    pub input_tokens_details: InputTokensDetails,
    pub output_tokens: i64,
    pub output_tokens_details: OutputTokensDetails,
    pub total_tokens: i64,
}

/// How much of the input was not computed again, and how much was kept for later: nothing is charged for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InputTokensDetails {
    pub cached_tokens: i64,
    pub cache_write_tokens: i64,
}

/// What of the output was reasoning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutputTokensDetails {
    pub reasoning_tokens: i64,
}

/// One event of a streamed response, with the place of the item it is about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum ResponseEvent {
    #[serde(rename = "response.created")]
    Created { sequence_number: u64, response: Box<Response> },
    #[serde(rename = "response.in_progress")]
    InProgress { sequence_number: u64, response: Box<Response> },
    #[serde(rename = "response.output_item.added")]
    ItemAdded { sequence_number: u64, output_index: u32, item: OutputItem },
    #[serde(rename = "response.content_part.added")]
    PartAdded { sequence_number: u64, item_id: String, output_index: u32, content_index: u32, part: OutputText },
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        sequence_number: u64,
        item_id: String,
        output_index: u32,
        content_index: u32,
        delta: String,
        logprobs: Vec<ChatTokenLogprob>,
    },
    #[serde(rename = "response.output_text.done")]
    TextDone {
        sequence_number: u64,
        item_id: String,
        output_index: u32,
        content_index: u32,
        text: String,
        logprobs: Vec<ChatTokenLogprob>,
    },
    #[serde(rename = "response.content_part.done")]
    PartDone { sequence_number: u64, item_id: String, output_index: u32, content_index: u32, part: OutputText },
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { sequence_number: u64, item_id: String, output_index: u32, delta: String },
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone { sequence_number: u64, item_id: String, output_index: u32, name: String, arguments: String },
    #[serde(rename = "response.output_item.done")]
    ItemDone { sequence_number: u64, output_index: u32, item: OutputItem },
    #[serde(rename = "response.completed")]
    Completed { sequence_number: u64, response: Box<Response> },
    #[serde(rename = "response.incomplete")]
    Incomplete { sequence_number: u64, response: Box<Response> },
    #[serde(rename = "response.failed")]
    Failed { sequence_number: u64, response: Box<Response> },
    #[serde(rename = "error")]
    Error { sequence_number: u64, code: Option<String>, message: String, param: Option<String> },
}

impl ResponseEvent {
    /// The name of the event.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Failed { .. } => "response.failed",
            Self::Error { .. } => "error",
        }
    }
}
