//! `consent authority`: one replica over a store, until a signal or until it is fenced.

use crate::failure::{Exit, Failure};
use crate::signals::Signals;
use crate::values;
use clap::Args as ClapArgs;
use consent::logs;
use consent_authority::{Config, StoreConfig};
use consent_core::confirm::{Terms, Values};
use consent_core::words::Span;
use std::net::SocketAddr;
use tracing::Level;

/// Run one authority: it owns the ledger, streams every change, and says when an opt-out is effective
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where to listen: a loopback address; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7401", env = "CONSENT_LISTEN")]
    #[arg(value_parser = values::loopback)]
    listen: SocketAddr,
    /// The ledger's store: sqlite:DIRECTORY, or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "STORE", env = "CONSENT_STORE", hide_env_values = true)]
    store: StoreConfig,
    /// The name of this replica, for people
    #[arg(long, value_name = "NAME", default_value = "authority-1", env = "CONSENT_REPLICA")]
    replica: String,
    #[command(flatten)]
    terms: TermsArgs,
    /// Show Prometheus metrics at http://ADDRESS/metrics: a loopback address; port 0 takes a free one. Without it
    /// they are not shown
    #[arg(long, value_name = "ADDRESS", env = "CONSENT_METRICS")]
    #[arg(value_parser = values::loopback)]
    metrics: Option<SocketAddr>,
    /// How much to log to stderr: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "CONSENT_LOG_LEVEL")]
    log_level: Level,
}

/// The values that a deployment has one of; the authority announces them to its sidecars.
#[derive(Debug, ClapArgs)]
struct TermsArgs {
    /// T_S: how long a sidecar may allow without hearing from an authority
    #[arg(long, value_name = "SPAN", default_value = "3s", env = "CONSENT_SIDECAR_LEASE")]
    #[arg(value_parser = values::span)]
    sidecar_lease: Span,
    /// T_R: how long this replica may grant leases without hearing from the store
    #[arg(long, value_name = "SPAN", default_value = "6s", env = "CONSENT_REPLICA_LEASE")]
    #[arg(value_parser = values::span)]
    replica_lease: Span,
    /// H: how long one ALLOW may be relied upon
    #[arg(long, value_name = "SPAN", default_value = "50ms", env = "CONSENT_ANSWER_HOLD")]
    #[arg(value_parser = values::span)]
    answer_hold: Span,
    /// rho: by how many millionths the lease clocks of two machines may differ in rate
    #[arg(long, value_name = "PPM", default_value_t = 10_000, env = "CONSENT_DRIFT_PPM")]
    drift_ppm: u32,
    /// sigma: by how much scheduling may prolong a wait
    #[arg(long, value_name = "SPAN", default_value = "20ms", env = "CONSENT_SLACK")]
    #[arg(value_parser = values::span)]
    slack: Span,
    /// delta: how often to look at the store while somebody waits for a confirmation
    #[arg(long, value_name = "SPAN", default_value = "20ms", env = "CONSENT_POLL")]
    #[arg(value_parser = values::span)]
    poll: Span,
}

impl TermsArgs {
    fn check(self) -> Result<Terms, Failure> {
        let TermsArgs { sidecar_lease, replica_lease, answer_hold, drift_ppm, slack, poll } = self;
        Terms::new(Values { sidecar_lease, replica_lease, drift_ppm, slack, hold: answer_hold, poll })
            .map_err(|e| Failure::usage(format!("these terms are not safe: {e}")))
    }
}

/// Runs it.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let Args { listen, store, replica, terms, metrics, log_level } = args;
    logs::start(log_level);
    let config = Config { listen, replica, store, terms: terms.check()?, metrics };
    let mut signals = Signals::catch()?;
    let mut authority = consent_authority::start(config).await.map_err(|e| Failure::cannot_start(&e))?;
    let ended = tokio::select! {
        () = signals.next() => Ok(Exit::Done),
        why = authority.failed() => Err(Failure::stopped(&why)),
    };
    signals.stop(authority.stop()).await;
    ended
}
