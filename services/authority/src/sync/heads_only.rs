//! A store for tests that has heads and no history, and counts who reads them.

use crate::store::{FeedEntry, HeadPage, LedgerEntry, LedgerHead, Reader, StoreError};
use consent_core::chain::Chain;
use consent_core::digest::Digest;
use consent_core::head::HeadKey;
use consent_core::ledger::HeadRecord;
use consent_core::words::{AccountKey, Revision, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// So many accounts, at a revision that a test moves on.
#[derive(Debug, Clone)]
pub(super) struct HeadsOnly {
    accounts: u128,
    revision: Arc<AtomicU64>,
    reads: Arc<AtomicUsize>,
}

impl HeadsOnly {
    pub(super) fn new(accounts: u128, revision: u64) -> HeadsOnly {
        HeadsOnly { accounts, revision: Arc::new(AtomicU64::new(revision)), reads: Arc::default() }
    }

    pub(super) fn goes_on_to(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// How often a page was read.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("not asked in this test".to_owned()))
}

impl Reader for HeadsOnly {
    async fn head(&self) -> Result<LedgerHead, StoreError> {
        away()
    }
    /// As of a primary that is behind.
    async fn feed(&self, _: Revision, _: u32) -> Result<Vec<FeedEntry>, StoreError> {
        Ok(Vec::new())
    }
    async fn proof_at(&self, _: Revision) -> Result<Option<(Chain, Digest)>, StoreError> {
        away()
    }
    async fn heads_after(&self, after: Option<HeadKey>, limit: u32) -> Result<HeadPage, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let revision = Revision::new(self.revision.load(Ordering::Relaxed)).expect("a revision");
        // As a real one would: whoever else wants this page comes while it is being read.
        tokio::task::yield_now().await;
        let first = after.map_or(0, |after| u128::from_be_bytes(after.bytes()) + 1);
        let keys = (first..self.accounts).take(limit as usize);
        let head = |key: u128| HeadRecord {
            key: HeadKey::Account(AccountKey::new(key.to_be_bytes())),
            bytes: vec![1; 40],
        };
        Ok(HeadPage { revision, heads: keys.map(head).collect() })
    }
    async fn heads_of(&self, _: &[HeadKey]) -> Result<(LedgerHead, Vec<HeadRecord>), StoreError> {
        away()
    }
    async fn id_of(&self, _: HeadKey) -> Result<Option<String>, StoreError> {
        away()
    }
    async fn ledger(&self, _: Revision, _: u32) -> Result<(LedgerHead, Vec<LedgerEntry>), StoreError> {
        away()
    }
    async fn policy_document(&self) -> Result<Option<(String, Revision, Timestamp)>, StoreError> {
        away()
    }
}
