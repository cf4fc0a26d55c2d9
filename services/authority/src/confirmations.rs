//! Who waits for EFFECTIVE, and the task that tells them: drives the confirmer (R8, R8b, R9).
//!
//! The confirmer decides; this file reads the lease table when it asks for it, reaps and settles, and carries the
//! answers. Every answer comes from a reading of the primary that began after its commit: the task owns a connection
//! and does one thing after the other, so a wait that comes in during a reading is answered by the next one.
//!
//! Waits are bounded. At the bound a write is answered RECORDED, which is true, and asks again later.

use crate::store::{LeaseTable, Leases, Store, StoreError};
use consent::clock;
use consent::deadline::Deadline;
use consent_core::chain::Chain;
use consent_core::confirm::Terms;
use consent_core::confirm::confirmer::{Confirmer, Input, Outcome, Output, Reading, Row, Ticket};
use consent_core::refusal::Refusal;
use consent_core::words::Revision;
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
    effective: watch::Sender<Revision>,
    wakeups: watch::Receiver<()>,
    drained: Arc<Notify>,
    stop: CancellationToken,
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
        self.step(&mut leases, Input::TimePassed).await;
        loop {
            let input = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                input = self.next() => input,
            };
            let Some(input) = input else { return Ok(()) };
            self.forget(&mut leases).await;
            self.step(&mut leases, input).await;
        }
    }

    // What happens next; none when nobody can ask any more.
    async fn next(&mut self) -> Option<Input> {
        let wake_at = self.confirmer.wake_at();
        tokio::select! {
            wait = self.waits.recv() => wait.map(|wait| self.admit(wait)),
            changed = self.wakeups.changed() => changed.ok().map(|()| Input::Woken),
            () = self.drained.notified() => Some(Input::Woken),
            () = clock::alarm(wake_at) => Some(Input::TimePassed),
        }
    }

    fn admit(&mut self, wait: Wait) -> Input {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting.insert(ticket, Waiting { answer: wait.answer, patient: wait.patient });
        Input::Await { ticket, revision: wait.revision, chain: wait.chain }
    }

    // Callers that are gone wait no more: their places are for others.
    async fn forget(&mut self, leases: &mut S::Leases) {
        let gone: Vec<Ticket> = self
            .waiting
            .extract_if(.., |_, waiting| waiting.answer.is_closed())
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in gone {
            self.step(leases, Input::Forget { ticket }).await;
        }
    }

    // The outputs of one step are performed before the next input. What they lead to is stepped after them.
    async fn step(&mut self, leases: &mut S::Leases, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut outputs = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let reading_over = matches!(input, Input::Read(_) | Input::ReadFailed);
            self.confirmer.step(clock::now(), input, &mut outputs);
            // Before the answers go out: who is told EFFECTIVE must find its revision in it.
            if let Some((_, revision)) = self.confirmer.effective() {
                self.effective.send_replace(revision);
            }
            for output in outputs.drain(..) {
                inputs.extend(self.perform(leases, output).await);
            }
            if reading_over {
                let impatient = self.waiting.extract_if(.., |_, waiting| !waiting.patient);
                inputs.extend(impatient.map(|(ticket, _)| Input::Forget { ticket }));
            }
        }
    }

    async fn perform(&mut self, leases: &mut S::Leases, output: Output) -> Option<Input> {
        match output {
            Output::Read { revisions } => Some(match leases.table(&revisions).await {
                Ok(table) => Input::Read(reading(table)),
                Err(error) => {
                    tracing::warn!(%error, "the lease table could not be read");
                    Input::ReadFailed
                }
            }),
            Output::Reap { incarnation, renew_seq } => {
                match leases.reap(incarnation, renew_seq).await {
                    Ok(true) => tracing::info!(%incarnation, "reaped the row of a dead replica"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "a row could not be reaped"),
                }
                Some(Input::Tried)
            }
            Output::Settle { epoch } => {
                match leases.settle(epoch).await {
                    Ok(true) => tracing::info!(%epoch, "settled the epoch: opt-outs are confirmed again"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "the epoch could not be settled"),
                }
                Some(Input::Tried)
            }
            Output::Answer { ticket, outcome } => {
                if let Some(waiting) = self.waiting.remove(&ticket) {
                    // Where nobody listens any more, nobody needs it.
                    let _ = waiting.answer.send(outcome);
                }
                None
            }
            Output::EffectiveFell { from, to } => {
                tracing::error!(%from, %to, "I9: the effective revision fell; the store forgot what it knew");
                None
            }
        }
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
