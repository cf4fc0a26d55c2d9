//! Being a baseline's server: a process of its own, until it is killed.

use std::io;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};
use tracing::Level;

/// Runs it on the form of runtime that an authority has.
pub(crate) fn on_all_cores(run: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    on(Runtime::new(), run)
}

/// Runs it on the form of runtime that a serving thread of a sidecar has.
pub(crate) fn on_one_thread(run: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    on(Builder::new_current_thread().enable_all().build(), run)
}

fn on(runtime: io::Result<Runtime>, run: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    consent::logs::start(Level::INFO);
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("{trouble:#}");
            ExitCode::FAILURE
        }
    }
}
