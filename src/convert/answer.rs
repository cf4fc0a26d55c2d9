//! Answers as their caller reads them: what was decided, or that it cannot be read.
//!
//! Here a caller meets UNSPECIFIED and the numbers of a newer contract, and nowhere behind. Only an ALLOW that is
//! whole is one: with a reason that allows, the state that it was decided from, and how long it may be relied on.

use super::{position, span};
use crate::pb;
use consent_core::decision::Reason;
use consent_core::words::{Position, Span};
use thiserror::Error;

/// What a server decided about one artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be used.
    Allow {
        /// Why.
        reason: Reason,
        /// The state that it was decided from.
        position: Position,
        /// How long that may be relied on, counted from before the question was sent.
        valid_for: Span,
    },
    /// It may not be used.
    Deny {
        /// Why not.
        reason: Reason,
        /// Waiting cannot change it.
        is_final: bool,
        /// The state that it was decided from; there may be none.
        position: Option<Position>,
    },
}

/// Why an answer says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Zero, a number of a newer contract, or a reason that contradicts the decision.
    #[error("the answer is decision {decision} for reason {reason}, which this version cannot read")]
    Meaning {
        /// The number of the decision.
        decision: i32,
        /// The number of the reason.
        reason: i32,
    },
    /// A field is missing or wrong.
    #[error("the answer lacks a `{0}` that can be read")]
    Field(&'static str),
    /// A batch with too few answers, or too many.
    #[error("{asked} questions were asked and {answered} answered")]
    Count {
        /// So many questions were sent.
        asked: usize,
        /// So many answers came.
        answered: usize,
    },
}

/// Reads the answer to a single question.
pub fn verdict(answer: &pb::CanTrainResponse) -> Result<Verdict, Unreadable> {
    let pb::CanTrainResponse { decision, reason, r#final, position, valid_for } = answer;
    let basis = Basis { position: position.as_ref(), valid_for: valid_for.as_ref() };
    basis.verdict(*decision, *reason, *r#final)
}

/// Reads the answers to so many questions, in order. One that cannot be read spoils no other.
pub fn verdicts(
    answer: &pb::BatchCanTrainResponse,
    asked: usize,
) -> Result<impl Iterator<Item = Result<Verdict, Unreadable>>, Unreadable> {
    let pb::BatchCanTrainResponse { answers, position, valid_for } = answer;
    if answers.len() != asked {
        return Err(Unreadable::Count { asked, answered: answers.len() });
    }
    let basis = Basis { position: position.as_ref(), valid_for: valid_for.as_ref() };
    Ok(answers.iter().map(move |one| basis.verdict(one.decision, one.reason, one.r#final)))
}

/// What a whole answer rests on.
#[derive(Debug, Clone, Copy)]
struct Basis<'a> {
    position: Option<&'a pb::Position>,
    valid_for: Option<&'a prost_types::Duration>,
}

impl Basis<'_> {
    fn verdict(self, decision: i32, reason: i32, is_final: bool) -> Result<Verdict, Unreadable> {
        let known = Reason::ALL.into_iter().find(|known| i32::from(known.number()) == reason);
        let position = || {
            let read = |wire| position("position", wire).map_err(|_| Unreadable::Field("position"));
            self.position.map(read).transpose()
        };
        match (pb::Decision::try_from(decision), known) {
            (Ok(pb::Decision::Allow), Some(reason)) if reason.is_allow() => {
                let valid_for = self.valid_for.and_then(|wire| span("valid_for", wire).ok());
                Ok(Verdict::Allow {
                    reason,
                    position: position()?.ok_or(Unreadable::Field("position"))?,
                    valid_for: valid_for.ok_or(Unreadable::Field("valid_for"))?,
                })
            }
            (Ok(pb::Decision::Deny), Some(reason)) if !reason.is_allow() => {
                Ok(Verdict::Deny { reason, is_final, position: position()? })
            }
            _ => Err(Unreadable::Meaning { decision, reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decision::{response, responses};
    use super::*;
    use consent_core::decision::Decision;
    use consent_core::words::{Epoch, Revision};

    const HOLD: Span = Span::from_millis(50);
    const ALLOW: Decision = Decision { reason: Reason::PlanDefaultIn, is_final: false };
    const DENY: Decision = Decision { reason: Reason::Erased, is_final: true };

    fn position() -> Position {
        Position { epoch: Epoch::new([1; 16]), revision: Revision::new(7).unwrap() }
    }

    fn allow() -> pb::CanTrainResponse {
        response(ALLOW, Some(position()), HOLD)
    }

    #[test]
    fn what_a_server_says_is_what_a_caller_reads() {
        let allowed = Verdict::Allow { reason: Reason::PlanDefaultIn, position: position(), valid_for: HOLD };
        let denied = Verdict::Deny { reason: Reason::Erased, is_final: true, position: Some(position()) };
        assert_eq!(verdict(&allow()), Ok(allowed));
        assert_eq!(verdict(&response(DENY, Some(position()), Span::ZERO)), Ok(denied));
        for reason in Reason::ALL {
            let said = response(Decision { reason, is_final: false }, Some(position()), HOLD);
            assert_eq!(matches!(verdict(&said), Ok(Verdict::Allow { .. })), reason.is_allow(), "{reason}");
        }
        let cold = response(Decision::NOT_READY, None, Span::ZERO);
        assert!(matches!(verdict(&cold), Ok(Verdict::Deny { position: None, .. })));
        let batch = responses(&[ALLOW, DENY], Some(position()), HOLD);
        let read: Vec<_> = verdicts(&batch, 2).unwrap().collect();
        assert_eq!(read, [Ok(allowed), Ok(denied)]);
    }

    #[test]
    fn what_is_not_a_whole_allow_is_none() {
        let changed = |change: fn(&mut pb::CanTrainResponse)| {
            let mut answer = allow();
            change(&mut answer);
            verdict(&answer)
        };
        let meaning = |decision, reason| Err(Unreadable::Meaning { decision, reason });
        assert_eq!(changed(|a| a.decision = 0), meaning(0, 24));
        assert_eq!(changed(|a| a.decision = 3), meaning(3, 24));
        assert_eq!(changed(|a| a.decision = i32::MIN), meaning(i32::MIN, 24));
        assert_eq!(changed(|a| a.reason = 0), meaning(1, 0));
        assert_eq!(changed(|a| a.reason = 25), meaning(1, 25));
        // The two contradict each other.
        assert_eq!(changed(|a| a.reason = 16), meaning(1, 16));
        assert_eq!(changed(|a| a.decision = 2), meaning(2, 24));
        let lacks = |field| Err(Unreadable::Field(field));
        assert_eq!(changed(|a| a.valid_for = None), lacks("valid_for"));
        assert_eq!(changed(|a| a.valid_for.as_mut().unwrap().nanos = -1), lacks("valid_for"));
        assert_eq!(changed(|a| a.position = None), lacks("position"));
        assert_eq!(changed(|a| a.position.as_mut().unwrap().epoch.clear()), lacks("position"));
    }

    #[test]
    fn answers_that_are_not_as_many_as_the_questions_are_nobody_s() {
        let batch = responses(&[ALLOW, DENY], Some(position()), HOLD);
        for asked in [1, 3] {
            let count = verdicts(&batch, asked).err();
            assert_eq!(count, Some(Unreadable::Count { asked, answered: 2 }));
        }
    }

    #[test]
    fn one_answer_that_cannot_be_read_spoils_no_other() {
        let mut batch = responses(&[ALLOW, DENY], Some(position()), HOLD);
        batch.answers[0].decision = 9;
        let read: Vec<_> = verdicts(&batch, 2).unwrap().collect();
        assert!(read[0].is_err() && read[1].is_ok());
    }
}
