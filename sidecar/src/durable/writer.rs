//! The one task that writes the copy: behind the table, and waited for by nobody.
//!
//! Every transaction gives back the marker that it replaced and the length of the log. Where they are not what the
//! writer left, somebody else was there (FLUSHALL, another server's dump, another sidecar), and the copy is written
//! anew from the table; so it is after any doubt. The same is asked for once in a while when there is nothing to
//! write. LOADING, OOM, READONLY, NOAUTH, MISCONF, a hung server: the step is tried again, with ever longer pauses,
//! while the backlog takes what comes until its bound.

use super::backlog::{Backlog, Work};
use super::kept::{Kept, LogStep, Next};
use super::layout::{self, BUCKETS_MAX, LOG, PLACE, bucket_key, bucket_of};
use super::server::Server;
use crate::node::Node;
use consent::clock;
use consent_core::confirm::Place;
use consent_core::head::HeadKey;
use consent_core::words::{Moment, Span, Timestamp};
use redis::{Pipeline, RedisError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// So many steps go into one batch at most.
const STEPS_MAX: usize = 256;
/// So many buckets are read or written at once.
const CHUNK: usize = 128;
/// How long the copy is believed without a look at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause after a trouble doubles, until nothing has gone wrong for this long.
const WELL_AFTER: Span = Span::from_millis(2_000);
const PAUSE_MIN: Span = Span::from_millis(50);
const PAUSE_MAX: Span = Span::from_millis(5_000);

/// When the log goes into the buckets.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogMax {
    pub(super) batches: u64,
    pub(super) heads: usize,
}

/// Why a turn was not finished.
#[derive(Debug, Error)]
enum Trouble {
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// What lies there is not what was left there.
    #[error("it was changed by somebody else")]
    Foreign,
    /// The table was dropped or replaced while it was copied.
    #[error("the table changed under it")]
    Overtaken,
}

/// The writer.
pub(crate) struct Writer {
    node: Arc<Node>,
    backlog: Arc<Backlog>,
    server: Server,
    log_max: LogMax,
    kept: Option<Kept>,
    /// A step of which it is not known whether it was done.
    next: Option<Next>,
    pause: Span,
    troubled_at: Option<Moment>,
    /// The last trouble that was told.
    told: Option<String>,
}

impl Writer {
    pub(super) fn new(node: Arc<Node>, backlog: Arc<Backlog>, server: Server, log_max: LogMax) -> Writer {
        let (kept, next, told) = (None, None, None);
        Writer { node, backlog, server, log_max, kept, next, pause: PAUSE_MIN, troubled_at: None, told }
    }

    /// Writes for as long as it is polled.
    pub(crate) async fn run(mut self) {
        loop {
            // Whether it was woken or the time has come: a look does no harm.
            let _ = tokio::time::timeout(LOOK_EVERY, self.backlog.work()).await;
            match self.turn().await {
                Ok(()) => self.well(),
                Err(trouble) => {
                    if !matches!(trouble, Trouble::Redis(_)) {
                        self.doubt();
                    }
                    self.troubled(trouble.to_string());
                    tokio::time::sleep(self.pause.into()).await;
                    self.pause = PAUSE_MAX.min(self.pause.plus(self.pause));
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Trouble> {
        if !self.backlog.follows() {
            (self.kept, self.next) = (None, None);
        }
        if self.server.connect().await? {
            self.look().await?;
        }
        self.commit().await?;
        match self.backlog.take(STEPS_MAX) {
            Work::Nothing => {}
            Work::GoOn(kept) => {
                self.kept = Some(*kept);
                self.look().await?;
            }
            Work::Rewrite(place, recorded_at) => {
                let written = self.rewrite(place, recorded_at).await;
                if written.is_err() {
                    self.doubt();
                }
                written?;
            }
            Work::Follow(steps) if steps.is_empty() => {
                self.look().await?;
            }
            Work::Follow(steps) => {
                let kept = self.kept.as_ref().ok_or(Trouble::Overtaken)?;
                self.next = Some(kept.follow(steps).ok_or(Trouble::Overtaken)?);
                self.commit().await?;
                self.compact().await?;
            }
        }
        Ok(())
    }

    /// The copy is worth nothing any more: it will be written anew.
    fn doubt(&mut self) {
        (self.kept, self.next) = (None, None);
        self.backlog.distrust();
    }

    /// Says what is wrong, once.
    fn troubled(&mut self, why: String) {
        self.troubled_at = Some(clock::now());
        if self.told.as_ref() != Some(&why) {
            tracing::warn!(why, "the durable copy cannot be kept");
            self.told = Some(why);
        }
    }

    /// A turn went well. One alone proves little: two sidecars on one Redis would rewrite in turns, without a pause.
    fn well(&mut self) {
        let lasts = |at: Moment| clock::now().longest_since(at) > WELL_AFTER;
        if self.kept.is_some() && self.troubled_at.take_if(|at| lasts(*at)).is_some() {
            (self.pause, self.told) = (PAUSE_MIN, None);
            tracing::info!("the durable copy is kept again");
        }
    }

    /// Is what lies there what was left there? After a lost connection the last step may be done or not.
    async fn look(&mut self) -> Result<(), Trouble> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let (found, batches): (Option<Vec<u8>>, u64) =
            self.server.run(redis::pipe().atomic().get(PLACE).llen(LOG)).await?;
        let found = found.unwrap_or_default();
        if let Some(next) = self.next.take_if(|next| next.written.bytes() == found) {
            kept.take(next);
        }
        let is_it = kept.written.bytes() == found && kept.marker.batches == batches;
        is_it.then_some(()).ok_or(Trouble::Foreign)
    }

    /// Does the step that waits, if one does.
    async fn commit(&mut self) -> Result<(), Trouble> {
        let Some((kept, next)) = self.kept.as_mut().zip(self.next.as_ref()) else { return Ok(()) };
        let mut commands = redis::pipe();
        commands.atomic().get(PLACE);
        match &next.log {
            LogStep::Keep => {}
            LogStep::Push(batch) => drop(commands.rpush(LOG, batch).ignore()),
            LogStep::Empty => drop(commands.del(LOG).ignore()),
        }
        commands.set(PLACE, next.written.bytes()).ignore().llen(LOG);
        let (before, batches): (Option<Vec<u8>>, u64) = self.server.run(&commands).await?;
        if before.as_deref() != Some(kept.written.bytes()) || batches != next.marker.batches {
            return Err(Trouble::Foreign);
        }
        self.next.take().into_iter().for_each(|next| kept.take(next));
        Ok(())
    }

    /// Puts the log into the buckets that it touches, once it is long. Done by halves it harms nothing: a bucket may
    /// hold heads that come again in the log.
    async fn compact(&mut self) -> Result<(), Trouble> {
        let Some(kept) = &self.kept else { return Ok(()) };
        if kept.marker.batches < self.log_max.batches && kept.log.len() < self.log_max.heads {
            return Ok(());
        }
        let (generation, buckets) = (kept.marker.generation, kept.marker.buckets);
        let touched: BTreeSet<u32> = kept.log.keys().map(|key| bucket_of(*key, buckets)).collect();
        let touched: Vec<u32> = touched.into_iter().collect();
        for numbers in touched.chunks(CHUNK) {
            let keys: Vec<String> = numbers.iter().copied().map(bucket_key).collect();
            let (values,): (Vec<Option<Vec<u8>>>,) = self.server.run(redis::pipe().mget(keys)).await?;
            let mut merged: BTreeMap<u32, BTreeMap<HeadKey, &[u8]>> = BTreeMap::new();
            for (&number, value) in numbers.iter().zip(&values) {
                let heads = value.as_ref().and_then(|value| layout::read_bucket(value, &generation, number));
                merged.insert(number, heads.ok_or(Trouble::Foreign)?.collect());
            }
            for (key, head) in &kept.log {
                if let Some(bucket) = merged.get_mut(&bucket_of(*key, buckets)) {
                    bucket.insert(*key, head);
                }
            }
            let mut commands = redis::pipe();
            for (number, heads) in merged {
                commands.set(bucket_key(number), layout::bucket(&generation, number, heads)).ignore();
            }
            self.server.run::<()>(&commands).await?;
        }
        self.next = Some(kept.compacted());
        self.commit().await
    }

    /// Writes the whole table, while it changes: what changes meanwhile goes to the log, and the marker comes last.
    async fn rewrite(&mut self, place: Place, recorded_at: Timestamp) -> Result<(), Trouble> {
        let (heads, secret) = self.node.table.size().ok_or(Trouble::Overtaken)?;
        let mut generation = [0; 16];
        getrandom::fill(&mut generation).map_err(|_| Trouble::Overtaken)?;
        let buckets = layout::buckets_for(heads);
        let marker =
            layout::Marker { generation, buckets, base: place.revision, batches: 0, place, recorded_at };
        let mut kept = Kept::new(secret, marker);
        // Without a marker there is no copy, whatever else lies there.
        self.server.run::<()>(redis::pipe().atomic().del(PLACE).ignore().del(LOG).ignore()).await?;
        for part in 0..=u8::MAX {
            let commands = self.part(part, &kept)?;
            self.server.run::<()>(&commands).await?;
            self.log(&mut kept).await?;
        }
        // A part may be newer than the log was when it was read; the log has all of that once all is taken.
        while self.log(&mut kept).await? {}
        self.forget_buckets_from(buckets).await?;
        let mut commands = redis::pipe();
        commands.atomic().llen(LOG).set(PLACE, kept.written.bytes()).ignore();
        let (batches,): (u64,) = self.server.run(&commands).await?;
        if batches != kept.marker.batches {
            return Err(Trouble::Foreign);
        }
        tracing::info!(revision = %kept.marker.place.revision, heads, "the durable copy is written");
        self.kept = Some(kept);
        Ok(())
    }

    /// The buckets of one part of the table.
    fn part(&self, part: u8, kept: &Kept) -> Result<Pipeline, Trouble> {
        if !self.backlog.follows() {
            return Err(Trouble::Overtaken);
        }
        let heads = self.node.table.part(part).ok_or(Trouble::Overtaken)?;
        let count = kept.marker.buckets / 256;
        let first = u32::from(part) * count;
        let mut packed: Vec<Vec<(HeadKey, Vec<u8>)>> = vec![Vec::new(); count as usize];
        for head in heads {
            let number = bucket_of(head.key, kept.marker.buckets);
            if let Some(bucket) = packed.get_mut((number - first) as usize) {
                bucket.push((head.key, head.bytes));
            }
        }
        let mut commands = redis::pipe();
        for (number, heads) in (first..).zip(packed) {
            let heads = heads.iter().map(|(key, bytes)| (*key, bytes.as_slice()));
            commands.set(bucket_key(number), layout::bucket(&kept.marker.generation, number, heads)).ignore();
        }
        Ok(commands)
    }

    /// Appends what has come meanwhile to the log of a copy that has no marker yet; says whether there was any.
    async fn log(&mut self, kept: &mut Kept) -> Result<bool, Trouble> {
        if !self.backlog.follows() {
            return Err(Trouble::Overtaken);
        }
        let Work::Follow(steps) = self.backlog.take(STEPS_MAX) else { return Err(Trouble::Overtaken) };
        let is_any = !steps.is_empty();
        let next = kept.follow(steps).ok_or(Trouble::Overtaken)?;
        if let LogStep::Push(batch) = &next.log {
            self.server.run::<()>(redis::pipe().rpush(LOG, batch).ignore()).await?;
        }
        kept.take(next);
        Ok(is_any)
    }

    /// An earlier copy may have had more buckets.
    async fn forget_buckets_from(&mut self, first: u32) -> Result<(), Trouble> {
        for from in (first..BUCKETS_MAX).step_by(CHUNK * 32) {
            let keys: Vec<String> =
                (from..BUCKETS_MAX.min(from + CHUNK as u32 * 32)).map(bucket_key).collect();
            self.server.run::<()>(redis::pipe().unlink(keys).ignore()).await?;
        }
        Ok(())
    }
}
