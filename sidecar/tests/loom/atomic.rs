//! The model checker's atomics, in the place of `src/table/atomic.rs`.

pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use loom::sync::Mutex;
use std::sync::Arc;

/// To the model checker a loop that waits must say so.
pub(super) fn pause(_tries: u32) {
    loom::thread::yield_now();
}

/// A value that was loaded.
pub(super) type Loaded<T> = Arc<T>;

/// A value that is replaced as a whole. The lock stands for a swap that publishes what it holds.
#[derive(Debug)]
pub(super) struct Swap<T>(Mutex<Arc<T>>);

impl<T> Swap<T> {
    pub(super) fn new(value: Arc<T>) -> Swap<T> {
        Swap(Mutex::new(value))
    }

    pub(super) fn load(&self) -> Loaded<T> {
        Arc::clone(&self.0.lock().unwrap())
    }

    pub(super) fn replace(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut self.0.lock().unwrap(), value)
    }
}
