//! Usage records: what the gateway's journal holds and the ledger settles.

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::admission::{PriceVersion, TokenUsage};
use crate::batch::LineName;
use crate::error::Result;
use crate::id::{GatewayId, KeyId, OrganizationId, ProjectId, ReplicaId, RequestId, SliceId};
use crate::supplier::Purchase;
use crate::tier::ServiceTier;
use crate::time::Timestamp;

/// One served attempt of one request. `(request, attempt)` is its identity for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UsageRecord {
    pub request: RequestId,
    pub attempt: u32,
    pub gateway: GatewayId,
    pub fence: i64,
    pub slice: SliceId,
    pub key: KeyId,
    pub project: ProjectId,
    pub organization: OrganizationId,
    pub model: String,
    /// The tier that was served, and is charged.
    #[serde(default, skip_serializing_if = "ServiceTier::is_default")]
    pub tier: ServiceTier,
    pub route: String,
    pub price_version: PriceVersion,
    pub admitted_at: Timestamp,
    pub first_token_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    pub tokens: TokenUsage,
    pub outcome: Outcome,
    pub measured: Measured,
    /// What the client says of its own retries (`x-stainless-retry-count`).
    pub client_retry: u32,
    /// The server that answered; `None` is the engine of the gateway's own process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaId>,
    /// What suppliers are owed for it, whether it was charged or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purchases: Vec<Purchase>,
    /// The line of a batch that this is the answer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<AnsweredLine>,
}

impl UsageRecord {
    /// Nothing was delivered that could be charged; it is there for what suppliers are owed.
    pub fn is_purchase_only(&self) -> bool {
        !self.purchases.is_empty() && self.tokens == TokenUsage::default()
    }
}

/// A line of a batch with its answer: they are durable, settled and charged together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredLine {
    #[serde(flatten)]
    pub name: LineName,
    /// The body of the answer. It is content: settling takes it out before the record is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// Content is not for logs.
impl std::fmt::Debug for AnsweredLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {} bytes of answer", self.name, self.answer.len())
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model ended its answer, or a stop string did.
    Completed,
    /// The requested or the model's maximum was reached.
    Length,
    /// The money that the caller could still spend was used up; decoding stopped at that token.
    BudgetStopped,
    /// The client went away; charged for what was delivered.
    ClientCancelled,
    /// We ended it after some output; charged for what was delivered.
    ServerStopped,
    /// Requests of a higher tier, or the owner, needed its capacity; charged for what was delivered.
    Preempted,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Length => "length",
            Self::BudgetStopped => "budget_stopped",
            Self::ClientCancelled => "client_cancelled",
            Self::ServerStopped => "server_stopped",
            Self::Preempted => "preempted",
        }
    }
}

/// Where token counts come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// The engine that produced them.
    Engine,
    /// Ourselves, because the engine did not say.
    Estimated,
    /// The engine said more than is possible; what is possible was charged.
    Bounded,
}

/// What one settlement did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SettleReport {
    /// Records that became charges now.
    pub settled: u64,
    /// Records that were known already, byte for byte.
    pub duplicate: u64,
    /// Records that could not be charged and wait in quarantine for an operator.
    pub quarantined: u64,
    /// Answers to lines of batches that another attempt has taken over: neither charged nor given.
    pub superseded: u64,
}

/// Where journal records go: events, charges and postings in one transaction.
///
/// Settling the same records again changes nothing. An error means nothing was settled and
/// the batch must be offered again.
pub trait UsageSink: Send + Sync {
    fn settle<'a>(&'a self, batch: &'a [UsageRecord]) -> BoxFuture<'a, Result<SettleReport>>;
}
