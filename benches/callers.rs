//! Callers in a closed loop: each asks, waits for the answer, and asks again.

use crate::accounts;
use crate::kernel;
use crate::slices::{Pair, Spread};
use anyhow::ensure;
use consent::clock;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Status;

/// What callers saw in one slice.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    /// Calls that were answered.
    pub(crate) calls: u64,
    /// Nanoseconds from the first question to the last answer.
    pub(crate) nanos: u64,
    /// Nanoseconds of the server's processor time.
    pub(crate) processor: u64,
    /// Nanoseconds from question to answer, sorted.
    latencies: Vec<u32>,
}

impl Slice {
    /// The same, where each call was for so many.
    pub(crate) fn of_batches(self, size: u64) -> Slice {
        Slice { calls: self.calls * size, ..self }
    }

    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.calls as f64 * 1e9 / self.nanos as f64
    }

    /// Calls for one second of the server's processor time.
    pub(crate) fn rate_of_the_server(&self) -> f64 {
        self.calls as f64 * 1e9 / self.processor.max(1) as f64
    }

    /// Microseconds within which so many of 100 calls were answered.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).map_or(f64::NAN, |nanos| f64::from(*nanos) / 1000.0)
    }
}

/// `callers` ask until `length` is over. `ask` is given who asks, and how many questions came before.
pub(crate) async fn in_a_loop<F, A>(
    server: u32,
    callers: usize,
    length: Duration,
    ask: F,
) -> anyhow::Result<Slice>
where
    F: Fn(usize, u64) -> A + Clone + Send + 'static,
    A: Future<Output = Result<(), Status>> + Send,
{
    let (processor, stale) = (kernel::processor_nanos(server)?, accounts::stale());
    let start = clock::now();
    let end = start.raw + u64::try_from(length.as_nanos())?;
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let ask = ask.clone();
        tasks.spawn(async move {
            let (mut latencies, mut asked) = (Vec::with_capacity(1024), start.raw);
            while asked < end {
                ask(caller, latencies.len() as u64).await?;
                let answered = clock::now().raw;
                latencies.push(u32::try_from(answered - asked).unwrap_or(u32::MAX));
                asked = answered;
            }
            Ok::<_, Status>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(caller) = tasks.join_next().await {
        latencies.append(&mut caller??);
    }
    let nanos = clock::now().raw - start.raw;
    let processor = kernel::processor_nanos(server)? - processor;
    // A pause now and then is the machine's. A server without a lease would be fast, and of no use.
    let stale = accounts::stale() - stale;
    ensure!(
        20 * stale <= latencies.len() as u64 + 20,
        "{stale} of {} calls are answered STALE",
        latencies.len()
    );
    latencies.sort_unstable();
    Ok(Slice { calls: latencies.len() as u64, nanos, processor, latencies })
}

/// Words for both sides of some slices: `12.3 k against 12.5 k calls/s`.
pub(crate) fn beside(pairs: &[Pair<Slice>], unit: &str, value: impl Fn(&Slice) -> f64) -> String {
    let (baseline, product) = Spread::medians(pairs, value);
    format!("{} against {}{unit}", crate::bench::number(product), crate::bench::number(baseline))
}
