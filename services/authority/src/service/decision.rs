//! The authority's own DecisionService: for debugging, not for load.
//!
//! Its answers follow R10 as a sidecar's do, with the replica's own lease as their bound and heads from one read of
//! the primary that began after the clocks were read. So an opt-out that was recorded before the question is seen,
//! and one recorded later waits, in the drain of this replica (R7), until what was answered before it is over. A
//! replica that is fenced or reaped has no lease and denies.

use super::snapshot;
use crate::store::{Reader, StoreError};
use consent::clock;
use consent::convert::columns::{column_responses, columns};
use consent::convert::decision::{self as wire, Questions};
use consent::dialogue::{self, Answer};
use consent::pb::{self, decision_service_server::DecisionService};
use consent::status::status;
use consent_core::confirm::Lease;
use consent_core::decision::{Decision, Question, decide};
use consent_core::head::HeadKey;
use consent_core::refusal::Refusal;
use consent_core::words::{IdKey, Position, Span};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// So many streams at once: each has the primary read two thousand heads for a message.
pub(crate) const STREAMS_MAX: usize = 8;
/// When a stream that found no place may try again.
const STREAM_RETRY_AFTER: Span = Span::from_millis(1000);
/// Attempts, where a slow read uses up an answer's time before it can be given.
const ATTEMPTS: u32 = 2;

/// The service over one store's readers and the replica's own lease.
#[derive(Clone)]
pub(crate) struct Decisions<R> {
    pub(crate) reader: R,
    pub(crate) id_key: IdKey,
    /// RL: what the grantor holds by its last renewal; none before the first, and when it was fenced.
    pub(crate) lease: watch::Receiver<Option<Lease>>,
    pub(crate) streams: Arc<Semaphore>,
    /// Cancelled when the replica leaves: streams end.
    pub(crate) leave: CancellationToken,
}

/// Answers from one state.
struct Answers {
    decisions: Vec<Decision>,
    position: Option<Position>,
    valid_for: Span,
}

#[tonic::async_trait]
impl<R: Reader> DecisionService for Decisions<R> {
    async fn can_train(
        &self,
        request: Request<pb::CanTrainRequest>,
    ) -> Result<Response<pb::CanTrainResponse>, Status> {
        let request = request.get_ref();
        let question = wire::asked(request).map_err(status)?.question(&self.id_key);
        let min_position = wire::min_position(request.min_position.as_ref()).map_err(status)?;
        let answers = self.answer(&[question], min_position).await.map_err(|error| status(error.into()))?;
        let decision = answers.decisions.first().copied().unwrap_or(Decision::NOT_READY);
        Ok(Response::new(wire::response(decision, answers.position, answers.valid_for)))
    }

    async fn batch_can_train(
        &self,
        request: Request<pb::BatchCanTrainRequest>,
    ) -> Result<Response<pb::BatchCanTrainResponse>, Status> {
        let request = request.get_ref();
        let asked = wire::asked_all(request).map_err(status)?;
        let min_position = wire::min_position(request.min_position.as_ref()).map_err(status)?;
        let questions: Vec<_> = asked.under(&self.id_key).collect();
        let answers = self.answer(&questions, min_position).await.map_err(|error| status(error.into()))?;
        Ok(Response::new(wire::responses(&answers.decisions, answers.position, answers.valid_for)))
    }

    type StreamCanTrainStream = ReceiverStream<Result<pb::StreamCanTrainResponse, Status>>;

    async fn stream_can_train(
        &self,
        request: Request<Streaming<pb::StreamCanTrainRequest>>,
    ) -> Result<Response<Self::StreamCanTrainStream>, Status> {
        let full = |_| status(Refusal::Overloaded { retry_after: STREAM_RETRY_AFTER });
        let place = Arc::clone(&self.streams).try_acquire_owned().map_err(full)?;
        let corpus = Corpus { decisions: self.clone(), _place: place };
        Ok(Response::new(dialogue::hold(request.into_inner(), corpus, self.leave.clone())))
    }
}

/// One stream, each of whose messages is one read of the primary: so of no more heads than a batch is, or the read
/// would take longer than an answer may be relied upon.
struct Corpus<R> {
    decisions: Decisions<R>,
    _place: OwnedSemaphorePermit,
}

impl<R: Reader> Answer<pb::StreamCanTrainRequest> for Corpus<R> {
    type Given = pb::StreamCanTrainResponse;

    async fn answer(
        &mut self,
        request: pb::StreamCanTrainRequest,
    ) -> Result<pb::StreamCanTrainResponse, Status> {
        let columns = columns(&request, wire::BATCH_MAX).map_err(status)?;
        let min_position = wire::min_position(request.min_position.as_ref()).map_err(status)?;
        let questions: Vec<_> = columns.under(&self.decisions.id_key).collect();
        let answers = self.decisions.answer(&questions, min_position).await;
        let answers = answers.map_err(|error| status(error.into()))?;
        Ok(column_responses(&answers.decisions, answers.position, answers.valid_for))
    }
}

impl<R: Reader> Decisions<R> {
    async fn answer(
        &self,
        questions: &[Question<'_>],
        min_position: Option<Position>,
    ) -> Result<Answers, StoreError> {
        let mut keys: Vec<HeadKey> = questions
            .iter()
            .flat_map(|question| [HeadKey::Account(question.account), HeadKey::Exclusion(question.artifact)])
            .collect();
        keys.sort_unstable();
        keys.dedup();
        for _ in 0..ATTEMPTS {
            let now0 = clock::now();
            let lease = *self.lease.borrow();
            let Some((lease, validity)) = lease.and_then(|lease| Some((lease, lease.at(now0)?))) else {
                break;
            };
            let (ledger, state) = snapshot::read(&self.reader, &keys).await?;
            let position = Position { epoch: ledger.epoch, revision: ledger.revision };
            let Some(state) = state else {
                return Ok(Answers::all(Decision::NOT_READY, questions, Some(position)));
            };
            // What a write returned is visible to any read of the primary: a position that is not is another
            // ledger's.
            let reached = min_position
                .is_none_or(|wanted| wanted.epoch == position.epoch && wanted.revision <= position.revision);
            if lease.epoch != position.epoch || !reached {
                return Ok(Answers::all(Decision::STALE, questions, Some(position)));
            }
            let wall = clock::wall();
            let decisions = questions.iter().map(|question| decide(&state, question, wall)).collect();
            if validity.holds(clock::now()) {
                return Ok(Answers { decisions, position: Some(position), valid_for: validity.valid_for() });
            }
        }
        Ok(Answers::all(Decision::STALE, questions, None))
    }
}

impl Answers {
    /// The same DENY to every question.
    fn all(decision: Decision, questions: &[Question<'_>], position: Option<Position>) -> Answers {
        Answers { decisions: vec![decision; questions.len()], position, valid_for: Span::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::sqlite::{self, SqliteStore};
    use consent_core::decision::Reason;
    use consent_core::words::{Epoch, Moment, Revision};

    const EPOCH: Epoch = Epoch::new([1; 16]);
    const HOLD: Span = Span::from_millis(60_000);

    fn lease(epoch: Epoch, until: Moment, hold: Span) -> Option<Lease> {
        Some(Lease { epoch, until, hold })
    }

    #[tokio::test]
    async fn only_under_its_own_lease_does_it_say_more_than_stale() {
        let directory = tempfile::tempdir().expect("a directory");
        let id_key = IdKey::new([7; 16]);
        sqlite::migrate(directory.path(), EPOCH, id_key).await.expect("migrated");
        let store = SqliteStore::open(directory.path()).await.expect("a store");
        let (own, lease_seen) = watch::channel(None);
        let (streams, leave) = (Arc::new(Semaphore::new(STREAMS_MAX)), CancellationToken::new());
        let decisions = Decisions { reader: store.reader(), id_key, lease: lease_seen, streams, leave };
        let artifact = pb::Artifact {
            id: "artifact".to_owned(),
            collected_at: Some(consent::convert::to_timestamp(clock::wall())),
            ..pb::Artifact::default()
        };
        let request =
            pb::CanTrainRequest { account: "ada".to_owned(), artifact: Some(artifact), min_position: None };
        let question = wire::asked(&request).expect("a question").question(&id_key);
        let reason = async |lease, min_position| {
            own.send_replace(lease);
            let answers = decisions.answer(&[question], min_position).await.expect("an answer");
            answers.decisions[0].reason
        };

        let later = clock::now().after(HOLD);
        let here = |revision| Some(Position { epoch: EPOCH, revision });
        assert_eq!(reason(lease(EPOCH, later, HOLD), None).await, Reason::UnknownAccount);
        assert_eq!(reason(lease(EPOCH, later, HOLD), here(Revision::ZERO)).await, Reason::UnknownAccount);
        assert_eq!(reason(None, None).await, Reason::Stale);
        assert_eq!(reason(lease(EPOCH, clock::now(), HOLD), None).await, Reason::Stale);
        let other = Epoch::new([2; 16]);
        assert_eq!(reason(lease(other, later, HOLD), None).await, Reason::Stale);
        let elsewhere = Some(Position { epoch: other, revision: Revision::ZERO });
        assert_eq!(reason(lease(EPOCH, later, HOLD), elsewhere).await, Reason::Stale);
        assert_eq!(reason(lease(EPOCH, later, HOLD), here(Revision::MAX)).await, Reason::Stale);
        // A read that takes longer than an answer may be relied upon.
        assert_eq!(reason(lease(EPOCH, later, Span::from_nanos(1)), None).await, Reason::Stale);
    }
}
