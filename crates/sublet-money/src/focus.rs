//! Cost and usage as FinOps programs read it: the FinOps Open Cost and Usage Specification, versions 1.2 and 1.4.
//!
//! A row is an hour of one line: a project's use of one thing at one price, and for device time of one job. What a file
//! says of an issued invoice adds up to it: what a contract adds and rounding are rows of their own. A credit note is a row of the month in which it
//! was issued, under its own number. Each tax of an issued invoice is a row, and so is what a credit note gave back of
//! taxes. So the rows of each number add up to the document of that number.
//!
//! `BilledCost` and `EffectiveCost` are what was charged. `ListCost` and `ContractedCost` are the quantity at one price,
//! the dearest of a price with tiers: what tiers saved is the difference. The list's price is that of the public list that
//! was in force; the contracted one is the account's, which is another one where a contract says so.
//!
//! In 1.4 a row names the line of its document ([`crate::focus_invoice`]), and use that a contract counts names the commitment
//! that it counts towards ([`crate::focus_contract`]).
//!
//! Deliberately absent: taxes of months that are open; the columns of 1.2 for commitments, which are for discounts; columns for
//! virtual currencies.

use serde_json::{Value, json};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ProjectId, SiteId};
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Nanos, Timestamp};

use crate::canonical::canonical_json;
use crate::document::DocumentNumber;
use crate::focus_contract::{AppliedUse, CommitmentId};
use crate::focus_invoice::{Beyond, LinePlaces};
use crate::invoice::InvoiceAccount;
use crate::period::{Interval, Period};
use crate::price_book::{BandPrice, PriceEntry, PriceListVersion};
use crate::price_index::PriceIndexes;
use crate::price_model::PriceModel;
use crate::sku::{GIBIBYTE, PricingUnit, QuantityChange, SkuName};
use crate::table::Decimal;
use crate::time_of_use::BandName;

/// How long the use in one row lasts at most.
pub const ROW_LENGTH: DurationMs = DurationMs::from_hours(1);
/// The lines of a credit note: what it gives back, and of that of taxes.
pub const CREDIT_PLACE: u32 = 1;
pub const CREDIT_TAX_PLACE: u32 = 2;
/// Who sells, if nothing else is said.
pub const DEFAULT_SELLER: &str = "Sublet";

/// A version of the specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum FocusVersion {
    #[default]
    V1_2,
    V1_4,
}

impl FocusVersion {
    pub const ALL: [Self; 2] = [Self::V1_2, Self::V1_4];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_4 => "1.4",
        }
    }
}

impl std::str::FromStr for FocusVersion {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("there is no export in FOCUS version '{shown}'"))
                .param("version")
                .alternative("ask for version 1.2 or 1.4")
        })
    }
}

/// What was charged for one line in one hour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargedHour {
    pub project: ProjectId,
    pub sku: SkuName,
    pub price_version: PriceVersion,
    pub band: Option<BandName>,
    /// The job or lease that used device time.
    pub resource: Option<String>,
    /// Where that was, and how it had to be kept apart.
    pub site: Option<SiteId>,
    pub isolation: Option<IsolationLevel>,
    /// Begins a whole hour in UTC.
    pub starts_at: Timestamp,
    pub quantity: QuantityChange,
    pub amount: Nanos,
    pub charges: i64,
}

impl ChargedHour {
    /// What was used, by its full name where that is known.
    fn placed(&self) -> SkuName {
        match (&self.site, self.isolation) {
            (Some(site), Some(isolation)) => self.sku.placed(site, isolation),
            (None, _) | (_, None) => self.sku.clone(),
        }
    }
}

/// What was taken back of an invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credited {
    pub number: DocumentNumber,
    pub invoice: DocumentNumber,
    pub amount: Nanos,
    /// Of the invoice's taxes, besides.
    pub tax: Nanos,
    pub reason: String,
    pub issued_at: Timestamp,
}

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Category {
    Usage,
    Credit,
    Tax,
    Adjustment,
}

/// The part of a row that is about something with a price.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Priced {
    pub project: ProjectId,
    pub project_name: String,
    pub sku: SkuName,
    /// Names the price list, the thing and the band, and so one price.
    pub price_id: String,
    pub price_details: String,
    /// Whether the price is a market price.
    pub follows_index: bool,
    /// Of the public list.
    pub list_unit_price: Decimal,
    /// Of the account.
    pub unit_price: Decimal,
    pub pricing_quantity: Decimal,
    pub consumed_quantity: Decimal,
    pub resource: Option<String>,
    pub site: Option<SiteId>,
    pub price_version: PriceVersion,
    pub band: Option<BandName>,
    pub charges: i64,
}

/// One row of either version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FocusRow {
    pub account: InvoiceAccount,
    pub seller: String,
    pub billing: Interval,
    pub category: Category,
    pub is_correction: bool,
    pub description: String,
    pub charged: Interval,
    pub billed: Nanos,
    pub list: Decimal,
    pub contracted: Decimal,
    /// The document that it is in, once that is issued.
    pub document: Option<DocumentNumber>,
    /// The line of that document, counted from 1.
    pub place: Option<u32>,
    /// What of it counts towards a commitment, as the specification's object.
    pub applied: Option<String>,
    /// The invoice that a credit note is for.
    pub credited_invoice: Option<DocumentNumber>,
    /// The month of the use, where that was closed before it was known.
    pub late_of: Option<String>,
    pub priced: Option<Priced>,
}

/// The price lists that a row is about.
#[derive(Clone, Copy, Debug)]
pub struct RowPrices<'a> {
    /// What the charges name.
    pub charged: &'a PriceListVersion,
    /// What that was made from, if it is a contract's.
    pub public: Option<&'a PriceListVersion>,
    /// That prices of the public list follow.
    pub indexes: &'a PriceIndexes,
}

static NO_INDEXES: PriceIndexes = PriceIndexes::new();

impl<'a> RowPrices<'a> {
    /// Of a public list.
    pub const fn of(charged: &'a PriceListVersion) -> Self {
        Self { charged, public: None, indexes: &NO_INDEXES }
    }

    /// The public price: in the band of the charges where both have such bands, else at the beginning of the hour.
    fn public_price(&self, hour: &ChargedHour) -> Result<Option<BandPrice<'a>>> {
        let Some(entry) = self.public.and_then(|list| list.resolve(&hour.placed())) else { return Ok(None) };
        let has_bands = self.charged.get(&hour.sku)?.depends_on_time();
        match entry.price_in(hour.band.as_ref()) {
            Ok(price) if has_bands == entry.depends_on_time() => Ok(Some(price)),
            Ok(_) | Err(_) => entry.over_time_in(self.indexes)?.price_at(hour.starts_at).map(Some),
        }
    }
}

/// Whose rows are made, and of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    pub account: InvoiceAccount,
    pub seller: String,
    pub period: Period,
    /// The number of the month's invoice, once that is issued.
    pub invoice: Option<DocumentNumber>,
    /// Of that invoice.
    pub places: LinePlaces,
    /// What use of the month counts towards.
    pub counts: Option<AppliedUse>,
}

impl Statement {
    /// Whose and of when, without what single rows are found by.
    pub(crate) fn head(&self) -> Self {
        let (account, seller) = (self.account.clone(), self.seller.clone());
        Self { account, seller, period: self.period, invoice: self.invoice, places: LinePlaces::default(), counts: None }
    }

    /// A row of use. `used` is the month of the use: an earlier one for what came late.
    pub fn usage(&self, hour: ChargedHour, used: &Period, (project_name, prices): (&str, RowPrices<'_>)) -> Result<FocusRow> {
        let entry = prices.charged.get(&hour.sku)?;
        let price = entry.price_in(hour.band.as_ref())?;
        let (own_price, own_per) = one_price(&price.model(), price.unit);
        let public = prices.public_price(&hour)?.unwrap_or(price);
        let (list_price, per) = one_price(&public.model(), public.unit);
        let base = price.unit.base_units();
        let is_late = used.key < self.period.key;
        let band = hour.band.as_ref().map_or_else(String::new, |band| format!(" ({band})"));
        let description = format!("{}{band} at {}", hour.sku, price.text(self.account.currency));
        let quantity = hour.quantity.get();
        let consumed_quantity = Decimal::ratio(quantity, consumed_base(price.unit))?;
        let applied = self.counts.as_ref().and_then(|counts| counts.applied(&hour.sku, (hour.amount, consumed_quantity)));
        Ok(FocusRow {
            is_correction: is_late,
            description,
            place: self.places.find(&hour, used.key),
            applied,
            charged: within(hour.starts_at, used.interval),
            billed: hour.amount,
            list: Decimal::cost(list_price, quantity, per)?,
            contracted: Decimal::cost(own_price, quantity, own_per)?,
            late_of: is_late.then(|| used.key.to_string()),
            priced: Some(Priced {
                project: hour.project,
                project_name: project_name.to_owned(),
                price_id: price_id(&hour.price_version, &hour.sku, hour.band.as_ref()),
                price_details: details(entry, price)?,
                follows_index: entry.market.is_some(),
                list_unit_price: Decimal::cost(list_price, base, per)?,
                unit_price: Decimal::cost(own_price, base, own_per)?,
                pricing_quantity: Decimal::ratio(quantity, base)?,
                consumed_quantity,
                sku: hour.sku,
                resource: hour.resource,
                site: hour.site,
                price_version: hour.price_version,
                band: hour.band,
                charges: hour.charges,
            }),
            ..self.row(Category::Usage)
        })
    }

    /// What the issued invoice has beyond its lines.
    pub fn beyond(&self, part: &Beyond) -> FocusRow {
        FocusRow {
            description: part.description.clone(),
            billed: part.amount,
            list: part.amount.into(),
            contracted: part.amount.into(),
            place: self.invoice.map(|_| part.place),
            applied: part.commitment.as_ref().map(CommitmentId::named),
            ..self.row(part.category)
        }
    }

    /// What rounding an open month to whole minor units would add; nothing where it adds nothing.
    pub fn rounding(&self, amount: Nanos) -> Option<FocusRow> {
        (!amount.is_zero()).then(|| self.beyond(&Beyond::rounding(amount)))
    }

    /// A credit note of this month, and what it gave back of taxes.
    pub fn credit(&self, note: &Credited) -> Result<Vec<FocusRow>> {
        let credit = self.credited(note, note.amount.checked_neg()?)?;
        let tax = note.tax.checked_neg()?;
        if tax.is_zero() {
            return Ok(vec![credit]);
        }
        let description = format!("tax of credit note {} for {}", note.number, note.invoice);
        let tax = FocusRow {
            category: Category::Tax,
            description,
            billed: tax,
            list: tax.into(),
            contracted: tax.into(),
            place: Some(CREDIT_TAX_PLACE),
            ..credit.clone()
        };
        Ok(vec![credit, tax])
    }

    fn credited(&self, note: &Credited, amount: Nanos) -> Result<FocusRow> {
        let hour = ROW_LENGTH.millis() * 1_000;
        let starts_at = Timestamp::from_micros(note.issued_at.micros().div_euclid(hour) * hour);
        Ok(FocusRow {
            is_correction: true,
            description: format!("credit note {} for {}: {}", note.number, note.invoice, note.reason),
            charged: within(starts_at, self.period.interval),
            billed: amount,
            list: amount.into(),
            contracted: amount.into(),
            document: Some(note.number),
            place: Some(CREDIT_PLACE),
            credited_invoice: Some(note.invoice),
            ..self.row(Category::Credit)
        })
    }

    fn row(&self, category: Category) -> FocusRow {
        FocusRow {
            account: self.account.clone(),
            seller: self.seller.clone(),
            billing: self.period.interval,
            category,
            is_correction: false,
            description: String::new(),
            charged: self.period.interval,
            billed: Nanos::ZERO,
            list: Decimal::default(),
            contracted: Decimal::default(),
            document: self.invoice,
            place: None,
            applied: None,
            credited_invoice: None,
            late_of: None,
            priced: None,
        }
    }
}

/// The hour from an instant on, as far as it is in a month: months begin at half hours where clocks do.
fn within(starts_at: Timestamp, month: Interval) -> Interval {
    let ends_at = starts_at.plus(ROW_LENGTH).min(month.ends_at);
    Interval { starts_at: starts_at.max(month.starts_at), ends_at }
}

/// The one price that a price's use is shown at, for so many base units: the dearest of its tiers.
fn one_price(model: &PriceModel, unit: PricingUnit) -> (Nanos, i64) {
    match model {
        PriceModel::PerUnit { price } => (*price, unit.base_units()),
        PriceModel::Graduated { tiers } | PriceModel::Volume { tiers } => {
            (tiers.iter().map(|tier| tier.price).max().unwrap_or(Nanos::ZERO), unit.base_units())
        }
        PriceModel::Package { size, price } => (*price, size.get().max(1)),
        PriceModel::Minimum { of, .. } => one_price(of, unit),
    }
}

/// Base units in one [`consumed_unit`].
pub(crate) const fn consumed_base(unit: PricingUnit) -> i64 {
    match unit {
        PricingUnit::MillionTokens | PricingUnit::Request | PricingUnit::Start | PricingUnit::ProjectMonth | PricingUnit::Fee => 1,
        PricingUnit::DeviceHour => 1_000,
        PricingUnit::GibibyteMonth | PricingUnit::Gibibyte => GIBIBYTE,
    }
}

/// What is metered, in the specification's way to write units.
pub const fn consumed_unit(unit: PricingUnit) -> &'static str {
    match unit {
        PricingUnit::MillionTokens => "Tokens",
        PricingUnit::Request => "Requests",
        PricingUnit::DeviceHour => "Device-Seconds",
        PricingUnit::Start => "Starts",
        PricingUnit::ProjectMonth => "Project-Months",
        PricingUnit::Fee => "Fees",
        PricingUnit::GibibyteMonth => "GiB-Hours",
        PricingUnit::Gibibyte => "GiB",
    }
}

/// What a price is for, in the specification's way to write units.
pub const fn pricing_unit(unit: PricingUnit) -> &'static str {
    match unit {
        PricingUnit::MillionTokens => "1000000 Tokens",
        PricingUnit::Request => "Requests",
        PricingUnit::DeviceHour => "Device-Hours",
        PricingUnit::Start => "Starts",
        PricingUnit::ProjectMonth => "Project-Months",
        PricingUnit::Fee => "Fees",
        PricingUnit::GibibyteMonth => "GiB-Months",
        PricingUnit::Gibibyte => "GiB",
    }
}

/// Names the price list, the thing and the band, and so one price.
pub(crate) fn price_id(version: &PriceVersion, sku: &SkuName, band: Option<&BandName>) -> String {
    let band = band.map_or_else(String::new, |band| format!("#{band}"));
    format!("{}/{sku}{band}", version.0)
}

/// What sets a thing apart, as the specification's list of pairs. Names of our own begin with `x_`.
fn details(entry: &PriceEntry, price: BandPrice<'_>) -> Result<String> {
    let model = match *price.model() {
        PriceModel::PerUnit { .. } => "per_unit",
        PriceModel::Graduated { .. } => "graduated",
        PriceModel::Volume { .. } => "volume",
        PriceModel::Package { .. } => "package",
        PriceModel::Minimum { .. } => "minimum",
    };
    let mut pairs: Value = match &entry.sku {
        SkuName::Tokens { tier, kind, model: name } => json!({
            "x_Model": name.as_str(), "x_PriceModel": model, "x_ServiceTier": tier.as_str(), "x_TokenKind": kind.as_str(),
        }),
        SkuName::Requests { tier, model: name } => json!({
            "x_Model": name.as_str(), "x_PriceModel": model, "x_ServiceTier": tier.as_str(),
        }),
        SkuName::ProjectMonth | SkuName::FileStorage | SkuName::FileEgress => json!({ "x_PriceModel": model }),
        SkuName::Starts { device } => json!({ "InstanceType": device.to_string(), "x_PriceModel": model }),
        SkuName::Fee { fee } => json!({ "x_Fee": fee.as_str(), "x_PriceModel": model }),
        SkuName::Device { notice, device, .. } => json!({
            "InstanceType": device.to_string(), "x_Notice": notice.to_string(), "x_PriceModel": model,
        }),
    };
    if let SkuName::Device { site, isolation, .. } = &entry.sku {
        site.iter().for_each(|site| pairs["x_Site"] = json!(site.as_str()));
        isolation.iter().for_each(|level| pairs["x_Isolation"] = json!(level.as_str()));
    }
    if let Some(market) = &entry.market {
        pairs["x_PriceIndex"] = json!(market.index);
    }
    canonical_json(&pairs)
}

#[cfg(test)]
#[path = "focus_tests.rs"]
mod tests;
