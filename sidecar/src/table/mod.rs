//! The table: every head that the node mirrors, in process memory, at one position.
//!
//! Readers see one state at one position for a whole answer or batch. One writer, the sync thread, changes it: a
//! change is read, digested and compared before readers are kept out, and a snapshot is built beside the table and
//! then put in its place, so no answer waits for more than the exchange of one head. A table whose digest is not
//! what the authority says it is never becomes visible.
//!
//! Nothing outside this folder knows how heads are laid out.

mod heads;

pub(crate) use heads::{Heads, Incoming};

use consent_core::confirm::{Frame, Place};
use consent_core::decision::{self, NotReady};
use consent_core::digest::Digest;
use consent_core::head::{AccountView, OrganizationLayer, PolicyHead};
use consent_core::ledger::HeadRecord;
use consent_core::words::{
    AccountKey, ArtifactKey, Epoch, IdKey, OrganizationKey, Position, ProductIndex, Timestamp,
};
use std::sync::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// All heads at one position.
#[derive(Debug)]
pub(crate) struct State {
    heads: Heads,
    position: Position,
    recorded_at: Timestamp,
}

impl State {
    /// Where it stands.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The secret under which ids are hashed to look them up here.
    pub(crate) fn id_key(&self) -> &IdKey {
        self.heads.id_key()
    }

    /// How many accounts it holds.
    pub(crate) fn accounts(&self) -> u64 {
        self.heads.accounts()
    }

    /// How many heads it holds.
    pub(crate) fn len(&self) -> u64 {
        self.heads.len()
    }

    /// One of 256 parts of it: for whoever copies it without keeping the writer waiting for long.
    pub(crate) fn part(&self, part: u8) -> impl Iterator<Item = HeadRecord> {
        self.heads.part(part)
    }
}

impl decision::Heads for State {
    fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }

    fn policy(&self) -> Result<&PolicyHead, NotReady> {
        self.heads.policy()
    }

    fn account(
        &self,
        key: AccountKey,
        product: Option<ProductIndex>,
    ) -> Result<Option<AccountView>, NotReady> {
        Ok(self.heads.account(key)?.map(|head| head.view(product)))
    }

    fn organization(
        &self,
        key: OrganizationKey,
        product: ProductIndex,
    ) -> Result<Option<OrganizationLayer>, NotReady> {
        Ok(self.heads.organization(key)?.map(|head| head.layer(product)))
    }

    fn is_excluded(&self, key: ArtifactKey) -> Result<bool, NotReady> {
        self.heads.is_excluded(key)
    }
}

/// The node's table: a state, or none while there is no complete one.
#[derive(Debug)]
pub(crate) struct Table {
    state: RwLock<Option<State>>,
    position: watch::Sender<Option<Position>>,
}

/// What one answer or batch is decided from. It keeps the writer waiting: drop it soon.
pub(crate) struct View<'a>(Option<RwLockReadGuard<'a, Option<State>>>);

impl View<'_> {
    /// The state; `None`: there is no complete table.
    pub(crate) fn state(&self) -> Option<&State> {
        self.0.as_ref()?.as_ref()
    }
}

impl Table {
    /// A table that holds nothing.
    pub(crate) fn new() -> Table {
        Table { state: RwLock::new(None), position: watch::Sender::new(None) }
    }

    /// One state for a whole answer or batch.
    pub(crate) fn read(&self) -> View<'_> {
        // A writer that panicked may have left half a change: there is no complete table any more.
        View(self.state.read().ok())
    }

    /// Where the table stands, to wait for. Only a hint: what [`Table::read`] gives counts.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Position>> {
        self.position.subscribe()
    }

    /// The secret under which the table's ids are hashed; `None` while it holds nothing.
    pub(crate) fn id_key(&self) -> Option<IdKey> {
        self.read().state().map(|state| *state.id_key())
    }

    /// Puts heads that stand at `place` in the place of all others, if they have the digest that they should have.
    pub(crate) fn install(&self, heads: Heads, place: &Place, recorded_at: Timestamp) {
        if heads.digest() == place.digest {
            let position = Position { epoch: place.epoch, revision: place.revision };
            self.exchange(Some(State { heads, position, recorded_at }));
        }
    }

    /// Applies one revision, if the table then has the digest that it should have. Gives the digest that it has,
    /// or would have.
    pub(crate) fn apply(&self, frame: &Frame, recorded_at: Timestamp, head: Incoming) -> Digest {
        let digest = match self.read().state() {
            Some(state) => state.heads.digest_with(&head),
            None => return Digest::EMPTY,
        };
        if digest == frame.digest {
            self.change(|state| {
                state.heads.put(head, digest);
                state.position.revision = frame.revision;
                state.recorded_at = recorded_at;
            });
        }
        digest
    }

    /// Goes on, unchanged, in another epoch.
    pub(crate) fn enter(&self, epoch: Epoch) {
        self.change(|state| state.position.epoch = epoch);
    }

    /// Holds nothing any more.
    pub(crate) fn clear(&self) {
        self.exchange(None);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let Ok(mut guard) = self.state.write() else { return };
        let Some(state) = guard.as_mut() else { return };
        change(state);
        let position = state.position;
        drop(guard);
        self.position.send_replace(Some(position));
    }

    fn exchange(&self, state: Option<State>) {
        let position = state.as_ref().map(State::position);
        let Ok(mut guard) = self.state.write() else { return };
        let before = std::mem::replace(&mut *guard, state);
        drop(guard);
        // What may be millions of heads is freed only now, when nobody waits for the lock.
        drop(before);
        self.position.send_replace(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::chain::{Chain, Link};
    use consent_core::decision::Heads as _;
    use consent_core::head::{AccountHead, Head, HeadKey, SEMANTICS};
    use consent_core::words::Revision;

    const EPOCH: Epoch = Epoch::new([1; 16]);
    const ADA: AccountKey = AccountKey::new([5; 16]);

    fn revision(number: u64) -> Revision {
        Revision::new(number).unwrap()
    }

    /// Ada's head as revision `rev` left it.
    fn head(rev: u64) -> HeadRecord {
        let head = Head::Account(AccountHead::Erased { rev: revision(rev) });
        HeadRecord { key: HeadKey::Account(ADA), bytes: head.encode() }
    }

    fn incoming(rev: u64) -> Incoming {
        Incoming::read(head(rev), revision(rev)).unwrap()
    }

    fn frame(number: u64, digest: Digest) -> Frame {
        let (link, chain) = (Link::new([0; 32]), Chain::EMPTY);
        Frame { epoch: EPOCH, revision: revision(number), link, chain, digest }
    }

    fn heads() -> Heads {
        Heads::new(IdKey::new([3; 16]))
    }

    fn table(heads: Heads) -> Table {
        let table = Table::new();
        let place =
            Place { epoch: EPOCH, revision: revision(1), chain: Chain::EMPTY, digest: heads.digest() };
        table.install(heads, &place, Timestamp::from_millis(1));
        table
    }

    fn position(table: &Table) -> Option<Position> {
        table.read().state().map(State::position)
    }

    fn at(number: u64) -> Option<Position> {
        Some(Position { epoch: EPOCH, revision: revision(number) })
    }

    #[test]
    fn the_newer_head_wins_whatever_the_order() {
        let (mut one, mut other) = (heads(), heads());
        [incoming(2), incoming(5)].into_iter().for_each(|head| one.put_if_newer(head));
        [incoming(5), incoming(2)].into_iter().for_each(|head| other.put_if_newer(head));
        assert_eq!(one.digest(), other.digest());
        assert_eq!((one.accounts(), other.accounts()), (1, 1));
        let mut newest = heads();
        newest.put_if_newer(incoming(5));
        assert_eq!(one.digest(), newest.digest());
    }

    #[test]
    fn what_has_another_digest_never_becomes_visible() {
        let wrong = Table::new();
        let place =
            Place { epoch: EPOCH, revision: revision(1), chain: Chain::EMPTY, digest: Digest::new([9; 32]) };
        wrong.install(heads(), &place, Timestamp::from_millis(1));
        assert_eq!(position(&wrong), None);

        let table = table(heads());
        let right = table.apply(&frame(2, Digest::new([9; 32])), Timestamp::from_millis(2), incoming(2));
        assert_eq!(position(&table), at(1));
        assert!(table.read().state().unwrap().account(ADA, None).unwrap().is_none());
        let digest = table.apply(&frame(2, right), Timestamp::from_millis(2), incoming(2));
        assert_eq!((digest, position(&table)), (right, at(2)));
        assert!(table.read().state().unwrap().account(ADA, None).unwrap().is_some());
    }

    #[test]
    fn a_head_that_needs_a_newer_reader_is_counted_and_never_read() {
        let mut record = head(2);
        record.bytes[0] = SEMANTICS + 1;
        let mut holding = heads();
        holding.put_if_newer(Incoming::read(record, revision(2)).unwrap());
        assert_ne!(holding.digest(), Digest::EMPTY);
        let table = table(holding);
        assert_eq!(table.read().state().unwrap().account(ADA, None), Err(NotReady));

        let digest = table.read().state().unwrap().heads.digest_with(&incoming(3));
        table.apply(&frame(3, digest), Timestamp::from_millis(3), incoming(3));
        assert!(table.read().state().unwrap().account(ADA, None).is_ok());
        let mut afresh = heads();
        afresh.put_if_newer(incoming(3));
        assert_eq!(digest, afresh.digest());
    }

    #[test]
    fn malformed_bytes_are_no_head() {
        let mut record = head(2);
        record.bytes.push(0);
        assert!(Incoming::read(record, revision(2)).is_err());
    }

    #[test]
    fn whoever_waits_hears_of_every_exchange() {
        let table = Table::new();
        let watch = table.watch();
        assert_eq!(*watch.borrow(), None);
        let heads = heads();
        let place =
            Place { epoch: EPOCH, revision: revision(1), chain: Chain::EMPTY, digest: heads.digest() };
        table.install(heads, &place, Timestamp::from_millis(1));
        assert_eq!(*watch.borrow(), at(1));
        let next = Epoch::new([2; 16]);
        table.enter(next);
        assert_eq!(*watch.borrow(), Some(Position { epoch: next, revision: revision(1) }));
        table.clear();
        assert_eq!((*watch.borrow(), position(&table)), (None, None));
    }
}
