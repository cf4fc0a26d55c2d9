//! The deadline of a call, with enough time left to answer before it.
//!
//! tonic itself ends a call when `grpc-timeout` is over, and the caller then learns nothing: for a write that would
//! look as if nothing had happened. So a server that waits reads the header too, and gives up a margin earlier:
//! a tenth of the timeout, at most 100 ms.

use crate::clock;
use consent_core::words::{Moment, Span};
use std::future::Future;
use tonic::metadata::MetadataMap;

const MARGIN_MAX: Span = Span::from_millis(100);

/// Until when a server may wait for the sake of a call.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Moment);

impl Deadline {
    /// The deadline of a call that comes in now: the caller's less the margin, `default` from now where the caller
    /// set none.
    pub fn of(metadata: &MetadataMap, default: Span) -> Deadline {
        let timeout = metadata.get("grpc-timeout").and_then(|value| parse(value.as_bytes()));
        let wait = timeout
            .map_or(default, |timeout| timeout.minus(MARGIN_MAX.min(Span::from_nanos(timeout.nanos() / 10))));
        Deadline(clock::now().after(wait))
    }

    /// What is left until it.
    pub fn left(self) -> Span {
        // Whoever must stop in time believes the clock that leaves less.
        self.0.shortest_since(clock::now())
    }

    /// What the future gives, if it comes in time; it is dropped otherwise. A future that is ready is always polled,
    /// however late it is.
    pub async fn within<F: Future>(self, future: F) -> Option<F::Output> {
        tokio::time::timeout(self.left().into(), future).await.ok()
    }
}

/// Reads `grpc-timeout`: up to eight digits and a unit. Anything else is no timeout, as for tonic.
fn parse(value: &[u8]) -> Option<Span> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    let nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(Span::from_nanos(count.saturating_mul(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_grpc_writes_it() {
        assert_eq!(parse(b"100m"), Some(Span::from_millis(100)));
        assert_eq!(parse(b"3S"), Some(Span::from_millis(3000)));
        assert_eq!(parse(b"5u"), Some(Span::from_nanos(5000)));
        assert_eq!(parse(b"99999999H"), Some(Span::from_nanos(u64::MAX)));
        for bad in [&b""[..], b"S", b"5", b"5x", b"-5S", b"123456789S", b"5 S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_server_gives_up_before_its_caller_does() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "1000m".parse().unwrap());
        assert!(Deadline::of(&metadata, Span::ZERO).left() <= Span::from_millis(900));
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        assert!(Deadline::of(&metadata, Span::ZERO).left() <= Span::from_millis(90));
        assert!(Deadline::of(&MetadataMap::new(), Span::from_millis(70)).left() <= Span::from_millis(70));
    }

    #[tokio::test]
    async fn what_is_ready_is_given_even_when_it_is_late() {
        let over = Deadline(Moment { boot: 0, raw: 0 });
        assert_eq!(over.within(async { 1 }).await, Some(1));
        assert_eq!(over.within(std::future::pending::<()>()).await, None);
    }
}
