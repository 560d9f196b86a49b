//! Invoice Detail of FOCUS 1.4: every line of the documents that were issued.
//!
//! The lines of an invoice are numbered as it has them: its lines of use, what a contract adds, what is billed in
//! advance, rounding, and taxes. A credit note has one line, and one more for what it gives back of taxes. Lines of a
//! number add up to the document of that number with its taxes, or there are none.
//!
//! A document says the same for ever, so its lines do: an invoice that was taken back by credit notes stays issued, since
//! the notes are documents beside it.
//!
//! Deliberately absent: drafts, which have no numbers; whether something was paid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::ProjectId;
use sublet_core::{Nanos, Timestamp};

use crate::advance::AdvanceLine;
use crate::canonical::canonical_json;
use crate::commitment::CommitmentLine;
use crate::day::Day;
use crate::document::DocumentNumber;
use crate::focus::{CREDIT_PLACE, CREDIT_TAX_PLACE, Category, ChargedHour, Credited, Statement, price_id};
use crate::focus_columns::meter;
use crate::focus_contract::CommitmentId;
use crate::invoice::{Invoice, InvoiceContent, InvoiceLine};
use crate::period::{BillingCalendar, PeriodKey};
use crate::sku::{PricingUnit, QuantityChange, SkuName};
use crate::tax::TaxLine;
use crate::time_of_use::BandName;

/// What invoices are due by where no terms are on them: they were paid with credit when they were used.
const NO_TERMS: &str = "Drawn from credit";

/// Names a line of a document: `INV-2026-000007/3`.
pub fn detail_id(number: DocumentNumber, place: u32) -> String {
    format!("{number}/{place}")
}

/// What sets lines of one project apart: the month of the use, the price list, the thing, and the band of its price.
type PlaceKey = (PeriodKey, PriceVersion, SkuName, Option<BandName>);

/// Where the lines of an invoice are, by their projects. There are at most [`crate::invoice::LINES_MAX`], and they are kept
/// while a month is exported: what many of them name is there once.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LinePlaces(BTreeMap<ProjectId, BTreeMap<PlaceKey, u32>>);

impl LinePlaces {
    pub fn of(content: &InvoiceContent) -> Result<Self> {
        let (mut versions, mut skus, mut bands) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut places: BTreeMap<ProjectId, BTreeMap<PlaceKey, u32>> = BTreeMap::new();
        for (index, line) in content.lines.iter().enumerate() {
            let key = (
                line.late.map_or(content.period.key, |late| late.period),
                shared(&mut versions, &line.price_version),
                shared(&mut skus, &line.sku),
                line.band.as_ref().map(|band| shared(&mut bands, band)),
            );
            places.entry(line.project.clone()).or_default().insert(key, place(index)?);
        }
        Ok(Self(places))
    }

    /// Of the line that an hour belongs to; the month is that of the use.
    pub(crate) fn find(&self, hour: &ChargedHour, period: PeriodKey) -> Option<u32> {
        let of_project = self.0.get(&hour.project)?;
        of_project.get(&(period, hour.price_version.clone(), hour.sku.clone(), hour.band.clone())).copied()
    }
}

/// The first of values that are equal: clones of it have one text.
fn shared<T: Ord + Clone>(known: &mut BTreeSet<T>, value: &T) -> T {
    if let Some(first) = known.get(value) {
        return first.clone();
    }
    known.insert(value.clone());
    value.clone()
}

/// Counted from 1.
fn place(index: usize) -> Result<u32> {
    let place = u32::try_from(index).ok().and_then(|index| index.checked_add(1));
    place.ok_or_else(|| Error::internal("an invoice has more lines than can be counted"))
}

/// Something that an invoice has beyond its lines of use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beyond {
    pub category: Category,
    pub description: String,
    pub amount: Nanos,
    pub place: u32,
    /// What it is about, where a contract adds it.
    pub commitment: Option<CommitmentId>,
    /// What a tax is on.
    pub base: Option<Nanos>,
    /// What sets it apart.
    grain: Vec<(&'static str, Value)>,
}

impl Beyond {
    fn adjustment(part: &'static str, description: String, amount: Nanos) -> Self {
        let (category, grain) = (Category::Adjustment, vec![("x_Part", json!(part))]);
        Self { category, description, amount, place: 0, commitment: None, base: None, grain }
    }

    pub(crate) fn rounding(amount: Nanos) -> Self {
        let description = "rounding of the invoice to whole minor units, with what was carried over".to_owned();
        Self::adjustment("rounding", description, amount)
    }

    fn of_contract(part: &'static str, description: String, (amount, of): (Nanos, CommitmentId)) -> Self {
        let mut added = Self::adjustment(part, description, amount);
        added.grain.push(("ContractId", json!(of.contract)));
        added.grain.push(("x_ContractCommitmentId", json!(of.to_string())));
        Self { commitment: Some(of), ..added }
    }

    fn of_commitment(line: &CommitmentLine) -> Result<Vec<Self>> {
        let id = || CommitmentId { contract: line.contract.clone(), number: line.number };
        let of = format!("the commitment of {} to {}", line.first, line.last);
        Ok([
            ("drawdown", format!("use that was paid in advance with {of}"), line.drawn().checked_neg()?),
            ("shortfall", format!("missing to {of}"), line.shortfall),
            ("roll-over", format!("used up of what was missing before {of}"), line.roll_over_used.checked_neg()?),
            ("overage", format!("use beyond {of}, against the price that it was charged at"), line.overage()),
            ("exit-fee", "for leaving the contract".to_owned(), line.exit_fee),
        ]
        .map(|(part, description, amount)| Self::of_contract(part, description, (amount, id())))
        .into())
    }

    fn of_advance(line: &AdvanceLine) -> [Self; 2] {
        let id = || CommitmentId { contract: line.contract.clone(), number: line.number };
        [("fee", line.fee), ("commitment", line.commitment)].map(|(part, amount)| {
            let description = format!("{part} for {} to {}, in advance", line.first, line.last);
            Self::of_contract(part, description, (amount, id()))
        })
    }

    fn of_tax(line: &TaxLine) -> Self {
        let tax = &line.treatment;
        let description = format!("{} of {} at {} % of {}", tax.name, tax.jurisdiction, tax.rate_ppm, line.base);
        let grain = vec![
            ("x_Jurisdiction", json!(tax.jurisdiction.to_string())),
            ("x_Tax", json!(tax.name)),
            ("x_TaxRatePercent", json!(tax.rate_ppm.to_string())),
        ];
        let base = Some(line.base);
        Self { category: Category::Tax, description, amount: line.amount, place: 0, commitment: None, base, grain }
    }
}

/// What an invoice has beyond its lines of use, with what it adds to them; what adds nothing is left out.
pub fn beyond_lines(content: &InvoiceContent) -> Result<Vec<Beyond>> {
    let mut parts = match &content.commitment {
        Some(line) => Beyond::of_commitment(line)?,
        None => Vec::new(),
    };
    parts.extend(content.advance.iter().flat_map(Beyond::of_advance));
    parts.push(Beyond::rounding(content.total.checked_sub(content.subtotal)?));
    parts.extend(content.tax.iter().flat_map(|tax| &tax.lines).map(Beyond::of_tax));
    parts.retain(|part| !part.amount.is_zero());
    for (index, part) in parts.iter_mut().enumerate() {
        part.place = place(content.lines.len().saturating_add(index))?;
    }
    Ok(parts)
}

/// A line of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvoiceDetail {
    pub head: Arc<DocumentHead>,
    pub category: Category,
    pub description: String,
    pub billed: Nanos,
    pub place: u32,
    pub grain: String,
    /// Of something that is counted.
    pub counted: Option<(QuantityChange, PricingUnit)>,
    /// What a tax is on.
    pub base: Option<Nanos>,
}

/// What all lines of a document have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DocumentHead {
    pub of: Statement,
    pub number: DocumentNumber,
    /// The invoice that it changes, or itself.
    pub reference: DocumentNumber,
    pub issued_at: Timestamp,
    pub terms: String,
    pub due_on: Option<Day>,
    pub due_at: Option<Timestamp>,
    pub purchase_order: Option<String>,
}

/// The lines of an issued invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvoiceDetails {
    head: Arc<DocumentHead>,
    content: InvoiceContent,
    beyond: Vec<Beyond>,
}

impl InvoiceDetails {
    /// Refuses an invoice whose lines do not add up to it.
    pub fn new(of: &Statement, invoice: Invoice) -> Result<Self> {
        let (Some(number), Some(issued_at)) = (invoice.number, invoice.state.issued_at()) else {
            return Err(Error::internal("a draft has no lines that are invoiced"));
        };
        let due_on = invoice.due_on()?;
        let calendar = BillingCalendar::new(&invoice.content.account.zone)?;
        let content = invoice.content;
        let beyond = beyond_lines(&content)?;
        content.verify()?;
        let parts = content.lines.iter().map(|line| line.charges.amount).chain(beyond.iter().map(|part| part.amount));
        let (sum, gross) = (Nanos::checked_sum(parts)?, content.gross()?);
        if sum != gross {
            let message = format!("the lines of {number} add up to {sum}, and with its taxes it comes to {gross}");
            return Err(Error::new(ErrorCode::LedgerMismatch, message));
        }
        let head = Arc::new(DocumentHead {
            of: of.head(),
            number,
            reference: number,
            issued_at,
            terms: content.terms.as_ref().map_or_else(|| NO_TERMS.to_owned(), |terms| format!("Net {}", terms.net_days)),
            due_on,
            due_at: due_on.map(|day| calendar.end_of(day)).transpose()?,
            purchase_order: content.buyer.as_ref().and_then(|buyer| buyer.purchase_order.clone()),
        });
        Ok(Self { head, content, beyond })
    }

    /// Some lines behind so many; none at the end.
    pub fn rows(&self, after: usize, most: usize) -> Result<Vec<InvoiceDetail>> {
        let lines = self.content.lines.iter().enumerate().skip(after).take(most);
        let mut rows = lines.map(|(index, line)| self.line(index, line)).collect::<Result<Vec<_>>>()?;
        let before = after.saturating_add(rows.len()).saturating_sub(self.content.lines.len());
        let room = most.saturating_sub(rows.len());
        for part in self.beyond.iter().skip(before).take(room) {
            rows.push(self.part(part)?);
        }
        Ok(rows)
    }

    fn line(&self, index: usize, line: &InvoiceLine) -> Result<InvoiceDetail> {
        let band = line.band.as_ref().map_or_else(String::new, |band| format!(" ({band})"));
        let late = line.late.map_or_else(String::new, |late| format!(", used in {}", late.period));
        let mut grain = vec![
            ("SkuId", json!(line.sku.to_string())),
            ("SkuMeter", json!(meter(&line.sku))),
            ("SkuPriceId", json!(price_id(&line.price_version, &line.sku, line.band.as_ref()))),
            ("SubAccountId", json!(line.project)),
        ];
        grain.extend(line.late.map(|late| ("x_LateOf", json!(late.period))));
        Ok(InvoiceDetail {
            head: Arc::clone(&self.head),
            category: Category::Usage,
            description: format!("{}{band} at {}{late}", line.sku, line.price),
            billed: line.charges.amount,
            place: place(index)?,
            grain: object(grain)?,
            counted: Some((line.quantity, line.unit)),
            base: None,
        })
    }

    fn part(&self, part: &Beyond) -> Result<InvoiceDetail> {
        Ok(InvoiceDetail {
            head: Arc::clone(&self.head),
            category: part.category,
            description: part.description.clone(),
            billed: part.amount,
            place: part.place,
            grain: object(part.grain.clone())?,
            counted: None,
            base: part.base,
        })
    }
}

/// The lines of a credit note.
pub fn credit_details(of: &Statement, note: &Credited) -> Result<Vec<InvoiceDetail>> {
    let head = Arc::new(DocumentHead {
        of: of.head(),
        number: note.number,
        reference: note.invoice,
        issued_at: note.issued_at,
        terms: "Given back as credit".to_owned(),
        due_on: None,
        due_at: None,
        purchase_order: None,
    });
    let rows = of.credit(note)?.into_iter().map(|row| {
        let (place, part) = match row.category {
            Category::Tax => (CREDIT_TAX_PLACE, "tax"),
            Category::Credit | Category::Usage | Category::Adjustment => (CREDIT_PLACE, "credit"),
        };
        Ok(InvoiceDetail {
            head: Arc::clone(&head),
            category: row.category,
            description: row.description,
            billed: row.billed,
            place,
            grain: object(vec![("x_Part", json!(part))])?,
            counted: None,
            base: None,
        })
    });
    rows.collect()
}

fn object(members: Vec<(&'static str, Value)>) -> Result<String> {
    let members: Map<String, Value> = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    canonical_json(&members)
}

#[cfg(test)]
#[path = "focus_invoice_tests.rs"]
mod tests;
