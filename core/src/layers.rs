//! Which layers allow, and since when: sections 2 and 3 of rule.md, for one product.
//!
//! Settling and deciding both stand on these four functions, so that what is folded at write and what is joined at
//! decision cannot drift apart.

use crate::head::{AccountLayer, Edge, OrganizationLayer, ProductHead};
use crate::policy::Mode;
use crate::words::{Choice, PlanIndex, Revision, Seconds};

/// A party is bound by its own plan, which only its own choice can open.
fn party_allows(product: &ProductHead, plan: Option<PlanIndex>, choice: Option<Choice>) -> bool {
    let opted = match choice {
        Some(Choice::Out) => return false,
        Some(Choice::In) => true,
        None => false,
    };
    match plan.map(|plan| product.cell(plan).mode) {
        None | Some(Mode::DefaultIn) => true,
        Some(Mode::DefaultOut) => opted,
        Some(Mode::LockedOut | Mode::Nil) => false,
    }
}

/// `org_allows`.
pub fn organization_allows(product: &ProductHead, organization: &OrganizationLayer) -> bool {
    party_allows(product, organization.product.plan, organization.product.choice)
}

/// `acct_allows`, but for what is no layer: standing restrictions, gates, exclusions. `organization` is the
/// account's, if it has one.
pub fn account_allows(
    product: &ProductHead,
    account: &AccountLayer,
    organization: Option<&OrganizationLayer>,
) -> bool {
    let somebody_has_a_plan =
        account.product.plan.is_some() || organization.is_some_and(|its| its.product.plan.is_some());
    !account.restrictions.any_sticky()
        && party_allows(product, account.product.plan, account.product.choice)
        && organization.is_none_or(|its| organization_allows(product, its))
        && somebody_has_a_plan
}

/// The edge of a party's plan, if it came after the party's last event: what came before is in `allow_since`.
#[inline]
fn newer_edge(
    product: &ProductHead,
    plan: Option<PlanIndex>,
    choice: Option<Choice>,
    rev: Revision,
) -> Option<Seconds> {
    let Edge { since, rev: edge_rev } = product.cell(plan?).edge(choice);
    (edge_rev > rev).then_some(since)
}

/// `org_since`: the end of the last instant at which the organization denied. Meaningful while it allows.
#[inline]
pub fn organization_since(product: &ProductHead, organization: &OrganizationLayer) -> Seconds {
    let OrganizationLayer { rev, product: own } = *organization;
    own.allow_since.max(newer_edge(product, own.plan, own.choice, rev).unwrap_or(Seconds::ZERO))
}

/// `acct_since`: the end of the last instant at which any layer of the account denied. Meaningful while all allow.
#[inline]
pub fn account_since(
    product: &ProductHead,
    account: &AccountLayer,
    organization: Option<&OrganizationLayer>,
) -> Seconds {
    let AccountLayer { rev, product: own, .. } = *account;
    let edge = newer_edge(product, own.plan, own.choice, rev);
    let joined = organization.map(|its| organization_since(product, its));
    let first_plan = organization
        .filter(|its| own.plan.is_none() && its.product.plan_rev > rev)
        .map(|its| its.product.plan_since);
    [edge, joined, first_plan].into_iter().flatten().fold(own.allow_since, Seconds::max)
}
