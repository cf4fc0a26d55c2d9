//! Between the wire and the core: the only place where UNSPECIFIED exists.
//!
//! What comes in is checked here, once: every refusal names the field in the words of `proto/`. What went through
//! has a type that cannot be wrong. An unknown enum number, an id with a control character, a time that no calendar
//! has: each is [`Refusal::Invalid`], and none gets into a batch.

pub mod account;
pub mod answer;
pub mod columns;
pub mod consent;
pub mod decision;
pub mod event;
pub mod policy;
pub mod sync;

use crate::pb;
use consent_core::chain::Chain;
use consent_core::refusal::Refusal;
use consent_core::words::ids::check_id;
use consent_core::words::{Epoch, Name, Position, Revision, Seconds, Span, Timestamp};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The field is wrong; `problem` follows "the field".
#[cold]
pub fn invalid(field: impl Into<String>, problem: impl Display) -> Refusal {
    Refusal::Invalid { field: field.into(), problem: problem.to_string() }
}

/// The field, which must be there.
#[inline]
pub fn present<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, Refusal> {
    value.ok_or_else(|| invalid(field, "is missing"))
}

/// The text, if it is an id.
pub fn id<'a>(field: &str, text: &'a str) -> Result<&'a str, Refusal> {
    check_id(text).map(|()| text).map_err(|problem| invalid(field, problem))
}

/// The name that the text is.
pub fn name(field: &str, text: &str) -> Result<Name, Refusal> {
    Name::new(text).map_err(|problem| invalid(field, problem))
}

/// The revision with this number.
pub fn revision(field: &str, number: u64) -> Result<Revision, Refusal> {
    Revision::new(number).ok_or_else(|| invalid(field, format_args!("is more than {}", Revision::MAX)))
}

/// The position, whose epoch has 16 bytes.
pub fn position(field: &str, position: &pb::Position) -> Result<Position, Refusal> {
    let length = position.epoch.len();
    let epoch = Epoch::from_slice(&position.epoch).ok_or_else(|| {
        invalid(format!("{field}.epoch"), format_args!("has {length} bytes, it must have 16"))
    })?;
    Ok(Position { epoch, revision: revision(&format!("{field}.revision"), position.revision)? })
}

/// The chain, which has 32 bytes.
pub fn chain(field: &str, bytes: &[u8]) -> Result<Chain, Refusal> {
    Chain::from_slice(bytes)
        .ok_or_else(|| invalid(field, format_args!("has {} bytes, it must have 32", bytes.len())))
}

/// Years 1 to 9999, in Unix seconds: only what lies in them is an instant, as protobuf defines it.
const YEARS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The instant, in whole milliseconds, rounded down; `None`: it is none.
#[inline]
fn instant(time: &prost_types::Timestamp) -> Option<Timestamp> {
    let is_one = YEARS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    is_one.then(|| Timestamp::from_millis(time.seconds * 1000 + i64::from(time.nanos / 1_000_000)))
}

/// The instant, in whole milliseconds, rounded down, or what is wrong with it.
#[inline]
pub fn timestamp(field: &str, time: &prost_types::Timestamp) -> Result<Timestamp, Refusal> {
    instant(time).ok_or_else(|| {
        if YEARS.contains(&time.seconds) {
            invalid(format!("{field}.nanos"), "is not from 0 to 999999999")
        } else {
            invalid(format!("{field}.seconds"), "is not in the years 1 to 9999")
        }
    })
}

impl From<Position> for pb::Position {
    fn from(position: Position) -> pb::Position {
        pb::Position { epoch: position.epoch.bytes().to_vec().into(), revision: position.revision.get() }
    }
}

/// The instant on the wire.
pub fn to_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.millis();
    // Both remainders are below their divisors, so neither cast can lose anything.
    #[allow(clippy::cast_possible_truncation, reason = "below a thousand million")]
    let nanos = (millis.rem_euclid(1000) * 1_000_000) as i32;
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

/// A stored instant on the wire; absent where it means never.
pub fn to_instant(seconds: Seconds) -> Option<prost_types::Timestamp> {
    let never = seconds == Seconds::ZERO || seconds == Seconds::NEVER;
    (!never).then(|| prost_types::Timestamp { seconds: i64::from(seconds.get()), nanos: 0 })
}

/// The span, which is not negative. One of more than 584 years is as long as a span can be.
pub fn span(field: &str, wire: &prost_types::Duration) -> Result<Span, Refusal> {
    Duration::try_from(*wire).map(Into::into).map_err(|_| invalid(field, "must not be negative"))
}

/// The span on the wire.
pub fn to_duration(span: Span) -> prost_types::Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below their divisors")]
    let (seconds, nanos) = ((span.nanos() / 1_000_000_000) as i64, (span.nanos() % 1_000_000_000) as i32);
    prost_types::Duration { seconds, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong<T>(result: Result<T, Refusal>) -> String {
        match result {
            Err(Refusal::Invalid { field, .. }) => field,
            Err(other) => panic!("{other:?} names no field"),
            Ok(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_time_that_no_calendar_has_is_refused() {
        let time = |seconds, nanos| timestamp("at", &prost_types::Timestamp { seconds, nanos });
        let table = [
            ("nothing", 0, 0),
            ("nothing", -62_135_596_800, 0),
            ("at.seconds", -62_135_596_801, 0),
            ("nothing", 253_402_300_799, 999_999_999),
            ("at.seconds", 253_402_300_800, 0),
            ("at.seconds", i64::MAX, 0),
            ("at.seconds", i64::MIN, 0),
            ("at.nanos", 0, -1),
            ("at.nanos", 0, 1_000_000_000),
            ("at.nanos", 0, i32::MIN),
        ];
        for (field, seconds, nanos) in table {
            assert_eq!(wrong(time(seconds, nanos)), field, "{seconds} s, {nanos} ns");
        }
    }

    #[test]
    fn a_time_is_floored_to_milliseconds_and_comes_back() {
        let time = |seconds, nanos| timestamp("at", &prost_types::Timestamp { seconds, nanos }).unwrap();
        assert_eq!(time(1, 999_999), Timestamp::from_millis(1_000));
        assert_eq!(time(-1, 999_999_999), Timestamp::from_millis(-1));
        for millis in [0, 1, -1, -1_500, 1_700_000_000_123] {
            let there = to_timestamp(Timestamp::from_millis(millis));
            assert_eq!(timestamp("at", &there), Ok(Timestamp::from_millis(millis)));
        }
    }

    #[test]
    fn an_instant_that_never_comes_is_absent() {
        assert_eq!(to_instant(Seconds::ZERO), None);
        assert_eq!(to_instant(Seconds::NEVER), None);
        assert_eq!(to_instant(Seconds::new(401)).map(|at| (at.seconds, at.nanos)), Some((401, 0)));
    }

    #[test]
    fn a_position_is_whole_or_refused() {
        let of = |epoch: &'static [u8], revision| pb::Position { epoch: epoch.into(), revision };
        let good = of(&[1; 16], 7);
        assert_eq!(position("position", &good).map(pb::Position::from), Ok(good));
        assert_eq!(wrong(position("position", &of(&[], 7))), "position.epoch");
        assert_eq!(wrong(position("position", &of(&[1; 17], 7))), "position.epoch");
        assert_eq!(wrong(position("position", &of(&[1; 16], 1 << 40))), "position.revision");
        assert_eq!(wrong(chain("chain", &[0; 31])), "chain");
        assert_eq!(wrong(chain("chain", &[0; 32])), "nothing");
    }

    #[test]
    fn a_span_is_split_into_seconds_and_nanoseconds() {
        let there = to_duration(Span::from_nanos(3_000_000_007));
        assert_eq!((there.seconds, there.nanos), (3, 7));
        assert_eq!(span("span", &there), Ok(Span::from_nanos(3_000_000_007)));
        assert_eq!(wrong(span("span", &prost_types::Duration { seconds: 0, nanos: -1 })), "span");
        let ages = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        assert_eq!(span("span", &ages), Ok(Span::from_nanos(u64::MAX)));
    }
}
