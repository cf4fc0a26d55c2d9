//! Values of flags, each parsed once into a type that cannot be wrong; what is wrong with one is a usage error.

use consent::clock;
use consent::pb;
use consent_core::words::{Span, Timestamp};
use jiff::SignedDuration;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A length of time with its unit: `3s`, `50ms`, `1m 30s`.
pub(crate) fn span(text: &str) -> Result<Span, String> {
    let wrong = || format!("`{text}` is no length of time; write it with its unit, as in 3s or 50ms");
    // "0" alone would be read by nobody as a mistake, yet a number without a unit is one.
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    let nanos = u64::try_from(duration.as_nanos()).map_err(|_| wrong())?;
    Ok(Span::from_nanos(nanos))
}

/// An address of this machine only. There is no TLS yet, and a consent service that anybody on the network may
/// write to is worse than none.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("`{text}` is no ADDRESS:PORT"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!(
            "`{text}` is not a loopback address; connections are not encrypted, so nothing else is served"
        ))
    }
}

/// When an artifact was collected: an RFC 3339 instant, or `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CollectedAt(Timestamp);

impl CollectedAt {
    /// As the contract writes it.
    pub(crate) fn to_proto(self) -> prost_types::Timestamp {
        timestamp(self.0)
    }
}

impl FromStr for CollectedAt {
    type Err = String;

    fn from_str(text: &str) -> Result<CollectedAt, String> {
        if text == "now" {
            return Ok(CollectedAt(clock::wall()));
        }
        let instant: jiff::Timestamp = text
            .parse()
            .map_err(|_| format!("`{text}` is neither `now` nor an instant such as 2026-11-25T07:30:00Z"))?;
        // Rounded down, as the rule does it.
        Ok(CollectedAt(Timestamp::from_millis(instant.as_nanosecond().div_euclid(1_000_000) as i64)))
    }
}

/// A place in the history, as `set` prints it and `check` takes it: EPOCH:REVISION, the epoch in 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    epoch: [u8; 16],
    revision: u64,
}

impl Position {
    /// As the contract writes it.
    pub(crate) fn to_proto(&self) -> pb::Position {
        pb::Position { epoch: self.epoch.to_vec().into(), revision: self.revision }
    }

    /// Reads what a server sent; `None` where the epoch is not 16 bytes.
    pub(crate) fn from_proto(position: &pb::Position) -> Option<Position> {
        let epoch = position.epoch.as_ref().try_into().ok()?;
        Some(Position { epoch, revision: position.revision })
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let parts = text.split_once(':').filter(|(epoch, _)| epoch.len() == 32);
        let parsed = parts.and_then(|(epoch, revision)| {
            let epoch = u128::from_str_radix(epoch, 16).ok()?;
            Some(Position { epoch: epoch.to_be_bytes(), revision: revision.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            format!(
                "`{text}` is no EPOCH:REVISION, with 32 hex digits and a number, as `consent set` prints it"
            )
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}:{}", u128::from_be_bytes(self.epoch), self.revision)
    }
}

/// A wall-clock instant as the contract writes it.
pub(crate) fn timestamp(instant: Timestamp) -> prost_types::Timestamp {
    let millis = instant.millis();
    prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        // A remainder of 1000 fits.
        nanos: millis.rem_euclid(1000) as i32 * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_needs_its_unit() {
        assert_eq!(span("3s"), Ok(Span::from_millis(3000)));
        assert_eq!(span("50ms"), Ok(Span::from_millis(50)));
        assert_eq!(span("1m 30s"), Ok(Span::from_millis(90_000)));
        for wrong in ["", "3", "fast", "-1s", "3 parsecs"] {
            assert!(span(wrong).unwrap_err().contains("unit"), "{wrong:?}");
        }
    }

    #[test]
    fn only_this_machine_is_served() {
        assert!(loopback("127.0.0.1:0").is_ok());
        assert!(loopback("[::1]:7401").is_ok());
        assert!(loopback("0.0.0.0:7401").unwrap_err().contains("loopback"));
        assert!(loopback("localhost:7401").is_err());
    }

    #[test]
    fn an_instant_is_rounded_down_to_milliseconds() {
        let at = |text: &str| text.parse::<CollectedAt>().map(|c| c.0.millis());
        assert_eq!(at("1970-01-01T00:00:01.9999Z"), Ok(1999));
        assert_eq!(at("1969-12-31T23:59:59.9999Z"), Ok(-1));
        assert!(at("yesterday").is_err());
        let proto = "1969-12-31T23:59:59.5Z".parse::<CollectedAt>().unwrap().to_proto();
        assert_eq!((proto.seconds, proto.nanos), (-1, 500_000_000));
    }

    #[test]
    fn a_position_is_read_as_it_is_printed() {
        let text = "000102030405060708090a0b0c0d0e0f:17";
        let position: Position = text.parse().unwrap();
        assert_eq!(position.to_string(), text);
        assert_eq!(Position::from_proto(&position.to_proto()), Some(position));
        for wrong in ["17", "00:17", "000102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0g:1"]
        {
            assert!(wrong.parse::<Position>().is_err(), "{wrong:?}");
        }
    }
}
