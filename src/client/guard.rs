//! The guard: asks until there is an answer that counts, for as long as its caller has time.
//!
//! Its bounds: so many calls at once, beyond which a caller is denied at once instead of waiting unseen; so many
//! batches of one caller at once; so many tries of one question ([`Patience`]); so many connections ([`Pool`]). What
//! may pass is asked again: STALE, NOT_READY, an ALLOW that was over when it came, UNAVAILABLE, RESOURCE_EXHAUSTED, a
//! lost connection. A question writes nothing, so asking it again is always safe.

use super::answer::{Allow, Answer, Deny, Permit};
use super::endpoint::Endpoint;
use super::patience::Patience;
use super::pool::{Pool, is_of_transport};
use super::question::Question;
use crate::clock;
use crate::convert::answer::{Unreadable, Verdict, verdict, verdicts};
use crate::convert::decision::BATCH_MAX;
use crate::deadline::Deadline;
use crate::pb;
use crate::pb::decision_service_client::DecisionServiceClient;
use crate::status::status;
use consent_core::decision::Reason;
use consent_core::words::{Moment, Position, Span};
use futures_util::stream::{self, StreamExt};
use std::error::Error;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, TimeoutExpired};
use tonic_types::StatusExt;

/// The most connections of one guard.
const CONNECTIONS_MAX: usize = 16;

/// So many batches of one caller are asked at once: enough for each thread of a sidecar to have one. The others wait
/// here.
const BATCHES_AT_ONCE: usize = 4;

/// How much a guard may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections, 1 to 16; a further one is opened when all are busy. One leaves the server idle half of the time
    /// under many callers, and four do not.
    pub connections: usize,
    /// Questions and batches asked at once; a further caller is denied at once. A server takes 256 on each connection.
    pub in_flight: usize,
}

impl Default for Limits {
    /// 4 connections, 1024 questions.
    fn default() -> Limits {
        Limits { connections: 4, in_flight: 1024 }
    }
}

/// A guard cannot be made of this.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the field {field} {problem}")]
pub struct Misconfigured {
    /// Which field is wrong.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// Asks a sidecar on this machine. Cheap to clone: clones share connections and limits.
///
/// It connects when it is first asked, and again, after a wait, when it must. Its methods need a tokio runtime with
/// time and I/O.
#[derive(Debug, Clone)]
pub struct Guard {
    pool: Arc<Pool>,
    seats: Arc<Semaphore>,
    floor: Option<Position>,
}

/// Why a try gave no ALLOW.
enum Failed {
    /// It may pass: worth another try, after at least this.
    Passing(Deny, Span),
    /// It stays.
    For(Deny),
    /// Time is over.
    TooLate,
}

impl Guard {
    /// A guard for the sidecar at `unix:///PATH` or `http://HOST:PORT`, the latter on loopback.
    pub fn connect(endpoint: &str) -> Result<Guard, Misconfigured> {
        Guard::connect_within(endpoint, Limits::default())
    }

    /// A guard with other limits than the default.
    pub fn connect_within(endpoint: &str, limits: Limits) -> Result<Guard, Misconfigured> {
        let endpoint =
            Endpoint::parse(endpoint).map_err(|problem| Misconfigured { field: "endpoint", problem })?;
        let check = |field, value: usize, maximum| {
            let problem = || format!("is {value}, it must be 1 to {maximum}");
            if (1..=maximum).contains(&value) {
                Ok(value)
            } else {
                Err(Misconfigured { field, problem: problem() })
            }
        };
        let connections = check("connections", limits.connections, CONNECTIONS_MAX)?;
        let in_flight = check("in_flight", limits.in_flight, Semaphore::MAX_PERMITS)?;
        Ok(Guard {
            pool: Arc::new(Pool::new(endpoint, connections)),
            seats: Arc::new(Semaphore::new(in_flight)),
            floor: None,
        })
    }

    /// A guard whose answers are decided from this state or a newer one: what a write returned, to read what was
    /// written. The node waits for it while there is time.
    #[must_use]
    pub fn not_before(&self, position: Position) -> Guard {
        Guard { floor: Some(position), ..self.clone() }
    }

    /// Uses data if it may be used: asks, and again while that may help or the ALLOW is over, and does `act` once, at
    /// once after the clocks were read. All within a span from now, after which it is denied.
    pub async fn with<T>(
        &self,
        question: &Question,
        within: Span,
        act: impl FnOnce(Permit<'_>) -> T,
    ) -> Result<T, Deny> {
        let _seat = self.seats.try_acquire().map_err(|_| busy())?;
        let mut patience = Patience::new(within);
        loop {
            let allow = self.ask(question, &mut patience).await?;
            if let Some(permit) = allow.permit() {
                return Ok(act(permit));
            }
            if !patience.again(Span::ZERO).await {
                return Err(over());
            }
        }
    }

    /// Asks, and again while that may help, within a span from now. An [`Allow`] counted when it came; where the
    /// data is used it is asked for a permit.
    pub async fn can_train(&self, question: &Question, within: Span) -> Answer {
        let Ok(_seat) = self.seats.try_acquire() else { return Answer::Deny(busy()) };
        match self.ask(question, &mut Patience::new(within)).await {
            Ok(allow) => Answer::Allow(allow),
            Err(deny) => Answer::Deny(deny),
        }
    }

    /// Asks about any number of artifacts, 1000 in one batch and up to four batches at once, and gives an answer for
    /// each, in order. What may pass is asked again, that alone. A question that is wrong is denied alone, naming the
    /// field.
    pub async fn can_train_all(&self, questions: &[Question], within: Span) -> Vec<Answer> {
        let Ok(seat) = self.seats.try_acquire() else {
            return questions.iter().map(|_| Answer::Deny(busy())).collect();
        };
        let mut patience = Patience::new(within);
        // Whoever is not answered in time stays so.
        let mut answers: Vec<Answer> = questions.iter().map(|_| Answer::Deny(too_late())).collect();
        let mut open = Vec::with_capacity(questions.len());
        for (index, (question, answer)) in questions.iter().zip(&mut answers).enumerate() {
            match question.checked(None) {
                Ok(_) => open.push(index),
                Err(refusal) => *answer = Answer::Deny(Deny::Unanswered(status(refusal))),
            }
        }
        let mut seats = vec![seat];
        loop {
            // One is enough to go on with; for as long as it takes to ask, as many more as are free.
            while seats.len() < BATCHES_AT_ONCE.min(open.len().div_ceil(BATCH_MAX))
                && let Ok(another) = self.seats.try_acquire()
            {
                seats.push(another);
            }
            let mut rest = Span::ZERO;
            let mut passing = Vec::new();
            let mut is_over = false;
            let batches = open.chunks(BATCH_MAX);
            let batches: Vec<_> =
                batches.map(|indices| self.try_some(questions, indices, patience.deadline)).collect();
            let mut batches = stream::iter(batches).buffered(seats.len());
            while let Some((indices, outcome)) = batches.next().await {
                let outcomes = match outcome {
                    Ok(outcomes) => outcomes,
                    Err(Failed::Passing(deny, at_least)) => {
                        rest = rest.max(at_least);
                        indices.iter().map(|_| Err(Failed::Passing(deny.clone(), at_least))).collect()
                    }
                    Err(Failed::For(deny)) => {
                        indices.iter().map(|_| Err(Failed::For(deny.clone()))).collect()
                    }
                    Err(Failed::TooLate) => {
                        is_over = true;
                        continue;
                    }
                };
                for (index, outcome) in indices.iter().zip(outcomes) {
                    answers[*index] = match outcome {
                        Ok(allow) => Answer::Allow(allow),
                        Err(Failed::Passing(deny, _)) => {
                            passing.push(*index);
                            Answer::Deny(deny)
                        }
                        Err(Failed::For(deny)) => Answer::Deny(deny),
                        Err(Failed::TooLate) => Answer::Deny(too_late()),
                    };
                }
            }
            drop(batches);
            seats.truncate(1);
            open = passing;
            if is_over || open.is_empty() || !patience.again(rest).await {
                return answers;
            }
        }
    }

    async fn ask(&self, question: &Question, patience: &mut Patience) -> Result<Allow, Deny> {
        let request = question.checked(self.floor).map_err(|refusal| Deny::Unanswered(status(refusal)))?;
        let mut last = None;
        loop {
            let (deny, at_least) = match self.try_one(request.clone(), patience.deadline).await {
                Ok(allow) => return Ok(allow),
                Err(Failed::For(deny)) => return Err(deny),
                Err(Failed::Passing(deny, at_least)) => (deny, at_least),
                // What was said before says more than that time is over.
                Err(Failed::TooLate) => return Err(last.unwrap_or_else(too_late)),
            };
            if !patience.again(at_least).await {
                return Err(deny);
            }
            last = Some(deny);
        }
    }

    async fn try_one(&self, message: pb::CanTrainRequest, deadline: Deadline) -> Result<Allow, Failed> {
        let call = |mut client: DecisionServiceClient<Channel>, request| async move {
            client.can_train(request).await
        };
        let (sent, answer) = self.call(message, deadline, call).await?;
        self.settle(sent, verdict(&answer))
    }

    /// A batch of these questions.
    async fn try_some<'a>(
        &self,
        questions: &[Question],
        indices: &'a [usize],
        deadline: Deadline,
    ) -> (&'a [usize], Result<Vec<Result<Allow, Failed>>, Failed>) {
        let message = pb::BatchCanTrainRequest {
            requests: indices.iter().map(|index| questions[*index].request(None)).collect(),
            min_position: self.floor.map(Into::into),
        };
        (indices, self.try_batch(message, indices.len(), deadline).await)
    }

    async fn try_batch(
        &self,
        message: pb::BatchCanTrainRequest,
        count: usize,
        deadline: Deadline,
    ) -> Result<Vec<Result<Allow, Failed>>, Failed> {
        let call = |mut client: DecisionServiceClient<Channel>, request| async move {
            client.batch_can_train(request).await
        };
        let (sent, answer) = self.call(message, deadline, call).await?;
        let verdicts = verdicts(&answer, count).map_err(|problem| Failed::For(unreadable(problem)))?;
        Ok(verdicts.map(|verdict| self.settle(sent, verdict)).collect())
    }

    /// One call: its answer, and when it was about to be sent.
    async fn call<M, A, F>(
        &self,
        message: M,
        deadline: Deadline,
        call: impl FnOnce(DecisionServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<(Moment, A), Failed>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let found = deadline.within(self.pool.get()).await.ok_or(Failed::TooLate)?;
        let connection =
            found.map_err(|down| Failed::Passing(Deny::Unanswered(down.status), down.retry_after))?;
        let mut request = Request::new(message);
        request.set_timeout(deadline.left().into());
        // R11: from before the transport gets the question, whatever it waits for then.
        let sent = clock::now();
        let answer = deadline.within(call(connection.as_ref().clone(), request)).await;
        match answer.ok_or(Failed::TooLate)? {
            Ok(answer) => Ok((sent, answer.into_inner())),
            Err(status) if is_timeout(&status) => Err(Failed::TooLate),
            Err(status) if is_of_transport(&status) => {
                self.pool.lost(&connection);
                Err(Failed::Passing(Deny::Unanswered(status), Span::ZERO))
            }
            Err(status) => Err(refused(status)),
        }
    }

    fn settle(&self, sent: Moment, verdict: Result<Verdict, Unreadable>) -> Result<Allow, Failed> {
        match verdict.map_err(|problem| Failed::For(unreadable(problem)))? {
            Verdict::Allow { position, .. } if !self.reaches(position) => {
                let older = Status::internal("the answer is from before the position that was asked for");
                Err(Failed::For(Deny::Unanswered(older)))
            }
            Verdict::Allow { reason, position, valid_for } => {
                let allow = Allow { asked: sent, valid_for, reason, position };
                if allow.permit().is_some() { Ok(allow) } else { Err(Failed::Passing(over(), Span::ZERO)) }
            }
            Verdict::Deny { reason, is_final, position } => {
                let deny = Deny::Decided { reason, is_final, position };
                let passes = matches!(reason, Reason::Stale | Reason::NotReady);
                Err(if passes { Failed::Passing(deny, Span::ZERO) } else { Failed::For(deny) })
            }
        }
    }

    fn reaches(&self, position: Position) -> bool {
        let is_at = |floor: Position| position.epoch == floor.epoch && position.revision >= floor.revision;
        self.floor.is_none_or(is_at)
    }
}

/// What a server refused, and whether that may pass.
fn refused(status: Status) -> Failed {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted => {
            let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
            Failed::Passing(Deny::Unanswered(status), delay.unwrap_or_default().into())
        }
        Code::DeadlineExceeded => Failed::TooLate,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Failed::For(Deny::Unanswered(status)),
    }
}

/// tonic's own clock was first: what it says is CANCELLED.
fn is_timeout(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn unreadable(problem: Unreadable) -> Deny {
    Deny::Unanswered(Status::internal(problem.to_string()))
}

fn busy() -> Deny {
    Deny::Unanswered(Status::resource_exhausted("as many questions are being asked as this guard may ask"))
}

fn too_late() -> Deny {
    Deny::Unanswered(Status::deadline_exceeded("there is no answer in time"))
}

fn over() -> Deny {
    Deny::Unanswered(Status::deadline_exceeded("each ALLOW was over before it could be used"))
}

#[cfg(test)]
impl Guard {
    /// So many connections stand, and whether a further one is being opened.
    pub(super) fn standing(&self) -> (usize, bool) {
        self.pool.standing()
    }
}
