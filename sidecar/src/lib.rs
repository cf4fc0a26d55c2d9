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
//! - `mirror`: all of that in one, for the process that it is in: answers without a socket.
//! - `decision`, `status`, `health`: what is served.
//! - `serve`: on loopback TCP and on a Unix socket, by threads of its own.
//! - `thread`: the threads, whose ends are noticed.
//! - `metrics`, `counters`: what is counted, and shown on a port of its own.

mod counters;
mod decision;
mod durable;
mod health;
mod metrics;
mod mirror;
mod node;
mod serve;
mod status;
mod sync;
mod table;
mod thread;

pub use durable::{BadAddress, RedisAddress};
pub use mirror::{Answer, Artifact, BadQuestion, Mirror, MirrorConfig, State, Status};
pub use serve::Peers;

use consent::VERSION;
use mirror::Prepared;
use serve::{CONNECTIONS_MAX, Served};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use thiserror::Error;

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

/// A running sidecar: a mirror that others on the node may ask. Dropped without [`Sidecar::stop`] it gives its lease back
/// all the same, but cuts callers off.
#[derive(Debug)]
pub struct Sidecar {
    served: Served,
    mirror: Mirror,
}

/// Starts a sidecar: it listens when this returns, and denies until it is LIVE.
pub async fn start(config: Config) -> Result<Sidecar, StartError> {
    let authorities = config.authorities.join(",");
    let redis = config.redis.as_ref().map(ToString::to_string);
    let (mirrored, own) = (config.authorities.clone(), config.redis.clone());
    let prepared =
        Prepared::new(MirrorConfig { authorities: mirrored, redis: own, metrics: config.metrics })?;
    // Only who can listen begins: another that has its place may have its Redis too.
    let served = serve::start(&prepared.node, &config, CONNECTIONS_MAX).await?;
    let mirror = prepared.begin()?;
    tracing::info!(
        address = %served.address(),
        socket = served.socket().map(|path| path.display().to_string()),
        cores = config.cores,
        version = VERSION,
        authorities,
        redis,
        metrics = mirror.metrics().map(tracing::field::display),
        "listening"
    );
    Ok(Sidecar { served, mirror })
}

impl Sidecar {
    /// Where it answers on TCP.
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// What it answers from, for this process.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Where it shows its metrics, if anywhere.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.mirror.metrics()
    }

    /// Resolves if a part of the sidecar ends by itself. It denies then, or will when its lease is over; end the
    /// process, so that whoever watches it starts another.
    pub async fn failed(&mut self) -> StartError {
        tokio::select! {
            () = self.mirror.ended() => StartError::Ended("sync"),
            () = self.served.ended() => StartError::Ended("the server"),
        }
    }

    /// Ends it cleanly (R12): the lease is dropped, streams end, and callers are denied; when no answer from before is
    /// valid the lease is given back. Then it stops to listen. Each part has a bound.
    pub async fn stop(self) {
        tracing::info!("stopping: it denies from now on");
        self.mirror.stop().await;
        self.served.stop().await;
        tracing::info!("stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_its_share_of_a_node_and_no_more() {
        let shares = [1, 2, 8, 15, 16, 32, 256].map(|available| share(available).get());
        assert_eq!(shares, [1, 1, 1, 1, 2, 4, 4]);
    }
}
