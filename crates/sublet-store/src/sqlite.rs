//! SQLite, in the calling thread. A statement takes microseconds and handing it to another thread takes longer, so
//! nothing is handed over; a commit, which waits for the disk, tells the runtime that it blocks.
//! Why: docs/decisions/0104-sqlite-in-the-calling-thread.md

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};
use sublet_core::{DurationMs, Error, ErrorCode, Result};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::database::{ACQUIRE_TIMEOUT, Access, RETRYABLE, STATEMENT_CACHE};
use crate::row::{Row, Value};

const READERS: usize = 4;
/// Pages of the file that the writing connection keeps in memory, in KiB: a commit changes many that are far apart.
const WRITER_CACHE_KIB: u32 = 16 * 1024;
const READER_CACHE_KIB: u32 = 2 * 1024;
/// Pages of the log after which it is written into the file. Pages that commits change again are written there once.
const CHECKPOINT_PAGES: u32 = 4_096;
/// What a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// One writing connection and a few that read.
#[derive(Clone)]
pub struct Sqlite {
    writer: Arc<Lane>,
    readers: Arc<Lane>,
}

/// Connections for one purpose: as many as there are permits, opened when first needed.
struct Lane {
    path: PathBuf,
    size: usize,
    cache_kib: u32,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<Connection>>,
}

impl Lane {
    fn new(path: &Path, size: usize, cache_kib: u32) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(size));
        Arc::new(Self { path: path.to_owned(), size, cache_kib, permits, free: Mutex::default() })
    }

    fn connect(&self) -> Result<Connection> {
        let connection = blocking(|| Connection::open(&self.path)).map_err(failure)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failure)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        // Otherwise the planner looks at the value of a LIMIT, and plans anew whenever one is given.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failure)?;
        // What is deleted is content at times: it is overwritten, not only unlinked.
        let settings = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;
             PRAGMA cache_size = -{}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};",
            self.cache_kib
        );
        blocking(|| connection.execute_batch(&settings)).map_err(failure)?;
        Ok(connection)
    }

    fn take(&self) -> Option<Connection> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, connection: Connection) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    async fn close(&self) {
        let all = u32::try_from(self.size).unwrap_or(u32::MAX);
        // An error says that it was closed before.
        let Ok(_every_permit) = self.permits.acquire_many(all).await else { return };
        self.permits.close();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Sqlite {
    /// Opens the file, which is made if it is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let writer = Lane::new(path, 1, WRITER_CACHE_KIB);
        writer.give_back(writer.connect()?);
        Ok(Self { writer, readers: Lane::new(path, READERS, READER_CACHE_KIB) })
    }

    pub async fn begin(&self, access: Access) -> Result<SqliteTx> {
        let (lane, begin) = match access {
            Access::Write => (&self.writer, "BEGIN IMMEDIATE"),
            Access::Read => (&self.readers, "BEGIN DEFERRED"),
        };
        let permit = tokio::time::timeout(ACQUIRE_TIMEOUT, Arc::clone(&lane.permits).acquire_owned());
        let permit = permit.await.map_err(|_| unavailable("no connection became free"))?;
        let permit = permit.map_err(|_| unavailable("the database is closed"))?;
        let connection = lane.take().map_or_else(|| lane.connect(), Ok)?;
        let tx = SqliteTx { connection: Some(connection), lane: Arc::clone(lane), access, _permit: permit };
        match access {
            Access::Write => blocking(|| tx.script(begin))?,
            Access::Read => tx.script(begin)?,
        }
        Ok(tx)
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Tells the runtime that this thread will wait: for the disk, or for another process.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A transaction. Dropping it rolls it back.
pub struct SqliteTx {
    /// Present until it is dropped.
    connection: Option<Connection>,
    lane: Arc<Lane>,
    access: Access,
    _permit: OwnedSemaphorePermit,
}

impl SqliteTx {
    fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| Error::internal("a transaction without a connection"))
    }

    /// Runs a statement and says how many rows it changed.
    pub fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        self.each_row(sql, params, |_| Ok(()))?;
        Ok(self.connection()?.changes())
    }

    /// Runs a statement for each row of parameters, planned once, and says how many rows were changed.
    pub fn execute_each(&self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<u64> {
        let before = self.connection()?.total_changes();
        self.each_row_of(sql, rows.iter().map(Vec::as_slice), |_| Ok(()))?;
        Ok(self.connection()?.total_changes() - before)
    }

    pub async fn fetch_all(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.fetch_each(sql, params, |columns| {
            rows.push(Row(columns.into_iter().map(Value::into_owned).collect()));
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Hands each row to `take` as it lies in SQLite's memory.
    pub async fn fetch_each(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        take: impl FnMut(Vec<Value<'_>>) -> Result<()>,
    ) -> Result<()> {
        self.each_row(sql, params, take)?;
        if matches!(self.access, Access::Read) {
            // Long readings let others have their turn. A writer does not, so that it is soon done.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    pub fn script(&self, sql: &str) -> Result<()> {
        self.connection()?.execute_batch(sql).map_err(failure)
    }

    pub fn commit(self) -> Result<()> {
        blocking(|| self.script("COMMIT"))
    }

    fn each_row(&self, sql: &str, params: &[Value<'_>], take: impl FnMut(Vec<Value<'_>>) -> Result<()>) -> Result<()> {
        self.each_row_of(sql, std::iter::once(params), take)
    }

    /// Runs a statement for each of several lists of parameters, planned once.
    pub fn each_row_of<'p>(
        &self,
        sql: &str,
        lists: impl Iterator<Item = &'p [Value<'p>]>,
        mut take: impl FnMut(Vec<Value<'_>>) -> Result<()>,
    ) -> Result<()> {
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(sql).map_err(failure)?;
        // SQLite numbers `$7` by its first place in the text, not by its name.
        let place = |index| {
            let number = statement.parameter_name(index).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
            number.and_then(|number| number.checked_sub(1)).ok_or_else(|| Error::internal(format!("parameter {index} of {sql}")))
        };
        let places: Vec<_> = (1..=statement.parameter_count()).map(place).collect::<Result<_>>()?;
        let columns = statement.column_count();
        for params in lists {
            if connection.is_autocommit() {
                // A full disk, say: what came now would be committed by itself.
                return Err(unavailable("SQLite has ended the transaction"));
            }
            for (index, place) in (1..).zip(&places) {
                let param = params.get(*place);
                let param = param.ok_or_else(|| Error::internal(format!("parameter {index} is not given: {sql}")))?;
                statement.raw_bind_parameter(index, to_sql(param)).map_err(failure)?;
            }
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().map_err(failure)? {
                let values = (0..columns).map(|index| from_sql(index, row.get_ref(index).map_err(failure)?));
                take(values.collect::<Result<_>>()?)?;
            }
        }
        Ok(())
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // A full disk makes SQLite end a transaction by itself.
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        if connection.is_autocommit() {
            self.lane.give_back(connection);
        }
    }
}

fn to_sql<'v>(value: &'v Value<'_>) -> rusqlite::types::ToSqlOutput<'v> {
    let value = match value {
        Value::Int(value) => value.map_or(ValueRef::Null, ValueRef::Integer),
        Value::Text(value) => value.as_ref().map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes())),
        Value::Bytes(value) => value.as_ref().map_or(ValueRef::Null, |bytes| ValueRef::Blob(bytes)),
    };
    rusqlite::types::ToSqlOutput::Borrowed(value)
}

fn from_sql(index: usize, value: ValueRef<'_>) -> Result<Value<'_>> {
    match value {
        ValueRef::Null => Ok(Value::Int(None)),
        ValueRef::Integer(value) => Ok(Value::Int(Some(value))),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::from(text)),
            Err(_) => Err(Error::internal(format!("column {index} is not UTF-8"))),
        },
        ValueRef::Blob(bytes) => Ok(Value::from(bytes)),
        ValueRef::Real(_) => Err(Error::internal(format!("column {index} has the unexpected type REAL"))),
    }
}

fn unavailable(context: &str) -> Error {
    Error::new(ErrorCode::StoreUnavailable, "the database cannot be reached")
        .retry_after(DurationMs::from_seconds(2))
        .context(context)
}

/// Turns the driver's error into ours. The driver's text is private context.
fn failure(error: rusqlite::Error) -> Error {
    let text = error.to_string();
    let Some(cause) = error.sqlite_error() else { return Error::internal(text) };
    if matches!(cause.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) {
        return Error::new(ErrorCode::Conflict, "an object with this identity exists already").context(text);
    }
    match cause.code {
        ffi::ErrorCode::DatabaseBusy | ffi::ErrorCode::DatabaseLocked => {
            Error::new(ErrorCode::StoreUnavailable, "the database is too busy")
                .retry_after(DurationMs::from_seconds(1))
                .context(text)
                .context(RETRYABLE)
        }
        ffi::ErrorCode::DiskFull => Error::new(ErrorCode::StorageFull, "the disk of the database is full").context(text),
        ffi::ErrorCode::SystemIoFailure if text.contains("disk is full") => {
            Error::new(ErrorCode::StorageFull, "the disk of the database is full").context(text)
        }
        ffi::ErrorCode::SystemIoFailure => unavailable(&text),
        _ => Error::internal(text),
    }
}
