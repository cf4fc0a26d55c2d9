//! What the sync thread and the serving threads share: the table, the lease, and where the sidecar stands.
//!
//! The sync thread alone writes. Serving threads read the lease first and the table second (R10), and nothing here
//! says ALLOW: a state that was LIVE is worth nothing without a lease that is not over at the moment of asking.

use crate::counters::Counters;
use crate::metrics::Noted;
use crate::table::Table;
use arc_swap::ArcSwapOption;
use consent_core::confirm::Lease;
use consent_core::confirm::holder::{Cause, State};
use consent_core::words::{Incarnation, Moment, Span};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// So many calls may wait for their `min_position` at once; a further one is answered STALE immediately.
pub(crate) const WAITING_MAX: usize = 1024;

/// So many streams of corpora may be open at once; a further one is refused. Each may hold a message of 1 MiB, and what
/// it is decoded to.
pub(crate) const STREAMS_MAX: usize = 64;

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

impl Standing {
    pub(crate) fn new(
        state: State,
        cause: Option<Cause>,
        trouble: Option<&str>,
        authority: &str,
    ) -> Standing {
        Standing { state, why: why(state, cause, trouble), authority: authority.to_owned() }
    }

    /// The same of a sidecar that was told to stop: that is then the reason for all else.
    pub(crate) fn of_one_that_stops(self) -> Standing {
        Standing { why: "it is stopping".to_owned(), ..self }
    }
}

fn why(state: State, cause: Option<Cause>, trouble: Option<&str>) -> String {
    let state = match state {
        State::Live => return String::new(),
        State::Cold => "it has heard from no authority yet",
        State::Syncing => "it loads heads, or waits until it has all that its first grant asks for",
        State::Lapsed => "its lease is over, and no authority grants another",
        State::Resync => "it starts over",
    };
    let cause = cause.map(|cause| match cause {
        Cause::Gap => "a revision was missing between its table and a frame",
        Cause::Chain => "an authority spoke of another history than its table's",
        Cause::Digest => "its table did not hold what it should",
        Cause::Epoch => "an authority spoke of another epoch than its table's",
        Cause::Foreign => "an authority had no continuation for its table",
        Cause::AuthorityBehind => "an authority is behind what it has seen, or beside it",
        Cause::Clock => "its clocks cannot be believed",
        Cause::Overrun => "more frames came than it could apply",
        Cause::Unreadable => "an authority said what it cannot read",
    });
    [Some(state), cause, trouble].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What the threads of one sidecar share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) incarnation: Incarnation,
    pub(crate) table: Table,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) waiting: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    /// Cancelled when the sidecar begins to stop (R12), or can go on no longer: no probe finds it ready from then on,
    /// no call waits, and every stream ends with `Refusal::NotServing`.
    pub(crate) leaving: CancellationToken,
    pub(crate) counters: Counters,
    pub(crate) noted: Noted,
    lease: ArcSwapOption<Lease>,
}

impl Node {
    pub(crate) fn new(incarnation: Incarnation) -> Node {
        Node {
            incarnation,
            table: Table::new(),
            standing: watch::Sender::new(Standing::new(State::Cold, None, None, "")),
            waiting: Semaphore::new(WAITING_MAX),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            leaving: CancellationToken::new(),
            counters: Counters::new(),
            noted: Noted::new(),
            lease: ArcSwapOption::empty(),
        }
    }

    /// R10 (2): the lease as last published; it may be over.
    pub(crate) fn lease(&self) -> Option<Lease> {
        self.lease.load().as_deref().copied()
    }

    /// Visible to every serving thread when this returns. Whoever watches the standing hears of it, too: who found the
    /// lease before this one over waits for this one, and the state may be what it was.
    pub(crate) fn publish(&self, lease: Option<Lease>) {
        self.lease.store(lease.map(Arc::new));
        self.standing.send_modify(|_| ());
    }

    /// The lease, if it is not over now and is of the table's epoch: only then may the node allow.
    pub(crate) fn valid_lease(&self, now: Moment) -> Option<Lease> {
        let lease = self.lease().filter(|lease| lease.left(now) > Span::ZERO)?;
        let view = self.table.read();
        view.state().is_some_and(|state| state.position().epoch == lease.epoch).then_some(lease)
    }

    /// May it allow, and is it here to stay?
    pub(crate) fn is_ready(&self, now: Moment) -> bool {
        self.valid_lease(now).is_some() && !self.leaving.is_cancelled()
    }

    /// Where it stands now, and its valid lease: whatever the sync thread last said, without one it is not LIVE.
    pub(crate) fn standing_at(&self, now: Moment) -> (Standing, Option<Lease>) {
        let lease = self.valid_lease(now);
        let standing = self.standing.borrow().clone();
        let (state, why) = match (standing.state, lease) {
            (_, Some(_)) => (State::Live, String::new()),
            (State::Live, None) => (State::Lapsed, "its lease is over".to_owned()),
            (state, None) => (state, standing.why),
        };
        (Standing { state, why, ..standing }, lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Heads;
    use consent_core::chain::Chain;
    use consent_core::confirm::Place;
    use consent_core::digest::Digest;
    use consent_core::words::{Epoch, IdKey, Revision, Timestamp};

    #[test]
    fn whoever_waits_for_a_lease_hears_of_each_though_the_state_stays_the_same() {
        let node = Node::new(Incarnation::new([2; 16]));
        let mut standing = node.standing.subscribe();
        let lease = |until| {
            let until = Moment { boot: until, raw: until };
            Some(Lease { epoch: Epoch::new([1; 16]), until, hold: Span::from_millis(50) })
        };
        for lease in [lease(100), lease(200), None] {
            node.publish(lease);
            assert!(standing.has_changed().unwrap());
            standing.mark_unchanged();
        }
    }

    #[test]
    fn a_lease_counts_while_it_lasts_and_for_its_own_epoch_whatever_was_last_published() {
        let at = |nanos| Moment { boot: nanos, raw: nanos };
        let (epoch, hold) = (Epoch::new([1; 16]), Span::from_millis(50));
        let node = Node::new(Incarnation::new([2; 16]));
        node.publish(Some(Lease { epoch, until: at(100), hold }));
        assert_eq!(node.valid_lease(at(10)), None, "there is no table");
        let place = Place { epoch, revision: Revision::ZERO, chain: Chain::EMPTY, digest: Digest::EMPTY };
        node.table.install(Heads::new(IdKey::new([3; 16])), &place, Timestamp::from_millis(0));
        assert!(node.valid_lease(at(99)).is_some());
        assert_eq!(node.valid_lease(at(100)), None, "nobody has published its end");
        node.table.enter(Epoch::new([9; 16]));
        assert_eq!(node.valid_lease(at(10)), None, "the table is in another epoch");
    }
}
