//! What the writer knows to lie in Redis, and the next step of it.
//!
//! Every step is one transaction that puts a new marker in the place of the last one, so that the copy is at one
//! place at any moment, whatever is interrupted.

use super::backlog::Step;
use super::layout::{self, Marker, Size, Written};
use consent_core::head::HeadKey;
use consent_core::words::{IdKey, Revision};
use std::collections::HashMap;

/// The copy as it lies in Redis.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) secret: IdKey,
    pub(super) marker: Marker,
    /// The marker's bytes.
    pub(super) written: Written,
    /// The heads in the log, each as it last was: what a compaction puts into the buckets.
    pub(super) log: HashMap<HeadKey, Vec<u8>>,
    /// What is in each bucket. Kept one by one, so that the sum is right also after half a compaction.
    pub(super) filled: Vec<Filled>,
}

/// How much is in a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) heads: u32,
    pub(super) bytes: u32,
}

impl Filled {
    /// A bucket of so many heads, with this value.
    pub(super) fn new(heads: usize, value: &[u8]) -> Filled {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Filled { heads: count(heads), bytes: count(value.len()) }
    }
}

/// What a step does to the log.
#[derive(Debug)]
pub(super) enum LogStep {
    /// The log stays.
    Keep,
    /// A batch is appended.
    Push(Vec<u8>),
    /// All of it is in the buckets now.
    Empty,
}

/// A step on its way.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) marker: Marker,
    pub(super) written: Written,
    pub(super) log: LogStep,
    heads: Vec<(HeadKey, Vec<u8>)>,
}

impl Kept {
    /// A copy that is about to be written.
    pub(super) fn new(secret: IdKey, marker: Marker) -> Kept {
        let written = marker.write(&secret);
        let filled = vec![Filled::default(); marker.buckets as usize];
        Kept { secret, marker, written, log: HashMap::new(), filled }
    }

    /// Follows these steps; `None`: they do not lead on from here.
    pub(super) fn follow(&self, steps: Vec<Step>) -> Option<Next> {
        let mut marker = self.marker.clone();
        let mut first: Option<Revision> = None;
        let mut heads = Vec::new();
        for step in steps {
            match step {
                Step::Entered(epoch) => marker.place.epoch = epoch,
                Step::Changed { place, recorded_at, head } => {
                    place.revision.follows(marker.place.revision).then_some(())?;
                    first.get_or_insert(place.revision);
                    (marker.place, marker.recorded_at) = (place, recorded_at);
                    heads.push((head.key, head.bytes));
                }
            }
        }
        let log = match first {
            None => LogStep::Keep,
            Some(first) => {
                let packed = heads.iter().map(|(key, bytes)| (*key, bytes.as_slice()));
                let batch = layout::batch(&marker.generation, first, packed);
                marker.batches += 1;
                marker.size.log += batch.len() as u64;
                LogStep::Push(batch)
            }
        };
        let written = marker.write(&self.secret);
        Some(Next { marker, written, log, heads })
    }

    /// The log has gone into the buckets.
    pub(super) fn compacted(&self) -> Next {
        let size = Size { log: 0, ..self.size() };
        let marker = Marker { base: self.marker.place.revision, batches: 0, size, ..self.marker.clone() };
        let written = marker.write(&self.secret);
        Next { marker, written, log: LogStep::Empty, heads: Vec::new() }
    }

    /// All buckets are filled.
    pub(super) fn complete(&mut self) {
        self.marker.size = self.size();
        self.written = self.marker.write(&self.secret);
    }

    /// The step is done.
    pub(super) fn take(&mut self, next: Next) {
        if matches!(next.log, LogStep::Empty) {
            self.log = HashMap::new();
        }
        self.log.extend(next.heads);
        (self.marker, self.written) = (next.marker, next.written);
    }

    /// How much it is now.
    fn size(&self) -> Size {
        let sum = |of: fn(&Filled) -> u32| self.filled.iter().map(|filled| u64::from(of(filled))).sum();
        Size {
            heads: sum(|filled| filled.heads),
            buckets: sum(|filled| filled.bytes),
            largest: self.filled.iter().map(|filled| filled.bytes).max().unwrap_or(0),
            log: self.marker.size.log,
        }
    }
}
