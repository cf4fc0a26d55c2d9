//! What is said of a write that no reading has judged, on a store whose lease table fails on demand.

use super::*;
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{LedgerHead, Store};
use consent_core::words::IdKey;
use std::sync::Mutex;
use tokio::task::JoinHandle;

const EPOCH: Epoch = Epoch::new([1; 16]);
const FRESH: Epoch = Epoch::new([2; 16]);

/// How the lease table is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Works,
    Fails,
    /// It gives no answer at all.
    Hangs,
    /// The ledger has a new epoch, which nobody has settled.
    IsMinted,
}

struct Faulty<S> {
    inner: S,
    table: Arc<Mutex<Table>>,
}

struct FaultyLeases<L> {
    inner: L,
    table: Arc<Mutex<Table>>,
}

impl<S: Store> Store for Faulty<S> {
    type Writer = S::Writer;
    type Reader = S::Reader;
    type Leases = FaultyLeases<S::Leases>;

    async fn writer(&self) -> Result<Self::Writer, StoreError> {
        self.inner.writer().await
    }
    fn reader(&self) -> Self::Reader {
        self.inner.reader()
    }
    async fn leases(&self) -> Result<Self::Leases, StoreError> {
        Ok(FaultyLeases { inner: self.inner.leases().await?, table: Arc::clone(&self.table) })
    }
    fn wakeups(&self) -> watch::Receiver<()> {
        self.inner.wakeups()
    }
}

impl<L: Leases> Leases for FaultyLeases<L> {
    async fn table(&mut self, revisions: &[Revision]) -> Result<LeaseTable, StoreError> {
        let how = *self.table.lock().expect("the plan");
        let table = self.inner.table(revisions).await?;
        match how {
            Table::Works => Ok(table),
            Table::Fails => Err(StoreError::Unavailable("a planted fault".to_owned())),
            Table::Hangs => std::future::pending().await,
            Table::IsMinted => {
                Ok(LeaseTable { head: LedgerHead { epoch: FRESH, ..table.head.clone() }, ..table })
            }
        }
    }

    async fn register(&mut self, incarnation: Incarnation, replica: &str) -> Result<LedgerHead, StoreError> {
        self.inner.register(incarnation, replica).await
    }
    async fn renew(&mut self, incarnation: Incarnation) -> Result<Option<LedgerHead>, StoreError> {
        self.inner.renew(incarnation).await
    }
    async fn report_drained(&mut self, incarnation: Incarnation, to: Revision) -> Result<bool, StoreError> {
        self.inner.report_drained(incarnation, to).await
    }
    async fn reap(&mut self, incarnation: Incarnation, renew_seq: u64) -> Result<bool, StoreError> {
        self.inner.reap(incarnation, renew_seq).await
    }
    async fn settle(&mut self, epoch: Epoch) -> Result<bool, StoreError> {
        self.inner.settle(epoch).await
    }
    async fn mint(&mut self, fresh: Epoch) -> Result<bool, StoreError> {
        self.inner.mint(fresh).await
    }
    async fn close(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.inner.close(incarnation).await
    }
}

fn start<S: Store>(
    store: Arc<S>,
    waiters: usize,
    stop: CancellationToken,
) -> (Confirmations, JoinHandle<Result<(), StoreError>>) {
    let (confirmations, task) = Confirmations::new(store, Terms::default(), waiters, Arc::default(), stop);
    (confirmations, tokio::spawn(task.run()))
}

struct Running {
    confirmations: Confirmations,
    table: Arc<Mutex<Table>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), StoreError>>,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Over an empty ledger, so revision zero is all that can be asked about.
    async fn new(table: Table, waiters: usize) -> Running {
        let directory = tempfile::tempdir().expect("a directory");
        sqlite::migrate(directory.path(), EPOCH, IdKey::new([7; 16])).await.expect("the migration");
        let inner = SqliteStore::open(directory.path()).await.expect("the store");
        let table = Arc::new(Mutex::new(table));
        let store = Arc::new(Faulty { inner, table: Arc::clone(&table) });
        let stop = CancellationToken::new();
        let (confirmations, task) = start(store, waiters, stop.clone());
        Running { confirmations, table, stop, task, _directory: directory }
    }

    fn now(&self, how: Table) {
        *self.table.lock().expect("the plan") = how;
    }

    async fn judge(&self, patient: bool, within: Span) -> Result<Judgement, NotJudged> {
        let deadline = Deadline::after(within);
        self.confirmations.judge(Revision::ZERO, Chain::EMPTY, patient, deadline).await
    }
}

const SOON: Span = Span::from_millis(60_000);

#[tokio::test]
async fn what_cannot_be_read_is_not_called_recorded() {
    let running = Running::new(Table::Fails, 8).await;
    assert_eq!(running.judge(false, SOON).await, Err(NotJudged::Unreadable));
    // Who is patient hears what the last reading was, however long it was waited for.
    assert_eq!(running.judge(true, Span::from_millis(200)).await, Err(NotJudged::Unreadable));
    running.now(Table::Works);
    assert_eq!(running.judge(true, SOON).await, Ok(Judgement::Effective));
    assert_eq!(Refusal::from(NotJudged::Unreadable), Refusal::StoreUnavailable);
}

#[tokio::test]
async fn a_deadline_before_the_first_reading_and_a_full_queue_judge_nothing() {
    let running = Running::new(Table::Hangs, 1).await;
    // At most one waits in the task's hands and one before its door; the task hangs in its first reading.
    assert_eq!(running.judge(false, Span::ZERO).await, Err(NotJudged::Late));
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(running.judge(false, Span::ZERO).await);
    }
    assert_eq!(heard.last(), Some(&Err(NotJudged::Overloaded)), "{heard:?}");
}

#[tokio::test]
async fn who_asks_a_process_that_stops_is_told_so() {
    let running = Running::new(Table::Works, 8).await;
    running.stop.cancel();
    running.task.await.expect("joined").expect("no failure");
    let deadline = Deadline::after(SOON);
    let outcome = running.confirmations.judge(Revision::ZERO, Chain::EMPTY, true, deadline).await;
    assert_eq!(outcome, Err(NotJudged::Stopping));
}

#[tokio::test]
async fn what_was_effective_is_not_said_of_another_epoch() {
    let running = Running::new(Table::Works, 8).await;
    assert_eq!(running.judge(false, SOON).await, Ok(Judgement::Effective));
    let before = Position { epoch: EPOCH, revision: Revision::ZERO };
    assert_eq!(running.confirmations.effective(), Some(before));
    running.now(Table::IsMinted);
    assert_eq!(running.judge(false, SOON).await, Ok(Judgement::Recorded), "nobody has settled it");
    assert_eq!(running.confirmations.effective(), None);
}
