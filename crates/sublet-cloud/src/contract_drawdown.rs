//! Commitments that are billed in advance: opened as credit of their contract when their period begins, and settled by
//! the period's last invoice.
//!
//! What slices and holds take of the credit is drawn for them; what was drawn for whom else is what invoices say. The
//! settlement brings both together: what rolls over goes to the next period's credit, what does not lapses, and what is
//! over or missing then is paid credit, or is taken from it. The ledger's account of such credit is always what its lots
//! have left.

use std::collections::BTreeMap;

use sublet_core::id::{ContractId, CreditGrantId, OrganizationId};
use sublet_core::{Error, Nanos, Result, Scope, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::commitment::CommitmentLine;
use sublet_money::contract::{Agreement, CommitmentPeriod, ContractTerms};
use sublet_money::credit_lot::{CreditLot, CreditTerms};
use sublet_money::drawdown::scope;
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::sku::SkuFamily;
use sublet_store::contract::{self, Contract};
use sublet_store::contract_advance::Advance;
use sublet_store::contract_drawdown::{self, Plan, StoredDrawdown};
use sublet_store::credit::{self, CreditGrant};
use sublet_store::organization::{self, Organization};
use sublet_store::{Tx, contract_advance, ledger, slice};

use crate::audit::Deed;
use crate::contract_use::used_in;
use crate::credit_lot::{StoredCredit, lent_of, take_otherwise};
use crate::drawdown_gift::{gifts_came_back, gifts_since, note_gifts};
use crate::{Actor, Cloud};

/// Contracts that are looked at together.
const CONTRACTS_AT_ONCE: i64 = 100;
/// Periods of one contract that are opened at once: after a long time without a look.
const PERIODS_AT_ONCE: u32 = 120;

impl Cloud {
    /// Notes when the first credit of a contract is due that was agreed now.
    pub(crate) async fn plan_drawdown(&self, tx: &mut Tx, contract: &Contract, agreement: &Agreement) -> Result<()> {
        let newest = &agreement.newest()?.terms;
        if !newest.is_drawn_down() || contract_drawdown::plan_of(tx, &contract.id).await?.is_some() {
            return Ok(());
        }
        let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
        let due_at = BillingCalendar::new(&account.time_zone)?.period(newest.starts)?.interval.starts_at;
        contract_drawdown::set_plan(tx, &contract.id, Some(&Plan { first: newest.starts, due_at })).await
    }

    /// Opens the credit of every period that has begun.
    pub(crate) async fn open_drawdowns(&self) -> Result<()> {
        let mut last: Option<ContractId> = None;
        loop {
            let asked = (self.now(), last);
            let page = self
                .store
                .read(asked, |(now, last), tx| Box::pin(contract_drawdown::due(tx, *now, last.as_ref(), CONTRACTS_AT_ONCE)));
            let page = page.await?;
            let Some(newest) = page.last() else { return Ok(()) };
            last = Some(newest.clone());
            for id in &page {
                if let Err(error) = self.store.write((self, id), |(cloud, id), tx| Box::pin(cloud.open_due(tx, id))).await {
                    tracing::error!(contract = %id, %error, private = ?error, "a commitment was not opened; it is tried again");
                }
            }
        }
    }

    /// What can pay for a use of so much. Where that is not enough, the credit of periods that have begun is opened first:
    /// the next look for it may be a while off.
    pub(crate) async fn credit_for(
        &self,
        tx: &mut Tx,
        account: &Organization,
        (needed, family): (Nanos, SkuFamily),
        now: Timestamp,
    ) -> Result<StoredCredit> {
        let found = StoredCredit::of(tx, account).await?;
        if found.credit.spendable(family, now)? >= needed {
            return Ok(found);
        }
        let due = contract_drawdown::due_of(tx, &account.id, now).await?;
        if due.is_empty() {
            return Ok(found);
        }
        for id in &due {
            self.open_due(tx, id).await?;
        }
        StoredCredit::of(tx, account).await
    }

    /// Opens what is due of one contract, the oldest period first.
    async fn open_due(&self, tx: &mut Tx, id: &ContractId) -> Result<()> {
        let now = self.now();
        let contract = contract::get(tx, &Scope::Operator, id).await?;
        let Some(agreement) = contract.agreement()? else { return Ok(()) };
        let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
        let calendar = BillingCalendar::new(&account.time_zone)?;
        for _ in 0..PERIODS_AT_ONCE {
            let Some(plan) = contract_drawdown::plan_of(tx, id).await?.filter(|plan| plan.due_at <= now) else { return Ok(()) };
            let Some((version, period)) = agreement.at(plan.first)? else {
                return contract_drawdown::set_plan(tx, id, None).await;
            };
            note_gifts(tx, &contract, (version, period)).await?;
            self.open_drawdown(tx, (&account, &contract), (&version.terms, &period), now).await?;
            let first = period.last.next()?;
            let due_at = calendar.period(first)?.interval.starts_at;
            contract_drawdown::set_plan(tx, id, Some(&Plan { first, due_at })).await?;
        }
        Ok(())
    }

    /// Takes what a period is committed to, from paid credit as far as there is any, and makes it credit of the contract.
    async fn open_drawdown(
        &self,
        tx: &mut Tx,
        (account, contract): (&Organization, &Contract),
        (terms, period): (&ContractTerms, &CommitmentPeriod),
        now: Timestamp,
    ) -> Result<()> {
        let amount = period.committed;
        let ends_at = BillingCalendar::new(&account.time_zone)?.period(period.last)?.interval.ends_at;
        let of = format!("{} period {}", contract.id, period.number);
        let grant = CreditGrant {
            id: self.ids.mint(),
            organization: account.id.clone(),
            kind: CreditKind::Committed.as_str().to_owned(),
            amount,
            currency: account.currency,
            reference: of.clone(),
            terms: CreditTerms { priority: 0, expires_at: Some(ends_at), scope: scope(terms) },
            created_at: now,
            remaining: None,
        };
        credit::insert(tx, &grant).await?;
        let paid = ledger::available(tx, &account.id).await?.paid.max(Nanos::ZERO).min(amount);
        take_otherwise(tx, &account.id, paid).await?;
        let head = EntryHead { id: self.ids.mint(), at: now, currency: account.currency, memo: format!("{of} in advance") };
        let fact = Fact::CommitmentBilled { paid, owed: amount.checked_sub(paid)? };
        ledger::post(tx, &post(head, &account.id, &fact)?).await?;
        let lot = CreditLot { id: grant.id.clone(), kind: CreditKind::Committed, terms: grant.terms, remaining: amount };
        credit::insert_lot(tx, &account.id, &lot).await?;
        let drawdown = StoredDrawdown {
            contract: contract.id.clone(),
            number: period.number,
            grant: grant.id.clone(),
            billed: amount,
            rolled_over: Nanos::ZERO,
            carried: Nanos::ZERO,
            is_settled: false,
        };
        contract_drawdown::insert(tx, &drawdown).await?;
        let detail = format!("{amount} {} of period {}", account.currency, period.number);
        let deed = Deed { organization: Some(&account.id), action: "contract.drawdown", target: contract.id.as_str(), detail };
        self.record(tx, &Actor::system(), deed, now).await
    }

    /// Posts what the invoice of a period's last month, which is issued in the same transaction, settles of it.
    pub(crate) async fn settle_drawdown(
        &self,
        tx: &mut Tx,
        id: &OrganizationId,
        line: &CommitmentLine,
        head: EntryHead,
    ) -> Result<()> {
        let Some(drawdown) = &line.drawdown else { return Ok(()) };
        let known = contract_drawdown::list(tx, id).await?;
        let of = |number: u32| known.iter().find(|known| known.contract == line.contract && known.number == number);
        let own = of(line.number).filter(|own| !own.is_settled);
        let own = own.ok_or_else(|| Error::internal("a commitment is settled that was not opened, or is settled already"))?;
        let next = of(line.number.saturating_add(1));
        let left = line.drawn_by(line.last).left()?;
        let carried = left.checked_sub(drawdown.lapsed)?;
        let (there, next_has) = (remaining(tx, id, Some(own)).await?, remaining(tx, id, next).await?);
        let returned = there.checked_sub(left)?.max(Nanos::ZERO);
        let missing = left.checked_sub(there)?.max(Nanos::ZERO);
        // What work holds that runs on is used in the next period, or was by now.
        let mut of_next = lent_of(tx, id, &own.grant).await?;
        if of_next < missing.min(next_has) {
            of_next = of_next.checked_add(used_next(tx, line).await?)?;
        }
        let from_next = missing.min(next_has).min(of_next);
        let missing = missing.checked_sub(from_next)?;
        let paid = ledger::available(tx, id).await?.paid.max(Nanos::ZERO).min(missing);
        take_otherwise(tx, id, paid).await?;
        let gifts = gifts_since(tx, id, (&line.contract, line.number), returned).await?;
        gifts_came_back(tx, id, (&line.contract, line.number), gifts).await?;
        let fact = Fact::DrawdownSettled { paid, owed: missing.checked_sub(paid)?, lapsed: drawdown.lapsed, returned, gifts };
        ledger::post(tx, &post(head, id, &fact)?).await?;
        credit::set_remaining(tx, &own.grant, Nanos::ZERO).await?;
        match next {
            Some(next) => {
                let has = next_has.checked_sub(from_next)?.checked_add(carried)?;
                credit::set_remaining(tx, &next.grant, has).await?;
            }
            None if carried.is_zero() => {}
            None => return Err(Error::internal("a commitment rolls over into a period that was not opened")),
        }
        contract_drawdown::settle(tx, own, carried).await
    }

    /// Puts what came back to the credit of a period that is settled where it belongs: into the period that is not, or it
    /// is paid credit.
    pub(crate) async fn return_drawdown(&self, tx: &mut Tx, account: &Organization, lot: &CreditLot) -> Result<()> {
        let known = contract_drawdown::list(tx, &account.id).await?;
        let own = known.iter().find(|known| known.grant == lot.id);
        let Some(own) = own.filter(|own| own.is_settled && !lot.remaining.is_zero()) else { return Ok(()) };
        credit::set_remaining(tx, &lot.id, Nanos::ZERO).await?;
        if let Some(next) = known.iter().find(|known| known.contract == own.contract && !known.is_settled) {
            return credit::give_back(tx, &next.grant, lot.remaining).await;
        }
        let memo = format!("{} period {}, not used", own.contract, own.number);
        let head = EntryHead { id: self.ids.mint(), at: self.now(), currency: account.currency, memo };
        let none = Nanos::ZERO;
        let fact = Fact::DrawdownSettled { paid: none, owed: none, lapsed: none, returned: lot.remaining, gifts: none };
        ledger::post(tx, &post(head, &account.id, &fact)?).await.map(|_| ())
    }
}

/// What counts by now towards the period after that of an invoice.
async fn used_next(tx: &mut Tx, line: &CommitmentLine) -> Result<Nanos> {
    let contract = contract::get(tx, &Scope::Operator, &line.contract).await?;
    let Some(agreement) = contract.agreement()? else { return Ok(Nanos::ZERO) };
    let Some((version, next)) = agreement.at(line.last.next()?)? else { return Ok(Nanos::ZERO) };
    used_in(tx, &contract, (version, next)).await
}

/// Whether slices have credit of a period that ended by then and is not settled.
pub(crate) async fn has_open_slices(tx: &mut Tx, id: &OrganizationId, ended_by: Timestamp) -> Result<bool> {
    let ended = contract_drawdown::list_ended(tx, id, ended_by).await?;
    if ended.is_empty() {
        return Ok(false);
    }
    for open in slice::list_open(tx, id).await? {
        if open.unspent()?.of_lots().any(|(lot, _)| ended.contains(lot)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The credit of the commitment periods that a month is in.
pub(crate) async fn grants_of(tx: &mut Tx, id: &OrganizationId, month: PeriodKey) -> Result<Vec<CreditGrantId>> {
    let known = contract_drawdown::list(tx, id).await?;
    let mut grants = Vec::new();
    for contract in contract::list_of(tx, id).await? {
        let Some(agreement) = contract.agreement()? else { continue };
        let Some((_, period)) = agreement.at(month)? else { continue };
        let of_month = known.iter().filter(|known| known.contract == contract.id && known.number == period.number);
        grants.extend(of_month.map(|known| known.grant.clone()));
    }
    Ok(grants)
}

/// The last month of which what is agreed is fixed: the one before the month that runs, or of a period that was opened.
pub(crate) async fn fixed_until(
    tx: &mut Tx,
    (contract, organization): (&ContractId, &OrganizationId),
    running: PeriodKey,
) -> Result<PeriodKey> {
    let is_opened = contract_drawdown::list(tx, organization).await?.iter().any(|known| known.contract == *contract);
    match contract_drawdown::plan_of(tx, contract).await? {
        Some(plan) if is_opened => Ok(running.max(plan.first.minus(1)?)),
        Some(_) | None => Ok(running),
    }
}

/// What the credit of a period has left.
async fn remaining(tx: &mut Tx, id: &OrganizationId, of: Option<&StoredDrawdown>) -> Result<Nanos> {
    let Some(drawdown) = of else { return Ok(Nanos::ZERO) };
    let lots = credit::list_lots(tx, id).await?;
    Ok(lots.iter().find(|lot| lot.id == drawdown.grant).map_or(Nanos::ZERO, |lot| lot.remaining))
}

/// What the credit of each contract has left.
pub(crate) async fn left_by_contract(tx: &mut Tx, id: &OrganizationId) -> Result<BTreeMap<ContractId, Nanos>> {
    let lots: BTreeMap<CreditGrantId, Nanos> =
        credit::list_lots(tx, id).await?.into_iter().map(|lot| (lot.id, lot.remaining)).collect();
    let mut left: BTreeMap<ContractId, Nanos> = BTreeMap::new();
    for drawdown in contract_drawdown::list(tx, id).await? {
        let sum = left.entry(drawdown.contract).or_default();
        *sum = sum.checked_add(lots.get(&drawdown.grant).copied().unwrap_or_default())?;
    }
    Ok(left)
}

/// Periods of which a month is billed though no invoice billed their commitment before.
async fn never_invoiced(
    tx: &mut Tx,
    id: &OrganizationId,
    (known, advances): (&[StoredDrawdown], &[Advance]),
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for drawdown in known.iter().filter(|known| !known.billed.is_zero()) {
        let of = (&drawdown.contract, drawdown.number);
        if advances.iter().any(|advance| (&advance.line.contract, advance.line.number) == of) {
            continue;
        }
        let months = contract::list_months(tx, id, &drawdown.contract).await?;
        if months.iter().any(|month| month.number == drawdown.number) {
            found.push(format!("{} period {}: {} were taken, and never invoiced", of.0, of.1, drawdown.billed));
        }
    }
    Ok(found)
}

/// What does not add up of the commitments that an account was billed in advance.
pub(crate) async fn verify_drawdowns(tx: &mut Tx, id: &OrganizationId) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let lots = credit::list_lots(tx, id).await?;
    let kept = Nanos::checked_sum(lots.iter().filter(|lot| lot.kind == CreditKind::Committed).map(|lot| lot.remaining))?;
    let booked = ledger::available(tx, id).await?.committed;
    if kept != booked {
        found.push(format!("{id}: credit of contracts comes to {kept}, its account to {booked}"));
    }
    let known = contract_drawdown::list(tx, id).await?;
    let advances = contract_advance::list(tx, id).await?;
    found.extend(never_invoiced(tx, id, (&known, &advances)).await?);
    for advance in advances.into_iter().filter(|one| !one.line.commitment.is_zero()) {
        let own = known.iter().find(|known| (&known.contract, known.number) == (&advance.line.contract, advance.line.number));
        let billed = own.map_or(Nanos::ZERO, |own| own.billed);
        if billed != advance.line.commitment {
            let line = &advance.line;
            found.push(format!(
                "{} period {}: {} were invoiced in advance, and {billed} taken",
                line.contract, line.number, line.commitment
            ));
        }
    }
    for drawdown in known.iter().filter(|known| known.is_settled) {
        let (mut drawn, mut lapsed) = (Nanos::ZERO, Nanos::ZERO);
        for month in
            contract::list_months(tx, id, &drawdown.contract).await?.into_iter().filter(|one| one.number == drawdown.number)
        {
            drawn = drawn.checked_add(month.drawn.unwrap_or_default())?;
            lapsed = lapsed.checked_add(month.lapsed)?;
        }
        let (whole, parts) =
            (drawdown.billed.checked_add(drawdown.rolled_over)?, Nanos::checked_sum([drawn, lapsed, drawdown.carried])?);
        if whole != parts {
            found.push(format!(
                "{} period {}: {whole} could be drawn, and {parts} are accounted for",
                drawdown.contract, drawdown.number
            ));
        }
    }
    Ok(found)
}
