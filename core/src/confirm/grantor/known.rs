//! What a replica knows of the ledger: `known_rev`, the chain on the way there, and since when it knew.
//!
//! Keeps of R5 that there is one `known_rev` with one owner; of R6 that an ack counts only where the replica's own
//! chain is equal; of R7 that a revision drains only when the replica's own answers from before it are over.

use crate::chain::Chain;
use crate::confirm::message::Place;
use crate::words::{Epoch, Moment, Revision, Span};
use std::collections::VecDeque;

/// So many places are remembered to judge acks by. An ack for an older one is ignored, and its sidecar's pairs
/// run out instead.
const RECENT: usize = 16_384;
/// So many revisions wait for the own hold one by one. At the bound the newest two become one, which is over later
/// than the first of them could be.
const HELD: usize = 1024;

/// What the replica can say of the chain at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainAt {
    /// It is this.
    Is(Chain),
    /// The tail has not brought it yet.
    Later,
    /// Too long ago to say.
    Forgotten,
}

/// The replica's view of the ledger, within one epoch.
#[derive(Debug, Clone)]
pub(super) struct Known {
    head: Place,
    /// What the tail brought, oldest first, without a gap. Never empty.
    tail: VecDeque<(Revision, Chain)>,
    /// Revisions younger than the own hold, and since when they were known.
    young: VecDeque<(Revision, Moment)>,
    /// Every own answer from before this is over.
    settled: Revision,
}

impl Known {
    /// R2: what the registration read. The row's `reg_rev` speaks for it, and this incarnation has answered
    /// nothing from before.
    pub(super) fn registered(head: Place) -> Known {
        let tail = VecDeque::from([(head.revision, head.chain)]);
        Known { head, tail, young: VecDeque::new(), settled: head.revision }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.head.epoch
    }

    /// m of the next grant.
    pub(super) fn head(&self) -> Place {
        self.head
    }

    /// R3: a renewal may see further than the tail.
    pub(super) fn raise(&mut self, now: Moment, place: Place) {
        if place.revision > self.head.revision {
            self.head = place;
            if self.young.len() >= HELD {
                self.young.pop_back();
            }
            self.young.push_back((place.revision, now));
        }
    }

    /// The next revision of the tail.
    pub(super) fn learn(&mut self, now: Moment, place: Place) {
        let last = self.tail.back().map_or(Revision::ZERO, |(revision, _)| *revision);
        if place.revision <= last {
            return;
        }
        if !place.revision.follows(last) {
            self.tail.clear();
        }
        if self.tail.len() >= RECENT {
            self.tail.pop_front();
        }
        self.tail.push_back((place.revision, place.chain));
        self.raise(now, place);
    }

    /// Up to where the tail has come: up to here there are frames to send.
    pub(super) fn tail(&self) -> Revision {
        self.tail.back().map_or(Revision::ZERO, |(revision, _)| *revision)
    }

    pub(super) fn chain_at(&self, revision: Revision) -> ChainAt {
        if revision == self.head.revision {
            return ChainAt::Is(self.head.chain);
        }
        let first = self.tail.front().map_or(Revision::ZERO, |(revision, _)| *revision);
        if revision < first {
            return ChainAt::Forgotten;
        }
        // The tail is contiguous, so a place is found by counting.
        let at = usize::try_from(revision.get() - first.get()).ok();
        match at.and_then(|at| self.tail.get(at)) {
            Some(&(_, chain)) => ChainAt::Is(chain),
            None => ChainAt::Later,
        }
    }

    /// Is the place, of this epoch, beside the history that is known?
    pub(super) fn contradicts(&self, place: &Place) -> bool {
        matches!(self.chain_at(place.revision), ChainAt::Is(own) if own != place.chain)
    }

    /// R7: up to where every own answer from before is over, by both clocks.
    pub(super) fn settle(&mut self, now: Moment, own_hold: Span) -> Revision {
        while let Some(&(revision, since)) = self.young.front() {
            if now.shortest_since(since) < own_hold {
                break;
            }
            self.settled = revision;
            self.young.pop_front();
        }
        self.settled
    }
}
