//! Reads of committed state, the same statements on both stores.
//!
//! Each is one statement, so one snapshot, and starts from the ledger's head where the live server is the stored
//! one: no row at all is [`StoreError::Foreign`], whatever else stands there.

use super::rows::{
    Columns, Source, Value, foreign_if_empty, from_here, head_columns, head_record, kind_number, ledger_head,
    unreadable,
};
use super::{Evidence, FeedEntry, HeadPage, LedgerEntry, LedgerHead, Reader, RequestName, StoreError};
use consent_core::chain::Chain;
use consent_core::digest::Digest;
use consent_core::head::HeadKey;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Revision, Subject, Timestamp};
use std::fmt::Write;
use uuid::Uuid;

const HEAD: &str = concat!("SELECT ", head_columns!(), from_here!());

// Whatever is joined by revision is bounded by itself, here and in `LEDGER`: no planner infers that the one bound holds
// for the other, and a join in the order of revisions would then read everything up to it.
const FEED: &str = concat!(
    "SELECT f.*",
    from_here!(),
    "LEFT JOIN (SELECT rev, recorded_at, link, chain, digest, kind, key, head FROM feed JOIN ledger USING (rev)
                WHERE feed.rev > $1 AND ledger.rev > $1 ORDER BY rev LIMIT $2) f ON true
     ORDER BY f.rev"
);

const PROOF_AT: &str = concat!("SELECT l.chain, l.digest", from_here!(), "LEFT JOIN ledger l ON l.rev = $1");

const HEADS_AFTER: &str = concat!(
    "SELECT h.last_rev, p.*",
    from_here!(),
    "LEFT JOIN (SELECT kind, key, head FROM head WHERE (kind, key) > ($1, $2) ORDER BY kind, key LIMIT $3) p
     ON true ORDER BY p.kind, p.key"
);

// The list of places is put between the two.
const HEADS_OF: (&str, &str) = (
    "WITH asked AS (SELECT kind, key, organization FROM head WHERE (kind, key) IN (VALUES ",
    concat!(
        ")), named AS (SELECT kind, key FROM asked
                       UNION SELECT 2, organization FROM asked WHERE organization IS NOT NULL
                       UNION SELECT kind, key FROM head WHERE kind = 1)
         SELECT ",
        head_columns!(),
        ", p.kind, p.key, p.head",
        from_here!(),
        "LEFT JOIN (SELECT head.kind, head.key, head.head FROM named JOIN head USING (kind, key)) p ON true"
    ),
);

const ID_OF: &str = concat!("SELECT p.id", from_here!(), "LEFT JOIN subject p ON p.kind = $1 AND p.key = $2");

const LEDGER: &str = concat!(
    "SELECT ",
    head_columns!(),
    ", l.rev, l.event, l.chain, e.caller, e.request_id, e.actor, e.channel, e.notice,
       a.subject, a.id, o.subject AS o_subject, o.id AS o_id",
    from_here!(),
    "LEFT JOIN (SELECT rev, event, chain FROM ledger WHERE rev > $1 ORDER BY rev LIMIT $2) l ON true
     LEFT JOIN evidence e ON e.rev = l.rev AND e.rev > $1
     LEFT JOIN feed f ON f.rev = l.rev AND f.rev > $1
     LEFT JOIN subject a ON a.kind = f.kind AND a.key = f.key
     LEFT JOIN subject o ON o.kind = 2 AND o.key = f.organization
     ORDER BY l.rev"
);

const POLICY_DOCUMENT: &str = concat!(
    "SELECT p.*",
    from_here!(),
    "LEFT JOIN (SELECT document, rev, recorded_at FROM evidence JOIN ledger USING (rev)
                WHERE document IS NOT NULL ORDER BY rev DESC LIMIT 1) p ON true"
);

/// The readers' role over any source of rows.
#[derive(Clone)]
pub struct Reads<S>(pub(super) S);

impl<S> std::fmt::Debug for Reads<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reads")
    }
}

impl<S: Source> Reader for Reads<S> {
    async fn head(&self) -> Result<LedgerHead, StoreError> {
        ledger_head(foreign_if_empty(&self.0.rows(HEAD, &[]).await?)?)
    }

    async fn feed(&self, after: Revision, limit: u32) -> Result<Vec<FeedEntry>, StoreError> {
        let rows = self.0.rows(FEED, &[Value::revision(after), Value::Int(limit.into())]).await?;
        foreign_if_empty(&rows)?;
        let mut entries = Vec::with_capacity(rows.len());
        let mut last = after;
        for row in &rows {
            let Some(head) = head_record(row)? else { break };
            let entry = FeedEntry {
                revision: row.revision("rev")?,
                recorded_at: row.instant("recorded_at")?,
                link: row.link("link")?,
                chain: row.chain("chain")?,
                digest: row.digest("digest")?,
                head,
            };
            if !entry.revision.follows(last) {
                return Err(StoreError::Broken(format!("revision {last} is followed by {}", entry.revision)));
            }
            last = entry.revision;
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn proof_at(&self, revision: Revision) -> Result<Option<(Chain, Digest)>, StoreError> {
        let rows = self.0.rows(PROOF_AT, &[Value::revision(revision)]).await?;
        let row = foreign_if_empty(&rows)?;
        match row.bytes_or_null("chain")? {
            Some(_) => Ok(Some((row.chain("chain")?, row.digest("digest")?))),
            None if revision == Revision::ZERO => Ok(Some((Chain::EMPTY, Digest::EMPTY))),
            None => Ok(None),
        }
    }

    async fn heads_after(&self, after: Option<HeadKey>, limit: u32) -> Result<HeadPage, StoreError> {
        let (kind, key) = after.map_or((0, [0; 16]), |after| (kind_number(after), after.bytes()));
        let values = [Value::Small(kind), Value::Bytes(&key), Value::Int(limit.into())];
        let rows = self.0.rows(HEADS_AFTER, &values).await?;
        let revision = foreign_if_empty(&rows)?.revision("last_rev")?;
        let heads = rows.iter().filter_map(|row| head_record(row).transpose()).collect::<Result<_, _>>()?;
        Ok(HeadPage { revision, heads })
    }

    async fn heads_of(&self, keys: &[HeadKey]) -> Result<(LedgerHead, Vec<HeadRecord>), StoreError> {
        let places: Vec<(i16, [u8; 16])> =
            padded(keys, HeadKey::Policy).map(|key| (kind_number(key), key.bytes())).collect();
        let mut sql = String::from(HEADS_OF.0);
        let mut values = Vec::with_capacity(2 * places.len());
        for (index, (kind, key)) in places.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}(${}, ${})", 2 * index + 1, 2 * index + 2);
            values.extend([Value::Small(*kind), Value::Bytes(key)]);
        }
        sql.push_str(HEADS_OF.1);
        let rows = self.0.rows(sql, &values).await?;
        let head = ledger_head(foreign_if_empty(&rows)?)?;
        let heads = rows.iter().filter_map(|row| head_record(row).transpose()).collect::<Result<_, _>>()?;
        Ok((head, heads))
    }

    async fn id_of(&self, key: HeadKey) -> Result<Option<String>, StoreError> {
        let place = key.bytes();
        let rows = self.0.rows(ID_OF, &[Value::Small(kind_number(key)), Value::Bytes(&place)]).await?;
        foreign_if_empty(&rows)?.text_or_null("id")
    }

    async fn ledger(
        &self,
        after: Revision,
        limit: u32,
    ) -> Result<(LedgerHead, Vec<LedgerEntry>), StoreError> {
        let rows = self.0.rows(LEDGER, &[Value::revision(after), Value::Int(limit.into())]).await?;
        let head = ledger_head(foreign_if_empty(&rows)?)?;
        let entries =
            rows.iter().filter_map(|row| ledger_entry(row).transpose()).collect::<Result<_, _>>()?;
        Ok((head, entries))
    }

    async fn policy_document(&self) -> Result<Option<(String, Revision, Timestamp)>, StoreError> {
        let rows = self.0.rows(POLICY_DOCUMENT, &[]).await?;
        let row = foreign_if_empty(&rows)?;
        match row.text_or_null("document")? {
            Some(document) => Ok(Some((document, row.revision("rev")?, row.instant("recorded_at")?))),
            None => Ok(None),
        }
    }
}

fn ledger_entry(row: &impl Columns) -> Result<Option<LedgerEntry>, StoreError> {
    let Some(event) = row.bytes_or_null("event")? else { return Ok(None) };
    let mut ids = Vec::new();
    for (subject, id) in [("subject", "id"), ("o_subject", "o_id")] {
        if let Some(id) = row.text_or_null(id)? {
            ids.push((Subject::new(row.array(subject)?), id));
        }
    }
    let evidence = match row.text_or_null("caller")? {
        Some(caller) => Some(Evidence {
            request: RequestName { caller, request_id: Uuid::from_bytes(row.array("request_id")?) },
            actor: row.text("actor")?,
            channel: i32::try_from(row.int("channel")?).map_err(|_| unreadable("channel"))?,
            notice: row.text("notice")?,
        }),
        None => None,
    };
    Ok(Some(LedgerEntry { event, chain: row.chain("chain")?, ids, evidence }))
}

/// The items and as many of `filler` as make a power of two: few lengths, so few texts of one statement.
pub(super) fn padded<T: Copy>(items: &[T], filler: T) -> impl Iterator<Item = T> {
    let length = items.len().max(1).next_power_of_two();
    items.iter().copied().chain(std::iter::repeat(filler)).take(length)
}
