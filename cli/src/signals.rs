//! How a server is asked to end: SIGINT or SIGTERM once for an orderly stop, a second time for at once.

use crate::failure::{Exit, Failure};
use std::future::Future;
use std::process::exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, caught from here on.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches them. Done before anything is started, so that no start can be cut in half.
    pub(crate) fn catch() -> Result<Signals, Failure> {
        let catch =
            |kind| signal(kind).map_err(|e| Failure::internal(format!("signals cannot be caught: {e}")));
        Ok(Signals { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    /// Resolves at the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Stops in order: leases are given back and the lease row is closed, so that nobody waits them out. Whoever
    /// cannot wait for it sends a second signal; the protocol then counts us as dead.
    pub(crate) async fn stop(mut self, orderly: impl Future<Output = ()>) {
        tokio::select! {
            () = orderly => {}
            () = self.next() => exit(Exit::Interrupted as i32),
        }
    }
}
