//! One replica as a sidecar sees it: its stream, the keepalives sent to it, its grants, and its lease.
//!
//! Keeps R4 (each lease counts from when its keepalive was SENT), the receiving half of R5 (a grant is held until
//! the table has reached it, and dropped when its lease would be over), and of R12 that a dropped lease takes
//! every outstanding nonce with it.

use super::io::Cause;
use super::table::{Standing, Table};
use crate::confirm::lease::left;
use crate::confirm::message::{Place, Stream};
use crate::confirm::terms::Terms;
use crate::words::{Epoch, Incarnation, Moment, Nonce, Revision, Span};
use std::collections::VecDeque;

/// R6: acks of one stream are at least so far apart. What is ripe meanwhile is acked as one: frames that come in a
/// burst are as many, and an ack for each would be more messages than a stream takes.
const ACK_EVERY: Span = Span::from_millis(5);
/// So many keepalives may be without an answer; then the oldest is forgotten, and its grant will be ignored.
const ASKED: usize = 16;

/// How far a link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The hello is sent.
    Greeting {
        /// The place it named.
        hello: Option<Place>,
    },
    /// Welcomed, and a snapshot comes.
    Loading,
    /// Welcomed, and frames come.
    Following,
    /// R12: its lease is dropped; it is relinquished when the hold has passed.
    Dropped {
        /// When it was ordered.
        ordered: Moment,
        /// Since when no serving thread uses it: the first step after the driver has published that.
        since: Option<Moment>,
    },
    /// The stream is over, its lease is not.
    Closed,
}

/// What one replica has granted.
#[derive(Debug, Clone)]
pub(super) struct Grants {
    /// Which run of it.
    pub(super) grantor: Incarnation,
    pub(super) epoch: Epoch,
    pub(super) terms: Terms,
    /// R4: keepalives without an answer, and when each was sent.
    asked: VecDeque<(Nonce, Moment)>,
    /// Grants that wait for the table, and when their keepalives were sent.
    waiting: Vec<(Place, Moment)>,
    /// The lease's end.
    until: Option<Moment>,
    /// When the last keepalive was sent on this stream.
    last_sent: Option<Moment>,
    /// The last nonce sent to this run of the replica, on whatever stream.
    last_nonce: Option<Nonce>,
    /// The last ack on this stream, and when it was sent.
    acked: Option<(Revision, Moment)>,
}

impl Grants {
    pub(super) fn new(grantor: Incarnation, epoch: Epoch, terms: Terms) -> Grants {
        let (asked, waiting) = (VecDeque::new(), Vec::new());
        Grants {
            grantor,
            epoch,
            terms,
            asked,
            waiting,
            until: None,
            last_sent: None,
            last_nonce: None,
            acked: None,
        }
    }

    /// Takes over what an earlier stream to the same run of the replica left: its lease, and the nonces to name
    /// when it is relinquished.
    pub(super) fn succeed(&mut self, earlier: &Grants) {
        self.until = earlier.until;
        self.last_nonce = earlier.last_nonce;
    }

    /// When the next keepalive is due; `None`: at once.
    pub(super) fn ask_at(&self) -> Option<Moment> {
        self.last_sent.map(|sent| sent.after(self.terms.keepalive_every()))
    }

    pub(super) fn must_ask(&self, now: Moment) -> bool {
        self.last_sent.is_none_or(|sent| now.longest_since(sent) >= self.terms.keepalive_every())
    }

    /// R4: a keepalive is about to be sent.
    pub(super) fn ask(&mut self, now: Moment, nonce: Nonce) {
        if self.asked.len() >= ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back((nonce, now));
        self.last_sent = Some(now);
        self.last_nonce = Some(nonce);
    }

    /// When an ack up to `ripe` is due; `None`: at once, or never again.
    pub(super) fn ack_at(&self, ripe: Revision) -> Option<Moment> {
        self.acked.filter(|(acked, _)| *acked < ripe).map(|(_, sent)| sent.after(ACK_EVERY))
    }

    pub(super) fn must_ack(&self, now: Moment, ripe: Revision) -> bool {
        self.acked.is_none_or(|(acked, sent)| acked < ripe && now.longest_since(sent) >= ACK_EVERY)
    }

    /// R6: an ack is about to be sent.
    pub(super) fn ack(&mut self, now: Moment, revision: Revision) {
        self.acked = Some((revision, now));
    }

    /// R5: a grant came; it waits for the table. One for no outstanding keepalive is ignored.
    pub(super) fn grant(&mut self, nonce: Nonce, place: Place) {
        if let Some(at) = self.asked.iter().position(|(asked, _)| *asked == nonce)
            && let Some((_, sent)) = self.asked.remove(at)
        {
            self.waiting.push((place, sent));
        }
    }

    /// R5: activates what the table has reached, drops what is over.
    pub(super) fn activate(&mut self, now: Moment, table: &Table) -> Result<(), Cause> {
        let lease = self.terms.sidecar_lease();
        self.asked.retain(|(_, sent)| now.longest_since(*sent) < lease);
        let mut still = Vec::new();
        for (place, sent) in std::mem::take(&mut self.waiting) {
            if now.longest_since(sent) >= lease {
                continue;
            }
            match table.standing(&place) {
                Standing::Reached => self.extend(sent.after(lease), now),
                Standing::Ahead => still.push((place, sent)),
                Standing::Forgotten => (),
                Standing::Differs(cause) => return Err(cause),
            }
        }
        self.waiting = still;
        if self.left(now) == Span::ZERO {
            self.until = None;
        }
        Ok(())
    }

    fn extend(&mut self, until: Moment, now: Moment) {
        if left(until, now) > self.left(now) {
            self.until = Some(until);
        }
    }

    /// Drops the lease, and every nonce that could bring it back (R12).
    pub(super) fn drop_lease(&mut self) {
        self.until = None;
        self.forget_asked();
    }

    /// No answer to what was asked so far counts; the next keepalive may be sent at once.
    pub(super) fn forget_asked(&mut self) {
        self.asked.clear();
        self.waiting.clear();
        self.last_sent = None;
    }

    pub(super) fn until(&self) -> Option<Moment> {
        self.until
    }

    /// What is left of the lease.
    pub(super) fn left(&self, now: Moment) -> Span {
        self.until.map_or(Span::ZERO, |until| left(until, now))
    }

    /// R12: the last nonce that was sent to this replica.
    pub(super) fn last_nonce(&self) -> Option<Nonce> {
        self.last_nonce
    }
}

/// A connection to a replica, or what is left of one.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) stream: Stream,
    pub(super) stage: Stage,
    /// R12: the replica leaves.
    pub(super) draining: bool,
    /// `None` until the welcome.
    pub(super) grants: Option<Grants>,
}

impl Link {
    pub(super) fn greeting(stream: Stream, hello: Option<Place>) -> Link {
        Link { stream, stage: Stage::Greeting { hello }, draining: false, grants: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage != Stage::Closed
    }

    /// Are acks sent on it? Frames may still come on one that is about to be given back.
    pub(super) fn carries_acks(&self) -> bool {
        matches!(self.stage, Stage::Following | Stage::Dropped { .. })
    }

    pub(super) fn leased(&self, now: Moment) -> bool {
        self.grants.as_ref().is_some_and(|grants| grants.left(now) > Span::ZERO)
    }
}
