//! Billing Period of FOCUS 1.4: a month of an account, and whether what is said of it may still change.
//!
//! The specification knows issuers and no accounts: here each account has months of its own zone, so a row names its
//! account beside. Closed is a month of which every document is issued that will be.
//!
//! Deliberately absent: months before the account was there. Those in which something was used are there even so, since a
//! clock may have been set back.

use sublet_core::Timestamp;

use crate::document::DocumentNumber;
use crate::invoice::InvoiceAccount;
use crate::period::Period;
use crate::table::{Cell, Column, Kind};

/// How far a month is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BillingState {
    /// What is used is charged to it.
    Open,
    /// Nothing is charged to it any more, and its invoice is to come.
    Closed { since: Timestamp },
    /// It has its invoice.
    Invoiced { number: DocumentNumber, since: Timestamp },
    /// It is closed and needs no invoice.
    WithoutInvoice { since: Timestamp },
}

impl BillingState {
    /// In the words of the specification.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Open | Self::Closed { .. } => "Open",
            Self::Invoiced { .. } | Self::WithoutInvoice { .. } => "Closed",
        }
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed { .. } => "closed",
            Self::Invoiced { .. } => "invoiced",
            Self::WithoutInvoice { .. } => "no-invoice",
        }
    }
    const fn since(self) -> Option<Timestamp> {
        match self {
            Self::Open => None,
            Self::Closed { since } | Self::Invoiced { since, .. } | Self::WithoutInvoice { since } => Some(since),
        }
    }
    const fn number(self) -> Option<DocumentNumber> {
        match self {
            Self::Invoiced { number, .. } => Some(number),
            Self::Open | Self::Closed { .. } | Self::WithoutInvoice { .. } => None,
        }
    }
}

/// A month of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BillingPeriod {
    pub account: InvoiceAccount,
    pub seller: String,
    pub period: Period,
    /// Since when the account is there.
    pub account_since: Timestamp,
    pub state: BillingState,
}

impl BillingPeriod {
    /// It begins with the month, or within it with the account.
    fn created_at(&self) -> Timestamp {
        let month = self.period.interval;
        if self.account_since < month.ends_at { month.starts_at.max(self.account_since) } else { month.starts_at }
    }
    fn updated_at(&self) -> Timestamp {
        self.state.since().map_or(self.created_at(), |since| since.max(self.created_at()))
    }
}

type Row = BillingPeriod;
type Read = for<'r> fn(&'r Row) -> Cell<'r>;

const fn text(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Text, is_optional: false, cell }
}
const fn instant(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Instant, is_optional: false, cell }
}
const fn maybe_text(name: &'static str, cell: Read) -> Column<Row> {
    Column { name, kind: Kind::Text, is_optional: true, cell }
}

const COLUMNS: &[Column<Row>] = &[
    instant("BillingPeriodCreated", |row| Cell::Instant(row.created_at())),
    instant("BillingPeriodEnd", |row| Cell::Instant(row.period.interval.ends_at)),
    instant("BillingPeriodLastUpdated", |row| Cell::Instant(row.updated_at())),
    instant("BillingPeriodStart", |row| Cell::Instant(row.period.interval.starts_at)),
    text("BillingPeriodStatus", |row| Cell::text(row.state.status())),
    text("InvoiceIssuerName", |row| Cell::text(&row.seller)),
    text("x_BillingAccountId", |row| Cell::text(row.account.organization.as_str())),
    text("x_BillingPeriod", |row| Cell::owned(row.period.key.to_string())),
    maybe_text("x_InvoiceId", |row| row.state.number().map_or(Cell::Absent, |number| Cell::owned(number.to_string()))),
    text("x_State", |row| Cell::text(row.state.as_str())),
    text("x_TimeZone", |row| Cell::text(&row.account.zone)),
];

pub fn billing_period_columns() -> Vec<&'static Column<BillingPeriod>> {
    COLUMNS.iter().collect()
}

#[cfg(test)]
mod tests {
    use sublet_core::Currency;

    use super::*;
    use crate::period::BillingCalendar;
    use crate::table::{csv_header, write_csv};

    #[test]
    fn a_month_is_closed_when_its_invoice_is_issued() {
        let period = BillingCalendar::new("Asia/Kolkata").unwrap().period("2026-03".parse().unwrap()).unwrap();
        let number: DocumentNumber = "INV-2026-000007".parse().unwrap();
        let since = period.interval.ends_at;
        let row = |state| BillingPeriod {
            account: InvoiceAccount {
                organization: "org_1".parse().unwrap(),
                name: "Acme".to_owned(),
                currency: Currency::EUR,
                zone: "Asia/Kolkata".to_owned(),
            },
            seller: "Idle Works".to_owned(),
            period,
            account_since: Timestamp::EPOCH,
            state,
        };
        let columns = billing_period_columns();
        assert!(columns.is_sorted_by_key(|column| column.name));
        let mut text = csv_header(&columns);
        let states = [
            BillingState::Open,
            BillingState::Closed { since },
            BillingState::Invoiced { number, since },
            BillingState::WithoutInvoice { since },
        ];
        for state in states {
            write_csv(&mut text, &columns, &row(state));
        }
        // An account that began with the month's middle, and one that is younger than what was said of the month.
        let middle = period.interval.starts_at.plus(sublet_core::DurationMs::from_hours(400));
        write_csv(&mut text, &columns, &BillingPeriod { account_since: middle, ..row(BillingState::Open) });
        // One that is said to have begun after the month: its clock was set back.
        let later = since.plus(sublet_core::DurationMs::from_hours(400));
        write_csv(&mut text, &columns, &BillingPeriod { account_since: later, ..row(BillingState::Closed { since }) });
        insta::assert_snapshot!(text);
    }
}
