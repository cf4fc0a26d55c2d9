//! The lane's task: takes a batch, tries until it is written, answers everyone within a bound.
//!
//! While the store is away, or a commit's outcome unknown, the same batch is tried again under the next lock, with
//! a growing pause between. A batch that the store cannot take is taken apart, so that what is wrong fails alone. A
//! write that has waited for its patience is answered then: STORE_UNAVAILABLE if it is certain that nothing of it is
//! there, OUTCOME_UNKNOWN for ever after a commit of it that may have been done, whatever fails next. So even a caller
//! without a deadline hears something, and a queue that filled up while the store was away is emptied quickly when it
//! comes back.

use super::batch::{self, Decided, Outcome};
use super::{BATCH_MAX, Queued};
use crate::store::{Store, StoreError, Writer};
use consent::clock;
use consent_core::refusal::Refusal;
use consent_core::words::{IdKey, Span};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{error, warn};

/// After so long a batch is not waited for to become larger: on a busy machine a turn takes long, and brings one write.
const GATHERING: Span = Span::from_millis(2);
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
    fn waiting(&self) -> usize {
        self.opt_outs.len() + self.others.len()
    }

    /// The next batch, opt-outs first; none when the last handle is gone and both queues are empty.
    async fn next(&mut self) -> Option<Vec<Queued>> {
        let first = tokio::select! {
            biased;
            Some(write) = self.opt_outs.recv() => write,
            Some(write) = self.others.recv() => write,
            else => return None,
        };
        let mut batch = vec![first];
        // Callers who were answered together come back together, and the first of them need not be a batch of its own,
        // whose commit all others would wait for. A turn is over as soon as others have had theirs, and one that
        // brings nothing is the last.
        let began = clock::now();
        let mut waiting = self.waiting();
        while batch.len() + waiting < BATCH_MAX {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut waiting, self.waiting());
            if waiting == before || clock::now().longest_since(began) >= GATHERING {
                break;
            }
        }
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

impl<S: Store, F: Fn() + Send> Task<S, F> {
    pub(super) fn new(store: Arc<S>, id_key: IdKey, queues: Queues, committed: F) -> Task<S, F> {
        Task { store, id_key, queues, committed, writer: None }
    }

    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queues.next().await {
            self.write(batch).await;
        }
    }

    /// Writes and answers the batch: in one transaction, or one for each write where the store cannot take it whole.
    async fn write(&mut self, batch: Vec<Queued>) {
        let mut transactions = VecDeque::from([batch]);
        let mut pause = PAUSE_MIN;
        while let Some(mut batch) = transactions.pop_front() {
            let failure = match self.attempt(&batch).await {
                Ok(outcomes) => {
                    batch.into_iter().zip(outcomes).for_each(|(write, outcome)| write.reply(outcome));
                    pause = PAUSE_MIN;
                    continue;
                }
                Err(failure) => failure,
            };
            match failure {
                StoreError::Broken(_) | StoreError::Schema(_) => {
                    error!(error = %failure, writes = batch.len(), "a batch cannot be written");
                    // Whichever it is that the store cannot take must fail alone.
                    match batch.len() {
                        1 => batch.into_iter().for_each(|write| write.give_up(Refusal::Internal)),
                        _ => transactions.extend(batch.into_iter().map(|write| vec![write])),
                    }
                    continue;
                }
                StoreError::OutcomeUnknown(_) => batch.iter_mut().for_each(|write| write.in_doubt = true),
                // Whoever confirms mints the epoch; until then nothing may be written.
                StoreError::Unavailable(_) | StoreError::Foreign => {}
            }
            warn!(error = %failure, writes = batch.len(), "a batch was not written, trying again");
            transactions.push_front(batch);
            // All that wait wait for the same store: none of them is tried longer than its patience.
            transactions = still_patient(transactions);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
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

/// Without the writes whose patience is over, which are answered.
fn still_patient(transactions: VecDeque<Vec<Queued>>) -> VecDeque<Vec<Queued>> {
    let now = clock::now();
    let left = transactions.into_iter().map(|batch| {
        let (waiting, over): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|write| now.shortest_since(write.queued_at) < PATIENCE);
        over.into_iter().for_each(|write| write.give_up(Refusal::StoreUnavailable));
        waiting
    });
    left.filter(|batch| !batch.is_empty()).collect()
}

impl Queued {
    /// Answers that it was not written, for this reason; that nobody knows, if a commit of it may have been done.
    fn give_up(self, why: Refusal) {
        let outcome = if self.in_doubt { Refusal::OutcomeUnknown } else { why };
        self.reply(Err(outcome));
    }

    /// Answers. The caller may have gone: the write is what it is all the same.
    fn reply(self, outcome: Outcome) {
        let _gone = self.answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Write;
    use crate::store::RequestName;
    use consent_core::command::Command;
    use consent_core::words::IdKey;
    use tokio::sync::oneshot;
    use uuid::Uuid;

    fn queued() -> Queued {
        let artifact = IdKey::new([7; 16]).artifact("chat-1");
        let write = Write {
            request: RequestName { caller: "local".to_owned(), request_id: Uuid::from_u128(1) },
            command: Command::ExcludeArtifact { artifact },
            ids: Vec::new(),
            actor: "ada".to_owned(),
            channel: 1,
            notice: String::new(),
            document: None,
        };
        let (answer, _) = oneshot::channel();
        Queued { write, queued_at: clock::now(), in_doubt: false, answer }
    }

    // One thread, as in a container with one processor: there whoever is woken is the next to run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_comes_together_is_written_together() {
        let together = tokio::spawn(async {
            let (to_opt_outs, opt_outs) = mpsc::channel(8);
            let (to_others, others) = mpsc::channel(8);
            let mut queues = Queues { opt_outs, others };
            let lane = tokio::spawn(async move { queues.next().await.map(|batch| batch.len()) });
            // It waits for the first by now.
            tokio::task::yield_now().await;
            for queue in [&to_opt_outs, &to_others, &to_opt_outs, &to_others] {
                let queue = queue.clone();
                tokio::spawn(async move { queue.send(queued()).await.is_ok() });
            }
            lane.await.unwrap()
        });
        assert_eq!(together.await.unwrap(), Some(4));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn on_a_busy_machine_a_batch_does_not_wait_until_it_is_full() {
        let gathered = tokio::spawn(async {
            let (to_opt_outs, opt_outs) = mpsc::channel(BATCH_MAX);
            let (_to_others, others) = mpsc::channel(1);
            let mut queues = Queues { opt_outs, others };
            tokio::spawn(async move {
                while to_opt_outs.send(queued()).await.is_ok() {
                    // What others do in each turn.
                    let busy_until = clock::now().after(Span::from_millis(1));
                    while clock::now().raw < busy_until.raw {}
                    tokio::task::yield_now().await;
                }
            });
            queues.next().await.map(|batch| batch.len())
        });
        let gathered = gathered.await.unwrap().unwrap();
        assert!(gathered < BATCH_MAX / 8, "{gathered} of {BATCH_MAX}");
    }
}
