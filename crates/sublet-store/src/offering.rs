//! Offerings: one row for each change, none rewritten. They are the cloud's own; who was invited and who may go on are
//! read by the organization on behalf of which it is asked.

use std::collections::BTreeSet;

use sublet_core::id::OrganizationId;
use sublet_core::offering::{End, Entitlements, Offering, Product};
use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_money::sku::SkuName;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Most products with an offering: all of them are in the memory of every gateway.
pub const OFFERINGS_MAX: i64 = 1_000;
/// Most organizations that are invited to one product.
pub const INVITED_MAX: i64 = 1_000;
/// Most products that one organization is invited to: they are in the memory of gateways that serve it.
pub const INVITATIONS_MAX: i64 = 1_000;
/// Things with a price that are looked for at once.
const SKUS_AT_ONCE: usize = 12;
/// Most names of device time in all of a cloud's use.
const DEVICE_SKUS_MAX: usize = 20_000;

/// An offering as it was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferingRow {
    pub offering: Offering,
    pub note: String,
    /// The key that changed it.
    pub actor: String,
    pub changed_at: Timestamp,
}

/// An organization that may use what others do not see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    pub organization: OrganizationId,
    pub invited_by: String,
    pub invited_at: Timestamp,
}

fn from_row(row: &Row) -> Result<OfferingRow> {
    let mut row = row.reader();
    let (product, number, state, reach) = (row.parse()?, row.int()?, row.parse()?, row.parse()?);
    let (ends_at, successor) = (row.optional_time()?, row.optional_text()?.map(str::parse).transpose()?);
    let end = ends_at.map(|at| End { at, successor });
    let offering = Offering { product, number, state, reach, end, users_of: row.optional_int()? };
    Ok(OfferingRow { offering, note: row.string()?, actor: row.string()?, changed_at: row.time()? })
}

/// Adds a change.
pub async fn insert(tx: &mut Tx, row: &OfferingRow) -> Result<()> {
    let offering = &row.offering;
    let product = offering.product.to_string();
    let others =
        tx.fetch_one("SELECT COUNT(*) FROM offerings WHERE number = 1 AND product <> $1", params![product.as_str()]).await?;
    if others.reader().int()? >= OFFERINGS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("a cloud has at most {OFFERINGS_MAX} offerings")));
    }
    let (end, successor) = (offering.end.as_ref(), offering.end.as_ref().and_then(|end| end.successor.as_ref()));
    tx.execute(
        "INSERT INTO offerings (product, number, state, reach, ends_at, successor, users_of, note, actor, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            product,
            offering.number,
            offering.state.as_str(),
            offering.reach.as_str(),
            end.map(|end| end.at),
            successor.map(Product::to_string),
            offering.users_of,
            row.note.as_str(),
            row.actor.as_str(),
            row.changed_at
        ],
    )
    .await?;
    Ok(())
}

/// All as they are now, in the order of products.
pub async fn list_all(tx: &mut Tx) -> Result<Vec<OfferingRow>> {
    let sql = "SELECT product, number, state, reach, ends_at, successor, users_of, note, actor, changed_at FROM offerings one
         WHERE number = (SELECT MAX(number) FROM offerings WHERE product = one.product) ORDER BY product LIMIT 1000";
    tx.fetch_all(sql, &[]).await?.iter().map(from_row).collect()
}

/// The last changes of one, the latest first.
pub async fn list_history(tx: &mut Tx, product: &Product) -> Result<Vec<OfferingRow>> {
    let sql = "SELECT product, number, state, reach, ends_at, successor, users_of, note, actor, changed_at FROM offerings
         WHERE product = $1 ORDER BY number DESC LIMIT 1000";
    tx.fetch_all(sql, params![product.to_string()]).await?.iter().map(from_row).collect()
}

/// One as it is now.
pub async fn find(tx: &mut Tx, product: &Product) -> Result<Option<OfferingRow>> {
    let sql = "SELECT product, number, state, reach, ends_at, successor, users_of, note, actor, changed_at FROM offerings
         WHERE product = $1 ORDER BY number DESC LIMIT 1";
    tx.fetch_optional(sql, params![product.to_string()]).await?.as_ref().map(from_row).transpose()
}

/// What counts for a product now: its own, or that of what it is a part of.
pub async fn find_in_force(tx: &mut Tx, product: &Product) -> Result<Option<OfferingRow>> {
    match (find(tx, product).await?, product.general()) {
        (None, Some(general)) => find(tx, &general).await,
        (own, _) => Ok(own),
    }
}

/// Writes down who used a product since an instant: who was charged for one of its skus, or has a lease of it. They are
/// the users of the change with this number.
pub async fn insert_users(
    tx: &mut Tx,
    (product, number): (&Product, i64),
    skus: &BTreeSet<String>,
    since: Timestamp,
) -> Result<()> {
    let (product, names) = (product.to_string(), skus.iter().map(String::as_str).collect::<Vec<_>>());
    for some in names.chunks(SKUS_AT_ONCE) {
        insert_users_of(tx, (&product, number), some, since).await?;
    }
    Ok(())
}

async fn insert_users_of(tx: &mut Tx, (product, number): (&str, i64), skus: &[&str], since: Timestamp) -> Result<()> {
    let Some(first) = skus.first().copied() else { return Ok(()) };
    // Places that are left over repeat the first.
    let mut names = skus.iter().copied();
    let mut next = || names.next().unwrap_or(first);
    tx.execute(
        "INSERT INTO offering_users (product, number, organization_id)
         SELECT $1, CAST($2 AS BIGINT), used.organization_id FROM (
             SELECT line.organization_id FROM charge_lines line
             WHERE line.sku IN ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AND EXISTS (
                 SELECT 1 FROM charges charge
                 WHERE charge.organization_id = line.organization_id AND charge.period = line.period
                     AND charge.occurred_at >= $3 AND charge.sku = line.sku)
             UNION
             SELECT lease.organization_id FROM leases lease
             WHERE lease.state <> 'ended' AND lease.sku IN ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ) used WHERE TRUE ON CONFLICT (product, number, organization_id) DO NOTHING",
        params![
            product,
            number,
            since,
            next(),
            next(),
            next(),
            next(),
            next(),
            next(),
            next(),
            next(),
            next(),
            next(),
            next(),
            next()
        ],
    )
    .await?;
    Ok(())
}

/// All names of device time that was ever charged, or is leased.
pub async fn device_skus(tx: &mut Tx) -> Result<BTreeSet<SkuName>> {
    let limit = i64::try_from(DEVICE_SKUS_MAX).unwrap_or(i64::MAX).saturating_add(1);
    let sql = "SELECT sku FROM charge_lines WHERE sku LIKE 'device/%'
         UNION SELECT sku FROM leases WHERE state <> 'ended' ORDER BY sku LIMIT $1";
    let names = tx.fetch_all(sql, params![limit]).await?.iter().map(|row| row.reader().parse()).collect::<Result<BTreeSet<_>>>()?;
    if names.len() > DEVICE_SKUS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("more than {DEVICE_SKUS_MAX} kinds of device time were used"))
            .alternative("an offering for each notice of the kind, after names of places that are gone were given up"));
    }
    Ok(names)
}

/// Takes those from the users of a change who are invited neither to the product nor to what it is a part of.
pub async fn remove_uninvited(tx: &mut Tx, (product, number): (&Product, i64)) -> Result<()> {
    let general = product.general().as_ref().unwrap_or(product).to_string();
    tx.execute(
        "DELETE FROM offering_users WHERE product = $1 AND number = $2 AND organization_id NOT IN (
             SELECT organization_id FROM offering_invitations WHERE product IN ($1, $3) AND withdrawn_at IS NULL)",
        params![product.to_string(), number, general],
    )
    .await?;
    Ok(())
}

/// Lets the users of one product's change go on with another product too, as users of its change with this number.
pub async fn copy_users(tx: &mut Tx, (from, of): (&Product, i64), (product, number): (&Product, i64)) -> Result<()> {
    tx.execute(
        "INSERT INTO offering_users (product, number, organization_id)
         SELECT $1, CAST($2 AS BIGINT), organization_id FROM offering_users WHERE product = $3 AND number = $4
         ON CONFLICT (product, number, organization_id) DO NOTHING",
        params![product.to_string(), number, from.to_string(), of],
    )
    .await?;
    Ok(())
}

/// Adds a user of the change with this number, if it is none.
pub async fn insert_user(tx: &mut Tx, (product, number): (&Product, i64), organization: &OrganizationId) -> Result<()> {
    tx.execute(
        "INSERT INTO offering_users (product, number, organization_id) VALUES ($1, $2, $3)
         ON CONFLICT (product, number, organization_id) DO NOTHING",
        params![product.to_string(), number, organization.as_str()],
    )
    .await?;
    Ok(())
}

/// Takes an organization from the users of a product's changes; false if it is none.
pub async fn remove_user(tx: &mut Tx, product: &Product, organization: &OrganizationId) -> Result<bool> {
    let sql = "DELETE FROM offering_users WHERE product = $1 AND organization_id = $2";
    Ok(tx.execute(sql, params![product.to_string(), organization.as_str()]).await? > 0)
}

/// How many may go on with what the change of this number announced the end of.
pub async fn count_users(tx: &mut Tx, product: &Product, number: i64) -> Result<i64> {
    let sql = "SELECT COUNT(*) FROM offering_users WHERE product = $1 AND number = $2";
    let row = tx.fetch_one(sql, params![product.to_string(), number]).await?;
    row.reader().int()
}

/// Who is invited to a product now, the latest first.
pub async fn list_invitations(tx: &mut Tx, product: &Product) -> Result<Vec<Invitation>> {
    let sql = "SELECT organization_id, invited_by, invited_at FROM offering_invitations
         WHERE product = $1 AND withdrawn_at IS NULL ORDER BY invited_at DESC, organization_id LIMIT 1000";
    let invitation = |row: &Row| {
        let mut row = row.reader();
        Ok(Invitation { organization: row.parse()?, invited_by: row.string()?, invited_at: row.time()? })
    };
    tx.fetch_all(sql, params![product.to_string()]).await?.iter().map(invitation).collect()
}

/// Invites an organization; false if it is invited already.
pub async fn invite(tx: &mut Tx, product: &Product, invitation: &Invitation) -> Result<bool> {
    let (product, organization) = (product.to_string(), invitation.organization.as_str());
    let count = tx
        .fetch_one(
            "SELECT COUNT(*), COALESCE(SUM(CASE WHEN withdrawn_at IS NULL THEN 1 ELSE 0 END), 0)
             FROM offering_invitations WHERE product = $1 AND organization_id = $2",
            params![product.as_str(), organization],
        )
        .await?;
    let mut count = count.reader();
    let (earlier, open) = (count.int()?, count.int()?);
    if open > 0 {
        return Ok(false);
    }
    let of_product = "SELECT COUNT(*) FROM offering_invitations WHERE product = $1 AND withdrawn_at IS NULL";
    let of_organization = "SELECT COUNT(*) FROM offering_invitations WHERE organization_id = $1 AND withdrawn_at IS NULL";
    for (sql, value, most, what) in [
        (of_product, product.as_str(), INVITED_MAX, "organizations are invited to one product"),
        (of_organization, organization, INVITATIONS_MAX, "products are for one organization by invitation"),
    ] {
        if tx.fetch_one(sql, params![value]).await?.reader().int()? >= most {
            return Err(Error::new(ErrorCode::Conflict, format!("at most {most} {what}")));
        }
    }
    tx.execute(
        "INSERT INTO offering_invitations (product, organization_id, number, invited_by, invited_at) VALUES ($1, $2, $3, $4, $5)",
        params![product.as_str(), organization, earlier + 1, invitation.invited_by.as_str(), invitation.invited_at],
    )
    .await?;
    Ok(true)
}

/// Withdraws an invitation; false if there is none.
pub async fn withdraw(
    tx: &mut Tx,
    product: &Product,
    organization: &OrganizationId,
    (actor, now): (&str, Timestamp),
) -> Result<bool> {
    let withdrawn = tx
        .execute(
            "UPDATE offering_invitations SET withdrawn_by = $3, withdrawn_at = $4
             WHERE product = $1 AND organization_id = $2 AND withdrawn_at IS NULL",
            params![product.to_string(), organization.as_str(), actor, now],
        )
        .await?;
    Ok(withdrawn > 0)
}

/// What an organization may use that not everybody may.
pub async fn entitlements_of(tx: &mut Tx, organization: &OrganizationId) -> Result<Entitlements> {
    let products = |rows: Vec<Row>| rows.iter().map(|row| row.reader().parse()).collect::<Result<BTreeSet<Product>>>();
    let invited = "SELECT product FROM offering_invitations WHERE organization_id = $1 AND withdrawn_at IS NULL";
    let invited = products(tx.fetch_all(invited, params![organization.as_str()]).await?)?;
    let using = "SELECT users.product FROM offering_users users
         JOIN offerings one ON one.product = users.product AND one.users_of = users.number
         WHERE users.organization_id = $1
             AND one.number = (SELECT MAX(number) FROM offerings WHERE product = one.product)";
    let using = products(tx.fetch_all(using, params![organization.as_str()]).await?)?;
    Ok(Entitlements { invited, using })
}
