//! The confirmer: when a revision is EFFECTIVE, and which rows and epochs stand in the way (R8, R8b, R9).
//!
//! Every replica that may have granted anything has an open row in the store. Revision r is effective when each
//! of them says that nobody relies on an older state, and the ledger still has r as it was committed. A row leaves
//! the minimum only by being closed: by its own replica, or by a reap, after the row stood still for longer than
//! any lease of its replica can last. An epoch that is new to this process waits as long, once, before anything is
//! confirmed in it: replicas of the epoch before may have granted until then.
//!
//! A row stands still from the END of the read that first saw its last renewal. Counted from that read's start, a
//! renewal in between (the observer may be paused there) would outlast the wait. And it stands still only under
//! the eyes of an observer: one that could not read for a while begins to watch anew. Whatever kept it from reading
//! (the store was away, the process stopped) may have kept the replica from renewing, and whoever reads first after
//! it would reap all others, and itself.
//!
//! Invariants: I1 with the others; I9 within an epoch what is effective never falls. A wait is judged only by
//! reads that began after it was known, so after the commit.

pub mod io;

pub use io::{Input, Outcome, Output, Reading, Row, Ticket};

use super::terms::Terms;
use crate::chain::Chain;
use crate::words::{Epoch, Incarnation, Moment, Revision, Span};
use std::collections::BTreeMap;

/// Somebody waits for this revision.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    revision: Revision,
    chain: Chain,
    /// Was its chain asked for by the read under way?
    asked: bool,
}

/// A row as it was seen, and since when it has been like that.
#[derive(Debug, Clone, Copy)]
struct Sight {
    renew_seq: u64,
    since: Moment,
}

/// The writer's side of the confirmation, for one run of the process.
#[derive(Debug, Clone)]
pub struct Confirmer {
    terms: Terms,
    waiters_max: usize,
    waiters: BTreeMap<Ticket, Waiter>,
    rows: BTreeMap<Incarnation, Sight>,
    /// R9: the epoch, and since when this process has known it.
    epoch: Option<(Epoch, Moment)>,
    settled: bool,
    effective: Option<(Epoch, Revision)>,
    reading: bool,
    read_last: Option<Moment>,
    /// The end of the last read that succeeded.
    seen_last: Option<Moment>,
    /// Something happened that the read under way may have missed.
    again: bool,
    /// Reaps and settles under way, and when the last one was tried: one that fails is not tried in a circle.
    trying: usize,
    tried_last: Option<Moment>,
}

impl Confirmer {
    /// A confirmer under which at most so many wait at once. Its first step starts the first read.
    pub fn new(terms: Terms, waiters: usize) -> Confirmer {
        Confirmer {
            terms,
            waiters_max: waiters,
            waiters: BTreeMap::new(),
            rows: BTreeMap::new(),
            epoch: None,
            settled: false,
            effective: None,
            reading: false,
            read_last: None,
            seen_last: None,
            again: false,
            trying: 0,
            tried_last: None,
        }
    }

    /// One step. It never fails and never waits.
    pub fn step(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Await { ticket, revision, chain } => self.wait(ticket, revision, chain, out),
            Input::Forget { ticket } => {
                self.waiters.remove(&ticket);
            }
            Input::Woken => self.again |= !self.waiters.is_empty(),
            Input::Read(reading) => self.read(now, &reading, out),
            Input::ReadFailed => {
                self.reading = false;
                self.read_last = Some(now);
            }
            Input::Tried => {
                self.trying = self.trying.saturating_sub(1);
                self.tried_last = Some(now);
                // R8b: effective_rev is read again after that commit.
                self.again = true;
            }
            Input::TimePassed => (),
        }
        let due = self.read_last.is_none_or(|last| now.longest_since(last) >= self.read_every());
        if !self.reading && (self.again || due) {
            self.begin_read(out);
        }
    }

    /// A hint when to call [`Confirmer::step`] with [`Input::TimePassed`]; safety never rests on it.
    pub fn wake_at(&self) -> Option<Moment> {
        self.read_last.filter(|_| !self.reading).map(|last| last.after(self.read_every()))
    }

    /// The last revision that was effective, and in which epoch: the one of the last reading, and settled. Of an
    /// epoch that is over nothing more is said.
    pub fn effective(&self) -> Option<(Epoch, Revision)> {
        let epoch = self.epoch.filter(|_| self.settled).map(|(epoch, _)| epoch);
        self.effective.filter(|(known, _)| Some(*known) == epoch)
    }

    /// While nobody waits, rows are watched only so that a dead replica is noticed before somebody does.
    fn read_every(&self) -> Span {
        if self.waiters.is_empty() { self.terms.renew_every() } else { self.terms.poll() }
    }

    /// Without a reading for so long, two chances to renew, a row that did not change says nothing of its replica.
    fn blind_after(&self) -> Span {
        self.terms.renew_every().plus(self.terms.renew_every())
    }

    fn wait(&mut self, ticket: Ticket, revision: Revision, chain: Chain, out: &mut Vec<Output>) {
        if self.waiters.len() >= self.waiters_max {
            out.push(Output::Answer { ticket, outcome: Outcome::Overloaded });
            return;
        }
        self.waiters.insert(ticket, Waiter { revision, chain, asked: false });
        self.again = true;
    }

    fn begin_read(&mut self, out: &mut Vec<Output>) {
        self.reading = true;
        self.again = false;
        let waiters = self.waiters.values_mut();
        let mut revisions: Vec<Revision> = waiters
            .map(|waiter| {
                waiter.asked = true;
                waiter.revision
            })
            .collect();
        revisions.sort_unstable();
        revisions.dedup();
        out.push(Output::Read { revisions });
    }

    fn read(&mut self, now: Moment, reading: &Reading, out: &mut Vec<Output>) {
        self.reading = false;
        self.read_last = Some(now);
        self.see(now, reading);
        self.reap_and_settle(now, reading, out);
        self.tell_lost(reading, out);
        if self.settled {
            self.confirm(reading, out);
        }
    }

    fn see(&mut self, now: Moment, reading: &Reading) {
        let epoch = reading.head.epoch;
        if self.epoch.is_none_or(|(known, _)| known != epoch) {
            self.epoch = Some((epoch, now));
        }
        self.settled = reading.settled == Some(epoch);
        let mut seen = std::mem::take(&mut self.rows);
        if self.seen_last.replace(now).is_some_and(|last| now.longest_since(last) > self.blind_after()) {
            seen.clear();
        }
        for row in &reading.open_rows {
            let same = seen.get(&row.incarnation).filter(|sight| sight.renew_seq == row.renew_seq);
            let sight = same.copied().unwrap_or(Sight { renew_seq: row.renew_seq, since: now });
            self.rows.insert(row.incarnation, sight);
        }
    }

    /// R8b, R9: what has stood still for longer than a lease of a replica lasts.
    fn reap_and_settle(&mut self, now: Moment, reading: &Reading, out: &mut Vec<Output>) {
        let soon = self.tried_last.is_some_and(|last| now.longest_since(last) < self.terms.poll());
        if self.trying > 0 || soon {
            return;
        }
        let wait = self.terms.replica_wait();
        let over = |since: Moment| now.shortest_since(since) >= wait;
        for (incarnation, sight) in self.rows.iter().filter(|(_, sight)| over(sight.since)) {
            self.trying += 1;
            out.push(Output::Reap { incarnation: *incarnation, renew_seq: sight.renew_seq });
        }
        if !self.settled && self.epoch.is_some_and(|(_, since)| over(since)) {
            self.trying += 1;
            out.push(Output::Settle { epoch: reading.head.epoch });
        }
    }

    /// R8: the ledger's chain at r is not the one that r's commit returned, and never will be again.
    fn tell_lost(&mut self, reading: &Reading, out: &mut Vec<Output>) {
        self.waiters.retain(|ticket, waiter| {
            let lost = waiter.asked
                && chain_at(reading, waiter.revision).is_some_and(|own| own != Some(waiter.chain));
            if lost {
                out.push(Output::Answer { ticket: *ticket, outcome: Outcome::Lost });
            }
            !lost
        });
    }

    /// R8: the minimum over the open rows; only `closed` takes a row out of it.
    fn confirm(&mut self, reading: &Reading, out: &mut Vec<Output>) {
        let drained = reading.open_rows.iter().map(|row| row.drained_rev.max(row.reg_rev));
        let effective = drained.min().unwrap_or(reading.head.revision);
        let before = self.effective.filter(|(epoch, _)| *epoch == reading.head.epoch);
        if let Some((_, from)) = before.filter(|(_, from)| *from > effective) {
            out.push(Output::EffectiveFell { from, to: effective });
            return;
        }
        self.effective = Some((reading.head.epoch, effective));
        self.waiters.retain(|ticket, waiter| {
            let same = chain_at(reading, waiter.revision) == Some(Some(waiter.chain));
            let done = waiter.asked && same && waiter.revision <= effective;
            if done {
                out.push(Output::Answer { ticket: *ticket, outcome: Outcome::Effective });
            }
            !done
        });
    }
}

/// What the reading says of the chain at `revision`; `None`: it was not asked.
fn chain_at(reading: &Reading, revision: Revision) -> Option<Option<Chain>> {
    let at = reading.chains.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
    Some(reading.chains[at].1)
}
