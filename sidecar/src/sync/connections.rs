//! The connections to authorities: with whom, when, and how many.
//!
//! There is one whose authority stays, standing or on its way; beside it there may be those whose authorities leave
//! (R12). The next one is with the next authority that has not asked to be left alone, after a wait with full jitter.

use super::connection::{self, Event};
use consent::backoff::{self, Backoff};
use consent::{clock, pb};
use consent_core::confirm::{Start, Stream};
use consent_core::words::{IdKey, Moment, Span};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Endpoint;

/// So long may an authority keep the node waiting for its welcome, or between two pieces of a snapshot.
const SILENCE: Span = Span::from_millis(5000);

/// So long may it let the node wait for its turn at a snapshot. There may be a thousand before it, but also another
/// authority that has none.
const TURN: Span = Span::from_millis(300_000);

/// For how long an authority is left alone that asks for that, at most; spreading makes it twice as long.
const ALONE_MAX: Span = Span::from_millis(60_000);
/// For how long one that kept the node waiting for its turn.
const ALONE_FOR_TURNS: Span = Span::from_millis(5000);

/// The longest wait before the first of the next connections, and before any of them.
const BACKOFF: Span = Span::from_millis(50);
const BACKOFF_MAX: Span = Span::from_millis(5000);

/// An authority that may be connected to.
pub(crate) struct Authority {
    url: String,
    endpoint: Endpoint,
    /// Until when it wants to be left alone.
    not_before: Option<Moment>,
}

impl Authority {
    /// The authority at this address: `http://host:port`.
    pub(crate) fn new(url: &str) -> Result<Authority, tonic::transport::Error> {
        let endpoint = connection::endpoint(url)?;
        Ok(Authority { url: url.to_owned(), endpoint, not_before: None })
    }

    /// How long it still wants to be left alone.
    fn alone_for(&self, now: Moment) -> Span {
        self.not_before.map_or(Span::ZERO, |moment| moment.longest_since(now))
    }
}

/// What an authority has to say next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The answer to a hello.
    Welcome,
    /// The beginning of a snapshot: it may be the turn of others.
    Turn,
    /// The next piece of a snapshot that has begun.
    Piece,
    /// A grant, within the lease that it would be of.
    Grant(Span),
}

/// A connection that this side has not closed. Dropping it closes it.
pub(super) struct Connection {
    pub(super) stream: Stream,
    authority: usize,
    /// Where to put messages; `None` until it stands.
    pub(super) outbox: Option<mpsc::Sender<pb::SyncRequest>>,
    /// The secret of its welcome.
    pub(super) id_key: Option<IdKey>,
    /// T_S, from its welcome.
    pub(super) lease: Option<Span>,
    /// What it waits for, and since when.
    waiting: Option<(Awaited, Moment)>,
    /// R12: its authority leaves, and another one is sought.
    pub(super) is_leaving: bool,
    closed: CancellationToken,
}

impl Connection {
    /// Its authority has said how this side begins.
    pub(super) fn welcomed(&mut self, now: Moment, start: Start, id_key: IdKey, lease: Span) {
        self.id_key = Some(id_key);
        self.lease = Some(lease);
        match start {
            Start::Continue => self.answered(),
            Start::Snapshot | Start::RestOfSnapshot => self.await_from(now, Awaited::Turn),
        }
    }

    /// From now on this has to come.
    pub(super) fn await_from(&mut self, now: Moment, awaited: Awaited) {
        self.waiting = Some((awaited, now));
    }

    /// R4: a keepalive was sent. The first of those that nothing has answered yet counts.
    pub(super) fn await_grant(&mut self, now: Moment) {
        if let (None, Some(lease)) = (self.waiting, self.lease) {
            self.await_from(now, Awaited::Grant(lease));
        }
    }

    /// Something came that is no part of a snapshot, nor makes one come.
    pub(super) fn spoke(&mut self) {
        self.waiting.take_if(|(awaited, _)| matches!(awaited, Awaited::Grant(_)));
    }

    /// What had to come is there.
    pub(super) fn answered(&mut self) {
        self.waiting = None;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// All of them.
pub(super) struct Connections {
    authorities: Vec<Authority>,
    open: Vec<Connection>,
    backoff: Backoff,
    next_authority: usize,
    next_stream: u64,
    events: mpsc::Sender<Event>,
    tasks: TaskTracker,
}

impl Connections {
    /// None yet. The authorities are tried in turn, from the `first` on.
    pub(super) fn new(authorities: Vec<Authority>, first: usize, events: mpsc::Sender<Event>) -> Connections {
        Connections {
            authorities,
            open: Vec::new(),
            backoff: Backoff::new(BACKOFF, BACKOFF_MAX),
            next_authority: first,
            next_stream: 0,
            events,
            tasks: TaskTracker::new(),
        }
    }

    /// Begins one, unless one stands, or is on its way, whose authority stays.
    pub(super) fn ensure(&mut self) {
        if self.open.iter().any(|connection| !connection.is_leaving) {
            return;
        }
        let (authority, delay) = self.next(clock::now());
        let stream = Stream(self.next_stream);
        self.next_stream += 1;
        let closed = CancellationToken::new();
        let endpoint = self.authorities[authority].endpoint.clone();
        let connection = connection::run(stream, endpoint, delay, self.events.clone(), closed.clone());
        self.tasks.spawn(connection::watch(stream, self.events.clone(), connection));
        self.open.push(Connection {
            stream,
            authority,
            outbox: None,
            id_key: None,
            lease: None,
            waiting: None,
            is_leaving: false,
            closed,
        });
    }

    /// With whom the next one is, and after how long. Where all want to be left alone, it is the one who wants that for
    /// the shortest.
    fn next(&mut self, now: Moment) -> (usize, Span) {
        let count = self.authorities.len();
        let in_turn = (0..count).map(|n| (self.next_authority + n) % count);
        let soonest = in_turn.min_by_key(|n| self.authorities[*n].alone_for(now));
        let authority = soonest.unwrap_or_default();
        self.next_authority = authority + 1;
        (authority, self.backoff.wait().max(self.authorities[authority].alone_for(now)))
    }

    /// The last one proved good: the next wait is short again.
    pub(super) fn proved_good(&mut self) {
        self.backoff.reset();
    }

    /// The authority of one wants to be left alone for so long. A whole fleet may have been told the same.
    pub(super) fn leave_alone(&mut self, stream: Stream, asked: Span) {
        let connection = self.open.iter().find(|connection| connection.stream == stream);
        if let Some(connection) = connection.filter(|_| asked > Span::ZERO) {
            let until = clock::now().after(backoff::spread(asked.min(ALONE_MAX)));
            self.authorities[connection.authority].not_before = Some(until);
        }
    }

    /// One is given up on which this did not come in time.
    pub(super) fn gave_up(&mut self, stream: Stream, awaited: Awaited) {
        if awaited == Awaited::Turn {
            self.leave_alone(stream, ALONE_FOR_TURNS);
        }
    }

    /// The one with this number, unless it was closed.
    pub(super) fn get(&mut self, stream: Stream) -> Option<&mut Connection> {
        self.open.iter_mut().find(|connection| connection.stream == stream)
    }

    /// The secret of the welcome of the one with this number.
    pub(super) fn id_key(&self, stream: Stream) -> Option<IdKey> {
        self.open.iter().find(|connection| connection.stream == stream)?.id_key
    }

    /// Closes one.
    pub(super) fn close(&mut self, stream: Stream) {
        self.open.retain(|connection| connection.stream != stream);
    }

    /// One whose authority has not said in time what it had to, and what that was.
    pub(super) fn silent(&self, now: Moment) -> Option<(Stream, Awaited)> {
        let is_over = |until: &Moment| until.shortest_since(now) == Span::ZERO;
        self.open.iter().find_map(|connection| {
            let (awaited, until) = self.patience(connection)?;
            is_over(&until).then_some((connection.stream, awaited))
        })
    }

    /// A hint when to look for a silent one.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        let ends = self.open.iter().filter_map(|connection| self.patience(connection));
        ends.map(|(_, until)| until).min_by_key(|until| until.boot)
    }

    /// Until when a connection is waited for, and with what.
    fn patience(&self, connection: &Connection) -> Option<(Awaited, Moment)> {
        let (awaited, since) = connection.waiting?;
        let span = match awaited {
            Awaited::Welcome | Awaited::Piece => SILENCE,
            Awaited::Turn => TURN,
            Awaited::Grant(lease) => {
                // A session that goes on costs nothing, and where else should a lease come from?
                (self.authorities.len() > 1).then_some(lease)?
            }
        };
        Some((awaited, since.after(span)))
    }

    /// The address of the one with this number; empty if it was closed.
    pub(super) fn url(&self, stream: Stream) -> &str {
        let connection = self.open.iter().find(|connection| connection.stream == stream);
        connection.map_or("", |connection| &self.authorities[connection.authority].url)
    }

    /// The authority that is followed: the newest that has welcomed; empty if there is none.
    pub(super) fn followed(&self) -> &str {
        let welcomed = self.open.iter().rev().find(|connection| connection.lease.is_some());
        welcomed.map_or("", |connection| &self.authorities[connection.authority].url)
    }

    /// Closes all, and waits until each has sent what was said last.
    pub(super) async fn finish(mut self) {
        self.open.clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment { boot: millis * 1_000_000, raw: millis * 1_000_000 }
    }

    /// Connections with so many authorities; one is on its way.
    fn connections(authorities: usize) -> (Connections, Stream) {
        let authority = |_| Authority::new("http://127.0.0.1:1").unwrap();
        let (events, _) = mpsc::channel(1);
        let mut connections = Connections::new((0..authorities).map(authority).collect(), 0, events);
        connections.ensure();
        let stream = connections.open[0].stream;
        (connections, stream)
    }

    #[tokio::test]
    async fn a_welcome_and_the_next_piece_of_a_snapshot_are_waited_for_within_a_bound() {
        let (mut connections, stream) = connections(1);
        assert_eq!((connections.silent(at(0)), connections.wake_at()), (None, None));
        for awaited in [Awaited::Welcome, Awaited::Piece] {
            connections.get(stream).unwrap().await_from(at(1000), awaited);
            assert_eq!(connections.wake_at(), Some(at(1000).after(SILENCE)));
            assert_eq!(connections.silent(at(5999)), None);
            assert_eq!(connections.silent(at(6000)), Some((stream, awaited)));
            // Whichever clock says so first.
            assert_eq!(connections.silent(Moment { raw: 0, ..at(6000) }), Some((stream, awaited)));
        }
        connections.get(stream).unwrap().answered();
        assert_eq!((connections.silent(at(60_000)), connections.wake_at()), (None, None));
    }

    #[tokio::test]
    async fn a_turn_at_a_snapshot_is_waited_for_within_a_bound_and_not_asked_for_again_at_once() {
        let (id_key, lease) = (IdKey::new([0; 16]), Span::from_millis(300));
        for start in [Start::Snapshot, Start::RestOfSnapshot] {
            let (mut connections, stream) = connections(1);
            let connection = connections.get(stream).unwrap();
            connection.welcomed(at(1000), start, id_key, lease);
            // Whatever else is said meanwhile.
            connection.spoke();
            assert_eq!(connections.silent(at(300_999)), None);
            assert_eq!(connections.silent(at(301_000)), Some((stream, Awaited::Turn)));
            let now = clock::now();
            connections.gave_up(stream, Awaited::Turn);
            connections.close(stream);
            assert!(connections.next(now).1 >= ALONE_FOR_TURNS);
        }
        let (mut connections, stream) = connections(1);
        connections.get(stream).unwrap().welcomed(at(1000), Start::Continue, id_key, lease);
        assert_eq!((connections.silent(at(600_000)), connections.wake_at()), (None, None));
    }

    #[tokio::test]
    async fn an_authority_that_wants_to_be_left_alone_is_and_no_other() {
        let asked = Span::from_millis(10_000);
        let alone = |authorities| {
            let (mut connections, stream) = connections(authorities);
            connections.leave_alone(stream, asked);
            connections.close(stream);
            connections
        };
        let mut of_three = alone(3);
        let now = clock::now();
        for authority in [1, 2, 1, 2] {
            let (next, wait) = of_three.next(now);
            assert_eq!(next, authority);
            assert!(wait <= BACKOFF_MAX);
        }
        // When its time is over it has its turn again.
        assert_eq!(of_three.next(now.after(Span::from_millis(20_000))).0, 0);
        // A fleet of which each has but this one does not come back at one instant.
        let waits = [alone(1), alone(1)].map(|mut connections| connections.next(now).1);
        assert!(waits.iter().all(|wait| *wait >= asked), "{waits:?}");
        assert_ne!(waits[0], waits[1]);
    }

    #[tokio::test]
    async fn nobody_is_left_alone_for_ever() {
        let (mut connections, stream) = connections(1);
        connections.leave_alone(stream, Span::from_nanos(u64::MAX));
        connections.close(stream);
        assert!(connections.next(clock::now()).1 <= Span::from_millis(120_000));
    }

    #[tokio::test]
    async fn a_grant_is_waited_for_as_long_as_there_is_no_other_authority() {
        let lease = Span::from_millis(300);
        for (authorities, is_left) in [(1, false), (2, true)] {
            let (mut connections, stream) = connections(authorities);
            let connection = connections.get(stream).unwrap();
            connection.lease = Some(lease);
            connection.await_grant(at(1000));
            // A later keepalive makes no difference.
            connection.await_grant(at(1200));
            assert_eq!(connections.silent(at(1299)), None);
            let silent = connections.silent(at(1300));
            assert_eq!(silent, is_left.then_some((stream, Awaited::Grant(lease))));
        }
    }
}
