//! Texts that the engine of this process turns into vectors.
//!
//! The inputs are dealt out to a few lanes, so that short ones are computed together. All of it is paid before it
//! begins: what it costs is known to the token.

use sublet_core::admission::Access;
use sublet_core::engine::{EmbedRequest, ModelInfo, PreparedPrompt, Prompt};
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, ErrorCode, Result, TokenCount};

use super::{Lot, Payment, Prepared, Source};
use crate::branch::Origin;
use crate::dialect::embeddings::{Asked, Form, TOKENS_MAX, foreign_token, read};
use crate::dialect::{Form as AnswerForm, Reading, Shape, no_embeddings};
use crate::gateway::Gateway;
use crate::generation::Bills;
use crate::offer::{Served, all_models};

/// Places that one request takes in the engine's queue and in its steps.
const LANES_MAX: usize = 8;
/// Models named to whoever asked one that makes no vectors.
const ALTERNATIVES_MAX: usize = 20;

pub(super) fn prepare(gateway: &Gateway, access: &Access, body: &[u8], model: ModelInfo) -> Result<Prepared> {
    let Some(info) = &model.embeddings else {
        let others = all_models(gateway, access);
        let others = others.iter().filter(|offer| makes_vectors(&offer.served)).take(ALTERNATIVES_MAX);
        let error = no_embeddings(&format!("the model '{}'", model.name));
        return Err(others.fold(error, |error, offer| error.alternative(offer.name())));
    };
    let Asked { inputs, dimensions, format } = read(body, info)?;
    let lanes = inputs.len().min(LANES_MAX);
    let mut requests: Vec<EmbedRequest> = (0..lanes)
        .map(|_| EmbedRequest { model: model.name.clone(), inputs: Vec::new(), dimensions, tier: ServiceTier::Default })
        .collect();
    for (index, input) in measured(gateway, &model, &inputs)?.into_iter().enumerate() {
        requests[index % lanes].inputs.push(input);
    }
    Ok(Prepared {
        tier: ServiceTier::Default,
        stream: false,
        form: AnswerForm { shape: Shape::Vectors(Form { format }), reading: Reading::Text },
        bills: Bills::Input,
        lots: requests.iter().map(lot).collect(),
        served_by: None,
        warning: None,
        source: Source::Vectors(requests),
        model: model.name,
    })
}

/// Servers elsewhere may make vectors: only they know.
fn makes_vectors(served: &Served) -> bool {
    match served {
        Served::Here(model) => model.embeddings.is_some(),
        Served::Elsewhere(_) => true,
    }
}

/// The inputs as tokens, as long as they are no more than may be.
fn measured(gateway: &Gateway, model: &ModelInfo, inputs: &[Prompt]) -> Result<Vec<PreparedPrompt>> {
    let mut total = 0;
    let mut prepared = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        if let Prompt::Tokens(tokens) = input
            && let Some(token) = tokens.iter().find(|token| i64::from(**token) >= model.vocabulary.get())
        {
            return Err(foreign_token(index, *token, model.vocabulary.get() - 1));
        }
        let input = gateway.engine.prepare_input(&model.name, input).map_err(|error| error.param(format!("input[{index}]")))?;
        total += input.tokens.len();
        if total > TOKENS_MAX {
            let message = format!("the inputs have more than {TOKENS_MAX} tokens in all, from input[{index}] on");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("input").alternative("several requests"));
        }
        prepared.push(input);
    }
    Ok(prepared)
}

fn lot(lane: &EmbedRequest) -> Lot {
    let prompt = lane.inputs.iter().fold(TokenCount::ZERO, |sum, input| sum.saturating_add(input.count()));
    Lot { origin: Origin::Engine, prompt, prompt_max: prompt, cap: TokenCount::ZERO, least: 0, payment: Payment::Before }
}
