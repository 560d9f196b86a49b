//! Taxes on invoices: which one applies, and how much it is.
//!
//! Treatment is a function of the seller, the tax table, the buyer's profile and a day. It says the category of
//! EN 16931 (UNCL5305), the rate, and why. A table's rows are the taxes that the seller collects: where it is not
//! registered there is no row.
//!
//! Prices are net. What is paid in is gross and is split when it comes ([`split_gross`]); an invoice's tax is computed on
//! what all of it comes to, once for each tax, and rounded once to minor units, half to even as all of the books. So the
//! lines of tax are what EN 16931 asks for (BR-CO-14: they add up; BR-CO-17: base times rate, rounded to two decimals).
//! A tie may be a minor unit from rounding half up, which is within what the standard's own rules tolerate.
//!
//! Deliberately absent: taxes on taxes, taxes by kind of product, thresholds of turnover, and asking registers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Currency, Nanos};

use crate::canonical::decimal;
use crate::day::Day;
use crate::party::{Buyer, LINE_MAX_CHARS, PaymentTerms, Seller, check_line};
use crate::place::Jurisdiction;

/// Most rows of a tax table.
pub const ROWS_MAX: usize = 1_000;
/// Most taxes on one base.
pub const TAXES_MAX: usize = 4;
/// A whole, in parts per million.
const WHOLE_PPM: u32 = 1_000_000;
/// Longest name of a tax, in characters.
const NAME_MAX_CHARS: usize = 20;
/// Longest code of a reason, in characters.
const CODE_MAX_CHARS: usize = 30;

/// A rate in parts per million, exact: 9.975 % is 99750. At most 100 %.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TaxRate(u32);

impl TaxRate {
    pub const ZERO: Self = Self(0);

    pub fn from_ppm(ppm: u32) -> Result<Self> {
        if ppm > WHOLE_PPM {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("a rate is at most {WHOLE_PPM} parts per million, not {ppm}"),
            ));
        }
        Ok(Self(ppm))
    }
    pub const fn ppm(self) -> u32 {
        self.0
    }
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The tax on a base, in minor units, half to even.
    pub fn of(self, base: Nanos, currency: Currency) -> Result<Nanos> {
        let minor_unit = i128::from(currency.minor_unit().get());
        let units = divide_half_even(i128::from(base.get()) * i128::from(self.0), i128::from(WHOLE_PPM) * minor_unit);
        nanos(units * minor_unit)
    }
}

fn nanos(amount: i128) -> Result<Nanos> {
    let amount =
        i64::try_from(amount).map_err(|_| Error::new(ErrorCode::AmountOverflow, "a tax is larger than an amount can be"))?;
    Ok(Nanos::new(amount))
}

/// In percent: `19`, `9.975`.
impl fmt::Display for TaxRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{rest:04}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}
/// From percent.
impl FromStr for TaxRate {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<u32> {
            let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            let is_written = (1..=3).contains(&whole.len()) && decimals.len() <= 4 && digits(whole) && digits(decimals);
            if !is_written || text.ends_with('.') {
                return None;
            }
            let rest: u32 = format!("{decimals:0<4}").parse().ok()?;
            Some(whole.parse::<u32>().ok()? * 10_000 + rest)
        };
        parse().and_then(|ppm| Self::from_ppm(ppm).ok()).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(
                ErrorCode::InvalidRequest,
                format!("'{shown}' is not a rate in percent from 0 to 100, with up to 4 decimals"),
            )
            .alternative("write it like 19 or 9.975")
        })
    }
}
impl TryFrom<u32> for TaxRate {
    type Error = Error;
    fn try_from(ppm: u32) -> Result<Self> {
        Self::from_ppm(ppm)
    }
}
impl From<TaxRate> for u32 {
    fn from(rate: TaxRate) -> Self {
        rate.0
    }
}

/// How a sale is treated: codes of UNCL5305 as EN 16931 uses them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum TaxCategory {
    /// Taxed.
    #[serde(rename = "S")]
    Standard,
    /// Taxed at nothing.
    #[serde(rename = "Z")]
    ZeroRated,
    #[serde(rename = "E")]
    Exempt,
    /// The buyer owes the tax.
    #[serde(rename = "AE")]
    ReverseCharge,
    /// Free because it leaves the country.
    #[serde(rename = "G")]
    Export,
    /// Not subject to the tax.
    #[serde(rename = "O")]
    OutOfScope,
}

impl TaxCategory {
    pub const ALL: [Self; 6] = [Self::Standard, Self::ZeroRated, Self::Exempt, Self::ReverseCharge, Self::Export, Self::OutOfScope];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "S",
            Self::ZeroRated => "Z",
            Self::Exempt => "E",
            Self::ReverseCharge => "AE",
            Self::Export => "G",
            Self::OutOfScope => "O",
        }
    }
    /// Whether an invoice says why there is no tax.
    pub const fn needs_reason(self) -> bool {
        matches!(self, Self::Exempt | Self::ReverseCharge | Self::Export | Self::OutOfScope)
    }
}

impl fmt::Display for TaxCategory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for TaxCategory {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "a category of tax is S, Z, E, AE, G or O"))
    }
}

/// What an invoice says of one tax.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaxTreatment {
    pub category: TaxCategory,
    pub jurisdiction: Jurisdiction,
    /// `VAT`, `GST`.
    pub name: String,
    pub rate_ppm: TaxRate,
    /// Why there is no tax.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// A code of the VATEX list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason_code: Option<String>,
}

/// One tax of an invoice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaxLine {
    #[serde(flatten)]
    pub treatment: TaxTreatment,
    /// In whole minor units.
    #[serde(with = "decimal")]
    pub base: Nanos,
    /// The base times the rate, in minor units, half to even.
    #[serde(with = "decimal")]
    pub amount: Nanos,
}

/// The taxes of an invoice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InvoiceTax {
    /// Promotional credit that lowers the base, in whole minor units.
    #[serde(with = "decimal")]
    pub gifts: Nanos,
    pub lines: Vec<TaxLine>,
    /// What the lines add up to.
    #[serde(with = "decimal")]
    pub amount: Nanos,
}

/// A tax that the seller collects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaxRow {
    pub jurisdiction: Jurisdiction,
    pub name: String,
    pub rate_ppm: TaxRate,
    /// The first day on which it applies, in the zone of the account.
    pub from: Day,
    /// If it is not taxed there for a reason of the seller's: exempt, or not subject to the tax.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub category: Option<TaxCategory>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason_code: Option<String>,
}

/// All taxes that the seller collects.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaxTable {
    pub rows: Vec<TaxRow>,
}

/// The seller as it is on file: what invoices say of it, and what holds for accounts that say nothing else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SellerProfile {
    pub seller: Seller,
    pub terms: PaymentTerms,
}

/// A certificate by which a buyer is exempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    /// As the certificate is filed.
    pub certificate: String,
    /// What invoices say.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason_code: Option<String>,
    /// Its last day, in the zone of the account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Day>,
}

/// How an account is invoiced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BillingProfile {
    pub buyer: Buyer,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exemption: Option<Exemption>,
    /// Where they are not the seller's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<PaymentTerms>,
}

/// What is paid in, split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrossSplit {
    /// What becomes credit.
    pub net: Nanos,
    /// What is kept for tax.
    pub tax: Nanos,
}

/// Splits what is paid in by the rates that hold for the account. The net part is rounded down to minor units, so that
/// when all of it is invoiced at once its tax is there to the last minor unit. Without a tax nothing is rounded.
pub fn split_gross(gross: Nanos, treatments: &[TaxTreatment], currency: Currency) -> Result<GrossSplit> {
    let rates: u32 = treatments.iter().map(|treatment| treatment.rate_ppm.ppm()).sum();
    if rates == 0 || gross <= Nanos::ZERO {
        return Ok(GrossSplit { net: gross, tax: Nanos::ZERO });
    }
    let minor_unit = i128::from(currency.minor_unit().get());
    let (dividend, divisor) = (i128::from(gross.get()) * i128::from(WHOLE_PPM), i128::from(WHOLE_PPM + rates) * minor_unit);
    // Both are positive: rounded down.
    let net = nanos(dividend.div_euclid(divisor) * minor_unit)?;
    Ok(GrossSplit { net, tax: gross.checked_sub(net)? })
}

fn invalid(param: impl Into<String>, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

fn mismatch(message: String) -> Error {
    Error::new(ErrorCode::LedgerMismatch, message)
}

fn check_code(param: String, code: Option<&String>) -> Result<()> {
    let is_code = |code: &String| {
        (1..=CODE_MAX_CHARS).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-')
    };
    match code.filter(|code| !is_code(code)) {
        None => Ok(()),
        Some(_) => Err(invalid(param, "the code of a reason has capital letters, digits and dashes").alternative("VATEX-EU-AE")),
    }
}

impl TaxRow {
    fn validate(&self, place: &str) -> Result<()> {
        let at = |member: &str| format!("{place}.{member}");
        check_line(&at("name"), &self.name, NAME_MAX_CHARS)?;
        if let Some(reason) = &self.reason {
            check_line(&at("reason"), reason, LINE_MAX_CHARS)?;
        }
        check_code(at("reason_code"), self.reason_code.as_ref())?;
        let category = self.category();
        match category {
            TaxCategory::Standard if self.rate_ppm.is_zero() => {
                Err(invalid(at("rate"), "what is taxed at nothing is of the category Z"))
            }
            TaxCategory::ReverseCharge => Err(invalid(at("category"), "whether the buyer owes the tax follows from who it is")),
            TaxCategory::ZeroRated | TaxCategory::Exempt | TaxCategory::Export | TaxCategory::OutOfScope
                if !self.rate_ppm.is_zero() =>
            {
                Err(invalid(at("rate"), format!("a sale of the category {category} has the rate 0")))
            }
            _ if category.needs_reason() && self.reason.is_none() => {
                Err(invalid(at("reason"), format!("a row of the category {category} says why there is no tax")))
            }
            _ => Ok(()),
        }
    }

    fn category(&self) -> TaxCategory {
        let by_rate = if self.rate_ppm.is_zero() { TaxCategory::ZeroRated } else { TaxCategory::Standard };
        self.category.unwrap_or(by_rate)
    }

    pub(crate) fn treatment(&self) -> TaxTreatment {
        TaxTreatment {
            category: self.category(),
            jurisdiction: self.jurisdiction.clone(),
            name: self.name.clone(),
            rate_ppm: self.rate_ppm,
            reason: self.reason.clone(),
            reason_code: self.reason_code.clone(),
        }
    }
}

impl TaxTable {
    /// Refuses rows that contradict each other, or are no taxes.
    pub fn validate(&self) -> Result<()> {
        if self.rows.len() > ROWS_MAX {
            return Err(invalid("rows", format!("a tax table has at most {ROWS_MAX} rows")));
        }
        let mut known = std::collections::BTreeSet::new();
        for (index, row) in self.rows.iter().enumerate() {
            row.validate(&format!("rows[{index}]"))?;
            if !known.insert((&row.jurisdiction, &row.name, row.from)) {
                let message = format!("{} of {} from {} on is there twice", row.name, row.jurisdiction, row.from);
                return Err(invalid(format!("rows[{index}]"), message));
            }
        }
        for row in &self.rows {
            let taxes = self.in_force(&row.jurisdiction, row.from).len();
            if taxes > TAXES_MAX {
                let message = format!(
                    "{} has {taxes} taxes from {} on, and at most {TAXES_MAX} fit on an invoice",
                    row.jurisdiction, row.from
                );
                return Err(invalid("rows", message));
            }
        }
        Ok(())
    }

    /// The newest row of each tax that is levied in a jurisdiction on a day, by its name.
    pub fn in_force(&self, jurisdiction: &Jurisdiction, day: Day) -> Vec<&TaxRow> {
        let mut newest: std::collections::BTreeMap<&str, &TaxRow> = std::collections::BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.jurisdiction == *jurisdiction && row.from <= day) {
            let known = newest.entry(&row.name).or_insert(row);
            if known.from < row.from {
                *known = row;
            }
        }
        newest.into_values().collect()
    }
}

impl SellerProfile {
    pub fn validate(&self) -> Result<()> {
        self.seller.validate()?;
        self.terms.validate().map_err(|error| within("terms", error))
    }
}

fn within(outer: &str, error: Error) -> Error {
    let param = error.param_name().map_or_else(|| outer.to_owned(), |param| format!("{outer}.{param}"));
    error.param(param)
}

impl BillingProfile {
    pub fn validate(&self) -> Result<()> {
        self.buyer.validate()?;
        if let Some(terms) = &self.terms {
            terms.validate().map_err(|error| within("terms", error))?;
        }
        let Some(exemption) = &self.exemption else { return Ok(()) };
        check_line("exemption.certificate", &exemption.certificate, LINE_MAX_CHARS)?;
        check_line("exemption.reason", &exemption.reason, LINE_MAX_CHARS)?;
        check_code("exemption.reason_code".to_owned(), exemption.reason_code.as_ref())
    }
}

impl InvoiceTax {
    /// The taxes on an invoice that comes to `total` in whole minor units, less `gifts`.
    pub fn new(treatments: Vec<TaxTreatment>, (total, gifts): (Nanos, Nanos), currency: Currency) -> Result<Self> {
        let base = total.checked_sub(gifts)?;
        let line = |treatment: TaxTreatment| {
            let amount = treatment.rate_ppm.of(base, currency)?;
            Ok(TaxLine { treatment, base, amount })
        };
        let lines = treatments.into_iter().map(line).collect::<Result<Vec<_>>>()?;
        let amount = Nanos::checked_sum(lines.iter().map(|line| line.amount))?;
        Ok(Self { gifts, lines, amount })
    }

    /// Computes everything again. `gifts_max` is what gifts can pay of the invoice.
    pub fn verify(&self, (total, gifts_max): (Nanos, Nanos), currency: Currency) -> Result<()> {
        let minor_unit = currency.minor_unit().get();
        if self.gifts.is_negative() || self.gifts > gifts_max || self.gifts.get() % minor_unit != 0 {
            return Err(mismatch(format!("gifts of {} lower a base of {gifts_max} at most", self.gifts)));
        }
        if self.lines.is_empty() || self.lines.len() > TAXES_MAX {
            return Err(mismatch(format!("an invoice has 1 to {TAXES_MAX} taxes, and not {}", self.lines.len())));
        }
        let base = total.checked_sub(self.gifts)?;
        for line in &self.lines {
            let TaxLine { treatment, .. } = line;
            let name = format!("{} of {}", treatment.name, treatment.jurisdiction);
            treatment.verify(&name)?;
            if line.base != base {
                return Err(mismatch(format!("the base of {name} is {base}, and the invoice says {}", line.base)));
            }
            let amount = treatment.rate_ppm.of(base, currency)?;
            if line.amount != amount {
                let rate = treatment.rate_ppm;
                return Err(mismatch(format!("{name} at {rate} % of {base} is {amount}, and the invoice says {}", line.amount)));
            }
        }
        let amount = Nanos::checked_sum(self.lines.iter().map(|line| line.amount))?;
        if amount != self.amount {
            return Err(mismatch(format!("the taxes add up to {amount}, and the invoice says {}", self.amount)));
        }
        Ok(())
    }

    /// What of each tax is given back once `credited` of an invoice's `total` is: in proportion, half to even. It grows
    /// with what is credited and ends with the whole tax, so credit notes take the difference to what came before.
    pub fn given_back(&self, (total, credited): (Nanos, Nanos), currency: Currency) -> Result<Vec<Nanos>> {
        if total <= Nanos::ZERO {
            return Ok(vec![Nanos::ZERO; self.lines.len()]);
        }
        let minor_unit = i128::from(currency.minor_unit().get());
        let part = |line: &TaxLine| {
            let dividend = i128::from(line.amount.get()) * i128::from(credited.get());
            nanos(divide_half_even(dividend, i128::from(total.get()) * minor_unit) * minor_unit)
        };
        self.lines.iter().map(part).collect()
    }
}

impl TaxTreatment {
    /// What every treatment keeps to.
    fn verify(&self, name: &str) -> Result<()> {
        let is_taxed = self.category == TaxCategory::Standard;
        if is_taxed == self.rate_ppm.is_zero() {
            return Err(mismatch(format!("{name} is of the category {} at {} %", self.category, self.rate_ppm)));
        }
        if self.category.needs_reason() && self.reason.is_none() {
            return Err(mismatch(format!("{name} is of the category {} and does not say why", self.category)));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tax_tests.rs"]
mod tests;
