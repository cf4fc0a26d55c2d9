//! How long, and how often, one question is asked.

use crate::backoff::Backoff;
use crate::deadline::Deadline;
use consent_core::words::Span;

/// The longest wait before the second try, and before any. What may pass, a lease that is renewed or a table that is
/// loaded, passes within some hundred milliseconds or takes seconds.
const BASE: Span = Span::from_millis(2);
const CAP: Span = Span::from_millis(250);

/// So often is one question asked. At the bound the last answer stands.
const TRIES_MAX: u32 = 64;

/// What is left of a caller's patience.
#[derive(Debug)]
pub(super) struct Patience {
    /// Until when there must be an answer.
    pub(super) deadline: Deadline,
    tries: u32,
    backoff: Backoff,
}

impl Patience {
    /// For a question whose first try begins now.
    pub(super) fn new(within: Span) -> Patience {
        Patience { deadline: Deadline::after(within), tries: 1, backoff: Backoff::new(BASE, CAP) }
    }

    /// Waits before another try, as long as a server asked for at least. `false`: there is no time for one, or no
    /// try left.
    pub(super) async fn again(&mut self, at_least: Span) -> bool {
        let left = self.deadline.left();
        if self.tries == TRIES_MAX || at_least >= left {
            return false;
        }
        self.tries += 1;
        // Half of what is left is for the answer.
        let wait = self.backoff.wait().min(Span::from_nanos(left.nanos() / 2)).max(at_least);
        tokio::time::sleep(wait.into()).await;
        self.deadline.left() > Span::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Span = Span::from_millis(600_000);

    #[tokio::test]
    async fn a_question_is_asked_so_often_and_no_oftener() {
        let mut patience = Patience::new(LONG);
        patience.tries = TRIES_MAX - 1;
        assert!(patience.again(Span::ZERO).await);
        assert!(!patience.again(Span::ZERO).await);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_comes_too_late() {
        assert!(!Patience::new(Span::ZERO).again(Span::ZERO).await);
        assert!(!Patience::new(LONG).again(LONG).await);
    }
}
