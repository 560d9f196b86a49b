//! Organizations.

use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::supplier::DataConsent;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Organization {
    pub id: OrganizationId,
    pub name: String,
    pub class: OrganizationClass,
    pub currency: Currency,
    /// IANA name; invoices and budget windows are cut in it.
    pub time_zone: String,
    /// How far below zero the available amount may go.
    pub credit_limit: Nanos,
    /// Whether suppliers outside may see what it asks.
    pub data: DataConsent,
    pub generation: i64,
    pub created_at: Timestamp,
    /// Since when it may begin nothing new: its dunning says so.
    pub suspended_at: Option<Timestamp>,
}

fn from_row(row: &Row) -> Result<Organization> {
    let mut row = row.reader();
    Ok(Organization {
        id: row.parse()?,
        name: row.string()?,
        class: row.parse()?,
        currency: row.parse()?,
        time_zone: row.string()?,
        credit_limit: row.nanos()?,
        data: row.json()?,
        generation: row.int()?,
        created_at: row.time()?,
        suspended_at: row.optional_time()?,
    })
}

pub async fn insert(tx: &mut Tx, organization: &Organization) -> Result<()> {
    tx.execute(
        "INSERT INTO organizations (id, name, class, currency, time_zone, credit_limit, state, generation, created_at, metadata, data_consent)
         VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, '{}', $9)",
        params![
            organization.id.as_str(),
            organization.name.as_str(),
            organization.class.as_str(),
            organization.currency.as_str(),
            organization.time_zone.as_str(),
            organization.credit_limit,
            organization.generation,
            organization.created_at,
            to_json(&organization.data)?
        ],
    )
    .await?;
    Ok(())
}

/// The organization, if the scope may see it.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &OrganizationId) -> Result<Option<Organization>> {
    let confined = scope.organization().is_none_or(|own| own == id);
    if !confined {
        return Ok(None);
    }
    let row = tx
        .fetch_optional(
            "SELECT id, name, class, currency, time_zone, credit_limit, data_consent, generation, created_at,
                 (SELECT suspended_at FROM dunning_accounts WHERE organization_id = organizations.id)
             FROM organizations WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &OrganizationId) -> Result<Organization> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no organization '{id}'")))
}

/// Says anew what may be done with an organization's data.
pub async fn set_consent(tx: &mut Tx, id: &OrganizationId, data: &DataConsent) -> Result<()> {
    tx.execute(
        "UPDATE organizations SET data_consent = $2, generation = generation + 1 WHERE id = $1",
        params![id.as_str(), to_json(data)?],
    )
    .await?;
    Ok(())
}

/// Whether there are any.
pub async fn exist(tx: &mut Tx) -> Result<bool> {
    Ok(tx.fetch_optional("SELECT id FROM organizations LIMIT 1", &[]).await?.is_some())
}

/// All organizations, or those of one class: for the operator only.
pub async fn list(tx: &mut Tx, class: Option<OrganizationClass>, page: &PageRequest) -> Result<Page<Organization>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, name, class, currency, time_zone, credit_limit, data_consent, generation, created_at,
             (SELECT suspended_at FROM dunning_accounts WHERE organization_id = organizations.id)
         FROM organizations WHERE state = 'active' AND ($3 = '' OR class = $3)",
        "id",
        "1",
        "2"
    );
    let rows = tx.fetch_all(sql, &[key, limit, class.map_or("", OrganizationClass::as_str).into()]).await?;
    page.page(&rows, from_row)
}
