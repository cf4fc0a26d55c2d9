//! Ids of accounts, organizations and artifacts, and the keyed hashes that stand for them on nodes.
//!
//! An id is opaque: 1 to 128 bytes of UTF-8 without control characters, compared byte for byte, never trimmed,
//! folded or normalised. A node never holds one: it holds the 128-bit SipHash-1-3 of it under a secret that it
//! has from its authority and keeps in memory only. 128 bits, so that two of 10^8 ids collide with a likelihood
//! of about 10^-23; keyed, so that nobody can search for a collision.

use core::fmt;
use core::hash::Hasher;
use siphasher::sip128::{Hash128, Hasher128, SipHasher13};
use thiserror::Error;

/// The longest id, in bytes.
pub const ID_LEN_MAX: usize = 128;

/// What keeps ids of one name apart: the first byte that is hashed.
const ACCOUNT: u8 = b'a';
const ORGANIZATION: u8 = b'o';
const ARTIFACT: u8 = b'x';

/// The bytes of a UUID's text.
const UUID_LEN: usize = 36;
/// Where in it the two digits of each byte stand, when a byte stands before it.
const UUID_DIGITS: [usize; 16] = [1, 3, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 29, 31, 33, 35];
/// The digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < all.len() {
        all[byte] = [digits[byte / 16], digits[byte % 16]];
        byte += 1;
    }
    all
};

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
#[inline]
pub fn check_id(text: &str) -> Result<(), BadId> {
    match text.len() {
        0 => Err(BadId::Empty),
        n if n > ID_LEN_MAX => Err(BadId::TooLong(n)),
        // Most ids, and millions of them a second.
        _ if is_plain(text) => Ok(()),
        _ => match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, _)) => Err(BadId::Control(at)),
            None => Ok(()),
        },
    }
}

/// Has it only printable characters of ASCII, none of which is a control character? Looked at many bytes at once.
#[inline]
pub fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    match bytes.last_chunk() {
        // The last eight are looked at together, be some of them in the eight before.
        Some(last) => bytes.as_chunks().0.iter().fold(odd(last), |all, eight| all | odd(eight)) == 0,
        None => bytes.iter().all(|byte| matches!(byte, b' '..=b'~')),
    }
}

/// Not zero if one of the bytes is no printable character of ASCII.
#[inline]
const fn odd(bytes: &[u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let word = u64::from_le_bytes(*bytes);
    // The high bit of a byte says so. Borrows and carries begin at an odd byte, so the lowest odd one is always seen;
    // what they spoil above it does not matter any more.
    (word | word.wrapping_sub(ONES * 0x20) | word.wrapping_add(ONES)) & (ONES << 7)
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
    #[inline]
    pub fn account(&self, id: &str) -> AccountKey {
        AccountKey(self.hash(ACCOUNT, id))
    }

    /// The key of an organization id.
    #[inline]
    pub fn organization(&self, id: &str) -> OrganizationKey {
        OrganizationKey(self.hash(ORGANIZATION, id))
    }

    /// The key of an artifact id.
    #[inline]
    pub fn artifact(&self, id: &str) -> ArtifactKey {
        ArtifactKey(self.hash(ARTIFACT, id))
    }

    /// The key of the account whose id is the text of a UUID, in lower case and with hyphens.
    #[inline]
    pub fn account_of(&self, uuid: &[u8; 16]) -> AccountKey {
        AccountKey(self.hash_of(ACCOUNT, uuid))
    }

    /// The key of the artifact whose id is the text of a UUID, in lower case and with hyphens.
    #[inline]
    pub fn artifact_of(&self, uuid: &[u8; 16]) -> ArtifactKey {
        ArtifactKey(self.hash_of(ARTIFACT, uuid))
    }

    #[inline]
    fn hash(&self, kind: u8, id: &str) -> [u8; 16] {
        let mut hasher = self.hasher();
        hasher.write_u8(kind);
        hasher.write(id.as_bytes());
        bytes(hasher.finish128())
    }

    /// What [`IdKey::hash`] gives for the text of the UUID, a third faster than by way of the text.
    #[inline]
    fn hash_of(&self, kind: u8, uuid: &[u8; 16]) -> [u8; 16] {
        let mut text = [b'-'; 1 + UUID_LEN];
        text[0] = kind;
        for (byte, at) in uuid.iter().zip(UUID_DIGITS) {
            [text[at], text[at + 1]] = HEX[usize::from(*byte)];
        }
        bytes(self.hasher().hash(&text))
    }

    #[inline]
    fn hasher(&self) -> SipHasher13 {
        // Not by `new_with_key`, which is a call.
        let key = u128::from_le_bytes(self.0);
        SipHasher13::new_with_keys(key as u64, (key >> 64) as u64)
    }
}

// Not by `as_bytes`, which is a call.
#[inline]
fn bytes(Hash128 { h1, h2 }: Hash128) -> [u8; 16] {
    (u128::from(h2) << 64 | u128::from(h1)).to_le_bytes()
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
            #[inline]
            pub const fn new(bytes: [u8; 16]) -> $key {
                $key(bytes)
            }

            /// Its bytes.
            #[inline]
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
    fn a_control_character_is_found_wherever_it_stands() {
        let plain: String = (0..ID_LEN_MAX).map(|n| char::from(b' ' + (n % 95) as u8)).collect();
        for length in 1..=40 {
            let id = &plain[..length];
            assert!(is_plain(id) && is_plain(&plain[ID_LEN_MAX - length..]));
            for place in 0..length {
                let odd = |c: char| format!("{}{c}{}", &id[..place], &id[place + 1..]);
                for control in ['\0', '\n', '\u{1f}', '\u{7f}'] {
                    assert_eq!(check_id(&odd(control)), Err(BadId::Control(place)), "{length}, {control:?}");
                }
                assert_eq!(check_id(&odd('\u{80}')), Err(BadId::Control(place)));
                assert_eq!((is_plain(&odd('é')), check_id(&odd('é'))), (false, Ok(())));
            }
        }
    }

    #[test]
    fn a_key_is_what_it_always_was() {
        let key = IdKey::new([7; 16]).account("ada");
        assert_eq!(format!("{key:?}"), "AccountKey(8c9ed9deea5a77b085c771e9f8ecbb77)");
    }

    #[test]
    fn a_uuid_has_the_key_of_its_text() {
        let key = IdKey::new([7; 16]);
        let uuid =
            [0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0, 0xa7, 0x65, 0, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6];
        let text = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        assert_eq!(key.account_of(&uuid), key.account(text));
        assert_eq!(key.artifact_of(&uuid), key.artifact(text));
    }

    #[test]
    fn one_name_in_two_kinds_has_two_keys() {
        let key = IdKey::new([7; 16]);
        assert_ne!(key.account("a").bytes(), key.organization("a").bytes());
        assert_ne!(key.account("a"), IdKey::new([8; 16]).account("a"));
    }
}
