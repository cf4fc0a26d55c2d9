//! The lease as serving threads see it: a plain value that says until when they may answer.
//!
//! Whoever answers ALLOW follows R10: read both clocks, read the lease, read the heads, decide, read the clocks
//! again. The machines publish a [`Lease`] on every change of it; a serving thread evaluates it against its own
//! reading of the clocks and never meets the machine. A sidecar's comes from a grant, an authority's own from
//! its renewal.

use crate::words::{Epoch, Moment, Span};

/// Until when its holder may answer, and for how long one answer may be relied upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The epoch it was granted in. Heads of a table in another epoch must not be used with it.
    pub epoch: Epoch,
    /// Over when either clock reaches it.
    pub until: Moment,
    /// H: the most that one answer may be relied upon.
    pub hold: Span,
}

impl Lease {
    /// R10 (1), (2), (4): what an answer begun at `now0` may be worth; `None` when the lease is over.
    pub fn at(&self, now0: Moment) -> Option<Validity> {
        let span = left(self.until, now0).min(self.hold);
        (span > Span::ZERO).then_some(Validity { from: now0, span })
    }

    /// What is left of it, by the clock that leaves less.
    pub fn left(&self, now: Moment) -> Span {
        left(self.until, now)
    }
}

/// For how long one answer may be relied upon, from the moment it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: Moment,
    span: Span,
}

impl Validity {
    /// R10 (6): may the answer still be given? If not, start over, or DENY.
    pub fn holds(&self, now: Moment) -> bool {
        now.longest_since(self.from) < self.span
    }

    /// `valid_for`: the caller counts it from before it sent the request (R11).
    pub const fn valid_for(&self) -> Span {
        self.span
    }

    /// When it is over, for whoever asked in this process: as soon as either clock says so.
    pub const fn until(&self) -> Moment {
        self.from.after(self.span)
    }
}

/// What is left until a moment of our own future, for whoever must stop then: the clock that leaves less counts.
pub(super) fn left(until: Moment, now: Moment) -> Span {
    until.shortest_since(now)
}

/// Is the moment past, for whoever must wait for it? Only when both clocks say so.
pub(super) fn past(until: Moment, now: Moment) -> bool {
    until.longest_since(now) == Span::ZERO
}

/// The earlier of two hints for a timer.
pub(super) fn earlier(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    a.into_iter().chain(b).min_by_key(|moment| moment.boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: u64, raw: u64) -> Moment {
        Moment { boot, raw }
    }

    #[test]
    fn a_lease_is_over_when_either_clock_says_so_and_a_wait_when_both_do() {
        let lease = Lease { epoch: Epoch::new([1; 16]), until: at(100, 100), hold: Span::from_nanos(30) };
        assert_eq!(lease.at(at(0, 0)).map(|v| v.valid_for()), Some(Span::from_nanos(30)));
        assert_eq!(lease.at(at(90, 10)).map(|v| v.valid_for()), Some(Span::from_nanos(10)));
        assert_eq!(lease.at(at(100, 10)), None);
        assert!(!past(at(100, 100), at(100, 99)));
        assert!(past(at(100, 100), at(100, 100)));
    }

    #[test]
    fn an_answer_is_over_when_either_clock_says_so() {
        let lease = Lease { epoch: Epoch::new([1; 16]), until: at(100, 100), hold: Span::from_nanos(30) };
        let answer = lease.at(at(0, 0)).expect("the lease is not over");
        assert!(answer.holds(at(29, 29)));
        assert!(!answer.holds(at(30, 0)));
        assert!(!answer.holds(at(0, 30)));
    }
}
