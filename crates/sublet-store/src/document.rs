//! Numbers of documents, without gaps: a number is given in the transaction that writes its document.

use sublet_core::{Error, Result, Timestamp};
use sublet_money::document::{DocumentKind, DocumentNumber, Series};

use crate::database::Tx;
use crate::params;

/// The next number of a kind, and when its document is issued: now, or with the one before it if a clock was set back
/// since. So numbers and days go the same way.
pub async fn next_number(tx: &mut Tx, kind: DocumentKind, now: Timestamp) -> Result<(DocumentNumber, Timestamp)> {
    let row = tx.fetch_one("SELECT MAX(issued_at) FROM document_series WHERE kind = $1", params![kind.prefix()]).await?;
    let issued_at = row.reader().optional_time()?.map_or(now, |last| last.max(now));
    let series = Series::at(kind, issued_at)?;
    let row = tx
        .fetch_one(
            "INSERT INTO document_series (kind, year, last, issued_at) VALUES ($1, $2, 1, $3)
             ON CONFLICT (kind, year) DO UPDATE SET last = document_series.last + 1, issued_at = excluded.issued_at RETURNING last",
            params![kind.prefix(), i64::from(series.year()), issued_at],
        )
        .await?;
    let last = row.reader().int()?;
    let last = u64::try_from(last).map_err(|_| Error::internal(format!("series {series} is at {last}")))?;
    Ok((series.number(last), issued_at))
}
