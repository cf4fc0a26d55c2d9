//! A value that one writer changes in place, and that any number of readers read as it stood at one moment.
//!
//! The writer makes the sequence odd, changes, and makes it even again. A reader reads between two equal even
//! readings of the sequence, or it reads again: what it saw in the middle of a change is thrown away, so no answer
//! rests on half of one. Readers take no lock, write nothing and cannot hold the writer up; the writer holds
//! readers up for as long as its stores take. What must be built first is built beside the value, and then put in
//! its place.
//!
//! Whatever a reader meets in the middle of a change must be harmless until it is thrown away: every word of the
//! value is an atomic, and whoever reads it takes nothing for granted.

use super::atomic::{AtomicU64, Ordering, Swap, fence, pause};
use std::sync::Arc;

/// An odd sequence that never becomes even again.
const RETIRED: u64 = u64::MAX;

/// One writer, many readers.
#[derive(Debug)]
pub(super) struct Sequenced<T> {
    sequence: AtomicU64,
    value: Swap<T>,
}

impl<T> Sequenced<T> {
    pub(super) fn new(value: Arc<T>) -> Sequenced<T> {
        Sequenced { sequence: AtomicU64::new(0), value: Swap::new(value) }
    }

    /// What `read` gives for the value as it stood at one moment; `None` once the value is retired. `read` is
    /// called again when the value changed meanwhile.
    pub(super) fn read<R>(&self, mut read: impl FnMut(&T) -> R) -> Option<R> {
        let mut tries = 0_u32;
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before == RETIRED {
                return None;
            }
            if before.is_multiple_of(2) {
                let result = read(&self.value.load());
                // No load of `read` may come after the load that judges it.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Some(result);
                }
            }
            tries = tries.wrapping_add(1);
            pause(tries);
        }
    }

    /// Runs `change`, which stores into the value in place, and puts `next` in the place of the value if there is
    /// one. Only one thread may write at a time. If `change` panics the value is retired.
    pub(super) fn write(&self, next: Option<Arc<T>>, change: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        let mut closing = Closing { sequence: &self.sequence, after: RETIRED };
        self.sequence.store(before + 1, Ordering::Relaxed);
        // No store of `change` may come before the one that announces it.
        fence(Ordering::Release);
        let replaced = next.map(|next| self.value.replace(next));
        change();
        closing.after = before + 2;
        drop(closing);
        // Freed only now, when nobody waits for it.
        drop(replaced);
    }

    /// Nothing is read from it any more.
    pub(super) fn retire(&self) {
        self.sequence.store(RETIRED, Ordering::Release);
    }
}

/// Ends a change, one way or the other.
struct Closing<'a> {
    sequence: &'a AtomicU64,
    after: u64,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.sequence.store(self.after, Ordering::Release);
    }
}
