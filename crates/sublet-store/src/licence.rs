//! Licences that organizations agreed to. What was agreed stays on record when the licence changes.

use sublet_core::card::AcceptedLicence;
use sublet_core::id::OrganizationId;
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Most acceptances of one organization: all of them are in the memory of gateways that serve it.
pub const ACCEPTANCES_MAX: i64 = 1_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acceptance {
    pub organization: OrganizationId,
    pub accepted: AcceptedLicence,
    /// Where the licence could be read then.
    pub url: Option<String>,
    /// The key that accepted it.
    pub actor: String,
    pub accepted_at: Timestamp,
}

fn from_row(row: &Row) -> Result<Acceptance> {
    let mut row = row.reader();
    Ok(Acceptance {
        organization: row.parse()?,
        accepted: AcceptedLicence { model: row.string()?, licence: row.string()? },
        url: row.optional_text()?.map(str::to_owned),
        actor: row.string()?,
        accepted_at: row.time()?,
    })
}

/// Records an acceptance. The first one stays; false if there was one.
pub async fn insert(tx: &mut Tx, acceptance: &Acceptance) -> Result<bool> {
    let organization = acceptance.organization.as_str();
    let count = tx.fetch_one("SELECT COUNT(*) FROM licence_acceptances WHERE organization_id = $1", params![organization]).await?;
    if count.reader().int()? >= ACCEPTANCES_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("an organization accepts at most {ACCEPTANCES_MAX} licences")));
    }
    let inserted = tx
        .execute(
            "INSERT INTO licence_acceptances (organization_id, model, licence, url, actor, accepted_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (organization_id, model, licence) DO NOTHING",
            params![
                organization,
                acceptance.accepted.model.as_str(),
                acceptance.accepted.licence.as_str(),
                acceptance.url.as_deref(),
                acceptance.actor.as_str(),
                acceptance.accepted_at
            ],
        )
        .await?;
    Ok(inserted == 1)
}

pub async fn find(tx: &mut Tx, organization: &OrganizationId, accepted: &AcceptedLicence) -> Result<Option<Acceptance>> {
    let sql = "SELECT organization_id, model, licence, url, actor, accepted_at FROM licence_acceptances
         WHERE organization_id = $1 AND model = $2 AND licence = $3";
    let key = params![organization.as_str(), accepted.model.as_str(), accepted.licence.as_str()];
    tx.fetch_optional(sql, key).await?.as_ref().map(from_row).transpose()
}

/// All of one organization, the latest first.
pub async fn list(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<Acceptance>> {
    let sql = "SELECT organization_id, model, licence, url, actor, accepted_at FROM licence_acceptances
         WHERE organization_id = $1 ORDER BY accepted_at DESC, model, licence LIMIT 1000";
    tx.fetch_all(sql, params![organization.as_str()]).await?.iter().map(from_row).collect()
}
