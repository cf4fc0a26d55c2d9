//! What the sidecar tells Prometheus of itself: the numbers that are noted as things happen, and the page.
//!
//! What can be read when somebody asks (the state, the lease, the table) is read then. The rest is noted by whoever
//! meets it: answers in [`Counters`](crate::counters::Counters), everything here by the sync thread and its task for
//! Redis, and by calls that wait.

use crate::durable::Waiting;
use crate::node::{Node, Standing};
use consent::metrics::{Collector, Counter, DescriptorEncoder, Gauge, Histogram, Page, Per};
use consent::{VERSION, clock, label};
use consent_core::confirm::holder::{Cause, State};
use consent_core::decision::Reason;
use consent_core::head::HeadKind;
use consent_core::words::{Revision, Timestamp};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// From 1 ms to 10 minutes, in seconds.
const DELAYS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

label! {
    /// What is listened on.
    pub(crate) enum Listener = "listener" {
        Tcp = "tcp",
        Unix = "unix",
    }
}

label! {
    /// What a change was of.
    pub(crate) enum Kind = "kind" {
        Policy = "policy",
        Organization = "organization",
        Account = "account",
        Exclusion = "exclusion",
    }
}

label! {
    /// Why a connection to an authority ended, if not by this side's own will.
    pub(crate) enum Lost = "reason" {
        /// It could not be made, or broke.
        Broken = "broken",
        /// The authority has not said in time what it had to.
        Silent = "silent",
        /// It takes no messages any more.
        Full = "full",
        /// It said what this build cannot read.
        Unreadable = "unreadable",
        /// It serves as many sidecars as it may, sent snapshots to others for too long, or is not ready.
        Busy = "busy",
        /// It stops.
        Leaving = "leaving",
        /// It does not have the history that this node has seen.
        Held = "held",
    }
}

label! {
    /// Why the leases were dropped and sync started over.
    pub(crate) enum Resync = "reason" {
        Gap = "gap",
        Chain = "chain",
        Digest = "digest",
        Epoch = "epoch",
        Foreign = "foreign",
        AuthorityBehind = "authority_behind",
        Clock = "clock",
        Overrun = "overrun",
        Unreadable = "unreadable",
    }
}

label! {
    /// How a wait for a `min_position` ended.
    pub(crate) enum Wait = "outcome" {
        /// The table reached it.
        Met = "met",
        /// The deadline came first.
        Late = "late",
        /// As many calls wait as may.
        Full = "full",
        /// The sidecar stops.
        Stopping = "stopping",
    }
}

label! {
    /// What went wrong with the durable copy.
    pub(crate) enum CopyTrouble = "kind" {
        /// Redis cannot be reached, or does not answer in time.
        Unreachable = "unreachable",
        /// It loads its own data.
        Loading = "loading",
        /// It has no memory left to write with.
        Memory = "memory",
        /// It is a replica, or cannot persist and so takes no writes.
        ReadOnly = "read_only",
        /// It does not let the sidecar in.
        Denied = "denied",
        /// It refused a command otherwise, or said what cannot be read.
        Refused = "refused",
        /// What lies there is not what was left there.
        Foreign = "foreign",
        /// The table was replaced while it was copied.
        Overtaken = "overtaken",
    }
}

impl From<HeadKind> for Kind {
    fn from(kind: HeadKind) -> Kind {
        match kind {
            HeadKind::Policy => Kind::Policy,
            HeadKind::Organization => Kind::Organization,
            HeadKind::Account => Kind::Account,
            HeadKind::Exclusion => Kind::Exclusion,
        }
    }
}

impl From<Cause> for Resync {
    fn from(cause: Cause) -> Resync {
        match cause {
            Cause::Gap => Resync::Gap,
            Cause::Chain => Resync::Chain,
            Cause::Digest => Resync::Digest,
            Cause::Epoch => Resync::Epoch,
            Cause::Foreign => Resync::Foreign,
            Cause::AuthorityBehind => Resync::AuthorityBehind,
            Cause::Clock => Resync::Clock,
            Cause::Overrun => Resync::Overrun,
            Cause::Unreadable => Resync::Unreadable,
        }
    }
}

/// What is noted as it happens.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) lost: Per<Lost, Counter>,
    pub(crate) resyncs: Per<Resync, Counter>,
    pub(crate) waits: Per<Wait, Counter>,
    pub(crate) connections: Per<Listener, Gauge>,
    pub(crate) snapshots: Counter,
    pub(crate) redis: Redis,
    events: Per<Kind, Counter>,
    delay: Histogram,
    /// The revision that the last grant named; 0 before the first.
    announced: AtomicU64,
    last_event: Instant,
    last_grant: Instant,
}

/// Of the durable copy.
#[derive(Debug, Default)]
pub(crate) struct Redis {
    pub(crate) errors: Per<CopyTrouble, Counter>,
    pub(crate) rewrites: Counter,
    is_connected: AtomicBool,
    /// Where the copy stands, as far as is known; 0 where there is none.
    written: AtomicU64,
}

/// When something last happened, by the wall clock, in Unix milliseconds; 0 before the first time.
#[derive(Debug, Default)]
struct Instant(AtomicI64);

impl Instant {
    fn note(&self, now: Timestamp) {
        self.0.store(now.millis(), Ordering::Relaxed);
    }

    fn seconds(&self) -> Option<f64> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis != 0).then_some(millis as f64 / 1000.0)
    }
}

impl Noted {
    /// Nothing yet.
    pub(crate) fn new() -> Noted {
        Noted {
            lost: Per::default(),
            resyncs: Per::default(),
            waits: Per::default(),
            connections: Per::default(),
            snapshots: Counter::default(),
            redis: Redis::default(),
            events: Per::default(),
            delay: Histogram::new(DELAYS),
            announced: AtomicU64::new(0),
            last_event: Instant::default(),
            last_grant: Instant::default(),
        }
    }

    /// A change was applied, and every reader sees it.
    pub(crate) fn applied(&self, kind: HeadKind, recorded_at: Timestamp) {
        let now = clock::wall();
        self.events.of(kind.into()).inc();
        self.delay.observe(now.millis().saturating_sub(recorded_at.millis()).max(0) as f64 / 1000.0);
        self.last_event.note(now);
    }

    /// An authority granted at this revision.
    pub(crate) fn granted(&self, at: Revision) {
        self.announced.store(at.get(), Ordering::Relaxed);
        self.last_grant.note(clock::wall());
    }
}

impl Redis {
    /// Where the copy stands after a turn of its writer.
    pub(crate) fn stands(&self, is_connected: bool, written: Option<Revision>) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
        self.written.store(written.map_or(0, Revision::get), Ordering::Relaxed);
    }
}

/// The page of a sidecar.
#[derive(Debug)]
pub(crate) struct SidecarPage {
    node: Arc<Node>,
    /// What waits to be written to Redis, if there is one.
    redis: Option<Waiting>,
}

impl SidecarPage {
    /// The page of this node.
    pub(crate) fn new(node: Arc<Node>, redis: Option<Waiting>) -> SidecarPage {
        SidecarPage { node, redis }
    }

    fn answers(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = &self.node.counters;
        let decisions = Reason::ALL.map(|reason| {
            let decision = if reason.is_allow() { "ALLOW" } else { "DENY" };
            ([("decision", decision), ("reason", reason.as_str())], counters.of(reason))
        });
        page.counters(
            "consent_decisions",
            "Answers given, by decision and reason: single ones, and those in batches, streams and this process.",
            decisions,
        )?;
        page.counters(
            "consent_fail_closed",
            "Answers that were DENY for want of a lease or of the position asked for (STALE), or of a table \
             (NOT_READY), whatever was asked.",
            [Reason::Stale, Reason::NotReady]
                .map(|reason| ([("reason", reason.as_str())], counters.of(reason))),
        )?;
        page.per(
            "consent_freshness_waits",
            "Calls with a min_position: met, or answered STALE since the deadline came (late), \
             as many waited as may (full), or the sidecar stops (stopping).",
            &self.node.noted.waits,
        )?;
        page.per("consent_connections", "Callers' connections that are open.", &self.node.noted.connections)
    }

    fn standing(&self, page: &mut Page<'_>) -> fmt::Result {
        let now = clock::now();
        let (Standing { state, authority, .. }, lease) = self.node.standing_at(now);
        let states = [
            (State::Cold, "cold"),
            (State::Syncing, "syncing"),
            (State::Live, "live"),
            (State::Lapsed, "lapsed"),
            (State::Resync, "resync"),
        ];
        page.gauges(
            "consent_sidecar_state",
            "1 for the state that the sidecar is in, 0 for the others; only live allows.",
            states.map(|(each, text)| ([("state", text)], f64::from(u8::from(each == state)))),
        )?;
        page.gauge(
            "consent_lease_left_seconds",
            "Seconds for which the sidecar may allow without hearing from an authority; 0 without a lease.",
            Some(lease.map_or(0.0, |lease| lease.left(now).nanos() as f64 / 1e9)),
        )?;
        page.gauge(
            "consent_watch_connected",
            "1 while an authority that has welcomed the sidecar is connected, else 0.",
            Some(f64::from(u8::from(!authority.is_empty()))),
        )
    }

    fn sync(&self, page: &mut Page<'_>) -> fmt::Result {
        let noted = &self.node.noted;
        let applied = self.node.table.read().state().map(|state| state.position().revision.get());
        page.gauge(
            "consent_watch_applied_revision",
            "The revision that answers are decided from; no number while there is no table.",
            applied.map(|revision| revision as f64),
        )?;
        let announced = noted.announced.load(Ordering::Relaxed);
        page.gauge(
            "consent_watch_lag_revisions",
            "By how many revisions the table is behind the newest that a grant has named; no number while \
             there is no table.",
            applied.map(|revision| announced.saturating_sub(revision) as f64),
        )?;
        page.gauge(
            "consent_watch_last_event_timestamp_seconds",
            "When a change was last applied, in Unix seconds by the node's clock; no number before the \
             first.",
            noted.last_event.seconds(),
        )?;
        page.gauge(
            "consent_watch_last_checkpoint_timestamp_seconds",
            "When an authority last granted a lease, in Unix seconds by the node's clock; no number before \
             the first.",
            noted.last_grant.seconds(),
        )?;
        page.per(
            "consent_watch_events_applied",
            "Changes applied one by one, by what they were of; those within a snapshot are not counted.",
            &noted.events,
        )?;
        page.counter("consent_watch_snapshots", "Snapshots that became the table.", noted.snapshots.get())?;
        page.per(
            "consent_watch_reconnects",
            "Connections to authorities that were lost, by reason; those that the sidecar closed itself are \
             not counted.",
            &noted.lost,
        )?;
        page.per(
            "consent_watch_resyncs",
            "Times that the leases were dropped and sync started over from a new hello, by reason.",
            &noted.resyncs,
        )?;
        page.histogram(
            "consent_propagation_delay_seconds",
            "From when a change was recorded, by the store's clock, to when it was applied here, by the \
             node's: as wrong as the two clocks differ, and 0 where it would be negative.",
            &noted.delay,
        )
    }

    fn table(&self, page: &mut Page<'_>) -> fmt::Result {
        let accounts = self.node.table.read().state().map_or(0, |state| state.accounts());
        page.gauge("consent_table_accounts", "Accounts in the table.", Some(accounts as f64))?;
        page.gauge(
            "consent_table_bytes",
            "Bytes of the rows that the heads lie in, free slots included.",
            Some(self.node.table.bytes() as f64),
        )
    }

    fn redis(&self, page: &mut Page<'_>) -> fmt::Result {
        let noted = &self.node.noted.redis;
        let waiting = self.redis.as_ref().map(Waiting::now);
        page.gauge(
            "consent_redis_connected",
            "1 while the node's Redis is connected, else 0; no number on a sidecar without one.",
            waiting.map(|_| f64::from(u8::from(noted.is_connected.load(Ordering::Relaxed)))),
        )?;
        page.per(
            "consent_redis_errors",
            "Troubles with the durable copy, by kind: foreign, it was changed by somebody else; overtaken, \
             the table was replaced while it was copied; the others are Redis's.",
            &noted.errors,
        )?;
        page.gauge(
            "consent_redis_written_revision",
            "Where the durable copy stands, as far as is known; 0 where it would have to be written anew, no \
             number without Redis.",
            waiting.map(|_| noted.written.load(Ordering::Relaxed) as f64),
        )?;
        page.gauge(
            "consent_redis_backlog_changes",
            "Changes that wait to be written to Redis; no number without Redis.",
            waiting.map(|(changes, _)| changes as f64),
        )?;
        page.gauge(
            "consent_redis_backlog_bytes",
            "About how many bytes those take; at a bound they are given up, and the copy is written anew.",
            waiting.map(|(_, bytes)| bytes as f64),
        )?;
        page.counter(
            "consent_redis_rewrites",
            "Times that the durable copy was written anew from the table.",
            noted.rewrites.get(),
        )
    }
}

impl Collector for SidecarPage {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        page.info("consent_build", "The program.", [("version", VERSION)])?;
        self.answers(&mut page)?;
        self.standing(&mut page)?;
        self.sync(&mut page)?;
        self.table(&mut page)?;
        self.redis(&mut page)
    }
}
