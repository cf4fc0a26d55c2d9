//! The chain: what proves that two ledgers, or a ledger and a table, share a history up to a revision.
//!
//! `chain(r) = BLAKE3(chain(r-1), link(r))`, where `link(r)` is the hash of event r. A node checks the chain from
//! the 32 bytes of the link and never sees the event. An epoch is a hint (a restored disk image keeps it); the
//! chain is the proof: a position that matters is (revision, chain), never a bare number.

use core::fmt;

// A hash that is made under one of these contexts can be nothing else of ours.
const CHAIN_CONTEXT: &str = "consent v1 chain of the ledger";
const LINK_CONTEXT: &str = "consent v1 link of the ledger";

macro_rules! hash_of_32_bytes {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The one with these bytes.
            pub const fn new(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }

            /// The one with these bytes, if they are 32.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }

            /// Its bytes.
            pub const fn bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("..)")
            }
        }
    };
}

hash_of_32_bytes!(Chain, "The chain after a revision: it names one history up to there.");
hash_of_32_bytes!(Link, "The hash of one event: what it adds to the chain.");

impl Link {
    /// The link of an event, from its canonical bytes: [`Recorded::encode`](crate::event::Recorded::encode).
    pub fn of(event: &[u8]) -> Link {
        Link(*blake3::Hasher::new_derive_key(LINK_CONTEXT).update(event).finalize().as_bytes())
    }
}

impl Chain {
    /// The chain of the empty ledger.
    pub const EMPTY: Chain = Chain([0; 32]);

    /// The chain after one more event.
    #[must_use]
    pub fn then(self, link: Link) -> Chain {
        let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
        hasher.update(&self.0).update(&link.0);
        Chain(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_depends_on_every_link_and_on_their_order() {
        let (a, b) = (Link::new([1; 32]), Link::new([2; 32]));
        assert_ne!(Chain::EMPTY.then(a).then(b), Chain::EMPTY.then(b).then(a));
        assert_ne!(Chain::EMPTY.then(a), Chain::EMPTY);
        assert_eq!(Chain::EMPTY.then(a).then(b), Chain::EMPTY.then(a).then(b));
    }
}
