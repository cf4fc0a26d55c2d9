//! What a sidecar and an authority replica say to each other, as values of the core.
//!
//! The wire has its own types; they are converted at the edge, where a missing field is an error. What is in the
//! heads is not the machines' business: a [`Frame`] here is the header of one, the driver keeps the bytes.

use super::terms::Terms;
use crate::chain::{Chain, Link};
use crate::digest::Digest;
use crate::words::{Epoch, Incarnation, Nonce, Revision, Span};

/// One connection from a sidecar to an authority. The driver numbers its connections and never reuses a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(pub u64);

/// A place in the history with its proof: which ledger, how far, by which way, and what a table holds there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The incarnation of the ledger: a hint.
    pub epoch: Epoch,
    /// How far.
    pub revision: Revision,
    /// By which history: the proof.
    pub chain: Chain,
    /// Of all heads at this revision.
    pub digest: Digest,
}

/// The header of one revision on its way to a table (R6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The epoch of whoever sends it.
    pub epoch: Epoch,
    /// The revision.
    pub revision: Revision,
    /// The hash of its event: with the chain before it, it gives `chain`.
    pub link: Link,
    /// The chain after it.
    pub chain: Chain,
    /// The digest of all heads after it.
    pub digest: Digest,
}

impl Frame {
    /// Where a table stands that has applied it.
    pub const fn place(&self) -> Place {
        Place { epoch: self.epoch, revision: self.revision, chain: self.chain, digest: self.digest }
    }
}

/// From a sidecar to an authority replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToAuthority {
    /// The first message of a stream. It is no ack.
    Hello {
        /// This run of the sidecar: sessions belong to it, never to a node's name (R7).
        incarnation: Incarnation,
        /// Where its table stands; `None` when it has none.
        place: Option<Place>,
        /// The newest semantics version of heads that it can read.
        semantics: u8,
    },
    /// R4: asks for a lease.
    KeepAlive {
        /// Never used before by this incarnation, and larger than all before.
        nonce: Nonce,
    },
    /// R6: no answer from before `revision` is valid at this sidecar any more.
    Ack {
        /// The revision.
        revision: Revision,
        /// The chain at it: a revision alone proves nothing.
        chain: Chain,
    },
    /// R12: whatever was granted on nonces up to `last` is given back.
    Relinquish {
        /// The last nonce that was sent to this replica.
        last: Nonce,
    },
}

/// From an authority replica to a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToSidecar {
    /// The hello is accepted.
    Welcome {
        /// This run of the replica: leases are held from it.
        grantor: Incarnation,
        /// Its epoch.
        epoch: Epoch,
        /// The deployment's terms, as checked by the sidecar's edge.
        terms: Terms,
        /// What comes next on the stream.
        start: Start,
    },
    /// The hello is not accepted; the stream ends.
    Unwelcome(Unwelcome),
    /// One revision.
    Frame(Frame),
    /// R5: an answer to a keepalive.
    Grant {
        /// The keepalive's.
        nonce: Nonce,
        /// m: what the replica knew when it granted. The grant is good for a table at or past it.
        place: Place,
    },
    /// R12: the replica leaves and grants no more. Find another one.
    Draining,
}

/// What follows a welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The frames after the place in the hello, which is on the replica's chain.
    Continue,
    /// A snapshot: the table starts anew.
    Snapshot,
    /// What is missing of a snapshot whose stream broke. Only a driver knows of such a thing: for the machines a part
    /// of a snapshot is nothing, and the hello that it goes with names no place.
    RestOfSnapshot,
}

/// Why a hello was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwelcome {
    /// R13: the sidecar has seen a history that the ledger does not have. It keeps denying until an operator
    /// has replayed or accepted the hole.
    Held,
    /// The replica serves as many sidecars as it may, or is not ready. Try again, perhaps another one.
    Busy {
        /// After how long.
        retry_after: Span,
    },
    /// R12: the replica leaves.
    Leaving,
}
