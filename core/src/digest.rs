//! The digest: what proves that two tables hold the same heads.
//!
//! A sum modulo 2^256 over all heads, so that a change costs one subtraction and one addition, whatever the size
//! of the table, and the order in which heads came does not matter. The terms are keyed, so that whoever may choose
//! ids cannot aim at a collision of sums.

use core::fmt;

use crate::head::HeadKey;
use crate::words::IdKey;

/// The secret under which heads are hashed for digests.
#[derive(Clone)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// The deployment's: drawn from the secret under which ids are hashed, so that it needs no keeping of its own.
    pub fn new(key: &IdKey) -> DigestKey {
        DigestKey(blake3::derive_key("consent v1 digest of heads", key.bytes()))
    }

    fn term(&self, key: HeadKey, head: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[key.kind().number()]).update(&key.bytes()).update(head);
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(secret)")
    }
}

/// The digest of a table of heads: a 256-bit number, little endian.
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

    /// A head came; `head` is its canonical bytes.
    pub fn add(&mut self, secret: &DigestKey, key: HeadKey, head: &[u8]) {
        let mut carry = false;
        self.each_limb(&secret.term(key, head), |limb, term| {
            let (sum, over) = limb.overflowing_add(term);
            let (sum, more) = sum.overflowing_add(u64::from(carry));
            carry = over || more;
            sum
        });
    }

    /// A head went.
    pub fn remove(&mut self, secret: &DigestKey, key: HeadKey, head: &[u8]) {
        let mut borrow = false;
        self.each_limb(&secret.term(key, head), |limb, term| {
            let (rest, under) = limb.overflowing_sub(term);
            let (rest, more) = rest.overflowing_sub(u64::from(borrow));
            borrow = under || more;
            rest
        });
    }

    // From the least significant one on.
    fn each_limb(&mut self, term: &[u8; 32], mut change: impl FnMut(u64, u64) -> u64) {
        let terms = term.as_chunks::<8>().0;
        for (limb, term) in self.0.as_chunks_mut::<8>().0.iter_mut().zip(terms) {
            *limb = change(u64::from_le_bytes(*limb), u64::from_le_bytes(*term)).to_le_bytes();
        }
    }

    /// A head changed; `before` is none when it is new.
    pub fn replace(&mut self, secret: &DigestKey, key: HeadKey, before: Option<&[u8]>, after: &[u8]) {
        if let Some(before) = before {
            self.remove(secret, key, before);
        }
        self.add(secret, key, after);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}
