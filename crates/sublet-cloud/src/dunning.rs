//! Dunning: reminders of what is overdue, suspension of accounts that do not pay, and its end when they do.
//!
//! What to do is decided by `plan_dunning`; here it is read, done and written down, each account in one transaction with
//! its mail and its audit entries. It runs in the pass that closes months, so a clock that is wrong suspends nobody.
//!
//! What a customer did not get is no reminder: nobody is suspended before the mail of the last one was taken by whoever
//! delivers it, and nobody at all where nobody does.
//!
//! A suspended account has no access to anything new. What runs is refused more money if the customer chose so, and
//! ends by the way of every other end of money.

use std::collections::BTreeMap;

use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::day::Day;
use sublet_money::dunning::{Debt, DunnedAccount, DunningAction, DunningPolicy, Reminded, plan_dunning};
use sublet_money::period::BillingCalendar;
use sublet_money::spend_limit::Work;
use sublet_store::change::{self, Subject};
use sublet_store::dunning::{self, AccountDunning, DebtDunning, OnSuspension, Overdue};
use sublet_store::organization::Organization;
use sublet_store::{Tx, invoice, organization};

use crate::audit::Deed;
use crate::billing::paid_in;
use crate::mail::{Mail, MailAttachment, REMINDER, Recipient};
use crate::{Action, Actor, Cloud};

/// Accounts that are looked at together.
const ACCOUNTS_AT_ONCE: i64 = 100;
/// Unpaid invoices of one account that are looked at together.
const UNPAID_MAX: i64 = 1_000;
/// Longest note of a pause, in characters.
const NOTE_CHARS_MAX: usize = 500;

/// What an unpaid invoice is, and how far its dunning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DunnedInvoice {
    pub invoice: InvoiceId,
    pub number: String,
    pub due_on: Day,
    pub due: Nanos,
    pub reminded: Option<Reminded>,
    /// When that one's mail was taken by whoever delivers it.
    pub delivered_at: Option<Timestamp>,
    /// Why it is left alone.
    pub paused: Option<String>,
}

/// Where an account stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dunning {
    pub organization: OrganizationId,
    pub currency: Currency,
    /// Its own, or that of all.
    pub policy: DunningPolicy,
    pub account: AccountDunning,
    /// Invoices with terms of payment that are not paid, the oldest first; they may not be overdue.
    pub debts: Vec<DunnedInvoice>,
    /// Today in the account's zone.
    pub today: Day,
}

impl Dunning {
    /// What is overdue.
    pub fn overdue(&self) -> impl Iterator<Item = &DunnedInvoice> {
        self.debts.iter().filter(|debt| debt.due_on < self.today)
    }
}

/// What one look did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DunningReport {
    pub reminded: u64,
    pub suspended: u64,
    pub lifted: u64,
    /// Accounts of which something failed; each was logged, and is tried again.
    pub failed: u64,
}

impl Cloud {
    /// Reminds and suspends whom the policies say, and lifts what has no reason any more.
    pub async fn dun(&self) -> Result<DunningReport> {
        let (mut report, mut last) = (DunningReport::default(), None);
        loop {
            let page = self.store.read(&last, |last, tx| Box::pin(dunning::owing(tx, last.as_ref(), ACCOUNTS_AT_ONCE))).await?;
            let Some(newest) = page.last() else { break };
            last = Some(newest.clone());
            for id in &page {
                match self.dun_one(id).await {
                    Ok(actions) => {
                        for action in actions {
                            match action {
                                DunningAction::Remind { .. } => report.reminded += 1,
                                DunningAction::Suspend => report.suspended += 1,
                                DunningAction::Lift => report.lifted += 1,
                            }
                        }
                    }
                    Err(error) => {
                        report.failed += 1;
                        tracing::error!(organization = %id, %error, private = ?error, "an account was not dunned; it is tried again");
                    }
                }
            }
        }
        self.follow().await?;
        Ok(report)
    }

    /// Most accounts need nothing most of the time, and nothing is written for them.
    async fn dun_one(&self, id: &OrganizationId) -> Result<Vec<DunningAction>> {
        let planned = self.store.read((self, id), |(cloud, id), tx| Box::pin(cloud.planned(tx, id))).await?;
        if planned.is_none() {
            return Ok(Vec::new());
        }
        self.store.write((self, id), |(cloud, id), tx| Box::pin(cloud.dun_account(tx, id))).await
    }

    /// Where an account stands and what is to be done, if anything is.
    async fn planned(&self, tx: &mut Tx, id: &OrganizationId) -> Result<Option<(Dunning, Vec<DunningAction>)>> {
        let account = organization::get(tx, &Scope::Operator, id).await?;
        let known = dunning::find_account(tx, id).await?;
        let is_customer = matches!(account.class, OrganizationClass::External | OrganizationClass::Partner);
        let is_dunned = known.suspended_at.is_some() || policy_of(tx, &known).await? != DunningPolicy::default();
        if !is_customer || !is_dunned {
            return Ok(None);
        }
        let standing = self.dunning_in(tx, &account).await?;
        let actions = self.dunning_steps(&account, &standing)?;
        let is_stale = says_other(&standing.account, &overdue(&standing)?);
        Ok((is_stale || !actions.is_empty()).then_some((standing, actions)))
    }

    async fn dun_account(&self, tx: &mut Tx, id: &OrganizationId) -> Result<Vec<DunningAction>> {
        let Some((standing, actions)) = self.planned(tx, id).await? else { return Ok(Vec::new()) };
        let mut known = standing.account.clone();
        for action in &actions {
            match action {
                DunningAction::Remind { invoice, reminder } => self.remind(tx, &standing, (invoice, *reminder)).await?,
                DunningAction::Suspend => known = self.suspend(tx, &standing, known).await?,
                DunningAction::Lift => known = self.lift(tx, &standing, known).await?,
            }
        }
        self.keep_overdue(tx, &standing, known).await?;
        Ok(actions)
    }

    fn dunning_steps(&self, account: &Organization, standing: &Dunning) -> Result<Vec<DunningAction>> {
        let calendar = BillingCalendar::new(&account.time_zone)?;
        let debt = |known: &DunnedInvoice| {
            Ok(Debt {
                invoice: known.invoice.clone(),
                due_on: known.due_on,
                amount: known.due,
                reminded: known.reminded,
                delivered_on: known.delivered_at.map(|at| calendar.day_at(at)).transpose()?,
                is_paused: known.paused.is_some(),
            })
        };
        let debts = standing.debts.iter().map(debt).collect::<Result<Vec<Debt>>>()?;
        let dunned = DunnedAccount {
            calendar: &calendar,
            debts: &debts,
            is_paused: standing.account.paused.is_some(),
            is_suspended: standing.account.suspended_at.is_some(),
        };
        plan_dunning(dunned, &standing.policy, self.now())
    }

    /// Ends a suspension for which there is no reason any more: with the payment, credit note or pause that was the end of it.
    pub(crate) async fn lift_if_settled(&self, tx: &mut Tx, id: &OrganizationId) -> Result<()> {
        if dunning::find_account(tx, id).await?.suspended_at.is_none() {
            return Ok(());
        }
        let account = organization::get(tx, &Scope::Operator, id).await?;
        let standing = self.dunning_in(tx, &account).await?;
        if self.dunning_steps(&account, &standing)?.contains(&DunningAction::Lift) {
            self.lift(tx, &standing, standing.account.clone()).await?;
            return Ok(());
        }
        self.keep_overdue(tx, &standing, standing.account.clone()).await
    }

    /// Keeps what refusals say right when more is overdue, or a part of it was paid.
    async fn keep_overdue(&self, tx: &mut Tx, standing: &Dunning, known: AccountDunning) -> Result<()> {
        let overdue = overdue(standing)?;
        if !says_other(&known, &overdue) {
            return Ok(());
        }
        dunning::put_account(tx, &standing.organization, &AccountDunning { overdue: Some(overdue), ..known }).await
    }

    async fn remind(&self, tx: &mut Tx, standing: &Dunning, (id, reminder): (&InvoiceId, Reminded)) -> Result<()> {
        let organization = &standing.organization;
        let Some(debt) = standing.debts.iter().find(|debt| debt.invoice == *id) else { return Ok(()) };
        let noted = DebtDunning { reminded: Some(reminder), delivered_at: None, paused: debt.paused.clone() };
        dunning::put_debt(tx, (organization, id), &noted).await?;
        let (number, due, currency, due_on) = (&debt.number, debt.due, standing.currency, debt.due_on);
        let mut text = format!(
            "Invoice {number} is not paid. {due} {currency} of it were to be paid by {due_on}.\n\nIf you paid it in the last days, nothing is to be done.\n"
        );
        if let Some(days) = standing.policy.suspend_after {
            text.push_str(&format!(
                "\nAn account whose invoice is not paid {days} days after it was due is suspended: nothing new is begun until it is paid.\n"
            ));
        }
        let mail = Mail {
            key: dunning::reminder_key(id, reminder),
            to: Recipient::Organization(organization.clone()),
            kind: REMINDER,
            subject: format!("Reminder: invoice {number} was due on {due_on}"),
            text,
            attachment: Some(MailAttachment::Invoice(id.clone())),
        };
        self.queue_mail(tx, &mail).await?;
        let detail = format!("{number}: {due} {currency}, {} days after {due_on}", reminder.after_days);
        let deed = Deed { organization: Some(organization), action: "invoice.remind", target: id.as_str(), detail };
        self.record(tx, &Actor::system(), deed, self.now()).await
    }

    async fn suspend(&self, tx: &mut Tx, standing: &Dunning, known: AccountDunning) -> Result<AccountDunning> {
        let now = self.now();
        let overdue = overdue(standing)?;
        let owed = owed(&overdue);
        let suspended = AccountDunning { suspended_at: Some(now), overdue: Some(overdue), ..known };
        let then = match suspended.on_suspension {
            OnSuspension::Finish => "What runs goes on within its credit.",
            OnSuspension::Stop => "What runs gets no more money, and ends with its notice.",
        };
        let text = format!(
            "The account is suspended: {owed}.\n\nNothing new is begun until it is paid. {then}\nPaying ends the suspension at once.\n"
        );
        self.note_suspension(tx, standing, (&suspended, "organization.suspend", owed)).await?;
        self.mail_suspension(tx, standing, (now, "suspended"), text).await?;
        Ok(suspended)
    }

    async fn lift(&self, tx: &mut Tx, standing: &Dunning, known: AccountDunning) -> Result<AccountDunning> {
        let since = known.suspended_at.unwrap_or_else(|| self.now());
        let lifted = AccountDunning { suspended_at: None, overdue: None, ..known };
        self.note_suspension(tx, standing, (&lifted, "organization.unsuspend", format!("suspended since {since}"))).await?;
        let text = "The account is no longer suspended.\n".to_owned();
        self.mail_suspension(tx, standing, (since, "no longer suspended"), text).await?;
        Ok(lifted)
    }

    /// Gateways hear of it as of every change of who may do what.
    async fn note_suspension(
        &self,
        tx: &mut Tx,
        standing: &Dunning,
        (account, action, detail): (&AccountDunning, &str, String),
    ) -> Result<()> {
        let organization = &standing.organization;
        dunning::put_account(tx, organization, account).await?;
        change::announce(tx, Subject::Access).await?;
        let deed = Deed { organization: Some(organization), action, target: organization.as_str(), detail };
        self.record(tx, &Actor::system(), deed, self.now()).await
    }

    async fn mail_suspension(&self, tx: &mut Tx, standing: &Dunning, (since, what): (Timestamp, &str), text: String) -> Result<()> {
        let organization = &standing.organization;
        for (whose, to) in [("account", Recipient::Organization(organization.clone())), ("operator", Recipient::Operator)] {
            let mail = Mail {
                key: format!("suspension:{organization}:{}:{what}:{whose}", since.micros()),
                to,
                kind: "suspension",
                subject: format!("Account {organization} is {what}"),
                text: text.clone(),
                attachment: None,
            };
            self.queue_mail(tx, &mail).await?;
        }
        Ok(())
    }

    async fn dunning_in(&self, tx: &mut Tx, account: &Organization) -> Result<Dunning> {
        let id = &account.id;
        let known = dunning::find_account(tx, id).await?;
        let policy = policy_of(tx, &known).await?;
        let today = BillingCalendar::new(&account.time_zone)?.day_at(self.now())?;
        let unpaid = invoice::list_unpaid(tx, id, UNPAID_MAX).await?;
        let (mut debts, mut reminded) = (Vec::new(), BTreeMap::new());
        if !unpaid.is_empty() {
            reminded = dunning::list_debts(tx, id).await?;
        }
        let paid_in = if unpaid.is_empty() { Nanos::ZERO } else { paid_in(tx, id).await? };
        for stored in unpaid {
            let (Some(due_on), Some(number)) = (stored.invoice.due_on()?, stored.invoice.number) else { continue };
            let due = invoice::receivable(tx, &stored).await?.due(paid_in, stored.currency())?;
            let DebtDunning { reminded, delivered_at, paused } = reminded.remove(&stored.invoice.id).unwrap_or_default();
            let (invoice, number) = (stored.invoice.id, number.to_string());
            debts.push(DunnedInvoice { invoice, number, due_on, due, reminded, delivered_at, paused });
        }
        Ok(Dunning { organization: id.clone(), currency: account.currency, policy, account: known, debts, today })
    }

    /// Whether an account's suspension keeps something from beginning, or going on.
    pub(crate) async fn is_kept_back(&self, tx: &mut Tx, id: &OrganizationId, work: Work) -> Result<bool> {
        Ok(keeps_back(&dunning::find_account(tx, id).await?, work))
    }

    /// An error that says what is owed, where an account's suspension keeps something from beginning, or going on.
    pub(crate) async fn check_suspension(&self, tx: &mut Tx, id: &OrganizationId, work: Work) -> Result<()> {
        let known = dunning::find_account(tx, id).await?;
        if !keeps_back(&known, work) {
            return Ok(());
        }
        let what = known.overdue.as_ref().map(|overdue| format!(": {}", owed(overdue))).unwrap_or_default();
        let mut error = Error::new(ErrorCode::InsufficientQuota, format!("the account is suspended{what}"));
        if let Some(Overdue { sum, .. }) = known.overdue {
            error = error.alternative(format!(
                "pay it, as by 'sublet top-ups create {sum} --method bank' with an admin key; that ends the suspension at once"
            ));
        }
        Err(error.alternative("ask the operator, if something of it is wrong"))
    }

    /// Where an account stands.
    pub async fn dunning(&self, actor: &Actor, id: &OrganizationId) -> Result<Dunning> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let account = organization::get(tx, &actor.scope, id).await?;
                    cloud.dunning_in(tx, &account).await
                })
            })
            .await
    }

    /// Says what an account's running work does when it is suspended: its administrators' choice.
    pub async fn set_on_suspension(&self, actor: &Actor, choice: OnSuspension) -> Result<Dunning> {
        actor.require(Action::PayIn)?;
        let id = actor.organization()?;
        self.store
            .write((self, actor, id), move |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let known = dunning::find_account(tx, id).await?;
                    dunning::put_account(tx, id, &AccountDunning { on_suspension: choice, ..known }).await?;
                    let detail = format!("what runs: {}", choice.as_str());
                    let deed = Deed { organization: Some(id), action: "dunning.set", target: id.as_str(), detail };
                    cloud.record(tx, actor, deed, cloud.now()).await?;
                    let account = organization::get(tx, &actor.scope, id).await?;
                    cloud.dunning_in(tx, &account).await
                })
            })
            .await
    }

    /// The policy of all accounts without their own.
    pub async fn dunning_policy(&self, actor: &Actor) -> Result<DunningPolicy> {
        actor.require(Action::ManagePayments)?;
        self.store.read((), |(), tx| Box::pin(dunning::default_policy(tx))).await
    }

    pub async fn set_dunning_policy(&self, actor: &Actor, policy: &DunningPolicy) -> Result<()> {
        actor.require(Action::ManagePayments)?;
        policy.validate()?;
        self.store
            .write((self, actor, policy), |(cloud, actor, policy), tx| {
                Box::pin(async move {
                    dunning::set_default_policy(tx, policy).await?;
                    let detail = said(policy);
                    let deed = Deed { organization: None, action: "dunning_policy.set", target: "dunning_policy", detail };
                    cloud.record(tx, actor, deed, cloud.now()).await
                })
            })
            .await
    }

    /// Says how an account is dunned: by a policy of its own or as all others, or not at all for the reason of a note.
    pub async fn set_dunning(
        &self,
        actor: &Actor,
        id: &OrganizationId,
        (policy, note): (Option<&DunningPolicy>, Option<&String>),
    ) -> Result<Dunning> {
        actor.require(Action::ManagePayments)?;
        policy.map_or(Ok(()), DunningPolicy::validate)?;
        let set = (self, actor, id, policy, checked_note(note)?);
        let standing = self
            .store
            .write(set, |(cloud, actor, id, policy, paused), tx| {
                Box::pin(async move {
                    let account = organization::get(tx, &actor.scope, id).await?;
                    let known = dunning::find_account(tx, id).await?;
                    let detail = format!(
                        "policy: {}; paused: {}",
                        policy.map_or_else(|| "as all".to_owned(), said),
                        paused.as_deref().unwrap_or("no")
                    );
                    let set = AccountDunning { policy: policy.cloned(), paused: paused.clone(), ..known };
                    dunning::put_account(tx, id, &set).await?;
                    let deed = Deed { organization: Some(id), action: "dunning.set", target: id.as_str(), detail };
                    cloud.record(tx, actor, deed, cloud.now()).await?;
                    cloud.lift_if_settled(tx, id).await?;
                    cloud.dunning_in(tx, &account).await
                })
            })
            .await?;
        self.follow().await?;
        Ok(standing)
    }

    /// Leaves an invoice alone, for the reason of the note; or goes on with it.
    pub async fn pause_invoice(&self, actor: &Actor, id: &InvoiceId, note: Option<&String>) -> Result<Dunning> {
        actor.require(Action::ManagePayments)?;
        let note = checked_note(note)?;
        let standing = self
            .store
            .write((self, actor, id, note), |(cloud, actor, id, note), tx| {
                Box::pin(async move {
                    let stored = crate::invoice::find(tx, &actor.scope, id).await?;
                    let organization = stored.organization();
                    let known = dunning::list_debts(tx, organization).await?.remove(id).unwrap_or_default();
                    dunning::put_debt(tx, (organization, id), &DebtDunning { paused: note.clone(), ..known }).await?;
                    let detail = format!("paused: {}", note.as_deref().unwrap_or("no"));
                    let deed = Deed { organization: Some(organization), action: "dunning.pause", target: id.as_str(), detail };
                    cloud.record(tx, actor, deed, cloud.now()).await?;
                    cloud.lift_if_settled(tx, organization).await?;
                    let account = organization::get(tx, &actor.scope, organization).await?;
                    cloud.dunning_in(tx, &account).await
                })
            })
            .await?;
        self.follow().await?;
        Ok(standing)
    }
}

/// An account's own policy, or that of all.
async fn policy_of(tx: &mut Tx, account: &AccountDunning) -> Result<DunningPolicy> {
    match &account.policy {
        Some(own) => Ok(own.clone()),
        None => dunning::default_policy(tx).await,
    }
}

/// What was accepted before is kept back only if the customer chose so.
fn keeps_back(account: &AccountDunning, work: Work) -> bool {
    account.suspended_at.is_some() && (work == Work::New || account.on_suspension == OnSuspension::Stop)
}

/// Whether a suspended account's refusals say something else than they should.
fn says_other(account: &AccountDunning, overdue: &Overdue) -> bool {
    account.suspended_at.is_some() && account.overdue.as_ref() != Some(overdue)
}

/// What is overdue.
fn overdue(standing: &Dunning) -> Result<Overdue> {
    let sum = Nanos::checked_sum(standing.overdue().map(|debt| debt.due))?;
    let oldest = standing.overdue().map(|debt| (debt.number.clone(), debt.due_on)).next();
    Ok(Overdue { sum, currency: standing.currency, oldest })
}

/// The same in words.
fn owed(Overdue { sum, currency, oldest }: &Overdue) -> String {
    let oldest = oldest.as_ref().map(|(number, due_on)| format!("; invoice {number} was to be paid by {due_on}"));
    format!("{sum} {currency} are overdue{}", oldest.unwrap_or_default())
}

fn said(policy: &DunningPolicy) -> String {
    let reminders: Vec<String> = policy.reminders.iter().map(ToString::to_string).collect();
    let reminders = if reminders.is_empty() { "none".to_owned() } else { reminders.join(", ") };
    let suspension = policy.suspend_after.map_or_else(|| "never".to_owned(), |days| days.to_string());
    format!("reminders {reminders}; suspension {suspension}")
}

fn checked_note(note: Option<&String>) -> Result<Option<String>> {
    let Some(note) = note.map(|note| note.trim()) else { return Ok(None) };
    if note.is_empty() || note.chars().count() > NOTE_CHARS_MAX || note.chars().any(char::is_control) {
        let message = format!("a pause has a note: one line of at most {NOTE_CHARS_MAX} characters");
        return Err(Error::new(ErrorCode::InvalidRequest, message).param("note"));
    }
    Ok(Some(note.to_owned()))
}
