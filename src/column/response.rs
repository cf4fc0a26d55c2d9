//! The answers to a message of a corpus: [`StreamCanTrainResponse`] of the contract, encoded a column at a time.
//!
//! What is generated writes number by number, which takes as long as half of a decision. Every number that there is
//! takes one byte, so a column is its numbers' bytes, and is written as a whole. A number of a newer contract may be
//! larger: a column with such a one is written as it would be generated.

use crate::pb;
use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, bool as flag, encode_key, encode_varint, encoded_len_varint, int32, key_len,
    message, skip_field,
};

const NAME: &str = "StreamCanTrainResponse";
const DECISIONS: u32 = 1;
const REASONS: u32 = 2;
const FINALS: u32 = 3;
const POSITION: u32 = 4;
const VALID_FOR: u32 = 5;

/// The answers to one message, in columns: item n of every column is of the n-th artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StreamCanTrainResponse {
    /// What to do with each: numbers of [`pb::Decision`].
    pub decisions: Vec<i32>,
    /// The one reason that decided, for each: numbers of [`pb::Reason`].
    pub reasons: Vec<i32>,
    /// Whether waiting cannot change a DENY, for each.
    pub finals: Vec<bool>,
    /// A floor: none of them was decided from an older state.
    pub position: Option<pb::Position>,
    /// For how long every ALLOW among them may be relied on.
    pub valid_for: Option<prost_types::Duration>,
}

impl StreamCanTrainResponse {
    /// The reasons that this version knows.
    pub fn reasons(&self) -> impl Iterator<Item = pb::Reason> {
        self.reasons.iter().filter_map(|number| pb::Reason::try_from(*number).ok())
    }
}

/// Does each take one byte?
fn are_small(numbers: &[i32]) -> bool {
    numbers.iter().fold(0, |all, number| all | number) & !0x7f == 0
}

fn numbers_len(tag: u32, numbers: &[i32]) -> usize {
    if are_small(numbers) { small_len(tag, numbers.len()) } else { int32::encoded_len_packed(tag, numbers) }
}

const fn small_len(tag: u32, count: usize) -> usize {
    if count == 0 { 0 } else { key_len(tag) + encoded_len_varint(count as u64) + count }
}

fn put_numbers(tag: u32, numbers: &[i32], to: &mut impl BufMut) {
    if are_small(numbers) {
        put_small(tag, numbers, |number| *number as u8, to);
    } else {
        int32::encode_packed(tag, numbers, to);
    }
}

/// A column of numbers that take one byte each.
fn put_small<T>(tag: u32, numbers: &[T], byte: impl Fn(&T) -> u8, to: &mut impl BufMut) {
    if numbers.is_empty() {
        return;
    }
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(numbers.len() as u64, to);
    let mut bytes = [0; 512];
    for numbers in numbers.chunks(bytes.len()) {
        let bytes = &mut bytes[..numbers.len()];
        bytes.iter_mut().zip(numbers).for_each(|(to, number)| *to = byte(number));
        to.put_slice(bytes);
    }
}

impl prost::Message for StreamCanTrainResponse {
    fn encode_raw(&self, to: &mut impl BufMut) {
        put_numbers(DECISIONS, &self.decisions, to);
        put_numbers(REASONS, &self.reasons, to);
        put_small(FINALS, &self.finals, |is_final| u8::from(*is_final), to);
        if let Some(position) = &self.position {
            message::encode(POSITION, position, to);
        }
        if let Some(valid_for) = &self.valid_for {
            message::encode(VALID_FOR, valid_for, to);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (field, merged) = match tag {
            DECISIONS => ("decisions", int32::merge_repeated(wire_type, &mut self.decisions, from, context)),
            REASONS => ("reasons", int32::merge_repeated(wire_type, &mut self.reasons, from, context)),
            FINALS => ("finals", flag::merge_repeated(wire_type, &mut self.finals, from, context)),
            POSITION => {
                let position = self.position.get_or_insert_default();
                ("position", message::merge(wire_type, position, from, context))
            }
            VALID_FOR => {
                let valid_for = self.valid_for.get_or_insert_default();
                ("valid_for", message::merge(wire_type, valid_for, from, context))
            }
            _ => return skip_field(wire_type, tag, from, context),
        };
        merged.map_err(|mut error| {
            error.push(NAME, field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let position = self.position.as_ref().map_or(0, |position| message::encoded_len(POSITION, position));
        let valid_for = self.valid_for.as_ref().map_or(0, |span| message::encoded_len(VALID_FOR, span));
        numbers_len(DECISIONS, &self.decisions)
            + numbers_len(REASONS, &self.reasons)
            + small_len(FINALS, self.finals.len())
            + position
            + valid_for
    }

    fn clear(&mut self) {
        *self = StreamCanTrainResponse::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::damage::Damage;
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    /// What would be generated.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(enumeration = "pb::Decision", repeated, tag = "1")]
        decisions: Vec<i32>,
        #[prost(enumeration = "pb::Reason", repeated, tag = "2")]
        reasons: Vec<i32>,
        #[prost(bool, repeated, tag = "3")]
        finals: Vec<bool>,
        #[prost(message, optional, tag = "4")]
        position: Option<pb::Position>,
        #[prost(message, optional, tag = "5")]
        valid_for: Option<prost_types::Duration>,
    }

    fn own(generated: Generated) -> StreamCanTrainResponse {
        let Generated { decisions, reasons, finals, position, valid_for } = generated;
        StreamCanTrainResponse { decisions, reasons, finals, position, valid_for }
    }

    /// Mostly numbers of this contract; now and then one of another, and the first ones that take two bytes.
    fn numbers() -> impl Strategy<Value = Vec<i32>> {
        let small = prop::collection::vec(0..=127, 0..1200);
        let any = prop::collection::vec(prop_oneof![18 => 0..=24, 1 => 126..=258, 1 => any::<i32>()], 0..20);
        prop_oneof![small, any]
    }

    prop_compose! {
        fn answers()(
            decisions in numbers(),
            reasons in numbers(),
            finals in prop::collection::vec(any::<bool>(), 0..1200),
            position in prop::option::of((prop::collection::vec(any::<u8>(), 0..17), any::<u64>())),
            valid_for in prop::option::of((any::<i64>(), any::<i32>())),
        ) -> Generated {
            let position = position.map(|(epoch, revision)| pb::Position { epoch: epoch.into(), revision });
            let valid_for = valid_for.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            Generated { decisions, reasons, finals, position, valid_for }
        }
    }

    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        let expected = Generated::decode(bytes).map(own).map_err(|error| error.to_string());
        let read = StreamCanTrainResponse::decode(bytes).map_err(|error| error.to_string());
        prop_assert_eq!(read, expected.map_err(|error| error.replace("Generated", NAME)));
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_on_the_wire_what_would_be_generated(
            answers in answers(),
            damage in Damage::any(),
        ) {
            let bytes = answers.encode_to_vec();
            let written = own(answers).encode_to_vec();
            prop_assert_eq!(&written, &bytes);
            agrees(&bytes)?;
            // With a field that nobody knows, and every column in two parts; spoiled; torn.
            agrees(&[&bytes[..], &[0x7a, 2, 7, 7], &bytes[..]].concat())?;
            agrees(&damage.done_to(bytes))?;
        }
    }
}
