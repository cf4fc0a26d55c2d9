//! What both engines have in common: values go in, rows come out, and a row is read by the names of its columns.
//!
//! Reads and lease rows are written once against these two traits, so that both stores answer alike by
//! construction. What differs, the lane's locking and its multi-row statements, each store writes for itself.

use super::{LedgerHead, LockedHead, RequestName, RequestRecord, StoreError};
use consent_core::chain::{Chain, Link};
use consent_core::digest::Digest;
use consent_core::head::{HeadKey, HeadKind};
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, IdKey, Revision, Subject, Timestamp};
use sqlx::Row;
use std::borrow::Cow;
use std::future::Future;
use uuid::Uuid;

/// A parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Int(i64),
    Small(i16),
    Bytes(&'a [u8]),
    Text(&'a str),
}

impl Value<'static> {
    pub(super) fn revision(revision: Revision) -> Value<'static> {
        Value::Int(number(revision))
    }
}

/// Reads, each statement in a snapshot of its own.
pub trait Source: Clone + Send + Sync + 'static {
    type Row: Columns;
    fn rows(
        &self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;
}

/// A connection of one owner. An error ends its transaction and closes it; the next use opens another.
pub trait Session: Send + 'static {
    type Row: Columns;
    fn begin(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn rows(
        &mut self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;
    /// How many rows it changed.
    fn execute(
        &mut self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
    fn commit(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn rollback(&mut self) -> impl Future<Output = ()> + Send;
}

/// A row, by the names of its columns.
pub trait Columns: Send + Sync {
    fn int(&self, name: &str) -> Result<i64, StoreError>;
    fn small(&self, name: &str) -> Result<i16, StoreError>;
    fn flag(&self, name: &str) -> Result<bool, StoreError>;
    fn bytes(&self, name: &str) -> Result<Vec<u8>, StoreError>;
    fn bytes_or_null(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    fn text(&self, name: &str) -> Result<String, StoreError>;
    fn text_or_null(&self, name: &str) -> Result<Option<String>, StoreError>;

    fn array<const N: usize>(&self, name: &str) -> Result<[u8; N], StoreError> {
        self.bytes(name)?.try_into().map_err(|_| unreadable(name))
    }
    fn revision(&self, name: &str) -> Result<Revision, StoreError> {
        let number = u64::try_from(self.int(name)?).ok();
        number.and_then(Revision::new).ok_or_else(|| unreadable(name))
    }
    fn instant(&self, name: &str) -> Result<Timestamp, StoreError> {
        self.int(name).map(Timestamp::from_millis)
    }
    fn chain(&self, name: &str) -> Result<Chain, StoreError> {
        self.array(name).map(Chain::new)
    }
    fn link(&self, name: &str) -> Result<Link, StoreError> {
        self.array(name).map(Link::new)
    }
    fn digest(&self, name: &str) -> Result<Digest, StoreError> {
        self.array(name).map(Digest::new)
    }
}

/// Both row types of sqlx have the same methods and no trait that says so without naming the column types again.
macro_rules! columns_of {
    ($row:ty) => {
        impl Columns for $row {
            fn int(&self, name: &str) -> Result<i64, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
            fn small(&self, name: &str) -> Result<i16, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
            fn flag(&self, name: &str) -> Result<bool, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
            fn bytes(&self, name: &str) -> Result<Vec<u8>, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
            fn bytes_or_null(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
            fn text(&self, name: &str) -> Result<String, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
            fn text_or_null(&self, name: &str) -> Result<Option<String>, StoreError> {
                self.try_get(name).map_err(|_| unreadable(name))
            }
        }
    };
}

columns_of!(sqlx::postgres::PgRow);
columns_of!(sqlx::sqlite::SqliteRow);

/// The columns of the ledger's head, for a row that [`ledger_head`] reads.
macro_rules! head_columns {
    () => {
        "h.epoch, h.settled_epoch, h.last_rev, h.chain AS last_chain, h.digest AS last_digest, \
         h.recorded_at AS last_recorded_at, h.id_key"
    };
}

/// The ledger's head, only where this server is the one stored: the start of every statement.
macro_rules! from_here {
    () => {
        " FROM ledger_head h JOIN live_server s ON h.server_identity = s.identity "
    };
}
pub(super) use {from_here, head_columns};

pub(super) fn ledger_head(row: &impl Columns) -> Result<LedgerHead, StoreError> {
    Ok(LedgerHead {
        epoch: Epoch::new(row.array("epoch")?),
        settled_epoch: Some(Epoch::new(row.array("settled_epoch")?)),
        revision: row.revision("last_rev")?,
        chain: row.chain("last_chain")?,
        digest: row.digest("last_digest")?,
        recorded_at: row.instant("last_recorded_at")?,
        id_key: IdKey::new(row.array("id_key")?),
    })
}

/// The head in the columns `kind`, `key`, `head`; none where an outer join found none.
pub(super) fn head_record(row: &impl Columns) -> Result<Option<HeadRecord>, StoreError> {
    let Some(bytes) = row.bytes_or_null("head")? else { return Ok(None) };
    let kind = u8::try_from(row.small("kind")?).ok().and_then(HeadKind::from_number);
    let key =
        kind.and_then(|kind| HeadKey::new(kind, row.array("key").ok()?)).ok_or_else(|| unreadable("key"))?;
    Ok(Some(HeadRecord { key, bytes }))
}

/// The head with its place in the ledger; none where the row is of something else.
pub(super) fn locked_head(row: &impl Columns) -> Result<Option<LockedHead>, StoreError> {
    let Some(record) = head_record(row)? else { return Ok(None) };
    let subject =
        row.bytes_or_null("subject")?.map(|_| row.array("subject").map(Subject::new)).transpose()?;
    let (revision, chain, recorded_at) =
        (row.revision("rev")?, row.chain("chain")?, row.instant("recorded_at")?);
    Ok(Some(LockedHead { record, subject, revision, chain, recorded_at }))
}

/// The request in the row; none where the row is of something else.
pub(super) fn request_record(row: &impl Columns) -> Result<Option<RequestRecord>, StoreError> {
    let Some(caller) = row.text_or_null("caller")? else { return Ok(None) };
    Ok(Some(RequestRecord {
        name: RequestName { caller, request_id: Uuid::from_bytes(row.array("request_id")?) },
        payload_hash: row.array("payload_hash")?,
        revision: row.revision("rev")?,
        chain: row.chain("chain")?,
        recorded_at: row.instant("recorded_at")?,
        changed: row.flag("changed")?,
    }))
}

/// No row of the ledger's head means one thing: this is not the server that was stored.
pub(super) fn foreign_if_empty<R>(rows: &[R]) -> Result<&R, StoreError> {
    rows.first().ok_or(StoreError::Foreign)
}

pub(super) fn kind_number(key: HeadKey) -> i16 {
    i16::from(key.kind().number())
}

pub(super) fn number(revision: Revision) -> i64 {
    // At most 2^40 - 1.
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

pub(super) fn unreadable(name: &str) -> StoreError {
    StoreError::Broken(format!("the column {name} cannot be read"))
}
