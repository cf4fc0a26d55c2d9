//! The one connection that writes, shared by the lane and the lease rows, who take turns in order of asking.
//!
//! SQLite lets one writer in at a time anyway; waiting here is fair and costs no polling of the file's lock. As
//! with a server, an error closes the connection: what was under way is rolled back, and the next use opens another.

use super::refused;
use crate::store::StoreError;
use crate::store::rows::{Session, Value};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Sqlite};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How long a writer waits for its turn, as for the head lock of a server.
const TURN: Duration = Duration::from_secs(4);

pub(super) const LIVE_SERVER: &str = "CREATE TEMP TABLE live_server (identity TEXT NOT NULL)";
pub(super) const LIVE_SERVER_IS: &str = "INSERT INTO live_server (identity) VALUES ($1)";

/// The connection that writes.
#[derive(Debug)]
pub(super) struct WriteConnection {
    options: SqliteConnectOptions,
    identity: String,
    connection: Option<SqliteConnection>,
    is_in_transaction: bool,
}

impl WriteConnection {
    pub(super) fn new(options: SqliteConnectOptions, identity: String) -> WriteConnection {
        WriteConnection { options, identity, connection: None, is_in_transaction: false }
    }

    async fn opened(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = self.options.connect().await.map_err(refused)?;
                name_server(&mut connection, &self.identity).await.map_err(refused)?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    fn close(&mut self) {
        self.connection = None;
        self.is_in_transaction = false;
    }
}

/// Tells a connection to which file it leads: what statements compare with the name that is stored.
pub(super) async fn name_server(
    connection: &mut SqliteConnection,
    identity: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(LIVE_SERVER).execute(&mut *connection).await?;
    sqlx::query(LIVE_SERVER_IS).bind(identity).execute(connection).await?;
    Ok(())
}

/// One owner's turns at the connection that writes. A turn lasts as long as a transaction.
#[derive(Debug)]
pub struct SqliteSession {
    shared: Arc<Mutex<WriteConnection>>,
    turn: Option<OwnedMutexGuard<WriteConnection>>,
}

impl SqliteSession {
    pub(super) fn new(shared: Arc<Mutex<WriteConnection>>) -> SqliteSession {
        SqliteSession { shared, turn: None }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.turn.is_some()
    }

    /// One statement and its rows.
    pub(super) async fn fetch(
        &mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let mut turn = self.taken().await?;
        let outcome = match turn.opened().await {
            Ok(connection) => query.fetch_all(connection).await.map_err(refused),
            Err(error) => Err(error),
        };
        self.put_back(turn, outcome)
    }

    /// One statement, and how many rows it changed.
    pub(super) async fn change(
        &mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let mut turn = self.taken().await?;
        let outcome = match turn.opened().await {
            Ok(connection) => query.execute(connection).await.map_err(refused),
            Err(error) => Err(error),
        };
        self.put_back(turn, outcome).map(|done| done.rows_affected())
    }

    async fn taken(&mut self) -> Result<OwnedMutexGuard<WriteConnection>, StoreError> {
        if let Some(turn) = self.turn.take() {
            return Ok(turn);
        }
        let Ok(mut turn) = tokio::time::timeout(TURN, Arc::clone(&self.shared).lock_owned()).await else {
            return Err(StoreError::Unavailable("another writer holds the ledger".into()));
        };
        if turn.is_in_transaction {
            // Its owner was dropped in the middle of it.
            turn.close();
        }
        Ok(turn)
    }

    fn put_back<T>(
        &mut self,
        mut turn: OwnedMutexGuard<WriteConnection>,
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if outcome.is_err() {
            turn.close();
        }
        if turn.is_in_transaction {
            self.turn = Some(turn);
        }
        outcome
    }

    /// Ends the transaction and the turn.
    async fn end(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let Some(mut turn) = self.turn.take() else {
            return Err(StoreError::Unavailable("the connection was lost before the commit".into()));
        };
        let outcome = match turn.opened().await {
            Ok(connection) => sqlx::query(sql).execute(connection).await.map_err(refused),
            Err(error) => Err(error),
        };
        turn.is_in_transaction = false;
        self.put_back(turn, outcome).map(|_| ())
    }
}

impl Session for SqliteSession {
    type Row = SqliteRow;

    async fn begin(&mut self) -> Result<(), StoreError> {
        let mut turn = self.taken().await?;
        turn.is_in_transaction = true;
        self.turn = Some(turn);
        // A deferred transaction may find out too late that what it read is stale.
        self.change(sqlx::query("BEGIN IMMEDIATE")).await.map(|_| ())
    }

    async fn rows(
        &mut self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        self.fetch(query(sql.into(), values)).await
    }

    async fn execute(
        &mut self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        self.change(query(sql.into(), values)).await
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        if !self.is_in_transaction() {
            return Err(StoreError::Unavailable("the transaction was lost before the commit".into()));
        }
        self.end("COMMIT").await.map_err(|error| StoreError::OutcomeUnknown(error.to_string()))
    }

    async fn rollback(&mut self) {
        // Where it fails the connection is closed, which is a rollback too.
        if self.is_in_transaction() {
            let _ = self.end("ROLLBACK").await;
        }
    }
}

/// The statement with its parameters.
pub(super) fn query<'a>(sql: Cow<'static, str>, values: &[Value<'a>]) -> Query<'a, Sqlite, SqliteArguments> {
    // The texts are this program's own; what comes from outside is always a parameter.
    let query = sqlx::query(AssertSqlSafe(sql));
    values.iter().fold(query, |query, value| match value {
        Value::Int(int) => query.bind(*int),
        Value::Small(small) => query.bind(*small),
        Value::Bytes(bytes) => query.bind(*bytes),
        Value::Text(text) => query.bind(*text),
    })
}
