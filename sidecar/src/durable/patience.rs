//! How long the writer waits after a trouble, and when that trouble counts as over.
//!
//! One good turn proves little: two sidecars on one Redis rewrite each other's copy in turns, and each of these turns
//! goes well. So a trouble is over only when nothing has gone wrong for longer than the longest pause, counted from
//! the first good turn after it; until then every further one doubles the pause.

use consent_core::words::{Moment, Span};

const PAUSE_MIN: Span = Span::from_millis(50);
const PAUSE_MAX: Span = Span::from_millis(5_000);
/// Twice the longest pause: a rival that pauses as long as this writer writes again before.
const WELL_AFTER: Span = Span::from_millis(10_000);

/// The writer's patience.
#[derive(Debug)]
pub(super) struct Patience {
    /// The next pause.
    pause: Span,
    is_troubled: bool,
    /// The first good turn since the last trouble.
    well_since: Option<Moment>,
}

impl Patience {
    pub(super) const fn new() -> Patience {
        Patience { pause: PAUSE_MIN, is_troubled: false, well_since: None }
    }

    /// Something went wrong. Gives how long to wait.
    pub(super) fn troubled(&mut self) -> Span {
        let pause = self.pause;
        *self = Patience { pause: PAUSE_MAX.min(pause.plus(pause)), is_troubled: true, well_since: None };
        pause
    }

    /// A turn went well. Says whether a trouble is over by that.
    pub(super) fn well(&mut self, now: Moment) -> bool {
        if !self.is_troubled {
            return false;
        }
        let since = *self.well_since.get_or_insert(now);
        let is_over = now.shortest_since(since) >= WELL_AFTER;
        if is_over {
            *self = Patience::new();
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment { boot: millis * 1_000_000, raw: millis * 1_000_000 }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut patience = Patience::new();
        let pauses: Vec<u64> = (0..9).map(|_| patience.troubled().millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    }

    #[test]
    fn a_trouble_is_over_when_it_has_been_well_since_for_a_while() {
        let mut patience = Patience::new();
        assert!(!patience.well(at(0)), "there was no trouble");
        patience.troubled();
        // However long ago the trouble was, the first good turn only begins the while.
        assert!(!patience.well(at(60_000)));
        assert!(!patience.well(at(69_999)));
        assert!(!patience.well(Moment { raw: 0, ..at(70_000) }), "by both clocks");
        assert!(patience.well(at(70_000)));
        assert!(!patience.well(at(99_000)), "it is told once");
        assert_eq!(patience.troubled(), PAUSE_MIN);
    }

    #[test]
    fn good_turns_between_troubles_do_not_shorten_the_pauses() {
        let mut patience = Patience::new();
        let mut now = 0;
        for _ in 0..7 {
            patience.troubled();
        }
        // A rival that writes as often as it may: between its turns all goes well here.
        for _ in 0..100 {
            for _ in 0..5 {
                now += 1_000;
                assert!(!patience.well(at(now)));
            }
            assert_eq!(patience.troubled(), PAUSE_MAX);
        }
    }
}
