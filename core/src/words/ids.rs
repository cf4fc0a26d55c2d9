//! Ids of accounts, organizations and artifacts, and the keyed hashes that stand for them on nodes.
//!
//! An id is opaque: 1 to 128 bytes of UTF-8 without control characters, compared byte for byte, never trimmed,
//! folded or normalised. A node never holds one: it holds the 128-bit SipHash-1-3 of it under a secret that it
//! has from its authority and keeps in memory only. 128 bits, so that two of 10^8 ids collide with a likelihood
//! of about 10^-23; keyed, so that nobody can search for a collision.

use core::fmt;
use core::hash::Hasher;
use siphasher::sip128::{Hasher128, SipHasher13};
use thiserror::Error;

/// The longest id, in bytes.
pub const ID_LEN_MAX: usize = 128;

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadId {
    /// It has no bytes.
    #[error("is empty")]
    Empty,
    /// It has more than [`ID_LEN_MAX`] bytes.
    #[error("has {0} bytes, the most are 128")]
    TooLong(usize),
    /// It has a control character.
    #[error("has a control character at byte {0}")]
    Control(usize),
}

/// Checks that `text` is an id: 1 to 128 bytes without control characters.
pub fn check_id(text: &str) -> Result<(), BadId> {
    match text.len() {
        0 => Err(BadId::Empty),
        n if n > ID_LEN_MAX => Err(BadId::TooLong(n)),
        // Most ids, and millions of them a second: looked at many bytes at once.
        _ if text.bytes().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~')) => Ok(()),
        _ => match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, _)) => Err(BadId::Control(at)),
            None => Ok(()),
        },
    }
}

/// The secret under which ids are hashed: one per deployment, in memory only outside the authority's store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdKey([u8; 16]);

impl IdKey {
    /// The secret with these bytes.
    pub const fn new(bytes: [u8; 16]) -> IdKey {
        IdKey(bytes)
    }

    /// Its bytes, for the store and the sync stream.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key of an account id, without building an [`AccountId`] first: `id` must have passed [`check_id`].
    pub fn account(&self, id: &str) -> AccountKey {
        AccountKey(self.hash(b'a', id))
    }

    /// The key of an organization id.
    pub fn organization(&self, id: &str) -> OrganizationKey {
        OrganizationKey(self.hash(b'o', id))
    }

    /// The key of an artifact id.
    pub fn artifact(&self, id: &str) -> ArtifactKey {
        ArtifactKey(self.hash(b'x', id))
    }

    // The first byte keeps an account and an organization of one name apart.
    fn hash(&self, kind: u8, id: &str) -> [u8; 16] {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_u8(kind);
        hasher.write(id.as_bytes());
        hasher.finish128().as_bytes()
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey(secret)")
    }
}

macro_rules! id_and_key {
    ($id:ident, $key:ident, $what:literal, $method:ident) => {
        #[doc = concat!("The id of ", $what, ": 1 to 128 bytes of UTF-8 without control characters.")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $id(String);

        impl $id {
            /// Takes the text as it is, or says why it is no id.
            pub fn new(text: impl Into<String>) -> Result<$id, BadId> {
                let text = text.into();
                check_id(&text).map(|()| $id(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Its keyed hash.
            pub fn key(&self, key: &IdKey) -> $key {
                key.$method(&self.0)
            }
        }

        // No id in a log line: Debug must not print one by accident.
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($id), "(..)"))
            }
        }

        #[doc = concat!("The 128-bit keyed hash of the id of ", $what, ".")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $key([u8; 16]);

        impl $key {
            /// The key with these bytes.
            pub const fn new(bytes: [u8; 16]) -> $key {
                $key(bytes)
            }

            /// Its bytes.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($key), "({:032x})"), u128::from_be_bytes(self.0))
            }
        }
    };
}

id_and_key!(AccountId, AccountKey, "an account", account);
id_and_key!(OrganizationId, OrganizationKey, "an organization", organization);
id_and_key!(ArtifactId, ArtifactKey, "an artifact", artifact);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_opaque_and_bounded() {
        assert_eq!(check_id(""), Err(BadId::Empty));
        assert_eq!(check_id(&"x".repeat(129)), Err(BadId::TooLong(129)));
        assert_eq!(check_id("a\nb"), Err(BadId::Control(1)));
        assert_eq!(check_id("a\u{85}b"), Err(BadId::Control(1)));
        assert_eq!(check_id(&"é".repeat(64)), Ok(()));
        assert_eq!(check_id(" Ada "), Ok(()));
        for c in ('\0'..='\u{ff}').chain(['\u{2028}', '\u{10ffff}']) {
            assert_eq!(check_id(&format!("a{c}")).is_err(), c.is_control(), "{c:?}");
        }
    }

    #[test]
    fn one_name_in_two_kinds_has_two_keys() {
        let key = IdKey::new([7; 16]);
        assert_ne!(key.account("a").bytes(), key.organization("a").bytes());
        assert_ne!(key.account("a"), IdKey::new([8; 16]).account("a"));
    }
}
