//! Counts what a server did not, by the model's own tokenizer.
//!
//! Only once an answer has ended: while it comes, its bytes are estimate enough to be paid ahead by. Text is kept only
//! for models that have a tokenizer, and only as long as no server has counted it.

use std::sync::Arc;

use sublet_core::supply::RemoteModel;
use sublet_core::{Error, ErrorCode, Result, TokenCount};

use super::Supply;
use super::kv::Tokens;
use super::order::Order;
use crate::dialect::relay::Kind;

/// Counted at once by one gateway. Each takes one processor and, for a long text, some memory.
pub(super) const COUNTS_MAX: usize = 2;
/// A text of more bytes for each token of the context is not worth a look: no text's tokens are so long.
const TOKEN_BYTES_MAX: i64 = 64;

/// What nobody counted.
pub(super) struct Uncounted {
    pub kind: Kind,
    /// The body without the names of model and server; `None` if the prompt was counted.
    pub body: Option<Vec<u8>>,
    /// What each answer said since it was last counted.
    pub said: Vec<String>,
}

/// Its tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recount {
    /// `None` where more may be in the prompt than texts.
    pub prompt: Option<TokenCount>,
    pub output: TokenCount,
}

impl Supply {
    /// An error where the model has no tokenizer that works here.
    pub(super) async fn recount(&self, model: &RemoteModel, uncounted: Uncounted) -> Result<Recount> {
        let Some(name) = model.tokenizer.clone() else {
            return Err(Error::new(ErrorCode::UnsupportedField, "the model has no tokenizer here").param("model"));
        };
        let bytes_max = model.context_window.get().saturating_mul(TOKEN_BYTES_MAX);
        let tokenizers = Arc::clone(&self.tokenizers);
        // What goes on when its caller has left keeps its permit.
        let permit = Arc::clone(&self.recounts).acquire_owned().await;
        let work = move || -> Result<Recount> {
            let _permit = permit;
            let counter = tokenizers.open(&name)?;
            let output = sum(uncounted.said.iter().map(|text| counter.count_text(text)))?;
            let body = uncounted.body.filter(|body| i64::try_from(body.len()).is_ok_and(|bytes| bytes <= bytes_max));
            let prompts = body.and_then(|body| uncounted.kind.prompts(&body).ok());
            let prompt = prompts.map(|prompts| sum(prompts.iter().map(|prompt| counter.count_prompt(prompt)))).transpose()?;
            Ok(Recount { prompt, output })
        };
        let counted = tokio::task::spawn_blocking(work).await;
        counted.unwrap_or_else(|_| Err(Error::internal("counting failed"))).inspect_err(|error| {
            // Never with the text: errors of tokenizers are about their files.
            tracing::warn!(model = model.name, code = error.code().as_str(), "the tokenizer of a model does not count");
        })
    }
}

/// Longest body whose tokens are looked up in what replicas say of their caches.
const ROUTED_BYTES_MAX: usize = 256 * 1_024;

impl Supply {
    /// The tokens of an order's prompt, where there is a choice and somebody says what of them it has. Nobody waits for
    /// a turn to learn them: what was sent where is remembered as well.
    pub(super) async fn prompt_tokens(&self, order: &Order) -> Option<Arc<Tokens>> {
        let name = order.model.tokenizer.clone().filter(|_| order.body.bytes() <= ROUTED_BYTES_MAX)?;
        if order.model.replicas.len() < 2 || !self.is_told_of(&order.model) {
            return None;
        }
        let permit = Arc::clone(&self.recounts).try_acquire_owned().ok()?;
        let (tokenizers, kind, body) = (Arc::clone(&self.tokenizers), order.kind, order.body.unaddressed());
        let work = move || -> Result<Vec<u32>> {
            let _permit = permit;
            match kind.prompts(&body)?.as_slice() {
                [prompt] => tokenizers.open(&name)?.encode_prompt(prompt),
                _ => Ok(Vec::new()),
            }
        };
        let ids = tokio::task::spawn_blocking(work).await.ok()?.ok().filter(|ids| !ids.is_empty())?;
        Some(Arc::new(Tokens::new(ids, order.body.salt())))
    }

    /// Whether any replica of a model says now what its cache has.
    fn is_told_of(&self, model: &RemoteModel) -> bool {
        let fleet = self.fleet();
        let mut stations = model.replicas.iter().filter_map(|replica| fleet.stations.get(&replica.id));
        stations.any(|station| station.cached_tokens().is_some())
    }
}

fn sum(counts: impl Iterator<Item = Result<TokenCount>>) -> Result<TokenCount> {
    counts.into_iter().try_fold(TokenCount::ZERO, |sum, count| Ok(sum.saturating_add(count?)))
}
