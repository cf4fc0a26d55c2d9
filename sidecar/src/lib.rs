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
//! - `decision`, `status`, `health`: what is served, on loopback TCP and on a Unix socket.
//! - `embedded`: the same decision for the process that the sidecar is in.

mod decision;
mod durable;
mod embedded;
mod health;
mod node;
mod serve;
mod status;
mod sync;
mod table;

pub use durable::{BadAddress, RedisAddress};
pub use embedded::{Answer, Answers};

use consent::VERSION;
use consent_core::words::Incarnation;
use node::Node;
use serve::{CONNECTIONS_MAX, Served};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{io, thread};
use sync::{Authority, Driver};
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a sidecar is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Authorities to sync from, `http://host:port`. At least one; they are tried in turn.
    pub authorities: Vec<String>,
    /// Where to answer on TCP: loopback only. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where to answer on a Unix socket (mode 0660): a path in a directory that exists and that only those may enter
    /// who may ask.
    pub socket: Option<PathBuf>,
    /// The node's Redis, for a durable copy of the table; `None`: from memory alone.
    pub redis: Option<RedisAddress>,
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
    leave: DropGuard,
    /// Cancelled when the sync thread has ended, by itself or because it was told to.
    synced: CancellationToken,
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

    let served = serve::start(Arc::clone(&node), config.listen, config.socket, CONNECTIONS_MAX).await?;
    let leave = CancellationToken::new();
    let redis = config.redis.as_ref().map(ToString::to_string);
    let synced = spawn_sync(Arc::clone(&node), authorities, config.redis, leave.clone())?;
    tracing::info!(
        address = %served.address(),
        socket = served.socket().map(|path| path.display().to_string()),
        version = VERSION,
        authorities = config.authorities.join(","),
        redis,
        "listening"
    );
    Ok(Sidecar { node, served, leave: leave.drop_guard(), synced })
}

/// Applying a snapshot must not delay an answer: sync has a thread and a runtime of its own, and Redis with it.
fn spawn_sync(
    node: Arc<Node>,
    authorities: Vec<Authority>,
    redis: Option<RedisAddress>,
    leave: CancellationToken,
) -> io::Result<CancellationToken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let synced = CancellationToken::new();
    let ended = synced.clone().drop_guard();
    thread::Builder::new().name("consent-sync".to_owned()).spawn(move || {
        // Dropped by a panic, too.
        let _ended = ended;
        let (durable, writer) = redis.map(|address| durable::open(address, Arc::clone(&node))).unzip();
        let drive = Driver::new(node, authorities, durable).run(leave);
        runtime.block_on(async {
            match writer {
                None => drive.await,
                Some(writer) => tokio::select! {
                    () = drive => (),
                    () = writer.run() => (),
                },
            }
        });
    })?;
    Ok(synced)
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

    /// Resolves if a part of the sidecar ends by itself. It denies then, or will when its lease is over; end the
    /// process, so that whoever watches it starts another.
    pub async fn failed(&mut self) -> StartError {
        tokio::select! {
            () = self.synced.cancelled() => StartError::Ended("sync"),
            () = self.served.ended() => StartError::Ended("the server"),
        }
    }

    /// Ends it cleanly (R12): the lease is dropped, and given back when no answer from before is valid; meanwhile
    /// callers are denied. Then it stops to listen.
    pub async fn stop(self) {
        drop(self.leave);
        self.synced.cancelled().await;
        self.served.stop().await;
    }
}
