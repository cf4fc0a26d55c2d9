//! The terms of confirmation: one value each per deployment, announced by the authority, refused where unsafe.
//!
//! All arithmetic with the drift is here, in integers, rounded so that whoever waits, waits longer. What makes a
//! combination safe: a promise to a sidecar fits into the authority's own lease even right before a renewal (R5),
//! and the slack covers the drift of an answer hold (A1b).

use crate::words::Span;
use thiserror::Error;

const MILLION: u128 = 1_000_000;

/// The values of a deployment as somebody wrote them, not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values {
    /// T_S: how long a sidecar may answer after the keepalive that was granted.
    pub sidecar_lease: Span,
    /// T_R: how long an authority replica may grant and answer after its renewal.
    pub replica_lease: Span,
    /// rho, in millionths: the most by which the rates of two nodes' lease clocks differ (A1).
    pub drift_ppm: u32,
    /// sigma: what scheduling may add to a wait.
    pub slack: Span,
    /// H, the answer hold: how long one ALLOW may be relied upon.
    pub hold: Span,
    /// delta: how often the confirmer polls while somebody waits.
    pub poll: Span,
}

/// Why a combination of values is not safe. Each names the fields to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnsafeTerms {
    /// A span of nothing.
    #[error("{0} must be longer than 0")]
    Zero(&'static str),
    /// Too long for assumption A1, which bounds the drift over intervals below a minute.
    #[error("{0} is longer than {limit_s} s, for which the drift is bounded", limit_s = LONGEST_LEASE.millis() / 1000)]
    TooLong(&'static str),
    /// A drift that no clock has: rather an error in the unit.
    #[error("drift_ppm is {0}, it must be from 1 to 100000 (10 %)")]
    Drift(u32),
    /// An answer hold longer than the lease.
    #[error("hold must not be longer than sidecar_lease")]
    HoldBeyondLease,
    /// A1b: the slack does not cover the drift of an answer hold.
    #[error("slack must be at least (lambda - 1) hold = {} ns", .0.nanos())]
    SlackBelowDriftOfHold(Span),
    /// R5: a promise would not fit into the replica's lease shortly before a renewal.
    #[error("replica_lease is too short: three quarters of it must hold lambda sidecar_lease + slack = {} ms", .0.millis())]
    PromiseDoesNotFit(Span),
    /// A1 bounds the drift over intervals below a minute, and the longest wait is none.
    #[error("lambda replica_lease + slack is {} ms, and must be shorter than a minute", .0.millis())]
    WaitTooLong(Span),
    /// The confirmer would poll more seldom than leases end.
    #[error("poll must not be longer than a third of sidecar_lease")]
    PollTooSlow,
}

/// The longest lease.
const LONGEST_LEASE: Span = Span::from_millis(45_000);
/// A1: over longer intervals nothing is known of the drift.
const DRIFT_KNOWN: Span = Span::from_millis(60_000);

/// The checked terms of a deployment: no unsafe combination has this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms(Values);

impl Default for Terms {
    fn default() -> Terms {
        Terms(Values {
            sidecar_lease: Span::from_millis(3_000),
            replica_lease: Span::from_millis(6_000),
            drift_ppm: 10_000,
            slack: Span::from_millis(20),
            hold: Span::from_millis(50),
            poll: Span::from_millis(20),
        })
    }
}

impl Terms {
    /// Checks the values: the first reason why they are unsafe, or the terms.
    pub fn new(values: Values) -> Result<Terms, UnsafeTerms> {
        let terms = Terms(values);
        let spans = [
            ("sidecar_lease", values.sidecar_lease),
            ("replica_lease", values.replica_lease),
            ("hold", values.hold),
            ("poll", values.poll),
        ];
        if let Some((name, _)) = spans.iter().find(|(_, span)| *span == Span::ZERO) {
            return Err(UnsafeTerms::Zero(name));
        }
        if let Some((name, _)) = spans.iter().find(|(_, span)| *span > LONGEST_LEASE) {
            return Err(UnsafeTerms::TooLong(name));
        }
        if values.slack > LONGEST_LEASE {
            return Err(UnsafeTerms::TooLong("slack"));
        }
        if values.drift_ppm == 0 || values.drift_ppm > 100_000 {
            return Err(UnsafeTerms::Drift(values.drift_ppm));
        }
        if terms.replica_wait() >= DRIFT_KNOWN {
            return Err(UnsafeTerms::WaitTooLong(terms.replica_wait()));
        }
        if values.hold > values.sidecar_lease {
            return Err(UnsafeTerms::HoldBeyondLease);
        }
        let drift_of_hold = terms.stretched(values.hold).minus(values.hold);
        if values.slack < drift_of_hold {
            return Err(UnsafeTerms::SlackBelowDriftOfHold(drift_of_hold));
        }
        if terms.promise() > values.replica_lease.minus(terms.renew_every()) {
            return Err(UnsafeTerms::PromiseDoesNotFit(terms.promise()));
        }
        if values.poll > terms.keepalive_every() {
            return Err(UnsafeTerms::PollTooSlow);
        }
        Ok(terms)
    }

    /// The values, to announce them.
    pub const fn values(&self) -> Values {
        self.0
    }

    /// T_S.
    pub const fn sidecar_lease(&self) -> Span {
        self.0.sidecar_lease
    }

    /// T_R.
    pub const fn replica_lease(&self) -> Span {
        self.0.replica_lease
    }

    /// H, on the clock of whoever gave the answer.
    pub const fn hold(&self) -> Span {
        self.0.hold
    }

    /// delta.
    pub const fn poll(&self) -> Span {
        self.0.poll
    }

    /// R4: how often a sidecar sends a keepalive.
    pub const fn keepalive_every(&self) -> Span {
        Span::from_nanos(self.0.sidecar_lease.nanos() / 3)
    }

    /// R3: how often a replica renews.
    pub const fn renew_every(&self) -> Span {
        Span::from_nanos(self.0.replica_lease.nanos() / 4)
    }

    /// R5: how long a replica stands by a grant, lambda T_S + sigma.
    pub fn promise(&self) -> Span {
        self.stretched(self.0.sidecar_lease).plus(self.0.slack)
    }

    /// R8, R9: after how long a replica's lease is over whatever its clock did, lambda T_R + sigma.
    pub fn replica_wait(&self) -> Span {
        self.stretched(self.0.replica_lease).plus(self.0.slack)
    }

    /// R7: after how long a replica's own answers are over for callers on other nodes, lambda H + sigma.
    pub fn own_hold(&self) -> Span {
        self.stretched(self.0.hold).plus(self.0.slack)
    }

    /// lambda times the span, rounded up; lambda = (1 + rho) / (1 - rho).
    fn stretched(&self, span: Span) -> Span {
        let rho = u128::from(self.0.drift_ppm);
        let nanos = (u128::from(span.nanos()) * (MILLION + rho)).div_ceil(MILLION.saturating_sub(rho).max(1));
        Span::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: impl FnOnce(&mut Values)) -> Result<Terms, UnsafeTerms> {
        let mut values = Terms::default().values();
        change(&mut values);
        Terms::new(values)
    }

    #[test]
    fn the_default_terms_are_safe() {
        assert_eq!(changed(|_| ()), Ok(Terms::default()));
    }

    #[test]
    fn lambda_is_rounded_up() {
        let terms = Terms::default();
        // 3 s * 1.01 / 0.99 = 3.0606060606.. s
        assert_eq!(terms.promise(), Span::from_nanos(3_060_606_061 + 20_000_000));
        assert_eq!(terms.replica_wait(), Span::from_nanos(6_121_212_122 + 20_000_000));
        assert_eq!(terms.own_hold(), Span::from_nanos(51_010_102 + 20_000_000));
        assert_eq!(terms.stretched(Span::from_nanos(1)), Span::from_nanos(2));
        assert_eq!(terms.stretched(Span::from_nanos(u64::MAX)), Span::from_nanos(u64::MAX));
    }

    #[test]
    fn every_unsafe_combination_is_refused_and_named() {
        let ms = Span::from_millis;
        assert_eq!(changed(|v| v.hold = Span::ZERO), Err(UnsafeTerms::Zero("hold")));
        assert_eq!(changed(|v| v.replica_lease = ms(50_000)), Err(UnsafeTerms::TooLong("replica_lease")));
        assert_eq!(changed(|v| v.slack = ms(50_000)), Err(UnsafeTerms::TooLong("slack")));
        assert_eq!(changed(|v| v.drift_ppm = 0), Err(UnsafeTerms::Drift(0)));
        assert_eq!(changed(|v| v.drift_ppm = 1_000_000), Err(UnsafeTerms::Drift(1_000_000)));
        assert_eq!(changed(|v| v.hold = ms(3_001)), Err(UnsafeTerms::HoldBeyondLease));
        assert_eq!(
            changed(|v| v.slack = ms(1)),
            Err(UnsafeTerms::SlackBelowDriftOfHold(Span::from_nanos(1_010_102)))
        );
        assert!(changed(|v| v.slack = Span::from_nanos(1_010_102)).is_ok());
        let longest =
            |v: &mut Values| (v.replica_lease, v.drift_ppm, v.slack) = (ms(45_000), 100_000, ms(5_000));
        assert_eq!(changed(longest), Err(UnsafeTerms::WaitTooLong(ms(60_000))));
        let promise = Terms::default().promise();
        assert_eq!(changed(|v| v.replica_lease = ms(4_000)), Err(UnsafeTerms::PromiseDoesNotFit(promise)));
        assert_eq!(changed(|v| v.poll = ms(1_001)), Err(UnsafeTerms::PollTooSlow));
    }
}
