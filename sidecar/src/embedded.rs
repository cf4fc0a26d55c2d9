//! Answers without a socket, for the process that the sidecar is embedded in.
//!
//! It is the one decision of `decision`, in the order of R10, with all that an answer over a socket rests on: the same
//! table, the same lease, the same hold. Nothing is allocated and nothing is waited for, so there is no `min_position`.

use crate::decision::{Basis, Decisions};
use crate::node::Node;
use consent::convert::decision::Asked;
use consent_core::decision::Decision;
use consent_core::words::{Position, Span};
use std::sync::Arc;

/// Answers from the table of a sidecar in this process. It may outlive the sidecar, and denies from then on.
#[derive(Clone)]
pub struct Answers(Arc<Decisions>);

/// One answer. Anything but [`Decision::is_allow`] is a DENY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What was decided, and why.
    pub decision: Decision,
    /// The state that it was decided from; none where there is none (NOT_READY).
    pub position: Option<Position>,
    /// How long an ALLOW may be relied on, counted from BEFORE the question was asked; no time for a DENY. Read the
    /// clock again right before the data is used: `consent::clock` reads the two that count.
    pub valid_for: Span,
}

impl Answers {
    pub(crate) fn new(node: Arc<Node>) -> Answers {
        Answers(Arc::new(Decisions::new(node)))
    }

    /// Decides now, from what the node has.
    pub fn can_train(&self, asked: &Asked<'_>) -> Answer {
        let mut answer = [Decision::NOT_READY];
        let Basis { position, valid_for } = self.0.decide(None, asked, &mut answer);
        let [decision] = answer;
        Answer { decision, position, valid_for: if decision.is_allow() { valid_for } else { Span::ZERO } }
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers(..)")
    }
}
