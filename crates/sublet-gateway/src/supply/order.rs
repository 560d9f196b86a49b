//! What is asked of a model's replicas, and what is known of its prompt when one of them is chosen.

use std::sync::Arc;

use sublet_core::TokenCount;
use sublet_core::engine::Allowance;
use sublet_core::supply::RemoteModel;
use sublet_core::tier::ServiceTier;

use super::kv::Tokens;
use super::purchase::{Bid, Supplied};
use super::request::{OutputMax, UpstreamBody};
use crate::dialect::relay::Kind;
use crate::routing::Block;

/// What is asked of a model's replicas.
pub(crate) struct Order {
    pub model: Arc<RemoteModel>,
    pub kind: Kind,
    pub body: UpstreamBody,
    pub streamed: bool,
    pub output_max: OutputMax,
    /// Answers that are wanted; embeddings have none.
    pub answers: usize,
    /// Output tokens of all answers together, at most.
    pub cap: TokenCount,
    /// What the prompt has at most: more is not believed.
    pub input_max: TokenCount,
    /// What the prompt has, as far as anybody knows before the replica says.
    pub input_estimate: TokenCount,
    /// How the prompt begins, for the choice of a replica.
    pub blocks: Arc<[Block]>,
    pub allowance: Arc<Allowance>,
    /// Says afterwards who answered, and what is owed for it.
    pub served_by: Arc<Supplied>,
    /// The suppliers among the model's replicas.
    pub bids: Arc<[Bid]>,
    /// What would open others.
    pub hints: Arc<[String]>,
    /// Who is served first, and who gives way.
    pub tier: ServiceTier,
}

/// How a prompt begins.
#[derive(Clone, Copy)]
pub(super) struct Beginning<'a> {
    /// As it came.
    pub blocks: &'a [Block],
    /// As engines have it, where one of them says what of it its cache has.
    pub tokens: Option<&'a Tokens>,
    /// What it has in all, as far as is known.
    pub size: TokenCount,
}

impl Beginning<'static> {
    /// Nothing is to be read.
    pub const NONE: Self = Self { blocks: &[], tokens: None, size: TokenCount::ZERO };
}
