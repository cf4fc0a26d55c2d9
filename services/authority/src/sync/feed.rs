//! What a session sends of the ledger: a snapshot where the sidecar has no table to go on from, and then every
//! revision, exactly once and in order.
//!
//! A snapshot begins at a place; it is pages of heads in order of their keys, each read in a short transaction of its
//! own at that place or later, with the frames of what changes from that place on between them. A page shows heads as
//! of its own read, so the table is whole only when every frame up to the newest page's revision has been sent too:
//! there the snapshot ends, with the proof of what the table must now hold. Newest wins, so it does not matter whether
//! a head or a newer frame of it comes first.
//!
//! The rest of a snapshot whose stream broke is the same, from the place that its frames had reached and the head that
//! its pages had: what was sent before was right up to there, as for a snapshot that goes on.
//!
//! Waiting ([`Feed::ready`]) may be given up at any time; making the next message ([`Feed::next`]) is not, since a
//! query that is dropped half way costs its connection.

use super::Shared;
use super::pages::Pages;
use super::snapshots::{Admitted, Turn};
use crate::metrics::Sent;
use crate::ring::{self, Batch, Following, Newest, NotNext};
use crate::store::{Reader, StoreError};
use consent::clock;
use consent::convert::sync;
use consent::said::Said;
use consent_core::confirm::Place;
use consent_core::head::HeadKey;
use consent_core::words::{Epoch, Moment, Revision, Span};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// How long one snapshot may take: a sidecar that takes a page now and then would keep its turn from all others.
const TURN: Span = Span::from_millis(600_000);
/// One message of frames.
const BATCH: Batch = Batch { frames: 256, bytes: 256 * 1024 };

/// Why a feed cannot go on: its sidecar says hello again.
#[derive(Debug, Error)]
pub(crate) enum Ended {
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

/// What a sidecar already has of a snapshot, found to be of this ledger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Had {
    /// Every frame up to here.
    pub(super) reached: Newest,
    /// Every page up to this head.
    pub(super) last: HeadKey,
    /// The newest revision of its pages.
    pub(super) newest_page: Revision,
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
    Queued(Turn, Admitted, Option<Had>, bool),
    Snapshot(Snapshot),
    Frames,
}

struct Snapshot {
    admitted: Admitted,
    _turn: OwnedSemaphorePermit,
    begun: Moment,
    // Its beginning is still to be told.
    is_untold: bool,
    // No page may be older than this: from here on there are frames.
    since: Revision,
    // Up to here there must be frames before the table is whole.
    whole_at: Revision,
    after: Option<HeadKey>,
    pages_left: bool,
    // Pages and frames take turns.
    page_is_next: bool,
}

impl Snapshot {
    /// Where its frames begin, and it.
    fn begin(
        newest: Newest,
        turn: OwnedSemaphorePermit,
        admitted: Admitted,
        had: Option<Had>,
        is_resumable: bool,
    ) -> (Newest, Snapshot) {
        let shared: &Pages = &admitted.pages;
        let begins_at = shared.begin(newest, clock::now());
        let sent = had.map_or(begins_at, |had| had.reached);
        let since = sent.place.revision;
        let pages = had.map_or(Revision::ZERO, |had| had.newest_page);
        let snapshot = Snapshot {
            admitted,
            _turn: turn,
            begun: clock::now(),
            is_untold: had.is_none() && is_resumable,
            since,
            whole_at: since.max(pages),
            after: had.map(|had| had.last),
            pages_left: true,
            page_is_next: true,
        };
        (sent, snapshot)
    }
}

impl<R: Reader> Feed<R> {
    /// On from a place on this ledger's chain.
    pub(super) fn frames_after(shared: &Arc<Shared<R>>, epoch: Epoch, from: Place) -> Feed<R> {
        let recorded_at = shared.ring.newest().recorded_at;
        // The place may carry the epoch that the sidecar comes from: it goes on in this one, on the same chain.
        let sent = Newest { place: Place { epoch, ..from }, recorded_at };
        Feed { shared: Arc::clone(shared), newest: shared.ring.watch(), sent, stage: Stage::Frames }
    }

    /// With a snapshot, or the rest of one; a sidecar that is not resumable is not told where it begins.
    pub(super) fn snapshot(
        shared: &Arc<Shared<R>>,
        epoch: Epoch,
        admitted: Admitted,
        had: Option<Had>,
        is_resumable: bool,
    ) -> Feed<R> {
        let newest = shared.ring.newest();
        let sent = Newest { place: Place { epoch, ..newest.place }, ..newest };
        let stage = Stage::Queued(shared.snapshots.turn(), admitted, had, is_resumable);
        Feed { shared: Arc::clone(shared), newest: shared.ring.watch(), sent, stage }
    }

    /// Until there may be something to send.
    pub(super) async fn ready(&mut self) {
        let sent = self.sent.place;
        match &mut self.stage {
            Stage::Queued(turn, ..) => {
                // Nobody closes the semaphore; if somebody did, this session had no turn, ever.
                let Ok(turn) = turn.await else { return std::future::pending().await };
                let newest = *self.newest.borrow_and_update();
                if let Stage::Queued(_, admitted, had, is_resumable) =
                    std::mem::replace(&mut self.stage, Stage::Frames)
                {
                    let (begins_at, snapshot) = Snapshot::begin(newest, turn, admitted, had, is_resumable);
                    let place = Place { epoch: sent.epoch, ..begins_at.place };
                    self.sent = Newest { place, ..begins_at };
                    self.stage = Stage::Snapshot(snapshot);
                }
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
    pub(super) async fn next(&mut self) -> Result<Option<Said>, Ended> {
        let page_is_next = match &mut self.stage {
            Stage::Queued(..) => return Ok(None),
            Stage::Frames => return self.frames().await,
            Stage::Snapshot(snapshot) => {
                if clock::now().longest_since(snapshot.begun) > TURN {
                    return Err(Ended::Stalled);
                }
                if std::mem::take(&mut snapshot.is_untold) {
                    return Ok(Some(Said::Message(sync::snapshot_begin(self.sent.place))));
                }
                let page_is_next = snapshot.page_is_next && snapshot.pages_left;
                snapshot.page_is_next = !snapshot.page_is_next;
                page_is_next
            }
        };
        if page_is_next { self.page().await } else { self.frames_or_end().await }
    }

    async fn page(&mut self) -> Result<Option<Said>, Ended> {
        let Stage::Snapshot(snapshot) = &mut self.stage else { return Ok(None) };
        // Of another epoch, pages would only be sent to be thrown away.
        if self.shared.ring.newest().place.epoch != self.sent.place.epoch {
            return Err(Ended::AnotherEpoch);
        }
        let (pages, after, since) = (&snapshot.admitted.pages, snapshot.after, snapshot.since);
        let page = pages.after(&self.shared.reader, after, since).await?;
        snapshot.whole_at = snapshot.whole_at.max(page.revision);
        snapshot.pages_left = page.next_after.is_some();
        snapshot.after = page.next_after;
        let said = page.encoded.map(Said::Encoded);
        self.shared.noted.sends(Sent::Snapshot, said.as_ref());
        Ok(said)
    }

    async fn frames_or_end(&mut self) -> Result<Option<Said>, Ended> {
        if let Some(frames) = self.frames().await? {
            return Ok(Some(frames));
        }
        let Stage::Snapshot(snapshot) = &self.stage else { return Ok(None) };
        if snapshot.pages_left || self.sent.place.revision < snapshot.whole_at {
            return Ok(None);
        }
        self.stage = Stage::Frames;
        Ok(Some(Said::Message(sync::snapshot_end(self.sent.place, self.sent.recorded_at))))
    }

    async fn frames(&mut self) -> Result<Option<Said>, Ended> {
        let Place { epoch, revision, .. } = self.sent.place;
        let run = match self.shared.ring.after(epoch, revision, BATCH) {
            Following::Frames(run) => Some(run),
            Following::Nothing => None,
            // The session has fallen behind the ring.
            Following::Forgotten => {
                let page = self.shared.reader.feed(revision, BATCH.frames as u32).await?;
                if page.is_empty() {
                    // The ring has seen more. To ask again at once would be to ask without end.
                    let behind = "the primary is behind what was read from it before".to_owned();
                    return Err(Ended::Store(StoreError::Unavailable(behind)));
                }
                ring::run_of(self.sent.place, &page, BATCH)?
            }
            Following::AnotherEpoch => return Err(Ended::AnotherEpoch),
        };
        let said = run.map(|run| {
            self.sent = run.last();
            run.said()
        });
        self.shared.noted.sends(Sent::Frames, said.as_ref());
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Noted;
    use crate::ring::{Bounds, Ring};
    use crate::store::FeedEntry;
    use crate::sync::heads_only::HeadsOnly;
    use crate::sync::snapshots::{SnapshotLimits, Snapshots};
    use consent::pb::sync_response::Message;
    use consent_core::chain::{Chain, Link};
    use consent_core::digest::Digest;
    use consent_core::ledger::HeadRecord;
    use consent_core::words::{IdKey, Timestamp};
    use tokio::sync::mpsc;

    const EPOCH: Epoch = Epoch::new([1; 16]);

    async fn said<R: Reader>(feed: &mut Feed<R>) -> Message {
        loop {
            feed.ready().await;
            let said = match feed.next().await.expect("it goes on") {
                None => continue,
                Some(Said::Message(said)) => said,
                Some(Said::Encoded(said)) => said.read().expect("it can be read"),
            };
            return said.message.expect("a message");
        }
    }

    fn place(revision: Revision) -> Place {
        Place { epoch: EPOCH, revision, chain: Chain::EMPTY, digest: Digest::EMPTY }
    }

    /// What sessions share where the ring begins at a revision, and the store has a head of revision 1.
    fn shared(ring_at: Revision) -> Arc<Shared<HeadsOnly>> {
        let newest = Newest { place: place(ring_at), recorded_at: Timestamp::from_millis(0) };
        let (events, _) = mpsc::channel(1);
        Arc::new(Shared {
            reader: HeadsOnly::new(1, 1),
            ring: Ring::new(Bounds::default(), newest),
            events,
            id_key: IdKey::new([0; 16]),
            snapshots: Snapshots::new(SnapshotLimits::default()),
            noted: Arc::new(Noted::new()),
        })
    }

    #[tokio::test]
    async fn a_primary_that_is_behind_what_was_read_from_it_is_not_asked_again_and_again() {
        let third = Revision::new(3).expect("a revision");
        let mut feed = Feed::frames_after(&shared(third), EPOCH, place(Revision::ZERO));
        feed.ready().await;
        let ended = feed.next().await.expect_err("the store has nothing, and the ring has had something");
        assert!(matches!(ended, Ended::Store(StoreError::Unavailable(_))), "{ended}");
    }

    #[tokio::test]
    async fn a_snapshot_ends_only_where_the_frames_have_reached_its_newest_page() {
        let first = Revision::ZERO.next().expect("a revision");
        // The store is ahead of the ring.
        let shared = shared(Revision::ZERO);
        let admitted = shared.snapshots.admit().expect("room");
        let mut feed = Feed::snapshot(&shared, EPOCH, admitted, None, true);
        assert!(matches!(said(&mut feed).await, Message::SnapshotBegin(_)));
        assert!(matches!(said(&mut feed).await, Message::SnapshotChunk(_)));

        // The page shows revision 1, of which the ring has no frame: there is nothing true to end with.
        assert!(feed.next().await.expect("it goes on").is_none());
        let link = Link::new([1; 32]);
        let head = HeadRecord { key: HeadKey::Policy, bytes: vec![1] };
        let (recorded_at, chain) = (Timestamp::from_millis(1), Chain::EMPTY.then(link));
        let entry = FeedEntry { revision: first, recorded_at, link, chain, digest: Digest::EMPTY, head };
        shared.ring.push(&[entry]).expect("the next");
        assert!(matches!(said(&mut feed).await, Message::Frames(_)));
        let Message::SnapshotEnd(end) = said(&mut feed).await else { panic!("no end") };
        let at = end.at.and_then(|at| at.position).expect("a position");
        assert_eq!(at.revision, first.get());
    }
}
