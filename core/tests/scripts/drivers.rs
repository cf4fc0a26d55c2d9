//! The drivers of a script's machines: each reads its party's clocks, steps the machine, and performs the outputs in
//! their order before the next input, as a real one does.

use super::history::{Ask, chain, link, place};
use super::parties::{Body, Party};
use super::world::World;
use consent_core::confirm::confirmer::{self, Outcome, Ticket};
use consent_core::confirm::grantor;
use consent_core::confirm::holder::{self, State};
use consent_core::confirm::{Frame, ToSidecar};
use consent_core::words::Span;

impl World {
    pub(crate) fn step_sidecar(&mut self, number: u8, input: holder::Input) {
        let me = Party::Sidecar(number);
        let now = self.now(me);
        let Some(sidecar) = self.sidecars.get_mut(&number) else { return };
        let mut out = Vec::new();
        sidecar.holder.step(now, input, &mut out);
        self.count(match input {
            holder::Input::ClockDisrupted => "clock disrupted",
            _ => "sidecar step",
        });
        for output in out {
            self.perform_sidecar(number, me, output);
        }
    }

    fn perform_sidecar(&mut self, number: u8, me: Party, output: holder::Output) {
        use holder::Output;
        let Some(sidecar) = self.sidecars.get_mut(&number) else { return };
        match output {
            Output::Send { stream, message } => {
                let Some(ends) = self.streams.get(&stream) else { return };
                if sidecar.unproven.as_ref().is_some_and(|copy| !copy.sealed) {
                    self.unsealed.insert(stream);
                }
                self.post(me, Party::Replica(ends.replica.0), Body::Up(stream, message));
            }
            Output::Apply { frame, .. } => {
                sidecar.to_apply.push(frame);
                if !sidecar.slow {
                    self.apply(number);
                }
            }
            Output::TakeSnapshot { stream, .. } => {
                sidecar.table.clear();
                (sidecar.unproven, sidecar.loading) = (None, Some(stream));
            }
            Output::DropTable => {
                sidecar.table.clear();
                sidecar.unproven = None;
                sidecar.to_apply.clear();
                self.say(format!("{me}: drops its table"));
            }
            Output::EnterEpoch(epoch) => {
                sidecar.epoch = epoch;
                self.say(format!("{me}: goes on in another epoch"));
            }
            Output::Publish(lease) => {
                sidecar.lease = lease;
                let now = self.now(me);
                let left = lease.map_or(Span::ZERO, |lease| lease.left(now));
                self.say(format!("{me}: lease of {} ms", left.millis()));
            }
            Output::Changed { from, to } => {
                self.count(match to {
                    State::Live => "live",
                    State::Lapsed => "lapsed",
                    State::Resync => "resync",
                    State::Cold | State::Syncing => "syncing",
                });
                let line = format!("{me}: {from:?} to {to:?}").to_uppercase();
                self.say(
                    line.replacen(&me.to_string().to_uppercase(), &me.to_string(), 1).replace(" TO ", " to "),
                );
            }
            Output::Resync(cause) => self.proclaim(format!("{me}: starts over: {cause:?}")),
            Output::Close { stream, .. } => {
                sidecar.open.retain(|open| *open != stream);
                sidecar.loading.take_if(|loading| *loading == stream);
                let Some(ends) = self.streams.get(&stream) else { return };
                self.post(me, Party::Replica(ends.replica.0), Body::Closed(stream));
            }
            Output::SeekAnother { leaving } => {
                sidecar.leaves = self.streams.get(&leaving).map(|ends| ends.replica.0);
                self.say(format!("{me}: looks for another replica"));
            }
            Output::Left => {
                self.proclaim(format!("{me}: left"));
                self.sidecars.remove(&number);
            }
        }
    }

    /// Applies what waits, and reports it visible.
    pub(crate) fn apply(&mut self, number: u8) {
        let Some(sidecar) = self.sidecars.get_mut(&number) else { return };
        let frames: Vec<Frame> = sidecar.to_apply.drain(..).collect();
        for frame in frames {
            let event = *self.tree.events(&frame.chain).last().unwrap();
            let Some(sidecar) = self.sidecars.get_mut(&number) else { return };
            let (revision, digest) = sidecar.apply(&frame, event);
            self.say(format!("s{number}: {revision}{event} is visible"));
            self.step_sidecar(number, holder::Input::Applied { revision, digest });
        }
    }

    pub(crate) fn step_replica(&mut self, number: u8, input: grantor::Input) {
        let me = Party::Replica(number);
        let now = self.now(me);
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        if let grantor::Input::Registered { head } = input {
            replica.epoch = Some(head.epoch);
            replica.tail = self.tree.events(&head.chain).to_vec();
        }
        let mut out = Vec::new();
        replica.grantor.step(now, input, &mut out);
        for output in out {
            self.perform_replica(number, me, output);
        }
        self.feed(number);
    }

    fn perform_replica(&mut self, number: u8, me: Party, output: grantor::Output) {
        use grantor::Output;
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        let run = replica.incarnation;
        let ask = match output {
            Output::Send { stream, message } => {
                let Some(ends) = self.streams.get(&stream) else { return };
                return self.post(me, Party::Sidecar(ends.sidecar.0), Body::Down(stream, message));
            }
            Output::Feed { stream, after } => {
                let Some(ends) = self.streams.get(&stream) else { return };
                let from = after.map_or(replica.tail.len(), |after| after.get() as usize);
                replica.fed.insert(stream, from);
                if let (None, Some(epoch)) = (after, replica.epoch) {
                    let snapshot = Body::Snapshot(stream, place(epoch, &replica.tail), replica.tail.clone());
                    self.post(me, Party::Sidecar(ends.sidecar.0), snapshot);
                }
                return;
            }
            Output::Close { stream } => {
                replica.fed.remove(&stream);
                let Some(ends) = self.streams.get(&stream) else { return };
                return self.post(me, Party::Sidecar(ends.sidecar.0), Body::Closed(stream));
            }
            Output::Publish(lease) => {
                replica.lease = lease;
                return;
            }
            Output::TimeTravel { witness, place } => {
                self.count("time travel");
                let who = if witness == run { "it" } else { "a sidecar" };
                return self.proclaim(format!("{me}: TIME TRAVEL: {who} has seen {}", self.at(&place)));
            }
            Output::Fenced => {
                self.replicas.remove(&number);
                return self.proclaim(format!("{me}: is fenced"));
            }
            Output::Left => {
                self.replicas.remove(&number);
                return self.proclaim(format!("{me}: left"));
            }
            Output::Renew { started } => Ask::Renew { started },
            Output::LookUp { stream, revision } => Ask::LookUp { stream, revision },
            Output::ReportDrained { revision } => Ask::Report { drained: revision },
            Output::CloseRow => Ask::CloseRow,
        };
        self.post(me, Party::Store, Body::Ask(run, ask));
    }

    /// The tail brings the next revision, if the replica's epoch is still the store's.
    pub(crate) fn learn(&mut self, number: u8) {
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        let known = replica.tail.len();
        let mine = replica.epoch == Some(self.store.epoch) && self.store.knows_itself();
        if mine && let Some(event) = self.store.ledger.get(known) {
            replica.tail.push(*event);
            let place = place(self.store.epoch, &replica.tail);
            let line = format!("r{number}: learns {}{event}", place.revision);
            self.say(line);
            self.step_replica(number, grantor::Input::Learned { place });
        }
    }

    fn feed(&mut self, number: u8) {
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        let Some(epoch) = replica.epoch else { return };
        let mut frames = Vec::new();
        for (stream, upto) in &mut replica.fed {
            for at in *upto..replica.tail.len() {
                let (events, event) = (&replica.tail[..=at], replica.tail[at]);
                let place = place(epoch, events);
                let frame = Frame {
                    epoch,
                    revision: place.revision,
                    link: link(event),
                    chain: chain(events),
                    digest: place.digest,
                };
                frames.push((*stream, frame));
            }
            *upto = replica.tail.len().max(*upto);
        }
        for (stream, frame) in frames {
            let Some(ends) = self.streams.get(&stream) else { continue };
            let body = Body::Down(stream, ToSidecar::Frame(frame));
            self.post(Party::Replica(number), Party::Sidecar(ends.sidecar.0), body);
        }
    }

    pub(crate) fn step_witness(&mut self, input: confirmer::Input) {
        let now = self.now(Party::Confirmer);
        let Some(witness) = self.witness.as_mut() else { return };
        let run = witness.incarnation;
        let mut out = Vec::new();
        witness.confirmer.step(now, input, &mut out);
        for output in out {
            let ask = match output {
                confirmer::Output::Read { revisions } => Ask::Read { revisions },
                confirmer::Output::Reap { incarnation, renew_seq } => Ask::Reap { incarnation, renew_seq },
                confirmer::Output::Settle { epoch } => Ask::Settle { epoch },
                confirmer::Output::Answer { ticket, outcome } => {
                    self.answered(ticket, outcome);
                    continue;
                }
                confirmer::Output::EffectiveFell { from, to } => {
                    self.violation = Some(format!("I9: a reading said {to} after {from}"));
                    continue;
                }
            };
            self.post(Party::Confirmer, Party::Store, Body::Ask(run, ask));
        }
    }

    fn answered(&mut self, ticket: Ticket, outcome: Outcome) {
        let commit = self.commits[ticket.0 as usize];
        self.awaited.remove(&ticket);
        let what = self.at(&commit);
        self.count(match outcome {
            Outcome::Effective => "effective",
            Outcome::Lost => "lost",
            Outcome::Overloaded => "overloaded",
        });
        let line = format!("w: {what} is {outcome:?}");
        self.proclaim(line.replace("Effective", "EFFECTIVE").replace("Lost", "LOST"));
        if outcome == Outcome::Effective {
            let events = self.tree.events(&commit.chain).to_vec();
            if self.store.ledger.get(..events.len()) != Some(&events[..]) {
                self.violation = Some(format!("I1: {what} is confirmed and lost"));
            }
            self.confirmed.push(events);
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}
