//! Who waits for EFFECTIVE, and the task that tells them: drives the confirmer (R8, R8b, R9).
//!
//! The confirmer decides; this file reads the lease table when it asks for it, reaps and settles, and carries the
//! answers. Every answer comes from a reading of the primary that began after its commit: the task owns a connection
//! and does one thing after the other, so a wait that comes in during a reading is judged by the next one.
//!
//! Waits are bounded. At the bound a write is answered RECORDED, which is true, and asks again later.

use crate::store::{LeaseTable, Leases, Store, StoreError};
use consent::clock;
use consent::deadline::Deadline;
use consent_core::chain::Chain;
use consent_core::confirm::Terms;
use consent_core::confirm::confirmer::{Confirmer, Input, Outcome, Output, Reading, Row, Ticket};
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, Incarnation, Revision};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How far the confirmation of a recorded write has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// It is durable.
    Recorded,
    /// No ALLOW from before it is valid anywhere.
    Effective,
}

/// Where to ask how far a write's confirmation has come. Clones share the task.
#[derive(Debug, Clone)]
pub struct Confirmations {
    waits: mpsc::Sender<Wait>,
    effective: watch::Receiver<Revision>,
}

#[derive(Debug)]
struct Wait {
    revision: Revision,
    chain: Chain,
    patient: bool,
    answer: oneshot::Sender<Outcome>,
}

impl Confirmations {
    /// Is the write effective that was recorded here? With a deadline it is waited for until then; without one, one
    /// reading of the primary decides. [`Refusal::Lost`]: a failover lost the write.
    pub async fn effective(
        &self,
        revision: Revision,
        chain: Chain,
        wait: Option<Deadline>,
    ) -> Result<Confirmation, Refusal> {
        let (answer, answered) = oneshot::channel();
        let asked = Wait { revision, chain, patient: wait.is_some(), answer };
        if self.waits.try_send(asked).is_err() {
            return Ok(Confirmation::Recorded);
        }
        let outcome = match wait {
            Some(deadline) => deadline.within(answered).await,
            None => Some(answered.await),
        };
        match outcome {
            Some(Ok(Outcome::Effective)) => Ok(Confirmation::Effective),
            Some(Ok(Outcome::Lost)) => Err(Refusal::Lost),
            // Too many wait, the reading failed, the task stopped or the deadline came: the write is recorded all
            // the same.
            Some(Ok(Outcome::Overloaded) | Err(_)) | None => Ok(Confirmation::Recorded),
        }
    }
}

impl Confirmations {
    /// Every revision up to this one is effective, as far as was seen here; zero where nothing was seen yet.
    pub fn effective_revision(&self) -> Revision {
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
    effective: watch::Sender<Revision>,
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
    answer: oneshot::Sender<Outcome>,
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
        let (effective, seen) = watch::channel(Revision::ZERO);
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
    /// Until it is stopped. Whoever still waits then is answered RECORDED.
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
        self.forget(|_, waiting| waiting.answer.is_closed());
    }

    fn admit(&mut self, wait: Wait) {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting.insert(ticket, Waiting { answer: wait.answer, patient: wait.patient });
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
        if let Some((_, revision)) = self.confirmer.effective() {
            self.effective.send_replace(revision);
        }
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
                        // Where nobody listens any more, nobody needs it.
                        let _ = waiting.answer.send(outcome);
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
                self.step(table.map_or(Input::ReadFailed, |table| Input::Read(reading(table))));
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
