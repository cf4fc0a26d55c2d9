//! What readers have of the table: a state, each of whose heads is seen as of one moment.
//!
//! A state's position is stored after the rows of its revision, so whoever sees it sees them.

use super::Heads;
use super::atomic::{AtomicU64, Ordering};
use super::layout::Layout;
use super::sequenced::{self, Sequenced, Unread};
use consent_core::decision::{self, NotReady};
use consent_core::head::{AccountView, OrganizationLayer, PolicyHead};
use consent_core::words::{
    AccountKey, ArtifactKey, Epoch, IdKey, OrganizationKey, Position, ProductIndex, Revision, Timestamp,
};
use std::hint::black_box;

/// All heads, from one installation to the next.
#[derive(Debug)]
pub(crate) struct State {
    id_key: IdKey,
    epoch: Epoch,
    revision: AtomicU64,
    /// Unix milliseconds.
    recorded_at: AtomicU64,
    pub(super) accounts: AtomicU64,
    pub(super) layout: Sequenced<Layout>,
}

/// What stood in the table at one moment.
pub(crate) struct Seen<'a> {
    layout: &'a Layout,
    state: &'a State,
}

impl Seen<'_> {
    /// The position of that moment.
    pub(crate) fn position(&self) -> Position {
        self.state.position()
    }
}

impl State {
    pub(super) fn new(heads: &Heads, position: Position, recorded_at: Timestamp) -> State {
        State {
            id_key: *heads.id_key(),
            epoch: position.epoch,
            revision: AtomicU64::new(position.revision.get()),
            recorded_at: AtomicU64::new(recorded_at.millis().cast_unsigned()),
            accounts: AtomicU64::new(heads.accounts()),
            layout: Sequenced::new(heads.layout()),
        }
    }

    /// Where it stands: a floor for whatever the caller reads from it afterwards.
    pub(crate) fn position(&self) -> Position {
        // Stored after the rows of its revision, so whoever sees it sees them.
        let revision = self.revision.load(Ordering::Acquire);
        Position { epoch: self.epoch, revision: Revision::new(revision).unwrap_or(Revision::ZERO) }
    }

    /// The secret under which ids are hashed to look them up here.
    pub(crate) fn id_key(&self) -> &IdKey {
        &self.id_key
    }

    /// How many accounts it holds.
    pub(crate) fn accounts(&self) -> u64 {
        self.accounts.load(Ordering::Relaxed)
    }

    /// Reads it, at one moment or at many.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { layout: self.layout.reader(), state: self }
    }

    pub(super) fn recorded_at(&self) -> Timestamp {
        Timestamp::from_millis(self.recorded_at.load(Ordering::Relaxed).cast_signed())
    }

    pub(super) fn move_to(&self, revision: Revision, recorded_at: Timestamp) {
        self.recorded_at.store(recorded_at.millis().cast_unsigned(), Ordering::Relaxed);
        self.revision.store(revision.get(), Ordering::Release);
    }
}

/// Reads the table at one moment after the other: one for a group of questions, or for each where it changes too fast.
pub(crate) struct Reader<'a> {
    layout: sequenced::Reader<'a, Layout>,
    state: &'a State,
}

impl Reader<'_> {
    /// What `read` gives for one moment; it may be called again. A table that was replaced answers no more.
    pub(crate) fn read<R>(&mut self, mut read: impl FnMut(&Seen<'_>) -> R) -> Result<R, Unread> {
        let state = self.state;
        self.layout.read(|layout| read(&Seen { layout, state }))
    }

    /// The same, for what takes longer and so may be interrupted over and over: `read` is called once, and `None` is
    /// given where the table changed meanwhile.
    pub(crate) fn glance<R>(&mut self, read: impl FnOnce(&Seen<'_>) -> R) -> Result<Option<R>, Unread> {
        let state = self.state;
        self.layout.glance(|layout| read(&Seen { layout, state }))
    }

    /// Is no artifact excluded, for now? Only what is read at the moment of an answer counts for it.
    pub(crate) fn excludes_nothing(&mut self) -> bool {
        self.layout.glance(Layout::excludes_nothing).is_ok_and(|nothing| nothing == Some(true))
    }

    /// Asks memory for what decisions about these will need, all at once instead of one after the other.
    pub(crate) fn touch(&mut self, accounts: &[AccountKey], artifacts: &[ArtifactKey]) {
        // Whoever reads next hears why nothing is read.
        let _ = black_box(self.layout.glance(|layout| layout.touch(accounts, artifacts)));
    }
}

impl decision::Heads for Seen<'_> {
    fn recorded_at(&self) -> Timestamp {
        self.state.recorded_at()
    }

    fn policy(&self) -> Result<&PolicyHead, NotReady> {
        self.layout.policy()
    }

    #[inline(always)]
    fn account(
        &self,
        key: AccountKey,
        product: Option<ProductIndex>,
    ) -> Result<Option<AccountView>, NotReady> {
        self.layout.account(key, product)
    }

    fn organization(
        &self,
        key: OrganizationKey,
        product: ProductIndex,
    ) -> Result<Option<OrganizationLayer>, NotReady> {
        self.layout.organization(key, product)
    }

    fn excludes_nothing(&self) -> bool {
        self.layout.excludes_nothing()
    }

    fn is_excluded(&self, key: ArtifactKey) -> Result<bool, NotReady> {
        self.layout.is_excluded(key)
    }
}
