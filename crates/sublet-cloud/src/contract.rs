//! Contracts: offered by the operator, accepted by the customer, settled by invoices.
//!
//! An offer is binding until it expires; accepting names the hash of what is accepted, so nobody agrees to other terms
//! than they have read. At most one contract of an account runs in a month. An amendment is an offer, too. The customer
//! may leave as the terms say; what that costs can be asked at any time.
//!
//! What a contract adds to an invoice is computed where the invoice is ([`Cloud::with_contract`]) and posted when it is
//! issued. As far as paid credit is there it is taken from it; the rest is owed, and the next credit pays it first. So a
//! contract overdraws nothing.

use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, CreditKind, LedgerAccount};
use sublet_money::advance::AdvanceLine;
use sublet_money::commitment::{CommitmentLine, Earlier};
use sublet_money::contract::{Agreement, ContractTerms, Exit, Notice, TermsVersion, VERSIONS_MAX};
use sublet_money::invoice::{Invoice, InvoiceContent};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::sku::Quantity;
use sublet_store::contract::{self, CONTRACTS_MAX, Contract, ContractMonth, GivenNotice, Offer, OfferState};
use sublet_store::organization::{self, Organization};
use sublet_store::{Page, PageRequest, Tx, ledger};

use crate::audit::Deed;
use crate::billing::Billing;
use crate::contract_drawdown::fixed_until;
use crate::contract_use::{Counted, periods, settled_periods};
pub use crate::contract_use::{MonthUse, PeriodDrawdown, PeriodUse};
use crate::credit_lot::take_otherwise;
use crate::drawdown_gift::{gifts_came_back, gifts_since};
use crate::idempotency::{Answer, Call, Render};
use crate::offering::check_on_sale;
use crate::organization::checked_name;
use crate::{Action, Actor, Cloud};

/// How long an offer binds if nothing else is said, and at most.
const OFFER_BINDS: DurationMs = DurationMs::from_hours(24 * 30);
const OFFER_BINDS_MAX: DurationMs = DurationMs::from_hours(24 * 366);
/// Accounts that are looked at together.
const ACCOUNTS_AT_ONCE: i64 = 100;

/// What is offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewContract {
    pub organization: OrganizationId,
    pub name: String,
    pub terms: ContractTerms,
    pub expires_at: Option<Timestamp>,
}

/// Other terms for a contract, from a commitment period on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewAmendment {
    pub contract: ContractId,
    pub from: PeriodKey,
    pub terms: ContractTerms,
    pub expires_at: Option<Timestamp>,
}

/// What a contract is at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContractState {
    Offered,
    /// Nobody accepted it in time.
    Expired,
    Withdrawn,
    /// Accepted, and it has not begun.
    Agreed,
    Active,
    Ended,
}

/// A contract with all that follows from it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContractView {
    pub contract: Contract,
    pub currency: Currency,
    pub state: ContractState,
    /// `None` where it is renewed until notice is given. Of an offer, what would be if it was accepted now.
    pub last_month: Option<PeriodKey>,
    /// Periods that began, the oldest first.
    pub periods: Vec<PeriodUse>,
    /// How the customer may leave.
    pub exits: Vec<Exit>,
}

impl Cloud {
    /// Offers an organization a contract.
    pub async fn offer_contract(
        &self,
        call: &Call,
        new: &NewContract,
        render: &Render<ContractView>,
    ) -> Result<Answer<ContractView>> {
        call.actor.require(Action::OfferContracts)?;
        let name = checked_name(&new.name)?;
        let version = TermsVersion::new(new.terms.starts, new.terms.clone()).map_err(within_terms)?;
        let id: ContractId = self.ids.mint();
        self.once(call, render, (self, &call.actor, new, name, version, id), |(cloud, actor, new, name, version, id), tx| {
            Box::pin(async move {
                let now = cloud.now();
                let account = organization::get(tx, &actor.scope, &new.organization).await?;
                check_account(&account, &version.terms)?;
                check_start(&version.terms, running_month(tx, &account, now).await?)?;
                cloud.check_pricing(tx, version).await?;
                let known = contract::list_of(tx, &account.id).await?;
                if i64::try_from(known.len()).unwrap_or(i64::MAX) >= CONTRACTS_MAX {
                    return Err(Error::new(ErrorCode::Conflict, format!("an account has at most {CONTRACTS_MAX} contracts")));
                }
                let agreement = Agreement::new(vec![version.clone()], None)?;
                check_alone(&known, None, &agreement)?;
                check_on_sale(tx, &account, id, (&agreement, now)).await?;
                let begun = BillingCalendar::new(&account.time_zone)?.period(version.from)?.interval.ends_at;
                let offer = cloud.offer(version.clone(), new.expires_at, begun)?;
                let contract = Contract {
                    id: id.clone(),
                    organization: account.id.clone(),
                    name: name.clone(),
                    offers: vec![offer],
                    notice: None,
                    created_at: now,
                };
                contract::insert(tx, &contract).await?;
                cloud.record_contract(tx, actor, &contract, ("contract.offer", version.hash.clone())).await?;
                cloud.view(tx, contract).await
            })
        })
        .await
    }

    /// Offers other terms for a contract, from a commitment period on that has not begun.
    pub async fn offer_amendment(
        &self,
        call: &Call,
        new: &NewAmendment,
        render: &Render<ContractView>,
    ) -> Result<Answer<ContractView>> {
        call.actor.require(Action::OfferContracts)?;
        let version = TermsVersion::new(new.from, new.terms.clone()).map_err(within_terms)?;
        self.once(call, render, (self, &call.actor, new, version), |(cloud, actor, new, version), tx| {
            Box::pin(async move {
                let mut contract = contract::get(tx, &actor.scope, &new.contract).await?;
                let Some(agreement) = contract.agreement()? else {
                    return Err(Error::new(ErrorCode::Conflict, "nothing is agreed yet that could be amended")
                        .alternative("withdraw the offer and make another one"));
                };
                if cloud.open_offer(&contract).is_some() {
                    return Err(Error::new(ErrorCode::Conflict, "an amendment is offered already").alternative("withdraw it first"));
                }
                let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
                check_account(&account, &version.terms)?;
                cloud.check_pricing(tx, version).await?;
                if contract.offers.len() >= VERSIONS_MAX {
                    return Err(Error::new(ErrorCode::Conflict, format!("a contract has at most {VERSIONS_MAX} offers")));
                }
                if contract.offers.iter().any(|offer| offer.version.hash == version.hash) {
                    return Err(Error::new(ErrorCode::Conflict, "the very same terms were offered from that month on before"));
                }
                agreement.check_amendment(version, fixed_month(tx, &account, &new.contract, cloud.now()).await?)?;
                cloud.check_amended(tx, &contract, &agreement, version).await?;
                let begins = BillingCalendar::new(&account.time_zone)?.period(version.from)?.interval.starts_at;
                let offer = cloud.offer(version.clone(), new.expires_at, begins)?;
                let number = i64::try_from(contract.offers.len()).unwrap_or(i64::MAX).saturating_add(1);
                contract::insert_offer(tx, &contract.id, number, &offer).await?;
                contract.offers.push(offer);
                cloud.record_contract(tx, actor, &contract, ("contract.amend", version.hash.clone())).await?;
                cloud.view(tx, contract).await
            })
        })
        .await
    }

    /// Takes back what nobody accepted yet. Doing so again changes nothing.
    pub async fn withdraw_offer(&self, actor: &Actor, id: &ContractId) -> Result<ContractView> {
        actor.require(Action::OfferContracts)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let contract = contract::get(tx, &actor.scope, id).await?;
                    if contract.offers.last().is_some_and(|offer| offer.state == OfferState::Withdrawn) {
                        return cloud.view(tx, contract).await;
                    }
                    cloud.answer_offer(tx, actor, contract, OfferState::Withdrawn).await
                })
            })
            .await
    }

    /// Accepts what is offered; `hash` names the terms that were read. Accepting again changes nothing.
    pub async fn accept_contract(&self, actor: &Actor, id: &ContractId, hash: &str) -> Result<ContractView> {
        actor.require(Action::AgreeToContracts)?;
        let view =
            self.store
                .write((self, actor, id, hash), |(cloud, actor, id, hash), tx| {
                    Box::pin(async move {
                        let contract = contract::get(tx, &actor.scope, id).await?;
                        let named = contract.offers.iter().find(|offer| offer.version.hash == **hash);
                        if named.is_some_and(|offer| offer.state == OfferState::Accepted) {
                            return cloud.view(tx, contract).await;
                        }
                        let account = organization::get(tx, &actor.scope, &contract.organization).await?;
                        let version = match cloud.open_offer(&contract) {
                            Some((_, offer)) if offer.version.hash == **hash => offer.version.clone(),
                            Some((_, offer)) => {
                                let message = format!("what is offered is {}, and not what was named", offer.version.hash);
                                return Err(Error::new(ErrorCode::Conflict, message).param("terms_hash"));
                            }
                            None => {
                                return Err(Error::new(ErrorCode::Conflict, "nothing is offered any more")
                                    .alternative("ask for another offer"));
                            }
                        };
                        match contract.agreement()? {
                            Some(agreement) => {
                                agreement.check_amendment(&version, fixed_month(tx, &account, id, cloud.now()).await?)?;
                                cloud.check_amended(tx, &contract, &agreement, &version).await?;
                            }
                            None => {
                                check_start(&version.terms, running_month(tx, &account, cloud.now()).await?)?;
                                let known = contract::list_of(tx, &account.id).await?;
                                let agreement = Agreement::new(vec![version], None)?;
                                check_alone(&known, Some(id), &agreement)?;
                                check_on_sale(tx, &account, id, (&agreement, cloud.now())).await?;
                            }
                        }
                        cloud.answer_offer(tx, actor, contract, OfferState::Accepted).await
                    })
                })
                .await?;
        self.follow().await?;
        Ok(view)
    }

    /// Gives notice: the contract ends with the given month, as its terms allow.
    pub async fn leave_contract(&self, actor: &Actor, id: &ContractId, last_month: PeriodKey) -> Result<ContractView> {
        actor.require(Action::AgreeToContracts)?;
        let view = self
            .store
            .write((self, actor, id), move |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let mut contract = contract::get(tx, &actor.scope, id).await?;
                    let Some(agreement) = contract.agreement()? else {
                        return Err(Error::new(ErrorCode::Conflict, "nothing is agreed that could be left"));
                    };
                    if agreement.notice().is_some_and(|notice| notice.last_month == last_month) {
                        return cloud.view(tx, contract).await;
                    }
                    let account = organization::get(tx, &actor.scope, &contract.organization).await?;
                    let notice = agreement.give_notice(last_month, fixed_month(tx, &account, id, cloud.now()).await?)?;
                    let given = GivenNotice { notice, by: actor.name().to_owned(), at: cloud.now() };
                    contract::set_notice(tx, &contract.id, &given).await?;
                    contract.notice = Some(given);
                    cloud.plan_contract_prices(tx, &contract).await?;
                    let Notice { last_month, fee } = notice;
                    cloud
                        .record_contract(tx, actor, &contract, ("contract.leave", format!("after {last_month} for {fee}")))
                        .await?;
                    cloud.view(tx, contract).await
                })
            })
            .await?;
        self.follow().await?;
        Ok(view)
    }

    pub async fn get_contract(&self, actor: &Actor, id: &ContractId) -> Result<ContractView> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let contract = contract::get(tx, &actor.scope, id).await?;
                    cloud.view_with(tx, contract, Counted::Used).await
                })
            })
            .await
    }

    /// Those of one organization, or all that the actor may see.
    pub async fn list_contracts(
        &self,
        actor: &Actor,
        organization: Option<&OrganizationId>,
        page: &PageRequest,
    ) -> Result<Page<ContractView>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((self, actor, organization, page), |(cloud, actor, organization, page), tx| {
                Box::pin(async move {
                    let page = contract::list(tx, &actor.scope, *organization, page).await?;
                    let mut items = Vec::with_capacity(page.items.len());
                    for contract in page.items {
                        items.push(cloud.view(tx, contract).await?);
                    }
                    Ok(Page { items, has_more: page.has_more })
                })
            })
            .await
    }

    /// An offer ends when it could not be accepted any more: after its first month, or before an amendment's begins.
    fn offer(&self, version: TermsVersion, expires_at: Option<Timestamp>, at_most: Timestamp) -> Result<Offer> {
        let now = self.now();
        let expires_at = expires_at.unwrap_or_else(|| now.plus(OFFER_BINDS)).min(at_most);
        if expires_at <= now || expires_at.since(now) > OFFER_BINDS_MAX {
            return Err(
                Error::new(ErrorCode::InvalidRequest, "an offer expires later than now, and within a year").param("expires_at")
            );
        }
        Ok(Offer { version, state: OfferState::Offered, offered_at: now, expires_at, answered_by: None, answered_at: None })
    }

    /// What can be accepted now, and its number.
    fn open_offer<'a>(&self, contract: &'a Contract) -> Option<(i64, &'a Offer)> {
        let now = self.now();
        (1_i64..).zip(&contract.offers).find(|(_, offer)| offer.state == OfferState::Offered && now < offer.expires_at)
    }

    async fn answer_offer(&self, tx: &mut Tx, actor: &Actor, mut contract: Contract, state: OfferState) -> Result<ContractView> {
        let Some((number, offer)) = self.open_offer(&contract) else {
            return Err(Error::new(ErrorCode::Conflict, "nothing is offered any more"));
        };
        let hash = offer.version.hash.clone();
        contract::answer(tx, &contract.id, number, (state, actor.name(), self.now())).await?;
        let action = if state == OfferState::Accepted { "contract.accept" } else { "contract.withdraw" };
        self.record_contract(tx, actor, &contract, (action, hash)).await?;
        contract = contract::get(tx, &Scope::Operator, &contract.id).await?;
        if state == OfferState::Accepted {
            self.plan_contract_prices(tx, &contract).await?;
            if let Some(agreement) = contract.agreement()? {
                self.plan_drawdown(tx, &contract, &agreement).await?;
            }
        }
        self.view(tx, contract).await
    }

    async fn record_contract(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        contract: &Contract,
        (action, detail): (&'static str, String),
    ) -> Result<()> {
        let deed = Deed { organization: Some(&contract.organization), action, target: contract.id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }

    /// An amendment may make a contract longer: no other one may run then, and what it commits to has to be sold then.
    async fn check_amended(&self, tx: &mut Tx, contract: &Contract, agreement: &Agreement, version: &TermsVersion) -> Result<()> {
        let mut versions = agreement.versions().to_vec();
        versions.push(version.clone());
        let known = contract::list_of(tx, &contract.organization).await?;
        let agreement = Agreement::new(versions, None)?;
        check_alone(&known, Some(&contract.id), &agreement)?;
        let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
        check_on_sale(tx, &account, &contract.id, (&agreement, self.now())).await
    }

    /// As it stands by its invoices; what is not invoiced yet is added by [`Self::get_contract`].
    async fn view(&self, tx: &mut Tx, contract: Contract) -> Result<ContractView> {
        self.view_with(tx, contract, Counted::Invoiced).await
    }

    async fn view_with(&self, tx: &mut Tx, contract: Contract, counted: Counted) -> Result<ContractView> {
        let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
        let month = running_month(tx, &account, self.now()).await?;
        let Some(agreement) = contract.agreement()? else {
            let offered = self.open_offer(&contract).map(|(_, offer)| offer.version.clone());
            let state = match contract.offers.last().map(|offer| offer.state) {
                Some(OfferState::Withdrawn) => ContractState::Withdrawn,
                _ if offered.is_some() => ContractState::Offered,
                _ => ContractState::Expired,
            };
            // What would follow from accepting it.
            let agreement = offered.map(|version| Agreement::new(vec![version], None)).transpose()?;
            let last_month = agreement.as_ref().map_or(Ok(None), Agreement::last_month)?;
            let exits = agreement.map_or(Ok(Vec::new()), |agreement| agreement.exits(month))?;
            let (currency, periods) = (account.currency, Vec::new());
            return Ok(ContractView { contract, currency, state, last_month, periods, exits });
        };
        let last_month = agreement.last_month()?;
        let starts = agreement.versions().first().map(|version| version.terms.starts);
        let state = match (starts, last_month) {
            (Some(starts), _) if month < starts => ContractState::Agreed,
            (_, Some(last)) if month > last => ContractState::Ended,
            _ => ContractState::Active,
        };
        let periods = periods(tx, &contract, &agreement, (month, counted)).await?;
        let exits = agreement.exits(fixed_month(tx, &account, &contract.id, self.now()).await?)?;
        Ok(ContractView { contract, currency: account.currency, state, last_month, periods, exits })
    }

    /// An invoice with the part of the contract that runs in its month, and what one bills in advance.
    pub(crate) async fn with_contract(&self, tx: &mut Tx, mut content: InvoiceContent) -> Result<InvoiceContent> {
        let (organization, month) = (content.account.organization.clone(), content.period.key);
        for contract in contract::list_of(tx, &organization).await? {
            let Some(agreement) = contract.agreement()? else { continue };
            if let Some(advance) = AdvanceLine::new((&contract.id, &agreement), month)? {
                content = content.with_advance(advance)?;
            }
            let Some((_, period)) = agreement.at(month)? else { continue };
            let months = contract::list_months(tx, &organization, &contract.id).await?;
            let before: Vec<_> = months.iter().filter(|known| known.period < month).collect();
            let same = || before.iter().filter(|known| known.number == period.number);
            let settled = settled_periods(&before, period.number)?;
            let earlier = Earlier {
                counted: Nanos::checked_sum(same().map(|known| known.counted))?,
                quantity: same().try_fold(Quantity::ZERO, |sum, known| sum.checked_add(known.quantity))?,
                settled: &settled,
            };
            let line = CommitmentLine::new((&contract.id, &agreement), month, &content.lines, earlier)?;
            if let Some(line) = line {
                content = content.with_commitment(line)?;
            }
        }
        Ok(content)
    }

    /// Posts what a contract adds to an invoice that is issued in the same transaction.
    pub(crate) async fn post_commitment(&self, tx: &mut Tx, invoice: &Invoice, issued_at: Timestamp) -> Result<()> {
        let content = &invoice.content;
        let Some(line) = &content.commitment else { return Ok(()) };
        let organization = &content.account.organization;
        let contract = contract::get(tx, &Scope::Operator, &line.contract).await?;
        let terms = contract.offers.iter().find(|offer| offer.version.hash == line.terms).map(|offer| &offer.version.terms);
        let (quantity, drawdown) = (line.quantity.as_ref(), line.drawdown.as_ref());
        let month = ContractMonth {
            contract: line.contract.clone(),
            period: content.period.key,
            number: line.number,
            counted: line.counted,
            shortfall: drawdown.map_or(line.shortfall, |drawdown| drawdown.unused),
            roll_over_used: drawdown.map_or(line.roll_over_used, |drawdown| drawdown.roll_over_used),
            roll_over_periods: terms.map_or(0, |terms| terms.roll_over_periods),
            exit_fee: line.exit_fee,
            quantity: quantity.map_or(Quantity::ZERO, |used| used.counted),
            missing: quantity.map_or(Quantity::ZERO, |used| used.missing),
            quantity_used: quantity.map_or(Quantity::ZERO, |used| used.roll_over_used),
            overage: line.overage(),
            used: Some(content.charged()?),
            drawn: drawdown.map(|drawdown| drawdown.drawn),
            lapsed: drawdown.map_or(Nanos::ZERO, |drawdown| drawdown.lapsed),
        };
        contract::insert_month(tx, &month).await?;
        if line.settles_drawdown(month.period) {
            let memo = format!("{} period {} {}", line.contract, line.number, invoice.id);
            let head = EntryHead { id: self.ids.mint(), at: issued_at, currency: content.account.currency, memo };
            self.settle_drawdown(tx, organization, line, head).await?;
        }
        let amount = line.charged()?;
        if amount.is_zero() {
            return Ok(());
        }
        let facts = if amount.is_negative() {
            let back = amount.checked_neg()?;
            // A gift that paid for use beyond the commitment is a gift again; what rolls over was paid.
            let of_use = line.overage().checked_neg()?.max(Nanos::ZERO).min(back);
            let gifts = gifts_since(tx, organization, (&line.contract, line.number), of_use).await?;
            gifts_came_back(tx, organization, (&line.contract, line.number), gifts).await?;
            let paid = back.checked_sub(gifts)?;
            [(CreditKind::Promotional, gifts), (CreditKind::Paid, paid)]
                .into_iter()
                .filter(|(_, amount)| !amount.is_zero())
                .map(|(credit, amount)| Fact::CommitmentReturned { credit, amount })
                .collect()
        } else {
            let paid = ledger::available(tx, organization).await?.paid.max(Nanos::ZERO).min(amount);
            take_otherwise(tx, organization, paid).await?;
            vec![Fact::CommitmentCharged { paid, owed: amount.checked_sub(paid)? }]
        };
        for fact in facts {
            let memo = format!("{} period {} {}", line.contract, line.number, invoice.id);
            let head = EntryHead { id: self.ids.mint(), at: issued_at, currency: content.account.currency, memo };
            ledger::post(tx, &post(head, organization, &fact)?).await?;
        }
        Ok(())
    }

    /// Pays the tax that an account owes, and then what it owes by contract, from paid credit as far as there is any.
    pub(crate) async fn settle_owed(&self, tx: &mut Tx, organization: &OrganizationId, now: Timestamp) -> Result<()> {
        self.settle_tax(tx, organization, now).await?;
        let kind = AccountKind::Receivable;
        let owed = ledger::totals(tx, &LedgerAccount::customer(kind, organization)).await?.balance(kind.normal_side())?;
        if owed <= Nanos::ZERO {
            return Ok(());
        }
        let amount = ledger::available(tx, organization).await?.paid.max(Nanos::ZERO).min(owed);
        if amount.is_zero() {
            return Ok(());
        }
        take_otherwise(tx, organization, amount).await?;
        let currency = organization::get(tx, &Scope::Operator, organization).await?.currency;
        let head = EntryHead { id: self.ids.mint(), at: now, currency, memo: "owed by contract".to_owned() };
        ledger::post(tx, &post(head, organization, &Fact::OwedSettled { amount })?).await.map(|_| ())
    }

    /// Pays what accounts owe from credit that came back since: unspent parts of slices and holds.
    pub(crate) async fn settle_all_owed(&self) -> Result<()> {
        let mut last: Option<OrganizationId> = None;
        loop {
            let page = self.store.read(last, |last, tx| Box::pin(contract::owing(tx, last.as_ref(), ACCOUNTS_AT_ONCE))).await?;
            let Some(newest) = page.last() else { return Ok(()) };
            last = Some(newest.clone());
            for organization in page {
                let settled = self.store.write((self, &organization), |(cloud, organization), tx| {
                    Box::pin(cloud.settle_owed(tx, organization, cloud.now()))
                });
                if let Err(error) = settled.await {
                    tracing::error!(%organization, %error, private = ?error, "what is owed was not settled; it is tried again");
                }
            }
        }
    }
}

/// The terms that an invoice's parts by contract name, as their canonical texts.
pub(crate) async fn terms_texts(tx: &mut Tx, content: &InvoiceContent) -> Result<Vec<String>> {
    let mut wanted: Vec<(&ContractId, &str)> = Vec::new();
    if let Some(line) = &content.commitment {
        wanted.extend(line.named_terms().map(|hash| (&line.contract, hash)));
    }
    if let Some(line) = &content.advance {
        wanted.push((&line.contract, &line.terms));
    }
    let mut texts = Vec::with_capacity(wanted.len());
    for (id, hash) in wanted {
        let contract = contract::get(tx, &Scope::Operator, id).await?;
        texts.push(contract.terms_named(hash)?.canonical()?);
    }
    Ok(texts)
}

/// Names the member of the terms that is wrong as clients wrote it.
fn within_terms(error: Error) -> Error {
    match error.param_name().map(|param| format!("terms.{param}")) {
        Some(param) => error.param(param),
        None => error.param("terms"),
    }
}

/// The month that runs; the oldest that is open where a clock was set back since the one before was closed.
async fn running_month(tx: &mut Tx, account: &Organization, now: Timestamp) -> Result<PeriodKey> {
    let billing = Billing::of_account(tx, account).await?;
    let running = billing.calendar.period_at(now)?.key;
    Ok(billing.open_month().map_or(running, |open| running.max(open)))
}

/// The month that runs, or the last of a period that was opened, where a clock was set back or it is about to begin: what is
/// agreed of those is fixed.
async fn fixed_month(tx: &mut Tx, account: &Organization, id: &ContractId, now: Timestamp) -> Result<PeriodKey> {
    let running = running_month(tx, account, now).await?;
    fixed_until(tx, (id, &account.id), running).await
}

fn check_account(account: &Organization, terms: &ContractTerms) -> Result<()> {
    if terms.currency != account.currency {
        let message = format!("the account is kept in {}, and the contract is in {}", account.currency, terms.currency);
        return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("terms.currency"));
    }
    if !matches!(account.class, OrganizationClass::External | OrganizationClass::Partner) {
        return Err(Error::new(ErrorCode::Conflict, "only customers and partners get invoices, so only they have contracts"));
    }
    Ok(())
}

fn check_start(terms: &ContractTerms, running: PeriodKey) -> Result<()> {
    if terms.starts < running {
        let message = format!("a contract starts in {running} or later, not in {}", terms.starts);
        return Err(Error::new(ErrorCode::InvalidRequest, message).param("terms.starts"));
    }
    if terms.bills_in_advance() && terms.starts == running {
        let message = format!("what is in advance is billed with the month before: a contract with that starts after {running}");
        return Err(Error::new(ErrorCode::InvalidRequest, message)
            .param("terms.starts")
            .alternative(running.next()?.to_string())
            .alternative("begin without a fee, and amend, where only that is in advance"));
    }
    Ok(())
}

/// No other contract of the account that is agreed runs in a month of this one.
fn check_alone(known: &[Contract], own: Option<&ContractId>, agreement: &Agreement) -> Result<()> {
    for other in known.iter().filter(|other| Some(&other.id) != own) {
        if other.agreement()?.map_or(Ok(false), |agreed| agreed.overlaps(agreement))? {
            return Err(Error::new(ErrorCode::Conflict, format!("{} runs in the same months", other.id))
                .alternative("amend that contract, or start after it ends"));
        }
    }
    Ok(())
}
