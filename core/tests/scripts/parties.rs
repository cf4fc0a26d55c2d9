//! Who takes part in a script, each with clocks of its own: sidecars, replicas, whoever confirms, callers elsewhere.

use super::history::{Ask, Events, Told, digest};
use consent_core::confirm::confirmer::Confirmer;
use consent_core::confirm::{Frame, Grantor, Holder, Lease, Place, Stream, ToAuthority, ToSidecar, Validity};
use consent_core::words::{Epoch, Incarnation, Moment, Revision, Span};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Party {
    Sidecar(u8),
    Replica(u8),
    /// Whoever confirms: in production a part of each replica.
    Confirmer,
    /// A caller of replicas, on a node of its own.
    Caller,
    Store,
}

impl Party {
    pub(crate) fn parse(word: &str) -> Option<Party> {
        match (word, word.split_at_checked(1)) {
            ("w", _) => Some(Party::Confirmer),
            ("c", _) => Some(Party::Caller),
            ("pg", _) => Some(Party::Store),
            (_, Some(("s", number))) => number.parse().ok().map(Party::Sidecar),
            (_, Some(("r", number))) => number.parse().ok().map(Party::Replica),
            _ => None,
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Sidecar(number) => write!(f, "s{number}"),
            Party::Replica(number) => write!(f, "r{number}"),
            Party::Confirmer => f.write_str("w"),
            Party::Caller => f.write_str("c"),
            Party::Store => f.write_str("pg"),
        }
    }
}

/// The two lease clocks of a node. Rates are in millionths off the true one.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Moment,
    pub(crate) boot_ppm: i64,
    pub(crate) raw_ppm: i64,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let start = 1_000_000_000_000;
        Clock { now: Moment { boot: start, raw: start }, boot_ppm: 0, raw_ppm: 0 }
    }

    pub(crate) fn pass(&mut self, span: Span) {
        let at = |ppm: i64| (span.nanos() as i128 * (1_000_000 + ppm as i128) / 1_000_000) as u64;
        self.now.boot += at(self.boot_ppm);
        self.now.raw += at(self.raw_ppm);
    }
}

/// A run of a sidecar, with its driver's part: the table and what serving threads see.
#[derive(Clone)]
pub(crate) struct Sidecar {
    pub(crate) incarnation: Incarnation,
    pub(crate) holder: Holder,
    pub(crate) epoch: Epoch,
    pub(crate) table: Events,
    /// Its durable copy, from its start to the first welcome that goes on from it.
    pub(crate) unproven: Option<Copy>,
    pub(crate) lease: Option<Lease>,
    /// Applies wait for `apply`.
    pub(crate) slow: bool,
    pub(crate) to_apply: Vec<Frame>,
    /// Streams that its driver has not seen the end of.
    pub(crate) open: Vec<Stream>,
    /// The stream that brings a snapshot.
    pub(crate) loading: Option<Stream>,
    /// R12: the replica that it should leave.
    pub(crate) leaves: Option<u8>,
    /// I5: where it was, by epoch.
    pub(crate) been: BTreeMap<[u8; 16], Events>,
}

/// The node's durable copy.
#[derive(Clone)]
pub(crate) struct Copy {
    pub(crate) place: Place,
    pub(crate) table: Events,
    /// Is the seal on its place right?
    pub(crate) sealed: bool,
}

impl Sidecar {
    pub(crate) fn apply(&mut self, frame: &Frame, event: char) -> (Revision, consent_core::digest::Digest) {
        self.table.push(event);
        (frame.revision, digest(&self.table))
    }
}

/// A run of a replica, with its driver's part: the tail and what is fed from it.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) incarnation: Incarnation,
    pub(crate) grantor: Grantor,
    pub(crate) lease: Option<Lease>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) tail: Events,
    /// Streams, and up to where they are fed.
    pub(crate) fed: BTreeMap<Stream, usize>,
}

#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) incarnation: Incarnation,
    pub(crate) confirmer: Confirmer,
}

/// A connection, and between which runs it is.
#[derive(Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) sidecar: (u8, Incarnation),
    pub(crate) replica: (u8, Incarnation),
}

/// What is on its way. Nothing is ever taken out of the set of messages: each may be delivered late, out of order,
/// again, or not at all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Up(Stream, ToAuthority),
    Down(Stream, ToSidecar),
    Snapshot(Stream, Place, Events),
    Closed(Stream),
    Ask(Incarnation, Ask),
    Told(Incarnation, Told),
}

#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) from: Party,
    pub(crate) to: Party,
    pub(crate) body: Body,
    pub(crate) under_way: bool,
}

/// An answer that somebody may still be using.
#[derive(Clone)]
pub(crate) enum Answer {
    /// By a sidecar, for a caller on the same kernel.
    Near { sidecar: u8, validity: Validity, seen: Events },
    /// By a replica, for a caller elsewhere, who counts from when it asked.
    Far { sent: Moment, valid_for: Span, seen: Events },
}
