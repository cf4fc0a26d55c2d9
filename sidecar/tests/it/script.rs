//! An authority that says exactly what a test tells it to say.

use crate::ledger::Ledger;
use consent::convert::sync::{self, Unfinished};
use consent::pb::sync_service_server::{SyncService, SyncServiceServer};
use consent::pb::{SyncRequest, SyncResponse};
use consent_core::chain::Chain;
use consent_core::confirm::{Place, Seal, Start, Terms, ToAuthority, Values};
use consent_core::words::{Incarnation, Nonce, Revision, Span};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a test waits for what must come. It is reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What must come, or the test fails.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("in vain: {what}"),
    }
}

/// Asks again and again until the answer is right.
pub(crate) async fn until<T, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    is_right: impl Fn(&T) -> bool,
) -> T {
    soon(what, async {
        loop {
            let answer = ask().await;
            if is_right(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Leases of 30 s: no test outlives one by accident, however slow the machine is.
pub(crate) fn long() -> Terms {
    values(|values| {
        values.sidecar_lease = Span::from_millis(30_000);
        values.replica_lease = Span::from_millis(45_000);
    })
}

/// Leases of 300 ms, which a test can outlive.
pub(crate) fn short() -> Terms {
    values(|values| values.sidecar_lease = Span::from_millis(300))
}

pub(crate) fn values(change: impl FnOnce(&mut Values)) -> Terms {
    let mut values = Terms::default().values();
    change(&mut values);
    Terms::new(values).expect("the terms are safe")
}

/// A scripted authority.
pub(crate) struct Authority {
    pub(crate) url: String,
    pub(crate) incarnation: Incarnation,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

struct Sessions(mpsc::Sender<Session>);

#[tonic::async_trait]
impl SyncService for Sessions {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<ReceiverStream<Result<SyncResponse, Status>>>, Status> {
        let (to, responses) = mpsc::channel(64);
        let session = Session { from: request.into_inner(), to, seal: None, unfinished: None };
        self.0.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl Authority {
    pub(crate) async fn start() -> Authority {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, incoming) = consent::serve::listen_tcp(listen).await.expect("a free port");
        let (to, sessions) = mpsc::channel(16);
        let router = consent::serve::server().add_service(SyncServiceServer::new(Sessions(to)));
        let server =
            tokio::spawn(async move { router.serve_with_incoming(incoming).await.expect("it serves") });
        let incarnation = Incarnation::new([9; 16]);
        Authority { url: format!("http://{address}"), incarnation, sessions, server }
    }

    /// The next session that a sidecar opens.
    pub(crate) async fn session(&mut self) -> Session {
        soon("a session", self.sessions.recv()).await.expect("the server lives")
    }

    /// The next session, whose hello must name this place.
    pub(crate) async fn hello(&mut self, place: Option<Place>) -> Session {
        let mut session = self.session().await;
        let said = session.hear().await;
        let ToAuthority::Hello { place: named, .. } = said else { panic!("no hello: {said:?}") };
        assert_eq!(named, place, "what the hello names");
        session
    }

    /// No session has come beside those that a test has taken.
    pub(crate) fn has_no_other_session(&mut self) {
        assert!(self.sessions.try_recv().is_err(), "the sidecar said hello again");
    }

    /// Takes the next session through a snapshot, and grants from then on.
    pub(crate) async fn bring_to_life(&mut self, ledger: &Ledger, terms: Terms) -> Granting {
        let session = self.hello(None).await;
        session.snapshot(self.incarnation, ledger, terms).await;
        session.grant_from_now_on(ledger.place)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One stream of a sidecar.
pub(crate) struct Session {
    from: Streaming<SyncRequest>,
    to: mpsc::Sender<Result<SyncResponse, Status>>,
    /// The seal on the last message, if it was a hello that carries one.
    pub(crate) seal: Option<Seal>,
    /// What the last message named of a snapshot, if it was a hello that does.
    pub(crate) unfinished: Option<Unfinished>,
}

impl Session {
    pub(crate) async fn say(&self, response: SyncResponse) {
        self.to.send(Ok(response)).await.expect("the sidecar listens");
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> ToAuthority {
        self.hear_or_end().await.expect("the stream goes on")
    }

    /// The next message; none when the sidecar has closed the stream.
    pub(crate) async fn hear_or_end(&mut self) -> Option<ToAuthority> {
        let request = soon("a message", self.from.message()).await.ok().flatten()?;
        self.seal = sync::seal(&request).expect("the sidecar speaks the contract");
        self.unfinished = sync::unfinished(&request).expect("the sidecar speaks the contract");
        Some(sync::to_authority(request).expect("the sidecar speaks the contract"))
    }

    /// The next keepalive; acks before it are passed over.
    pub(crate) async fn keepalive(&mut self) -> Nonce {
        loop {
            match self.hear().await {
                ToAuthority::KeepAlive { nonce } => return nonce,
                ToAuthority::Ack { .. } => (),
                other @ (ToAuthority::Hello { .. } | ToAuthority::Relinquish { .. }) => {
                    panic!("no keepalive: {other:?}")
                }
            }
        }
    }

    /// The sidecar closes the stream.
    pub(crate) async fn closed(mut self) {
        soon("the end of the stream", async { while self.hear_or_end().await.is_some() {} }).await;
    }

    /// Welcome, and the beginning of a snapshot if one is to come.
    pub(crate) async fn welcome(&self, grantor: Incarnation, ledger: &Ledger, terms: Terms, start: Start) {
        let Ledger { epoch, id_key, place, .. } = ledger;
        self.say(sync::welcome(grantor, *epoch, start, &terms, id_key, place.revision)).await;
        if start == Start::Snapshot {
            self.say(sync::snapshot_begin(*place)).await;
        }
    }

    /// Welcome, every head, and the end.
    pub(crate) async fn snapshot(&self, grantor: Incarnation, ledger: &Ledger, terms: Terms) {
        self.welcome(grantor, ledger, terms, Start::Snapshot).await;
        self.say(sync::snapshot_chunk(ledger.heads(), ledger.place.revision)).await;
        self.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    }

    /// Ends the stream with a status.
    pub(crate) async fn end(self, status: Status) {
        self.to.send(Err(status)).await.expect("the sidecar listens");
    }

    pub(crate) async fn grant(&self, nonce: Nonce, at: Place) {
        self.say(sync::grant(nonce, at)).await;
    }

    /// Answers every keepalive with a grant at this place.
    pub(crate) fn grant_from_now_on(self, place: Place) -> Granting {
        let (heard, acks) = watch::channel(None);
        let (last, nonces) = watch::channel(None);
        let Session { mut from, to, .. } = self;
        let out = to.clone();
        let task = tokio::spawn(async move {
            let mut rest = Vec::new();
            while let Ok(Some(request)) = from.message().await {
                match sync::to_authority(request).expect("the sidecar speaks the contract") {
                    ToAuthority::KeepAlive { nonce } => {
                        last.send_replace(Some(nonce));
                        if out.send(Ok(sync::grant(nonce, place))).await.is_err() {
                            break;
                        }
                    }
                    ToAuthority::Ack { revision, chain } => drop(heard.send_replace(Some((revision, chain)))),
                    other @ (ToAuthority::Hello { .. } | ToAuthority::Relinquish { .. }) => rest.push(other),
                }
            }
            rest
        });
        Granting { acks, nonces, to, task }
    }
}

/// A session that grants by itself.
pub(crate) struct Granting {
    pub(crate) acks: watch::Receiver<Option<(Revision, Chain)>>,
    /// The last nonce that was granted.
    pub(crate) nonces: watch::Receiver<Option<Nonce>>,
    to: mpsc::Sender<Result<SyncResponse, Status>>,
    task: JoinHandle<Vec<ToAuthority>>,
}

impl Granting {
    pub(crate) async fn say(&self, response: SyncResponse) {
        self.to.send(Ok(response)).await.expect("the sidecar listens");
    }

    /// Waits for the ack of this place.
    pub(crate) async fn acked(&mut self, place: Place) {
        let is_it = |ack: &Option<(Revision, Chain)>| *ack == Some((place.revision, place.chain));
        soon("the ack", self.acks.wait_for(is_it)).await.expect("the session goes on");
    }

    /// Ends the stream from this side.
    pub(crate) async fn hang_up(self) {
        self.task.abort();
        // Aborted or not, the streams' own ends are gone when it is over.
        let _ = self.task.await;
    }

    /// The sidecar closes the stream. Gives what else it said: neither keepalives nor acks.
    pub(crate) async fn closed(self) -> Vec<ToAuthority> {
        soon("the end of the stream", self.task).await.expect("the session did not fail")
    }
}
