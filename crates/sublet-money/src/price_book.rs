//! The price book: immutable, content-hashed versions of a price list, each from an instant on.
//!
//! A version's name is the SHA-256 of its canonical JSON ([`crate::canonical`]), so a charge that
//! names a version names its prices for ever, and a customer can recompute it. A version is never
//! changed; a later one replaces it from its `effective_at` on, and the past keeps its prices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sublet_core::admission::{PriceVersion, TokenPrices, TokenRates};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::PriceListId;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Nanos, Rate, Timestamp};

use crate::canonical::{canonical_json, sha256_hex};
use crate::placement::check_unambiguous;
pub use crate::price_entry::{BandPrice, PriceEntry, PriceOverTime, PriceStretch};
use crate::price_index::IndexName;
use crate::sku::{DeviceKind, ModelName, Quantity, SkuName, TokenKind};
use crate::time_of_use::TimeOfUse;

/// Most prices in one version.
pub const ENTRIES_MAX: usize = 20_000;
/// Most prices in one version of a contract's list: it may name places of what a public list prices.
pub const CONTRACT_ENTRIES_MAX: usize = 4 * ENTRIES_MAX;
/// Most versions of one list that are held in memory at once.
pub const VERSIONS_MAX: usize = 10_000;
/// Longest canonical text of a version, in bytes.
pub const CANONICAL_MAX_BYTES: usize = 16 << 20;
/// Names the meaning of the canonical form; a change of meaning is a new name.
const SCHEMA: &str = "sublet-price-list/1";
/// Latest and earliest `effective_at` in microseconds: what every reader of JSON keeps exactly (2⁵³).
const EFFECTIVE_AT_MAX_MICROS: i64 = 1 << 53;

/// The content of a version before it is checked and hashed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PriceListDraft {
    pub list: PriceListId,
    pub currency: Currency,
    /// In force from this instant on.
    pub effective_at: Timestamp,
    pub entries: Vec<PriceEntry>,
}

/// What a contract's own version was made from ([`crate::contract_price`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSource {
    /// The version of the public list.
    pub list: PriceVersion,
    /// The version that public prices are not above, while that is agreed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protected: Option<PriceVersion>,
    /// The SHA-256 of the contract's terms.
    pub terms: String,
}

/// The canonical form. Its members are the public, documented content of the hash.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canonical {
    schema: String,
    list: PriceListId,
    currency: Currency,
    effective_at_micros: i64,
    entries: Vec<PriceEntry>,
    /// Of a contract's own list only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    source: Option<PriceSource>,
}

/// An immutable version of a price list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceListVersion {
    version: PriceVersion,
    list: PriceListId,
    currency: Currency,
    effective_at: Timestamp,
    entries: BTreeMap<SkuName, PriceEntry>,
    /// The names that say a place, by the name without it.
    placed: BTreeMap<SkuName, Vec<SkuName>>,
    source: Option<PriceSource>,
    canonical: Arc<str>,
}

impl PriceListVersion {
    /// Checks, orders and hashes. Two drafts with the same prices in any order are one version.
    pub fn new(draft: PriceListDraft) -> Result<Self> {
        Self::build(draft, None)
    }

    /// As [`Self::new`], of a contract's own list.
    pub fn of_contract(draft: PriceListDraft, source: PriceSource) -> Result<Self> {
        Self::build(draft, Some(source))
    }

    fn build(draft: PriceListDraft, source: Option<PriceSource>) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let (what, most) =
            if source.is_some() { ("price list by contract", CONTRACT_ENTRIES_MAX) } else { ("price list", ENTRIES_MAX) };
        if draft.entries.is_empty() || draft.entries.len() > most {
            return Err(invalid(format!("a {what} has 1 to {most} prices, not {}", draft.entries.len())));
        }
        if !(-EFFECTIVE_AT_MAX_MICROS..=EFFECTIVE_AT_MAX_MICROS).contains(&draft.effective_at.micros()) {
            return Err(invalid(format!("{} is outside the years that prices are kept for", draft.effective_at)));
        }
        for mut entry in draft.entries {
            entry.validate()?;
            entry.time_of_use = entry.time_of_use.map(TimeOfUse::in_order);
            let sku = entry.sku.clone();
            if entries.insert(sku.clone(), entry).is_some() {
                return Err(invalid(format!("{sku} is priced twice")));
            }
        }
        check_models_are_whole(&entries)?;
        check_unambiguous(entries.keys())?;
        let mut placed: BTreeMap<SkuName, Vec<SkuName>> = BTreeMap::new();
        for name in entries.keys().filter(|name| name.exactness() > 0) {
            placed.entry(name.general()).or_default().push(name.clone());
        }
        // By the sku's text, so that every language sorts alike.
        let mut sorted: Vec<PriceEntry> = entries.values().cloned().collect();
        sorted.sort_by_cached_key(|entry| entry.sku.to_string());
        let canonical = canonical_json(&Canonical {
            schema: SCHEMA.to_owned(),
            list: draft.list.clone(),
            currency: draft.currency,
            effective_at_micros: draft.effective_at.micros(),
            entries: sorted,
            source: source.clone(),
        })?;
        Ok(Self {
            version: PriceVersion(sha256_hex(&canonical).into()),
            list: draft.list,
            currency: draft.currency,
            effective_at: draft.effective_at,
            entries,
            placed,
            source,
            canonical: canonical.into(),
        })
    }

    /// Reads a stored version back and proves that it is the one named.
    pub fn from_canonical(text: &str, expected: &PriceVersion) -> Result<Self> {
        let found = sha256_hex(text);
        if *found != *expected.0 {
            return Err(Error::new(ErrorCode::LedgerMismatch, "a stored price list is not the one that its hash names")
                .context(format!("expected {}, found {found}", expected.0)));
        }
        let (draft, source) = read_canonical(text)?;
        Self::build(draft, source)
    }

    pub fn version(&self) -> &PriceVersion {
        &self.version
    }
    pub fn list(&self) -> &PriceListId {
        &self.list
    }
    pub fn currency(&self) -> Currency {
        self.currency
    }
    pub fn effective_at(&self) -> Timestamp {
        self.effective_at
    }
    /// What it was made from, if it is a contract's own.
    pub const fn source(&self) -> Option<&PriceSource> {
        self.source.as_ref()
    }
    /// The text that is hashed, stored and published.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
    /// All prices, by sku.
    pub fn entries(&self) -> impl Iterator<Item = &PriceEntry> {
        self.entries.values()
    }
    pub fn find(&self, sku: &SkuName) -> Option<&PriceEntry> {
        self.entries.get(sku)
    }
    /// The price of what is used: of device time, the one that says most of its place ([`crate::placement`]).
    pub fn resolve(&self, used: &SkuName) -> Option<&PriceEntry> {
        used.covering().iter().find_map(|name| self.find(name))
    }
    /// As [`Self::resolve`]. A missing price is an error, never zero.
    pub fn get_resolved(&self, used: &SkuName) -> Result<&PriceEntry> {
        self.resolve(used).map_or_else(|| self.get(used), Ok)
    }
    /// Whether any of it has a price.
    pub fn sells(&self, name: &SkuName) -> bool {
        self.resolve(name).is_some() || self.placed_of(name).any(|placed| name.covers(placed))
    }
    /// Whether it matters where something was used, and how it was kept apart.
    pub fn depends_on_placement(&self, name: &SkuName) -> bool {
        self.placed_of(name).any(|placed| name.common(placed).is_some_and(|common| common != *name))
    }
    /// The names of the same device time that say a place.
    fn placed_of(&self, name: &SkuName) -> impl Iterator<Item = &SkuName> {
        let general = (!self.placed.is_empty() && matches!(name, SkuName::Device { .. })).then(|| name.general());
        general.and_then(|general| self.placed.get(&general)).into_iter().flatten()
    }
    /// The indexes that prices of it follow.
    pub fn indexes(&self) -> BTreeSet<&IndexName> {
        self.entries.values().filter_map(|entry| entry.market.as_ref()).map(|market| &market.index).collect()
    }
    /// A missing price is an error, never zero.
    pub fn get(&self, sku: &SkuName) -> Result<&PriceEntry> {
        self.find(sku).ok_or_else(|| {
            Error::new(ErrorCode::UnknownPrice, format!("{sku} has no price in the list in force"))
                .context(format!("price list version {}", self.version.0))
        })
    }
    /// Prices of a model at a tier for what is admitted at an instant. Where prices fall or rise with the quantity
    /// it is the dearest, since a hold must cover it.
    pub fn token_prices(&self, model: &ModelName, tier: ServiceTier, at: Timestamp) -> Result<TokenPrices> {
        self.check_offered(model, tier)?;
        let rates = |kind| self.dearest_and_least(&SkuName::Tokens { tier, kind, model: model.clone() }, at);
        let (input, least_input) = rates(TokenKind::Input)?;
        let (cached_input, least_cached_input) = rates(TokenKind::CachedInput)?;
        let (output, least_output) = rates(TokenKind::Output)?;
        let least = TokenRates { input: least_input, cached_input: least_cached_input, output: least_output };
        let (version, currency, request) = (self.version.clone(), self.currency, self.request_price(model, tier)?);
        Ok(TokenPrices { tier, version, currency, request, input, cached_input, output, least })
    }
    /// The most that a request of a model at a tier costs besides its tokens. A list without such a price charges
    /// nothing for it: what is used is tokens, and their prices must be known.
    fn request_price(&self, model: &ModelName, tier: ServiceTier) -> Result<Nanos> {
        let entry = self.find(&SkuName::Requests { tier, model: model.clone() });
        entry.map_or(Ok(Nanos::ZERO), |entry| entry.model.dearest_from(Quantity::ZERO))
    }
    /// The least and the most that a model's tokens can cost at a tier in the course of a week.
    pub fn token_price_range(&self, model: &ModelName, tier: ServiceTier, at: Timestamp) -> Result<[TokenPrices; 2]> {
        let prices = self.token_prices(model, tier, at)?;
        let rates = |kind| -> Result<[Rate; 2]> {
            let entry = self.get(&SkuName::Tokens { tier, kind, model: model.clone() })?;
            let least = entry.prices().flat_map(|price| price.model().prices()).min().unwrap_or(Nanos::ZERO);
            let most = entry.prices().flat_map(|price| price.model().prices()).max().unwrap_or(Nanos::ZERO);
            Ok([Rate::new(least, entry.unit.base_units())?, Rate::new(most, entry.unit.base_units())?])
        };
        let (input, cached, output) = (rates(TokenKind::Input)?, rates(TokenKind::CachedInput)?, rates(TokenKind::Output)?);
        let requests = self.find(&SkuName::Requests { tier, model: model.clone() });
        let least_request = requests.and_then(|entry| entry.model.prices().into_iter().min()).unwrap_or(Nanos::ZERO);
        let request = [least_request, prices.request];
        Ok([0, 1].map(|end: usize| TokenPrices {
            request: request[end],
            input: input[end],
            cached_input: cached[end],
            output: output[end],
            ..prices.clone()
        }))
    }
    /// The tiers at which a model is sold.
    pub fn tiers(&self, model: &ModelName) -> impl Iterator<Item = ServiceTier> {
        let priced = |tier| self.find(&SkuName::Tokens { tier, kind: TokenKind::Output, model: model.clone() }).is_some();
        ServiceTier::ALL.into_iter().filter(move |tier| priced(*tier))
    }
    /// A tier without a price is not sold. It is never replaced by another one in silence.
    fn check_offered(&self, model: &ModelName, tier: ServiceTier) -> Result<()> {
        let mut tiers = self.tiers(model).peekable();
        if tiers.peek().is_none() || self.tiers(model).any(|offered| offered == tier) {
            return Ok(());
        }
        let error =
            Error::new(ErrorCode::PolicyRefused, format!("'{model}' is not sold at the tier '{tier}'")).param("service_tier");
        Err(tiers.fold(error, |error, offered| error.alternative(offered.as_str())))
    }
    fn dearest_and_least(&self, sku: &SkuName, at: Timestamp) -> Result<(Rate, Rate)> {
        let price = self.get(sku)?.price_at(at)?;
        let least = price.model().prices().into_iter().min().unwrap_or(Nanos::ZERO);
        let rate = |amount| Rate::new(amount, price.unit.base_units());
        Ok((rate(price.model().dearest_from(Quantity::ZERO)?)?, rate(least)?))
    }
    /// Whether time on devices of a kind has a price, at some notice and place.
    pub fn sells_time_on(&self, kind: &DeviceKind) -> bool {
        self.entries.keys().any(|sku| matches!(sku, SkuName::Device { device, .. } if device == kind))
    }
    /// The most that a job on devices of a kind costs for being started; `None` if nothing is asked for that.
    pub fn start_price(&self, kind: &DeviceKind) -> Result<Option<Nanos>> {
        let entry = self.find(&SkuName::Starts { device: kind.clone() });
        entry.map(|entry| entry.model.dearest_from(Quantity::ZERO)).transpose()
    }
    /// The models that can be sold: those with a price for every kind of token.
    pub fn models(&self) -> BTreeSet<&ModelName> {
        self.entries.keys().filter_map(|sku| if let SkuName::Tokens { model, .. } = sku { Some(model) } else { None }).collect()
    }
}

/// Reads the canonical form, for example of a published price book.
pub fn parse_canonical(text: &str) -> Result<PriceListDraft> {
    read_canonical(text).map(|(draft, _)| draft)
}

fn read_canonical(text: &str) -> Result<(PriceListDraft, Option<PriceSource>)> {
    if text.len() > CANONICAL_MAX_BYTES {
        return Err(invalid(format!("a price list has at most {CANONICAL_MAX_BYTES} bytes")));
    }
    let read: Canonical = serde_json::from_str(text).map_err(|cause| invalid(format!("this is not a price list: {cause}")))?;
    if read.schema != SCHEMA {
        return Err(invalid(format!("a price list says \"schema\":\"{SCHEMA}\"")));
    }
    let draft = PriceListDraft {
        list: read.list,
        currency: read.currency,
        effective_at: Timestamp::from_micros(read.effective_at_micros),
        entries: read.entries,
    };
    Ok((draft, read.source))
}

/// A model whose output is priced but not its input would be metered without a rate, as would the time of a job whose start
/// is priced.
fn check_models_are_whole(entries: &BTreeMap<SkuName, PriceEntry>) -> Result<()> {
    for sku in entries.keys() {
        if let SkuName::Starts { device } = sku {
            if !entries.keys().any(|sold| matches!(sold, SkuName::Device { device: kind, .. } if kind == device)) {
                return Err(invalid(format!("{sku} has a price but no time on devices of the kind has one"))
                    .alternative(format!("price device/NOTICE/{device} too; a price may be 0")));
            }
            continue;
        }
        let (SkuName::Tokens { tier, model, .. } | SkuName::Requests { tier, model }) = sku else { continue };
        for tier in [ServiceTier::Default, *tier] {
            for kind in TokenKind::ALL {
                let needed = SkuName::Tokens { tier, kind, model: model.clone() };
                if !entries.contains_key(&needed) {
                    return Err(invalid(format!("{sku} has a price but {needed} has none"))
                        .alternative("price all kinds of token, at the default tier too; a price may be 0"));
                }
            }
        }
    }
    Ok(())
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorCode::InvalidPrice, reason)
}

/// A price list with its versions, oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceList {
    pub id: PriceListId,
    pub name: String,
    pub currency: Currency,
    versions: Vec<Arc<PriceListVersion>>,
}

impl PriceList {
    pub fn new(id: PriceListId, name: String, currency: Currency) -> Self {
        Self { id, name, currency, versions: Vec::new() }
    }

    /// A list read back from its versions, in any order.
    pub fn restore(id: PriceListId, name: String, currency: Currency, mut versions: Vec<Arc<PriceListVersion>>) -> Result<Self> {
        versions.sort_by_key(|version| version.effective_at);
        let mut list = Self::new(id, name, currency);
        for version in versions {
            list.append(version)?;
        }
        Ok(list)
    }

    /// Adds a version that takes over from all before it. `published_at` is now: prices never
    /// reach back, because what was admitted was priced by the version then in force.
    pub fn publish(&mut self, version: Arc<PriceListVersion>, published_at: Timestamp) -> Result<()> {
        if version.effective_at < published_at {
            return Err(invalid(format!(
                "a price list cannot take effect at {}, which has passed; the past keeps its prices",
                version.effective_at
            ))
            .alternative("publish it from now on, and correct the past by a credit note"));
        }
        self.append(version)
    }

    fn append(&mut self, version: Arc<PriceListVersion>) -> Result<()> {
        if version.list != self.id {
            return Err(invalid(format!("this version belongs to list {}, not to {}", version.list, self.id)));
        }
        if version.currency != self.currency {
            return Err(Error::new(
                ErrorCode::CurrencyMismatch,
                format!("list {} is kept in {}, this version in {}", self.id, self.currency, version.currency),
            ));
        }
        if self.versions.len() >= VERSIONS_MAX {
            return Err(invalid(format!("a price list has at most {VERSIONS_MAX} versions")));
        }
        if let Some(last) = self.versions.last().filter(|last| version.effective_at <= last.effective_at) {
            return Err(invalid(format!(
                "the versions would overlap: one is published from {} on, so {} is taken",
                last.effective_at, version.effective_at
            ))
            .alternative("choose a later effective_at"));
        }
        self.versions.push(version);
        Ok(())
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> &[Arc<PriceListVersion>] {
        &self.versions
    }
    /// The version in force at an instant: the last one whose `effective_at` is not later.
    pub fn find_at(&self, instant: Timestamp) -> Option<&Arc<PriceListVersion>> {
        let after = self.versions.partition_point(|version| version.effective_at <= instant);
        after.checked_sub(1).and_then(|index| self.versions.get(index))
    }
    /// As [`Self::find_at`]; before the first version nothing can be sold.
    pub fn at(&self, instant: Timestamp) -> Result<&Arc<PriceListVersion>> {
        self.find_at(instant).ok_or_else(|| {
            Error::new(ErrorCode::UnknownPrice, format!("price list '{}' has no prices in force at {instant}", self.name))
        })
    }
}

#[cfg(test)]
#[path = "price_book_tests.rs"]
mod tests;
