//! What happens to a confirmer and what it wants done: the words between it and its driver.

use crate::chain::Chain;
use crate::confirm::message::Place;
use crate::words::{Epoch, Incarnation, Revision};

/// Somebody who waits for a confirmation. The driver numbers them and never reuses a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An open row of `authority_lease`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub incarnation: Incarnation,
    /// R2: `last_rev` when it was registered.
    pub reg_rev: Revision,
    /// R3: counts its renewals.
    pub renew_seq: u64,
    /// R7: up to where nobody relies on it.
    pub drained_rev: Revision,
}

/// What one read of the primary saw. Head and rows are of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `ledger_head`.
    pub head: Place,
    /// `ledger_head.settled_epoch`.
    pub settled: Option<Epoch>,
    /// Every row that is not closed.
    pub open_rows: Vec<Row>,
    /// The ledger's chain at each revision that [`Output::Read`] named, in that order, from the same snapshot or a later one;
    /// `None` where it has no such revision.
    pub chains: Vec<(Revision, Option<Chain>)>,
}

/// What happens to a confirmer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody waits for the confirmation of a revision whose commit is known.
    Await {
        /// Who.
        ticket: Ticket,
        /// The revision.
        revision: Revision,
        /// The chain that its commit returned.
        chain: Chain,
    },
    /// Nobody waits under this ticket any more.
    Forget {
        /// It.
        ticket: Ticket,
    },
    /// The store told of a change (NOTIFY, or a drain report of our own).
    Woken,
    /// What [`Output::Read`] asked for; `now` is from after the read.
    Read(Reading),
    /// The read failed, or the store is not the one it claims to be.
    ReadFailed,
    /// R8b, R9: what [`Output::Reap`] or [`Output::Settle`] asked for was tried. Whether it was done, the next
    /// read tells.
    Tried,
    /// Nothing but time.
    TimePassed,
}

/// What a confirmer wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// R8: read a [`Reading`] from the primary, begun after this. At most one is under way.
    Read {
        /// The revisions whose chain is asked for; rising.
        revisions: Vec<Revision>,
    },
    /// R8b: `closed = true where incarnation = i and renew_seq = seen`, then [`Input::Tried`].
    Reap {
        /// Whose row.
        incarnation: Incarnation,
        /// The last renewal that was seen.
        renew_seq: u64,
    },
    /// R9: `settled_epoch = e where epoch = e`, then [`Input::Tried`].
    Settle {
        /// Which.
        epoch: Epoch,
    },
    /// Tell who waits.
    Answer {
        /// Who.
        ticket: Ticket,
        /// What.
        outcome: Outcome,
    },
    /// I9 is broken: the store forgot what it knew. Nothing is confirmed from such a reading.
    EffectiveFell {
        /// What was effective.
        from: Revision,
        /// What the reading says.
        to: Revision,
    },
}

/// What became of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No ALLOW from before the revision is valid anywhere.
    Effective,
    /// The ledger has another event, or none, at the revision: send the `request_id` again.
    Lost,
    /// More wait than may. The write is recorded all the same.
    Overloaded,
}
