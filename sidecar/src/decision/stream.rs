//! StreamCanTrain: a corpus, message by message, each decided as a batch is.
//!
//! The answers to a message are decided into memory that the stream keeps, and one message at a time. How a stream
//! goes on, waits for its reader and ends is `consent::dialogue`'s.

use super::service::{Decisions, WAIT_DEFAULT};
use consent::convert::columns::{ITEMS_MAX, column_responses, columns};
use consent::convert::decision::{Questions as _, min_position};
use consent::deadline::Deadline;
use consent::dialogue::Answer;
use consent::pb::{StreamCanTrainRequest, StreamCanTrainResponse};
use consent::status::status;
use consent_core::decision::Decision;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

/// One stream.
pub(super) struct Corpus {
    decisions: Decisions,
    answers: Vec<Decision>,
    _place: OwnedSemaphorePermit,
}

impl Corpus {
    /// A stream that has its place among those that may be.
    pub(super) fn new(decisions: Decisions, place: OwnedSemaphorePermit) -> Corpus {
        Corpus { decisions, answers: Vec::new(), _place: place }
    }
}

impl Answer<StreamCanTrainRequest> for Corpus {
    type Given = StreamCanTrainResponse;

    async fn answer(&mut self, request: StreamCanTrainRequest) -> Result<StreamCanTrainResponse, Status> {
        let columns = columns(&request, ITEMS_MAX).map_err(status)?;
        let floor = min_position(request.min_position.as_ref()).map_err(status)?;
        self.decisions.wait_for(floor, Deadline::after(WAIT_DEFAULT)).await;
        self.answers.clear();
        self.answers.resize(columns.count(), Decision::NOT_READY);
        let basis = self.decisions.node.decide(floor, &columns, &mut self.answers);
        Ok(column_responses(&self.answers, basis.position, basis.valid_for()))
    }
}
