//! `consent dev`: the whole service in one process, ready to be asked, with nothing to install.
//!
//! It prints its first line only when the sidecar answers and the demo accounts' data counts, so that whatever it
//! shows works when it is pasted. It ends like the real servers do: leases given back, lease row closed.

mod banner;
mod seed;

use crate::connect;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::signals::Signals;
use banner::Banner;
use clap::Args as ClapArgs;
use consent::logs;
use consent_authority::StoreConfig;
use consent_core::confirm::Terms;
use consent_sidecar::Sidecar;
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tracing::Level;

/// Run an authority on SQLite and a sidecar here, with the seed policy and three accounts to ask about
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Keep the data here; a later start goes on where this one ended. Without it the data is lost on exit
    #[arg(long, value_name = "DIRECTORY", env = "CONSENT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The authority's port; the sidecar takes the next one, and their metrics the two after it. 0 takes free ones
    #[arg(long, default_value_t = 7401, env = "CONSENT_PORT", value_parser = clap::value_parser!(u16).range(..=u16::MAX as i64 - 3))]
    port: u16,
    /// How much to log to stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "warn", env = "CONSENT_LOG_LEVEL")]
    log_level: Level,
}

/// Runs both until a signal.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let mut signals = Signals::catch()?;
    logs::start(args.log_level);
    let home = Home::open(args.data_dir)?;
    let listen = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let port = |next| match args.port {
        0 => Ok(listen(0)),
        first => free(listen(first.saturating_add(next))),
    };
    let (first, second, third, fourth) = (port(0)?, port(1)?, port(2)?, port(3)?);
    let store = StoreConfig::Sqlite { directory: home.path().to_owned() };
    consent_authority::migrate(&store).await.map_err(|e| Failure::cannot_start(&e))?;
    let config = consent_authority::Config {
        listen: first,
        replica: "dev".to_owned(),
        store,
        terms: Terms::default(),
        metrics: Some(third),
    };
    let mut authority = consent_authority::start(config).await.map_err(|e| Failure::cannot_start(&e))?;
    let config = consent_sidecar::Config {
        cores: NonZeroUsize::MIN,
        metrics: Some(fourth),
        ..consent_sidecar::Config::new(vec![url(authority.address())], second)
    };
    let address = url(authority.address());
    let started = tokio::select! {
        () = signals.next() => Err(Ok(Exit::Done)),
        why = authority.failed() => Err(Err(Failure::stopped(&why))),
        started = follow(&address, config) => started.map_err(Err),
    };
    let mut sidecar = match started {
        Ok(sidecar) => sidecar,
        Err(ended) => {
            signals.stop(authority.stop()).await;
            return ended;
        }
    };
    let addresses = (url(authority.address()), url(sidecar.address()));
    let metrics = [authority.metrics(), sidecar.metrics()].map(|address| address.map(url));
    let ended = tokio::select! {
        () = signals.next() => Ok(Exit::Done),
        why = authority.failed() => Err(Failure::stopped(&why)),
        why = sidecar.failed() => Err(Failure::stopped(&why)),
        Err(failure) = serve(addresses, metrics, &home) => Err(failure),
    };
    // The sidecar first: it relinquishes to an authority that still listens.
    signals
        .stop(async {
            sidecar.stop().await;
            authority.stop().await;
        })
        .await;
    ended
}

// An authority that is not ready would turn the sidecar away, and a newcomer would read a warning about it.
async fn follow(authority: &str, config: consent_sidecar::Config) -> Result<Sidecar, Failure> {
    seed::until_serving(connect::connect(authority).await?).await?;
    consent_sidecar::start(config).await.map_err(|e| Failure::cannot_start(&e))
}

/// Fills the ledger, waits until what is printed is true, prints it, and stays.
async fn serve(
    (authority, sidecar): (String, String),
    metrics: [Option<String>; 2],
    home: &Home,
) -> Result<Infallible, Failure> {
    let policy = seed::policy(connect::connect(&authority).await?).await?;
    let newest = seed::accounts(connect::connect(&authority).await?).await?;
    let ready_at = seed::until_answered(connect::connect(&sidecar).await?, newest).await?;
    let banner =
        Banner { authority, sidecar, metrics, data: home.path(), kept: home.kept(), policy, ready_at };
    output::line(&banner.to_string())?;
    pending().await
}

/// Where the ledger lies: a directory of the caller's, or one of our own that goes with us.
enum Home {
    Kept(PathBuf),
    Lost(TempDir),
}

impl Home {
    fn open(data_dir: Option<PathBuf>) -> Result<Home, Failure> {
        match data_dir {
            Some(path) => match std::fs::create_dir_all(&path) {
                Ok(()) => Ok(Home::Kept(path)),
                Err(e) => Err(Failure::usage(format!("--data-dir {} cannot be made: {e}", path.display()))),
            },
            None => match TempDir::with_prefix("consent-dev-") {
                Ok(directory) => Ok(Home::Lost(directory)),
                Err(e) => Err(Failure::internal(format!("a temporary directory cannot be made: {e}"))),
            },
        }
    }

    fn path(&self) -> &Path {
        match self {
            Home::Kept(path) => path,
            Home::Lost(directory) => directory.path(),
        }
    }

    fn kept(&self) -> bool {
        match self {
            Home::Kept(_) => true,
            Home::Lost(_) => false,
        }
    }
}

// Asked before anything is started, since the server's own error would come after the ledger was opened.
fn free(address: SocketAddr) -> Result<SocketAddr, Failure> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(e) => {
            let message = format!("port {} cannot be had: {e}", address.port());
            Err(Failure::usage(message).next("consent dev --port 0, which takes free ports"))
        }
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_taken_port_is_a_clear_error() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let text = free(address).unwrap_err().render(Format::Text);
        assert!(text.contains(&format!("port {}", address.port())) && text.contains("--port 0"), "{text}");
    }

    #[test]
    fn a_directory_of_our_own_goes_with_us_and_a_given_one_stays() {
        let lost = Home::open(None).unwrap();
        let path = lost.path().to_owned();
        assert!(path.is_dir() && !lost.kept());
        drop(lost);
        assert!(!path.exists());

        let outer = TempDir::new().unwrap();
        let kept = Home::open(Some(outer.path().join("new"))).unwrap();
        let path = kept.path().to_owned();
        assert!(kept.kept());
        drop(kept);
        assert!(path.is_dir());
    }
}
