//! The data plane's wire types: OpenAI's chat completions, completions and models.
//!
//! Requests are read as raw JSON per field ([`GenerationFields`]), so that each refusal can name its
//! field, numbers keep their text, and nothing is allocated for fields nobody needs. Answers are typed
//! and serve both directions: the gateway writes them, clients of this cloud read them.
//!
//! Deliberately absent: validation (the gateway's business) and the hundreds of optional fields of
//! OpenAI's schema that no model here can honour.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sublet_core::engine::{Millionths, Role};

use crate::card::ModelNote;
use crate::fields::raw_fields;
use crate::money::Money;
use crate::schema::{NoticeText, TierText};
use crate::time::UnixSeconds;
use sublet_core::notice::NoticeClass;
use sublet_core::tier::ServiceTier;

raw_fields! {
    /// Every top-level field of a chat or text completion that the gateway looks at. JSON `null` reads as absent.
    GenerationFields {
        model, messages, prompt,
        stream, stream_options, n, best_of,
        max_tokens, max_completion_tokens,
        temperature, top_p, top_k, seed, stop,
        presence_penalty, frequency_penalty, logit_bias,
        logprobs, top_logprobs, service_tier,
        tools, tool_choice, parallel_tool_calls, response_format,
        guided_json, guided_regex, guided_choice, guided_grammar, structured_outputs,
        // Would change the answer; refused by name unless neutral.
        functions, function_call, modalities, audio, web_search_options,
        min_p, repetition_penalty, min_tokens, ignore_eos, use_beam_search, echo, suffix, grammar, logits_processors,
    }
}

raw_fields! {
    /// One chat message. The content is a string, an array of parts, or null.
    MessageFields { role, content, name, tool_calls, tool_call_id, function_call, audio }
}

raw_fields! {
    /// A function that may be called, or a tool of another kind. Each API has its own shape of the same things.
    ToolFields { r#type, function, name, description, parameters, input_schema }
}

raw_fields! {
    /// Which tool is to be called, where that is an object.
    ToolChoiceFields { r#type, function, name, disable_parallel_tool_use }
}

raw_fields! {
    /// A call in an earlier turn; in `function` where the API nests it.
    CallFields { id, function, name, arguments }
}

raw_fields! {
    /// `response_format` and `text.format`; the schema is in `json_schema` where the API nests it.
    FormatFields { r#type, json_schema, schema }
}

raw_fields! {
    /// `structured_outputs`: one of these.
    StructuredFields { json, regex, choice, grammar, json_object }
}

raw_fields! {
    /// One part of a message's content.
    PartFields { r#type, text, refusal }
}

raw_fields! {
    /// `stream_options`.
    StreamOptionFields { include_usage }
}

/// A chat request as this cloud's own clients send it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<ChatMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(default)]
    pub stream: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
}

/// A text completion request as this cloud's own clients send it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompletionRequest {
    pub model: String,
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    #[serde(default)]
    pub stream: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
}

/// An embeddings request as this cloud's own clients send it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingRequest {
    pub model: String,
    pub input: EmbeddingInput,
    /// `float` or `base64`: little-endian 32-bit floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<i64>,
}

/// What is to be embedded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EmbeddingInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// Embeddings, one for each input.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingList {
    /// `list`.
    pub object: String,
    pub data: Vec<Embedding>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

/// One embedding.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Embedding {
    /// `embedding`.
    pub object: String,
    pub index: u32,
    /// A list of numbers, or their bytes in base 64.
    #[schemars(with = "serde_json::Value")]
    pub embedding: Box<RawValue>,
}

/// Token counts of an embeddings request: there is no output.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingUsage {
    pub prompt_tokens: i64,
    pub total_tokens: i64,
}

/// What a streamed answer should carry besides its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StreamOptions {
    pub include_usage: bool,
}

/// One message of a chat with plain text content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatMessage {
    #[schemars(with = "String", extend("enum" = ["system", "developer", "user", "assistant", "tool"]))]
    pub role: Role,
    pub content: String,
}

/// Token counts of one request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub total_tokens: i64,
    #[serde(default)]
    pub prompt_tokens_details: PromptTokensDetails,
    #[serde(default)]
    pub completion_tokens_details: CompletionTokensDetails,
}

/// How much of the prompt was not computed again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PromptTokensDetails {
    pub cached_tokens: i64,
}

/// What of the output was reasoning.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompletionTokensDetails {
    pub reasoning_tokens: i64,
}

/// What a request cost, as far as it is known when the answer is written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CostNote {
    pub cost: Money,
    /// The charge is the difference of rounded cumulative amounts, so the last digit may differ.
    pub provisional: bool,
    /// What the limits behind the key still allow, as of the last grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_budget: Option<Money>,
}

/// A finished chat completion.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletion {
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    pub created: i64,
    pub model: String,
    pub choices: Vec<ChatChoice>,
    pub usage: Usage,
    /// The tier that served, which is the tier that is charged.
    pub service_tier: String,
    /// Set when something other than the model or the request ended the output: `budget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// One answer among `n`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatChoice {
    pub index: u32,
    pub message: AnswerMessage,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: Option<String>,
}

/// What the model said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AnswerMessage {
    pub role: String,
    pub content: Option<String>,
    #[serde(default)]
    pub refusal: Option<String>,
    /// Calls that the model asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<AnswerCall>,
}

/// A call that the model asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AnswerCall {
    pub id: String,
    /// `function`.
    pub r#type: String,
    pub function: CalledFunction,
}

/// Which function, and with what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CalledFunction {
    pub name: String,
    /// JSON as text; cut where the answer was cut.
    pub arguments: String,
}

/// Log-probabilities of a chat answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatLogprobs {
    pub content: Vec<ChatTokenLogprob>,
}

/// A log-probability with its JSON number kept as text, so that no float is involved.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Logprob(#[schemars(with = "serde_json::Number")] pub Box<RawValue>);

impl From<Millionths> for Logprob {
    fn from(value: Millionths) -> Self {
        let sign = if value.0 < 0 { "-" } else { "" };
        let magnitude = value.0.unsigned_abs();
        let text = format!("{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000);
        Self(RawValue::from_string(text).expect("a sign, digits, a point and six digits are a JSON number"))
    }
}

/// One position of a chat answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatTokenLogprob {
    pub token: String,
    pub logprob: Logprob,
    pub bytes: Vec<u8>,
    #[serde(default)]
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// One alternative at a position.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatTopLogprob {
    pub token: String,
    pub logprob: Logprob,
    pub bytes: Vec<u8>,
}

/// A finished text completion.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Completion {
    pub id: String,
    /// `text_completion`.
    pub object: String,
    pub created: i64,
    pub model: String,
    pub choices: Vec<CompletionChoice>,
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// One event of a streamed text completion.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompletionChunk {
    pub id: String,
    /// `text_completion`.
    pub object: String,
    pub created: i64,
    pub model: String,
    /// Empty in the event with the usage.
    pub choices: Vec<CompletionChoice>,
    #[serde(default)]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet: Option<CostNote>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// One text among several.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompletionChoice {
    pub text: String,
    pub index: u32,
    pub logprobs: Option<CompletionLogprobs>,
    pub finish_reason: Option<String>,
}

/// Log-probabilities of a text completion, position by position.
#[derive(Clone, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompletionLogprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<Logprob>,
    #[schemars(with = "Vec<std::collections::BTreeMap<String, serde_json::Number>>")]
    pub top_logprobs: Vec<std::collections::BTreeMap<String, Logprob>>,
    /// Where each token starts, in characters of the choice's text.
    pub text_offset: Vec<usize>,
}

/// One event of a streamed chat, as clients read it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunk {
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    pub created: i64,
    pub model: String,
    /// Empty in the usage chunk.
    pub choices: Vec<ChatChunkChoice>,
    #[serde(default)]
    pub usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet: Option<CostNote>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sublet_stop: Option<String>,
}

/// What one choice gained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunkChoice {
    pub index: u32,
    pub delta: ChatDelta,
    #[serde(default)]
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: Option<String>,
}

/// The new part of a message.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChatDelta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<CallDelta>,
}

/// More of a call. The id, the type and the name come with its first part only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CallDelta {
    /// Counts the calls of one answer from 0.
    pub index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    pub function: FunctionDelta,
}

/// More of the arguments of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FunctionDelta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
}

/// A model that the key may call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    pub id: String,
    /// `model`.
    pub object: String,
    pub created: i64,
    pub owned_by: String,
    pub context_window: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<ModelPricing>,
    /// The tiers at which it is sold to the caller, the first to give way first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_tiers: Vec<ModelTier>,
    /// It is not served from then on; left out if no end is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_date: Option<UnixSeconds>,
    #[serde(default)]
    pub sublet: ModelNote,
}

/// A tier of a model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelTier {
    /// What `service_tier` names.
    #[schemars(with = "TierText")]
    pub service_tier: ServiceTier,
    /// How long before its capacity is taken back the caller is told.
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    pub pricing: ModelPricing,
}

/// Prices in force now: of tokens per million, and of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelPricing {
    /// Content hash of the price-list version.
    pub version: String,
    /// What a request costs at most besides its tokens; left out if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Money>,
    pub input: TokenPrice,
    pub cached_input: TokenPrice,
    pub output: TokenPrice,
}

/// An exact price: so much for so many tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenPrice {
    pub price: Money,
    pub per_tokens: i64,
}

/// `GET /v1/models`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    pub data: Vec<Model>,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_text_and_null_is_absent() {
        let fields: GenerationFields<'_> =
            serde_json::from_str(r#"{"model":"m","temperature":0.10,"seed":null,"unknown":{"a":[1]}}"#).unwrap();
        assert_eq!(fields.temperature.map(RawValue::get), Some("0.10"));
        assert_eq!(fields.model.map(RawValue::get), Some("\"m\""));
        assert!(fields.seed.is_none());
    }

    #[test]
    fn log_probabilities_are_exact_numbers() {
        for (millionths, text) in [(0, "0.000000"), (-1, "-0.000001"), (-12_500_000, "-12.500000"), (1_000_001, "1.000001")] {
            assert_eq!(serde_json::to_string(&Logprob::from(Millionths(millionths))).unwrap(), text);
        }
    }
}
