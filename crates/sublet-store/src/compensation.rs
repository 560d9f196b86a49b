//! Credit for promises that were not kept, and its evidence: what leases were told of their end, and what was metered and
//! charged at it.

use serde_json::{Map, Value};
use sublet_core::id::{CompensationId, CreditGrantId, LeaseId, OrganizationId};
use sublet_core::lease::EndReason;
use sublet_core::{Currency, Error, Nanos, Result, Scope, Timestamp};
use sublet_money::compensation::Metered;
use sublet_money::sku::{Quantity, SkuFamily};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::top_up::stored_as_text;
use crate::{list_sql, params};

/// Charges that one look at a lease's newest reads.
const CHARGES_AT_ONCE: i64 = 1_000;

stored_as_text! {
    /// What it is given for.
    CompensationKind {
        /// A lease was taken back without the notice it was sold.
        Reclaim = "reclaim",
        /// A level of service was missed.
        Sla = "sla",
        /// Its holder left before the deadline that it was told.
        Early = "early",
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredCompensation {
    pub id: CompensationId,
    pub organization: OrganizationId,
    pub kind: CompensationKind,
    /// A lease, a job, or an invoice.
    pub subject: String,
    /// Of an invoice, which of its charges; all if `None`.
    pub family: Option<SkuFamily>,
    /// Of an invoice, how much of them.
    pub share_ppm: u32,
    pub amount: Nanos,
    pub currency: Currency,
    /// What happened, and how the amount follows from it.
    pub evidence: Map<String, Value>,
    pub note: String,
    pub grant: CreditGrantId,
    pub created_by: String,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<StoredCompensation> {
    let mut row = row.reader();
    Ok(StoredCompensation {
        id: row.parse()?,
        organization: row.parse()?,
        kind: row.parse()?,
        subject: row.string()?,
        family: family(row.text()?)?,
        share_ppm: u32::try_from(row.int()?).map_err(|_| Error::internal("a stored share is out of range"))?,
        amount: row.nanos()?,
        currency: row.parse()?,
        evidence: row.json()?,
        note: row.string()?,
        grant: row.parse()?,
        created_by: row.string()?,
        created_at: row.time()?,
    })
}

fn family(stored: &str) -> Result<Option<SkuFamily>> {
    if stored.is_empty() {
        return Ok(None);
    }
    let known = SkuFamily::ALL.into_iter().find(|known| known.as_str() == stored);
    known.map(Some).ok_or_else(|| Error::internal(format!("'{stored}' is no family of skus")))
}

/// Inserts it; false if the lease got one of the kind before.
pub async fn insert(tx: &mut Tx, new: &StoredCompensation) -> Result<bool> {
    let inserted = tx
        .execute(
            "INSERT INTO compensations (id, organization_id, kind, subject, family, share_ppm, amount, currency, evidence, note, grant_id,
                 created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING",
            params![
                new.id.as_str(),
                new.organization.as_str(),
                new.kind.as_str(),
                new.subject.as_str(),
                new.family.map_or("", SkuFamily::as_str),
                i64::from(new.share_ppm),
                new.amount,
                new.currency.as_str(),
                to_json(&new.evidence)?,
                new.note.as_str(),
                new.grant.as_str(),
                new.created_by.as_str(),
                new.created_at
            ],
        )
        .await?;
    Ok(inserted == 1)
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, kind, subject, family, share_ppm, amount, currency, evidence, note, grant_id, created_by, created_at
             FROM compensations ",
            $rest
        )
    };
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &CompensationId) -> Result<Option<StoredCompensation>> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    let found = row.as_ref().map(from_row).transpose()?;
    Ok(found.filter(|found| scope.organization().is_none_or(|own| *own == found.organization)))
}

/// Those of one account, or of all; newest or oldest first.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    organization: Option<&OrganizationId>,
    page: &PageRequest,
) -> Result<Page<StoredCompensation>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, kind, subject, family, share_ppm, amount, currency, evidence, note, grant_id, created_by, created_at
         FROM compensations WHERE ($1 = '' OR organization_id = $1)",
        "id",
        "2",
        "3"
    );
    let owner = scope.organization().or(organization).map_or("", OrganizationId::as_str);
    let rows = tx.fetch_all(sql, &[owner.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// What was given for one subject of an account. The caller bounds how many there are.
pub async fn list_of(tx: &mut Tx, organization: &OrganizationId, subject: &str, limit: i64) -> Result<Vec<StoredCompensation>> {
    let rows = tx
        .fetch_all(
            select!("WHERE organization_id = $1 AND subject = $2 ORDER BY id LIMIT $3"),
            params![organization.as_str(), subject, limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// What the holder of a lease was told of its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseNotice {
    pub told_at: Timestamp,
    pub reason: EndReason,
    pub deadline: Timestamp,
    /// Something ran on it then.
    pub is_busy: bool,
}

/// Keeps what the holder of a lease was told of its end.
pub async fn insert_notice(tx: &mut Tx, lease: &LeaseId, notice: &LeaseNotice) -> Result<()> {
    tx.execute(
        "INSERT INTO lease_notices (lease_id, told_at, reason, deadline, is_busy) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        params![lease.as_str(), notice.told_at, notice.reason.as_str(), notice.deadline, i64::from(notice.is_busy)],
    )
    .await?;
    Ok(())
}

/// What a lease was told, in the order in which it was. Each ends it sooner than the one before, so there are few.
pub async fn list_notices(tx: &mut Tx, scope: &Scope, lease: &LeaseId) -> Result<Vec<LeaseNotice>> {
    let owner = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx
        .fetch_all(
            "SELECT told_at, lease_notices.reason, lease_notices.deadline, is_busy
             FROM lease_notices JOIN leases ON leases.id = lease_id
             WHERE lease_id = $1 AND ($2 = '' OR organization_id = $2) ORDER BY told_at, lease_notices.deadline DESC LIMIT 100",
            params![lease.as_str(), owner],
        )
        .await?;
    let notice = |row: &Row| {
        let mut row = row.reader();
        Ok(LeaseNotice { told_at: row.time()?, reason: row.parse()?, deadline: row.time()?, is_busy: row.int()? == 1 })
    };
    rows.iter().map(notice).collect()
}

/// When a lease was last used. The caller has checked its scope.
pub async fn last_use(tx: &mut Tx, lease: &LeaseId) -> Result<Option<Timestamp>> {
    let row = tx.fetch_one("SELECT MAX(ended_at) FROM attempt_intervals WHERE lease_id = $1", params![lease.as_str()]).await?;
    row.reader().optional_time()
}

/// Device time of a lease from an instant on, over all its devices. The caller has checked its scope.
pub async fn time_used(tx: &mut Tx, lease: &LeaseId, from: Timestamp) -> Result<Quantity> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(ended_at - CASE WHEN started_at < $2 THEN $2 ELSE started_at END), 0) AS BIGINT)
             FROM attempt_intervals WHERE lease_id = $1 AND ended_at > $2 AND close_reason <> 'unpaid'",
            params![lease.as_str(), from],
        )
        .await?;
    Quantity::new(row.reader().int()? / 1_000)
}

/// The newest charges of a lease, the newest first, as many as are needed for so much device time.
pub async fn newest_charges(tx: &mut Tx, lease: &LeaseId, time: Quantity) -> Result<Vec<Metered>> {
    let (mut found, mut left, mut after) = (Vec::new(), time.get(), None::<(Timestamp, String)>);
    while left > 0 {
        let (before, id) = after.take().unwrap_or((Timestamp::from_micros(i64::MAX), String::new()));
        let rows = tx
            .fetch_all(
                "SELECT charges.quantity, charges.amount, charges.occurred_at, charges.id
                 FROM charges JOIN jobs ON jobs.id = charges.source
                 WHERE jobs.lease_id = $1 AND charges.sku LIKE 'device/%'
                     AND (charges.occurred_at < $2 OR (charges.occurred_at = $2 AND charges.id < $3))
                 ORDER BY charges.occurred_at DESC, charges.id DESC LIMIT $4",
                params![lease.as_str(), before, id.as_str(), CHARGES_AT_ONCE],
            )
            .await?;
        for row in &rows {
            let mut row = row.reader();
            let charge = Metered { quantity: Quantity::new(row.int()?)?, amount: row.nanos()? };
            left -= charge.quantity.get();
            found.push(charge);
            after = Some((row.time()?, row.string()?));
        }
        if i64::try_from(rows.len()).unwrap_or(0) < CHARGES_AT_ONCE {
            break;
        }
    }
    Ok(found)
}
