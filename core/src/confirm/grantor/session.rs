//! What a replica has promised to one run of a sidecar.
//!
//! Keeps R7: it belongs to the sidecar's incarnation and outlives its streams, and only an ack, a relinquish or
//! expiry ends what it waits for. Keeps of R12 that a relinquish ends only what was granted before it was sent.

use super::known::{ChainAt, Known};
use crate::chain::Chain;
use crate::confirm::lease::past;
use crate::confirm::message::Stream;
use crate::words::{Moment, Nonce, Revision};
use std::collections::VecDeque;

/// So many pairs may be live at once. At the bound a keepalive is not answered: a healthy sidecar asks three times
/// within a promise.
const PAIRS: usize = 64;

/// A promise: a lease on a table at or past `m` may last until `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    m: Revision,
    until: Moment,
    /// The last nonce that was granted on it.
    nonce: Nonce,
}

/// The session of one sidecar incarnation.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// The stream that it has now.
    pub(super) stream: Option<Stream>,
    /// Rising in `m`, as `known_rev` is, and in `until`.
    pairs: VecDeque<Pair>,
    acked: Option<Revision>,
    /// An ack for what the replica does not know yet: the sidecar may have it from another one.
    early: Option<(Revision, Chain)>,
}

impl Session {
    /// R5: records a promise, if there is room for it.
    pub(super) fn promise(&mut self, now: Moment, m: Revision, until: Moment, nonce: Nonce) -> bool {
        self.forget_past(now);
        if let Some(pair) = self.pairs.back_mut().filter(|pair| pair.m == m) {
            (pair.until, pair.nonce) = (until, pair.nonce.max(nonce));
            return true;
        }
        let room = self.pairs.len() < PAIRS;
        if room {
            self.pairs.push_back(Pair { m, until, nonce });
        }
        room
    }

    /// R6: counts an ack only where the replica's own chain is equal.
    pub(super) fn ack(&mut self, known: &Known, revision: Revision, chain: Chain) {
        match known.chain_at(revision) {
            ChainAt::Is(own) if own == chain => self.acked = self.acked.max(Some(revision)),
            ChainAt::Later => self.early = Some((revision, chain)),
            ChainAt::Is(_) | ChainAt::Forgotten => (),
        }
    }

    /// R12: what was granted on nonces up to `last` is given back.
    pub(super) fn relinquish(&mut self, last: Nonce) {
        self.pairs.retain(|pair| pair.nonce > last);
    }

    /// R7: the last revision up to `wanted` that this session lets drain.
    pub(super) fn drained(&mut self, now: Moment, known: &Known, wanted: Revision) -> Revision {
        if let Some((revision, chain)) = self.early.take() {
            self.ack(known, revision, chain);
        }
        self.forget_past(now);
        // A pair (m, until) waits for every r > m that is not acked.
        self.pairs.front().map_or(wanted, |pair| wanted.min(self.acked.unwrap_or(pair.m).max(pair.m)))
    }

    /// R12: is every pair past or relinquished?
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.pairs.iter().all(|pair| past(pair.until, now))
    }

    /// When it will be over, unless something else ends it.
    pub(super) fn over_at(&self) -> Option<Moment> {
        self.pairs.back().map(|pair| pair.until)
    }

    fn forget_past(&mut self, now: Moment) {
        while self.pairs.front().is_some_and(|pair| past(pair.until, now)) {
            self.pairs.pop_front();
        }
    }
}
