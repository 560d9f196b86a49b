//! The rows and sums of a document, in whole minor units that add up.
//!
//! Amounts of the books are exact to a nano-unit; accounting programs take cents. So the amount of each row is rounded
//! by the largest remainder: every row is its exact amount rounded down, and the cents that are missing to the rounded
//! sum go to the rows that lost most. No row is off by a cent or more, and the rows add up to the sum of the lines
//! rounded half to even. What is left to the invoice's total is the rounding that is carried between invoices, a charge
//! or an allowance of at most a cent on the document as a whole.
//!
//! A document has a bounded number of rows: an invoice with more lines is summed by project and thing, then by family.
//!
//! Deliberately absent: figures of its own. Total, gifts and taxes are those of the invoice.

use std::collections::BTreeMap;

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, Nanos};
use sublet_money::advance::AdvanceLine;
use sublet_money::commitment::CommitmentLine;
use sublet_money::invoice::{Invoice, InvoiceContent, InvoiceLine, InvoiceState};
use sublet_money::sku::{PricingUnit, SkuName};

/// Most rows of a document.
pub const ROWS_MAX: usize = 2_000;

/// How much of something a row is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// `price` is for one pricing unit, where it is the same for all of them.
    Counted { quantity: i64, unit: PricingUnit, price: Option<Nanos> },
    /// Something that is charged, or given back, once.
    Once,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What it stands under: its project, or its contract.
    pub heading: Option<String>,
    pub what: String,
    pub details: Vec<String>,
    pub measure: Measure,
    pub exact: Nanos,
    /// In whole minor units.
    pub amount: Nanos,
}

/// All figures of a document. Sums are in whole minor units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    pub currency: Currency,
    pub rows: Vec<Row>,
    /// The rows sum up lines of the invoice.
    pub is_summary: bool,
    /// What the rows add up to.
    pub lines: Nanos,
    /// From there to the total: rounding that is carried between invoices.
    pub rounding: Nanos,
    pub gifts: Nanos,
    /// Total less gifts: what taxes are on.
    pub without_tax: Nanos,
    pub tax: Nanos,
    /// Of each of the invoice's taxes.
    pub taxes: Vec<Nanos>,
    pub with_tax: Nanos,
    pub prepaid: Nanos,
    pub payable: Nanos,
    /// By credit notes, with taxes, of what is payable: documents of their own.
    pub taken_back: Nanos,
}

/// What was done about an invoice since it was issued.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Settlement {
    /// Of its total, by credit notes.
    pub credited: Nanos,
    /// The same until it was paid.
    pub credited_when_paid: Nanos,
    /// With taxes, less what was credited.
    pub due: Nanos,
}

/// How coarse rows are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grain {
    Line,
    Thing,
    Project,
    Family,
}

impl Figures {
    /// Those of an invoice. `price` gives the price of a line for one pricing unit, where there is one.
    pub fn of_invoice(invoice: &Invoice, settlement: Settlement, price: impl Fn(&InvoiceLine) -> Option<Nanos>) -> Result<Self> {
        let content = &invoice.content;
        let mut grain = Grain::Line;
        let mut rows = rows(content, grain, &price)?;
        for coarser in [Grain::Thing, Grain::Project, Grain::Family] {
            if rows.len() > ROWS_MAX {
                grain = coarser;
                rows = self::rows(content, grain, &price)?;
            }
        }
        if let Some(part) = &content.commitment {
            rows.extend(commitment_rows(part)?);
        }
        rows.extend(content.advance.iter().flat_map(advance_rows));
        if rows.is_empty() {
            rows.push(nothing());
        }
        let currency = content.account.currency;
        let lines = content.subtotal.round_half_even(currency.minor_unit().get())?;
        apportion(&mut rows, lines, currency)?;
        let gifts = content.tax.as_ref().map_or(Nanos::ZERO, |tax| tax.gifts);
        let with_tax = content.gross()?.checked_sub(gifts)?;
        let payable = payable(invoice, settlement)?.min(with_tax);
        Ok(Self {
            currency,
            rows,
            is_summary: grain != Grain::Line,
            lines,
            rounding: content.total.checked_sub(lines)?,
            gifts,
            without_tax: content.total.checked_sub(gifts)?,
            tax: content.tax_amount(),
            taxes: content.tax.as_ref().map_or_else(Vec::new, |tax| tax.lines.iter().map(|line| line.amount).collect()),
            with_tax,
            prepaid: with_tax.checked_sub(payable)?,
            payable,
            taken_back: taken_back(invoice, settlement.credited)?.min(payable),
        })
    }
}

/// What an invoice asks for: what is still to be paid, before what credit notes took back, which are documents of their
/// own. Nothing of a draft. Of one that was paid, what notes took back before it was: that much was never paid.
fn payable(invoice: &Invoice, settlement: Settlement) -> Result<Nanos> {
    match invoice.state {
        InvoiceState::Draft => Ok(Nanos::ZERO),
        InvoiceState::Issued { .. } => settlement.due.checked_add(taken_back(invoice, settlement.credited)?),
        InvoiceState::Void { paid_at: None, .. } => taken_back(invoice, settlement.credited),
        InvoiceState::Paid { .. } | InvoiceState::Void { .. } => taken_back(invoice, settlement.credited_when_paid),
    }
}

/// So much of the total with what it takes back of taxes.
fn taken_back(invoice: &Invoice, credited: Nanos) -> Result<Nanos> {
    let taxes = Nanos::checked_sum(invoice.content.tax_given_back(credited)?)?;
    credited.checked_add(taxes)
}

fn rows(content: &InvoiceContent, grain: Grain, price: &impl Fn(&InvoiceLine) -> Option<Nanos>) -> Result<Vec<Row>> {
    if grain == Grain::Line {
        return Ok(content.lines.iter().map(|line| row(line, price(line))).collect());
    }
    let mut sums: BTreeMap<(Option<String>, String), (Row, u64)> = BTreeMap::new();
    for line in &content.lines {
        let heading = (grain != Grain::Family).then(|| heading(line));
        let what = if grain == Grain::Thing { what(&line.sku) } else { format!("All {}", unit_name(line.unit)) };
        let key = (heading.clone(), what.clone());
        let (sum, lines) = sums.entry(key).or_insert_with(|| {
            let measure = Measure::Counted { quantity: 0, unit: line.unit, price: None };
            (Row { heading, what, details: Vec::new(), measure, exact: Nanos::ZERO, amount: Nanos::ZERO }, 0)
        });
        if let Measure::Counted { quantity, .. } = &mut sum.measure {
            *quantity = quantity.checked_add(line.quantity.get()).ok_or_else(too_large)?;
        }
        sum.exact = sum.exact.checked_add(line.charges.amount)?;
        *lines += 1;
    }
    let summed = |(mut row, lines): (Row, u64)| {
        row.details.push(format!("{lines} lines of the invoice"));
        row
    };
    Ok(sums.into_values().map(summed).collect())
}

fn too_large() -> Error {
    Error::new(ErrorCode::AmountOverflow, "the quantities of an invoice add up to more than can be counted")
}

fn heading(line: &InvoiceLine) -> String {
    format!("Project {}", line.project)
}

fn what(sku: &SkuName) -> String {
    sku.words()
}

const fn unit_name(unit: PricingUnit) -> &'static str {
    match unit {
        PricingUnit::MillionTokens => "tokens",
        PricingUnit::Request => "requests",
        PricingUnit::Start => "starts",
        PricingUnit::ProjectMonth => "months of projects",
        PricingUnit::Fee => "fees",
        PricingUnit::GibibyteMonth => "byte-hours",
        PricingUnit::Gibibyte => "bytes",
        PricingUnit::DeviceHour => "device time",
    }
}

fn row(line: &InvoiceLine, price: Option<Nanos>) -> Row {
    let mut details = vec![format!("Price: {}", line.price)];
    if let Some(band) = &line.band {
        details.push(format!("Band: {band}"));
    }
    if let Some(late) = &line.late {
        details.push(format!("Used in {}, known after it was closed", late.period));
    }
    Row {
        heading: Some(heading(line)),
        what: what(&line.sku),
        details,
        measure: Measure::Counted { quantity: line.quantity.get(), unit: line.unit, price },
        exact: line.charges.amount,
        amount: Nanos::ZERO,
    }
}

/// What a contract's part adds; nothing where it adds nothing.
fn commitment_rows(part: &CommitmentLine) -> Result<Vec<Row>> {
    let of = format!("commitment of {} to {}", part.first, part.last);
    let added = [
        (format!("Paid in advance with the {of}"), part.drawn().checked_neg()?),
        (format!("Missing to the {of}"), part.shortfall),
        (format!("Used up of what was missing before, {of}"), part.roll_over_used.checked_neg()?),
        (format!("Use beyond the {of}, against the price that it was charged at"), part.overage()),
        ("For leaving the contract".to_owned(), part.exit_fee),
    ];
    let rows = added.into_iter().filter(|(_, exact)| !exact.is_zero());
    let heading = format!("Contract {}", part.contract);
    Ok(rows
        .map(|(what, exact)| Row {
            heading: Some(heading.clone()),
            what,
            details: Vec::new(),
            measure: Measure::Once,
            exact,
            amount: Nanos::ZERO,
        })
        .collect())
}

/// What is billed in advance.
fn advance_rows(line: &AdvanceLine) -> impl Iterator<Item = Row> {
    let added = [("Fee", line.fee), ("Commitment", line.commitment)].into_iter().filter(|(_, exact)| !exact.is_zero());
    added.map(|(name, exact)| Row {
        heading: Some(format!("Contract {}", line.contract)),
        what: format!("{name} for {} to {}, in advance", line.first, line.last),
        details: Vec::new(),
        measure: Measure::Once,
        exact,
        amount: Nanos::ZERO,
    })
}

/// A document has a row at least (BR-16).
fn nothing() -> Row {
    Row {
        heading: None,
        what: "Nothing was used in this period".to_owned(),
        details: Vec::new(),
        measure: Measure::Once,
        exact: Nanos::ZERO,
        amount: Nanos::ZERO,
    }
}

/// Rounds rows to whole minor units that add up to `sum`, by the largest remainder; of equal ones the first.
fn apportion(rows: &mut [Row], sum: Nanos, currency: Currency) -> Result<()> {
    let unit = currency.minor_unit().get();
    for row in &mut *rows {
        row.amount = Nanos::new(row.exact.get() - row.exact.get().rem_euclid(unit));
    }
    let missing = sum.checked_sub(Nanos::checked_sum(rows.iter().map(|row| row.amount))?)?;
    let mut largest: Vec<usize> = (0..rows.len()).collect();
    largest.sort_by_key(|index| rows.get(*index).map(|row| (std::cmp::Reverse(row.exact.get().rem_euclid(unit)), *index)));
    let units = usize::try_from(missing.get() / unit).ok().filter(|units| *units <= rows.len());
    let units = units.ok_or_else(|| Error::new(ErrorCode::LedgerMismatch, "the rows of a document do not add up"))?;
    for index in largest.into_iter().take(units) {
        if let Some(row) = rows.get_mut(index) {
            row.amount = row.amount.checked_add(Nanos::new(unit))?;
        }
    }
    Ok(())
}
