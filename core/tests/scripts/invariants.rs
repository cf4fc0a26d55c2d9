//! What must hold after every step, whatever the script did.
//!
//! I1 is checked in a stricter form than the promise: any answer, not only an ALLOW, that a serving thread could
//! have begun at any step counts, with the table of that step, for as long as its caller may use it.

use super::history::Events;
use super::parties::{Answer, Party, Sidecar};
use super::world::World;
use consent_core::confirm::{grantor, holder};
use consent_core::words::Span;

impl World {
    /// Every serving thread that may answer now, does; then all is checked.
    pub(crate) fn check(&mut self) {
        self.answer();
        let broken = self.older_answer().or_else(|| self.wrong_table()).or_else(|| self.wrong_way());
        let broken = broken.or_else(|| self.reaped_alive()).or_else(|| self.effective_fell());
        let broken = broken.or_else(|| self.spins());
        if self.violation.is_none() {
            self.violation = broken;
        }
    }

    fn answer(&mut self) {
        let caller = self.now(Party::Caller);
        for (number, sidecar) in &self.sidecars {
            let now = self.clocks[&Party::Sidecar(*number)].now;
            if let Some(validity) = sidecar.lease.and_then(|lease| lease.at(now)) {
                let seen = sidecar.table.clone();
                self.answers.push(Answer::Near { sidecar: *number, validity, seen });
            }
        }
        for (number, replica) in &self.replicas {
            let now = self.clocks[&Party::Replica(*number)].now;
            if let Some(validity) = replica.lease.and_then(|lease| lease.at(now)) {
                let (valid_for, seen) = (validity.valid_for(), self.store.ledger.clone());
                self.answers.push(Answer::Far { sent: caller, valid_for, seen });
            }
        }
        let clocks = &self.clocks;
        self.answers.retain(|answer| match answer {
            Answer::Near { sidecar, validity, .. } => validity.holds(clocks[&Party::Sidecar(*sidecar)].now),
            Answer::Far { sent, valid_for, .. } => caller.longest_since(*sent) < *valid_for,
        });
    }

    /// An event that a failover lost binds nobody after it.
    fn older_answer(&self) -> Option<String> {
        let binding = self.confirmed.iter().filter(|events| self.store.ledger.starts_with(events));
        let newest: &Events = binding.max_by_key(|events| events.len())?;
        self.answers.iter().find_map(|answer| {
            let (who, seen) = match answer {
                Answer::Near { sidecar, seen, .. } => (format!("s{sidecar}"), seen),
                Answer::Far { seen, .. } => ("a replica".into(), seen),
            };
            let missing = newest.iter().find(|event| !seen.contains(event))?;
            Some(format!("I1: {missing} is EFFECTIVE, and an answer of {who} from before it is valid"))
        })
    }

    fn wrong_table(&self) -> Option<String> {
        self.sidecars.iter().find_map(|(number, sidecar)| {
            let now = self.clocks[&Party::Sidecar(*number)].now;
            sidecar.lease.and_then(|lease| lease.at(now))?;
            let place = sidecar.holder.place()?;
            let right = self.tree.events(&place.chain) == &sidecar.table[..];
            (!right).then(|| format!("I4: s{number} has a lease over another table than it says"))
        })
    }

    fn wrong_way(&mut self) -> Option<String> {
        let mut broken = None;
        for (number, sidecar) in &mut self.sidecars {
            // What its copy says is not where it was.
            let unseen = sidecar.unproven.is_some();
            let Some(place) = sidecar.holder.place().filter(|_| !unseen) else { continue };
            let events = self.tree.events(&place.chain).to_vec();
            let now = self.clocks[&Party::Sidecar(*number)].now;
            let leased = sidecar.lease.is_some_and(|lease| lease.at(now).is_some());
            let settled = self.store.knows_itself() && !self.restored;
            if leased && settled && place.epoch == self.store.epoch && !self.store.ledger.starts_with(&events)
            {
                broken = Some(format!("I5: s{number} has a lease off the chain of its epoch"));
            }
            let before = sidecar.been.insert(*place.epoch.bytes(), events.clone());
            if before.is_some_and(|before| !events.starts_with(&before)) {
                broken = Some(format!("I5: s{number} fell, or changed its way, within an epoch"));
            }
        }
        broken
    }

    fn reaped_alive(&self) -> Option<String> {
        self.replicas.iter().find_map(|(number, replica)| {
            let now = self.clocks[&Party::Replica(*number)].now;
            replica.lease.and_then(|lease| lease.at(now))?;
            let row = self.store.rows.get(&replica.incarnation)?;
            (row.closed && row.reaped).then(|| format!("I3: r{number} was reaped while its lease is valid"))
        })
    }

    /// I7: who is not what everybody must be once nothing is in the way, or what is still waited for.
    pub(crate) fn stuck(&self) -> Option<String> {
        let denying = |(number, sidecar): (&u8, &Sidecar)| {
            let state = sidecar.holder.state();
            (state != holder::State::Live).then(|| format!("s{number} is {state:?}"))
        };
        let waited = || self.awaited.first().map(|ticket| self.at(&self.commits[ticket.0 as usize]));
        let denying = self.sidecars.iter().find_map(denying);
        denying.or_else(|| waited().map(|what| format!("{what} is neither EFFECTIVE nor LOST")))
    }

    /// Who has looked at the clock has done what it says, and the second look what the first one ordered. A machine
    /// that wants to be woken at once even then keeps its driver from anything else.
    fn spins(&self) -> Option<String> {
        let sidecars = self.sidecars.iter().map(|(number, sidecar)| {
            let (me, mut holder) = (Party::Sidecar(*number), sidecar.holder.clone());
            let now = self.clocks[&me].now;
            (0..2).for_each(|_| holder.step(now, holder::Input::TimePassed, &mut Vec::new()));
            (me, holder.wake_at())
        });
        let replicas = self.replicas.iter().map(|(number, replica)| {
            let (me, mut grantor) = (Party::Replica(*number), replica.grantor.clone());
            let now = self.clocks[&me].now;
            (0..2).for_each(|_| grantor.step(now, grantor::Input::TimePassed, &mut Vec::new()));
            (me, grantor.wake_at())
        });
        sidecars.chain(replicas).find_map(|(me, wake_at)| {
            let left = wake_at?.longest_since(self.clocks[&me].now);
            (left == Span::ZERO).then(|| format!("{me} would be woken for nothing, again and again"))
        })
    }

    fn effective_fell(&mut self) -> Option<String> {
        let effective = self.store.effective()?.get();
        let told = self.witness.as_ref().and_then(|witness| witness.confirmer.effective());
        if let Some((epoch, revision)) = told.filter(|(epoch, _)| *epoch == self.store.epoch) {
            let before = self.told.filter(|(known, _)| *known == epoch).map_or(0, |(_, revision)| revision);
            self.told = Some((epoch, before.max(revision.get())));
        }
        let (_, told) = self.told.filter(|(epoch, _)| *epoch == self.store.epoch)?;
        (effective < told).then(|| format!("I9: effective_rev is {effective} after {told}"))
    }
}
