//! Hand-written SQL on the product's own tables: what the rows of a batch of opt-outs cost when nobody decides,
//! hashes or proves anything.
//!
//! The whole batch is one statement in a transaction of its own, so one round trip: it locks and moves on the head
//! row, looks up the heads and the requests that the lane looks up, and inserts every row that the lane inserts. The
//! rows have the lengths of real ones and are put together before the clock runs.

use crate::ledger::{CALLER, Strangers};
use anyhow::{Context, ensure};
use consent_core::words::IdKey;
use sqlx::postgres::{PgBindIterExt, PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Row};
use std::str::FromStr;

const APPEND: &str = "
    WITH entries AS (
        SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::text[], $6::bytea[])
            WITH ORDINALITY AS e (event, hash, key, head, id, name, n)
    ), here AS (
        UPDATE ledger_head SET
            last_rev = last_rev + $7, chain = $8, digest = $8,
            recorded_at = greatest(recorded_at, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
        WHERE server_identity = (SELECT identity FROM live_server)
        RETURNING last_rev - $7 AS before, recorded_at
    ), heads AS (
        SELECT count(*) AS known FROM entries CROSS JOIN LATERAL
            (SELECT FROM head WHERE head.kind = 3 AND head.key = entries.key LIMIT 1) found
    ), requests AS (
        SELECT count(*) AS made FROM entries CROSS JOIN LATERAL
            (SELECT FROM request WHERE caller = $9 AND request_id = entries.name LIMIT 1) found
    ), to_ledger AS (
        INSERT INTO ledger (rev, event, link, chain, digest, recorded_at)
        SELECT before + n, event, hash, hash, hash, recorded_at FROM entries, here
    ), to_feed AS (
        INSERT INTO feed (rev, kind, key, head, organization) SELECT before + n, 3, key, head, NULL FROM entries, here
    ), to_head AS (
        INSERT INTO head (kind, key, head, rev, organization) SELECT 3, key, head, before + n, NULL FROM entries, here
        ON CONFLICT (kind, key) DO UPDATE SET head = excluded.head, rev = excluded.rev
    ), to_evidence AS (
        INSERT INTO evidence (rev, caller, request_id, actor, channel, notice, document)
        SELECT before + n, $9, name, 'bench', 6, '', NULL FROM entries, here
    ), to_subject AS (
        INSERT INTO subject (subject, kind, key, id) SELECT name, 3, key, id FROM entries, here
    ), to_request AS (
        INSERT INTO request (caller, request_id, payload_hash, rev, chain, recorded_at, changed)
        SELECT $9, name, hash, before + n, hash, recorded_at, true FROM entries, here
    )
    SELECT known, made FROM heads, requests, here";

/// How long the bytes of a real row are: of the newest event, and of the head that it made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    event: usize,
    head: usize,
}

/// Rows that are ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    event: Vec<u8>,
    head: Vec<u8>,
    hashes: Vec<[u8; 32]>,
    keys: Vec<[u8; 16]>,
    ids: Vec<String>,
    names: Vec<[u8; 16]>,
}

impl Batch {
    /// So many opt-outs of strangers.
    pub(crate) fn of(count: usize, lengths: Lengths, strangers: &Strangers, key: &IdKey) -> Batch {
        let ids: Vec<String> = (0..count).map(|_| strangers.next()).collect();
        Batch {
            event: vec![7; lengths.event],
            head: vec![7; lengths.head],
            hashes: vec![[7; 32]; count],
            keys: ids.iter().map(|id| *key.account(id).bytes()).collect(),
            // As random as the product's, without drawing them.
            names: ids.iter().map(|id| *key.artifact(id).bytes()).collect(),
            ids,
        }
    }
}

/// A connection with the settings of the lane's.
pub(crate) struct Connection(PgConnection);

impl Connection {
    pub(crate) async fn open(url: &str) -> anyhow::Result<Connection> {
        let settings = [
            ("synchronous_commit", "on"),
            ("statement_timeout", "5s"),
            ("lock_timeout", "4s"),
            ("seq_page_cost", "10"),
            ("random_page_cost", "1"),
        ];
        let options = PgConnectOptions::from_str(url)?.options(settings).disable_statement_logging();
        Ok(Connection(options.connect().await?))
    }

    /// Of the newest event in its ledger.
    pub(crate) async fn lengths(&mut self) -> anyhow::Result<Lengths> {
        let newest = "SELECT octet_length(event) AS event, octet_length(feed.head) AS head
                      FROM ledger JOIN feed USING (rev) ORDER BY rev DESC LIMIT 1";
        let row = sqlx::query(newest).fetch_one(&mut self.0).await?;
        let length = |name| usize::try_from(row.try_get::<i32, _>(name)?).context("a length");
        Ok(Lengths { event: length("event")?, head: length("head")? })
    }

    /// Commits a batch.
    pub(crate) async fn commit(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let count = batch.ids.len();
        let row = sqlx::query(APPEND)
            .bind(batch.keys.iter().map(|_| batch.event.as_slice()).bind_iter())
            .bind(batch.hashes.iter().copied().bind_iter())
            .bind(batch.keys.iter().copied().bind_iter())
            .bind(batch.keys.iter().map(|_| batch.head.as_slice()).bind_iter())
            .bind(batch.ids.iter().map(String::as_str).bind_iter())
            .bind(batch.names.iter().copied().bind_iter())
            .bind(i64::try_from(count)?)
            .bind(*batch.hashes.first().context("an empty batch")?)
            .bind(CALLER)
            .fetch_one(&mut self.0)
            .await?;
        let (known, made): (i64, i64) = (row.try_get("known")?, row.try_get("made")?);
        ensure!(known == 0 && made == 0, "{known} of the strangers are known, and {made} requests were made");
        Ok(())
    }
}
