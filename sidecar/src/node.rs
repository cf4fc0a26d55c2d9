//! What the sync thread and the serving threads share: the table, the lease, and where the sidecar stands.
//!
//! The sync thread alone writes. Serving threads read the lease first and the table second (R10), and nothing here
//! says ALLOW: a state that was LIVE is worth nothing without a lease that is not over at the moment of asking.

use crate::table::Table;
use arc_swap::ArcSwapOption;
use consent_core::confirm::Lease;
use consent_core::confirm::holder::State;
use consent_core::words::{Incarnation, Moment, Span};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// So many calls may wait for their `min_position` at once; a further one is answered STALE immediately.
pub(crate) const WAITING_MAX: usize = 1024;

/// Where the sidecar stands, for people and probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// As of the last step of the holder.
    pub(crate) state: State,
    /// Why it is not LIVE, in a sentence; empty if it is.
    pub(crate) why: String,
    /// The authority that it follows; empty if it is connected to none.
    pub(crate) authority: String,
}

/// What the threads of one sidecar share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) incarnation: Incarnation,
    pub(crate) table: Table,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) waiting: Semaphore,
    lease: ArcSwapOption<Lease>,
}

impl Node {
    pub(crate) fn new(incarnation: Incarnation) -> Node {
        let standing = Standing {
            state: State::Cold,
            why: "it has heard from no authority yet".to_owned(),
            authority: String::new(),
        };
        Node {
            incarnation,
            table: Table::new(),
            standing: watch::Sender::new(standing),
            waiting: Semaphore::new(WAITING_MAX),
            lease: ArcSwapOption::empty(),
        }
    }

    /// R10 (2): the lease as last published; it may be over.
    pub(crate) fn lease(&self) -> Option<Lease> {
        self.lease.load().as_deref().copied()
    }

    /// Visible to every serving thread when this returns.
    pub(crate) fn publish(&self, lease: Option<Lease>) {
        self.lease.store(lease.map(Arc::new));
    }

    /// The lease, if it is not over now and is of the table's epoch: only then may the node allow.
    pub(crate) fn valid_lease(&self, now: Moment) -> Option<Lease> {
        let lease = self.lease().filter(|lease| lease.left(now) > Span::ZERO)?;
        let view = self.table.read();
        view.state().is_some_and(|state| state.position().epoch == lease.epoch).then_some(lease)
    }
}
