//! The port through which the gateway asks who calls, at which price, and with whose money.
//!
//! The gateway spends inside *slices*: parts of what an account and its limits allow, granted
//! to one gateway. Inside a slice it admits without asking anyone. `sublet-cloud` implements
//! the port; a slice is one ledger transfer there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::card::AcceptedLicence;
use crate::error::{Error, Result};
use crate::id::{GatewayId, KeyId, OrganizationId, ProjectId, SliceId};
use crate::key::Secret;
use crate::money::{Currency, Nanos, Rate};
use crate::offering::Entitlements;
use crate::quantity::TokenCount;
use crate::rate::{DrawRequest, Drawn, EndUser, EndUsers, RateRule};
use crate::supplier::DataConsent;
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
    /// The spend limits that are on some of its requests only.
    pub narrow_limits: Vec<Narrowing>,
    pub expires_at: Option<Timestamp>,
    /// Licences that the organization agreed to.
    pub licences: Vec<AcceptedLicence>,
    /// What it may use that not everybody may.
    pub entitlements: Entitlements,
    /// Whether suppliers outside may see what it asks.
    pub data: DataConsent,
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

/// Some of a subject's requests: those for a model, those of end users, or both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Narrowing {
    pub model: Option<Arc<str>>,
    pub end_users: EndUsers,
}

impl Narrowing {
    /// All requests.
    pub const NONE: Self = Self { model: None, end_users: EndUsers::All };

    /// What a limit on these requests of a subject is called.
    pub fn name(&self, subject: &str) -> String {
        let model = self.model.as_deref().map(|model| format!(" model={model}")).unwrap_or_default();
        match &self.end_users {
            EndUsers::All => format!("{subject}{model}"),
            EndUsers::Each => format!("{subject}{model} each_end_user"),
            EndUsers::One(name) => format!("{subject}{model} end_user={name}"),
        }
    }

    /// Takes a name apart. Names of subjects and models have no spaces.
    pub fn parse(name: &str) -> (&str, Self) {
        let (subject, mut rest) = name.split_once(' ').unwrap_or((name, ""));
        let mut narrowing = Self::NONE;
        if let Some(after) = rest.strip_prefix("model=") {
            let (model, after) = after.split_once(' ').unwrap_or((after, ""));
            narrowing.model = Some(model.into());
            rest = after;
        }
        narrowing.end_users = match rest.strip_prefix("end_user=") {
            Some(user) => EndUsers::One(user.into()),
            None if rest == "each_end_user" => EndUsers::Each,
            None => EndUsers::All,
        };
        (subject, narrowing)
    }

    fn admits(&self, model: &str, end_user: Option<&EndUser>) -> bool {
        let is_user = match &self.end_users {
            EndUsers::All | EndUsers::Each => true,
            EndUsers::One(name) => end_user.is_some_and(|user| *user.name == **name),
        };
        is_user && self.model.as_deref().is_none_or(|limited| limited == model)
    }
}

/// Requests of a key that share a slice, because the same spend limits apply to all of them.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct SpendClass {
    pub model: Option<Arc<str>>,
    /// Unnamed ones are those of one more end user.
    pub end_user: Option<EndUser>,
}

impl SpendClass {
    /// The limits that may apply to a subject's requests of this class, and the budget of each.
    pub fn budgets_of(&self, subject: &str) -> Vec<(String, String)> {
        let models = std::iter::once(None).chain(self.model.clone().map(Some));
        let mut budgets = Vec::new();
        for model in models {
            let mut add = |end_users, mark: Option<&str>| {
                let limit = Narrowing { model: model.clone(), end_users }.name(subject);
                let budget = mark.map_or_else(|| limit.clone(), |mark| format!("{limit} #{mark}"));
                budgets.push((limit, budget));
            };
            add(EndUsers::All, None);
            if let Some(user) = &self.end_user {
                add(EndUsers::Each, Some(&user.mark));
                add(EndUsers::One(user.name.as_str().into()), None);
            }
        }
        budgets
    }
}

impl Access {
    /// What shares its money with a request.
    pub fn spend_class(&self, model: &str, end_user: Option<&EndUser>) -> SpendClass {
        let mut class = SpendClass::default();
        for limit in self.narrow_limits.iter().filter(|limit| limit.admits(model, end_user)) {
            if limit.model.is_some() {
                class.model = Some(model.into());
            }
            if limit.end_users != EndUsers::All {
                let unnamed = || EndUser { name: String::new(), mark: String::new() };
                class.end_user = Some(end_user.cloned().unwrap_or_else(unnamed));
            }
        }
        class
    }

    /// Whether anything depends on who the end user is.
    pub fn needs_end_user(&self) -> bool {
        let narrow = self.narrow_limits.iter().any(|limit| limit.end_users != EndUsers::All);
        narrow || self.limits.iter().any(RateRule::needs_end_user)
    }
}

/// Prices of one model at one tier in force at some instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenPrices {
    pub tier: ServiceTier,
    /// Which immutable price-list version these come from.
    pub version: PriceVersion,
    pub currency: Currency,
    /// The most that a request is charged besides its tokens, if it is charged at all.
    pub request: Nanos,
    pub input: Rate,
    pub cached_input: Rate,
    pub output: Rate,
    /// What each costs at least, where prices fall with the quantity: margins are reckoned with it.
    pub least: TokenRates,
}

/// A rate for each kind of token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenRates {
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
    /// The most a request with these counts can be charged: its tokens, and what a request costs besides them. Without
    /// any tokens there is nothing to charge.
    pub fn upper_bound(&self, tokens: &TokenUsage) -> Result<Nanos> {
        let besides = if *tokens == TokenUsage::default() { Nanos::ZERO } else { self.request };
        self.tokens_bound(tokens)?.checked_add(besides)
    }

    /// The most that so many tokens can be charged: each line rounded up, plus slack.
    pub fn tokens_bound(&self, tokens: &TokenUsage) -> Result<Nanos> {
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
    /// Which of the key's requests it is for.
    pub class: SpendClass,
    pub slice: SliceTarget,
    /// What would be good to have.
    pub wanted: Nanos,
    /// What is needed; less is refused.
    pub least: Nanos,
    /// Whoever asks knows no other way: if it is refused now, limits are noted as reached.
    pub is_final: bool,
}

/// Where granted money goes. The gateway names its slices, so that a grant whose answer was lost can be asked for
/// again without a second one staying behind that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SliceTarget {
    /// Opens a slice of this name. If this session has opened it before, what it has is the answer.
    Open(SliceId),
    /// Adds to this open slice.
    Extend(SliceId),
    /// Adds to this open slice for a request that it admitted: limits that let work finish give of what is for that.
    Finish(SliceId),
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
    /// The slice went beyond a limit that lets admitted work finish: it admits nothing new, which is told this.
    pub closed_to_new: Option<Error>,
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
    /// The prices of a model at a tier for what is admitted at an instant; an unknown price is an error, never zero.
    fn prices(&self, access: &Access, model: (&str, ServiceTier), at: Timestamp) -> Result<Arc<TokenPrices>>;
    /// The prices that everybody has, where a customer's own may be others: what floors of suppliers are judged by, so that
    /// nobody is refused for having agreed on a price.
    fn public_prices(&self, access: &Access, model: (&str, ServiceTier), at: Timestamp) -> Result<Arc<TokenPrices>> {
        self.prices(access, model, at)
    }
    /// The least and the most that the same can cost in the course of a week, where prices depend on the time.
    fn price_range(&self, access: &Access, model: (&str, ServiceTier), at: Timestamp) -> Result<[TokenPrices; 2]>;
    /// Grants money out of every limit that applies (key, project, organization, credit): all or nothing.
    fn grant_slice(&self, request: SliceRequest) -> BoxFuture<'_, Result<SliceGrant>>;
    /// Draws from the buckets of limits on speed, and says what became of earlier draws. One answer for each, in order.
    fn draw_limits(&self, request: DrawRequest) -> BoxFuture<'_, Result<Vec<Drawn>>>;
    /// Gives the unspent part back.
    fn return_slice(&self, request: SliceReturn) -> BoxFuture<'_, Result<SliceClosed>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identifier;

    fn narrowing(model: Option<&str>, end_users: EndUsers) -> Narrowing {
        Narrowing { model: model.map(Into::into), end_users }
    }

    fn ann() -> EndUser {
        EndUser { name: "Ann B".to_owned(), mark: "a1".to_owned() }
    }

    #[test]
    fn a_limit_s_name_says_which_requests_it_is_on() {
        for (requests, name) in [
            (Narrowing::NONE, "proj_1"),
            (narrowing(Some("org/m"), EndUsers::All), "proj_1 model=org/m"),
            (narrowing(None, EndUsers::Each), "proj_1 each_end_user"),
            (narrowing(Some("m"), EndUsers::One("Ann B each_end_user".into())), "proj_1 model=m end_user=Ann B each_end_user"),
        ] {
            assert_eq!(requests.name("proj_1"), name);
            assert_eq!(Narrowing::parse(name), ("proj_1", requests));
        }
    }

    #[test]
    fn a_class_names_every_limit_that_may_apply_and_a_budget_for_each() {
        let class = SpendClass { model: Some("m".into()), end_user: Some(ann()) };
        let budgets = class.budgets_of("key_1");
        let names: Vec<&str> = budgets.iter().map(|(_, budget)| budget.as_str()).collect();
        let expected = [
            "key_1",
            "key_1 each_end_user #a1",
            "key_1 end_user=Ann B",
            "key_1 model=m",
            "key_1 model=m each_end_user #a1",
            "key_1 model=m end_user=Ann B",
        ];
        assert_eq!(names, expected);
        assert_eq!(SpendClass::default().budgets_of("key_1"), [("key_1".to_owned(), "key_1".to_owned())]);
    }

    #[test]
    fn requests_share_money_unless_a_limit_tells_them_apart() {
        let access = |narrow_limits| Access {
            key: KeyId::from_trusted("key_1".into()),
            project: ProjectId::from_trusted("proj_1".into()),
            organization: OrganizationId::from_trusted("org_1".into()),
            currency: Currency::EUR,
            models: ModelAccess::All,
            limits: Vec::new(),
            narrow_limits,
            expires_at: None,
            licences: Vec::new(),
            entitlements: Entitlements::default(),
            data: DataConsent::default(),
        };
        let of = |model: Option<&str>, end_user| SpendClass { model: model.map(Into::into), end_user };
        let ann = ann();
        assert_eq!(access(Vec::new()).spend_class("m", Some(&ann)), SpendClass::default());
        let by_model = access(vec![narrowing(Some("m"), EndUsers::All)]);
        assert_eq!(by_model.spend_class("m", Some(&ann)), of(Some("m"), None));
        assert_eq!(by_model.spend_class("other", None), SpendClass::default());
        let each = access(vec![narrowing(Some("m"), EndUsers::Each)]);
        assert_eq!(each.spend_class("m", Some(&ann)), of(Some("m"), Some(ann.clone())));
        assert_eq!(each.spend_class("m", None).end_user.map(|user| user.mark).as_deref(), Some(""));
        let one = access(vec![narrowing(None, EndUsers::One("bob".into()))]);
        assert_eq!(one.spend_class("m", Some(&ann)), SpendClass::default());
        assert!(one.needs_end_user() && !by_model.needs_end_user());
    }
}
