//! Events: the immutable facts of the ledger, and the two ways in which they name whom they are about.
//!
//! One event touches exactly one head (account, organization, exclusion or policy), so that a frame on the sync
//! stream carries one head and a command that needs two heads gives two events.
//!
//! The fold works with [`Keys`]; the ledger stores and hashes [`Subjects`]: random names whose tie to a key stands
//! in an erasable table. Erasing a person leaves the chain whole and the old events about nobody.

mod encoding;

use core::convert::Infallible;
use core::fmt;

use crate::head::HeadKey;
use crate::policy::Document;
use crate::words::{
    AccountKey, ArtifactKey, Choice, Name, OrganizationKey, Party, PlanIndex, ProductIndex, Restriction,
    Revision, Subject, Timestamp,
};

/// How parties and artifacts are named.
pub trait Naming {
    /// What names an account.
    type Account: Copy + Eq + fmt::Debug;
    /// What names an organization.
    type Organization: Copy + Eq + fmt::Debug;
    /// What names an artifact.
    type Artifact: Copy + Eq + fmt::Debug;
}

/// By keyed hash: what the fold, the heads and the nodes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {}

impl Naming for Keys {
    type Account = AccountKey;
    type Organization = OrganizationKey;
    type Artifact = ArtifactKey;
}

/// By random name: what the ledger stores and hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subjects {}

impl Naming for Subjects {
    type Account = Subject;
    type Organization = Subject;
    type Artifact = Subject;
}

/// A party under a naming.
pub type PartyOf<N> = Party<<N as Naming>::Account, <N as Naming>::Organization>;

/// One fact (rule.md section 3).
///
/// An account's or organization's first event creates its head, whatever the event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<N: Naming> {
    /// The account is known, and belongs to this organization or to none.
    AccountPut {
        /// Whose.
        account: N::Account,
        /// Its organization from now on.
        organization: Option<N::Organization>,
    },
    /// The organization is known.
    OrganizationPut {
        /// Which.
        organization: N::Organization,
    },
    /// A party chose.
    ConsentSet {
        /// Who.
        party: PartyOf<N>,
        /// For which product.
        product: ProductIndex,
        /// What.
        choice: Choice,
    },
    /// A party is on another plan.
    PlanSet {
        /// Who.
        party: PartyOf<N>,
        /// Of which product.
        product: ProductIndex,
        /// Which one, or none of its own.
        plan: Option<PlanIndex>,
    },
    /// A plan that no policy names was mentioned and got its permanent index. Its cell is NIL.
    PlanNamed {
        /// Of which product.
        product: ProductIndex,
        /// The index: the product's next.
        plan: PlanIndex,
        /// The name.
        name: Name,
    },
    /// A block on an account.
    Restricted {
        /// Whose.
        account: N::Account,
        /// Which.
        restriction: Restriction,
    },
    /// Its end.
    RestrictionLifted {
        /// Whose.
        account: N::Account,
        /// Which.
        restriction: Restriction,
    },
    /// The account is erased, for good.
    AccountErased {
        /// Whose.
        account: N::Account,
    },
    /// One artifact is excluded, for good.
    ArtifactExcluded {
        /// Which.
        artifact: N::Artifact,
    },
    /// Another version of the policy is in force. The document is resolved: refolding needs no TOML.
    PolicyPublished {
        /// The whole policy.
        policy: Document,
    },
}

/// An event with its place and instant: what is encoded, hashed and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<N: Naming> {
    /// Its revision.
    pub revision: Revision,
    /// `at(revision)`: the store's clock, never falling.
    pub recorded_at: Timestamp,
    /// The fact.
    pub event: Event<N>,
}

/// Whom an event names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Named {
    /// An account.
    Account(AccountKey),
    /// An organization.
    Organization(OrganizationKey),
    /// An artifact.
    Artifact(ArtifactKey),
}

impl From<Named> for HeadKey {
    fn from(named: Named) -> HeadKey {
        match named {
            Named::Account(key) => HeadKey::Account(key),
            Named::Organization(key) => HeadKey::Organization(key),
            Named::Artifact(key) => HeadKey::Exclusion(key),
        }
    }
}

/// How to go from one naming to another. It may fail: the tie of an erased person is gone.
pub trait Translate<From: Naming, To: Naming> {
    /// Why a name has no counterpart.
    type Error;
    /// The account's other name.
    fn account(&mut self, name: From::Account) -> Result<To::Account, Self::Error>;
    /// The organization's other name.
    fn organization(&mut self, name: From::Organization) -> Result<To::Organization, Self::Error>;
    /// The artifact's other name.
    fn artifact(&mut self, name: From::Artifact) -> Result<To::Artifact, Self::Error>;
}

impl<N: Naming> Event<N> {
    /// The same fact under another naming.
    pub fn translate<M: Naming, T: Translate<N, M>>(&self, names: &mut T) -> Result<Event<M>, T::Error> {
        Ok(match *self {
            Event::AccountPut { account, organization } => Event::AccountPut {
                account: names.account(account)?,
                organization: organization.map(|name| names.organization(name)).transpose()?,
            },
            Event::OrganizationPut { organization } => {
                Event::OrganizationPut { organization: names.organization(organization)? }
            }
            Event::ConsentSet { party, product, choice } => {
                Event::ConsentSet { party: translate_party(party, names)?, product, choice }
            }
            Event::PlanSet { party, product, plan } => {
                Event::PlanSet { party: translate_party(party, names)?, product, plan }
            }
            Event::PlanNamed { product, plan, ref name } => {
                Event::PlanNamed { product, plan, name: name.clone() }
            }
            Event::Restricted { account, restriction } => {
                Event::Restricted { account: names.account(account)?, restriction }
            }
            Event::RestrictionLifted { account, restriction } => {
                Event::RestrictionLifted { account: names.account(account)?, restriction }
            }
            Event::AccountErased { account } => Event::AccountErased { account: names.account(account)? },
            Event::ArtifactExcluded { artifact } => {
                Event::ArtifactExcluded { artifact: names.artifact(artifact)? }
            }
            Event::PolicyPublished { ref policy } => Event::PolicyPublished { policy: policy.clone() },
        })
    }
}

fn translate_party<N: Naming, M: Naming, T: Translate<N, M>>(
    party: PartyOf<N>,
    names: &mut T,
) -> Result<PartyOf<M>, T::Error> {
    Ok(match party {
        Party::Account(name) => Party::Account(names.account(name)?),
        Party::Organization(name) => Party::Organization(names.organization(name)?),
    })
}

impl Event<Keys> {
    /// The same fact under random names: what the writer lane stores. Every key that it names is asked for.
    pub fn name_with(&self, subject: impl FnMut(Named) -> Subject) -> Event<Subjects> {
        struct ToSubjects<F>(F);
        impl<F: FnMut(Named) -> Subject> Translate<Keys, Subjects> for ToSubjects<F> {
            type Error = Infallible;
            fn account(&mut self, key: AccountKey) -> Result<Subject, Infallible> {
                Ok((self.0)(Named::Account(key)))
            }
            fn organization(&mut self, key: OrganizationKey) -> Result<Subject, Infallible> {
                Ok((self.0)(Named::Organization(key)))
            }
            fn artifact(&mut self, key: ArtifactKey) -> Result<Subject, Infallible> {
                Ok((self.0)(Named::Artifact(key)))
            }
        }
        match self.translate(&mut ToSubjects(subject)) {
            Ok(event) => event,
            Err(never) => match never {},
        }
    }

    /// Whom it names: at most two.
    pub fn names(&self) -> impl Iterator<Item = Named> {
        let party = |party: PartyOf<Keys>| match party {
            Party::Account(key) => Named::Account(key),
            Party::Organization(key) => Named::Organization(key),
        };
        let (first, second) = match *self {
            Event::AccountPut { account, organization } => {
                (Some(Named::Account(account)), organization.map(Named::Organization))
            }
            Event::OrganizationPut { organization } => (Some(Named::Organization(organization)), None),
            Event::ConsentSet { party: who, .. } | Event::PlanSet { party: who, .. } => {
                (Some(party(who)), None)
            }
            Event::Restricted { account, .. }
            | Event::RestrictionLifted { account, .. }
            | Event::AccountErased { account } => (Some(Named::Account(account)), None),
            Event::ArtifactExcluded { artifact } => (Some(Named::Artifact(artifact)), None),
            Event::PlanNamed { .. } | Event::PolicyPublished { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }
}
