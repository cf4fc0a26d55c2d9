//! What happens to a grantor, what it wants done, and what bounds it: the words between it and its driver.

use crate::chain::Chain;
use crate::confirm::lease::Lease;
use crate::confirm::message::{Place, Stream, ToAuthority, ToSidecar};
use crate::words::{Incarnation, Moment, Revision, Span};

/// What happens to a grantor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// R2: the row of this incarnation is committed, with `reg_rev = head.revision`.
    Registered {
        /// The head, read in that same transaction.
        head: Place,
    },
    /// R3: the renewal is committed.
    Renewed {
        /// What [`Output::Renew`] carried.
        started: Moment,
        /// The head, read by that same statement.
        head: Place,
    },
    /// R3: the renewal failed, or its outcome is unknown. It is tried again.
    RenewalFailed {
        /// What [`Output::Renew`] carried.
        started: Moment,
    },
    /// R3: there is no open row of this incarnation any more.
    Fenced,
    /// The tail of the ledger brought the next revision, of which the ring now has the frame.
    Learned {
        /// Where the ledger stands with it.
        place: Place,
    },
    /// A message came from a sidecar. Those of one stream come in their order; the first must be a hello.
    Received {
        /// From where.
        stream: Stream,
        /// What.
        message: ToAuthority,
    },
    /// R13: what [`Output::LookUp`] asked for, read from the primary.
    Found {
        /// The stream that it was asked for.
        stream: Stream,
        /// The head.
        head: Place,
        /// The chain at the revision asked for; `None` when the ledger has no such revision.
        chain: Option<Chain>,
    },
    /// R13: the look-up failed.
    NotFound {
        /// The stream that it was asked for.
        stream: Stream,
    },
    /// A stream is over. Its session stays (R7).
    Disconnected {
        /// It.
        stream: Stream,
    },
    /// R7b: `drained_rev` is committed at least at this.
    DrainReported {
        /// The revision.
        revision: Revision,
    },
    /// R7b: the report failed, or its outcome is unknown. It is made again.
    ReportFailed,
    /// R13: the ledger is under HOLD: nothing is granted, nothing is answered.
    Hold,
    /// R13: an operator has replayed the hole, or accepted it for this epoch: sidecars that have seen more take a
    /// snapshot. Given again at every start in such an epoch.
    HoleAccepted,
    /// R12: the replica is to stop; [`Output::Left`] says when it may. Before [`Input::Registered`] that is at
    /// once, and the row must not be registered any more.
    Leave,
    /// R12: `closed` is committed.
    RowClosed,
    /// R12: closing failed, or its outcome is unknown. It is tried again.
    CloseFailed,
    /// Nothing but time.
    TimePassed,
}

/// What a grantor wants done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// R3: renew the row, then give [`Input::Renewed`], [`Input::RenewalFailed`] or [`Input::Fenced`]. At most one
    /// renewal is under way.
    Renew {
        /// t0, from before a connection is asked for. Hand it back.
        started: Moment,
    },
    /// Send a message.
    Send {
        /// To where.
        stream: Stream,
        /// What.
        message: ToSidecar,
    },
    /// Begin to send frames: those after `after`, or a snapshot and the frames after it.
    Feed {
        /// To where. The welcome was sent just before.
        stream: Stream,
        /// `None`: a snapshot first.
        after: Option<Revision>,
    },
    /// R13: read the head and the chain at `revision` from the primary, in one snapshot.
    LookUp {
        /// For whose hello.
        stream: Stream,
        /// Which revision.
        revision: Revision,
    },
    /// End the stream, after what was sent on it.
    Close {
        /// It.
        stream: Stream,
    },
    /// R7b: write `drained_rev`, without touching `renew_seq`; then give [`Input::DrainReported`] or
    /// [`Input::ReportFailed`]. At most one report is under way.
    ReportDrained {
        /// It.
        revision: Revision,
    },
    /// R10: the replica's own answers use this from now on; `None`: DENY.
    Publish(Option<Lease>),
    /// R13: somebody has seen a history that the primary does not have. The ledger must be put under HOLD, for every
    /// replica; this one already is.
    TimeTravel {
        /// Which sidecar, or this replica itself.
        witness: Incarnation,
        /// What it has seen.
        place: Place,
    },
    /// R12: set `closed`, then give [`Input::RowClosed`] or [`Input::CloseFailed`].
    CloseRow,
    /// R3: this incarnation is over. Begin anew, with a new one, or exit.
    Fenced,
    /// R12: nothing of this incarnation is relied on; the process may end.
    Left,
}

/// What bounds a grantor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sidecar incarnations at once. At the bound a hello is answered Busy; a session with a live pair is never
    /// forgotten.
    pub sessions: usize,
    /// What Busy says.
    pub retry_after: Span,
}
