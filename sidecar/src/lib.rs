//! The sidecar: mirrors the heads on a node and answers CanTrain from memory, under a lease.
//!
//! ```text
//!   authority ──sync stream──▶ sync (a thread of its own) ──▶ node: table, lease ──▶ decision ──▶ callers
//! ```
//!
//! - `durable`: a copy of the table in the node's Redis, for the next start.
//! - `sync`: drives the core's holder: connections, snapshots, frames, grants, acks.
//! - `table`: the heads, in process memory.
//! - `node`: what the threads share.
//! - `decision`, `status`, `health`: what is served.
//! - `serve`: on loopback TCP and on a Unix socket, by threads of its own.
//! - `embedded`: the same decision for the process that the sidecar is in.
//! - `thread`: the threads, whose ends are noticed.
//! - `metrics`, `counters`: what is counted, and shown on a port of its own.

mod counters;
mod decision;
mod durable;
mod embedded;
mod health;
mod metrics;
mod node;
mod serve;
mod status;
mod sync;
mod table;
mod thread;

pub use durable::{BadAddress, RedisAddress};
pub use embedded::{Answer, Answers};
pub use serve::Peers;

use consent::VERSION;
use consent::metrics::Port;
use consent_core::words::Incarnation;
use durable::Durable;
use metrics::SidecarPage;
use node::Node;
use serve::{CONNECTIONS_MAX, Served};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sync::{Authority, Driver};
use thiserror::Error;
use thread::Ended;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a stop may take to give the lease back: far longer than any hold. An authority waits for the end of a lease
/// that is not given back.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// What a sidecar is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Authorities to sync from, `http://host:port`. At least one; they are tried in turn.
    pub authorities: Vec<String>,
    /// Where to answer on TCP: loopback only. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where to answer on a Unix socket too.
    pub socket: Option<Socket>,
    /// How many threads answer, each on a processor of its own where there are so many.
    pub cores: NonZeroUsize,
    /// The node's Redis, for a durable copy of the table; `None`: from memory alone.
    pub redis: Option<RedisAddress>,
    /// Where to show metrics: loopback only. Port 0 takes any free one; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// A Unix socket to answer on.
#[derive(Debug, Clone)]
pub struct Socket {
    /// Its file, of mode 0660. The directory is made, with mode 0750, if it is not there; one that others than its
    /// owner and its group may write to is refused.
    pub path: PathBuf,
    /// Whose processes may ask.
    pub peers: Peers,
}

impl Config {
    /// A sidecar that syncs from these authorities and answers on TCP alone, from memory alone.
    pub fn new(authorities: Vec<String>, listen: SocketAddr) -> Config {
        let available = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Config { authorities, listen, socket: None, cores: share(available), redis: None, metrics: None }
    }
}

/// How many of a node's processors answer if nobody says how many: it is there for others. One is enough for some
/// hundred thousand questions in a second; with more of them a caller of great batches holds up fewer others.
fn share(available: usize) -> NonZeroUsize {
    NonZeroUsize::new((available / 8).min(4)).unwrap_or(NonZeroUsize::MIN)
}

/// Why a sidecar did not start, or went on no longer.
#[derive(Debug, Error)]
pub enum StartError {
    /// No authority was named.
    #[error("no authority was named: a sidecar needs at least one to sync from")]
    NoAuthority,
    /// An authority's address is none.
    #[error("the authority {url} is no address, it must be http://host:port: {source}")]
    BadAuthority {
        /// As given.
        url: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// Answers in plain text stay on the node.
    #[error("{0} is not a loopback address: a sidecar answers on its own node only")]
    NotLoopback(SocketAddr),
    /// An address cannot be listened on.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Address or path.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// The operating system gives no randomness, no thread or no runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// Reflection cannot be built from the contract.
    #[error("the contract cannot be served: {0}")]
    Contract(#[from] tonic_reflection::server::Error),
    /// A part of the sidecar ended that never may.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// A running sidecar. Dropped without [`Sidecar::stop`] it gives its lease back all the same, but cuts callers off.
#[derive(Debug)]
pub struct Sidecar {
    node: Arc<Node>,
    served: Served,
    metrics: Option<SocketAddr>,
    leave: DropGuard,
    /// The end of the sync thread, by itself or because it was told to.
    synced: Ended,
}

/// Starts a sidecar: it listens when this returns, and denies until it is LIVE.
pub async fn start(config: Config) -> Result<Sidecar, StartError> {
    if config.authorities.is_empty() {
        return Err(StartError::NoAuthority);
    }
    let authority = |url: &String| {
        Authority::new(url).map_err(|source| StartError::BadAuthority { url: url.clone(), source })
    };
    let authorities = config.authorities.iter().map(authority).collect::<Result<Vec<_>, _>>()?;
    let mut incarnation = [0; 16];
    getrandom::fill(&mut incarnation).map_err(|error| io::Error::other(error.to_string()))?;
    let node = Arc::new(Node::new(Incarnation::new(incarnation)));

    let port = config.metrics.map(bind_metrics).transpose()?;
    let metrics = port.as_ref().map(Port::address);
    let served = serve::start(&node, &config, CONNECTIONS_MAX).await?;
    let leave = node.leaving.clone().drop_guard();
    let redis = config.redis.as_ref().map(ToString::to_string);
    let synced = start_sync(Arc::clone(&node), authorities, config.redis, port)?;
    tracing::info!(
        address = %served.address(),
        socket = served.socket().map(|path| path.display().to_string()),
        cores = config.cores,
        version = VERSION,
        authorities = config.authorities.join(","),
        redis,
        metrics = metrics.map(tracing::field::display),
        "listening"
    );
    Ok(Sidecar { node, served, metrics, leave, synced })
}

fn bind_metrics(address: SocketAddr) -> Result<Port, StartError> {
    if !address.ip().is_loopback() {
        return Err(StartError::NotLoopback(address));
    }
    Port::bind(address).map_err(|source| StartError::Listen { at: address.to_string(), source })
}

/// Applying a snapshot must not delay an answer: sync has a thread and a runtime of its own, and Redis and metrics
/// with it.
fn start_sync(
    node: Arc<Node>,
    authorities: Vec<Authority>,
    redis: Option<RedisAddress>,
    metrics: Option<Port>,
) -> io::Result<Ended> {
    thread::start("consent-sync".to_owned(), move || async move {
        let _stands_down = StandsDown(Arc::clone(&node));
        let (durable, writer) = redis.map(|address| durable::open(address, Arc::clone(&node))).unzip();
        if let Some(port) = metrics {
            let page = SidecarPage::new(Arc::clone(&node), durable.as_ref().map(Durable::waiting));
            tokio::spawn(show(port, page));
        }
        let leave = node.leaving.clone();
        let drive = Driver::new(node, authorities, durable).run(leave);
        match writer {
            None => drive.await,
            Some(writer) => tokio::select! {
                () = drive => (),
                () = writer.run() => (),
            },
        }
    })
}

/// Without the one who writes to it, a node allows nothing, and says that it is not ready: at once, and not only when
/// its lease is over.
struct StandsDown(Arc<Node>);

impl Drop for StandsDown {
    fn drop(&mut self) {
        self.0.publish(None);
        self.0.leaving.cancel();
    }
}

/// Shows the page for as long as the runtime lasts. A sidecar without it answers all the same.
async fn show(port: Port, page: SidecarPage) {
    if let Err(error) = port.serve(page, CancellationToken::new()).await {
        tracing::error!(%error, "metrics are not shown any more");
    }
}

impl Sidecar {
    /// Where it answers on TCP.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Answers in this process, without a socket.
    pub fn answers(&self) -> Answers {
        Answers::new(Arc::clone(&self.node))
    }

    /// Where it shows its metrics, if anywhere.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Resolves if a part of the sidecar ends by itself. It denies then, or will when its lease is over; end the
    /// process, so that whoever watches it starts another.
    pub async fn failed(&mut self) -> StartError {
        tokio::select! {
            () = self.synced.wait() => StartError::Ended("sync"),
            () = self.served.ended() => StartError::Ended("the server"),
        }
    }

    /// Ends it cleanly (R12): the lease is dropped, streams end, and callers are denied; when no answer from before is
    /// valid the lease is given back. Then it stops to listen. Each part has a bound.
    pub async fn stop(self) {
        tracing::info!("stopping: it denies from now on");
        drop(self.leave);
        if tokio::time::timeout(LEAVE_WITHIN, self.synced.wait()).await.is_err() {
            tracing::warn!("the lease was not given back in time");
        }
        self.served.stop().await;
        tracing::info!("stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::clock;
    use consent_core::confirm::Lease;
    use consent_core::words::{Epoch, Span};

    #[tokio::test]
    async fn a_node_whose_sync_has_panicked_has_no_lease_and_leaves() {
        let node = Arc::new(Node::new(Incarnation::new([2; 16])));
        let until = clock::now().after(Span::from_millis(3_600_000));
        node.publish(Some(Lease { epoch: Epoch::new([1; 16]), until, hold: Span::from_millis(50) }));
        let of_thread = Arc::clone(&node);
        let synced = thread::start("consent-sync".to_owned(), move || async move {
            let _stands_down = StandsDown(of_thread);
            panic!("a planted fault")
        });
        synced.unwrap().wait().await;
        assert!(node.lease().is_none() && node.leaving.is_cancelled());
    }

    #[test]
    fn it_takes_its_share_of_a_node_and_no_more() {
        let shares = [1, 2, 8, 15, 16, 32, 256].map(|available| share(available).get());
        assert_eq!(shares, [1, 1, 1, 1, 2, 4, 4]);
    }
}
