//! Answers, from process memory, in the order of R10.
//!
//! Keeps its part of I1 and I8: [`decide`] reads the clocks, the lease and the heads in that order, and gives an
//! ALLOW only if the clocks, read again, say that it is still valid. It allocates nothing, logs nothing and waits
//! for nothing; whoever must wait (`min_position`) does so before.

mod service;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use service::Decisions;

use crate::node::Node;
use crate::table::{Reader, State, TOGETHER, Unread, View};
use consent::clock;
use consent::convert::decision::{Asked, Questions};
use consent_core::confirm::{Lease, Validity};
use consent_core::decision::{Decider, Decision};
use consent_core::words::{AccountKey, ArtifactKey, IdKey, Moment, Position, Span, Timestamp};

/// What answers rest on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Basis {
    /// A single answer was decided from this state. Of several none was decided from an older one.
    pub(crate) position: Option<Position>,
    /// For how long an ALLOW may be relied on; none for a DENY to every question.
    pub(crate) validity: Option<Validity>,
}

impl Basis {
    /// The same DENY to every question.
    fn deny(answers: &mut [Decision], decision: Decision, position: Option<Position>) -> Basis {
        answers.fill(decision);
        Basis { position, validity: None }
    }

    /// How long an ALLOW may be relied on, counted from before the caller sent the request.
    fn valid_for(&self) -> Span {
        self.validity.map_or(Span::ZERO, |validity| validity.valid_for())
    }
}

/// What is read for an answer, each as it is when it is asked for.
trait Readings {
    /// Both lease clocks.
    fn now(&self) -> Moment;
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// The lease as last published.
    fn lease(&self) -> Option<Lease>;
    /// The heads.
    fn table(&self) -> View;
}

impl Readings for Node {
    fn now(&self) -> Moment {
        clock::now()
    }

    fn wall(&self) -> Timestamp {
        clock::wall()
    }

    fn lease(&self) -> Option<Lease> {
        self.lease()
    }

    fn table(&self) -> View {
        self.table.read()
    }
}

/// Decides every question from a state at or past `floor` and at or past the position that it gives, under one
/// lease: the six steps of R10, in their order. That order is what counts: a lease that was read after the heads may
/// rest on revisions which they are without.
fn decide(
    readings: &impl Readings,
    floor: Option<Position>,
    asked: &(impl Questions + ?Sized),
    answers: &mut [Decision],
) -> Basis {
    let mut position = None;
    // Who was paused past the end of an answer, or whose table was replaced, starts over once: after that a DENY is
    // cheaper for everybody.
    for _attempt in 0..2 {
        let now0 = readings.now(); // (1)
        let lease = readings.lease(); // (2)
        let view = readings.table(); // (3)
        let Some(state) = view.state() else { return Basis::deny(answers, Decision::NOT_READY, None) };
        let here = state.position();
        position = Some(here);
        let lease = lease.filter(|lease| lease.epoch == here.epoch && reached(here, floor));
        let Some(validity) = lease.and_then(|lease| lease.at(now0)) else { break }; // (4)
        let decided = decide_all(state, readings.wall(), asked, answers); // (5)
        drop(view);
        match decided {
            // (6)
            Ok(exact) if validity.holds(readings.now()) => {
                return Basis { position: exact.or(position), validity: Some(validity) };
            }
            Ok(_) | Err(Unread::Retired) => {}
            Err(Unread::Busy) => return Basis::deny(answers, Decision::NOT_READY, position),
        }
    }
    Basis::deny(answers, Decision::STALE, position)
}

/// Decides each question from one moment of the table; gives the position of a single one's. The moments of several
/// may differ: none is older than a position that was read before.
fn decide_all(
    state: &State,
    wall: Timestamp,
    asked: &(impl Questions + ?Sized),
    answers: &mut [Decision],
) -> Result<Option<Position>, Unread> {
    let mut reader = state.reader();
    if let [answer] = &mut *answers {
        let (asked, key) = (asked.at(0), state.id_key());
        let question = asked.with_keys(asked.account(key), || asked.artifact(key));
        let exact;
        (*answer, exact) =
            reader.read(|seen| (Decider::new(seen, wall).decide(&question), seen.position()))?;
        return Ok(Some(exact));
    }
    for (first, answers) in (0..).step_by(TOGETHER).zip(answers.chunks_mut(TOGETHER)) {
        decide_group(&mut reader, state.id_key(), wall, |nth| asked.at(first + nth), answers)?;
    }
    Ok(None)
}

/// Decides some together, from one moment: what their rows wait for in memory they wait for together. Where the table
/// changes faster than that, each is decided by itself.
fn decide_group<'a>(
    reader: &mut Reader<'_>,
    key: &IdKey,
    wall: Timestamp,
    asked: impl Fn(usize) -> Asked<'a>,
    answers: &mut [Decision],
) -> Result<(), Unread> {
    let mut accounts = [AccountKey::new([0; 16]); TOGETHER];
    let mut artifacts = [ArtifactKey::new([0; 16]); TOGETHER];
    let accounts = &mut accounts[..answers.len()];
    // Whether that is still so is looked at again with the heads: an artifact's key is then made after all.
    let artifacts = if reader.excludes_nothing() { &mut [] } else { &mut artifacts[..answers.len()] };
    (0..).zip(&mut *accounts).for_each(|(nth, account)| *account = asked(nth).account(key));
    (0..).zip(&mut *artifacts).for_each(|(nth, artifact)| *artifact = asked(nth).artifact(key));
    reader.touch(accounts, artifacts);
    let (asked, artifacts) = (&asked, &*artifacts);
    let question = |(nth, account): (usize, &AccountKey)| {
        let artifact = move || artifacts.get(nth).copied().unwrap_or_else(|| asked(nth).artifact(key));
        asked(nth).with_keys(*account, artifact)
    };
    let questions = || accounts.iter().enumerate().map(question);
    let decided = reader.glance(|seen| {
        let mut decider = Decider::new(seen, wall);
        answers
            .iter_mut()
            .zip(questions())
            .for_each(|(answer, question)| *answer = decider.decide(&question));
    })?;
    if decided.is_none() {
        for (answer, question) in answers.iter_mut().zip(questions()) {
            *answer = reader.read(|seen| Decider::new(seen, wall).decide(&question))?;
        }
    }
    Ok(())
}

/// Is `position` at or past `floor`? Revisions of two epochs cannot be compared: no.
fn reached(position: Position, floor: Option<Position>) -> bool {
    floor.is_none_or(|floor| position.epoch == floor.epoch && position.revision >= floor.revision)
}

impl Node {
    /// Decides now, from what the node has.
    pub(crate) fn decide(
        &self,
        floor: Option<Position>,
        asked: &(impl Questions + ?Sized),
        answers: &mut [Decision],
    ) -> Basis {
        let basis = decide(self, floor, asked, answers);
        self.counters.count(answers);
        basis
    }
}
