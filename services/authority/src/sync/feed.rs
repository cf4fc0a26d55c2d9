//! What a session sends of the ledger: a snapshot where the sidecar has no table to go on from, and then every
//! revision, exactly once and in order.
//!
//! A snapshot is pages of heads in order of their keys, each read in a short transaction of its own, with the frames
//! of what changes meanwhile between them. A page shows heads as of its own read, so the table is whole only when
//! every frame up to the newest page's revision has been sent too: there the snapshot ends, with the proof of what
//! the table must now hold. Newest wins, so it does not matter whether a head or a newer frame of it comes first.
//!
//! Waiting ([`Feed::ready`]) may be given up at any time; making the next message ([`Feed::next`]) is not, since a
//! query that is dropped half way costs its connection.

use super::Shared;
use crate::ring::{Batch, Entry, Following, Newest, NotNext};
use crate::store::{Reader, StoreError};
use consent::clock;
use consent::convert::sync;
use consent::pb::SyncResponse;
use consent_core::confirm::Place;
use consent_core::head::HeadKey;
use consent_core::words::{Epoch, Moment, Revision, Span};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, watch};

/// Heads in one page.
const PAGE: u32 = 1_000;
/// How long one snapshot may take: a sidecar that takes a page now and then would keep its turn from all others.
const TURN: Span = Span::from_millis(600_000);
/// One message of frames.
const BATCH: Batch = Batch { frames: 256, bytes: 256 * 1024 };

type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// Why a feed cannot go on: its sidecar says hello again.
#[derive(Debug, Error)]
pub(super) enum Ended {
    /// The ledger has another epoch.
    #[error("the ledger has another epoch")]
    AnotherEpoch,
    /// The sidecar does not take what it is sent, or not fast enough.
    #[error("the sidecar takes too little")]
    Stalled,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger is another one than a moment ago.
    #[error(transparent)]
    NotNext(#[from] NotNext),
}

/// One session's way through the ledger.
pub(super) struct Feed<R: Reader> {
    shared: Arc<Shared<R>>,
    newest: watch::Receiver<Newest>,
    // Up to where the sidecar has been sent everything, in this epoch.
    sent: Newest,
    stage: Stage,
}

enum Stage {
    /// Waits for its turn at a snapshot, in the order of asking.
    Queued(Turn),
    Snapshot(Snapshot),
    Frames,
}

struct Snapshot {
    _turn: OwnedSemaphorePermit,
    begun: Moment,
    after: Option<HeadKey>,
    // Up to here there must be frames before the table is whole.
    whole_at: Revision,
    pages_left: bool,
    // Pages and frames take turns.
    page_is_next: bool,
}

impl<R: Reader> Feed<R> {
    /// On from a place on this ledger's chain, or from a snapshot.
    pub(super) fn new(shared: &Arc<Shared<R>>, epoch: Epoch, from: Option<Place>) -> Feed<R> {
        let newest = shared.ring.watch();
        let end = *newest.borrow();
        let stage = match from {
            Some(_) => Stage::Frames,
            None => Stage::Queued(Box::pin(Arc::clone(&shared.snapshots).acquire_owned())),
        };
        // The place may carry the epoch that the sidecar comes from: it goes on in this one, on the same chain.
        let place = Place { epoch, ..from.unwrap_or(end.place) };
        let sent = Newest { place, recorded_at: end.recorded_at };
        Feed { shared: Arc::clone(shared), newest, sent, stage }
    }

    /// Until there may be something to send.
    pub(super) async fn ready(&mut self) {
        let sent = self.sent.place;
        match &mut self.stage {
            Stage::Queued(turn) => {
                // Nobody closes the semaphore; if somebody did, this session had no turn, ever.
                let Ok(turn) = turn.await else { return std::future::pending().await };
                let end = *self.newest.borrow_and_update();
                self.sent = Newest { place: Place { epoch: sent.epoch, ..end.place }, ..end };
                self.stage = Stage::Snapshot(Snapshot {
                    _turn: turn,
                    begun: clock::now(),
                    after: None,
                    whole_at: self.sent.place.revision,
                    pages_left: true,
                    page_is_next: true,
                });
            }
            Stage::Snapshot(snapshot) if snapshot.pages_left || sent.revision >= snapshot.whole_at => {}
            Stage::Snapshot(_) | Stage::Frames => {
                let more = |newest: &Newest| {
                    newest.place.epoch != sent.epoch || newest.place.revision > sent.revision
                };
                if self.newest.wait_for(more).await.is_err() {
                    std::future::pending().await
                }
            }
        }
    }

    /// The next message, if there is one.
    pub(super) async fn next(&mut self) -> Result<Option<SyncResponse>, Ended> {
        let page_is_next = match &mut self.stage {
            Stage::Queued(_) => return Ok(None),
            Stage::Frames => return self.frames().await,
            Stage::Snapshot(snapshot) => {
                if clock::now().longest_since(snapshot.begun) > TURN {
                    return Err(Ended::Stalled);
                }
                let page_is_next = snapshot.page_is_next && snapshot.pages_left;
                snapshot.page_is_next = !snapshot.page_is_next;
                page_is_next
            }
        };
        if page_is_next { self.page().await } else { self.frames_or_end().await }
    }

    async fn page(&mut self) -> Result<Option<SyncResponse>, Ended> {
        let Stage::Snapshot(snapshot) = &mut self.stage else { return Ok(None) };
        let page = self.shared.reader.heads_after(snapshot.after, PAGE).await?;
        snapshot.whole_at = snapshot.whole_at.max(page.revision);
        snapshot.pages_left = page.heads.len() == PAGE as usize;
        snapshot.after = page.heads.last().map(|head| head.key).or(snapshot.after);
        Ok((!page.heads.is_empty()).then(|| sync::snapshot_chunk(page.heads, page.revision)))
    }

    async fn frames_or_end(&mut self) -> Result<Option<SyncResponse>, Ended> {
        if let Some(frames) = self.frames().await? {
            return Ok(Some(frames));
        }
        let Stage::Snapshot(snapshot) = &self.stage else { return Ok(None) };
        if snapshot.pages_left || self.sent.place.revision < snapshot.whole_at {
            return Ok(None);
        }
        self.stage = Stage::Frames;
        Ok(Some(sync::snapshot_end(self.sent.place, self.sent.recorded_at)))
    }

    async fn frames(&mut self) -> Result<Option<SyncResponse>, Ended> {
        let Place { epoch, revision, .. } = self.sent.place;
        let entries = match self.shared.ring.after(epoch, revision, BATCH) {
            Following::Entries(entries) => entries,
            Following::Nothing => return Ok(None),
            Following::Forgotten => self.read_the_store().await?,
            Following::AnotherEpoch => return Err(Ended::AnotherEpoch),
        };
        let Some(last) = entries.last() else { return Ok(None) };
        self.sent = last.at;
        Ok(Some(sync::frames(epoch, entries.into_iter().map(|entry| entry.frame).collect())))
    }

    // The session has fallen behind the ring. What it gets is proved by the chain, as in the ring.
    async fn read_the_store(&mut self) -> Result<Vec<Entry>, Ended> {
        let (mut at, mut bytes) = (self.sent.place, 0);
        let mut entries = Vec::new();
        for entry in self.shared.reader.feed(at.revision, BATCH.frames as u32).await? {
            let entry = Entry::following(at, entry)?;
            bytes += entry.size;
            if bytes > BATCH.bytes && !entries.is_empty() {
                break;
            }
            at = entry.at.place;
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Bounds, Ring};
    use crate::store::{FeedEntry, HeadPage, LedgerEntry, LedgerHead};
    use consent::pb::sync_response::Message;
    use consent_core::chain::{Chain, Link};
    use consent_core::digest::Digest;
    use consent_core::ledger::HeadRecord;
    use consent_core::words::{IdKey, Timestamp};
    use tokio::sync::{Semaphore, mpsc};

    const EPOCH: Epoch = Epoch::new([1; 16]);

    /// A store of one head, which is ahead of the ring.
    #[derive(Clone)]
    struct Ahead(Revision);

    fn away<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("not asked in this test".to_owned()))
    }

    impl Reader for Ahead {
        async fn head(&self) -> Result<LedgerHead, StoreError> {
            away()
        }
        async fn feed(&self, _: Revision, _: u32) -> Result<Vec<FeedEntry>, StoreError> {
            away()
        }
        async fn proof_at(&self, _: Revision) -> Result<Option<(Chain, Digest)>, StoreError> {
            away()
        }
        async fn heads_after(&self, _: Option<HeadKey>, _: u32) -> Result<HeadPage, StoreError> {
            let head = HeadRecord { key: HeadKey::Policy, bytes: vec![1] };
            Ok(HeadPage { revision: self.0, heads: vec![head] })
        }
        async fn heads_of(&self, _: &[HeadKey]) -> Result<(LedgerHead, Vec<HeadRecord>), StoreError> {
            away()
        }
        async fn id_of(&self, _: HeadKey) -> Result<Option<String>, StoreError> {
            away()
        }
        async fn ledger(&self, _: Revision, _: u32) -> Result<(LedgerHead, Vec<LedgerEntry>), StoreError> {
            away()
        }
        async fn policy_document(&self) -> Result<Option<(String, Revision, Timestamp)>, StoreError> {
            away()
        }
    }

    async fn said<R: Reader>(feed: &mut Feed<R>) -> Message {
        loop {
            feed.ready().await;
            if let Some(said) = feed.next().await.expect("it goes on") {
                return said.message.expect("a message");
            }
        }
    }

    #[tokio::test]
    async fn a_snapshot_ends_only_where_the_frames_have_reached_its_newest_page() {
        let place =
            Place { epoch: EPOCH, revision: Revision::ZERO, chain: Chain::EMPTY, digest: Digest::EMPTY };
        let ring = Ring::new(Bounds::default(), Newest { place, recorded_at: Timestamp::from_millis(0) });
        let first = Revision::ZERO.next().expect("a revision");
        let (events, _heard) = mpsc::channel(1);
        let (reader, id_key) = (Ahead(first), IdKey::new([0; 16]));
        let snapshots = Arc::new(Semaphore::new(1));
        let shared = Arc::new(Shared { reader, ring: ring.clone(), events, id_key, snapshots });
        let mut feed = Feed::new(&shared, EPOCH, None);
        assert!(matches!(said(&mut feed).await, Message::SnapshotChunk(_)));

        // The page shows revision 1, of which the ring has no frame: there is nothing true to end with.
        assert!(feed.next().await.expect("it goes on").is_none());
        let link = Link::new([1; 32]);
        let head = HeadRecord { key: HeadKey::Policy, bytes: vec![1] };
        let (recorded_at, chain) = (Timestamp::from_millis(1), Chain::EMPTY.then(link));
        let entry = FeedEntry { revision: first, recorded_at, link, chain, digest: Digest::EMPTY, head };
        ring.push(vec![entry]).expect("the next");
        assert!(matches!(said(&mut feed).await, Message::Frames(_)));
        let Message::SnapshotEnd(end) = said(&mut feed).await else { panic!("no end") };
        let at = end.at.and_then(|at| at.position).expect("a position");
        assert_eq!(at.revision, first.get());
    }
}
