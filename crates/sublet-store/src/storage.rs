//! What projects keep, and what of it is metered.
//!
//! Invariants: an hour of a project is metered once for ever; what was deleted is known until its last hour is metered.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{FileId, OrganizationId, ProjectId, StorageHourId};
use sublet_core::{Bytes, Result, Timestamp};
use sublet_money::period::{Interval, PeriodKey};
use sublet_money::sku::Quantity;
use sublet_money::storage::{KeptBytes, hour_of, is_free};
use sublet_money::time_of_use::BandName;

use crate::charge;
use crate::database::Tx;
use crate::params;
use crate::row::{Row, Value};

/// Most files or hours that are read at once.
const ROWS_MAX: i64 = 1_000;
const HOUR_MICROS: i64 = 3_600_000_000;

/// Up to where it is metered what a project keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageMeter {
    pub project: ProjectId,
    pub organization: OrganizationId,
    /// A full hour.
    pub metered_until: Timestamp,
}

/// A file that is no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndedFile {
    pub id: FileId,
    pub project: ProjectId,
    pub bytes: Bytes,
    pub created_at: Timestamp,
    pub ended_at: Timestamp,
}

/// A part of an hour, and what was kept in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoragePart {
    pub id: StorageHourId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub hour: Timestamp,
    /// Counted from 0.
    pub part: i64,
    pub starts_at: Timestamp,
    pub period: PeriodKey,
    pub byte_hours: Quantity,
    /// The list whose price it has; `None` if it has none.
    pub price_version: Option<PriceVersion>,
    pub band: Option<BandName>,
}

/// Begins to meter what a project keeps, if nobody did. It reads the mark first: an insert that finds one is no read of it, and
/// a transaction that forgets it at the same time would go unnoticed.
pub async fn begin(tx: &mut Tx, (organization, project): (&OrganizationId, &ProjectId), from: Timestamp) -> Result<()> {
    if find_meter(tx, project).await?.is_some() {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO storage_meters (project_id, organization_id, metered_until) VALUES ($1, $2, $3)
         ON CONFLICT (project_id) DO NOTHING",
        params![project.as_str(), organization.as_str(), hour_of(from)],
    )
    .await?;
    Ok(())
}

/// Whether a project keeps files that nobody meters.
pub async fn is_any_unmetered(tx: &mut Tx) -> Result<bool> {
    let sql = "SELECT 1 FROM files WHERE NOT EXISTS (SELECT 1 FROM storage_meters WHERE storage_meters.project_id = files.project_id) LIMIT 1";
    Ok(tx.fetch_optional(sql, params![]).await?.is_some())
}

/// Begins to meter every project that keeps files, if nobody did: from the oldest of them on, but not from before an instant.
pub async fn begin_all(tx: &mut Tx, from: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO storage_meters (project_id, organization_id, metered_until)
         SELECT project_id, organization_id, CASE WHEN MIN(created_at) < $1 THEN $1 ELSE MIN(created_at) - MIN(created_at) % $2 END
         FROM files WHERE NOT EXISTS (SELECT 1 FROM storage_meters WHERE storage_meters.project_id = files.project_id)
         GROUP BY project_id, organization_id
         ON CONFLICT (project_id) DO NOTHING",
        params![hour_of(from), HOUR_MICROS],
    )
    .await?;
    Ok(())
}

fn meter(row: &Row) -> Result<StorageMeter> {
    let mut row = row.reader();
    Ok(StorageMeter { project: row.parse()?, organization: row.parse()?, metered_until: row.time()? })
}

/// How far it is metered what a project keeps; `None` if it keeps nothing.
pub async fn find_meter(tx: &mut Tx, project: &ProjectId) -> Result<Option<StorageMeter>> {
    let sql = "SELECT project_id, organization_id, metered_until FROM storage_meters WHERE project_id = $1";
    tx.fetch_optional(sql, params![project.as_str()]).await?.as_ref().map(meter).transpose()
}

/// Projects of which an hour before an instant is not metered: those behind an id, in the order of ids.
pub async fn due(tx: &mut Tx, until: Timestamp, after: Option<&ProjectId>, limit: i64) -> Result<Vec<ProjectId>> {
    let rows = tx
        .fetch_all(
            "SELECT project_id FROM storage_meters WHERE metered_until < $1 AND project_id > $2 ORDER BY project_id LIMIT $3",
            params![until, after.map_or("", ProjectId::as_str), limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// Whether something before an instant is not metered of an organization.
pub async fn is_behind(tx: &mut Tx, organization: &OrganizationId, until: Timestamp) -> Result<bool> {
    let sql = "SELECT 1 FROM storage_meters WHERE organization_id = $1 AND metered_until < $2 LIMIT 1";
    Ok(tx.fetch_optional(sql, params![organization.as_str(), until]).await?.is_some())
}

/// Notes that it is metered up to an hour what a project keeps. False if somebody else did meanwhile.
pub async fn move_on(tx: &mut Tx, meter: &StorageMeter, until: Timestamp) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE storage_meters SET metered_until = $3 WHERE project_id = $1 AND metered_until = $2",
            params![meter.project.as_str(), meter.metered_until, until],
        )
        .await?;
    Ok(changed == 1)
}

/// Forgets files whose last hour is metered, and the mark of a project that keeps nothing.
pub async fn forget(tx: &mut Tx, project: &ProjectId, until: Timestamp) -> Result<()> {
    let sql = "DELETE FROM ended_files WHERE project_id = $1 AND ended_at <= $2";
    tx.execute(sql, params![project.as_str(), until]).await?;
    let sql = "DELETE FROM storage_meters WHERE project_id = $1 AND NOT EXISTS (SELECT 1 FROM files WHERE files.project_id = $1)
             AND NOT EXISTS (SELECT 1 FROM ended_files WHERE ended_files.project_id = $1)";
    tx.execute(sql, params![project.as_str()]).await?;
    Ok(())
}

/// Keeps in mind what a file that is deleted in this transaction was. One that costs nothing is forgotten.
pub async fn end(tx: &mut Tx, ended: &EndedFile) -> Result<()> {
    if is_free(Interval { starts_at: ended.created_at, ends_at: ended.ended_at }) {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO ended_files (id, project_id, bytes, created_at, ended_at) VALUES ($1, $2, $3, $4, $5)",
        params![ended.id.as_str(), ended.project.as_str(), ended.bytes.get(), ended.created_at, ended.ended_at],
    )
    .await?;
    Ok(())
}

/// What a project keeps all through an interval.
pub async fn kept_throughout(tx: &mut Tx, project: &ProjectId, within: Interval) -> Result<KeptBytes> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM files
             WHERE project_id = $1 AND created_at <= $2 AND (expires_at IS NULL OR expires_at >= $3)",
            params![project.as_str(), within.starts_at, within.ends_at],
        )
        .await?;
    Ok(KeptBytes { bytes: Bytes::new(row.reader().int()?), interval: within })
}

/// Up to where files were read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeptCursor(String);

/// The next files that a project kept in a part of an interval only; none after the last.
pub async fn kept_partly(tx: &mut Tx, project: &ProjectId, within: Interval, cursor: &mut KeptCursor) -> Result<Vec<KeptBytes>> {
    let rows = tx
        .fetch_all(
            "SELECT id, bytes, created_at, expires_at FROM files
             WHERE project_id = $1 AND created_at < $3 AND (expires_at IS NULL OR expires_at > $2)
                 AND (created_at > $2 OR expires_at < $3) AND id > $4
             UNION ALL SELECT id, bytes, created_at, ended_at FROM ended_files
             WHERE project_id = $1 AND created_at < $3 AND ended_at > $2 AND id > $4 ORDER BY id LIMIT $5",
            params![project.as_str(), within.starts_at, within.ends_at, cursor.0.as_str(), ROWS_MAX],
        )
        .await?;
    let mut kept = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        cursor.0 = row.string()?;
        let (bytes, starts_at) = (Bytes::new(row.int()?), row.time()?);
        let ends_at = row.optional_time()?.unwrap_or(within.ends_at);
        kept.push(KeptBytes { bytes, interval: Interval { starts_at, ends_at } });
    }
    Ok(kept)
}

/// Whether an hour of a project is metered.
pub async fn is_metered(tx: &mut Tx, project: &ProjectId, hour: Timestamp) -> Result<bool> {
    let sql = "SELECT 1 FROM storage_hours WHERE project_id = $1 AND hour = $2 LIMIT 1";
    Ok(tx.fetch_optional(sql, params![project.as_str(), hour]).await?.is_some())
}

pub async fn insert(tx: &mut Tx, part: &StoragePart) -> Result<()> {
    tx.execute(
        "INSERT INTO storage_hours (project_id, hour, part, id, organization_id, starts_at, period, byte_hours, price_version, band)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            part.project.as_str(),
            part.hour,
            part.part,
            part.id.as_str(),
            part.organization.as_str(),
            part.starts_at,
            part.period.to_string(),
            part.byte_hours.get(),
            part.price_version.as_ref().map_or_else(String::new, |version| version.0.to_string()),
            part.band.as_ref().map_or_else(String::new, ToString::to_string)
        ],
    )
    .await?;
    Ok(())
}

macro_rules! select_parts {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, project_id, hour, part, starts_at, period, byte_hours, price_version, band FROM storage_hours ",
            $rest
        )
    };
}

fn part(row: &Row) -> Result<StoragePart> {
    let mut row = row.reader();
    Ok(StoragePart {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        hour: row.time()?,
        part: row.int()?,
        starts_at: row.time()?,
        period: row.parse()?,
        byte_hours: Quantity::new(row.int()?)?,
        price_version: Some(row.text()?).filter(|version| !version.is_empty()).map(|version| PriceVersion(version.into())),
        band: charge::band(row.text()?)?,
    })
}

/// Up to where a month was read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StorageCursor(Option<(ProjectId, Timestamp, i64)>);

/// The next that an organization kept in a month, charged or not; none after the last.
pub async fn list_month(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    cursor: &mut StorageCursor,
) -> Result<Vec<StoragePart>> {
    let (project, hour, number) = match &cursor.0 {
        Some((project, hour, number)) => (project.as_str(), *hour, *number),
        None => ("", Timestamp::EPOCH, -1),
    };
    let rows = tx
        .fetch_all(
            select_parts!(
                "WHERE organization_id = $1 AND period = $2 AND (project_id > $3 OR (project_id = $3 AND (hour > $4
                     OR (hour = $4 AND part > $5)))) ORDER BY project_id, hour, part LIMIT $6"
            ),
            params![organization.as_str(), period.to_string(), project, hour, number, ROWS_MAX],
        )
        .await?;
    let parts: Vec<StoragePart> = rows.iter().map(part).collect::<Result<_>>()?;
    if let Some(last) = parts.last() {
        cursor.0 = Some((last.project.clone(), last.hour, last.part));
    }
    Ok(parts)
}

/// The parts of these hours.
pub(crate) async fn parts_of(tx: &mut Tx, hours: &[&str]) -> Result<Vec<StoragePart>> {
    let hours: Vec<Value<'_>> = hours.iter().map(|id| (*id).into()).collect();
    let rows = tx.fetch_listed(select_parts!("WHERE id IN "), &hours).await?;
    rows.iter().map(part).collect()
}
