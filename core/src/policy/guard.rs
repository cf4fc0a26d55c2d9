//! The guard: how far the collector's clock and the store's may differ (rule.md section 5).

use core::fmt;
use thiserror::Error;

/// A span of the wall clock, in milliseconds: at most one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guard(u32);

/// A text is no guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is no guard: write a whole number and ms, s, m or h, at most 1h")]
pub struct BadGuard;

impl Guard {
    /// None: for deployments with one clock.
    pub const ZERO: Guard = Guard(0);
    /// What a policy file has that says nothing.
    pub const DEFAULT: Guard = Guard(5_000);
    /// The most there may be.
    pub const MAX: Guard = Guard(3_600_000);

    /// So many milliseconds, if that is at most an hour.
    pub const fn from_millis(millis: u32) -> Option<Guard> {
        if millis <= Guard::MAX.0 { Some(Guard(millis)) } else { None }
    }

    /// Milliseconds, wide enough to add to a timestamp.
    pub const fn millis(self) -> i64 {
        self.0 as i64
    }

    /// Milliseconds.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Reads `5s`, `500ms`, `2m`, `1h`.
    pub fn parse(text: &str) -> Result<Guard, BadGuard> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(BadGuard),
        };
        let millis = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
        millis.and_then(Guard::from_millis).ok_or(BadGuard)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) {
            write!(f, "{}s", self.0 / 1_000)
        } else {
            write!(f, "{}ms", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_a_number_and_a_unit_up_to_an_hour() {
        for (text, millis) in [("5s", 5_000), ("0s", 0), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(Guard::parse(text), Ok(Guard(millis)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "+5s", "5 s", "1.5s", "61m", "2h", "99999999999s", "5S"] {
            assert_eq!(Guard::parse(text), Err(BadGuard), "{text}");
        }
    }
}
