//! The sixteen rows of the seed, as one table, played through a real authority and a real sidecar on both stores.
//!
//! Each row is expanded over its plans, kinds, channels and holders of the plan, with accounts of its own, and each
//! question asks for the state that the last write returned. "After" and "since" are rule.md section 5's: the next
//! whole second plus the guard; an artifact collected one millisecond earlier is asked about too where the seed
//! speaks of "before". All cases go through their stages together, so that one second is waited for once.

use crate::clients::{self, Answered, Authority, ID_MARK, Node};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::tally::Tally;
use anyhow::Context;
use consent::pb::{Channel, Choice, Decision, Position, Reason, Receipt, SetConsentRequest, SidecarState};
use std::collections::HashMap;

type Verdict = (Decision, Reason);

const fn allow(reason: Reason) -> Verdict {
    (Decision::Allow, reason)
}

const fn deny(reason: Reason) -> Verdict {
    (Decision::Deny, reason)
}

const LE_CHAT: &str = "le_chat";
const AI_STUDIO: &str = "ai_studio";
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
enum Holder {
    Account,
    Organization,
}

const OWN: &[Holder] = &[Holder::Account];
const EITHER: &[Holder] = &[Holder::Account, Holder::Organization];
const COMPANYS: &[Holder] = &[Holder::Organization];

/// A product with the plans and kinds that a row speaks of.
struct Scope {
    product: &'static str,
    plans: &'static [&'static str],
    kinds: &'static [&'static str],
}

/// One row of the seed.
struct Row {
    number: u8,
    says: &'static str,
    scopes: &'static [Scope],
    channels: &'static [Channel],
    holders: &'static [Holder],
    play: fn(&Case) -> Vec<Stage>,
}

/// One expansion of a row.
#[derive(Debug, Clone, Copy)]
struct Case {
    product: &'static str,
    plan: &'static str,
    kind: &'static str,
    channel: Channel,
    holder: Holder,
}

/// What happens together; between two stages the next whole second begins.
type Stage = Vec<Step>;

#[derive(Debug, Clone, Copy)]
enum Step {
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
enum Collected {
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

const ROWS: [Row; 16] = [
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
    fn cases(&self) -> Vec<Case> {
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

/// Plays the table on both stores.
pub(crate) async fn run(tally: &mut Tally) -> anyhow::Result<()> {
    let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
    tally.check(numbers == Vec::from_iter(1..=16), "the table has the rows 1 to 16, each once");
    for kind in StoreKind::ALL {
        let cluster = Cluster::live(kind, Terms::SHORT).await?;
        // The last row takes the lease away from the whole node, so it is played alone.
        let (together, alone) = ROWS.split_at(15);
        let mut played = play(&cluster, together).await?;
        played.extend(play(&cluster, alone).await?);
        for (row, answers) in &played {
            for wrong in answers.iter().filter_map(|answer| answer.wrong.as_ref()).take(3) {
                println!("        {wrong}");
            }
            let right = answers.iter().filter(|answer| answer.wrong.is_none()).count();
            let (asked, cases) = (answers.len(), row.cases().len());
            let what =
                format!("{kind:8} row {:2}: {} ({cases} cases, {asked} answers)", row.number, row.says);
            tally.check(right == asked && asked >= cases, what);
        }
        tally.check(
            played.len() == 16,
            format_args!("{kind:8} no row is missing: {} of 16 played", played.len()),
        );
        check_logs(tally, &cluster);
    }
    Ok(())
}

struct Answer {
    wrong: Option<String>,
}

/// Where a case stands.
struct Playing {
    row: usize,
    case: Case,
    stages: Vec<Stage>,
    account: String,
    organization: String,
    last: Option<Receipt>,
    collected_at: i64,
    began: i64,
    answers: Vec<Answer>,
}

async fn play<'a>(cluster: &Cluster, rows: &'a [Row]) -> anyhow::Result<Vec<(&'a Row, Vec<Answer>)>> {
    let mut table = Table {
        cluster,
        authority: cluster.authority().await?,
        node: cluster.node().await?,
        guard_ms: clients::guard_ms()?,
        revisions: HashMap::new(),
        newest: None,
    };
    let mut playing = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        for (i, case) in row.cases().into_iter().enumerate() {
            playing.push(Playing {
                row: index,
                stages: (row.play)(&case),
                case,
                account: format!("{ID_MARK}row{}-person{i}", row.number),
                organization: format!("{ID_MARK}row{}-company{i}", row.number),
                last: None,
                collected_at: 0,
                began: consent::clock::wall().millis(),
                answers: Vec::new(),
            });
        }
    }
    let stages = playing.iter().map(|case| case.stages.len()).max().unwrap_or(0);
    for stage in 0..stages {
        for case in &mut playing {
            for step in case.stages.get(stage).cloned().unwrap_or_default() {
                table.step(case, step).await.with_context(|| format!("{:?} of {:?}", step, case.case))?;
            }
        }
        table.next_second().await?;
    }
    let mut answers: Vec<(&Row, Vec<Answer>)> = rows.iter().map(|row| (row, Vec::new())).collect();
    for case in playing {
        answers[case.row].1.extend(case.answers);
    }
    Ok(answers)
}

struct Table<'a> {
    cluster: &'a Cluster,
    authority: Authority,
    node: Node,
    guard_ms: i64,
    // By party and product: what an opt-in must show to have seen.
    revisions: HashMap<String, u64>,
    newest: Option<Receipt>,
}

impl Table<'_> {
    async fn step(&mut self, case: &mut Playing, step: Step) -> anyhow::Result<()> {
        let Case { product, holder, .. } = case.case;
        let (account, organization) = (case.account.clone(), case.organization.clone());
        match step {
            Plan(plan) if holder == Holder::Organization => {
                let party = clients::organization(&organization);
                let receipt = self.authority.set_plan(party, product, plan).await?;
                self.wrote(case, &organization, receipt);
                let receipt = self.authority.put_account(&account, &organization).await?;
                self.wrote(case, &account, receipt);
            }
            Plan(plan) | OwnPlan(plan) => {
                let receipt = self.authority.set_plan(clients::account(&account), product, plan).await?;
                self.wrote(case, &account, receipt);
            }
            Choose(choice) => {
                self.choose(case, &account, product, choice, clients::account(&account)).await?
            }
            ChooseElsewhere(choice) => {
                let other = if product == LE_CHAT { AI_STUDIO } else { LE_CHAT };
                self.choose(case, &account, other, choice, clients::account(&account)).await?;
            }
            OrganizationChooses(choice) => {
                let party = clients::organization(&organization);
                self.choose(case, &organization, product, choice, party).await?;
            }
            Ask(collected, expected) => self.ask(case, collected, expected).await?,
            Cut => {
                self.cluster.wire().blackhole();
                self.node.until(SidecarState::Lapsed).await?;
            }
            Heal => {
                self.cluster.wire().heal();
                self.node.until(SidecarState::Live).await?;
            }
        }
        Ok(())
    }

    async fn choose(
        &mut self,
        case: &mut Playing,
        id: &str,
        product: &str,
        choice: Choice,
        party: consent::pb::Party,
    ) -> anyhow::Result<()> {
        let request = SetConsentRequest {
            expected_revision: (choice == Choice::In).then(|| self.revisions.get(id).copied()).flatten(),
            ..clients::choice(party, product, choice, case.case.channel)
        };
        let receipt = self.authority.choose(request).await?;
        self.wrote(case, id, receipt);
        Ok(())
    }

    fn wrote(&mut self, case: &mut Playing, id: &str, receipt: Receipt) {
        self.revisions.insert(id.to_owned(), clients::revision(&receipt));
        self.newest = Some(receipt.clone());
        case.last = Some(receipt);
    }

    async fn ask(
        &mut self,
        case: &mut Playing,
        collected: Collected,
        expected: Verdict,
    ) -> anyhow::Result<()> {
        let since = match &case.last {
            Some(receipt) => clients::first_allowed(receipt, self.guard_ms)?,
            None => case.began,
        };
        case.collected_at = match collected {
            LongAgo => case.began - 24 * 3600 * 1000,
            Before => since - 1,
            Since => since,
            Latest => consent::clock::wall().millis() + self.guard_ms,
            Same => case.collected_at,
        };
        let artifact = clients::artifact(case.case.product, case.case.kind, case.collected_at);
        let seen: Option<Position> = case.last.as_ref().and_then(|receipt| receipt.position.clone());
        let answer = self.node.answers.ask(&case.account, artifact, seen).await?;
        let wrong = judge(&answer, expected);
        let wrong = wrong.map(|wrong| format!("{:?}, collected {collected:?}: {wrong}", case.case));
        case.answers.push(Answer { wrong });
        Ok(())
    }

    // Until the second has begun from which on the newest write's "since" is no longer in the future.
    async fn next_second(&mut self) -> anyhow::Result<()> {
        if let Some(receipt) = self.newest.take() {
            clients::wall_clock_at(clients::first_allowed(&receipt, 0)?).await;
        }
        Ok(())
    }
}

fn judge(answer: &Answered, expected: Verdict) -> Option<String> {
    let (decision, reason) = answer.verdict();
    if (decision, reason) != expected {
        let said = format!("{} {}", decision.as_str_name(), reason.as_str_name());
        return Some(format!("{said}, not {} {}", expected.0.as_str_name(), expected.1.as_str_name()));
    }
    // What an ALLOW promises, and a DENY does not.
    if answer.allows() != answer.response.valid_for.is_some() {
        return Some(format!("valid_for is {:?}", answer.response.valid_for));
    }
    if answer.allows() && answer.response.r#final {
        return Some("an ALLOW that is final".to_owned());
    }
    None
}
