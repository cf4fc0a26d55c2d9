//! Where something stands: revision, epoch, position; and the random names that the ledger uses for others.

use core::fmt;

/// The dense, gap-free, commit-ordered number of an event: 1, 2, 3 ... [`Revision::ZERO`] is the empty ledger.
///
/// Nobody adds to a revision: it has a next one, and an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first event.
    pub const ZERO: Revision = Revision(0);
    /// The last revision that an encoded head can hold: 40 bits, 1,000 events a second for 34 years.
    pub const MAX: Revision = Revision((1 << 40) - 1);

    /// The revision with this number, if it is at most [`Revision::MAX`].
    pub const fn new(number: u64) -> Option<Revision> {
        if number <= Revision::MAX.0 { Some(Revision(number)) } else { None }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one; `None` after the last.
    pub const fn next(self) -> Option<Revision> {
        Revision::new(self.0 + 1)
    }

    /// Is this the revision right after `earlier`?
    pub const fn follows(self, earlier: Revision) -> bool {
        self.0 == earlier.0 + 1
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a keepalive. One sidecar incarnation never uses one twice, and counts upward (R4, R12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

macro_rules! random_name {
    ($name:ident, $($doc:literal),+) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The name with these bytes. Random ones come from whoever may draw: never from this crate.
            pub const fn new(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// The name with these bytes, if they are 16.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }

            /// Its bytes.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }
    };
}

random_name!(
    Epoch,
    "The random name of one incarnation of the ledger, compared only for equality. A new one is minted at",
    "failover, restore and adoption (R9)."
);
random_name!(
    Incarnation,
    "The random name of one run of a process, authority or sidecar: new at every start, never reused (R2, R4)."
);
random_name!(
    Subject,
    "The random name that events use for an account, an organization or an artifact. Which one it names stands",
    "in erasable tables, so that erasing a person leaves the chain whole."
);

/// A place in the history: what a write returns, and what an answer was decided from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The incarnation of the ledger.
    pub epoch: Epoch,
    /// The revision in it.
    pub revision: Revision,
}
