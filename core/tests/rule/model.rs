//! The fold once more, written another way on plain numbers, with one fault at a time.
//!
//! Without a fault it equals the production heads, head for head. With one it is what a careless version of the rule
//! would be; the oracle must find each of them. Nothing in the production code knows of faults.

use consent_core::head::{AccountHead, OrganizationHead};
use consent_core::ledger::State;
use consent_core::policy::{Class, Mode};
use consent_core::words::{Choice, Party, PlanIndex, Restriction, Restrictions};

use crate::history::{ACCOUNTS, Act, Ask, Kind, ORGANIZATIONS, PLANS, PRODUCTS, Rules};
use crate::names;
use crate::play::Fact;

/// A careless version of the rule (rule.md section 8, last paragraph).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    LayersFoldedApart,
    AccountNotSettled,
    OrganizationNotSettled,
    OneEdgePerCell,
    LeavingNotDenied,
    NoPlusOne,
    NoGuard,
    GateWithoutSince,
    StickyLiftedWithoutEdge,
    NoRevisionTest,
    NoPlanRev,
}

impl Fault {
    pub(crate) const ALL: [Fault; 11] = [
        Fault::LayersFoldedApart,
        Fault::AccountNotSettled,
        Fault::OrganizationNotSettled,
        Fault::OneEdgePerCell,
        Fault::LeavingNotDenied,
        Fault::NoPlusOne,
        Fault::NoGuard,
        Fault::GateWithoutSince,
        Fault::StickyLiftedWithoutEdge,
        Fault::NoRevisionTest,
        Fault::NoPlanRev,
    ];

    pub(crate) const fn what(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::LayersFoldedApart => "layers folded apart, plain maximum",
            Fault::AccountNotSettled => "account not settled",
            Fault::OrganizationNotSettled => "organization not settled",
            Fault::OneEdgePerCell => "one edge per cell",
            Fault::LeavingNotDenied => "leaving not denied",
            Fault::NoPlusOne => "no + 1",
            Fault::NoGuard => "no guard",
            Fault::GateWithoutSince => "gate without since",
            Fault::StickyLiftedWithoutEdge => "sticky lifted without edge",
            Fault::NoRevisionTest => "no revision test",
            Fault::NoPlanRev => "no plan_rev",
        }
    }

    /// The last two only deny too much.
    pub(crate) const fn only_denies(self) -> bool {
        matches!(self, Fault::NoRevisionTest | Fault::NoPlanRev)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    mode: u8,
    open: (u32, u64),
    default: (u32, u64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Product {
    is_named: bool,
    is_in_force: bool,
    cells: [Cell; PLANS],
    // Input, output, incognito: trainable now, and since when.
    gates: [(bool, u32); 3],
}

/// A party's fields for a product; the last two are an organization's.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    plan: Option<usize>,
    choice: Option<Choice>,
    since: u32,
    plan_since: u32,
    plan_rev: u64,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    is_erased: bool,
    organization: Option<usize>,
    restrictions: u8,
    rev: u64,
    own: [Own; PRODUCTS],
}

#[derive(Debug, Clone, Copy)]
struct Organization {
    rev: u64,
    own: [Own; PRODUCTS],
}

pub(crate) struct Model {
    fault: Fault,
    guard: i64,
    products: [Product; PRODUCTS],
    accounts: [Option<Account>; ACCOUNTS],
    organizations: [Option<Organization>; ORGANIZATIONS],
    excluded: [bool; 2],
}

const STICKY: u8 = 3;

impl Model {
    pub(crate) fn new(fault: Fault) -> Model {
        Model {
            fault,
            guard: 0,
            products: [Product::default(); PRODUCTS],
            accounts: [None; ACCOUNTS],
            organizations: [None; ORGANIZATIONS],
            excluded: [false; 2],
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    pub(crate) fn apply(&mut self, fact: &Fact) {
        use consent_core::event::Event;
        let second = u32::try_from(fact.at / 1_000).unwrap() + u32::from(!self.has(Fault::NoPlusOne));
        let stamp = (second, fact.revision.get());
        // Of two events of one command the first only makes the second possible.
        match (&fact.event, fact.act) {
            (Event::PlanNamed { .. }, _) => {}
            (
                Event::OrganizationPut { .. },
                Act::Account { organization: Some(number), .. } | Act::Organization { organization: number },
            ) => self.change_organization(number, stamp, |_| ()),
            (_, Act::Account { account, organization }) => {
                let keeps = organization.is_none() && self.has(Fault::LeavingNotDenied);
                let is_named = self.products.map(|product| product.is_named);
                self.change_account(account, stamp, |account| {
                    let moves = account.organization != organization;
                    account.organization = organization;
                    for (own, is_named) in account.own.iter_mut().zip(is_named) {
                        if moves && is_named && !keeps {
                            own.since = own.since.max(stamp.0);
                        }
                    }
                });
            }
            (_, Act::Organization { organization }) => self.change_organization(organization, stamp, |_| ()),
            (_, Act::Consent { party: Party::Account(number), product, choice, .. }) => {
                self.change_account(number, stamp, |account| account.own[product].choice = Some(choice));
            }
            (_, Act::Consent { party: Party::Organization(number), product, choice, .. }) => {
                self.change_organization(number, stamp, |its| its.own[product].choice = Some(choice));
            }
            (_, Act::Plan { party: Party::Account(number), product, plan }) => {
                self.change_account(number, stamp, |account| account.own[product].plan = plan);
            }
            (_, Act::Plan { party: Party::Organization(number), product, plan }) => {
                self.change_organization(number, stamp, |its| {
                    let own = &mut its.own[product];
                    if own.plan.is_none() && plan.is_some() {
                        (own.plan_since, own.plan_rev) = stamp;
                    }
                    own.plan = plan;
                });
            }
            (_, Act::Restrict { account, restriction }) => {
                self.change_account(account, stamp, |account| account.restrictions |= bit(restriction));
            }
            (_, Act::Lift { account, restriction }) => {
                self.change_account(account, stamp, |account| account.restrictions &= !bit(restriction));
            }
            (_, Act::Erase { account }) => self.change_account(account, stamp, |account| {
                let rev = account.rev;
                let own = [Own::default(); PRODUCTS];
                *account = Account { is_erased: true, organization: None, restrictions: 0, rev, own };
            }),
            (_, Act::Exclude { artifact }) => self.excluded[artifact] = true,
            (_, Act::Publish { rules }) => self.publish(&rules, stamp),
        }
    }

    fn publish(&mut self, rules: &Rules, stamp: (u32, u64)) {
        self.guard = self.guard.max(i64::from(rules.guard));
        for (product, rules) in self.products.iter_mut().zip(rules.products) {
            product.is_named |= rules.is_some();
            product.is_in_force = rules.is_some();
            for (plan, cell) in product.cells.iter_mut().enumerate() {
                let mode = rules.and_then(|rules| rules.plans.get(plan).copied()).unwrap_or(Mode::Nil) as u8;
                for (height, edge) in [(2, &mut cell.open), (3, &mut cell.default)] {
                    if cell.mode < height && height <= mode {
                        *edge = stamp;
                    }
                }
                cell.mode = mode;
            }
            let open = rules.map_or([false; 3], |rules| {
                [rules.input == Class::Trainable, rules.output == Class::Trainable, rules.incognito]
            });
            for (gate, is_open) in product.gates.iter_mut().zip(open) {
                if !gate.0 && is_open {
                    gate.1 = stamp.0;
                }
                gate.0 = is_open;
            }
        }
    }

    fn change_account(&mut self, number: usize, stamp: (u32, u64), change: impl FnOnce(&mut Account)) {
        let Some(before) = self.accounts[number] else {
            let own = core::array::from_fn(|product| Own {
                since: if self.products[product].is_named { stamp.0 } else { 0 },
                ..Own::default()
            });
            let (organization, rev) = (None, stamp.1);
            let mut new = Account { is_erased: false, organization, restrictions: 0, rev, own };
            change(&mut new);
            self.accounts[number] = Some(new);
            return;
        };
        let mut after = Account { rev: stamp.1, ..before };
        let careless = self.has(Fault::AccountNotSettled) || self.has(Fault::LayersFoldedApart);
        if !careless {
            for product in (0..PRODUCTS).filter(|product| self.products[*product].is_named) {
                let seen = Account {
                    restrictions: if self.has(Fault::StickyLiftedWithoutEdge) {
                        0
                    } else {
                        before.restrictions
                    },
                    ..before
                };
                after.own[product].since = if self.allows(&seen, product) {
                    self.since(&before, product)
                } else {
                    before.own[product].since.max(stamp.0)
                };
            }
        }
        change(&mut after);
        // What one notes who does not settle: the edges that the account's own event makes.
        for product in 0..PRODUCTS {
            let opens = if self.has(Fault::AccountNotSettled) {
                !self.allows(&before, product) && self.allows(&after, product)
            } else {
                self.has(Fault::LayersFoldedApart)
                    && (opts_in_again(before.own[product], after.own[product])
                        || (before.restrictions & STICKY != 0 && after.restrictions & STICKY == 0))
            };
            if opens {
                after.own[product].since = after.own[product].since.max(stamp.0);
            }
        }
        self.accounts[number] = Some(after);
    }

    fn change_organization(
        &mut self,
        number: usize,
        stamp: (u32, u64),
        change: impl FnOnce(&mut Organization),
    ) {
        let before =
            self.organizations[number].unwrap_or(Organization { rev: stamp.1, own: Default::default() });
        let mut after = Organization { rev: stamp.1, ..before };
        let careless = self.has(Fault::OrganizationNotSettled) || self.has(Fault::LayersFoldedApart);
        if !careless && self.organizations[number].is_some() {
            for product in (0..PRODUCTS).filter(|product| self.products[*product].is_named) {
                let own = before.own[product];
                after.own[product].since = if self.party(product, own) {
                    self.organization_since(&before, product)
                } else {
                    own.since.max(stamp.0)
                };
            }
        }
        change(&mut after);
        for product in 0..PRODUCTS {
            let (old, new) = (before.own[product], after.own[product]);
            let opens = if self.has(Fault::OrganizationNotSettled) {
                !self.party(product, old) && self.party(product, new)
            } else {
                self.has(Fault::LayersFoldedApart) && opts_in_again(old, new)
            };
            if opens {
                after.own[product].since = after.own[product].since.max(stamp.0);
            }
        }
        self.organizations[number] = Some(after);
    }

    fn party(&self, product: usize, own: Own) -> bool {
        let mode = own.plan.map(|plan| self.products[product].cells[plan].mode);
        match (mode, own.choice) {
            (_, Some(Choice::Out)) | (Some(0 | 1), _) | (Some(2), None) => false,
            (_, _) => true,
        }
    }

    fn joined(&self, account: &Account) -> Option<&Organization> {
        account.organization.and_then(|number| self.organizations[number].as_ref())
    }

    fn allows(&self, account: &Account, product: usize) -> bool {
        let own = account.own[product];
        let its = self.joined(account).map(|its| its.own[product]);
        !account.is_erased
            && account.restrictions & STICKY == 0
            && self.party(product, own)
            && its.is_none_or(|its| self.party(product, its))
            && (own.plan.is_some() || its.is_some_and(|its| its.plan.is_some()))
    }

    fn edge(&self, product: usize, own: Own, rev: u64) -> u32 {
        let Some(plan) = own.plan else { return 0 };
        let cell = self.products[product].cells[plan];
        let waits_for_open = own.choice == Some(Choice::In) || self.has(Fault::OneEdgePerCell);
        let (since, edge_rev) = if waits_for_open { cell.open } else { cell.default };
        let untested = self.has(Fault::NoRevisionTest) || self.has(Fault::LayersFoldedApart);
        if edge_rev > rev || untested { since } else { 0 }
    }

    fn organization_since(&self, its: &Organization, product: usize) -> u32 {
        let own = its.own[product];
        own.since.max(self.edge(product, own, its.rev))
    }

    fn since(&self, account: &Account, product: usize) -> u32 {
        let own = account.own[product];
        let mut since = own.since.max(self.edge(product, own, account.rev));
        if let Some(its) = self.joined(account) {
            since = since.max(self.organization_since(its, product));
            let theirs = its.own[product];
            let counts = theirs.plan_rev > account.rev || self.has(Fault::NoPlanRev);
            if own.plan.is_none() && counts && !self.has(Fault::LayersFoldedApart) {
                since = since.max(theirs.plan_since);
            }
        }
        since
    }

    /// ALLOW?
    pub(crate) fn answer(&self, ask: &Ask, now: i64) -> bool {
        let Some(account) = &self.accounts[ask.account] else { return false };
        let product = &self.products[ask.product];
        let kind = product.gates[if ask.kind == Kind::Output { 1 } else { 0 }];
        let gates = [kind, if ask.is_incognito { product.gates[2] } else { kind }];
        let mut since = self.since(account, ask.product);
        if !self.has(Fault::GateWithoutSince) {
            since = gates.iter().fold(since, |since, gate| since.max(gate.1));
        }
        let c = ask.collected_at;
        let margin = if self.has(Fault::NoGuard) { 0 } else { self.guard };
        product.is_in_force
            && gates.iter().all(|gate| gate.0)
            && self.allows(account, ask.product)
            && account.restrictions & !STICKY == 0
            && !self.excluded[ask.artifact]
            && 0 < c
            && c <= now + self.guard
            && since != 0
            && c >= 1_000 * i64::from(since) + margin
    }

    /// Head for head, where they differ.
    pub(crate) fn differs(&self, state: &State) -> Option<String> {
        let policy = state.policy();
        let index = |product: usize| policy.product_index(names::PRODUCTS[product]);
        let same = |product: usize, own: &Own, plan: Option<PlanIndex>, choice, since: u32| {
            let known = index(product).and_then(|index| policy.product(index));
            let named = own.plan.map(|plan| names::name(names::PLANS[plan]));
            let called = plan.and_then(|plan| known.and_then(|known| known.plan_name(plan)));
            named.as_ref() == called && own.choice == choice && own.since == since
        };
        for (number, mine) in self.accounts.iter().enumerate() {
            let its = state.account(names::account(number)).unwrap();
            let equal = match (mine, its) {
                (None, None) => true,
                (Some(mine), Some(AccountHead::Erased { rev })) => mine.is_erased && mine.rev == rev.get(),
                (Some(mine), Some(AccountHead::Known(its))) => {
                    let products = (0..PRODUCTS).filter_map(|product| Some((product, index(product)?)));
                    !mine.is_erased
                        && mine.rev == its.rev.get()
                        && mine.organization.map(names::organization) == its.organization
                        && mine.restrictions == its.restrictions.bits()
                        && products.into_iter().all(|(product, index)| {
                            let its = its.product(index);
                            same(product, &mine.own[product], its.plan, its.choice, its.allow_since.get())
                        })
                }
                (_, _) => false,
            };
            if !equal {
                return Some(format!("account {number}: {mine:?} against {its:?}"));
            }
        }
        for (number, mine) in self.organizations.iter().enumerate() {
            let its: Option<&OrganizationHead> = state.organization(names::organization(number)).unwrap();
            let equal = match (mine, its) {
                (None, None) => true,
                (Some(mine), Some(its)) => {
                    let products = (0..PRODUCTS).filter_map(|product| Some((product, index(product)?)));
                    mine.rev == its.rev.get()
                        && products.into_iter().all(|(product, index)| {
                            let (own, its) = (&mine.own[product], its.product(index));
                            same(product, own, its.plan, its.choice, its.allow_since.get())
                                && own.plan_since == its.plan_since.get()
                                && own.plan_rev == its.plan_rev.get()
                        })
                }
                (_, _) => false,
            };
            if !equal {
                return Some(format!("organization {number}: {mine:?} against {its:?}"));
            }
        }
        None
    }
}

fn bit(restriction: Restriction) -> u8 {
    Restrictions::NONE.with(restriction).bits()
}

fn opts_in_again(before: Own, after: Own) -> bool {
    before.choice == Some(Choice::Out) && after.choice != Some(Choice::Out)
}
