//! SQLite with faults at the two places where a store can fail the lane, and a gate before the lock.

use consent_authority::store::sqlite::{self, SqliteStore, SqliteWriter};
use consent_authority::store::{Append, Locked, Needs, Store, StoreError, Writer};
use consent_core::words::{Epoch, IdKey};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The actor whose events the store cannot take.
pub(crate) const POISON: &str = "poison";

/// What happens to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: the lock works this time.
    LockWorks,
    /// The store is away.
    LockFails,
    /// Another server than the stored one.
    Foreign,
    /// What is read under the lock cannot be.
    LockBroken,
    /// The commit fails for certain.
    CommitFails,
    /// The commit is done, and the answer lost.
    CommitDoneUnknown,
    /// The commit is not done, and nobody knows.
    CommitUndoneUnknown,
}

impl Fault {
    fn is_of_lock(self) -> bool {
        matches!(self, Fault::LockWorks | Fault::LockFails | Fault::Foreign | Fault::LockBroken)
    }
}

#[derive(Default)]
struct Plan {
    next: VecDeque<Fault>,
    always: Option<Fault>,
}

/// How a test drives the faults.
#[derive(Clone)]
pub(crate) struct Control {
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<bool>,
    asked: watch::Sender<bool>,
    locks: Arc<AtomicUsize>,
}

impl Control {
    /// These faults, an attempt each.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan.lock().unwrap().next.extend(faults);
    }

    /// This one, when there is no next one.
    pub(crate) fn always(&self, fault: Fault) {
        self.plan.lock().unwrap().always = Some(fault);
    }

    /// Nobody gets the lock from now on.
    pub(crate) fn hold(&self) {
        self.asked.send_replace(false);
        self.held.send_replace(true);
    }

    pub(crate) fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Until somebody waits for the lock that is held.
    pub(crate) async fn lock_is_asked_for(&self) {
        self.asked.subscribe().wait_for(|asked| *asked).await.unwrap();
    }

    /// How often the lock was asked for.
    pub(crate) fn locks(&self) -> usize {
        self.locks.load(Ordering::Relaxed)
    }

    fn fault(&self, applies: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        match plan.next.front() {
            Some(fault) if applies(*fault) => plan.next.pop_front(),
            Some(_) => None,
            None => plan.always.filter(|fault| applies(*fault)),
        }
    }
}

pub(crate) struct Faulty {
    inner: SqliteStore,
    control: Control,
}

impl Faulty {
    pub(crate) async fn open(directory: &Path) -> (Faulty, Control) {
        sqlite::migrate(directory, Epoch::new([1; 16]), IdKey::new([7; 16])).await.unwrap();
        let inner = SqliteStore::open(directory).await.unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (held, asked) = (watch::Sender::new(false), watch::Sender::new(false));
        let control = Control { plan, held, asked, locks: Arc::default() };
        (Faulty { inner, control: control.clone() }, control)
    }
}

impl Store for Faulty {
    type Writer = FaultyWriter;
    type Reader = <SqliteStore as Store>::Reader;
    type Leases = <SqliteStore as Store>::Leases;

    async fn writer(&self) -> Result<FaultyWriter, StoreError> {
        Ok(FaultyWriter { inner: self.inner.writer().await?, control: self.control.clone() })
    }

    fn reader(&self) -> Self::Reader {
        self.inner.reader()
    }

    async fn leases(&self) -> Result<Self::Leases, StoreError> {
        self.inner.leases().await
    }

    fn wakeups(&self) -> watch::Receiver<()> {
        self.inner.wakeups()
    }
}

pub(crate) struct FaultyWriter {
    inner: SqliteWriter,
    control: Control,
}

impl Writer for FaultyWriter {
    async fn lock(&mut self, needs: &Needs) -> Result<Locked, StoreError> {
        if *self.control.held.borrow() {
            self.control.asked.send_replace(true);
            self.control.held.subscribe().wait_for(|held| !held).await.unwrap();
        }
        self.control.locks.fetch_add(1, Ordering::Relaxed);
        match self.control.fault(Fault::is_of_lock) {
            None | Some(Fault::LockWorks) => self.inner.lock(needs).await,
            Some(Fault::Foreign) => Err(StoreError::Foreign),
            Some(Fault::LockBroken) => Err(StoreError::Broken("a planted fault".to_owned())),
            Some(_) => Err(StoreError::Unavailable("a planted fault".to_owned())),
        }
    }

    async fn commit(&mut self, append: &Append) -> Result<(), StoreError> {
        if append.entries.iter().any(|entry| entry.evidence.actor == POISON) {
            self.inner.release().await;
            return Err(StoreError::Broken("a planted fault".to_owned()));
        }
        let unknown = || Err(StoreError::OutcomeUnknown("a planted fault".to_owned()));
        match self.control.fault(|fault| !fault.is_of_lock()) {
            None => self.inner.commit(append).await,
            Some(Fault::CommitDoneUnknown) => {
                self.inner.commit(append).await?;
                unknown()
            }
            Some(Fault::CommitUndoneUnknown) => {
                self.inner.release().await;
                unknown()
            }
            Some(_) => {
                self.inner.release().await;
                Err(StoreError::Unavailable("a planted fault".to_owned()))
            }
        }
    }

    async fn release(&mut self) {
        self.inner.release().await;
    }
}
