//! The lane's task: takes a batch, tries until it is written, answers everyone within a bound.
//!
//! While the store is away, or a commit's outcome unknown, the same batch is tried again under the next lock, with
//! a growing pause between. A write that has waited for its patience is answered then: STORE_UNAVAILABLE if it is
//! certain that nothing of it is there, OUTCOME_UNKNOWN otherwise. So even a caller without a deadline hears
//! something, and a queue that filled up while the store was away is emptied quickly when it comes back.

use super::batch::{self, Decided, Outcome};
use super::{BATCH_MAX, Queued};
use crate::store::{Store, StoreError, Writer};
use consent::clock;
use consent_core::refusal::Refusal;
use consent_core::words::{IdKey, Span};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{error, warn};

/// How long a write is tried, from when it was queued. One attempt is always made.
const PATIENCE: Span = Span::from_millis(5_000);
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Where writes come from.
pub(super) struct Queues {
    pub(super) opt_outs: mpsc::Receiver<Queued>,
    pub(super) others: mpsc::Receiver<Queued>,
}

impl Queues {
    /// The next batch, opt-outs first; none when the last handle is gone and both queues are empty.
    async fn next(&mut self) -> Option<Vec<Queued>> {
        let first = tokio::select! {
            biased;
            Some(write) = self.opt_outs.recv() => write,
            Some(write) = self.others.recv() => write,
            else => return None,
        };
        let mut batch = vec![first];
        for queue in [&mut self.opt_outs, &mut self.others] {
            while batch.len() < BATCH_MAX
                && let Ok(write) = queue.try_recv()
            {
                batch.push(write);
            }
        }
        Some(batch)
    }
}

/// The task; it owns the one connection that writes.
pub(super) struct Task<S: Store, F> {
    store: Arc<S>,
    id_key: IdKey,
    queues: Queues,
    committed: F,
    // None before the first batch and after a failure: a connection that failed once is not trusted again.
    writer: Option<S::Writer>,
}

/// A batch that the store cannot take as it is.
struct Rejected(Vec<Queued>);

impl<S: Store, F: Fn() + Send> Task<S, F> {
    pub(super) fn new(store: Arc<S>, id_key: IdKey, queues: Queues, committed: F) -> Task<S, F> {
        Task { store, id_key, queues, committed, writer: None }
    }

    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queues.next().await {
            let Err(Rejected(batch)) = self.write(batch).await else { continue };
            // Whichever it is that the store cannot take must fail alone.
            for write in batch {
                if let Err(Rejected(alone)) = self.write(vec![write]).await {
                    alone.into_iter().for_each(|write| write.reply(Err(Refusal::Internal)));
                }
            }
        }
    }

    /// Writes and answers the batch, or gives it back where trying again is no use.
    async fn write(&mut self, mut batch: Vec<Queued>) -> Result<(), Rejected> {
        let mut pause = PAUSE_MIN;
        let mut in_doubt = false;
        while !batch.is_empty() {
            let failure = match self.attempt(&batch).await {
                Ok(outcomes) => {
                    batch.into_iter().zip(outcomes).for_each(|(write, outcome)| write.reply(outcome));
                    return Ok(());
                }
                Err(failure) => failure,
            };
            match failure {
                StoreError::Broken(_) | StoreError::Schema(_) => {
                    error!(error = %failure, writes = batch.len(), "a batch cannot be written");
                    return Err(Rejected(batch));
                }
                StoreError::OutcomeUnknown(_) => in_doubt = true,
                // Whoever confirms mints the epoch; until then nothing may be written.
                StoreError::Unavailable(_) | StoreError::Foreign => {}
            }
            warn!(error = %failure, writes = batch.len(), "a batch was not written, trying again");
            let now = clock::now();
            let (waiting, over): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|write| now.shortest_since(write.queued_at) < PATIENCE);
            for write in over {
                write.reply(Err(if in_doubt { Refusal::OutcomeUnknown } else { Refusal::StoreUnavailable }));
            }
            batch = waiting;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    /// One transaction: lock, decide, commit.
    async fn attempt(&mut self, batch: &[Queued]) -> Result<Vec<Outcome>, StoreError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.store.writer().await?,
        };
        let writes = || batch.iter().map(|queued| &queued.write);
        let needs = batch::needs(writes());
        let locked = writer.lock(&needs).await?;
        let decided = batch::decide(writes(), &needs, &locked, &self.id_key);
        let Ok(Decided { append, outcomes }) = decided else {
            writer.release().await;
            return decided.map(|decided| decided.outcomes);
        };
        if append.requests.is_empty() {
            // Refused, or made before: there is nothing to remember.
            writer.release().await;
        } else {
            writer.commit(&append).await?;
            if !append.entries.is_empty() {
                (self.committed)();
            }
        }
        self.writer = Some(writer);
        Ok(outcomes)
    }
}

impl Queued {
    /// Answers. The caller may have gone: the write is what it is all the same.
    fn reply(self, outcome: Outcome) {
        let _gone = self.answer.send(outcome);
    }
}
