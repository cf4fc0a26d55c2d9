//! The lane's connection: two round trips under the lock before the decision, two after it.
//!
//! R1: the head row is locked first and by a statement of its own. What is read next has a newer snapshot, in which
//! the last holder's commit is visible, so the batch is decided from everything before it. The lock is held until
//! the commit is visible: revisions are dense and in commit order.

use super::append;
use super::session::PostgresSession;
use super::standby;
use super::wakeup::Bell;
use crate::store::rows::{
    Columns, Session, from_here, head_columns, kind_number, ledger_head, locked_head, request_record,
    unreadable,
};
use crate::store::{Append, Locked, Needs, StoreError, Writer};
use sqlx::postgres::PgBindIterExt;

// Three statements and one round trip. The first row says that the lock is held, the second where the ledger
// stands; a second that is missing means a foreign server.
const LOCK: &str = concat!(
    "BEGIN;
     SELECT 1 AS locked FROM ledger_head FOR UPDATE;
     SELECT ",
    head_columns!(),
    ", current_setting('synchronous_standby_names') <> '' AS standbys",
    from_here!()
);

// One statement for heads and requests: a round trip under the lock costs every writer of every replica. A row comes
// in any case, for the clock, which is read after the wait.
const NEEDED: &str = "
    WITH asked AS (
        SELECT kind, key, organization FROM head JOIN unnest($1::smallint[], $2::bytea[]) AS a (kind, key)
            USING (kind, key)
    ), named AS (
        SELECT kind, key FROM asked
        UNION SELECT 2::smallint, organization FROM asked WHERE organization IS NOT NULL
        UNION SELECT kind, key FROM head WHERE kind = 1
    )
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now,
           kind, key, head, subject, rev, chain, recorded_at, caller, request_id, payload_hash, changed
    FROM (
        SELECT head.kind, head.key, head.head, subject.subject, head.rev, ledger.chain, ledger.recorded_at,
               NULL AS caller, NULL::bytea AS request_id, NULL::bytea AS payload_hash, NULL::boolean AS changed
        FROM named JOIN head USING (kind, key) JOIN ledger ON ledger.rev = head.rev
             LEFT JOIN subject ON subject.kind = head.kind AND subject.key = head.key
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, rev, chain, recorded_at, caller, request_id, payload_hash, changed
        FROM request JOIN unnest($3::text[], $4::bytea[]) AS r (caller, request_id) USING (caller, request_id)
    ) found
    RIGHT JOIN (SELECT) always ON true";

/// The lane's connection.
#[derive(Debug)]
pub struct PostgresWriter {
    session: PostgresSession,
    bell: Bell,
    standbys: bool,
}

impl PostgresWriter {
    pub(super) fn new(session: PostgresSession, bell: Bell) -> PostgresWriter {
        PostgresWriter { session, bell, standbys: false }
    }

    async fn read_locked(&mut self, needs: &Needs) -> Result<Locked, StoreError> {
        let rows = self.session.begin_with(LOCK).await?;
        let row = match rows.as_slice() {
            [] => return Err(StoreError::Broken("the ledger has no head row".into())),
            [_locked] => return Err(StoreError::Foreign),
            [_locked, row, ..] => row,
        };
        let head = ledger_head(row)?;
        self.standbys = row.flag("standbys")?;

        let needed = sqlx::query(NEEDED)
            .bind(needs.heads.iter().map(|key| kind_number(*key)).bind_iter())
            .bind(needs.heads.iter().map(|key| key.bytes()).bind_iter())
            .bind(needs.requests.iter().map(|name| name.caller.as_str()).bind_iter())
            .bind(needs.requests.iter().map(|name| *name.request_id.as_bytes()).bind_iter());
        let rows = self.session.fetch(needed).await?;

        let now = rows.first().ok_or_else(|| unreadable("now"))?.instant("now")?;
        let mut locked = Locked { head, now, heads: Vec::new(), requests: Vec::new() };
        for row in &rows {
            if let Some(head) = locked_head(row)? {
                locked.heads.push(head);
            } else if let Some(request) = request_record(row)? {
                locked.requests.push(request);
            }
        }
        // What an earlier commit left behind counts as recorded on the same condition as that commit.
        if self.standbys && !locked.requests.is_empty() {
            standby::flushed(&mut self.session).await?;
        }
        Ok(locked)
    }
}

impl Writer for PostgresWriter {
    async fn lock(&mut self, needs: &Needs) -> Result<Locked, StoreError> {
        let locked = self.read_locked(needs).await;
        if locked.is_err() {
            self.session.close();
        }
        locked
    }

    async fn commit(&mut self, append: &Append) -> Result<(), StoreError> {
        if !self.session.is_in_transaction() {
            return Err(StoreError::Unavailable("the lock was lost before the commit".into()));
        }
        if let Err(error) = append.check() {
            self.session.close();
            return Err(error);
        }
        // An error here is no unknown outcome: the commit was not asked for, and the connection is closed.
        let rows = self.session.fetch(append::statement(append)).await?;
        let row = rows.first().ok_or_else(|| unreadable("appended"))?;
        if !row.flag("appended")? {
            self.session.close();
            return Err(match row.flag("is_foreign")? {
                true => StoreError::Foreign,
                false => StoreError::Broken("the batch does not follow the ledger's head".into()),
            });
        }
        self.session.commit().await?;
        self.bell.ring();
        if self.standbys {
            standby::flushed(&mut self.session).await?;
        }
        Ok(())
    }

    async fn release(&mut self) {
        self.session.rollback().await;
    }
}
