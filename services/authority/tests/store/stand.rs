//! What a case stands on: a fresh ledger in one of the stores, and a way behind the store's back.

use crate::postgres::Postgres;
use consent_authority::store::{PostgresStore, SqliteStore, Store, StoreError, postgres, sqlite};
use consent_core::words::{Epoch, IdKey};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use std::future::Future;
use std::path::PathBuf;
use tempfile::TempDir;

/// The random names of every ledger here.
pub(crate) const EPOCH: Epoch = Epoch::new([0xe0; 16]);
pub(crate) const ID_KEY: IdKey = IdKey::new([0x1d; 16]);

/// A fresh ledger.
pub(crate) trait Stand: Sized {
    type Store: Store;

    /// Where there is no ledger yet.
    fn bare(server: &Postgres) -> Self;
    fn migrate(&self) -> impl Future<Output = Result<(i64, i64), StoreError>>;
    fn open(&self) -> impl Future<Output = Result<Self::Store, StoreError>>;
    /// Runs a statement behind the store's back.
    fn sql(&self, statement: &str) -> impl Future<Output = Result<(), sqlx::Error>>;
    /// For another process to find it.
    fn address(&self) -> String;
    /// A trigger that refuses what this condition says of a row to be inserted.
    fn refuse_insert(&self, table: &str, condition: &str) -> impl Future<Output = ()>;
    /// The statement that takes the trigger away.
    fn allow_insert(&self, table: &str) -> String;

    /// With an empty ledger, opened.
    async fn opened(&self) -> Self::Store {
        self.migrate().await.expect("the migration");
        self.open().await.expect("the store")
    }
}

pub(crate) struct OnSqlite(TempDir);

impl Stand for OnSqlite {
    type Store = SqliteStore;

    fn bare(_: &Postgres) -> OnSqlite {
        OnSqlite(TempDir::with_prefix("consent-store-").expect("a directory"))
    }
    async fn migrate(&self) -> Result<(i64, i64), StoreError> {
        let done = sqlite::migrate(self.0.path(), EPOCH, ID_KEY).await?;
        Ok((done.before, done.now))
    }
    async fn open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(self.0.path()).await
    }
    async fn sql(&self, statement: &str) -> Result<(), sqlx::Error> {
        let mut connection =
            SqliteConnection::connect(&format!("sqlite:{}", self.database().display())).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        connection.close().await
    }
    fn address(&self) -> String {
        self.0.path().display().to_string()
    }
    async fn refuse_insert(&self, table: &str, condition: &str) {
        let trigger = format!(
            "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} WHEN {condition}
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        );
        self.sql(&trigger).await.expect("the trigger");
    }
    fn allow_insert(&self, table: &str) -> String {
        format!("DROP TRIGGER refuse_{table}")
    }
}

impl OnSqlite {
    fn database(&self) -> PathBuf {
        self.0.path().join("consent.db")
    }
}

pub(crate) struct OnPostgres(String);

impl Stand for OnPostgres {
    type Store = PostgresStore;

    fn bare(server: &Postgres) -> OnPostgres {
        OnPostgres(server.fresh_database().expect("a database"))
    }
    async fn migrate(&self) -> Result<(i64, i64), StoreError> {
        let done = postgres::migrate(&self.0, EPOCH, ID_KEY).await?;
        Ok((done.before, done.now))
    }
    async fn open(&self) -> Result<PostgresStore, StoreError> {
        PostgresStore::open(&self.0).await
    }
    async fn sql(&self, statement: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.0).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        connection.close().await
    }
    fn address(&self) -> String {
        self.0.clone()
    }
    async fn refuse_insert(&self, table: &str, condition: &str) {
        let trigger = format!(
            "CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
             CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} FOR EACH ROW WHEN ({condition})
                 EXECUTE FUNCTION refuse_{table}()"
        );
        self.sql(&trigger).await.expect("the trigger");
    }
    fn allow_insert(&self, table: &str) -> String {
        format!("DROP TRIGGER refuse_{table} ON {table}")
    }
}
