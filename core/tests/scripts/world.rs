//! The world of a script: parties, a store, clocks, and a set of messages; and what may happen to them.

use super::history::{Ask, Events, Store, Told, Tree, digest, link, place};
use super::parties::{Answer, Body, Clock, Connection, Copy, Message, Party, Replica, Sidecar, Witness};
use consent_core::confirm::confirmer::{self, Confirmer, Ticket};
use consent_core::confirm::grantor::{self, Limits};
use consent_core::confirm::holder::{self, Cause};
use consent_core::confirm::{
    Frame, Grantor, Holder, Place, Start, Stream, Terms, ToAuthority, ToSidecar, Validity,
};
use consent_core::words::{Epoch, Incarnation, Moment, Nonce, Span};
use std::collections::{BTreeMap, BTreeSet};

/// The store's side of an incarnation is found by its name alone.
fn incarnation(number: u64) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Incarnation::new(bytes)
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) terms: Terms,
    pub(crate) sessions_max: usize,
    pub(crate) store: Store,
    pub(crate) tree: Tree,
    pub(crate) clocks: BTreeMap<Party, Clock>,
    pub(crate) sidecars: BTreeMap<u8, Sidecar>,
    pub(crate) copies: BTreeMap<u8, Copy>,
    pub(crate) replicas: BTreeMap<u8, Replica>,
    pub(crate) witness: Option<Witness>,
    pub(crate) messages: Vec<Message>,
    pub(crate) blocked: Vec<(Party, Party)>,
    pub(crate) streams: BTreeMap<Stream, Connection>,
    /// Those whose hello carries a wrong seal.
    pub(crate) unsealed: BTreeSet<Stream>,
    pub(crate) answers: Vec<Answer>,
    /// R10, begun: the clocks and the lease are read, the heads are not.
    pub(crate) begun: BTreeMap<u8, Option<(Epoch, Validity)>>,
    /// What was committed, by ticket: who awaits it, awaits its chain.
    pub(crate) commits: Vec<Place>,
    /// For which of them somebody waits.
    pub(crate) awaited: BTreeSet<Ticket>,
    /// For which commits EFFECTIVE was told.
    pub(crate) confirmed: Vec<Events>,
    /// The store is an image that kept its epoch: what is said of the epoch's chain says nothing then.
    pub(crate) restored: bool,
    pub(crate) told: Option<(Epoch, u64)>,
    pub(crate) counts: BTreeMap<&'static str, usize>,
    /// The transcript of the present command.
    pub(crate) lines: Vec<String>,
    pub(crate) quiet: bool,
    pub(crate) violation: Option<String>,
    named: u64,
}

impl World {
    pub(crate) fn new() -> World {
        let mut tree = Tree::default();
        tree.grow(&[]);
        World {
            terms: Terms::default(),
            sessions_max: 8,
            store: Store::born_empty(),
            tree,
            clocks: BTreeMap::new(),
            sidecars: BTreeMap::new(),
            copies: BTreeMap::new(),
            replicas: BTreeMap::new(),
            witness: None,
            messages: Vec::new(),
            blocked: Vec::new(),
            streams: BTreeMap::new(),
            unsealed: BTreeSet::new(),
            answers: Vec::new(),
            begun: BTreeMap::new(),
            commits: Vec::new(),
            awaited: BTreeSet::new(),
            confirmed: Vec::new(),
            restored: false,
            told: None,
            counts: BTreeMap::new(),
            lines: Vec::new(),
            quiet: false,
            violation: None,
            named: 0,
        }
    }

    pub(crate) fn say(&mut self, line: impl Into<String>) {
        if !self.quiet {
            self.lines.push(line.into());
        }
    }

    /// What no script leaves out, even where time just runs. Once is enough there.
    pub(crate) fn proclaim(&mut self, line: impl Into<String>) {
        let line = line.into();
        if !self.quiet || !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    pub(crate) fn now(&mut self, party: Party) -> Moment {
        self.clocks.entry(party).or_insert_with(Clock::new).now
    }

    fn name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    // What happens to the world.

    pub(crate) fn append(&mut self, event: char) {
        match self.store.append(event) {
            Some(place) => {
                self.tree.grow(&self.store.ledger.clone());
                self.commits.push(place);
                let line = format!("recorded {}{event}", place.revision);
                self.say(line);
            }
            None => self.say("refused: the store is another one than it says"),
        }
    }

    pub(crate) fn start_sidecar(&mut self, number: u8, warm: bool) {
        let run = incarnation(self.name());
        self.now(Party::Sidecar(number));
        let sidecar = Sidecar {
            incarnation: run,
            holder: Holder::new(run, 1),
            epoch: self.store.epoch,
            table: Events::new(),
            unproven: None,
            lease: None,
            slow: false,
            to_apply: Vec::new(),
            open: Vec::new(),
            loading: None,
            leaves: None,
            been: BTreeMap::new(),
        };
        self.sidecars.insert(number, sidecar);
        if warm {
            self.load(number);
        }
    }

    /// A driver loads the copy into the table that it has emptied, or not filled yet. It knows the secret, or it could
    /// not tell the digest; so it does not load what bears a wrong seal.
    pub(crate) fn load(&mut self, number: u8) {
        let copy = self.copies.get(&number).filter(|copy| copy.sealed).cloned();
        if let Some((copy, sidecar)) = copy.zip(self.sidecars.get_mut(&number)) {
            let digest = digest(&copy.table);
            if sidecar.holder.place().is_none() {
                (sidecar.table, sidecar.epoch) = (copy.table, copy.place.epoch);
            }
            self.step_sidecar(number, holder::Input::Loaded { place: copy.place, digest });
        }
    }

    /// A driver finds the copy and cannot tell yet what it is worth: that shows under the secret of a welcome.
    pub(crate) fn find(&mut self, number: u8) {
        if let Some((copy, sidecar)) = self.copies.get(&number).cloned().zip(self.sidecars.get_mut(&number)) {
            let place = copy.place;
            sidecar.unproven = Some(copy);
            self.step_sidecar(number, holder::Input::Loaded { place, digest: place.digest });
        }
    }

    /// The node's durable copy is what the table is now.
    pub(crate) fn save(&mut self, number: u8) {
        if let Some(sidecar) = self.sidecars.get(&number).filter(|sidecar| sidecar.unproven.is_none())
            && let Some(place) = sidecar.holder.place()
        {
            self.copies.insert(number, Copy { place, table: sidecar.table.clone(), sealed: true });
        }
    }

    /// Somebody who does not know the secret writes into the copy that one more event, which nobody ever recorded,
    /// was there.
    pub(crate) fn invent(&mut self, number: u8, event: char) -> Option<()> {
        let copy = self.copies.get_mut(&number)?;
        copy.table.push(event);
        copy.place = place(copy.place.epoch, &copy.table);
        copy.sealed = false;
        self.tree.grow(&copy.table);
        Some(())
    }

    /// The copy is proven, before the holder hears of the welcome that goes on from it. Is it what it says?
    fn prove(&mut self, number: u8) -> bool {
        let Some(sidecar) = self.sidecars.get_mut(&number) else { return true };
        let Some(copy) = sidecar.unproven.take() else { return true };
        let is_right = digest(&copy.table) == copy.place.digest;
        if is_right {
            (sidecar.table, sidecar.epoch) = (copy.table, copy.place.epoch);
        }
        is_right
    }

    pub(crate) fn start_replica(&mut self, number: u8) {
        let run = incarnation(self.name());
        self.now(Party::Replica(number));
        let limits = Limits { sessions: self.sessions_max, retry_after: Span::from_millis(100) };
        let grantor = Grantor::new(run, self.terms, limits);
        let (tail, fed) = (Events::new(), BTreeMap::new());
        let replica = Replica { incarnation: run, grantor, lease: None, epoch: None, tail, fed };
        self.replicas.insert(number, replica);
        self.post(Party::Replica(number), Party::Store, Body::Ask(run, Ask::Register));
    }

    pub(crate) fn start_witness(&mut self) {
        let run = incarnation(self.name());
        self.now(Party::Confirmer);
        self.witness = Some(Witness { incarnation: run, confirmer: Confirmer::new(self.terms, 64) });
        self.step_witness(confirmer::Input::TimePassed);
    }

    pub(crate) fn connect(&mut self, sidecar: u8, replica: u8) {
        let (Some(holder), Some(grantor)) = (self.sidecars.get(&sidecar), self.replicas.get(&replica)) else {
            return;
        };
        let ends =
            Connection { sidecar: (sidecar, holder.incarnation), replica: (replica, grantor.incarnation) };
        let stream = Stream(self.name());
        self.streams.insert(stream, ends);
        self.sidecars.entry(sidecar).and_modify(|sidecar| sidecar.open.push(stream));
        self.step_sidecar(sidecar, holder::Input::Connected { stream });
    }

    /// `party` sees the end of every stream between the two; the other does not, yet.
    pub(crate) fn cut(&mut self, party: Party, other: Party) {
        let between = |ends: &Connection| match (party, other) {
            (Party::Sidecar(s), Party::Replica(r)) | (Party::Replica(r), Party::Sidecar(s)) => {
                ends.sidecar.0 == s && ends.replica.0 == r
            }
            _ => false,
        };
        let streams: Vec<Stream> =
            self.streams.iter().filter(|(_, ends)| between(ends)).map(|(s, _)| *s).collect();
        for stream in streams {
            self.deliver_to(party, &Body::Closed(stream));
        }
    }

    pub(crate) fn wait_for(&mut self, at: usize) {
        let Some(commit) = self.commits.get(at).copied() else { return };
        let (ticket, revision, chain) = (Ticket(at as u64), commit.revision, commit.chain);
        self.awaited.insert(ticket);
        self.step_witness(confirmer::Input::Await { ticket, revision, chain });
    }

    /// Puts a message on a sidecar's newest stream that nobody sent now: what the ledger as it is would say (`frame`,
    /// `grant`), or what was said long ago (`late` frame of a commit, `ack` of one, `relinquish` of nothing).
    pub(crate) fn forge(&mut self, number: u8, what: &str, commit: Option<Place>) -> Option<()> {
        let stream = *self.sidecars.get(&number)?.open.last()?;
        let frame = |at: Place, event: char| {
            let (epoch, revision, chain, digest) = (at.epoch, at.revision, at.chain, at.digest);
            ToSidecar::Frame(Frame { epoch, revision, link: link(event), chain, digest })
        };
        let head = self.store.head();
        let message = match what {
            "frame" => frame(head, *self.store.ledger.last()?),
            "late" => frame(commit?, *self.tree.events(&commit?.chain).last()?),
            "grant" => {
                let nonce = self.messages.iter().rev().find_map(|message| match message.body {
                    Body::Up(on, ToAuthority::KeepAlive { nonce }) if on == stream => Some(nonce),
                    _ => None,
                })?;
                ToSidecar::Grant { nonce, place: head }
            }
            _ => {
                let message = match what {
                    "ack" => ToAuthority::Ack { revision: commit?.revision, chain: commit?.chain },
                    "relinquish" => ToAuthority::Relinquish { last: Nonce(0) },
                    _ => return None,
                };
                let replica = self.streams.get(&stream)?.replica.0;
                self.step_replica(replica, grantor::Input::Received { stream, message });
                return Some(());
            }
        };
        self.step_sidecar(number, holder::Input::Received { stream, message });
        Some(())
    }

    /// R10 (1), (2), (4) of one answer.
    pub(crate) fn begin_answer(&mut self, number: u8) {
        let now = self.now(Party::Sidecar(number));
        let lease = self.sidecars.get(&number).and_then(|sidecar| sidecar.lease);
        self.begun
            .insert(number, lease.and_then(|lease| lease.at(now).map(|validity| (lease.epoch, validity))));
    }

    /// R10 (3), (5), (6) of it.
    pub(crate) fn finish_answer(&mut self, number: u8) {
        let now = self.now(Party::Sidecar(number));
        let Some(sidecar) = self.sidecars.get(&number) else { return };
        let seen = sidecar.table.clone();
        let begun = self.begun.remove(&number).flatten();
        let valid = begun.filter(|(epoch, validity)| *epoch == sidecar.epoch && validity.holds(now));
        match valid {
            Some((_, validity)) => {
                let (of, millis) = (seen.len(), validity.valid_for().millis());
                self.answers.push(Answer::Near { sidecar: number, validity, seen });
                self.say(format!("s{number}: an answer as of {of}, for {millis} ms"));
            }
            None => self.say(format!("s{number}: DENY")),
        }
    }

    pub(crate) fn pass(&mut self, span: Span) {
        self.clocks.values_mut().for_each(|clock| clock.pass(span));
    }

    /// Every party that is not paused looks at its clock.
    pub(crate) fn wake(&mut self, paused: &[Party]) {
        for number in self.sidecars.keys().copied().collect::<Vec<_>>() {
            if !paused.contains(&Party::Sidecar(number)) {
                self.step_sidecar(number, holder::Input::TimePassed);
            }
        }
        for number in self.replicas.keys().copied().collect::<Vec<_>>() {
            if !paused.contains(&Party::Replica(number)) {
                self.step_replica(number, grantor::Input::TimePassed);
            }
        }
        if !paused.contains(&Party::Confirmer) {
            self.step_witness(confirmer::Input::TimePassed);
        }
    }

    // Messages.

    pub(crate) fn post(&mut self, from: Party, to: Party, body: Body) {
        let line = format!("{from} -> {to}  {}", self.describe(&body));
        self.say(line);
        self.messages.push(Message { from, to, body, under_way: true });
    }

    pub(crate) fn deliver(&mut self, at: usize) {
        self.messages[at].under_way = false;
        let (to, body) = (self.messages[at].to, self.messages[at].body.clone());
        self.deliver_to(to, &body);
    }

    pub(crate) fn deliver_to(&mut self, to: Party, body: &Body) {
        match (to, body.clone()) {
            (Party::Store, Body::Ask(run, ask)) => self.ask(run, &ask),
            (Party::Replica(number), Body::Told(run, Told::Grantor(input))) if self.runs(to, run) => {
                self.step_replica(number, input);
            }
            (Party::Confirmer, Body::Told(run, Told::Confirmer(input))) if self.runs(to, run) => {
                self.step_witness(input);
            }
            (
                _,
                Body::Up(stream, _)
                | Body::Down(stream, _)
                | Body::Snapshot(stream, ..)
                | Body::Closed(stream),
            ) => {
                self.on_stream(to, stream, body.clone());
            }
            _ => (),
        }
    }

    pub(crate) fn lives(&self, party: Party) -> bool {
        match party {
            Party::Sidecar(number) => self.sidecars.contains_key(&number),
            Party::Replica(number) => self.replicas.contains_key(&number),
            Party::Confirmer => self.witness.is_some(),
            Party::Caller | Party::Store => true,
        }
    }

    fn runs(&self, party: Party, run: Incarnation) -> bool {
        match party {
            Party::Sidecar(number) => self.sidecars.get(&number).is_some_and(|s| s.incarnation == run),
            Party::Replica(number) => self.replicas.get(&number).is_some_and(|r| r.incarnation == run),
            Party::Confirmer => self.witness.as_ref().is_some_and(|w| w.incarnation == run),
            Party::Caller | Party::Store => false,
        }
    }

    /// A stream ends with either run that it connects.
    fn on_stream(&mut self, to: Party, stream: Stream, body: Body) {
        let Some(ends) = self.streams.get(&stream).copied() else { return };
        match to {
            Party::Sidecar(number) if ends.sidecar.0 == number && self.runs(to, ends.sidecar.1) => match body
            {
                Body::Down(_, ToSidecar::Welcome { start: Start::Continue, .. }) if !self.prove(number) => {
                    self.say(format!("{to}: its copy is not what it says"));
                    self.step_sidecar(number, holder::Input::Doubted { cause: Cause::Digest });
                }
                Body::Down(_, message) => {
                    self.step_sidecar(number, holder::Input::Received { stream, message })
                }
                Body::Closed(_) => {
                    self.sidecars
                        .entry(number)
                        .and_modify(|sidecar| sidecar.open.retain(|open| *open != stream));
                    self.step_sidecar(number, holder::Input::Disconnected { stream });
                }
                Body::Snapshot(_, place, table) => {
                    let digest = digest(&table);
                    let Some(sidecar) = self.sidecars.get_mut(&number) else { return };
                    if sidecar.loading.take_if(|loading| *loading == stream).is_none() {
                        return;
                    }
                    (sidecar.table, sidecar.epoch) = (table, place.epoch);
                    self.step_sidecar(number, holder::Input::SnapshotLoaded { stream, place, digest });
                }
                _ => (),
            },
            Party::Replica(number) if ends.replica.0 == number && self.runs(to, ends.replica.1) => match body
            {
                // As an authority's session does: a place under a wrong seal is none.
                Body::Up(_, ToAuthority::Hello { incarnation, place: Some(_), semantics })
                    if self.unsealed.contains(&stream) =>
                {
                    self.say(format!("{to}: the seal is wrong"));
                    let message = ToAuthority::Hello { incarnation, place: None, semantics };
                    self.step_replica(number, grantor::Input::Received { stream, message });
                }
                Body::Up(_, message) => {
                    self.step_replica(number, grantor::Input::Received { stream, message })
                }
                Body::Closed(_) => {
                    self.replicas
                        .entry(number)
                        .and_modify(|replica| replica.fed.retain(|fed, _| *fed != stream));
                    self.step_replica(number, grantor::Input::Disconnected { stream });
                }
                _ => (),
            },
            _ => (),
        }
    }

    fn ask(&mut self, run: Incarnation, ask: &Ask) {
        let told = self.store.ask(run, ask);
        let replica =
            self.replicas.iter().find(|(_, replica)| replica.incarnation == run).map(|(number, _)| *number);
        let to = replica.map_or(Party::Confirmer, Party::Replica);
        self.post(Party::Store, to, Body::Told(run, told));
    }
}
