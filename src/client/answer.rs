//! Answers in types that cannot be used wrongly: only an [`Allow`] that still counts gives a [`Permit`] (R11).

use crate::clock;
use consent_core::decision::Reason;
use consent_core::words::{Moment, Position, Span};
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use tonic::Status;

/// What became of a question.
#[derive(Debug, Clone)]
#[must_use = "only an ALLOW that still counts allows anything"]
pub enum Answer {
    /// It may be used, while the ALLOW counts.
    Allow(Allow),
    /// It may not be used.
    Deny(Deny),
}

/// An ALLOW. It is over soon, so it permits nothing by itself: ask it for a [`Permit`] where the data is used.
#[derive(Debug, Clone)]
#[must_use = "an ALLOW permits nothing by itself: ask it for a permit where the data is used"]
pub struct Allow {
    pub(super) asked: Moment,
    pub(super) valid_for: Span,
    pub(super) reason: Reason,
    pub(super) position: Position,
}

impl Allow {
    /// Reads the clocks: a permit to use the data now, none when the ALLOW is over. Then ask again.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let is_over = clock::now().longest_since(self.asked) >= self.valid_for;
        (!is_over).then_some(Permit { allow: self, here: PhantomData })
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The state that it was decided from. Whoever keeps it beside the data can subtract later what changed since.
    pub fn position(&self) -> Position {
        self.position
    }

    /// When the question was about to be sent. For records: whether the ALLOW still counts, only
    /// [`permit`](Allow::permit) says.
    pub fn asked(&self) -> Moment {
        self.asked
    }

    /// How long the ALLOW counts from then on. For records, likewise.
    pub fn valid_for(&self) -> Span {
        self.valid_for
    }
}

/// The clocks were read just now, and the ALLOW counts. A function that keeps or consumes data for training takes one
/// of these, and then cannot be called without.
///
/// It is for now: it can neither be copied nor sent to another thread, so no task that may be moved holds one while it
/// waits.
///
/// ```compile_fail
/// # use consent::client::Allow;
/// # async fn flush() {}
/// fn is_send(_: impl Send) {}
///
/// async fn use_later(allow: Allow) {
///     let permit = allow.permit();
///     flush().await;
///     drop(permit);
/// }
///
/// fn spawn(allow: Allow) {
///     is_send(use_later(allow));
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit is for the use that follows it at once"]
pub struct Permit<'a> {
    allow: &'a Allow,
    here: PhantomData<*const ()>,
}

impl Permit<'_> {
    /// Why the data may be used.
    pub fn reason(&self) -> Reason {
        self.allow.reason
    }

    /// The state that it was decided from: what to keep beside the data.
    pub fn position(&self) -> Position {
        self.allow.position
    }
}

/// Everything that is not an ALLOW: do not train.
#[derive(Debug, Clone)]
#[must_use = "a DENY may be worth a line in a log"]
pub enum Deny {
    /// It was decided.
    Decided {
        /// Why.
        reason: Reason,
        /// Waiting cannot change it: drop the artifact.
        is_final: bool,
        /// The state that it was decided from; there may be none.
        position: Option<Position>,
    },
    /// It was not decided in time, or not in words that this version can read. The status, a server's or the guard's
    /// own, says why: for logs. It holds no id.
    Unanswered(Status),
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deny::Decided { reason, .. } => write!(f, "DENY, {reason}"),
            Deny::Unanswered(status) => write!(f, "no answer: {:?}: {}", status.code(), status.message()),
        }
    }
}

impl Error for Deny {}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::words::{Epoch, Revision};

    fn allow(asked: Moment, valid_for: Span) -> Allow {
        let position = Position { epoch: Epoch::new([1; 16]), revision: Revision::ZERO };
        Allow { asked, valid_for, reason: Reason::PlanDefaultIn, position }
    }

    #[test]
    fn an_allow_is_over_when_either_clock_says_so() {
        let (now, long) = (clock::now(), Span::from_millis(60_000));
        assert!(allow(now, long).permit().is_some());
        assert!(allow(now, Span::ZERO).permit().is_none());
        // One clock has gone on through a suspend, or was never slewed.
        let earlier = |clock: u64| clock.saturating_sub(long.nanos());
        assert!(allow(Moment { boot: earlier(now.boot), ..now }, long).permit().is_none());
        assert!(allow(Moment { raw: earlier(now.raw), ..now }, long).permit().is_none());
    }
}
