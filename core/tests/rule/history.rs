//! Histories: commands with the instants at which the store's clock stood, on 3 accounts, 2 organizations,
//! 2 products, 3 plans and one that no policy names, 3 kinds, 2 artifacts. With ties, repeats and steps of the clock
//! back, at a scale at which stored seconds and guards round and overlap.

use consent_core::policy::{Class, Mode};
use consent_core::words::{Choice, Party, Restriction};

use crate::draw::Draw;
use crate::oracle::Oracle;

pub(crate) const ACCOUNTS: usize = 3;
pub(crate) const ORGANIZATIONS: usize = 2;
pub(crate) const PRODUCTS: usize = 2;
pub(crate) const ARTIFACTS: usize = 2;
/// The last plan is in no policy.
pub(crate) const PLANS: usize = 4;
pub(crate) const IN_POLICIES: usize = 3;

/// The kinds; `Document` counts as input wherever there is input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Input,
    Output,
    Document,
}

pub(crate) type Who = Party<usize, usize>;

/// What an opt-in carries as `expected_revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    TheHeads,
    Another,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProductRules {
    pub(crate) incognito: bool,
    /// NIL: not in the file.
    pub(crate) plans: [Mode; IN_POLICIES],
    pub(crate) input: Class,
    pub(crate) output: Class,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) guard: u32,
    pub(crate) products: [Option<ProductRules>; PRODUCTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Account { account: usize, organization: Option<usize> },
    Organization { organization: usize },
    Consent { party: Who, product: usize, choice: Choice, expect: Expect },
    Plan { party: Who, product: usize, plan: Option<usize> },
    Restrict { account: usize, restriction: Restriction },
    Lift { account: usize, restriction: Restriction },
    Erase { account: usize },
    Exclude { artifact: usize },
    Publish { rules: Rules },
}

/// A command at `at`: the store's clock, but never before the command before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: i64,
    pub(crate) act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) account: usize,
    pub(crate) product: usize,
    pub(crate) kind: Kind,
    pub(crate) artifact: usize,
    pub(crate) is_incognito: bool,
    pub(crate) collected_at: i64,
}

pub(crate) struct History {
    pub(crate) steps: Vec<Step>,
    pub(crate) asks: [Ask; 8],
    pub(crate) now: i64,
}

impl History {
    /// The history of this seed.
    pub(crate) fn draw(draw: &mut Draw) -> History {
        let mut clock = draw.between(4_000, 8_000);
        let mut steps: Vec<Step> = Vec::new();
        let mut rules: Option<Rules> = None;
        for place in 0..4 + draw.below(22) {
            // Mostly forward by less than two seconds; ties; now and then a jump, or a step back.
            clock += match draw.below(16) {
                0..4 => 0,
                4..8 => draw.between(1, 40),
                8..13 => draw.between(100, 1_900),
                13..15 => draw.between(2_000, 9_000),
                _ => -draw.between(1, 3_000),
            };
            clock = clock.max(1);
            let at = steps.last().map_or(clock, |last| clock.max(last.at));
            let act = match steps.last() {
                Some(last) if draw.one_in(10) && !matches!(last.act, Act::Publish { .. }) => last.act,
                _ if place == 0 && !draw.one_in(8) => Act::Publish { rules: first_rules(draw, &mut rules) },
                _ => Act::draw(draw, &mut rules),
            };
            steps.push(Step { at, act });
        }
        let last = steps.last().map_or(0, |step| step.at);
        let mut oracle = Oracle::default();
        for step in &steps {
            if oracle.world().refuses(&step.act).is_none() {
                oracle.take(step.at, &step.act);
            }
        }
        let now = last + if draw.one_in(4) { 0 } else { draw.between(0, 20_000) };
        let asks = core::array::from_fn(|_| Ask::draw(draw, &steps, &oracle, now));
        History { steps, asks, now }
    }
}

fn first_rules(draw: &mut Draw, rules: &mut Option<Rules>) -> Rules {
    let new = Rules {
        guard: draw.of(&[0, 0, 7, 500, 1_000, 3_000, 5_000]),
        products: core::array::from_fn(|product| {
            (product == 0 || !draw.one_in(4)).then(|| ProductRules::draw(draw))
        }),
    };
    *rules = Some(new);
    new
}

fn next_rules(draw: &mut Draw, rules: &mut Option<Rules>) -> Rules {
    let Some(mut new) = *rules else { return first_rules(draw, rules) };
    for product in &mut new.products {
        match product {
            Some(known) if !draw.one_in(12) => {
                for _ in 0..1 + draw.below(2) {
                    known.change(draw);
                }
            }
            // Dropped, or back, or new.
            Some(_) => *product = None,
            None if draw.one_in(2) => *product = Some(ProductRules::draw(draw)),
            None => {}
        }
    }
    if new.products == [None; PRODUCTS] {
        new.products[0] = Some(ProductRules::draw(draw));
    }
    if draw.one_in(8) {
        new.guard += draw.of(&[1, 400, 1_000, 2_500]);
    }
    *rules = Some(new);
    new
}

impl ProductRules {
    fn draw(draw: &mut Draw) -> ProductRules {
        let mut rules = ProductRules {
            incognito: draw.one_in(2),
            plans: core::array::from_fn(|_| draw_mode(draw)),
            input: draw.of(&[Class::Nil, Class::Never, Class::Trainable, Class::Trainable, Class::Trainable]),
            output: draw.of(&[Class::Never, Class::Trainable, Class::Trainable]),
        };
        if rules.plans == [Mode::Nil; IN_POLICIES] {
            rules.plans[0] = Mode::DefaultIn;
        }
        rules
    }

    fn change(&mut self, draw: &mut Draw) {
        match draw.below(8) {
            0..6 => {
                let plan = draw.below(IN_POLICIES);
                self.plans[plan] = draw_mode(draw);
                if self.plans == [Mode::Nil; IN_POLICIES] {
                    self.plans[plan] = Mode::LockedOut;
                }
            }
            6 => self.input = draw.of(&[Class::Nil, Class::Never, Class::Trainable, Class::Trainable]),
            _ => self.incognito = !self.incognito,
        }
    }
}

fn draw_mode(draw: &mut Draw) -> Mode {
    draw.of(&[
        Mode::Nil,
        Mode::LockedOut,
        Mode::DefaultOut,
        Mode::DefaultOut,
        Mode::DefaultIn,
        Mode::DefaultIn,
        Mode::DefaultIn,
    ])
}

fn draw_party(draw: &mut Draw) -> Who {
    if draw.below(5) < 3 {
        Party::Account(draw.below(ACCOUNTS))
    } else {
        Party::Organization(draw.below(ORGANIZATIONS))
    }
}

impl Act {
    fn draw(draw: &mut Draw, rules: &mut Option<Rules>) -> Act {
        let account = draw.below(ACCOUNTS);
        match draw.below(32) {
            0..5 => {
                Act::Account { account, organization: (!draw.one_in(3)).then(|| draw.below(ORGANIZATIONS)) }
            }
            5 => Act::Organization { organization: draw.below(ORGANIZATIONS) },
            6..12 => {
                let choice = if draw.below(3) < 2 { Choice::In } else { Choice::Out };
                let expect = match draw.below(12) {
                    0 => Expect::Nothing,
                    1 => Expect::Another,
                    _ => Expect::TheHeads,
                };
                Act::Consent { party: draw_party(draw), product: draw.below(PRODUCTS), choice, expect }
            }
            12..22 => Act::Plan {
                party: draw_party(draw),
                product: draw.below(PRODUCTS),
                plan: match draw.below(20) {
                    0..3 => None,
                    3 => Some(PLANS - 1),
                    _ => Some(draw.below(IN_POLICIES)),
                },
            },
            22..24 => Act::Restrict { account, restriction: draw.of(&Restriction::ALL) },
            24..27 => Act::Lift { account, restriction: draw.of(&Restriction::ALL) },
            27 if draw.one_in(6) => Act::Erase { account },
            27 if draw.one_in(4) => Act::Exclude { artifact: draw.below(ARTIFACTS) },
            _ => Act::Publish { rules: next_rules(draw, rules) },
        }
    }
}

impl Ask {
    /// A question whose instant is near one that matters: of a command, or best the last denial.
    fn draw(draw: &mut Draw, steps: &[Step], oracle: &Oracle, now: i64) -> Ask {
        let guard = oracle.world().guard();
        let mut ask = Ask::about(draw);
        let mut denial = oracle.ask(&ask, now).last_denial;
        // Most parties are denied most of the time: look for one that is not, but do not insist.
        for _ in 0..draw.below(8) {
            if denial.is_none() {
                ask = Ask::about(draw);
                denial = oracle.ask(&ask, now).last_denial;
            }
        }
        let step = steps[draw.below(steps.len())].at;
        let near = denial.filter(|_| !draw.one_in(4)).unwrap_or(step);
        let collected_at = match draw.below(16) {
            0 => 0,
            1 => now + guard + draw.between(0, 1),
            2 => near + draw.between(-2, 2),
            3..7 => near + guard + draw.between(-2, 2),
            7..12 => (near / 1_000 + 1) * 1_000 + guard + draw.between(-1, 1),
            12..14 => near + guard + draw.between(1, 5_000),
            _ => draw.between(1, now + guard),
        };
        Ask { collected_at, ..ask }
    }

    fn about(draw: &mut Draw) -> Ask {
        Ask {
            account: draw.below(ACCOUNTS),
            product: draw.below(PRODUCTS),
            kind: draw.of(&[Kind::Input, Kind::Output, Kind::Document]),
            artifact: if draw.one_in(8) { 1 } else { 0 },
            is_incognito: draw.one_in(8),
            collected_at: 0,
        }
    }
}
