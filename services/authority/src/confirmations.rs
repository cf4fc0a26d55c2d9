//! Who waits for EFFECTIVE, and the task that tells them: drives the confirmer (R8, R8b, R9).
//!
//! The confirmer decides; this file reads the lease table when it asks for it, reaps and settles, and carries the
//! answers. Every answer comes from a reading of the primary that began after its commit: the task owns a connection
//! and does one thing after the other, so a wait that comes in during a reading is judged by the next one. What no
//! reading has judged is not called anything: [`NotJudged`] says why. Only who has just made the write knows more
//! than the reading, that it is recorded.
//!
//! Waits are bounded; at the bound they are not judged.

use crate::store::{LeaseTable, Leases, Store, StoreError};
use consent::clock;
use consent::deadline::Deadline;
use consent_core::chain::Chain;
use consent_core::confirm::Terms;
use consent_core::confirm::confirmer::{Confirmer, Input, Outcome, Output, Reading, Row, Ticket};
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, Incarnation, Position, Revision, Span};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// When who found no room should ask again: readings make room every delta.
const RETRY_AFTER: Span = Span::from_millis(100);

/// What the last reading of the primary says of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The ledger has it.
    Recorded,
    /// And no ALLOW from before it is valid anywhere.
    Effective,
    /// The ledger has another event, or none, in its place: a failover lost it.
    Lost,
}

/// Why nothing can be said of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotJudged {
    /// More wait than may.
    Overloaded,
    /// The primary could not be read.
    Unreadable,
    /// The deadline came before a reading was over.
    Late,
    /// The process is stopping.
    Stopping,
}

impl From<NotJudged> for Refusal {
    fn from(why: NotJudged) -> Refusal {
        match why {
            NotJudged::Overloaded => Refusal::Overloaded { retry_after: RETRY_AFTER },
            NotJudged::Unreadable => Refusal::StoreUnavailable,
            NotJudged::Late => Refusal::DeadlineExceeded,
            NotJudged::Stopping => Refusal::NotServing,
        }
    }
}

/// What a wait has heard so far; it hears no more when the sender is gone.
type Heard = Option<Result<Judgement, NotJudged>>;

/// Where to ask how far a write's confirmation has come. Clones share the task.
#[derive(Debug, Clone)]
pub struct Confirmations {
    waits: mpsc::Sender<Wait>,
    effective: watch::Receiver<Option<Position>>,
}

#[derive(Debug)]
struct Wait {
    revision: Revision,
    chain: Chain,
    patient: bool,
    tell: watch::Sender<Heard>,
}

impl Confirmations {
    /// What became of the write that was recorded here? Who is patient waits for EFFECTIVE until the deadline, and
    /// hears then what the last reading said; for others one reading decides.
    pub async fn judge(
        &self,
        revision: Revision,
        chain: Chain,
        patient: bool,
        deadline: Deadline,
    ) -> Result<Judgement, NotJudged> {
        let (tell, mut heard) = watch::channel(None);
        self.waits.try_send(Wait { revision, chain, patient, tell }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => NotJudged::Overloaded,
            mpsc::error::TrySendError::Closed(_) => NotJudged::Stopping,
        })?;
        let all = deadline.within(async { while heard.changed().await.is_ok() {} }).await;
        let last: Heard = *heard.borrow();
        last.unwrap_or(Err(if all.is_some() { NotJudged::Stopping } else { NotJudged::Late }))
    }

    /// Up to where everything is effective, by the last reading of this process; none before the first one, and
    /// under an epoch that is not settled.
    pub fn effective(&self) -> Option<Position> {
        *self.effective.borrow()
    }
}

/// The task behind [`Confirmations`].
pub(crate) struct Task<S: Store> {
    store: Arc<S>,
    confirmer: Confirmer,
    waits: mpsc::Receiver<Wait>,
    waiting: BTreeMap<Ticket, Waiting>,
    tickets: u64,
    errands: VecDeque<Errand>,
    readable: bool,
    effective: watch::Sender<Option<Position>>,
    wakeups: watch::Receiver<()>,
    drained: Arc<Notify>,
    stop: CancellationToken,
}

/// What the confirmer wants of the store.
enum Errand {
    /// `judges`: the waits with a ticket below it are judged by what is read.
    Read {
        revisions: Vec<Revision>,
        judges: Ticket,
    },
    Reap {
        incarnation: Incarnation,
        renew_seq: u64,
    },
    Settle {
        epoch: Epoch,
    },
}

struct Waiting {
    tell: watch::Sender<Heard>,
    patient: bool,
}

impl Confirmations {
    /// The handle, and the task that the caller must run. `drained` tells of this process's own drain reports.
    pub(crate) fn new<S: Store>(
        store: Arc<S>,
        terms: Terms,
        waiters: usize,
        drained: Arc<Notify>,
        stop: CancellationToken,
    ) -> (Confirmations, Task<S>) {
        let (waits, received) = mpsc::channel(waiters);
        let (effective, seen) = watch::channel(None);
        let task = Task {
            wakeups: store.wakeups(),
            store,
            confirmer: Confirmer::new(terms, waiters),
            waits: received,
            waiting: BTreeMap::new(),
            tickets: 0,
            errands: VecDeque::new(),
            readable: true,
            effective,
            drained,
            stop,
        };
        (Confirmations { waits, effective: seen }, task)
    }
}

impl<S: Store> Task<S> {
    /// Until it is stopped. Whoever still waits then has heard all that there is.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut leases = self.store.leases().await?;
        let stop = self.stop.clone();
        self.step(Input::TimePassed);
        loop {
            while let Some(errand) = self.errands.pop_front() {
                self.run_errand(&mut leases, errand).await;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.next() => {}
            }
        }
    }

    async fn next(&mut self) {
        let wake_at = self.confirmer.wake_at();
        tokio::select! {
            Some(wait) = self.waits.recv() => {
                self.admit(wait);
                // Those that ask together are judged together: by the reading after the one that the first began.
                while let Ok(wait) = self.waits.try_recv() {
                    self.admit(wait);
                }
            }
            Ok(()) = self.wakeups.changed() => self.step(Input::Woken),
            () = self.drained.notified() => self.step(Input::Woken),
            () = clock::alarm(wake_at) => self.step(Input::TimePassed),
        }
        // Callers that are gone wait no more: their places are for others.
        self.forget(|_, waiting| waiting.tell.is_closed());
    }

    fn admit(&mut self, wait: Wait) {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting.insert(ticket, Waiting { tell: wait.tell, patient: wait.patient });
        self.step(Input::Await { ticket, revision: wait.revision, chain: wait.chain });
    }

    fn forget(&mut self, whom: impl Fn(&Ticket, &Waiting) -> bool) {
        let forgotten: Vec<Ticket> = self
            .waiting
            .extract_if(.., |ticket, waiting| whom(ticket, waiting))
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in forgotten {
            self.step(Input::Forget { ticket });
        }
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.confirmer.step(clock::now(), input, &mut outputs);
        // Before the answers go out: who is told EFFECTIVE must find its revision in it.
        let effective = self.confirmer.effective();
        self.effective.send_replace(effective.map(|(epoch, revision)| Position { epoch, revision }));
        for output in outputs {
            match output {
                Output::Read { revisions } => {
                    self.errands.push_back(Errand::Read { revisions, judges: Ticket(self.tickets) });
                }
                Output::Reap { incarnation, renew_seq } => {
                    self.errands.push_back(Errand::Reap { incarnation, renew_seq });
                }
                Output::Settle { epoch } => self.errands.push_back(Errand::Settle { epoch }),
                Output::Answer { ticket, outcome } => {
                    if let Some(waiting) = self.waiting.remove(&ticket) {
                        waiting.tell.send_replace(Some(match outcome {
                            Outcome::Effective => Ok(Judgement::Effective),
                            Outcome::Lost => Ok(Judgement::Lost),
                            Outcome::Overloaded => Err(NotJudged::Overloaded),
                        }));
                    }
                }
                Output::EffectiveFell { from, to } => {
                    tracing::error!(%from, %to, "I9: the effective revision fell; the store forgot what it knew");
                }
            }
        }
    }

    async fn run_errand(&mut self, leases: &mut S::Leases, errand: Errand) {
        match errand {
            Errand::Read { revisions, judges } => {
                let table = leases.table(&revisions).await;
                self.tell_whether_readable(table.as_ref().err());
                // Whom the confirmer tells nothing after a reading, the ledger has, and that is all.
                let heard = if table.is_ok() { Ok(Judgement::Recorded) } else { Err(NotJudged::Unreadable) };
                self.step(table.map_or(Input::ReadFailed, |table| Input::Read(reading(table))));
                for (_, waiting) in self.waiting.range(..judges) {
                    waiting.tell.send_replace(Some(heard));
                }
                self.forget(|ticket, waiting| *ticket < judges && !waiting.patient);
            }
            Errand::Reap { incarnation, renew_seq } => {
                match leases.reap(incarnation, renew_seq).await {
                    Ok(true) => tracing::info!(%incarnation, "reaped the row of a dead replica"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "a row could not be reaped"),
                }
                self.step(Input::Tried);
            }
            Errand::Settle { epoch } => {
                match leases.settle(epoch).await {
                    Ok(true) => tracing::info!(%epoch, "settled the epoch: opt-outs are confirmed again"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "the epoch could not be settled"),
                }
                self.step(Input::Tried);
            }
        }
    }

    // A line per change, not per try.
    fn tell_whether_readable(&mut self, error: Option<&StoreError>) {
        match error {
            Some(error) if self.readable => tracing::warn!(%error, "the lease table cannot be read"),
            None if !self.readable => tracing::info!("the lease table can be read again"),
            Some(_) | None => {}
        }
        self.readable = error.is_none();
    }
}

fn reading(table: LeaseTable) -> Reading {
    Reading {
        settled: table.head.settled_epoch,
        head: table.head.place(),
        open_rows: table
            .open
            .into_iter()
            .map(|row| Row {
                incarnation: row.incarnation,
                reg_rev: row.registered,
                renew_seq: row.renew_seq,
                drained_rev: row.drained,
            })
            .collect(),
        chains: table.chains,
    }
}

#[cfg(test)]
mod tests;
