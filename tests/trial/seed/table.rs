//! The table: each row of the seed, what it is expanded over, and what is played for one case of it.

use consent::pb::{Channel, Choice, Decision, Reason};

pub(super) type Verdict = (Decision, Reason);

const fn allow(reason: Reason) -> Verdict {
    (Decision::Allow, reason)
}

const fn deny(reason: Reason) -> Verdict {
    (Decision::Deny, reason)
}

pub(super) const LE_CHAT: &str = "le_chat";
pub(super) const AI_STUDIO: &str = "ai_studio";
const PERSONAL: &[&str] = &["free", "pro", "student"];
const COMPANY: &[&str] = &["teams", "enterprise"];
const CHAT_PLANS: &[&str] = &["free", "pro", "student", "teams", "enterprise"];
const STUDIO_PLANS: &[&str] = &["experiment", "scale"];
const CHAT_KINDS: &[&str] = &["input", "output", "document"];
const STUDIO_KINDS: &[&str] = &["input", "output", "related"];
const APPS: &[Channel] = &[Channel::AdminConsole, Channel::Ios, Channel::Android];
const CONSOLE: &[Channel] = &[Channel::AdminConsole];

/// Who holds the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Account,
    Organization,
}

const OWN: &[Holder] = &[Holder::Account];
const EITHER: &[Holder] = &[Holder::Account, Holder::Organization];
const COMPANYS: &[Holder] = &[Holder::Organization];

/// A product with the plans and kinds that a row speaks of.
pub(super) struct Scope {
    pub(super) product: &'static str,
    pub(super) plans: &'static [&'static str],
    pub(super) kinds: &'static [&'static str],
}

/// One row of the seed.
pub(super) struct Row {
    pub(super) number: u8,
    pub(super) says: &'static str,
    pub(super) scopes: &'static [Scope],
    pub(super) channels: &'static [Channel],
    pub(super) holders: &'static [Holder],
    pub(super) play: fn(&Case) -> Vec<Stage>,
}

/// One expansion of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) product: &'static str,
    pub(super) plan: &'static str,
    pub(super) kind: &'static str,
    pub(super) channel: Channel,
    pub(super) holder: Holder,
}

/// What happens together; between two stages the next whole second begins.
pub(super) type Stage = Vec<Step>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The case's holder gets this plan; empty for none. An organization also gets the account as its member.
    Plan(&'static str),
    /// The account gets a plan of its own, whoever holds the case's.
    OwnPlan(&'static str),
    /// The account chooses in the case's product.
    Choose(Choice),
    /// The account chooses in the other product.
    ChooseElsewhere(Choice),
    /// The organization chooses in the case's product.
    OrganizationChooses(Choice),
    /// A question.
    Ask(Collected, Verdict),
    /// The node loses its lease, and has it again.
    Cut,
    Heal,
}
use Step::{Ask, Choose, ChooseElsewhere, Cut, Heal, OrganizationChooses, OwnPlan, Plan};

/// When the artifact of a question was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collected {
    /// A day before the case began.
    LongAgo,
    /// One millisecond before `Since`.
    Before,
    /// At the first instant that counts as after the last write.
    Since,
    /// At the last instant that is not in the future.
    Latest,
    /// The artifact of the question before.
    Same,
}
use Collected::{Before, Latest, LongAgo, Same, Since};

const CHAT_PERSONAL: &[Scope] = &[Scope { product: LE_CHAT, plans: PERSONAL, kinds: CHAT_KINDS }];
const CHAT_COMPANY: &[Scope] = &[Scope { product: LE_CHAT, plans: COMPANY, kinds: CHAT_KINDS }];
const EXPERIMENT: &[Scope] = &[Scope { product: AI_STUDIO, plans: &["experiment"], kinds: STUDIO_KINDS }];
const ANY: &[Scope] = &[
    Scope { product: LE_CHAT, plans: CHAT_PLANS, kinds: CHAT_KINDS },
    Scope { product: AI_STUDIO, plans: STUDIO_PLANS, kinds: STUDIO_KINDS },
];
const WOULD_ALLOW: &[Scope] = &[
    Scope { product: LE_CHAT, plans: PERSONAL, kinds: CHAT_KINDS },
    Scope { product: AI_STUDIO, plans: &["experiment"], kinds: STUDIO_KINDS },
];

const PLAN_DEFAULT_IN: Verdict = allow(Reason::PlanDefaultIn);
const PLAN_DEFAULT_OUT: Verdict = deny(Reason::PlanDefaultOut);
const ACCOUNT_OPTED_OUT: Verdict = deny(Reason::AccountOptedOut);
const TOO_EARLY: Verdict = deny(Reason::CollectedBeforeAllowed);

pub(super) const ROWS: [Row; 16] = [
    Row {
        number: 1,
        says: "le_chat, personal plan, unset: input and output collected since are ALLOW",
        scopes: &[Scope { product: LE_CHAT, plans: PERSONAL, kinds: &["input", "output"] }],
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![vec![Plan(case.plan)], vec![Ask(Since, PLAN_DEFAULT_IN), Ask(Latest, PLAN_DEFAULT_IN)]]
        },
    },
    Row {
        number: 2,
        says: "le_chat, personal plan, unset: a document is as input",
        scopes: &[Scope { product: LE_CHAT, plans: PERSONAL, kinds: &["document"] }],
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![
                vec![Plan(case.plan)],
                vec![Ask(LongAgo, TOO_EARLY), Ask(Since, PLAN_DEFAULT_IN), Ask(Latest, PLAN_DEFAULT_IN)],
            ]
        },
    },
    Row {
        number: 3,
        says: "le_chat, personal plan, opted out on any channel: any is ACCOUNT_OPTED_OUT",
        scopes: CHAT_PERSONAL,
        channels: APPS,
        holders: OWN,
        play: |case| {
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, PLAN_DEFAULT_IN), Choose(Choice::Out), Ask(Same, ACCOUNT_OPTED_OUT)],
                vec![
                    Ask(LongAgo, ACCOUNT_OPTED_OUT),
                    Ask(Since, ACCOUNT_OPTED_OUT),
                    Ask(Latest, ACCOUNT_OPTED_OUT),
                ],
            ]
        },
    },
    Row {
        number: 4,
        says: "le_chat, personal plan, out and in again: collected before is COLLECTED_BEFORE_ALLOWED",
        scopes: CHAT_PERSONAL,
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, PLAN_DEFAULT_IN), Choose(Choice::Out), Ask(Same, ACCOUNT_OPTED_OUT)],
                vec![Choose(Choice::In), Ask(Same, TOO_EARLY)],
                vec![Ask(Same, TOO_EARLY), Ask(Before, TOO_EARLY), Ask(LongAgo, TOO_EARLY)],
            ]
        },
    },
    Row {
        number: 5,
        says: "le_chat, personal plan, out and in again: collected after is ACCOUNT_OPTED_IN",
        scopes: CHAT_PERSONAL,
        channels: APPS,
        holders: OWN,
        play: |case| {
            let yes = allow(Reason::AccountOptedIn);
            vec![
                vec![Plan(case.plan), Choose(Choice::Out), Choose(Choice::In)],
                vec![Ask(Before, TOO_EARLY), Ask(Since, yes), Ask(Latest, yes)],
            ]
        },
    },
    Row {
        number: 6,
        says: "le_chat, teams or enterprise, unset: any is PLAN_DEFAULT_OUT",
        scopes: CHAT_COMPANY,
        channels: CONSOLE,
        holders: EITHER,
        play: |case| {
            let any = [LongAgo, Before, Since, Latest].map(|at| Ask(at, PLAN_DEFAULT_OUT));
            vec![vec![Plan(case.plan)], any.to_vec()]
        },
    },
    Row {
        number: 7,
        says: "le_chat, teams or enterprise, organization out, member in: any is ORGANIZATION_OPTED_OUT",
        scopes: CHAT_COMPANY,
        channels: CONSOLE,
        holders: COMPANYS,
        play: |case| {
            let any = [LongAgo, Before, Since, Latest].map(|at| Ask(at, deny(Reason::OrganizationOptedOut)));
            vec![vec![Plan(case.plan), OrganizationChooses(Choice::Out), Choose(Choice::In)], any.to_vec()]
        },
    },
    Row {
        number: 8,
        says: "ai_studio, experiment, unset: input, output and related are ALLOW",
        scopes: EXPERIMENT,
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![vec![Plan(case.plan)], vec![Ask(Since, PLAN_DEFAULT_IN), Ask(Latest, PLAN_DEFAULT_IN)]]
        },
    },
    Row {
        number: 9,
        says: "ai_studio, experiment, opted out: any is ACCOUNT_OPTED_OUT",
        scopes: EXPERIMENT,
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, PLAN_DEFAULT_IN), Choose(Choice::Out), Ask(Same, ACCOUNT_OPTED_OUT)],
                vec![Ask(LongAgo, ACCOUNT_OPTED_OUT), Ask(Latest, ACCOUNT_OPTED_OUT)],
            ]
        },
    },
    Row {
        number: 10,
        says: "ai_studio, scale, unset: any is PLAN_DEFAULT_OUT",
        scopes: &[Scope { product: AI_STUDIO, plans: &["scale"], kinds: STUDIO_KINDS }],
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            let any = [LongAgo, Before, Since, Latest].map(|at| Ask(at, PLAN_DEFAULT_OUT));
            vec![vec![Plan(case.plan)], any.to_vec()]
        },
    },
    Row {
        number: 11,
        says: "either product, opted out in the other only: as if unset",
        scopes: ANY,
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            let unset = as_if_unset(case.plan);
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, unset), ChooseElsewhere(Choice::Out), Ask(Same, unset), Ask(Latest, unset)],
            ]
        },
    },
    Row {
        number: 12,
        says: "le_chat, free and then teams: collected while free is PLAN_DEFAULT_OUT",
        scopes: &[Scope { product: LE_CHAT, plans: &["free"], kinds: CHAT_KINDS }],
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, PLAN_DEFAULT_IN), Plan("teams"), Ask(Same, PLAN_DEFAULT_OUT)],
            ]
        },
    },
    Row {
        number: 13,
        says: "le_chat, teams and then free: collected while teams is COLLECTED_BEFORE_ALLOWED",
        scopes: &[Scope { product: LE_CHAT, plans: &["teams"], kinds: CHAT_KINDS }],
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, PLAN_DEFAULT_OUT), Plan("free"), Ask(Same, TOO_EARLY)],
                vec![Ask(Same, TOO_EARLY), Ask(Before, TOO_EARLY), Ask(Since, PLAN_DEFAULT_IN)],
            ]
        },
    },
    Row {
        number: 14,
        says: "any, any change after an explicit opt-out: it survives",
        scopes: ANY,
        channels: CONSOLE,
        holders: EITHER,
        play: |case| {
            let (out, verdict) = match case.holder {
                Holder::Account => (Choose(Choice::Out), ACCOUNT_OPTED_OUT),
                Holder::Organization => {
                    (OrganizationChooses(Choice::Out), deny(Reason::OrganizationOptedOut))
                }
            };
            let plans = if case.product == LE_CHAT { CHAT_PLANS } else { STUDIO_PLANS };
            let mut changes: Stage = vec![Ask(Latest, verdict)];
            for plan in plans {
                changes.extend([Plan(plan), Ask(Latest, verdict)]);
            }
            changes.extend([OwnPlan(plans[0]), Ask(Latest, verdict), Plan(""), Ask(Latest, verdict)]);
            vec![vec![Plan(case.plan), out], changes, vec![Ask(Since, verdict), Ask(LongAgo, verdict)]]
        },
    },
    Row {
        number: 15,
        says: "any, unknown account: UNKNOWN_ACCOUNT",
        scopes: ANY,
        channels: CONSOLE,
        holders: OWN,
        play: |_| {
            vec![vec![Ask(LongAgo, deny(Reason::UnknownAccount)), Ask(Latest, deny(Reason::UnknownAccount))]]
        },
    },
    Row {
        number: 16,
        says: "any that would allow, the node has lost its lease: STALE",
        scopes: WOULD_ALLOW,
        channels: CONSOLE,
        holders: OWN,
        play: |case| {
            let stale = deny(Reason::Stale);
            vec![
                vec![Plan(case.plan)],
                vec![Ask(Since, PLAN_DEFAULT_IN)],
                vec![Cut, Ask(Same, stale), Ask(Latest, stale)],
                vec![Heal, Ask(Same, PLAN_DEFAULT_IN)],
            ]
        },
    },
];

fn as_if_unset(plan: &str) -> Verdict {
    if COMPANY.contains(&plan) || plan == "scale" { PLAN_DEFAULT_OUT } else { PLAN_DEFAULT_IN }
}

impl Row {
    /// Every expansion of the row.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for scope in self.scopes {
            for &plan in scope.plans {
                for &kind in scope.kinds {
                    for &channel in self.channels {
                        for &holder in self.holders {
                            cases.push(Case { product: scope.product, plan, kind, channel, holder });
                        }
                    }
                }
            }
        }
        cases
    }
}
