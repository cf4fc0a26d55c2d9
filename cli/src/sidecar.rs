//! `consent sidecar`: one node's mirror and its answers, until a signal.

use crate::failure::{Exit, Failure};
use crate::signals::Signals;
use crate::values;
use clap::Args as ClapArgs;
use consent::logs;
use consent_sidecar::{Config, Peers, RedisAddress, Socket};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use tracing::Level;

/// Run one sidecar: it mirrors the authority's heads and answers on this machine from memory
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The authorities to follow, one at a time
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',', env = "CONSENT_AUTHORITY")]
    #[arg(value_parser = authority)]
    authority: Vec<String>,
    /// Where to listen: a loopback address; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7402", env = "CONSENT_LISTEN")]
    #[arg(value_parser = values::loopback)]
    listen: SocketAddr,
    /// Listen on this Unix socket too, for its owner and group alone. Its directory is made if it is not there; one
    /// that anybody may write to is refused
    #[arg(long, value_name = "PATH", env = "CONSENT_SOCKET")]
    socket: Option<PathBuf>,
    /// Answer on the Unix socket only the processes of these users, by their numbers
    #[arg(long, value_name = "UID", value_delimiter = ',', requires = "socket", env = "CONSENT_SOCKET_UIDS")]
    socket_uids: Option<Vec<u32>>,
    /// How many threads answer [default: an eighth of the processors, from 1 to 4]
    #[arg(long, value_name = "N", env = "CONSENT_CORES", value_parser = cores)]
    cores: Option<NonZeroUsize>,
    /// Keep a durable copy in this node's Redis, so that a restart costs no snapshot: unix:///PATH?db=0 or
    /// redis://127.0.0.1:PORT. Without it the sidecar works from memory alone
    #[arg(long, value_name = "URL", env = "CONSENT_REDIS", hide_env_values = true)]
    redis: Option<RedisUrl>,
    /// Show Prometheus metrics at http://ADDRESS/metrics: a loopback address; port 0 takes a free one. Without it
    /// they are not shown
    #[arg(long, value_name = "ADDRESS", env = "CONSENT_METRICS")]
    #[arg(value_parser = values::loopback)]
    metrics: Option<SocketAddr>,
    /// How much to log to stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "CONSENT_LOG_LEVEL")]
    log_level: Level,
}

/// The address of a Redis as it was given. It may carry a password, and what reads flags repeats the value that it
/// cannot read: so it is read here.
#[derive(Clone)]
struct RedisUrl(String);

impl From<String> for RedisUrl {
    fn from(text: String) -> RedisUrl {
        RedisUrl(text)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(secret)")
    }
}

impl RedisUrl {
    fn read(&self) -> Result<RedisAddress, Failure> {
        self.0.parse().map_err(|bad| Failure::usage(format!("--redis: {bad}")))
    }
}

/// Runs it.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let Args { authority, listen, socket, socket_uids, cores, redis, metrics, log_level } = args;
    let redis = redis.as_ref().map(RedisUrl::read).transpose()?;
    logs::start(log_level);
    let mut signals = Signals::catch()?;
    let peers = socket_uids.map_or(Peers::Group, |uids| Peers::Users(uids.into_iter().collect()));
    let socket = socket.map(|path| Socket { path, peers });
    let default = Config::new(authority, listen);
    let config = Config { socket, cores: cores.unwrap_or(default.cores), redis, metrics, ..default };
    let mut sidecar = consent_sidecar::start(config).await.map_err(|e| Failure::cannot_start(&e))?;
    let ended = tokio::select! {
        () = signals.next() => Ok(Exit::Done),
        why = sidecar.failed() => Err(Failure::stopped(&why)),
    };
    signals.stop(sidecar.stop()).await;
    ended
}

fn authority(text: &str) -> Result<String, String> {
    if text.len() > "http://".len() && text.starts_with("http://") {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no authority; write http://HOST:PORT"))
    }
}

/// As many threads as the largest machine has processors, and a name for each.
const CORES_MAX: usize = 99;

fn cores(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= CORES_MAX);
    number.ok_or_else(|| format!("`{text}` is no number of threads from 1 to {CORES_MAX}"))
}
