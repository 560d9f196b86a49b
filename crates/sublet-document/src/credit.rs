//! The figures of a credit note: its part of an invoice's total, and of its gifts and taxes in proportion.
//!
//! Notes of one invoice take the difference to what the notes before them took, so that all of them together give back
//! the whole.

use sublet_core::error::Result;
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
        let (before, after_taxes) = (content.tax_given_back(self.credited_before)?, content.tax_given_back(after)?);
        let part = |(after, before): (Nanos, Nanos)| after.checked_sub(before);
        let taxes = after_taxes.into_iter().zip(before).map(part).collect::<Result<Vec<Nanos>>>()?;
        let tax = Nanos::checked_sum(taxes.iter().copied())?;
        let gifts = content.gifts_given_back(after)?.checked_sub(content.gifts_given_back(self.credited_before)?)?;
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
            taxes,
            with_tax,
            prepaid: Nanos::ZERO,
            payable: with_tax,
            taken_back: Nanos::ZERO,
        })
    }
}
