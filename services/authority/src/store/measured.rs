//! A store with a watch on it: how long each call takes, what goes wrong, and how large the lane's batches are.
//!
//! It does what the store under it does, and decides nothing. It stands around the whole store, so no call is left
//! out, and whoever calls need not count.

use super::{
    Append, FeedEntry, HeadPage, LeaseTable, Leases, LedgerEntry, LedgerHead, Locked, Needs, Reader, Store,
    StoreError, Writer,
};
use consent::metrics::{Counter, Histogram, Per};
use consent::{clock, label};
use consent_core::chain::Chain;
use consent_core::digest::Digest;
use consent_core::head::HeadKey;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, Incarnation, Revision, Timestamp};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// From half a millisecond to 10 seconds, in seconds.
const DURATIONS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Writes in one batch: at most 256.
const BATCHES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

label! {
    /// What a store is asked for.
    pub(crate) enum Operation = "operation" {
        /// The head's lock, and what the batch needs under it.
        Lock = "lock",
        /// A batch.
        Commit = "commit",
        /// Anything that is read without a lock.
        Read = "read",
        /// The rows of `authority_lease`.
        Lease = "lease",
    }
}

label! {
    /// Why a store did not do it.
    pub(crate) enum Trouble = "kind" {
        Unavailable = "unavailable",
        Foreign = "foreign",
        OutcomeUnknown = "outcome_unknown",
        Schema = "schema",
        Broken = "broken",
    }
}

impl From<&StoreError> for Trouble {
    fn from(error: &StoreError) -> Trouble {
        match error {
            StoreError::Unavailable(_) => Trouble::Unavailable,
            StoreError::Foreign => Trouble::Foreign,
            StoreError::OutcomeUnknown(_) => Trouble::OutcomeUnknown,
            StoreError::Schema(_) => Trouble::Schema,
            StoreError::Broken(_) => Trouble::Broken,
        }
    }
}

/// What is seen of a store.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) durations: Per<Operation, Histogram>,
    pub(crate) troubles: Per<Operation, Per<Trouble, Counter>>,
    pub(crate) batches: Histogram,
    pub(crate) replays: Counter,
    /// The open rows of `authority_lease` that were last read.
    pub(crate) replicas: AtomicU64,
    /// What this replica registered at, or last reported as drained.
    pub(crate) drained: AtomicU64,
    /// By how many milliseconds `recorded_at` was ahead of the store's clock, under the last lock.
    ahead: AtomicU64,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            durations: Per::new(|| Histogram::new(DURATIONS)),
            troubles: Per::default(),
            batches: Histogram::new(BATCHES),
            replays: Counter::default(),
            replicas: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
        }
    }

    /// By how many seconds the ledger's `recorded_at` was ahead of the store's clock when the lane last locked it.
    pub(crate) fn ahead(&self) -> f64 {
        self.ahead.load(Ordering::Relaxed) as f64 / 1000.0
    }

    async fn watch<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let begun = clock::now();
        let outcome = call.await;
        self.durations.of(operation).observe(clock::now().longest_since(begun).nanos() as f64 / 1e9);
        if let Err(error) = &outcome {
            self.troubles.of(operation).of(error.into()).inc();
        }
        outcome
    }
}

/// The store, or a role of it, with the watch.
#[derive(Debug, Clone)]
pub(crate) struct Measured<T> {
    inner: T,
    seen: Arc<Seen>,
}

impl<T> Measured<T> {
    /// This, watched.
    pub(crate) fn new(inner: T) -> Measured<T> {
        Measured { inner, seen: Arc::new(Seen::new()) }
    }

    /// What is seen of it, and of all that is made of it.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    fn with<U>(&self, inner: U) -> Measured<U> {
        Measured { inner, seen: Arc::clone(&self.seen) }
    }
}

impl<S: Store> Store for Measured<S> {
    type Writer = Measured<S::Writer>;
    type Reader = Measured<S::Reader>;
    type Leases = Measured<S::Leases>;

    async fn writer(&self) -> Result<Measured<S::Writer>, StoreError> {
        Ok(self.with(self.seen.watch(Operation::Lock, self.inner.writer()).await?))
    }

    fn reader(&self) -> Measured<S::Reader> {
        self.with(self.inner.reader())
    }

    async fn leases(&self) -> Result<Measured<S::Leases>, StoreError> {
        Ok(self.with(self.seen.watch(Operation::Lease, self.inner.leases()).await?))
    }

    fn wakeups(&self) -> watch::Receiver<()> {
        self.inner.wakeups()
    }
}

impl<W: Writer> Writer for Measured<W> {
    async fn lock(&mut self, needs: &Needs) -> Result<Locked, StoreError> {
        self.seen.batches.observe(needs.requests.len() as f64);
        let locked = self.seen.watch(Operation::Lock, self.inner.lock(needs)).await?;
        self.seen.replays.inc_by(locked.requests.len() as u64);
        let ahead = locked.head.recorded_at.millis().saturating_sub(locked.now.millis());
        self.seen.ahead.store(ahead.max(0).unsigned_abs(), Ordering::Relaxed);
        Ok(locked)
    }

    async fn commit(&mut self, append: &Append) -> Result<(), StoreError> {
        self.seen.watch(Operation::Commit, self.inner.commit(append)).await
    }

    async fn release(&mut self) {
        self.inner.release().await;
    }
}

impl<R: Reader> Reader for Measured<R> {
    async fn head(&self) -> Result<LedgerHead, StoreError> {
        self.seen.watch(Operation::Read, self.inner.head()).await
    }

    async fn feed(&self, after: Revision, limit: u32) -> Result<Vec<FeedEntry>, StoreError> {
        self.seen.watch(Operation::Read, self.inner.feed(after, limit)).await
    }

    async fn proof_at(&self, revision: Revision) -> Result<Option<(Chain, Digest)>, StoreError> {
        self.seen.watch(Operation::Read, self.inner.proof_at(revision)).await
    }

    async fn heads_after(&self, after: Option<HeadKey>, limit: u32) -> Result<HeadPage, StoreError> {
        self.seen.watch(Operation::Read, self.inner.heads_after(after, limit)).await
    }

    async fn heads_of(&self, keys: &[HeadKey]) -> Result<(LedgerHead, Vec<HeadRecord>), StoreError> {
        self.seen.watch(Operation::Read, self.inner.heads_of(keys)).await
    }

    async fn id_of(&self, key: HeadKey) -> Result<Option<String>, StoreError> {
        self.seen.watch(Operation::Read, self.inner.id_of(key)).await
    }

    async fn ledger(
        &self,
        after: Revision,
        limit: u32,
    ) -> Result<(LedgerHead, Vec<LedgerEntry>), StoreError> {
        self.seen.watch(Operation::Read, self.inner.ledger(after, limit)).await
    }

    async fn policy_document(&self) -> Result<Option<(String, Revision, Timestamp)>, StoreError> {
        self.seen.watch(Operation::Read, self.inner.policy_document()).await
    }
}

impl<L: Leases> Leases for Measured<L> {
    async fn register(&mut self, incarnation: Incarnation, replica: &str) -> Result<LedgerHead, StoreError> {
        let head = self.seen.watch(Operation::Lease, self.inner.register(incarnation, replica)).await?;
        self.seen.drained.store(head.revision.get(), Ordering::Relaxed);
        Ok(head)
    }

    async fn renew(&mut self, incarnation: Incarnation) -> Result<Option<LedgerHead>, StoreError> {
        self.seen.watch(Operation::Lease, self.inner.renew(incarnation)).await
    }

    async fn report_drained(
        &mut self,
        incarnation: Incarnation,
        drained: Revision,
    ) -> Result<bool, StoreError> {
        let report = self.inner.report_drained(incarnation, drained);
        let is_mine = self.seen.watch(Operation::Lease, report).await?;
        self.seen.drained.store(drained.get(), Ordering::Relaxed);
        Ok(is_mine)
    }

    async fn table(&mut self, revisions: &[Revision]) -> Result<LeaseTable, StoreError> {
        let table = self.seen.watch(Operation::Lease, self.inner.table(revisions)).await?;
        self.seen.replicas.store(table.open.len() as u64, Ordering::Relaxed);
        Ok(table)
    }

    async fn reap(&mut self, incarnation: Incarnation, renew_seq: u64) -> Result<bool, StoreError> {
        self.seen.watch(Operation::Lease, self.inner.reap(incarnation, renew_seq)).await
    }

    async fn settle(&mut self, epoch: Epoch) -> Result<bool, StoreError> {
        self.seen.watch(Operation::Lease, self.inner.settle(epoch)).await
    }

    async fn mint(&mut self, fresh: Epoch) -> Result<bool, StoreError> {
        self.seen.watch(Operation::Lease, self.inner.mint(fresh)).await
    }

    async fn close(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.seen.watch(Operation::Lease, self.inner.close(incarnation)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::metrics::Label;
    use consent_core::words::IdKey;

    /// A writer whose clock is behind the ledger by so many milliseconds, and whose commits come to nothing certain.
    struct Behind(i64);

    impl Writer for Behind {
        async fn lock(&mut self, _: &Needs) -> Result<Locked, StoreError> {
            let recorded_at = Timestamp::from_millis(10_000);
            let head = LedgerHead {
                epoch: Epoch::new([1; 16]),
                settled_epoch: None,
                revision: Revision::ZERO,
                chain: Chain::EMPTY,
                digest: Digest::EMPTY,
                recorded_at,
                id_key: IdKey::new([2; 16]),
            };
            let now = Timestamp::from_millis(recorded_at.millis() - self.0);
            Ok(Locked { head, now, heads: Vec::new(), requests: Vec::new() })
        }

        async fn commit(&mut self, _: &Append) -> Result<(), StoreError> {
            Err(StoreError::OutcomeUnknown("a planted fault".to_owned()))
        }

        async fn release(&mut self) {}
    }

    #[tokio::test]
    async fn what_goes_wrong_is_counted_where_and_how_it_did() {
        let mut writer = Measured::new(Behind(0));
        let seen = writer.seen();
        writer.lock(&Needs::default()).await.expect("locked");
        writer.commit(&Append::default()).await.expect_err("unknown");
        for operation in Operation::ALL {
            for trouble in Trouble::ALL {
                let expected = (Operation::Commit, Trouble::OutcomeUnknown) == (*operation, *trouble);
                let counted = seen.troubles.of(*operation).of(*trouble).get();
                assert_eq!(counted, u64::from(expected), "{operation:?} {trouble:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_clock_that_fell_behind_the_ledger_shows_until_it_has_caught_up() {
        let mut writer = Measured::new(Behind(7_500));
        let seen = writer.seen();
        writer.lock(&Needs::default()).await.expect("locked");
        assert_eq!(seen.ahead(), 7.5);
        writer.inner.0 = -1;
        writer.lock(&Needs::default()).await.expect("locked");
        assert_eq!(seen.ahead(), 0.0);
    }
}
