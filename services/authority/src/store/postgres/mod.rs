//! The real store: Postgres. Replicas share one primary; every connection checks that it is one.

mod append;
mod readers;
mod session;
mod standby;
mod wakeup;
mod writer;

use super::lease_rows::LeaseRows;
use super::reads::Reads;
use super::schema::{self, Applied, Migrated};
use super::{Store, StoreError};
use consent_core::words::{Epoch, IdKey};
use readers::PostgresReaders;
use session::PostgresSession;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wakeup::Bell;

pub use writer::PostgresWriter;

const MIGRATIONS: [(&str, &str); 1] =
    [("ledger", include_str!("../../../migrations/postgres/0001_ledger.sql"))];

// A migration takes as long as the tables are large; an operator waits for it.
const BIRTH: &str = "SELECT set_config('consent.epoch', $1, false), set_config('consent.id_key', $2, false),
                            set_config('statement_timeout', '0', false)";

/// The ledger in Postgres.
pub struct PostgresStore {
    options: PgConnectOptions,
    bell: Bell,
    _tasks: JoinSet<()>,
}

// The options may hold a password.
impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl PostgresStore {
    /// Opens the store at a `postgres://` address whose schema is the one of this program.
    pub async fn open(url: &str) -> Result<PostgresStore, StoreError> {
        let options = options(url)?;
        let mut session = PostgresSession::new(options.clone());
        schema::check(&applied(&mut session).await?, &migrator())?;
        let (bell, tasks) = Bell::new(options.clone());
        Ok(PostgresStore { options, bell, _tasks: tasks })
    }
}

/// Brings the schema up to this program's; a ledger that is born by it takes these random names.
pub async fn migrate(url: &str, epoch: Epoch, id_key: IdKey) -> Result<Migrated, StoreError> {
    let mut session = PostgresSession::new(options(url)?);
    let before = schema::version(&applied(&mut session).await?);
    let (epoch, id_key) = (hex(epoch.bytes()), hex(id_key.bytes()));
    session.fetch(sqlx::query(BIRTH).bind(epoch).bind(id_key)).await?;
    let connection = session.opened().await?;
    migrator().run_direct(None, connection, false).await.map_err(|error| schema::refused(error, refused))?;
    Ok(Migrated { before, now: schema::version(&applied(&mut session).await?) })
}

impl Store for PostgresStore {
    type Writer = PostgresWriter;
    type Reader = Reads<PostgresReaders>;
    type Leases = LeaseRows<PostgresSession>;

    async fn writer(&self) -> Result<PostgresWriter, StoreError> {
        let mut session = PostgresSession::new(self.options.clone());
        session.opened().await?;
        Ok(PostgresWriter::new(session, self.bell.clone()))
    }

    fn reader(&self) -> Reads<PostgresReaders> {
        Reads(PostgresReaders::new(self.options.clone()))
    }

    async fn leases(&self) -> Result<LeaseRows<PostgresSession>, StoreError> {
        let mut session = PostgresSession::new(self.options.clone());
        session.opened().await?;
        Ok(LeaseRows(session))
    }

    fn wakeups(&self) -> watch::Receiver<()> {
        self.bell.listen()
    }
}

fn migrator() -> Migrator {
    schema::migrator(&MIGRATIONS)
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    // What the parser says may quote the address, and with it a password.
    let url = PgConnectOptions::from_str(url);
    url.map(session::options)
        .map_err(|_| StoreError::Unavailable("the address is not a postgres:// one".into()))
}

async fn applied(session: &mut PostgresSession) -> Result<Vec<Applied>, StoreError> {
    use super::rows::{Columns, Session};
    const NOTED: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS noted";
    let rows = session.rows(NOTED, &[]).await?;
    if !rows.first().is_some_and(|row| row.flag("noted").unwrap_or(false)) {
        return Ok(Vec::new());
    }
    let rows = session.rows(schema::APPLIED, &[]).await?;
    rows.iter()
        .map(|row| Ok(Applied { version: row.int("version")?, checksum: row.bytes("checksum")? }))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a failed statement means. The texts are the server's messages without their details, which may quote rows.
fn refused(error: sqlx::Error) -> StoreError {
    let Some(server) = error.as_database_error() else {
        let ours = matches!(
            error,
            sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::TypeNotFound { .. }
                | sqlx::Error::RowNotFound
        );
        let text = error.to_string();
        return if ours { StoreError::Broken(text) } else { StoreError::Unavailable(text) };
    };
    let code = server.code().unwrap_or_default();
    let text = format!("{code}: {}", server.message());
    match code.as_bytes() {
        // No such table, column or function.
        b"42P01" | b"42703" | b"42883" => StoreError::Schema(text),
        // Connections, authorization, transaction state, no such database, serialization and deadlock, resources,
        // prerequisite state (a standby), locks, an operator's hand, the system itself.
        [b'0', b'8', ..]
        | [b'2', b'5' | b'8', ..]
        | [b'3', b'D', ..]
        | [b'4', b'0', ..]
        | [b'5', b'3' | b'5' | b'7' | b'8', ..] => StoreError::Unavailable(text),
        _ => StoreError::Broken(text),
    }
}
