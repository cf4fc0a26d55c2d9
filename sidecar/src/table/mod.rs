//! The table: every head that the node mirrors, in process memory, at one position.
//!
//! One writer, the sync thread, changes it a head at a time, in place. Readers take no lock and are never waited
//! for: an answer is decided from what stood in the table at one moment, or it is decided again (`sequenced`). So
//! one answer is of one state; and a state is never older than a position that was read before it, so the position
//! that a batch reads first is a floor for all of its items; what is read at one moment knows its own position. A change
//! is read, digested and compared before it is stored, and a snapshot is built beside the table and then put in its
//! place. A table whose digest is not what the authority says it is never becomes visible; one that was replaced answers
//! no more.
//!
//! - `rows`: a row per head, in sorted shards that grow alone; 36 bytes for an account with two products.
//! - `encoding`: heads as rows, and back. `names`: the organizations that rows refer to.
//! - `layout`: all rows, as readers see them. `heads`: the same as the writer holds them, with their digest.
//! - `state`: a table as one answer is decided from it.
//!
//! Nothing outside this folder knows how heads are laid out. There is no `unsafe`: every word of a row is an atomic.

mod atomic;
mod encoding;
mod heads;
mod incoming;
mod layout;
mod names;
#[cfg(test)]
mod properties;
mod rows;
mod sequenced;
mod state;

pub(crate) use heads::Heads;
pub(crate) use incoming::Incoming;
pub(crate) use layout::TOGETHER;
pub(crate) use sequenced::Unread;
pub(crate) use state::{Reader, State};

use arc_swap::{ArcSwapOption, Guard};
use atomic::Ordering;
use consent_core::confirm::{Frame, Place};
use consent_core::digest::Digest;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, IdKey, Position, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// What the writer holds: the heads, and what readers see of them.
#[derive(Debug)]
struct Installed {
    heads: Heads,
    state: Arc<State>,
}

/// The node's table: a state, or none while there is no complete one.
#[derive(Debug)]
pub(crate) struct Table {
    state: ArcSwapOption<State>,
    /// Nobody waits for it: only the sync thread takes it.
    installed: Mutex<Option<Installed>>,
    position: watch::Sender<Option<Position>>,
}

/// What one answer or batch is decided from. It keeps memory, not the writer: drop it soon.
pub(crate) struct View(Guard<Option<Arc<State>>>);

impl View {
    /// The state; `None`: there is no complete table.
    pub(crate) fn state(&self) -> Option<&State> {
        self.0.as_deref()
    }
}

impl Table {
    /// A table that holds nothing.
    pub(crate) fn new() -> Table {
        Table {
            state: ArcSwapOption::empty(),
            installed: Mutex::new(None),
            position: watch::Sender::new(None),
        }
    }

    /// The state for a whole answer or batch.
    pub(crate) fn read(&self) -> View {
        View(self.state.load())
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
            let state = Arc::new(State::new(&heads, position, recorded_at));
            self.exchange(|_| Some(Installed { heads, state }));
        }
    }

    /// Applies one revision, if the table then has the digest that it should have. Gives the digest that it has,
    /// or would have.
    pub(crate) fn apply(&self, frame: &Frame, recorded_at: Timestamp, head: Incoming) -> Digest {
        let mut installed = self.installed();
        let Some(Installed { heads, state }) = installed.as_mut() else { return Digest::EMPTY };
        let digest = heads.digest_with(head.key, &head.bytes);
        if digest == frame.digest {
            let change = heads.prepare(head);
            state.layout.write(change.is_laid_out_anew.then(|| heads.layout()), || {
                heads.store(&change);
                state.move_to(frame.revision, recorded_at);
            });
            heads.settle(change, digest);
            state.accounts.store(heads.accounts(), Ordering::Relaxed);
            self.position.send_replace(Some(state.position()));
        }
        digest
    }

    /// How many heads it holds, about, and the secret under which their keys were made.
    pub(crate) fn size(&self) -> Option<(usize, IdKey)> {
        let installed = self.installed();
        installed.as_ref().map(|Installed { heads, .. }| (heads.len(), *heads.id_key()))
    }

    /// How many bytes its rows take, free slots included.
    pub(crate) fn bytes(&self) -> usize {
        let Ok(installed) = self.installed.lock() else { return 0 };
        installed.as_ref().map_or(0, |Installed { heads, .. }| heads.row_bytes())
    }

    /// One of 256 parts of its heads, by the ninth byte of their keys: for the sync thread, to copy the table piece by
    /// piece.
    pub(crate) fn part(&self, part: u8) -> Option<Vec<HeadRecord>> {
        let installed = self.installed();
        installed.as_ref().map(|Installed { heads, .. }| heads.part(part).collect())
    }

    /// Goes on, unchanged, in another epoch.
    pub(crate) fn enter(&self, epoch: Epoch) {
        self.exchange(|installed| {
            let Installed { heads, state } = installed?;
            let position = Position { epoch, revision: state.position().revision };
            let state = Arc::new(State::new(&heads, position, state.recorded_at()));
            Some(Installed { heads, state })
        });
    }

    /// Holds nothing any more.
    pub(crate) fn clear(&self) {
        self.exchange(|_| None);
    }

    /// Puts another state in the place of the one there is, from which nobody then reads any more.
    fn exchange(&self, next: impl FnOnce(Option<Installed>) -> Option<Installed>) {
        let mut installed = self.installed();
        *installed = next(installed.take());
        self.show(installed.as_ref().map(|installed| Arc::clone(&installed.state)));
    }

    /// Lets readers see this state and no other. Only who holds what is installed may do so.
    fn show(&self, state: Option<Arc<State>>) {
        let position = state.as_deref().map(State::position);
        if let Some(before) = self.state.swap(state) {
            before.layout.retire();
        }
        self.position.send_replace(position);
    }

    /// What is installed. A writer that panicked may have left half a change: then it is nothing, and readers see
    /// nothing any more, until something whole is installed.
    fn installed(&self) -> MutexGuard<'_, Option<Installed>> {
        self.installed.lock().unwrap_or_else(|poisoned| {
            let mut installed = poisoned.into_inner();
            *installed = None;
            self.show(None);
            self.installed.clear_poison();
            installed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::chain::{Chain, Link};
    use consent_core::decision::{Heads as _, NotReady};
    use consent_core::head::{AccountHead, AccountView, Head, HeadKey, SEMANTICS};
    use consent_core::words::{AccountKey, Revision};
    use std::panic::{AssertUnwindSafe, catch_unwind};

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

    fn put(heads: &mut Heads, rev: u64) {
        let HeadRecord { key, bytes } = head(rev);
        heads.put_if_newer(key, &bytes, revision(rev)).unwrap();
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

    fn ada(table: &Table) -> Result<Option<AccountView>, NotReady> {
        table.read().state().unwrap().reader().read(|seen| seen.account(ADA, None)).unwrap()
    }

    fn at(number: u64) -> Option<Position> {
        Some(Position { epoch: EPOCH, revision: revision(number) })
    }

    #[test]
    fn the_newer_head_wins_whatever_the_order() {
        let (mut one, mut other) = (heads(), heads());
        [2, 5].into_iter().for_each(|rev| put(&mut one, rev));
        [5, 2].into_iter().for_each(|rev| put(&mut other, rev));
        assert_eq!(one.digest(), other.digest());
        assert_eq!((one.accounts(), other.accounts()), (1, 1));
        let mut newest = heads();
        put(&mut newest, 5);
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
        assert_eq!(ada(&table), Ok(None));
        let digest = table.apply(&frame(2, right), Timestamp::from_millis(2), incoming(2));
        assert_eq!((digest, position(&table)), (right, at(2)));
        assert_eq!(ada(&table), Ok(Some(AccountView::Erased)));
    }

    #[test]
    fn a_head_that_needs_a_newer_reader_is_counted_and_never_read() {
        let mut record = head(2);
        record.bytes[0] = SEMANTICS + 1;
        let mut holding = heads();
        holding.put_if_newer(record.key, &record.bytes, revision(2)).unwrap();
        assert_ne!(holding.digest(), Digest::EMPTY);
        let table = table(holding);
        assert_eq!(ada(&table), Err(NotReady));

        let digest = table.apply(&frame(3, Digest::EMPTY), Timestamp::from_millis(3), incoming(3));
        assert_eq!((ada(&table), position(&table)), (Err(NotReady), at(1)));
        table.apply(&frame(3, digest), Timestamp::from_millis(3), incoming(3));
        assert_eq!(ada(&table), Ok(Some(AccountView::Erased)));
        let mut afresh = heads();
        put(&mut afresh, 3);
        assert_eq!(digest, afresh.digest());
    }

    #[test]
    fn malformed_bytes_are_no_head() {
        let mut record = head(2);
        record.bytes.push(0);
        assert!(Incoming::read(record, revision(2)).is_err());
    }

    #[test]
    fn a_table_that_was_replaced_answers_no_more() {
        let table = table(heads());
        let view = table.read();
        let before = view.state().unwrap();
        assert_eq!(before.reader().read(|_| ()), Ok(()));
        table.enter(Epoch::new([2; 16]));
        assert_eq!(before.reader().read(|_| ()), Err(Unread::Retired));
        let now = table.read();
        assert_eq!(now.state().unwrap().reader().read(|_| ()), Ok(()));
        table.clear();
        assert_eq!(now.state().unwrap().reader().read(|_| ()), Err(Unread::Retired));
    }

    #[test]
    fn what_a_writer_left_that_panicked_is_seen_by_nobody() {
        let next: [fn(&Table); 5] = [
            Table::clear,
            |table| table.enter(Epoch::new([2; 16])),
            |table| {
                let digest = table.apply(&frame(2, Digest::EMPTY), Timestamp::from_millis(2), incoming(2));
                assert_eq!(digest, Digest::EMPTY);
            },
            |table| assert!(table.size().is_none()),
            |table| assert!(table.part(0).is_none()),
        ];
        for next in next {
            let table = table(heads());
            let (view, watch) = (table.read(), table.watch());
            let panicked = catch_unwind(AssertUnwindSafe(|| table.exchange(|_| panic!("half a change"))));
            assert!(panicked.is_err() && table.installed.is_poisoned());
            next(&table);
            assert_eq!((position(&table), *watch.borrow()), (None, None));
            assert_eq!(view.state().unwrap().reader().read(|_| ()), Err(Unread::Retired));
            // Nothing latches: what is whole is seen again.
            let heads = heads();
            let (chain, digest) = (Chain::EMPTY, heads.digest());
            let place = Place { epoch: EPOCH, revision: revision(3), chain, digest };
            table.install(heads, &place, Timestamp::from_millis(3));
            assert_eq!(position(&table), at(3));
        }
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
