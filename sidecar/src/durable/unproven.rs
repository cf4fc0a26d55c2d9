//! The copy as it was found: read, whole by its own hashes, and not believed yet.
//!
//! Redis may hold anything: an older dump, edited entries, another deployment's copy. What is found here may say to
//! an authority where it stands, under its seal, and nothing else. Only with the secret of a welcome can it be
//! proven, by the check of its marker and by the digest of all its heads; the table stays empty until then.

use super::kept::Kept;
use super::layout::{self, LOG, Marker, PLACE, Written, bucket_key, owned};
use super::server::Server;
use crate::table::{Heads, Incoming};
use consent_core::confirm::{Place, Seal};
use consent_core::head::Unreadable;
use consent_core::words::{IdKey, Revision, Timestamp};
use redis::RedisError;
use std::collections::HashMap;
use thiserror::Error;

/// So many values are asked for at once: a reply of some hundred kilobytes.
const CHUNK: u32 = 128;

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
    buckets: Vec<Vec<u8>>,
    /// How many heads are in the buckets.
    heads: usize,
    log: Vec<Vec<u8>>,
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
    /// Reads the copy; none if there is none.
    pub(super) async fn load(server: &mut Server) -> Result<Option<Unproven>, Wrong> {
        let Some(written) = marker(server).await? else { return Ok(None) };
        let (marker_read, seal) = written.read().ok_or(Wrong::Layout)?;
        let (buckets, heads) = buckets(server, &marker_read).await?;
        let log = log(server, &marker_read).await?;
        if marker(server).await?.as_ref() != Some(&written) {
            return Err(Wrong::Moved);
        }
        Ok(Some(Unproven { marker: marker_read, written, seal, buckets, heads, log }))
    }

    /// Where it says that it stands.
    pub(crate) fn place(&self) -> Place {
        self.marker.place
    }

    /// The seal on that.
    pub(crate) fn seal(&self) -> Seal {
        self.seal
    }

    /// Proves it under the secret of a welcome.
    pub(crate) fn prove(self, secret: &IdKey) -> Result<Proven, Wrong> {
        let Unproven { marker, written, buckets, heads: room, log, .. } = self;
        if !written.is_by(secret) {
            return Err(Wrong::Secret);
        }
        let mut heads = Heads::with_room(*secret, room);
        // Each value is given back as soon as its heads are in the table: it never needs room twice.
        for (number, value) in (0..).zip(buckets) {
            let packed = layout::read_bucket(&value, &marker.generation, number);
            for head in packed.ok_or(Wrong::Bucket(number))? {
                // A bucket may hold heads from after `base`; those come again in the log.
                heads.put_if_newer(Incoming::read(owned(head), marker.base)?);
            }
        }
        let mut last = HashMap::new();
        for value in log {
            let (mut revision, packed) = layout::read_batch(&value, &marker.generation).ok_or(Wrong::Log)?;
            for (key, head) in packed {
                heads.put_if_newer(Incoming::read(owned((key, head)), revision)?);
                last.insert(key, head.to_vec());
                revision = revision.next().ok_or(Wrong::Log)?;
            }
        }
        if heads.digest() != marker.place.digest {
            return Err(Wrong::Digest);
        }
        let (place, recorded_at) = (marker.place, marker.recorded_at);
        let kept = Kept { secret: *secret, marker, written, log: last };
        Ok(Proven { heads, place, recorded_at, kept })
    }
}

async fn marker(server: &mut Server) -> Result<Option<Written>, Wrong> {
    let (bytes,): (Option<Vec<u8>>,) = server.run(redis::pipe().get(PLACE)).await?;
    Ok(bytes.map(Written::new))
}

/// The buckets, and how many heads are in them.
async fn buckets(server: &mut Server, marker: &Marker) -> Result<(Vec<Vec<u8>>, usize), Wrong> {
    let (mut buckets, mut heads) = (Vec::new(), 0);
    for from in (0..marker.buckets).step_by(CHUNK as usize) {
        let numbers = from..marker.buckets.min(from + CHUNK);
        let keys: Vec<String> = numbers.clone().map(bucket_key).collect();
        let (values,): (Vec<Option<Vec<u8>>>,) = server.run(redis::pipe().mget(keys)).await?;
        for (number, value) in numbers.zip(values) {
            let value = value.ok_or(Wrong::Bucket(number))?;
            let packed = layout::read_bucket(&value, &marker.generation, number);
            heads += packed.ok_or(Wrong::Bucket(number))?.count();
            buckets.push(value);
        }
    }
    let is_complete = u32::try_from(buckets.len()) == Ok(marker.buckets);
    is_complete.then_some((buckets, heads)).ok_or(Wrong::Moved)
}

async fn log(server: &mut Server, marker: &Marker) -> Result<Vec<Vec<u8>>, Wrong> {
    let (batches,): (u64,) = server.run(redis::pipe().llen(LOG)).await?;
    if batches != marker.batches {
        return Err(Wrong::Log);
    }
    let (mut log, mut reached) = (Vec::new(), marker.base);
    for from in (0..batches).step_by(CHUNK as usize) {
        let range = redis::Cmd::lrange(LOG, position(from), position(from + u64::from(CHUNK) - 1));
        let (values,): (Vec<Vec<u8>>,) = server.run(redis::pipe().add_command(range)).await?;
        for value in values {
            reached = follow(&value, marker, reached).ok_or(Wrong::Log)?;
            log.push(value);
        }
    }
    (reached == marker.place.revision).then_some(log).ok_or(Wrong::Log)
}

/// Where the log stands after this batch; `None`: it is not the next one.
fn follow(value: &[u8], marker: &Marker, reached: Revision) -> Option<Revision> {
    let (first, heads) = layout::read_batch(value, &marker.generation)?;
    first.follows(reached).then_some(())?;
    let count = u64::try_from(heads.count()).ok()?;
    Revision::new(reached.get().checked_add(count)?)
}

fn position(number: u64) -> isize {
    isize::try_from(number).unwrap_or(isize::MAX)
}
