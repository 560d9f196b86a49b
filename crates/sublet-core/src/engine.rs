//! The port to whatever generates tokens: the in-process engine, or an adapter to a server.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::quantity::TokenCount;
use crate::tier::ServiceTier;
use crate::time::Timestamp;
use crate::usage::Measured;

/// The refusal of a prompt that leaves no room for an answer; `count` is its size in tokens, in words.
///
/// Libraries have a type of their own for it, and many know it by its words only: "prompt is too long"
/// is Anthropic's way to say it, "this model's maximum context length is" OpenAI's.
pub fn prompt_too_long(count: &str, context: TokenCount) -> Error {
    let message = format!(
        "the prompt is too long: {count} tokens, and this model's maximum context length is {context} tokens, of which at least one is output"
    );
    Error::new(ErrorCode::ContextLengthExceeded, message).alternative(format!("a prompt of at most {} tokens", context.get() - 1))
}

/// One model that can be called by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelInfo {
    pub name: String,
    pub created_at: Timestamp,
    pub owned_by: String,
    /// Prompt and output together, at most.
    pub context_window: TokenCount,
    /// Tokens the vocabulary has: bounds `logit_bias` and token-id prompts.
    pub vocabulary: TokenCount,
    pub has_chat_template: bool,
    pub tools: ToolTemplate,
    /// How it turns texts into vectors; `None` if it does not.
    pub embeddings: Option<EmbeddingInfo>,
}

/// How a model makes one vector of a text. Every vector has length 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmbeddingInfo {
    /// Values of a vector.
    pub dimensions: u32,
    pub pooling: Pooling,
    pub shortening: Shortening,
}

/// Which positions of a text its vector is made of, after the model's final norm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The last one, which alone has seen the whole text.
    Last,
}

impl Pooling {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
        }
    }
}

/// Whether the first values of a vector are a vector too: only models trained for it have that.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Shortening {
    #[default]
    Refused,
    /// To these numbers of values.
    To(Arc<[u32]>),
    /// To any number.
    Any,
}

impl EmbeddingInfo {
    /// Whether a vector may have so many values.
    pub fn allows(&self, dimensions: u32) -> bool {
        dimensions == self.dimensions
            || match &self.shortening {
                Shortening::Refused => false,
                Shortening::To(lengths) => lengths.contains(&dimensions),
                Shortening::Any => (1..self.dimensions).contains(&dimensions),
            }
    }
}

/// How a model's chat template deals with tools.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ToolTemplate {
    /// It does not show them to the model, which then calls one only if it is forced to.
    #[default]
    Absent,
    /// It shows them; how the model writes its calls is not known.
    Shown,
    /// It shows them, and calls are JSON between `<tool_call>` and `</tool_call>`.
    Tagged,
}

/// Who speaks in a chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// One message, content already flattened to text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls that the assistant asked for in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of role `tool` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message of nothing but text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), name: None, tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// A call of a function that a model asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON text, as the model wrote it: it need not be valid.
    pub arguments: String,
}

/// A function that a model may ask to be called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the arguments, as text; `None` takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
}

/// Whether the next turn has to be a call. The prompt is made for it; what is generated has to be
/// constrained besides.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Calling {
    /// The model decides.
    #[default]
    Free,
    /// Of any tool: the output is an object with its `name` and its `arguments`.
    Forced,
    /// Of the tool of this name: the output is its arguments alone.
    Named(String),
}

/// A conversation, and what the model may call in it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Chat {
    pub messages: Vec<ChatMessage>,
    pub tools: Vec<Tool>,
    pub calling: Calling,
}

impl From<Vec<ChatMessage>> for Chat {
    fn from(messages: Vec<ChatMessage>) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// A rule that the whole output keeps, token by token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes; the schema as JSON text.
    JsonSchema(Arc<str>),
    /// The call that the prompt's [`Calling`] demands: JSON that the schema describes, after which the
    /// output may end the call as the model's template ends calls.
    Call { schema: Arc<str>, calling: Calling },
    /// Text that a regular expression matches as a whole.
    Regex(Arc<str>),
    /// Text that a context-free grammar in Lark's notation derives.
    Grammar(Arc<str>),
}

/// What to continue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Prompt {
    /// Rendered by the model's chat template, with the generation prompt added.
    Chat(Chat),
    Text(String),
    Tokens(Vec<u32>),
}

/// A prompt after templating and tokenizing: its exact size is known before any money is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreparedPrompt {
    pub model: String,
    pub tokens: Arc<[u32]>,
}

impl PreparedPrompt {
    pub fn count(&self) -> TokenCount {
        TokenCount::new(i64::try_from(self.tokens.len()).unwrap_or(i64::MAX))
    }
}

/// A probability-like setting in millionths, so that core stays free of floats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millionths(pub i64);

/// How the next token is chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sampling {
    /// 0 is greedy; at most 2.
    pub temperature: Millionths,
    /// In (0, 1].
    pub top_p: Millionths,
    /// `None` or 0 considers all tokens.
    pub top_k: Option<u32>,
    /// In [-2, 2].
    pub presence_penalty: Millionths,
    /// In [-2, 2].
    pub frequency_penalty: Millionths,
    /// The same seed, prompt and settings give the same tokens, whatever else is in the batch.
    pub seed: Option<u64>,
    /// Token id and bias in millionths, bias in [-100, 100].
    pub logit_bias: Vec<(u32, Millionths)>,
    /// Alternatives to report per token; `None` reports none.
    pub logprobs: Option<u8>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: Millionths(1_000_000),
            top_p: Millionths(1_000_000),
            top_k: None,
            presence_penalty: Millionths(0),
            frequency_penalty: Millionths(0),
            seed: None,
            logit_bias: Vec::new(),
            logprobs: None,
        }
    }
}

/// Most stop strings one request may have.
pub const STOP_STRINGS_MAX: usize = 16;

/// One generation.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    pub prompt: PreparedPrompt,
    pub sampling: Sampling,
    /// Output ends before the first of these; none of it is delivered.
    pub stop: Vec<String>,
    /// Output tokens at most; `None` runs to the end of the context.
    pub max_output: Option<TokenCount>,
    /// What has been paid for so far; shared with the caller, who raises it.
    pub allowance: Arc<Allowance>,
    /// What the output must look like; `None` leaves it free.
    pub constraint: Option<Constraint>,
    /// Requests of different salts share nothing of what was computed before: the tenant.
    pub salt: Arc<str>,
    /// Who is served first, and who gives way.
    pub tier: ServiceTier,
}

/// How many output tokens are paid for. The engine never produces a token beyond it.
///
/// A sequence that reaches the allowance is parked until it is raised or closed: when closed it
/// ends with [`FinishReason::Allowance`]. Parked sequences cost no compute.
#[derive(Debug)]
pub struct Allowance {
    tokens: AtomicU64,
    closed: AtomicBool,
    parked: AtomicBool,
    /// Who waits in [`Allowance::poll_covers`].
    waker: Mutex<Option<Waker>>,
}

/// Whether an allowance covers what was asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cover {
    Covered,
    /// It does not, and will not.
    Closed,
}

impl Allowance {
    pub fn new(tokens: TokenCount) -> Self {
        Self {
            tokens: AtomicU64::new(u64::try_from(tokens.get()).unwrap_or(0)),
            closed: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }
    /// Waits until so many tokens are paid for, or until it is known that they will not be. One task may wait.
    pub fn poll_covers(&self, tokens: u64, context: &mut Context<'_>) -> Poll<Cover> {
        let look = || {
            if tokens <= self.tokens() {
                return Poll::Ready(Cover::Covered);
            }
            if self.is_closed() { Poll::Ready(Cover::Closed) } else { Poll::Pending }
        };
        if look().is_pending() {
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        }
        // Once more: it may have been raised between the look and the waker.
        look()
    }
    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
    /// Output tokens paid for in all.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Acquire)
    }
    /// Raises the total; a lower total changes nothing. The engine may need waking: see [`ModelEngine::wake`].
    pub fn raise_to(&self, tokens: TokenCount) {
        self.tokens.fetch_max(u64::try_from(tokens.get()).unwrap_or(0), Ordering::AcqRel);
        self.wake();
    }
    /// No more will come.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
    /// The engine says here whether the sequence waits for more. It may have produced tokens that it
    /// cannot deliver yet (part of a character or of a stop string), so its caller cannot count them.
    pub fn set_parked(&self, parked: bool) {
        self.parked.store(parked, Ordering::Release);
    }
    pub fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }
}

/// Texts to be turned into vectors, one for each.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    pub model: String,
    /// Made by [`ModelEngine::prepare_input`].
    pub inputs: Vec<PreparedPrompt>,
    /// Values of each vector, as [`EmbeddingInfo::allows`]; `None` wants all.
    pub dimensions: Option<u32>,
    /// Who is served first, and who gives way.
    pub tier: ServiceTier,
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// End-of-sequence token.
    Stop,
    /// A stop string, by its place in the request.
    StopString(u8),
    /// `max_output` or the end of the context.
    Length,
    /// The allowance was closed.
    Allowance,
}

/// One alternative for one position; log-probability in millionths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenLogprob {
    pub token: String,
    pub bytes: Vec<u8>,
    pub logprob: Millionths,
}

/// The chosen token at one position and its strongest alternatives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PositionLogprobs {
    pub chosen: TokenLogprob,
    pub top: Vec<TokenLogprob>,
}

/// What a generation reports. `output` counts are cumulative.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GenerationEvent {
    /// The prompt was processed; `cached_input` tokens of it were not computed again.
    Started { input: TokenCount, cached_input: TokenCount },
    /// More text. `output` counts every token whose text has been delivered so far. Text is always
    /// whole UTF-8; a token that ends inside a character or a possible stop string is delivered later.
    Delta { text: String, output: TokenCount, logprobs: Vec<PositionLogprobs> },
    /// The vector of one input, by its place in the request: 32-bit floats, little-endian.
    Vector { input: usize, values: Vec<u8> },
    /// What the engine counted of the prompt, if it says so only after the work: it replaces an estimate.
    Counted { input: TokenCount, cached_input: TokenCount, measured: Measured },
    /// Output up to this count is there, but not all of it is paid for: nothing more comes before it is.
    Waiting { output: TokenCount },
    /// The last event of a good end. The end-of-sequence token and the tokens of a stop string are not counted.
    Finished { reason: FinishReason, output: TokenCount },
    /// The last event of a bad end.
    Failed(Error),
}

/// The events of one generation. Dropping the stream cancels it within one step.
pub type GenerationStream = Pin<Box<dyn Stream<Item = GenerationEvent> + Send>>;

/// Generates tokens.
pub trait ModelEngine: Send + Sync {
    /// The models that can be called now.
    fn models(&self) -> Vec<ModelInfo>;
    /// Renders and tokenizes. Refuses what does not fit the context.
    fn prepare(&self, model: &str, prompt: &Prompt) -> Result<PreparedPrompt>;
    /// Queues a generation. Refuses with `queue_full` and a truthful retry hint when the bounded queue is full.
    fn generate(&self, request: GenerateRequest) -> Result<GenerationStream>;
    /// Tokenizes what is to become a vector. Unlike a prompt it may fill the whole context.
    fn prepare_input(&self, model: &str, input: &Prompt) -> Result<PreparedPrompt>;
    /// Queues a request for vectors beside the generations; refuses as [`ModelEngine::generate`] does. Its events
    /// are [`GenerationEvent::Started`], a [`GenerationEvent::Vector`] for each input in order, and
    /// [`GenerationEvent::Finished`] without output. Nothing of it is kept for, or taken from, other requests.
    fn embed(&self, request: EmbedRequest) -> Result<GenerationStream>;
    /// Tells parked sequences that an allowance was raised or closed.
    fn wake(&self);
    /// Figures for metrics and routing.
    fn load(&self) -> EngineLoad;
}

/// What the engine is doing now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EngineLoad {
    pub running: u64,
    pub parked: u64,
    pub queued: u64,
    /// Decode steps since start: lets a test see that a cancelled sequence stopped within one.
    pub steps: u64,
    /// Output tokens produced since start, delivered or not.
    pub produced: u64,
}
