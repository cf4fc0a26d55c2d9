//! What a batch comes to under the lock: each write decided on the state that the ones before it left.
//!
//! Nothing here waits, and nothing is kept between two batches, so a batch whose commit failed, or whose outcome is
//! unknown, is simply decided again under the next lock: what did become durable is found among the requests made
//! before, and answered from there.
//!
//! A write that is refused fails alone: it appends nothing, so its batch-mates are decided as if it had never come.
//! That is so too for one that needs a head of a newer program: a replica of that program can write it. What is broken
//! (a malformed head, a command without its ids) gives up the whole batch, and the task then tries each write alone. Answers are given out only after the commit, refusals too: they speak of a state that
//! must have become real.

use super::{Receipt, Write, payload};
use crate::random;
use crate::store::{
    Append, Entry, Evidence, Locked, Needs, RequestName, RequestRecord, StoreError, SubjectRecord,
};
use consent_core::chain::{Chain, Link};
use consent_core::command::Command;
use consent_core::digest::{Digest, DigestKey};
use consent_core::event::{Event, Keys, Recorded, Subjects, Translate};
use consent_core::head::{AccountHead, HeadKey, PolicyHead, Unreadable};
use consent_core::ledger::{Broken, HeadRecord, State};
use consent_core::policy::Warning;
use consent_core::refusal::Refusal;
use consent_core::words::{
    AccountKey, ArtifactKey, IdKey, OrganizationKey, Position, Revision, Subject, Timestamp,
};
use std::collections::{HashMap, HashSet};
use tracing::error;

/// What a write comes to.
pub(super) type Outcome = Result<Receipt, Refusal>;

/// What to commit, and what to answer once that is durable: one outcome for each write, in order.
pub(super) struct Decided {
    pub(super) append: Append,
    pub(super) outcomes: Vec<Outcome>,
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

/// Decides the batch, or says why it cannot be written as it is.
pub(super) fn decide<'w>(
    writes: impl Iterator<Item = &'w Write>,
    needs: &Needs,
    locked: &Locked,
    id_key: &IdKey,
) -> Result<Decided, StoreError> {
    if locked.head.id_key != *id_key {
        return Err(broken("another id key than at the start of this process"));
    }
    let mut batch = Batch::new(needs, locked)?;
    let outcomes = writes.map(|write| batch.outcome(write)).collect::<Result<_, _>>()?;
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
    stored: HashMap<HeadKey, Vec<u8>>,
    /// Heads that only a newer program can read.
    beyond: HashSet<HeadKey>,
    subjects: HashMap<HeadKey, Subject>,
    requests: HashMap<RequestName, RequestRecord>,
    append: Append,
}

impl<'l> Batch<'l> {
    fn new(needs: &Needs, locked: &'l Locked) -> Result<Batch<'l>, StoreError> {
        let head = &locked.head;
        // The state stands at the last event: the batch's own instant is only reached by its first event.
        let mut state = State::batch(head.revision, head.recorded_at, PolicyHead::empty());
        let (mut places, mut stored, mut subjects) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut beyond = HashSet::new();
        for found in &locked.heads {
            let HeadRecord { key, bytes } = &found.record;
            if let Err(unreadable) = state.load(*key, Some(bytes)) {
                error!(kind = ?key.kind(), %unreadable, "a stored head cannot be read");
                match unreadable {
                    Unreadable::Newer(_) => {
                        beyond.insert(*key);
                    }
                    Unreadable::Malformed(_) if *key == HeadKey::Policy => {
                        return Err(broken(format!("the policy's head: {unreadable}")));
                    }
                    Unreadable::Malformed(_) => {}
                }
            }
            stored.insert(*key, bytes.clone());
            let (revision, chain, recorded_at) = (found.revision, found.chain, found.recorded_at);
            places.insert(*key, Place { revision, chain, recorded_at });
            subjects.extend(found.subject.map(|subject| (*key, subject)));
        }
        for key in needs.heads.iter().filter(|key| !places.contains_key(key)) {
            if let Err(never) = state.load(*key, None) {
                return Err(broken(never.to_string()));
            }
        }
        Ok(Batch {
            locked,
            secret: DigestKey::new(&head.id_key),
            state,
            chain: head.chain,
            digest: head.digest,
            places,
            stored,
            beyond,
            subjects,
            requests: locked.requests.iter().map(|made| (made.name.clone(), made.clone())).collect(),
            append: Append::default(),
        })
    }

    fn outcome(&mut self, write: &Write) -> Result<Outcome, StoreError> {
        let payload_hash = payload::hash(write, &self.locked.head.id_key);
        if let Some(made) = self.requests.get(&write.request) {
            let is_retry = made.payload_hash == payload_hash;
            return Ok(if is_retry { Ok(self.receipt(made)) } else { Err(Refusal::RequestIdReused) });
        }
        if self.is_beyond(&write.command) {
            return Ok(Err(Refusal::ReplicaTooOld));
        }
        let warnings = self.warnings(&write.command);
        let events = match self.state.decide(&write.command) {
            Ok(events) => events,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.append(write, &events)?;
        let Place { revision, chain, recorded_at } = self.place(&write.command);
        let (name, changed) = (write.request.clone(), !events.is_empty());
        let made = RequestRecord { name: name.clone(), payload_hash, revision, chain, recorded_at, changed };
        let receipt = Receipt { warnings, ..self.receipt(&made) };
        self.append.requests.push(made.clone());
        self.requests.insert(name, made);
        Ok(Ok(receipt))
    }

    /// Does it need a head that only a newer program can read? During an upgrade that is so for a while, and a newer
    /// replica can write it.
    fn is_beyond(&self, command: &Command) -> bool {
        let organization = |key| match key {
            HeadKey::Account(key) => match self.state.account(key) {
                Ok(Some(AccountHead::Known(known))) => known.organization.map(HeadKey::Organization),
                Ok(Some(AccountHead::Erased { .. }) | None) | Err(_) => None,
            },
            HeadKey::Policy | HeadKey::Organization(_) | HeadKey::Exclusion(_) => None,
        };
        let needed = command.reads().flat_map(|key| [Some(key), organization(key)]).flatten();
        needed.chain([HeadKey::Policy]).any(|key| self.beyond.contains(&key))
    }

    /// What a policy that may follow the one in force drops of it.
    fn warnings(&self, command: &Command) -> Vec<Warning> {
        match command {
            Command::PublishPolicy { file, .. } => file.check(self.state.policy()).unwrap_or_default(),
            Command::SetConsent { .. }
            | Command::SetPlan { .. }
            | Command::PutAccount { .. }
            | Command::PutOrganization { .. }
            | Command::Restrict { .. }
            | Command::Lift { .. }
            | Command::EraseAccount { .. }
            | Command::ExcludeArtifact { .. } => Vec::new(),
        }
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

    /// The event as the ledger stores it, with a subject for each key that was never named.
    fn name(&mut self, event: &Event<Keys>, write: &Write) -> Result<Event<Subjects>, StoreError> {
        if let Event::AccountErased { .. } = event {
            // Its head stays, and names this revision: a subject that no row knows and no other event has leads from
            // there to nothing that the person did before.
            return Ok(Event::AccountErased { account: fresh_subject()? });
        }
        let mut names = Names { known: &self.subjects, ids: &write.ids, fresh: Vec::new() };
        let named = event.translate(&mut names)?;
        for record in names.fresh {
            self.subjects.insert(record.key, record.subject);
            self.append.subjects.push(record);
        }
        Ok(named)
    }

    /// Where the command's party stands now; where the ledger stood, if the command has changed nothing for a party
    /// that has no head.
    fn place(&self, command: &Command) -> Place {
        let party = command.reads().next().unwrap_or(HeadKey::Policy);
        let head = &self.locked.head;
        let ledger = Place { revision: head.revision, chain: head.chain, recorded_at: head.recorded_at };
        self.places.get(&party).copied().unwrap_or(ledger)
    }

    fn append(&mut self, write: &Write, events: &[Event<Keys>]) -> Result<(), StoreError> {
        let recorded_at = self.locked.recorded_at();
        for event in events {
            let named = self.name(event, write)?;
            let revision =
                self.state.revision().next().ok_or_else(|| broken("there are no more revisions"))?;
            let change = self.state.apply(event, revision, recorded_at).map_err(cannot_be_applied)?;
            let event = Recorded { revision, recorded_at, event: named }.encode();
            let (link, head) = (Link::of(&event), change.record());
            self.chain = self.chain.then(link);
            // The bytes that were counted in are counted out, whatever this program would make of that head.
            let before = self.stored.insert(head.key, head.bytes.clone());
            self.digest.replace(&self.secret, head.key, before.as_deref(), &head.bytes);
            self.places.insert(head.key, Place { revision, chain: self.chain, recorded_at });
            self.append.entries.push(Entry {
                revision,
                recorded_at,
                event,
                link,
                chain: self.chain,
                digest: self.digest,
                organization: change.after.organization(),
                head,
                evidence: evidence(write),
                document: write.document.clone(),
            });
        }
        Ok(())
    }
}

fn evidence(write: &Write) -> Evidence {
    Evidence {
        request: write.request.clone(),
        actor: write.actor.clone(),
        channel: write.channel,
        notice: write.notice.clone(),
    }
}

fn broken(what: impl Into<String>) -> StoreError {
    StoreError::Broken(what.into())
}

/// An event that was decided can be applied, unless a head that it needs cannot be read.
fn cannot_be_applied(why: Broken) -> StoreError {
    match why {
        // Its words would name the head.
        Broken::NotLoaded(_) => broken("a head that an event needs was not loaded or cannot be read"),
        Broken::NotNext { .. }
        | Broken::ClockFell(_)
        | Broken::NoProduct(_)
        | Broken::NoPlan(_)
        | Broken::NoOrganization
        | Broken::Erased
        | Broken::BadDocument => broken(format!("an event that was decided cannot be applied: {why}")),
    }
}

/// The subjects that events use: the known ones, and a random one for each key that was never named.
struct Names<'b> {
    known: &'b HashMap<HeadKey, Subject>,
    ids: &'b [(HeadKey, String)],
    fresh: Vec<SubjectRecord>,
}

fn fresh_subject() -> Result<Subject, StoreError> {
    random::bytes().map(Subject::new).map_err(|error| broken(error.to_string()))
}

impl Names<'_> {
    fn subject(&mut self, key: HeadKey) -> Result<Subject, StoreError> {
        if let Some(subject) = self.known.get(&key) {
            return Ok(*subject);
        }
        let id = self.ids.iter().find(|(its, _)| *its == key).map(|(_, id)| id.clone());
        let id = id.ok_or_else(|| broken("a command names a key without its id"))?;
        let subject = fresh_subject()?;
        self.fresh.push(SubjectRecord { subject, key, id });
        Ok(subject)
    }
}

impl Translate<Keys, Subjects> for Names<'_> {
    type Error = StoreError;

    fn account(&mut self, key: AccountKey) -> Result<Subject, StoreError> {
        self.subject(HeadKey::Account(key))
    }

    fn organization(&mut self, key: OrganizationKey) -> Result<Subject, StoreError> {
        self.subject(HeadKey::Organization(key))
    }

    fn artifact(&mut self, key: ArtifactKey) -> Result<Subject, StoreError> {
        self.subject(HeadKey::Exclusion(key))
    }
}

#[cfg(test)]
mod tests;
