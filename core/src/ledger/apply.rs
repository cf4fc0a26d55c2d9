//! An event and a state to the next state: settle, then change (rule.md section 3).
//!
//! Settling, for every product and by the state before the event, is what makes heads exact: it notes in
//! `allow_since` every denial that the event would otherwise make the head forget.

use thiserror::Error;

use super::{HeadRecord, NotLoaded, State};
use crate::event::{Event, Keys};
use crate::head::{
    AccountHead, AccountLayer, AccountProduct, Cell, Edge, ExclusionHead, Head, HeadKey, KnownAccount,
    NAMES_MAX, OrganizationHead, OrganizationLayer, OrganizationProduct, PolicyHead, ProductHead,
};
use crate::layers;
use crate::policy::Document;
use crate::words::{
    AccountKey, ArtifactKey, Name, OrganizationKey, Party, PlanIndex, ProductIndex, Restrictions, Revision,
    Timestamp,
};

/// Why an event cannot be the next one: the ledger, or the batch that was loaded of it, is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    /// See [`NotLoaded`].
    #[error(transparent)]
    NotLoaded(#[from] NotLoaded),
    /// Revisions are dense (R1).
    #[error("revision {got} does not follow {have}")]
    NotNext {
        /// The state's.
        have: Revision,
        /// The event's.
        got: Revision,
    },
    /// Recorded instants never fall.
    #[error("revision {0} was recorded before the one it follows")]
    ClockFell(Revision),
    /// A product that no policy named.
    #[error("no product has index {}", .0.0)]
    NoProduct(ProductIndex),
    /// A plan without a name, or a name that is not the next one.
    #[error("no plan has index {}", .0.get())]
    NoPlan(PlanIndex),
    /// An account in an organization that has no head.
    #[error("the organization has no head")]
    NoOrganization,
    /// An event on an account that was erased.
    #[error("the account was erased")]
    Erased,
    /// A document that no check has let through.
    #[error("the policy's version does not rise, its name changes, or it has too many names")]
    BadDocument,
}

/// What one event did: it changed one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The event's revision: the head's `rev` now.
    pub revision: Revision,
    /// Which head.
    pub key: HeadKey,
    /// What it was; none when it is new.
    pub before: Option<Head>,
    /// What it is.
    pub after: Head,
}

impl Change {
    /// The changed head as stored and sent.
    pub fn record(&self) -> HeadRecord {
        HeadRecord { key: self.key, bytes: self.after.encode() }
    }
}

impl State {
    /// Applies the next event. After an error the state is as it was.
    pub fn apply(
        &mut self,
        event: &Event<Keys>,
        revision: Revision,
        at: Timestamp,
    ) -> Result<Change, Broken> {
        if !revision.follows(self.revision) {
            return Err(Broken::NotNext { have: self.revision, got: revision });
        }
        if at < self.recorded_at {
            return Err(Broken::ClockFell(revision));
        }
        let edge = Edge { since: at.next_second(), rev: revision };
        let change = match *event {
            Event::AccountPut { account, organization } => self.put_account(account, organization, edge),
            Event::OrganizationPut { organization } => self.change_organization(organization, edge, |_| ()),
            Event::ConsentSet { party, product, choice } => {
                self.check_product(product)?;
                match party {
                    Party::Account(key) => self.change_account(key, edge, |account| {
                        account_product(account, product, |own| own.choice = Some(choice));
                    }),
                    Party::Organization(key) => self.change_organization(key, edge, |organization| {
                        organization_product(organization, product, |own| own.choice = Some(choice));
                    }),
                }
            }
            Event::PlanSet { party, product, plan } => {
                self.check_plan(product, plan)?;
                match party {
                    Party::Account(key) => self.change_account(key, edge, |account| {
                        account_product(account, product, |own| own.plan = plan);
                    }),
                    Party::Organization(key) => self.change_organization(key, edge, |organization| {
                        organization_product(organization, product, |own| {
                            set_organization_plan(own, plan, edge)
                        });
                    }),
                }
            }
            Event::PlanNamed { product, plan, ref name } => self.name_plan(product, plan, name, edge),
            Event::Restricted { account, restriction } => self.change_account(account, edge, |account| {
                account.restrictions = account.restrictions.with(restriction);
            }),
            Event::RestrictionLifted { account, restriction } => {
                self.change_account(account, edge, |account| {
                    account.restrictions = account.restrictions.without(restriction);
                })
            }
            Event::AccountErased { account } => self.erase(account, edge),
            Event::ArtifactExcluded { artifact } => self.exclude(artifact, edge),
            Event::PolicyPublished { ref policy } => self.publish(policy, edge),
        }?;
        (self.revision, self.recorded_at) = (revision, at);
        Ok(change)
    }

    fn check_product(&self, product: ProductIndex) -> Result<(), Broken> {
        self.policy.product(product).map(|_| ()).ok_or(Broken::NoProduct(product))
    }

    fn check_plan(&self, product: ProductIndex, plan: Option<PlanIndex>) -> Result<(), Broken> {
        let product = self.policy.product(product).ok_or(Broken::NoProduct(product))?;
        match plan {
            Some(plan) if plan != PlanIndex::NONE_LEFT && product.plan_name(plan).is_none() => {
                Err(Broken::NoPlan(plan))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn change_account(
        &mut self,
        key: AccountKey,
        edge: Edge,
        change: impl FnOnce(&mut KnownAccount),
    ) -> Result<Change, Broken> {
        let before = self.account(key)?.cloned();
        let mut account = match &before {
            None => self.first_mention(edge),
            Some(AccountHead::Known(account)) => self.settle_account(account, edge)?,
            Some(AccountHead::Erased { .. }) => return Err(Broken::Erased),
        };
        change(&mut account);
        Ok(self.set_account(key, before, AccountHead::Known(account), edge))
    }

    fn set_account(
        &mut self,
        key: AccountKey,
        before: Option<AccountHead>,
        after: AccountHead,
        edge: Edge,
    ) -> Change {
        self.accounts.insert(key, Some(after.clone()));
        Change {
            revision: edge.rev,
            key: HeadKey::Account(key),
            before: before.map(Head::Account),
            after: Head::Account(after),
        }
    }

    /// While an account was unknown it was denied.
    fn first_mention(&self, edge: Edge) -> KnownAccount {
        let product = AccountProduct { allow_since: edge.since, ..AccountProduct::NEW };
        KnownAccount {
            rev: edge.rev,
            organization: None,
            restrictions: Restrictions::NONE,
            products: vec![product; self.policy.products.len()],
        }
    }

    fn settle_account(&self, account: &KnownAccount, edge: Edge) -> Result<KnownAccount, Broken> {
        let organization = match account.organization {
            None => None,
            Some(key) => Some(self.organization(key)?.ok_or(Broken::NoOrganization)?),
        };
        let settle = |(index, product)| {
            let layer: AccountLayer = account.layer(Some(index));
            let joined = organization.map(|organization| organization.layer(index));
            let allow_since = if layers::account_allows(product, &layer, joined.as_ref()) {
                layers::account_since(product, &layer, joined.as_ref())
            } else {
                layer.product.allow_since.max(edge.since)
            };
            AccountProduct { allow_since, ..layer.product }
        };
        Ok(KnownAccount {
            rev: edge.rev,
            organization: account.organization,
            restrictions: account.restrictions,
            products: self.policy.indexes().map(settle).collect(),
        })
    }

    /// A change of organization is itself a denied instant: the one left could no longer opt out what was collected
    /// under it, and the one joined must not open what was collected before.
    fn put_account(
        &mut self,
        key: AccountKey,
        organization: Option<OrganizationKey>,
        edge: Edge,
    ) -> Result<Change, Broken> {
        if let Some(organization) = organization {
            self.organization(organization)?.ok_or(Broken::NoOrganization)?;
        }
        self.change_account(key, edge, |account| {
            if account.organization != organization {
                account.organization = organization;
                for product in &mut account.products {
                    product.allow_since = product.allow_since.max(edge.since);
                }
            }
        })
    }

    fn erase(&mut self, key: AccountKey, edge: Edge) -> Result<Change, Broken> {
        let before = self.account(key)?.cloned();
        if matches!(before, Some(AccountHead::Erased { .. })) {
            return Err(Broken::Erased);
        }
        Ok(self.set_account(key, before, AccountHead::Erased { rev: edge.rev }, edge))
    }

    fn change_organization(
        &mut self,
        key: OrganizationKey,
        edge: Edge,
        change: impl FnOnce(&mut OrganizationHead),
    ) -> Result<Change, Broken> {
        let before = self.organization(key)?.cloned();
        let mut organization = match &before {
            None => OrganizationHead {
                rev: edge.rev,
                products: vec![OrganizationProduct::NEW; self.policy.products.len()],
            },
            Some(organization) => self.settle_organization(organization, edge),
        };
        change(&mut organization);
        self.organizations.insert(key, Some(organization.clone()));
        Ok(Change {
            revision: edge.rev,
            key: HeadKey::Organization(key),
            before: before.map(Head::Organization),
            after: Head::Organization(organization),
        })
    }

    fn settle_organization(&self, organization: &OrganizationHead, edge: Edge) -> OrganizationHead {
        let settle = |(index, product)| {
            let layer: OrganizationLayer = organization.layer(index);
            let allow_since = if layers::organization_allows(product, &layer) {
                layers::organization_since(product, &layer)
            } else {
                layer.product.allow_since.max(edge.since)
            };
            OrganizationProduct { allow_since, ..layer.product }
        };
        OrganizationHead { rev: edge.rev, products: self.policy.indexes().map(settle).collect() }
    }

    fn exclude(&mut self, key: ArtifactKey, edge: Edge) -> Result<Change, Broken> {
        let before = self.exclusion(key)?.copied();
        let after = ExclusionHead { rev: edge.rev };
        self.exclusions.insert(key, Some(after));
        Ok(Change {
            revision: edge.rev,
            key: HeadKey::Exclusion(key),
            before: before.map(Head::Exclusion),
            after: Head::Exclusion(after),
        })
    }

    fn name_plan(
        &mut self,
        index: ProductIndex,
        plan: PlanIndex,
        name: &Name,
        edge: Edge,
    ) -> Result<Change, Broken> {
        let mut policy = self.policy.clone();
        let product = policy.products.get_mut(usize::from(index.0)).ok_or(Broken::NoProduct(index))?;
        if product.next_plan() != Some(plan) || product.plan_index(name).is_some() {
            return Err(Broken::NoPlan(plan));
        }
        product.plans.push((name.clone(), Cell::NIL));
        policy.rev = edge.rev;
        Ok(self.set_policy(policy, edge))
    }

    fn publish(&mut self, document: &Document, edge: Edge) -> Result<Change, Broken> {
        let renamed = self.policy.name.as_ref().is_some_and(|name| *name != document.name);
        if document.version <= self.policy.version || renamed {
            return Err(Broken::BadDocument);
        }
        let mut policy = self.policy.clone();
        policy.publish(document, edge);
        let fits =
            |product: &ProductHead| product.plans.len() <= NAMES_MAX && product.kinds.len() <= NAMES_MAX;
        if policy.products.len() > NAMES_MAX || !policy.products.iter().all(fits) {
            return Err(Broken::BadDocument);
        }
        Ok(self.set_policy(policy, edge))
    }

    fn set_policy(&mut self, after: PolicyHead, edge: Edge) -> Change {
        let before = core::mem::replace(&mut self.policy, after.clone());
        Change {
            revision: edge.rev,
            key: HeadKey::Policy,
            before: (before.version != 0).then_some(Head::Policy(before)),
            after: Head::Policy(after),
        }
    }
}

/// A head that was just settled has every product of the policy, and the event's was checked to be one.
fn account_product(
    account: &mut KnownAccount,
    index: ProductIndex,
    change: impl FnOnce(&mut AccountProduct),
) {
    if let Some(product) = account.products.get_mut(usize::from(index.0)) {
        change(product);
    }
}

fn organization_product(
    organization: &mut OrganizationHead,
    index: ProductIndex,
    change: impl FnOnce(&mut OrganizationProduct),
) {
    if let Some(product) = organization.products.get_mut(usize::from(index.0)) {
        change(product);
    }
}

fn set_organization_plan(product: &mut OrganizationProduct, plan: Option<PlanIndex>, edge: Edge) {
    if product.plan.is_none() && plan.is_some() {
        (product.plan_since, product.plan_rev) = (edge.since, edge.rev);
    }
    product.plan = plan;
}
