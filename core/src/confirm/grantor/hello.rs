//! A sidecar says hello: does its table stand on this ledger? (R5 on epochs, R13) And how its stream ends.
//!
//! The chain is the proof, the epoch a hint. A place on the replica's chain goes on. A place of another epoch that
//! is on another chain takes a snapshot. A place that the ledger should have and has not is time travel: the
//! sidecar keeps denying, and the ledger is under HOLD until an operator has looked.

use super::io::Output;
use super::known::ChainAt;
use super::{Grantor, Guest};
use crate::chain::Chain;
use crate::confirm::message::{Place, Start, Stream, ToSidecar, Unwelcome};
use crate::words::{Incarnation, Moment, Revision};

impl Grantor {
    pub(super) fn hello(
        &mut self,
        now: Moment,
        stream: Stream,
        sidecar: Incarnation,
        place: Option<Place>,
        out: &mut Vec<Output>,
    ) {
        if self.guests.contains_key(&stream) {
            return self.end(stream, out);
        }
        let Some(known) = self.known.as_ref() else { return self.turn_away(stream, self.busy(), out) };
        if self.leaving.is_some() {
            return self.turn_away(stream, Unwelcome::Leaving, out);
        }
        // A place of this epoch that the replica remembers otherwise, or not, is for the primary to judge.
        let verdict =
            place.map(|place| (place, known.chain_at(place.revision), place.epoch == known.epoch()));
        let guest = match verdict {
            None => Guest::Served,
            Some((place, ChainAt::Is(own), _)) if own == place.chain => Guest::Waiting(place),
            Some((_, ChainAt::Is(_), false)) => Guest::Served,
            Some((place, ChainAt::Is(_) | ChainAt::Later | ChainAt::Forgotten, _)) => Guest::LookedUp(place),
        };
        if !self.seat(now, stream, sidecar, out) {
            return self.turn_away(stream, self.busy(), out);
        }
        self.guests.insert(stream, (sidecar, guest));
        match guest {
            Guest::Served => self.welcome(stream, None, out),
            Guest::LookedUp(place) => out.push(Output::LookUp { stream, revision: place.revision }),
            Guest::Waiting(_) => self.welcome_whom_the_tail_reached(out),
        }
    }

    /// R13: the primary has spoken.
    pub(super) fn found(&mut self, stream: Stream, head: Place, chain: Option<Chain>, out: &mut Vec<Output>) {
        let Some(&(sidecar, Guest::LookedUp(place))) = self.guests.get(&stream) else { return };
        let Some(epoch) = self.known.as_ref().map(|known| known.epoch()) else { return };
        if head.epoch != epoch {
            // This replica is of the past and will find out at its next renewal.
            self.turn_away(stream, self.busy(), out);
        } else if chain == Some(place.chain) {
            self.guests.insert(stream, (sidecar, Guest::Waiting(place)));
            self.welcome_whom_the_tail_reached(out);
        } else if place.epoch != epoch && (chain.is_some() || self.hole_accepted) {
            self.welcome(stream, None, out);
        } else {
            self.held = true;
            out.push(Output::TimeTravel { witness: sidecar, place });
            self.turn_away(stream, Unwelcome::Held, out);
        }
    }

    /// R13: who is ahead of this replica, but not of the primary, waits for the tail.
    pub(super) fn welcome_whom_the_tail_reached(&mut self, out: &mut Vec<Output>) {
        let Some(tail) = self.known.as_ref().map(|known| known.tail()) else { return };
        let reached = |(stream, (_, guest)): (&Stream, &(Incarnation, Guest))| match guest {
            Guest::Waiting(place) if place.revision <= tail => Some((*stream, place.revision)),
            Guest::Waiting(_) | Guest::LookedUp(_) | Guest::Served => None,
        };
        let welcome: Vec<(Stream, Revision)> = self.guests.iter().filter_map(reached).collect();
        for (stream, after) in welcome {
            self.welcome(stream, Some(after), out);
        }
    }

    /// Frames after `after` come, or a snapshot.
    fn welcome(&mut self, stream: Stream, after: Option<Revision>, out: &mut Vec<Output>) {
        let Some(epoch) = self.known.as_ref().map(|known| known.epoch()) else { return };
        let Some((_, guest)) = self.guests.get_mut(&stream) else { return };
        *guest = Guest::Served;
        let start = if after.is_some() { Start::Continue } else { Start::Snapshot };
        let (grantor, terms) = (self.incarnation, self.terms);
        out.push(Output::Send { stream, message: ToSidecar::Welcome { grantor, epoch, terms, start } });
        out.push(Output::Feed { stream, after });
    }

    /// Gives the incarnation a session, or the one that it has; `false` when there is no room.
    fn seat(&mut self, now: Moment, stream: Stream, sidecar: Incarnation, out: &mut Vec<Output>) -> bool {
        if !self.sessions.contains_key(&sidecar) && self.sessions.len() >= self.limits.sessions {
            self.forget_sessions(now);
            if self.sessions.len() >= self.limits.sessions {
                return false;
            }
        }
        let earlier = self.sessions.entry(sidecar).or_default().stream.replace(stream);
        if let Some(earlier) = earlier {
            self.guests.remove(&earlier);
            out.push(Output::Close { stream: earlier });
        }
        true
    }

    /// R7: the session stays.
    pub(super) fn disconnected(&mut self, stream: Stream) {
        let Some((sidecar, _)) = self.guests.remove(&stream) else { return };
        if let Some(session) =
            self.sessions.get_mut(&sidecar).filter(|session| session.stream == Some(stream))
        {
            session.stream = None;
        }
    }

    /// Ends a stream that has, or would have had, a session.
    fn end(&mut self, stream: Stream, out: &mut Vec<Output>) {
        self.disconnected(stream);
        out.push(Output::Close { stream });
    }

    pub(super) fn turn_away(&mut self, stream: Stream, why: Unwelcome, out: &mut Vec<Output>) {
        out.push(Output::Send { stream, message: ToSidecar::Unwelcome(why) });
        self.end(stream, out);
    }

    pub(super) fn busy(&self) -> Unwelcome {
        Unwelcome::Busy { retry_after: self.limits.retry_after }
    }
}
