//! Closing months: when one is over, its invoice is issued, and nothing is added to it any more.
//!
//! Months of an account close in their order, each once, a while after they ended: until then what was used at their
//! end can still be reported. What is reported later goes, as a line of its own, into the oldest month that is open.
//! A charge decides in its own transaction whether its month is closed, so it is in exactly one invoice.
//!
//! Closing is two transactions, either of which can be the last one before a crash. The first moves one row on that
//! every settlement of the account reads, and does nothing else that could stand in their way. Once the settlements have
//! ended that did not see it, the month is what it is; the second transaction issues its invoice.
//!
//! Deliberately absent: invoices of the owner's own teams, to whom nothing is owed; their drafts show what they used.

use std::collections::BTreeMap;

use sublet_core::id::OrganizationId;
use sublet_core::{DurationMs, Error, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{CreditKind, LedgerAccount};
use sublet_money::document::DocumentKind;
use sublet_money::invoice::{Invoice, InvoiceContent};
use sublet_money::period::{BillingCalendar, Period, PeriodKey};
use sublet_money::posting::{EntryHead, post};
use sublet_money::receivable::{PAID_IN, paid_in_of};
use sublet_store::billing::{self, OpenMonth};
use sublet_store::invoice::{self, StoredInvoice};
use sublet_store::organization::{self, Organization};
use sublet_store::rerate::{self, StoredRerate};
use sublet_store::{Tx, charge, credit, document, ledger, setting, storage};
use tokio::sync::watch;

use crate::audit::Deed;
use crate::contract_drawdown::has_open_slices;
use crate::proof::HashedLeaves;
use crate::{Actor, Cloud};

/// How long after its end a month is closed, if nothing else is said.
pub const CLOSE_AFTER: DurationMs = DurationMs::from_seconds(3_600);
/// How much longer the last month of a commitment that was billed in advance waits for the slices that have some of it.
pub const SLICES_WAIT_MAX: DurationMs = DurationMs::from_hours(72);
/// How often it is looked for months that are over.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(60);
/// Accounts that are looked at together.
const ACCOUNTS_AT_ONCE: i64 = 100;
/// Unpaid invoices of one account that are looked at together.
const UNPAID_MAX: i64 = 1_000;
/// After a longer time without a look, a clock may be wrong: months that it closes stay closed.
const UNWATCHED_MAX: DurationMs = DurationMs::from_seconds(35 * 24 * 3_600);
/// How old the note of the last look may become before it is written anew.
const NOTE_PERIOD: DurationMs = DurationMs::from_seconds(24 * 3_600);
/// The setting that says when it was last looked, in microseconds.
const LOOKED_AT: &str = "billing_looked_at";
/// How far in the future a use may be: clocks differ, and may be set back. Nobody knows what a later one is.
const FUTURE_MAX: DurationMs = DurationMs::from_seconds(24 * 3_600);
/// How long before its account's creation a use may be, for the same reason.
const PAST_MAX: DurationMs = FUTURE_MAX;

/// How an account is billed.
pub(crate) struct Billing {
    pub calendar: BillingCalendar,
    created_at: Timestamp,
    /// The oldest month that is open; `None` if nobody looked yet whether one is over.
    open: Option<OpenMonth>,
    /// What was rated anew of its use, in the order in which it holds.
    rerates: Vec<StoredRerate>,
}

impl Billing {
    pub async fn of(tx: &mut Tx, organization: &OrganizationId) -> Result<Self> {
        let found = organization::get(tx, &Scope::Operator, organization).await?;
        Self::of_account(tx, &found).await
    }

    pub async fn of_account(tx: &mut Tx, account: &Organization) -> Result<Self> {
        let (open, rerates) = match billing::find_open(tx, &account.id).await? {
            Some((open, rerates)) => (Some(open), rerates),
            None => (None, 0),
        };
        let rerates = if rerates > 0 { rerate::list_applied(tx, &account.id).await? } else { Vec::new() };
        Ok(Self { calendar: BillingCalendar::new(&account.time_zone)?, created_at: account.created_at, open, rerates })
    }

    /// Where a use of a month is invoiced, if that month is closed.
    pub fn billed_in(&self, used: PeriodKey) -> Option<PeriodKey> {
        self.open.map(|open| open.period).filter(|open| used < *open)
    }

    /// Before it, nothing can have been used.
    pub fn first_use_at(&self) -> Timestamp {
        self.created_at.minus(PAST_MAX)
    }

    /// What was rated anew of the account's use.
    pub fn rerates(&self) -> &[StoredRerate] {
        &self.rerates
    }

    /// The oldest month that is open, if somebody looked yet.
    pub fn open_month(&self) -> Option<PeriodKey> {
        self.open.map(|open| open.period)
    }

    /// The month of a use, or why it can be of none.
    pub fn month_of(&self, used_at: Timestamp, now: Timestamp) -> Result<PeriodKey, String> {
        if used_at.since(now) > FUTURE_MAX {
            return Err(format!("it was admitted at {used_at}, and it is {now}"));
        }
        if self.created_at.since(used_at) > PAST_MAX {
            return Err(format!("it was admitted at {used_at}, and its account is there since {}", self.created_at));
        }
        self.calendar.period_at(used_at).map(|period| period.key).map_err(|error| error.to_string())
    }
}

/// What a look for months that are over did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClosingReport {
    pub closed: u64,
    pub issued: u64,
    /// Months that are over and wait for slices that have some of a commitment.
    pub waiting: u64,
    /// Accounts, and projects that keep files, of which something failed; each was logged, and is tried again.
    pub failed: u64,
}

/// What became of an account's oldest open month.
enum Closing {
    Closed,
    NotDue,
    WaitsForSlices,
}

/// Accounts that a look is for.
#[derive(Clone, Copy)]
enum Wanted {
    New,
    Due { until: Timestamp },
}

impl Wanted {
    async fn page(self, tx: &mut Tx, after: Option<&OrganizationId>) -> Result<Vec<OrganizationId>> {
        match self {
            Self::New => billing::unopened(tx, after, ACCOUNTS_AT_ONCE).await,
            Self::Due { until } => billing::due(tx, until, after, ACCOUNTS_AT_ONCE).await,
        }
    }
}

impl ClosingReport {
    fn note(&mut self, organization: &OrganizationId, done: Result<()>) {
        if let Err(error) = done {
            self.failed += 1;
            tracing::error!(%organization, %error, private = ?error, "a month could not be closed; it is tried again");
        }
    }
}

impl Cloud {
    /// Looks for months that are over until `stop` says so.
    pub async fn run_billing(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.look_for_months(&stop).await {
                tracing::error!(%error, private = ?error, "months that are over were not closed; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Closes what is over, unless so much time passed since the last look that the clock may be wrong.
    pub async fn look_for_months(&self, stop: &watch::Receiver<bool>) -> Result<ClosingReport> {
        self.store.write(self, |cloud, tx| Box::pin(cloud.note_look(tx, cloud.now(), cloud.settings.resume_billing))).await?;
        let report = self.close_until(|| *stop.borrow()).await?;
        self.continue_rerates().await?;
        self.expire_credit().await?;
        self.settle_all_owed().await?;
        self.dun().await?;
        Ok(report)
    }

    /// Notes that it is looked now. An error if the last look was too long ago and nobody said that this is right.
    pub(crate) async fn note_look(&self, tx: &mut Tx, now: Timestamp, is_right: bool) -> Result<()> {
        let last = setting::find(tx, LOOKED_AT).await?.and_then(|text| text.parse().ok()).map(Timestamp::from_micros);
        if let Some(last) = last {
            if now.since(last) > UNWATCHED_MAX && !is_right {
                return Err(Error::internal(format!("it was last looked for months that are over at {last}, and it is {now}"))
                    .alternative("if the clock is right, start once with --resume-billing"));
            }
            if now.since(last) < NOTE_PERIOD {
                return Ok(());
            }
        }
        setting::set(tx, LOOKED_AT, &now.micros().to_string()).await
    }

    /// Closes every month that has been over for long enough, of every customer, and issues its invoice.
    pub async fn close_months(&self) -> Result<ClosingReport> {
        self.close_until(|| false).await
    }

    async fn close_until(&self, is_stopped: impl Fn() -> bool + Send + Sync) -> Result<ClosingReport> {
        self.open_drawdowns().await?;
        let mut report = ClosingReport { failed: self.meter_storage(&is_stopped).await?.failed, ..ClosingReport::default() };
        let until = self.now().minus(self.settings.close_after);
        for wanted in [Wanted::New, Wanted::Due { until }] {
            let mut last: Option<OrganizationId> = None;
            loop {
                let page = (wanted, last);
                let accounts = self.store.read(page, |(wanted, last), tx| Box::pin(wanted.page(tx, last.as_ref()))).await?;
                let Some(newest) = accounts.last() else { break };
                last = Some(newest.clone());
                // Many accounts take a while, and periods begin on time.
                self.open_drawdowns().await?;
                for organization in &accounts {
                    if is_stopped() {
                        return Ok(report);
                    }
                    let done = match wanted {
                        Wanted::New => self.open_account(organization).await,
                        Wanted::Due { until } => self.close_account(organization, until, &mut report).await,
                    };
                    report.note(organization, done);
                }
                if let Wanted::Due { .. } = wanted {
                    self.store.earlier_writes_ended().await?;
                    for organization in &accounts {
                        if is_stopped() {
                            return Ok(report);
                        }
                        // Adding up a month takes a while, too.
                        self.open_drawdowns().await?;
                        let done = self.bill_account(organization, &is_stopped, &mut report).await;
                        report.note(organization, done);
                    }
                }
            }
        }
        Ok(report)
    }

    /// Says which month of a new account is its first.
    pub(crate) async fn open_account(&self, organization: &OrganizationId) -> Result<()> {
        self.store
            .write(organization, |id, tx| {
                Box::pin(async move {
                    let account = organization::get(tx, &Scope::Operator, id).await?;
                    let calendar = BillingCalendar::new(&account.time_zone)?;
                    let first = first_period(tx, &calendar, &account).await?;
                    billing::open(tx, id, &open_month(&first)).await
                })
            })
            .await
    }

    /// Closes the months of an account that are over: from here on what is charged to them is late.
    async fn close_account(&self, organization: &OrganizationId, until: Timestamp, report: &mut ClosingReport) -> Result<()> {
        let of = (self, organization, until);
        loop {
            match self.store.write(of, |(cloud, id, until), tx| Box::pin(cloud.close_oldest_month(tx, id, *until))).await? {
                Closing::Closed => report.closed += 1,
                Closing::NotDue => return Ok(()),
                Closing::WaitsForSlices => {
                    report.waiting += 1;
                    return Ok(());
                }
            }
        }
    }

    /// Closes the oldest open month if it was over by then, and charges what a month is charged once.
    async fn close_oldest_month(&self, tx: &mut Tx, organization: &OrganizationId, until: Timestamp) -> Result<Closing> {
        let account = organization::get(tx, &Scope::Operator, organization).await?;
        let billing = Billing::of_account(tx, &account).await?;
        let Some(open) = billing.open.filter(|open| open.ends_at <= until) else { return Ok(Closing::NotDue) };
        // What is kept is metered first, and the month waits for it.
        if storage::is_behind(tx, organization, open.ends_at).await? {
            return Ok(Closing::NotDue);
        }
        // What slices of before have of a commitment may be used already, and is drawn in its own period then.
        if until < open.ends_at.plus(SLICES_WAIT_MAX) && has_open_slices(tx, organization, open.ends_at).await? {
            return Ok(Closing::WaitsForSlices);
        }
        let next = billing.calendar.period(open.period.next()?)?;
        if !billing::close(tx, organization, open.period, &open_month(&next)).await? {
            return Ok(Closing::NotDue);
        }
        self.charge_projects(tx, &account, &billing.calendar.period(open.period)?).await?;
        Ok(Closing::Closed)
    }

    /// Issues the invoices of closed months in which anything was used, in the order of the months.
    async fn bill_account(
        &self,
        organization: &OrganizationId,
        is_stopped: &(impl Fn() -> bool + Sync),
        report: &mut ClosingReport,
    ) -> Result<()> {
        loop {
            let found = self
                .store
                .read(organization, |id, tx| {
                    Box::pin(async move {
                        let Some(period) = billing::find_unbilled(tx, id).await? else { return Ok(None) };
                        let account = organization::get(tx, &Scope::Operator, id).await?;
                        let period = BillingCalendar::new(&account.time_zone)?.period(period)?;
                        Ok(Some((account, period)))
                    })
                })
                .await?;
            let Some((account, period)) = found else { return Ok(()) };
            // Nothing is added to a closed month any more, so it is read without keeping others from writing; added up
            // and hashed at once, since both read all of it. Adding up ends by itself.
            let adding_up = tokio::spawn(self.clone().closed_content(account, period));
            let hashing = async {
                if self.has_leaves((organization, period.key)).await? {
                    return self.hash_leaves((organization, period.key), is_stopped).await;
                }
                Ok(None)
            };
            let hashed = hashing.await;
            let content = adding_up.await.map_err(|error| Error::internal(format!("a month was not added up: {error}")))??;
            let hashed = hashed?;
            if content.is_empty()? {
                self.store.write((self, content), |(cloud, content), tx| Box::pin(cloud.note_unused(tx, content))).await?;
                continue;
            }
            if is_stopped() {
                return Ok(());
            }
            let leaves = match hashed {
                Some(leaves) => leaves,
                None => match self.hash_leaves((organization, period.key), is_stopped).await? {
                    Some(leaves) => leaves,
                    None => return Ok(()),
                },
            };
            let issue = (self, content, leaves);
            let issued = self
                .store
                .write(issue, |(cloud, content, leaves), tx| Box::pin(cloud.issue_invoice(tx, content.clone(), leaves)))
                .await?;
            report.issued += u64::from(issued);
        }
    }

    /// What the invoice of a closed month says.
    async fn closed_content(self, account: Organization, period: Period) -> Result<InvoiceContent> {
        self.store
            .read((&self, account, period), |(cloud, account, period), tx| Box::pin(cloud.invoice_content(tx, account, *period)))
            .await
    }

    /// Notes that a closed month needs no invoice.
    async fn note_unused(&self, tx: &mut Tx, content: &InvoiceContent) -> Result<()> {
        let (organization, period) = (&content.account.organization, content.period.key);
        if billing::billed(tx, (organization, period), content.carry_before, self.now()).await? {
            self.earn_fees(tx, (organization, content.account.currency), period, self.now()).await?;
        }
        self.release_prepaid_tax(tx, organization, self.now()).await?;
        self.note_paid(tx, organization, self.now()).await?;
        invoice::delete_draft(tx, organization, period).await
    }

    /// Issues an invoice over what it says, and seals it over its leaves, unless another process did meanwhile.
    async fn issue_invoice(&self, tx: &mut Tx, content: InvoiceContent, leaves: &HashedLeaves) -> Result<bool> {
        let (organization, currency) = (content.account.organization.clone(), content.account.currency);
        let (period, now) = (content.period.key, self.now());
        if !billing::billed(tx, (&organization, period), content.carry_after, now).await? {
            return Ok(false);
        }
        let (id, created_at) = self.identity(tx, &organization, period).await?;
        let (number, issued_at) = document::next_number(tx, DocumentKind::Invoice, now).await?;
        let invoice = Invoice::draft(id, content).issue(number, issued_at)?;
        let stored = StoredInvoice { invoice, credited: Nanos::ZERO, created_at };
        if !invoice::put(tx, &stored).await? {
            return Err(Error::internal(format!("{period} of {organization} was invoiced before it was closed")));
        }
        let invoice = &stored.invoice;
        self.seal_invoice(tx, invoice, leaves).await?;
        let head = EntryHead { id: self.ids.mint(), at: issued_at, currency, memo: format!("{number} {}", invoice.id) };
        ledger::post(tx, &post(head, &organization, &invoice.content.issue_fact())?).await?;
        self.post_commitment(tx, invoice, issued_at).await?;
        self.post_advance(tx, invoice, issued_at).await?;
        self.earn_fees(tx, (&organization, currency), period, issued_at).await?;
        self.post_taxes(tx, invoice, issued_at).await?;
        self.release_prepaid_tax(tx, &organization, now).await?;
        let detail = format!("{number} over {} {currency} for {period}", invoice.content.total);
        let deed = Deed { organization: Some(&organization), action: "invoice.issue", target: invoice.id.as_str(), detail };
        self.record(tx, &Actor::system(), deed, now).await?;
        self.note_paid(tx, &organization, now).await?;
        self.mail_invoice(tx, &invoice.id).await?;
        Ok(true)
    }

    /// Pays what is owed by contract and for tax, and notes which invoices are paid by what the account paid in: called when there is
    /// an invoice, a payment or a credit note more.
    pub(crate) async fn note_paid(&self, tx: &mut Tx, organization: &OrganizationId, now: Timestamp) -> Result<()> {
        self.settle_owed(tx, organization, now).await?;
        let unpaid = invoice::list_unpaid(tx, organization, UNPAID_MAX).await?;
        if unpaid.is_empty() {
            return self.lift_if_settled(tx, organization).await;
        }
        let paid_in = paid_in(tx, organization).await?;
        for mut stored in unpaid {
            if invoice::receivable(tx, &stored).await?.due(paid_in, stored.currency())? > Nanos::ZERO {
                continue;
            }
            stored.invoice = stored.invoice.pay(now)?;
            invoice::move_on(tx, &stored).await?;
            let target = stored.invoice.id.as_str();
            let deed = Deed { organization: Some(organization), action: "invoice.paid", target, detail: String::new() };
            self.record(tx, &Actor::system(), deed, now).await?;
        }
        self.lift_if_settled(tx, organization).await
    }
}

/// All credit that an account ever got, less what was paid back or expired. It reads no account that use is posted to,
/// so settlements do not stand in its way.
pub(crate) async fn paid_in(tx: &mut Tx, organization: &OrganizationId) -> Result<Nanos> {
    let mut totals = BTreeMap::new();
    for kind in PAID_IN {
        totals.insert(kind, ledger::totals(tx, &LedgerAccount::customer(kind, organization)).await?);
    }
    // What is left of credit that ends or is for one use has paid nothing yet, and may never. That of a contract was not paid
    // in: what was, is for its invoice.
    let lots = credit::list_lots(tx, organization).await?.into_iter().filter(|lot| lot.kind != CreditKind::Committed);
    let lots = Nanos::checked_sum(lots.map(|lot| lot.remaining))?;
    paid_in_of(|kind| totals.get(&kind).copied().unwrap_or_default())?.checked_sub(lots)
}

/// An account's first month is that of its creation, or that of its first use if a clock was set back since.
async fn first_period(tx: &mut Tx, calendar: &BillingCalendar, account: &Organization) -> Result<Period> {
    let created = calendar.period_at(account.created_at)?;
    match charge::first_period(tx, &account.id).await? {
        Some(used) if used < created.key => calendar.period(used),
        Some(_) | None => Ok(created),
    }
}

const fn open_month(period: &Period) -> OpenMonth {
    OpenMonth { period: period.key, ends_at: period.interval.ends_at }
}
