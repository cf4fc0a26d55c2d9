//! From RECORDED to EFFECTIVE: while all is well, with a sidecar that has gone silent, and with a replica that died.
//!
//! No answer from before an opt-out may be valid when it is EFFECTIVE. While all is well nothing is quicker than the
//! answer hold. A sidecar that says nothing is waited for until its lease is over, and a replica that says nothing
//! until every lease that it could have granted is: how long that is follows from the terms, and is printed.

use crate::bench::{Bench, Goal};
use crate::follower::Follower;
use crate::ledger::{Ledgers, POLICY, Strangers};
use crate::replica::{ANYWHERE, Replica};
use crate::slices::Spread;
use anyhow::Context;
use consent::clock;
use consent_core::confirm::{Terms, Values};
use consent_core::words::Span;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Status;

const SIDECARS: usize = 3;
const WRITERS: usize = 32;
const CHANNELS: usize = 4;
/// A slice in which every writer has some opt-outs to wait for.
const SLICE_MIN: Duration = Duration::from_millis(1500);
/// So many waits in a slice, where there is a bound for all of them.
const WAITS: usize = 3;
/// T_S, where a slice lasts as long as a lease; the replica's is twice as long, as it is by default.
const LEASE: Span = Span::from_millis(1000);
const SHORT_LEASE: Span = Span::from_millis(300);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ledgers = Ledgers::start(bench)?;
    if bench.wants_some_of("effective/healthy") {
        healthy(bench, &ledgers).await?;
    }
    if bench.wants_some_of("effective/silent_node") {
        silent_node(bench, &ledgers).await?;
    }
    if bench.wants_some_of("effective/dead_replica") {
        dead_replica(bench, &ledgers).await?;
    }
    Ok(())
}

/// Sidecars that apply and ack, and writers who wait.
async fn healthy(bench: &mut Bench, ledgers: &Ledgers) -> anyhow::Result<()> {
    let replica = Replica::start(bench, &ledgers.fresh().await?).await?;
    let _sidecars = sidecars(bench, &replica.url).await?;
    let writers = replica.writers(CHANNELS).await?;
    let strangers = Arc::new(Strangers::default());
    let length = if bench.is_tiny() { bench.slice() } else { bench.slice().max(SLICE_MIN) };
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for slice in 0..=bench.slices() {
        let end = clock::now().after(length.into());
        let mut tasks = JoinSet::new();
        for caller in 0..WRITERS {
            let (mut writer, strangers) = (writers[caller % writers.len()].clone(), Arc::clone(&strangers));
            tasks.spawn(async move {
                let mut waits = Vec::new();
                while clock::now().raw < end.raw {
                    waits.push(writer.opt_out_effective(strangers.next()).await?);
                }
                Ok::<_, Status>(waits)
            });
        }
        let mut waits = Vec::new();
        while let Some(waited) = tasks.join_next().await {
            waits.extend(waited??);
        }
        waits.sort_by(f64::total_cmp);
        let at = |percent: usize| waits.get((waits.len() * percent / 100).min(waits.len().saturating_sub(1)));
        // The first one warms up.
        if slice > 0 {
            medians.extend(at(50));
            tails.extend(at(99));
        }
    }
    let hold = Terms::default().hold().millis();
    let more = format!("{WRITERS} writers, {SIDECARS} sidecars, answer hold {hold} ms");
    bench.figure("effective/healthy/p50", Spread::of(medians), " ms", &more, Goal::None);
    let goal = Goal::AtMost((hold + 100) as f64);
    bench.figure("effective/healthy/p99", Spread::of(tails), " ms", &more, goal);
    Ok(())
}

/// A sidecar is stopped that was granted a lease just now: that is when it has the longest one.
async fn silent_node(bench: &mut Bench, ledgers: &Ledgers) -> anyhow::Result<()> {
    let terms = terms(bench)?;
    let replica = Replica::start_at(bench, &ledgers.fresh().await?, ANYWHERE, &terms).await?;
    replica.publish(POLICY).await?;
    let mut sidecars = sidecars(bench, &replica.url).await?;
    let (mut writer, strangers) = (replica.writer().await?, Strangers::default());
    let mut waits = Vec::new();
    for wait in 0..bench.slices() * WAITS {
        let sidecar = &mut sidecars[wait % SIDECARS];
        sidecar.until_leased_anew(terms.sidecar_lease().into()).await?;
        sidecar.server.process().stop()?;
        let wait = writer.opt_out_effective(strangers.next()).await;
        sidecar.server.process().go_on()?;
        waits.push(wait?);
    }
    let (what, bound) = ("lambda T_S + sigma + 2 delta", terms.promise().plus(two_polls(&terms)));
    let more = format!("one of {SIDECARS} sidecars stopped, T_S {} ms", terms.sidecar_lease().millis());
    tell(bench, "effective/silent_node", waits, &more, what, bound);
    Ok(())
}

/// The replica that sidecars follow is killed, and the other one has the opt-out. Then it starts again, where it was.
async fn dead_replica(bench: &mut Bench, ledgers: &Ledgers) -> anyhow::Result<()> {
    let (terms, store) = (terms(bench)?, ledgers.fresh().await?);
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(Replica::start_at(bench, &store, ANYWHERE, &terms).await?);
    }
    replicas.first().context("a replica")?.publish(POLICY).await?;
    let urls = replicas.iter().map(|replica| replica.url.as_str()).collect::<Vec<_>>().join(",");
    let mut sidecars = sidecars(bench, &urls).await?;
    let strangers = Strangers::default();
    let mut waits = Vec::new();
    for _ in 0..bench.slices() * WAITS {
        let followed = sidecars.first_mut().context("a sidecar")?.followed().await?;
        let (dead, alive): (Vec<_>, Vec<_>) =
            std::mem::take(&mut replicas).into_iter().partition(|replica| replica.url == followed);
        let (dead, alive) = dead.into_iter().next().zip(alive.into_iter().next()).context("two replicas")?;
        let (mut writer, address) = (alive.writer().await?, dead.address());
        for sidecar in &mut sidecars {
            sidecar.until_leased_anew(terms.sidecar_lease().into()).await?;
        }
        dead.kill()?;
        waits.push(writer.opt_out_effective(strangers.next()).await?);
        replicas = vec![alive, Replica::start_at(bench, &store, &address, &terms).await?];
    }
    let (what, bound) = ("lambda T_R + sigma + 2 delta", terms.replica_wait().plus(two_polls(&terms)));
    let more = format!("one of 2 replicas killed, T_R {} ms", terms.values().replica_lease.millis());
    tell(bench, "effective/dead_replica", waits, &more, what, bound);
    Ok(())
}

/// A bound is for all of them.
fn tell(bench: &mut Bench, name: &str, waits: Vec<f64>, more: &str, what: &str, bound: Span) {
    let (count, bound) = (waits.len(), bound.nanos() as f64 / 1e6);
    let Spread { median, high, .. } = Spread::of(waits);
    let more = format!("slowest of {count}, the median is {median:.0} ms; {more}; {what} is {bound:.1} ms");
    bench.figure(name, Spread::of([high]), " ms", &more, Goal::AtMost(bound));
}

async fn sidecars(bench: &Bench, authorities: &str) -> anyhow::Result<Vec<Follower>> {
    let mut sidecars = Vec::new();
    for _ in 0..SIDECARS {
        sidecars.push(Follower::live(bench, authorities).await?);
    }
    Ok(sidecars)
}

fn terms(bench: &Bench) -> anyhow::Result<Terms> {
    let sidecar_lease = if bench.is_tiny() { SHORT_LEASE } else { LEASE };
    let replica_lease = sidecar_lease.plus(sidecar_lease);
    Ok(Terms::new(Values { sidecar_lease, replica_lease, ..Terms::default().values() })?)
}

fn two_polls(terms: &Terms) -> Span {
    terms.poll().plus(terms.poll())
}
