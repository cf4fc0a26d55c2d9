//! One connection to the primary, outside any pool, for one owner: the lane, the lease rows, or an errand.
//!
//! Nothing is retried on it and nothing is guessed: at any error and at any silence it is closed, so that the
//! server ends its transaction, and the next use opens another. It is used only once it is known to lead to a
//! primary whose commits are durable.

use super::refused;
use crate::store::StoreError;
use crate::store::rows::{Columns, Session, Value};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Postgres};
use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

/// The server's own bounds. A holder of the head lock that stops in mid-transaction loses it after the idle
/// timeout, which is shorter than the lock timeout: so whoever waits for it gets it.
const SETTINGS: [(&str, &str); 9] = [
    ("application_name", "consent"),
    ("synchronous_commit", "on"),
    // The statement after the one that waited for the head lock must see what its holder committed (R1).
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("lock_timeout", "4s"),
    ("statement_timeout", "5s"),
    ("tcp_user_timeout", "6s"),
    // Whatever is read is found by an index. A plan lives longer than the size of the tables that it was made for: while
    // they are small the server would scan them, and go on with that as they grow.
    ("seq_page_cost", "10"),
    ("random_page_cost", "1"),
];

/// Longer than whatever the server bounds itself: here ends only a network that swallows packets, a server that
/// was stopped, or a commit that waits for a standby.
pub(super) const SILENCE: Duration = Duration::from_secs(8);

const CONNECT: Duration = Duration::from_secs(2);

const VERIFY: &str = "SELECT NOT pg_is_in_recovery() AS is_primary,
            current_setting('fsync') = 'on' AND current_setting('synchronous_commit') IN ('on', 'remote_apply')
                AS is_durable,
            current_setting('server_encoding') = 'UTF8' AS keeps_text,
            pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_standbys";

/// The options of every connection of the authority.
pub(super) fn options(url: PgConnectOptions) -> PgConnectOptions {
    // Statements name no ids, but they are not what a log is for.
    url.options(SETTINGS).disable_statement_logging()
}

/// A connection of one owner.
pub struct PostgresSession {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    is_in_transaction: bool,
    sees_standbys: bool,
}

impl std::fmt::Debug for PostgresSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSession").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl PostgresSession {
    pub(super) fn new(options: PgConnectOptions) -> PostgresSession {
        PostgresSession { options, connection: None, is_in_transaction: false, sees_standbys: false }
    }

    /// Whether the role may read how far the standbys are.
    pub(super) fn sees_standbys(&self) -> bool {
        self.sees_standbys
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.is_in_transaction && self.connection.is_some()
    }

    /// Ends whatever is under way by ending the connection.
    pub(super) fn close(&mut self) {
        self.connection = None;
        self.is_in_transaction = false;
    }

    /// Begins by a script that starts with BEGIN. Never inside a transaction whose owner forgot it.
    pub(super) async fn begin_with(&mut self, sql: &'static str) -> Result<Vec<PgRow>, StoreError> {
        if self.is_in_transaction {
            self.close();
        }
        let rows = self.script(sql).await?;
        self.is_in_transaction = true;
        Ok(rows)
    }

    /// Statements without parameters, in one round trip; the rows of all of them.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<Vec<PgRow>, StoreError> {
        let mut connection = self.taken().await?;
        let outcome = within(SILENCE, sqlx::raw_sql(sql).fetch_all(&mut connection)).await;
        self.put_back(connection, outcome)
    }

    /// One statement and its rows.
    pub(super) async fn fetch(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let mut connection = self.taken().await?;
        let outcome = within(SILENCE, query.fetch_all(&mut connection)).await;
        self.put_back(connection, outcome)
    }

    /// Opens the connection if it is not, and does nothing else.
    pub(super) async fn opened(&mut self) -> Result<&mut PgConnection, StoreError> {
        let connection = self.taken().await?;
        Ok(self.connection.insert(connection))
    }

    /// The connection for one exchange. Whoever is dropped in the middle of one takes it along: it is closed then.
    async fn taken(&mut self) -> Result<PgConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        self.is_in_transaction = false;
        let mut connection = within(CONNECT, self.options.connect()).await?;
        let row = within(CONNECT, sqlx::query(VERIFY).fetch_one(&mut connection)).await?;
        if !row.flag("is_primary")? {
            return Err(StoreError::Unavailable("the server is a standby".into()));
        }
        if !row.flag("is_durable")? {
            let why = "fsync or synchronous_commit is off: a commit would not be durable";
            return Err(StoreError::Unavailable(why.into()));
        }
        if !row.flag("keeps_text")? {
            let why = "the database's encoding is not UTF8: it would not keep every id as it is";
            return Err(StoreError::Unavailable(why.into()));
        }
        self.sees_standbys = row.flag("sees_standbys")?;
        Ok(connection)
    }

    fn put_back<T>(
        &mut self,
        connection: PgConnection,
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if outcome.is_ok() {
            self.connection = Some(connection);
        } else {
            self.is_in_transaction = false;
        }
        outcome
    }
}

impl Session for PostgresSession {
    type Row = PgRow;

    async fn begin(&mut self) -> Result<(), StoreError> {
        self.begin_with("BEGIN").await.map(|_| ())
    }

    async fn rows(
        &mut self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> Result<Vec<PgRow>, StoreError> {
        self.fetch(query(sql.into(), values)).await
    }

    async fn execute(
        &mut self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let mut connection = self.taken().await?;
        let outcome = within(SILENCE, query(sql.into(), values).execute(&mut connection)).await;
        self.put_back(connection, outcome).map(|done| done.rows_affected())
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        // An error before has closed the connection, and with it there is nothing left to commit.
        if !self.is_in_transaction() {
            return Err(StoreError::Unavailable("the transaction was lost before the commit".into()));
        }
        self.is_in_transaction = false;
        self.script("COMMIT").await.map(|_| ()).map_err(|error| StoreError::OutcomeUnknown(error.to_string()))
    }

    async fn rollback(&mut self) {
        // Where it fails the connection is closed, which is a rollback too.
        if self.is_in_transaction() {
            self.is_in_transaction = false;
            let _ = self.script("ROLLBACK").await;
        }
    }
}

/// The statement with its parameters.
pub(super) fn query<'a>(sql: Cow<'static, str>, values: &[Value<'a>]) -> Query<'a, Postgres, PgArguments> {
    // The texts are this program's own; what comes from outside is always a parameter.
    let query = sqlx::query(AssertSqlSafe(sql));
    values.iter().fold(query, |query, value| match value {
        Value::Int(int) => query.bind(*int),
        Value::Small(small) => query.bind(*small),
        Value::Bytes(bytes) => query.bind(*bytes),
        Value::Text(text) => query.bind(*text),
    })
}

/// The outcome, or an error when it is not there in time.
pub(super) async fn within<T>(
    bound: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(bound, work).await {
        Ok(outcome) => outcome.map_err(refused),
        Err(_) => Err(StoreError::Unavailable("the server is silent".into())),
    }
}
