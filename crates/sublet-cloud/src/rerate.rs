//! Rating anew: use of a past time by the list that it should have been rated by, as a difference in the running month.
//!
//! It is simulated first, from what was metered and never from what was charged; then it is applied, to each customer in
//! one transaction, once for ever. Lines of past months are moved on as late use moves them on, so issued invoices stay
//! as they are, and the oldest open month has what changed. Use that comes to be known later is rated by the same list.
//!
//! A customer pays more only by the list of its own contract, where one with prices ran, and only out of its credit.
//! Whoever raises a bill, or gives back much, needs another operator's key.
//!
//! Deliberately absent: budgets and limits, which say what could be spent when it was; the owner's own teams, to whom
//! nothing is owed.

use std::collections::BTreeMap;

use sublet_core::admission::PriceVersion;
use sublet_core::id::{OrganizationId, RerateId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, LedgerAccount};
use sublet_money::contract_price::list_of;
use sublet_money::invoice::InvoiceContent;
use sublet_money::period::Interval;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::RatedLine;
use sublet_money::rerate::{Rerate, RerateNote, give_back};
use sublet_money::sku::SkuFamily;
use sublet_store::charge::{self, Charge};
use sublet_store::organization::{self, Organization};
use sublet_store::rerate::{self, PER_ACCOUNT_MAX, RerateAccount, RerateAccountState, RerateState, RerateSums, StoredRerate};
use sublet_store::{Page, PageRequest, Tx, billing, contract, ledger};

use crate::audit::Deed;
use crate::billing::Billing;
use crate::credit_lot::{StoredCredit, gifts_spent};
use crate::idempotency::{Answer, Call, Render};
use crate::incoming_payment::check_note;
use crate::rerate_plan::Changed;
use crate::{Action, Actor, Cloud};

/// Most customers that are shown: those for whom most changes.
pub const CUSTOMERS_SHOWN_MAX: i64 = 100;
/// Most lines that are shown of a customer: those that change most. All are charges, once they are applied.
pub const LINES_SHOWN_MAX: usize = 50;
/// What one operator gives back alone, in units of the currency.
pub const ALONE_MAX: Nanos = Nanos::new(100_000_000_000);
/// Those that are applied in one look.
const AT_ONCE: i64 = 10;

/// What is to be rated by which list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRerate {
    /// The list that was wrong.
    pub of: PriceVersion,
    /// The list that is right.
    pub to: PriceVersion,
    pub interval: Interval,
    /// One customer; all of the lists' currency if `None`.
    pub organization: Option<OrganizationId>,
    pub reason: String,
}

/// What it comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RerateResult {
    pub rerate: StoredRerate,
    pub sums: RerateSums,
    pub most_changed: Vec<RerateAccount>,
}

impl Cloud {
    /// Says what use would have been by another list. Nothing is changed until it is applied.
    pub async fn simulate_rerate(
        &self,
        call: &Call,
        new: &NewRerate,
        render: &Render<RerateResult>,
    ) -> Result<Answer<RerateResult>> {
        call.actor.require(Action::ManagePrices)?;
        check_note(&new.reason, "reason")?;
        let (stored, accounts) = self
            .store
            .read((self, &call.actor, new), |(cloud, actor, new), tx| {
                Box::pin(async move {
                    let stored = cloud.new_rerate(tx, actor, new).await?;
                    let accounts = cloud.simulate_accounts(tx, &stored).await?;
                    Ok((stored, accounts))
                })
            })
            .await?;
        self.once(call, render, (self, &call.actor, stored, accounts), |(cloud, actor, stored, accounts), tx| {
            Box::pin(async move {
                rerate::insert(tx, stored).await?;
                for account in accounts {
                    rerate::put_account(tx, account).await?;
                }
                cloud.record_rerate(tx, actor, stored, ("rerate.simulate", stored.organization.as_ref())).await?;
                result(tx, &stored.id).await
            })
        })
        .await
    }

    /// Applies what was simulated, from what was metered until now. The same again changes nothing.
    pub async fn apply_rerate(&self, actor: &Actor, id: &RerateId) -> Result<RerateResult> {
        actor.require(Action::ManagePrices)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let stored = rerate::get(tx, id).await?;
                    if stored.state != RerateState::Simulated {
                        return Ok(());
                    }
                    let sums = rerate::sums(tx, id).await?;
                    let needs_another = sums.raised > 0 || sums.given_back > ALONE_MAX;
                    if needs_another && stored.requested_by == actor.name() {
                        let message = format!(
                            "it raises the bills of {} customers and gives back {} {}: somebody else applies it than who asked for it",
                            sums.raised, sums.given_back, stored.currency
                        );
                        return Err(Error::new(ErrorCode::Conflict, message).alternative("a key of another operator"));
                    }
                    if rerate::approve(tx, id, actor.name(), cloud.now()).await? {
                        cloud.record_rerate(tx, actor, &stored, ("rerate.approve", stored.organization.as_ref())).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        self.carry_out(id).await?;
        self.get_rerate(actor, id).await
    }

    pub async fn get_rerate(&self, actor: &Actor, id: &RerateId) -> Result<RerateResult> {
        actor.require(Action::ManagePrices)?;
        self.store.read(id, |id, tx| Box::pin(result(tx, id))).await
    }

    pub async fn list_rerates(&self, actor: &Actor, page: &PageRequest) -> Result<Page<(StoredRerate, RerateSums)>> {
        actor.require(Action::ManagePrices)?;
        self.store
            .read(page, |page, tx| {
                Box::pin(async move {
                    let found = rerate::list(tx, page).await?;
                    let mut items = Vec::with_capacity(found.items.len());
                    for stored in found.items {
                        let sums = rerate::sums(tx, &stored.id).await?;
                        items.push((stored, sums));
                    }
                    Ok(Page { items, has_more: found.has_more })
                })
            })
            .await
    }

    /// Goes on with what was approved and not applied to all, as after a crash.
    pub(crate) async fn continue_rerates(&self) -> Result<()> {
        let approved = self.store.read((), |(), tx| Box::pin(rerate::list_approved(tx, AT_ONCE))).await?;
        for id in approved {
            if let Err(error) = self.carry_out(&id).await {
                tracing::error!(%id, %error, private = ?error, "use was not rated anew; it is tried again");
            }
        }
        Ok(())
    }

    /// Checks what does not depend on use.
    async fn new_rerate(&self, tx: &mut Tx, actor: &Actor, new: &NewRerate) -> Result<StoredRerate> {
        let now = self.now();
        let of = self.price_version(tx, &new.of).await.map_err(|error| error.param("of"))?;
        let to = self.price_version(tx, &new.to).await.map_err(|error| error.param("to"))?;
        let id: RerateId = self.ids.mint();
        Rerate::validate(&of, &to, new.interval)?;
        if new.interval.ends_at > now {
            let message = format!("it is {now}: what is used later has the prices that hold then");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("until"));
        }
        if let Some(organization) = &new.organization {
            let account = organization::get(tx, &actor.scope, organization).await.map_err(|error| error.param("organization"))?;
            if !is_customer(&account) {
                let message = "it is not a customer: the owner's own teams owe nothing";
                return Err(Error::new(ErrorCode::InvalidRequest, message).param("organization"));
            }
            if account.currency != to.currency() {
                let message = format!("the account is kept in {}", account.currency);
                return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("organization"));
            }
        }
        if to.source().is_some() && !self.is_own_list(tx, new.organization.as_ref(), &to).await? {
            let message = "the prices of a contract are for its customer alone";
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("organization"));
        }
        Ok(StoredRerate {
            id,
            of: new.of.clone(),
            to: new.to.clone(),
            currency: to.currency(),
            interval: new.interval,
            organization: new.organization.clone(),
            reason: new.reason.clone(),
            state: RerateState::Simulated,
            requested_by: actor.name().to_owned(),
            applied_by: None,
            created_at: now,
            approved_at: None,
            ended_at: None,
        })
    }

    /// Whether a list is by a contract of this customer.
    async fn is_own_list(&self, tx: &mut Tx, organization: Option<&OrganizationId>, list: &PriceListVersion) -> Result<bool> {
        let Some(organization) = organization else { return Ok(false) };
        for contract in contract::list_of(tx, organization).await? {
            if list_of(&contract.id)? == *list.list() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn simulate_accounts(&self, tx: &mut Tx, stored: &StoredRerate) -> Result<Vec<RerateAccount>> {
        let mut accounts = Vec::new();
        let mut page = PageRequest { limit: Some(100), ..PageRequest::default() };
        loop {
            let (customers, last) = customers(tx, stored, &page).await?;
            for account in customers {
                let billing = Billing::of_account(tx, &account).await?;
                let changed = self.plan_account(tx, (&account, &billing), stored).await?;
                if !changed.is_empty() {
                    accounts.push(shown(stored, &account.id, &changed)?);
                }
            }
            let Some(last) = last else { return Ok(accounts) };
            page.after = Some(last);
        }
    }

    /// Applies it to every customer to whom it was not, and says so.
    async fn carry_out(&self, id: &RerateId) -> Result<()> {
        let stored = self.store.read(id, |id, tx| Box::pin(rerate::get(tx, id))).await?;
        if stored.state != RerateState::Approved {
            return Ok(());
        }
        let mut page = PageRequest { limit: Some(100), ..PageRequest::default() };
        let mut failed = None;
        loop {
            let asked = (&stored, &page);
            let (accounts, last) = self.store.read(asked, |(stored, page), tx| Box::pin(customers(tx, stored, page))).await?;
            for account in accounts {
                if let Err(error) = self.carry_out_for(&stored, &account.id).await {
                    tracing::error!(%id, organization = %account.id, %error, private = ?error, "use was not rated anew; it is tried again");
                    failed = Some(error);
                }
            }
            let Some(last) = last else { break };
            page.after = Some(last);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.store
            .write((self, &stored), |(cloud, stored), tx| {
                Box::pin(async move {
                    if rerate::end(tx, &stored.id, cloud.now()).await? {
                        let subject = ("rerate.end", stored.organization.as_ref());
                        cloud.record_rerate(tx, &Actor::system(), stored, subject).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn carry_out_for(&self, stored: &StoredRerate, id: &OrganizationId) -> Result<()> {
        self.open_account(id).await?;
        let applied =
            self.store.write((self, stored, id), |(cloud, stored, id), tx| Box::pin(cloud.apply_to_account(tx, stored, id))).await;
        match applied {
            Err(error) if error.code() == ErrorCode::InsufficientQuota => {
                let refused = (self, stored, id, error.message());
                self.store.write(refused, |(cloud, stored, id, why), tx| Box::pin(cloud.refuse_account(tx, stored, id, why))).await
            }
            other => other,
        }
    }

    async fn apply_to_account(&self, tx: &mut Tx, stored: &StoredRerate, id: &OrganizationId) -> Result<()> {
        if is_decided(tx, stored, id).await? {
            return Ok(());
        }
        let account = organization::get(tx, &Scope::Operator, id).await?;
        let billing = Billing::of_account(tx, &account).await?;
        let changed = self.plan_account(tx, (&account, &billing), stored).await?;
        let difference = Nanos::checked_sum(changed.iter().map(|(line, _)| line.amount))?;
        if difference > Nanos::ZERO && self.has_other_prices(tx, stored, &changed).await? {
            return self
                .refuse_account(tx, stored, id, "its contract has prices of its own, and is charged no more than they say")
                .await;
        }
        if i64::try_from(billing.rerates().len()).is_ok_and(|count| count >= PER_ACCOUNT_MAX) {
            let why = format!("its use was rated anew {PER_ACCOUNT_MAX} times, which is the most");
            return self.refuse_account(tx, stored, id, &why).await;
        }
        if stored.applied_by.as_ref() == Some(&stored.requested_by) && !is_small(tx, stored, id, difference).await? {
            let why = "it came to more than was simulated, and nobody else approved that; simulate it again";
            return self.refuse_account(tx, stored, id, why).await;
        }
        let now = self.now();
        self.post_difference(tx, (stored, &account), &changed, now).await?;
        let lines: Vec<_> = changed.iter().map(|(line, _)| (&line.key, line.after)).collect();
        charge::set_line_states(tx, &lines).await?;
        let charges: Vec<_> = changed.iter().map(|changed| self.moved_charge(stored, &billing, changed, now)).collect();
        charge::insert(tx, &charges).await?;
        let number = billing::count_rerate(tx, id).await?;
        let decided = RerateAccount { state: RerateAccountState::Applied, number: Some(number), ..shown(stored, id, &changed)? };
        rerate::put_account(tx, &decided).await?;
        if changed.is_empty() {
            return Ok(());
        }
        self.record_rerate(tx, &Actor::system(), stored, ("rerate.apply", Some(id))).await?;
        self.note_paid(tx, id, now).await
    }

    /// Says for ever that a customer's use stays as it was rated.
    async fn refuse_account(&self, tx: &mut Tx, stored: &StoredRerate, id: &OrganizationId, why: &str) -> Result<()> {
        if is_decided(tx, stored, id).await? {
            return Ok(());
        }
        let account = organization::get(tx, &Scope::Operator, id).await?;
        let billing = Billing::of_account(tx, &account).await?;
        let changed = self.plan_account(tx, (&account, &billing), stored).await?;
        let refused = RerateAccount { state: RerateAccountState::Refused, refusal: why.to_owned(), ..shown(stored, id, &changed)? };
        rerate::put_account(tx, &refused).await?;
        self.record_rerate(tx, &Actor::system(), stored, ("rerate.refuse", Some(id))).await
    }

    /// Whether a contract has prices in a month that changes, and the list is not its own.
    async fn has_other_prices(&self, tx: &mut Tx, stored: &StoredRerate, changed: &[Changed]) -> Result<bool> {
        let Some((first, _)) = changed.first() else { return Ok(false) };
        let to = self.price_version(tx, &stored.to).await?;
        for contract in contract::list_of(tx, &first.key.organization).await? {
            let Some(agreement) = contract.agreement()? else { continue };
            let is_own = list_of(&contract.id)? == *to.list();
            for (line, _) in changed {
                let terms = agreement.at(line.key.period)?;
                if !is_own && terms.is_some_and(|(terms, _)| terms.terms.pricing.is_some()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Gives back what use costs less, and takes what it costs more, for each family.
    async fn post_difference(
        &self,
        tx: &mut Tx,
        (stored, account): (&StoredRerate, &Organization),
        changed: &[Changed],
        now: Timestamp,
    ) -> Result<()> {
        let mut families: BTreeMap<SkuFamily, Nanos> = BTreeMap::new();
        for (line, _) in changed {
            let sum = families.entry(line.key.sku.family()).or_default();
            *sum = sum.checked_add(line.amount)?;
        }
        // What comes back first can pay for the rest.
        let mut families: Vec<_> = families.into_iter().filter(|(_, amount)| !amount.is_zero()).collect();
        families.sort_by_key(|(_, amount)| *amount);
        for (family, amount) in families {
            let fact = if amount.is_negative() {
                let to = give_back(amount.checked_neg()?, paid_for_use(tx, &account.id).await?)?;
                Fact::ChargeLowered { family, to }
            } else {
                // As it did when they were made.
                let pays = family.paid_as();
                let burned = StoredCredit::of(tx, account).await?.burn(tx, amount, (pays, now)).await?;
                Fact::ChargeRaised { family, from: burned.split()? }
            };
            let head = EntryHead { id: self.ids.mint(), at: now, currency: account.currency, memo: stored.id.to_string() };
            ledger::post(tx, &post(head, &account.id, &fact)?).await?;
        }
        Ok(())
    }

    fn moved_charge(&self, stored: &StoredRerate, billing: &Billing, (line, first_at): &Changed, now: Timestamp) -> Charge {
        Charge {
            id: self.ids.mint(),
            organization: line.key.organization.clone(),
            project: line.key.project.clone(),
            key: None,
            source: stored.id.to_string(),
            sku: line.key.sku.clone(),
            quantity: line.quantity,
            amount: line.amount,
            currency: stored.currency,
            price_version: line.key.price_version.clone(),
            period: line.key.period,
            billed_in: billing.billed_in(line.key.period),
            band: line.key.band.clone(),
            before: line.before,
            occurred_at: *first_at,
            posted_at: now,
        }
    }

    /// An invoice says why its lines are of lists that did not hold when they were used.
    pub(crate) async fn with_rerates(
        &self,
        tx: &mut Tx,
        account: &Organization,
        content: InvoiceContent,
    ) -> Result<InvoiceContent> {
        let billing = Billing::of_account(tx, account).await?;
        let mut notes = Vec::new();
        for stored in billing.rerates() {
            // Its own charges, and lines of a list that may not have held then: use that came late since is on them.
            let mut is_named = false;
            for line in content.lines.iter().filter(|line| line.price_version == stored.to && stored.of != stored.to) {
                let month = billing.calendar.period(line.late.map_or(content.period.key, |late| late.period))?.interval;
                is_named |= month.starts_at < stored.interval.ends_at && stored.interval.starts_at < month.ends_at;
            }
            let (charges, amount) = charge::sum_of_source(tx, &account.id, (stored.id.as_str(), content.period.key)).await?;
            if is_named || charges > 0 {
                notes.push(RerateNote {
                    id: stored.id.clone(),
                    of: stored.of.clone(),
                    to: stored.to.clone(),
                    interval: stored.interval,
                    reason: stored.reason.clone(),
                    amount,
                });
            }
        }
        Ok(content.with_rerates(notes))
    }

    async fn record_rerate(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        stored: &StoredRerate,
        (action, organization): (&'static str, Option<&OrganizationId>),
    ) -> Result<()> {
        let detail = format!("{} to {}: {}", stored.of.0, stored.to.0, stored.reason);
        let deed = Deed { organization, action, target: stored.id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }
}

async fn result(tx: &mut Tx, id: &RerateId) -> Result<RerateResult> {
    let rerate = rerate::get(tx, id).await?;
    let sums = rerate::sums(tx, id).await?;
    let most_changed = rerate::list_most_changed(tx, id, CUSTOMERS_SHOWN_MAX).await?;
    Ok(RerateResult { rerate, sums, most_changed })
}

/// The next customers that it is for, and behind whom there are more.
async fn customers(tx: &mut Tx, stored: &StoredRerate, page: &PageRequest) -> Result<(Vec<Organization>, Option<String>)> {
    if let Some(id) = &stored.organization {
        return Ok((vec![organization::get(tx, &Scope::Operator, id).await?], None));
    }
    let page = organization::list(tx, None, page).await?;
    let last = page.items.last().filter(|_| page.has_more).map(|last| last.id.to_string());
    let is_meant = |account: &Organization| {
        is_customer(account) && account.currency == stored.currency && account.created_at < stored.created_at
    };
    Ok((page.items.into_iter().filter(is_meant).collect(), last))
}

const fn is_customer(account: &Organization) -> bool {
    matches!(account.class, OrganizationClass::External | OrganizationClass::Partner)
}

/// Whether what a customer's use comes to now is what one operator may apply alone, with what was given back to others.
async fn is_small(tx: &mut Tx, stored: &StoredRerate, id: &OrganizationId, difference: Nanos) -> Result<bool> {
    let less = |difference: Nanos| if difference.is_negative() { difference.checked_neg() } else { Ok(Nanos::ZERO) };
    let known = rerate::find_account(tx, &stored.id, id).await?;
    let simulated = known.map_or(Ok(Nanos::ZERO), |known| known.would_be.checked_sub(known.charged))?;
    let all = rerate::sums(tx, &stored.id).await?.given_back.checked_sub(less(simulated)?)?.checked_add(less(difference)?)?;
    Ok(difference <= Nanos::ZERO && all <= ALONE_MAX)
}

/// Whether it was applied to a customer, or refused.
async fn is_decided(tx: &mut Tx, stored: &StoredRerate, id: &OrganizationId) -> Result<bool> {
    let known = rerate::find_account(tx, &stored.id, id).await?;
    Ok(known.is_some_and(|known| known.state != RerateAccountState::Simulated))
}

fn shown(stored: &StoredRerate, organization: &OrganizationId, changed: &[Changed]) -> Result<RerateAccount> {
    let (mut charged, mut would_be) = (Nanos::ZERO, Nanos::ZERO);
    for (line, _) in changed {
        if line.quantity.is_negative() {
            charged = charged.checked_sub(line.amount)?;
        } else {
            would_be = would_be.checked_add(line.amount)?;
        }
    }
    let mut lines: Vec<RatedLine> = changed.iter().map(|(line, _)| line.clone()).collect();
    let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
    lines.sort_by(|one, other| {
        other.amount.get().unsigned_abs().cmp(&one.amount.get().unsigned_abs()).then_with(|| one.key.cmp(&other.key))
    });
    lines.truncate(LINES_SHOWN_MAX);
    Ok(RerateAccount {
        rerate: stored.id.clone(),
        organization: organization.clone(),
        state: RerateAccountState::Simulated,
        charged,
        would_be,
        lines: count,
        shown: lines,
        refusal: String::new(),
        number: None,
    })
}

/// What paid credit, or what is owed, has paid for use: all that use cost, but for what gifts paid and was given back.
async fn paid_for_use(tx: &mut Tx, id: &OrganizationId) -> Result<Nanos> {
    let mut paid = Nanos::ZERO;
    for family in SkuFamily::ALL {
        paid = paid.checked_add(balance(tx, AccountKind::Usage(family), id).await?)?;
    }
    paid.checked_sub(balance(tx, AccountKind::Refunds, id).await?)?.checked_sub(gifts_spent(tx, id).await?)
}

async fn balance(tx: &mut Tx, kind: AccountKind, id: &OrganizationId) -> Result<Nanos> {
    ledger::totals(tx, &LedgerAccount::customer(kind, id)).await?.balance(kind.normal_side())
}
