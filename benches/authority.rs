//! The authority, played over the real stream: it brings a sidecar as many heads as wanted in seconds, where writes
//! would take hours, and grants it leases.
//!
//! A sidecar cannot tell it from a real one: welcome, pages, digest, frames, grants are the contract's, and it checks
//! all of them. Heads are made up as they are sent, by number and so in no order of their keys: that is harder on whoever
//! keeps them sorted than the order of a real store.

use crate::accounts::{Accounts, ID_KEY, revision_of};
use anyhow::Context;
use consent::clock;
use consent::convert::sync::{self, Change};
use consent::pb::sync_service_server::{SyncService, SyncServiceServer};
use consent::pb::{SyncRequest, SyncResponse};
use consent_core::chain::{Chain, Link};
use consent_core::confirm::{Frame, Place, Start, Terms, ToAuthority, Values};
use consent_core::digest::{Digest, DigestKey};
use consent_core::words::{Epoch, Incarnation, Revision, Span, Timestamp};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const EPOCH: Epoch = Epoch::new([1; 16]);
const GRANTOR: Incarnation = Incarnation::new([9; 16]);
/// Heads in a page of a snapshot, as a real authority sends them.
const PAGE: u64 = 1000;
/// Frames in a message.
const FRAMES: u64 = 256;
/// Messages on their way to a sidecar; a sidecar that is behind slows the making of more.
const UNDERWAY: usize = 4;

/// An authority, which ends with this value.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) url: String,
    ledger: Arc<Mutex<Ledger>>,
    orders: broadcast::Sender<Order>,
    server: JoinHandle<()>,
}

/// What every session is told to do.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Send the frames of these accounts, from the first to before the last.
    Frames(u64, u64),
    /// End: the ledger is where nobody can follow it to.
    StartOver,
}

/// Where the made-up ledger stands.
#[derive(Debug)]
struct Ledger {
    accounts: Accounts,
    count: u64,
    place: Place,
    recorded_at: Timestamp,
}

impl Ledger {
    async fn new(count: u64) -> anyhow::Result<Ledger> {
        let accounts = Accounts::new()?;
        let secret = DigestKey::new(&ID_KEY);
        let mut digest = Digest::EMPTY;
        let policy = accounts.policy();
        digest.add(&secret, policy.key, &policy.bytes);
        for number in 0..count {
            let head = accounts.head(number);
            digest.add(&secret, head.key, &head.bytes);
            if number.is_multiple_of(PAGE) {
                // Whoever else is on this thread gets a turn.
                tokio::task::yield_now().await;
            }
        }
        let revision = Revision::new(count + 1).context("a ledger of that length")?;
        let place = Place { epoch: EPOCH, revision, chain: Chain::EMPTY.then(link(revision)), digest };
        Ok(Ledger { accounts, count, place, recorded_at: clock::wall() })
    }

    /// The frame of account `number`, which is the next.
    fn append(&mut self, number: u64) -> Change {
        let (head, revision) = (self.accounts.head(number), revision_of(number));
        let mut digest = self.place.digest;
        digest.add(&DigestKey::new(&ID_KEY), head.key, &head.bytes);
        let link = link(revision);
        let frame = Frame { epoch: EPOCH, revision, link, chain: self.place.chain.then(link), digest };
        self.place = frame.place();
        self.count = number + 1;
        Change { frame, recorded_at: self.recorded_at, head }
    }
}

/// What the hash of an event is made of is no business of a sidecar.
fn link(revision: Revision) -> Link {
    let mut link = [0; 32];
    link[..8].copy_from_slice(&revision.get().to_be_bytes());
    Link::new(link)
}

/// Leases of 30 s, so that a slice is seldom in the middle of a grant.
fn terms() -> anyhow::Result<Terms> {
    let values = Terms::default().values();
    Ok(Terms::new(Values {
        sidecar_lease: Span::from_millis(30_000),
        replica_lease: Span::from_millis(45_000),
        ..values
    })?)
}

impl Authority {
    /// Starts one with a ledger of so many accounts.
    pub(crate) async fn start(accounts: u64) -> anyhow::Result<Authority> {
        let ledger = Arc::new(Mutex::new(Ledger::new(accounts).await?));
        let (orders, _) = broadcast::channel(16);
        let sessions = Sessions { ledger: Arc::clone(&ledger), orders: orders.clone(), terms: terms()? };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, incoming) = consent::serve::listen_tcp(listen).await?;
        let router = consent::serve::server().add_service(SyncServiceServer::new(sessions));
        let server = tokio::spawn(async move {
            if let Err(trouble) = router.serve_with_incoming(incoming).await {
                eprintln!("the played authority ended: {trouble}");
            }
        });
        Ok(Authority { url: format!("http://{address}"), ledger, orders, server })
    }

    /// More accounts, each with a frame of its own.
    pub(crate) fn grow_to(&self, accounts: u64) -> anyhow::Result<()> {
        let first = lock(&self.ledger).count;
        self.orders.send(Order::Frames(first, accounts)).context("nobody follows")?;
        Ok(())
    }

    /// Another ledger, of so many accounts, which a sidecar has to take a snapshot of.
    pub(crate) async fn begin_anew(&self, accounts: u64) -> anyhow::Result<()> {
        let ledger = Ledger::new(accounts).await?;
        *lock(&self.ledger) = ledger;
        self.orders.send(Order::StartOver).context("nobody follows")?;
        Ok(())
    }

    /// One account more, and every sidecar has to take a snapshot again. Gives how many there are then.
    pub(crate) fn start_over(&self) -> anyhow::Result<u64> {
        let count = {
            let mut ledger = lock(&self.ledger);
            let next = ledger.count;
            ledger.append(next);
            ledger.count
        };
        self.orders.send(Order::StartOver).context("nobody follows")?;
        Ok(count)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.server.abort();
    }
}

// Nobody panics under it; if somebody did, what it holds would still be whole.
fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sessions {
    ledger: Arc<Mutex<Ledger>>,
    orders: broadcast::Sender<Order>,
    terms: Terms,
}

type Sent = Result<SyncResponse, Status>;

#[tonic::async_trait]
impl SyncService for Sessions {
    type SyncStream = ReceiverStream<Sent>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<ReceiverStream<Sent>>, Status> {
        let (to, responses) = mpsc::channel(UNDERWAY);
        let session = Session {
            ledger: Arc::clone(&self.ledger),
            orders: self.orders.subscribe(),
            terms: self.terms,
            from: request.into_inner(),
            to,
        };
        tokio::spawn(async move {
            // A sidecar that is gone ends its session; that is no trouble of the run.
            let _ = session.run().await;
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// One sidecar.
struct Session {
    ledger: Arc<Mutex<Ledger>>,
    orders: broadcast::Receiver<Order>,
    terms: Terms,
    from: Streaming<SyncRequest>,
    to: mpsc::Sender<Sent>,
}

impl Session {
    async fn run(mut self) -> anyhow::Result<()> {
        let hello = self.from.message().await?.context("no hello")?;
        let ToAuthority::Hello { place, .. } = sync::to_authority(hello).map_err(refused)? else {
            return Ok(());
        };
        let (here, count, start) = {
            let ledger = lock(&self.ledger);
            let goes_on = place == Some(ledger.place);
            (ledger.place, ledger.count, if goes_on { Start::Continue } else { Start::Snapshot })
        };
        self.to.send(Ok(sync::welcome(GRANTOR, EPOCH, start, &self.terms, &ID_KEY, here.revision))).await?;
        let snapshot = snapshot(Arc::clone(&self.ledger), self.to.clone(), here, count);
        // Leases are asked for while pages are on their way.
        tokio::select! {
            ended = self.listen() => ended,
            trouble = async {
                if start == Start::Snapshot {
                    snapshot.await?;
                }
                std::future::pending().await
            } => trouble,
        }
    }

    async fn listen(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                request = self.from.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    if let ToAuthority::KeepAlive { nonce } = sync::to_authority(request).map_err(refused)? {
                        let here = lock(&self.ledger).place;
                        self.to.send(Ok(sync::grant(nonce, here))).await?;
                    }
                }
                order = self.orders.recv() => match order? {
                    Order::StartOver => return Ok(()),
                    Order::Frames(first, end) => {
                        for first in (first..end).step_by(FRAMES as usize) {
                            let frames = {
                                let mut ledger = lock(&self.ledger);
                                let numbers = first..end.min(first + FRAMES);
                                numbers.map(|number| sync::frame(ledger.append(number))).collect()
                            };
                            self.to.send(Ok(sync::frames(EPOCH, frames))).await?;
                        }
                    }
                },
            }
        }
    }
}

/// Every head, and the end.
async fn snapshot(
    ledger: Arc<Mutex<Ledger>>,
    to: mpsc::Sender<Sent>,
    place: Place,
    count: u64,
) -> anyhow::Result<()> {
    let (accounts, recorded_at) = {
        let ledger = lock(&ledger);
        (ledger.accounts.clone(), ledger.recorded_at)
    };
    to.send(Ok(sync::snapshot_begin(place))).await?;
    to.send(Ok(sync::snapshot_chunk(vec![accounts.policy()], place.revision))).await?;
    for first in (0..count).step_by(PAGE as usize) {
        let page = (first..count.min(first + PAGE)).map(|number| accounts.head(number)).collect();
        to.send(Ok(sync::snapshot_chunk(page, place.revision))).await?;
        // Whoever else is on this thread gets a turn.
        tokio::task::yield_now().await;
    }
    to.send(Ok(sync::snapshot_end(place, recorded_at))).await?;
    Ok(())
}

fn refused(refusal: consent_core::refusal::Refusal) -> anyhow::Error {
    anyhow::anyhow!("the sidecar said what cannot be read: {refusal:?}")
}
