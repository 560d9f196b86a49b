//! Price indexes and their points: appended, never changed. They are public to every tenant.

use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_money::price_index::{IndexExcerpt, IndexName, IndexPoint, Level, POINTS_MAX};

use crate::database::Tx;
use crate::page::{Order, Page, PageRequest};
use crate::params;
use crate::row::{Row, RowReader};

/// Most indexes of a cloud.
pub const INDEXES_MAX: i64 = 100;

/// An index, with the point that was published last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredIndex {
    pub name: IndexName,
    pub lead: DurationMs,
    pub note: String,
    pub created_at: Timestamp,
    pub last: StoredPoint,
}

/// A point as it was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredPoint {
    /// Counts the points of the index from 1.
    pub number: i64,
    pub point: IndexPoint,
    pub hash: String,
}

fn point(row: &mut RowReader<'_>) -> Result<StoredPoint> {
    let (number, from_micros, level) = (row.int()?, row.time()?, row.int()?);
    let level = u32::try_from(level).map_err(|_| Error::internal("a level is out of range"))?;
    let point = IndexPoint { from_micros, level: Level::from_thousandths(level)?, published_at_micros: row.time()? };
    Ok(StoredPoint { number, point, hash: row.string()? })
}

fn index(row: &Row) -> Result<StoredIndex> {
    let mut row = row.reader();
    let (name, lead, note, created_at) = (row.parse()?, DurationMs::from_millis(row.int()?), row.string()?, row.time()?);
    Ok(StoredIndex { name, lead, note, created_at, last: point(&mut row)? })
}

/// Adds an index with its first point. False if there is one of this name.
pub async fn insert(tx: &mut Tx, index: &StoredIndex, by: &str) -> Result<bool> {
    let count = tx.fetch_one("SELECT COUNT(*) FROM price_indexes", &[]).await?.reader().int()?;
    if count >= INDEXES_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("a cloud has at most {INDEXES_MAX} price indexes")));
    }
    let added = tx
        .execute(
            "INSERT INTO price_indexes (name, lead_ms, note, created_by, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO NOTHING",
            params![index.name.as_str(), index.lead.millis(), index.note.as_str(), by, index.created_at],
        )
        .await?;
    if added == 0 {
        return Ok(false);
    }
    append(tx, &index.name, &index.last, by).await?;
    Ok(true)
}

/// Adds the next point.
pub async fn append(tx: &mut Tx, index: &IndexName, stored: &StoredPoint, by: &str) -> Result<()> {
    let IndexPoint { from_micros, level, published_at_micros } = stored.point;
    tx.execute(
        "INSERT INTO price_index_points (index_name, number, begins_at, level, published_at, hash, published_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            index.as_str(),
            stored.number,
            from_micros,
            i64::from(level.thousandths()),
            published_at_micros,
            stored.hash.as_str(),
            by
        ],
    )
    .await?;
    Ok(())
}

/// The columns of an index with its last point; every query of indexes reads them in this order.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT name, lead_ms, note, created_at, number, begins_at, level, published_at, hash
             FROM price_indexes JOIN price_index_points last ON index_name = name AND number =
                 (SELECT MAX(number) FROM price_index_points point WHERE point.index_name = name) ",
            $rest
        )
    };
}

pub async fn find(tx: &mut Tx, name: &IndexName) -> Result<Option<StoredIndex>> {
    tx.fetch_optional(select!("WHERE name = $1"), params![name.as_str()]).await?.as_ref().map(index).transpose()
}

pub async fn get(tx: &mut Tx, name: &IndexName) -> Result<StoredIndex> {
    find(tx, name).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no price index '{name}'")))
}

/// All, in the order of their names.
pub async fn list(tx: &mut Tx) -> Result<Vec<StoredIndex>> {
    tx.fetch_all(select!("ORDER BY name LIMIT $1"), params![INDEXES_MAX]).await?.iter().map(index).collect()
}

/// Points of an index; a cursor is the number of one.
pub async fn list_points(tx: &mut Tx, name: &IndexName, page: &PageRequest) -> Result<Page<StoredPoint>> {
    let sql = page.pick(
        "SELECT number, begins_at, level, published_at, hash FROM price_index_points WHERE index_name = $1 AND number > $2
         ORDER BY number ASC LIMIT $3",
        "SELECT number, begins_at, level, published_at, hash FROM price_index_points WHERE index_name = $1 AND number < $2
         ORDER BY number DESC LIMIT $3",
    );
    let after = match (&page.after, page.order) {
        (Some(number), _) => number.parse().map_err(|_| {
            Error::new(ErrorCode::InvalidRequest, "the cursor of a page of points is the number of one").param("after")
        })?,
        (None, Order::Ascending) => 0,
        (None, Order::Descending) => i64::MAX,
    };
    let rows = tx.fetch_all(sql, params![name.as_str(), after, page.limit() + 1]).await?;
    page.page(&rows, |row| point(&mut row.reader()))
}

/// The points that hold from an instant on and begin before another. What is before the first of all begins with it.
pub async fn excerpt(tx: &mut Tx, name: &IndexName, (since, until): (Timestamp, Timestamp)) -> Result<Option<IndexExcerpt>> {
    let Some(found) = find(tx, name).await? else { return Ok(None) };
    let limit = i64::try_from(POINTS_MAX).unwrap_or(i64::MAX);
    let rows = tx
        .fetch_all(
            "SELECT number, begins_at, level, published_at, hash FROM price_index_points
             WHERE index_name = $1 AND (begins_at < $3 OR number = 1) AND number >= COALESCE(
                 (SELECT MAX(number) FROM price_index_points WHERE index_name = $1 AND begins_at <= $2), 1)
             ORDER BY number LIMIT $4",
            params![name.as_str(), since, until, limit + 1],
        )
        .await?;
    if rows.len() > POINTS_MAX {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("more than {POINTS_MAX} points of '{name}' would be read")));
    }
    let points = rows.iter().map(|row| point(&mut row.reader())).collect::<Result<Vec<_>>>()?;
    let before = points.first().map_or(0, |first| first.number - 1);
    let previous = tx
        .fetch_optional("SELECT hash FROM price_index_points WHERE index_name = $1 AND number = $2", params![name.as_str(), before])
        .await?;
    let previous = previous.map(|row| row.reader().string()).transpose()?;
    let points = points.into_iter().map(|stored| stored.point).collect();
    Ok(Some(IndexExcerpt { index: name.clone(), lead_ms: found.lead, points, previous }))
}
