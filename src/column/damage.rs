//! What may happen to a message on its way, for tests of what reads it: whoever decodes by hand must say of damaged
//! bytes what the generated code says.

use proptest::prelude::*;
use proptest::sample::Index;

/// A byte that became another one, and an end that came too early.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    byte: Option<(Index, u8)>,
    end: Option<Index>,
}

impl Damage {
    /// Any of it, or none.
    pub(crate) fn any() -> impl Strategy<Value = Damage> {
        let (byte, end) = (prop::option::of(any::<(Index, u8)>()), prop::option::of(any::<Index>()));
        (byte, end).prop_map(|(byte, end)| Damage { byte, end })
    }

    /// What becomes of these bytes.
    pub(crate) fn done_to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some((at, byte)) = &self.byte
            && !bytes.is_empty()
        {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(end) = &self.end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    }
}
