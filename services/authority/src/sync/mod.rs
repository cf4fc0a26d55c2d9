//! SyncService: one bidirectional stream per sidecar, which brings it the heads and carries its leases.
//!
//! A session is one task: it listens to the sidecar and speaks to it, and keeps nothing but its place in the ledger.
//! What it says next comes from the ring, or from the store where it has fallen behind the ring; a sidecar that does
//! not read holds up its own session alone, since a session makes a message only when the one before it was taken.
//!
//! Heads and frames are sent whatever semantics version the sidecar said it reads: each carries the version that it
//! needs, and a sidecar that knows less must deny whoever needs it. To leave one out would be a gap; to hold the
//! session back would leave the sidecar with heads that it no longer may answer from.
//!
//! - `session`: from hello to the end.
//! - `feed`: snapshot and frames, in order, without a gap.
//! - `snapshots`: who takes a snapshot, and who waits.
//! - `pages`: what those share.

mod feed;
#[cfg(test)]
mod heads_only;
mod pages;
mod session;
mod snapshots;

pub use snapshots::SnapshotLimits;
pub(crate) use snapshots::Snapshots;

use crate::grantor::Event;
use crate::metrics::Noted;
use crate::ring::Ring;
use crate::store::Reader;
use consent::pb::SyncRequest;
use consent::said::Said;
use consent::said::sync_service_server::SyncService;
use consent::status::status;
use consent_core::confirm::Stream;
use consent_core::refusal::Refusal;
use consent_core::words::{IdKey, Span};
pub(crate) use feed::Ended;
use session::Session;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

/// What a sidecar says is small; a larger message is none of its.
pub(crate) const REQUEST_LEN_MAX: usize = 64 * 1024;
/// When a sidecar that was turned away should come again.
pub(crate) const RETRY_AFTER: Span = Span::from_millis(250);
/// When one that needs a snapshot should, if too many wait for theirs.
const RETRY_SNAPSHOT_AFTER: Span = Span::from_millis(2_000);
/// Messages made but not taken yet by the connection, per session.
const SAID_MAX: usize = 2;

/// The service.
pub(crate) struct Sync<R: Reader> {
    shared: Arc<Shared<R>>,
    seats: Arc<Semaphore>,
    streams: AtomicU64,
    sessions: TaskTracker,
    stop: CancellationToken,
}

/// What all sessions share.
pub(crate) struct Shared<R: Reader> {
    /// Where a session reads that has fallen behind the ring.
    pub(crate) reader: R,
    /// Where it reads otherwise.
    pub(crate) ring: Ring,
    /// To the grantor.
    pub(crate) events: mpsc::Sender<Event>,
    /// What ids are hashed under.
    pub(crate) id_key: IdKey,
    /// Turns at a snapshot.
    pub(crate) snapshots: Snapshots,
    /// What is noted of sessions.
    pub(crate) noted: Arc<Noted>,
}

impl<R: Reader> Sync<R> {
    /// The service for as many sessions at once as there are seats. `stop` ends them all.
    pub(crate) fn new(
        shared: Shared<R>,
        seats: Arc<Semaphore>,
        sessions: TaskTracker,
        stop: CancellationToken,
    ) -> Sync<R> {
        Sync { shared: Arc::new(shared), seats, streams: AtomicU64::new(0), sessions, stop }
    }
}

#[tonic::async_trait]
impl<R: Reader> SyncService for Sync<R> {
    type SyncStream = ReceiverStream<Result<Said, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        if self.stop.is_cancelled() {
            return Err(status(Refusal::NotServing));
        }
        let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
            return Err(status(Refusal::Overloaded { retry_after: RETRY_AFTER }));
        };
        let (said, taken) = mpsc::channel(SAID_MAX);
        // Never reused within a run of the process.
        let stream = Stream(self.streams.fetch_add(1, Ordering::Relaxed));
        let session = Session::new(Arc::clone(&self.shared), stream, said, self.stop.child_token());
        let (inbound, events) = (request.into_inner(), self.shared.events.clone());
        self.sessions.spawn(async move {
            // A task of its own: one that panics is over for the grantor, too, which would wait for it for ever.
            if let Err(error) = tokio::spawn(session.run(inbound)).await {
                tracing::error!(%error, "a session panicked");
            }
            // A grantor that is gone needs to know nothing.
            let _ = events.send(Event::Closed { stream }).await;
            drop(seat);
        });
        Ok(Response::new(ReceiverStream::new(taken)))
    }
}
