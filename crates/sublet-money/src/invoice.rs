//! Invoices: from a period's lines to a document that adds up to the last nano-unit.
//!
//! A draft is a function of its input: the same charges give the same draft, byte for byte, in
//! whatever order they are offered. The subtotal is the exact sum of the lines. The total is
//! rounded to minor units once, half to even, and the difference is carried to the next invoice
//! in an account; no line is ever patched. Over time the carry stays within half a minor unit.
//!
//! What was used in a month but came to be known after that month was closed is a line of its own in the month
//! that is open: the same line goes on where the closed month left it, with its tiers, so that both invoices
//! together say what one would have said.
//!
//! A contract that runs in the month has a part of its own ([`crate::commitment`]), added to the lines.
//!
//! Where the seller is on file the invoice names both parties and has taxes ([`crate::tax`]): on its total less gifts,
//! which are promotional credit that pays it. The total stays what the lines come to; with the taxes it is the gross.
//!
//! Deliberately absent: what was paid. What is invoiced here was drawn from the account's credit when it
//! was used; what of it is still to be paid is [`crate::receivable`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{InvoiceId, OrganizationId, ProjectId};
use sublet_core::money::divide_half_even;
use sublet_core::{Currency, Nanos, Timestamp};

use crate::advance::AdvanceLine;
use crate::canonical::{canonical_json, decimal, sha256_hex};
use crate::commitment::CommitmentLine;
use crate::day::Day;
use crate::document::DocumentNumber;
use crate::party::{Buyer, PaymentTerms, Seller};
use crate::period::{BillingCalendar, Period, PeriodKey};
use crate::posting::Fact;
use crate::price_book::PriceListVersion;
use crate::rating::{LineKey, LineState, verify_line};
use crate::rerate::RerateNote;
use crate::sku::{PricingUnit, Quantity, QuantityChange, SkuName};
use crate::tax::{InvoiceTax, TaxCategory, TaxTreatment};
use crate::time_of_use::BandName;

/// Most lines of one invoice.
pub const LINES_MAX: usize = 100_000;

/// Whom an invoice is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InvoiceAccount {
    pub organization: OrganizationId,
    /// As the customer writes it.
    pub name: String,
    pub currency: Currency,
    /// IANA name of the zone whose months are billed.
    pub zone: String,
}

/// A line as far as one invoice has it, with the charges that make it up, as the books have them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargedLine {
    pub key: LineKey,
    /// What earlier invoices have of it: nothing, but where its month is closed.
    pub before: LineState,
    pub state: LineState,
    /// How many charges there are, and what they add up to.
    pub charges: ChargeSum,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ChargeSum {
    pub count: u64,
    #[serde(with = "decimal")]
    pub amount: Nanos,
}

/// A line as it is invoiced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InvoiceLine {
    pub project: ProjectId,
    pub sku: SkuName,
    /// The band of a price by time of use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub band: Option<BandName>,
    pub price_version: PriceVersion,
    /// As operators write it: `0.15 EUR per 1M tokens`.
    pub price: String,
    /// Negative where more use was taken off the line than came to it.
    pub quantity: QuantityChange,
    pub unit: PricingUnit,
    pub charges: ChargeSum,
    /// For use in a month that was closed before it was known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub late: Option<Late>,
}

/// The part of a closed month's line that came late.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Late {
    /// The month of the use.
    pub period: PeriodKey,
    /// What of the line was invoiced before: its tiers go on from here.
    pub quantity_before: Quantity,
    #[serde(with = "decimal")]
    pub charged_before: Nanos,
}

/// What an invoice says, before it is issued and after.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InvoiceContent {
    pub account: InvoiceAccount,
    pub period: Period,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seller: Option<Box<Seller>>,
    /// Absent where nobody said how the account is invoiced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub buyer: Option<Box<Buyer>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<PaymentTerms>,
    /// There is one if and only if there is a seller.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tax: Option<InvoiceTax>,
    /// By project, sku, price version and band; what came late after the rest.
    pub lines: Vec<InvoiceLine>,
    /// Why lines are of other price lists than held when they were used, in the order in which that was applied.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub rerates: Vec<RerateNote>,
    /// The part of the contract that runs in the period.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commitment: Option<CommitmentLine>,
    /// What a contract bills in advance for the period that begins when this one ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub advance: Option<AdvanceLine>,
    /// The exact sum of the lines and the contract's parts.
    #[serde(with = "decimal")]
    pub subtotal: Nanos,
    /// What earlier invoices asked for ahead of exact charges; below zero if behind.
    #[serde(with = "decimal")]
    pub carry_before: Nanos,
    /// `subtotal − carry_before`, rounded to minor units half to even.
    #[serde(with = "decimal")]
    pub total: Nanos,
    /// `carry_before + total − subtotal`.
    #[serde(with = "decimal")]
    pub carry_after: Nanos,
}

/// Who sells and who buys, and by when it is paid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parties {
    pub seller: Seller,
    pub buyer: Option<Buyer>,
    pub terms: PaymentTerms,
}

/// Where an invoice is in its life. Content never changes after `Issued`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InvoiceState {
    Draft,
    Issued {
        issued_at: Timestamp,
    },
    Paid {
        issued_at: Timestamp,
        paid_at: Timestamp,
    },
    /// `paid_at` where it was paid before all of it was credited.
    Void {
        issued_at: Timestamp,
        paid_at: Option<Timestamp>,
        voided_at: Timestamp,
    },
}

/// An invoice. A draft has no number; an issued one keeps its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invoice {
    pub id: InvoiceId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub number: Option<DocumentNumber>,
    pub state: InvoiceState,
    pub content: InvoiceContent,
}

/// Drafts an invoice. `versions` are the price list versions that the lines name.
///
/// Every line is rated again: a line whose charges do not add up to the rounding of its quantity
/// is a broken book and no invoice.
pub fn draft(
    account: InvoiceAccount,
    period: Period,
    carry_before: Nanos,
    lines: &[ChargedLine],
    versions: &[&PriceListVersion],
) -> Result<InvoiceContent> {
    if lines.len() > LINES_MAX {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            format!("an invoice has at most {LINES_MAX} lines, not {}", lines.len()),
        ));
    }
    let mut sorted: Vec<&ChargedLine> = lines.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut seen = BTreeSet::new();
    let mut invoiced = Vec::with_capacity(sorted.len());
    for line in sorted {
        if !seen.insert(&line.key) {
            return Err(mismatch(format!("line {} is there twice", line.key)));
        }
        check_belongs(line, &account, &period)?;
        let version = versions.iter().find(|version| *version.version() == line.key.price_version).ok_or_else(|| {
            Error::new(ErrorCode::UnknownPrice, "an invoice line names a price list version that was not given")
                .context(line.key.to_string())
        })?;
        if let Some(line) = invoice_line(line, version, (&period, account.currency))? {
            invoiced.push(line);
        }
    }
    invoiced.sort_by_cached_key(|line| {
        (line.late, line.project.clone(), line.sku.to_string(), line.price_version.clone(), line.band.clone())
    });
    let content = InvoiceContent {
        account,
        period,
        seller: None,
        buyer: None,
        terms: None,
        tax: None,
        lines: invoiced,
        rerates: Vec::new(),
        commitment: None,
        advance: None,
        subtotal: Nanos::ZERO,
        carry_before,
        total: Nanos::ZERO,
        carry_after: Nanos::ZERO,
    };
    content.added_up()
}

fn check_belongs(line: &ChargedLine, account: &InvoiceAccount, period: &Period) -> Result<()> {
    let key = &line.key;
    if key.organization != account.organization || key.period > period.key {
        return Err(mismatch(format!("line {key} is not of {} in {}", account.organization, period.key)));
    }
    if key.period == period.key && line.before != LineState::default() {
        return Err(mismatch(format!("part of line {key} was invoiced before its month was over")));
    }
    Ok(())
}

/// `None` for a line on which nothing was metered.
fn invoice_line(
    line: &ChargedLine,
    version: &PriceListVersion,
    (period, currency): (&Period, Currency),
) -> Result<Option<InvoiceLine>> {
    if version.currency() != currency {
        return Err(Error::new(
            ErrorCode::CurrencyMismatch,
            format!("a line is priced in {}, the account is kept in {currency}", version.currency()),
        ));
    }
    let price = version.get(&line.key.sku)?.price_in(line.key.band.as_ref())?;
    verify_line(line.before, price)?;
    verify_line(line.state, price)?;
    let charged = line.state.charged.checked_sub(line.before.charged)?;
    if line.charges.amount != charged {
        return Err(mismatch(format!(
            "the charges of a line of {} add up to {}, and the line was charged {charged}",
            line.key.sku, line.charges.amount
        )));
    }
    let quantity = line.state.quantity.since(line.before.quantity);
    if quantity.is_zero() && line.charges.count == 0 {
        return Ok(None);
    }
    let late = (line.key.period < period.key).then_some(Late {
        period: line.key.period,
        quantity_before: line.before.quantity,
        charged_before: line.before.charged,
    });
    Ok(Some(InvoiceLine {
        project: line.key.project.clone(),
        sku: line.key.sku.clone(),
        band: line.key.band.clone(),
        price_version: line.key.price_version.clone(),
        price: price.text(currency),
        quantity,
        unit: price.unit,
        charges: line.charges,
        late,
    }))
}

fn mismatch(message: String) -> Error {
    Error::new(ErrorCode::LedgerMismatch, message)
}

impl InvoiceContent {
    /// SHA-256 of the canonical JSON: two drafts are the same if and only if this is.
    pub fn content_hash(&self) -> Result<String> {
        Ok(sha256_hex(&canonical_json(self)?))
    }

    /// With what says why lines are of other lists. Nothing is added by it.
    #[must_use]
    pub fn with_rerates(self, rerates: Vec<RerateNote>) -> Self {
        Self { rerates, ..self }
    }

    /// With a contract's part.
    pub fn with_commitment(self, commitment: CommitmentLine) -> Result<Self> {
        Self { commitment: Some(commitment), ..self }.added_up()
    }

    /// With what is billed in advance.
    pub fn with_advance(self, advance: AdvanceLine) -> Result<Self> {
        Self { advance: Some(advance), ..self }.added_up()
    }

    /// With parties and terms, and the taxes on what it comes to. `gifts` is promotional credit that is there for it.
    pub fn with_parties(self, parties: Parties, treatments: Vec<TaxTreatment>, gifts: Nanos) -> Result<Self> {
        let gifts = gifts.max(Nanos::ZERO).min(self.gifts_max()?);
        let minor_unit = self.account.currency.minor_unit().get();
        let gifts = Nanos::new(gifts.get() - gifts.get() % minor_unit);
        let tax = InvoiceTax::new(treatments, (self.total, gifts), self.account.currency)?;
        let Parties { seller, buyer, terms } = parties;
        Ok(Self { seller: Some(Box::new(seller)), buyer: buyer.map(Box::new), terms: Some(terms), tax: Some(tax), ..self })
    }

    /// What gifts can pay of it: what was used and was not paid in advance, and nothing by contract.
    fn gifts_max(&self) -> Result<Nanos> {
        let drawn = self.commitment.as_ref().map_or(Nanos::ZERO, CommitmentLine::drawn);
        Ok(self.total.min(self.charged()?.checked_sub(drawn)?).max(Nanos::ZERO))
    }

    /// All taxes; nothing where there are none.
    pub fn tax_amount(&self) -> Nanos {
        self.tax.as_ref().map_or(Nanos::ZERO, |tax| tax.amount)
    }

    /// The total with its taxes.
    pub fn gross(&self) -> Result<Nanos> {
        self.total.checked_add(self.tax_amount())
    }

    /// What of each tax is given back once so much of the total was credited.
    pub fn tax_given_back(&self, credited: Nanos) -> Result<Vec<Nanos>> {
        match &self.tax {
            Some(tax) => tax.given_back((self.total, credited), self.account.currency),
            None => Ok(Vec::new()),
        }
    }

    /// Parties, terms and taxes are those that an invoice can have.
    fn verify_tax(&self) -> Result<()> {
        let Some(tax) = &self.tax else {
            return if self.seller.is_some() || self.buyer.is_some() || self.terms.is_some() {
                Err(mismatch("an invoice that names its seller or buyer says its taxes".to_owned()))
            } else {
                Ok(())
            };
        };
        let seller = self.seller.as_ref().ok_or_else(|| mismatch("an invoice with taxes names its seller".to_owned()))?;
        seller.validate().map_err(|error| error.prefixed("the seller"))?;
        if let Some(buyer) = &self.buyer {
            buyer.validate().map_err(|error| error.prefixed("the buyer"))?;
        }
        if let Some(terms) = &self.terms {
            terms.validate().map_err(|error| error.prefixed("the payment terms"))?;
        }
        let buyer_id = self.buyer.as_ref().and_then(|buyer| buyer.party.tax_id.as_ref());
        let is_reversed = tax.lines.iter().any(|line| line.treatment.category == TaxCategory::ReverseCharge);
        if is_reversed && (buyer_id.is_none() || seller.party.tax_id.is_none()) {
            return Err(mismatch("the buyer owes the tax only where seller and buyer have VAT numbers".to_owned()));
        }
        tax.verify((self.total, self.gifts_max()?), self.account.currency)
    }

    fn added_up(self) -> Result<Self> {
        let (subtotal, total, carry_after) = self.sums()?;
        Ok(Self { subtotal, total, carry_after, ..self })
    }

    /// What the lines add up to: all that was charged.
    pub fn charged(&self) -> Result<Nanos> {
        Nanos::checked_sum(self.lines.iter().map(|line| line.charges.amount))
    }

    /// What the contract's part adds to that.
    pub fn committed(&self) -> Result<Nanos> {
        self.commitment.as_ref().map_or(Ok(Nanos::ZERO), CommitmentLine::amount)
    }

    /// What is billed in advance.
    pub fn advanced(&self) -> Result<Nanos> {
        self.advance.as_ref().map_or(Ok(Nanos::ZERO), AdvanceLine::amount)
    }

    /// What contracts add to the lines.
    pub fn by_contract(&self) -> Result<Nanos> {
        self.committed()?.checked_add(self.advanced()?)
    }

    /// What of the gifts that lowered its taxes goes back with so much of the total, in minor units: it is a gift again.
    pub fn gifts_given_back(&self, credited: Nanos) -> Result<Nanos> {
        let gifts = self.tax.as_ref().map_or(Nanos::ZERO, |tax| tax.gifts);
        part_of(gifts, (credited, self.total), self.account.currency)
    }

    /// Nothing is to be said of the period.
    pub fn is_empty(&self) -> Result<bool> {
        let settles = self.commitment.as_ref().is_some_and(|line| line.settles_drawdown(self.period.key));
        Ok(self.lines.is_empty() && self.advance.is_none() && !settles && self.committed()?.is_zero())
    }

    /// Subtotal, total and the rounding after it.
    fn sums(&self) -> Result<(Nanos, Nanos, Nanos)> {
        let subtotal = self.charged()?.checked_add(self.by_contract()?)?;
        let total = subtotal.checked_sub(self.carry_before)?.round_half_even(self.account.currency.minor_unit().get())?;
        Ok((subtotal, total, self.carry_before.checked_add(total)?.checked_sub(subtotal)?))
    }

    /// Adds everything up again, for content that was read back. What is carried is what one rounding leaves.
    pub fn verify(&self) -> Result<()> {
        let minor_unit = self.account.currency.minor_unit().get();
        if self.carry_before.get().unsigned_abs() > minor_unit.unsigned_abs() / 2 {
            return Err(mismatch(format!("{} are carried over, which is more than a rounding leaves", self.carry_before)));
        }
        let (subtotal, total, carry_after) = self.sums()?;
        if (subtotal, total, carry_after) == (self.subtotal, self.total, self.carry_after) {
            return self.verify_tax();
        }
        Err(mismatch(format!(
            "the lines add up to {subtotal} and give a total of {total}; the invoice says {} and {}",
            self.subtotal, self.total
        )))
    }

    /// The fact to post when this is issued: usage was posted when it was captured, so only the
    /// rounding remains.
    pub const fn issue_fact(&self) -> Fact {
        Fact::InvoiceIssued { carry_before: self.carry_before, carry_after: self.carry_after }
    }
}

/// So much of an amount as a part is of a whole, in minor units, half to even.
pub fn part_of(amount: Nanos, (part, whole): (Nanos, Nanos), currency: Currency) -> Result<Nanos> {
    if whole <= Nanos::ZERO {
        return Ok(Nanos::ZERO);
    }
    let unit = i128::from(currency.minor_unit().get());
    let dividend = i128::from(amount.get()) * i128::from(part.get());
    let part = divide_half_even(dividend, i128::from(whole.get()) * unit) * unit;
    let too_much = |_| Error::new(ErrorCode::AmountOverflow, "a part of an amount is too large");
    i64::try_from(part).map(Nanos::new).map_err(too_much)
}

impl Invoice {
    pub const fn draft(id: InvoiceId, content: InvoiceContent) -> Self {
        Self { id, number: None, state: InvoiceState::Draft, content }
    }

    /// Issues a draft once its period has ended: until then charges can still be added.
    pub fn issue(self, number: DocumentNumber, issued_at: Timestamp) -> Result<Self> {
        if self.state != InvoiceState::Draft {
            return Err(self.conflict("issued"));
        }
        if issued_at < self.content.period.interval.ends_at {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!(
                    "period {} ends at {}; its invoice can be issued then",
                    self.content.period.key, self.content.period.interval.ends_at
                ),
            ));
        }
        self.content.verify()?;
        Ok(Self { number: Some(number), state: InvoiceState::Issued { issued_at }, ..self })
    }

    /// The last day to pay it in time; `None` of a draft, and where there are no terms.
    pub fn due_on(&self) -> Result<Option<Day>> {
        let (Some(terms), Some(issued_at)) = (&self.content.terms, self.state.issued_at()) else { return Ok(None) };
        terms.due_on(issued_at, &BillingCalendar::new(&self.content.account.zone)?).map(Some)
    }

    pub fn pay(self, paid_at: Timestamp) -> Result<Self> {
        match self.state {
            InvoiceState::Issued { issued_at } => Ok(Self { state: InvoiceState::Paid { issued_at, paid_at }, ..self }),
            InvoiceState::Draft | InvoiceState::Paid { .. } | InvoiceState::Void { .. } => Err(self.conflict("paid")),
        }
    }

    /// For one of which all was credited.
    pub fn void(self, voided_at: Timestamp) -> Result<Self> {
        match self.state {
            InvoiceState::Issued { issued_at } => {
                Ok(Self { state: InvoiceState::Void { issued_at, paid_at: None, voided_at }, ..self })
            }
            InvoiceState::Paid { issued_at, paid_at } => {
                Ok(Self { state: InvoiceState::Void { issued_at, paid_at: Some(paid_at), voided_at }, ..self })
            }
            InvoiceState::Draft | InvoiceState::Void { .. } => Err(self.conflict("voided")),
        }
    }

    fn conflict(&self, wanted: &str) -> Error {
        Error::new(ErrorCode::Conflict, format!("invoice {} is {} and cannot be {wanted}", self.id, self.state.as_str()))
            .alternative("an issued invoice is corrected by a credit note")
    }
}

impl InvoiceState {
    /// When it was issued; `None` of a draft.
    pub const fn issued_at(&self) -> Option<Timestamp> {
        match self {
            Self::Draft => None,
            Self::Issued { issued_at } | Self::Paid { issued_at, .. } | Self::Void { issued_at, .. } => Some(*issued_at),
        }
    }
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Issued { .. } => "issued",
            Self::Paid { .. } => "paid",
            Self::Void { .. } => "void",
        }
    }
}

#[cfg(test)]
#[path = "invoice_tests.rs"]
mod tests;
