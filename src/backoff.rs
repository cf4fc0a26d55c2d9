//! How long to wait before trying again: full jitter, so that callers which lost their server at one moment do not
//! come back at one moment.

use consent_core::words::Span;

/// Doubles the longest wait with each failure in a row, up to a cap; the wait itself is anything up to it.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Span,
    cap: Span,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `base`, every one at most `cap`.
    pub const fn new(base: Span, cap: Span) -> Backoff {
        Backoff { base, cap, failures: 0 }
    }

    /// The last try proved good: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Span {
        // Without randomness the wait is the shortest: nothing is refused for the lack of jitter.
        self.draw(getrandom::u64().unwrap_or(0))
    }

    fn draw(&mut self, random: u64) -> Span {
        let longest = self.longest();
        self.failures = self.failures.saturating_add(1);
        Span::from_nanos(random % longest.nanos().saturating_add(1))
    }

    fn longest(&self) -> Span {
        Span::from_nanos(self.base.nanos().saturating_mul(1 << self.failures.min(32))).min(self.cap)
    }
}

/// Anything from a wait that was asked for to twice that: those who were asked at one moment do not come back at one.
pub fn spread(asked: Span) -> Span {
    Backoff::new(asked, asked).wait().plus(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Span::from_millis(50), Span::from_millis(5000))
    }

    #[test]
    fn the_longest_wait_doubles_up_to_the_cap_and_starts_again() {
        let mut backoff = backoff();
        let longest = |backoff: &mut Backoff| {
            let longest = backoff.longest();
            assert_eq!(backoff.draw(longest.nanos()), longest);
            longest.millis()
        };
        let waits: Vec<u64> = (0..9).map(|_| longest(&mut backoff)).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.failures = u32::MAX;
        assert_eq!(longest(&mut backoff), 5000);
        backoff.reset();
        assert_eq!(longest(&mut backoff), 50);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_and_spread() {
        let asked = Span::from_millis(1000);
        let [one, other] = [spread(asked), spread(asked)];
        assert_ne!(one, other);
        assert!([one, other].iter().all(|wait| *wait >= asked && *wait <= Span::from_millis(2000)));
        assert_eq!(spread(Span::ZERO), Span::ZERO);
    }

    #[test]
    fn the_wait_is_anything_up_to_the_longest() {
        assert_eq!(backoff().draw(0), Span::ZERO);
        assert!(backoff().draw(u64::MAX) <= Span::from_millis(50));
        assert!(backoff().wait() <= Span::from_millis(50));
    }
}
