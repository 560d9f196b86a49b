//! Suppliers outside: what their answers cost, what they do with data, and when they may be asked.
//!
//! Invariants: without a cost in force nobody is asked, and an unknown cost is never zero; what an
//! organization did not permit, and what does not earn what the operator demands, is not sold.
//!
//! Deliberately absent: who of those that may be asked is asked, which the gateway decides.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::{TokenPrices, TokenRates, TokenUsage};
use crate::card;
use crate::error::{Error, ErrorCode, Result};
use crate::id::{OrganizationId, ReplicaId};
use crate::money::{Currency, Rate};
use crate::time::Timestamp;
use crate::usage::Measured;

/// Versions of the cost of one replica, at most: all of them are in the memory of every gateway.
pub const COST_VERSIONS_MAX: usize = 1_000;
/// Regions that an organization can name.
pub const REGIONS_MAX: usize = 32;
/// Longest name of a region, in bytes.
const REGION_BYTES_MAX: usize = 32;
/// Longest time that a supplier can say it keeps data for.
const RETENTION_DAYS_MAX: u16 = 3_650;
const PER_MILLE: i128 = 1_000;

/// On which terms a supplier's replica is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SupplierTerms {
    /// Who is owed for its answers: an organization of the class `supplier`.
    pub supplier: OrganizationId,
    #[serde(default)]
    pub data: SupplierPolicy,
    /// Least part of the selling price that has to stay with us, for each kind of token.
    #[serde(default)]
    pub margin_min: PerMille,
}

/// A share in thousandths, from 0 to 1000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PerMille(u16);

impl PerMille {
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for PerMille {
    type Error = Error;
    fn try_from(share: u16) -> Result<Self> {
        if share <= 1_000 {
            return Ok(Self(share));
        }
        Err(Error::new(ErrorCode::InvalidRequest, "a share is 0 to 1000 thousandths"))
    }
}
impl From<PerMille> for u16 {
    fn from(share: PerMille) -> Self {
        share.0
    }
}

/// What a supplier says that it does with prompts and answers. What nobody said is taken as the worst.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SupplierPolicy {
    pub retention: Retention,
    /// It may train models on them.
    pub used_for_training: bool,
    /// Where they are processed; unknown if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

impl Default for SupplierPolicy {
    fn default() -> Self {
        Self { retention: Retention::Unknown, used_for_training: true, region: None }
    }
}

impl SupplierPolicy {
    /// Whether this keeps what a model's card promises of its data. A retention is kept by who keeps nothing, and by
    /// who says it in the same words.
    pub fn keeps(&self, promised: &card::DataPolicy) -> bool {
        let says_otherwise = |words: &String| self.retention != Retention::None && *words != self.retention.to_string();
        let retains = promised.retention.as_ref().is_some_and(says_otherwise);
        let trains = promised.used_for_training == Some(false) && self.used_for_training;
        let is_here = |place: &String| self.region.as_ref().is_some_and(|region| place.eq_ignore_ascii_case(region.as_str()));
        !retains && !trains && (promised.served_in.is_empty() || promised.served_in.iter().any(is_here))
    }

    /// The narrowest permission under which this may be used.
    pub fn needs(&self) -> ExternalSupply {
        if self.retention == Retention::None && !self.used_for_training { ExternalSupply::NoRetention } else { ExternalSupply::Any }
    }
}

/// How long a supplier keeps prompts and answers: `none`, `unknown`, or days as `30d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Retention {
    None,
    Days(u16),
    Unknown,
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Days(days) => write!(f, "{days}d"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl FromStr for Retention {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let days = || {
            let days = text.strip_suffix('d')?.parse().ok().filter(|days| (1..=RETENTION_DAYS_MAX).contains(days));
            // One way to write it.
            days.map(Self::Days).filter(|retention| retention.to_string() == text)
        };
        match text {
            "none" => Ok(Self::None),
            "unknown" => Ok(Self::Unknown),
            _ => days().ok_or_else(|| {
                Error::new(ErrorCode::InvalidRequest, "a retention is none, unknown, or a number of days such as 30d")
                    .param("retention")
            }),
        }
    }
}

impl TryFrom<String> for Retention {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Retention> for String {
    fn from(retention: Retention) -> Self {
        retention.to_string()
    }
}

/// A place by its short name, such as `eu` or `us-east`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(Arc<str>);

impl Region {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=REGION_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(Arc::from(text)));
        }
        Err(Error::new(
            ErrorCode::InvalidRequest,
            format!("a region has 1 to {REGION_BYTES_MAX} lower-case letters, digits and dashes"),
        )
        .param("region"))
    }
}

impl TryFrom<String> for Region {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.0.to_string()
    }
}

/// What an organization permits to be done with its prompts and answers. Nothing, unless it says so.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DataConsent {
    #[serde(default)]
    pub external: ExternalSupply,
    /// Where suppliers may process them; empty is everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
}

impl DataConsent {
    pub fn permits(&self, data: &SupplierPolicy) -> bool {
        let somewhere = self.regions.is_empty() || data.region.as_ref().is_some_and(|region| self.regions.contains(region));
        data.needs() <= self.external && somewhere
    }
}

/// Which suppliers may see an organization's data, the narrowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalSupply {
    /// Only the owner's own machines.
    #[default]
    None,
    /// Those that keep nothing and train on nothing.
    NoRetention,
    Any,
}

impl ExternalSupply {
    pub const ALL: [Self; 3] = [Self::None, Self::NoRetention, Self::Any];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoRetention => "no_retention",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for ExternalSupply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Content hash of one version of a replica's cost, as lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CostVersion(pub Arc<str>);

/// What a replica's answers cost from an instant on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CostPrice {
    pub version: CostVersion,
    pub currency: Currency,
    pub effective_at: Timestamp,
    pub rates: TokenRates,
}

/// The cost in force at an instant, of versions in the order of their instants.
pub fn cost_at(costs: &[CostPrice], at: Timestamp) -> Option<&CostPrice> {
    let after = costs.partition_point(|cost| cost.effective_at <= at);
    after.checked_sub(1).and_then(|index| costs.get(index))
}

/// A kind of token, as a margin is reckoned for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenMeter {
    Input,
    CachedInput,
    Output,
}

impl TokenMeter {
    pub const ALL: [Self; 3] = [Self::Input, Self::CachedInput, Self::Output];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::Output => "output",
        }
    }
    pub const fn rate_of(self, rates: &TokenRates) -> Rate {
        match self {
            Self::Input => rates.input,
            Self::CachedInput => rates.cached_input,
            Self::Output => rates.output,
        }
    }
}

/// Why a supplier's replica is not sold at a price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Objection {
    /// It has no terms, or no cost is in force.
    NoCost,
    /// Its cost is in this currency and the price in another.
    Currency(Currency),
    /// It does with data what the model's card says is not done.
    Promise,
    /// Of this kind of token, less than the least margin would stay.
    Margin(TokenMeter),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCost => f.write_str("no cost is in force"),
            Self::Currency(currency) => write!(f, "its cost is in {currency}, which is not the currency of the price"),
            Self::Promise => f.write_str("the model's card promises more of its data"),
            Self::Margin(meter) => write!(f, "the margin of {} tokens is below the least", meter.as_str()),
        }
    }
}

/// Whether a cost leaves the least margin of a price, for each kind of token. Where a price falls with the
/// quantity, the lowest it can fall to counts.
pub fn check_margin(cost: &CostPrice, prices: &TokenPrices, least: PerMille) -> Result<(), Objection> {
    if cost.currency != prices.currency {
        return Err(Objection::Currency(cost.currency));
    }
    let earns = |meter: &TokenMeter| {
        let (price, cost) = (meter.rate_of(&prices.least), meter.rate_of(&cost.rates));
        // cost <= price × (1000 - least) / 1000 without a division. Each side is below 2^63 × 2^63; times 1000 it
        // may leave 128 bits only for prices beyond all sense, which are then refused.
        let owed = product(cost.nanos().get(), price.per()).checked_mul(PER_MILLE);
        let left = product(price.nanos().get(), cost.per()).checked_mul(PER_MILLE - i128::from(least.get()));
        matches!((owed, left), (Some(owed), Some(left)) if owed <= left)
    };
    match TokenMeter::ALL.iter().find(|meter| !earns(meter)) {
        None => Ok(()),
        Some(meter) => Err(Objection::Margin(*meter)),
    }
}

/// What stays of a price, in thousandths of it, rounded down: negative for a loss. `None` where nothing is asked for
/// what costs something, or a number is beyond all sense.
pub fn margin_per_mille(cost: Rate, price: Rate) -> Option<i64> {
    let (owed, earned) = (product(cost.nanos().get(), price.per()), product(price.nanos().get(), cost.per()));
    if earned == 0 {
        return (owed == 0).then_some(0);
    }
    i64::try_from((earned - owed).checked_mul(PER_MILLE)?.div_euclid(earned)).ok()
}

fn product(one: i64, other: i64) -> i128 {
    i128::from(one) * i128::from(other)
}

/// What one supplier's replica did for a request, and is owed for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purchase {
    pub replica: ReplicaId,
    /// The cost in force when it was asked.
    pub cost: CostVersion,
    pub tokens: TokenUsage,
    pub measured: Measured,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admission::PriceVersion;
    use crate::money::Nanos;
    use crate::tier::ServiceTier;

    fn rate(nanos: i64, per: i64) -> Rate {
        Rate::new(Nanos::new(nanos), per).unwrap()
    }

    fn cost(at: i64, rates: [Rate; 3]) -> CostPrice {
        let [input, cached_input, output] = rates;
        CostPrice {
            version: CostVersion(at.to_string().into()),
            currency: Currency::EUR,
            effective_at: Timestamp::from_seconds(at),
            rates: TokenRates { input, cached_input, output },
        }
    }

    fn prices(rates: [Rate; 3]) -> TokenPrices {
        let [input, cached_input, output] = rates;
        let version = PriceVersion("v".into());
        let least = TokenRates { input, cached_input, output };
        TokenPrices {
            tier: ServiceTier::Default,
            version,
            currency: Currency::EUR,
            request: Nanos::ZERO,
            input,
            cached_input,
            output,
            least,
        }
    }

    #[test]
    fn what_is_permitted_is_what_was_said() {
        let eu: Region = "eu".parse().unwrap();
        let keeps = |retention: &str, used_for_training: bool, region: Option<&Region>| SupplierPolicy {
            retention: retention.parse().unwrap(),
            used_for_training,
            region: region.cloned(),
        };
        let consent = |external, regions: &[&Region]| DataConsent { external, regions: regions.iter().copied().cloned().collect() };
        for (consent, data, permitted) in [
            (DataConsent::default(), keeps("none", false, Some(&eu)), false),
            (consent(ExternalSupply::NoRetention, &[]), keeps("none", false, None), true),
            (consent(ExternalSupply::NoRetention, &[]), keeps("none", true, None), false),
            (consent(ExternalSupply::NoRetention, &[]), keeps("1d", false, None), false),
            (consent(ExternalSupply::NoRetention, &[]), keeps("unknown", false, None), false),
            (consent(ExternalSupply::NoRetention, &[]), SupplierPolicy::default(), false),
            (consent(ExternalSupply::Any, &[]), SupplierPolicy::default(), true),
            (consent(ExternalSupply::Any, &[&eu]), SupplierPolicy::default(), false),
            (consent(ExternalSupply::Any, &[&eu]), keeps("30d", true, Some(&eu)), true),
        ] {
            assert_eq!(consent.permits(&data), permitted, "{consent:?} {data:?}");
        }
    }

    #[test]
    fn what_a_card_promises_is_kept() {
        let data = |text: &str| serde_json::from_str::<SupplierPolicy>(text).unwrap();
        let careful = data(r#"{"retention":"none","used_for_training":false,"region":"de"}"#);
        let careless = SupplierPolicy::default();
        for (retention, used_for_training, served_in, kept) in [
            (None, None, vec![], [true, true]),
            (Some("30 days"), None, vec![], [true, false]),
            (Some("unknown"), None, vec![], [true, true]),
            (Some("none"), None, vec![], [true, false]),
            (None, Some(false), vec![], [true, false]),
            (None, Some(true), vec![], [true, true]),
            (None, None, vec!["FR", "DE"], [true, false]),
            (None, None, vec!["FR"], [false, false]),
        ] {
            let served_in = served_in.into_iter().map(str::to_owned).collect();
            let promised = card::DataPolicy { retention: retention.map(str::to_owned), used_for_training, served_in };
            assert_eq!([careful.keeps(&promised), careless.keeps(&promised)], kept, "{promised:?}");
        }
    }

    #[test]
    fn retentions_and_regions_are_read_and_written() {
        for text in ["none", "unknown", "1d", "3650d"] {
            assert_eq!(text.parse::<Retention>().map(|retention| retention.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0d", "3651d", "d", "30", "forever", "-1d", "030d", "+3d"] {
            assert!(text.parse::<Retention>().is_err(), "{text}");
        }
        for (text, good) in
            [("eu", true), ("us-east-1", true), ("", false), ("EU", false), ("e u", false), (&"x".repeat(33), false)]
        {
            assert_eq!(text.parse::<Region>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn the_cost_in_force_is_the_last_that_has_begun() {
        let costs = [cost(10, [Rate::FREE; 3]), cost(20, [Rate::FREE; 3])];
        let found = |at| cost_at(&costs, Timestamp::from_seconds(at)).map(|cost| cost.version.0.to_string());
        assert_eq!([found(9), found(10), found(19), found(20)], [None, Some("10".into()), Some("10".into()), Some("20".into())]);
    }

    #[test]
    fn each_kind_of_token_has_to_earn_its_margin() {
        let share = |share: u16| PerMille::try_from(share).unwrap();
        let asked = prices([rate(100, 1_000_000), rate(50, 1_000_000), rate(400, 1_000_000)]);
        let of = |input: i64, cached: i64, output: i64| {
            cost(0, [rate(input, 1_000_000), rate(cached, 1_000_000), rate(output, 1_000_000)])
        };
        for (cost, least, objection) in [
            (of(100, 50, 400), 0, None),
            (of(101, 50, 400), 0, Some(Objection::Margin(TokenMeter::Input))),
            (of(1, 51, 1), 0, Some(Objection::Margin(TokenMeter::CachedInput))),
            (of(90, 45, 360), 100, None),
            (of(90, 45, 361), 100, Some(Objection::Margin(TokenMeter::Output))),
            (of(0, 0, 0), 1_000, None),
            (of(0, 0, 1), 1_000, Some(Objection::Margin(TokenMeter::Output))),
        ] {
            assert_eq!(check_margin(&cost, &asked, share(least)).err(), objection, "{cost:?} {least}");
        }
        let foreign = CostPrice { currency: "USD".parse().unwrap(), ..of(0, 0, 0) };
        assert!(matches!(check_margin(&foreign, &asked, share(0)), Err(Objection::Currency(_))));
        assert!(PerMille::try_from(1_001).is_err());
    }

    proptest! {
        #[test]
        fn a_margin_that_is_kept_is_never_a_loss(cost_nanos in 0_i64..i64::MAX, cost_per in 1_i64..i64::MAX, nanos in 0_i64..i64::MAX, per in 1_i64..i64::MAX, least in 0_u16..=1_000) {
            let (owed, asked) = (rate(cost_nanos, cost_per), rate(nanos, per));
            let kept = check_margin(&cost(0, [owed; 3]), &prices([asked; 3]), PerMille::try_from(least).unwrap()).is_ok();
            if kept {
                prop_assert!(product(cost_nanos, per) <= product(nanos, cost_per));
                prop_assert!(margin_per_mille(owed, asked).is_none_or(|margin| margin >= i64::from(least) || nanos == 0));
            }
        }
    }
}
