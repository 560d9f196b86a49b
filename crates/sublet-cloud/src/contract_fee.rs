//! Fees of contracts: billed in advance, deferred, and earned by the day. A commitment that is billed with one is taken when
//! its period begins ([`crate::contract_drawdown`]).
//!
//! What an invoice bills in advance is posted with it: from paid credit as far as there is any, and the rest is owed.
//! Until it is earned it is deferred revenue of its contract. A month earns its part when it is closed, whether it has an
//! invoice or not, in the transaction that closes it; so nothing is earned twice, and nothing is left out after a crash.

use sublet_core::id::OrganizationId;
use sublet_core::{Currency, Nanos, Result, Timestamp};
use sublet_money::account::{AccountKind, LedgerAccount};
use sublet_money::invoice::Invoice;
use sublet_money::period::PeriodKey;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_store::{Tx, contract_advance, ledger};

use crate::Cloud;
use crate::credit_lot::take_otherwise;

impl Cloud {
    /// Posts what an invoice that is issued in the same transaction bills in advance.
    pub(crate) async fn post_advance(&self, tx: &mut Tx, invoice: &Invoice, issued_at: Timestamp) -> Result<()> {
        let content = &invoice.content;
        let Some(line) = &content.advance else { return Ok(()) };
        contract_advance::insert(tx, line, content.period.key).await?;
        if line.fee.is_zero() {
            return Ok(());
        }
        let organization = &content.account.organization;
        let paid = ledger::available(tx, organization).await?.paid.max(Nanos::ZERO).min(line.fee);
        take_otherwise(tx, organization, paid).await?;
        let fact = Fact::FeeBilled { contract: line.contract.clone(), paid, owed: line.fee.checked_sub(paid)? };
        let memo = format!("{} period {} in advance {}", line.contract, line.number, invoice.id);
        let head = EntryHead { id: self.ids.mint(), at: issued_at, currency: content.account.currency, memo };
        ledger::post(tx, &post(head, organization, &fact)?).await.map(|_| ())
    }

    /// Posts what a month that is closed in the same transaction earns of what was billed in advance.
    pub(crate) async fn earn_fees(
        &self,
        tx: &mut Tx,
        (organization, currency): (&OrganizationId, Currency),
        month: PeriodKey,
        at: Timestamp,
    ) -> Result<()> {
        for advance in contract_advance::list(tx, organization).await? {
            let amount = advance.line.schedule().earned_by(month)?.checked_sub(advance.earned)?;
            if amount <= Nanos::ZERO {
                continue;
            }
            contract_advance::earn(tx, &advance.line, (month, amount)).await?;
            let memo = format!("{} period {} earned in {month}", advance.line.contract, advance.line.number);
            let head = EntryHead { id: self.ids.mint(), at, currency, memo };
            let fact = Fact::FeeEarned { contract: advance.line.contract, amount };
            ledger::post(tx, &post(head, organization, &fact)?).await?;
        }
        Ok(())
    }
}

/// What does not add up of an account's fees: `invoiced` is what its invoices billed in advance.
pub(crate) async fn verify_fees(tx: &mut Tx, organization: &OrganizationId, invoiced: Nanos) -> Result<Vec<String>> {
    let (mut billed, mut earned, mut found) = (Nanos::ZERO, Nanos::ZERO, Vec::new());
    let mut deferred = std::collections::BTreeMap::new();
    for advance in contract_advance::list(tx, organization).await? {
        billed = billed.checked_add(advance.line.amount()?)?;
        earned = earned.checked_add(advance.earned)?;
        if advance.line.fee.is_zero() {
            continue;
        }
        let left = deferred.entry(LedgerAccount::deferred(&advance.line.contract, organization)).or_insert(Nanos::ZERO);
        *left = left.checked_add(advance.line.fee)?.checked_sub(advance.earned)?;
    }
    if billed != invoiced {
        found.push(format!("{organization}: invoices bill {invoiced} in advance, and contracts {billed}"));
    }
    let balance = |totals: sublet_money::balance::AccountTotals, kind: AccountKind| totals.balance(kind.normal_side());
    let posted = ledger::totals(tx, &LedgerAccount::customer(AccountKind::Fees, organization)).await?;
    let posted = balance(posted, AccountKind::Fees)?;
    if posted != earned {
        found.push(format!("{organization}: fees come to {earned}, their account to {posted}"));
    }
    for (account, totals) in ledger::list_deferred(tx, organization).await? {
        let left = deferred.remove(&account).unwrap_or_default();
        let posted = balance(totals, AccountKind::DeferredRevenue)?;
        if posted != left {
            found.push(format!("{account}: {left} is not earned yet, and the account comes to {posted}"));
        }
    }
    found.extend(deferred.keys().map(|account| format!("{account}: what was billed in advance was not posted")));
    Ok(found)
}
