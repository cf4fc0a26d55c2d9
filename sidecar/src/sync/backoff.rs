//! How long to wait before the next connection: full jitter, so that a fleet which lost its authority at one moment
//! does not come back at one moment.

use consent_core::words::Span;

const BASE: Span = Span::from_millis(50);
const CAP: Span = Span::from_millis(5000);

/// Doubles the longest wait with each failure in a row; the wait itself is anything up to it.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The last connection proved good.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next connection; `random` is any number.
    pub(super) fn next(&mut self, random: u64) -> Span {
        let longest = ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        Span::from_nanos(random % longest.nanos().saturating_add(1))
    }
}

fn ceiling(failures: u32) -> Span {
    // 2^7 * 50 ms is beyond the cap.
    Span::from_nanos(BASE.nanos() << failures.min(7)).min(CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_doubles_up_to_the_cap_and_starts_again() {
        let mut backoff = Backoff::default();
        let longest = |backoff: &mut Backoff| {
            let longest = ceiling(backoff.failures);
            assert_eq!(backoff.next(longest.nanos()), longest);
            longest.millis()
        };
        let waits: Vec<u64> = (0..9).map(|_| longest(&mut backoff)).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(longest(&mut backoff), 50);
    }

    #[test]
    fn the_wait_is_anything_up_to_the_longest() {
        assert_eq!(Backoff::default().next(0), Span::ZERO);
        assert!(Backoff::default().next(u64::MAX) <= BASE);
    }
}
