//! A head on its way into a table.

use super::encoding::NewRow;
use super::layout::Policy;
use consent_core::head::{HeadKey, HeadKind, PolicyHead, Unreadable};
use consent_core::ledger::HeadRecord;
use consent_core::words::Revision;
use std::sync::Arc;

/// A head: read, or found to need a newer reader.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) key: HeadKey,
    pub(super) bytes: Vec<u8>,
    pub(super) read: Read,
}

/// What becomes of a head in a table. One that needs a newer reader is kept, since the digest counts it, and whoever
/// needs it is denied.
#[derive(Debug)]
pub(super) enum Read {
    /// The policy is no row.
    Policy(Policy),
    /// A row.
    Row(NewRow),
}

impl Incoming {
    /// Reads a head as it was at revision `as_of`. Bytes that no writer of any version wrote are an error.
    pub(crate) fn read(record: HeadRecord, as_of: Revision) -> Result<Incoming, Unreadable> {
        let HeadRecord { key, bytes } = record;
        let read = Read::new(key.kind(), &bytes, as_of)?;
        Ok(Incoming { key, bytes, read })
    }

    /// What it is the head of.
    pub(crate) fn kind(&self) -> HeadKind {
        self.key.kind()
    }

    /// The head as it came.
    pub(crate) fn record(&self) -> HeadRecord {
        HeadRecord { key: self.key, bytes: self.bytes.clone() }
    }
}

impl Read {
    /// Reads a head of this kind as it was at revision `as_of`, which stands for its own where that cannot be read.
    pub(super) fn new(kind: HeadKind, bytes: &[u8], as_of: Revision) -> Result<Read, Unreadable> {
        let read = match kind {
            HeadKind::Policy => {
                PolicyHead::decode(bytes).map(|head| Read::Policy(Policy::Head(Arc::new(head))))
            }
            HeadKind::Organization => NewRow::organization(bytes).map(Read::Row),
            HeadKind::Account => NewRow::account(bytes).map(Read::Row),
            HeadKind::Exclusion => NewRow::exclusion(bytes).map(Read::Row),
        };
        match (read, kind) {
            (Err(Unreadable::Newer(_)), HeadKind::Policy) => Ok(Read::Policy(Policy::Unreadable(as_of))),
            (Err(Unreadable::Newer(_)), _) => Ok(Read::Row(NewRow::unreadable(as_of))),
            (read, _) => read,
        }
    }
}
