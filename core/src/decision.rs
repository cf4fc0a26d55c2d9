//! The decision: a question and heads to ALLOW or DENY, the one reason, and whether waiting could change it
//! (rule.md section 6).
//!
//! Every line that holds is one bit of [`Hits`]; the first is the reason. So the answer and its explanation cannot
//! differ, and nothing is allocated. Anything unknown, unreadable or missing is a DENY.

mod reason;

pub use reason::{Hits, Reason};

use crate::head::{AccountLayer, AccountView, Gate, OrganizationLayer, PolicyHead, ProductHead};
use crate::layers;
use crate::policy::{Class, Mode};
use crate::words::{
    AccountKey, ArtifactKey, Choice, OrganizationKey, PlanIndex, ProductIndex, Restriction, Seconds,
    Timestamp,
};
use reason::Finality;

/// An artifact as a question names it: its key, or what makes its key. To make one takes as long as to decide, and
/// where nothing is excluded none is needed.
pub trait ArtifactOf {
    /// Its key.
    fn key(&self) -> ArtifactKey;
}

impl ArtifactOf for ArtifactKey {
    fn key(&self) -> ArtifactKey {
        *self
    }
}

impl<F: Fn() -> ArtifactKey> ArtifactOf for F {
    fn key(&self) -> ArtifactKey {
        self()
    }
}

/// One question. Names borrow from the request: nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a, A = ArtifactKey> {
    /// Whose data it is.
    pub account: AccountKey,
    /// The artifact.
    pub artifact: A,
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

/// Heads at one revision. Whoever implements it sees to it that one answer reads one state.
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
    /// Is it certain that no artifact is excluded? Then no artifact's key is made.
    fn excludes_nothing(&self) -> bool {
        false
    }
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

/// The answer. `now` is the answering machine's wall clock, and is used for COLLECTED_IN_FUTURE alone.
pub fn decide<A: ArtifactOf>(heads: &impl Heads, question: &Question<'_, A>, now: Timestamp) -> Decision {
    Decider::new(heads, now).decide(question)
}

/// Every line that holds: what Explain shows.
pub fn all_hits(heads: &impl Heads, question: &Question<'_>, now: Timestamp) -> Hits {
    match Decider::new(heads, now).evaluate(question) {
        Ok((hits, _)) => hits,
        Err(NotReady) => {
            let mut hits = Hits::NONE;
            hits.add(Reason::NotReady, true);
            hits
        }
    }
}

/// Answers question after question from the same heads. Names are looked up in the policy when they change, and not
/// for every question: those of a corpus name one product, and few kinds.
#[derive(Debug)]
pub struct Decider<'h, 'q, H> {
    heads: &'h H,
    now: Timestamp,
    product: Option<(&'q str, Named<'h>)>,
    /// Of this product.
    kind: Option<(&'q str, Gate)>,
}

/// What the policy has under the name of a product.
#[derive(Debug, Clone, Copy)]
struct Named<'h> {
    policy: &'h PolicyHead,
    index: Option<ProductIndex>,
    in_force: Option<(ProductIndex, &'h ProductHead)>,
}

impl<'h> Named<'h> {
    fn find(policy: &'h PolicyHead, name: &str) -> Named<'h> {
        let index = policy.product_index(name);
        let in_force = index.and_then(|index| Some((index, policy.product(index)?)));
        Named { policy, index, in_force: in_force.filter(|(_, product)| product.is_in_force()) }
    }
}

impl<'h, 'q, H: Heads> Decider<'h, 'q, H> {
    /// For questions that come at `now`, by the answering machine's wall clock.
    pub const fn new(heads: &'h H, now: Timestamp) -> Decider<'h, 'q, H> {
        Decider { heads, now, product: None, kind: None }
    }

    /// The answer to one.
    pub fn decide<A: ArtifactOf>(&mut self, question: &Question<'q, A>) -> Decision {
        let Ok((hits, policy)) = self.evaluate(question) else { return Decision::NOT_READY };
        let reason = hits.first();
        let is_covered = || {
            let until = self.heads.recorded_at().millis().saturating_add(policy.guard.millis());
            question.collected_at.is_some_and(|c| c.millis() <= until)
        };
        let is_final = match reason.finality() {
            Finality::Open => false,
            Finality::Final => true,
            Finality::Covered => is_covered(),
        };
        Decision { reason, is_final }
    }

    fn product(&mut self, name: &'q str) -> Result<Named<'h>, NotReady> {
        match self.product {
            Some((last, found)) if last == name => Ok(found),
            _ => {
                let found = Named::find(self.heads.policy()?, name);
                (self.product, self.kind) = (Some((name, found)), None);
                Ok(found)
            }
        }
    }

    fn kind(&mut self, product: &ProductHead, name: &'q str) -> Gate {
        match self.kind {
            Some((last, gate)) if last == name => gate,
            _ => {
                let gate = product.gate(name).unwrap_or(Gate::NIL);
                self.kind = Some((name, gate));
                gate
            }
        }
    }

    fn evaluate<A: ArtifactOf>(
        &mut self,
        question: &Question<'q, A>,
    ) -> Result<(Hits, &'h PolicyHead), NotReady> {
        let heads = self.heads;
        let Named { policy, index, in_force } = self.product(question.product)?;
        let account = heads.account(question.account, index)?;
        let collected = question.collected_at.map(Timestamp::millis).filter(|c| *c > 0);
        let mut hits = Hits::NONE;

        hits.add(Reason::MissingCollectedAt, collected.is_none());
        let future = self.now.millis().saturating_add(policy.guard.millis());
        hits.add(Reason::CollectedInFuture, collected.is_some_and(|c| c > future));
        hits.add(Reason::UnknownAccount, account.is_none());
        hits.add(Reason::UnknownProduct, in_force.is_none());
        let is_excluded = !heads.excludes_nothing() && heads.is_excluded(question.artifact.key())?;
        hits.add(Reason::ArtifactExcluded, is_excluded);

        let in_force = in_force.map(|(index, product)| {
            let kind = self.kind(product, question.kind);
            (index, product, gates(product, kind, question.is_incognito, &mut hits))
        });
        match account {
            None => {}
            Some(AccountView::Erased) => hits.add(Reason::Erased, true),
            Some(AccountView::Known(account)) => {
                hits.add(Reason::Minor, account.restrictions.has(Restriction::Minor));
                hits.add(Reason::Region, account.restrictions.has(Restriction::Region));
                if let Some((index, product, gates)) = in_force {
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
}

/// `c >= 1000 * W + guard`; 0 and 2^32 - 1 are never (rule.md section 5).
#[inline]
fn allows_since(since: Seconds, collected: i64, policy: &PolicyHead) -> bool {
    since != Seconds::ZERO
        && since != Seconds::NEVER
        && collected >= i64::from(since.get()) * 1000 + policy.guard.millis()
}

/// Lines 7, 12 and 13, and since when the gates let the artifact through.
#[inline]
fn gates(product: &ProductHead, kind: Gate, is_incognito: bool, hits: &mut Hits) -> Seconds {
    hits.add(Reason::UnknownKind, kind.class == Class::Nil);
    hits.add(Reason::KindNotTrainable, kind.class == Class::Never);
    if is_incognito {
        hits.add(Reason::Incognito, product.incognito.class != Class::Trainable);
        kind.since.max(product.incognito.since)
    } else {
        kind.since
    }
}

/// Lines 14 to 18, and since when the account and all that it is bound by allow.
#[inline(always)]
fn layers(
    product: &ProductHead,
    account: &AccountLayer,
    organization: Option<&OrganizationLayer>,
    hits: &mut Hits,
) -> Seconds {
    let own = (account.product.plan, account.product.choice);
    let its = organization.map_or((None, None), |its| (its.product.plan, its.product.choice));
    let mode = |plan: Option<PlanIndex>| plan.map(|plan| product.cell(plan).mode);
    let (own_mode, its_mode) = (mode(own.0), mode(its.0));
    let either = |wanted| own_mode == Some(wanted) || its_mode == Some(wanted);
    let waits = |mode, choice| mode == Some(Mode::DefaultOut) && choice != Some(Choice::In);

    hits.add(Reason::PlanLockedOut, either(Mode::LockedOut));
    hits.add(Reason::OrganizationOptedOut, its.1 == Some(Choice::Out));
    hits.add(Reason::AccountOptedOut, own.1 == Some(Choice::Out));
    hits.add(Reason::UnknownPlan, (own.0.is_none() && its.0.is_none()) || either(Mode::Nil));
    hits.add(Reason::PlanDefaultOut, waits(own_mode, own.1) || waits(its_mode, its.1));
    layers::account_since(product, account, organization)
}

/// Lines 22 to 24, if no other holds: the most personal explicit yes.
#[inline]
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
