//! The figures of a credit note: its part of an invoice's total, and of its gifts and taxes in proportion.
//!
//! Notes of one invoice take the difference to what the notes before them took, so that all of them together give back
//! the whole.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Nanos, Timestamp};
use sublet_money::document::DocumentNumber;
use sublet_money::invoice::Invoice;

use crate::figures::{Figures, Measure, Row};

/// What a credit note says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditNote {
    pub number: DocumentNumber,
    pub issued_at: Timestamp,
    /// Of the invoice's total.
    pub amount: Nanos,
    /// By earlier notes of the invoice.
    pub credited_before: Nanos,
    pub reason: String,
}

impl CreditNote {
    pub fn figures(&self, invoice: &Invoice) -> Result<Figures> {
        let content = &invoice.content;
        let after = self.credited_before.checked_add(self.amount)?;
        let of = |credited| -> Result<(Nanos, Nanos)> {
            Ok((Nanos::checked_sum(content.tax_given_back(credited)?)?, self.gifts_of(invoice, credited)?))
        };
        let ((tax_before, gifts_before), (tax_after, gifts_after)) = (of(self.credited_before)?, of(after)?);
        let (tax, gifts) = (tax_after.checked_sub(tax_before)?, gifts_after.checked_sub(gifts_before)?);
        let without_tax = self.amount.checked_sub(gifts)?;
        let with_tax = without_tax.checked_add(tax)?;
        let row = Row {
            heading: None,
            what: self.reason.clone(),
            details: Vec::new(),
            measure: Measure::Once,
            exact: self.amount,
            amount: self.amount,
        };
        Ok(Figures {
            currency: content.account.currency,
            rows: vec![row],
            is_summary: false,
            lines: self.amount,
            rounding: Nanos::ZERO,
            gifts,
            without_tax,
            tax,
            with_tax,
            prepaid: Nanos::ZERO,
            payable: with_tax,
        })
    }

    /// What of the gifts is given back with so much of the total, in minor units.
    fn gifts_of(&self, invoice: &Invoice, credited: Nanos) -> Result<Nanos> {
        let content = &invoice.content;
        let Some(tax) = content.tax.as_ref().filter(|_| content.total > Nanos::ZERO) else { return Ok(Nanos::ZERO) };
        let unit = i128::from(content.account.currency.minor_unit().get());
        let dividend = i128::from(tax.gifts.get()) * i128::from(credited.get());
        let part = divide_half_even(dividend, i128::from(content.total.get()) * unit) * unit;
        let part = i64::try_from(part).map_err(|_| Error::new(ErrorCode::AmountOverflow, "a credit note gives back too much"))?;
        Ok(Nanos::new(part))
    }
}
