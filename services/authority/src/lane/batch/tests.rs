//! Batches against a ledger in memory: what every store promises, in forty lines.

use super::*;
use crate::lane::Write;
use crate::store::{LedgerHead, LockedHead};
use consent_core::head::Head;
use consent_core::policy::PolicyFile;
use consent_core::words::{Choice, Epoch, Name, Party};
use std::collections::BTreeMap;
use uuid::Uuid;

const ID_KEY: IdKey = IdKey::new([7; 16]);
const POLICY: &str = r#"
schema = 1
name = "test"
version = 1
[product.chat]
incognito = "deny"
plan.free = { mode = "default_in" }
kind.input = "trainable"
"#;

struct Ledger {
    head: LedgerHead,
    now: Timestamp,
    entries: Vec<Entry>,
    heads: BTreeMap<HeadKey, Vec<u8>>,
    subjects: BTreeMap<HeadKey, SubjectRecord>,
    requests: Vec<RequestRecord>,
}

impl Ledger {
    fn new() -> Ledger {
        let head = LedgerHead {
            epoch: Epoch::new([1; 16]),
            settled_epoch: None,
            revision: Revision::ZERO,
            chain: Chain::EMPTY,
            digest: Digest::EMPTY,
            recorded_at: Timestamp::from_millis(0),
            id_key: ID_KEY,
        };
        let (entries, requests) = (Vec::new(), Vec::new());
        let (heads, subjects) = (BTreeMap::new(), BTreeMap::new());
        Ledger { head, now: Timestamp::from_millis(1_000), entries, heads, subjects, requests }
    }

    /// A ledger with a policy, and nothing else.
    fn with_policy() -> Ledger {
        let mut ledger = Ledger::new();
        let file = Box::new(PolicyFile::parse(POLICY).expect("a policy"));
        let publish = write(Command::PublishPolicy { file, expected: None }, vec![]);
        ledger.run(&[publish]).remove(0).expect("published");
        ledger
    }

    fn lock(&self, needs: &Needs) -> Locked {
        let mut keys = needs.heads.clone();
        keys.push(HeadKey::Policy);
        for key in &needs.heads {
            let head = self.heads.get(key).and_then(|bytes| Head::decode(key.kind(), bytes).ok());
            keys.extend(head.and_then(|head| head.organization()).map(HeadKey::Organization));
        }
        keys.sort_unstable();
        keys.dedup();
        let found = |key: HeadKey| {
            let bytes = self.heads.get(&key)?.clone();
            let last = self.entries.iter().rfind(|entry| entry.head.key == key)?;
            Some(LockedHead {
                record: HeadRecord { key, bytes },
                subject: self.subjects.get(&key).map(|record| record.subject),
                revision: last.revision,
                chain: last.chain,
                recorded_at: last.recorded_at,
            })
        };
        let made = |made: &&RequestRecord| needs.requests.contains(&made.name);
        Locked {
            head: self.head.clone(),
            now: self.now,
            heads: keys.into_iter().filter_map(found).collect(),
            requests: self.requests.iter().filter(made).cloned().collect(),
        }
    }

    /// One batch, committed.
    fn run(&mut self, writes: &[Write]) -> Vec<Result<Receipt, Refusal>> {
        let needs = needs(writes.iter());
        let locked = self.lock(&needs);
        let Decided { append, outcomes } = decide(writes.iter(), &needs, &locked, &ID_KEY).expect("decided");
        for entry in append.entries {
            self.heads.insert(entry.head.key, entry.head.bytes.clone());
            let (revision, chain, digest) = (entry.revision, entry.chain, entry.digest);
            let recorded_at = entry.recorded_at;
            self.head = LedgerHead { revision, chain, digest, recorded_at, ..self.head.clone() };
            self.entries.push(entry);
        }
        for record in append.subjects {
            assert!(self.subjects.insert(record.key, record).is_none(), "a key is named once");
        }
        self.requests.extend(append.requests);
        outcomes
    }

    fn chain_and_digest_from_scratch(&self) -> (Chain, Digest) {
        let chain = self.entries.iter().fold(Chain::EMPTY, |chain, entry| chain.then(Link::of(&entry.event)));
        let (secret, mut digest) = (DigestKey::new(&ID_KEY), Digest::EMPTY);
        for (key, bytes) in &self.heads {
            digest.add(&secret, *key, bytes);
        }
        (chain, digest)
    }
}

fn write(command: Command, ids: Vec<(HeadKey, String)>) -> Write {
    let request = RequestName {
        caller: "test".to_owned(),
        request_id: Uuid::from_bytes(random::bytes().expect("random")),
    };
    let (actor, notice) = ("tester".to_owned(), String::new());
    Write { request, command, ids, actor, channel: 7, notice, document: None }
}

fn choose(account: &str, choice: Choice) -> Write {
    let key = ID_KEY.account(account);
    let product = Name::new("chat").expect("a name");
    let command = Command::SetConsent { party: Party::Account(key), product, choice, expected: None };
    write(command, vec![(HeadKey::Account(key), account.to_owned())])
}

fn put(account: &str, organization: &str) -> Write {
    let (key, its) = (ID_KEY.account(account), ID_KEY.organization(organization));
    let ids = vec![
        (HeadKey::Account(key), account.to_owned()),
        (HeadKey::Organization(its), organization.to_owned()),
    ];
    write(Command::PutAccount { account: key, organization: Some(its), expected: None }, ids)
}

fn revision(outcome: &Result<Receipt, Refusal>) -> u64 {
    outcome.as_ref().expect("a receipt").position.revision.get()
}

#[test]
fn revisions_are_dense_and_chain_and_digest_prove_what_is_there() {
    let mut ledger = Ledger::with_policy();
    let outcomes = ledger.run(&[put("ada", "acme"), choose("ada", Choice::Out), choose("bob", Choice::Out)]);
    // The organization's event comes first; the receipt names where the account stands.
    assert_eq!(outcomes.iter().map(revision).collect::<Vec<_>>(), [3, 4, 5]);
    ledger.run(&[choose("bob", Choice::In), put("bob", "acme"), choose("cleo", Choice::In)]);
    let revisions: Vec<u64> = ledger.entries.iter().map(|entry| entry.revision.get()).collect();
    assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>());
    assert_eq!((ledger.head.chain, ledger.head.digest), ledger.chain_and_digest_from_scratch());
    for entry in &ledger.entries {
        let recorded = Recorded::decode(&entry.event).expect("readable");
        assert_eq!((recorded.revision, recorded.recorded_at), (entry.revision, entry.recorded_at));
        assert_eq!(entry.link, Link::of(&entry.event));
    }
}

#[test]
fn events_name_subjects_and_each_key_has_one() {
    let mut ledger = Ledger::with_policy();
    ledger.run(&[choose("ada", Choice::Out), choose("ada", Choice::In), put("ada", "acme")]);
    ledger.run(&[put("bob", "acme")]);
    let key = ID_KEY.account("ada");
    assert_eq!(ledger.subjects.len(), 3);
    assert_eq!(ledger.subjects[&HeadKey::Account(key)].id, "ada");
    let holds = |bytes: &[u8], part: &[u8; 16]| bytes.windows(16).any(|window| window == part);
    for entry in &ledger.entries {
        assert!(!holds(&entry.event, key.bytes()), "an event must not hold a key");
        let named =
            ledger.subjects.get(&entry.head.key).is_none_or(|its| holds(&entry.event, its.subject.bytes()));
        assert!(named, "the event of a party names its subject");
    }
}

#[test]
fn two_of_one_name_in_a_batch_are_one_write() {
    let mut ledger = Ledger::with_policy();
    let first = choose("ada", Choice::Out);
    let other = Write { request: first.request.clone(), ..choose("ada", Choice::In) };
    let outcomes = ledger.run(&[first.clone(), first.clone(), other]);
    assert_eq!(revision(&outcomes[0]), 2);
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[2], Err(Refusal::RequestIdReused));
    assert_eq!(ledger.head.revision.get(), 2);
    // And so in a later one.
    assert_eq!(ledger.run(&[first]).remove(0), outcomes[0]);
}

#[test]
fn a_late_retry_undoes_nothing_newer() {
    let mut ledger = Ledger::with_policy();
    let stands = ledger.run(&[choose("ada", Choice::Out)]).remove(0).expect("recorded");
    // It changes nothing, and is remembered all the same.
    let repeat = choose("ada", Choice::Out);
    let repeated = ledger.run(std::slice::from_ref(&repeat)).remove(0).expect("recorded");
    assert_eq!(repeated, Receipt { changed: false, ..stands.clone() });
    let expected = Some(stands.position.revision);
    let mut opt_in = choose("ada", Choice::In);
    if let Command::SetConsent { expected: its, .. } = &mut opt_in.command {
        *its = expected;
    }
    ledger.run(&[opt_in]).remove(0).expect("recorded");
    assert_eq!(ledger.run(&[repeat]).remove(0), Ok(repeated));
    assert_eq!(ledger.head.revision.get(), 3);
}

#[test]
fn what_changes_nothing_in_its_batch_names_the_event_of_its_batch_mate() {
    let mut ledger = Ledger::with_policy();
    let outcomes =
        ledger.run(&[choose("ada", Choice::Out), choose("ada", Choice::Out), choose("bob", Choice::Out)]);
    assert_eq!(outcomes.iter().map(revision).collect::<Vec<_>>(), [2, 2, 3]);
    let chains: Vec<Chain> = outcomes.iter().flatten().map(|receipt| receipt.chain).collect();
    assert_eq!(chains, [ledger.entries[1].chain, ledger.entries[1].chain, ledger.entries[2].chain]);
}

#[test]
fn a_refused_write_fails_alone() {
    let mut ledger = Ledger::with_policy();
    let outcomes = ledger.run(&[choose("ada", Choice::Out), choose("ada", Choice::In), put("bob", "acme")]);
    assert_eq!(revision(&outcomes[0]), 2);
    let missing = Refusal::ExpectedRevisionMissing { actual: Revision::new(2).expect("small") };
    assert_eq!(outcomes[1], Err(missing));
    assert_eq!(revision(&outcomes[2]), 4);
    assert_eq!((ledger.head.chain, ledger.head.digest), ledger.chain_and_digest_from_scratch());
    assert_eq!(ledger.requests.len(), 3);
}

#[test]
fn recorded_at_never_falls() {
    let mut ledger = Ledger::with_policy();
    ledger.now = Timestamp::from_millis(-50_000);
    let receipt = ledger.run(&[choose("ada", Choice::Out)]).remove(0).expect("recorded");
    assert_eq!(receipt.recorded_at, Timestamp::from_millis(1_000));
    ledger.now = Timestamp::from_millis(2_000);
    let receipt = ledger.run(&[choose("bob", Choice::Out)]).remove(0).expect("recorded");
    assert_eq!(receipt.recorded_at, Timestamp::from_millis(2_000));
}

#[test]
fn what_only_a_newer_program_can_read_is_left_to_it() {
    let mut ledger = Ledger::with_policy();
    ledger.run(&[put("ada", "acme"), choose("bob", Choice::Out), choose("cleo", Choice::Out)]);
    let newer = |ledger: &mut Ledger, key| ledger.heads.get_mut(&key).expect("there")[0] = u8::MAX;
    newer(&mut ledger, HeadKey::Organization(ID_KEY.organization("acme")));
    newer(&mut ledger, HeadKey::Account(ID_KEY.account("bob")));
    let writes = [choose("ada", Choice::Out), choose("bob", Choice::Out), choose("dan", Choice::Out)];
    let outcomes = ledger.run(&writes);
    assert_eq!(outcomes[..2], [Err(Refusal::ReplicaTooOld), Err(Refusal::ReplicaTooOld)]);
    assert!(outcomes[2].is_ok(), "its batch-mate is written");
    assert_eq!(ledger.run(&[put("eve", "acme")]), [Err(Refusal::ReplicaTooOld)]);
    newer(&mut ledger, HeadKey::Policy);
    assert_eq!(ledger.run(&[choose("cleo", Choice::Out)]), [Err(Refusal::ReplicaTooOld)]);
}

#[test]
fn an_erasure_is_tied_to_nothing_before_it() {
    let mut ledger = Ledger::with_policy();
    ledger.run(&[choose("ada", Choice::Out)]);
    let account = ID_KEY.account("ada");
    let id = (HeadKey::Account(account), "ada".to_owned());
    let erase = write(Command::EraseAccount { account, expected: None }, vec![id.clone()]);
    ledger.run(&[erase]).remove(0).expect("recorded");
    let last = Recorded::decode(&ledger.entries.last().expect("an entry").event).expect("readable");
    let Event::AccountErased { account: named } = last.event else { panic!("{:?}", last.event) };
    assert_ne!(named, ledger.subjects[&id.0].subject, "its head would lead to what the person did");
    assert_eq!(ledger.subjects.len(), 1, "and no row says whose it is");
    assert_eq!((ledger.head.chain, ledger.head.digest), ledger.chain_and_digest_from_scratch());
}

#[test]
fn what_is_broken_gives_up_the_batch_and_not_who_does_not_need_it() {
    let mut ledger = Ledger::with_policy();
    ledger.run(&[put("ada", "acme"), choose("bob", Choice::Out)]);
    let organization = HeadKey::Organization(ID_KEY.organization("acme"));
    ledger.heads.get_mut(&organization).expect("there").push(0);
    let is_broken = |ledger: &Ledger, writes: &[Write]| {
        let needs = needs(writes.iter());
        let decided = decide(writes.iter(), &needs, &ledger.lock(&needs), &ID_KEY);
        matches!(decided, Err(StoreError::Broken(_)))
    };
    assert!(is_broken(&ledger, &[choose("bob", Choice::Out), choose("ada", Choice::In)]));
    assert!(!is_broken(&ledger, &[choose("bob", Choice::Out)]));
    assert!(is_broken(&ledger, &[Write { ids: vec![], ..choose("cleo", Choice::Out) }]));
    ledger.heads.insert(HeadKey::Policy, vec![]);
    assert!(is_broken(&ledger, &[choose("bob", Choice::Out)]));
}

#[test]
fn keys_of_another_secret_are_never_written() {
    let ledger = Ledger::with_policy();
    let writes = [choose("ada", Choice::Out)];
    let needs = needs(writes.iter());
    let failed = decide(writes.iter(), &needs, &ledger.lock(&needs), &IdKey::new([8; 16]));
    assert!(matches!(failed, Err(StoreError::Broken(_))));
}

#[test]
fn a_published_file_says_what_it_drops() {
    let mut ledger = Ledger::with_policy();
    let second = POLICY.replace("version = 1", "version = 2").replace("plan.free", "plan.pro");
    let second = second.replace("version = 2", "version = 2\nloosens = [\"product.chat.plan.pro\"]");
    let file = Box::new(PolicyFile::parse(&second).expect("a policy"));
    let publish = write(Command::PublishPolicy { file, expected: None }, vec![]);
    let outcomes = ledger.run(&[publish]);
    let warnings = &outcomes[0].as_ref().expect("published").warnings;
    assert_eq!(warnings.iter().map(|warning| warning.code()).collect::<Vec<_>>(), ["PLAN_DROPPED"]);
}
