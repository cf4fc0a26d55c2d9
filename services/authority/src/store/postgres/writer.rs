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
use consent_core::head::HeadKey;
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
// in any case, for the clock, which is read after the wait. Each look-up is a subquery of its own, which cannot become a
// join: a plan outlives the size of the tables that it was made for, and one that was made while they were small
// would read all of them, for every batch.
const NEEDED: &str = "
    WITH asked AS (
        SELECT a.kind, a.key, found.head, found.rev, found.organization
        FROM unnest($1::smallint[], $2::bytea[]) AS a (kind, key) CROSS JOIN LATERAL
            (SELECT head, rev, organization FROM head WHERE kind = a.kind AND key = a.key LIMIT 1) found
    ), named AS (
        SELECT kind, key, head, rev FROM asked
        UNION SELECT 2::smallint, o.organization, found.head, found.rev
        FROM (SELECT DISTINCT organization FROM asked WHERE organization IS NOT NULL) o CROSS JOIN LATERAL
            (SELECT head, rev FROM head WHERE kind = 2 AND key = o.organization LIMIT 1) found
    )
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now,
           kind, key, head, subject, rev, chain, recorded_at, caller, request_id, payload_hash, changed
    FROM (
        SELECT n.kind, n.key, n.head, s.subject, n.rev, l.chain, l.recorded_at,
               NULL AS caller, NULL::bytea AS request_id, NULL::bytea AS payload_hash, NULL::boolean AS changed
        FROM named n
             CROSS JOIN LATERAL (SELECT chain, recorded_at FROM ledger WHERE rev = n.rev LIMIT 1) l
             LEFT JOIN LATERAL (SELECT subject FROM subject WHERE kind = n.kind AND key = n.key LIMIT 1) s ON true
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, q.rev, q.chain, q.recorded_at, r.caller, r.request_id, q.payload_hash, q.changed
        FROM unnest($3::text[], $4::bytea[]) AS r (caller, request_id) CROSS JOIN LATERAL
            (SELECT rev, chain, recorded_at, payload_hash, changed FROM request
             WHERE caller = r.caller AND request_id = r.request_id LIMIT 1) q
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

        // The policy's head is read for every batch.
        let heads = || needs.heads.iter().chain([&HeadKey::Policy]);
        let needed = sqlx::query(NEEDED)
            .bind(heads().map(|key| kind_number(*key)).bind_iter())
            .bind(heads().map(|key| key.bytes()).bind_iter())
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
