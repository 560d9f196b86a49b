//! Invoices: drafts made from a month's lines and checked against its charges, issued ones as they were issued, and
//! credit notes.

use std::collections::BTreeMap;

use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::document::DocumentKind;
use sublet_money::invoice::{ChargeSum, ChargedLine, Invoice, InvoiceAccount, InvoiceContent, InvoiceState, draft};
use sublet_money::period::{Period, PeriodKey};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::rating::{LineKey, LineState};
use sublet_store::charge::{self, LineChange, LinePart};
use sublet_store::credit_note::{self, CreditNote};
use sublet_store::invoice::{self, InvoiceFilter, StoredInvoice};
use sublet_store::organization::{self, Organization};
use sublet_store::{Page, PageRequest, Tx, billing, document, ledger};

use crate::audit::Deed;
use crate::billing::{Billing, paid_in};
use crate::credit::of_a_contract;
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Actor, Cloud};

/// Longest reason of a credit note, in characters.
const REASON_MAX_CHARS: usize = 500;

/// An invoice as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bill {
    pub invoice: Invoice,
    /// By credit notes, without taxes.
    pub credited: Nanos,
    /// Of its taxes, by credit notes.
    pub credited_tax: Nanos,
    /// What is still to be paid.
    pub due: Nanos,
    pub created_at: Timestamp,
}

/// What to take back of an invoice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCreditNote {
    pub invoice: InvoiceId,
    pub kind: CreditKind,
    pub amount: Nanos,
    pub currency: Currency,
    pub reason: String,
}

impl Cloud {
    /// Drafts the invoice of a period (the running one if none is named). The same books give the same draft. The
    /// invoice of a closed month is the one that was issued.
    pub async fn draft_invoice(&self, actor: &Actor, organization: &OrganizationId, period: Option<PeriodKey>) -> Result<Bill> {
        actor.require(Action::ReadBilling)?;
        let content = self
            .store
            .read((self, actor, organization), |(cloud, actor, organization), tx| {
                Box::pin(async move {
                    let account = organization::get(tx, &actor.scope, organization).await?;
                    let billing = Billing::of_account(tx, &account).await?;
                    let period = match period {
                        Some(key) => billing.calendar.period(key)?,
                        None => billing.calendar.period_at(cloud.now())?,
                    };
                    if billing.billed_in(period.key).is_some() {
                        let issued = issued(tx, organization, period.key).await?;
                        return Ok(Drafted::Closed(Box::new(bill(tx, issued, &mut BTreeMap::new()).await?)));
                    }
                    let content = cloud.invoice_content(tx, &account, period).await?;
                    Ok(Drafted::Open(Box::new(content)))
                })
            })
            .await?;
        let content = match content {
            Drafted::Closed(bill) => return Ok(*bill),
            Drafted::Open(content) => content,
        };
        self.store
            .write((self, organization, content), |(cloud, organization, content), tx| {
                Box::pin(async move {
                    let stored = cloud.put_draft(tx, organization, (**content).clone()).await?;
                    bill(tx, stored, &mut BTreeMap::new()).await
                })
            })
            .await
    }

    /// Keeps a draft, unless its month was closed since it was made.
    async fn put_draft(&self, tx: &mut Tx, organization: &OrganizationId, content: InvoiceContent) -> Result<StoredInvoice> {
        let period = content.period.key;
        if Billing::of(tx, organization).await?.billed_in(period).is_some() {
            return issued(tx, organization, period).await;
        }
        let (id, created_at) = self.identity(tx, organization, period).await?;
        let stored = StoredInvoice { invoice: Invoice::draft(id, content), credited: Nanos::ZERO, created_at };
        invoice::put(tx, &stored).await?;
        Ok(stored)
    }

    /// What the invoice of a month says: its own lines, and the parts of closed months that came late.
    pub(crate) async fn invoice_content(&self, tx: &mut Tx, account: &Organization, period: Period) -> Result<InvoiceContent> {
        let kept: BTreeMap<LineKey, LineState> = charge::list_lines(tx, &account.id, period.key).await?.into_iter().collect();
        let mut lines = Vec::new();
        for LinePart { key, charges, sum } in charge::list_parts(tx, &account.id, period.key).await? {
            let before = if key.period == period.key {
                check_line(tx, &key, sum, kept.get(&key).copied().unwrap_or_default()).await?;
                LineState::default()
            } else {
                let kept = charge::line_state(tx, &key).await?;
                less(kept, charge::sum_late(tx, &key, Some(period.key)).await?)?
            };
            let state = changed(before, sum)?;
            let charges = ChargeSum { count: u64::try_from(charges).unwrap_or(0), amount: sum.charged };
            lines.push(ChargedLine { key, before, state, charges });
        }
        let mut versions = BTreeMap::new();
        for line in &lines {
            let version = &line.key.price_version;
            if !versions.contains_key(version) {
                versions.insert(version.clone(), self.price_version(tx, version).await?);
            }
        }
        let versions: Vec<_> = versions.values().map(AsRef::as_ref).collect();
        let invoiced = InvoiceAccount {
            organization: account.id.clone(),
            name: account.name.clone(),
            currency: account.currency,
            zone: account.time_zone.clone(),
        };
        let carry = billing::carry_before(tx, &account.id, period.key).await?;
        let content = draft(invoiced, period, carry, &lines, &versions)?;
        let content = self.with_rerates(tx, account, content).await?;
        let content = self.with_contract(tx, content).await?;
        self.with_taxes(tx, account, content).await
    }

    /// The id of a period's invoice, and since when it is there: its first draft's, if there was one.
    pub(crate) async fn identity(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        period: PeriodKey,
    ) -> Result<(InvoiceId, Timestamp)> {
        let known = invoice::find_of_period(tx, organization, period).await?;
        Ok(known.map_or_else(|| (self.ids.mint(), self.now()), |known| (known.invoice.id, known.created_at)))
    }

    pub async fn get_invoice(&self, actor: &Actor, id: &InvoiceId) -> Result<Bill> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let stored = find(tx, &actor.scope, id).await?;
                    bill(tx, stored, &mut BTreeMap::new()).await
                })
            })
            .await
    }

    /// Those of a filter that the actor may see.
    pub async fn list_invoices(&self, actor: &Actor, filter: &InvoiceFilter, page: &PageRequest) -> Result<Page<Bill>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, filter, page), |(actor, filter, page), tx| {
                Box::pin(async move {
                    let page = invoice::list(tx, &actor.scope, filter, page).await?;
                    let mut paid = BTreeMap::new();
                    let mut items = Vec::with_capacity(page.items.len());
                    for stored in page.items {
                        items.push(bill(tx, stored, &mut paid).await?);
                    }
                    Ok(Page { items, has_more: page.has_more })
                })
            })
            .await
    }

    /// Takes part of an issued invoice back: the customer gets it as credit, and of the invoice's taxes what is in
    /// proportion. All notes of an invoice together are at most its total; one of which all was credited is void.
    pub async fn issue_credit_note(
        &self,
        call: &Call,
        new: &NewCreditNote,
        render: &Render<CreditNote>,
    ) -> Result<Answer<CreditNote>> {
        call.actor.require(Action::GrantCredit)?;
        if new.kind == CreditKind::Committed {
            return Err(of_a_contract());
        }
        if new.amount <= Nanos::ZERO {
            return Err(Error::new(ErrorCode::InvalidAmount, "a credit note is over a positive amount").param("amount"));
        }
        let is_line = !new.reason.trim().is_empty() && !new.reason.chars().any(char::is_control);
        if !is_line || new.reason.chars().count() > REASON_MAX_CHARS {
            let message = format!("a credit note has a reason: one line of at most {REASON_MAX_CHARS} characters");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("reason"));
        }
        self.once(call, render, (self, &call.actor, new), |(cloud, actor, new), tx| Box::pin(cloud.credit(tx, actor, new))).await
    }

    async fn credit(&self, tx: &mut Tx, actor: &Actor, new: &NewCreditNote) -> Result<CreditNote> {
        let mut stored = find(tx, &actor.scope, &new.invoice).await?;
        let (currency, total) = (stored.currency(), stored.invoice.content.total);
        let Some(invoice_number) = stored.invoice.number else {
            return Err(Error::new(ErrorCode::Conflict, format!("invoice {} is a draft: nothing of it was issued", new.invoice)));
        };
        if new.currency != currency {
            let message = format!("the invoice is in {currency}");
            return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("amount"));
        }
        let minor_unit = currency.minor_unit().get();
        if new.amount.get() % minor_unit != 0 {
            let message = format!("a credit note is over whole minor units of {currency}, as its invoice is");
            return Err(Error::new(ErrorCode::InvalidAmount, message).param("amount"));
        }
        let given = self.service_credits_of(tx, &stored).await?;
        let left = total.checked_sub(stored.credited)?.checked_sub(given)?;
        if new.amount > left {
            let message = format!("{left} {currency} of {invoice_number} can still be credited, of {total}");
            return Err(Error::new(ErrorCode::InvalidAmount, message).param("amount"));
        }
        // What was billed in advance of a commitment is credit of its contract, and stays that.
        let advance = stored.invoice.content.advance.as_ref().map_or(Nanos::ZERO, |advance| advance.commitment);
        let most = left.checked_sub(advance)?.max(Nanos::ZERO);
        if new.amount > most {
            let message =
                format!("{advance} {currency} of {invoice_number} can be used as credit of a contract, so {most} can be credited");
            let error = Error::new(ErrorCode::InvalidAmount, message).param("amount");
            return Err(error.alternative("grant promotional credit").alternative("amend the contract"));
        }
        let (now, organization) = (self.now(), stored.organization().clone());
        let (number, issued_at) = document::next_number(tx, DocumentKind::CreditNote, now).await?;
        let credited = stored.credited.checked_add(new.amount)?;
        let head = EntryHead { id: self.ids.mint(), at: now, currency, memo: format!("tax of {number} for {invoice_number}") };
        let tax = self.give_tax_back(tx, &stored.invoice.content, (stored.credited, credited), head).await?;
        let note = CreditNote {
            id: self.ids.mint(),
            number,
            invoice: new.invoice.clone(),
            organization: organization.clone(),
            kind: new.kind,
            amount: new.amount,
            tax,
            currency,
            reason: new.reason.clone(),
            issued_at,
        };
        credit_note::insert(tx, &note).await?;
        let content = &stored.invoice.content;
        let gifts = content.gifts_given_back(credited)?.checked_sub(content.gifts_given_back(stored.credited)?)?;
        // A gift that paid is a gift again; the rest is what the note says.
        for (kind, amount) in [(CreditKind::Promotional, gifts), (new.kind, new.amount.checked_sub(gifts)?)] {
            if !amount.is_zero() {
                let memo = format!("{} for {invoice_number}", note.number);
                let head = EntryHead { id: self.ids.mint(), at: now, currency, memo };
                ledger::post(tx, &post(head, &organization, &Fact::ChargeRefunded { credit: kind, amount })?).await?;
            }
        }
        stored.credited = credited;
        if stored.credited == total {
            stored.invoice = stored.invoice.void(now)?;
        }
        invoice::move_on(tx, &stored).await?;
        let detail = format!("{} over {} {currency} for {invoice_number}", note.number, new.amount);
        let deed = Deed { organization: Some(&organization), action: "credit_note.issue", target: note.id.as_str(), detail };
        self.record(tx, actor, deed, now).await?;
        self.note_paid(tx, &organization, now).await?;
        self.mail_credit_note(tx, &note, &invoice_number.to_string()).await?;
        Ok(note)
    }

    /// Credit notes of one invoice, or all that the actor may see.
    pub async fn list_credit_notes(
        &self,
        actor: &Actor,
        invoice: Option<&InvoiceId>,
        page: &PageRequest,
    ) -> Result<Page<CreditNote>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, invoice, page), |(actor, invoice, page), tx| {
                Box::pin(credit_note::list(tx, &actor.scope, *invoice, page))
            })
            .await
    }
}

fn less(line: LineState, by: LineChange) -> Result<LineState> {
    changed(line, LineChange { quantity: by.quantity.checked_neg()?, charged: by.charged.checked_neg()? })
}

fn changed(line: LineState, by: LineChange) -> Result<LineState> {
    Ok(LineState { quantity: line.quantity.changed_by(by.quantity)?, charged: line.charged.checked_add(by.charged)? })
}

/// The charges of a month's line, and those that came late, are what the line is kept at.
async fn check_line(tx: &mut Tx, key: &LineKey, own: LineChange, kept: LineState) -> Result<()> {
    let of_month = changed(LineState::default(), own)?;
    if of_month == kept || changed(of_month, charge::sum_late(tx, key, None).await?)? == kept {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::LedgerMismatch,
        format!("the charges of a line of {} do not add up to what the line is kept at", key.sku),
    )
    .context(format!("{key}: charges {own:?}, line {kept:?}")))
}

/// What a draft was made from.
enum Drafted {
    Open(Box<InvoiceContent>),
    Closed(Box<Bill>),
}

/// The invoice of a closed month.
async fn issued(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<StoredInvoice> {
    let found = invoice::find_of_period(tx, organization, period).await?;
    if let Some(stored) = found.filter(|stored| stored.invoice.state != InvoiceState::Draft) {
        return Ok(stored);
    }
    if billing::find_unbilled(tx, organization).await?.is_some_and(|oldest| oldest <= period) {
        return Err(Error::new(ErrorCode::Conflict, format!("{period} was closed just now, and its invoice is being issued"))
            .retry_after(DurationMs::from_seconds(1)));
    }
    Err(Error::new(ErrorCode::NotFound, format!("{period} is closed, and nothing was used in it: it has no invoice"))
        .alternative("what came to be known later is in the invoice of the month that was open then"))
}

pub(crate) async fn find(tx: &mut Tx, scope: &Scope, id: &InvoiceId) -> Result<StoredInvoice> {
    let found = invoice::find(tx, scope, id).await?;
    found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no invoice '{id}'")))
}

/// With what is still to be paid. `paid` keeps what accounts paid in, for invoices of the same account.
pub(crate) async fn bill(tx: &mut Tx, stored: StoredInvoice, paid: &mut BTreeMap<OrganizationId, Nanos>) -> Result<Bill> {
    let mut due = Nanos::ZERO;
    if matches!(stored.invoice.state, InvoiceState::Issued { .. }) {
        let paid_in = match paid.get(stored.organization()) {
            Some(known) => *known,
            None => {
                let paid_in = paid_in(tx, stored.organization()).await?;
                paid.insert(stored.organization().clone(), paid_in);
                paid_in
            }
        };
        due = invoice::receivable(tx, &stored).await?.due(paid_in, stored.currency())?;
    }
    let credited_tax = stored.credited_tax()?;
    Ok(Bill { invoice: stored.invoice, credited: stored.credited, credited_tax, due, created_at: stored.created_at })
}
