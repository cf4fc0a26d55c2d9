//! What a batch comes to under the lock: each write decided on the state that the ones before it left.
//!
//! Nothing here waits, and nothing is kept between two batches, so a batch whose commit failed, or whose outcome is
//! unknown, is simply decided again under the next lock: what did become durable is found among the requests made
//! before, and answered from there.
//!
//! A write that is refused fails alone, and leaves no trace in what its batch-mates are decided on. Answers are given
//! out only after the commit, refusals too: they speak of a state that must have become real.

use super::{Receipt, Write, payload};
use crate::store::{
    Append, Entry, Evidence, Locked, Needs, RequestName, RequestRecord, StoreError, SubjectRecord,
};
use consent_core::chain::{Chain, Link};
use consent_core::command::Command;
use consent_core::digest::{Digest, DigestKey};
use consent_core::event::{Event, Keys, Recorded, Subjects, Translate};
use consent_core::head::{HeadKey, PolicyHead};
use consent_core::ledger::{Broken, HeadRecord, State};
use consent_core::refusal::Refusal;
use consent_core::words::{
    AccountKey, ArtifactKey, IdKey, OrganizationKey, Position, Revision, Subject, Timestamp,
};
use std::collections::HashMap;
use tracing::error;

/// What to commit, and what to answer once that is durable: one outcome for each write, in order.
pub(super) struct Decided {
    pub(super) append: Append,
    pub(super) outcomes: Vec<Result<Receipt, Refusal>>,
}

/// What the batch must read under the lock.
pub(super) fn needs<'w>(writes: impl Iterator<Item = &'w Write>) -> Needs {
    let mut needs = Needs::default();
    for write in writes {
        needs.heads.extend(write.command.reads());
        needs.requests.push(write.request.clone());
    }
    needs.heads.sort_unstable();
    needs.heads.dedup();
    needs
}

/// Decides the batch. Only the policy's head can fail all of it: every command is decided under it. Another head that
/// cannot be read fails the writes that need it.
pub(super) fn decide<'w>(
    writes: impl Iterator<Item = &'w Write>,
    needs: &Needs,
    locked: &Locked,
    id_key: &IdKey,
) -> Result<Decided, StoreError> {
    if locked.head.id_key != *id_key {
        return Err(StoreError::Broken("another id key than at the start of this process".to_owned()));
    }
    let mut batch = Batch::new(needs, locked)?;
    let outcomes = writes.map(|write| batch.outcome(write)).collect();
    Ok(Decided { append: batch.append, outcomes })
}

/// Where a party stands in the ledger.
#[derive(Clone, Copy)]
struct Place {
    revision: Revision,
    chain: Chain,
    recorded_at: Timestamp,
}

struct Batch<'l> {
    locked: &'l Locked,
    secret: DigestKey,
    state: State,
    chain: Chain,
    digest: Digest,
    places: HashMap<HeadKey, Place>,
    subjects: HashMap<HeadKey, Subject>,
    requests: HashMap<RequestName, RequestRecord>,
    append: Append,
}

impl<'l> Batch<'l> {
    fn new(needs: &Needs, locked: &'l Locked) -> Result<Batch<'l>, StoreError> {
        let head = &locked.head;
        // The state stands at the last event: the batch's own instant is only reached by its first event.
        let mut state = State::batch(head.revision, head.recorded_at, PolicyHead::empty());
        let (mut places, mut subjects) = (HashMap::new(), HashMap::new());
        for found in &locked.heads {
            let HeadRecord { key, bytes } = &found.record;
            if let Err(unreadable) = state.load(*key, Some(bytes)) {
                error!(kind = ?key.kind(), %unreadable, "a stored head cannot be read");
                if *key == HeadKey::Policy {
                    return Err(StoreError::Broken(format!("the policy's head: {unreadable}")));
                }
            }
            let (revision, chain, recorded_at) = (found.revision, found.chain, found.recorded_at);
            places.insert(*key, Place { revision, chain, recorded_at });
            subjects.extend(found.subject.map(|subject| (*key, subject)));
        }
        for key in needs.heads.iter().filter(|key| !places.contains_key(key)) {
            if let Err(never) = state.load(*key, None) {
                return Err(StoreError::Broken(never.to_string()));
            }
        }
        Ok(Batch {
            locked,
            secret: DigestKey::new(&head.id_key),
            state,
            chain: head.chain,
            digest: head.digest,
            places,
            subjects,
            requests: locked.requests.iter().map(|made| (made.name.clone(), made.clone())).collect(),
            append: Append::default(),
        })
    }

    fn outcome(&mut self, write: &Write) -> Result<Receipt, Refusal> {
        let payload_hash = payload::hash(write, &self.locked.head.id_key);
        if let Some(made) = self.requests.get(&write.request) {
            return if made.payload_hash == payload_hash {
                Ok(self.receipt(made))
            } else {
                Err(Refusal::RequestIdReused)
            };
        }
        let events = self.state.decide(&write.command)?;
        let warnings = match &write.command {
            // It was checked a moment ago, when it was decided.
            Command::PublishPolicy { file, .. } => file.check(self.state.policy()).unwrap_or_default(),
            Command::SetConsent { .. }
            | Command::SetPlan { .. }
            | Command::PutAccount { .. }
            | Command::PutOrganization { .. }
            | Command::Restrict { .. }
            | Command::Lift { .. }
            | Command::EraseAccount { .. }
            | Command::ExcludeArtifact { .. } => Vec::new(),
        };
        let changed = !events.is_empty();
        if changed {
            self.append(write, &events)?;
        }
        let Place { revision, chain, recorded_at } = self.place(&write.command);
        let name = write.request.clone();
        let made = RequestRecord { name: name.clone(), payload_hash, revision, chain, recorded_at, changed };
        let receipt = Receipt { warnings, ..self.receipt(&made) };
        self.append.requests.push(made.clone());
        self.requests.insert(name, made);
        Ok(receipt)
    }

    /// The epoch is the ledger's present one: the revision is on its chain, whatever it was called when it was made.
    fn receipt(&self, made: &RequestRecord) -> Receipt {
        Receipt {
            position: Position { epoch: self.locked.head.epoch, revision: made.revision },
            chain: made.chain,
            recorded_at: made.recorded_at,
            changed: made.changed,
            warnings: Vec::new(),
        }
    }

    /// Where the command's party stands now; where the ledger stood, if the command has changed nothing for a party
    /// that has no head.
    fn place(&self, command: &Command) -> Place {
        let party = command.reads().next().unwrap_or(HeadKey::Policy);
        let head = &self.locked.head;
        let ledger = Place { revision: head.revision, chain: head.chain, recorded_at: head.recorded_at };
        self.places.get(&party).copied().unwrap_or(ledger)
    }

    /// All the command's events, or none of them.
    fn append(&mut self, write: &Write, events: &[Event<Keys>]) -> Result<(), Refusal> {
        // One event leaves the state as it was when it fails; the second of two would leave the first's.
        let before = (events.len() > 1).then(|| self.state.clone());
        let mut names = Names { known: &self.subjects, ids: &write.ids, fresh: Vec::new() };
        let (mut chain, mut digest) = (self.chain, self.digest);
        let mut entries = Vec::with_capacity(events.len());
        let recorded_at = self.locked.recorded_at();
        for event in events {
            let entry = names.translate(event).and_then(|named| {
                let change = apply(&mut self.state, event, recorded_at)?;
                let recorded = Recorded { revision: change.revision, recorded_at, event: named };
                let bytes = recorded.encode();
                let (link, head) = (Link::of(&bytes), change.record());
                chain = chain.then(link);
                let old = change.before.as_ref().map(|head| head.encode());
                digest.replace(&self.secret, head.key, old.as_deref(), &head.bytes);
                Ok(Entry {
                    revision: change.revision,
                    recorded_at,
                    event: bytes,
                    link,
                    chain,
                    digest,
                    organization: change.after.organization(),
                    head,
                    evidence: Evidence {
                        request: write.request.clone(),
                        actor: write.actor.clone(),
                        channel: write.channel,
                        notice: write.notice.clone(),
                        document: write.document.clone(),
                    },
                })
            });
            match entry {
                Ok(entry) => entries.push(entry),
                Err(refusal) => {
                    if let Some(before) = before {
                        self.state = before;
                    }
                    return Err(refusal);
                }
            }
        }
        let fresh = names.fresh;
        (self.chain, self.digest) = (chain, digest);
        self.subjects.extend(fresh.iter().map(|record| (record.key, record.subject)));
        self.append.subjects.extend(fresh);
        for entry in &entries {
            let place = Place { revision: entry.revision, chain: entry.chain, recorded_at };
            self.places.insert(entry.head.key, place);
        }
        self.append.entries.extend(entries);
        Ok(())
    }
}

fn apply(
    state: &mut State,
    event: &Event<Keys>,
    recorded_at: Timestamp,
) -> Result<consent_core::ledger::Change, Refusal> {
    let revision = state.revision().next().ok_or(Refusal::Internal)?;
    state.apply(event, revision, recorded_at).map_err(|broken| {
        match broken {
            // Its words would name the head.
            Broken::NotLoaded(_) => error!("an event needs a head that was not loaded or cannot be read"),
            Broken::NotNext { .. }
            | Broken::ClockFell(_)
            | Broken::NoProduct(_)
            | Broken::NoPlan(_)
            | Broken::NoOrganization
            | Broken::Erased
            | Broken::BadDocument => error!(%broken, "an event that was decided cannot be applied"),
        }
        Refusal::Internal
    })
}

/// The subjects that events use: the known ones, and a random one for each key that was never named.
struct Names<'b> {
    known: &'b HashMap<HeadKey, Subject>,
    ids: &'b [(HeadKey, String)],
    fresh: Vec<SubjectRecord>,
}

impl Names<'_> {
    fn translate(&mut self, event: &Event<Keys>) -> Result<Event<Subjects>, Refusal> {
        event.translate(self)
    }

    fn subject(&mut self, key: HeadKey) -> Result<Subject, Refusal> {
        let drawn = || self.fresh.iter().find(|record| record.key == key).map(|record| record.subject);
        if let Some(subject) = self.known.get(&key).copied().or_else(drawn) {
            return Ok(subject);
        }
        let id = self.ids.iter().find(|(its, _)| *its == key).map(|(_, id)| id.clone());
        let Some(id) = id else {
            error!(kind = ?key.kind(), "a command names a key without its id");
            return Err(Refusal::Internal);
        };
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            error!(%error, "the system gives no random bytes");
            Refusal::Internal
        })?;
        let subject = Subject::new(bytes);
        self.fresh.push(SubjectRecord { subject, key, id });
        Ok(subject)
    }
}

impl Translate<Keys, Subjects> for Names<'_> {
    type Error = Refusal;

    fn account(&mut self, key: AccountKey) -> Result<Subject, Refusal> {
        self.subject(HeadKey::Account(key))
    }

    fn organization(&mut self, key: OrganizationKey) -> Result<Subject, Refusal> {
        self.subject(HeadKey::Organization(key))
    }

    fn artifact(&mut self, key: ArtifactKey) -> Result<Subject, Refusal> {
        self.subject(HeadKey::Exclusion(key))
    }
}
