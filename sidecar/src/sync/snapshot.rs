//! A snapshot on its way: pages of heads, with frames of what changed meanwhile between them.
//!
//! It is built beside the table that answers, and is no table: nobody but this thread sees it before it is whole. A
//! page may be older than a frame that came before it: the newer head wins. The frames must be one chain, from where
//! the snapshot begins to where it ends.
//!
//! When its stream breaks it is kept for a while, to go on from on another stream: what it holds is every head up to
//! its last page, as new as its frames or newer, and that stays so.

use crate::table::Heads;
use consent::clock;
use consent::convert::sync::{Change, Unfinished};
use consent_core::confirm::{Place, Seal, Stream};
use consent_core::head::{HeadKey, Unreadable};
use consent_core::ledger::HeadRecord;
use consent_core::words::{IdKey, Moment, Revision, Span};
use thiserror::Error;

/// How long a snapshot is kept whose stream broke. It takes as much memory as the table that it may become; after this
/// the frames that it lacks would soon be as many as the heads that it has.
const KEPT: Span = Span::from_millis(60_000);

/// Why a snapshot cannot become a table.
#[derive(Debug, Error)]
pub(super) enum BadSnapshot {
    /// A head is malformed.
    #[error("a head of the snapshot {0}")]
    Head(#[from] Unreadable),
    /// Something of it came before it was begun, or it began twice.
    #[error("a snapshot begins once, and before its pages")]
    Begin,
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
    /// Where the frames have led so far; `None` before it begins.
    reached: Option<Place>,
    /// The last head of its pages.
    last: Option<HeadKey>,
    /// The newest revision of a page.
    newest_page: Revision,
}

/// A snapshot whose stream broke.
pub(super) struct Broken {
    snapshot: Snapshot,
    /// How it is named in a hello.
    named: Unfinished,
    since: Moment,
}

impl Snapshot {
    pub(super) fn new(stream: Stream, id_key: IdKey) -> Snapshot {
        let heads = Heads::new(id_key);
        Snapshot { stream, heads, reached: None, last: None, newest_page: Revision::ZERO }
    }

    /// The stream that brings it.
    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    /// From here on there are frames.
    pub(super) fn begin(&mut self, at: Place) -> Result<(), BadSnapshot> {
        if self.reached.replace(at).is_some() { Err(BadSnapshot::Begin) } else { Ok(()) }
    }

    /// A page, read when the store stood at `revision`.
    pub(super) fn page(&mut self, heads: Vec<HeadRecord>, revision: Revision) -> Result<(), BadSnapshot> {
        if self.reached.is_none() {
            return Err(BadSnapshot::Begin);
        }
        self.last = heads.last().map(|head| head.key).or(self.last);
        self.newest_page = self.newest_page.max(revision);
        for head in heads {
            self.heads.put_if_newer(head.key, &head.bytes, revision)?;
        }
        Ok(())
    }

    /// A frame between pages.
    pub(super) fn change(&mut self, change: Change) -> Result<(), BadSnapshot> {
        let Change { frame, head, .. } = change;
        let Some(reached) = self.reached else { return Err(BadSnapshot::Begin) };
        let follows = frame.revision.follows(reached.revision)
            && frame.chain == reached.chain.then(frame.link)
            && frame.epoch == reached.epoch;
        if !follows {
            return Err(BadSnapshot::Chain(frame.revision));
        }
        self.heads.put_if_newer(head.key, &head.bytes, frame.revision)?;
        self.reached = Some(frame.place());
        Ok(())
    }

    /// The heads, if the snapshot ends where its frames led. Whether they have the digest that they should have is
    /// for the table, and the holder, to say.
    pub(super) fn end(self, place: &Place) -> Result<Heads, BadSnapshot> {
        match self.reached {
            None => Err(BadSnapshot::Begin),
            Some(reached) if (reached.revision, reached.chain) != (place.revision, place.chain) => {
                Err(BadSnapshot::End { end: place.revision, frames: reached.revision })
            }
            Some(_) => Ok(self.heads),
        }
    }

    /// What is left of it when its stream breaks now; nothing where it has no page yet.
    pub(super) fn broken(self) -> Option<Broken> {
        let (reached, last) = self.reached.zip(self.last)?;
        let seal = Seal::of(self.heads.id_key(), &reached);
        let named = Unfinished { reached, last, newest_chunk: self.newest_page, seal };
        Some(Broken { snapshot: self, named, since: clock::now() })
    }
}

impl Broken {
    /// How it is named in a hello.
    pub(super) fn named(&self) -> Unfinished {
        self.named
    }

    /// A hint when it is over.
    pub(super) fn over_at(&self) -> Moment {
        self.since.after(KEPT)
    }

    /// Has it been kept for long enough?
    pub(super) fn is_over(&self, now: Moment) -> bool {
        now.longest_since(self.since) >= KEPT
    }

    /// The same, whose rest this stream brings; `None` if that comes under another secret.
    pub(super) fn go_on(mut self, stream: Stream, id_key: IdKey) -> Option<Snapshot> {
        self.snapshot.stream = stream;
        (*self.snapshot.heads.id_key() == id_key).then_some(self.snapshot)
    }
}
