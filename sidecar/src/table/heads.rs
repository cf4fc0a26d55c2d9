//! A set of heads with its own digest: what the one writer holds, be it on its way or installed.
//!
//! The set keeps the digest itself, from the canonical bytes of what comes and of what that replaces: a head that was
//! corrupted on its way shows as soon as somebody says what the digest should be, and one in memory when it is replaced.
//! A change is prepared beside what readers see (room is made, names are given), and then stored in place, which is all
//! that they may have to wait for.

use super::encoding::{
    Held, account_head, account_words, exclusion_words, held, mentioned_words, number, organization_head,
    organization_words, rev, unreadable_words,
};
use super::incoming::{Incoming, Read};
use super::layout::{Layout, Policy};
use super::rows::{Key, Place, Row, Rows};
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{AccountHead, ExclusionHead, Head, HeadKey, HeadKind, KnownAccount};
use consent_core::ledger::HeadRecord;
use consent_core::words::{IdKey, OrganizationKey, Revision};
use std::collections::HashMap;
use std::sync::Arc;

/// What stands in the place of an organization's number where there is none.
const NO_NUMBER: u32 = 0;

/// Heads, and the digest of them.
#[derive(Debug)]
pub(crate) struct Heads {
    id_key: IdKey,
    digest_key: DigestKey,
    digest: Digest,
    layout: Arc<Layout>,
    /// The bytes of heads that need a newer reader.
    unreadable: HashMap<HeadKey, Vec<u8>>,
    accounts: u64,
    /// The organizations that have a number.
    numbered: u32,
}

/// A change that is prepared: what is to be stored where.
#[derive(Debug)]
pub(super) struct Change {
    key: HeadKey,
    /// Its bytes, if it needs a newer reader.
    unreadable: Option<Vec<u8>>,
    /// The row of an organization that is mentioned for the first time, and the head's own.
    puts: [Option<Put>; 2],
    /// What readers see is to be replaced by [`Heads::layout`].
    pub(super) is_laid_out_anew: bool,
}

#[derive(Debug)]
struct Put {
    kind: HeadKind,
    place: Place,
    key: Key,
    words: Vec<u32>,
}

impl Heads {
    /// No heads yet, of a deployment that hashes ids under this secret.
    pub(crate) fn new(id_key: IdKey) -> Heads {
        Heads::with_room(id_key, 0)
    }

    /// The same, with room for so many accounts: loading as many then moves no row twice.
    pub(crate) fn with_room(id_key: IdKey, accounts: usize) -> Heads {
        Heads {
            id_key,
            digest_key: DigestKey::new(&id_key),
            digest: Digest::EMPTY,
            layout: Arc::new(Layout::with_room(accounts)),
            unreadable: HashMap::new(),
            accounts: 0,
            numbered: 0,
        }
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

    /// How many heads are held, about: an organization counts as soon as it is mentioned.
    pub(super) fn len(&self) -> usize {
        let rows = |kind| self.layout.rows(kind).map_or(0, Rows::len);
        1 + HeadKind::ALL.into_iter().map(rows).sum::<usize>()
    }

    /// How many bytes the rows take, free slots included.
    pub(super) fn row_bytes(&self) -> usize {
        let bytes = |kind| self.layout.rows(kind).map_or(0, Rows::bytes);
        HeadKind::ALL.into_iter().map(bytes).sum()
    }

    /// The heads in one of 256 parts: those whose key has `part` as its ninth byte.
    pub(super) fn part(&self, part: u8) -> impl Iterator<Item = HeadRecord> {
        let policy = (part == 0).then_some(HeadKey::Policy);
        let keys = HeadKind::ALL.into_iter().flat_map(move |kind| {
            let keys = self.layout.rows(kind).into_iter().flat_map(move |rows| rows.keys(part));
            keys.filter_map(move |bytes| HeadKey::new(kind, bytes))
        });
        policy.into_iter().chain(keys).filter_map(|key| Some(HeadRecord { key, bytes: self.bytes(key)? }))
    }

    /// What readers are to see.
    pub(super) fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout)
    }

    /// The digest there would be with this head in its place.
    pub(crate) fn digest_with(&self, incoming: &Incoming) -> Digest {
        let mut digest = self.digest;
        let before = self.bytes(incoming.key);
        digest.replace(&self.digest_key, incoming.key, before.as_deref(), &incoming.bytes);
        digest
    }

    /// Puts a head in its place; `digest` is what [`Heads::digest_with`] gave for it.
    pub(crate) fn put(&mut self, incoming: Incoming, digest: Digest) {
        let change = self.prepare(incoming);
        self.store(&change);
        self.settle(change, digest);
    }

    /// Puts a head in its place, unless a newer one is there: pages of a snapshot and frames come interleaved.
    pub(crate) fn put_if_newer(&mut self, incoming: Incoming) {
        match self.rev(incoming.key) {
            // Most are: where a whole table is loaded, nothing is looked for that cannot be there.
            None => {
                let mut digest = self.digest;
                digest.add(&self.digest_key, incoming.key, &incoming.bytes);
                self.put(incoming, digest);
            }
            Some(rev) if incoming.rev() > rev => {
                let digest = self.digest_with(&incoming);
                self.put(incoming, digest);
            }
            Some(_) => (),
        }
    }

    /// Makes room for a head, and says what is to be stored; nothing that readers see changes.
    pub(super) fn prepare(&mut self, incoming: Incoming) -> Change {
        let Incoming { key, bytes, read } = incoming;
        let mut change = Change { key, unreadable: None, puts: [None, None], is_laid_out_anew: false };
        let words = match read {
            Read::Head(Head::Policy(head)) => {
                self.layout_mut(&mut change).policy = Policy::Head(Arc::new(head));
                return change;
            }
            Read::Head(Head::Organization(head)) => {
                organization_words(&head, self.number(key.bytes(), &mut change))
            }
            Read::Head(Head::Account(head)) => {
                let number = match &head {
                    AccountHead::Known(KnownAccount { organization: Some(key), .. }) => {
                        self.mention(*key, &mut change)
                    }
                    AccountHead::Known(_) | AccountHead::Erased { .. } => NO_NUMBER,
                };
                account_words(&head, number)
            }
            Read::Head(Head::Exclusion(head)) => exclusion_words(head.rev),
            Read::Newer { as_of } => {
                change.unreadable = Some(bytes);
                match key {
                    HeadKey::Policy => {
                        self.layout_mut(&mut change).policy = Policy::Unreadable(as_of);
                        return change;
                    }
                    HeadKey::Organization(_) => {
                        unreadable_words(as_of, self.number(key.bytes(), &mut change))
                    }
                    HeadKey::Account(_) | HeadKey::Exclusion(_) => unreadable_words(as_of, NO_NUMBER),
                }
            }
        };
        change.puts[1] = self.make_room(key, words, &mut change);
        change
    }

    /// Stores what was prepared. Readers may be looking.
    pub(super) fn store(&self, change: &Change) {
        for Put { kind, place, key, words } in change.puts.iter().flatten() {
            if let Some(rows) = self.layout.rows(*kind) {
                rows.put(*place, *key, words);
            }
        }
    }

    /// Counts what was stored.
    pub(super) fn settle(&mut self, change: Change, digest: Digest) {
        self.digest = digest;
        let is_new = |put: &Put| put.kind == HeadKind::Account && matches!(put.place, Place::Between { .. });
        self.accounts += u64::from(change.puts[1].as_ref().is_some_and(is_new));
        match change.unreadable {
            Some(bytes) => drop(self.unreadable.insert(change.key, bytes)),
            None if self.unreadable.is_empty() => (),
            None => drop(self.unreadable.remove(&change.key)),
        }
    }

    /// What readers see, to be changed beside it: the first time it is copied, without its rows.
    fn layout_mut(&mut self, change: &mut Change) -> &mut Layout {
        change.is_laid_out_anew = true;
        Arc::make_mut(&mut self.layout)
    }

    fn make_room(&mut self, key: HeadKey, words: Vec<u32>, change: &mut Change) -> Option<Put> {
        let (kind, key) = (key.kind(), Key::new(key.bytes()));
        loop {
            if let Some(place) = self.layout.rows(kind)?.place(key, words.len()) {
                return Some(Put { kind, place, key, words });
            }
            self.layout_mut(change).rows_mut(kind)?.grow(key, words.len());
        }
    }

    /// The number of an organization, which gets a row if it has none yet.
    fn mention(&mut self, key: OrganizationKey, change: &mut Change) -> u32 {
        let known = self.layout.organizations.find(Key::new(*key.bytes())).map(number);
        known.unwrap_or_else(|| {
            let number = self.number(*key.bytes(), change);
            change.puts[0] = self.make_room(HeadKey::Organization(key), mentioned_words(number), change);
            number
        })
    }

    /// The number of an organization, which is about to get a row if it has none yet.
    fn number(&mut self, key: [u8; 16], change: &mut Change) -> u32 {
        if let Some(row) = self.layout.organizations.find(Key::new(key)) {
            return number(row);
        }
        // The last number names no key: whoever needs an organization that is one too many is denied.
        if self.numbered + 1 == u32::MAX {
            return u32::MAX;
        }
        self.numbered += 1;
        if !self.layout.names.has_room(self.numbered) {
            self.layout_mut(change).names.grow();
        }
        self.layout.names.put(self.numbered, key);
        self.numbered
    }

    fn row(&self, key: HeadKey) -> Option<Row<'_>> {
        self.layout.rows(key.kind())?.find(Key::new(key.bytes()))
    }

    /// The revision of the head under this key.
    fn rev(&self, key: HeadKey) -> Option<Revision> {
        match (key, &self.layout.policy) {
            (HeadKey::Policy, Policy::Head(head)) => Some(head.rev),
            (HeadKey::Policy, Policy::Unreadable(as_of)) => Some(*as_of),
            (HeadKey::Organization(_) | HeadKey::Account(_) | HeadKey::Exclusion(_), _) => {
                rev(self.row(key)?).ok()
            }
        }
    }

    /// The canonical bytes of the head under this key. There is one encoding per value, so what is held need not
    /// keep the bytes that it came in.
    fn bytes(&self, key: HeadKey) -> Option<Vec<u8>> {
        match key {
            HeadKey::Policy => match &self.layout.policy {
                Policy::Unreadable(_) => self.unreadable.get(&key).cloned(),
                Policy::Head(head) => (head.rev > Revision::ZERO).then(|| head.encode()),
            },
            HeadKey::Organization(_) | HeadKey::Account(_) | HeadKey::Exclusion(_) => {
                let row = self.row(key)?;
                match held(row) {
                    Held::Mentioned => None,
                    Held::Unreadable => self.unreadable.get(&key).cloned(),
                    Held::Head => self.encode(key, row),
                }
            }
        }
    }

    // A row that was corrupted in memory has no bytes: the digest then differs from what it should be.
    fn encode(&self, key: HeadKey, row: Row<'_>) -> Option<Vec<u8>> {
        match key.kind() {
            HeadKind::Policy => None,
            HeadKind::Organization => organization_head(row).ok().map(|head| head.encode()),
            HeadKind::Account => account_head(row, &self.layout.names).ok().map(|head| head.encode()),
            HeadKind::Exclusion => rev(row).ok().map(|rev| ExclusionHead { rev }.encode()),
        }
    }
}
