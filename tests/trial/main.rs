//! The trials: the product run for real and hurt for real, each judged by what it promises.
//!
//! Every trial starts the one binary as separate processes (authority, sidecar), asks and writes over gRPC like any
//! caller, and counts what it saw. No trial knows an inside of the servers; what it breaks, it breaks from outside:
//! with signals, or with a relay on the wire.
//!
//! `cargo test --release -p consent-cli --test trial -- VERB [ARG]`; the last line is `N passed, M failed`.

mod carrier;
mod clients;
mod cluster;
mod crash;
mod cutoff;
mod demo;
mod fleet;
mod history;
mod hold;
mod ledger;
mod random;
mod reflection;
mod relay;
mod seed;
mod slow_wire;
mod tally;
mod warm;

#[path = "../support/process.rs"]
mod process;

use anyhow::{Context, bail};
use std::process::ExitCode;
use tally::Tally;

const USAGE: &str = "usage: trial VERB [ARG]

  seed             the sixteen rows of the seed through real processes, on both stores
  demo             the first minute of the README, played and checked
  crash [N]        kill -9 of the authority under 64 writers, and of the sidecar: N times each, on each store
  cutoff [N]       the sidecar cut off from its authority N times in each way
  redis [N]        kill -9 of the sidecar under writes, N times, its Redis lagging, hung, killed, wiped or swapped; and
                   a tenth as often with each way to tamper with it
  fleet [N] [ACCOUNTS]
                   N sidecars killed and started at once, from their copies; then some of them without
  hold [MINUTES]   answers used while people opt out; then the same with a fault planted
";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut tally = Tally::default();
    let outcome = tokio::select! {
        outcome = run(&arguments, &mut tally) => outcome,
        // The processes are ended and reaped as the trial is dropped.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(trouble) = outcome {
        tally.trouble(&trouble);
    }
    tally.finish()
}

async fn run(arguments: &[String], tally: &mut Tally) -> anyhow::Result<()> {
    let argument = arguments.get(1).map(String::as_str);
    match arguments.first().map(String::as_str) {
        Some("seed") => seed::run(tally).await,
        Some("demo") => demo::run(tally).await,
        Some("crash") => crash::run(tally, number(argument, 3)?).await,
        Some("cutoff") => cutoff::run(tally, number(argument, 2)?).await,
        Some("redis") => warm::run(tally, number(argument, 1_000)?).await,
        Some("fleet") => {
            let accounts = number(arguments.get(2).map(String::as_str), 2_000)?;
            fleet::run(tally, number(argument, 8)?, accounts).await
        }
        Some("hold") => hold::run(tally, number(argument, 0.2)?).await,
        Some(other) => bail!("no such verb: {other}\n{USAGE}"),
        None => bail!("{USAGE}"),
    }
}

fn number<T>(argument: Option<&str>, default: T) -> anyhow::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match argument {
        Some(text) => text.parse().with_context(|| format!("{text} is no number")),
        None => Ok(default),
    }
}
