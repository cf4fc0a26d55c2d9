//! DecisionService on a sidecar: requests to questions, the wait for a `min_position`, answers.
//!
//! Whoever waits does so here, before anything is read that an answer rests on.

use super::reached;
use super::stream::Corpus;
use crate::metrics::Wait;
use crate::node::Node;
use consent::convert::decision::{Questions as _, asked, asked_all, min_position, response, responses};
use consent::deadline::Deadline;
use consent::pb::decision_service_server::DecisionService;
use consent::pb::{
    BatchCanTrainRequest, BatchCanTrainResponse, CanTrainRequest, CanTrainResponse, StreamCanTrainRequest,
    StreamCanTrainResponse,
};
use consent::{dialogue, status::status};
use consent_core::decision::Decision;
use consent_core::refusal::Refusal;
use consent_core::words::{Position, Span};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a call waits for its `min_position` when its caller set no deadline, and a message of a stream.
pub(super) const WAIT_DEFAULT: Span = Span::from_millis(1000);

/// How long a call waits for it at most, whatever its deadline: all callers share the places.
const WAIT_MAX: Span = Span::from_millis(10_000);

/// When a stream that found no place may try again: streams are long.
const STREAM_RETRY_AFTER: Span = Span::from_millis(1000);

/// Until when a call may wait for its `min_position`.
fn patience<T>(request: &Request<T>) -> Deadline {
    Deadline::of(request, WAIT_DEFAULT).at_most(WAIT_MAX)
}

/// DecisionService on a sidecar.
pub(crate) struct Decisions {
    pub(super) node: Arc<Node>,
}

impl Decisions {
    pub(crate) fn new(node: Arc<Node>) -> Decisions {
        Decisions { node }
    }

    /// Waits until the table may have reached `floor`, within the deadline. A floor of another epoch is waited for
    /// as well: after a failover writers are in the new epoch before the nodes are. A full waiting room is not: the
    /// answer will be STALE.
    pub(super) async fn wait_for(&self, floor: Option<Position>, deadline: Deadline) {
        let Some(floor) = floor else { return };
        let waits = &self.node.noted.waits;
        let Ok(_place) = self.node.waiting.try_acquire() else {
            waits.of(Wait::Full).inc();
            return;
        };
        let mut position = self.node.table.watch();
        let there = |position: &Option<Position>| position.is_some_and(|here| reached(here, Some(floor)));
        // Reached or not, the answer is decided from what the table then is.
        let ended = tokio::select! {
            biased;
            () = self.node.leaving.cancelled() => Wait::Stopping,
            met = deadline.within(position.wait_for(there)) => met.map_or(Wait::Late, |_| Wait::Met),
        };
        waits.of(ended).inc();
    }
}

#[tonic::async_trait]
impl DecisionService for Decisions {
    async fn can_train(
        &self,
        request: Request<CanTrainRequest>,
    ) -> Result<Response<CanTrainResponse>, Status> {
        let question = request.get_ref();
        let asked = asked(question).map_err(status)?;
        let floor = min_position(question.min_position.as_ref()).map_err(status)?;
        if floor.is_some() {
            // Few calls name a position. The others pay neither for its deadline nor for the room that the wait would
            // take in each of them.
            Box::pin(self.wait_for(floor, patience(&request))).await;
        }
        let mut answer = [Decision::NOT_READY];
        let basis = self.node.decide(floor, &[asked][..], &mut answer);
        let [answer] = answer;
        Ok(Response::new(response(answer, basis.position, basis.valid_for())))
    }

    async fn batch_can_train(
        &self,
        request: Request<BatchCanTrainRequest>,
    ) -> Result<Response<BatchCanTrainResponse>, Status> {
        let deadline = patience(&request);
        let request = request.into_inner();
        let asked = asked_all(&request).map_err(status)?;
        let floor = min_position(request.min_position.as_ref()).map_err(status)?;
        self.wait_for(floor, deadline).await;
        let mut answers = vec![Decision::NOT_READY; asked.count()];
        let basis = self.node.decide(floor, &asked, &mut answers);
        Ok(Response::new(responses(&answers, basis.position, basis.valid_for())))
    }

    type StreamCanTrainStream = ReceiverStream<Result<StreamCanTrainResponse, Status>>;

    async fn stream_can_train(
        &self,
        request: Request<Streaming<StreamCanTrainRequest>>,
    ) -> Result<Response<Self::StreamCanTrainStream>, Status> {
        let full = |_| status(Refusal::Overloaded { retry_after: STREAM_RETRY_AFTER });
        let place = Arc::clone(&self.node.streams).try_acquire_owned().map_err(full)?;
        let corpus = Corpus::new(Decisions::new(Arc::clone(&self.node)), place);
        let stopped = self.node.leaving.clone();
        Ok(Response::new(dialogue::hold(request.into_inner(), corpus, stopped)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EPOCH, lease, node, position};
    use super::*;
    use crate::node::WAITING_MAX;
    use consent_core::words::Epoch;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn no_deadline_keeps_a_place_for_longer_than_a_call_may_wait() {
        let mut request = Request::new(());
        assert!(patience(&request).left() <= WAIT_DEFAULT);
        request.metadata_mut().insert("grpc-timeout", "99999999H".parse().unwrap());
        assert!(patience(&request).left() <= WAIT_MAX);
    }

    #[tokio::test]
    async fn a_full_waiting_room_is_not_waited_for() {
        let node = node(lease(EPOCH, 5000));
        let decisions = Decisions::new(Arc::clone(&node));
        let deadline = || Deadline::after(Span::from_millis(60_000));
        let mut context = Context::from_waker(Waker::noop());
        let waits = |floor, context: &mut Context<'_>| {
            pin!(decisions.wait_for(Some(floor), deadline())).poll(context).is_pending()
        };
        assert!(waits(position(EPOCH, 1), &mut context));
        assert!(!waits(position(EPOCH, 0), &mut context));
        let _all = node.waiting.try_acquire_many(u32::try_from(WAITING_MAX).unwrap()).unwrap();
        assert!(!waits(position(EPOCH, 1), &mut context));
    }

    #[tokio::test]
    async fn a_floor_in_an_epoch_that_the_table_enters_later_is_waited_for() {
        let node = node(lease(EPOCH, 5000));
        let decisions = Decisions::new(Arc::clone(&node));
        let deadline = Deadline::after(Span::from_millis(60_000));
        let mut context = Context::from_waker(Waker::noop());
        let next = Epoch::new([9; 16]);
        let mut waits = pin!(decisions.wait_for(Some(position(next, 0)), deadline));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        node.table.enter(next);
        assert!(waits.as_mut().poll(&mut context).is_ready());
    }
}
