//! The oracle: the naive rule over raw commands (rule.md section 8). It has no heads, no revisions, no edges and
//! no seconds. It walks the commands, repeats included, and after each asks section 2 whether all layers allow.
//!
//! State `i` holds on the closed interval from its command to the next; the state before the first command denies.
//! `L` is the latest end of a denying state's interval, or change of organization. ALLOW iff the last state allows,
//! nothing that merely stands blocks, `0 < c <= now + guard` and `c - guard > L`.

use consent_core::policy::{Class, Mode};
use consent_core::words::{Choice, Party, Restriction};

use crate::history::{ACCOUNTS, Act, Ask, Expect, Kind, ORGANIZATIONS, PRODUCTS, ProductRules, Rules};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    is_known: bool,
    is_erased: bool,
    organization: Option<usize>,
    restrictions: [bool; 4],
    plans: [Option<usize>; PRODUCTS],
    choices: [Option<Choice>; PRODUCTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Organization {
    plans: [Option<usize>; PRODUCTS],
    choices: [Option<Choice>; PRODUCTS],
}

/// Everything that is so after some command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct World {
    rules: Option<Rules>,
    named: [bool; PRODUCTS],
    guard: i64,
    accounts: [Account; ACCOUNTS],
    organizations: [Organization; ORGANIZATIONS],
    excluded: [bool; 2],
}

/// Why a command must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    UnknownProduct,
    Erased,
    ExpectedMissing,
    Conflict,
}

/// The states after each command that was not refused, and when each began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oracle {
    worlds: Vec<(i64, World)>,
}

impl World {
    pub(crate) const BEGINNING: World = World {
        rules: None,
        named: [false; PRODUCTS],
        guard: 0,
        accounts: [Account {
            is_known: false,
            is_erased: false,
            organization: None,
            restrictions: [false; 4],
            plans: [None; PRODUCTS],
            choices: [None; PRODUCTS],
        }; ACCOUNTS],
        organizations: [Organization { plans: [None; PRODUCTS], choices: [None; PRODUCTS] }; ORGANIZATIONS],
        excluded: [false; 2],
    };

    pub(crate) fn guard(&self) -> i64 {
        self.guard
    }

    pub(crate) fn is_known(&self, account: usize) -> bool {
        self.accounts[account].is_known && !self.accounts[account].is_erased
    }

    pub(crate) fn is_named(&self, product: usize) -> bool {
        self.named[product]
    }

    pub(crate) fn organization(&self, account: usize) -> Option<usize> {
        self.accounts[account].organization
    }

    /// Is the account now in an organization that opted out?
    pub(crate) fn is_covered(&self, account: usize, product: usize) -> bool {
        self.accounts[account]
            .organization
            .is_some_and(|its| self.organizations[its].choices[product] == Some(Choice::Out))
    }

    /// Must the command be refused?
    pub(crate) fn refuses(&self, act: &Act) -> Option<Refused> {
        let erased = |account: usize| self.accounts[account].is_erased.then_some(Refused::Erased);
        let unknown = |product: usize| (!self.named[product]).then_some(Refused::UnknownProduct);
        match *act {
            Act::Consent { party, product, choice, expect } => unknown(product).or_else(|| {
                let standing = match party {
                    Party::Account(account) if self.accounts[account].is_erased => {
                        return (choice == Choice::In).then_some(Refused::Erased);
                    }
                    Party::Account(account) => self.accounts[account].choices[product],
                    Party::Organization(organization) => self.organizations[organization].choices[product],
                };
                match (choice, expect) {
                    (Choice::Out, _) | (Choice::In, Expect::TheHeads) => None,
                    (Choice::In, _) if standing == Some(Choice::In) => None,
                    (Choice::In, Expect::Another) => Some(Refused::Conflict),
                    (Choice::In, Expect::Nothing) => {
                        (standing == Some(Choice::Out)).then_some(Refused::ExpectedMissing)
                    }
                }
            }),
            Act::Plan { party, product, .. } => unknown(product).or_else(|| match party {
                Party::Account(account) => erased(account),
                Party::Organization(_) => None,
            }),
            Act::Account { account, .. } | Act::Restrict { account, .. } | Act::Lift { account, .. } => {
                erased(account)
            }
            Act::Erase { .. } | Act::Organization { .. } | Act::Exclude { .. } | Act::Publish { .. } => None,
        }
    }

    fn after(mut self, act: &Act) -> World {
        match *act {
            Act::Account { account, organization } => {
                self.known(account).organization = organization;
            }
            Act::Organization { .. } => {}
            Act::Consent { party: Party::Account(account), product, choice, .. } => {
                if !self.accounts[account].is_erased {
                    self.known(account).choices[product] = Some(choice);
                }
            }
            Act::Consent { party: Party::Organization(organization), product, choice, .. } => {
                self.organizations[organization].choices[product] = Some(choice);
            }
            Act::Plan { party: Party::Account(account), product, plan } => {
                self.known(account).plans[product] = plan;
            }
            Act::Plan { party: Party::Organization(organization), product, plan } => {
                self.organizations[organization].plans[product] = plan;
            }
            Act::Restrict { account, restriction } => {
                self.known(account).restrictions[restriction as usize] = true;
            }
            Act::Lift { account, restriction } => {
                self.known(account).restrictions[restriction as usize] = false;
            }
            Act::Erase { account } => self.known(account).is_erased = true,
            Act::Exclude { artifact } => self.excluded[artifact] = true,
            Act::Publish { rules } => {
                self.guard = self.guard.max(i64::from(rules.guard));
                self.rules = Some(rules);
                for (named, product) in self.named.iter_mut().zip(&rules.products) {
                    *named |= product.is_some();
                }
            }
        }
        self
    }

    fn known(&mut self, account: usize) -> &mut Account {
        let account = &mut self.accounts[account];
        account.is_known = true;
        account
    }

    /// Section 2, with kind and incognito.
    fn allows(&self, ask: &Ask) -> bool {
        let account = &self.accounts[ask.account];
        let Some(rules) = self.rules.and_then(|rules| rules.products[ask.product]) else { return false };
        let class = match ask.kind {
            Kind::Input | Kind::Document => rules.input,
            Kind::Output => rules.output,
        };
        let own = (account.plans[ask.product], account.choices[ask.product]);
        let its = account.organization.map(|its| {
            let its = &self.organizations[its];
            (its.plans[ask.product], its.choices[ask.product])
        });
        account.is_known
            && !account.is_erased
            && !account.restrictions[Restriction::Minor as usize]
            && !account.restrictions[Restriction::Region as usize]
            && class == Class::Trainable
            && (!ask.is_incognito || rules.incognito)
            && party(&rules, own)
            && its.is_none_or(|its| party(&rules, its))
            && (own.0.is_some() || its.is_some_and(|its| its.0.is_some()))
    }

    fn stands_blocked(&self, ask: &Ask) -> bool {
        self.excluded[ask.artifact]
            || self.accounts[ask.account].restrictions[Restriction::LegalHold as usize]
            || self.accounts[ask.account].restrictions[Restriction::Suspended as usize]
    }
}

fn party(rules: &ProductRules, (plan, choice): (Option<usize>, Option<Choice>)) -> bool {
    let mode = plan.map(|plan| rules.plans.get(plan).copied().unwrap_or(Mode::Nil));
    choice != Some(Choice::Out)
        && (mode.is_none()
            || mode == Some(Mode::DefaultIn)
            || (mode == Some(Mode::DefaultOut) && choice == Some(Choice::In)))
}

/// What the oracle says: the last denial, if the last state allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `L`; none: denied whatever `c` is.
    pub(crate) last_denial: Option<i64>,
    guard: i64,
    collected_at: i64,
    now: i64,
}

impl Verdict {
    /// Exactly.
    pub(crate) fn allows(self) -> bool {
        self.allows_after(|last| last)
    }

    /// With `L` rounded up to the end of its second, as stored instants are.
    pub(crate) fn allows_rounded(self) -> bool {
        self.allows_after(|last| (last.div_euclid(1_000) + 1) * 1_000 - 1)
    }

    fn allows_after(self, round: impl Fn(i64) -> i64) -> bool {
        let c = self.collected_at;
        let in_time = 0 < c && c <= self.now + self.guard;
        in_time && self.last_denial.is_some_and(|last| c - self.guard > round(last))
    }
}

impl Oracle {
    /// The state now.
    pub(crate) fn world(&self) -> World {
        self.worlds.last().map_or(World::BEGINNING, |(_, world)| *world)
    }

    /// Every state, with the instants at which it began and, if it did, ended.
    pub(crate) fn intervals(&self) -> impl Iterator<Item = (i64, Option<i64>, &World)> {
        let ends = self.worlds.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        self.worlds.iter().zip(ends).map(|((begin, world), end)| (*begin, end, world))
    }

    /// One more command.
    pub(crate) fn take(&mut self, at: i64, act: &Act) {
        let next = self.world().after(act);
        self.worlds.push((at, next));
    }

    /// The answer.
    pub(crate) fn ask(&self, ask: &Ask, now: i64) -> Verdict {
        let world = self.world();
        let is_open = world.allows(ask) && !world.stands_blocked(ask);
        let last_denial = is_open.then(|| self.last_denial(ask));
        Verdict { last_denial, guard: world.guard, collected_at: ask.collected_at, now }
    }

    fn last_denial(&self, ask: &Ask) -> i64 {
        let mut last = i64::MIN;
        let mut before = World::BEGINNING;
        for (at, world) in &self.worlds {
            let moved = before.organization(ask.account) != world.organization(ask.account);
            if moved || !before.allows(ask) {
                last = *at;
            }
            before = *world;
        }
        last
    }
}
