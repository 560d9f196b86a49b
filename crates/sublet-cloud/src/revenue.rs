//! Revenue as the owner recognises it: what a month earned, what is deferred, and what contracts bring in months to come.
//!
//! A month is each account's own calendar month. Use is earned as it is used; what contracts settle, in the month whose
//! invoice settles it; fees by the day. The sums of all months are those of the ledger's accounts: the report says both.

use std::collections::BTreeMap;

use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, Nanos, Result, Scope, Timestamp};
use sublet_money::account::DEFERRED_PREFIX;
use sublet_money::backlog::{BacklogMonth, backlog};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::sku::SkuFamily;
use sublet_store::contract::{self, Contract};
use sublet_store::{PageRequest, Tx, contract_advance, margin, organization};

use crate::contract_drawdown::left_by_contract;
use crate::{Action, Actor, Cloud};

/// Contracts that are read together.
const CONTRACTS_AT_ONCE: i64 = 100;

/// What sums of the report are in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tie {
    /// Of all months there were.
    pub reported: Nanos,
    /// What the accounts come to.
    pub booked: Nanos,
}

/// A contract's part of the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContractRevenue {
    pub contract: ContractId,
    pub organization: OrganizationId,
    pub name: String,
    /// Settled in the month: missing, lapsed, overage and fees for leaving, less what was used up of earlier shortfalls.
    pub commitments: Nanos,
    /// Earned in the month.
    pub fees: Nanos,
    /// Billed in advance and not earned now: of fees, and what can be drawn of commitments.
    pub deferred: Nanos,
    /// What months to come bring.
    pub firm: Nanos,
    pub planned: Nanos,
}

/// A month's recognised revenue in one currency, and what is to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RevenueReport {
    pub month: PeriodKey,
    pub currency: Currency,
    pub as_of: Timestamp,
    /// Of customers.
    pub usage: BTreeMap<SkuFamily, Nanos>,
    pub contracts: Vec<ContractRevenue>,
    /// By month, after the one that runs.
    pub backlog: Vec<BacklogMonth>,
    /// Income for use, of the owner's own teams too.
    pub usage_tie: Tie,
    pub commitments_tie: Tie,
    pub fees_tie: Tie,
    pub deferred_tie: Tie,
}

impl RevenueReport {
    pub fn commitments(&self) -> Result<Nanos> {
        Nanos::checked_sum(self.contracts.iter().map(|contract| contract.commitments))
    }
    pub fn fees(&self) -> Result<Nanos> {
        Nanos::checked_sum(self.contracts.iter().map(|contract| contract.fees))
    }
    pub fn deferred(&self) -> Result<Nanos> {
        Nanos::checked_sum(self.contracts.iter().map(|contract| contract.deferred))
    }
    /// All that the month earned.
    pub fn recognised(&self) -> Result<Nanos> {
        let usage = Nanos::checked_sum(self.usage.values().copied())?;
        usage.checked_add(self.commitments()?)?.checked_add(self.fees()?)
    }
}

/// Fees that are not earned, and credit of contracts that is not drawn.
async fn deferred_booked(tx: &mut Tx, currency: Currency) -> Result<Nanos> {
    let fees = margin::booked(tx, DEFERRED_PREFIX, currency).await?;
    fees.checked_add(margin::booked(tx, "liabilities:customers:%:available:committed", currency).await?)
}

impl Cloud {
    /// A month in the currency of a price list, the first if none is named; the running month if none is.
    pub async fn revenue_report(
        &self,
        actor: &Actor,
        month: Option<PeriodKey>,
        currency: Option<Currency>,
    ) -> Result<RevenueReport> {
        actor.require(Action::ReadLedger)?;
        let asked = self.reported(month, currency)?;
        self.store.read((self, asked), |(cloud, (asked, now)), tx| Box::pin(cloud.revenue_in(tx, *asked, *now))).await
    }

    async fn revenue_in(&self, tx: &mut Tx, (month, currency): (PeriodKey, Currency), now: Timestamp) -> Result<RevenueReport> {
        let mut usage: BTreeMap<SkuFamily, Nanos> = BTreeMap::new();
        for line in margin::month_lines(tx, month, currency).await? {
            if line.class != OrganizationClass::Internal {
                let sum = usage.entry(line.sku.family()).or_default();
                *sum = sum.checked_add(line.used.charged)?;
            }
        }
        let (reported, booked) = margin::recognised_and_booked(tx, currency).await?;
        let mut report = RevenueReport {
            month,
            currency,
            as_of: now,
            usage,
            contracts: Vec::new(),
            backlog: Vec::new(),
            usage_tie: Tie { reported, booked },
            commitments_tie: Tie { booked: margin::booked(tx, "income:commitments:", currency).await?, ..Tie::default() },
            fees_tie: Tie { booked: margin::booked(tx, "income:fees:", currency).await?, ..Tie::default() },
            deferred_tie: Tie { booked: deferred_booked(tx, currency).await?, ..Tie::default() },
        };
        let mut to_come: BTreeMap<PeriodKey, BacklogMonth> = BTreeMap::new();
        let mut page = PageRequest { limit: Some(CONTRACTS_AT_ONCE), ..PageRequest::default() };
        loop {
            let contracts = contract::list(tx, &Scope::Operator, None, &page).await?;
            for found in &contracts.items {
                report.add(tx, found, &mut to_come).await?;
            }
            let Some(last) = contracts.items.last().filter(|_| contracts.has_more) else { break };
            page.after = Some(last.id.to_string());
        }
        report.backlog = to_come.into_values().collect();
        Ok(report)
    }
}

impl RevenueReport {
    async fn add(&mut self, tx: &mut Tx, found: &Contract, to_come: &mut BTreeMap<PeriodKey, BacklogMonth>) -> Result<()> {
        let Some(agreement) = found.agreement()? else { return Ok(()) };
        let account = organization::get(tx, &Scope::Operator, &found.organization).await?;
        if account.currency != self.currency {
            return Ok(());
        }
        let mut part = ContractRevenue {
            contract: found.id.clone(),
            organization: account.id.clone(),
            name: found.name.clone(),
            commitments: Nanos::ZERO,
            fees: Nanos::ZERO,
            deferred: Nanos::ZERO,
            firm: Nanos::ZERO,
            planned: Nanos::ZERO,
        };
        for settled in contract::list_months(tx, &account.id, &found.id).await? {
            let amount = settled.amount()?;
            self.commitments_tie.reported = self.commitments_tie.reported.checked_add(amount)?;
            if settled.period == self.month {
                part.commitments = part.commitments.checked_add(amount)?;
            }
        }
        for advance in contract_advance::list(tx, &account.id).await?.into_iter().filter(|one| one.line.contract == found.id) {
            let left = advance.line.fee.checked_sub(advance.earned)?;
            part.deferred = part.deferred.checked_add(left)?;
            self.fees_tie.reported = self.fees_tie.reported.checked_add(advance.earned)?;
        }
        let to_draw = left_by_contract(tx, &account.id).await?.remove(&found.id).unwrap_or_default();
        part.deferred = part.deferred.checked_add(to_draw)?;
        self.deferred_tie.reported = self.deferred_tie.reported.checked_add(part.deferred)?;
        for (contract, earned) in contract_advance::list_earned(tx, &account.id, self.month).await? {
            if contract == found.id {
                part.fees = part.fees.checked_add(earned)?;
            }
        }
        let running = BillingCalendar::new(&account.time_zone)?.period_at(self.as_of)?.key;
        for month in backlog(&agreement, running)? {
            let sum = to_come.entry(month.month).or_insert(BacklogMonth { firm: Nanos::ZERO, planned: Nanos::ZERO, ..month });
            sum.firm = sum.firm.checked_add(month.firm)?;
            sum.planned = sum.planned.checked_add(month.planned)?;
            part.firm = part.firm.checked_add(month.firm)?;
            part.planned = part.planned.checked_add(month.planned)?;
        }
        self.contracts.push(part);
        Ok(())
    }
}
