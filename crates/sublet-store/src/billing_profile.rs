//! How accounts are invoiced.

use sublet_core::id::OrganizationId;
use sublet_core::{Result, Timestamp};
use sublet_money::tax::BillingProfile;

use crate::database::Tx;
use crate::params;
use crate::row::to_json;

/// Writes an account's profile in the place of the one before it.
pub async fn put(tx: &mut Tx, organization: &OrganizationId, profile: &BillingProfile, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO billing_profiles (organization_id, body, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (organization_id) DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at",
        params![organization.as_str(), to_json(profile)?, now],
    )
    .await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, organization: &OrganizationId) -> Result<Option<BillingProfile>> {
    let row =
        tx.fetch_optional("SELECT body FROM billing_profiles WHERE organization_id = $1", params![organization.as_str()]).await?;
    row.map(|row| row.reader().json()).transpose()
}
