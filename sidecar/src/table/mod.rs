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
