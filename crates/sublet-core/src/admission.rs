//! The port through which the gateway asks who calls, at which price, and with whose money.
//!
//! The gateway spends inside *slices*: parts of what an account and its limits allow, granted
//! to one gateway. Inside a slice it admits without asking anyone. `sublet-cloud` implements
//! the port; a slice is one ledger transfer there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::card::AcceptedLicence;
use crate::error::Result;
use crate::id::{GatewayId, KeyId, OrganizationId, ProjectId, SliceId};
use crate::key::Secret;
use crate::money::{Currency, Nanos, Rate};
use crate::quantity::TokenCount;
use crate::rate::{DrawRequest, Drawn, RateRule};
use crate::tier::ServiceTier;
use crate::time::Timestamp;

/// What a valid project key may do. Immutable; a change of the key makes a new one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    pub key: KeyId,
    pub project: ProjectId,
    pub organization: OrganizationId,
    pub currency: Currency,
    pub models: ModelAccess,
    /// Limits on speed: those of the key, its project and its organization.
    pub limits: Vec<RateRule>,
    pub expires_at: Option<Timestamp>,
    /// Licences that the organization agreed to.
    pub licences: Vec<AcceptedLicence>,
}

/// Which models a key may call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ModelAccess {
    All,
    Only(Vec<String>),
}

impl ModelAccess {
    pub fn allows(&self, model: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == model),
        }
    }
}

/// Prices of one model at one tier in force at some instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenPrices {
    pub tier: ServiceTier,
    /// Which immutable price-list version these come from.
    pub version: PriceVersion,
    pub currency: Currency,
    pub input: Rate,
    pub cached_input: Rate,
    pub output: Rate,
}

/// Content hash of a price-list version, as lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PriceVersion(pub Arc<str>);

/// Rounding slack a hold carries for each priced line: charges are differences of rounded
/// cumulative amounts, so one event can cost at most one nano-unit more than its own ceiling.
pub const ROUNDING_SLACK: Nanos = Nanos::new(1);

impl TokenPrices {
    /// The most a request with these counts can be charged: each line rounded up, plus slack.
    pub fn upper_bound(&self, tokens: &TokenUsage) -> Result<Nanos> {
        let lines = [(self.input, tokens.input), (self.cached_input, tokens.cached_input), (self.output, tokens.output)];
        let mut total = Nanos::ZERO;
        for (rate, count) in lines {
            if count > TokenCount::ZERO && rate.nanos() > Nanos::ZERO {
                total = total.checked_add(rate.cost_ceil(count.get())?)?.checked_add(ROUNDING_SLACK)?;
            }
        }
        Ok(total)
    }
}

/// Tokens of one request by price kind. `input` excludes `cached_input`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TokenUsage {
    pub input: TokenCount,
    pub cached_input: TokenCount,
    pub output: TokenCount,
}

impl TokenUsage {
    /// Prompt tokens as APIs report them: uncached and cached together.
    pub const fn prompt(&self) -> TokenCount {
        self.input.saturating_add(self.cached_input)
    }
    pub const fn total(&self) -> TokenCount {
        self.prompt().saturating_add(self.output)
    }
}

/// A request for money to admit with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceRequest {
    pub gateway: GatewayId,
    /// The gateway's session number: a later session fences off earlier ones.
    pub fence: i64,
    pub key: KeyId,
    pub slice: SliceTarget,
    /// What would be good to have.
    pub wanted: Nanos,
    /// What is needed; less is refused.
    pub least: Nanos,
}

/// Where granted money goes. The gateway names its slices, so that a grant whose answer was lost can be asked for
/// again without a second one staying behind that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SliceTarget {
    /// Opens a slice of this name. If this session has opened it before, what it has is the answer.
    Open(SliceId),
    /// Adds to this open slice.
    Extend(SliceId),
}

/// An answered [`SliceRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceGrant {
    pub slice: SliceId,
    /// What this call added: between `least` and `wanted`; of a slice that was opened before, all it has.
    pub added: Nanos,
    /// All that the slice was ever granted.
    pub granted: Nanos,
    /// The slice's limits are periods; requests admitted at or after this instant need a new slice.
    pub window_ends_at: Option<Timestamp>,
    /// What the tightest limit still allows beyond this grant, for `x-sublet-remaining-budget`; `None` is unlimited or unknown.
    pub available: Option<Nanos>,
}

/// A slice given back, with what the gateway spent on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceReturn {
    pub slice: SliceId,
    pub fence: i64,
    /// How many usage records the gateway wrote against it; the slice closes once all are settled.
    pub records: i64,
}

/// What happened to a returned slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SliceClosed {
    /// The unspent part is available again.
    Released(Nanos),
    /// Usage records are still on their way; return it again later.
    Waiting,
}

/// What the gateway asks of the cloud. Implementations check everything in one transaction.
pub trait Admission: Send + Sync {
    /// Who is this? Fails for unknown, expired and revoked keys, and for other planes.
    fn authenticate<'a>(&'a self, secret: &'a Secret) -> BoxFuture<'a, Result<Arc<Access>>>;
    /// Grows each time any key changes or is revoked: a cached [`Access`] of an older epoch is checked again.
    fn access_epoch(&self) -> u64;
    /// The prices of a model at a tier in force now; an unknown price is an error, never zero.
    fn prices(&self, access: &Access, model: &str, tier: ServiceTier) -> Result<Arc<TokenPrices>>;
    /// Grants money out of every limit that applies (key, project, organization, credit): all or nothing.
    fn grant_slice(&self, request: SliceRequest) -> BoxFuture<'_, Result<SliceGrant>>;
    /// Draws from the buckets of limits on speed, and says what became of earlier draws. One answer for each, in order.
    fn draw_limits(&self, request: DrawRequest) -> BoxFuture<'_, Result<Vec<Drawn>>>;
    /// Gives the unspent part back.
    fn return_slice(&self, request: SliceReturn) -> BoxFuture<'_, Result<SliceClosed>>;
}
