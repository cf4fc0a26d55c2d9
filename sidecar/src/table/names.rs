//! The organizations that accounts refer to: a number for each key, so that an account's row holds 4 bytes and not 16.
//!
//! Numbers count from 1 and are never given twice; 0 is none. Keys are only ever added, in chunks, so what a reader
//! looks up stays where it is.

use super::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// The keys of a chunk.
const CHUNK: usize = 256;
/// The words of a key.
const KEY: usize = 4;

/// Keys by number. A clone shares the chunks.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    chunks: Vec<Arc<[AtomicU32]>>,
}

impl Names {
    /// The key with this number.
    pub(super) fn key(&self, number: u32) -> Option<[u8; 16]> {
        let mut key = [0; 16];
        for (bytes, word) in key.chunks_exact_mut(4).zip(self.words(number)?) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_be_bytes());
        }
        Some(key)
    }

    /// Is there room for the key with this number?
    pub(super) fn has_room(&self, number: u32) -> bool {
        self.words(number).is_some()
    }

    /// Makes room for more keys.
    pub(super) fn grow(&mut self) {
        self.chunks.push((0..CHUNK * KEY).map(|_| AtomicU32::new(0)).collect());
    }

    /// Names a number, once, before any row that readers see holds it.
    pub(super) fn put(&self, number: u32, key: [u8; 16]) {
        let words = self.words(number).into_iter().flatten();
        for (word, bytes) in words.zip(key.as_chunks::<4>().0) {
            word.store(u32::from_be_bytes(*bytes), Ordering::Relaxed);
        }
    }

    fn words(&self, number: u32) -> Option<&[AtomicU32]> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let first = index % CHUNK * KEY;
        self.chunks.get(index / CHUNK)?.get(first..first + KEY)
    }
}
