//! What a sidecar costs an authority that has nothing to say to it, by the kernel's figure of resident memory.
//!
//! Sidecars are played, and each has a connection and a stream of its own: it says hello from where the ledger stands,
//! asks for a lease, acks, and stays. The baseline is a bare tonic server with one bidirectional stream, which gives
//! back what it hears: the same connections and streams, and as many messages from each. Each slice has a fresh process
//! of either kind; what a process takes before the first thousandth of its streams counts for nobody. Before memory is
//! looked at, each stream is heard once more: one that was given up takes none.

use crate::bench::{Bench, Goal, number};
use crate::ledger::Ledgers;
use crate::played::{self, hello, next};
use crate::raw;
use crate::replica::{ANYWHERE, Replica};
use crate::slices::{Spread, in_turn};
use crate::{echo, kernel};
use anyhow::{Context, bail};
use bytes::Bytes;
use consent::convert::sync::{FromAuthority, sync_request};
use consent::files::make_room;
use consent_core::confirm::{Place, Terms, ToAuthority, ToSidecar};
use consent_core::words::Nonce;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

const STREAMS: usize = 10_000;
const FEW_STREAMS: usize = 50;
/// As much as a keepalive and an ack have.
const WORD: &[u8] = &[7; 64];

type Echoing = (mpsc::Sender<Bytes>, tonic::Streaming<Bytes>);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let streams = if bench.is_tiny() { FEW_STREAMS } else { STREAMS };
    make_room(streams);
    let ledgers = Ledgers::start(bench)?;
    let store = ledgers.fresh().await?;
    // The first one has a policy to publish.
    drop(Replica::start(bench, &store).await?);
    let bench_now = &*bench;
    let baseline = async || {
        let server = echo::start(bench_now).await?;
        each(server.pid(), streams, async || echoing(&server.url).await, echoes).await
    };
    let product = async || {
        let replica = Replica::start_at(bench_now, &store, ANYWHERE, &Terms::default()).await?;
        let place = played::place(&replica.url).await?;
        each(replica.pid(), streams, async || following(&replica.url, place).await, granted).await
    };
    let pairs = in_turn(bench.slices(), baseline, product).await?;
    let (bare, own) = Spread::medians(&pairs, |bytes| *bytes);
    let more = format!("{} against {} bytes, {streams} streams", number(own), number(bare));
    let ratio = Spread::of_ratios(&pairs, |bytes| *bytes);
    bench.figure("idle", ratio, "x", &more, Goal::AtMost(2.0));
    Ok(())
}

/// Bytes that the process has more for each of these streams.
async fn each<S>(
    pid: u32,
    streams: usize,
    mut open: impl AsyncFnMut() -> anyhow::Result<S>,
    mut is_heard: impl AsyncFnMut(&mut S) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut held = Vec::with_capacity(streams);
    let first = streams.div_ceil(1000);
    for _ in 0..first {
        held.push(open().await?);
    }
    let before = kernel::resident(pid)?;
    for _ in first..streams {
        held.push(open().await?);
    }
    for stream in &mut held {
        is_heard(stream).await?;
    }
    let more = kernel::resident(pid)?.saturating_sub(before);
    Ok(more as f64 / (streams - first) as f64)
}

/// A sidecar that has a lease and hears nothing.
async fn following(url: &str, place: Place) -> anyhow::Result<played::Stream> {
    let (say, mut stream) = hello(url, Some(place)).await?;
    let welcome = next(&mut stream).await?;
    let FromAuthority::Welcome { .. } = welcome else { bail!("no welcome, but {welcome:?}") };
    let Place { revision, chain, .. } = place;
    say.send(sync_request(ToAuthority::Ack { revision, chain })).await?;
    let mut sidecar = (say, stream);
    granted(&mut sidecar).await?;
    Ok(sidecar)
}

/// It asks for a lease, and gets it.
async fn granted((say, stream): &mut played::Stream) -> anyhow::Result<()> {
    say.send(sync_request(ToAuthority::KeepAlive { nonce: Nonce(1) })).await?;
    let granted = next(stream).await?;
    let FromAuthority::Message(ToSidecar::Grant { .. }) = granted else { bail!("no grant, but {granted:?}") };
    Ok(())
}

/// A stream of the bare server, on which as much was said.
async fn echoing(url: &str) -> anyhow::Result<Echoing> {
    let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect().await?;
    let (say, said) = mpsc::channel(1);
    say.send(Bytes::from_static(WORD)).await?;
    let mut stream = raw::streaming(channel, echo::PATH, ReceiverStream::new(said)).await?;
    stream.message().await?.context("no echo")?;
    let mut echoing = (say, stream);
    for _ in 0..2 {
        echoes(&mut echoing).await?;
    }
    Ok(echoing)
}

/// It gives a word back.
async fn echoes((say, stream): &mut Echoing) -> anyhow::Result<()> {
    say.send(Bytes::from_static(WORD)).await?;
    stream.message().await?.context("no echo")?;
    Ok(())
}
