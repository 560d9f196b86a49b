//! What invoices and credit notes of some months come to, tax by tax: what a return of taxes is filled in from.
//!
//! A document counts in the month in which it was issued. Invoices and credit notes are kept apart, since a return asks
//! for both; what a credit note takes off each base is in proportion to what it takes off the invoice, as its taxes are.
//!
//! Deliberately absent: forms of authorities, and what was paid in in advance.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, Nanos};

use crate::invoice::{InvoiceContent, part_of};
use crate::period::{BillingCalendar, Interval, PeriodKey};
use crate::place::Jurisdiction;
use crate::tax::{TaxCategory, TaxLine, TaxRate};

/// A month, or a quarter of a year: `2026-03`, `2026-Q1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaxPeriod {
    first: PeriodKey,
    months: u32,
}

impl TaxPeriod {
    pub const fn month(first: PeriodKey) -> Self {
        Self { first, months: 1 }
    }
    /// From when to when it is, in a zone.
    pub fn interval(&self, calendar: &BillingCalendar) -> Result<Interval> {
        let last = self.first.plus(self.months - 1)?;
        let (starts_at, ends_at) = (calendar.period(self.first)?.interval.starts_at, calendar.period(last)?.interval.ends_at);
        Ok(Interval { starts_at, ends_at })
    }
}

impl fmt::Display for TaxPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.months {
            3 => write!(f, "{:04}-Q{}", self.first.year(), (self.first.month() + 2) / 3),
            _ => write!(f, "{}", self.first),
        }
    }
}

impl FromStr for TaxPeriod {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let quarter = |text: &str| -> Option<Self> {
            let (year, quarter) = text.split_once("-Q")?;
            let month = match quarter {
                "1" => "01",
                "2" => "04",
                "3" => "07",
                "4" => "10",
                _ => return None,
            };
            Some(Self { first: format!("{year}-{month}").parse().ok()?, months: 3 })
        };
        quarter(text).map_or_else(|| text.parse().map(Self::month), Ok).map_err(|_| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is neither a month nor a quarter"))
                .param("period")
                .alternative("write it like 2026-03 or 2026-Q1")
        })
    }
}

/// What lines are kept apart by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TaxKey {
    pub currency: Currency,
    pub jurisdiction: Jurisdiction,
    /// `VAT`, `GST`.
    pub name: String,
    pub category: TaxCategory,
    pub rate: TaxRate,
}

/// What documents of one kind come to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TaxSums {
    pub documents: u64,
    pub base: Nanos,
    pub tax: Nanos,
}

impl TaxSums {
    fn add(&mut self, base: Nanos, tax: Nanos) -> Result<()> {
        self.documents += 1;
        self.base = self.base.checked_add(base)?;
        self.tax = self.tax.checked_add(tax)?;
        Ok(())
    }
}

/// One tax at one rate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TaxFigures {
    pub invoiced: TaxSums,
    pub credited: TaxSums,
}

impl TaxFigures {
    pub fn base(&self) -> Result<Nanos> {
        self.invoiced.base.checked_sub(self.credited.base)
    }
    pub fn tax(&self) -> Result<Nanos> {
        self.invoiced.tax.checked_sub(self.credited.tax)
    }
}

/// All taxes, in a fixed order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TaxLines(BTreeMap<TaxKey, TaxFigures>);

impl TaxLines {
    pub fn iter(&self) -> impl Iterator<Item = (&TaxKey, &TaxFigures)> {
        self.0.iter()
    }

    fn figures(&mut self, line: &TaxLine, currency: Currency) -> &mut TaxFigures {
        let tax = &line.treatment;
        let key = TaxKey {
            currency,
            jurisdiction: tax.jurisdiction.clone(),
            name: tax.name.clone(),
            category: tax.category,
            rate: tax.rate_ppm,
        };
        self.0.entry(key).or_default()
    }

    /// An invoice that was issued. One without taxes adds nothing.
    pub fn add_invoice(&mut self, content: &InvoiceContent) -> Result<()> {
        for line in content.tax.iter().flat_map(|tax| &tax.lines) {
            self.figures(line, content.account.currency).invoiced.add(line.base, line.amount)?;
        }
        Ok(())
    }

    /// A credit note: `before` and `after` are what was credited of its invoice without it and with it.
    pub fn add_credit_note(&mut self, content: &InvoiceContent, (before, after): (Nanos, Nanos)) -> Result<()> {
        let currency = content.account.currency;
        let taxes = content.tax_given_back(before)?.into_iter().zip(content.tax_given_back(after)?);
        for (line, (tax_before, tax_after)) in content.tax.iter().flat_map(|tax| &tax.lines).zip(taxes) {
            let base = |credited| part_of(line.base, (credited, content.total), currency);
            let base = base(after)?.checked_sub(base(before)?)?;
            self.figures(line, currency).credited.add(base, tax_after.checked_sub(tax_before)?)?;
        }
        Ok(())
    }

    /// What each jurisdiction is owed of it.
    pub fn by_jurisdiction(&self) -> Result<BTreeMap<(Currency, Jurisdiction), Nanos>> {
        let mut sums: BTreeMap<(Currency, Jurisdiction), Nanos> = BTreeMap::new();
        for (key, figures) in &self.0 {
            let sum = sums.entry((key.currency, key.jurisdiction.clone())).or_default();
            *sum = sum.checked_add(figures.tax()?)?;
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_month_or_a_quarter_of_a_zone() {
        let berlin = BillingCalendar::new("Europe/Berlin").unwrap();
        for (text, starts_at, ends_at) in [
            ("2026-03", "2026-02-28T23:00:00.000000Z", "2026-03-31T22:00:00.000000Z"),
            ("2026-Q1", "2025-12-31T23:00:00.000000Z", "2026-03-31T22:00:00.000000Z"),
            ("2026-Q4", "2026-09-30T22:00:00.000000Z", "2026-12-31T23:00:00.000000Z"),
        ] {
            let period: TaxPeriod = text.parse().unwrap();
            let interval = period.interval(&berlin).unwrap();
            assert_eq!(period.to_string(), text);
            assert_eq!((interval.starts_at.to_string(), interval.ends_at.to_string()), (starts_at.to_owned(), ends_at.to_owned()));
        }
        for text in ["", "2026", "2026-Q0", "2026-Q5", "2026-q1", "2026-13", "26-Q1", "2026-Q1 "] {
            assert!(text.parse::<TaxPeriod>().is_err(), "{text:?}");
        }
    }
}
