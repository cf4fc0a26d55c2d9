//! Servers on one core, callers on another: what each side costs is then its own.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where things run. On a machine with one core that is the same place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    server: usize,
    caller: usize,
}

impl Cores {
    /// The first two of those that this process may use.
    pub(crate) fn found() -> Cores {
        let allowed = sched_getaffinity(None).unwrap_or_default();
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = cores.next().unwrap_or(0);
        Cores { server, caller: cores.next().unwrap_or(server) }
    }

    /// This thread is a caller from now on.
    pub(crate) fn stay(self) {
        put(self.caller);
    }

    /// This thread is a server's until it stays again: what it starts meanwhile goes where servers are.
    pub(crate) fn serve(self) {
        put(self.server);
    }

    /// Starts something on the core of the servers: where the thread that starts it is, its own threads are.
    pub(crate) fn on_the_servers<T>(self, start: impl FnOnce() -> T) -> T {
        put(self.server);
        let started = start();
        put(self.caller);
        started
    }
}

fn put(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(refused) = sched_setaffinity(None, &set) {
        eprintln!("core {core} cannot be chosen ({refused}): servers and callers get into each other's way");
    }
}
