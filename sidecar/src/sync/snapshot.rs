//! A snapshot on its way: pages of heads, with frames of what changed meanwhile between them.
//!
//! It is built beside the table that answers. A page may be older than a frame that came before it: the newer head
//! wins. The frames must be one chain, and must lead to where the snapshot ends.

use crate::table::{Heads, Incoming};
use consent::convert::sync::Change;
use consent_core::confirm::{Place, Stream};
use consent_core::head::Unreadable;
use consent_core::ledger::HeadRecord;
use consent_core::words::{IdKey, Revision};
use thiserror::Error;

/// Why a snapshot cannot become a table.
#[derive(Debug, Error)]
pub(super) enum BadSnapshot {
    /// A head is malformed.
    #[error("a head of the snapshot {0}")]
    Head(#[from] Unreadable),
    /// The frames between its pages are no chain.
    #[error("the frames between the pages of the snapshot are no chain at revision {0}")]
    Chain(Revision),
    /// It ends somewhere else than its frames.
    #[error("the snapshot ends at revision {end}, its frames at {frames}")]
    End {
        /// Where it says that it ends.
        end: Revision,
        /// Where the frames lead.
        frames: Revision,
    },
}

/// A snapshot that is not complete yet.
pub(super) struct Snapshot {
    stream: Stream,
    heads: Heads,
    /// Where the frames have led so far.
    reached: Option<Place>,
}

impl Snapshot {
    pub(super) fn new(stream: Stream, id_key: IdKey) -> Snapshot {
        Snapshot { stream, heads: Heads::new(id_key), reached: None }
    }

    /// The stream that brings it.
    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    /// A page, read when the store stood at `revision`.
    pub(super) fn page(&mut self, heads: Vec<HeadRecord>, revision: Revision) -> Result<(), BadSnapshot> {
        for head in heads {
            self.heads.put_if_newer(Incoming::read(head, revision)?);
        }
        Ok(())
    }

    /// A frame between pages.
    pub(super) fn change(&mut self, change: Change) -> Result<(), BadSnapshot> {
        let Change { frame, head, .. } = change;
        let follows = |reached: &Place| {
            frame.revision.follows(reached.revision)
                && frame.chain == reached.chain.then(frame.link)
                && frame.epoch == reached.epoch
        };
        if !self.reached.as_ref().is_none_or(follows) {
            return Err(BadSnapshot::Chain(frame.revision));
        }
        self.reached = Some(frame.place());
        self.heads.put_if_newer(Incoming::read(head, frame.revision)?);
        Ok(())
    }

    /// The heads, if the snapshot ends where its frames led. Whether they have the digest that they should have is
    /// for the table, and the holder, to say.
    pub(super) fn end(self, place: &Place) -> Result<Heads, BadSnapshot> {
        match self.reached {
            Some(reached) if (reached.revision, reached.chain) != (place.revision, place.chain) => {
                Err(BadSnapshot::End { end: place.revision, frames: reached.revision })
            }
            Some(_) | None => Ok(self.heads),
        }
    }
}
