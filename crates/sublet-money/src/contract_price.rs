//! Prices by contract: discounts, fixed prices and protection, as a price list of the contract's own.
//!
//! A contract's list is made from a version of the public one and the terms, and nothing else: the same two give the same
//! version, hash and all. A charge names it like any other, so holds, rating, invoices and proofs know of no contracts.
//! The version says what it was made from, so who has those can make it again ([`PriceListVersion::source`]).
//!
//! The rules, for each sku that the public list sells; what it does not sell is not sold by contract either:
//! - a fixed price is the price, whatever else the terms say; one of device time is the price at all places that it covers
//!   ([`crate::placement`]), whatever the public list says of them;
//! - else the price is the public one, or with protection the lesser of that and the protected one
//!   ([`crate::price_comparison::lesser`]); a flat price that the protected list does not have is left out;
//! - of it the discount is taken that names the sku most exactly; one on device time is on it at all places. Every amount in it is reduced, of bands, tiers, packages
//!   and minimums too, each rounded half to even to a nano-unit: a public list is published whatever discounts there are,
//!   and what is rounded is less than the smallest unit of money for a million tokens.
//!
//! Deliberately absent: discounts on invoices, and any that depend on what else is bought.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::device::DeviceKind;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ContractId, PriceListId};
use sublet_core::money::divide_half_even;
use sublet_core::notice::NoticeClass;
use sublet_core::{Nanos, Timestamp};

use crate::contract::{Agreement, TermsVersion};
use crate::period::{BillingCalendar, PeriodKey};
use crate::placement::{ambiguous, check_unambiguous, closed};
use crate::price_book::{PriceEntry, PriceList, PriceListDraft, PriceListVersion, PriceSource};
use crate::price_comparison::lesser;
use crate::price_model::PriceModel;
use crate::sku::{ModelName, SkuFamily, SkuName};

/// Most discounts of one contract.
pub const DISCOUNTS_MAX: usize = 200;
/// Most fixed prices of one contract.
pub const FIXED_MAX: usize = 200;
/// A whole, in parts per million.
const WHOLE_PPM: u32 = 1_000_000;

/// What a discount is on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discounted {
    Family(SkuFamily),
    /// Time on devices of one kind, at every notice, and starts on them.
    Device(DeviceKind),
    /// All tokens and requests of one model, at every tier.
    Model(ModelName),
    /// Time on devices of every kind at one notice.
    Notice(NoticeClass),
    Sku(SkuName),
}

impl Discounted {
    fn holds(&self, sku: &SkuName) -> bool {
        match (self, sku) {
            (Self::Family(family), _) => sku.family() == *family,
            (Self::Sku(named), _) => named.covers(sku),
            (Self::Model(named), SkuName::Tokens { model, .. } | SkuName::Requests { model, .. }) => named == model,
            (Self::Device(named), SkuName::Device { device, .. } | SkuName::Starts { device }) => named == device,
            (Self::Notice(named), SkuName::Device { notice, .. }) => named == notice,
            (
                Self::Model(_) | Self::Device(_) | Self::Notice(_),
                SkuName::ProjectMonth | SkuName::Fee { .. } | SkuName::FileStorage | SkuName::FileEgress,
            )
            | (Self::Model(_), SkuName::Device { .. } | SkuName::Starts { .. })
            | (Self::Notice(_), SkuName::Starts { .. })
            | (Self::Device(_) | Self::Notice(_), SkuName::Tokens { .. } | SkuName::Requests { .. }) => false,
        }
    }

    /// The larger one wins.
    const fn exactness(&self) -> u8 {
        match self {
            Self::Family(_) => 0,
            Self::Device(_) | Self::Model(_) | Self::Notice(_) => 1,
            Self::Sku(sku) => 2 + sku.exactness(),
        }
    }
}

impl fmt::Display for Discounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(family) => write!(f, "family {family}"),
            Self::Device(kind) => write!(f, "device {kind}"),
            Self::Model(model) => write!(f, "model {model}"),
            Self::Notice(notice) => write!(f, "notice {notice}"),
            Self::Sku(sku) => write!(f, "{sku}"),
        }
    }
}

/// So much less than the price would be without it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discount {
    /// In parts per million.
    pub off_ppm: u32,
    pub on: Discounted,
}

/// What public prices are never above for the customer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceProtection {
    /// A version of the public list.
    pub list: PriceVersion,
    /// The last month of it; as long as the contract runs if left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<PeriodKey>,
}

/// What a contract says about prices.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTerms {
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub discounts: Vec<Discount>,
    /// Prices instead of the public ones.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fixed: Vec<PriceEntry>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protection: Option<PriceProtection>,
}

fn invalid(param: String, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

impl PriceTerms {
    /// Refuses what contradicts itself. `starts` is the contract's first month.
    pub fn validate(&self, starts: PeriodKey) -> Result<()> {
        if *self == Self::default() {
            return Err(invalid("pricing".to_owned(), "it says nothing about prices")
                .alternative("leave pricing out, or give discounts, fixed prices or protection"));
        }
        if self.discounts.len() > DISCOUNTS_MAX {
            return Err(invalid("pricing.discounts".to_owned(), format!("a contract has at most {DISCOUNTS_MAX} discounts")));
        }
        if self.fixed.len() > FIXED_MAX {
            return Err(invalid("pricing.fixed".to_owned(), format!("a contract has at most {FIXED_MAX} fixed prices")));
        }
        self.check_fixed()?;
        self.check_discounts()?;
        if let Some(until) = self.protection.as_ref().and_then(|protection| protection.until).filter(|until| *until < starts) {
            let message = format!("prices are protected until {until}, and the contract starts in {starts}");
            return Err(invalid("pricing.protection.until".to_owned(), message));
        }
        Ok(())
    }

    fn check_fixed(&self) -> Result<()> {
        let mut named = BTreeSet::new();
        for (index, entry) in self.fixed.iter().enumerate() {
            let param = format!("pricing.fixed[{index}]");
            entry.validate().map_err(|error| error.param(param.clone()))?;
            if entry.market.is_some() {
                return Err(invalid(param, format!("the fixed price of {} follows an index, and would not be fixed", entry.sku)));
            }
            if !named.insert(&entry.sku) {
                return Err(invalid(param, format!("{} has two fixed prices", entry.sku)));
            }
        }
        check_unambiguous(named).map_err(|error| error.param("pricing.fixed"))
    }

    fn check_discounts(&self) -> Result<()> {
        let mut named = BTreeSet::new();
        for (index, discount) in self.discounts.iter().enumerate() {
            let param = || format!("pricing.discounts[{index}]");
            if discount.off_ppm > WHOLE_PPM {
                return Err(invalid(param(), format!("a discount is at most {WHOLE_PPM} parts per million: all of the price")));
            }
            if !named.insert(&discount.on) {
                return Err(invalid(param(), format!("there are two discounts on {}", discount.on)));
            }
            let Discounted::Sku(sku) = &discount.on else { continue };
            if let Some(fixed) = self.fixed_for(sku) {
                return Err(invalid(param(), format!("{} has a fixed price: there is no discount on {sku}", fixed.sku))
                    .alternative("give the fixed price that is meant, or the discount alone"));
            }
        }
        let names = named.iter().filter_map(|on| if let Discounted::Sku(sku) = on { Some(sku) } else { None });
        let tie = ambiguous(&names.collect()).into_iter().find(|(sku, _)| self.fixed_for(sku).is_none());
        if let Some((sku, [one, other])) = tie {
            return Err(two_discounts("pricing.discounts".to_owned(), &sku, [one, other]));
        }
        self.check_ties(&named)
    }

    /// A device kind and a notice are as exact as each other: what both are on needs a discount of its own.
    fn check_ties(&self, named: &BTreeSet<&Discounted>) -> Result<()> {
        for (index, discount) in self.discounts.iter().enumerate() {
            let Discounted::Device(device) = &discount.on else { continue };
            for other in &self.discounts {
                let Discounted::Notice(notice) = other.on else { continue };
                let sku = SkuName::device(notice, device.clone());
                let is_fixed = self.fixed.iter().any(|entry| entry.sku == sku);
                if !is_fixed && !named.contains(&Discounted::Sku(sku.clone())) {
                    return Err(two_discounts(format!("pricing.discounts[{index}]"), &sku, [&discount.on, &other.on]));
                }
            }
        }
        Ok(())
    }

    /// Parts per million off the price of a sku.
    fn off_ppm(&self, sku: &SkuName) -> u32 {
        let on_it = self.discounts.iter().filter(|discount| discount.on.holds(sku));
        on_it.max_by_key(|discount| discount.on.exactness()).map_or(0, |discount| discount.off_ppm)
    }

    /// Whether a flat price came later than the prices that are protected: then there is none.
    fn is_spared(&self, public: &PriceEntry, protected: Option<&PriceListVersion>) -> bool {
        let Some(protected) = protected else { return false };
        let was_free = match &public.sku {
            SkuName::Requests { tier, model } => protected.tiers(model).any(|sold| sold == *tier),
            SkuName::Starts { device } => protected.sells_time_on(device),
            SkuName::ProjectMonth | SkuName::FileStorage | SkuName::FileEgress => true,
            SkuName::Tokens { .. } | SkuName::Device { .. } | SkuName::Fee { .. } => false,
        };
        was_free && protected.find(&public.sku).is_none() && !self.fixed.iter().any(|entry| entry.sku == public.sku)
    }

    /// The fixed price of what a name is of.
    fn fixed_for(&self, sku: &SkuName) -> Option<&PriceEntry> {
        sku.covering().iter().find_map(|name| self.fixed.iter().find(|entry| entry.sku == *name))
    }

    /// What has a price of its own by contract: what has one in the public list, and of that what the other list, a fixed
    /// price or a discount names more exactly.
    fn names(&self, from: Sources<'_>) -> BTreeSet<SkuName> {
        let public = from.public.entries().filter(|entry| !self.is_spared(entry, from.protected));
        let mut names: BTreeSet<SkuName> = public.map(|entry| entry.sku.clone()).collect();
        let mut sold: BTreeMap<SkuName, Vec<&SkuName>> = BTreeMap::new();
        for entry in from.public.entries() {
            sold.entry(entry.sku.general()).or_default().push(&entry.sku);
        }
        let discounted = self.discounts.iter().filter_map(|discount| match &discount.on {
            Discounted::Sku(sku) => Some(sku),
            Discounted::Family(_) | Discounted::Device(_) | Discounted::Model(_) | Discounted::Notice(_) => None,
        });
        let protected = from.protected.into_iter().flat_map(PriceListVersion::entries).map(|entry| &entry.sku);
        for named in self.fixed.iter().map(|entry| &entry.sku).chain(discounted).chain(protected) {
            if named.family() == SkuFamily::DeviceTime {
                let sold = sold.get(&named.general()).into_iter().flatten();
                names.extend(sold.filter_map(|sold| sold.common(named)));
            }
        }
        closed(&names)
    }

    /// Another name on whose line the use of a name belongs: that of the fixed price, or of the protected one where that
    /// price depends on how much is used, since less on each of two lines may cost more.
    fn line_of<'a>(&'a self, name: &SkuName, from: Sources<'a>) -> Option<&'a SkuName> {
        if let Some(fixed) = self.fixed_for(name) {
            return Some(&fixed.sku);
        }
        let kept = from.protected.and_then(|list| list.resolve(name)).filter(|kept| !is_proportional(kept))?;
        (self.off_ppm(&kept.sku) == self.off_ppm(name)).then_some(&kept.sku)
    }

    /// Whether a name needs a price of its own beside one that covers it: use of all places is on the line of that one,
    /// except where another price would cover the place as well.
    fn is_apart(&self, name: &SkuName, names: &BTreeSet<SkuName>, from: Sources<'_>) -> bool {
        let Some(line) = self.line_of(name, from).filter(|line| *line != name && names.contains(line)) else {
            return true;
        };
        let covering = name.covering();
        covering.iter().any(|other| {
            let says_else = other != name && !other.covers(line) && !line.covers(other);
            says_else && names.contains(other) && self.is_apart(other, names, from)
        })
    }

    /// Refuses a fixed price that depends on how much is used where its use would be on several lines: each would begin anew.
    fn check_lines(&self, own: &BTreeSet<&SkuName>) -> Result<()> {
        let of_places = self.fixed.iter().filter(|fixed| fixed.sku.family() == SkuFamily::DeviceTime && !is_proportional(fixed));
        for fixed in of_places {
            let of_it = |name: &SkuName| self.fixed_for(name).is_some_and(|found| found.sku == fixed.sku);
            let mut lines = own.iter().filter(|name| of_it(name));
            if let (Some(one), Some(other)) = (lines.next(), lines.next()) {
                let message = format!(
                    "the fixed price of {} depends on how much is used, and with this list {one} and {other} would be lines of \
                     their own",
                    fixed.sku
                );
                let error = invalid("pricing.fixed".to_owned(), message)
                    .alternative("agree on a price per unit, or on a fixed price for each of them");
                let is_listed = own.contains(&fixed.sku);
                return Err(if is_listed { error } else { error.alternative(format!("price {} in the list too", fixed.sku)) });
            }
        }
        Ok(())
    }

    /// The price of what the public list sells.
    fn price_of(&self, name: &SkuName, from: Sources<'_>) -> Result<PriceEntry> {
        let named = |entry: &PriceEntry| PriceEntry { sku: name.clone(), ..entry.clone() };
        if let Some(fixed) = self.fixed_for(name) {
            return Ok(named(fixed));
        }
        let public = named(from.public.get_resolved(name)?);
        let protected = from.protected.and_then(|list| list.resolve(name)).map(named);
        let price = protected.map_or_else(|| public.clone(), |protected| lesser(&public, &protected));
        match self.off_ppm(name) {
            0 => Ok(price),
            off_ppm => price.with_amounts(&|amount| reduced(amount, off_ppm)),
        }
    }
}

/// Whether twice as much always costs twice as much, on however many lines.
fn is_proportional(entry: &PriceEntry) -> bool {
    entry.prices().all(|price| matches!(*price.model(), PriceModel::PerUnit { .. }))
}

fn two_discounts(param: String, sku: &SkuName, [one, other]: [&dyn fmt::Display; 2]) -> Error {
    invalid(param, format!("{sku} has two discounts that are as exact: on {one} and on {other}"))
        .alternative(format!("add a discount on {sku} itself"))
}

/// Rounded half to even: never more than the amount.
fn reduced(amount: Nanos, off_ppm: u32) -> Result<Nanos> {
    let left = i128::from(WHOLE_PPM.saturating_sub(off_ppm));
    let exact = divide_half_even(i128::from(amount.get()) * left, i128::from(WHOLE_PPM));
    i64::try_from(exact).map(Nanos::new).map_err(|_| Error::internal("a reduced price is more than the price"))
}

/// The list of a contract: it has the contract's name.
pub fn list_of(contract: &ContractId) -> Result<PriceListId> {
    let name = contract.as_str().split_once('_').map_or("", |(_, name)| name);
    format!("plist_{name}").parse()
}

/// What a contract's version is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub public: &'a PriceListVersion,
    pub protected: Option<&'a PriceListVersion>,
    pub terms: &'a TermsVersion,
}

/// The version of a contract's list from an instant on.
pub fn contract_prices(list: PriceListId, effective_at: Timestamp, from: Sources<'_>) -> Result<PriceListVersion> {
    let pricing = from.terms.terms.pricing.as_ref();
    let pricing = pricing.ok_or_else(|| Error::internal("terms without prices of their own have no list"))?;
    if from.public.source().is_some() || from.protected.is_some_and(|list| list.source().is_some()) {
        return Err(Error::internal("prices of a contract are made from public ones"));
    }
    let currency = from.public.currency();
    let currencies = from.protected.map(PriceListVersion::currency).into_iter().chain([from.terms.terms.currency]);
    if currencies.into_iter().any(|other| other != currency) {
        return Err(Error::new(ErrorCode::CurrencyMismatch, format!("prices in {currency} are not of a contract in another")));
    }
    let names = pricing.names(from);
    let own: BTreeSet<&SkuName> = names.iter().filter(|name| pricing.is_apart(name, &names, from)).collect();
    pricing.check_lines(&own)?;
    let entries = own.into_iter().map(|name| pricing.price_of(name, from)).collect::<Result<_>>()?;
    let source = PriceSource {
        list: from.public.version().clone(),
        protected: from.protected.map(|list| list.version().clone()),
        terms: from.terms.hash.clone(),
    };
    PriceListVersion::of_contract(PriceListDraft { list, currency, effective_at, entries }, source)
}

/// Makes a contract's version again, and refuses one that is not what its sources give. `month` is that of its first
/// instant.
pub fn verify_contract_prices(version: &PriceListVersion, month: PeriodKey, from: Sources<'_>) -> Result<()> {
    let differs = |what: &str| Error::new(ErrorCode::LedgerMismatch, format!("prices of a contract are {what}"));
    let protection = from.terms.terms.pricing.as_ref().and_then(|pricing| pricing.protection.as_ref());
    let agreed = protection.filter(|protection| protection.until.is_none_or(|until| month <= until));
    if agreed.map(|protection| &protection.list) != from.protected.map(PriceListVersion::version) {
        return Err(differs("protected otherwise than its terms say"));
    }
    if from.public.effective_at() > version.effective_at() || month < from.terms.from {
        return Err(differs("made from what was not in force"));
    }
    let made = contract_prices(version.list().clone(), version.effective_at(), from)?;
    if made.version() == version.version() { Ok(()) } else { Err(differs("not those that its terms give")) }
}

/// What a contract's prices are made from, from an instant until the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedPrices {
    pub starts_at: Timestamp,
    /// `None`: the public list holds.
    pub source: Option<PriceSource>,
}

/// The prices of a contract from now on, by what is agreed and published. The first begins now.
pub fn plan_prices(
    agreement: &Agreement,
    list: &PriceList,
    calendar: &BillingCalendar,
    now: Timestamp,
) -> Result<Vec<PlannedPrices>> {
    let mut months = Vec::new();
    for version in agreement.versions() {
        months.push(version.from);
        let protection = version.terms.pricing.as_ref().and_then(|pricing| pricing.protection.as_ref());
        if let Some(until) = protection.and_then(|protection| protection.until) {
            months.push(until.next()?);
        }
    }
    if let Some(last) = agreement.last_month()? {
        months.push(last.next()?);
    }
    let mut instants: BTreeSet<Timestamp> = list.versions().iter().map(|version| version.effective_at()).collect();
    for month in months {
        instants.insert(calendar.period(month)?.interval.starts_at);
    }
    let later = instants.into_iter().filter(|instant| *instant > now);
    let mut planned: Vec<PlannedPrices> = Vec::new();
    for starts_at in std::iter::once(now).chain(later) {
        let month = calendar.period_at(starts_at)?.key;
        let source = match (agreement.at(month)?, list.find_at(starts_at)) {
            (Some((terms, _)), Some(public)) => source_of(terms, public, month),
            (None, _) | (_, None) => None,
        };
        if planned.last().is_none_or(|last| last.source != source) {
            planned.push(PlannedPrices { starts_at, source });
        }
    }
    Ok(planned)
}

fn source_of(terms: &TermsVersion, public: &PriceListVersion, month: PeriodKey) -> Option<PriceSource> {
    let pricing = terms.terms.pricing.as_ref()?;
    let protection = pricing.protection.as_ref();
    let protected = protection.filter(|protection| protection.until.is_none_or(|until| month <= until));
    Some(PriceSource {
        list: public.version().clone(),
        protected: protected.map(|protection| protection.list.clone()),
        terms: terms.hash.clone(),
    })
}

#[cfg(test)]
#[path = "contract_place_tests.rs"]
mod place_tests;
#[cfg(test)]
#[path = "contract_price_tests.rs"]
mod tests;
