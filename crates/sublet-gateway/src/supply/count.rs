//! Has a prompt counted by a server that serves it, without an answer: vLLM says at `/tokenize`, beside the paths of
//! OpenAI's API, how many tokens a conversation has with its template.
//!
//! Only servers of the fleet are asked, and only for counting: what is generated is counted by whoever generates it.
//! Where none of them can say, the model's own tokenizer does, if the operator gave it one.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use sublet_core::supply::{EngineKind, RemoteModel};
use sublet_core::{DurationMs, Error, ErrorCode, Result, TokenCount};
use tokio::time::timeout_at;

use super::Supply;
use super::order::Beginning;
use super::recount::Uncounted;
use super::request::{OutputMax, UpstreamBody};
use super::search::failure;
use super::station::Station;
use crate::dialect::relay::Kind;
use crate::generation::monotonic;

/// Servers that one prompt is counted at.
const SERVERS_TRIED_MAX: usize = 3;
/// How long all of them may take.
const COUNT_WAIT: DurationMs = DurationMs::from_seconds(10);
/// Largest answer: it names every token of the prompt.
const ANSWER_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// What vLLM answers; the tokens themselves are not read.
#[derive(Deserialize)]
struct Counted {
    count: i64,
}

impl Supply {
    /// How many tokens a chat has. An error where no server of the fleet can say.
    pub async fn count(&self, model: &RemoteModel, chat: &UpstreamBody) -> Result<TokenCount> {
        let counts = |station: &Arc<Station>| station.replica.engine == EngineKind::Vllm && !station.is_bought();
        let mut stations = self.stations(model, Beginning::NONE);
        stations.retain(|station| counts(station) && !station.is_draining());
        let until = monotonic() + COUNT_WAIT.to_std();
        let message = "the tokens of this model are counted only by the servers that serve it";
        let nobody = Error::new(ErrorCode::UnsupportedField, message).param("model");
        let mut failed = nobody.alternative("the usage of an answer");
        for station in stations.iter().take(SERVERS_TRIED_MAX) {
            match timeout_at(until, self.count_at(station, chat)).await {
                Ok(Ok(count)) => return Ok(count),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = Error::new(ErrorCode::UpstreamTimeout, "the model's server did not count in time"),
            }
        }
        if model.tokenizer.is_some() { self.count_here(model, chat).await } else { Err(failed) }
    }

    /// By the model's own tokenizer.
    async fn count_here(&self, model: &RemoteModel, chat: &UpstreamBody) -> Result<TokenCount> {
        let uncounted = Uncounted { kind: Kind::Chat, body: Some(chat.unaddressed()), said: Vec::new() };
        let counted = self.recount(model, uncounted).await.ok().and_then(|recount| recount.prompt);
        counted.ok_or_else(|| {
            let message = "this is more than texts, or far beyond the context, or the model's tokenizer does not work";
            Error::new(ErrorCode::UnsupportedField, message).param("messages").alternative("the usage of an answer")
        })
    }

    async fn count_at(&self, station: &Station, chat: &UpstreamBody) -> Result<TokenCount> {
        let request = station.post_beside("/tokenize", chat.for_replica(&station.replica, OutputMax::Open))?;
        let answer = self.client.send(request).await.map_err(failure)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| failure(error.to_string()))?.to_bytes();
        if head.status != http::StatusCode::OK {
            return Err(failure(format!("status {} to a count", head.status)));
        }
        let counted: Counted =
            serde_json::from_slice(&body).map_err(|error| failure(format!("it counts in other words: {error}")))?;
        // A prompt has a token at least; more than any context is nonsense.
        let sane = (1..=i64::from(u32::MAX)).contains(&counted.count);
        if sane { Ok(TokenCount::new(counted.count)) } else { Err(failure(format!("it counts {}", counted.count))) }
    }
}
