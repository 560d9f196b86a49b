//! Commitments that were billed in advance: when the next period's credit is due, and the credit of each period.

use sublet_core::id::{ContractId, CreditGrantId, OrganizationId};
use sublet_core::{Error, Nanos, Result, Timestamp};
use sublet_money::contract::MONTHS_MAX;
use sublet_money::period::PeriodKey;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// When the credit of a period is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The first month of the period.
    pub first: PeriodKey,
    pub due_at: Timestamp,
}

/// The credit of one period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredDrawdown {
    pub contract: ContractId,
    /// The commitment period, counted from 1.
    pub number: u32,
    pub grant: CreditGrantId,
    pub billed: Nanos,
    /// What came from the period before.
    pub rolled_over: Nanos,
    /// What the next period got of it, once it is settled.
    pub carried: Nanos,
    pub is_settled: bool,
}

/// Sets when the next credit of a contract is due; `None` where there is none.
pub async fn set_plan(tx: &mut Tx, contract: &ContractId, plan: Option<&Plan>) -> Result<()> {
    let Some(Plan { first, due_at }) = plan else {
        tx.execute("DELETE FROM contract_drawdown_plans WHERE contract_id = $1", params![contract.as_str()]).await?;
        return Ok(());
    };
    tx.execute(
        "INSERT INTO contract_drawdown_plans (contract_id, first_month, due_at) VALUES ($1, $2, $3)
         ON CONFLICT (contract_id) DO UPDATE SET first_month = excluded.first_month, due_at = excluded.due_at",
        params![contract.as_str(), first.to_string(), *due_at],
    )
    .await?;
    Ok(())
}

/// When the next credit of a contract is due. The caller has checked the contract's scope.
pub async fn plan_of(tx: &mut Tx, contract: &ContractId) -> Result<Option<Plan>> {
    let row = tx
        .fetch_optional(
            "SELECT first_month, due_at FROM contract_drawdown_plans WHERE contract_id = $1",
            params![contract.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    Ok(Some(Plan { first: row.parse()?, due_at: row.time()? }))
}

/// Contracts whose credit is due: those behind an id, in the order of ids.
pub async fn due(tx: &mut Tx, now: Timestamp, after: Option<&ContractId>, limit: i64) -> Result<Vec<ContractId>> {
    let rows = tx
        .fetch_all(
            "SELECT contract_id FROM contract_drawdown_plans WHERE due_at <= $1 AND contract_id > $2 ORDER BY contract_id LIMIT $3",
            params![now, after.map_or("", ContractId::as_str), limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// Contracts of an organization whose credit is due, in the order of ids.
pub async fn due_of(tx: &mut Tx, organization: &OrganizationId, now: Timestamp) -> Result<Vec<ContractId>> {
    let rows = tx
        .fetch_all(
            "SELECT contract_id FROM contract_drawdown_plans JOIN contracts ON contracts.id = contract_id
             WHERE organization_id = $1 AND due_at <= $2 ORDER BY contract_id LIMIT $3",
            params![organization.as_str(), now, i64::from(MONTHS_MAX)],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

pub async fn insert(tx: &mut Tx, drawdown: &StoredDrawdown) -> Result<()> {
    tx.execute(
        "INSERT INTO contract_drawdowns (contract_id, number, grant_id, billed, rolled_over, carried, settled)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            drawdown.contract.as_str(),
            i64::from(drawdown.number),
            drawdown.grant.as_str(),
            drawdown.billed,
            drawdown.rolled_over,
            drawdown.carried,
            i64::from(drawdown.is_settled)
        ],
    )
    .await?;
    Ok(())
}

/// Notes that a period is settled, and what it gave to the next.
pub async fn settle(tx: &mut Tx, drawdown: &StoredDrawdown, carried: Nanos) -> Result<()> {
    let of = (drawdown.contract.as_str(), i64::from(drawdown.number));
    let changed = tx
        .execute(
            "UPDATE contract_drawdowns SET settled = 1, carried = $3 WHERE contract_id = $1 AND number = $2 AND settled = 0",
            params![of.0, of.1, carried],
        )
        .await?;
    if changed != 1 {
        return Err(Error::internal("a commitment that was billed in advance is settled twice"));
    }
    tx.execute(
        "UPDATE contract_drawdowns SET rolled_over = rolled_over + $3 WHERE contract_id = $1 AND number = $2",
        params![of.0, of.1 + 1, carried],
    )
    .await?;
    Ok(())
}

fn from_row(row: &Row) -> Result<StoredDrawdown> {
    let mut row = row.reader();
    Ok(StoredDrawdown {
        contract: row.parse()?,
        number: u32::try_from(row.int()?).map_err(|_| Error::internal("a number of periods is out of range"))?,
        grant: row.parse()?,
        billed: row.nanos()?,
        rolled_over: row.nanos()?,
        carried: row.nanos()?,
        is_settled: row.int()? != 0,
    })
}

/// The credit of periods that ended by then and are not settled.
pub async fn list_ended(tx: &mut Tx, organization: &OrganizationId, ended_by: Timestamp) -> Result<Vec<CreditGrantId>> {
    let rows = tx
        .fetch_all(
            "SELECT grant_id FROM contract_drawdowns JOIN credit_grants ON credit_grants.id = grant_id
             WHERE organization_id = $1 AND settled = 0 AND expires_at <= $2 ORDER BY grant_id LIMIT $3",
            params![organization.as_str(), ended_by, i64::from(MONTHS_MAX) * 10],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// Every period of an organization's contracts whose commitment was billed in advance, by contract and number.
pub async fn list(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<StoredDrawdown>> {
    let rows = tx
        .fetch_all(
            "SELECT contract_id, number, grant_id, billed, rolled_over, carried, settled FROM contract_drawdowns
             WHERE contract_id IN (SELECT id FROM contracts WHERE organization_id = $1) ORDER BY contract_id, number LIMIT $2",
            params![organization.as_str(), i64::from(MONTHS_MAX) * 10],
        )
        .await?;
    rows.iter().map(from_row).collect()
}
