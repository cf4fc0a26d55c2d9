//! Why, in the order in which it is tried; whether that is for good; and sets of them (rule.md section 6).

use core::fmt;

macro_rules! reasons {
    ($($number:literal $reason:ident $text:literal $doc:literal)+) => {
        /// Why, in the order of rule.md section 6: the first that holds is the reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $doc] $reason = $number,)+
        }

        impl Reason {
            /// All of them, in order.
            pub const ALL: [Reason; 24] = [$(Reason::$reason),+];

            /// Its name: `PLAN_DEFAULT_IN`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$reason => $text,)+
                }
            }
        }
    };
}

reasons! {
    1 NotReady "NOT_READY" "There is no complete table, or a head that is needed cannot be read."
    2 Stale "STALE" "The lease is over, or `min_position` was not reached in time."
    3 MissingCollectedAt "MISSING_COLLECTED_AT" "It is not said when the artifact was collected."
    4 CollectedInFuture "COLLECTED_IN_FUTURE" "The artifact was collected later than now and the guard."
    5 UnknownAccount "UNKNOWN_ACCOUNT" "No event ever mentioned the account."
    6 UnknownProduct "UNKNOWN_PRODUCT" "The policy in force has no such product."
    7 UnknownKind "UNKNOWN_KIND" "The policy in force has no such kind in this product."
    8 Erased "ERASED" "The account was erased."
    9 Minor "MINOR" "The account is a child's."
    10 Region "REGION" "The law of the place."
    11 ArtifactExcluded "ARTIFACT_EXCLUDED" "This artifact is excluded."
    12 Incognito "INCOGNITO" "The artifact is incognito and the product does not train on those."
    13 KindNotTrainable "KIND_NOT_TRAINABLE" "Artifacts of this kind are never trained on."
    14 PlanLockedOut "PLAN_LOCKED_OUT" "A plan that nobody may open."
    15 OrganizationOptedOut "ORGANIZATION_OPTED_OUT" "The organization opted out."
    16 AccountOptedOut "ACCOUNT_OPTED_OUT" "The account opted out."
    17 UnknownPlan "UNKNOWN_PLAN" "There is no plan, or one that the policy in force does not have."
    18 PlanDefaultOut "PLAN_DEFAULT_OUT" "A plan whose owner would have to opt in, and has not."
    19 CollectedBeforeAllowed "COLLECTED_BEFORE_ALLOWED" "It was denied at some instant since it was collected."
    20 LegalHold "LEGAL_HOLD" "The account is frozen for a court."
    21 Suspended "SUSPENDED" "The account is suspended."
    22 AccountOptedIn "ACCOUNT_OPTED_IN" "ALLOW: the account opted in."
    23 OrganizationOptedIn "ORGANIZATION_OPTED_IN" "ALLOW: the organization opted in."
    24 PlanDefaultIn "PLAN_DEFAULT_IN" "ALLOW: the plan is open and nobody opted out."
}

/// Whether a DENY is for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finality {
    /// Waiting may change it.
    Open,
    /// It may not.
    Final,
    /// It may not for an artifact collected up to `at(R)` and the guard: any later edge lies too late for it.
    /// For newer data the node may only be behind.
    Covered,
}

impl Reason {
    /// Is it one of the three that allow?
    pub const fn is_allow(self) -> bool {
        matches!(self, Reason::AccountOptedIn | Reason::OrganizationOptedIn | Reason::PlanDefaultIn)
    }

    /// Its number: 1 to 24.
    pub const fn number(self) -> u8 {
        self as u8
    }

    pub(super) const fn finality(self) -> Finality {
        match self {
            Reason::NotReady
            | Reason::Stale
            | Reason::CollectedInFuture
            | Reason::LegalHold
            | Reason::Suspended
            | Reason::AccountOptedIn
            | Reason::OrganizationOptedIn
            | Reason::PlanDefaultIn => Finality::Open,
            Reason::MissingCollectedAt
            | Reason::Erased
            | Reason::ArtifactExcluded
            | Reason::CollectedBeforeAllowed => Finality::Final,
            Reason::UnknownAccount
            | Reason::UnknownProduct
            | Reason::UnknownKind
            | Reason::Minor
            | Reason::Region
            | Reason::Incognito
            | Reason::KindNotTrainable
            | Reason::PlanLockedOut
            | Reason::OrganizationOptedOut
            | Reason::AccountOptedOut
            | Reason::UnknownPlan
            | Reason::PlanDefaultOut => Finality::Covered,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every line of section 6 that holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hits(u32);

impl Hits {
    pub(super) const NONE: Hits = Hits(0);

    pub(super) fn add(&mut self, reason: Reason, holds: bool) {
        self.0 |= u32::from(holds) << reason.number();
    }

    /// Does this line hold?
    pub const fn has(self, reason: Reason) -> bool {
        self.0 & (1 << reason.number()) != 0
    }

    /// The same, and STALE.
    #[must_use]
    pub const fn and_stale(self) -> Hits {
        Hits(self.0 | 1 << Reason::Stale.number())
    }

    /// The lines that hold, in order.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.has(*reason))
    }

    /// The first line that holds. A set without any is nobody's: it reads as NOT_READY.
    pub fn first(self) -> Reason {
        match (self.0 >> 1).trailing_zeros() {
            line @ 0..24 => Reason::ALL[line as usize],
            _ => Reason::NotReady,
        }
    }
}

impl fmt::Debug for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
