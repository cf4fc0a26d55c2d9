//! A value that one writer changes in place, and that any number of readers read as it stood at one moment.
//!
//! The writer makes the sequence odd, changes, and makes it even again. A reader reads between two equal even
//! readings of the sequence, or it reads again: what it saw in the middle of a change is thrown away, so no answer
//! rests on half of one. Readers take no lock, write nothing and cannot hold the writer up; the writer holds
//! readers up for as long as its stores take. What must be built first is built beside the value, and then put in
//! its place.
//!
//! Where the writer's thread is taken off its core in the middle of a change, a reader gives its own core away for
//! it, and gives up at a bound ([`Unread::Busy`]): an answer that came later would not be worth much, and whoever
//! waits on the same thread would wait along.
//!
//! Why the loads and stores of the value itself need no order. A reader that has met any store of a change has the
//! writer's release fence before its own acquire fence, and so sees the odd sequence when it judges; the same fence
//! stands between [`Sequenced::retire`] and every later change of what a successor shares with the value. And a
//! reader that begins at an even sequence has acquired every store of the changes before it.
//!
//! Whatever a reader meets in the middle of a change must be harmless until it is thrown away: every word of the
//! value is an atomic, and whoever reads it takes nothing for granted.

use super::atomic::{AtomicU64, Loaded, Ordering, Swap, fence, pause};
use std::sync::Arc;

/// An odd sequence that never becomes even again.
const RETIRED: u64 = u64::MAX;
/// So many times a reader looks before it gives up: some ten milliseconds, a fifth of what an answer is relied upon,
/// where no other thread wants the core; a change takes a few microseconds at most.
const TRIES_MAX: u32 = 1 << 18;

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The value is retired: there may be another one in its place.
    Retired,
    /// It was in the middle of a change for too long.
    Busy,
}

/// One writer, many readers.
#[derive(Debug)]
pub(super) struct Sequenced<T> {
    sequence: AtomicU64,
    /// How many times the value was replaced.
    replaced: AtomicU64,
    value: Swap<T>,
}

/// Somebody who reads more than once: the value is fetched when it was replaced, and not for every look.
pub(super) struct Reader<'a, T> {
    of: &'a Sequenced<T>,
    /// The value after so many replacements.
    value: Option<(u64, Loaded<T>)>,
}

impl<T> Reader<'_, T> {
    /// What `read` gives for the value as it stood at one moment. `read` is called again when the value changed
    /// meanwhile.
    pub(super) fn read<R>(&mut self, mut read: impl FnMut(&T) -> R) -> Result<R, Unread> {
        for tries in 1..=TRIES_MAX {
            if let Some(result) = self.glance(&mut read)? {
                return Ok(result);
            }
            pause(tries);
        }
        Err(Unread::Busy)
    }

    /// The same, or `None` where the value changed meanwhile, or is changing: `read` is called once at most.
    pub(super) fn glance<R>(&mut self, read: impl FnOnce(&T) -> R) -> Result<Option<R>, Unread> {
        let before = self.of.sequence.load(Ordering::Acquire);
        if before == RETIRED {
            return Err(Unread::Retired);
        }
        if !before.is_multiple_of(2) {
            return Ok(None);
        }
        let replaced = self.of.replaced.load(Ordering::Relaxed);
        let value = self.value.take().filter(|(of, _)| *of == replaced);
        let (_, value) = self.value.insert(value.unwrap_or_else(|| (replaced, self.of.value.load())));
        let result = read(value);
        // No load of `read` may come after the load that judges it.
        fence(Ordering::Acquire);
        if self.of.sequence.load(Ordering::Relaxed) == before {
            return Ok(Some(result));
        }
        // The value and its number may be of two replacements.
        self.value = None;
        Ok(None)
    }
}

impl<T> Sequenced<T> {
    pub(super) fn new(value: Arc<T>) -> Sequenced<T> {
        Sequenced { sequence: AtomicU64::new(0), replaced: AtomicU64::new(0), value: Swap::new(value) }
    }

    pub(super) fn reader(&self) -> Reader<'_, T> {
        Reader { of: self, value: None }
    }

    /// Runs `change`, which stores into the value in place, and puts `next` in the place of the value if there is
    /// one. Only one thread may write at a time. If `change` panics the value is retired.
    pub(super) fn write(&self, next: Option<Arc<T>>, change: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        let mut closing = Closing { sequence: &self.sequence, after: RETIRED };
        self.sequence.store(before + 1, Ordering::Relaxed);
        // No store of `change` may come before the one that announces it.
        fence(Ordering::Release);
        let last = next.map(|next| {
            let count = self.replaced.load(Ordering::Relaxed);
            self.replaced.store(count + 1, Ordering::Relaxed);
            self.value.replace(next)
        });
        change();
        closing.after = before + 2;
        drop(closing);
        // Freed only now, when nobody waits for it.
        drop(last);
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
