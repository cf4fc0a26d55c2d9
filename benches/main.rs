//! The figures: what the product costs, each beside what it is measured against, in one run.
//!
//! ```text
//! cargo bench -p consent-cli --bench figures -- [NAME] [--check] [--accounts N,..] [--slices N] [--millis N] [--tiny]
//! ```
//!
//! A figure is a ratio wherever there is something to compare with: baseline and product are run slice by slice in
//! turn, so that a machine that is slow for a while is slow for both, and what counts is the median of the slices.
//! Servers are processes of their own on one core, callers are here, on another. A run prints one line for each
//! figure, `figure | measured | goal | holds or short`, and with `--check` fails where one is short.
//!
//! To add one: a file with a `run`, its name and `run` in [`GROUPS`] and in [`run_group`], and [`Bench::figure`] for
//! each of its lines.

mod accounts;
mod arguments;
mod authority;
mod bare;
mod baseline;
mod batch;
mod bench;
mod callers;
mod cores;
mod corpus;
mod deploy;
mod echo;
mod effective;
mod embedded;
mod fan_out;
mod follower;
mod idle;
mod kernel;
mod lane;
mod ledger;
mod memory;
mod no_op;
mod node;
mod peers;
mod played;
mod raw;
mod replica;
mod slices;
mod stream;
mod unary;
mod warm;
mod writes;
mod written;

#[path = "../tests/support/postgres.rs"]
mod postgres;

#[path = "../tests/support/process.rs"]
mod process;

#[path = "../tests/support/redis.rs"]
mod redis_server;

use anyhow::bail;
use arguments::{Arguments, Command};
use bench::Bench;
use std::process::ExitCode;

/// What there is, in the order in which it is run.
const GROUPS: [(&str, &str); 13] = [
    ("unary", "CanTrain on the sidecar, against a server that answers without deciding"),
    ("batch", "BatchCanTrain of 1000, against the same server and against single questions"),
    ("stream", "StreamCanTrain: decisions in a second of the server's processor time"),
    ("corpus", "10^7 artifacts through one stream, and a consumer that stops reading"),
    ("embedded", "one decision in process, against one read of memory and the clocks"),
    ("memory", "memory of the sidecar for an account: load, growth, resync"),
    ("warm", "a restart from the durable copy, against reading and hashing the same bytes"),
    ("lane", "opt-outs through the lane, against hand-written SQL on the same rows and indexes"),
    ("writes", "SetConsent by 256 callers, against commits of one row"),
    ("fan_out", "a change to 1000 sidecars, against a bare broadcast of the same bytes"),
    ("idle", "memory of an authority for an idle sidecar, against a bare bidirectional stream"),
    ("effective", "from RECORDED to EFFECTIVE: all well, a sidecar stopped, a replica killed"),
    ("deploy", "answers that are not ALLOW while authorities are replaced one by one"),
];

/// What is run only when it is named.
const APART: [(&str, &str); 1] = [("peers", "Redis and Cerbos on the same question, in turn with CanTrain")];

async fn run_group(group: &str, bench: &mut Bench) -> anyhow::Result<()> {
    match group {
        "unary" => unary::run(bench).await,
        "batch" => batch::run(bench).await,
        "stream" => stream::run(bench).await,
        "corpus" => corpus::run(bench).await,
        "embedded" => embedded::run(bench).await,
        "memory" => memory::run(bench).await,
        "warm" => warm::run(bench).await,
        "lane" => lane::run(bench).await,
        "writes" => writes::run(bench).await,
        "fan_out" => fan_out::run(bench).await,
        "idle" => idle::run(bench).await,
        "effective" => effective::run(bench).await,
        "deploy" => deploy::run(bench).await,
        "peers" => peers::run(bench).await,
        _ => bail!("there is no figure {group}"),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match arguments::parse(&arguments) {
        Ok(command) => command,
        Err(trouble) => {
            eprintln!("{trouble:#}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match command {
        Command::NoOp { socket } => no_op::serve(&socket),
        Command::Broadcast => bare::serve(),
        Command::Echo => echo::serve(),
        Command::List => {
            GROUPS.iter().chain(&APART).for_each(|(name, what)| println!("{name:12} {what}"));
            ExitCode::SUCCESS
        }
        Command::Figures(arguments) => figures(arguments),
    }
}

/// All callers are on this one thread: what a server is measured by is not how callers get into each other's way.
fn figures(arguments: Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(trouble) => {
            eprintln!("no runtime: {trouble}");
            return ExitCode::FAILURE;
        }
    };
    let mut bench = Bench::new(arguments);
    runtime.block_on(async {
        tokio::select! {
            () = run_groups(&mut bench) => bench.finish(),
            // The processes are ended and reaped as the run is dropped.
            _ = tokio::signal::ctrl_c() => ExitCode::from(130),
        }
    })
}

async fn run_groups(bench: &mut Bench) {
    let wanted = GROUPS.iter().filter(|(group, _)| bench.wants_some_of(group));
    let named = APART.iter().filter(|(group, _)| bench.names(group));
    for (group, _) in wanted.chain(named).collect::<Vec<_>>() {
        let lines = bench.lines();
        match run_group(group, bench).await {
            Err(trouble) => bench.trouble(group, &trouble),
            Ok(()) if bench.lines() == lines => bench.trouble(group, &anyhow::anyhow!("it measured nothing")),
            Ok(()) => (),
        }
    }
}
