//! The node's durable copy: what the table holds, kept in Redis, so that a restart costs deltas and no snapshot.
//!
//! It is a hint and never the truth: no answer is read from it, no ack waits for it, and without Redis the node
//! works from memory alone. Nothing of a lease is in it (A7).
//!
//! ```text
//!   sync thread ──stepped──▶ Backlog ──▶ Writer ──MULTI──▶ Redis
//!        ▲                   (bounded)                       │
//!        └──────── Proven ◀── Unproven ◀── find, at start ◀──┘
//! ```
//!
//! - `layout`: marker, buckets and log, as bytes. `reading`: no more of them than there could be.
//! - `unproven`: the copy as found, and the proof that it holds what it says (A6).
//! - `backlog`, `writer`, `kept`, `patience`: writing behind, compaction, rewriting.
//! - `server`, `address`: the connection.
//!
//! Redis is spoken to in this folder and nowhere else.

mod address;
mod backlog;
mod kept;
mod layout;
mod patience;
mod reading;
mod server;
mod unproven;
mod writer;

pub use address::{BadAddress, RedisAddress};
pub(crate) use unproven::{Proven, Unproven, Wrong};
pub(crate) use writer::Writer;

use crate::node::Node;
use backlog::{Backlog, Step};
use consent_core::confirm::Place;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, IdKey, Timestamp};
use redis::{ErrorKind, ServerErrorKind};
use server::Server;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use writer::LogMax;

/// What may wait to be written, in bytes, about: some hundred thousand changes.
const BACKLOG_BYTES_MAX: usize = 32 << 20;
/// A longer log would slow the next start more than its compaction costs now.
const LOG_MAX: LogMax = LogMax { batches: 4_096, heads: 65_536 };
/// How long a server that is loading its own dump is waited for: a snapshot would take longer, and load an authority.
const LOADING_MAX: Duration = Duration::from_secs(30);
/// So often a server that is not there is asked again, which makes two seconds: after a restart of the node it may come
/// up after the sidecar.
const ABSENT_MAX: u32 = 40;
/// A server that is well says where its copy stands in a millisecond, and in some hundred of them on a node where all
/// starts at once. One that hangs is not worth a longer start.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// What waits to be written: for whoever shows it.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Backlog>);

impl Waiting {
    /// How many changes, and about how many bytes.
    pub(crate) fn now(&self) -> (usize, usize) {
        self.0.waiting()
    }
}

/// The sync thread's end of it. None of this waits for Redis, but [`Durable::find`] and a proof.
pub(crate) struct Durable {
    backlog: Arc<Backlog>,
    address: RedisAddress,
}

/// A copy that is being read and proven. Whoever polls it goes on with its own work in between.
pub(crate) type Proof = Pin<Box<dyn Future<Output = Result<Proven, Wrong>> + Send>>;

/// A durable copy in the Redis at this address, and the task that writes it.
pub(crate) fn open(address: RedisAddress, node: Arc<Node>) -> (Durable, Writer) {
    let backlog = Arc::new(Backlog::new(BACKLOG_BYTES_MAX));
    let writer = Writer::new(node, Arc::clone(&backlog), Server::new(address.clone()), LOG_MAX);
    (Durable { backlog, address }, writer)
}

impl Durable {
    /// Looks for the copy; none if there is none. It waits for a server that is loading, for one that is not there
    /// yet a little, and for no other.
    pub(crate) async fn find(&self) -> Option<Unproven> {
        let mut server = Server::new(self.address.clone());
        let finding = async {
            let mut absent = 0;
            loop {
                let found = tokio::time::timeout(FOUND_WITHIN, Unproven::find(&mut server)).await;
                match found.unwrap_or(Err(Wrong::Slow)) {
                    Err(Wrong::Redis(error)) if is_loading(&error) => {}
                    Err(Wrong::Redis(error)) if error.is_connection_refusal() && absent < ABSENT_MAX => {
                        absent += 1;
                    }
                    found => return found,
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(LOADING_MAX, finding).await {
            Ok(Ok(Some(copy))) => {
                tracing::info!(revision = %copy.place().revision, "a durable copy was found");
                return Some(copy);
            }
            Ok(Ok(None)) => tracing::info!("there is no durable copy yet"),
            Ok(Err(wrong)) => tracing::warn!(%wrong, "the durable copy is not used"),
            Err(_) => tracing::warn!("the durable copy is not used: its server does not finish loading"),
        }
        None
    }

    /// Reads the copy and proves it under the secret of a welcome.
    pub(crate) fn prove(&self, copy: Unproven, secret: IdKey) -> Proof {
        Box::pin(copy.prove(self.address.clone(), secret))
    }

    /// What waits to be written to it.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting(Arc::clone(&self.backlog))
    }

    /// The table is what lies in Redis: go on from there.
    pub(crate) fn proven(&self, proven: Proven) -> (crate::table::Heads, Place, Timestamp) {
        let Proven { heads, place, recorded_at, kept } = proven;
        self.backlog.proven(kept);
        (heads, place, recorded_at)
    }

    /// There is another table.
    pub(crate) fn replaced(&self, place: Place, recorded_at: Timestamp) {
        self.backlog.replaced(place, recorded_at);
    }

    /// One revision changed one head of it.
    pub(crate) fn changed(&self, place: Place, recorded_at: Timestamp, head: HeadRecord) {
        self.backlog.stepped(Step::Changed { place, recorded_at, head });
    }

    /// It goes on in another epoch.
    pub(crate) fn entered(&self, epoch: Epoch) {
        self.backlog.stepped(Step::Entered(epoch));
    }

    /// There is no table any more.
    pub(crate) fn dropped(&self) {
        self.backlog.dropped();
    }
}

fn is_loading(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading)
}

#[cfg(test)]
mod tests;
