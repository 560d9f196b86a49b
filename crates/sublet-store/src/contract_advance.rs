//! What contracts billed in advance, and how much of it is earned.

use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::{Error, Nanos, Result};
use sublet_money::advance::AdvanceLine;
use sublet_money::contract::MONTHS_MAX;
use sublet_money::period::PeriodKey;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// A period's fee and commitment, as billed; the fee is earned by the day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advance {
    pub line: AdvanceLine,
    pub earned: Nanos,
}

/// Notes what an issued invoice billed in advance.
pub async fn insert(tx: &mut Tx, line: &AdvanceLine, billed_in: PeriodKey) -> Result<()> {
    tx.execute(
        "INSERT INTO contract_advances (contract_id, number, billed_in, terms, first_month, last_month, fee, earned, commitment)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8)",
        params![
            line.contract.as_str(),
            i64::from(line.number),
            billed_in.to_string(),
            line.terms.as_str(),
            line.first.to_string(),
            line.last.to_string(),
            line.fee,
            line.commitment
        ],
    )
    .await?;
    Ok(())
}

/// Notes what a month earned of a period's fee.
pub async fn earn(tx: &mut Tx, line: &AdvanceLine, (month, amount): (PeriodKey, Nanos)) -> Result<()> {
    let of = (line.contract.as_str(), i64::from(line.number));
    tx.execute(
        "INSERT INTO contract_earnings (contract_id, number, period, amount) VALUES ($1, $2, $3, $4)",
        params![of.0, of.1, month.to_string(), amount],
    )
    .await?;
    let changed = tx
        .execute(
            "UPDATE contract_advances SET earned = earned + $3 WHERE contract_id = $1 AND number = $2 AND earned + $3 <= fee",
            params![of.0, of.1, amount],
        )
        .await?;
    if changed == 1 { Ok(()) } else { Err(Error::internal("more was earned of a fee than was billed")) }
}

fn from_row(row: &Row) -> Result<Advance> {
    let mut row = row.reader();
    let line = AdvanceLine {
        contract: row.parse()?,
        number: u32::try_from(row.int()?).map_err(|_| Error::internal("a number of periods is out of range"))?,
        terms: row.string()?,
        first: row.parse()?,
        last: row.parse()?,
        fee: row.nanos()?,
        commitment: row.nanos()?,
    };
    Ok(Advance { line, earned: row.nanos()? })
}

/// What an organization's contracts billed in advance, the oldest period first.
pub async fn list(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<Advance>> {
    let rows = tx
        .fetch_all(
            "SELECT contract_id, number, terms, first_month, last_month, fee, commitment, earned FROM contract_advances
             WHERE contract_id IN (SELECT id FROM contracts WHERE organization_id = $1)
             ORDER BY first_month, contract_id LIMIT $2",
            params![organization.as_str(), i64::from(MONTHS_MAX) * 10],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// What of an organization's fees a month earned, by contract.
pub async fn list_earned(tx: &mut Tx, organization: &OrganizationId, month: PeriodKey) -> Result<Vec<(ContractId, Nanos)>> {
    let rows = tx
        .fetch_all(
            "SELECT contract_id, CAST(SUM(amount) AS BIGINT) FROM contract_earnings
             WHERE period = $2 AND contract_id IN (SELECT id FROM contracts WHERE organization_id = $1)
             GROUP BY contract_id ORDER BY contract_id LIMIT $3",
            params![organization.as_str(), month.to_string(), i64::from(MONTHS_MAX) * 10],
        )
        .await?;
    let read = |row: &Row| {
        let mut row = row.reader();
        Ok((row.parse()?, row.nanos()?))
    };
    rows.iter().map(read).collect()
}
