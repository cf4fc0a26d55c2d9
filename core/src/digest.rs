//! The digest: what proves that two tables hold the same heads.
//!
//! A sum modulo 2^256 over all heads, so that a change costs one subtraction and one addition, whatever the size
//! of the table, and the order in which heads came does not matter.

use core::fmt;

/// The digest of a table of heads.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of an empty table.
    pub const EMPTY: Digest = Digest([0; 32]);

    /// The digest with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The digest with these bytes, if they are 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Digest> {
        bytes.try_into().ok().map(Digest)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}
