//! One history through every check of rule.md section 8.

use consent_core::digest::{Digest, DigestKey};
use consent_core::event::{Keys, Named, Recorded, Subjects, Translate};
use consent_core::head::{AccountHead, Head, HeadKey};
use consent_core::layers;
use consent_core::ledger::State;
use consent_core::words::{
    AccountKey, ArtifactKey, Choice, IdKey, OrganizationKey, Party, Restriction, Subject, Timestamp,
};

use crate::draw::Draw;
use crate::history::{
    ACCOUNTS, ARTIFACTS, Act, Ask, Expect, History, Kind, ORGANIZATIONS, PLANS, PRODUCTS, Step,
};
use crate::model::{Fault, Model};
use crate::names;
use crate::play::{Outcome, Play};
use crate::tally::{Check, Tally};

/// Plays the history of this seed and tallies every check.
pub(crate) fn play(seed: u64, tally: &mut Tally) {
    let mut draw = Draw::new(seed);
    let history = History::draw(&mut draw);
    tally.commands += history.steps.len() as u64;
    let mut run = Run { seed, draw, play: Play::new(seed.is_multiple_of(64)), tally };
    if run.forward(&history) {
        run.against_the_oracle(&history);
        run.thresholds(&history);
        run.added_denials(&history);
        run.other_product(&history);
        run.organizations_out(&history);
        run.refold();
        run.broken_rules(&history);
    }
}

struct Run<'t> {
    seed: u64,
    draw: Draw,
    play: Play,
    tally: &'t mut Tally,
}

impl Run<'_> {
    fn check(&mut self, check: Check, holds: bool, what: impl FnOnce() -> String) {
        self.tally.count(check, holds, self.seed, what);
    }

    /// Plays it, with what is checked after each command: I2, I9, foreseen refusals.
    fn forward(&mut self, history: &History) -> bool {
        let mut was_final = [false; 8];
        let mut since = [[0; PRODUCTS]; ACCOUNTS];
        for step in &history.steps {
            let outcome = self.play.step(step);
            self.check(Check::Refusals, outcome.is_ok(), || format!("{outcome:?}"));
            let Ok(outcome) = outcome else { return false };
            self.given_twice(step, outcome);
            for (ask, was_final) in history.asks.iter().zip(&mut was_final) {
                let decision = self.play.answer(ask, step.at);
                self.tally.count(Check::I2Final, !(*was_final && decision.is_allow()), self.seed, || {
                    format!("{ask:?} was final, and is {decision:?}")
                });
                *was_final |= decision.is_final;
            }
            for (account, since) in since.iter_mut().enumerate() {
                self.since_never_falls(account, since);
            }
        }
        true
    }

    fn given_twice(&mut self, step: &Step, outcome: Outcome) {
        if matches!(step.act, Act::Publish { .. }) {
            return;
        }
        let again = self.play.decide(&step.act);
        let holds = match outcome {
            Outcome::Refused => again.is_err(),
            Outcome::Changed | Outcome::NoOp => again.as_ref().is_ok_and(Vec::is_empty),
        };
        self.check(Check::I9, holds, || format!("{:?} again: {again:?}", step.act));
    }

    fn since_never_falls(&mut self, account: usize, before: &mut [u32; PRODUCTS]) {
        let state = &self.play.state;
        let Ok(Some(AccountHead::Known(head))) = state.account(names::account(account)) else { return };
        let organization = head.organization.and_then(|key| state.organization(key).unwrap());
        let mut falls = false;
        let mut cases = 0;
        for (index, product) in state.policy().indexes() {
            let layer = head.layer(Some(index));
            let joined = organization.map(|its| its.layer(index));
            let since = layers::account_since(product, &layer, joined.as_ref()).get();
            let before = &mut before[usize::from(index.0)];
            falls |= since < *before;
            *before = since;
            cases += 1;
        }
        for _ in 0..cases {
            self.check(Check::I2Since, !falls, || format!("acct_since of account {account} fell"));
        }
    }

    fn against_the_oracle(&mut self, history: &History) {
        for ask in &history.asks {
            let decision = self.play.answer(ask, history.now);
            let verdict = self.play.oracle.ask(ask, history.now);
            let allows = decision.is_allow();
            self.check(Check::Equal, allows == verdict.allows_rounded(), || {
                format!("{ask:?}: {decision:?}, not {verdict:?}")
            });
            self.check(Check::Sound, !allows || verdict.allows(), || {
                format!("{ask:?}: {decision:?}, not {verdict:?}")
            });
            self.tally.allows += u64::from(allows);
            self.tally.rounded += u64::from(!allows && verdict.allows());
            if allows {
                let guard = self.play.oracle.world().guard();
                let truly = ask.collected_at + self.draw.between(-guard, guard);
                self.check(Check::I7, verdict.last_denial.is_some_and(|last| truly > last), || {
                    format!("{ask:?} truly at {truly}: {verdict:?}")
                });
            }
            let [input, document] = [Kind::Input, Kind::Document]
                .map(|kind| self.play.answer(&Ask { kind, ..*ask }, history.now));
            self.check(Check::I6, input == document, || format!("{ask:?}: {input:?}, {document:?}"));
        }
    }

    /// I3: from some `c` on ALLOW, until the future.
    fn thresholds(&mut self, history: &History) {
        let horizon = history.now + self.play.oracle.world().guard();
        for ask in history.asks {
            let c = ask.collected_at;
            let mut instants = [c - 1, c, c + 1, c + 1_000, self.draw.between(1, horizon.max(1)), horizon];
            instants.sort_unstable();
            let mut allowed = false;
            for collected_at in instants.into_iter().filter(|c| *c <= horizon) {
                let decision = self.play.answer(&Ask { collected_at, ..ask }, history.now);
                self.check(Check::I3, !allowed || decision.is_allow(), || {
                    format!("{ask:?} at {collected_at}: {decision:?}, and ALLOW before")
                });
                allowed |= decision.is_allow();
            }
        }
    }

    /// Plays the history with one more command, at the instant of the one before it; none if it does not fit there.
    fn with_one_more(&mut self, history: &History, act: Act) -> Option<Play> {
        let place = 1 + self.draw.below(history.steps.len());
        let mut play = Play::new(false);
        for step in &history.steps[..place] {
            play.step(step).ok()?;
        }
        // The first mention of an account opens it: that is no added denial, nor another product's business.
        let party = match act {
            Act::Consent { party, product, .. } | Act::Plan { party, product, .. }
                if play.oracle.world().is_named(product) =>
            {
                Some(party)
            }
            Act::Restrict { account, .. } | Act::Erase { account } => Some(Party::Account(account)),
            Act::Exclude { .. } => None,
            Act::Consent { .. }
            | Act::Plan { .. }
            | Act::Account { .. }
            | Act::Organization { .. }
            | Act::Lift { .. }
            | Act::Publish { .. } => return None,
        };
        if let Some(Party::Account(account)) = party
            && !play.oracle.world().is_known(account)
        {
            return None;
        }
        play.step(&Step { at: history.steps[place - 1].at, act }).ok()?;
        for step in &history.steps[place..] {
            if let Err(what) = play.step(step) {
                self.check(Check::Refusals, false, || what);
                return None;
            }
        }
        Some(play)
    }

    fn added_denials(&mut self, history: &History) {
        let draw = &mut self.draw;
        let account = draw.below(ACCOUNTS);
        let (product, choice, expect) = (draw.below(PRODUCTS), Choice::Out, Expect::Nothing);
        let act = match draw.below(8) {
            0..2 => Act::Consent { party: Party::Account(account), product, choice, expect },
            2..5 => {
                let party = Party::Organization(draw.below(ORGANIZATIONS));
                Act::Consent { party, product, choice, expect }
            }
            5 | 6 => Act::Restrict { account, restriction: draw.of(&Restriction::ALL) },
            _ if draw.one_in(2) => Act::Erase { account },
            _ => Act::Exclude { artifact: draw.below(ARTIFACTS) },
        };
        let Some(play) = self.with_one_more(history, act) else { return };
        for ask in &history.asks {
            let (before, after) = (self.play.answer(ask, history.now), play.answer(ask, history.now));
            self.check(Check::I1, before.is_allow() || !after.is_allow(), || {
                format!("{ask:?} was {before:?} and is {after:?} after {act:?}")
            });
        }
    }

    fn other_product(&mut self, history: &History) {
        let draw = &mut self.draw;
        let product = draw.below(PRODUCTS);
        let party = match draw.below(2) {
            0 => Party::Account(draw.below(ACCOUNTS)),
            _ => Party::Organization(draw.below(ORGANIZATIONS)),
        };
        let act = match draw.below(3) {
            0 => Act::Plan { party, product, plan: Some(draw.below(PLANS)) },
            1 => Act::Consent { party, product, choice: Choice::Out, expect: Expect::TheHeads },
            _ => Act::Consent { party, product, choice: Choice::In, expect: Expect::TheHeads },
        };
        let Some(play) = self.with_one_more(history, act) else { return };
        for ask in history.asks.iter().filter(|ask| ask.product != product) {
            let (without, with) = (self.play.answer(ask, history.now), play.answer(ask, history.now));
            // The revision, and so what it covers, may differ: a repeat may have become the first.
            let equal = without.reason == with.reason;
            self.check(Check::I4, equal, || format!("{ask:?}: {without:?}, but {with:?} with {act:?}"));
        }
    }

    fn organizations_out(&mut self, history: &History) {
        for account in 0..ACCOUNTS {
            for product in 0..PRODUCTS {
                // The end of the last interval in which the account's organization was OUT.
                let covered = |(_, end, world): (i64, Option<i64>, &crate::oracle::World)| {
                    world.is_covered(account, product).then_some(end)
                };
                let Some(end) = self.play.oracle.intervals().filter_map(covered).last() else { continue };
                let guard = self.play.oracle.world().guard();
                let latest = end.unwrap_or(history.now) + guard;
                for collected_at in [latest, self.draw.between(1, latest)] {
                    let (artifact, is_incognito, kind) = (0, self.draw.one_in(2), Kind::Output);
                    let ask = Ask { account, product, kind, artifact, is_incognito, collected_at };
                    let decision = self.play.answer(&ask, history.now);
                    self.check(Check::I5, !decision.is_allow(), || {
                        format!("{ask:?}: {decision:?}, and its organization was OUT until {end:?}")
                    });
                }
            }
        }
    }

    /// I8, through bytes and subjects; and the digest by changes against the digest of all heads.
    fn refold(&mut self) {
        let secret = DigestKey::new(&IdKey::new([9; 16]));
        let mut digest = Digest::EMPTY;
        let mut state = State::empty();
        let mut trouble = None;
        for fact in &self.play.facts {
            let recorded = Recorded {
                revision: fact.revision,
                recorded_at: Timestamp::from_millis(fact.at),
                event: fact.event.name_with(subject),
            };
            let read = Recorded::decode(&recorded.encode());
            if read.as_ref() != Ok(&recorded) {
                trouble = Some(format!("{recorded:?} reads as {read:?}"));
                break;
            }
            let Ok(event) = recorded.event.translate(&mut ToKeys);
            let change = state.apply(&event, recorded.revision, recorded.recorded_at).unwrap();
            let record = change.record();
            let before = change.before.as_ref().map(Head::encode);
            digest.replace(&secret, record.key, before.as_deref(), &record.bytes);
            let decoded = Head::decode(record.key.kind(), &record.bytes);
            if change != fact.change || decoded.as_ref() != Ok(&change.after) {
                trouble = Some(format!("{change:?} was {:?}, and reads as {decoded:?}", fact.change));
                break;
            }
        }
        let trouble = trouble.or_else(|| (state != self.play.state).then(|| "another state".to_owned()));
        self.check(Check::I8, trouble.is_none(), || trouble.clone().unwrap_or_default());
        if trouble.is_none() {
            let mut whole = Digest::EMPTY;
            for (key, head) in state.heads() {
                whole.add(&secret, key, &head.encode());
            }
            self.check(Check::Digest, whole == digest, || {
                format!("{digest:?} by changes, {whole:?} of all heads")
            });
        }
    }

    fn broken_rules(&mut self, history: &History) {
        let model = self.model(Fault::None);
        let differs = model.differs(&self.play.state);
        self.check(Check::Model, differs.is_none(), || differs.unwrap_or_default());
        for ask in &history.asks {
            let (mine, its) = (model.answer(ask, history.now), self.play.answer(ask, history.now));
            self.check(Check::Model, mine == its.is_allow(), || format!("{ask:?}: {mine}, {its:?}"));
        }
        let verdicts = history.asks.map(|ask| self.play.oracle.ask(&ask, history.now));
        for fault in Fault::ALL {
            let model = self.model(fault);
            for (ask, verdict) in history.asks.iter().zip(verdicts) {
                let allows = model.answer(ask, history.now);
                let found = self.tally.found(fault);
                found.asked += 1;
                found.wrong_allows += u64::from(allows && !verdict.allows());
                found.extra_denies += u64::from(!allows && verdict.allows_rounded());
            }
        }
    }

    fn model(&self, fault: Fault) -> Model {
        let mut model = Model::new(fault);
        self.play.facts.iter().for_each(|fact| model.apply(fact));
        model
    }
}

/// Subjects that are their keys: here nobody is erased.
fn subject(named: Named) -> Subject {
    Subject::new(HeadKey::from(named).bytes())
}

struct ToKeys;

impl Translate<Subjects, Keys> for ToKeys {
    type Error = core::convert::Infallible;

    fn account(&mut self, name: Subject) -> Result<AccountKey, Self::Error> {
        Ok(AccountKey::new(*name.bytes()))
    }

    fn organization(&mut self, name: Subject) -> Result<OrganizationKey, Self::Error> {
        Ok(OrganizationKey::new(*name.bytes()))
    }

    fn artifact(&mut self, name: Subject) -> Result<ArtifactKey, Self::Error> {
        Ok(ArtifactKey::new(*name.bytes()))
    }
}
