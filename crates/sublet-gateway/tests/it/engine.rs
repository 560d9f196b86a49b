//! An engine that does what its prompt says.
//!
//! The last words of the prompt are the script: `say N` (N tokens, then it stops), `fail N` (fails after
//! N tokens), `hide N` (delivers nothing until N tokens are there), `wait` (starts and is silent),
//! `stuck` (never starts). A word is a token. A test may instead say what every generation writes
//! ([`Engine::write`]); then three characters are a token. What was asked is kept.

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::{Stream, StreamExt};
use sublet_core::engine::{
    Allowance, Chat, Constraint, EmbedRequest, EmbeddingInfo, EngineLoad, FinishReason, GenerateRequest, GenerationEvent,
    GenerationStream, Millionths, ModelEngine, ModelInfo, Pooling, PositionLogprobs, PreparedPrompt, Prompt, Shortening,
    TokenLogprob, ToolTemplate,
};
use sublet_core::{Error, ErrorCode, Result, Timestamp, TokenCount};

pub const CONTEXT: i64 = 1_000;

#[derive(Default)]
pub struct Shared {
    wakers: Mutex<Vec<Waker>>,
    /// Tokens every generation may have produced so far; lets a test hold the engine still.
    pub pace: AtomicU64,
    pub cached: AtomicI64,
    pub running: AtomicU64,
    pub produced: AtomicU64,
    pub cancelled: AtomicU64,
    /// Generations that may be queued; 0 refuses.
    pub room: AtomicI64,
    output: Mutex<Option<String>>,
    asked: Mutex<Asked>,
}

/// The last request.
#[derive(Clone, Default, Debug)]
pub struct Asked {
    pub chat: Chat,
    pub constraint: Option<Constraint>,
    pub stop: Vec<String>,
}

pub struct Engine {
    pub shared: Arc<Shared>,
}

impl Engine {
    pub fn new() -> Arc<Self> {
        let shared = Shared { pace: AtomicU64::new(u64::MAX), room: AtomicI64::new(i64::MAX), ..Shared::default() };
        Arc::new(Self { shared: Arc::new(shared) })
    }
    /// What every generation writes from now on.
    pub fn write(&self, output: &str) {
        *self.shared.output.lock().unwrap() = Some(output.to_owned());
    }
    pub fn asked(&self) -> Asked {
        self.shared.asked.lock().unwrap().clone()
    }
    pub fn set_pace(&self, tokens: u64) {
        self.shared.pace.store(tokens, Ordering::SeqCst);
        self.wake();
    }
}

#[derive(Clone, Copy)]
enum End {
    Stop,
    Fail,
    Silence,
}

struct Script {
    tokens: u64,
    hide: u64,
    end: End,
    starts: bool,
}

fn words(prompt: &Prompt) -> Vec<String> {
    let text = match prompt {
        Prompt::Chat(chat) => chat.messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join(" "),
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => format!("{} say 3", vec!["t"; tokens.len().saturating_sub(2)].join(" ")),
    };
    text.split_whitespace().map(str::to_owned).collect()
}

/// The script travels in the prepared prompt's last two token ids.
fn encode(words: &[String]) -> Vec<u32> {
    let number = words.last().and_then(|word| word.parse::<u32>().ok());
    let verb = match (words.iter().rev().nth(usize::from(number.is_some())).map(String::as_str), number) {
        (Some("say"), Some(_)) => 1,
        (Some("fail"), Some(_)) => 2,
        (Some("hide"), Some(_)) => 3,
        (Some("wait"), None) => 4,
        (Some("stuck"), None) => 5,
        _ => 0,
    };
    let mut tokens = vec![0; words.len().max(2)];
    let length = tokens.len();
    tokens[length - 2] = verb;
    tokens[length - 1] = number.unwrap_or(3);
    tokens
}

fn decode(tokens: &[u32]) -> Script {
    let number = u64::from(tokens[tokens.len() - 1]);
    let script = |tokens, hide, end| Script { tokens, hide, end, starts: true };
    match tokens[tokens.len() - 2] {
        2 => script(number, 0, End::Fail),
        3 => script(number + 2, number, End::Stop),
        4 => script(0, 0, End::Silence),
        5 => Script { tokens: 0, hide: 0, end: End::Silence, starts: false },
        _ => script(number, 0, End::Stop),
    }
}

struct Generation {
    shared: Arc<Shared>,
    /// The tokens' texts, where a test gave them.
    texts: Option<Vec<String>>,
    allowance: Arc<Allowance>,
    script: Script,
    prompt: TokenCount,
    max: u64,
    logprobs: bool,
    produced: u64,
    delivered: u64,
    started: bool,
    finished: bool,
    /// Others ran since the last token.
    waited: bool,
}

impl Generation {
    fn finish(&mut self, reason: FinishReason) -> Poll<Option<GenerationEvent>> {
        if self.delivered < self.produced {
            return Poll::Ready(Some(self.deliver()));
        }
        self.finished = true;
        Poll::Ready(Some(GenerationEvent::Finished { reason, output: count(self.produced) }))
    }
    fn deliver(&mut self) -> GenerationEvent {
        let name = |n: u64| match &self.texts {
            Some(texts) => texts[usize::try_from(n - 1).unwrap()].clone(),
            None => format!("w{n} "),
        };
        let names: Vec<String> = (self.delivered + 1..=self.produced).map(name).collect();
        self.delivered = self.produced;
        let logprobs = if self.logprobs { names.iter().map(|name| logprob(name)).collect() } else { Vec::new() };
        GenerationEvent::Delta { text: names.concat(), output: count(self.produced), logprobs }
    }
    fn park(&self, context: &Context<'_>) -> Poll<Option<GenerationEvent>> {
        self.shared.wakers.lock().unwrap().push(context.waker().clone());
        Poll::Pending
    }
}

fn logprob(name: &str) -> PositionLogprobs {
    let token = |value| TokenLogprob { token: name.to_owned(), bytes: name.as_bytes().to_vec(), logprob: Millionths(value) };
    PositionLogprobs { chosen: token(-250_000), top: vec![token(-250_000)] }
}

fn count(tokens: u64) -> TokenCount {
    TokenCount::new(i64::try_from(tokens).unwrap())
}

impl Stream for Generation {
    type Item = GenerationEvent;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        let this = &mut *self;
        if this.finished {
            return Poll::Ready(None);
        }
        if !this.started {
            if !this.script.starts {
                return this.park(context);
            }
            this.started = true;
            let cached = TokenCount::new(this.shared.cached.load(Ordering::SeqCst));
            return Poll::Ready(Some(GenerationEvent::Started { input: this.prompt, cached_input: cached }));
        }
        loop {
            if this.produced >= this.script.tokens {
                match this.script.end {
                    End::Stop => return this.finish(FinishReason::Stop),
                    End::Silence => return this.park(context),
                    End::Fail => {
                        this.finished = true;
                        return Poll::Ready(Some(GenerationEvent::Failed(Error::internal("the fake engine broke"))));
                    }
                }
            }
            if this.produced >= this.max {
                return this.finish(FinishReason::Length);
            }
            let paid = this.allowance.tokens();
            assert!(this.produced <= paid, "produced {} of {paid}", this.produced);
            if this.produced == paid {
                if this.allowance.is_closed() {
                    return this.finish(FinishReason::Allowance);
                }
                this.allowance.set_parked(true);
                return this.park(context);
            }
            if this.produced >= this.shared.pace.load(Ordering::SeqCst) {
                return this.park(context);
            }
            if !std::mem::replace(&mut this.waited, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.waited = false;
            this.allowance.set_parked(false);
            this.produced += 1;
            this.shared.produced.fetch_add(1, Ordering::SeqCst);
            if this.produced > this.script.hide {
                return Poll::Ready(Some(this.deliver()));
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
        if !self.finished {
            self.shared.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// An input whose request never ends.
const STUCK: u32 = 400;

/// A request for vectors, while it is read.
struct Lane {
    shared: Arc<Shared>,
    finished: bool,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
        if !self.finished {
            self.shared.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl ModelEngine for Engine {
    fn models(&self) -> Vec<ModelInfo> {
        let model = |name: &str| ModelInfo {
            name: name.to_owned(),
            created_at: Timestamp::from_seconds(1_700_000_000),
            owned_by: "test".to_owned(),
            context_window: TokenCount::new(CONTEXT),
            vocabulary: TokenCount::new(500),
            has_chat_template: true,
            tools: ToolTemplate::Tagged,
            embeddings: Some(EmbeddingInfo { dimensions: 4, pooling: Pooling::Mean, shortening: Shortening::To([2].into()) }),
        };
        let plain = ModelInfo { tools: ToolTemplate::Absent, embeddings: None, ..model("lab/tiny") };
        vec![model("tiny"), plain, model("unpriced")]
    }
    fn prepare(&self, model: &str, prompt: &Prompt) -> Result<PreparedPrompt> {
        if let Prompt::Chat(chat) = prompt {
            self.shared.asked.lock().unwrap().chat = chat.clone();
        }
        Ok(PreparedPrompt { model: model.to_owned(), tokens: encode(&words(prompt)).into() })
    }
    fn generate(&self, request: GenerateRequest) -> Result<GenerationStream> {
        if self.shared.room.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.shared.room.fetch_add(1, Ordering::SeqCst);
            return Err(
                Error::new(ErrorCode::QueueFull, "the queue is full").retry_after(sublet_core::DurationMs::from_millis(1_500))
            );
        }
        if let Some(Constraint::JsonSchema(schema) | Constraint::Call { schema, .. }) = &request.constraint
            && schema.contains("uniqueItems")
        {
            return Err(Error::new(ErrorCode::InvalidRequest, "the schema cannot be kept").param("response_format"));
        }
        let texts = self.shared.output.lock().unwrap().as_ref().map(|output| {
            let characters: Vec<char> = output.chars().collect();
            characters.chunks(3).map(|chunk| chunk.iter().collect()).collect::<Vec<String>>()
        });
        let mut script = decode(&request.prompt.tokens);
        if let Some(texts) = &texts {
            script.tokens = u64::try_from(texts.len()).unwrap();
        }
        {
            let mut asked = self.shared.asked.lock().unwrap();
            (asked.constraint, asked.stop) = (request.constraint.clone(), request.stop.clone());
        }
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        Ok(Box::pin(Generation {
            texts,
            shared: Arc::clone(&self.shared),
            allowance: request.allowance,
            script,
            prompt: request.prompt.count(),
            max: request.max_output.map_or(u64::MAX, |max| u64::try_from(max.get()).unwrap()),
            logprobs: request.sampling.logprobs.is_some(),
            produced: 0,
            delivered: 0,
            started: false,
            finished: false,
            waited: false,
        }))
    }
    fn prepare_input(&self, model: &str, input: &Prompt) -> Result<PreparedPrompt> {
        let tokens: Vec<u32> = match input {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) if text.ends_with("stuck") => vec![STUCK],
            Prompt::Text(text) => text.split_whitespace().map(|_| 7).collect(),
            Prompt::Chat(_) => panic!("a chat has no vector"),
        };
        if i64::try_from(tokens.len()).unwrap() > CONTEXT {
            return Err(Error::new(ErrorCode::ContextLengthExceeded, "the input is too long").param("input"));
        }
        Ok(PreparedPrompt { model: model.to_owned(), tokens: tokens.into() })
    }
    fn embed(&self, request: EmbedRequest) -> Result<GenerationStream> {
        let input = request.inputs.iter().map(|input| input.count().get()).sum();
        let mut events = vec![GenerationEvent::Started { input: TokenCount::new(input), cached_input: TokenCount::ZERO }];
        let dimensions = usize::try_from(request.dimensions.unwrap_or(4)).unwrap();
        for (input, prompt) in request.inputs.iter().enumerate() {
            // What a vector says is the sum of its tokens.
            let first = prompt.tokens.iter().map(|token| f32::from(u16::try_from(*token).unwrap())).sum::<f32>();
            let values = [first, 0.5, -1.0, 1e-9][..dimensions].iter().flat_map(|value| value.to_le_bytes()).collect();
            events.push(GenerationEvent::Vector { input, values });
        }
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        let stuck = request.inputs.iter().any(|input| *input.tokens == [STUCK]);
        if !stuck {
            events.push(GenerationEvent::Finished { reason: FinishReason::Stop, output: TokenCount::ZERO });
        }
        let guard = Lane { shared: Arc::clone(&self.shared), finished: !stuck };
        let given = futures_util::stream::iter(events).chain(futures_util::stream::pending());
        Ok(Box::pin(given.inspect(move |_| {
            let _held = &guard;
        })))
    }
    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.shared.wakers.lock().unwrap());
        wakers.into_iter().for_each(Waker::wake);
    }
    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }
}
