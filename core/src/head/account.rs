//! An account's head. An erased one has nothing but its tombstone: no field could be read by mistake.

use crate::words::{Choice, OrganizationKey, PlanIndex, ProductIndex, Restrictions, Revision, Seconds};

/// What is known of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountHead {
    /// It lives.
    Known(KnownAccount),
    /// It was erased, for good; the key stays as tombstone.
    Erased {
        /// The revision of the erasure.
        rev: Revision,
    },
}

/// An account that was not erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAccount {
    /// The revision of the last event that touched this head. It makes the join exact (rule.md section 4).
    pub rev: Revision,
    /// What it belongs to.
    pub organization: Option<OrganizationKey>,
    /// What stands against it.
    pub restrictions: Restrictions,
    /// By [`ProductIndex`]. It may be shorter than the policy's list: a product that it lacks was named after
    /// this head was written, and reads as [`AccountProduct::NEW`]. So publishing a policy rewrites no head.
    pub products: Vec<AccountProduct>,
}

/// One product in an account's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountProduct {
    /// Its own plan; without one it has its organization's.
    pub plan: Option<PlanIndex>,
    /// Its own choice; `None` is UNSET, and never comes back.
    pub choice: Option<Choice>,
    /// The end of the last denial that settling has found.
    pub allow_since: Seconds,
}

impl AccountProduct {
    /// A product that was named after the account's last event.
    pub const NEW: AccountProduct = AccountProduct { plan: None, choice: None, allow_since: Seconds::ZERO };
}

/// What a decision about one product needs of an account's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountView {
    /// It lives.
    Known(AccountLayer),
    /// It was erased.
    Erased,
}

/// A known account's layer for one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLayer {
    /// See [`KnownAccount::rev`].
    pub rev: Revision,
    /// See [`KnownAccount::organization`].
    pub organization: Option<OrganizationKey>,
    /// See [`KnownAccount::restrictions`].
    pub restrictions: Restrictions,
    /// The product's fields; [`AccountProduct::NEW`] when no product is asked about.
    pub product: AccountProduct,
}

impl AccountHead {
    /// The revision of the last event that touched it.
    pub const fn rev(&self) -> Revision {
        match self {
            AccountHead::Known(account) => account.rev,
            AccountHead::Erased { rev } => *rev,
        }
    }

    /// What a decision needs of it; `product` is none when the question's product is unknown.
    pub fn view(&self, product: Option<ProductIndex>) -> AccountView {
        match self {
            AccountHead::Known(account) => AccountView::Known(account.layer(product)),
            AccountHead::Erased { .. } => AccountView::Erased,
        }
    }
}

impl KnownAccount {
    /// Its layer for one product.
    pub fn layer(&self, product: Option<ProductIndex>) -> AccountLayer {
        AccountLayer {
            rev: self.rev,
            organization: self.organization,
            restrictions: self.restrictions,
            product: product.map_or(AccountProduct::NEW, |product| self.product(product)),
        }
    }

    /// One product's fields.
    pub fn product(&self, product: ProductIndex) -> AccountProduct {
        self.products.get(usize::from(product.0)).copied().unwrap_or(AccountProduct::NEW)
    }
}
