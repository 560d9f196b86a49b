//! The two engines behind one face: connections, transactions, statements.
//!
//! SQLite: WAL, `synchronous=FULL`, one writing connection with `BEGIN IMMEDIATE`, a few
//! readers. PostgreSQL: SERIALIZABLE for writes, REPEATABLE READ for reads. Writes that fail
//! with a serialization failure or a deadlock are run again, up to [`WRITE_ATTEMPTS_MAX`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Column, Executor, Postgres, Row as _, SqlSafeStr, Transaction, TypeInfo};
use sublet_core::{BoxFuture, DurationMs, Error, ErrorCode, Result, Timestamp};

use crate::migration;
use crate::row::{Row, RowReader, Value};
use crate::sqlite::{Sqlite, SqliteTx};

/// How often one write is tried before its serialization failure is reported.
pub const WRITE_ATTEMPTS_MAX: u32 = 40;
const RETRY_BASE_MS: u64 = 1;
const RETRY_CEILING_MS: u64 = 64;
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a transaction waits for a connection. A server that is away refuses connections, and is asked again and
/// again that long: it is also how late somebody hears that.
const POSTGRES_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const STATEMENT_CACHE: usize = 256;

/// How long the writes that run may take to end before somebody who waits for them gives up.
const EARLIER_WRITES_WAIT: &str = "SET LOCAL statement_timeout = '10s'";

/// Where the data is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreConfig {
    /// One file; created if missing.
    Sqlite(PathBuf),
    /// A connection URL, `postgres://user@host/database`.
    Postgres(String),
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    transactions: AtomicU64,
    repetitions: AtomicU64,
    attempts_max: AtomicU64,
}

/// What this process asked of the database since its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreFigures {
    /// Transactions begun, repetitions included.
    pub transactions: u64,
    /// Writes begun again after a serialization failure or a deadlock.
    pub repetitions: u64,
    /// Attempts of the write that was begun most often, of [`WRITE_ATTEMPTS_MAX`].
    pub attempts_max: u64,
}

#[derive(Clone)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(PgPool),
}

/// A transaction on either engine.
pub struct Tx(Engine);

enum Engine {
    Sqlite(SqliteTx),
    Postgres(Transaction<'static, Postgres>),
}

impl Store {
    /// Connects and brings the schema up to date. A newer schema is refused unchanged.
    pub async fn open(config: &StoreConfig) -> Result<Self> {
        Self::open_as_of(config, migration::SCHEMA_VERSION).await
    }

    /// As a program did that knew no later version of the schema: to see that what it wrote is understood.
    #[doc(hidden)]
    pub async fn open_as_of(config: &StoreConfig, version: i64) -> Result<Self> {
        let backend = match config {
            StoreConfig::Sqlite(path) => Backend::Sqlite(Sqlite::open(path)?),
            StoreConfig::Postgres(url) => open_postgres(url).await?,
        };
        let store = Self { backend, counts: Arc::default() };
        migration::apply(&store, version).await?;
        Ok(store)
    }

    /// Runs `work` in one writing transaction, again if the engine asks for it.
    ///
    /// `work` must touch nothing outside the transaction. `context` is lent to every attempt.
    pub async fn write<C, T, F>(&self, context: C, work: F) -> Result<T>
    where
        C: Sync,
        F: for<'t> Fn(&'t C, &'t mut Tx) -> BoxFuture<'t, Result<T>>,
    {
        let mut attempt = 1;
        loop {
            let outcome = self.write_once(&context, &work).await;
            match outcome {
                Err(error) if is_retryable(&error) && attempt < WRITE_ATTEMPTS_MAX => {
                    let backoff = RETRY_BASE_MS.saturating_mul(1 << attempt.min(6)).min(RETRY_CEILING_MS);
                    tokio::time::sleep(Duration::from_millis(backoff)).await;
                    attempt += 1;
                    self.counts.repetitions.fetch_add(1, Ordering::Relaxed);
                    self.counts.attempts_max.fetch_max(u64::from(attempt), Ordering::Relaxed);
                }
                other => return other,
            }
        }
    }

    async fn write_once<C, T, F>(&self, context: &C, work: &F) -> Result<T>
    where
        F: for<'t> Fn(&'t C, &'t mut Tx) -> BoxFuture<'t, Result<T>>,
    {
        let mut tx = self.begin(Access::Write).await?;
        match work(context, &mut tx).await {
            Ok(value) => {
                tx.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // The reason of the failure matters more than a failed roll-back, which dropping does anyway.
                tx.rollback().await.ok();
                Err(error)
            }
        }
    }

    /// Runs `work` on one consistent snapshot.
    pub async fn read<C, T, F>(&self, context: C, work: F) -> Result<T>
    where
        C: Sync,
        F: for<'t> FnOnce(&'t C, &'t mut Tx) -> BoxFuture<'t, Result<T>>,
    {
        let mut tx = self.begin(Access::Read).await?;
        let value = work(&context, &mut tx).await;
        tx.rollback().await.ok();
        value
    }

    /// Waits until every write that began before has ended.
    ///
    /// A write that did not see what another did counts as earlier, and may be committed later. Whoever adds up what a
    /// write closed waits for those first. An error if it takes too long: some write hangs.
    pub async fn earlier_writes_ended(&self) -> Result<()> {
        // On SQLite one write comes after the other.
        let Backend::Postgres(pool) = &self.backend else { return Ok(()) };
        // Such a snapshot is given once no running write can have anything to say about it any more.
        let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE";
        let mut tx = Tx(Engine::Postgres(begin_postgres(pool, begin).await?));
        tx.execute(EARLIER_WRITES_WAIT, &[]).await?;
        tx.fetch_all("SELECT 1", &[]).await?;
        tx.rollback().await
    }

    /// A cheap round trip: is the database there?
    pub async fn ping(&self) -> Result<()> {
        self.read((), |(), tx| Box::pin(async move { tx.fetch_all("SELECT 1", &[]).await.map(|_| ()) })).await
    }

    /// The clock that all processes on this database share; `None` on SQLite, where there is only one process.
    pub async fn now(&self) -> Result<Option<Timestamp>> {
        if let Backend::Sqlite(_) = &self.backend {
            return Ok(None);
        }
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";
        self.read((), |(), tx| Box::pin(async move { tx.fetch_one(sql, &[]).await?.reader().time() })).await.map(Some)
    }

    pub fn figures(&self) -> StoreFigures {
        let Counts { transactions, repetitions, attempts_max } = &*self.counts;
        let [transactions, repetitions, attempts_max] =
            [transactions, repetitions, attempts_max].map(|count| count.load(Ordering::Relaxed));
        StoreFigures { transactions, repetitions, attempts_max }
    }

    /// Waits until all connections are closed.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.close().await,
            Backend::Postgres(pool) => pool.close().await,
        }
    }

    /// What the engine is called in records and metrics.
    pub fn engine_name(&self) -> &'static str {
        match &self.backend {
            Backend::Sqlite(_) => "sqlite",
            Backend::Postgres(_) => "postgresql",
        }
    }

    async fn begin(&self, access: Access) -> Result<Tx> {
        self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        let engine = match (&self.backend, access) {
            (Backend::Sqlite(sqlite), access) => Engine::Sqlite(sqlite.begin(access).await?),
            (Backend::Postgres(pool), Access::Write) => {
                Engine::Postgres(begin_postgres(pool, "BEGIN ISOLATION LEVEL SERIALIZABLE").await?)
            }
            (Backend::Postgres(pool), Access::Read) => {
                Engine::Postgres(begin_postgres(pool, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        };
        Ok(Tx(engine))
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Begins a transaction in a task of its own: a caller that is dropped meanwhile would give back a connection whose
/// transaction is open, and the next one would find itself in it, though it is read only.
async fn begin_postgres(pool: &PgPool, begin: &'static str) -> Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(begin).await }).await;
    begun.map_err(|error| Error::internal(format!("a transaction could not begin: {error}")))?.map_err(failure)
}

async fn open_postgres(url: &str) -> Result<Backend> {
    let options: PgConnectOptions = url.parse().map_err(|_| {
        Error::new(ErrorCode::Usage, "the database URL is not understood")
            .alternative("write it as postgres://user:password@host:5432/database")
    })?;
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(POSTGRES_ACQUIRE_TIMEOUT)
        .connect_with(options.statement_cache_capacity(STATEMENT_CACHE))
        .await
        .map_err(failure)?;
    Ok(Backend::Postgres(pool))
}

impl Tx {
    /// Runs a statement and says how many rows it changed.
    pub async fn execute(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        self.execute_text(sql, params).await
    }

    /// Runs a query and returns all its rows: the statement itself must bound them.
    pub async fn fetch_all(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        self.fetch_text(sql, params).await
    }

    /// Hands each row of a query to `take`, which copies what it needs of it: for readings of many rows.
    pub async fn fetch_each(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        mut take: impl FnMut(RowReader<'_>) -> Result<()>,
    ) -> Result<()> {
        match &mut self.0 {
            Engine::Sqlite(tx) => tx.fetch_each(sql, params, |columns| take(RowReader::of(&columns))).await,
            Engine::Postgres(tx) => {
                let rows = sqlx::query_with(sql, postgres_arguments(params)?).fetch_all(&mut **tx).await.map_err(failure)?;
                rows.iter().try_for_each(|row| take(RowReader::of(&postgres_columns(row)?)))
            }
        }
    }

    async fn fetch_text(&mut self, sql: impl SqlSafeStr, params: &[Value<'_>]) -> Result<Vec<Row>> {
        match &mut self.0 {
            Engine::Sqlite(tx) => tx.fetch_all(sql.into_sql_str().as_str(), params).await,
            Engine::Postgres(tx) => {
                let rows = sqlx::query_with(sql, postgres_arguments(params)?).fetch_all(&mut **tx).await.map_err(failure)?;
                rows.iter().map(|row| Ok(Row(postgres_columns(row)?.into_iter().map(Value::into_owned).collect()))).collect()
            }
        }
    }

    /// The first row, if there is one.
    pub async fn fetch_optional(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.fetch_all(sql, params).await?.into_iter().next())
    }

    /// The row of a query that always has one, such as a count.
    pub async fn fetch_one(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<Row> {
        self.fetch_optional(sql, params).await?.ok_or_else(|| Error::internal(format!("no row: {sql}")))
    }

    /// Inserts many rows with few round trips: `prefix` ends in `VALUES `, `suffix` may hold a conflict clause.
    pub async fn insert_many(&mut self, prefix: &'static str, suffix: &'static str, rows: &[Vec<Value<'_>>]) -> Result<u64> {
        let text = |rows: &[Vec<Value<'_>>]| {
            let (mut sql, mut before) = (String::from(prefix), 0);
            for row in rows {
                sql.push_str(if before == 0 { "" } else { ", " });
                push_placeholders(&mut sql, before, row.len());
                before += row.len();
            }
            sql.push(' ');
            sql.push_str(suffix);
            sql
        };
        let mut changed = 0;
        match &mut self.0 {
            Engine::Sqlite(tx) => {
                // There are no round trips, and its time for a statement grows with the square of its parameters.
                if let Some(first) = rows.first() {
                    changed += tx.execute_each(&text(std::slice::from_ref(first)), rows)?;
                }
            }
            Engine::Postgres(tx) => {
                for chunk in pieces(rows) {
                    let arguments = postgres_arguments(chunk.iter().flatten())?;
                    // Only fixed text and parameter numbers were joined.
                    let query = sqlx::query_with(AssertSqlSafe(text(chunk)), arguments);
                    changed += query.execute(&mut **tx).await.map_err(failure)?.rows_affected();
                }
            }
        }
        Ok(changed)
    }

    /// The rows of a query that ends in `IN `, over a list of values.
    pub async fn fetch_listed(&mut self, prefix: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.each_listed(prefix, values, |row| {
            rows.push(row.to_owned());
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Hands each row of a query that ends in `IN `, over a list of values, to `take`.
    pub async fn each_listed(
        &mut self,
        prefix: &'static str,
        values: &[Value<'_>],
        mut take: impl FnMut(RowReader<'_>) -> Result<()>,
    ) -> Result<()> {
        let text = |count| {
            let mut sql = String::from(prefix);
            push_placeholders(&mut sql, 0, count);
            sql
        };
        match &mut self.0 {
            Engine::Sqlite(tx) => tx.each_row_of(&text(1), values.chunks(1), |columns| take(RowReader::of(&columns))),
            Engine::Postgres(tx) => {
                for chunk in pieces(values) {
                    // Only fixed text and parameter numbers were joined.
                    let query = sqlx::query_with(AssertSqlSafe(text(chunk.len())), postgres_arguments(chunk)?);
                    let rows = query.fetch_all(&mut **tx).await.map_err(failure)?;
                    rows.iter().try_for_each(|row| take(RowReader::of(&postgres_columns(row)?)))?;
                }
                Ok(())
            }
        }
    }

    /// Runs a script of several statements without parameters: migrations only.
    pub(crate) async fn script(&mut self, sql: String) -> Result<()> {
        match &mut self.0 {
            Engine::Sqlite(tx) => tx.script(&sql),
            // Only texts of this program were joined.
            Engine::Postgres(tx) => tx.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(|_| ()).map_err(failure),
        }
    }

    pub(crate) const fn is_sqlite(&self) -> bool {
        matches!(self.0, Engine::Sqlite(_))
    }

    async fn execute_text(&mut self, sql: impl SqlSafeStr, params: &[Value<'_>]) -> Result<u64> {
        match &mut self.0 {
            Engine::Sqlite(tx) => tx.execute(sql.into_sql_str().as_str(), params),
            Engine::Postgres(tx) => {
                let done = sqlx::query_with(sql, postgres_arguments(params)?).execute(&mut **tx).await.map_err(failure)?;
                Ok(done.rows_affected())
            }
        }
    }

    async fn commit(self) -> Result<()> {
        match self.0 {
            Engine::Sqlite(tx) => tx.commit(),
            Engine::Postgres(tx) => tx.commit().await.map_err(failure),
        }
    }

    async fn rollback(self) -> Result<()> {
        match self.0 {
            // Dropped is rolled back.
            Engine::Sqlite(_) => Ok(()),
            Engine::Postgres(tx) => tx.rollback().await.map_err(failure),
        }
    }
}

/// Most rows of one statement; with at most 30 columns this stays far below PostgreSQL's 65,535 parameters.
pub const INSERT_ROWS_MAX: usize = 256;

/// `($5, $6)` for two parameters after four.
fn push_placeholders(sql: &mut String, before: usize, count: usize) {
    for number in before + 1..=before + count {
        sql.push_str(if number == before + 1 { "($" } else { ", $" });
        sql.push_str(&number.to_string());
    }
    sql.push(')');
}

/// Cuts a list into the pieces of single statements. A round trip to PostgreSQL takes many; they come in
/// few lengths, so that few different statements have to be prepared.
fn pieces<T>(mut list: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = [INSERT_ROWS_MAX, 64, 16, 4, 1].into_iter().find(|length| *length <= list.len())?;
        let (piece, rest) = list.split_at(length);
        list = rest;
        Some(piece)
    })
}

fn postgres_arguments<'v>(params: impl IntoIterator<Item = &'v Value<'v>>) -> Result<PgArguments> {
    use sqlx::Arguments;
    let mut arguments = PgArguments::default();
    for param in params {
        let added = match param {
            Value::Int(value) => arguments.add(*value),
            Value::Text(value) => arguments.add(value.as_deref()),
            Value::Bytes(value) => arguments.add(value.as_deref()),
        };
        added.map_err(|error| Error::internal(format!("parameter: {error}")))?;
    }
    Ok(arguments)
}

fn postgres_columns(row: &PgRow) -> Result<Vec<Value<'_>>> {
    row.columns()
        .iter()
        .enumerate()
        .map(|(index, column)| match column.type_info().name() {
            "INT8" => row.try_get(index).map(Value::Int).map_err(failure),
            "INT4" => row.try_get::<Option<i32>, _>(index).map(|value| Value::Int(value.map(i64::from))).map_err(failure),
            "TEXT" => row.try_get::<Option<&str>, _>(index).map(Value::from).map_err(failure),
            "BYTEA" => row.try_get::<Option<&[u8]>, _>(index).map(|bytes| Value::Bytes(bytes.map(Into::into))).map_err(failure),
            other => Err(Error::internal(format!("column {index} has the unexpected type {other}"))),
        })
        .collect()
}

/// Marks errors after which the whole transaction may be tried again.
pub(crate) const RETRYABLE: &str = "retryable";

fn is_retryable(error: &Error) -> bool {
    error.private_context().iter().any(|context| context == RETRYABLE)
}

/// Turns a driver's error into ours. The driver's text is private context.
fn failure(error: sqlx::Error) -> Error {
    let text = error.to_string();
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            database_failure(&code, database.is_unique_violation(), text)
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_) => Error::new(ErrorCode::StoreUnavailable, "the database cannot be reached")
            .retry_after(DurationMs::from_seconds(2))
            .context(text),
        _ => Error::internal(text),
    }
}

fn database_failure(code: &str, unique: bool, text: String) -> Error {
    if unique {
        return Error::new(ErrorCode::Conflict, "an object with this identity exists already").context(text);
    }
    // 40001 serialization failure, 40P01 deadlock, 53100 disk full, 57P01-57P03 shutting down or starting.
    match code {
        "40001" | "40P01" => Error::new(ErrorCode::StoreUnavailable, "the database is too busy")
            .retry_after(DurationMs::from_seconds(1))
            .context(text)
            .context(RETRYABLE),
        "53100" => Error::new(ErrorCode::StorageFull, "the disk of the database is full").context(text),
        code if code.starts_with("57P") || code.starts_with("08") => {
            Error::new(ErrorCode::StoreUnavailable, "the database cannot be reached")
                .retry_after(DurationMs::from_seconds(2))
                .context(text)
        }
        _ => Error::internal(text),
    }
}
