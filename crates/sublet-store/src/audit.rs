//! The audit log: who did what, from where, when, with what result. Written with its cause.

use sublet_core::id::{AuditId, OrganizationId};
use sublet_core::{Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    pub id: AuditId,
    pub organization: Option<OrganizationId>,
    /// A key, a user, or `system`.
    pub actor: String,
    pub address: String,
    pub action: String,
    pub target: String,
    /// `ok` or an error code.
    pub result: String,
    pub detail: String,
    pub occurred_at: Timestamp,
}

fn from_row(row: &Row) -> Result<AuditEntry> {
    let mut row = row.reader();
    Ok(AuditEntry {
        id: row.parse()?,
        organization: row.optional_parse()?,
        actor: row.string()?,
        address: row.string()?,
        action: row.string()?,
        target: row.string()?,
        result: row.string()?,
        detail: row.string()?,
        occurred_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, entry: &AuditEntry) -> Result<()> {
    tx.execute(
        "INSERT INTO audit_entries (id, organization_id, actor, address, action, target, result, detail, occurred_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        params![
            entry.id.as_str(),
            entry.organization.as_ref().map(OrganizationId::as_str),
            entry.actor.as_str(),
            entry.address.as_str(),
            entry.action.as_str(),
            entry.target.as_str(),
            entry.result.as_str(),
            entry.detail.as_str(),
            entry.occurred_at
        ],
    )
    .await?;
    Ok(())
}

/// Whether an organization's log has this entry. It reads the whole log: only for what hardly ever happens.
pub async fn exists(tx: &mut Tx, organization: &OrganizationId, deed: (&str, &str), detail: &str) -> Result<bool> {
    let (action, target) = deed;
    let row = tx
        .fetch_optional(
            "SELECT id FROM audit_entries WHERE organization_id = $1 AND action = $2 AND target = $3 AND detail = $4 LIMIT 1",
            params![organization.as_str(), action, target, detail],
        )
        .await?;
    Ok(row.is_some())
}

pub async fn list(tx: &mut Tx, scope: &Scope, page: &PageRequest) -> Result<Page<AuditEntry>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, actor, address, action, target, result, detail, occurred_at FROM audit_entries
         WHERE ($1 = '' OR organization_id = $1)",
        "id",
        "2",
        "3"
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), key, limit]).await?;
    page.page(&rows, from_row)
}
