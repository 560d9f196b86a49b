//! Automatic top-ups: a customer's rule, and the looks at it that charge the saved card.
//!
//! What to do is decided by `plan_top_up`; here it is read, and noted as an intent, in one transaction with the rule. The
//! charge itself is a top-up like any other one: it becomes credit by the same step, and pays first what is owed, as every
//! payment does. A suspended account is not charged by its rule: what it owes it pays by itself, or disputes.
//!
//! Deliberately absent: charges of which the customer hears nothing. Each one that came to nothing is told by mail, but for
//! those that were called off because the customer took the card away.

use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::payment::{PaymentMethod, TopUpCause};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::{BillingCalendar, PeriodLength};
use sublet_money::top_up_rule::{DECLINES_MAX, TopUpPlan, TopUpRule, TopUpStanding, plan_top_up, retry_after};
use sublet_store::organization::Organization;
use sublet_store::saved_card::{self, SavedCardState};
use sublet_store::top_up::{self, TopUp, TopUpState};
use sublet_store::top_up_rule::{self, StoredTopUpRule, TopUpRuleState};
use sublet_store::{Tx, dunning, ledger, organization};

use crate::audit::Deed;
use crate::mail::{Mail, Recipient};
use crate::saved_card::is_card_gone;
use crate::top_up::Intent;
use crate::{Action, Actor, Cloud};

/// How often a rule is looked at when nothing wakes it.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(60);

/// What an account wants charged by itself, and how far that is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountTopUpRule {
    pub organization: OrganizationId,
    pub currency: Currency,
    pub rule: Option<StoredTopUpRule>,
    /// A page waits for the customer, whose bank wants a confirmation.
    pub needs_customer: bool,
}

impl Cloud {
    /// Says what is charged by itself, in the place of what was said before; a rule that was paused goes on.
    pub async fn set_top_up_rule(&self, actor: &Actor, terms: &TopUpRule, currency: Currency) -> Result<AccountTopUpRule> {
        actor.require(Action::PayIn)?;
        let id = actor.organization()?;
        self.store
            .write((self, actor, id, terms), move |(cloud, actor, id, terms), tx| {
                Box::pin(async move {
                    let (account, now) = (organization::get(tx, &actor.scope, id).await?, cloud.now());
                    cloud.check_rule(tx, &account, (terms, currency)).await?;
                    let calendar = BillingCalendar::new(&account.time_zone)?;
                    let rule = StoredTopUpRule {
                        organization: account.id.clone(),
                        terms: **terms,
                        state: TopUpRuleState::Active,
                        reason: None,
                        declines: 0,
                        look_at: Some(now),
                        retry_at: None,
                        day_at: terms.on.map(|on| on.day.next_after(&calendar, now)).transpose()?,
                        set_by: actor.name().to_owned(),
                        set_at: now,
                    };
                    top_up_rule::put(tx, &rule).await?;
                    cloud.record_rule(tx, actor, id, ("top_up_rule.set", described(terms, currency))).await?;
                    account_rule(tx, &account).await
                })
            })
            .await
    }

    async fn check_rule(&self, tx: &mut Tx, account: &Organization, (terms, currency): (&TopUpRule, Currency)) -> Result<()> {
        if currency != account.currency {
            let message = format!("the account is kept in {}, and this is {currency}", account.currency);
            return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("most_per_month"));
        }
        if account.class == OrganizationClass::Supplier {
            return Err(Error::new(ErrorCode::Conflict, "a supplier is paid, and pays nothing in"));
        }
        self.settings.payments.cards()?;
        terms.validate(currency)?;
        let amounts = [("below.amount", terms.below.map(|below| below.amount)), ("on.amount", terms.on.map(|on| on.amount))];
        for (param, amount) in amounts {
            let Some(amount) = amount else { continue };
            let port = self.settings.payments.port(PaymentMethod::Card)?;
            port.check(amount, currency).map_err(|error| error.param(param))?;
        }
        if saved_card::find(tx, &account.id, SavedCardState::Saved).await?.is_none() {
            let error = Error::new(ErrorCode::Conflict, "no card is saved that could be charged");
            return Err(error.alternative("save one first with 'sublet saved-card save'"));
        }
        Ok(())
    }

    pub async fn top_up_rule(&self, actor: &Actor) -> Result<AccountTopUpRule> {
        actor.require(Action::ReadBilling)?;
        let id = actor.organization()?;
        self.store
            .read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let account = organization::get(tx, &actor.scope, id).await?;
                    account_rule(tx, &account).await
                })
            })
            .await
    }

    /// Nothing is charged by itself any more. What is being charged goes on. Again it changes nothing.
    pub async fn remove_top_up_rule(&self, actor: &Actor) -> Result<AccountTopUpRule> {
        actor.require(Action::PayIn)?;
        let id = actor.organization()?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    if top_up_rule::delete(tx, id).await? {
                        cloud.record_rule(tx, actor, id, ("top_up_rule.remove", String::new())).await?;
                    }
                    let account = organization::get(tx, &actor.scope, id).await?;
                    account_rule(tx, &account).await
                })
            })
            .await
    }

    /// Looks at the rule of an account if it is time to, and begins what it asks for.
    pub(crate) async fn look_at_rule(&self, id: &OrganizationId) -> Result<()> {
        let begun = self.store.write((self, id), |(cloud, id), tx| Box::pin(cloud.apply_rule(tx, id))).await?;
        match begun {
            Some(top_up) => self.advance_top_up(&top_up.id).await,
            None => Ok(()),
        }
    }

    async fn apply_rule(&self, tx: &mut Tx, id: &OrganizationId) -> Result<Option<TopUp>> {
        let now = self.now();
        let found = top_up_rule::find(tx, id).await?;
        let Some(mut rule) = found.filter(|rule| rule.look_at.is_some_and(|at| at <= now)) else { return Ok(None) };
        rule.look_at = Some(now.plus(LOOK_PERIOD));
        let account = organization::get(tx, &Scope::Operator, id).await?;
        let card = saved_card::find(tx, id, SavedCardState::Saved).await?;
        let is_suspended = dunning::find_account(tx, id).await?.suspended_at.is_some();
        let (Some(card), false) = (card, is_suspended) else {
            top_up_rule::put(tx, &rule).await?;
            return Ok(None);
        };
        let calendar = BillingCalendar::new(&account.time_zone)?;
        let standing = standing_of(tx, &rule, (&calendar, now)).await?;
        let plan = plan_top_up(&rule.terms, &standing, now)?;
        let is_day = matches!(plan, TopUpPlan::Charge(TopUpCause::Period, _) | TopUpPlan::Capped(TopUpCause::Period, _));
        if let (true, Some(on)) = (is_day, rule.terms.on) {
            rule.day_at = Some(on.day.next_after(&calendar, now)?);
        }
        top_up_rule::put(tx, &rule).await?;
        match plan {
            TopUpPlan::Wait => Ok(None),
            TopUpPlan::Capped(cause, length) => {
                let since = calendar.interval_at(length, now)?.starts_at;
                self.mail_capped(tx, (&account, &rule.terms), (cause, since)).await.map(|()| None)
            }
            TopUpPlan::Charge(cause, amount) => {
                let (id, method) = (self.ids.mint(), PaymentMethod::Card);
                let intent = Intent { id, account: &account, method, amount, card: Some(card.id), cause: Some(cause) };
                self.intend(tx, &Actor::system(), intent).await.map(Some)
            }
        }
    }

    /// What a rule asked for is credit: what went wrong before is forgotten, and the day that it was for is over with.
    pub(crate) async fn note_rule_success(&self, tx: &mut Tx, top_up: &TopUp) -> Result<()> {
        let found = if top_up.cause.is_some() { top_up_rule::find(tx, &top_up.organization).await? } else { None };
        let Some(rule) = found else { return Ok(()) };
        let now = self.now();
        let is_paid_for = rule.day_at.is_some_and(|at| match top_up.cause {
            // The page stands for the day that was due when it was made.
            Some(TopUpCause::Confirmation) => at <= top_up.created_at,
            // It had failed, and its day was due again.
            Some(TopUpCause::Period) => at <= now && is_of(&rule, top_up),
            Some(TopUpCause::Threshold) | None => false,
        });
        let day_at = match rule.terms.on.filter(|_| is_paid_for) {
            Some(on) => {
                let account = organization::get(tx, &Scope::Operator, &top_up.organization).await?;
                Some(on.day.next_after(&BillingCalendar::new(&account.time_zone)?, now)?)
            }
            None => rule.day_at,
        };
        top_up_rule::put(tx, &StoredTopUpRule { declines: 0, retry_at: None, day_at, ..rule }).await
    }

    /// What a rule asked for came to nothing: it is tried later, each time later, and then paused. Where the bank wants
    /// the customer, a page waits for it. What was called off because its card is gone is no charge that was declined.
    pub(crate) async fn note_rule_failure(&self, tx: &mut Tx, failed: &TopUp, needs_customer: bool) -> Result<()> {
        let (now, system) = (self.now(), Actor::system());
        let Some(cause) = failed.cause else { return Ok(()) };
        let Some(rule) = top_up_rule::find(tx, &failed.organization).await? else { return Ok(()) };
        if cause == TopUpCause::Confirmation {
            return self.note_page_failure(tx, failed, &rule).await;
        }
        // The day is not over with: it is due until it is paid.
        let is_due = cause == TopUpCause::Period && is_of(&rule, failed);
        let rule = StoredTopUpRule { day_at: if is_due { Some(now) } else { rule.day_at }, ..rule };
        let is_called_off = failed.state != TopUpState::Failed && is_card_gone(tx, failed).await?;
        if rule.state == TopUpRuleState::Paused || is_called_off {
            top_up_rule::put(tx, &rule).await?;
        } else {
            let declines = rule.declines.saturating_add(1);
            let retry_at = retry_after(declines, now);
            top_up_rule::put(tx, &StoredTopUpRule { declines, retry_at, ..rule }).await?;
            if retry_at.is_none() {
                let why = format!("{DECLINES_MAX} charges in a row came to nothing");
                self.pause_rule(tx, &system, (&failed.organization, &why)).await?;
            }
            if !needs_customer || retry_at.is_none() {
                self.mail_declined(tx, failed, retry_at).await?;
            }
        }
        if needs_customer {
            let account = organization::get(tx, &Scope::Operator, &failed.organization).await?;
            let (id, method, amount) = (self.ids.mint(), PaymentMethod::Stripe, failed.amount);
            let cause = Some(TopUpCause::Confirmation);
            self.intend(tx, &system, Intent { id, account: &account, method, amount, card: None, cause }).await?;
        }
        Ok(())
    }

    /// A page that nobody used is no charge that was declined; that one was counted. But where nobody was told of the
    /// page, nobody was told of the charge either.
    async fn note_page_failure(&self, tx: &mut Tx, failed: &TopUp, rule: &StoredTopUpRule) -> Result<()> {
        if failed.url.is_some() {
            return Ok(());
        }
        let now = self.now();
        let retry_at = match rule.state {
            TopUpRuleState::Active => Some(rule.retry_at.map_or(now, |at| at.max(now))),
            TopUpRuleState::Paused => None,
        };
        self.mail_declined(tx, failed, retry_at).await
    }

    /// Stops a rule until the customer sets it again, or saves a card.
    pub(crate) async fn pause_rule(&self, tx: &mut Tx, actor: &Actor, (id, why): (&OrganizationId, &str)) -> Result<()> {
        let found = top_up_rule::find(tx, id).await?;
        let Some(rule) = found.filter(|rule| rule.state == TopUpRuleState::Active) else { return Ok(()) };
        let (state, reason) = (TopUpRuleState::Paused, Some(why.to_owned()));
        top_up_rule::put(tx, &StoredTopUpRule { state, reason, look_at: None, ..rule }).await?;
        self.record_rule(tx, actor, id, ("top_up_rule.pause", why.to_owned())).await
    }

    /// There is another card: the rule goes on as if nothing had been declined.
    pub(crate) async fn resume_rule(&self, tx: &mut Tx, id: &OrganizationId) -> Result<()> {
        let Some(rule) = top_up_rule::find(tx, id).await? else { return Ok(()) };
        let was = rule.state;
        let (state, look_at) = (TopUpRuleState::Active, Some(self.now()));
        top_up_rule::put(tx, &StoredTopUpRule { state, reason: None, declines: 0, retry_at: None, look_at, ..rule }).await?;
        match was {
            TopUpRuleState::Active => Ok(()),
            TopUpRuleState::Paused => {
                self.record_rule(tx, &Actor::system(), id, ("top_up_rule.resume", "another card was saved".to_owned())).await
            }
        }
    }

    /// The page on which the customer confirms, once it is there.
    pub(crate) async fn mail_confirmation(&self, tx: &mut Tx, page: &TopUp) -> Result<()> {
        let Some(url) = &page.url else { return Ok(()) };
        let sum = format!("{} {}", page.amount, page.currency);
        let text = format!(
            "The bank of the saved card wants you to confirm an automatic top-up of {sum}. Nothing was charged.\n\nConfirm and pay it here until {}:\n{url}\n\nMeanwhile nothing else is charged by itself.\n",
            page.expires_at
        );
        let subject = format!("Confirm an automatic top-up of {sum}");
        self.mail_about_rule(tx, &page.organization, (format!("top_up_confirm:{}", page.id), subject, text)).await
    }

    async fn mail_declined(&self, tx: &mut Tx, failed: &TopUp, retry_at: Option<Timestamp>) -> Result<()> {
        let sum = format!("{} {}", failed.amount, failed.currency);
        let why = failed.reason.as_deref().unwrap_or("it was called off");
        let then = match retry_at {
            Some(at) => format!("It is tried again at {at}, if it is still needed."),
            None => "Automatic top-ups are paused. They go on when another card is saved, or the rule is set again.".to_owned(),
        };
        let text = format!(
            "An automatic top-up of {sum} did not come through: {why}\n\n{then}\n\nAnother card: sublet saved-card save\nThe rule: sublet top-ups rule show\n"
        );
        let subject = format!("An automatic top-up of {sum} did not come through");
        self.mail_about_rule(tx, &failed.organization, (format!("top_up_declined:{}", failed.id), subject, text)).await
    }

    async fn mail_capped(
        &self,
        tx: &mut Tx,
        (account, terms): (&Organization, &TopUpRule),
        (cause, since): (TopUpCause, Timestamp),
    ) -> Result<()> {
        let what = described(terms, account.currency);
        let text = format!(
            "An automatic top-up was not made: it would be more than the rule allows.\n\nThe rule: {what}\n\nPay in by yourself with 'sublet top-ups create', or set the rule again with 'sublet top-ups rule set'.\n"
        );
        let key = format!("top_up_capped:{}:{}:{}", account.id, cause.as_str(), since.micros());
        self.mail_about_rule(tx, &account.id, (key, "Automatic top-ups have reached their limit".to_owned(), text)).await
    }

    async fn mail_about_rule(
        &self,
        tx: &mut Tx,
        id: &OrganizationId,
        (key, subject, text): (String, String, String),
    ) -> Result<()> {
        let to = Recipient::Organization(id.clone());
        self.queue_mail(tx, &Mail { key, to, kind: "automatic_top_up", subject, text, attachment: None }).await
    }

    async fn record_rule(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        id: &OrganizationId,
        (action, detail): (&'static str, String),
    ) -> Result<()> {
        let deed = Deed { organization: Some(id), action, target: id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }
}

/// Whether a rule asked for it as it is set now, and not as it was before.
fn is_of(rule: &StoredTopUpRule, top_up: &TopUp) -> bool {
    top_up.created_at >= rule.set_at
}

/// Where an account stands with its rule.
async fn standing_of(tx: &mut Tx, rule: &StoredTopUpRule, (calendar, now): (&BillingCalendar, Timestamp)) -> Result<TopUpStanding> {
    let id = &rule.organization;
    let (day, month) = (calendar.interval_at(PeriodLength::Day, now)?, calendar.interval_at(PeriodLength::Month, now)?);
    let there = ledger::available(tx, id).await?;
    Ok(TopUpStanding {
        // Credit of a contract is for what that covers.
        available: there.paid.checked_add(there.promotional)?,
        is_under_way: top_up::is_card_charged(tx, id).await? || top_up::is_automatic_pending(tx, id).await?,
        this_day: top_up::sum_automatic(tx, id, day.starts_at).await?,
        this_month: top_up::sum_automatic(tx, id, month.starts_at).await?,
        retry_at: rule.retry_at,
        day_at: rule.day_at,
    })
}

async fn account_rule(tx: &mut Tx, account: &Organization) -> Result<AccountTopUpRule> {
    let rule = top_up_rule::find(tx, &account.id).await?;
    let needs_customer = top_up::is_confirmation_pending(tx, &account.id).await?;
    Ok(AccountTopUpRule { organization: account.id.clone(), currency: account.currency, rule, needs_customer })
}

/// A rule in words, for the audit log and mail.
fn described(terms: &TopUpRule, currency: Currency) -> String {
    let sum = |amount: Nanos| format!("{amount} {currency}");
    let below = terms.below.map(|below| format!("{} when less than {} are left", sum(below.amount), sum(below.threshold)));
    let on = terms.on.map(|on| format!("{} on day {}", sum(on.amount), on.day));
    let per_day = terms.most_per_day.map(|most| format!("at most {} a day", sum(most)));
    let per_month = Some(format!("at most {} a month", sum(terms.most_per_month)));
    [below, on, per_day, per_month].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
