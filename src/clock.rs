//! The clocks: the only file that reads one.
//!
//! Leases count on two at once (rule in [`consent_core::words::time`]): CLOCK_BOOTTIME, which goes on through a
//! suspend, and CLOCK_MONOTONIC_RAW, which nobody slews. Stamps come from the wall clock. `std::time::Instant` is
//! neither, and is banned by clippy.toml.

use consent_core::words::{Moment, Span, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Reads both lease clocks.
pub fn now() -> Moment {
    Moment { boot: nanos(clock_gettime(ClockId::Boottime)), raw: nanos(clock_gettime(ClockId::MonotonicRaw)) }
}

/// Reads the wall clock, in whole milliseconds.
pub fn wall() -> Timestamp {
    let t = clock_gettime(ClockId::Realtime);
    Timestamp::from_millis(t.tv_sec.saturating_mul(1000).saturating_add(t.tv_nsec / 1_000_000))
}

/// The processor time of this thread so far: for measurements, which others on the machine then disturb less.
pub fn spent() -> Span {
    Span::from_nanos(nanos(clock_gettime(ClockId::ThreadCPUTime)))
}

/// Sleeps until about `moment`, by both clocks: a hint. Whoever relies on time reads [`now`] again afterwards, and so
/// does whoever answers under a lease, which is over by the first of them.
pub async fn sleep_until(moment: Moment) {
    let left = moment.longest_since(now());
    if left > Span::ZERO {
        tokio::time::sleep(left.into()).await;
    }
}

/// Sleeps until about `moment`, and for ever where there is none: the same hint, as a machine's `wake_at` gives it.
pub async fn alarm(moment: Option<Moment>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Sleeps until about the end of a lease, which is over when EITHER clock says so; for ever where there is none.
pub async fn end_of(lease: Option<Moment>) {
    match lease {
        Some(until) => tokio::time::sleep(until.shortest_since(now()).into()).await,
        None => std::future::pending().await,
    }
}

// Both clocks count up from boot, so neither is negative.
fn nanos(t: Timespec) -> u64 {
    (t.tv_sec.unsigned_abs()).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    #[test]
    fn readings_do_not_fall() {
        let (first, second) = (super::now(), super::now());
        assert!(second.boot >= first.boot && second.raw >= first.raw);
    }
}
