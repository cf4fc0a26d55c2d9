//! One batch as one statement per table.
//!
//! First the head row, and only where the batch follows it exactly and the file is the one stored: then the rest.

use super::session::SqliteSession;
use crate::store::rows::{Session, Value, kind_number, number};
use crate::store::{Append, Entry, StoreError};
use consent_core::head::HeadKey;
use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite};
use std::collections::BTreeMap;

const ADVANCE: &str = "UPDATE ledger_head SET last_rev = $1, chain = $2, digest = $3, recorded_at = $4
     WHERE last_rev = $5 AND recorded_at <= $6 AND server_identity = (SELECT identity FROM live_server)";

const LEDGER: &str = "INSERT INTO ledger (rev, event, link, chain, digest, recorded_at) ";
const FEED: &str = "INSERT INTO feed (rev, kind, key, head, organization) ";
const HEAD: &str = "INSERT INTO head (kind, key, head, rev, organization) ";
const HEAD_AGAIN: &str = " ON CONFLICT (kind, key) DO UPDATE SET
     head = excluded.head, rev = excluded.rev, organization = excluded.organization";
const EVIDENCE: &str = "INSERT INTO evidence (rev, caller, request_id, actor, channel, notice, document) ";
const SUBJECT: &str = "INSERT INTO subject (subject, kind, key, id) ";
const REQUEST: &str =
    "INSERT INTO request (caller, request_id, payload_hash, rev, chain, recorded_at, changed) ";

/// SQLite takes 32,766 parameters in a statement; no row here has more than seven.
const ROWS: usize = 4_096;

type Row<'a> = Separated<'a, Sqlite, &'static str>;

/// Appends the batch within the session's transaction.
pub(super) async fn append(session: &mut SqliteSession, append: &Append) -> Result<(), StoreError> {
    let Append { entries, subjects, requests } = append;
    append.check()?;
    advance(session, entries).await?;
    insert(session, LEDGER, entries, "", |row, entry| {
        row.push_bind(number(entry.revision))
            .push_bind(entry.event.as_slice())
            .push_bind(entry.link.bytes().as_slice())
            .push_bind(entry.chain.bytes().as_slice())
            .push_bind(entry.digest.bytes().as_slice())
            .push_bind(entry.recorded_at.millis());
    })
    .await?;
    insert(session, FEED, entries, "", |row, entry| {
        row.push_bind(number(entry.revision));
        push_head(row, entry);
        row.push_bind(entry.organization.map(|key| key.bytes().to_vec()));
    })
    .await?;
    // A head that the batch touches twice is written once, as it is in the end.
    let newest: BTreeMap<HeadKey, &Entry> = entries.iter().map(|entry| (entry.head.key, entry)).collect();
    let newest: Vec<&Entry> = newest.into_values().collect();
    insert(session, HEAD, &newest, HEAD_AGAIN, |row, entry| {
        push_head(row, entry);
        row.push_bind(number(entry.revision)).push_bind(entry.organization.map(|key| key.bytes().to_vec()));
    })
    .await?;
    insert(session, EVIDENCE, entries, "", |row, entry| {
        let evidence = &entry.evidence;
        row.push_bind(number(entry.revision))
            .push_bind(evidence.request.caller.as_str())
            .push_bind(evidence.request.request_id.as_bytes().as_slice())
            .push_bind(evidence.actor.as_str())
            .push_bind(evidence.channel)
            .push_bind(evidence.notice.as_str())
            .push_bind(entry.document.as_deref());
    })
    .await?;
    insert(session, SUBJECT, subjects, "", |row, subject| {
        row.push_bind(subject.subject.bytes().as_slice())
            .push_bind(kind_number(subject.key))
            .push_bind(subject.key.bytes().to_vec())
            .push_bind(subject.id.as_str());
    })
    .await?;
    insert(session, REQUEST, requests, "", |row, request| {
        row.push_bind(request.name.caller.as_str())
            .push_bind(request.name.request_id.as_bytes().as_slice())
            .push_bind(request.payload_hash.as_slice())
            .push_bind(number(request.revision))
            .push_bind(request.chain.bytes().as_slice())
            .push_bind(request.recorded_at.millis())
            .push_bind(request.changed);
    })
    .await
}

async fn advance(session: &mut SqliteSession, entries: &[Entry]) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    let values = [
        Value::revision(last.revision),
        Value::Bytes(last.chain.bytes()),
        Value::Bytes(last.digest.bytes()),
        Value::Int(last.recorded_at.millis()),
        Value::Int(number(first.revision) - 1),
        Value::Int(first.recorded_at.millis()),
    ];
    if session.execute(ADVANCE, &values).await? == 1 {
        Ok(())
    } else {
        Err(StoreError::Broken("the batch does not follow the ledger's head".into()))
    }
}

async fn insert<T: Sync>(
    session: &mut SqliteSession,
    into: &'static str,
    rows: &[T],
    then: &'static str,
    push: impl Fn(&mut Row<'_>, &T),
) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS) {
        let mut statement = QueryBuilder::new(into);
        statement.push_values(rows, |mut row, item| push(&mut row, item));
        statement.push(then);
        // A text for every number of rows: not worth a place in the cache of statements.
        session.change(statement.build().persistent(false)).await?;
    }
    Ok(())
}

fn push_head(row: &mut Row<'_>, entry: &Entry) {
    row.push_bind(kind_number(entry.head.key))
        .push_bind(entry.head.key.bytes().to_vec())
        .push_bind(entry.head.bytes.as_slice());
}
