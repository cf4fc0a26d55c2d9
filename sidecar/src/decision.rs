//! Answers, from process memory, in the order of R10.
//!
//! Keeps its part of I1 and I8: [`decide`] reads the clocks, the lease and the heads in that order, and gives an
//! ALLOW only if the clocks, read again, say that it is still valid. It allocates nothing, logs nothing and waits
//! for nothing; whoever must wait (`min_position`) does so before.

use crate::node::Node;
use consent::convert::decision::{Asked, asked, asked_all, min_position, response, responses};
use consent::deadline::Deadline;
use consent::pb::decision_service_server::DecisionService;
use consent::pb::{BatchCanTrainRequest, BatchCanTrainResponse, CanTrainRequest, CanTrainResponse};
use consent::{clock, status::status};
use consent_core::decision::Decision;
use consent_core::words::{Position, Span};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// How long a call waits for its `min_position` when its caller set no deadline.
const WAIT_DEFAULT: Span = Span::from_millis(1000);

/// What a whole answer or batch rests on.
#[derive(Debug, Clone, Copy)]
struct Basis {
    /// The state that it was decided from.
    position: Option<Position>,
    /// How long an ALLOW in it may be relied on, counted from before the caller sent the request.
    valid_for: Span,
}

/// R10. Decides every question from one state, at or past `floor`, under one lease.
fn decide(node: &Node, floor: Option<Position>, asked: &[Asked<'_>], answers: &mut [Decision]) -> Basis {
    let mut position = None;
    // Who was paused past the end of an answer starts over once: after that a DENY is cheaper for everybody.
    for _attempt in 0..2 {
        let now0 = clock::now();
        let lease = node.lease();
        let view = node.table.read();
        let Some(state) = view.state() else {
            answers.fill(Decision::NOT_READY);
            return Basis { position: None, valid_for: Span::ZERO };
        };
        position = Some(state.position());
        let lease =
            lease.filter(|lease| lease.epoch == state.position().epoch && reached(state.position(), floor));
        let Some(validity) = lease.and_then(|lease| lease.at(now0)) else { break };
        let wall = clock::wall();
        for (asked, answer) in asked.iter().zip(answers.iter_mut()) {
            *answer = consent_core::decision::decide(state, &asked.question(state.id_key()), wall);
        }
        drop(view);
        if validity.holds(clock::now()) {
            return Basis { position, valid_for: validity.valid_for() };
        }
    }
    answers.fill(Decision::STALE);
    Basis { position, valid_for: Span::ZERO }
}

/// Is `position` at or past `floor`? Revisions of two epochs cannot be compared: no.
fn reached(position: Position, floor: Option<Position>) -> bool {
    floor.is_none_or(|floor| position.epoch == floor.epoch && position.revision >= floor.revision)
}

/// DecisionService on a sidecar.
pub(crate) struct Decisions {
    node: Arc<Node>,
}

impl Decisions {
    pub(crate) fn new(node: Arc<Node>) -> Decisions {
        Decisions { node }
    }

    /// Waits until the table may have reached `floor`, within the deadline. Neither a table of another epoch nor
    /// a full waiting room is waited for: the answer will be STALE.
    async fn wait_for(&self, floor: Option<Position>, deadline: Deadline) {
        let Some(floor) = floor else { return };
        let Ok(_place) = self.node.waiting.try_acquire() else { return };
        let mut position = self.node.table.watch();
        let comparable = |position: &Option<Position>| {
            position
                .is_some_and(|position| position.epoch != floor.epoch || position.revision >= floor.revision)
        };
        // Reached or not, the answer is decided from what the table then is.
        let _ = deadline.within(position.wait_for(comparable)).await;
    }
}

#[tonic::async_trait]
impl DecisionService for Decisions {
    async fn can_train(
        &self,
        request: Request<CanTrainRequest>,
    ) -> Result<Response<CanTrainResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), WAIT_DEFAULT);
        let request = request.into_inner();
        let asked = asked(&request).map_err(status)?;
        let floor = min_position(request.min_position.as_ref()).map_err(status)?;
        self.wait_for(floor, deadline).await;
        let mut answer = [Decision::NOT_READY];
        let basis = decide(&self.node, floor, &[asked], &mut answer);
        let [answer] = answer;
        Ok(Response::new(response(answer, basis.position, basis.valid_for)))
    }

    async fn batch_can_train(
        &self,
        request: Request<BatchCanTrainRequest>,
    ) -> Result<Response<BatchCanTrainResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), WAIT_DEFAULT);
        let request = request.into_inner();
        let asked = asked_all(&request).map_err(status)?;
        let floor = min_position(request.min_position.as_ref()).map_err(status)?;
        self.wait_for(floor, deadline).await;
        let mut answers = vec![Decision::NOT_READY; asked.len()];
        let basis = decide(&self.node, floor, &asked, &mut answers);
        Ok(Response::new(responses(&answers, basis.position, basis.valid_for)))
    }
}
