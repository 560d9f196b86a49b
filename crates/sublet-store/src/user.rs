//! People of an organization, with their roles.

use sublet_core::id::{OrganizationId, UserId};
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub id: UserId,
    pub organization: OrganizationId,
    pub email: String,
    pub name: String,
    /// `owner`, `developer`, `billing` or `reader`.
    pub role: String,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<User> {
    let mut row = row.reader();
    Ok(User {
        id: row.parse()?,
        organization: row.parse()?,
        email: row.string()?,
        name: row.string()?,
        role: row.string()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, user: &User) -> Result<()> {
    tx.execute(
        "INSERT INTO users (id, organization_id, email, name, role, state, generation, created_at) VALUES ($1, $2, $3, $4, $5, 'active', 1, $6)",
        params![
            user.id.as_str(),
            user.organization.as_str(),
            user.email.as_str(),
            user.name.as_str(),
            user.role.as_str(),
            user.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn list(tx: &mut Tx, organization: &OrganizationId, page: &PageRequest) -> Result<Page<User>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, email, name, role, created_at FROM users WHERE organization_id = $1",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[organization.as_str().into(), key, limit]).await?;
    page.page(&rows, from_row)
}

pub async fn delete(tx: &mut Tx, organization: &OrganizationId, id: &UserId) -> Result<()> {
    let deleted =
        tx.execute("DELETE FROM users WHERE organization_id = $1 AND id = $2", params![organization.as_str(), id.as_str()]).await?;
    if deleted == 0 {
        return Err(Error::new(ErrorCode::NotFound, format!("there is no user '{id}' in this organization")));
    }
    Ok(())
}
