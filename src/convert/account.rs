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

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::head::{Cell, Gate};
    use consent_core::policy::Class;
    use consent_core::words::{Epoch, Name, Restrictions, Revision, Seconds};

    fn product(name: &str, class: Class) -> ProductHead {
        let name = Name::new(name).unwrap();
        let free = (Name::new("free").unwrap(), Cell::NIL);
        let incognito = Gate { class, since: Seconds::ZERO };
        ProductHead { name, incognito, plans: vec![free], kinds: vec![] }
    }

    fn position() -> Position {
        Position { epoch: Epoch::new([1; 16]), revision: Revision::ZERO }
    }

    #[test]
    fn a_product_is_shown_while_it_is_in_force_or_says_something_of_the_account() {
        let policy = PolicyHead {
            products: vec![
                product("chat", Class::Never),
                product("dropped", Class::Nil),
                product("chosen", Class::Nil),
                product("newer", Class::Never),
            ],
            ..PolicyHead::empty()
        };
        let since = AccountProduct { allow_since: Seconds::new(401), ..AccountProduct::NEW };
        let head = AccountHead::Known(KnownAccount {
            rev: Revision::ZERO,
            organization: None,
            restrictions: Restrictions::NONE,
            products: vec![
                AccountProduct { plan: PlanIndex::new(1), ..since },
                since,
                AccountProduct { choice: Some(Choice::Out), plan: Some(PlanIndex::NONE_LEFT), ..since },
            ],
        });
        let shown = account("ada".to_owned(), String::new(), &head, &policy, position());
        let rows: Vec<_> = shown
            .products
            .iter()
            .map(|row| (row.product.as_str(), row.plan.as_str(), row.choice(), row.allow_since.is_some()))
            .collect();
        let expected = [
            ("chat", "free", pb::Choice::Unset, true),
            ("chosen", "(unnamed)", pb::Choice::Out, true),
            ("newer", "", pb::Choice::Unset, false),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn of_an_erased_account_only_that_is_shown() {
        let head = AccountHead::Erased { rev: Revision::ZERO };
        let shown = account("ada".to_owned(), "acme".to_owned(), &head, &PolicyHead::empty(), position());
        assert!(shown.erased && shown.organization.is_empty() && shown.products.is_empty());
    }
}
