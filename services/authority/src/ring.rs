//! The ring: the tail of the ledger in memory, from which every session is served.
//!
//! It takes the next revision or nothing, and recomputes the chain of each, so what stands in it is a part of one
//! history of one epoch. It forgets its oldest revisions at its bounds: a session that needs one of those reads the
//! store. Another epoch empties it; whoever served from the old one is told so.
//!
//! A frame is encoded for the wire once, when it comes, and shared by all sessions: wherever a session stands, what it
//! is sent next is a run of bytes that lie here.

mod segment;

use crate::store::FeedEntry;
use bytes::Bytes;
use consent::said::{Encoded, Said};
use consent_core::confirm::Place;
use consent_core::words::{Epoch, Revision, Timestamp};
use segment::Segment;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use thiserror::Error;
use tokio::sync::{Notify, watch};

/// So many revisions are encoded together and forgotten together, at most.
const SEGMENT: usize = 256;

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

/// Consecutive revisions, ready to be sent.
#[derive(Debug)]
pub struct Run {
    /// Their frames, encoded, in order.
    parts: Vec<Bytes>,
    /// Where the ledger stands with the last of them.
    last: Newest,
}

impl Run {
    /// Where the ledger stands with the last of them.
    pub fn last(&self) -> Newest {
        self.last
    }

    /// As one message.
    pub fn said(self) -> Said {
        Said::Encoded(Encoded::frames(self.last.place.epoch, self.parts))
    }
}

/// What follows a revision.
#[derive(Debug)]
pub enum Following {
    /// These, in order and without a gap.
    Frames(Run),
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
    // The last one ends with the newest revision; none when nothing came since the start.
    segments: VecDeque<Segment>,
    revisions: usize,
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
    pub(crate) fn push(&self, page: &[FeedEntry]) -> Result<Vec<Place>, NotNext> {
        let mut at = self.newest();
        let mut segments = Vec::new();
        for few in page.chunks(SEGMENT.min(self.shared.bounds.revisions.max(1))) {
            if let Some(segment) = Segment::following(at.place, few)? {
                at = segment.last().unwrap_or(at);
                segments.push(segment);
            }
        }
        let places = segments.iter().flat_map(Segment::places).collect();
        let mut kept = self.write();
        kept.revisions += segments.iter().map(Segment::len).sum::<usize>();
        kept.bytes += segments.iter().map(Segment::bytes).sum::<usize>();
        kept.segments.extend(segments);
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
        let starts_later =
            kept.segments.partition_point(|segment| segment.first() <= after.next().unwrap_or(after));
        let Some(first) = starts_later.checked_sub(1) else { return Following::Forgotten };
        run(kept.segments.range(first..), after, batch).map_or(Following::Forgotten, Following::Frames)
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
        while self.segments.len() > 1
            && (self.revisions > bounds.revisions || self.bytes > bounds.bytes)
            && let Some(oldest) = self.segments.pop_front()
        {
            self.revisions -= oldest.len();
            self.bytes -= oldest.bytes();
        }
    }
}

/// What follows `before` in the store, at most a batch of it, for a session that needs what the ring has forgotten:
/// proved by the chain as in the ring.
pub(crate) fn run_of(before: Place, page: &[FeedEntry], batch: Batch) -> Result<Option<Run>, NotNext> {
    let segment = Segment::following(before, page)?;
    Ok(segment.and_then(|segment| run([&segment], before.revision, batch)))
}

fn run<'a>(segments: impl IntoIterator<Item = &'a Segment>, after: Revision, batch: Batch) -> Option<Run> {
    let (mut parts, mut last, mut room): (_, Option<Newest>, _) = (Vec::new(), None, batch);
    for segment in segments {
        let at = last.map_or(after, |last| last.place.revision);
        let Some(cut) = segment.after(at, room, parts.is_empty()) else { break };
        room.frames = room.frames.saturating_sub(cut.frames);
        room.bytes = room.bytes.saturating_sub(cut.encoded.len());
        last = Some(cut.last);
        parts.push(cut.encoded);
        if segment.last() != last {
            break;
        }
    }
    last.map(|last| Run { parts, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::pb::sync_response::Message;
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
            ring.push(&[next(ring.newest().place)]).expect("the next");
        }
        ring
    }

    fn revisions(following: Following) -> Vec<u64> {
        let Following::Frames(run) = following else { panic!("no frames: {following:?}") };
        let last = run.last().place.revision.get();
        let Said::Encoded(encoded) = run.said() else { panic!("it is encoded") };
        let Some(Message::Frames(frames)) = encoded.read().expect("it can be read").message else {
            panic!("no frames")
        };
        let revisions: Vec<u64> = frames.frames.iter().map(|frame| frame.revision).collect();
        assert_eq!(revisions.last(), Some(&last));
        revisions
    }

    fn at(number: u64) -> Revision {
        Revision::new(number).expect("a revision")
    }

    #[test]
    fn it_takes_the_next_revision_or_nothing() {
        let ring = filled(Bounds::default(), 2);
        let newest = ring.newest().place;
        let gap = FeedEntry { revision: at(5), ..next(newest) };
        assert_eq!(ring.push(&[next(newest), gap]), Err(NotNext::Gap { newest: at(3), found: at(5) }));
        let again = FeedEntry { revision: at(2), ..next(newest) };
        assert_eq!(ring.push(&[again]), Err(NotNext::Gap { newest: at(2), found: at(2) }));
        let forked = FeedEntry { chain: Chain::new([9; 32]), ..next(newest) };
        assert_eq!(ring.push(&[forked]), Err(NotNext::Chain(at(3))));
        assert_eq!(ring.newest().place, newest);
    }

    #[test]
    fn it_gives_what_follows_without_a_gap() {
        let ring = filled(Bounds::default(), 5);
        assert_eq!(revisions(ring.after(EPOCH, at(0), ALL)), [1, 2, 3, 4, 5]);
        assert_eq!(revisions(ring.after(EPOCH, at(3), ALL)), [4, 5]);
        assert_eq!(revisions(ring.after(EPOCH, at(0), Batch { frames: 2, ..ALL })), [1, 2]);
        assert_eq!(revisions(ring.after(EPOCH, at(0), Batch { bytes: 1, ..ALL })), [1]);
        assert!(matches!(ring.after(EPOCH, at(5), ALL), Following::Nothing));
        assert!(matches!(ring.after(EPOCH, at(9), ALL), Following::Nothing));
    }

    #[test]
    fn a_run_goes_on_over_what_came_together() {
        let ring = filled(Bounds::default(), 2);
        let mut page = vec![next(ring.newest().place)];
        for _ in 1..2 * SEGMENT {
            let FeedEntry { revision, chain, digest, .. } = page[page.len() - 1];
            page.push(next(Place { epoch: EPOCH, revision, chain, digest }));
        }
        ring.push(&page).expect("the next");
        let last = 2 + 2 * SEGMENT as u64;
        assert_eq!(revisions(ring.after(EPOCH, at(1), ALL)), Vec::from_iter(2..=last));
        assert_eq!(revisions(ring.after(EPOCH, at(5), Batch { frames: 3, ..ALL })), [6, 7, 8]);
        let few = Batch { frames: SEGMENT, ..ALL };
        assert_eq!(revisions(ring.after(EPOCH, at(100), few)), Vec::from_iter(101..=100 + SEGMENT as u64));
        let Following::Frames(one) = ring.after(EPOCH, at(300), Batch { frames: 1, ..ALL }) else { panic!() };
        let two = Batch { bytes: 2 * one.parts[0].len(), ..ALL };
        assert_eq!(revisions(ring.after(EPOCH, at(257), two)), [258, 259]);
    }

    #[test]
    fn it_forgets_its_oldest_at_either_bound() {
        let few = filled(Bounds { revisions: 3, ..Bounds::default() }, 5);
        assert!(matches!(few.after(EPOCH, at(1), ALL), Following::Forgotten));
        assert_eq!(revisions(few.after(EPOCH, at(2), ALL)), [3, 4, 5]);
        let small = filled(Bounds { bytes: 1, ..Bounds::default() }, 5);
        assert!(matches!(small.after(EPOCH, at(3), ALL), Following::Forgotten));
        assert_eq!(revisions(small.after(EPOCH, at(4), ALL)), [5]);
    }

    #[test]
    fn another_epoch_empties_it() {
        let ring = filled(Bounds::default(), 3);
        let other = Epoch::new([2; 16]);
        ring.restart(start(other));
        assert!(matches!(ring.after(EPOCH, at(0), ALL), Following::AnotherEpoch));
        assert!(matches!(ring.after(other, at(0), ALL), Following::Nothing));
    }

    #[tokio::test]
    async fn who_watches_finds_what_woke_it() {
        let ring = filled(Bounds::default(), 0);
        let mut watch = ring.watch();
        ring.push(&[next(ring.newest().place)]).expect("the next");
        watch.changed().await.expect("the ring lives");
        assert_eq!(revisions(ring.after(EPOCH, at(0), ALL)), [1]);
    }
}
