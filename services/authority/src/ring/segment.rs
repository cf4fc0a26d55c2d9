//! A few consecutive revisions as they are sent: encoded once, and cut anywhere without being copied.

use super::{Batch, Newest, NotNext};
use crate::store::FeedEntry;
use bytes::{Bytes, BytesMut};
use consent::convert::sync::{self, Change};
use consent::said::put_frame;
use consent_core::confirm::{Frame, Place};
use consent_core::words::Revision;

/// Consecutive revisions of one epoch; at least one.
#[derive(Debug)]
pub(super) struct Segment {
    encoded: Bytes,
    first: Revision,
    frames: Vec<Ended>,
}

/// Where the ledger stands with a revision, and where its frame ends.
#[derive(Debug)]
struct Ended {
    at: Newest,
    end: usize,
}

/// A part of a segment.
pub(super) struct Cut {
    pub(super) encoded: Bytes,
    pub(super) frames: usize,
    pub(super) last: Newest,
}

impl Segment {
    /// What the store gave, if it is what follows `before`; `None` if it gave nothing.
    pub(super) fn following(before: Place, page: &[FeedEntry]) -> Result<Option<Segment>, NotNext> {
        let Some(first) = page.first() else { return Ok(None) };
        let (mut at, mut encoded) = (before, BytesMut::new());
        let mut frames = Vec::with_capacity(page.len());
        for entry in page {
            let frame = following(at, entry)?;
            at = frame.place();
            let change = Change { frame, recorded_at: entry.recorded_at, head: entry.head.clone() };
            put_frame(&sync::frame(change), &mut encoded);
            let at = Newest { place: at, recorded_at: entry.recorded_at };
            frames.push(Ended { at, end: encoded.len() });
        }
        Ok(Some(Segment { encoded: encoded.freeze(), first: first.revision, frames }))
    }

    pub(super) fn first(&self) -> Revision {
        self.first
    }

    /// Where the ledger stands with its last revision.
    pub(super) fn last(&self) -> Option<Newest> {
        self.frames.last().map(|ended| ended.at)
    }

    /// How many revisions it has.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Their bytes on the wire.
    pub(super) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Where the ledger stands with each of them.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.frames.iter().map(|ended| ended.at.place)
    }

    /// What it has after a revision, at most a batch. The first frame always fits where `is_first`.
    pub(super) fn after(&self, after: Revision, batch: Batch, is_first: bool) -> Option<Cut> {
        let skip = usize::try_from((after.get() + 1).saturating_sub(self.first.get())).ok()?;
        let start = skip.checked_sub(1).map_or(Some(0), |before| Some(self.frames.get(before)?.end))?;
        let fits =
            |(index, ended): &(usize, &Ended)| (is_first && *index == 0) || ended.end - start <= batch.bytes;
        let rest = self.frames.get(skip..)?.iter().take(batch.frames).enumerate();
        let (last, ended) = rest.take_while(fits).last()?;
        Some(Cut { encoded: self.encoded.slice(start..ended.end), frames: last + 1, last: ended.at })
    }
}

/// The frame of an entry, if it is what follows `before`.
fn following(before: Place, entry: &FeedEntry) -> Result<Frame, NotNext> {
    if !entry.revision.follows(before.revision) {
        return Err(NotNext::Gap { newest: before.revision, found: entry.revision });
    }
    if entry.chain != before.chain.then(entry.link) {
        return Err(NotNext::Chain(entry.revision));
    }
    let FeedEntry { revision, link, chain, digest, .. } = *entry;
    Ok(Frame { epoch: before.epoch, revision, link, chain, digest })
}
