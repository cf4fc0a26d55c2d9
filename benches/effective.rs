//! From RECORDED to EFFECTIVE while all is well: three sidecars that apply and ack, and writers who wait.
//!
//! No answer from before an opt-out may be valid when it is EFFECTIVE, so nothing is quicker than the answer hold.

use crate::bench::{Bench, Goal};
use crate::ledger::{Ledgers, Strangers};
use crate::node::{Port, Server};
use crate::replica::Replica;
use crate::slices::Spread;
use anyhow::Context;
use consent::clock;
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{GetStatusRequest, SidecarState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Status;

const SIDECARS: usize = 3;
const WRITERS: usize = 32;
const CHANNELS: usize = 4;
/// The default, in milliseconds.
const ANSWER_HOLD: f64 = 50.0;
/// A slice in which every writer has some opt-outs to wait for.
const SLICE_MIN: Duration = Duration::from_millis(1500);
/// How often a sidecar that starts is asked how far it is, and for how long.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ledgers = Ledgers::start(bench)?;
    let replica = Replica::start(bench, &ledgers.fresh().await?).await?;
    let mut sidecars = Vec::new();
    for _ in 0..SIDECARS {
        sidecars.push(sidecar(bench, &replica.url).await?);
    }
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
                    let receipt = writer.opt_out(strangers.next()).await?;
                    let recorded = clock::now();
                    writer.effective(receipt).await?;
                    waits.push(clock::now().longest_since(recorded).nanos() as f64 / 1e6);
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
    let more = format!("{WRITERS} writers, {SIDECARS} sidecars, answer hold {ANSWER_HOLD} ms");
    bench.figure("effective/p50", Spread::of(medians), " ms", &more, Goal::None);
    bench.figure("effective/p99", Spread::of(tails), " ms", &more, Goal::AtMost(ANSWER_HOLD + 100.0));
    Ok(())
}

/// A sidecar that follows this authority, and may allow.
async fn sidecar(bench: &Bench, authority: &str) -> anyhow::Result<Server> {
    let arguments = |socket: &str| {
        ["sidecar", "--listen", "127.0.0.1:0", "--authority", authority, "--socket", socket]
            .map(str::to_owned)
            .to_vec()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_consent"));
    let server = Server::start(bench, "sidecar", program, arguments).await?;
    let mut status = SidecarServiceClient::new(server.connect(Port::Tcp).await?);
    let live = async {
        while status.get_status(GetStatusRequest {}).await?.into_inner().state() != SidecarState::Live {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, live).await.context("the sidecar does not become LIVE")??;
    Ok(server)
}
