//! Heads: the present state of one account, organization, exclusion or the policy, folded from its events
//! (rule.md section 1). What is stored, streamed, digested and cached are a head's canonical bytes.
//!
//! Folded at write: a party's own choices, plans, moves and sticky restrictions, and what its cells and its
//! organization had denied until then. Joined at decision: cells, organization, gates, exclusions, standing
//! restrictions, guard; so a changed default, or organization, is one head.

mod account;
pub(crate) mod encoding;
mod organization;
mod policy;

pub use account::{AccountHead, AccountLayer, AccountProduct, AccountView, KnownAccount};
pub use encoding::{AccountBytes, KnownBytes, choice_and_plan, read_choice_and_plan};
pub use organization::{OrganizationHead, OrganizationLayer, OrganizationProduct};
pub use policy::{Cell, Edge, Gate, NAMES_MAX, PolicyHead, ProductHead};

pub use crate::bytes::{SEMANTICS, Unreadable};
use crate::words::{AccountKey, ArtifactKey, OrganizationKey, Revision};

/// What kind of head. The order is that of a snapshot: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeadKind {
    /// The policy: there is one.
    Policy,
    /// An organization.
    Organization,
    /// An account.
    Account,
    /// An excluded artifact.
    Exclusion,
}

impl HeadKind {
    /// All four, in order.
    pub const ALL: [HeadKind; 4] =
        [HeadKind::Policy, HeadKind::Organization, HeadKind::Account, HeadKind::Exclusion];

    /// Its number in stores, on the wire and in digests: 1 to 4.
    pub const fn number(self) -> u8 {
        match self {
            HeadKind::Policy => 1,
            HeadKind::Organization => 2,
            HeadKind::Account => 3,
            HeadKind::Exclusion => 4,
        }
    }

    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<HeadKind> {
        match number {
            1 => Some(HeadKind::Policy),
            2 => Some(HeadKind::Organization),
            3 => Some(HeadKind::Account),
            4 => Some(HeadKind::Exclusion),
            _ => None,
        }
    }
}

/// Which head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeadKey {
    /// The policy's.
    Policy,
    /// An organization's.
    Organization(OrganizationKey),
    /// An account's.
    Account(AccountKey),
    /// An exclusion's.
    Exclusion(ArtifactKey),
}

impl HeadKey {
    /// Its kind.
    pub const fn kind(self) -> HeadKind {
        match self {
            HeadKey::Policy => HeadKind::Policy,
            HeadKey::Organization(_) => HeadKind::Organization,
            HeadKey::Account(_) => HeadKind::Account,
            HeadKey::Exclusion(_) => HeadKind::Exclusion,
        }
    }

    /// Its 16 bytes: zeros for the policy.
    pub const fn bytes(self) -> [u8; 16] {
        match self {
            HeadKey::Policy => [0; 16],
            HeadKey::Organization(key) => *key.bytes(),
            HeadKey::Account(key) => *key.bytes(),
            HeadKey::Exclusion(key) => *key.bytes(),
        }
    }

    /// The key of this kind with these bytes; `None` for a policy with others than zeros.
    pub fn new(kind: HeadKind, bytes: [u8; 16]) -> Option<HeadKey> {
        match kind {
            HeadKind::Policy => (bytes == [0; 16]).then_some(HeadKey::Policy),
            HeadKind::Organization => Some(HeadKey::Organization(OrganizationKey::new(bytes))),
            HeadKind::Account => Some(HeadKey::Account(AccountKey::new(bytes))),
            HeadKind::Exclusion => Some(HeadKey::Exclusion(ArtifactKey::new(bytes))),
        }
    }
}

/// That an artifact is excluded, for good. It is not bound to an account, so that naming a wrong owner does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExclusionHead {
    /// The revision of its one event.
    pub rev: Revision,
}

/// Any head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The policy's.
    Policy(PolicyHead),
    /// An organization's.
    Organization(OrganizationHead),
    /// An account's.
    Account(AccountHead),
    /// An exclusion's.
    Exclusion(ExclusionHead),
}

impl Head {
    /// Its kind.
    pub const fn kind(&self) -> HeadKind {
        match self {
            Head::Policy(_) => HeadKind::Policy,
            Head::Organization(_) => HeadKind::Organization,
            Head::Account(_) => HeadKind::Account,
            Head::Exclusion(_) => HeadKind::Exclusion,
        }
    }

    /// The revision of the last event that touched it.
    pub const fn rev(&self) -> Revision {
        match self {
            Head::Policy(head) => head.rev,
            Head::Organization(head) => head.rev,
            Head::Account(head) => head.rev(),
            Head::Exclusion(head) => head.rev,
        }
    }

    /// The organization that it refers to: what the store keeps beside an account's head.
    pub const fn organization(&self) -> Option<OrganizationKey> {
        match self {
            Head::Account(AccountHead::Known(account)) => account.organization,
            Head::Account(AccountHead::Erased { .. })
            | Head::Policy(_)
            | Head::Organization(_)
            | Head::Exclusion(_) => None,
        }
    }
}
