//! The ring: the tail of the ledger in memory, from which every session is served.
//!
//! It takes the next revision or nothing, and recomputes the chain of each, so what stands in it is a part of one
//! history of one epoch. It forgets its oldest revisions at its bounds: a session that needs one of those reads the
//! store. Another epoch empties it; whoever served from the old one is told so.
//!
//! A frame is made for the wire once, and shared by all sessions.

use crate::store::FeedEntry;
use consent::convert::sync::{self, Change};
use consent::pb;
use consent_core::confirm::{Frame, Place};
use consent_core::words::{Epoch, Revision, Timestamp};
use prost::Message;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use thiserror::Error;
use tokio::sync::{Notify, watch};

/// How much of the ledger is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Revisions, at least one.
    pub revisions: usize,
    /// Bytes of them on the wire.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { revisions: 65_536, bytes: 64 << 20 }
    }
}

/// How much one message of frames may hold; one frame always fits.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Frames.
    pub frames: usize,
    /// Bytes of them.
    pub bytes: usize,
}

/// The end of the ledger, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Where it is.
    pub place: Place,
    /// When that was recorded.
    pub recorded_at: Timestamp,
}

/// A revision, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the ledger stands with it, and when that was recorded.
    pub at: Newest,
    /// As it is sent.
    pub frame: pb::Frame,
    /// Its bytes there.
    pub size: usize,
}

/// What follows a revision.
#[derive(Debug, PartialEq)]
pub enum Following {
    /// These, in order and without a gap; never none.
    Entries(Vec<Entry>),
    /// Nothing yet.
    Nothing,
    /// No longer here: read the store.
    Forgotten,
    /// The ledger has another epoch now.
    AnotherEpoch,
}

/// Why an entry is not the next of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotNext {
    /// A revision is missing, or came again.
    #[error("revision {found} came after {newest}")]
    Gap {
        /// What was there.
        newest: Revision,
        /// What came.
        found: Revision,
    },
    /// It is of another history than what was there.
    #[error("the chain at revision {0} does not follow from the one before")]
    Chain(Revision),
}

/// The tail of the ledger. Clones share it.
#[derive(Debug, Clone)]
pub struct Ring {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    // Written under the lock of `kept`, so that whoever was woken finds what woke it.
    newest: watch::Sender<Newest>,
    kept: RwLock<Kept>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    // The last one is always the newest revision; none when nothing came since the start.
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Ring {
    /// A ring that goes on from the end of a ledger.
    pub fn new(bounds: Bounds, from: Newest) -> Ring {
        let (newest, _) = watch::channel(from);
        Ring { shared: Arc::new(Shared { bounds, newest, kept: RwLock::default(), more: Notify::new() }) }
    }

    /// The end of the ledger, as far as it is known here.
    pub fn newest(&self) -> Newest {
        *self.shared.newest.borrow()
    }

    /// Tells of every change of [`Ring::newest`].
    pub fn watch(&self) -> watch::Receiver<Newest> {
        self.shared.newest.subscribe()
    }

    /// Says that something was committed: whoever fills the ring should look now, not at its next poll.
    pub fn expect_more(&self) {
        self.shared.more.notify_one();
    }

    /// Until somebody said that something was committed.
    pub(crate) async fn more(&self) {
        self.shared.more.notified().await;
    }

    /// Takes the next revisions, if they are that; nothing of them otherwise. Whoever watches is woken once.
    pub(crate) fn push(&self, page: Vec<FeedEntry>) -> Result<Vec<Place>, NotNext> {
        let mut at = self.newest();
        let mut entries = Vec::with_capacity(page.len());
        for entry in page {
            let entry = Entry::following(at.place, entry)?;
            at = entry.at;
            entries.push(entry);
        }
        let places = entries.iter().map(|entry| entry.at.place).collect();
        let mut kept = self.write();
        kept.bytes += entries.iter().map(|entry| entry.size).sum::<usize>();
        kept.entries.extend(entries);
        kept.forget(self.shared.bounds);
        self.shared.newest.send_replace(at);
        Ok(places)
    }

    /// Goes on from the end of another history.
    pub(crate) fn restart(&self, from: Newest) {
        let mut kept = self.write();
        *kept = Kept::default();
        self.shared.newest.send_replace(from);
    }

    /// What follows `after` in `epoch`, at most a batch of it.
    pub fn after(&self, epoch: Epoch, after: Revision, batch: Batch) -> Following {
        let kept = self.read();
        let newest = self.newest().place;
        if newest.epoch != epoch {
            return Following::AnotherEpoch;
        }
        if after >= newest.revision {
            return Following::Nothing;
        }
        let oldest = newest.revision.get() + 1 - kept.entries.len() as u64;
        let Some(skip) = (after.get() + 1).checked_sub(oldest) else { return Following::Forgotten };
        let mut bytes = 0;
        let fits = |(index, entry): &(usize, &Entry)| {
            bytes += entry.size;
            *index == 0 || bytes <= batch.bytes
        };
        let entries = kept.entries.iter().skip(skip as usize).take(batch.frames).enumerate();
        Following::Entries(entries.take_while(fits).map(|(_, entry)| entry.clone()).collect())
    }

    // A panic while one of these is held leaves no half-made change that a reader could see as whole: `newest` is
    // written last, and `after` counts back from it.
    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.shared.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.shared.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    // The newest stays, however large it is.
    fn forget(&mut self, bounds: Bounds) {
        while self.entries.len() > 1
            && (self.entries.len() > bounds.revisions || self.bytes > bounds.bytes)
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.size;
        }
    }
}

impl Entry {
    /// What the store gave, if it is what follows `before`.
    pub(crate) fn following(before: Place, entry: FeedEntry) -> Result<Entry, NotNext> {
        if !entry.revision.follows(before.revision) {
            return Err(NotNext::Gap { newest: before.revision, found: entry.revision });
        }
        if entry.chain != before.chain.then(entry.link) {
            return Err(NotNext::Chain(entry.revision));
        }
        let frame = Frame {
            epoch: before.epoch,
            revision: entry.revision,
            link: entry.link,
            chain: entry.chain,
            digest: entry.digest,
        };
        let at = Newest { place: frame.place(), recorded_at: entry.recorded_at };
        let frame = sync::frame(Change { frame, recorded_at: entry.recorded_at, head: entry.head });
        Ok(Entry { at, size: frame.encoded_len(), frame })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::chain::{Chain, Link};
    use consent_core::digest::Digest;
    use consent_core::head::HeadKey;
    use consent_core::ledger::HeadRecord;

    const EPOCH: Epoch = Epoch::new([1; 16]);
    const ALL: Batch = Batch { frames: usize::MAX, bytes: usize::MAX };

    fn start(epoch: Epoch) -> Newest {
        let place =
            Place { epoch, revision: Revision::ZERO, chain: Chain::EMPTY, digest: Digest::new([0; 32]) };
        Newest { place, recorded_at: Timestamp::from_millis(0) }
    }

    fn next(after: Place) -> FeedEntry {
        let link = Link::new([after.revision.get() as u8; 32]);
        FeedEntry {
            revision: after.revision.next().expect("few revisions"),
            recorded_at: Timestamp::from_millis(1),
            link,
            chain: after.chain.then(link),
            digest: Digest::new([7; 32]),
            head: HeadRecord { key: HeadKey::Policy, bytes: vec![1, 2, 3] },
        }
    }

    fn filled(bounds: Bounds, count: u64) -> Ring {
        let ring = Ring::new(bounds, start(EPOCH));
        for _ in 0..count {
            ring.push(vec![next(ring.newest().place)]).expect("the next");
        }
        ring
    }

    fn revisions(following: Following) -> Vec<u64> {
        let Following::Entries(entries) = following else { panic!("no entries: {following:?}") };
        entries.iter().map(|entry| entry.at.place.revision.get()).collect()
    }

    fn at(number: u64) -> Revision {
        Revision::new(number).expect("a revision")
    }

    #[test]
    fn it_takes_the_next_revision_or_nothing() {
        let ring = filled(Bounds::default(), 2);
        let newest = ring.newest().place;
        let gap = FeedEntry { revision: at(5), ..next(newest) };
        assert_eq!(ring.push(vec![next(newest), gap]), Err(NotNext::Gap { newest: at(3), found: at(5) }));
        let again = FeedEntry { revision: at(2), ..next(newest) };
        assert_eq!(ring.push(vec![again]), Err(NotNext::Gap { newest: at(2), found: at(2) }));
        let forked = FeedEntry { chain: Chain::new([9; 32]), ..next(newest) };
        assert_eq!(ring.push(vec![forked]), Err(NotNext::Chain(at(3))));
        assert_eq!(ring.newest().place, newest);
    }

    #[test]
    fn it_gives_what_follows_without_a_gap() {
        let ring = filled(Bounds::default(), 5);
        assert_eq!(revisions(ring.after(EPOCH, at(0), ALL)), [1, 2, 3, 4, 5]);
        assert_eq!(revisions(ring.after(EPOCH, at(3), ALL)), [4, 5]);
        assert_eq!(revisions(ring.after(EPOCH, at(0), Batch { frames: 2, ..ALL })), [1, 2]);
        assert_eq!(revisions(ring.after(EPOCH, at(0), Batch { bytes: 1, ..ALL })), [1]);
        assert_eq!(ring.after(EPOCH, at(5), ALL), Following::Nothing);
        assert_eq!(ring.after(EPOCH, at(9), ALL), Following::Nothing);
    }

    #[test]
    fn it_forgets_its_oldest_at_either_bound() {
        let few = filled(Bounds { revisions: 3, ..Bounds::default() }, 5);
        assert_eq!(few.after(EPOCH, at(1), ALL), Following::Forgotten);
        assert_eq!(revisions(few.after(EPOCH, at(2), ALL)), [3, 4, 5]);
        let small = filled(Bounds { bytes: 1, ..Bounds::default() }, 5);
        assert_eq!(small.after(EPOCH, at(3), ALL), Following::Forgotten);
        assert_eq!(revisions(small.after(EPOCH, at(4), ALL)), [5]);
    }

    #[test]
    fn another_epoch_empties_it() {
        let ring = filled(Bounds::default(), 3);
        let other = Epoch::new([2; 16]);
        ring.restart(start(other));
        assert_eq!(ring.after(EPOCH, at(0), ALL), Following::AnotherEpoch);
        assert_eq!(ring.after(other, at(0), ALL), Following::Nothing);
    }

    #[tokio::test]
    async fn who_watches_finds_what_woke_it() {
        let ring = filled(Bounds::default(), 0);
        let mut watch = ring.watch();
        ring.push(vec![next(ring.newest().place)]).expect("the next");
        watch.changed().await.expect("the ring lives");
        assert_eq!(revisions(ring.after(EPOCH, at(0), ALL)), [1]);
    }
}
