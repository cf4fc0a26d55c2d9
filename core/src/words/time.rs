//! Two kinds of time that never meet: the wall clock that stamps data, and the two clocks that count leases.
//!
//! A [`Timestamp`] says when something happened and may be stored and sent. A [`Moment`] is a reading of the two
//! lease clocks of one boot of one kernel; it may cross a socket of that kernel, never a disk (assumption A7).
//!
//! The clock rule: BOOTTIME goes on through a suspend, MONOTONIC_RAW is not slewed, and each side errs to its own
//! safe side. A holder's time is over when EITHER clock says so ([`Moment::longest_since`]); a grantor waits until
//! BOTH say so ([`Moment::shortest_since`]).

use core::fmt;

/// An instant of the wall clock: Unix milliseconds. Never used for leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant so many milliseconds after (or before) 1970.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Unix milliseconds.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// `S(r)` of rule.md section 3: the first whole second after this instant. It saturates at 2^32 - 1 (2106),
    /// which means never, as does 0.
    pub const fn next_second(self) -> Seconds {
        let next = self.0.div_euclid(1000).saturating_add(1);
        if next <= 0 {
            Seconds(0)
        } else if next >= u32::MAX as i64 {
            Seconds::NEVER
        } else {
            Seconds(next as u32)
        }
    }
}

/// A stored instant: unsigned 32-bit Unix seconds. Heads, digests and nodes hold this same number.
/// Both 0 and 2^32 - 1 mean never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u32);

impl Seconds {
    /// No instant yet.
    pub const ZERO: Seconds = Seconds(0);
    /// The instant that never comes.
    pub const NEVER: Seconds = Seconds(u32::MAX);

    /// The instant with this number.
    pub const fn new(seconds: u32) -> Seconds {
        Seconds(seconds)
    }

    /// Unix seconds.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// A span of lease time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// No time.
    pub const ZERO: Span = Span(0);

    /// So many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Span {
        Span(nanos)
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Span {
        Span(millis * 1_000_000)
    }

    /// Nanoseconds.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds, rounded down.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The sum; it saturates.
    pub const fn plus(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }

    /// What is left after `other`, or no time.
    pub const fn minus(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl From<Span> for core::time::Duration {
    fn from(span: Span) -> core::time::Duration {
        core::time::Duration::from_nanos(span.0)
    }
}

impl From<core::time::Duration> for Span {
    /// It saturates, after 584 years.
    fn from(duration: core::time::Duration) -> Span {
        Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// One reading of both lease clocks of this boot, in nanoseconds. Readings of one process never fall.
///
/// Deliberately without `Ord`: of two moments either clock may order them its own way, so every comparison names
/// its safe side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moment {
    /// CLOCK_BOOTTIME.
    pub boot: u64,
    /// CLOCK_MONOTONIC_RAW.
    pub raw: u64,
}

impl Moment {
    /// The most that can have passed since `then`: what a holder must assume.
    pub const fn longest_since(self, then: Moment) -> Span {
        let (boot, raw) = (self.boot.saturating_sub(then.boot), self.raw.saturating_sub(then.raw));
        Span(if boot > raw { boot } else { raw })
    }

    /// The least that has passed since `then`: what a grantor must assume.
    pub const fn shortest_since(self, then: Moment) -> Span {
        let (boot, raw) = (self.boot.saturating_sub(then.boot), self.raw.saturating_sub(then.raw));
        Span(if boot < raw { boot } else { raw })
    }

    /// Both clocks a span later: where to set a timer, which is a hint. Safety comes from the two above.
    pub const fn after(self, span: Span) -> Moment {
        Moment { boot: self.boot.saturating_add(span.0), raw: self.raw.saturating_add(span.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_second_is_later_and_saturates() {
        assert_eq!(Timestamp::from_millis(400_000).next_second(), Seconds(401));
        assert_eq!(Timestamp::from_millis(400_999).next_second(), Seconds(401));
        assert_eq!(Timestamp::from_millis(-5).next_second(), Seconds(0));
        assert_eq!(Timestamp::from_millis(i64::MAX).next_second(), Seconds::NEVER);
        assert_eq!(Timestamp::from_millis((u32::MAX as i64 - 1) * 1000).next_second(), Seconds::NEVER);
    }

    #[test]
    fn a_span_is_a_duration_that_saturates() {
        let there = core::time::Duration::from(Span::from_millis(1500));
        assert_eq!(Span::from(there), Span::from_millis(1500));
        assert_eq!(Span::from(core::time::Duration::MAX), Span(u64::MAX));
    }

    #[test]
    fn a_holder_believes_the_faster_clock_and_a_grantor_the_slower() {
        let (then, now) = (Moment { boot: 10, raw: 10 }, Moment { boot: 40, raw: 30 });
        assert_eq!(now.longest_since(then), Span(30));
        assert_eq!(now.shortest_since(then), Span(20));
    }
}
