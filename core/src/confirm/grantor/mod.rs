//! The grantor: what an authority replica has promised, and when nobody relies on it any more
//! (R2, R3, R5, R7, R7b, R12, R13; the lease of R10 for the replica's own answers).
//!
//! A replica promises on the strength of its own lease on the store, which it counts from before it asked for the
//! renewal (R3), and promises nothing that could outlast it (R5). A promise is a pair (m, until): a sidecar may
//! answer from a table at or past m until then. Revision r is *drained* when no such pair with m < r is left that
//! is not acked, and the replica's own answers from before r are over (R7). The drained revision is what the
//! replica's row tells to whoever confirms.
//!
//! One owner reads `known_rev`, records the pair, raises `known_rev` and computes the drain: this machine. So a
//! grant can never carry an m that the drain has overtaken. It lives for one incarnation in one epoch: a replica
//! that is fenced, or finds another epoch, begins anew with a new one and keeps nothing.
//!
//! - [`io`]: inputs, outputs, limits.
//! - `known`: the ledger as this replica knows it.
//! - `session`: the promises to one run of a sidecar.
//! - `hello`: who is welcome, and with what.

mod hello;
pub mod io;
mod known;
mod session;

pub use io::{Input, Limits, Output};

use super::lease::{Lease, earlier, left};
use super::message::{Place, Stream, ToAuthority, ToSidecar, Unwelcome};
use super::terms::Terms;
use crate::words::{Incarnation, Moment, Nonce, Revision, Span};
use known::Known;
use session::Session;
use std::collections::BTreeMap;

/// R7b: a drained revision is reported within this time.
const REPORT_EVERY: Span = Span::from_millis(5);

/// How far the hello of a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    /// The primary is asked about its place.
    LookedUp(Place),
    /// Its place is on the ledger, but not yet in the tail.
    Waiting(Place),
    /// Welcomed.
    Served,
}

/// R12: the replica leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaving {
    ordered: Moment,
    /// Since when nobody answers by its lease: the first step after the driver has published that.
    since: Option<Moment>,
    /// Is the row being closed? And when was that last tried?
    closing: bool,
    tried: Option<Moment>,
}

/// R3: a renewal under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Renewal {
    /// t0.
    started: Moment,
    /// known_rev at t0: the ledger was that far, so a renewal that finds less has found another ledger.
    known: Revision,
}

/// A replica's side of the confirmation, for one incarnation.
#[derive(Debug, Clone)]
pub struct Grantor {
    incarnation: Incarnation,
    terms: Terms,
    limits: Limits,
    /// `None` until registered.
    known: Option<Known>,
    /// RL.
    until: Option<Moment>,
    renewing: Option<Renewal>,
    /// When the last renewal was begun.
    renewed_last: Option<Moment>,
    renewal_failed: bool,
    sessions: BTreeMap<Incarnation, Session>,
    guests: BTreeMap<Stream, (Incarnation, Guest)>,
    drained: Revision,
    reported: Revision,
    reporting: bool,
    report_failed: bool,
    looked: Option<Moment>,
    held: bool,
    hole_accepted: bool,
    leaving: Option<Leaving>,
    published: Option<Lease>,
    /// Fenced, or left: nothing happens any more.
    over: bool,
}

impl Grantor {
    /// A grantor for a new incarnation, whose row is about to be registered (R2).
    pub fn new(incarnation: Incarnation, terms: Terms, limits: Limits) -> Grantor {
        Grantor {
            incarnation,
            terms,
            limits,
            known: None,
            until: None,
            renewing: None,
            renewed_last: None,
            renewal_failed: false,
            sessions: BTreeMap::new(),
            guests: BTreeMap::new(),
            drained: Revision::ZERO,
            reported: Revision::ZERO,
            reporting: false,
            report_failed: false,
            looked: None,
            held: false,
            hole_accepted: false,
            leaving: None,
            published: None,
            over: false,
        }
    }

    /// One step. It never fails and never waits. `now` must be read after the outputs of the step before were
    /// performed: holds are counted from it.
    pub fn step(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        if self.over {
            return;
        }
        if let Some(Leaving { since: since @ None, .. }) = &mut self.leaving {
            *since = Some(now);
        }
        match input {
            Input::Registered { head } => self.registered(head),
            Input::Renewed { started, head } => self.renewed(now, started, head, out),
            Input::RenewalFailed { started } => {
                self.renewal_failed |= self.renewing.take_if(|renewal| renewal.started == started).is_some();
            }
            Input::Fenced => self.fenced(out),
            Input::Learned { place } => self.learned(now, place, out),
            Input::Received { stream, message } => self.received(now, stream, message, out),
            Input::Found { stream, head, chain } => self.found(stream, head, chain, out),
            Input::NotFound { stream } => {
                if let Some((_, Guest::LookedUp(_))) = self.guests.get(&stream) {
                    self.turn_away(stream, self.busy(), out);
                }
            }
            Input::Disconnected { stream } => self.disconnected(stream),
            Input::DrainReported { revision } => {
                self.reported = self.reported.max(revision);
                (self.reporting, self.report_failed) = (false, false);
            }
            Input::ReportFailed => (self.reporting, self.report_failed) = (false, true),
            Input::Hold => self.held = true,
            Input::HoleAccepted => (self.held, self.hole_accepted) = (false, true),
            Input::Leave => self.leave(now, out),
            Input::RowClosed => {
                self.over = true;
                out.push(Output::Left);
            }
            Input::CloseFailed => {
                if let Some(leaving) = &mut self.leaving {
                    (leaving.closing, leaving.tried) = (false, Some(now));
                }
            }
            Input::TimePassed => (),
        }
        if !self.over {
            self.follow_up(now, out);
        }
    }

    /// A hint when to call [`Grantor::step`] with [`Input::TimePassed`]; safety never rests on it.
    pub fn wake_at(&self) -> Option<Moment> {
        let known = self.known.as_ref().filter(|_| !self.over)?;
        let mut at = self.published.map(|lease| lease.until);
        if self.renewing.is_none() {
            at = earlier(at, self.renewed_last.map(|last| last.after(self.renew_after())));
        }
        if known.head().revision > self.reported && !self.reporting {
            at = earlier(at, self.looked.map(|looked| looked.after(self.report_after())));
        }
        if let Some(leaving) = self.leaving.filter(|leaving| !leaving.closing) {
            let own = leaving.since.map_or(leaving.ordered, |since| since.after(self.terms.own_hold()));
            let again = leaving.tried.map(|tried| tried.after(self.terms.poll()));
            let pairs = self.sessions.values().filter_map(Session::over_at).max_by_key(|until| until.boot);
            let last = [Some(own), again, pairs].into_iter().flatten().max_by_key(|moment| moment.boot);
            at = earlier(at, last);
        }
        at
    }

    /// R10: the lease of the replica's own answers, if one is valid now.
    pub fn lease(&self, now: Moment) -> Option<Lease> {
        let epoch = self.known.as_ref().filter(|_| self.may_promise())?.epoch();
        let until = self.until.filter(|until| left(*until, now) > Span::ZERO)?;
        Some(Lease { epoch, until, hold: self.terms.hold() })
    }

    /// Up to where nobody relies on what this replica promised or answered.
    pub fn drained(&self) -> Revision {
        self.drained
    }

    /// How many runs of sidecars it knows: those with a stream, and those that it has promised something.
    pub fn sidecars(&self) -> usize {
        self.sessions.len()
    }

    /// R13: is the ledger under HOLD, as far as this replica knows?
    pub fn is_held(&self) -> bool {
        self.held
    }

    fn may_promise(&self) -> bool {
        !self.over && !self.held && self.leaving.is_none()
    }

    /// R2: from here on the row counts for every revision after `reg_rev`. What it says of the drain is nothing yet,
    /// so that is reported, whatever was recorded while it was registered.
    fn registered(&mut self, head: Place) {
        if self.known.is_none() {
            self.known = Some(Known::registered(head));
            self.drained = head.revision;
        }
    }

    /// R3: the lease counts from before the renewal was asked for.
    fn renewed(&mut self, now: Moment, started: Moment, head: Place, out: &mut Vec<Output>) {
        let Some(renewal) = self.renewing.take_if(|renewal| renewal.started == started) else { return };
        self.renewal_failed = false;
        let Some(known) = self.known.as_mut() else { return };
        if known.epoch() != head.epoch {
            return self.fenced(out);
        }
        let other = head.revision < renewal.known || known.contradicts(&head);
        known.raise(now, head);
        self.until = Some(started.after(self.terms.replica_lease()));
        if other {
            self.time_travel(out);
        }
    }

    fn learned(&mut self, now: Moment, place: Place, out: &mut Vec<Output>) {
        let Some(known) = self.known.as_mut() else { return };
        if known.epoch() != place.epoch {
            return self.fenced(out);
        }
        if known.contradicts(&place) {
            return self.time_travel(out);
        }
        known.learn(now, place);
        self.welcome_whom_the_tail_reached(out);
    }

    /// R13: within one epoch the ledger has fallen behind what this replica knows, or stands beside it.
    fn time_travel(&mut self, out: &mut Vec<Output>) {
        if let Some(known) = self.known.as_ref().filter(|_| !std::mem::replace(&mut self.held, true)) {
            out.push(Output::TimeTravel { witness: self.incarnation, place: known.head() });
        }
    }

    fn received(&mut self, now: Moment, stream: Stream, message: ToAuthority, out: &mut Vec<Output>) {
        if let ToAuthority::Hello { incarnation, place, semantics: _ } = message {
            return self.hello(now, stream, incarnation, place, out);
        }
        let Some(&(sidecar, Guest::Served)) = self.guests.get(&stream) else { return };
        match message {
            ToAuthority::Hello { .. } => (),
            ToAuthority::KeepAlive { nonce } => self.grant(now, stream, sidecar, nonce, out),
            ToAuthority::Ack { revision, chain } => {
                if let Some((session, known)) = self.sessions.get_mut(&sidecar).zip(self.known.as_ref()) {
                    session.ack(known, revision, chain);
                }
            }
            ToAuthority::Relinquish { last } => {
                if let Some(session) = self.sessions.get_mut(&sidecar) {
                    session.relinquish(last);
                }
            }
        }
    }

    /// R5: only what fits into the own lease, and recorded before it is sent.
    fn grant(
        &mut self,
        now: Moment,
        stream: Stream,
        sidecar: Incarnation,
        nonce: Nonce,
        out: &mut Vec<Output>,
    ) {
        let promise = self.terms.promise();
        let fits = self.until.is_some_and(|until| left(until, now) >= promise);
        if !fits || !self.may_promise() {
            return;
        }
        let Some((session, known)) = self.sessions.get_mut(&sidecar).zip(self.known.as_ref()) else { return };
        let place = known.head();
        if session.promise(now, place.revision, now.after(promise), nonce) {
            out.push(Output::Send { stream, message: ToSidecar::Grant { nonce, place } });
        }
    }

    /// R12: no grant and no answer from here on; every sidecar is told to find another replica.
    fn leave(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.known.is_none() {
            self.over = true;
            out.push(Output::Left);
        } else if self.leaving.is_none() {
            self.leaving = Some(Leaving { ordered: now, since: None, closing: false, tried: None });
            self.publish(now, out);
            let guests: Vec<(Stream, Guest)> =
                self.guests.iter().map(|(stream, (_, guest))| (*stream, *guest)).collect();
            for (stream, guest) in guests {
                match guest {
                    Guest::Served => out.push(Output::Send { stream, message: ToSidecar::Draining }),
                    Guest::LookedUp(_) | Guest::Waiting(_) => self.turn_away(stream, Unwelcome::Leaving, out),
                }
            }
        }
    }

    /// R3: nothing of this incarnation is worth anything any more.
    fn fenced(&mut self, out: &mut Vec<Output>) {
        self.over = true;
        if self.published.take().is_some() {
            out.push(Output::Publish(None));
        }
        for (stream, _) in std::mem::take(&mut self.guests) {
            out.push(Output::Close { stream });
        }
        out.push(Output::Fenced);
    }

    /// What time and earlier inputs have made due.
    fn follow_up(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.publish(now, out);
        self.renew(now, out);
        self.drain(now, out);
        self.close_row(now, out);
    }

    fn publish(&mut self, now: Moment, out: &mut Vec<Output>) {
        let lease = self.lease(now);
        if lease != self.published {
            self.published = lease;
            out.push(Output::Publish(lease));
        }
    }

    /// R3: t0 is this step's moment, before a connection is asked for.
    fn renew(&mut self, now: Moment, out: &mut Vec<Output>) {
        let due = self.renewed_last.is_none_or(|last| now.longest_since(last) >= self.renew_after());
        let Some(known) = self.known.as_ref().filter(|_| self.renewing.is_none() && due) else { return };
        self.renewing = Some(Renewal { started: now, known: known.head().revision });
        self.renewed_last = Some(now);
        out.push(Output::Renew { started: now });
    }

    fn renew_after(&self) -> Span {
        if self.renewal_failed { self.terms.poll() } else { self.terms.renew_every() }
    }

    fn report_after(&self) -> Span {
        if self.report_failed { self.terms.poll() } else { REPORT_EVERY }
    }

    /// R7, R7b. It looks through every session, so it looks no more often than it may report.
    fn drain(&mut self, now: Moment, out: &mut Vec<Output>) {
        let soon = self.looked.is_some_and(|looked| now.longest_since(looked) < self.report_after());
        let Some(known) = self.known.as_mut().filter(|_| !soon) else { return };
        if known.head().revision > self.drained {
            self.looked = Some(now);
            let own = known.settle(now, self.terms.own_hold());
            let sessions = self.sessions.values_mut();
            let drained = sessions.fold(own, |least, session| session.drained(now, known, least));
            self.drained = self.drained.max(drained);
            self.forget_sessions(now);
        }
        if self.drained > self.reported && !self.reporting {
            self.looked = Some(now);
            self.reporting = true;
            out.push(Output::ReportDrained { revision: self.drained });
        }
    }

    /// R12: the row counts until nobody relies on anything of it.
    fn close_row(&mut self, now: Moment, out: &mut Vec<Output>) {
        let (own_hold, poll) = (self.terms.own_hold(), self.terms.poll());
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| !leaving.closing) else { return };
        let answered = leaving.since.is_some_and(|since| now.shortest_since(since) >= own_hold);
        let again = leaving.tried.is_none_or(|tried| now.longest_since(tried) >= poll);
        if answered && again && self.sessions.values().all(|session| session.is_over(now)) {
            leaving.closing = true;
            out.push(Output::CloseRow);
        }
    }

    /// A session without a stream and without a live pair says nothing.
    fn forget_sessions(&mut self, now: Moment) {
        self.sessions.retain(|_, session| session.stream.is_some() || !session.is_over(now));
    }
}
