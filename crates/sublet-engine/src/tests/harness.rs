//! An engine over a tiny model, with a clock and a generator that tests control.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sublet_core::engine::{
    Allowance, ChatMessage, Constraint, EngineLoad, FinishReason, GenerateRequest, GenerationEvent, Millionths, ModelEngine,
    PositionLogprobs, Prompt, Role, Sampling,
};
use sublet_core::tier::ServiceTier;
use sublet_core::{Clock, Error, Result, Rng, Timestamp, TokenCount};

use crate::test_model::{TinyModel, safetensors, tokenizer_config, tokenizer_json};
use crate::{EmbeddedFiles, Engine, EngineConfig, ModelSource};

pub const MODEL: &str = "tiny";

/// Advances by one millisecond whenever it is read.
#[derive(Default)]
pub struct TickingClock(AtomicI64);

impl Clock for TickingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Counts upwards.
#[derive(Default)]
pub struct CountingRng(AtomicI64);

impl Rng for CountingRng {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        for (byte, value) in bytes.iter_mut().zip(count.iter().cycle()) {
            *byte = *value;
        }
    }
}

pub fn embedded(model: &TinyModel) -> EmbeddedFiles {
    EmbeddedFiles {
        config: model.config().to_string().into_bytes().into(),
        weights: safetensors(&model.tensors()).into(),
        tokenizer: tokenizer_json().to_string().into_bytes().into(),
        tokenizer_config: Some(tokenizer_config().to_string().into_bytes().into()),
        generation_config: None,
    }
}

pub fn empty_engine(config: EngineConfig) -> Engine {
    Engine::new(config, Arc::new(TickingClock::default()), Arc::new(CountingRng::default()))
}

pub fn engine_with(config: EngineConfig, model: &TinyModel) -> Engine {
    let engine = empty_engine(config);
    engine.add_model(MODEL, ModelSource::Embedded(embedded(model))).expect("the tiny model loads");
    engine
}

pub fn engine() -> Engine {
    engine_with(EngineConfig::default(), &TinyModel::default())
}

/// A request in the making.
#[derive(Clone)]
pub struct Ask {
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub max_output: Option<i64>,
    pub allowance: Arc<Allowance>,
    pub constraint: Option<Constraint>,
    pub salt: &'static str,
    pub tier: ServiceTier,
}

/// Greedy, 20 tokens, everything paid for.
pub fn ask(text: &str) -> Ask {
    Ask {
        prompt: Prompt::Text(text.to_owned()),
        sampling: Sampling { temperature: Millionths(0), ..Sampling::default() },
        stop: Vec::new(),
        max_output: Some(20),
        allowance: Arc::new(Allowance::new(TokenCount::new(i64::MAX))),
        constraint: None,
        salt: "a tenant",
        tier: ServiceTier::Default,
    }
}

/// As [`ask`], drawing with a seed at temperature 1.
pub fn ask_seeded(text: &str, seed: u64) -> Ask {
    Ask { sampling: Sampling { seed: Some(seed), ..Sampling::default() }, ..ask(text) }
}

pub fn chat(content: &str) -> Prompt {
    Prompt::Chat(vec![ChatMessage::text(Role::User, content)].into())
}

/// Everything a stream said.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    pub input: Option<i64>,
    pub cached: i64,
    pub text: String,
    pub output: i64,
    pub reason: Option<FinishReason>,
    pub failure: Option<Error>,
    pub logprobs: Vec<PositionLogprobs>,
    pub deltas: usize,
}

impl Ask {
    pub fn start(&self, engine: &Engine) -> Result<BoxStream<'static, GenerationEvent>> {
        let prompt = engine.prepare(MODEL, &self.prompt)?;
        let request = GenerateRequest {
            constraint: self.constraint.clone(),
            prompt,
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            max_output: self.max_output.map(TokenCount::new),
            allowance: Arc::clone(&self.allowance),
            salt: self.salt.into(),
            tier: self.tier,
        };
        engine.generate(request)
    }

    pub fn run(&self, engine: &Engine) -> Outcome {
        collect(self.start(engine).expect("the request is accepted"))
    }
}

/// Reads a stream to its end, checking the order of events.
pub fn collect(mut stream: BoxStream<'static, GenerationEvent>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut last = 0;
    while let Some(event) = block_on(stream.next()) {
        assert!(outcome.reason.is_none() && outcome.failure.is_none(), "nothing follows the last event");
        match event {
            GenerationEvent::Started { input, cached_input } => {
                assert!(outcome.input.is_none() && outcome.deltas == 0, "it starts once, before any text");
                (outcome.input, outcome.cached) = (Some(input.get()), cached_input.get());
            }
            GenerationEvent::Delta { text, output, logprobs } => {
                assert!(output.get() >= last && !(text.is_empty() && logprobs.is_empty()));
                last = output.get();
                outcome.text.push_str(&text);
                outcome.logprobs.extend(logprobs);
                outcome.deltas += 1;
            }
            GenerationEvent::Finished { reason, output } => {
                assert!(output.get() >= last);
                (outcome.reason, outcome.output) = (Some(reason), output.get());
            }
            GenerationEvent::Failed(error) => outcome.failure = Some(error),
            GenerationEvent::Counted { .. } | GenerationEvent::Waiting { .. } | GenerationEvent::Vector { .. } => {
                panic!("this engine counts at once, parks instead, and answers with text")
            }
        }
    }
    assert!(outcome.reason.is_some() || outcome.failure.is_some(), "every stream has a last event");
    outcome
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Arc::new(ThreadWaker(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

struct ThreadWaker(std::thread::Thread);

impl std::task::Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits until the engine's figures satisfy `wanted`; the engine works in its own thread.
pub fn wait_for(engine: &Engine, wanted: impl Fn(&EngineLoad) -> bool) -> EngineLoad {
    for _ in 0..100_000_000_u64 {
        let load = engine.load();
        if wanted(&load) {
            return load;
        }
        std::thread::yield_now();
    }
    panic!("the engine did not get there: {:?}", engine.load());
}
