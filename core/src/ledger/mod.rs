//! The ledger as a fold: command and state to events, event and state to state (rule.md section 3).
//!
//! [`State::decide`] and [`State::apply`] are pure. A [`State`] serves two kinds of reader. A *whole* one has every
//! head: the past, a dry run, a test, a table. A *batch* is what the writer lane loaded for some commands: a head
//! that it did not load is not an unknown party, and asking for it is an error and never a new head.
//! Several commands of a batch are decided and applied one after the other on the same state, so that the second
//! sees what the first did.

mod apply;
mod decide;

use std::collections::BTreeMap;

use thiserror::Error;

pub use apply::{Broken, Change};

use crate::bytes::Unreadable;
use crate::decision::{Heads, NotReady};
use crate::head::{
    AccountHead, AccountView, ExclusionHead, Head, HeadKey, OrganizationHead, OrganizationLayer, PolicyHead,
};
use crate::words::{AccountKey, ArtifactKey, OrganizationKey, ProductIndex, Revision, Timestamp};

/// Heads at a revision: all of them, or those that a batch loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    is_whole: bool,
    revision: Revision,
    recorded_at: Timestamp,
    policy: PolicyHead,
    // `None`: loaded, and there is none.
    organizations: BTreeMap<OrganizationKey, Option<OrganizationHead>>,
    accounts: BTreeMap<AccountKey, Option<AccountHead>>,
    exclusions: BTreeMap<ArtifactKey, Option<ExclusionHead>>,
}

/// A batch was asked for a head that it did not load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the head was not loaded: {0:?}")]
pub struct NotLoaded(pub HeadKey);

/// One head as stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRecord {
    /// Which head.
    pub key: HeadKey,
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
}

impl State {
    /// The whole state of the empty ledger.
    pub fn empty() -> State {
        State {
            is_whole: true,
            revision: Revision::ZERO,
            recorded_at: Timestamp::from_millis(0),
            policy: PolicyHead::empty(),
            organizations: BTreeMap::new(),
            accounts: BTreeMap::new(),
            exclusions: BTreeMap::new(),
        }
    }

    /// A batch on the ledger at this revision, recorded at this instant, under this policy
    /// ([`PolicyHead::empty`] where there is no such head). Its other heads come by [`State::load`].
    pub fn batch(revision: Revision, recorded_at: Timestamp, policy: PolicyHead) -> State {
        State { is_whole: false, revision, recorded_at, policy, ..State::empty() }
    }

    /// Takes in a head as stored, or that there is none.
    pub fn load(&mut self, key: HeadKey, bytes: Option<&[u8]>) -> Result<(), Unreadable> {
        match key {
            HeadKey::Policy => {
                self.policy = bytes.map(PolicyHead::decode).transpose()?.unwrap_or(PolicyHead::empty());
            }
            HeadKey::Organization(key) => {
                self.organizations.insert(key, bytes.map(OrganizationHead::decode).transpose()?);
            }
            HeadKey::Account(key) => {
                self.accounts.insert(key, bytes.map(AccountHead::decode).transpose()?);
            }
            HeadKey::Exclusion(key) => {
                self.exclusions.insert(key, bytes.map(ExclusionHead::decode).transpose()?);
            }
        }
        Ok(())
    }

    /// Has this head, or its absence, been taken in?
    pub fn is_loaded(&self, key: HeadKey) -> bool {
        self.is_whole
            || match key {
                HeadKey::Policy => true,
                HeadKey::Organization(key) => self.organizations.contains_key(&key),
                HeadKey::Account(key) => self.accounts.contains_key(&key),
                HeadKey::Exclusion(key) => self.exclusions.contains_key(&key),
            }
    }

    /// Says up to where the heads that were loaded into a whole state go: the end of a snapshot.
    pub fn reached(&mut self, revision: Revision, recorded_at: Timestamp) {
        (self.revision, self.recorded_at) = (revision, recorded_at);
    }

    /// The revision that this state is of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The instant of that revision.
    pub fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }

    /// The policy's head.
    pub fn policy(&self) -> &PolicyHead {
        &self.policy
    }

    /// An account's head, or that there is none.
    pub fn account(&self, key: AccountKey) -> Result<Option<&AccountHead>, NotLoaded> {
        self.find(self.accounts.get(&key), HeadKey::Account(key))
    }

    /// An organization's head, or that there is none.
    pub fn organization(&self, key: OrganizationKey) -> Result<Option<&OrganizationHead>, NotLoaded> {
        self.find(self.organizations.get(&key), HeadKey::Organization(key))
    }

    /// An exclusion, or that there is none.
    pub fn exclusion(&self, key: ArtifactKey) -> Result<Option<&ExclusionHead>, NotLoaded> {
        self.find(self.exclusions.get(&key), HeadKey::Exclusion(key))
    }

    /// Every head that there is, the policy first, in the order of [`HeadKey`].
    pub fn heads(&self) -> impl Iterator<Item = (HeadKey, Head)> {
        let policy = (self.policy.version != 0).then(|| (HeadKey::Policy, Head::Policy(self.policy.clone())));
        let organizations = self.organizations.iter().filter_map(|(key, head)| {
            head.clone().map(|head| (HeadKey::Organization(*key), Head::Organization(head)))
        });
        let accounts = self
            .accounts
            .iter()
            .filter_map(|(key, head)| head.clone().map(|head| (HeadKey::Account(*key), Head::Account(head))));
        let exclusions = self
            .exclusions
            .iter()
            .filter_map(|(key, head)| head.map(|head| (HeadKey::Exclusion(*key), Head::Exclusion(head))));
        policy.into_iter().chain(organizations).chain(accounts).chain(exclusions)
    }

    fn find<'a, H>(&self, found: Option<&'a Option<H>>, key: HeadKey) -> Result<Option<&'a H>, NotLoaded> {
        match found {
            Some(head) => Ok(head.as_ref()),
            None if self.is_whole => Ok(None),
            None => Err(NotLoaded(key)),
        }
    }
}

impl Heads for State {
    fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }

    fn policy(&self) -> Result<&PolicyHead, NotReady> {
        Ok(&self.policy)
    }

    fn account(
        &self,
        key: AccountKey,
        product: Option<ProductIndex>,
    ) -> Result<Option<AccountView>, NotReady> {
        match self.account(key) {
            Ok(head) => Ok(head.map(|head| head.view(product))),
            Err(NotLoaded(_)) => Err(NotReady),
        }
    }

    fn organization(
        &self,
        key: OrganizationKey,
        product: ProductIndex,
    ) -> Result<Option<OrganizationLayer>, NotReady> {
        match self.organization(key) {
            Ok(head) => Ok(head.map(|head| head.layer(product))),
            Err(NotLoaded(_)) => Err(NotReady),
        }
    }

    fn is_excluded(&self, key: ArtifactKey) -> Result<bool, NotReady> {
        match self.exclusion(key) {
            Ok(head) => Ok(head.is_some()),
            Err(NotLoaded(_)) => Err(NotReady),
        }
    }
}
