//! One change to a thousand sidecars: from RECORDED until the last of them has it, against a bare broadcast of the
//! same bytes.
//!
//! Sidecars are played: each has a connection and a stream of its own, says hello from where the ledger stands, and
//! then only reads. They read the broadcast in the same way. RECORDED is the stamp of the ledger, which is before the commit; the
//! broadcast has no ledger, and is stamped when it is asked for. Both stamps are in milliseconds, rounded down.

use crate::bare::{self, TRIGGER};
use crate::bench::{Bench, Goal, number};
use crate::ledger::{Ledgers, Strangers};
use crate::raw;
use crate::replica::Replica;
use crate::slices::{Spread, in_turn};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use consent::clock;
use consent::convert::sync::{FromAuthority, from_authority, sync_request};
use consent::files::make_room;
use consent::pb::sync_response::Message;
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::{SyncRequest, SyncResponse};
use consent::status::status;
use consent_core::confirm::{Place, ToAuthority};
use consent_core::head::SEMANTICS;
use consent_core::words::Incarnation;
use prost::Message as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

const STREAMS: usize = 1000;
const FEW_STREAMS: usize = 20;
/// Changes in a slice, one after the other: the slowest but one in a hundred is the slowest.
const CHANGES: usize = 25;
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (streams, changes) = if bench.is_tiny() { (FEW_STREAMS, 2) } else { (STREAMS, CHANGES) };
    make_room(2 * streams);
    let ledgers = Ledgers::start(bench)?;
    let replica = Replica::start(bench, &ledgers.fresh().await?).await?;
    let place = place(&replica.url).await?;
    let sidecars = Listeners::to(&replica.url, Some(place), streams).await?;
    let writers = replica.writers(1).await?;
    let mut writer = writers.first().context("a writer")?.clone();
    let strangers = Strangers::default();
    writer.opt_out(strangers.next()).await?;
    let frame = sidecars.all_heard().await?;

    let broadcast = bare::start(bench).await?;
    let listeners = Listeners::to(&broadcast.url, None, streams).await?;
    let trigger = Endpoint::from_shared(broadcast.url.clone())?.connect().await?;
    let product = async || {
        let mut waits = Vec::with_capacity(changes);
        for _ in 0..changes {
            let receipt = writer.opt_out(strangers.next()).await?;
            sidecars.all_heard().await?;
            let recorded = receipt.recorded_at.context("a receipt without a stamp")?;
            waits.push(since(recorded.seconds * 1000 + i64::from(recorded.nanos / 1_000_000)));
        }
        Ok(slowest(&waits))
    };
    let baseline = async || {
        let mut waits = Vec::with_capacity(changes);
        for _ in 0..changes {
            let stamp = raw::unary(trigger.clone(), TRIGGER, frame.clone()).await?;
            listeners.all_heard().await?;
            waits.push(since(i64::from_be_bytes(stamp.as_ref().try_into().context("a stamp")?)));
        }
        Ok(slowest(&waits))
    };
    let pairs = in_turn(bench.slices(), baseline, product).await?;
    let (bare, own) = Spread::medians(&pairs, |wait| *wait);
    let more = format!("{} against {} ms, {streams} streams", number(own), number(bare));
    let ratio = Spread::of_ratios(&pairs, |wait| *wait);
    bench.figure("fan_out/p99", ratio, "x", &more, Goal::AtMost(3.0));
    Ok(())
}

/// Milliseconds since a stamp; never none, so that a ratio is one.
fn since(stamp: i64) -> f64 {
    (clock::wall().millis() - stamp).max(1) as f64
}

fn slowest(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(0.0, f64::max)
}

/// Who hears the changes.
struct Listeners {
    heard: Arc<Heard>,
    streams: usize,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Heard {
    /// By how many streams a change was heard that nobody waited for yet.
    count: AtomicUsize,
    more: Notify,
    frame: Mutex<Bytes>,
}

impl Listeners {
    /// So many streams, each over a connection of its own.
    async fn to(url: &str, place: Option<Place>, streams: usize) -> anyhow::Result<Listeners> {
        let heard = Arc::new(Heard::default());
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            let stream = hello(url, place).await?;
            let (ready, listens) = oneshot::channel();
            let heard = Arc::clone(&heard);
            tasks.spawn(async move {
                if let Err(trouble) = listen(stream, &heard, ready).await {
                    eprintln!("a stream ended: {trouble:#}");
                }
            });
            listens.await.context("a stream that is not welcome")?;
        }
        Ok(Listeners { heard, streams, _tasks: tasks })
    }

    /// Waits until every stream has heard one change more; gives it as it is on the wire.
    async fn all_heard(&self) -> anyhow::Result<Bytes> {
        let all = async {
            while self.heard.count.load(Ordering::Relaxed) < self.streams {
                self.heard.more.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.context("not every stream has heard of it")?;
        let count = self.heard.count.swap(0, Ordering::Relaxed);
        ensure!(count == self.streams, "{count} changes were heard by {} streams", self.streams);
        Ok(lock(&self.heard.frame).clone())
    }
}

/// Where the ledger stands, as one learns it who takes a snapshot of it.
async fn place(url: &str) -> anyhow::Result<Place> {
    // A replica that has no lease of its own yet lets nobody in.
    let admitted = async {
        loop {
            match snapshot(url).await {
                Err(refused) if is_busy(&refused) => tokio::time::sleep(LOOK).await,
                done => return done,
            }
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.context("the authority lets nobody in")?
}

fn is_busy(refused: &anyhow::Error) -> bool {
    refused.downcast_ref::<Status>().is_some_and(|status| status.code() == Code::ResourceExhausted)
}

async fn snapshot(url: &str) -> anyhow::Result<Place> {
    let (_say, mut stream) = hello(url, None).await?;
    while let Some(response) = stream.message().await? {
        if let FromAuthority::SnapshotEnd { place, .. } = from_authority(response).map_err(status)? {
            return Ok(place);
        }
    }
    bail!("a snapshot without an end")
}

/// A stream that lasts as long as the sender that it comes with.
type Stream = (mpsc::Sender<SyncRequest>, Streaming<SyncResponse>);

async fn hello(url: &str, place: Option<Place>) -> anyhow::Result<Stream> {
    let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect().await?;
    let (say, said) = mpsc::channel(1);
    let incarnation = Incarnation::new(*Uuid::new_v4().as_bytes());
    say.send(sync_request(ToAuthority::Hello { incarnation, place, semantics: SEMANTICS })).await?;
    Ok((say, SyncServiceClient::new(channel).sync(ReceiverStream::new(said)).await?.into_inner()))
}

async fn listen((_say, mut stream): Stream, heard: &Heard, ready: oneshot::Sender<()>) -> anyhow::Result<()> {
    let mut ready = Some(ready);
    while let Some(response) = stream.message().await? {
        match &response.message {
            Some(Message::Welcome(_)) => {
                // Whoever waited for it is there, or the run is over.
                let _ = ready.take().map(|ready| ready.send(()));
            }
            Some(Message::Frames(frames)) => {
                ensure!(frames.frames.len() == 1, "{} changes at once", frames.frames.len());
                if heard.count.fetch_add(1, Ordering::Relaxed) == 0 {
                    *lock(&heard.frame) = response.encode_to_vec().into();
                }
                heard.more.notify_one();
            }
            other => ensure!(matches!(other, Some(Message::Grant(_))), "a sidecar is sent {other:?}"),
        }
    }
    bail!("its server ended it")
}

// Nobody panics under it; if somebody did, what it holds would still be whole.
fn lock(frame: &Mutex<Bytes>) -> MutexGuard<'_, Bytes> {
    frame.lock().unwrap_or_else(PoisonError::into_inner)
}
