//! How many answers were given, by reason: counted as they are given, summed up when somebody asks.
//!
//! A thread counts in a place of its own, on cache lines that no other thread writes, so serving cores share
//! nothing: no lock, no allocation, nothing looked up by name. Where there are more threads than places some share
//! one; an addition is atomic, so they count right all the same.

use consent_core::decision::{Decision, Reason};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const REASONS: usize = Reason::ALL.len();
/// More than a node has cores to serve with.
const PLACES: usize = 64;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PLACES;
}

/// Of one thread. Processors fetch lines in pairs, hence twice their size.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place([AtomicU64; REASONS]);

/// The answers of one node.
#[derive(Debug)]
pub(crate) struct Counters(Box<[Place]>);

impl Counters {
    /// None yet.
    pub(crate) fn new() -> Counters {
        Counters((0..PLACES).map(|_| Place::default()).collect())
    }

    /// Counts one answer, or a whole batch at once.
    pub(crate) fn count(&self, answers: &[Decision]) {
        let Some(Place(counts)) = self.0.get(PLACE.with(|place| *place)) else { return };
        if let [answer] = answers {
            counts[index(answer.reason)].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut sums = [0; REASONS];
        for answer in answers {
            sums[index(answer.reason)] += 1;
        }
        for (count, sum) in counts.iter().zip(sums).filter(|(_, sum)| *sum > 0) {
            count.fetch_add(sum, Ordering::Relaxed);
        }
    }

    /// How many answers had this reason.
    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.0.iter().map(|Place(counts)| counts[index(reason)].load(Ordering::Relaxed)).sum()
    }
}

/// Reasons have the numbers from 1 on.
fn index(reason: Reason) -> usize {
    usize::from(reason.number() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn counting_allocates_nothing() {
        let counters = Counters::new();
        let count = || {
            counters.count(&[Decision::STALE]);
            counters.count(&[Decision::STALE; 1000]);
        };
        assert_eq!(allocation_counter::measure(count).count_total, 0);
        assert_eq!(counters.of(Reason::Stale), 1001);
    }

    #[test]
    fn nothing_is_lost_among_threads_and_batches() {
        let counters = Counters::new();
        let answer = |reason| Decision { reason, is_final: false };
        thread::scope(|scope| {
            // More than there are places.
            for _ in 0..2 * PLACES {
                scope.spawn(|| {
                    for reason in Reason::ALL {
                        counters.count(&[answer(reason)]);
                    }
                    counters.count(&[answer(Reason::NotReady), answer(Reason::PlanDefaultIn)]);
                    counters.count(&[Decision::STALE; 1000]);
                    counters.count(&[]);
                });
            }
        });
        let threads = 2 * PLACES as u64;
        for reason in Reason::ALL {
            // Each once by itself, and these in batches.
            let in_batches = [(Reason::Stale, 1000), (Reason::NotReady, 1), (Reason::PlanDefaultIn, 1)];
            let more = in_batches.iter().find(|(each, _)| *each == reason).map_or(0, |(_, more)| *more);
            let each = 1 + more;
            assert_eq!(counters.of(reason), each * threads, "{reason}");
        }
    }
}
