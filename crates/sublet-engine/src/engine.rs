//! The engine: models by name, each with its own thread, behind the port of the core crate.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use sublet_core::engine::{
    EmbedRequest, EngineLoad, GenerateRequest, GenerationStream, Millionths, ModelEngine, ModelInfo, PreparedPrompt, Prompt,
    STOP_STRINGS_MAX, Sampling, ToolTemplate, prompt_too_long,
};
use sublet_core::{Clock, Error, ErrorCode, Result, Rng, TokenCount};

use crate::config::EngineConfig;
use crate::detokenize::TextAssembler;
use crate::inbox::Inbox;
use crate::kv::positions_fitting;
use crate::load::{LoadedModel, ModelSource, load};
use crate::pooling::Vectors;
use crate::sample::Sampler;
use crate::scheduler::Scheduler;
use crate::sequence::{Sequence, SequenceParts, channel};
use crate::template::ChatTemplate;
use crate::tokenizer::SpecialTokens;

/// Who a model of this engine belongs to, in model lists.
const OWNED_BY: &str = "sublet";

/// Runs models in this process.
pub struct Engine {
    config: EngineConfig,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    models: RwLock<BTreeMap<String, Arc<ServedModel>>>,
    /// Numbers rise in the order in which queues accept, which is the order of service.
    next_number: Arc<AtomicU64>,
}

struct ServedModel {
    info: ModelInfo,
    context: usize,
    model: Arc<LoadedModel>,
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ServedModel {
    fn drop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // A thread that failed has said so through its inbox.
            let _ = thread.join();
        }
    }
}

impl Engine {
    pub fn new(config: EngineConfig, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { config, clock, rng, models: RwLock::new(BTreeMap::new()), next_number: Arc::default() }
    }

    /// Loads a model and serves it under `name`.
    ///
    /// Errors: `conflict` if the name is taken, `model_file_invalid` if the files cannot be used.
    pub fn add_model(&self, name: &str, source: ModelSource) -> Result<ModelInfo> {
        self.refuse_taken(name)?;
        let mut model = load(source)?;
        let fitting = positions_fitting(&model.decoder.parameters, self.config.kv_bytes(model.decoder.weight_bytes()));
        let parameters = &mut model.decoder.parameters;
        parameters.context = parameters.context.min(fitting);
        let context = parameters.context;
        let info = ModelInfo {
            name: name.to_owned(),
            created_at: self.clock.now(),
            owned_by: OWNED_BY.to_owned(),
            context_window: token_count(context),
            vocabulary: token_count(parameters.vocabulary),
            has_chat_template: model.template.is_some(),
            tools: model.template.as_ref().map_or(ToolTemplate::Absent, ChatTemplate::tools),
            embeddings: model.vectors.info(parameters.hidden),
        };
        let model = Arc::new(model);
        let inbox = Arc::new(Inbox::default());
        let thread = self.start_thread(name, &model, &inbox)?;
        let served = ServedModel { info: info.clone(), context, model, inbox, thread: Some(thread) };
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        if models.contains_key(name) {
            drop(models);
            return Err(taken(name));
        }
        models.insert(name.to_owned(), Arc::new(served));
        Ok(info)
    }

    fn refuse_taken(&self, name: &str) -> Result<()> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        if models.contains_key(name) { Err(taken(name)) } else { Ok(()) }
    }

    fn start_thread(&self, name: &str, model: &Arc<LoadedModel>, inbox: &Arc<Inbox>) -> Result<JoinHandle<()>> {
        let (model, inbox, clock) = (Arc::clone(model), Arc::clone(inbox), Arc::clone(&self.clock));
        let (config, numbers) = (self.config.clone(), Arc::clone(&self.next_number));
        let run = move || {
            let scheduler = Scheduler::new(model, config, (Arc::clone(&inbox), numbers), clock);
            if catch_unwind(AssertUnwindSafe(|| scheduler.run())).is_err() {
                inbox.mark_dead();
            }
        };
        let thread = std::thread::Builder::new().name(format!("sublet-model-{name}")).spawn(run);
        thread.map_err(|error| Error::internal(format!("the model's thread could not be started: {error}")))
    }

    /// Stops serving a model; its open streams end with `shutting_down`.
    pub fn remove_model(&self, name: &str) -> Result<()> {
        let removed = self.models.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        match removed {
            Some(served) => {
                served.inbox.stop();
                Ok(())
            }
            None => Err(self.unknown_model(name)),
        }
    }

    fn find(&self, name: &str) -> Result<Arc<ServedModel>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let found = models.get(name).map(Arc::clone);
        drop(models);
        found.ok_or_else(|| self.unknown_model(name))
    }

    fn unknown_model(&self, name: &str) -> Error {
        let shown: String = name.chars().take(100).collect();
        let error = Error::new(ErrorCode::ModelNotFound, format!("the model '{shown}' does not exist")).param("model");
        self.models().into_iter().fold(error, |error, info| error.alternative(info.name))
    }

    fn queue(&self, served: &ServedModel, parts: SequenceParts) -> Result<GenerationStream> {
        let (outlet, stream) = channel(Arc::clone(&served.inbox));
        // Numbers rise in the order in which the queue accepts, which is the order of service within a tier.
        let (tier, now) = (parts.tier, self.clock.now());
        let make = || Sequence::new((self.next_number.fetch_add(1, Ordering::Relaxed), now), parts, outlet);
        served.inbox.accept(&self.config, tier, make)?;
        Ok(Box::pin(stream))
    }

    fn seed(&self, sampling: &Sampling) -> u64 {
        sampling.seed.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            self.rng.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        })
    }
}

impl ModelEngine for Engine {
    fn models(&self) -> Vec<ModelInfo> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).values().map(|served| served.info.clone()).collect()
    }

    fn prepare(&self, model: &str, prompt: &Prompt) -> Result<PreparedPrompt> {
        let served = self.find(model)?;
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) => served.encode(text, SpecialTokens::Add)?,
            Prompt::Chat(chat) => {
                let Some(template) = &served.model.template else {
                    return Err(Error::new(ErrorCode::UnsupportedField, format!("the model '{model}' has no chat template"))
                        .param("messages")
                        .alternative("POST /v1/completions with a text prompt"));
                };
                let text = template.render(chat).map_err(|problem| {
                    invalid("messages", format!("the model's chat template refuses these messages: {problem}"))
                })?;
                served.encode(&text, SpecialTokens::Leave)?
            }
        };
        served.check_tokens(&tokens)?;
        Ok(PreparedPrompt { model: model.to_owned(), tokens: tokens.into() })
    }

    fn generate(&self, request: GenerateRequest) -> Result<GenerationStream> {
        let served = self.find(&request.prompt.model)?;
        served.check_tokens(&request.prompt.tokens)?;
        served.check_settings(&request)?;
        let room = served.context - request.prompt.tokens.len();
        let asked = request.max_output.map_or(room, |most| usize::try_from(most.get()).unwrap_or(0));
        let rule = request.constraint.map(|constraint| served.model.compile(&constraint)).transpose()?;
        let parts = SequenceParts {
            tokens: request.prompt.tokens.to_vec(),
            output_max: asked.min(room),
            sampler: Sampler::new(&request.sampling, self.seed(&request.sampling)),
            assembler: TextAssembler::new(&request.stop),
            allowance: request.allowance,
            rule,
            salt: request.salt,
            tier: request.tier,
            vectors: None,
        };
        self.queue(&served, parts)
    }

    fn prepare_input(&self, model: &str, input: &Prompt) -> Result<PreparedPrompt> {
        let served = self.find(model)?;
        let tokens = match input {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) => served.encode_input(text)?,
            Prompt::Chat(_) => return Err(invalid("input", "a chat has no vector".to_owned()).alternative("its text")),
        };
        served.check_input(&tokens)?;
        Ok(PreparedPrompt { model: model.to_owned(), tokens: tokens.into() })
    }

    fn embed(&self, request: EmbedRequest) -> Result<GenerationStream> {
        let served = self.find(&request.model)?;
        let Some(info) = &served.info.embeddings else {
            let message = format!("the model '{}' makes text, not embeddings", request.model);
            return Err(Error::new(ErrorCode::UnsupportedField, message).param("model"));
        };
        let dimensions = request.dimensions.unwrap_or(info.dimensions);
        if !info.allows(dimensions) {
            return Err(invalid("dimensions", format!("vectors of this model have {} values", info.dimensions)));
        }
        request.inputs.iter().try_for_each(|input| served.check_input(&input.tokens))?;
        let inputs = request.inputs.into_iter().map(|input| input.tokens).collect();
        let work = Vectors::new(inputs, info.pooling, usize::try_from(dimensions).unwrap_or(0));
        let work = work.ok_or_else(|| invalid("input", "there is no input".to_owned()))?;
        self.queue(&served, SequenceParts::embedding(work, request.tier))
    }

    fn wake(&self) {
        for served in self.models.read().unwrap_or_else(PoisonError::into_inner).values() {
            served.inbox.wake();
        }
    }

    fn load(&self) -> EngineLoad {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.values().map(|served| served.inbox.load()).fold(EngineLoad::default(), |sum, load| EngineLoad {
            running: sum.running + load.running,
            parked: sum.parked + load.parked,
            queued: sum.queued + load.queued,
            steps: sum.steps + load.steps,
            produced: sum.produced + load.produced,
        })
    }
}

impl ServedModel {
    fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>> {
        let least = self.model.tokenizer.tokens_at_least(text.len());
        if least >= self.context {
            return Err(self.too_long(format!("at least {least}")));
        }
        self.model.tokenizer.encode(text, special).map_err(|problem| Error::internal(format!("tokenizer: {problem}")))
    }

    fn encode_input(&self, text: &str) -> Result<Vec<u32>> {
        let least = self.model.tokenizer.tokens_at_least(text.len());
        if least > self.context {
            return Err(self.input_too_long(format!("at least {least}")));
        }
        let encoded = self.model.tokenizer.encode(text, SpecialTokens::Add);
        encoded.map_err(|problem| Error::internal(format!("tokenizer: {problem}")))
    }

    /// What is only read may fill the context.
    fn check_input(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(invalid("input", "the input is empty".to_owned()).alternative("at least one token or character"));
        }
        if tokens.len() > self.context {
            return Err(self.input_too_long(tokens.len().to_string()));
        }
        let vocabulary = self.model.decoder.parameters.vocabulary;
        match tokens.iter().find(|token| **token as usize >= vocabulary) {
            Some(token) => Err(invalid("input", format!("token {token} is not in the vocabulary of {vocabulary} tokens"))),
            None => Ok(()),
        }
    }

    fn input_too_long(&self, count: String) -> Error {
        let context = self.context;
        let message = format!("the input has {count} tokens; the model's context window is {context}");
        Error::new(ErrorCode::ContextLengthExceeded, message)
            .param("input")
            .alternative(format!("inputs of at most {context} tokens each"))
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(invalid("prompt", "the prompt is empty".to_owned()).alternative("at least one token or character"));
        }
        if tokens.len() >= self.context {
            return Err(self.too_long(tokens.len().to_string()));
        }
        let vocabulary = self.model.decoder.parameters.vocabulary;
        match tokens.iter().find(|token| **token as usize >= vocabulary) {
            Some(token) => Err(invalid("prompt", format!("token {token} is not in the vocabulary of {vocabulary} tokens"))),
            None => Ok(()),
        }
    }

    fn too_long(&self, count: String) -> Error {
        prompt_too_long(&count, token_count(self.context)).param("messages")
    }

    fn check_settings(&self, request: &GenerateRequest) -> Result<()> {
        let sampling = &request.sampling;
        for (name, value, least, most) in [
            ("temperature", sampling.temperature, 0, 2),
            ("presence_penalty", sampling.presence_penalty, -2, 2),
            ("frequency_penalty", sampling.frequency_penalty, -2, 2),
        ] {
            if value < Millionths(least * 1_000_000) || value > Millionths(most * 1_000_000) {
                return Err(invalid(name, format!("{name} must be between {least} and {most}")));
            }
        }
        if sampling.top_p <= Millionths(0) || sampling.top_p > Millionths(1_000_000) {
            return Err(invalid("top_p", "top_p must be above 0 and at most 1".to_owned()));
        }
        if request.stop.len() > STOP_STRINGS_MAX {
            return Err(invalid("stop", format!("at most {STOP_STRINGS_MAX} stop strings work")));
        }
        let vocabulary = self.model.decoder.parameters.vocabulary;
        for (token, bias) in &sampling.logit_bias {
            if *token as usize >= vocabulary || bias.0.abs() > 100_000_000 {
                let problem = format!("logit_bias takes token ids below {vocabulary} and biases from -100 to 100");
                return Err(invalid("logit_bias", problem));
            }
        }
        Ok(())
    }
}

fn invalid(param: &str, message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

fn taken(name: &str) -> Error {
    Error::new(ErrorCode::Conflict, format!("a model named '{name}' is already served"))
        .alternative("another name, or remove it first")
}

fn token_count(tokens: usize) -> TokenCount {
    TokenCount::new(i64::try_from(tokens).unwrap_or(i64::MAX))
}
