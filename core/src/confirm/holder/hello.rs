//! What follows a hello: the table goes on under the same epoch, goes on under another, or starts anew.
//!
//! Keeps I5 across streams, replicas and epochs. A foreign epoch is entered only from a place that an authority of
//! it has found on its own chain, and only when no lease of the present epoch is valid: an epoch that still grants
//! is alive, and the other one may be a replica that has not yet noticed its end.

use super::io::{Cause, Output, State};
use super::link::{Grants, Link, Stage};
use super::table::Table;
use super::{Holder, Stream};
use crate::confirm::message::{Place, Start};
use crate::confirm::terms::Terms;
use crate::digest::Digest;
use crate::words::{Epoch, Incarnation, Moment, Span};

/// The message of that name.
pub(super) struct Welcome {
    pub(super) grantor: Incarnation,
    pub(super) epoch: Epoch,
    pub(super) terms: Terms,
    pub(super) start: Start,
}

impl Holder {
    /// A warm load: a copy whose digest is not its own is no table, nor is one from before what this run already
    /// acked (I5), and a table is never replaced by a copy.
    pub(super) fn loaded(&mut self, now: Moment, place: Place, digest: Digest, out: &mut Vec<Output>) {
        if self.table.is_some() || self.links.iter().any(|link| link.stage == Stage::Loading) {
            return;
        }
        if place.digest != digest || !self.summits.allow(&place) {
            out.push(Output::DropTable);
            return;
        }
        self.table = Some(Table::copied(place, now));
    }

    pub(super) fn welcomed(&mut self, now: Moment, at: usize, welcome: Welcome, out: &mut Vec<Output>) {
        let Stage::Greeting { hello } = self.links[at].stage else { return self.close(at, Span::ZERO, out) };
        self.hold = self.hold.max(welcome.terms.hold());
        let foreign = self.table.as_ref().is_some_and(|table| table.epoch() != welcome.epoch);
        if self.leaving || (foreign && self.links.iter().any(|link| link.leased(now))) {
            return self.close(at, welcome.terms.keepalive_every(), out);
        }
        match welcome.start {
            Start::Continue => self.go_on(now, at, hello, &welcome, foreign, out),
            Start::Snapshot => self.start_anew(at, hello, &welcome, out),
            // There is no rest of what was not begun: whoever named a place has a table.
            Start::RestOfSnapshot if hello.is_some() => self.close(at, Span::ZERO, out),
            Start::RestOfSnapshot => self.start_anew(at, hello, &welcome, out),
        }
    }

    fn go_on(
        &mut self,
        now: Moment,
        at: usize,
        hello: Option<Place>,
        welcome: &Welcome,
        foreign: bool,
        out: &mut Vec<Output>,
    ) {
        let Some((table, hello)) = self.table.as_mut().zip(hello) else {
            return self.close(at, Span::ZERO, out);
        };
        if foreign {
            // What was ordered since the hello has not been found on the new epoch's chain: say hello again.
            if table.ordered() != Some(hello) {
                return self.close(at, Span::ZERO, out);
            }
            if !self.summits.allow(&Place { epoch: welcome.epoch, ..hello }) {
                // From this place no hello will ever be followed: the next one must ask for a snapshot.
                self.resync(Cause::AuthorityBehind, out);
                return self.drop_table(out);
            }
            table.enter(welcome.epoch);
            self.was_live = false;
            out.push(Output::EnterEpoch(welcome.epoch));
        }
        table.accept(now);
        let at = if foreign { self.close_others(at, out) } else { at };
        self.accept(at, welcome, Stage::Following, out);
    }

    fn start_anew(&mut self, at: usize, hello: Option<Place>, welcome: &Welcome, out: &mut Vec<Output>) {
        let elsewhere = self.links.iter().any(|link| link.stage == Stage::Loading);
        // Another stream brings, or has brought, the table that this hello did not name.
        if elsewhere || (hello.is_none() && self.table.is_some()) {
            return self.close(at, welcome.terms.keepalive_every(), out);
        }
        if self.table.is_some() {
            self.withdraw(out);
            self.start_over(Cause::Foreign, out);
            self.drop_table(out);
        }
        let at = self.close_others(at, out);
        let stream = self.links[at].stream;
        self.accept(at, welcome, Stage::Loading, out);
        let is_rest = welcome.start == Start::RestOfSnapshot;
        out.push(Output::TakeSnapshot { stream, is_rest });
    }

    fn accept(&mut self, at: usize, welcome: &Welcome, stage: Stage, out: &mut Vec<Output>) {
        let mut grants = Grants::new(welcome.grantor, welcome.epoch, welcome.terms);
        let same =
            |link: &Link| link.grants.as_ref().is_some_and(|earlier| earlier.grantor == welcome.grantor);
        // A lease being given back is not taken over: its relinquish names the nonces of its own time.
        let dropped = |link: &Link| matches!(link.stage, Stage::Dropped { .. });
        for earlier in self.links.iter().filter(|link| same(link) && !dropped(link)) {
            earlier.grants.iter().for_each(|earlier| grants.succeed(earlier));
        }
        self.links[at].stage = stage;
        self.links[at].grants = Some(grants);
        let stream = self.links[at].stream;
        self.links.retain(|link| {
            let goes = link.stream != stream && same(link) && !dropped(link);
            if goes && link.is_open() {
                out.push(Output::Close { stream: link.stream, retry_after: Span::ZERO });
            }
            !goes
        });
        if self.state == State::Resync {
            self.change(State::Syncing, out);
        }
    }

    /// Ends every other stream; gives where the one at `at` is now.
    fn close_others(&mut self, at: usize, out: &mut Vec<Output>) -> usize {
        let link = self.links.swap_remove(at);
        for other in self.links.drain(..).filter(Link::is_open) {
            out.push(Output::Close { stream: other.stream, retry_after: Span::ZERO });
        }
        self.links.push(link);
        0
    }

    pub(super) fn snapshot_loaded(
        &mut self,
        now: Moment,
        stream: Stream,
        place: Place,
        digest: Digest,
        out: &mut Vec<Output>,
    ) {
        let loading = |link: &&mut Link| link.stream == stream && link.stage == Stage::Loading;
        let Some(link) = self.links.iter_mut().find(loading) else { return };
        let epoch = link.grants.as_ref().map(|grants| grants.epoch);
        link.stage = Stage::Following;
        self.table = Some(Table::loaded(place, now));
        let cause = if place.digest != digest {
            Cause::Digest
        } else if epoch != Some(place.epoch) {
            Cause::Epoch
        } else if !self.summits.allow(&place) {
            Cause::AuthorityBehind
        } else {
            return;
        };
        self.drop_table(out);
        self.resync(cause, out);
    }
}
