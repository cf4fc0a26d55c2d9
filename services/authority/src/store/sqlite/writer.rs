//! The lane's turns at the connection that writes.
//!
//! R1 by the file's write lock: it is taken before anything is read and held until the commit is visible. Each
//! statement is a hop to another thread, so a batch is one statement per table, whatever its size.

use super::append;
use super::session::SqliteSession;
use crate::store::reads::padded;
use crate::store::rows::{
    Session, foreign_if_empty, from_here, head_columns, kind_number, ledger_head, locked_head, request_record,
};
use crate::store::{Append, LedgerHead, Locked, Needs, StoreError, Writer};
use consent_core::head::HeadKey;
use sqlx::QueryBuilder;
use tokio::sync::watch;

const HEAD: &str = concat!("SELECT ", head_columns!(), from_here!());

// The list of places is put between the two.
const HEADS: (&str, &str) = (
    "WITH asked AS (SELECT kind, key, organization FROM head WHERE (kind, key) IN (",
    ")), named AS (SELECT kind, key FROM asked
                   UNION SELECT 2, organization FROM asked WHERE organization IS NOT NULL
                   UNION SELECT kind, key FROM head WHERE kind = 1)
     SELECT head.kind, head.key, head.head, subject.subject, head.rev, ledger.chain, ledger.recorded_at
     FROM named JOIN head USING (kind, key) JOIN ledger ON ledger.rev = head.rev
          LEFT JOIN subject ON subject.kind = head.kind AND subject.key = head.key",
);

const REQUESTS: &str =
    "SELECT caller, request_id, payload_hash, rev, chain, recorded_at, changed FROM request
     WHERE (caller, request_id) IN (";

/// The lane's turns.
#[derive(Debug)]
pub struct SqliteWriter {
    session: SqliteSession,
    bell: watch::Sender<()>,
}

impl SqliteWriter {
    pub(super) fn new(session: SqliteSession, bell: watch::Sender<()>) -> SqliteWriter {
        SqliteWriter { session, bell }
    }

    async fn read_locked(&mut self, needs: &Needs) -> Result<Locked, StoreError> {
        self.session.begin().await?;
        let head = self.head().await?;
        let mut locked =
            Locked { head, now: consent::clock::wall(), heads: Vec::new(), requests: Vec::new() };
        let mut heads = QueryBuilder::new(HEADS.0);
        heads.push_values(padded(&needs.heads, HeadKey::Policy), |mut row, key| {
            row.push_bind(kind_number(key)).push_bind(key.bytes().to_vec());
        });
        heads.push(HEADS.1);
        for row in &self.session.fetch(heads.build()).await? {
            locked.heads.extend(locked_head(row)?);
        }
        if needs.requests.is_empty() {
            return Ok(locked);
        }
        let mut requests = QueryBuilder::new(REQUESTS);
        requests.push_values(&needs.requests, |mut row, name| {
            row.push_bind(&name.caller).push_bind(name.request_id.as_bytes().as_slice());
        });
        requests.push(")");
        for row in &self.session.fetch(requests.build().persistent(false)).await? {
            locked.requests.extend(request_record(row)?);
        }
        Ok(locked)
    }

    async fn head(&mut self) -> Result<LedgerHead, StoreError> {
        ledger_head(foreign_if_empty(&self.session.rows(HEAD, &[]).await?)?)
    }
}

impl Writer for SqliteWriter {
    async fn lock(&mut self, needs: &Needs) -> Result<Locked, StoreError> {
        self.session.rollback().await;
        let locked = self.read_locked(needs).await;
        if locked.is_err() {
            self.session.rollback().await;
        }
        locked
    }

    async fn commit(&mut self, append: &Append) -> Result<(), StoreError> {
        if !self.session.is_in_transaction() {
            return Err(StoreError::Unavailable("the lock was lost before the commit".into()));
        }
        // An error here is no unknown outcome: the commit was not asked for.
        if let Err(error) = append::append(&mut self.session, append).await {
            self.session.rollback().await;
            return Err(error);
        }
        self.session.commit().await?;
        self.bell.send_replace(());
        Ok(())
    }

    async fn release(&mut self) {
        self.session.rollback().await;
    }
}
