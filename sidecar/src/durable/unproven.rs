//! The copy as it was found: a marker that says where it stands, and nothing that is believed yet.
//!
//! Redis may hold anything: an older dump, edited entries, another deployment's copy, values without end. What is
//! found here may say to an authority where it stands, under its seal, and nothing else. The secret of a welcome
//! shows whether the marker is this deployment's; only then is the rest read, no more of it than the marker says
//! that there is, straight into a table that nobody sees. It is proven when its heads have the marker's digest.

use super::address::RedisAddress;
use super::kept::{Filled, Kept};
use super::layout::{self, Marker, Size, Written};
use super::reading;
use super::server::Server;
use crate::table::Heads;
use consent_core::confirm::{Place, Seal};
use consent_core::head::{HeadKey, Unreadable};
use consent_core::words::{IdKey, Revision, Timestamp};
use redis::RedisError;
use std::collections::HashMap;
use std::time::Duration;
use thiserror::Error;
use tokio::task::yield_now;

/// So many values are asked for at once: a reply of some hundred kilobytes.
const CHUNK: u32 = 128;
/// After so many heads whoever else is on this thread has a turn.
const TURN: usize = 2_048;
/// How long a copy may take that goes on coming. What has stopped shows by one reply that does not come
/// ([`Server::new`]), so this is for a Redis that trickles, and it is generous: on a node that is short of processors a
/// snapshot would take no less, and load an authority that others need. A calm one reads ten million heads in a
/// twentieth of this. The stream of the welcome may end meanwhile, since an authority gives up one that takes nothing;
/// that costs another hello from the copy's place.
const WITHIN: Duration = Duration::from_secs(200);

/// Why a copy is not used.
#[derive(Debug, Error)]
pub(crate) enum Wrong {
    /// Redis does not give it.
    #[error("Redis does not give it: {0}")]
    Redis(#[from] RedisError),
    /// Another version of this program wrote it, or none did.
    #[error("its marker is of no layout that this build knows")]
    Layout,
    /// A bucket is not there, damaged, or of another copy.
    #[error("bucket {0} is missing, damaged, or of another copy")]
    Bucket(u32),
    /// The log does not lead from the buckets to the marker.
    #[error("its log does not lead from its buckets to its marker")]
    Log,
    /// There is more than the marker says.
    #[error("it holds more than its marker says: {0}")]
    TooLarge(&'static str),
    /// Redis trickles.
    #[error("Redis does not give it in time")]
    Slow,
    /// Somebody else writes there.
    #[error("it changed while it was read: somebody else writes to it")]
    Moved,
    /// Whoever wrote it did not know this deployment's secret.
    #[error("its marker was not written under this deployment's secret")]
    Secret,
    /// A head is malformed.
    #[error("one of its heads {0}")]
    Head(#[from] Unreadable),
    /// Entries were changed, left out or put back.
    #[error("its heads do not have the digest that they should have")]
    Digest,
}

/// The copy.
#[derive(Debug)]
pub(crate) struct Unproven {
    marker: Marker,
    written: Written,
    seal: Seal,
}

/// A copy that holds what it says: heads for a table, and what to go on writing from.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) heads: Heads,
    pub(crate) place: Place,
    pub(crate) recorded_at: Timestamp,
    pub(super) kept: Kept,
}

impl Unproven {
    /// Looks for a copy; none if there is none.
    pub(super) async fn find(server: &mut Server) -> Result<Option<Unproven>, Wrong> {
        let Some(written) = reading::marker(server).await? else { return Ok(None) };
        let (marker, seal) = written.read().ok_or(Wrong::Layout)?;
        Ok(Some(Unproven { marker, written, seal }))
    }

    /// Where it says that it stands.
    pub(crate) fn place(&self) -> Place {
        self.marker.place
    }

    /// The seal on that.
    pub(crate) fn seal(&self) -> Seal {
        self.seal
    }

    /// Reads it and proves it under the secret of a welcome. Whoever else is on this thread goes on meanwhile.
    pub(super) async fn prove(self, address: RedisAddress, secret: IdKey) -> Result<Proven, Wrong> {
        self.prove_within(WITHIN, Server::new(address), secret).await
    }

    /// The same, from this server and within this time.
    pub(super) async fn prove_within(
        self,
        within: Duration,
        mut server: Server,
        secret: IdKey,
    ) -> Result<Proven, Wrong> {
        if !self.written.is_by(&secret) {
            return Err(Wrong::Secret);
        }
        let loading = Loading::new(&self.marker, &secret).run(&mut server);
        let wrong = match tokio::time::timeout(within, loading).await {
            Ok(Ok((heads, log, filled))) => {
                let Unproven { marker, written, .. } = self;
                let (place, recorded_at) = (marker.place, marker.recorded_at);
                let kept = Kept { secret, marker, written, log, filled };
                return Ok(Proven { heads, place, recorded_at, kept });
            }
            Ok(Err(wrong)) => wrong,
            Err(_) => return Err(Wrong::Slow),
        };
        match wrong {
            Wrong::Redis(_) | Wrong::Layout | Wrong::Slow | Wrong::Moved | Wrong::Secret => Err(wrong),
            Wrong::Bucket(_) | Wrong::Log | Wrong::TooLarge(_) | Wrong::Head(_) | Wrong::Digest => {
                // Under another marker there is another copy.
                let is_same = reading::marker(&mut server).await?.as_ref() == Some(&self.written);
                Err(if is_same { wrong } else { Wrong::Moved })
            }
        }
    }
}

/// A copy on its way into a table.
pub(super) struct Loading<'a> {
    marker: &'a Marker,
    heads: Heads,
    filled: Vec<Filled>,
    /// The heads of the log, each as it last was.
    log: HashMap<HeadKey, Vec<u8>>,
    /// How many bytes of buckets may still come, and how many in one.
    left: u64,
    largest: u64,
    /// Heads since somebody else had a turn.
    turn: usize,
}

impl<'a> Loading<'a> {
    pub(super) fn new(marker: &'a Marker, secret: &IdKey) -> Loading<'a> {
        let Size { heads, buckets, largest, log } = marker.size;
        let room = usize::try_from(heads).unwrap_or(usize::MAX);
        Loading {
            marker,
            heads: Heads::with_room(*secret, room),
            filled: Vec::with_capacity(marker.buckets as usize),
            log: HashMap::new(),
            // A compaction that was interrupted has put heads of the log into buckets already.
            left: buckets.saturating_add(log),
            largest: u64::from(largest).saturating_add(log),
            turn: 0,
        }
    }

    async fn run(
        mut self,
        server: &mut Server,
    ) -> Result<(Heads, HashMap<HeadKey, Vec<u8>>, Vec<Filled>), Wrong> {
        let buckets = self.marker.buckets;
        let max = usize::try_from(self.largest).unwrap_or(usize::MAX);
        let numbers = |from: u32| from..buckets.min(from.saturating_add(CHUNK));
        let mut values = reading::buckets(server, numbers(0), max).await?;
        for from in (0..buckets).step_by(CHUNK as usize) {
            let next = numbers(buckets.min(from + CHUNK));
            // Redis gives the next while these are taken.
            let (next, taken) =
                tokio::join!(reading::buckets(server, next, max), self.take_buckets(from, values));
            (values, ()) = (next?, taken?);
        }
        self.take_log(server).await?;
        if self.heads.digest() != self.marker.place.digest {
            return Err(Wrong::Digest);
        }
        Ok((self.heads, self.log, self.filled))
    }

    pub(super) async fn take_buckets(&mut self, first: u32, values: Vec<Vec<u8>>) -> Result<(), Wrong> {
        for (number, value) in (first..).zip(values) {
            let bytes = value.len() as u64;
            if bytes > self.largest {
                return Err(Wrong::TooLarge("a bucket is larger than any that was written"));
            }
            self.left = self.left.checked_sub(bytes).ok_or(Wrong::TooLarge("its buckets"))?;
            let packed = layout::read_bucket(&value, &self.marker.generation, number);
            let mut count = 0;
            for (key, head) in packed.ok_or(Wrong::Bucket(number))? {
                // A bucket may hold heads from after `base`; those come again in the log.
                self.heads.put_if_newer(key, head, self.marker.base)?;
                count += 1;
            }
            self.filled.push(Filled::new(count, &value));
            self.give_turn(count).await;
        }
        Ok(())
    }

    /// The log, from the buckets to the marker. What is behind that came after the marker was read: a step of the run
    /// before that was still on its way.
    async fn take_log(&mut self, server: &mut Server) -> Result<(), Wrong> {
        let Marker { batches, size, place, .. } = *self.marker;
        let (found, bytes) = reading::log_size(server).await?;
        if found < batches {
            return Err(Wrong::Log);
        }
        // What a list costs beside its entries, generously.
        if bytes > size.log.saturating_mul(2).saturating_add(batches * 256 + (1 << 16)) {
            return Err(Wrong::TooLarge("its log"));
        }
        let mut reached = self.marker.base;
        for from in (0..batches).step_by(CHUNK as usize) {
            let count = u64::from(CHUNK).min(batches - from);
            for value in reading::log(server, from, count).await? {
                reached = self.take_batch(&value, reached)?;
                self.give_turn(1).await;
            }
        }
        (reached == place.revision).then_some(()).ok_or(Wrong::Log)
    }

    /// Takes the next batch; gives where the log stands after it.
    fn take_batch(&mut self, value: &[u8], reached: Revision) -> Result<Revision, Wrong> {
        let (first, packed) = layout::read_batch(value, &self.marker.generation).ok_or(Wrong::Log)?;
        if !first.follows(reached) {
            return Err(Wrong::Log);
        }
        let mut last = reached;
        for (key, head) in packed {
            last = last.next().ok_or(Wrong::Log)?;
            self.heads.put_if_newer(key, head, last)?;
            self.log.insert(key, head.to_vec());
        }
        self.turn += packed.count();
        Ok(last)
    }

    async fn give_turn(&mut self, heads: usize) {
        self.turn += heads;
        if self.turn >= TURN {
            self.turn = 0;
            yield_now().await;
        }
    }
}
