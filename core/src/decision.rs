//! The decision: a question and heads to ALLOW or DENY, the one reason, and whether waiting could change it
//! (rule.md section 6).
//!
//! Every line that holds is one bit of [`Hits`]; the first is the reason. So the answer and its explanation cannot
//! differ, and nothing is allocated. Anything unknown, unreadable or missing is a DENY.

use core::fmt;

use crate::head::{AccountLayer, AccountView, Gate, OrganizationLayer, PolicyHead, ProductHead};
use crate::layers;
use crate::policy::{Class, Mode};
use crate::words::{
    AccountKey, ArtifactKey, Choice, OrganizationKey, PlanIndex, ProductIndex, Restriction, Seconds,
    Timestamp,
};

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
enum Finality {
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

    const fn finality(self) -> Finality {
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

/// One question. Names borrow from the request: nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// Whose data it is.
    pub account: AccountKey,
    /// The artifact.
    pub artifact: ArtifactKey,
    /// Where it arose; anything that is not in the policy, the empty text too, is UNKNOWN_PRODUCT.
    pub product: &'a str,
    /// What it is; likewise UNKNOWN_KIND.
    pub kind: &'a str,
    /// When it was collected, floored to milliseconds.
    pub collected_at: Option<Timestamp>,
    /// Was it incognito?
    pub is_incognito: bool,
}

/// A table is not complete, or a head in it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotReady;

/// Heads at one revision. Whoever implements it sees to it that one answer, or batch, reads one state.
pub trait Heads {
    /// `at(R)` of the revision `R` that the heads are of.
    fn recorded_at(&self) -> Timestamp;
    /// The policy's head; the empty one before the first publication.
    fn policy(&self) -> Result<&PolicyHead, NotReady>;
    /// What the account's head says of the product, or of the account alone; `None`: it has no head.
    fn account(
        &self,
        key: AccountKey,
        product: Option<ProductIndex>,
    ) -> Result<Option<AccountView>, NotReady>;
    /// What the organization's head says of the product.
    fn organization(
        &self,
        key: OrganizationKey,
        product: ProductIndex,
    ) -> Result<Option<OrganizationLayer>, NotReady>;
    /// Is the artifact excluded?
    fn is_excluded(&self, key: ArtifactKey) -> Result<bool, NotReady>;
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The first line that holds. It says whether this is an ALLOW: [`Reason::is_allow`].
    pub reason: Reason,
    /// Waiting cannot change this DENY: the artifact may be dropped.
    pub is_final: bool,
}

impl Decision {
    /// The two that no head decides: [`Reason::NotReady`] and [`Reason::Stale`].
    pub const NOT_READY: Decision = Decision { reason: Reason::NotReady, is_final: false };
    /// The lease is over, or `min_position` was not reached in time.
    pub const STALE: Decision = Decision { reason: Reason::Stale, is_final: false };

    /// May the artifact be trained on?
    pub const fn is_allow(self) -> bool {
        self.reason.is_allow()
    }
}

/// Every line of section 6 that holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hits(u32);

impl Hits {
    const NONE: Hits = Hits(0);

    fn add(&mut self, reason: Reason, holds: bool) {
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

/// The answer. `now` is the answering machine's wall clock, and is used for COLLECTED_IN_FUTURE alone.
pub fn decide(heads: &impl Heads, question: &Question<'_>, now: Timestamp) -> Decision {
    let Ok((hits, policy)) = evaluate(heads, question, now) else { return Decision::NOT_READY };
    let reason = hits.first();
    let is_covered = || {
        let until = heads.recorded_at().millis().saturating_add(policy.guard.millis());
        question.collected_at.is_some_and(|c| c.millis() <= until)
    };
    let is_final = match reason.finality() {
        Finality::Open => false,
        Finality::Final => true,
        Finality::Covered => is_covered(),
    };
    Decision { reason, is_final }
}

/// Every line that holds: what Explain shows.
pub fn all_hits(heads: &impl Heads, question: &Question<'_>, now: Timestamp) -> Hits {
    match evaluate(heads, question, now) {
        Ok((hits, _)) => hits,
        Err(NotReady) => {
            let mut hits = Hits::NONE;
            hits.add(Reason::NotReady, true);
            hits
        }
    }
}

fn evaluate<'h>(
    heads: &'h impl Heads,
    question: &Question<'_>,
    now: Timestamp,
) -> Result<(Hits, &'h PolicyHead), NotReady> {
    let policy = heads.policy()?;
    let index = policy.product_index(question.product);
    let product = index.and_then(|index| policy.product(index)).filter(|product| product.is_in_force());
    let account = heads.account(question.account, index)?;
    let collected = question.collected_at.map(Timestamp::millis).filter(|c| *c > 0);
    let mut hits = Hits::NONE;

    hits.add(Reason::MissingCollectedAt, collected.is_none());
    let future = now.millis().saturating_add(policy.guard.millis());
    hits.add(Reason::CollectedInFuture, collected.is_some_and(|c| c > future));
    hits.add(Reason::UnknownAccount, account.is_none());
    hits.add(Reason::UnknownProduct, product.is_none());
    hits.add(Reason::ArtifactExcluded, heads.is_excluded(question.artifact)?);

    let gates = product.map(|product| gates(product, question, &mut hits));
    match account {
        None => {}
        Some(AccountView::Erased) => hits.add(Reason::Erased, true),
        Some(AccountView::Known(account)) => {
            hits.add(Reason::Minor, account.restrictions.has(Restriction::Minor));
            hits.add(Reason::Region, account.restrictions.has(Restriction::Region));
            if let (Some(index), Some(product), Some(gates)) = (index, product, gates) {
                let organization = match account.organization {
                    None => None,
                    // A complete table has the organization of every account that it has.
                    Some(key) => Some(heads.organization(key, index)?.ok_or(NotReady)?),
                };
                let since = layers(product, &account, organization.as_ref(), &mut hits).max(gates);
                let in_time = |c| allows_since(since, c, policy);
                hits.add(Reason::CollectedBeforeAllowed, collected.is_some_and(|c| !in_time(c)));
                hits.add(Reason::LegalHold, account.restrictions.has(Restriction::LegalHold));
                hits.add(Reason::Suspended, account.restrictions.has(Restriction::Suspended));
                allow(&account, organization.as_ref(), &mut hits);
            }
        }
    }
    Ok((hits, policy))
}

/// `c >= 1000 * W + guard`; 0 and 2^32 - 1 are never (rule.md section 5).
fn allows_since(since: Seconds, collected: i64, policy: &PolicyHead) -> bool {
    since != Seconds::ZERO
        && since != Seconds::NEVER
        && collected >= i64::from(since.get()) * 1000 + policy.guard.millis()
}

/// Lines 7, 12 and 13, and since when the gates let the artifact through.
fn gates(product: &ProductHead, question: &Question<'_>, hits: &mut Hits) -> Seconds {
    let kind = product.gate(question.kind).unwrap_or(Gate::NIL);
    hits.add(Reason::UnknownKind, kind.class == Class::Nil);
    hits.add(Reason::KindNotTrainable, kind.class == Class::Never);
    if question.is_incognito {
        hits.add(Reason::Incognito, product.incognito.class != Class::Trainable);
        kind.since.max(product.incognito.since)
    } else {
        kind.since
    }
}

/// Lines 14 to 18, and since when the account and all that it is bound by allow.
fn layers(
    product: &ProductHead,
    account: &AccountLayer,
    organization: Option<&OrganizationLayer>,
    hits: &mut Hits,
) -> Seconds {
    let own = (account.product.plan, account.product.choice);
    let its = organization.map_or((None, None), |its| (its.product.plan, its.product.choice));
    let mode = |plan: Option<PlanIndex>| plan.map(|plan| product.cell(plan).mode);
    let either = |wanted| mode(own.0) == Some(wanted) || mode(its.0) == Some(wanted);
    let waits = |(plan, choice)| mode(plan) == Some(Mode::DefaultOut) && choice != Some(Choice::In);

    hits.add(Reason::PlanLockedOut, either(Mode::LockedOut));
    hits.add(Reason::OrganizationOptedOut, its.1 == Some(Choice::Out));
    hits.add(Reason::AccountOptedOut, own.1 == Some(Choice::Out));
    hits.add(Reason::UnknownPlan, (own.0.is_none() && its.0.is_none()) || either(Mode::Nil));
    hits.add(Reason::PlanDefaultOut, waits(own) || waits(its));
    layers::account_since(product, account, organization)
}

/// Lines 22 to 24, if no other holds: the most personal explicit yes.
fn allow(account: &AccountLayer, organization: Option<&OrganizationLayer>, hits: &mut Hits) {
    if *hits != Hits::NONE {
        return;
    }
    let yes = Some(Choice::In);
    let reason = if account.product.choice == yes {
        Reason::AccountOptedIn
    } else if organization.is_some_and(|its| its.product.choice == yes) {
        Reason::OrganizationOptedIn
    } else {
        Reason::PlanDefaultIn
    };
    hits.add(reason, true);
}
