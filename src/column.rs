//! A column of ids as a message carries it: [`IdColumn`] of the contract, decoded without an allocation an id.
//!
//! What is generated for `repeated string` allocates for every id, which takes longer than to decide about it, and
//! makes of a message of empty texts one that needs twelve times its length in memory. Here the texts of a column lie
//! one after the other. On the wire nothing differs, and a property test holds it to what would be generated.

#[cfg(test)]
mod damage;
mod response;

pub use response::StreamCanTrainResponse;

use bytes::{Buf, BufMut, Bytes};
use consent_core::words::ids::is_plain;
use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, bytes as octets, encode_key, encode_varint, encoded_len_varint, key_len,
    skip_field, string,
};
use std::fmt;

const NAME: &str = "IdColumn";
const TEXTS: u32 = 1;
const UUIDS: u32 = 2;

/// The ids of the items of a message, in order: `consent.v1.IdColumn`, as unchecked as it comes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct IdColumn {
    /// Ids as text.
    pub texts: Texts,
    /// Ids as UUIDs of 16 bytes each, one after the other.
    pub uuids: Bytes,
}

/// Texts in order, in one piece of memory.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Texts {
    all: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl IdColumn {
    /// A column of texts.
    pub fn of_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> IdColumn {
        IdColumn { texts: texts.into_iter().collect(), uuids: Bytes::new() }
    }

    /// A column of UUIDs: 16 bytes each.
    pub fn of_uuids(uuids: impl IntoIterator<Item = [u8; 16]>) -> IdColumn {
        let uuids: Vec<u8> = uuids.into_iter().flatten().collect();
        IdColumn { texts: Texts::default(), uuids: uuids.into() }
    }
}

impl Texts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Do all have 1 to `longest` bytes, and none but printable characters of ASCII? Looked at in one go.
    pub fn are_plain(&self, longest: usize) -> bool {
        let mut start = 0;
        let mut lengths = self.ends.iter().map(|end| end - std::mem::replace(&mut start, *end));
        lengths.all(|length| (1..=longest).contains(&length)) && is_plain(&self.all)
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.all.get(start..end)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| self.all.get(std::mem::replace(&mut start, *end)..*end).unwrap_or(""))
    }

    /// One more.
    pub fn push(&mut self, text: &str) {
        self.all.push_str(text);
        self.ends.push(self.all.len());
    }

    fn merge_one(
        &mut self,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // A length of one byte, and its text in one piece: nearly always.
        let text = match from.chunk() {
            [length @ ..=0x7f, rest @ ..] => rest.get(..usize::from(*length)),
            _ => None,
        };
        match text.and_then(|text| str::from_utf8(text).ok()) {
            Some(text) if wire_type == WireType::LengthDelimited => {
                self.push(text);
                let length = 1 + text.len();
                from.advance(length);
            }
            Some(_) | None => {
                let mut text = String::new();
                string::merge(wire_type, &mut text, from, context)?;
                self.push(&text);
            }
        }
        Ok(())
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Texts {
        let mut all = Texts::default();
        texts.into_iter().for_each(|text| all.push(text.as_ref()));
        all
    }
}

// No id in a log line.
impl fmt::Debug for IdColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdColumn { texts, uuids } = self;
        f.debug_struct(NAME).field("texts", texts).field("uuids_len", &uuids.len()).finish()
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Texts({} of them)", self.len())
    }
}

impl prost::Message for IdColumn {
    fn encode_raw(&self, to: &mut impl BufMut) {
        for text in self.texts.iter() {
            encode_key(TEXTS, WireType::LengthDelimited, to);
            encode_varint(text.len() as u64, to);
            to.put_slice(text.as_bytes());
        }
        if !self.uuids.is_empty() {
            octets::encode(UUIDS, &self.uuids, to);
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
            TEXTS => ("texts", self.texts.merge_one(wire_type, from, context)),
            UUIDS => ("uuids", octets::merge(wire_type, &mut self.uuids, from, context)),
            _ => return skip_field(wire_type, tag, from, context),
        };
        merged.map_err(|mut error| {
            error.push(NAME, field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let text = |text: &str| key_len(TEXTS) + encoded_len_varint(text.len() as u64) + text.len();
        let uuids = if self.uuids.is_empty() { 0 } else { octets::encoded_len(UUIDS, &self.uuids) };
        self.texts.iter().map(text).sum::<usize>() + uuids
    }

    fn clear(&mut self) {
        *self = IdColumn::default();
    }
}

#[cfg(test)]
mod tests {
    use super::damage::Damage;
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    /// What would be generated.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(string, repeated, tag = "1")]
        texts: Vec<String>,
        #[prost(bytes = "bytes", tag = "2")]
        uuids: Bytes,
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![9 => ".{0,40}", 1 => "[a-zé]{120,200}", 1 => Just(String::new())]
    }

    /// Does it decode, or fail, as what would be generated does, however the bytes come?
    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        let expected = Generated::decode(bytes).map_err(|error| error.to_string().replace("Generated", NAME));
        let half = bytes.len() / 2;
        let read = [IdColumn::decode(bytes), IdColumn::decode(bytes[..half].chain(&bytes[half..]))];
        for read in read {
            let read = read.map_err(|error| error.to_string());
            let read = read.map(|column| {
                let texts: Vec<String> = column.texts.iter().map(str::to_owned).collect();
                let one_by_one: Vec<&str> = (0..).map_while(|index| column.texts.get(index)).collect();
                assert_eq!(
                    (&one_by_one[..], column.texts.len()),
                    (&texts.iter().map(String::as_str).collect::<Vec<_>>()[..], texts.len())
                );
                assert_eq!(column.encode_to_vec().len(), column.encoded_len());
                Generated { texts, uuids: column.uuids }
            });
            prop_assert_eq!(&read, &expected);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_on_the_wire_what_would_be_generated(
            texts in prop::collection::vec(text(), 0..8),
            uuids in prop::collection::vec(any::<u8>(), 0..50),
            damage in Damage::any(),
        ) {
            let column = IdColumn { texts: texts.iter().collect(), uuids: uuids.clone().into() };
            let generated = Generated { texts, uuids: uuids.into() };
            let bytes = generated.encode_to_vec();
            prop_assert_eq!(&column.encode_to_vec(), &bytes);
            agrees(&bytes)?;
            // In two halves, as one field may come; with a field that nobody knows; spoiled; torn.
            agrees(&[&bytes[..], &[0x1a, 2, 7, 7], &bytes[..]].concat())?;
            agrees(&damage.done_to(bytes))?;
        }

        #[test]
        fn whatever_bytes_come_both_say_the_same(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            agrees(&bytes)?;
        }
    }

    #[test]
    fn no_id_is_printed() {
        let column = IdColumn::of_texts(["ada", "ben"]);
        let printed = format!("{column:?}");
        assert!(printed.contains("2 of them") && !printed.contains("ada"), "{printed}");
    }
}
