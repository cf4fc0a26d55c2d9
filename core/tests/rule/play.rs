//! Plays a history through the production code: each command decided and applied on one state, beside the oracle.

use consent_core::command::Command;
use consent_core::decision::{Decision, decide};
use consent_core::event::{Event, Keys};
use consent_core::head::PolicyHead;
use consent_core::ledger::{Change, State};
use consent_core::refusal::Refusal;
use consent_core::words::{Party, Revision, Timestamp};

use crate::history::{Act, Ask, Expect, Rules, Step, Who};
use crate::names;
use crate::oracle::{Oracle, Refused};

/// One event as it was applied, and the command that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) event: Event<Keys>,
    pub(crate) revision: Revision,
    pub(crate) at: i64,
    pub(crate) act: Act,
    pub(crate) change: Change,
}

/// Both sides, so far.
#[derive(Clone)]
pub(crate) struct Play {
    pub(crate) state: State,
    pub(crate) oracle: Oracle,
    pub(crate) facts: Vec<Fact>,
    /// Publishes go through the TOML file.
    by_file: bool,
}

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Changed,
    NoOp,
    Refused,
}

impl Play {
    pub(crate) fn new(by_file: bool) -> Play {
        Play { state: State::empty(), oracle: Oracle::default(), facts: Vec::new(), by_file }
    }

    /// The next command. An error is a violation.
    pub(crate) fn step(&mut self, step: &Step) -> Result<Outcome, String> {
        let foreseen = self.oracle.world().refuses(&step.act);
        let events = match (self.decide(&step.act), foreseen) {
            (Err(refusal), Some(refused)) if is(&refusal, refused) => return Ok(Outcome::Refused),
            (Ok(events), None) => events,
            (decided, foreseen) => return Err(format!("{:?}: {decided:?}, not {foreseen:?}", step.act)),
        };
        self.oracle.take(step.at, &step.act);
        let outcome = if events.is_empty() { Outcome::NoOp } else { Outcome::Changed };
        for event in events {
            let revision = self.state.revision().next().unwrap();
            let change = self.state.apply(&event, revision, Timestamp::from_millis(step.at));
            let change = change.map_err(|broken| format!("{event:?}: {broken}"))?;
            self.facts.push(Fact { event, revision, at: step.at, act: step.act, change });
        }
        Ok(outcome)
    }

    pub(crate) fn answer(&self, ask: &Ask, now: i64) -> Decision {
        decide(&self.state, &names::question(ask), Timestamp::from_millis(now))
    }

    /// What the production code makes of a command.
    pub(crate) fn decide(&self, act: &Act) -> Result<Vec<Event<Keys>>, Refusal> {
        let command = match *act {
            Act::Publish { ref rules } if !self.by_file => {
                let policy = names::document(self.state.policy().version + 1, rules);
                return Ok(vec![Event::PolicyPublished { policy }]);
            }
            Act::Publish { ref rules } => {
                Command::PublishPolicy { file: Box::new(file(rules, self.state.policy())), expected: None }
            }
            Act::Account { account, organization } => Command::PutAccount {
                account: names::account(account),
                organization: organization.map(names::organization),
                expected: None,
            },
            Act::Organization { organization } => {
                Command::PutOrganization { organization: names::organization(organization), expected: None }
            }
            Act::Consent { party, product, choice, expect } => Command::SetConsent {
                party: names::party(party),
                product: names::name(names::PRODUCTS[product]),
                choice,
                expected: match expect {
                    Expect::Nothing => None,
                    Expect::TheHeads => Some(self.rev(party)),
                    Expect::Another => self.rev(party).next(),
                },
            },
            Act::Plan { party, product, plan } => Command::SetPlan {
                party: names::party(party),
                product: names::name(names::PRODUCTS[product]),
                plan: plan.map(|plan| names::name(names::PLANS[plan])),
                expected: None,
            },
            Act::Restrict { account, restriction } => {
                Command::Restrict { account: names::account(account), restriction, expected: None }
            }
            Act::Lift { account, restriction } => {
                Command::Lift { account: names::account(account), restriction, expected: None }
            }
            Act::Erase { account } => {
                Command::EraseAccount { account: names::account(account), expected: None }
            }
            Act::Exclude { artifact } => Command::ExcludeArtifact { artifact: names::artifact(artifact) },
        };
        self.state.decide(&command)
    }

    fn rev(&self, party: Who) -> Revision {
        let rev = match names::party(party) {
            Party::Account(key) => self.state.account(key).unwrap().map(|head| head.rev()),
            Party::Organization(key) => self.state.organization(key).unwrap().map(|head| head.rev),
        };
        rev.unwrap_or(Revision::ZERO)
    }
}

fn is(refusal: &Refusal, refused: Refused) -> bool {
    match refused {
        Refused::UnknownProduct => matches!(refusal, Refusal::Invalid { field, .. } if field == "product"),
        Refused::Erased => *refusal == Refusal::AccountErased,
        Refused::ExpectedMissing => matches!(refusal, Refusal::ExpectedRevisionMissing { .. }),
        Refused::Conflict => matches!(refusal, Refusal::Conflict { .. }),
    }
}

/// The file of these rules, which declares exactly what it loosens: the check itself says what is missing.
fn file(rules: &Rules, in_force: &PolicyHead) -> consent_core::policy::PolicyFile {
    let document = names::document(in_force.version + 1, rules);
    let mut loosens = Vec::new();
    if let Err(errors) = names::file(&document, rules, &loosens).check(in_force) {
        for error in errors {
            assert_eq!(error.code, "UNDECLARED_LOOSENING", "{error:?}");
            loosens.push(error.key);
        }
    }
    let file = names::file(&document, rules, &loosens);
    assert_eq!(*file.document(), document);
    file
}
