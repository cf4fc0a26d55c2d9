//! The one task that writes the copy: behind the table, and waited for by nobody.
//!
//! Every transaction gives back the marker that it replaced and the length of the log. Where they are not what the
//! writer left, somebody else was there (FLUSHALL, another server's dump, another sidecar, a key that is of another
//! type now), and the copy is written anew from the table; so it is after any doubt. The same is asked for once in a
//! while when there is nothing to write. LOADING, OOM, READONLY, NOAUTH, MISCONF, a hung server: the step is tried
//! again, with ever longer pauses, while the backlog takes what comes until its bound.

use super::backlog::{Backlog, Work};
use super::kept::{Filled, Kept, LogStep, Next};
use super::layout::{self, BUCKETS_MAX, LOG, MARKER_LEN, PLACE, Size, bucket_key, bucket_of};
use super::patience::Patience;
use super::reading;
use super::server::{self, Server};
use crate::metrics::CopyTrouble;
use crate::node::Node;
use consent::clock;
use consent_core::confirm::Place;
use consent_core::head::HeadKey;
use consent_core::words::{Revision, Timestamp};
use redis::{Pipeline, RedisError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::task::yield_now;

/// So many steps go into one batch at most.
const STEPS_MAX: usize = 256;
/// So many buckets are read or written at once.
const CHUNK: usize = 128;
/// After so many heads whoever else is on this thread has a turn: leases and acks are not to wait for a copy.
const TURN: usize = 2_048;
/// How long the copy is believed without a look at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When the log goes into the buckets.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogMax {
    pub(super) batches: u64,
    pub(super) heads: usize,
}

/// Why a turn was not finished.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Redis(RedisError),
    /// What lies there is not what was left there.
    #[error("it was changed by somebody else")]
    Foreign,
    /// The table was dropped or replaced while it was copied.
    #[error("the table changed under it")]
    Overtaken,
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Trouble {
        if server::is_about_the_key(&error) { Trouble::Foreign } else { Trouble::Redis(error) }
    }
}

impl From<&Trouble> for CopyTrouble {
    fn from(trouble: &Trouble) -> CopyTrouble {
        match trouble {
            Trouble::Foreign => CopyTrouble::Foreign,
            Trouble::Overtaken => CopyTrouble::Overtaken,
            Trouble::Redis(error) if error.is_io_error() || error.is_timeout() => CopyTrouble::Unreachable,
            Trouble::Redis(error) => match server::refusal(error).as_deref() {
                Some("LOADING") => CopyTrouble::Loading,
                Some("OOM") => CopyTrouble::Memory,
                Some("READONLY" | "MISCONF") => CopyTrouble::ReadOnly,
                Some("NOAUTH" | "NOPERM" | "WRONGPASS") => CopyTrouble::Denied,
                Some(_) | None => CopyTrouble::Refused,
            },
        }
    }
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
    patience: Patience,
    /// The last trouble that was told.
    told: Option<String>,
}

impl Writer {
    pub(super) fn new(node: Arc<Node>, backlog: Arc<Backlog>, server: Server, log_max: LogMax) -> Writer {
        let (kept, next, told) = (None, None, None);
        Writer { node, backlog, server, log_max, kept, next, patience: Patience::new(), told }
    }

    /// Writes for as long as it is polled.
    pub(crate) async fn run(mut self) {
        loop {
            // Whether it was woken or the time has come: a look does no harm.
            let _ = tokio::time::timeout(LOOK_EVERY, self.backlog.work()).await;
            let turned = self.turn().await;
            let written = self.kept.as_ref().map(|kept| kept.marker.place.revision);
            self.node.noted.redis.stands(self.server.is_connected(), written);
            match turned {
                Ok(()) => self.well(),
                Err(trouble) => {
                    self.node.noted.redis.errors.of((&trouble).into()).inc();
                    if !matches!(trouble, Trouble::Redis(_)) {
                        self.doubt();
                    }
                    self.say_once(trouble.to_string());
                    tokio::time::sleep(self.patience.troubled().into()).await;
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
    fn say_once(&mut self, why: String) {
        if self.told.as_ref() != Some(&why) {
            tracing::warn!(why, "the durable copy cannot be kept");
            self.told = Some(why);
        }
    }

    /// A turn went well.
    fn well(&mut self) {
        if self.kept.is_some() && self.patience.well(clock::now()) {
            self.told = None;
            tracing::info!("the durable copy is kept again");
        }
    }

    /// Is what lies there what was left there? After a lost connection the last step may be done or not.
    async fn look(&mut self) -> Result<(), Trouble> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let mut commands = redis::pipe();
        // No more than a marker and one byte, whatever lies there.
        commands.atomic().getrange(PLACE, 0, MARKER_LEN as isize).llen(LOG);
        let (found, batches): (Vec<u8>, u64) = self.server.run(&commands).await?;
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
        commands.atomic().getrange(PLACE, 0, MARKER_LEN as isize);
        match &next.log {
            LogStep::Keep => {}
            LogStep::Push(batch) => drop(commands.rpush(LOG, batch).ignore()),
            LogStep::Empty => drop(commands.del(LOG).ignore()),
        }
        commands.set(PLACE, next.written.bytes()).ignore().llen(LOG);
        let (before, batches): (Vec<u8>, u64) = self.server.run(&commands).await?;
        if before != kept.written.bytes() || batches != next.marker.batches {
            return Err(Trouble::Foreign);
        }
        self.next.take().into_iter().for_each(|next| kept.take(next));
        Ok(())
    }

    /// Puts the log into the buckets that it touches, once it is long. Done by halves it harms nothing: a bucket may
    /// hold heads that come again in the log.
    async fn compact(&mut self) -> Result<(), Trouble> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        if kept.marker.batches < self.log_max.batches && kept.log.len() < self.log_max.heads {
            return Ok(());
        }
        let (generation, buckets, size) = (kept.marker.generation, kept.marker.buckets, kept.marker.size);
        let max = usize::try_from(u64::from(size.largest) + size.log).unwrap_or(usize::MAX);
        let mut touched: BTreeMap<u32, Vec<HeadKey>> = BTreeMap::new();
        for key in kept.log.keys() {
            touched.entry(bucket_of(*key, buckets)).or_default().push(*key);
        }
        let numbers: Vec<u32> = touched.keys().copied().collect();
        for numbers in numbers.chunks(CHUNK) {
            let values = reading::buckets(&mut self.server, numbers.iter().copied(), max).await?;
            let mut commands = redis::pipe();
            for (&number, value) in numbers.iter().zip(&values) {
                let packed = layout::read_bucket(value, &generation, number).ok_or(Trouble::Foreign)?;
                let mut heads: BTreeMap<HeadKey, &[u8]> = packed.collect();
                let logged = touched.get(&number).into_iter().flatten();
                heads.extend(logged.filter_map(|key| Some((*key, kept.log.get(key)?.as_slice()))));
                let count = heads.len();
                let value = layout::bucket(&generation, number, heads);
                if let Some(filled) = kept.filled.get_mut(number as usize) {
                    *filled = Filled::new(count, &value);
                }
                commands.set(bucket_key(number), value).ignore();
                yield_now().await;
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
        let (base, size) = (place.revision, Size::default());
        let marker = layout::Marker { generation, buckets, base, batches: 0, place, recorded_at, size };
        let mut kept = Kept::new(secret, marker);
        // Without a marker there is no copy, whatever else lies there.
        self.server.run::<()>(redis::pipe().atomic().del(PLACE).ignore().del(LOG).ignore()).await?;
        for part in 0..=u8::MAX {
            let (commands, stands_at) = self.part(part, &mut kept).await?;
            self.server.run::<()>(&commands).await?;
            // All that the part has is in the log before the next part is read. Later changes wait for the next time,
            // so that this ends also when the table never stands still, and the queue stays short all the while.
            self.log(&mut kept, stands_at).await?;
        }
        self.forget_buckets_from(buckets).await?;
        kept.complete();
        let mut commands = redis::pipe();
        commands.atomic().llen(LOG).set(PLACE, kept.written.bytes()).ignore();
        let (batches,): (u64,) = self.server.run(&commands).await?;
        if batches != kept.marker.batches {
            return Err(Trouble::Foreign);
        }
        self.node.noted.redis.rewrites.inc();
        tracing::info!(revision = %kept.marker.place.revision, heads, "the durable copy is written");
        self.kept = Some(kept);
        Ok(())
    }

    /// The buckets of one part of the table, and where the table stood when the part was read.
    pub(super) async fn part(&self, part: u8, kept: &mut Kept) -> Result<(Pipeline, Revision), Trouble> {
        if !self.backlog.follows() {
            return Err(Trouble::Overtaken);
        }
        let heads = self.node.table.part(part).ok_or(Trouble::Overtaken)?;
        let stands_at = self.backlog.latest().ok_or(Trouble::Overtaken)?;
        let count = kept.marker.buckets / 256;
        let first = u32::from(part) * count;
        let mut packed: Vec<Vec<(HeadKey, Vec<u8>)>> = vec![Vec::new(); count as usize];
        for head in heads {
            let number = bucket_of(head.key, kept.marker.buckets);
            if let Some(bucket) = packed.get_mut((number - first) as usize) {
                bucket.push((head.key, head.bytes));
            }
        }
        let (mut commands, mut turn) = (redis::pipe(), 0);
        for (number, heads) in (first..).zip(packed) {
            let pairs = heads.iter().map(|(key, bytes)| (*key, bytes.as_slice()));
            let value = layout::bucket(&kept.marker.generation, number, pairs);
            if let Some(filled) = kept.filled.get_mut(number as usize) {
                *filled = Filled::new(heads.len(), &value);
            }
            commands.set(bucket_key(number), value).ignore();
            turn += heads.len();
            if turn >= TURN {
                turn = 0;
                yield_now().await;
            }
        }
        Ok((commands, stands_at))
    }

    /// Appends what has come meanwhile to the log of a copy that has no marker yet, up to where the table stood.
    async fn log(&mut self, kept: &mut Kept, stands_at: Revision) -> Result<(), Trouble> {
        while kept.marker.place.revision < stands_at {
            if !self.backlog.follows() {
                return Err(Trouble::Overtaken);
            }
            let Work::Follow(steps) = self.backlog.take(STEPS_MAX) else { return Err(Trouble::Overtaken) };
            let next = kept.follow(steps).ok_or(Trouble::Overtaken)?;
            if let LogStep::Push(batch) = &next.log {
                self.server.run::<()>(redis::pipe().rpush(LOG, batch).ignore()).await?;
            }
            kept.take(next);
        }
        Ok(())
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
