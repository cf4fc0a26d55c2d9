//! The holder: when a sidecar may answer ALLOW (R4, R6, R10, R12; the receiving side of R5 and R13).
//!
//! A sidecar may answer while the lease of any replica lasts. It asks for one with a keepalive and counts it from
//! when that was *sent*. A grant names the place m that its replica knew; it becomes a lease only once the table
//! has gone through m, by the same chain and with the same digest. In return the holder acks what it applied, but
//! only when every answer from before is over.
//!
//! ```text
//!              Welcome            grant reached            lease over
//!   COLD ──────────────▶ SYNCING ──────────────▶ LIVE ──────────────────▶ LAPSED
//!                           ▲                    │  ▲                       │
//!                           │ Welcome            │  └───────────────────────┘
//!                           │                    ▼        grant reached
//!                        RESYNC ◀──── gap, chain, digest, epoch, clocks, authority behind (from any state)
//! ```
//!
//! Nothing latches: a resync drops the leases, closes the streams and, where the table itself is in doubt, drops
//! it; the driver connects again, and the next hello finds a way back to LIVE.
//!
//! - [`io`]: inputs, outputs, states, causes.
//! - `table`: the places that the table went through, and what is ripe for an ack.
//! - `link`: one replica: keepalives, grants, lease.
//! - `hello`: the welcome, and what may follow it.

mod hello;
pub mod io;
mod link;
mod table;

pub use io::{Cause, Input, Output, State};

use super::lease::{Lease, earlier};
use super::message::{Place, Stream, ToAuthority, ToSidecar, Unwelcome};
use crate::words::{Incarnation, Moment, Nonce, Span};
use link::{Link, Stage};
use table::{Summits, Table};

/// So many streams at once, those counted that are closed while their lease lasts: the one in use, the one to move
/// to, and their predecessors. A further one takes the place of a closed one, whose lease ends, or is refused.
const LINKS: usize = 4;

/// The sidecar's side of the confirmation, for one run of the process.
#[derive(Debug, Clone)]
pub struct Holder {
    incarnation: Incarnation,
    semantics: u8,
    table: Option<Table>,
    summits: Summits,
    links: Vec<Link>,
    next_nonce: Nonce,
    /// H: the longest that any welcome announced, so that no answer given is forgotten when it becomes shorter.
    hold: Span,
    published: Option<Lease>,
    state: State,
    cause: Option<Cause>,
    /// Was there a lease since the table was loaded?
    was_live: bool,
    leaving: bool,
}

impl Holder {
    /// A holder for a run of a sidecar that reads heads up to this semantics version.
    pub fn new(incarnation: Incarnation, semantics: u8) -> Holder {
        Holder {
            incarnation,
            semantics,
            table: None,
            summits: Summits::default(),
            links: Vec::new(),
            next_nonce: Nonce(1),
            hold: Span::ZERO,
            published: None,
            state: State::Cold,
            cause: None,
            was_live: false,
            leaving: false,
        }
    }

    /// One step. It never fails and never waits. `now` must be read after the outputs of the step before were
    /// performed: holds are counted from it.
    pub fn step(&mut self, now: Moment, input: Input, out: &mut Vec<Output>) {
        self.start_holds(now);
        match input {
            Input::Loaded { place, digest } => self.loaded(now, place, digest, out),
            Input::Connected { stream } => self.connected(stream, out),
            Input::Received { stream, message } => self.received(now, stream, message, out),
            Input::SnapshotLoaded { stream, place, digest } => {
                self.snapshot_loaded(now, stream, place, digest, out);
            }
            Input::Applied { revision, digest } => {
                let applied = self.table.as_mut().map(|table| table.visible(now, revision, digest));
                if let Some(Err(cause)) = applied {
                    self.resync(cause, out);
                }
            }
            Input::Disconnected { stream } => self.disconnected(stream),
            Input::Doubted { cause } => self.resync(cause, out),
            Input::TimePassed => (),
            Input::ClockDisrupted => self.clock_disrupted(now, out),
            Input::Leave => self.leave(now, out),
        }
        self.follow_up(now, out);
    }

    /// A hint when to call [`Holder::step`] with [`Input::TimePassed`]; safety never rests on it.
    pub fn wake_at(&self) -> Option<Moment> {
        // No hold is known before the first welcome, and nothing ripens until then.
        let held = self.table.as_ref().filter(|_| self.hold > Span::ZERO);
        let mut at = held.and_then(|table| table.ripe_at(self.hold));
        let ripe = held.and_then(Table::ripe);
        for link in &self.links {
            let grants = link.grants.as_ref();
            let acks = grants.zip(ripe).filter(|_| link.carries_acks());
            at = earlier(at, acks.and_then(|(grants, ripe)| grants.ack_at(ripe.revision)));
            at = earlier(at, grants.and_then(|grants| grants.until()));
            at = earlier(
                at,
                match link.stage {
                    Stage::Following if !link.draining => grants.and_then(|grants| grants.ask_at()),
                    Stage::Dropped { ordered, since } => {
                        Some(since.map_or(ordered, |at| at.after(self.hold)))
                    }
                    Stage::Greeting { .. } | Stage::Loading | Stage::Following | Stage::Closed => None,
                },
            );
        }
        at
    }

    /// Where it stands, as of the last step.
    pub fn state(&self) -> State {
        self.state
    }

    /// What it last had to start over for; `None` once it is LIVE again.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// The lease, if one is valid now (R10).
    pub fn lease(&self, now: Moment) -> Option<Lease> {
        let epoch = self.table.as_ref()?.epoch();
        let leased = self.links.iter().filter_map(|link| link.grants.as_ref());
        let longest = leased.max_by_key(|grants| grants.left(now))?;
        (longest.left(now) > Span::ZERO).then_some(())?;
        longest.until().map(|until| Lease { epoch, until, hold: self.hold })
    }

    /// Would a table of this place be taken (R13)? One that would not must not be seen, not even for the moment until
    /// it is dropped: an answer under way may still have a lease in its hand that rests on more.
    pub fn takes(&self, place: &Place) -> bool {
        self.summits.allow(place)
    }

    /// Where the table stands.
    pub fn place(&self) -> Option<Place> {
        self.table.as_ref().and_then(Table::applied)
    }

    fn connected(&mut self, stream: Stream, out: &mut Vec<Output>) {
        if self.links.len() >= LINKS
            && let Some(oldest) = self.links.iter().position(|link| !link.is_open())
        {
            self.links.remove(oldest);
        }
        if self.leaving || self.links.len() >= LINKS {
            out.push(Output::Close { stream, retry_after: Span::ZERO });
            return;
        }
        // The place that the table will have, so that a new epoch covers applies under way, too.
        let place = self.table.as_ref().and_then(Table::ordered);
        self.links.push(Link::greeting(stream, place));
        let (incarnation, semantics) = (self.incarnation, self.semantics);
        out.push(Output::Send { stream, message: ToAuthority::Hello { incarnation, place, semantics } });
    }

    fn received(&mut self, now: Moment, stream: Stream, message: ToSidecar, out: &mut Vec<Output>) {
        let Some(at) = self.links.iter().position(|link| link.stream == stream && link.is_open()) else {
            return;
        };
        let following = self.links[at].stage == Stage::Following;
        match message {
            ToSidecar::Welcome { grantor, epoch, terms, start } => {
                self.welcomed(now, at, hello::Welcome { grantor, epoch, terms, start }, out);
            }
            ToSidecar::Unwelcome(Unwelcome::Held) => self.resync(Cause::AuthorityBehind, out),
            ToSidecar::Unwelcome(Unwelcome::Busy { retry_after }) => self.close(at, retry_after, out),
            ToSidecar::Unwelcome(Unwelcome::Leaving) => self.close(at, Span::ZERO, out),
            ToSidecar::Frame(frame) => {
                match self.table.as_mut().filter(|_| following).map(|t| t.order(&frame)) {
                    Some(Ok(true)) => out.push(Output::Apply { stream, frame }),
                    Some(Err(cause)) => self.resync(cause, out),
                    // Had before, or folded into the snapshot by the driver.
                    Some(Ok(false)) | None => (),
                }
            }
            ToSidecar::Grant { nonce, place } => {
                if self.table.as_ref().is_some_and(|table| following && table.epoch() != place.epoch) {
                    self.resync(Cause::Epoch, out);
                } else if let Some(grants) = self.links[at].grants.as_mut().filter(|_| following) {
                    grants.grant(nonce, place);
                }
            }
            ToSidecar::Draining => {
                if !std::mem::replace(&mut self.links[at].draining, true) {
                    out.push(Output::SeekAnother { leaving: stream });
                }
            }
        }
    }

    /// A closed stream ends no lease: its replica stands by it, too.
    fn disconnected(&mut self, stream: Stream) {
        for link in self.links.iter_mut().filter(|link| link.stream == stream) {
            link.stage = Stage::Closed;
            if let Some(grants) = link.grants.as_mut() {
                grants.forget_asked();
            }
        }
    }

    fn clock_disrupted(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.withdraw(out);
        if let Some(table) = self.table.as_mut() {
            table.distrust_clocks(now);
        }
        for link in &mut self.links {
            if let Stage::Dropped { since, .. } = &mut link.stage {
                *since = Some(now);
            }
        }
        self.start_over(Cause::Clock, out);
    }

    /// R12: every lease is dropped now; it is given back when the hold has passed.
    fn leave(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.leaving = true;
        self.links.retain_mut(|link| {
            drop_lease(link, now);
            let stays = matches!(link.stage, Stage::Dropped { .. });
            if !stays && link.is_open() {
                out.push(Output::Close { stream: link.stream, retry_after: Span::ZERO });
            }
            stays
        });
    }

    /// Drops every lease and every outstanding nonce, before anything else is done about a cause.
    fn withdraw(&mut self, out: &mut Vec<Output>) {
        self.links.iter_mut().filter_map(|link| link.grants.as_mut()).for_each(link::Grants::drop_lease);
        if self.published.take().is_some() {
            out.push(Output::Publish(None));
        }
    }

    fn start_over(&mut self, cause: Cause, out: &mut Vec<Output>) {
        self.cause = Some(cause);
        self.change(State::Resync, out);
        out.push(Output::Resync(cause));
    }

    /// Something did not fit: no lease, no stream and, where the table is in doubt, no table.
    fn resync(&mut self, cause: Cause, out: &mut Vec<Output>) {
        self.withdraw(out);
        self.start_over(cause, out);
        match cause {
            Cause::Digest | Cause::Foreign => self.drop_table(out),
            Cause::Gap
            | Cause::Chain
            | Cause::Epoch
            | Cause::AuthorityBehind
            | Cause::Clock
            | Cause::Overrun
            | Cause::Unreadable => (),
        }
        for link in self.links.drain(..).filter(Link::is_open) {
            out.push(Output::Close { stream: link.stream, retry_after: Span::ZERO });
        }
    }

    fn drop_table(&mut self, out: &mut Vec<Output>) {
        self.was_live = false;
        if self.table.take().is_some() {
            out.push(Output::DropTable);
        }
    }

    fn close(&mut self, at: usize, retry_after: Span, out: &mut Vec<Output>) {
        let stream = self.links.remove(at).stream;
        out.push(Output::Close { stream, retry_after });
    }

    /// R12: a lease counts as dropped from the first step after its end was published: only then does no serving
    /// thread use it any more, however long the driver was paused in between.
    fn start_holds(&mut self, now: Moment) {
        for link in &mut self.links {
            if let Stage::Dropped { since: since @ None, .. } = &mut link.stage {
                *since = Some(now);
            }
        }
    }

    /// What time and earlier inputs have made due, in the order of R6 and R12.
    fn follow_up(&mut self, now: Moment, out: &mut Vec<Output>) {
        if let Some(table) = self.table.as_mut() {
            // No hold is known before the first welcome.
            if self.hold > Span::ZERO {
                table.ripen(now, self.hold);
            }
            table.reached().into_iter().for_each(|place| self.summits.reach(place));
            let mut grants = self.links.iter_mut().filter_map(|link| link.grants.as_mut());
            if let Err(cause) = grants.try_for_each(|grants| grants.activate(now, table)) {
                self.resync(cause, out);
            }
        }
        self.links.retain(|link| link.is_open() || link.leased(now));
        self.move_on(now);
        self.publish(now, out);
        self.send(now, out);
        if self.leaving && self.links.is_empty() {
            out.push(Output::Left);
        }
    }

    /// R12: once another replica's lease is active, that of a leaving one is dropped.
    fn move_on(&mut self, now: Moment) {
        let staying = |link: &Link| link.stage == Stage::Following && !link.draining && link.leased(now);
        if self.links.iter().any(staying) {
            let moved = |link: &&mut Link| link.draining && link.stage == Stage::Following;
            self.links.iter_mut().filter(moved).for_each(|link| drop_lease(link, now));
        }
    }

    fn publish(&mut self, now: Moment, out: &mut Vec<Output>) {
        let lease = self.lease(now);
        if lease != self.published {
            self.published = lease;
            out.push(Output::Publish(lease));
        }
        if lease.is_some() {
            self.was_live = true;
            self.cause = None;
            self.change(State::Live, out);
        } else if self.state != State::Resync {
            let loading = self.links.iter().any(|link| link.stage == Stage::Loading);
            let waiting = if self.was_live { State::Lapsed } else { State::Syncing };
            self.change(if self.table.is_some() || loading { waiting } else { State::Cold }, out);
        }
    }

    fn change(&mut self, to: State, out: &mut Vec<Output>) {
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            out.push(Output::Changed { from, to });
        }
    }

    fn send(&mut self, now: Moment, out: &mut Vec<Output>) {
        let hold = self.hold;
        let ripe = self.table.as_ref().and_then(Table::ripe);
        let next_nonce = &mut self.next_nonce;
        self.links.retain_mut(|link| {
            let (stream, carries) = (link.stream, link.carries_acks());
            let Some(grants) = link.grants.as_mut() else { return true };
            if let Some(ripe) = ripe.filter(|ripe| carries && grants.must_ack(now, ripe.revision)) {
                grants.ack(now, ripe.revision);
                let message = ToAuthority::Ack { revision: ripe.revision, chain: ripe.chain };
                out.push(Output::Send { stream, message });
            }
            if link.stage == Stage::Following && !link.draining && grants.must_ask(now) {
                let nonce = *next_nonce;
                *next_nonce = Nonce(nonce.0 + 1);
                grants.ask(now, nonce);
                out.push(Output::Send { stream, message: ToAuthority::KeepAlive { nonce } });
            }
            let Stage::Dropped { since: Some(since), .. } = link.stage else { return true };
            if now.shortest_since(since) < hold {
                return true;
            }
            if let Some(last) = grants.last_nonce() {
                out.push(Output::Send { stream, message: ToAuthority::Relinquish { last } });
            }
            out.push(Output::Close { stream, retry_after: Span::ZERO });
            false
        });
    }
}

/// R12: the lease ends, its nonces are forgotten, and the hold begins with the next step.
fn drop_lease(link: &mut Link, now: Moment) {
    if let Some(grants) = link.grants.as_mut() {
        grants.drop_lease();
        if link.stage == Stage::Following {
            link.stage = Stage::Dropped { ordered: now, since: None };
        }
    }
}
