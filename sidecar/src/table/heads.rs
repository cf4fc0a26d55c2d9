//! A set of heads with its own digest.
//!
//! The set keeps the digest itself, from the canonical bytes of what it holds: a head that was corrupted on its way
//! or in memory shows as soon as somebody says what the digest should be.

use consent_core::decision::NotReady;
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{AccountHead, Head, HeadKey, HeadKind, OrganizationHead, PolicyHead, Unreadable};
use consent_core::ledger::HeadRecord;
use consent_core::words::{AccountKey, ArtifactKey, IdKey, OrganizationKey, Revision};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

static EMPTY_POLICY: PolicyHead = PolicyHead::empty();

/// A head as held.
#[derive(Debug)]
enum Held {
    /// It can be read.
    Head(Head),
    /// It needs a newer reader: kept, since the digest counts it, and whoever needs it is denied.
    Unreadable {
        /// Its bytes.
        bytes: Vec<u8>,
        /// The revision at which it was so: its own is in the bytes that cannot be read.
        as_of: Revision,
    },
}

impl Held {
    fn rev(&self) -> Revision {
        match self {
            Held::Head(head) => head.rev(),
            Held::Unreadable { as_of, .. } => *as_of,
        }
    }

    // There is one encoding per value, so what is held need not keep the bytes that it came in.
    fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Held::Head(head) => head.encode().into(),
            Held::Unreadable { bytes, .. } => bytes.into(),
        }
    }
}

/// A head on its way into a table: read, or found to need a newer reader.
#[derive(Debug)]
pub(crate) struct Incoming {
    key: HeadKey,
    bytes: Vec<u8>,
    held: Held,
}

impl Incoming {
    /// Reads a head as it was at revision `as_of`. Bytes that no writer of any version wrote are an error.
    pub(crate) fn read(record: HeadRecord, as_of: Revision) -> Result<Incoming, Unreadable> {
        let HeadRecord { key, bytes } = record;
        let held = match Head::decode(key.kind(), &bytes) {
            Ok(head) => Held::Head(head),
            Err(Unreadable::Newer(_)) => Held::Unreadable { bytes: bytes.clone(), as_of },
            Err(malformed @ Unreadable::Malformed(_)) => return Err(malformed),
        };
        Ok(Incoming { key, bytes, held })
    }

    /// The head as it came.
    pub(crate) fn record(&self) -> HeadRecord {
        HeadRecord { key: self.key, bytes: self.bytes.clone() }
    }
}

/// Heads, and the digest of them.
#[derive(Debug)]
pub(crate) struct Heads {
    id_key: IdKey,
    digest_key: DigestKey,
    digest: Digest,
    held: HashMap<HeadKey, Held>,
    accounts: u64,
}

impl Heads {
    /// No heads yet, of a deployment that hashes ids under this secret.
    pub(crate) fn new(id_key: IdKey) -> Heads {
        let digest_key = DigestKey::new(&id_key);
        Heads { id_key, digest_key, digest: Digest::EMPTY, held: HashMap::new(), accounts: 0 }
    }

    /// The secret under which the keys of these heads were made.
    pub(crate) fn id_key(&self) -> &IdKey {
        &self.id_key
    }

    /// The digest of what is held.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// How many accounts are held.
    pub(crate) fn accounts(&self) -> u64 {
        self.accounts
    }

    /// How many heads are held.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.held.len()).unwrap_or(u64::MAX)
    }

    /// The heads whose keys begin with this byte: one of 256 parts of the table.
    pub(crate) fn part(&self, first: u8) -> impl Iterator<Item = HeadRecord> {
        let part = self.held.iter().filter(move |(key, _)| key.bytes()[0] == first);
        part.map(|(key, held)| HeadRecord { key: *key, bytes: held.bytes().into_owned() })
    }

    /// The digest there would be with this head in its place.
    pub(crate) fn digest_with(&self, incoming: &Incoming) -> Digest {
        let mut digest = self.digest;
        let before = self.held.get(&incoming.key).map(Held::bytes);
        digest.replace(&self.digest_key, incoming.key, before.as_deref(), &incoming.bytes);
        digest
    }

    /// Puts a head in its place; `digest` is what [`Heads::digest_with`] gave for it.
    pub(crate) fn put(&mut self, incoming: Incoming, digest: Digest) {
        self.digest = digest;
        match self.held.entry(incoming.key) {
            Entry::Occupied(mut held) => drop(held.insert(incoming.held)),
            Entry::Vacant(place) => {
                place.insert(incoming.held);
                self.accounts += u64::from(incoming.key.kind() == HeadKind::Account);
            }
        }
    }

    /// Puts a head in its place, unless a newer one is there: pages of a snapshot and frames come interleaved.
    pub(crate) fn put_if_newer(&mut self, incoming: Incoming) {
        let is_newer = |held: &Held| incoming.held.rev() > held.rev();
        if self.held.get(&incoming.key).is_none_or(is_newer) {
            let digest = self.digest_with(&incoming);
            self.put(incoming, digest);
        }
    }

    /// The policy; the empty one before the first publication.
    pub(crate) fn policy(&self) -> Result<&PolicyHead, NotReady> {
        match self.get(HeadKey::Policy)? {
            None => Ok(&EMPTY_POLICY),
            Some(Head::Policy(head)) => Ok(head),
            Some(Head::Organization(_) | Head::Account(_) | Head::Exclusion(_)) => Err(NotReady),
        }
    }

    /// An account's head.
    pub(crate) fn account(&self, key: AccountKey) -> Result<Option<&AccountHead>, NotReady> {
        match self.get(HeadKey::Account(key))? {
            None => Ok(None),
            Some(Head::Account(head)) => Ok(Some(head)),
            Some(Head::Policy(_) | Head::Organization(_) | Head::Exclusion(_)) => Err(NotReady),
        }
    }

    /// An organization's head.
    pub(crate) fn organization(&self, key: OrganizationKey) -> Result<Option<&OrganizationHead>, NotReady> {
        match self.get(HeadKey::Organization(key))? {
            None => Ok(None),
            Some(Head::Organization(head)) => Ok(Some(head)),
            Some(Head::Policy(_) | Head::Account(_) | Head::Exclusion(_)) => Err(NotReady),
        }
    }

    /// Is the artifact excluded?
    pub(crate) fn is_excluded(&self, key: ArtifactKey) -> Result<bool, NotReady> {
        self.get(HeadKey::Exclusion(key)).map(|head| head.is_some())
    }

    fn get(&self, key: HeadKey) -> Result<Option<&Head>, NotReady> {
        match self.held.get(&key) {
            None => Ok(None),
            Some(Held::Head(head)) => Ok(Some(head)),
            Some(Held::Unreadable { .. }) => Err(NotReady),
        }
    }
}
