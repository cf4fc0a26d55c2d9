//! Who takes a snapshot, and who waits for one: few at once, in the order of asking, and not without bound.
//!
//! Whoever cannot wait is told to come again. Sessions that need no snapshot have nothing to do with any of this: their
//! frames and grants come as before.

use super::pages::Pages;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A turn to come.
pub(super) type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// What bounds snapshots.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// At once. At the bound a session waits for its turn, and keeps its stream.
    pub turns: usize,
    /// That may wait. At the bound a hello that needs a snapshot is answered Overloaded.
    pub waiters: usize,
    /// Bytes of pages that they share. At the bound pages are read again.
    pub shared_bytes: usize,
}

impl Default for SnapshotLimits {
    fn default() -> SnapshotLimits {
        SnapshotLimits { turns: 8, waiters: 1_024, shared_bytes: 96 << 20 }
    }
}

/// The turns at a snapshot.
#[derive(Debug)]
pub(crate) struct Snapshots {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    shared_bytes: usize,
    /// Alive while somebody is admitted.
    pages: Mutex<Weak<Pages>>,
}

/// A place in the queue, kept to the snapshot's end.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) pages: Arc<Pages>,
    _place: OwnedSemaphorePermit,
}

impl Snapshots {
    pub(crate) fn new(limits: SnapshotLimits) -> Snapshots {
        let SnapshotLimits { turns, waiters, shared_bytes } = limits;
        Snapshots {
            turns: Arc::new(Semaphore::new(turns)),
            places: Arc::new(Semaphore::new(turns.saturating_add(waiters).min(Semaphore::MAX_PERMITS))),
            shared_bytes,
            pages: Mutex::default(),
        }
    }

    /// A place in the queue; `None`: it is full.
    pub(super) fn admit(&self) -> Option<Admitted> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut known = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = known.upgrade().unwrap_or_else(|| Arc::new(Pages::new(self.shared_bytes)));
        *known = Arc::downgrade(&pages);
        Some(Admitted { pages, _place: place })
    }

    /// The turns that are free: for whoever shows how many are not.
    pub(crate) fn free(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    /// The next turn that is free, for whoever is admitted.
    pub(super) fn turn(&self) -> Turn {
        Box::pin(Arc::clone(&self.turns).acquire_owned())
    }
}
