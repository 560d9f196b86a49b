//! Contracts: the versions of their terms, notices, and what invoices counted and settled.

use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::contract::{Agreement, MONTHS_MAX, Notice, TermsVersion, VERSIONS_MAX};
use sublet_money::period::PeriodKey;
use sublet_money::sku::Quantity;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

/// Most contracts of one account, of all times.
pub const CONTRACTS_MAX: i64 = 100;

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfferState {
    /// Until it expires.
    Offered,
    Accepted,
    Withdrawn,
}

impl OfferState {
    pub const ALL: [Self; 3] = [Self::Offered, Self::Accepted, Self::Withdrawn];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// One version of the terms, as offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub version: TermsVersion,
    pub state: OfferState,
    pub offered_at: Timestamp,
    pub expires_at: Timestamp,
    /// Who accepted or withdrew it.
    pub answered_by: Option<String>,
    pub answered_at: Option<Timestamp>,
}

/// A notice with who gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenNotice {
    pub notice: Notice,
    pub by: String,
    pub at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contract {
    pub id: ContractId,
    pub organization: OrganizationId,
    pub name: String,
    /// The first terms and amendments, in the order of the offers.
    pub offers: Vec<Offer>,
    pub notice: Option<GivenNotice>,
    pub created_at: Timestamp,
}

impl Contract {
    /// All that is agreed; `None` if nothing was accepted.
    pub fn agreement(&self) -> Result<Option<Agreement>> {
        let accepted = self.offers.iter().filter(|offer| offer.state == OfferState::Accepted);
        let versions: Vec<_> = accepted.map(|offer| offer.version.clone()).collect();
        if versions.is_empty() {
            return Ok(None);
        }
        Agreement::new(versions, self.notice.as_ref().map(|given| given.notice)).map(Some)
    }

    /// The terms that an invoice names.
    pub fn terms_named(&self, hash: &str) -> Result<&TermsVersion> {
        let named = self.offers.iter().map(|offer| &offer.version).find(|version| version.hash == hash);
        named.ok_or_else(|| Error::internal("an invoice names terms that its contract does not have"))
    }
}

/// What one invoice counted and settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContractMonth {
    pub contract: ContractId,
    pub period: PeriodKey,
    /// The commitment period.
    pub number: u32,
    pub counted: Nanos,
    pub shortfall: Nanos,
    pub roll_over_used: Nanos,
    pub roll_over_periods: u32,
    pub exit_fee: Nanos,
    /// Where a quantity is committed: what was counted, missing and used up of what was missing before.
    pub quantity: Quantity,
    pub missing: Quantity,
    pub quantity_used: Quantity,
    /// What overage cost more than the contract's price; below zero where it cost less.
    pub overage: Nanos,
    /// What all use came to, of whatever; `None` of months that are billed since before it was noted.
    pub used: Option<Nanos>,
    /// Taken off the invoice, where the commitment was billed in advance. What is missing and used up of roll-over was not
    /// charged and given back then.
    pub drawn: Option<Nanos>,
    /// Of what was billed in advance, what cannot be used any more.
    pub lapsed: Nanos,
}

impl ContractMonth {
    /// What the contract earned with the month's invoice, besides use and fees.
    pub fn amount(&self) -> Result<Nanos> {
        let settled = match self.drawn {
            Some(_) => self.lapsed,
            None => self.shortfall.checked_sub(self.roll_over_used)?,
        };
        settled.checked_add(self.exit_fee)?.checked_add(self.overage)
    }
}

pub async fn insert(tx: &mut Tx, contract: &Contract) -> Result<()> {
    tx.execute(
        "INSERT INTO contracts (id, organization_id, name, created_at) VALUES ($1, $2, $3, $4)",
        params![contract.id.as_str(), contract.organization.as_str(), contract.name.as_str(), contract.created_at],
    )
    .await?;
    for (number, offer) in (1_i64..).zip(&contract.offers) {
        insert_offer(tx, &contract.id, number, offer).await?;
    }
    Ok(())
}

/// Adds a version of the terms; `number` counts from 1.
pub async fn insert_offer(tx: &mut Tx, contract: &ContractId, number: i64, offer: &Offer) -> Result<()> {
    let version = &offer.version;
    tx.execute(
        "INSERT INTO contract_terms (contract_id, number, state, hash, body, offered_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            contract.as_str(),
            number,
            offer.state.as_str(),
            version.hash.as_str(),
            version.canonical()?,
            offer.offered_at,
            offer.expires_at
        ],
    )
    .await?;
    Ok(())
}

/// Answers an open offer.
pub async fn answer(tx: &mut Tx, contract: &ContractId, number: i64, (state, by, at): (OfferState, &str, Timestamp)) -> Result<()> {
    let answered = tx
        .execute(
            "UPDATE contract_terms SET state = $3, answered_by = $4, answered_at = $5
             WHERE contract_id = $1 AND number = $2 AND state = 'offered'",
            params![contract.as_str(), number, state.as_str(), by, at],
        )
        .await?;
    if answered == 1 { Ok(()) } else { Err(Error::new(ErrorCode::Conflict, "the offer was answered already")) }
}

/// Notes the notice of a contract that has none.
pub async fn set_notice(tx: &mut Tx, contract: &ContractId, given: &GivenNotice) -> Result<()> {
    let noted = tx
        .execute(
            "UPDATE contracts SET last_month = $2, exit_fee = $3, notice_by = $4, notice_at = $5 WHERE id = $1 AND last_month IS NULL",
            params![contract.as_str(), given.notice.last_month.to_string(), given.notice.fee, given.by.as_str(), given.at],
        )
        .await?;
    if noted == 1 { Ok(()) } else { Err(Error::new(ErrorCode::Conflict, "notice was given already")) }
}

async fn from_row(tx: &mut Tx, row: &Row) -> Result<Contract> {
    let mut row = row.reader();
    let (id, organization, name): (ContractId, OrganizationId, String) = (row.parse()?, row.parse()?, row.string()?);
    let (last_month, fee, by, at) = (row.optional_parse()?, row.optional_int()?, row.optional_text()?, row.optional_time()?);
    let notice = match (last_month, fee, by, at) {
        (Some(last_month), Some(fee), Some(by), Some(at)) => {
            Some(GivenNotice { notice: Notice { last_month, fee: Nanos::new(fee) }, by: by.to_owned(), at })
        }
        _ => None,
    };
    let created_at = row.time()?;
    let rows = tx
        .fetch_all(
            "SELECT state, hash, body, offered_at, expires_at, answered_by, answered_at FROM contract_terms
             WHERE contract_id = $1 ORDER BY number LIMIT $2",
            params![id.as_str(), i64::try_from(VERSIONS_MAX).unwrap_or(i64::MAX)],
        )
        .await?;
    let offers = rows.iter().map(offer_from_row).collect::<Result<_>>()?;
    Ok(Contract { id, organization, name, offers, notice, created_at })
}

fn offer_from_row(row: &Row) -> Result<Offer> {
    let mut row = row.reader();
    let state = row.text()?;
    let state = OfferState::ALL.into_iter().find(|known| known.as_str() == state);
    let hash = row.string()?;
    Ok(Offer {
        version: TermsVersion::from_canonical(row.text()?, &hash)?,
        state: state.ok_or_else(|| Error::internal("an offer is in no state that is known"))?,
        offered_at: row.time()?,
        expires_at: row.time()?,
        answered_by: row.optional_text()?.map(str::to_owned),
        answered_at: row.optional_time()?,
    })
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &ContractId) -> Result<Contract> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, name, last_month, exit_fee, notice_by, notice_at, created_at FROM contracts
             WHERE id = $1 AND ($2 = '' OR organization_id = $2)",
            params![id.as_str(), scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no contract '{id}'")))?;
    from_row(tx, &row).await
}

/// Those of an organization, or all that the scope may see.
pub async fn list(tx: &mut Tx, scope: &Scope, organization: Option<&OrganizationId>, page: &PageRequest) -> Result<Page<Contract>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, name, last_month, exit_fee, notice_by, notice_at, created_at FROM contracts
         WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR organization_id = $2)",
        "id",
        "3",
        "4"
    );
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx.fetch_all(sql, &[own.into(), organization.map_or("", OrganizationId::as_str).into(), key, limit]).await?;
    let page = page.page(&rows, |row| Ok(row.clone()))?;
    let mut items = Vec::with_capacity(page.items.len());
    for row in &page.items {
        items.push(from_row(tx, row).await?);
    }
    Ok(Page { items, has_more: page.has_more })
}

/// Contracts that agree or agreed on quantities: those behind an id, in the order of ids.
pub async fn list_of_quantities(tx: &mut Tx, scope: &Scope, after: Option<&ContractId>, limit: i64) -> Result<Vec<Contract>> {
    // What the text may say elsewhere in these words is found for nothing, and nothing is missed.
    let sql = r#"SELECT id, organization_id, name, last_month, exit_fee, notice_by, notice_at, created_at FROM contracts
         WHERE ($1 = '' OR organization_id = $1) AND id > $2
             AND id IN (SELECT contract_id FROM contract_terms WHERE state = 'accepted' AND body LIKE '%"quantities":%')
         ORDER BY id LIMIT $3"#;
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx.fetch_all(sql, params![own, after.map_or("", ContractId::as_str), limit]).await?;
    let mut contracts = Vec::with_capacity(rows.len());
    for row in &rows {
        contracts.push(from_row(tx, row).await?);
    }
    Ok(contracts)
}

/// Every contract of an account, the oldest first.
pub async fn list_of(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<Contract>> {
    let rows = tx
        .fetch_all(
            "SELECT id, organization_id, name, last_month, exit_fee, notice_by, notice_at, created_at FROM contracts
             WHERE organization_id = $1 ORDER BY id LIMIT $2",
            params![organization.as_str(), CONTRACTS_MAX],
        )
        .await?;
    let mut contracts = Vec::with_capacity(rows.len());
    for row in &rows {
        contracts.push(from_row(tx, row).await?);
    }
    Ok(contracts)
}

/// Notes what an issued invoice counted and settled.
pub async fn insert_month(tx: &mut Tx, month: &ContractMonth) -> Result<()> {
    tx.execute(
        "INSERT INTO contract_months
             (contract_id, period, number, counted, shortfall, roll_over_used, roll_over_periods, exit_fee, quantity, missing,
              quantity_used, overage, used, drawn, lapsed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        params![
            month.contract.as_str(),
            month.period.to_string(),
            i64::from(month.number),
            month.counted,
            month.shortfall,
            month.roll_over_used,
            i64::from(month.roll_over_periods),
            month.exit_fee,
            month.quantity.get(),
            month.missing.get(),
            month.quantity_used.get(),
            month.overage,
            month.used.map(Nanos::get),
            month.drawn.map(Nanos::get),
            month.lapsed
        ],
    )
    .await?;
    Ok(())
}

/// What invoices counted and settled, the oldest month first.
pub async fn list_months(tx: &mut Tx, organization: &OrganizationId, contract: &ContractId) -> Result<Vec<ContractMonth>> {
    let rows = tx
        .fetch_all(
            "SELECT contract_id, period, number, counted, shortfall, roll_over_used, roll_over_periods, exit_fee, quantity,
                 missing, quantity_used, overage, used, drawn, lapsed
             FROM contract_months WHERE contract_id = $1
                 AND contract_id IN (SELECT id FROM contracts WHERE organization_id = $2) ORDER BY period LIMIT $3",
            params![contract.as_str(), organization.as_str(), i64::from(MONTHS_MAX) * 10],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(ContractMonth {
                contract: row.parse()?,
                period: row.parse()?,
                number: small(row.int()?)?,
                counted: row.nanos()?,
                shortfall: row.nanos()?,
                roll_over_used: row.nanos()?,
                roll_over_periods: small(row.int()?)?,
                exit_fee: row.nanos()?,
                quantity: Quantity::new(row.int()?)?,
                missing: Quantity::new(row.int()?)?,
                quantity_used: Quantity::new(row.int()?)?,
                overage: row.nanos()?,
                used: row.optional_int()?.map(Nanos::new),
                drawn: row.optional_int()?.map(Nanos::new),
                lapsed: row.nanos()?,
            })
        })
        .collect()
}

fn small(count: i64) -> Result<u32> {
    u32::try_from(count).map_err(|_| Error::internal("a number of periods is out of range"))
}

/// What all contracts of an account earned with its invoices, besides use and fees.
pub async fn sum_settled(tx: &mut Tx, organization: &OrganizationId) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(
                 exit_fee + overage + CASE WHEN drawn IS NULL THEN shortfall - roll_over_used ELSE lapsed END), 0) AS BIGINT) FROM contract_months
             WHERE contract_id IN (SELECT id FROM contracts WHERE organization_id = $1)",
            params![organization.as_str()],
        )
        .await?;
    row.reader().nanos()
}

/// Accounts that owe something by contract and have paid credit again: those behind an id, in the order of ids.
pub async fn owing(tx: &mut Tx, after: Option<&OrganizationId>, limit: i64) -> Result<Vec<OrganizationId>> {
    let rows = tx
        .fetch_all(
            "SELECT organizations.id FROM organizations JOIN accounts
                 ON accounts.path IN ('assets:receivable:' || organizations.id, 'assets:receivable-tax:' || organizations.id)
             JOIN accounts AS paid ON paid.path = 'liabilities:customers:' || organizations.id || ':available:paid'
             WHERE organizations.id > $1 AND accounts.debits > accounts.credits AND paid.credits > paid.debits
                 AND (organizations.id IN (SELECT organization_id FROM contracts)
                     OR organizations.id IN (SELECT organization_id FROM invoices WHERE tax <> 0)
                     OR organizations.id IN (SELECT organization_id FROM charge_lines WHERE sku = 'project/month'))
             GROUP BY organizations.id ORDER BY organizations.id LIMIT $2",
            params![after.map_or("", OrganizationId::as_str), limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}
