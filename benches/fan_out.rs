//! One change to a thousand sidecars: from RECORDED until the last of them has it, against a bare broadcast of the
//! same bytes.
//!
//! Sidecars are played: each has a connection and a stream of its own, says hello from where the ledger stands, and
//! then only reads. They read the broadcast in the same way. RECORDED is the stamp of the ledger, which is before the
//! commit; the broadcast has no ledger, and is stamped when it is asked for. Both stamps are in milliseconds, rounded
//! down.

use crate::bare::{self, TRIGGER};
use crate::bench::{Bench, Goal, number};
use crate::ledger::{Ledgers, Strangers};
use crate::played::{Stream, hello, place};
use crate::raw;
use crate::replica::{Replica, millis};
use crate::slices::{Spread, in_turn};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use consent::clock;
use consent::files::make_room;
use consent::pb::sync_response::Message;
use consent_core::confirm::Place;
use prost::Message as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

const STREAMS: usize = 1000;
const FEW_STREAMS: usize = 20;
/// Changes in a slice, one after the other: the slowest but one in a hundred is the slowest.
const CHANGES: usize = 25;
const PATIENCE: Duration = Duration::from_secs(60);

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
            waits.push(since(millis(&receipt)?));
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
