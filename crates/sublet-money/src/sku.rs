//! What has a price: kinds of sku, their base units, and the units in which operators price them.
//!
//! A sku's name says what it is: `tokens/output/<model>`, `tokens/flex/output/<model>`, `requests/default/<model>`,
//! `device/n2m/<device kind>`, `device/<site>/sandbox/n2m/<device kind>`, `starts/<device kind>`, `project/month`, `fee/<name>`,
//! `storage/files`, `egress/files`. The free part comes last, so that the name of a model or of a kind may contain slashes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use sublet_core::device::DeviceKind;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;
use sublet_core::{DeviceMillis, TokenCount};

pub use crate::pricing_unit::{PricingUnit, UnitPrice};

/// Longest name of a model, in bytes.
pub const NAME_MAX_BYTES: usize = 128;
/// Bytes in a GiB.
pub const GIBIBYTE: i64 = 1 << 30;
/// Hours in a month of storage, whatever the month.
pub const STORAGE_MONTH_HOURS: i64 = 730;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(try_from = "String", into = "String")]
            pub struct $name(Arc<str>);

            impl $name {
                pub fn as_str(&self) -> &str { &self.0 }
            }
            impl FromStr for $name {
                type Err = Error;
                fn from_str(text: &str) -> Result<Self> {
                    check_name(text, $what)?;
                    Ok(Self(Arc::from(text)))
                }
            }
            impl TryFrom<String> for $name {
                type Error = Error;
                fn try_from(text: String) -> Result<Self> { text.parse() }
            }
            impl From<$name> for String {
                fn from(name: $name) -> String { name.0.to_string() }
            }
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
            }
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
            }
        )+
    };
}

names! {
    /// The name under which a model is served: printable ASCII without spaces.
    ModelName, "model";
    /// What is charged once: printable ASCII without spaces.
    FeeName, "fee";
}

fn check_name(text: &str, what: &str) -> Result<()> {
    if (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let shown: String = text.chars().take(40).collect();
    Err(Error::new(
        ErrorCode::InvalidRequest,
        format!("'{shown}' is not a {what} name; use 1 to {NAME_MAX_BYTES} printable ASCII characters without spaces"),
    ))
}

/// The kinds of token that are priced apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    Input,
    CachedInput,
    Output,
}

impl TokenKind {
    pub const ALL: [Self; 3] = [Self::Input, Self::CachedInput, Self::Output];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::Output => "output",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Families of sku; income is kept apart per family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkuFamily {
    ModelTokens,
    /// Flat fees for requests of models.
    ModelRequests,
    DeviceTime,
    /// Flat fees for jobs that began to run.
    JobStarts,
    /// Flat fees by the month.
    ProjectFees,
    /// What is charged once: for a set-up, say.
    OneTimeFees,
    /// Files that are kept.
    FileStorage,
    /// Contents of files that are sent.
    FileEgress,
}

impl SkuFamily {
    pub const ALL: [Self; 8] = [
        Self::ModelTokens,
        Self::ModelRequests,
        Self::DeviceTime,
        Self::JobStarts,
        Self::ProjectFees,
        Self::OneTimeFees,
        Self::FileStorage,
        Self::FileEgress,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelTokens => "model-tokens",
            Self::ModelRequests => "model-requests",
            Self::DeviceTime => "device-time",
            Self::JobStarts => "job-starts",
            Self::ProjectFees => "project-fees",
            Self::OneTimeFees => "one-time-fees",
            Self::FileStorage => "file-storage",
            Self::FileEgress => "file-egress",
        }
    }
    /// The family whose credit pays for it: what is for tokens pays for their requests, and what is for device time for
    /// starts.
    pub const fn paid_as(self) -> Self {
        match self {
            Self::ModelTokens | Self::ModelRequests => Self::ModelTokens,
            Self::DeviceTime | Self::JobStarts => Self::DeviceTime,
            Self::ProjectFees | Self::OneTimeFees | Self::FileStorage | Self::FileEgress => self,
        }
    }
    /// The unit in which operators price all of it.
    pub const fn pricing_unit(self) -> PricingUnit {
        match self {
            Self::ModelTokens => PricingUnit::MillionTokens,
            Self::ModelRequests => PricingUnit::Request,
            Self::DeviceTime => PricingUnit::DeviceHour,
            Self::JobStarts => PricingUnit::Start,
            Self::ProjectFees => PricingUnit::ProjectMonth,
            Self::OneTimeFees => PricingUnit::Fee,
            Self::FileStorage => PricingUnit::GibibyteMonth,
            Self::FileEgress => PricingUnit::Gibibyte,
        }
    }
}

impl fmt::Display for SkuFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing with a price.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SkuName {
    /// Tokens of one kind of one model at one tier; the base unit is one token.
    Tokens { tier: ServiceTier, kind: TokenKind, model: ModelName },
    /// Requests of one model at one tier that are charged at all, besides their tokens; the base unit is one request.
    Requests { tier: ServiceTier, model: ModelName },
    /// Time on devices of one kind at one notice; the base unit is one device-millisecond. A site or a level of isolation
    /// that is not named is any ([`crate::placement`]).
    Device { notice: NoticeClass, device: DeviceKind, site: Option<SiteId>, isolation: Option<IsolationLevel> },
    /// Jobs that began to run on devices of one kind, besides their time; the base unit is one job.
    Starts { device: DeviceKind },
    /// Projects that were used in a month of their account; the base unit is one project and month.
    ProjectMonth,
    /// A fee that is charged once, by name; the base unit is one of it.
    Fee { fee: FeeName },
    /// Files of projects that are kept; the base unit is one byte for an hour.
    FileStorage,
    /// Contents of files that are sent to whoever fetches them; the base unit is one byte.
    FileEgress,
}

impl SkuName {
    pub const fn family(&self) -> SkuFamily {
        match self {
            Self::Tokens { .. } => SkuFamily::ModelTokens,
            Self::Requests { .. } => SkuFamily::ModelRequests,
            Self::Device { .. } => SkuFamily::DeviceTime,
            Self::Starts { .. } => SkuFamily::JobStarts,
            Self::ProjectMonth => SkuFamily::ProjectFees,
            Self::Fee { .. } => SkuFamily::OneTimeFees,
            Self::FileStorage => SkuFamily::FileStorage,
            Self::FileEgress => SkuFamily::FileEgress,
        }
    }
    /// The unit in which operators price this.
    pub const fn pricing_unit(&self) -> PricingUnit {
        self.family().pricing_unit()
    }
    /// Whether a list that has no price for it charges nothing for it, instead of not selling it.
    pub const fn is_free_without_price(&self) -> bool {
        match self {
            Self::Requests { .. } | Self::Starts { .. } | Self::ProjectMonth | Self::FileStorage | Self::FileEgress => true,
            Self::Tokens { .. } | Self::Device { .. } | Self::Fee { .. } => false,
        }
    }
    /// What it is, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Tokens { tier: ServiceTier::Default, kind, model } => {
                format!("{model}, {} tokens", kind.as_str().replace('_', " "))
            }
            Self::Tokens { tier, kind, model } => format!("{model}, {} tokens, {tier}", kind.as_str().replace('_', " ")),
            Self::Requests { tier: ServiceTier::Default, model } => format!("{model}, requests"),
            Self::Requests { tier, model } => format!("{model}, requests, {tier}"),
            Self::Device { notice, device, site, isolation } => {
                let site = site.as_ref().map_or_else(String::new, |site| format!(", at {site}"));
                let isolation = isolation.map_or_else(String::new, |level| format!(", isolation {}", level.as_str()));
                format!("{device}, notice {notice}{site}{isolation}")
            }
            Self::Starts { device } => format!("{device}, jobs started"),
            Self::ProjectMonth => "project, by the month".to_owned(),
            Self::Fee { fee } => format!("fee: {fee}"),
            Self::FileStorage => "files, kept".to_owned(),
            Self::FileEgress => "files, sent".to_owned(),
        }
    }
}

impl fmt::Display for SkuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens { tier: ServiceTier::Default, kind, model } => write!(f, "tokens/{kind}/{model}"),
            Self::Tokens { tier, kind, model } => write!(f, "tokens/{tier}/{kind}/{model}"),
            Self::Requests { tier, model } => write!(f, "requests/{tier}/{model}"),
            Self::Device { notice, device, site, isolation } => {
                f.write_str("device/")?;
                if let Some(site) = site {
                    write!(f, "{site}/")?;
                }
                if let Some(level) = isolation {
                    write!(f, "{}/", level.as_str())?;
                }
                write!(f, "{notice}/{device}")
            }
            Self::Starts { device } => write!(f, "starts/{device}"),
            Self::ProjectMonth => f.write_str("project/month"),
            Self::Fee { fee } => write!(f, "fee/{fee}"),
            Self::FileStorage => f.write_str("storage/files"),
            Self::FileEgress => f.write_str("egress/files"),
        }
    }
}

impl fmt::Debug for SkuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for SkuName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some(("tokens", rest)) => parse_tokens(rest).ok_or_else(|| unknown_sku(text))?,
            Some(("requests", rest)) => parse_requests(rest).ok_or_else(|| unknown_sku(text))?,
            Some(("device", rest)) => parse_device(rest).ok_or_else(|| unknown_sku(text))?,
            Some(("starts", kind)) => Ok(Self::Starts { device: kind.parse()? }),
            Some(("project", "month")) => Ok(Self::ProjectMonth),
            Some(("fee", name)) => Ok(Self::Fee { fee: name.parse()? }),
            Some(("storage", "files")) => Ok(Self::FileStorage),
            Some(("egress", "files")) => Ok(Self::FileEgress),
            _ => Err(unknown_sku(text)),
        }
    }
}

/// `KIND/MODEL`, or `TIER/KIND/MODEL` for a tier that is not the default. `None` names no kind.
fn parse_tokens(text: &str) -> Option<Result<SkuName>> {
    let (first, rest) = text.split_once('/')?;
    let named = ServiceTier::ALL.into_iter().find(|tier| !tier.is_default() && tier.as_str() == first);
    let (kind, model) = if named.is_some() { rest.split_once('/')? } else { (first, rest) };
    let kind = TokenKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some(model.parse().map(|model| SkuName::Tokens { tier: named.unwrap_or_default(), kind, model }))
}

/// `NOTICE/KIND`, after `SITE/`, `ISOLATION/` or both in this order. What comes before the notice is no notice, and so no
/// part of a kind's name. `None` names no kind.
fn parse_device(text: &str) -> Option<Result<SkuName>> {
    let (mut first, mut rest) = text.split_once('/')?;
    let mut site = None;
    if first.starts_with("site_") {
        site = match first.parse::<SiteId>() {
            Ok(named) => Some(named),
            Err(error) => return Some(Err(error)),
        };
        (first, rest) = rest.split_once('/')?;
    }
    let isolation = IsolationLevel::ALL.into_iter().find(|level| level.as_str() == first);
    if isolation.is_some() {
        (first, rest) = rest.split_once('/')?;
    }
    let device = |notice| Ok(SkuName::Device { notice, device: rest.parse()?, site, isolation });
    Some(first.parse().and_then(device))
}

/// `TIER/MODEL`: the tier is always named, since a model may be called like one. `None` names no tier.
fn parse_requests(text: &str) -> Option<Result<SkuName>> {
    let (tier, model) = text.split_once('/')?;
    let tier = ServiceTier::ALL.into_iter().find(|known| known.as_str() == tier)?;
    Some(model.parse().map(|model| SkuName::Requests { tier, model }))
}

fn unknown_sku(text: &str) -> Error {
    let shown: String = text.chars().take(60).collect();
    Error::new(ErrorCode::InvalidPrice, format!("'{shown}' names nothing that can be priced"))
        .alternative("write tokens/input/MODEL, tokens/cached_input/MODEL, tokens/output/MODEL or device/NOTICE/KIND")
        .alternative("put SITE/, ISOLATION/ or both after device/ for a price of its own, as in device/site_local/sandbox/n2m/KIND")
        .alternative("put flex/ or priority/ after tokens/ for another tier, as in tokens/flex/output/MODEL")
        .alternative("write requests/TIER/MODEL for a flat price of each request, as in requests/default/MODEL")
        .alternative("write starts/KIND for a flat price of each job that begins to run on devices of a kind")
        .alternative(
            "write project/month for a flat price of each project that was used in a month, fee/NAME for what is charged once",
        )
        .alternative("write storage/files for files that are kept, egress/files for contents of files that are sent")
}

impl TryFrom<String> for SkuName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<SkuName> for String {
    fn from(sku: SkuName) -> Self {
        sku.to_string()
    }
}

/// An amount of a sku in its base unit: tokens, requests, device-milliseconds, starts, months of projects, fees, byte-hours, or
/// bytes. Never negative.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug, Serialize)]
#[serde(transparent)]
pub struct Quantity(i64);

impl Quantity {
    pub const ZERO: Self = Self(0);

    pub fn new(base_units: i64) -> Result<Self> {
        if base_units < 0 {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("a quantity cannot be negative, and {base_units} is")));
        }
        Ok(Self(base_units))
    }
    pub const fn get(self) -> i64 {
        self.0
    }
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    pub fn checked_add(self, other: Self) -> Result<Self> {
        self.0.checked_add(other.0).map(Self).ok_or_else(out_of_range)
    }
    /// What is left after taking `other` away; an error if that is more.
    pub fn checked_sub(self, other: Self) -> Result<Self> {
        Self::new(self.0.saturating_sub(other.0))
    }
    /// After a change; an error if more is taken away than there is.
    pub fn changed_by(self, change: QuantityChange) -> Result<Self> {
        let changed = self.0.checked_add(change.0).ok_or_else(out_of_range)?;
        if changed < 0 {
            let message = format!("{} are to be taken off a line that has {self}", change.0.unsigned_abs());
            return Err(Error::new(ErrorCode::LedgerMismatch, message));
        }
        Ok(Self(changed))
    }
    /// What changed since a quantity was `before`.
    pub const fn since(self, before: Self) -> QuantityChange {
        // Neither is below zero, so their difference is in range.
        QuantityChange(self.0 - before.0)
    }
}

fn out_of_range() -> Error {
    Error::new(ErrorCode::AmountOverflow, "a quantity left the range of 64-bit integers")
}

/// What is added to a quantity, or taken off it: use is metered, and use that is rated anew leaves the line it was on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuantityChange(i64);

impl QuantityChange {
    pub const ZERO: Self = Self(0);

    pub const fn new(base_units: i64) -> Self {
        Self(base_units)
    }
    pub const fn get(self) -> i64 {
        self.0
    }
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
    pub fn checked_add(self, other: Self) -> Result<Self> {
        self.0.checked_add(other.0).map(Self).ok_or_else(out_of_range)
    }
    pub fn checked_neg(self) -> Result<Self> {
        self.0.checked_neg().map(Self).ok_or_else(out_of_range)
    }
}

impl From<Quantity> for QuantityChange {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.0)
    }
}
impl fmt::Display for QuantityChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::new(i64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
impl TryFrom<TokenCount> for Quantity {
    type Error = Error;
    fn try_from(tokens: TokenCount) -> Result<Self> {
        Self::new(tokens.get())
    }
}
impl TryFrom<DeviceMillis> for Quantity {
    type Error = Error;
    fn try_from(time: DeviceMillis) -> Result<Self> {
        Self::new(time.get())
    }
}
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
#[path = "sku_tests.rs"]
mod tests;
