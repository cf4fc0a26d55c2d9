//! One batch as one statement: whatever its size, one text and one round trip.
//!
//! Every table hangs on the update of the head row, which holds only where the batch follows the row exactly and
//! the live server is the one stored. A batch that does not follow appends nothing at all.

use crate::store::Append;
use crate::store::rows::{kind_number, number};
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgBindIterExt};
use sqlx::query::Query;

// A batch without events leaves the head row as it is: what is said of it is then null.
const APPEND: &str = "
    WITH entries AS (
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[],
                             $7::smallint[], $8::bytea[], $9::bytea[], $10::bytea[])
            AS e (rev, recorded_at, event, link, chain, digest, kind, key, head, organization)
    ), here AS (
        UPDATE ledger_head SET
            last_rev = coalesce($11, last_rev), chain = coalesce($12, chain), digest = coalesce($13, digest),
            recorded_at = coalesce($14, recorded_at)
        WHERE server_identity = (SELECT identity FROM live_server)
            AND ($11::bigint IS NULL OR last_rev = $15::bigint AND recorded_at <= $16::bigint)
        RETURNING true AS appended
    ), to_ledger AS (
        INSERT INTO ledger (rev, event, link, chain, digest, recorded_at)
        SELECT rev, event, link, chain, digest, recorded_at FROM entries, here
    ), to_feed AS (
        INSERT INTO feed (rev, kind, key, head, organization)
        SELECT rev, kind, key, head, organization FROM entries, here
    ), to_head AS (
        INSERT INTO head (kind, key, head, rev, organization)
        SELECT DISTINCT ON (kind, key) kind, key, head, rev, organization FROM entries, here
        ORDER BY kind, key, rev DESC
        ON CONFLICT (kind, key) DO UPDATE SET
            head = excluded.head, rev = excluded.rev, organization = excluded.organization
    ), to_evidence AS (
        INSERT INTO evidence (rev, caller, request_id, actor, channel, notice, document)
        SELECT v.* FROM unnest($1::bigint[], $17::text[], $18::bytea[], $19::text[], $20::bigint[], $21::text[],
                               $22::text[]) AS v, here
    ), to_subject AS (
        INSERT INTO subject (subject, kind, key, id)
        SELECT s.* FROM unnest($23::bytea[], $24::smallint[], $25::bytea[], $26::text[]) AS s, here
    ), to_request AS (
        INSERT INTO request (caller, request_id, payload_hash, rev, chain, recorded_at, changed)
        SELECT r.* FROM unnest($27::text[], $28::bytea[], $29::bytea[], $30::bigint[], $31::bytea[], $32::bigint[],
                               $33::boolean[]) AS r, here
    )
    SELECT EXISTS (SELECT FROM here) AS appended,
           NOT EXISTS (SELECT FROM here)
               AND NOT EXISTS (SELECT FROM ledger_head JOIN live_server ON server_identity = identity) AS is_foreign";

/// The statement that appends this batch; its one row says whether it did, and if not, whether that is because the
/// server is another one.
pub(super) fn statement(append: &Append) -> Query<'_, Postgres, PgArguments> {
    let Append { entries, subjects, requests } = append;
    let (first, last) = (entries.first(), entries.last());
    let evidence = || entries.iter().map(|entry| &entry.evidence);
    sqlx::query(APPEND)
        .bind(entries.iter().map(|entry| number(entry.revision)).bind_iter())
        .bind(entries.iter().map(|entry| entry.recorded_at.millis()).bind_iter())
        .bind(entries.iter().map(|entry| entry.event.as_slice()).bind_iter())
        .bind(entries.iter().map(|entry| *entry.link.bytes()).bind_iter())
        .bind(entries.iter().map(|entry| *entry.chain.bytes()).bind_iter())
        .bind(entries.iter().map(|entry| *entry.digest.bytes()).bind_iter())
        .bind(entries.iter().map(|entry| kind_number(entry.head.key)).bind_iter())
        .bind(entries.iter().map(|entry| entry.head.key.bytes()).bind_iter())
        .bind(entries.iter().map(|entry| entry.head.bytes.as_slice()).bind_iter())
        .bind(entries.iter().map(|entry| entry.organization.map(|key| *key.bytes())).bind_iter())
        .bind(last.map(|entry| number(entry.revision)))
        .bind(last.map(|entry| *entry.chain.bytes()))
        .bind(last.map(|entry| *entry.digest.bytes()))
        .bind(last.map(|entry| entry.recorded_at.millis()))
        .bind(first.map(|entry| number(entry.revision) - 1))
        .bind(first.map(|entry| entry.recorded_at.millis()))
        .bind(evidence().map(|evidence| evidence.request.caller.as_str()).bind_iter())
        .bind(evidence().map(|evidence| *evidence.request.request_id.as_bytes()).bind_iter())
        .bind(evidence().map(|evidence| evidence.actor.as_str()).bind_iter())
        .bind(evidence().map(|evidence| i64::from(evidence.channel)).bind_iter())
        .bind(evidence().map(|evidence| evidence.notice.as_str()).bind_iter())
        .bind(entries.iter().map(|entry| entry.document.as_deref()).bind_iter())
        .bind(subjects.iter().map(|subject| *subject.subject.bytes()).bind_iter())
        .bind(subjects.iter().map(|subject| kind_number(subject.key)).bind_iter())
        .bind(subjects.iter().map(|subject| subject.key.bytes()).bind_iter())
        .bind(subjects.iter().map(|subject| subject.id.as_str()).bind_iter())
        .bind(requests.iter().map(|request| request.name.caller.as_str()).bind_iter())
        .bind(requests.iter().map(|request| *request.name.request_id.as_bytes()).bind_iter())
        .bind(requests.iter().map(|request| request.payload_hash).bind_iter())
        .bind(requests.iter().map(|request| number(request.revision)).bind_iter())
        .bind(requests.iter().map(|request| *request.chain.bytes()).bind_iter())
        .bind(requests.iter().map(|request| request.recorded_at.millis()).bind_iter())
        .bind(requests.iter().map(|request| request.changed).bind_iter())
}
