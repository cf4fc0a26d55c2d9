//! The tail: follows the committed ledger into the ring, whoever wrote it.
//!
//! Polling every delta is the truth; a word from the store or from the process's own lane only makes it look sooner.
//! It takes revisions in order and proves each by its chain. Whoever has to know of every revision (the grantor: R5,
//! R7) is told after the ring has it, over a bounded channel that the tail waits for: so nothing is missed, and
//! nothing is kept without bound.

use crate::failure::Failure;
use crate::ring::{Newest, Ring};
use crate::store::{LedgerHead, Reader, StoreError};
use consent_core::confirm::Place;
use consent_core::words::Span;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The most revisions in one read.
const PAGE: u32 = 1_024;

/// What the tail tells.
#[derive(Debug)]
pub(crate) enum News {
    /// The next revision; the ring has it.
    Next(Place),
    /// The ledger has another epoch, and stands here. The ring was emptied.
    AnotherEpoch(Place),
    /// R13: in its own epoch the ledger is behind, or beside, what the ring has.
    Fell,
}

/// Follows the ledger.
pub(crate) struct Tail<R: Reader> {
    /// Reads the primary.
    pub(crate) reader: R,
    /// What it fills.
    pub(crate) ring: Ring,
    /// Whom it tells.
    pub(crate) news: mpsc::Sender<News>,
    /// The store's word of a commit.
    pub(crate) wakeups: watch::Receiver<()>,
    /// delta.
    pub(crate) poll: Span,
    /// Until when.
    pub(crate) stop: CancellationToken,
    /// Was it told that the ledger fell?
    pub(crate) fell: bool,
}

impl<R: Reader> Tail<R> {
    /// Until it is stopped, or the ledger breaks a promise. A store that cannot be read is read again.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut reachable = true;
        loop {
            let outcome = self.catch_up().await;
            match &outcome {
                Ok(()) if !reachable => tracing::info!("the ledger can be read again"),
                Err(Failure::Store(error)) if reachable => {
                    tracing::warn!(%error, "the ledger cannot be read")
                }
                Ok(()) | Err(_) => {}
            }
            reachable = outcome.is_ok();
            match outcome {
                // Another identity than the stored one: whoever renews the lease mints the epoch (R9).
                Ok(()) | Err(Failure::Store(StoreError::Unavailable(_) | StoreError::Foreign)) => {}
                Err(failure) => return Err(failure),
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.ring.more() => {}
                Ok(()) = self.wakeups.changed() => {}
                () = tokio::time::sleep(self.poll.into()) => {}
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Failure> {
        let head = self.reader.head().await?;
        let newest = self.ring.newest().place;
        if head.epoch != newest.epoch {
            self.restart(head).await;
            return Ok(());
        }
        let beside = head.revision == newest.revision && head.chain != newest.chain;
        if (head.revision < newest.revision || beside) && !std::mem::replace(&mut self.fell, true) {
            tracing::error!(was = %newest.revision, revision = %head.revision, "HOLD: the ledger fell within its epoch");
            self.tell(News::Fell).await;
        }
        while self.ring.newest().place.revision < head.revision {
            let page = self.reader.feed(self.ring.newest().place.revision, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            match self.ring.push(&page) {
                Ok(places) => {
                    for place in places {
                        self.tell(News::Next(place)).await;
                    }
                }
                Err(not_next) => {
                    // Between two reads the ledger may have become another; then this is no broken promise.
                    let head = self.reader.head().await?;
                    if head.epoch == self.ring.newest().place.epoch {
                        return Err(Failure::Ledger(not_next));
                    }
                    self.restart(head).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn restart(&mut self, head: LedgerHead) {
        tracing::warn!(epoch = %head.epoch, revision = %head.revision, "the ledger has another epoch");
        self.ring.restart(Newest { place: head.place(), recorded_at: head.recorded_at });
        self.tell(News::AnotherEpoch(head.place())).await;
    }

    // Where the grantor is gone the process is about to stop, and until then only the sessions follow.
    async fn tell(&mut self, news: News) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.news.send(news) => {}
        }
    }
}
