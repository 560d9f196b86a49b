//! What the datasets beside Cost and Usage are read from: months, issued documents, and contracts as of a month's end.
//!
//! Invariant: of a month that is over and has its invoice, what is read is the same for ever.

use std::cmp::Ordering;

use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::organization::OrganizationClass;
use sublet_core::{Result, Scope, Timestamp};
use sublet_money::document::DocumentNumber;
use sublet_money::focus::Statement;
use sublet_money::focus_contract::{
    AppliedUse, CommitmentId, CommitmentUse, ContractAsOf, ContractCommitment, contract_commitments,
};
use sublet_money::focus_period::{BillingPeriod, BillingState};
use sublet_money::invoice::InvoiceContent;
use sublet_money::period::Period;
use sublet_store::contract::{self, Contract, OfferState};
use sublet_store::organization::Organization;
use sublet_store::page::Order;
use sublet_store::{PageRequest, Tx, billing, charge};

use crate::Cloud;
use crate::contract_use::{Counted, PeriodUse, periods};

/// Contracts that are read at once.
const CONTRACTS_AT_ONCE: i64 = 1;

impl Cloud {
    /// A month of an account; `None` before the account was there, unless something was used in it: a clock may have been
    /// set back. It has to be read with the invoice that the statement names.
    pub(crate) async fn billing_period(
        &self,
        tx: &mut Tx,
        (account, statement): (&Organization, &Statement),
    ) -> Result<Option<BillingPeriod>> {
        let period = statement.period;
        if !is_there(tx, account, period).await? {
            return Ok(None);
        }
        // No month is closed sooner.
        let since = period.interval.ends_at.plus(self.settings.close_after);
        let state = match account.class {
            OrganizationClass::External | OrganizationClass::Partner => {
                state_of_billed(tx, (&account.id, period, since), statement.invoice).await?
            }
            // Nobody invoices them: their months are over by the clock alone.
            OrganizationClass::Internal | OrganizationClass::Supplier => {
                if since <= self.now() {
                    BillingState::WithoutInvoice { since }
                } else {
                    BillingState::Open
                }
            }
        };
        Ok(Some(BillingPeriod {
            account: statement.account.clone(),
            seller: statement.seller.clone(),
            period,
            account_since: account.created_at,
            state,
        }))
    }

    /// The next contract's commitment periods, and which contract that was; `None` behind the last.
    pub(crate) async fn next_commitments(
        &self,
        tx: &mut Tx,
        statement: &Statement,
        after: Option<&ContractId>,
    ) -> Result<Option<(ContractId, Vec<ContractCommitment>)>> {
        let after = after.map(ToString::to_string);
        let page = PageRequest { limit: Some(CONTRACTS_AT_ONCE), after, order: Order::Ascending };
        let organization = &statement.account.organization;
        let found = contract::list(tx, &Scope::Operator, Some(organization), &page).await?.items.pop();
        let Some(contract) = found else { return Ok(None) };
        let id = contract.id.clone();
        let rows = self.commitments(tx, statement, contract).await?;
        Ok(Some((id, rows)))
    }

    /// A contract's periods as they were when the month ended, or as they are while it runs.
    async fn commitments(&self, tx: &mut Tx, statement: &Statement, mut contract: Contract) -> Result<Vec<ContractCommitment>> {
        let Period { key: month, interval } = statement.period;
        contract.offers.retain(|offer| offer.answered_at.is_some_and(|at| at < interval.ends_at));
        contract.notice = contract.notice.filter(|given| given.at < interval.ends_at);
        let Some(agreement) = contract.agreement()? else { return Ok(Vec::new()) };
        let agreed = contract.offers.iter().filter(|offer| offer.state == OfferState::Accepted);
        let agreed_at: Vec<_> = agreed.filter_map(|offer| offer.answered_at).collect();
        let used = periods(tx, &contract, &agreement, (month, Counted::Used)).await?;
        let uses: Vec<_> = used.iter().map(|used| commitment_use(used, used.is_settled && used.last <= month)).collect();
        contract_commitments(&ContractAsOf {
            account: &statement.account,
            seller: &statement.seller,
            id: &contract.id,
            name: &contract.name,
            agreement: &agreement,
            agreed_at: &agreed_at,
            notice_at: contract.notice.as_ref().map(|given| given.at),
            uses: &uses,
            as_of: self.now().min(interval.ends_at),
        })
    }
}

/// Whether an account has a month: from that of its creation on, or of its first use.
async fn is_there(tx: &mut Tx, account: &Organization, period: Period) -> Result<bool> {
    if period.interval.ends_at > account.created_at || billing::find_closed(tx, &account.id, period.key).await?.is_some() {
        return Ok(true);
    }
    Ok(charge::first_period(tx, &account.id).await?.is_some_and(|first| first <= period.key))
}

/// Of an account that gets invoices; `number` is that of the month's, which is closed at some time from `closes_at` on.
async fn state_of_billed(
    tx: &mut Tx,
    (organization, period, closes_at): (&OrganizationId, Period, Timestamp),
    number: Option<DocumentNumber>,
) -> Result<BillingState> {
    let Some(closed) = billing::find_closed(tx, organization, period.key).await? else {
        let open = billing::find_open(tx, organization).await?.map(|(open, _)| open.period);
        return Ok(match open.map(|open| period.key.cmp(&open)) {
            // It was over before anybody looked.
            Some(Ordering::Less) => BillingState::WithoutInvoice { since: period.interval.ends_at },
            Some(Ordering::Equal | Ordering::Greater) | None => BillingState::Open,
        });
    };
    Ok(match (closed.billed_at, number) {
        (None, _) => BillingState::Closed { since: closes_at },
        (Some(since), Some(number)) => BillingState::Invoiced { number, since },
        (Some(since), None) => BillingState::WithoutInvoice { since },
    })
}

fn commitment_use(used: &PeriodUse, is_settled: bool) -> CommitmentUse {
    let units = used.quantity.as_ref();
    CommitmentUse {
        number: used.number,
        counted: used.counted,
        shortfall: used.shortfall,
        roll_over_used: used.roll_over_used,
        overage: used.overage,
        exit_fee: used.exit_fee,
        quantity: units.map_or_else(Default::default, |units| units.counted),
        missing: units.map_or_else(Default::default, |units| units.missing),
        quantity_used: units.map_or_else(Default::default, |units| units.roll_over_used),
        is_settled,
    }
}

/// What use of a month counts towards: by its invoice, or while it has none by what is agreed.
pub(crate) async fn applied_use(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, Period),
    issued: Option<&InvoiceContent>,
) -> Result<Option<AppliedUse>> {
    if let Some(content) = issued {
        let Some(line) = &content.commitment else { return Ok(None) };
        let contract = contract::get(tx, &Scope::Operator, &line.contract).await?;
        let terms = contract.terms_named(&line.terms)?.terms.clone();
        let commitment = CommitmentId { contract: contract.id, number: line.number };
        return Ok(Some(AppliedUse { commitment, terms }));
    }
    for contract in contract::list_of(tx, organization).await? {
        let Some(agreement) = contract.agreement()? else { continue };
        if let Some(counts) = AppliedUse::at(&contract.id, &agreement, period.key)? {
            return Ok(Some(counts));
        }
    }
    Ok(None)
}
