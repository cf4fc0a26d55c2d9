//! One authority from its start to its end: opens the store, starts the tasks, serves, and leaves (R12).
//!
//! Every task is watched: if one of them ends or panics by itself, the process stops serving and says why, since
//! without its lane, its tail or its grantor an authority would go on promising what it can no longer keep.
//!
//! A stop has an order. First nothing new: not ready, no connection, no grant, no answer of its own; every sidecar is
//! told to find another replica, while frames and acks go on. Then the row is closed, when nobody relies on it any
//! more. Then the sessions end, the calls under way are answered, and the lane writes what it owns. Each part has a
//! bound; a row that could not be closed in time is reaped by whoever confirms next.

use crate::config::{Config, Limits, StoreConfig};
use crate::confirmations::Confirmations;
use crate::failure::{Failure, StartError};
use crate::grantor::{self, Owner};
use crate::health::{self, Probes};
use crate::lane::Lane;
use crate::metrics::{AuthorityPage, Noted, Places};
use crate::random;
use crate::ring::{Newest, Ring};
use crate::service;
use crate::store::{
    LedgerHead, Measured, Migrated, PostgresStore, Reader, SqliteStore, Store, StoreError, postgres, sqlite,
};
use crate::sync;
use crate::tail::Tail;
use consent::files::make_room;
use consent::incoming::Bounded;
use consent::metrics::Port;
use consent::said::sync_service_server::SyncServiceServer;
use consent::serve;
use consent_core::confirm::Terms;
use consent_core::confirm::grantor as machine;
use consent_core::words::{Epoch, IdKey, Span};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::HealthServer;

/// News of the ledger that the grantor has not taken yet; the tail then waits.
const NEWS_MAX: usize = 1_024;
/// How long calls under way may still take in a stop, and the lane for what it owns.
const FINISH_WITHIN: Span = Span::from_millis(3_000);

/// An authority that serves. Dropped, it leaves on its own; [`Authority::stop`] waits for that.
#[derive(Debug)]
pub struct Authority {
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    leave: DropGuard,
    failed: Option<oneshot::Receiver<Failure>>,
    supervisor: JoinHandle<()>,
}

/// Brings the store's schema to the one of this program, and gives a new ledger its first epoch and its secret.
pub async fn migrate(store: &StoreConfig) -> Result<Migrated, StartError> {
    let (epoch, id_key) = (Epoch::new(random::bytes()?), IdKey::new(random::bytes()?));
    Ok(match store {
        StoreConfig::Sqlite { directory } => sqlite::migrate(directory, epoch, id_key).await?,
        StoreConfig::Postgres { url } => postgres::migrate(url, epoch, id_key).await?,
    })
}

/// Starts an authority over a store that has the schema of this program. When it returns, the port is open; health
/// says when it is ready.
pub async fn start(config: Config) -> Result<Authority, StartError> {
    start_within(config, Limits::default()).await
}

/// Starts an authority within other limits than the default ones.
pub async fn start_within(config: Config, limits: Limits) -> Result<Authority, StartError> {
    let strangers = [Some(config.listen), config.metrics].into_iter().flatten();
    if let Some(stranger) = strangers.into_iter().find(|address| !address.ip().is_loopback()) {
        return Err(StartError::NotLoopback(stranger));
    }
    make_room(limits.connections);
    match &config.store {
        StoreConfig::Sqlite { directory } => {
            begin(SqliteStore::open(directory).await?, &config, limits).await
        }
        StoreConfig::Postgres { url } => begin(PostgresStore::open(url).await?, &config, limits).await,
    }
}

impl Authority {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it shows its metrics, if anywhere.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Why it stopped by itself; never, while it serves. To be asked until it answers once.
    pub async fn failed(&mut self) -> Failure {
        let failure = match &mut self.failed {
            Some(failed) => failed.await.ok(),
            None => None,
        };
        self.failed = None;
        match failure {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Leaves in order (R12), within a bound.
    pub async fn stop(self) {
        let Authority { leave, supervisor, .. } = self;
        drop(leave);
        if let Err(error) = supervisor.await {
            tracing::error!(%error, "the stop did not go to its end");
        }
    }
}

/// The three steps of a stop, each a token of its own.
#[derive(Debug, Clone, Default)]
struct Stops {
    /// Nothing new.
    leave: CancellationToken,
    /// No session any more.
    part: CancellationToken,
    /// Nothing at all.
    finish: CancellationToken,
}

type Tasks = JoinSet<(&'static str, Result<(), Failure>)>;

async fn begin<S: Store>(store: S, config: &Config, limits: Limits) -> Result<Authority, StartError> {
    let store = Arc::new(Measured::new(store));
    let head = find_head(&*store).await?;
    let (address, incoming) = serve::listen_tcp(config.listen)
        .await
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    let stops = Stops::default();
    let sessions = TaskTracker::new();
    let mut tasks = Tasks::new();
    let port = config.metrics.map(bind_metrics).transpose()?;
    let metrics = port.as_ref().map(Port::address);
    let (routes, page) = assemble(&mut tasks, &store, &head, config, limits, &stops, &sessions).await?;
    let leave = stops.leave.clone();
    let incoming = Bounded::new(incoming, limits.connections).counted_in(&page.noted.connections);
    if let Some(port) = port {
        tasks.spawn(named("metrics", show(port, page, stops.finish.clone())));
    }
    tasks.spawn(named("listener", listen(routes, incoming, leave)));
    tell(address, metrics, &head, config);
    let (failing, failed) = oneshot::channel();
    let supervisor = tokio::spawn(supervise(tasks, stops.clone(), sessions, config.terms, failing));
    Ok(Authority { address, metrics, leave: stops.leave.drop_guard(), failed: Some(failed), supervisor })
}

// R9: who finds another store than the stored one mints an epoch; a start may be the first to find it.
async fn find_head<S: Store>(store: &S) -> Result<LedgerHead, StartError> {
    match store.reader().head().await {
        Err(StoreError::Foreign) => {
            grantor::mint(&mut store.leases().await?, Epoch::new(random::bytes()?)).await?;
            Ok(store.reader().head().await?)
        }
        head => Ok(head?),
    }
}

fn bind_metrics(address: SocketAddr) -> Result<Port, StartError> {
    Port::bind(address).map_err(|source| StartError::Listen { address, source })
}

async fn show(port: Port, page: AuthorityPage, stop: CancellationToken) -> Result<(), Failure> {
    Ok(port.serve(page, stop).await?)
}

async fn assemble<S: Store>(
    tasks: &mut Tasks,
    store: &Arc<Measured<S>>,
    head: &LedgerHead,
    config: &Config,
    limits: Limits,
    stops: &Stops,
    sessions: &TaskTracker,
) -> Result<(RoutesBuilder, AuthorityPage), StartError> {
    let noted = Arc::new(Noted::new());
    let (id_key, terms) = (head.id_key, config.terms);
    let ring = Ring::new(limits.ring, Newest { place: head.place(), recorded_at: head.recorded_at });
    let (news, told) = mpsc::channel(NEWS_MAX);
    let (events, heard) = mpsc::channel(grantor::EVENTS_MAX);
    let (published, lease) = watch::channel(None);
    let drained = Arc::new(Notify::new());

    let tail = Tail {
        // Its own: however many calls and snapshots read, confirmations never wait for them.
        reader: store.reader(),
        ring: ring.clone(),
        news,
        wakeups: store.wakeups(),
        poll: terms.poll(),
        stop: stops.finish.clone(),
        fell: false,
    };
    tasks.spawn(named("tail", tail.run()));

    let owner = Owner {
        store: Arc::clone(store),
        replica: config.replica.clone(),
        terms,
        limits: machine::Limits { sessions: limits.sessions, retry_after: sync::RETRY_AFTER },
        events: heard,
        news: told,
        lease: published,
        drained: Arc::clone(&drained),
        leave: stops.leave.clone(),
        noted: Arc::clone(&noted),
    };
    tasks.spawn(named(GRANTOR, owner.run()));

    let (confirmations, confirming) =
        Confirmations::new(Arc::clone(store), terms, limits.waiters, drained, stops.finish.clone());
    tasks.spawn(named("confirmer", async { confirming.run().await.map_err(Failure::from) }));

    let committed = ring.clone();
    let (lane, writing) = Lane::new(Arc::clone(store), id_key, move || committed.expect_more());
    tasks.spawn(named("lane", async {
        writing.await;
        Ok(())
    }));

    let probes = Probes::new(lease.clone(), stops.leave.clone());
    let mut routes = RoutesBuilder::default();
    serve::add_reflection(&mut routes, &health::SERVICES)
        .map_err(|error| StartError::Descriptor(error.to_string()))?;
    routes.add_service(HealthServer::new(probes));
    let seats = Arc::new(Semaphore::new(limits.sessions));
    let snapshots = sync::Snapshots::new(limits.snapshots);
    let page = AuthorityPage {
        noted: Arc::clone(&noted),
        seen: store.seen(),
        ring: ring.clone(),
        queues: lane.queues(),
        confirmations: confirmations.clone(),
        lease: lease.clone(),
        sessions: Places { free: Arc::clone(&seats), all: limits.sessions },
        snapshots: Places { free: snapshots.free(), all: limits.snapshots.turns },
        terms,
    };
    let reader = store.reader();
    let (leave, of_writes) = (stops.leave.clone(), Arc::clone(&noted));
    let parts = service::Parts { reader, lane, confirmations, id_key, lease, noted: of_writes, leave };
    service::add(&mut routes, parts);
    let shared = sync::Shared { reader: store.reader(), ring, events, id_key, snapshots, noted };
    let sync = sync::Sync::new(shared, seats, sessions.clone(), stops.part.clone());
    routes.add_service(SyncServiceServer::new(sync).max_decoding_message_size(sync::REQUEST_LEN_MAX));
    Ok((routes, page))
}

async fn listen(
    routes: RoutesBuilder,
    incoming: Bounded<TcpIncoming>,
    leave: CancellationToken,
) -> Result<(), Failure> {
    let shutdown = leave.cancelled_owned();
    Ok(serve::server().add_routes(routes.routes()).serve_with_incoming_shutdown(incoming, shutdown).await?)
}

fn tell(address: SocketAddr, metrics: Option<SocketAddr>, head: &LedgerHead, config: &Config) {
    let values = config.terms.values();
    tracing::info!(
        %address,
        version = consent::VERSION,
        epoch = %head.epoch,
        revision = %head.revision,
        replica = config.replica,
        store = config.store.kind(),
        metrics = metrics.map(tracing::field::display),
        sidecar_lease_ms = values.sidecar_lease.millis(),
        replica_lease_ms = values.replica_lease.millis(),
        answer_hold_ms = values.hold.millis(),
        drift_ppm = values.drift_ppm,
        slack_ms = values.slack.millis(),
        poll_ms = values.poll.millis(),
        "listening"
    );
}

const GRANTOR: &str = "grantor";

async fn named(
    name: &'static str,
    task: impl Future<Output = Result<(), Failure>> + Send,
) -> (&'static str, Result<(), Failure>) {
    (name, task.await)
}

async fn supervise(
    mut tasks: Tasks,
    stops: Stops,
    sessions: TaskTracker,
    terms: Terms,
    failing: oneshot::Sender<Failure>,
) {
    let failure = tokio::select! {
        // In this order: told to leave, the listener ends at once, and that is no failure.
        biased;
        () = stops.leave.cancelled() => None,
        failure = first_end(&mut tasks) => Some(failure),
    };
    // Tasks end in an order of their own: the lane, say, while the grantor is waited for.
    let mut over = Vec::new();
    match failure {
        None => {
            tracing::info!("leaving");
            // The longest that a sidecar can rely on a grant, and the own answers, and closing the row.
            let bound = terms.promise().plus(terms.own_hold()).plus(FINISH_WITHIN);
            within(bound, ended(GRANTOR, &mut tasks, &mut over)).await;
        }
        Some(failure) => {
            tracing::error!(%failure, "stopping");
            stops.leave.cancel();
            // Whoever owns the authority may have gone.
            let _ = failing.send(failure);
        }
    }
    stops.part.cancel();
    sessions.close();
    within(FINISH_WITHIN, sessions.wait()).await;
    // The lane ends when the calls that could still write are over.
    within(FINISH_WITHIN, ended("lane", &mut tasks, &mut over)).await;
    stops.finish.cancel();
    within(FINISH_WITHIN, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
    tracing::info!("stopped");
}

// None of the tasks ends by itself while it should serve: an end is a failure, whatever it says.
async fn first_end(tasks: &mut Tasks) -> Failure {
    match tasks.join_next().await {
        Some(Ok((_, Err(failure)))) => failure,
        Some(Ok((name, Ok(())))) => Failure::Ended(name),
        Some(Err(error)) => Failure::Panicked(error.to_string()),
        None => Failure::Ended("authority"),
    }
}

// Until this task has ended, or none is left. In a stop, a task that ends otherwise than it should is only told of.
async fn ended(name: &str, tasks: &mut Tasks, over: &mut Vec<&'static str>) {
    while !over.contains(&name) {
        match tasks.join_next().await {
            None => return,
            Some(Ok((ended, outcome))) => {
                over.push(ended);
                if let Err(failure) = outcome {
                    tracing::warn!(task = ended, %failure, "ended in the stop");
                }
            }
            Some(Err(error)) => tracing::error!(%error, "a task panicked in the stop"),
        }
    }
}

async fn within(bound: Span, work: impl Future<Output = ()>) {
    if tokio::time::timeout(bound.into(), work).await.is_err() {
        tracing::warn!(bound_ms = bound.millis(), "a part of the stop took too long");
    }
}
