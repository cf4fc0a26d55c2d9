//! The writer lane: the one task of a process that writes to the ledger (R1).
//!
//! Concurrent writes are batched into one transaction. The lane owns a write from the moment it is queued: a caller
//! that goes away, or whose deadline passes, drops only the wait, and the write goes on. So nothing between
//! "accepted" and "committed" lives in a handler.
//!
//! Two bounded queues, and two rules for a full one. Opt-outs have one of their own, and where it is full their
//! callers wait for room within their deadline: an opt-out is never refused because others write much. Every
//! other write is refused at once, OVERLOADED, while it is not queued yet and the caller can still be told so.
//! Waiting callers need no bound here: each holds a stream, and streams are bounded by the server. A batch takes
//! opt-outs first, so under a flood of them the others wait, each up to its deadline.
//!
//! - `task`: takes batches, retries while the store is away, answers everyone within a bound.
//! - `batch`: what a batch comes to under the lock; pure but for the drawing of names.
//! - `payload`: what makes two writes the same write.

mod batch;
mod payload;
mod task;

use crate::store::{RequestName, Store};
use consent::clock;
use consent::deadline::Deadline;
use consent_core::chain::Chain;
use consent_core::command::Command;
use consent_core::head::HeadKey;
use consent_core::policy::Warning;
use consent_core::refusal::Refusal;
use consent_core::words::{IdKey, Moment, Position, Span, Timestamp};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The most writes in one transaction: enough to spread the cost of a commit, few enough for a short lock.
const BATCH_MAX: usize = 256;
/// How many opt-outs may be queued before their callers wait for room.
const OPT_OUTS_MAX: usize = 4 * BATCH_MAX;
/// How many other writes may be queued before they are refused.
const OTHERS_MAX: usize = 4 * BATCH_MAX;
/// When a refused caller should come again: about the time in which a full queue is written.
const RETRY_AFTER: Span = Span::from_millis(100);

/// A write to make, with everything that is remembered of it.
#[derive(Debug, Clone)]
pub struct Write {
    /// How it is named: a retry under the same name is no second write.
    pub request: RequestName,
    /// What to do.
    pub command: Command,
    /// The id behind each key that the command names, for the erasable table.
    pub ids: Vec<(HeadKey, String)>,
    /// Who did it.
    pub actor: String,
    /// Through what it came: the wire's number of the channel.
    pub channel: i32,
    /// Which notice the person saw; empty for none.
    pub notice: String,
    /// The policy file's text, where the command publishes one.
    pub document: Option<String>,
}

/// That a write is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where the party stands after the write. For one that changed nothing: where it already stood.
    pub position: Position,
    /// The chain there: with it a write that a failover lost is told from one that is effective.
    pub chain: Chain,
    /// When that was recorded.
    pub recorded_at: Timestamp,
    /// Whether it appended events.
    pub changed: bool,
    /// What a published policy drops. Advice on the file, not remembered: the answer to a retry has none.
    pub warnings: Vec<Warning>,
}

/// Where the process's writes go in. Clones share the lane; when the last is gone, it writes what is queued and ends.
#[derive(Debug, Clone)]
pub struct Lane {
    opt_outs: mpsc::Sender<Queued>,
    others: mpsc::Sender<Queued>,
}

/// How long the queues are: for whoever shows it. It does not keep the lane.
#[derive(Debug, Clone)]
pub(crate) struct Queues {
    opt_outs: mpsc::WeakSender<Queued>,
    others: mpsc::WeakSender<Queued>,
}

impl Queues {
    /// How many opt-outs wait, and how many other writes.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let length = |queue: &mpsc::WeakSender<Queued>| {
            queue.upgrade().map_or(0, |queue| queue.max_capacity().saturating_sub(queue.capacity()))
        };
        (length(&self.opt_outs), length(&self.others))
    }
}

/// A write that the lane owns, and where its answer goes.
#[derive(Debug)]
struct Queued {
    write: Write,
    queued_at: Moment,
    /// A commit of it may have been done: until it is looked up, nothing may be said but that.
    in_doubt: bool,
    answer: oneshot::Sender<Result<Receipt, Refusal>>,
}

impl Lane {
    /// A lane into this store, and the task that the caller must run. `committed` is called after every commit that
    /// appended events: it wakes whoever tails the ledger.
    pub fn new<S: Store>(
        store: Arc<S>,
        id_key: IdKey,
        committed: impl Fn() + Send + 'static,
    ) -> (Lane, impl Future<Output = ()> + Send + 'static) {
        let (opt_outs, queued_opt_outs) = mpsc::channel(OPT_OUTS_MAX);
        let (others, queued_others) = mpsc::channel(OTHERS_MAX);
        let queues = task::Queues { opt_outs: queued_opt_outs, others: queued_others };
        (Lane { opt_outs, others }, task::Task::new(store, id_key, queues, committed).run())
    }

    /// Its queues, to look at.
    pub(crate) fn queues(&self) -> Queues {
        Queues { opt_outs: self.opt_outs.downgrade(), others: self.others.downgrade() }
    }

    /// Makes the write, and says what became of it by the deadline. [`Refusal::DeadlineExceeded`] says nothing about
    /// the write: it may well go on, and the same `request_id` will tell.
    pub async fn write(&self, write: Write, deadline: Deadline) -> Result<Receipt, Refusal> {
        let (answer, answered) = oneshot::channel();
        let is_opt_out = write.command.is_opt_out();
        let queued = Queued { write, queued_at: clock::now(), in_doubt: false, answer };
        if is_opt_out {
            match deadline.within(self.opt_outs.send(queued)).await {
                Some(sent) => sent.map_err(|_| Refusal::NotServing)?,
                None => return Err(Refusal::DeadlineExceeded),
            }
        } else {
            self.others.try_send(queued).map_err(|full| match full {
                mpsc::error::TrySendError::Full(_) => Refusal::Overloaded { retry_after: RETRY_AFTER },
                mpsc::error::TrySendError::Closed(_) => Refusal::NotServing,
            })?;
        }
        match deadline.within(answered).await {
            Some(Ok(outcome)) => outcome,
            // The task is gone with the write in its hands.
            Some(Err(_)) => Err(Refusal::OutcomeUnknown),
            None => Err(Refusal::DeadlineExceeded),
        }
    }
}
