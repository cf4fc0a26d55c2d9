//! The connections of a guard: few, opened when they are needed, and opened again after a wait when they are lost.
//!
//! A further one is opened only when all that stand are busy, so a lone caller has one. It is offered once it has
//! answered: one that waits in the queue of a server which has no room looks open, and is not. Whoever opens one does
//! it in a task of its own, one at a time, which no caller's deadline ends; when it fails, nobody tries again before
//! the backoff is over. tonic's own reconnecting, which knows no backoff, is off: a connection is one stream, once.

use super::endpoint::{Endpoint, Stream};
use crate::backoff::Backoff;
use crate::clock;
use crate::pb::decision_service_client::DecisionServiceClient;
use consent_core::words::{Moment, Span};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Status;
use tonic::transport::{Channel, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

/// How long opening one may take, its first answer included.
const OPENING_MAX: Duration = Duration::from_millis(2000);

/// How long a connection may carry nothing before the sidecar is asked for a sign of life, and how long that may take: a
/// sidecar that hangs is not waited for by every further call.
const SILENT_MAX: Duration = Duration::from_secs(5);
const SIGN_OF_LIFE_WITHIN: Duration = Duration::from_secs(2);

/// The longest wait after a first failure, and after any. A refusal on this machine costs nobody much.
const BACKOFF: Span = Span::from_millis(10);
const BACKOFF_MAX: Span = Span::from_millis(500);

/// A connection that has answered.
pub(super) type Connection = Arc<DecisionServiceClient<Channel>>;

/// None stands, and none may be opened before this has passed.
#[derive(Debug)]
pub(super) struct Down {
    pub(super) status: Status,
    pub(super) retry_after: Span,
}

/// All connections of a guard.
#[derive(Debug)]
pub(super) struct Pool {
    endpoint: Endpoint,
    most: usize,
    state: Mutex<State>,
    /// One was opened, or could not be.
    opened: Notify,
}

#[derive(Debug)]
struct State {
    /// Every call in flight holds its connection once more than this does.
    open: Vec<Connection>,
    is_opening: bool,
    backoff: Backoff,
    not_before: Option<Moment>,
    trouble: String,
}

enum Look {
    Here(Connection),
    Opening,
    Down(Down),
}

impl Pool {
    /// Up to so many connections to an endpoint; none yet.
    pub(super) fn new(endpoint: Endpoint, most: usize) -> Pool {
        let backoff = Backoff::new(BACKOFF, BACKOFF_MAX);
        let (open, trouble) = (Vec::with_capacity(most), String::new());
        let state = State { open, is_opening: false, backoff, not_before: None, trouble };
        Pool { endpoint, most, state: Mutex::new(state), opened: Notify::new() }
    }

    /// The least busy connection, as soon as one stands.
    pub(super) async fn get(self: &Arc<Pool>) -> Result<Connection, Down> {
        loop {
            // Before looking: what happens in between is not missed.
            let opened = self.opened.notified();
            match self.look() {
                Look::Here(connection) => return Ok(connection),
                Look::Down(down) => return Err(down),
                Look::Opening => opened.await,
            }
        }
    }

    /// A connection that did not carry a call through is not used again.
    pub(super) fn lost(&self, lost: &Connection) {
        self.state().open.retain(|connection| !Arc::ptr_eq(connection, lost));
    }

    fn look(self: &Arc<Pool>) -> Look {
        let mut state = self.state();
        let calls = |connection: &&Connection| Arc::strong_count(connection) - 1;
        let least = state.open.iter().min_by_key(calls);
        let is_idle = least.as_ref().is_some_and(|least| calls(least) == 0);
        let least = least.cloned();
        let retry_after = state.not_before.map_or(Span::ZERO, |moment| moment.longest_since(clock::now()));
        let has_room = state.open.len() < self.most;
        if !is_idle && has_room && !state.is_opening && retry_after == Span::ZERO {
            state.is_opening = true;
            tokio::spawn(open(Opening {
                pool: Arc::clone(self),
                outcome: Err("it was given up".to_owned()),
            }));
        }
        match least {
            Some(connection) => Look::Here(connection),
            None if state.is_opening => Look::Opening,
            None => {
                let message = format!("nobody answers at {}: {}", self.endpoint, state.trouble);
                Look::Down(Down { status: Status::unavailable(message), retry_after })
            }
        }
    }

    // Nobody panics while it is held, and if somebody did, what it holds would still be true.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is being opened. However that ends, with its runtime for one, the next may be opened.
struct Opening {
    pool: Arc<Pool>,
    outcome: Result<Connection, String>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.is_opening = false;
        match &mut self.outcome {
            Ok(connection) => {
                state.open.push(Arc::clone(connection));
                state.backoff.reset();
                state.not_before = None;
            }
            Err(trouble) => {
                let wait = state.backoff.wait();
                state.not_before = Some(clock::now().after(wait));
                state.trouble = std::mem::take(trouble);
            }
        }
        drop(state);
        self.pool.opened.notify_waiters();
    }
}

async fn open(mut opening: Opening) {
    let opened = tokio::time::timeout(OPENING_MAX, proven(&opening.pool.endpoint)).await;
    opening.outcome = opened.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
}

/// A connection that has answered something, even if only that it has no health to tell of.
async fn proven(endpoint: &Endpoint) -> Result<Connection, String> {
    let stream = endpoint.open().await.map_err(|error| error.to_string())?;
    let channel = once(stream).await.map_err(|error| innermost(&error))?;
    match HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await {
        Err(status) if is_of_transport(&status) => Err(innermost(&status)),
        Ok(_) | Err(_) => Ok(Arc::new(DecisionServiceClient::new(channel))),
    }
}

/// A channel that ends with its stream.
async fn once(stream: Stream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    };
    Channel::builder(Uri::from_static("http://localhost"))
        .http2_keep_alive_interval(SILENT_MAX)
        .keep_alive_timeout(SIGN_OF_LIFE_WITHIN)
        .connect_with_connector(service_fn(connector))
        .await
}

/// Did the transport say this, and no server? What tonic says in its place comes with a source, or is UNKNOWN, which
/// is what no server of the contract says.
pub(super) fn is_of_transport(status: &Status) -> bool {
    status.source().is_some() || status.code() == tonic::Code::Unknown
}

/// The cause at the bottom: what the layers above it say is that there is one below.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
impl Pool {
    /// So many connections stand, and whether a further one is being opened.
    pub(super) fn standing(&self) -> (usize, bool) {
        let state = self.state();
        (state.open.len(), state.is_opening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[tokio::test]
    async fn nobody_connects_again_before_the_wait_is_over() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let pool = Arc::new(Pool::new(Endpoint::Unix(path.clone()), 2));
        let down = pool.get().await.expect_err("nobody is there");
        assert!(down.status.message().contains("No such file"), "{}", down.status);
        assert!(pool.state().not_before.is_some());
        let minute = Span::from_millis(60_000);
        pool.state().not_before = Some(clock::now().after(minute));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let down = pool.get().await.expect_err("it is too early");
        assert!(down.retry_after > Span::ZERO && down.retry_after <= minute);
        assert!(!pool.state().is_opening);
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
