//! What is reported to those who levy taxes: documents of a month or quarter, tax by tax, and what the books say.
//!
//! Deliberately absent: sending it anywhere.

use std::collections::{BTreeMap, BTreeSet};

use sublet_core::id::InvoiceId;
use sublet_core::{Currency, Nanos, Result, Timestamp};
use sublet_money::invoice::{Invoice, InvoiceState};
use sublet_money::period::{BillingCalendar, Interval};
use sublet_money::place::Jurisdiction;
use sublet_money::tax_report::{TaxLines, TaxPeriod};
use sublet_store::{Tx, credit_note, tax_report};

use crate::{Action, Actor, Cloud};

/// The report of a month or quarter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaxReport {
    pub period: TaxPeriod,
    /// In which it is a month or quarter.
    pub zone: String,
    pub interval: Interval,
    pub as_of: Timestamp,
    pub lines: TaxLines,
    pub ties: Vec<TaxTie>,
}

/// What documents and books say that a jurisdiction is owed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaxTie {
    pub currency: Currency,
    pub jurisdiction: Jurisdiction,
    pub reported: Nanos,
    pub booked: Nanos,
}

impl Cloud {
    /// Of documents that were issued in a period of a zone; the running month if none is named.
    pub async fn tax_report(&self, actor: &Actor, period: Option<TaxPeriod>, calendar: &BillingCalendar) -> Result<TaxReport> {
        actor.require(Action::ReadLedger)?;
        let now = self.now();
        let period = match period {
            Some(named) => named,
            None => TaxPeriod::month(calendar.period_at(now)?.key),
        };
        let interval = period.interval(calendar)?;
        let (lines, booked) = self.store.read(interval, |interval, tx| Box::pin(add_up(tx, *interval))).await?;
        let ties = ties(&lines, &booked)?;
        Ok(TaxReport { period, zone: calendar.zone_name().to_owned(), interval, as_of: now, lines, ties })
    }
}

type ByJurisdiction = BTreeMap<(Currency, Jurisdiction), Nanos>;

fn ties(lines: &TaxLines, booked: &ByJurisdiction) -> Result<Vec<TaxTie>> {
    let reported = lines.by_jurisdiction()?;
    let places: BTreeSet<_> = reported.keys().chain(booked.keys()).cloned().collect();
    let tie = |place: (Currency, Jurisdiction)| {
        let of = |sums: &ByJurisdiction| sums.get(&place).copied().unwrap_or_default();
        let (reported, booked) = (of(&reported), of(booked));
        TaxTie { reported, booked, currency: place.0, jurisdiction: place.1 }
    };
    Ok(places.into_iter().map(tie).collect())
}

fn issued_at(invoice: &Invoice) -> Option<Timestamp> {
    match invoice.state {
        InvoiceState::Draft => None,
        InvoiceState::Issued { issued_at } | InvoiceState::Paid { issued_at, .. } | InvoiceState::Void { issued_at, .. } => {
            Some(issued_at)
        }
    }
}

async fn add_up(tx: &mut Tx, when: Interval) -> Result<(TaxLines, ByJurisdiction)> {
    let mut lines = TaxLines::default();
    let mut after: Option<InvoiceId> = None;
    loop {
        let page = tax_report::invoices(tx, when, after.as_ref()).await?;
        for invoice in page.iter().filter(|invoice| issued_at(invoice).is_some_and(|at| when.contains(at))) {
            lines.add_invoice(&invoice.content)?;
        }
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
    }
    let mut after = None;
    loop {
        let page = tax_report::credit_notes(tx, when, after.as_ref()).await?;
        for (note, invoice) in &page {
            let before = credit_note::sum_before(tx, &note.invoice, note).await?;
            lines.add_credit_note(&invoice.content, (before, before.checked_add(note.amount)?))?;
        }
        let Some((last, _)) = page.last() else { break };
        after = Some(last.id.clone());
    }
    Ok((lines, tax_report::booked(tx, when).await?))
}
