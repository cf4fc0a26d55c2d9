//! A ledger for tests: commands by name, at instants that the test sets, under Mistral's policy or another.

use consent_core::command::Command;
use consent_core::decision::{Decision, Hits, Question, all_hits, decide};
use consent_core::event::{Event, Keys, PartyOf};
use consent_core::head::{AccountHead, KnownAccount};
use consent_core::ledger::{Change, State};
use consent_core::policy::PolicyFile;
use consent_core::refusal::Refusal;
use consent_core::words::{
    AccountKey, ArtifactKey, Choice, IdKey, Name, OrganizationKey, Party, Restriction, Revision, Timestamp,
};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

pub(crate) const MISTRAL: &str = include_str!("../../../policies/mistral.toml");
const IDS: IdKey = IdKey::new([3; 16]);

pub(crate) fn account(id: &str) -> AccountKey {
    IDS.account(id)
}

pub(crate) fn organization(id: &str) -> OrganizationKey {
    IDS.organization(id)
}

pub(crate) fn artifact(id: &str) -> ArtifactKey {
    IDS.artifact(id)
}

pub(crate) fn member(id: &str) -> PartyOf<Keys> {
    Party::Account(account(id))
}

pub(crate) fn company(id: &str) -> PartyOf<Keys> {
    Party::Organization(organization(id))
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The same cases in every run.
pub(crate) fn seeded() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        cases: 512,
        ..ProptestConfig::default()
    }
}

/// A question about one artifact of `ada`.
pub(crate) fn about(product: &'static str, kind: &'static str, collected_at: i64) -> Question<'static> {
    Question {
        account: account("ada"),
        artifact: artifact("a chat"),
        product,
        kind,
        collected_at: Some(Timestamp::from_millis(collected_at)),
        is_incognito: false,
    }
}

pub(crate) struct Ledger {
    pub(crate) state: State,
    pub(crate) changes: Vec<Change>,
    pub(crate) events: Vec<Event<Keys>>,
    pub(crate) now: i64,
}

impl Ledger {
    /// Nothing was ever published.
    pub(crate) fn empty() -> Ledger {
        Ledger { state: State::empty(), changes: Vec::new(), events: Vec::new(), now: 1_000 }
    }

    /// This policy was published at one second.
    pub(crate) fn under(policy: &str) -> Ledger {
        let mut ledger = Ledger::empty();
        ledger.publish(policy).unwrap();
        ledger
    }

    /// Mistral's.
    pub(crate) fn mistral() -> Ledger {
        Ledger::under(MISTRAL)
    }

    /// What follows happens then.
    pub(crate) fn at(&mut self, millis: i64) -> &mut Ledger {
        self.now = millis;
        self
    }

    /// Decides and applies; how many events it came to.
    pub(crate) fn run(&mut self, command: &Command) -> Result<usize, Refusal> {
        let events = self.state.decide(command)?;
        for event in &events {
            let revision = self.state.revision().next().unwrap();
            let change = self.state.apply(event, revision, Timestamp::from_millis(self.now)).unwrap();
            self.changes.push(change);
        }
        self.events.extend(events.iter().cloned());
        Ok(events.len())
    }

    pub(crate) fn publish(&mut self, policy: &str) -> Result<usize, Refusal> {
        let file = PolicyFile::parse(policy).map_err(|errors| Refusal::BadPolicy { errors })?;
        self.run(&Command::PublishPolicy { file: Box::new(file), expected: None })
    }

    pub(crate) fn put(&mut self, id: &str, its: Option<&str>) -> &mut Ledger {
        let organization = its.map(organization);
        self.run(&Command::PutAccount { account: account(id), organization, expected: None }).unwrap();
        self
    }

    pub(crate) fn plan(&mut self, party: PartyOf<Keys>, product: &str, plan: Option<&str>) -> &mut Ledger {
        let (product, plan) = (name(product), plan.map(name));
        self.run(&Command::SetPlan { party, product, plan, expected: None }).unwrap();
        self
    }

    /// As the settings page does: it has read the head before.
    pub(crate) fn choose(&mut self, party: PartyOf<Keys>, product: &str, choice: Choice) -> &mut Ledger {
        let expected = Some(self.rev(party));
        self.run(&Command::SetConsent { party, product: name(product), choice, expected }).unwrap();
        self
    }

    pub(crate) fn restrict(&mut self, id: &str, restriction: Restriction) -> &mut Ledger {
        self.run(&Command::Restrict { account: account(id), restriction, expected: None }).unwrap();
        self
    }

    pub(crate) fn lift(&mut self, id: &str, restriction: Restriction) -> &mut Ledger {
        self.run(&Command::Lift { account: account(id), restriction, expected: None }).unwrap();
        self
    }

    pub(crate) fn rev(&self, party: PartyOf<Keys>) -> Revision {
        let rev = match party {
            Party::Account(key) => self.state.account(key).unwrap().map(AccountHead::rev),
            Party::Organization(key) => self.state.organization(key).unwrap().map(|head| head.rev),
        };
        rev.unwrap_or(Revision::ZERO)
    }

    pub(crate) fn known(&self, id: &str) -> &KnownAccount {
        match self.state.account(account(id)).unwrap() {
            Some(AccountHead::Known(known)) => known,
            found => panic!("{id}: {found:?}"),
        }
    }

    /// The answer a minute later.
    pub(crate) fn ask(&self, question: Question<'_>) -> Decision {
        decide(&self.state, &question, Timestamp::from_millis(self.now + 60_000))
    }

    pub(crate) fn hits(&self, question: Question<'_>) -> Hits {
        all_hits(&self.state, &question, Timestamp::from_millis(self.now + 60_000))
    }
}
