//! A head on its way into a table.

use consent_core::head::{Head, HeadKey, HeadKind, Unreadable};
use consent_core::ledger::HeadRecord;
use consent_core::words::Revision;

/// A head: read, or found to need a newer reader.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) key: HeadKey,
    pub(super) bytes: Vec<u8>,
    pub(super) read: Read,
}

#[derive(Debug)]
pub(super) enum Read {
    /// It can be read.
    Head(Head),
    /// It needs a newer reader: kept, since the digest counts it, and whoever needs it is denied.
    Newer {
        /// The revision at which it was so: its own is in the bytes that cannot be read.
        as_of: Revision,
    },
}

impl Incoming {
    /// Reads a head as it was at revision `as_of`. Bytes that no writer of any version wrote are an error.
    pub(crate) fn read(record: HeadRecord, as_of: Revision) -> Result<Incoming, Unreadable> {
        let HeadRecord { key, bytes } = record;
        let read = match Head::decode(key.kind(), &bytes) {
            Ok(head) => Read::Head(head),
            Err(Unreadable::Newer(_)) => Read::Newer { as_of },
            Err(malformed @ Unreadable::Malformed(_)) => return Err(malformed),
        };
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

    pub(super) fn rev(&self) -> Revision {
        match &self.read {
            Read::Head(head) => head.rev(),
            Read::Newer { as_of } => *as_of,
        }
    }
}
