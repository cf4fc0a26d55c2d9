//! The connections to authorities: with whom, when, and how many.
//!
//! There is one whose authority stays, standing or on its way; beside it there may be those whose authorities leave
//! (R12). The next one is with the next authority, after a wait with full jitter, and not before the last one asked.

use super::backoff::Backoff;
use super::connection::{self, Event};
use consent::{clock, pb};
use consent_core::confirm::Stream;
use consent_core::words::{IdKey, Moment, Span};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Endpoint;

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
    /// When the first of the keepalives was sent that nothing has answered yet.
    pub(super) unanswered: Option<Moment>,
    /// R12: its authority leaves, and another one is sought.
    pub(super) is_leaving: bool,
    closed: CancellationToken,
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
            backoff: Backoff::default(),
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
        let delay = self.backoff.next(random()).max(asked);
        let closed = CancellationToken::new();
        let endpoint = self.authorities[authority].endpoint.clone();
        self.tasks.spawn(connection::run(stream, endpoint, delay, self.events.clone(), closed.clone()));
        self.open.push(Connection {
            stream,
            authority,
            outbox: None,
            id_key: None,
            lease: None,
            unanswered: None,
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

    /// Closes one.
    pub(super) fn close(&mut self, stream: Stream) {
        self.open.retain(|connection| connection.stream != stream);
    }

    /// One whose authority has answered no keepalive for a whole lease, if there is another authority to try.
    pub(super) fn silent(&self) -> Option<Stream> {
        if self.authorities.len() < 2 {
            return None;
        }
        let now = clock::now();
        let is_silent = |connection: &&Connection| {
            let waits = connection.lease.zip(connection.unanswered);
            waits.is_some_and(|(lease, sent)| now.longest_since(sent) > lease)
        };
        self.open.iter().find(is_silent).map(|connection| connection.stream)
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

fn random() -> u64 {
    // Without randomness the wait is the shortest: a connection is not refused for the lack of jitter.
    getrandom::u64().unwrap_or(0)
}
