//! Downloads that are paid for: contents of files on their way to whoever fetches them, and what of them was sent.
//!
//! Invariants: a download has an open hold of its own while it is open, but for those of suspended accounts; it ends once.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{DownloadId, FileId, KeyId, OrganizationId, ProjectId};
use sublet_core::{Bytes, Result, Timestamp};

use crate::database::Tx;
use crate::file::File;
use crate::params;
use crate::row::{Row, Value};

/// A content of a file that somebody fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Download {
    pub id: DownloadId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub key: Option<KeyId>,
    pub file: FileId,
    /// The list in force when it began.
    pub price_version: PriceVersion,
    pub opened_at: Timestamp,
    /// What was sent; nothing while it is open.
    pub bytes: Bytes,
}

/// How a download ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DownloadEnd {
    /// So many bytes were handed to the connection.
    Sent(Bytes),
    /// Nobody knows how many were.
    Lost,
}

impl DownloadEnd {
    const fn parts(self) -> (&'static str, Bytes) {
        match self {
            Self::Sent(bytes) => ("sent", bytes),
            Self::Lost => ("lost", Bytes::ZERO),
        }
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT id, organization_id, project_id, key_id, file_id, price_version, opened_at, bytes FROM downloads ", $rest)
    };
}

fn from_row(row: &Row) -> Result<Download> {
    let mut row = row.reader();
    Ok(Download {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        key: row.optional_parse()?,
        file: row.parse()?,
        price_version: PriceVersion(row.text()?.into()),
        opened_at: row.time()?,
        bytes: Bytes::new(row.int()?),
    })
}

pub async fn insert(tx: &mut Tx, download: &Download) -> Result<()> {
    tx.execute(
        "INSERT INTO downloads (id, organization_id, project_id, key_id, file_id, price_version, state, bytes, opened_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, $8)",
        params![
            download.id.as_str(),
            download.organization.as_str(),
            download.project.as_str(),
            download.key.as_ref().map(KeyId::as_str),
            download.file.as_str(),
            download.price_version.0.to_string(),
            download.bytes.get(),
            download.opened_at
        ],
    )
    .await?;
    Ok(())
}

/// Ends an open download and says what it was; `None` if it had ended before.
pub async fn end(tx: &mut Tx, id: &DownloadId, end: DownloadEnd, now: Timestamp) -> Result<Option<Download>> {
    let (state, bytes) = end.parts();
    let changed = tx
        .execute(
            "UPDATE downloads SET state = $2, bytes = $3, ended_at = $4 WHERE id = $1 AND state = 'open'",
            params![id.as_str(), state, bytes.get(), now],
        )
        .await?;
    if changed == 0 {
        return Ok(None);
    }
    let row = tx.fetch_one(select!("WHERE id = $1"), params![id.as_str()]).await?;
    from_row(&row).map(Some)
}

/// The bytes of a file that were sent since an instant, with all of it for each download that is open, or lost.
pub async fn bytes_since(tx: &mut Tx, file: &File, since: Timestamp) -> Result<Bytes> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(CASE WHEN state IN ('open', 'lost') THEN CAST($3 AS BIGINT) ELSE bytes END), 0) AS BIGINT)
             FROM downloads WHERE file_id = $1 AND opened_at >= $2",
            params![file.id.as_str(), since, file.bytes.get()],
        )
        .await?;
    Ok(Bytes::new(row.reader().int()?))
}

/// Downloads that are open since before an instant, over all tenants.
pub async fn open_since(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<Vec<DownloadId>> {
    let sql = "SELECT id FROM downloads WHERE state = 'open' AND opened_at < $1 ORDER BY opened_at LIMIT $2";
    let rows = tx.fetch_all(sql, params![before, limit]).await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// Those that were sent, of these.
pub(crate) async fn all_of(tx: &mut Tx, ids: &[&str]) -> Result<Vec<Download>> {
    let ids: Vec<Value<'_>> = ids.iter().map(|id| (*id).into()).collect();
    let rows = tx.fetch_listed(select!("WHERE state = 'sent' AND id IN "), &ids).await?;
    rows.iter().map(from_row).collect()
}
