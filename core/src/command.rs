//! Commands: what a caller asks the ledger to do, after its ids became keys.
//!
//! A command that changes nothing appends nothing. An opt-out is never refused for state.

use crate::event::{Keys, PartyOf};
use crate::head::HeadKey;
use crate::policy::PolicyFile;
use crate::words::{AccountKey, ArtifactKey, Choice, Name, OrganizationKey, Party, Restriction, Revision};

/// One command. `expected` is `expected_revision`: where given, the head must still be at it
/// ([`Revision::ZERO`]: there must be none yet), unless the command changes nothing or is an opt-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A party chooses for a product. IN over a standing OUT needs `expected`; OUT ignores it.
    SetConsent {
        /// Who.
        party: PartyOf<Keys>,
        /// For which product.
        product: Name,
        /// What.
        choice: Choice,
        /// See above.
        expected: Option<Revision>,
    },
    /// A party is on this plan. One that the policy does not know is accepted and denies: refusing it would keep a
    /// perhaps more open plan in force.
    SetPlan {
        /// Who.
        party: PartyOf<Keys>,
        /// Of which product.
        product: Name,
        /// Which plan, or none of its own.
        plan: Option<Name>,
        /// See above.
        expected: Option<Revision>,
    },
    /// The account is known and belongs to this organization, or to none.
    PutAccount {
        /// Whose.
        account: AccountKey,
        /// Its organization from now on. One never heard of becomes known.
        organization: Option<OrganizationKey>,
        /// See above.
        expected: Option<Revision>,
    },
    /// The organization is known.
    PutOrganization {
        /// Which.
        organization: OrganizationKey,
        /// See above.
        expected: Option<Revision>,
    },
    /// Block an account.
    Restrict {
        /// Whose.
        account: AccountKey,
        /// How.
        restriction: Restriction,
        /// See above.
        expected: Option<Revision>,
    },
    /// End a block.
    Lift {
        /// Whose.
        account: AccountKey,
        /// Which.
        restriction: Restriction,
        /// See above.
        expected: Option<Revision>,
    },
    /// Erase an account, for good.
    EraseAccount {
        /// Whose.
        account: AccountKey,
        /// See above.
        expected: Option<Revision>,
    },
    /// Exclude an artifact, for good.
    ExcludeArtifact {
        /// Which.
        artifact: ArtifactKey,
    },
    /// Put another version of the policy in force.
    PublishPolicy {
        /// The file, parsed; checked against the policy in force when it is decided.
        file: Box<PolicyFile>,
        /// See above.
        expected: Option<Revision>,
    },
}

impl Command {
    /// Is it an opt-out? One has reserved room in every queue and is never refused for state.
    pub fn is_opt_out(&self) -> bool {
        matches!(self, Command::SetConsent { choice: Choice::Out, .. })
    }

    /// The heads that must be loaded before this is decided; the policy's, and that of the organization of an
    /// account among them, as well.
    pub fn reads(&self) -> impl Iterator<Item = HeadKey> {
        let party = |party: PartyOf<Keys>| match party {
            Party::Account(key) => HeadKey::Account(key),
            Party::Organization(key) => HeadKey::Organization(key),
        };
        let (first, second) = match *self {
            Command::SetConsent { party: who, .. } | Command::SetPlan { party: who, .. } => {
                (Some(party(who)), None)
            }
            Command::PutAccount { account, organization, .. } => {
                (Some(HeadKey::Account(account)), organization.map(HeadKey::Organization))
            }
            Command::PutOrganization { organization, .. } => {
                (Some(HeadKey::Organization(organization)), None)
            }
            Command::Restrict { account, .. }
            | Command::Lift { account, .. }
            | Command::EraseAccount { account, .. } => (Some(HeadKey::Account(account)), None),
            Command::ExcludeArtifact { artifact } => (Some(HeadKey::Exclusion(artifact)), None),
            Command::PublishPolicy { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }
}
