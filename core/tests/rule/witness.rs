//! One short history per broken rule, each a sentence of rule.md: what goes wrong, and for which artifact.
//!
//! They say what a random find only counts, and they catch the rare faults in a short run too.

use consent_core::policy::{Class, Mode};
use consent_core::words::{Choice, Party, Restriction};

use crate::history::{Act, Ask, Expect, Kind, ProductRules, Rules, Step};
use crate::model::Fault;

const TEAMS: usize = 0;
const FREE: usize = 1;
const PRO: usize = 2;
const ADA: usize = 0;
const ACME: usize = 0;

const PRODUCT: ProductRules = ProductRules {
    incognito: false,
    plans: [Mode::DefaultOut, Mode::DefaultIn, Mode::DefaultOut],
    input: Class::Trainable,
    output: Class::Trainable,
};

fn rules(product: ProductRules) -> Act {
    Act::Publish { rules: Rules { guard: 1_000, products: [Some(product), Some(PRODUCT)] } }
}

fn with(plan: usize, mode: Mode) -> Act {
    let mut product = PRODUCT;
    product.plans[plan] = mode;
    rules(product)
}

fn plan(party: Party<usize, usize>, plan: Option<usize>) -> Act {
    Act::Plan { party, product: 0, plan }
}

fn elsewhere(party: Party<usize, usize>) -> Act {
    Act::Consent { party, product: 1, choice: Choice::In, expect: Expect::Nothing }
}

fn join(organization: Option<usize>) -> Act {
    Act::Account { account: ADA, organization }
}

/// A history that shows the fault, and the artifact about which it is wrong.
pub(crate) fn witness(fault: Fault) -> (Vec<Step>, Ask) {
    let (ada, acme) = (Party::Account(ADA), Party::Organization(ACME));
    let published = (1_000, rules(PRODUCT));
    let (steps, collected_at): (Vec<(i64, Act)>, i64) = match fault {
        Fault::None => (vec![], 0),
        // From teams to free is an edge of no single layer: what was collected under teams stays denied.
        Fault::LayersFoldedApart => {
            (vec![published, (2_000, plan(ada, Some(TEAMS))), (10_000, plan(ada, Some(FREE)))], 7_000)
        }
        // Free was closed for a while; an event in another product then makes the head newer than the cell's edge.
        Fault::AccountNotSettled => (
            vec![
                published,
                (2_000, plan(ada, Some(FREE))),
                (5_000, with(FREE, Mode::DefaultOut)),
                (10_000, rules(PRODUCT)),
                (12_000, elsewhere(ada)),
            ],
            7_000,
        ),
        Fault::OrganizationNotSettled => (
            vec![
                published,
                (1_500, plan(acme, Some(FREE))),
                (2_000, join(Some(ACME))),
                (5_000, with(FREE, Mode::DefaultOut)),
                (10_000, rules(PRODUCT)),
                (12_000, elsewhere(acme)),
            ],
            7_000,
        ),
        // Teams becomes default_in. Whoever is IN had waited for another step than whoever is UNSET.
        Fault::OneEdgePerCell => {
            (vec![published, (2_000, plan(ada, Some(TEAMS))), (10_000, with(TEAMS, Mode::DefaultIn))], 7_000)
        }
        // Once Ada has left, Acme's opt-out could no longer reach what was collected under it.
        Fault::LeavingNotDenied => (
            vec![published, (2_000, plan(ada, Some(FREE))), (3_000, join(Some(ACME))), (10_000, join(None))],
            7_000,
        ),
        // Ada is known from 2.5 s; with the guard the artifact may be from 2.2 s.
        Fault::NoPlusOne => (vec![published, (2_500, plan(ada, Some(FREE)))], 3_200),
        Fault::NoGuard => (vec![published, (2_500, plan(ada, Some(FREE)))], 3_500),
        Fault::GateWithoutSince => (
            vec![
                (1_000, rules(ProductRules { input: Class::Never, ..PRODUCT })),
                (2_000, plan(ada, Some(FREE))),
                (10_000, rules(PRODUCT)),
            ],
            7_000,
        ),
        // A child's data does not open on a birthday.
        Fault::StickyLiftedWithoutEdge => (
            vec![
                published,
                (2_000, plan(ada, Some(FREE))),
                (5_000, Act::Restrict { account: ADA, restriction: Restriction::Minor }),
                (10_000, Act::Lift { account: ADA, restriction: Restriction::Minor }),
            ],
            7_000,
        ),
        // Pro opens while Ada is on free; she buys it later. All of it was allowed at every instant.
        Fault::NoRevisionTest => (
            vec![
                published,
                (2_000, plan(ada, Some(FREE))),
                (10_000, with(PRO, Mode::DefaultIn)),
                (15_000, plan(ada, Some(PRO))),
            ],
            7_000,
        ),
        // Acme got its plan while Ada had one of her own, which she drops later. Likewise.
        Fault::NoPlanRev => (
            vec![
                published,
                (2_000, plan(ada, Some(FREE))),
                (3_000, join(Some(ACME))),
                (10_000, plan(acme, Some(FREE))),
                (15_000, plan(ada, None)),
            ],
            7_000,
        ),
    };
    let steps = steps.into_iter().map(|(at, act)| Step { at, act }).collect();
    let ask =
        Ask { account: ADA, product: 0, kind: Kind::Input, artifact: 0, is_incognito: false, collected_at };
    (steps, ask)
}
