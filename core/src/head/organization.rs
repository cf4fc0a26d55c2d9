//! An organization's head.

use crate::words::{Choice, PlanIndex, ProductIndex, Revision, Seconds};

/// What is known of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationHead {
    /// The revision of the last event that touched this head.
    pub rev: Revision,
    /// By [`ProductIndex`]; a product that it lacks reads as [`OrganizationProduct::NEW`].
    pub products: Vec<OrganizationProduct>,
}

/// One product in an organization's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrganizationProduct {
    /// Its plan.
    pub plan: Option<PlanIndex>,
    /// Its choice; `None` is UNSET.
    pub choice: Option<Choice>,
    /// The end of the last denial that settling has found.
    pub allow_since: Seconds,
    /// When it last went from no plan to one: what members without a plan of their own had waited for.
    pub plan_since: Seconds,
    /// The revision of that.
    pub plan_rev: Revision,
}

impl OrganizationProduct {
    /// Nothing has happened: it denies nobody and opens nothing.
    pub const NEW: OrganizationProduct = OrganizationProduct {
        plan: None,
        choice: None,
        allow_since: Seconds::ZERO,
        plan_since: Seconds::ZERO,
        plan_rev: Revision::ZERO,
    };
}

/// An organization's layer for one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrganizationLayer {
    /// See [`OrganizationHead::rev`].
    pub rev: Revision,
    /// The product's fields.
    pub product: OrganizationProduct,
}

impl OrganizationHead {
    /// Its layer for one product.
    pub fn layer(&self, product: ProductIndex) -> OrganizationLayer {
        OrganizationLayer { rev: self.rev, product: self.product(product) }
    }

    /// One product's fields.
    pub fn product(&self, product: ProductIndex) -> OrganizationProduct {
        self.products.get(usize::from(product.0)).copied().unwrap_or(OrganizationProduct::NEW)
    }
}
