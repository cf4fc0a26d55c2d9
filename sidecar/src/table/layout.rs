//! How heads lie in memory, as readers see them.
//!
//! A layout is read within [`super::sequenced`]: in the middle of a change its rows may say anything, and then what
//! was read from it is thrown away.

use super::atomic::AtomicU32;
use super::encoding::{Held, account_view, held, organization_layer};
use super::names::Names;
use super::rows::{Key, Rows, touch};
use consent_core::decision::NotReady;
use consent_core::head::{AccountView, HeadKind, OrganizationLayer, PolicyHead};
use consent_core::words::{AccountKey, ArtifactKey, OrganizationKey, ProductIndex, Revision};
use std::sync::Arc;

/// The words of an account's row with two products.
const ACCOUNT: usize = 5;

/// So many rows are looked up together at most: what is asked of memory for them stays in the nearest cache.
pub(crate) const TOGETHER: usize = 64;

/// Heads. A clone shares all rows: what is changed in place is changed in both.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) accounts: Rows,
    pub(super) organizations: Rows,
    pub(super) exclusions: Rows,
    pub(super) names: Names,
    pub(super) policy: Policy,
}

/// The policy's head.
#[derive(Debug, Clone)]
pub(super) enum Policy {
    /// It can be read; the empty one before the first publication.
    Head(Arc<PolicyHead>),
    /// It needs a newer reader.
    Unreadable(Revision),
}

impl Policy {
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Policy::Unreadable(_))
    }

    /// The revision of the head, or the one at which it needed a newer reader.
    pub(super) fn rev(&self) -> Revision {
        match self {
            Policy::Head(head) => head.rev,
            Policy::Unreadable(as_of) => *as_of,
        }
    }
}

impl Layout {
    /// No heads, with room for so many accounts.
    pub(super) fn with_room(accounts: usize) -> Layout {
        Layout {
            accounts: Rows::with_room(accounts, ACCOUNT),
            organizations: Rows::with_room(0, 0),
            exclusions: Rows::with_room(0, 0),
            names: Names::default(),
            policy: Policy::Head(Arc::new(PolicyHead::empty())),
        }
    }

    /// The rows of a kind; `None`: the policy is no row.
    pub(super) fn rows(&self, kind: HeadKind) -> Option<&Rows> {
        match kind {
            HeadKind::Policy => None,
            HeadKind::Organization => Some(&self.organizations),
            HeadKind::Account => Some(&self.accounts),
            HeadKind::Exclusion => Some(&self.exclusions),
        }
    }

    /// See [`Layout::rows`].
    pub(super) fn rows_mut(&mut self, kind: HeadKind) -> Option<&mut Rows> {
        match kind {
            HeadKind::Policy => None,
            HeadKind::Organization => Some(&mut self.organizations),
            HeadKind::Account => Some(&mut self.accounts),
            HeadKind::Exclusion => Some(&mut self.exclusions),
        }
    }

    pub(super) fn policy(&self) -> Result<&PolicyHead, NotReady> {
        match &self.policy {
            Policy::Head(head) => Ok(head),
            Policy::Unreadable(_) => Err(NotReady),
        }
    }

    #[inline(always)]
    pub(super) fn account(
        &self,
        key: AccountKey,
        product: Option<ProductIndex>,
    ) -> Result<Option<AccountView>, NotReady> {
        let row = self.accounts.find(Key::new(*key.bytes()));
        row.map(|row| account_view(row, &self.names, product)).transpose()
    }

    pub(super) fn organization(
        &self,
        key: OrganizationKey,
        product: ProductIndex,
    ) -> Result<Option<OrganizationLayer>, NotReady> {
        match self.organizations.find(Key::new(*key.bytes())) {
            None => Ok(None),
            Some(row) => organization_layer(row, product),
        }
    }

    pub(super) fn is_excluded(&self, key: ArtifactKey) -> Result<bool, NotReady> {
        match self.exclusions.find(Key::new(*key.bytes())).map(held) {
            None => Ok(false),
            Some(Held::Head) => Ok(true),
            Some(Held::Unreadable | Held::Mentioned) => Err(NotReady),
        }
    }

    /// Is it certain that no artifact is excluded?
    pub(super) fn excludes_nothing(&self) -> bool {
        self.exclusions.is_bare()
    }

    /// Asks memory for what decisions about these will need, of each for [`TOGETHER`] of them: see [`touch`].
    pub(super) fn touch(&self, accounts: &[AccountKey], artifacts: &[ArtifactKey]) -> u32 {
        let accounts = accounts.iter().map(|key| self.accounts.home(Key::new(*key.bytes())));
        let artifacts = artifacts.iter().map(|key| self.exclusions.home(Key::new(*key.bytes())));
        touch_all(accounts) ^ touch_all(artifacts)
    }
}

fn touch_all<'a>(homes: impl Iterator<Item = &'a [AtomicU32]>) -> u32 {
    let mut found = [&[][..]; TOGETHER];
    let count = found.iter_mut().zip(homes).map(|(found, home)| *found = home).count();
    touch(found.get(..count).unwrap_or_default())
}
