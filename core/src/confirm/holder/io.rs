//! What happens to a holder, what it wants done, and where it stands: the words between it and its driver.

use crate::confirm::lease::Lease;
use crate::confirm::message::{Frame, Place, Stream, ToAuthority, ToSidecar};
use crate::digest::Digest;
use crate::words::{Epoch, Revision, Span};

/// Where a sidecar stands. Only [`State::Live`] allows (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No table, and no authority that would give one.
    Cold,
    /// A table is being loaded, or is loaded and waits for its first grant.
    Syncing,
    /// Some replica's lease is valid.
    Live,
    /// The lease is over: the table stays and goes on being replayed.
    Lapsed,
    /// Something did not fit: see the [`Cause`]. Until an authority has accepted a new hello.
    Resync,
}

/// Why a sidecar dropped its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A revision is missing between the table and a frame.
    Gap,
    /// A frame or a grant is of another history than the table.
    Chain,
    /// The table does not hold what it should hold. It is dropped.
    Digest,
    /// The authority speaks of another epoch than it welcomed into, or than the table's.
    Epoch,
    /// The authority has no continuation for this table. It is dropped.
    Foreign,
    /// The ledger is behind what this sidecar has seen, or beside it (R13).
    AuthorityBehind,
    /// The clocks cannot be believed (A4).
    Clock,
    /// More frames wait for being applied than are kept.
    Overrun,
    /// An authority said what this build cannot read, or would need a newer one for.
    Unreadable,
}

/// What happens to a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The node's durable copy was loaded into the empty table. Ignored once there is a table.
    Loaded {
        /// Where the copy says that it stands.
        place: Place,
        /// The digest that the table itself has. A driver that cannot tell before it knows the secret of a welcome
        /// gives the one in `place`, shows the table to no reader, and keeps back a welcome that goes on from it
        /// until it can; where the digests differ it gives [`Input::Doubted`] instead of the welcome.
        digest: Digest,
    },
    /// A connection to some replica stands.
    Connected {
        /// It.
        stream: Stream,
    },
    /// A message came. Those of one stream come in their order.
    Received {
        /// From where.
        stream: Stream,
        /// What.
        message: ToSidecar,
    },
    /// The snapshot that [`Output::TakeSnapshot`] asked for is in the table, visible to every reader. Frames that
    /// came interleaved with its pages are the driver's to fold in; they count as part of it.
    SnapshotLoaded {
        /// From where.
        stream: Stream,
        /// Where the authority says that the snapshot ends.
        place: Place,
        /// The digest that the table itself has.
        digest: Digest,
    },
    /// Everything up to `revision` that [`Output::Apply`] asked for is visible to every reader.
    Applied {
        /// Up to where. Several frames may be reported as one.
        revision: Revision,
        /// The digest that the table itself has now.
        digest: Digest,
    },
    /// A connection is over, or could not be used (a message that cannot be read, terms that are not safe).
    Disconnected {
        /// It.
        stream: Stream,
    },
    /// The driver met what the machine cannot see: a message, a frame or a head that cannot be read, keys made under
    /// another secret.
    Doubted {
        /// What.
        cause: Cause,
    },
    /// Nothing but time.
    TimePassed,
    /// VMClock or the like says that the clocks jumped.
    ClockDisrupted,
    /// The sidecar is to stop; [`Output::Left`] says when it may.
    Leave,
}

/// What a holder wants done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send {
        /// To where.
        stream: Stream,
        /// What.
        message: ToAuthority,
    },
    /// Apply the frame to the table, make it visible to every reader, then give [`Input::Applied`].
    Apply {
        /// The stream that brought it.
        stream: Stream,
        /// Its header.
        frame: Frame,
    },
    /// Load the snapshot that comes on the stream into the empty table, then give [`Input::SnapshotLoaded`].
    TakeSnapshot {
        /// From where.
        stream: Stream,
        /// It is the rest of an earlier, unfinished one; otherwise what that left is to be thrown away.
        is_rest: bool,
    },
    /// Empty the table, and forget applies that were asked for. Until a snapshot is loaded nothing may be
    /// answered from it.
    DropTable,
    /// The table goes on, unchanged, in another epoch: positions in answers name that one from now on.
    EnterEpoch(Epoch),
    /// Serving threads use this from now on; `None`: they answer DENY. Must be visible to them before the next
    /// output is performed.
    Publish(Option<Lease>),
    /// The state changed. For health and the log.
    Changed {
        /// What it was.
        from: State,
        /// What it is.
        to: State,
    },
    /// The leases are dropped and the sidecar starts over from a new hello. For the log.
    Resync(Cause),
    /// Close the connection. Connect again, with backoff.
    Close {
        /// It.
        stream: Stream,
        /// Not before this has passed.
        retry_after: Span,
    },
    /// R12: connect to another replica than this stream's, which leaves.
    SeekAnother {
        /// The one that leaves. It stays open until this holder closes it.
        leaving: Stream,
    },
    /// R12: everything is given back; the process may end.
    Left,
}
