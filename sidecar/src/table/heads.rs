//! A set of heads with its own digest: what the one writer holds, be it on its way or installed.
//!
//! The set keeps the digest itself, from the canonical bytes of what comes and of what that replaces: a head that was
//! corrupted on its way shows as soon as somebody says what the digest should be, and one in memory when it is replaced.
//! A change is prepared beside what readers see (room is made, names are given), and then stored in place, which is all
//! that they may have to wait for.

use super::encoding::{Held, NewRow, account_head, held, number, organization_head, rev};
use super::incoming::{Incoming, Read};
use super::layout::{Layout, Policy};
use super::rows::{Key, Place, Row, Rows};
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{ExclusionHead, HeadKey, HeadKind, Unreadable};
use consent_core::ledger::HeadRecord;
use consent_core::words::{IdKey, Revision};
use std::collections::HashMap;
use std::sync::Arc;

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
    /// The row of an organization that is mentioned for the first time.
    organization: Option<Put>,
    /// The head's own row; the policy has none.
    row: Option<Put>,
    /// What readers see is to be replaced by [`Heads::layout`].
    pub(super) is_laid_out_anew: bool,
}

#[derive(Debug)]
struct Put {
    key: HeadKey,
    place: Place,
    row: NewRow,
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
    pub(super) fn digest_with(&self, key: HeadKey, bytes: &[u8]) -> Digest {
        let mut digest = self.digest;
        let before = self.bytes(key);
        digest.replace(&self.digest_key, key, before.as_deref(), bytes);
        digest
    }

    /// Reads a head as it was at revision `as_of` and puts it in its place, unless a newer one is there: pages of a
    /// snapshot and frames come interleaved. Bytes that no writer of any version wrote are an error.
    pub(crate) fn put_if_newer(
        &mut self,
        key: HeadKey,
        bytes: &[u8],
        as_of: Revision,
    ) -> Result<(), Unreadable> {
        let mut row = match Read::new(key.kind(), bytes, as_of)? {
            Read::Row(row) => row,
            Read::Policy(policy) => {
                if policy.rev() > self.layout.policy.rev() {
                    self.digest = self.digest_with(key, bytes);
                    let unreadable = policy.is_unreadable().then(|| bytes.to_vec());
                    Arc::make_mut(&mut self.layout).policy = policy;
                    self.count(key, false, unreadable);
                }
                return Ok(());
            }
        };
        // Nobody sees these heads yet: nothing is prepared, and nothing is looked for twice.
        let mut is_laid_out_anew = false;
        let Some(place) = self.make_room(key, &row, &mut is_laid_out_anew) else { return Ok(()) };
        if place.is_new() {
            self.digest.add(&self.digest_key, key, bytes);
        } else if self.rev(key).zip(row.rev().ok()).is_some_and(|(held, rev)| rev <= held) {
            return Ok(());
        } else {
            self.digest = self.digest_with(key, bytes);
        }
        let mentioned = self.number_for(key, &mut row, &mut is_laid_out_anew);
        mentioned.iter().for_each(|put| self.store_row(put.key, put.place, &put.row));
        self.store_row(key, place, &row);
        self.count(key, place.is_new(), row.is_unreadable().then(|| bytes.to_vec()));
        Ok(())
    }

    /// Makes room for a head, and says what is to be stored; nothing that readers see changes.
    pub(super) fn prepare(&mut self, incoming: Incoming) -> Change {
        let Incoming { key, bytes, read } = incoming;
        let mut change =
            Change { key, unreadable: None, organization: None, row: None, is_laid_out_anew: false };
        let is_unreadable = match read {
            Read::Policy(policy) => {
                let is_unreadable = policy.is_unreadable();
                self.layout_mut(&mut change.is_laid_out_anew).policy = policy;
                is_unreadable
            }
            Read::Row(mut row) => {
                let is_unreadable = row.is_unreadable();
                change.organization = self.number_for(key, &mut row, &mut change.is_laid_out_anew);
                let place = self.make_room(key, &row, &mut change.is_laid_out_anew);
                change.row = place.map(|place| Put { key, place, row });
                is_unreadable
            }
        };
        change.unreadable = is_unreadable.then_some(bytes);
        change
    }

    /// Stores what was prepared. Readers may be looking.
    pub(super) fn store(&self, change: &Change) {
        for Put { key, place, row } in change.organization.iter().chain(&change.row) {
            self.store_row(*key, *place, row);
        }
    }

    fn store_row(&self, key: HeadKey, place: Place, row: &NewRow) {
        if let Some(rows) = self.layout.rows(key.kind()) {
            rows.put(place, Key::new(key.bytes()), row.words());
        }
    }

    /// Counts what was stored; `digest` is what [`Heads::digest_with`] gave for it.
    pub(super) fn settle(&mut self, change: Change, digest: Digest) {
        let Change { key, unreadable, row, .. } = change;
        self.digest = digest;
        self.count(key, row.is_some_and(|put| put.place.is_new()), unreadable);
    }

    fn count(&mut self, key: HeadKey, is_new: bool, unreadable: Option<Vec<u8>>) {
        self.accounts += u64::from(is_new && key.kind() == HeadKind::Account);
        match unreadable {
            Some(bytes) => drop(self.unreadable.insert(key, bytes)),
            None if self.unreadable.is_empty() => (),
            None => drop(self.unreadable.remove(&key)),
        }
    }

    /// What readers see, to be changed beside it: the first time it is copied, without its rows.
    fn layout_mut(&mut self, is_laid_out_anew: &mut bool) -> &mut Layout {
        *is_laid_out_anew = true;
        Arc::make_mut(&mut self.layout)
    }

    /// Where the row of a head goes, for which there is room then; none for the policy.
    fn make_room(&mut self, key: HeadKey, row: &NewRow, is_laid_out_anew: &mut bool) -> Option<Place> {
        let (kind, key, words) = (key.kind(), Key::new(key.bytes()), row.words().len());
        loop {
            if let Some(place) = self.layout.rows(kind)?.place(key, words) {
                return Some(place);
            }
            self.layout_mut(is_laid_out_anew).rows_mut(kind)?.grow(key, words);
        }
    }

    /// Gives a row the number of the organization that it is, or belongs to; what that one gets, if it has no row yet.
    fn number_for(&mut self, key: HeadKey, row: &mut NewRow, is_laid_out_anew: &mut bool) -> Option<Put> {
        if let HeadKey::Organization(_) = key {
            row.give(self.number(key.bytes(), is_laid_out_anew));
            return None;
        }
        let organization = row.organization?;
        if let Some(known) = self.layout.organizations.find(Key::new(*organization.bytes())) {
            row.give(number(known));
            return None;
        }
        let number = self.number(*organization.bytes(), is_laid_out_anew);
        row.give(number);
        let (key, row) = (HeadKey::Organization(organization), NewRow::mentioned(number));
        let place = self.make_room(key, &row, is_laid_out_anew)?;
        Some(Put { key, place, row })
    }

    /// The number of an organization, which is about to get a row if it has none yet.
    fn number(&mut self, key: [u8; 16], is_laid_out_anew: &mut bool) -> u32 {
        if let Some(row) = self.layout.organizations.find(Key::new(key)) {
            return number(row);
        }
        // The last number names no key: whoever needs an organization that is one too many is denied.
        if self.numbered + 1 == u32::MAX {
            return u32::MAX;
        }
        self.numbered += 1;
        if !self.layout.names.has_room(self.numbered) {
            self.layout_mut(is_laid_out_anew).names.grow();
        }
        self.layout.names.put(self.numbered, key);
        self.numbered
    }

    fn row(&self, key: HeadKey) -> Option<Row<'_>> {
        self.layout.rows(key.kind())?.find(Key::new(key.bytes()))
    }

    /// The revision of the head under this key.
    fn rev(&self, key: HeadKey) -> Option<Revision> {
        match key {
            HeadKey::Policy => Some(self.layout.policy.rev()),
            HeadKey::Organization(_) | HeadKey::Account(_) | HeadKey::Exclusion(_) => {
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
