//! How far the commitment periods of contracts are used and settled.

use std::collections::BTreeMap;

use sublet_core::{Nanos, Result};
use sublet_money::commitment::SettledPeriod;
use sublet_money::contract::Agreement;
use sublet_money::period::PeriodKey;
use sublet_store::contract::{self, Contract, ContractMonth};
use sublet_store::{Tx, billing, charge};

/// What is counted towards a commitment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counted {
    /// By invoices.
    Invoiced,
    /// And what will be in the next ones: that reads all charges of months that are open.
    Used,
}

/// How far a commitment period is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeriodUse {
    pub number: u32,
    pub first: PeriodKey,
    pub last: PeriodKey,
    pub committed: Nanos,
    /// By invoices; of a single contract also by what will be in the next ones.
    pub counted: Nanos,
    pub shortfall: Nanos,
    pub roll_over_used: Nanos,
    pub exit_fee: Nanos,
    /// Its last month has its invoice.
    pub is_settled: bool,
}

/// What the periods before one settled.
pub(crate) fn settled_periods(months: &[&ContractMonth], number: u32) -> Result<Vec<SettledPeriod>> {
    let mut periods: BTreeMap<u32, SettledPeriod> = BTreeMap::new();
    for month in months.iter().filter(|month| month.number < number) {
        let period = periods.entry(month.number).or_insert(SettledPeriod {
            number: month.number,
            shortfall: Nanos::ZERO,
            roll_over_used: Nanos::ZERO,
            roll_over_periods: month.roll_over_periods,
        });
        period.shortfall = period.shortfall.checked_add(month.shortfall)?;
        period.roll_over_used = period.roll_over_used.checked_add(month.roll_over_used)?;
    }
    Ok(periods.into_values().collect())
}

/// The commitment periods of a contract that began by a month, and how far each is used.
pub(crate) async fn periods(
    tx: &mut Tx,
    contract: &Contract,
    agreement: &Agreement,
    (month, counted): (PeriodKey, Counted),
) -> Result<Vec<PeriodUse>> {
    let billed = billing::list_billed(tx, &contract.organization).await?;
    let months = contract::list_months(tx, &contract.organization, &contract.id).await?;
    let mut uses = Vec::new();
    let Some(mut at) = agreement.versions().first().map(|version| version.terms.starts) else { return Ok(uses) };
    while at <= month {
        let Some((version, period)) = agreement.at(at)? else { break };
        let mut used = PeriodUse {
            number: period.number,
            first: period.first,
            last: period.last,
            committed: period.committed,
            counted: Nanos::ZERO,
            shortfall: Nanos::ZERO,
            roll_over_used: Nanos::ZERO,
            exit_fee: Nanos::ZERO,
            is_settled: billed.contains(&period.last),
        };
        for known in months.iter().filter(|known| known.number == period.number) {
            used.counted = used.counted.checked_add(known.counted)?;
            used.shortfall = used.shortfall.checked_add(known.shortfall)?;
            used.roll_over_used = used.roll_over_used.checked_add(known.roll_over_used)?;
            used.exit_fee = used.exit_fee.checked_add(known.exit_fee)?;
        }
        let mut open = period.first;
        while open <= period.last.min(month) {
            if counted == Counted::Used && !billed.contains(&open) {
                for part in charge::list_parts(tx, &contract.organization, open).await? {
                    if version.terms.covers.contains(&part.key.sku.family()) {
                        used.counted = used.counted.checked_add(part.sum.charged)?;
                    }
                }
            }
            open = open.next()?;
        }
        uses.push(used);
        at = period.last.next()?;
    }
    Ok(uses)
}
