//! What the authority tells Prometheus of itself: the numbers that are noted as things happen, and the page.
//!
//! What can be read when somebody asks (the ring, the queues, the lease) is read then. What the store does is seen
//! by the watch around it ([`Seen`]); the rest is noted by whoever meets it.

use crate::confirmations::{Confirmations, Judgement, NotJudged};
use crate::lane::Queues;
use crate::ring::Ring;
use crate::store::Seen;
use crate::sync::Ended;
use consent::metrics::{Collector, Counter, DescriptorEncoder, Gauge, Histogram, Page, Per};
use consent::said::Said;
use consent::{VERSION, clock, label};
use consent_core::confirm::Lease;
use consent_core::confirm::Terms;
use consent_core::words::Span;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Semaphore, watch};

/// From 5 ms to 30 seconds, in seconds.
const CONFIRMATIONS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 3.5, 7.0, 30.0];

label! {
    /// The method of a write.
    pub(crate) enum Method = "method" {
        SetConsent = "SetConsent",
        PutAccount = "PutAccount",
        PutOrganization = "PutOrganization",
        SetPlan = "SetPlan",
        PublishPolicy = "PublishPolicy",
    }
}

label! {
    /// What became of a write.
    pub(crate) enum Outcome = "outcome" {
        /// It appended events, now or when it was first made.
        Recorded = "recorded",
        /// It changed nothing, and is remembered.
        Unchanged = "unchanged",
        /// It is wrong, or was made of another state.
        Refused = "refused",
        /// It could not be made, not in time, or nobody knows.
        Failed = "failed",
    }
}

label! {
    /// How a wait for EFFECTIVE ended.
    pub(crate) enum Confirmed = "outcome" {
        Effective = "effective",
        /// The deadline came first.
        Recorded = "recorded",
        /// A failover lost the write.
        Lost = "lost",
        /// No reading has judged it: too many wait, or the store is away.
        Unjudged = "unjudged",
    }
}

label! {
    /// Why a session ended.
    pub(crate) enum Closed = "reason" {
        /// Its sidecar ended it, or the authority by order.
        Ordered = "ordered",
        /// The ledger has another epoch.
        Epoch = "epoch",
        /// Its sidecar takes too little.
        Stalled = "stalled",
        /// The store cannot be read.
        Store = "store",
        /// The ledger is another one than a moment before.
        Ledger = "ledger",
    }
}

label! {
    /// What was sent to sidecars.
    pub(crate) enum Sent = "kind" {
        Snapshot = "snapshot",
        Frames = "frames",
    }
}

impl From<&Result<Judgement, NotJudged>> for Confirmed {
    fn from(judged: &Result<Judgement, NotJudged>) -> Confirmed {
        match judged {
            Ok(Judgement::Effective) => Confirmed::Effective,
            Ok(Judgement::Recorded) => Confirmed::Recorded,
            Ok(Judgement::Lost) => Confirmed::Lost,
            Err(_) => Confirmed::Unjudged,
        }
    }
}

impl From<Option<&Ended>> for Closed {
    fn from(ended: Option<&Ended>) -> Closed {
        match ended {
            None => Closed::Ordered,
            Some(Ended::AnotherEpoch) => Closed::Epoch,
            Some(Ended::Stalled) => Closed::Stalled,
            Some(Ended::Store(_)) => Closed::Store,
            Some(Ended::NotNext(_)) => Closed::Ledger,
        }
    }
}

/// What is noted as it happens.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) writes: Per<Method, Per<Outcome, Counter>>,
    pub(crate) closed: Per<Closed, Counter>,
    pub(crate) connections: Gauge,
    confirmed: Per<Confirmed, Counter>,
    confirmation: Histogram,
    sent: Per<Sent, Counter>,
    sidecars: AtomicU64,
    is_held: AtomicBool,
}

impl Noted {
    /// Nothing yet.
    pub(crate) fn new() -> Noted {
        Noted {
            writes: Per::default(),
            closed: Per::default(),
            connections: Gauge::default(),
            confirmed: Per::default(),
            confirmation: Histogram::new(CONFIRMATIONS),
            sent: Per::default(),
            sidecars: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
        }
    }

    /// The wait of a recorded write for EFFECTIVE is over, after so long.
    pub(crate) fn confirmed(&self, judged: &Result<Judgement, NotJudged>, after: Span) {
        let outcome = judged.into();
        self.confirmed.of(outcome).inc();
        if outcome == Confirmed::Effective {
            self.confirmation.observe(seconds(after));
        }
    }

    /// This, if it is anything, goes to a sidecar.
    pub(crate) fn sends(&self, kind: Sent, said: Option<&Said>) {
        self.sent.of(kind).inc_by(said.map_or(0, Said::len) as u64);
    }

    /// Where the grantor stands.
    pub(crate) fn grantor(&self, sidecars: usize, is_held: bool) {
        self.sidecars.store(sidecars as u64, Ordering::Relaxed);
        self.is_held.store(is_held, Ordering::Relaxed);
    }
}

/// Places of which some are taken.
#[derive(Debug)]
pub(crate) struct Places {
    /// The free ones.
    pub(crate) free: Arc<Semaphore>,
    /// How many there are.
    pub(crate) all: usize,
}

impl Places {
    fn taken(&self) -> f64 {
        self.all.saturating_sub(self.free.available_permits()) as f64
    }
}

/// The page of an authority.
#[derive(Debug)]
pub(crate) struct AuthorityPage {
    pub(crate) noted: Arc<Noted>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) ring: Ring,
    pub(crate) queues: Queues,
    pub(crate) confirmations: Confirmations,
    /// RL.
    pub(crate) lease: watch::Receiver<Option<Lease>>,
    pub(crate) sessions: Places,
    pub(crate) snapshots: Places,
    pub(crate) terms: Terms,
}

impl AuthorityPage {
    fn ledger(&self, page: &mut Page<'_>) -> fmt::Result {
        let head = self.ring.newest().place.revision.get();
        page.gauge(
            "consent_head_revision",
            "The newest revision of the ledger, as far as this replica has followed it.",
            Some(head as f64),
        )?;
        page.gauge(
            "consent_effective_revision",
            "Up to where everything is effective, by this replica's last reading: it reads while somebody waits. \
             No number before the first, and under an epoch that is not settled.",
            self.confirmations.effective().map(|position| position.revision.get() as f64),
        )?;
        page.gauge(
            "consent_recorded_at_ahead_seconds",
            "By how much the newest recorded_at was ahead of the store's clock when this replica last wrote: \
             above the policy's guard the clock once ran ahead, and whatever is recorded is stamped too late.",
            Some(self.seen.ahead()),
        )?;
        page.gauge(
            "consent_hold",
            "1 while this replica is under HOLD: somebody has seen a history that the ledger does not have, \
             and nothing is allowed. Else 0.",
            Some(f64::from(u8::from(self.noted.is_held.load(Ordering::Relaxed)))),
        )
    }

    fn writes(&self, page: &mut Page<'_>) -> fmt::Result {
        page.per_pair(
            "consent_changes",
            "Writes by method and outcome: recorded, as durable events; unchanged, for they changed nothing; \
             refused, for a fault of the caller; failed, for any other cause, or with an unknown outcome. A \
             retry counts as the write it repeats.",
            &self.noted.writes,
        )?;
        page.counter(
            "consent_idempotent_replays",
            "Writes that were found made before, by their request_id: retries of callers, and of the lane \
             itself after a commit with an unknown outcome.",
            self.seen.replays.get(),
        )?;
        let open = self.noted.connections.get() as f64;
        page.gauges(
            "consent_connections",
            "Connections that are open, those of sidecars included.",
            [([("listener", "tcp")], open)],
        )?;
        let (opt_outs, others) = self.queues.lengths();
        page.gauges(
            "consent_lane_queued",
            "Writes that wait for the lane, by queue.",
            [([("queue", "opt_outs")], opt_outs as f64), ([("queue", "others")], others as f64)],
        )?;
        page.histogram(
            "consent_lane_batch_writes",
            "Writes in one transaction of the lane; one that is tried again counts again.",
            &self.seen.batches,
        )
    }

    fn store(&self, page: &mut Page<'_>) -> fmt::Result {
        page.per(
            "consent_store_duration_seconds",
            "What the store takes: to lock the head and read what a batch needs, to commit it (both standbys \
             and synced disks included), to read, and to look at or change lease rows.",
            &self.seen.durations,
        )?;
        page.per_pair(
            "consent_store_errors",
            "What the store did not do, by operation and kind.",
            &self.seen.troubles,
        )
    }

    fn confirmations(&self, page: &mut Page<'_>) -> fmt::Result {
        page.histogram(
            "consent_confirmation_seconds",
            "From RECORDED to EFFECTIVE, for writes whose caller waited for it and heard it in time.",
            &self.noted.confirmation,
        )?;
        page.per(
            "consent_confirmation_waits",
            "Writes whose caller waited for EFFECTIVE, by what it heard: recorded, since its deadline came \
             first; unjudged, since too many waited or the store was away.",
            &self.noted.confirmed,
        )?;
        page.gauge(
            "consent_replicas",
            "Open rows of authority_lease by this replica's last reading: replicas that count, dead ones that \
             nobody has reaped yet included.",
            Some(self.seen.replicas.load(Ordering::Relaxed) as f64),
        )?;
        let now = clock::now();
        let left = self.lease.borrow().map_or(Span::ZERO, |lease| lease.left(now));
        page.gauge(
            "consent_replica_lease_left_seconds",
            "Seconds for which this replica may grant without hearing from the store; 0 without a lease.",
            Some(seconds(left)),
        )?;
        page.gauge(
            "consent_replica_lease_seconds",
            "T_R: how long a renewal lasts.",
            Some(seconds(self.terms.replica_lease())),
        )?;
        page.gauge(
            "consent_sidecar_lease_seconds",
            "T_S: how long a sidecar may allow without hearing from an authority; the bound on staleness.",
            Some(seconds(self.terms.sidecar_lease())),
        )
    }

    fn sync(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "consent_watch_streams",
            "Sidecars connected to this replica.",
            Some(self.sessions.taken()),
        )?;
        page.per(
            "consent_watch_streams_closed",
            "Sessions of sidecars that ended after their hello, by reason; ordered: by the sidecar, or by a \
             replica that leaves.",
            &self.noted.closed,
        )?;
        page.gauge(
            "consent_watch_snapshots_under_way",
            "Snapshots on their way to sidecars.",
            Some(self.snapshots.taken()),
        )?;
        page.per(
            "consent_watch_sent_bytes",
            "Bytes of pages and frames sent to sidecars, before HTTP/2.",
            &self.noted.sent,
        )?;
        page.gauge(
            "consent_sidecars",
            "Runs of sidecars that this replica knows: connected, or with a promise that lasts.",
            Some(self.noted.sidecars.load(Ordering::Relaxed) as f64),
        )?;
        let head = self.ring.newest().place.revision.get();
        page.gauge(
            "consent_sidecar_max_lag_revisions",
            "By how many revisions the slowest that may still allow is behind the ledger: a sidecar with a \
             promise of this replica, or the replica's own answers.",
            Some(head.saturating_sub(self.seen.drained.load(Ordering::Relaxed)) as f64),
        )
    }
}

impl Collector for AuthorityPage {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        page.info("consent_build", "The program.", [("version", VERSION)])?;
        self.ledger(&mut page)?;
        self.writes(&mut page)?;
        self.store(&mut page)?;
        self.confirmations(&mut page)?;
        self.sync(&mut page)
    }
}

fn seconds(span: Span) -> f64 {
    span.nanos() as f64 / 1e9
}
