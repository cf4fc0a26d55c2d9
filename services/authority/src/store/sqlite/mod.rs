//! The embedded store: SQLite in a file of a directory that one process owns. For `consent dev` and for tests.

mod append;
mod directory;
mod session;
mod writer;

use super::lease_rows::LeaseRows;
use super::reads::Reads;
use super::rows::{Source, Value};
use super::schema::{self, Applied, Migrated};
use super::{Store, StoreError};
use consent_core::words::{Epoch, IdKey};
use directory::Directory;
use session::{SqliteSession, WriteConnection};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

pub use writer::SqliteWriter;

const MIGRATIONS: [(&str, &str); 1] =
    [("ledger", include_str!("../../../migrations/sqlite/0001_ledger.sql"))];

const BIRTH: &str = "CREATE TEMP TABLE birth AS SELECT $1 AS epoch, $2 AS id_key";

/// A thread each.
const READERS: u32 = 4;

const ACQUIRE: Duration = Duration::from_secs(1);

/// The ledger in a directory.
#[derive(Debug)]
pub struct SqliteStore {
    options: SqliteConnectOptions,
    identity: String,
    writes: Arc<Mutex<WriteConnection>>,
    bell: watch::Sender<()>,
    _directory: Directory,
}

impl SqliteStore {
    /// Opens the store in a directory, which this process owns from now on, whose schema is this program's.
    pub async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let directory = Directory::take(path).await?;
        let database = directory.database();
        if !database.exists() {
            return Err(StoreError::Schema("there is none yet; `consent migrate` makes it".into()));
        }
        let options = options(&database);
        let mut connection = options.connect().await.map_err(refused)?;
        schema::check(&applied(&mut connection).await?, &migrator())?;
        connection.close().await.map_err(refused)?;
        let identity = directory.identity()?;
        let writes = Arc::new(Mutex::new(WriteConnection::new(options.clone(), identity.clone())));
        Ok(SqliteStore { options, identity, writes, bell: watch::Sender::new(()), _directory: directory })
    }
}

/// Makes the directory and the file if there are none, and brings the schema up to this program's; a ledger that is
/// born by it takes these random names.
pub async fn migrate(path: &Path, epoch: Epoch, id_key: IdKey) -> Result<Migrated, StoreError> {
    let directory = Directory::make(path).await?;
    let options = options(&directory.database());
    let mut connection = options.connect().await.map_err(refused)?;
    let before = schema::version(&applied(&mut connection).await?);
    session::name_server(&mut connection, &directory.identity()?).await.map_err(refused)?;
    let birth = sqlx::query(BIRTH).bind(epoch.bytes().as_slice()).bind(id_key.bytes().as_slice());
    birth.execute(&mut connection).await.map_err(refused)?;
    let outcome = migrator().run_direct(None, &mut connection, false).await;
    outcome.map_err(|error| schema::refused(error, refused))?;
    let now = schema::version(&applied(&mut connection).await?);
    connection.close().await.map_err(refused)?;
    Ok(Migrated { before, now })
}

impl Store for SqliteStore {
    type Writer = SqliteWriter;
    type Reader = Reads<SqliteReaders>;
    type Leases = LeaseRows<SqliteSession>;

    async fn writer(&self) -> Result<SqliteWriter, StoreError> {
        Ok(SqliteWriter::new(SqliteSession::new(Arc::clone(&self.writes)), self.bell.clone()))
    }

    fn reader(&self) -> Reads<SqliteReaders> {
        Reads(SqliteReaders(readers(self.options.clone(), self.identity.clone())))
    }

    async fn leases(&self) -> Result<LeaseRows<SqliteSession>, StoreError> {
        Ok(LeaseRows(SqliteSession::new(Arc::clone(&self.writes))))
    }

    fn wakeups(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}

/// The readers' few connections.
#[derive(Debug, Clone)]
pub struct SqliteReaders(SqlitePool);

impl Source for SqliteReaders {
    type Row = SqliteRow;

    async fn rows(
        &self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        session::query(sql.into(), values).fetch_all(&self.0).await.map_err(refused)
    }
}

fn migrator() -> Migrator {
    schema::migrator(&MIGRATIONS)
}

/// Durable at every commit: FULL syncs the log before the commit returns, which WAL with NORMAL does not.
fn options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .disable_statement_logging()
}

fn readers(options: SqliteConnectOptions, identity: String) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let identity = identity.clone();
            Box::pin(async move { session::name_server(connection, &identity).await })
        })
        .connect_lazy_with(options.read_only(true))
}

async fn applied(connection: &mut SqliteConnection) -> Result<Vec<Applied>, StoreError> {
    use super::rows::Columns;
    const NOTED: &str =
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations') AS noted";
    let row = sqlx::query(NOTED).fetch_one(&mut *connection).await.map_err(refused)?;
    if !row.flag("noted")? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(schema::APPLIED).fetch_all(connection).await.map_err(refused)?;
    rows.iter()
        .map(|row| Ok(Applied { version: row.int("version")?, checksum: row.bytes("checksum")? }))
        .collect()
}

/// What a failed statement means. SQLite's messages name tables and columns, never values.
fn refused(error: sqlx::Error) -> StoreError {
    const ERROR: i32 = 1;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const MISUSE: i32 = 21;
    const RANGE: i32 = 25;
    const CORRUPT: i32 = 11;
    const NOTADB: i32 = 26;
    let Some(engine) = error.as_database_error() else {
        let text = error.to_string();
        let unavailable = matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
        );
        return if unavailable { StoreError::Unavailable(text) } else { StoreError::Broken(text) };
    };
    // The low byte of the extended code is the primary one.
    let code = engine.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(ERROR) & 0xff;
    let text = format!("{code}: {}", engine.message());
    if [ERROR, CONSTRAINT, MISMATCH, MISUSE, RANGE, CORRUPT, NOTADB].contains(&code) {
        StoreError::Broken(text)
    } else {
        StoreError::Unavailable(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::Columns;

    #[tokio::test]
    async fn every_connection_syncs_its_log_at_every_commit() {
        let directory = tempfile::tempdir().expect("a directory");
        migrate(directory.path(), Epoch::new([1; 16]), IdKey::new([2; 16])).await.expect("the migration");
        let options = options(&directory.path().join("consent.db"));
        let mut connection = options.connect().await.expect("a connection");
        let mut ask = async |pragma| sqlx::query(pragma).fetch_one(&mut connection).await.expect("an answer");
        let (journal, synchronous) = (ask("PRAGMA journal_mode").await, ask("PRAGMA synchronous").await);
        assert_eq!(journal.text("journal_mode").expect("a mode"), "wal");
        assert_eq!(synchronous.int("synchronous").expect("a mode"), 2, "FULL");
    }
}
