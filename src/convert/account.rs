//! An account's head as people read it: indexes become names again.

use super::to_instant;
use crate::pb;
use consent_core::head::{AccountHead, AccountProduct, KnownAccount, PolicyHead, ProductHead};
use consent_core::words::{Choice, PlanIndex, Position};

/// The present state of an account. `organization` is the id of the one it belongs to, empty for none.
pub fn account(
    id: String,
    organization: String,
    head: &AccountHead,
    policy: &PolicyHead,
    position: Position,
) -> pb::GetAccountResponse {
    let revision = head.rev().get();
    let position = Some(position.into());
    match head {
        AccountHead::Erased { .. } => pb::GetAccountResponse {
            account: id,
            organization: String::new(),
            revision,
            erased: true,
            products: Vec::new(),
            position,
        },
        AccountHead::Known(known) => pb::GetAccountResponse {
            account: id,
            organization,
            revision,
            erased: false,
            products: products(known, policy),
            position,
        },
    }
}

/// Every product that the policy in force names, or in which the account has a plan or a choice.
fn products(account: &KnownAccount, policy: &PolicyHead) -> Vec<pb::AccountProduct> {
    let row = |(index, product): (_, &ProductHead)| {
        let own: AccountProduct = account.product(index);
        let shown = product.is_in_force() || own.plan.is_some() || own.choice.is_some();
        shown.then(|| pb::AccountProduct {
            product: product.name.as_str().to_owned(),
            plan: own.plan.map(|plan| plan_name(product, plan)).unwrap_or_default(),
            choice: choice(own.choice).into(),
            allow_since: to_instant(own.allow_since),
        })
    };
    policy.indexes().filter_map(row).collect()
}

/// The plan's name. One that came when no index was left has none any more, and says so in a form that no name has.
pub(super) fn plan_name(product: &ProductHead, plan: PlanIndex) -> String {
    product.plan_name(plan).map_or_else(|| "(unnamed)".to_owned(), |name| name.as_str().to_owned())
}

/// The choice on the wire.
pub(super) const fn choice(choice: Option<Choice>) -> pb::Choice {
    match choice {
        None => pb::Choice::Unset,
        Some(Choice::In) => pb::Choice::In,
        Some(Choice::Out) => pb::Choice::Out,
    }
}
