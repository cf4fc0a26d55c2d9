//! Canonical bytes: big endian, one encoding per value, and a reader that takes no other.
//!
//! Heads and events are hashed, so two encodings of one value would be two histories. Every encoding starts with
//! the semantics version that it needs: a reader that knows less cannot read it, since a field that it would skip
//! might be a new kind of DENY.

use thiserror::Error;

use crate::words::{Name, Revision, Seconds};

/// The semantics version of heads and events that this build writes, and the newest that it reads.
pub const SEMANTICS: u8 = 1;

/// Why bytes cannot be read. On a node either way a DENY, NOT_READY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// They need a newer reader.
    #[error("needs semantics version {0}, this build reads up to {SEMANTICS}")]
    Newer(u8),
    /// No writer of any version wrote them.
    #[error("is malformed: {0}")]
    Malformed(&'static str),
}

/// Writes canonical bytes.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(room: usize) -> Writer {
        let mut bytes = Vec::with_capacity(room + 1);
        bytes.push(SEMANTICS);
        Writer(bytes)
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.raw(&number.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.raw(&number.to_be_bytes());
    }

    pub(crate) fn seconds(&mut self, seconds: Seconds) {
        self.u32(seconds.get());
    }

    /// 40 bits: [`Revision::MAX`] fits.
    pub(crate) fn revision(&mut self, revision: Revision) {
        self.raw(&revision.get().to_be_bytes()[3..]);
    }

    pub(crate) fn name(&mut self, name: &Name) {
        self.count(name.as_str().len());
        self.raw(name.as_str().as_bytes());
    }

    /// A length that its writer has bounded: lists of names hold at most 62, names 32 bytes.
    pub(crate) fn count(&mut self, count: usize) {
        debug_assert!(count <= usize::from(u8::MAX));
        self.byte(count as u8);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads canonical bytes, and nothing else.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the semantics version.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Reader<'a>, Unreadable> {
        match bytes {
            [] => Err(Unreadable::Malformed("no bytes")),
            [0, ..] => Err(Unreadable::Malformed("semantics version 0")),
            [version, ..] if *version > SEMANTICS => Err(Unreadable::Newer(*version)),
            [_, rest @ ..] => Ok(Reader(rest)),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable::Malformed("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Unreadable> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn key(&mut self) -> Result<[u8; 16], Unreadable> {
        self.take()
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn seconds(&mut self) -> Result<Seconds, Unreadable> {
        self.u32().map(Seconds::new)
    }

    pub(crate) fn revision(&mut self) -> Result<Revision, Unreadable> {
        let [a, b, c, d, e] = self.take()?;
        let number = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        Revision::new(number).ok_or(Unreadable::Malformed("revision"))
    }

    pub(crate) fn name(&mut self) -> Result<Name, Unreadable> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Malformed("too short"))?;
        self.0 = rest;
        let text = core::str::from_utf8(text).map_err(|_| Unreadable::Malformed("name"))?;
        Name::new(text).map_err(|_| Unreadable::Malformed("name"))
    }

    /// A list of at most `maximum` items, each read by `item`.
    pub(crate) fn list<T>(
        &mut self,
        maximum: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let count = usize::from(self.byte()?);
        if count > maximum {
            return Err(Unreadable::Malformed("list too long"));
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// So many items of so many bytes each as their bytes, at most `maximum`.
    pub(crate) fn items<const N: usize>(&mut self, maximum: usize) -> Result<&'a [[u8; N]], Unreadable> {
        let count = usize::from(self.byte()?);
        if count > maximum {
            return Err(Unreadable::Malformed("list too long"));
        }
        let (items, rest) = self.0.split_at_checked(count * N).ok_or(Unreadable::Malformed("too short"))?;
        self.0 = rest;
        Ok(items.as_chunks().0)
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), Unreadable> {
        if self.0.is_empty() { Ok(()) } else { Err(Unreadable::Malformed("too long")) }
    }
}
