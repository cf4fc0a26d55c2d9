//! `consent sidecar`: one node's mirror and its answers, until a signal.

use crate::failure::{Exit, Failure};
use crate::signals::Signals;
use crate::values;
use clap::Args as ClapArgs;
use consent::logs;
use consent_sidecar::{Config, RedisAddress};
use std::net::SocketAddr;
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
    /// Listen on this Unix socket too
    #[arg(long, value_name = "PATH", env = "CONSENT_SOCKET")]
    socket: Option<PathBuf>,
    /// Keep a durable copy in this node's Redis, so that a restart costs no snapshot: unix:///PATH?db=0 or
    /// redis://127.0.0.1:PORT. Without it the sidecar works from memory alone
    #[arg(long, value_name = "URL", env = "CONSENT_REDIS", hide_env_values = true)]
    redis: Option<RedisAddress>,
    /// How much to log to stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "CONSENT_LOG_LEVEL")]
    log_level: Level,
}

/// Runs it.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let Args { authority, listen, socket, redis, log_level } = args;
    logs::start(log_level);
    let mut signals = Signals::catch()?;
    let config = Config { authorities: authority, listen, socket, redis };
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
