//! From a body to work that can be priced: the fields are checked, the model is found, the prompt is measured.

mod vectors;

use std::sync::Arc;

use sublet_core::admission::{Access, TokenPrices};
use sublet_core::engine::{
    Allowance, EmbedRequest, GenerateRequest, GenerationStream, ModelInfo, PreparedPrompt, Prompt, Sampling, prompt_too_long,
};
use sublet_core::supply::RemoteModel;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, ErrorCode, Result, Timestamp, TokenCount};

use crate::branch::Origin;
use crate::dialect::relay::{self, Relayed};
use crate::dialect::translate;
use crate::dialect::{Call, Earlier, Endpoint, Form, Reading, Rule, Shape, model_of};
use crate::earlier;
use crate::gateway::Gateway;
use crate::generation::Bills;
use crate::offer::{Served, Warning, find_model};
use crate::supply::permit::{Permitted, Sale, permit};
use crate::supply::purchase::{Bid, Supplied};
use crate::supply::request::{OutputMax, UpstreamBody};
use crate::supply::{self, Order};

/// Larger bodies are parsed and tokenized off the request threads.
pub(crate) const INLINE_BODY_BYTES_MAX: usize = 64 * 1_024;

/// A request that could be generated.
pub(crate) struct Prepared {
    pub model: String,
    /// Who gives way to whom.
    pub tier: ServiceTier,
    pub stream: bool,
    pub form: Form,
    pub bills: Bills,
    pub lots: Vec<Lot>,
    pub served_by: Option<Arc<Supplied>>,
    /// The model's end is announced.
    pub warning: Option<Arc<Warning>>,
    source: Source,
}

/// What is paid for and started as one: an answer of the engine, or all answers of a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lot {
    pub origin: Origin,
    /// Tokens of its prompt as far as is known, and at most.
    pub prompt: TokenCount,
    pub prompt_max: TokenCount,
    /// Output tokens at most.
    pub cap: TokenCount,
    /// Output without which it is not worth starting.
    pub least: i64,
    pub payment: Payment,
}

/// How output is paid for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payment {
    /// Ahead of the work, step by step.
    Ahead,
    /// All that it can come to before it begins, because nothing can stop it at a token.
    Before,
}

enum Source {
    Engine(Box<Settings>),
    /// The engine makes vectors: one request to it for each lane.
    Vectors(Vec<EmbedRequest>),
    Replicas {
        /// Those that may be asked, once that was decided.
        permitted: Permitted,
        relayed: Box<Relayed>,
    },
}

/// How the engine answers.
struct Settings {
    prompts: Vec<PreparedPrompt>,
    /// Answers to each prompt.
    answers: usize,
    sampling: Sampling,
    stop: Vec<String>,
    rule: Option<Rule>,
    salt: Arc<str>,
}

impl Settings {
    fn request(&self, index: usize, (cap, tier): (TokenCount, ServiceTier), allowance: &Arc<Allowance>) -> GenerateRequest {
        GenerateRequest {
            prompt: self.prompts[index / self.answers].clone(),
            sampling: sampling(&self.sampling, index % self.answers),
            stop: self.stop.clone(),
            max_output: Some(cap),
            allowance: Arc::clone(allowance),
            constraint: self.rule.as_ref().map(|rule| rule.constraint.clone()),
            salt: Arc::clone(&self.salt),
            tier,
        }
    }

    /// Compiling a constraint takes long enough to be kept off the request threads.
    async fn generate(&self, gateway: &Gateway, request: GenerateRequest) -> Result<GenerationStream> {
        let Some(rule) = &self.rule else { return gateway.engine.generate(request) };
        let engine = Arc::clone(&gateway.engine);
        let work = tokio::task::spawn_blocking(move || engine.generate(request));
        let compiled = work.await.unwrap_or_else(|e| Err(Error::internal(format!("compiling a constraint failed: {e}"))));
        compiled.map_err(|error| rule.blame(error))
    }
}

impl Prepared {
    /// Tokens of all prompts.
    pub fn prompt(&self) -> TokenCount {
        self.lots.iter().fold(TokenCount::ZERO, |sum, lot| sum.saturating_add(lot.prompt))
    }
    pub fn prompt_max(&self) -> TokenCount {
        self.lots.iter().fold(TokenCount::ZERO, |sum, lot| sum.saturating_add(lot.prompt_max))
    }

    /// How many answers it asks for: what of it is worked on at once.
    pub fn answers(&self) -> u32 {
        let relayed = match &self.source {
            Source::Replicas { relayed, .. } => usize::try_from(relayed.answers).unwrap_or(usize::MAX),
            Source::Engine(_) | Source::Vectors(_) => self.lots.len(),
        };
        u32::try_from(relayed).unwrap_or(u32::MAX).max(1)
    }

    /// Output tokens of all answers, at most.
    pub fn output_max(&self) -> TokenCount {
        self.lots.iter().fold(TokenCount::ZERO, |sum, lot| sum.saturating_add(lot.cap))
    }
    /// Output without which none of it is worth starting.
    pub fn output_least(&self) -> TokenCount {
        self.lots.iter().fold(TokenCount::ZERO, |sum, lot| sum.saturating_add(TokenCount::new(lot.least)))
    }

    /// A model on other servers, and the chat that one of them is to count.
    pub fn elsewhere(&self) -> Option<(&RemoteModel, &UpstreamBody)> {
        match &self.source {
            Source::Replicas { permitted, relayed } => Some((&permitted.model, &relayed.body)),
            Source::Engine(_) | Source::Vectors(_) => None,
        }
    }

    /// Decides who may be asked at these prices; before it the fleet's servers and suppliers are alike.
    pub fn permit(&mut self, gateway: &Gateway, access: &Access, prices: &TokenPrices, now: Timestamp) -> Result<()> {
        let Source::Replicas { permitted, relayed } = &mut self.source else { return Ok(()) };
        let model = Arc::clone(&permitted.model);
        let at_tier = |tier| gateway.admission.public_prices(access, (&model.name, tier), now).ok();
        let public = at_tier(prices.tier);
        let prices = public.as_deref().unwrap_or(prices);
        let cards = gateway.supply.cards();
        let card = cards.find(&model.name).map(Arc::as_ref);
        *permitted = permit(&model, Sale { access, prices, now, card, at_tier: &at_tier })?;
        for lot in &mut self.lots {
            lot.payment = payment(relayed, &permitted.bids);
        }
        Ok(())
    }

    /// Starts one lot with what is paid for it.
    pub async fn open(&self, gateway: &Gateway, index: usize, allowance: &Arc<Allowance>) -> Result<GenerationStream> {
        let lot = self.lots[index];
        match &self.source {
            Source::Engine(settings) => settings.generate(gateway, settings.request(index, (lot.cap, self.tier), allowance)).await,
            Source::Vectors(lanes) => gateway.engine.embed(EmbedRequest { tier: self.tier, ..lanes[index].clone() }),
            Source::Replicas { permitted: Permitted { model, bids, hints }, relayed } => {
                let paid = TokenCount::new(i64::try_from(allowance.tokens()).unwrap_or(i64::MAX));
                let order = Order {
                    model: Arc::clone(model),
                    kind: relayed.kind,
                    body: relayed.body.clone(),
                    streamed: relayed.stream,
                    output_max: output_max(relayed, (model, !bids.is_empty()), lot.payment, paid),
                    answers: usize::try_from(relayed.answers).unwrap_or(usize::MAX),
                    cap: if lot.payment == Payment::Before { paid } else { lot.cap },
                    input_max: lot.prompt_max,
                    input_estimate: lot.prompt,
                    blocks: relayed.blocks.as_slice().into(),
                    allowance: Arc::clone(allowance),
                    served_by: self.served_by.clone().unwrap_or_default(),
                    bids: Arc::clone(bids),
                    hints: Arc::clone(hints),
                    tier: self.tier,
                };
                Ok(supply::start(Arc::clone(&gateway.supply), order))
            }
        }
    }
}

/// Answers to one prompt differ, and each can be repeated.
fn sampling(common: &Sampling, answer: usize) -> Sampling {
    let nth = u64::try_from(answer).unwrap_or(0);
    let seed = common.seed.map(|seed| seed.wrapping_add(nth));
    Sampling { seed, ..common.clone() }
}

/// What a replica is told. A maximum that the caller did not name is left to the replica where it cannot go beyond
/// what is paid: engines refuse one that does not fit beside the prompt, whose tokens only they know.
fn output_max(relayed: &Relayed, (model, is_bought): (&RemoteModel, bool), payment: Payment, paid: TokenCount) -> OutputMax {
    if relayed.kind == relay::Kind::Embedding {
        return OutputMax::Open;
    }
    let each = match payment {
        // The exchange is ended at what is ordered.
        Payment::Ahead if !relayed.limited => return OutputMax::Open,
        Payment::Ahead => relayed.output_max,
        Payment::Before => TokenCount::new(paid.get() / relayed.answers.max(1)).min(relayed.output_max),
    };
    let room = model.context_window.saturating_sub(relayed.input_estimate);
    let fits_only_without = each == relayed.output_max && each >= room;
    if !relayed.limited && fits_only_without && !is_bought { OutputMax::Open } else { OutputMax::Each(each) }
}

/// What is bought has to be paid whatever it says; what is ours can be stopped at any event.
fn payment(relayed: &Relayed, bids: &[Bid]) -> Payment {
    if relayed.stream && bids.is_empty() { Payment::Ahead } else { Payment::Before }
}

/// How a body is read for the engine.
pub(crate) type Read = fn(Endpoint, &[u8], &Earlier) -> Result<Call>;

/// Runs work on a text of so many bytes: here if it is short, otherwise on a thread of its own.
pub(crate) async fn worked<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if bytes <= INLINE_BODY_BYTES_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::internal(format!("reading a large request failed: {e}"))))
}

/// Checks the fields, finds the model, and tokenizes.
pub(crate) async fn prepare(
    gateway: &Arc<Gateway>,
    access: &Arc<Access>,
    (endpoint, read): (Endpoint, Read),
    body: bytes::Bytes,
) -> Result<Prepared> {
    let earlier = earlier::load(gateway, access, endpoint, &body).await?;
    let bytes = body.len();
    let (gateway, access) = (Arc::clone(gateway), Arc::clone(access));
    let work = move || {
        let offer = find_model(&gateway, &access, &model_of(&body)?)?;
        offer.check_licence(&access)?;
        let warning = offer.warning(gateway.clock.now());
        let prepared = match offer.served {
            Served::Here(model) if endpoint == Endpoint::Embedding => vectors::prepare(&gateway, &access, &body, model),
            Served::Here(model) => for_engine(&gateway, &access, (endpoint, read(endpoint, &body, &earlier)?), model),
            Served::Elsewhere(model) => for_replicas(&access, (endpoint, read), (&body, &earlier), model),
        };
        prepared.map(|prepared| Prepared { warning, ..prepared })
    };
    worked(bytes, work).await
}

fn for_engine(gateway: &Gateway, access: &Access, (endpoint, mut call): (Endpoint, Call), model: ModelInfo) -> Result<Prepared> {
    // The body may have named an alias.
    call.model.clone_from(&model.name);
    call.fit(&model)?;
    check_vocabulary(&call, &model)?;
    let prepared = call.prompts.iter().map(|prompt| gateway.engine.prepare(&call.model, prompt));
    let prompts = prepared.collect::<Result<Vec<_>>>().map_err(|error| endpoint.rename(error))?;
    let mut lots = Vec::with_capacity(prompts.len() * call.answers);
    for prompt in &prompts {
        check_context(prompt, &model)?;
        let room = model.context_window.saturating_sub(prompt.count());
        let cap = call.output_max.map_or(room, |max| max.min(room));
        for answer in 0..call.answers {
            let prompt = if answer == 0 { prompt.count() } else { TokenCount::ZERO };
            lots.push(Lot { origin: Origin::Engine, prompt, prompt_max: prompt, cap, least: 1, payment: Payment::Ahead });
        }
    }
    let Call { model, tier, answers, sampling, stop, rule, stream, form, .. } = call;
    let settings = Settings { prompts, answers, sampling, stop, rule, salt: access.organization.as_str().into() };
    let source = Source::Engine(Box::new(settings));
    Ok(Prepared { model, tier, stream, form, bills: Bills::Answer, lots, served_by: None, warning: None, source })
}

fn for_replicas(
    access: &Access,
    (endpoint, read): (Endpoint, Read),
    (body, earlier): (&[u8], &Earlier),
    model: Arc<RemoteModel>,
) -> Result<Prepared> {
    let salt = access.organization.as_str();
    let (relayed, shape) = match endpoint.relayed() {
        Some(kind) => {
            let relayed = relay::read(kind, body, &model, salt)?;
            let shape = Shape::Relay(relayed.form);
            (relayed, shape)
        }
        None => {
            let call = read(endpoint, body, earlier)?;
            let mut relayed = relay::read(relay::Kind::Chat, &translate::chat(&call)?, &model, salt)?;
            relayed.tier = call.tier;
            (relayed, Shape::Translated(Box::new(call.form.shape)))
        }
    };
    let permitted = Permitted { model, bids: Arc::default(), hints: Arc::default() };
    let lot = Lot {
        origin: Origin::Replica,
        prompt: relayed.input_estimate,
        prompt_max: relayed.input_max,
        cap: TokenCount::new(relayed.output_max.get().saturating_mul(relayed.answers)),
        least: relayed.answers,
        payment: payment(&relayed, &permitted.bids),
    };
    Ok(Prepared {
        model: permitted.model.name.clone(),
        tier: relayed.tier,
        stream: relayed.stream,
        form: Form { shape, reading: Reading::Text },
        bills: if relayed.kind == relay::Kind::Embedding { Bills::Input } else { Bills::Answer },
        lots: vec![lot],
        served_by: Some(Arc::default()),
        warning: None,
        source: Source::Replicas { permitted, relayed: Box::new(relayed) },
    })
}

fn check_vocabulary(call: &Call, model: &ModelInfo) -> Result<()> {
    let unknown = |token: u32| i64::from(token) >= model.vocabulary.get();
    let wrong = |param: &str, token: u32| {
        let last = model.vocabulary.get() - 1;
        Error::new(ErrorCode::InvalidRequest, format!("token {token} is not in the model's vocabulary, which ends at {last}"))
            .param(param)
    };
    if let Some((token, _)) = call.sampling.logit_bias.iter().find(|(token, _)| unknown(*token)) {
        return Err(wrong("logit_bias", *token));
    }
    for prompt in &call.prompts {
        if let Prompt::Tokens(tokens) = prompt
            && let Some(token) = tokens.iter().find(|token| unknown(**token))
        {
            return Err(wrong("prompt", *token));
        }
    }
    Ok(())
}

fn check_context(prompt: &PreparedPrompt, model: &ModelInfo) -> Result<()> {
    if prompt.count() < model.context_window {
        return Ok(());
    }
    Err(prompt_too_long(&prompt.count().to_string(), model.context_window))
}
