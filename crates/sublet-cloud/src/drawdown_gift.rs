//! How much of what other credit paid of a commitment's use was gifts.
//!
//! Charges do not name the credit that paid them. So it is noted what gifts had paid for when a period was opened, less what
//! counted towards the period by then; what they have paid for beyond that is the most that comes back as gifts. Periods
//! without such a note have all that gifts ever paid for.

use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::{Error, Nanos, Result};
use sublet_money::contract::{CommitmentPeriod, TermsVersion};
use sublet_store::contract::Contract;
use sublet_store::contract_drawdown::StoredDrawdown;
use sublet_store::{Tx, contract_drawdown, setting};

use crate::contract_use::used_in;
use crate::credit_lot::gifts_spent;

fn note_name((contract, number): (&ContractId, u32)) -> String {
    format!("drawdown_gifts:{contract}:{number}")
}

async fn noted(tx: &mut Tx, of: (&ContractId, u32)) -> Result<Option<Nanos>> {
    let Some(text) = setting::find(tx, &note_name(of)).await? else { return Ok(None) };
    let nanos = text.parse().map_err(|_| Error::internal("a note of what gifts paid for is no number"))?;
    Ok(Some(Nanos::new(nanos)))
}

async fn set_note(tx: &mut Tx, of: (&ContractId, u32), before: Nanos) -> Result<()> {
    setting::set(tx, &note_name(of), &before.get().to_string()).await
}

/// Notes what gifts paid for before a period that is opened now.
pub(crate) async fn note_gifts(
    tx: &mut Tx,
    contract: &Contract,
    (version, period): (&TermsVersion, CommitmentPeriod),
) -> Result<()> {
    let mut before = gifts_spent(tx, &contract.organization).await?;
    if !before.is_zero() {
        before = before.checked_sub(used_in(tx, contract, (version, period)).await?)?.max(Nanos::ZERO);
    }
    set_note(tx, (&contract.id, period.number), before).await
}

/// How much of an amount that comes back gifts may have paid since its period began.
pub(crate) async fn gifts_since(tx: &mut Tx, id: &OrganizationId, of: (&ContractId, u32), amount: Nanos) -> Result<Nanos> {
    if amount.is_zero() {
        return Ok(amount);
    }
    let before = noted(tx, of).await?.unwrap_or_default();
    Ok(gifts_spent(tx, id).await?.checked_sub(before)?.max(Nanos::ZERO).min(amount))
}

/// Later periods that are open already count from what gifts paid for without what of an earlier one came back.
pub(crate) async fn gifts_came_back(
    tx: &mut Tx,
    id: &OrganizationId,
    (contract, number): (&ContractId, u32),
    gifts: Nanos,
) -> Result<()> {
    if gifts.is_zero() {
        return Ok(());
    }
    let known = contract_drawdown::list(tx, id).await?;
    // Of the same contract, or of one that follows it.
    let is_later = |known: &&StoredDrawdown| !known.is_settled && (known.contract != *contract || known.number > number);
    for later in known.iter().filter(is_later) {
        let of = (&later.contract, later.number);
        if let Some(before) = noted(tx, of).await? {
            set_note(tx, of, before.checked_sub(gifts)?.max(Nanos::ZERO)).await?;
        }
    }
    Ok(())
}
