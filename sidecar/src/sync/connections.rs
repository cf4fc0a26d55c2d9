//! The connections to authorities: with whom, when, and how many.
//!
//! There is one whose authority stays, standing or on its way; beside it there may be those whose authorities leave
//! (R12). The next one is with the next authority, after a wait with full jitter, and not before the last one asked.

use super::connection::{self, Event};
use consent::backoff::Backoff;
use consent::{clock, pb};
use consent_core::confirm::Stream;
use consent_core::words::{IdKey, Moment, Span};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Endpoint;

/// So long may an authority keep the node waiting for its welcome, or between two pieces of a snapshot.
const SILENCE: Span = Span::from_millis(5000);

/// The longest wait before the first of the next connections, and before any of them.
const BACKOFF: Span = Span::from_millis(50);
const BACKOFF_MAX: Span = Span::from_millis(5000);

/// An authority that may be connected to.
pub(crate) struct Authority {
    url: String,
    endpoint: Endpoint,
}

impl Authority {
    /// The authority at this address: `http://host:port`.
    pub(crate) fn new(url: &str) -> Result<Authority, tonic::transport::Error> {
        connection::endpoint(url).map(|endpoint| Authority { url: url.to_owned(), endpoint })
    }
}

/// What an authority has to say next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The answer to a hello.
    Welcome,
    /// The next piece of a snapshot that has begun. Before that it may be the turn of others, for long.
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
    /// An authority asked not to be bothered before.
    not_before: Option<Moment>,
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
            not_before: None,
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
        let authority = self.next_authority % self.authorities.len();
        self.next_authority = authority + 1;
        let stream = Stream(self.next_stream);
        self.next_stream += 1;
        let asked = self.not_before.take().map_or(Span::ZERO, |moment| moment.longest_since(clock::now()));
        let delay = self.backoff.wait().max(asked);
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

    /// The last one proved good: the next wait is short again.
    pub(super) fn proved_good(&mut self) {
        self.backoff.reset();
    }

    /// The next one is not begun before this has passed.
    pub(super) fn pause(&mut self, span: Span) {
        if span > Span::ZERO {
            self.not_before = Some(clock::now().after(span));
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
