//! Drives the grantor: the one task that owns what this replica has promised (R2, R3, R5, R7, R9, R12).
//!
//! ```text
//!   sessions ──Event──▶ ┌───────┐ ──Order──▶ sessions
//!   tail ─────News────▶ │ Owner │ ──Lease──▶ the replica's own answers, health
//!   stop ─────────────▶ └───────┘
//!                         │   ▲
//!                      Errand  Input                 one thing after the other, on one connection,
//!                         ▼   │                      so that a slow store never holds up an ack
//!                       lease rows
//! ```
//!
//! Every queue is bounded. A session that does not take its orders loses its grants, which is as if they had been
//! lost on the way; anything else that it does not take ends its stream. A replica that was fenced by another's new
//! epoch begins anew, as a new incarnation that knows no session (R9); one that was fenced otherwise ends, and with
//! it the process.

use crate::failure::Failure;
use crate::metrics::Noted;
use crate::random;
use crate::store::{Leases, LedgerHead, Reader, Store, StoreError};
use crate::tail::News;
use consent::clock;
use consent_core::chain::Chain;
use consent_core::confirm::grantor::{Grantor, Input, Limits, Output};
use consent_core::confirm::{Lease, Place, Stream, Terms, ToAuthority, ToSidecar, Unwelcome};
use consent_core::words::{Epoch, Incarnation, Moment, Revision, Span};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How many events of sessions may wait for the owner; a session then waits with its next message.
pub(crate) const EVENTS_MAX: usize = 4_096;
/// A renewal, a report and a closing: the grantor has at most one of each under way.
const ERRANDS_MAX: usize = 3;

/// What a session tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// It begins. Its hello follows.
    Opened { stream: Stream, link: Link },
    /// The sidecar said something.
    Said { stream: Stream, message: ToAuthority },
    /// R13: what [`Order::LookUp`] asked for.
    Found { stream: Stream, head: Place, chain: Option<Chain> },
    /// R13: it could not be read.
    NotFound { stream: Stream },
    /// It is over.
    Closed { stream: Stream },
}

/// What a session is to do, in order.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send this.
    Send(ToSidecar),
    /// Begin to send frames: those after a revision, or a snapshot first.
    Feed(Option<Revision>),
    /// R13: read the head and the chain at this revision from the primary.
    LookUp(Revision),
    /// End, after what was sent.
    End,
}

/// The way to a session.
#[derive(Debug)]
pub(crate) struct Link {
    /// Bounded.
    pub(crate) orders: mpsc::Sender<Order>,
    /// Ends it at once.
    pub(crate) end: CancellationToken,
}

/// What the grantor's task is made of.
pub(crate) struct Owner<S: Store> {
    /// Where the rows are.
    pub(crate) store: Arc<S>,
    /// The name of this replica, for people.
    pub(crate) replica: String,
    /// The deployment's terms.
    pub(crate) terms: Terms,
    /// What bounds the machine.
    pub(crate) limits: Limits,
    /// From the sessions.
    pub(crate) events: mpsc::Receiver<Event>,
    /// From the tail.
    pub(crate) news: mpsc::Receiver<News>,
    /// R10: the lease of the replica's own answers. Where this task is gone, the row stays open as long as it lasts.
    pub(crate) lease: watch::Sender<Option<Lease>>,
    /// Tells the confirmer of this replica's drain reports.
    pub(crate) drained: Arc<Notify>,
    /// R12: told to leave.
    pub(crate) leave: CancellationToken,
    /// Where it stands, for people.
    pub(crate) noted: Arc<Noted>,
}

/// How an incarnation ended.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    Left,
    Fenced,
    AnotherEpoch,
}

#[derive(Debug)]
enum Errand {
    Renew { started: Moment },
    Report { revision: Revision },
    Close,
}

impl<S: Store> Owner<S> {
    /// Until it has left, or is fenced.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut leases = self.store.leases().await?;
        loop {
            let registered = tokio::select! {
                registered = register(&mut leases, &self.replica, self.terms, &self.leave) => registered?,
                () = turn_away(&mut self.events, self.limits.retry_after) => None,
            };
            let Some((incarnation, head)) = registered else { return Ok(()) };
            let epoch = head.epoch;
            tracing::info!(%incarnation, %epoch, revision = %head.revision, "registered");
            match self.hold_office(&mut leases, incarnation, head.place()).await {
                Over::Left => return Ok(()),
                Over::Fenced if !self.epoch_changed(epoch).await? => return Err(Failure::Fenced),
                Over::Fenced | Over::AnotherEpoch => {
                    tracing::warn!("the ledger has another epoch: beginning anew");
                }
            }
        }
    }

    async fn epoch_changed(&self, from: Epoch) -> Result<bool, Failure> {
        let reader = self.store.reader();
        while !self.leave.is_cancelled() {
            match reader.head().await {
                Ok(head) => return Ok(head.epoch != from),
                Err(error) => pause_after(error, self.terms, &self.leave).await?,
            }
        }
        Ok(false)
    }

    async fn hold_office(&mut self, leases: &mut S::Leases, incarnation: Incarnation, head: Place) -> Over {
        let (errands, received) = mpsc::channel(ERRANDS_MAX);
        let (done, outcomes) = mpsc::channel(ERRANDS_MAX);
        let drained = Arc::clone(&self.drained);
        let office = Office {
            machine: Grantor::new(incarnation, self.terms, self.limits),
            epoch: head.epoch,
            sessions: HashMap::new(),
            errands,
            lease: &self.lease,
            noted: &self.noted,
        };
        let held = office.hold(head, &mut self.events, &mut self.news, outcomes, &self.leave);
        let (over, ()) = tokio::join!(held, run_errands(leases, incarnation, received, done, &drained));
        over
    }
}

// R2. None: told to leave before. Each try has an incarnation of its own: if the outcome of one is unknown, its row is
// reaped like that of any dead replica.
async fn register<L: Leases>(
    leases: &mut L,
    replica: &str,
    terms: Terms,
    leave: &CancellationToken,
) -> Result<Option<(Incarnation, LedgerHead)>, Failure> {
    while !leave.is_cancelled() {
        let incarnation = Incarnation::new(random::bytes()?);
        let error = match leases.register(incarnation, replica).await {
            Ok(head) => return Ok(Some((incarnation, head))),
            Err(StoreError::Foreign) => mint(leases, Epoch::new(random::bytes()?)).await.err(),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            pause_after(error, terms, leave).await?;
        }
    }
    Ok(None)
}

// Before there is a row nobody can be welcomed: whoever says hello is told to come again, here or elsewhere. It ends
// when no session can come any more.
async fn turn_away(events: &mut mpsc::Receiver<Event>, retry_after: Span) {
    while let Some(event) = events.recv().await {
        if let Event::Opened { link, .. } = event {
            // Its first order has room, and with the way to it the session ends.
            let _ = link.orders.try_send(Order::Send(ToSidecar::Unwelcome(Unwelcome::Busy { retry_after })));
        }
    }
}

// What may pass is waited for; what cannot is a failure.
async fn pause_after(error: StoreError, terms: Terms, leave: &CancellationToken) -> Result<(), Failure> {
    match error {
        StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_) | StoreError::Foreign => {
            tracing::warn!(%error, "the store cannot be used yet");
            tokio::select! {
                () = leave.cancelled() => {}
                () = tokio::time::sleep(terms.renew_every().into()) => {}
            }
            Ok(())
        }
        StoreError::Schema(_) | StoreError::Broken(_) => Err(error.into()),
    }
}

/// One incarnation: the machine and what its outputs go to.
struct Office<'a> {
    machine: Grantor,
    epoch: Epoch,
    sessions: HashMap<Stream, Link>,
    errands: mpsc::Sender<Errand>,
    lease: &'a watch::Sender<Option<Lease>>,
    noted: &'a Noted,
}

impl Office<'_> {
    async fn hold(
        mut self,
        head: Place,
        events: &mut mpsc::Receiver<Event>,
        news: &mut mpsc::Receiver<News>,
        mut outcomes: mpsc::Receiver<Input>,
        leave: &CancellationToken,
    ) -> Over {
        let mut leaving = false;
        // It only begins: no step of it ends anything.
        self.step(Input::Registered { head });
        let over = loop {
            let input = tokio::select! {
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    Some(Input::Leave)
                }
                Some(outcome) = outcomes.recv() => Some(outcome),
                Some(event) = events.recv() => self.heard(event),
                Some(news) = news.recv() => match news {
                    // A tail that has not noticed this epoch yet has nothing to say about it.
                    News::Next(place) => (place.epoch == self.epoch).then_some(Input::Learned { place }),
                    // The registration saw the epoch first. The tail goes on from here, which may be further.
                    News::AnotherEpoch(place) if place.epoch == self.epoch => Some(Input::Learned { place }),
                    News::Fell => Some(Input::Hold),
                    News::AnotherEpoch(place) => {
                        self.step(Input::Learned { place });
                        break Over::AnotherEpoch;
                    }
                },
                () = clock::alarm(self.machine.wake_at()) => Some(Input::TimePassed),
            };
            if let Some(over) = input.and_then(|input| self.step(input)) {
                break over;
            }
        };
        for link in self.sessions.values() {
            link.end.cancel();
        }
        // Dropping `self` ends the errands, after the one under way.
        over
    }

    fn heard(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Opened { stream, link } => {
                self.sessions.insert(stream, link);
                None
            }
            // Of a session of an earlier incarnation nothing is heard any more.
            Event::Said { stream, message } => {
                self.sessions.contains_key(&stream).then_some(Input::Received { stream, message })
            }
            Event::Found { stream, head, chain } => Some(Input::Found { stream, head, chain }),
            Event::NotFound { stream } => Some(Input::NotFound { stream }),
            Event::Closed { stream } => {
                self.sessions.remove(&stream);
                Some(Input::Disconnected { stream })
            }
        }
    }

    fn step(&mut self, input: Input) -> Option<Over> {
        let mut outputs = Vec::new();
        self.machine.step(clock::now(), input, &mut outputs);
        self.noted.grantor(self.machine.sidecars(), self.machine.is_held());
        let mut over = None;
        for output in outputs {
            over = over.or(self.perform(output));
        }
        over
    }

    fn perform(&mut self, output: Output) -> Option<Over> {
        match output {
            Output::Renew { started } => self.send(Errand::Renew { started }),
            Output::ReportDrained { revision } => self.send(Errand::Report { revision }),
            Output::CloseRow => self.send(Errand::Close),
            Output::Send { stream, message } => self.order(stream, Order::Send(message)),
            Output::Feed { stream, after } => self.order(stream, Order::Feed(after)),
            Output::LookUp { stream, revision } => self.order(stream, Order::LookUp(revision)),
            Output::Close { stream } => {
                self.order(stream, Order::End);
                self.sessions.remove(&stream);
            }
            Output::Publish(lease) => {
                if lease.is_some() != self.lease.borrow().is_some() {
                    tracing::info!(granting = lease.is_some(), "the lease on the store changed");
                }
                self.lease.send_replace(lease);
            }
            Output::TimeTravel { witness, place } => tracing::error!(
                %witness, epoch = %place.epoch, revision = %place.revision,
                "HOLD: a sidecar, or this replica, has seen a history that the ledger does not have; nothing is \
                 allowed until an operator has replayed or accepted the hole"
            ),
            Output::Fenced => return Some(Over::Fenced),
            Output::Left => return Some(Over::Left),
        }
        None
    }

    fn order(&mut self, stream: Stream, order: Order) {
        let Some(link) = self.sessions.get(&stream) else { return };
        let may_be_lost = matches!(order, Order::Send(ToSidecar::Grant { .. }));
        if link.orders.try_send(order).is_err() && !may_be_lost {
            link.end.cancel();
        }
    }

    // There is room: at most one of each kind is under way.
    fn send(&self, errand: Errand) {
        if let Err(error) = self.errands.try_send(errand) {
            tracing::error!(%error, "more errands than the grantor may have under way");
        }
    }
}

async fn run_errands<L: Leases>(
    leases: &mut L,
    incarnation: Incarnation,
    mut errands: mpsc::Receiver<Errand>,
    done: mpsc::Sender<Input>,
    drained: &Notify,
) {
    let mut reachable = true;
    while let Some(errand) = errands.recv().await {
        let (outcome, error) = match errand {
            Errand::Renew { started } => match leases.renew(incarnation).await {
                Ok(Some(head)) => (Input::Renewed { started, head: head.place() }, None),
                Ok(None) => (Input::Fenced, None),
                Err(error) => (Input::RenewalFailed { started }, Some(error)),
            },
            Errand::Report { revision } => match leases.report_drained(incarnation, revision).await {
                Ok(true) => {
                    drained.notify_one();
                    (Input::DrainReported { revision }, None)
                }
                Ok(false) => (Input::Fenced, None),
                Err(error) => (Input::ReportFailed, Some(error)),
            },
            Errand::Close => match leases.close(incarnation).await {
                Ok(()) => (Input::RowClosed, None),
                Err(error) => (Input::CloseFailed, Some(error)),
            },
        };
        match &error {
            // Without randomness it is left to another replica, or to the next try.
            Some(StoreError::Foreign) => {
                if let Ok(fresh) = random::bytes()
                    && let Err(error) = mint(leases, Epoch::new(fresh)).await
                {
                    tracing::warn!(%error, "no epoch could be minted");
                }
            }
            Some(error) if reachable => tracing::warn!(%error, "the lease row cannot be written"),
            Some(_) | None => {}
        }
        reachable = error.is_none();
        if done.send(outcome).await.is_err() {
            return;
        }
    }
}

/// R9: the store is another one, or has another history, than the one stored. Another replica may have found it
/// first.
pub(crate) async fn mint<L: Leases>(leases: &mut L, fresh: Epoch) -> Result<(), StoreError> {
    if leases.mint(fresh).await? {
        tracing::warn!(epoch = %fresh, "minted an epoch: the store is not the one it was");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
