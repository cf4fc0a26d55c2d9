//! The atomics that the table is made of. They stand apart so that the model checker's can stand in their place:
//! `tests/loom` compiles the same sources over another `atomic`.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

/// So many times a reader looks again at once before it gives its core away: the writer may need it to go on.
const SPINS: u32 = 64;

/// Waits a moment, after so many tries in vain.
pub(super) fn pause(tries: u32) {
    if tries.is_multiple_of(SPINS) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

/// A value that was loaded: it stays while this is held.
pub(super) type Loaded<T> = Guard<Arc<T>>;

/// A value that is replaced as a whole, and read without waiting.
#[derive(Debug)]
pub(super) struct Swap<T>(ArcSwap<T>);

impl<T> Swap<T> {
    pub(super) fn new(value: Arc<T>) -> Swap<T> {
        Swap(ArcSwap::new(value))
    }

    pub(super) fn load(&self) -> Loaded<T> {
        self.0.load()
    }

    /// Gives the value before back, for the caller to free when nobody waits for it.
    pub(super) fn replace(&self, value: Arc<T>) -> Arc<T> {
        self.0.swap(value)
    }
}
