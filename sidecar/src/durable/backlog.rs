//! What is still to be written to the copy: between the sync thread, which never waits, and the writer.
//!
//! Acks and answers do not depend on Redis, so the queue must neither block nor grow. At its bound it is emptied and
//! the copy counts as stale: it is rewritten from the table as soon as Redis takes it. Until then the node lives from
//! memory, and a restart costs a snapshot.

use super::kept::Kept;
use consent_core::confirm::Place;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, Revision, Timestamp};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a queued step costs beside its head's bytes, about.
const STEP_COST: usize = 192;

/// One step of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// One revision changed one head.
    Changed {
        /// Where the table stands after it.
        place: Place,
        recorded_at: Timestamp,
        head: HeadRecord,
    },
    /// It goes on, unchanged, in another epoch.
    Entered(Epoch),
}

impl Step {
    fn cost(&self) -> usize {
        match self {
            Step::Changed { head, .. } => STEP_COST + head.bytes.len(),
            Step::Entered(_) => STEP_COST,
        }
    }
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Work {
    /// There is no table to keep a copy of.
    Nothing,
    /// The copy was proven: go on from it.
    GoOn(Box<Kept>),
    /// Write the copy anew. The table stands here, or further.
    Rewrite(Place, Timestamp),
    /// Follow these steps; none: all is done.
    Follow(Vec<Step>),
}

#[derive(Debug)]
enum Standing {
    NoTable,
    Proven(Box<Kept>),
    Stale,
    Follows,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Where the table stands.
    latest: Option<(Place, Timestamp)>,
    steps: VecDeque<Step>,
    cost: usize,
}

impl State {
    fn forget_steps(&mut self) {
        self.steps = VecDeque::new();
        self.cost = 0;
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Backlog {
    state: Mutex<State>,
    wake: Notify,
    cost_max: usize,
}

impl Backlog {
    /// An empty one that holds about so many bytes.
    pub(super) fn new(cost_max: usize) -> Backlog {
        let state = State { standing: Standing::NoTable, latest: None, steps: VecDeque::new(), cost: 0 };
        Backlog { state: Mutex::new(state), wake: Notify::new(), cost_max }
    }

    /// There is no table any more.
    pub(super) fn dropped(&self) {
        let mut state = self.state();
        state.forget_steps();
        (state.standing, state.latest) = (Standing::NoTable, None);
    }

    /// There is another table, of which Redis knows nothing.
    pub(super) fn replaced(&self, place: Place, recorded_at: Timestamp) {
        let mut state = self.state();
        state.forget_steps();
        (state.standing, state.latest) = (Standing::Stale, Some((place, recorded_at)));
        self.wake.notify_one();
    }

    /// The table is what lies in Redis.
    pub(super) fn proven(&self, kept: Kept) {
        let mut state = self.state();
        state.forget_steps();
        state.latest = Some((kept.marker.place, kept.marker.recorded_at));
        state.standing = Standing::Proven(Box::new(kept));
        self.wake.notify_one();
    }

    /// The table made a step.
    pub(super) fn stepped(&self, step: Step) {
        let mut state = self.state();
        match (&step, &mut state.latest) {
            (Step::Changed { place, recorded_at, .. }, latest) => *latest = Some((*place, *recorded_at)),
            (Step::Entered(epoch), Some((place, _))) => place.epoch = *epoch,
            (Step::Entered(_), None) => (),
        }
        match state.standing {
            // Whoever rewrites reads the table itself.
            Standing::NoTable | Standing::Stale => return,
            Standing::Proven(_) | Standing::Follows => (),
        }
        state.cost += step.cost();
        state.steps.push_back(step);
        if state.cost > self.cost_max {
            tracing::warn!("Redis takes changes too slowly: the durable copy will be written anew");
            state.forget_steps();
            state.standing = Standing::Stale;
        }
        self.wake.notify_one();
    }

    /// The copy is not what it should be: it has to be written anew.
    pub(super) fn distrust(&self) {
        let mut state = self.state();
        if matches!(state.standing, Standing::Follows | Standing::Proven(_)) {
            state.forget_steps();
            state.standing = Standing::Stale;
        }
    }

    /// Where the table stands: what is copied from it now is of this revision, or of none.
    pub(super) fn latest(&self) -> Option<Revision> {
        self.state().latest.map(|(place, _)| place.revision)
    }

    /// How many steps wait, and what they cost.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.state();
        (state.steps.len(), state.cost)
    }

    /// Does the copy follow the table, as far as is known?
    pub(super) fn follows(&self) -> bool {
        matches!(self.state().standing, Standing::Follows)
    }

    /// Waits until there is something to do. It may also return when there is nothing.
    pub(super) async fn work(&self) {
        let waits = {
            let state = self.state();
            match state.standing {
                Standing::NoTable => true,
                Standing::Follows => state.steps.is_empty(),
                Standing::Proven(_) | Standing::Stale => false,
            }
        };
        if waits {
            self.wake.notified().await;
        }
    }

    /// What to do next; at most so many steps at once.
    pub(super) fn take(&self, steps_max: usize) -> Work {
        let mut state = self.state();
        match std::mem::replace(&mut state.standing, Standing::Follows) {
            Standing::NoTable => {
                state.standing = Standing::NoTable;
                Work::Nothing
            }
            Standing::Proven(kept) => Work::GoOn(kept),
            Standing::Follows => Work::Follow(self.steps(&mut state, steps_max)),
            Standing::Stale => match state.latest {
                Some((place, recorded_at)) => Work::Rewrite(place, recorded_at),
                None => Work::Nothing,
            },
        }
    }

    fn steps(&self, state: &mut State, steps_max: usize) -> Vec<Step> {
        let count = state.steps.len().min(steps_max);
        let taken: Vec<Step> = state.steps.drain(..count).collect();
        state.cost -= taken.iter().map(Step::cost).sum::<usize>();
        taken
    }

    // What is in it is whole whenever the lock is free, also after a panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::chain::Chain;
    use consent_core::digest::Digest;
    use consent_core::head::HeadKey;

    fn place(number: u64) -> Place {
        let revision = Revision::new(number).unwrap();
        Place { epoch: Epoch::new([1; 16]), revision, chain: Chain::EMPTY, digest: Digest::EMPTY }
    }

    fn at(number: u64) -> (Place, Timestamp) {
        (place(number), Timestamp::from_millis(0))
    }

    fn step(number: u64) -> Step {
        let head = HeadRecord { key: HeadKey::Policy, bytes: vec![1; 8] };
        Step::Changed { place: place(number), recorded_at: Timestamp::from_millis(0), head }
    }

    #[test]
    fn a_new_table_is_written_whole_and_then_followed() {
        let backlog = Backlog::new(1 << 20);
        backlog.stepped(step(1));
        assert!(matches!(backlog.take(9), Work::Nothing), "there is no table");
        backlog.replaced(place(2), Timestamp::from_millis(0));
        backlog.stepped(step(3));
        assert!(matches!(backlog.take(9), Work::Rewrite(from, _) if from == place(3)), "where it stands now");
        assert!(
            matches!(backlog.take(9), Work::Follow(steps) if steps.is_empty()),
            "the table has that step"
        );
        [4, 5, 6].map(step).into_iter().for_each(|step| backlog.stepped(step));
        assert!(matches!(backlog.take(2), Work::Follow(steps) if steps == [4, 5].map(step)));
        assert!(matches!(backlog.take(2), Work::Follow(steps) if steps == [step(6)]));
        backlog.dropped();
        assert!(matches!(backlog.take(2), Work::Nothing));
    }

    #[test]
    fn at_its_bound_it_is_emptied_and_the_copy_is_stale() {
        let backlog = Backlog::new(3 * step(1).cost());
        backlog.replaced(place(1), Timestamp::from_millis(0));
        backlog.take(9);
        (2..=4).map(step).for_each(|step| backlog.stepped(step));
        assert!(backlog.follows());
        backlog.stepped(step(5));
        assert!(!backlog.follows());
        assert_eq!(backlog.state().cost, 0);
        assert!(matches!(backlog.take(9), Work::Rewrite(from, at_5) if (from, at_5) == at(5)));
    }

    #[test]
    fn what_is_taken_makes_room() {
        let backlog = Backlog::new(2 * step(1).cost());
        backlog.replaced(place(1), Timestamp::from_millis(0));
        backlog.take(9);
        for number in 2..100 {
            backlog.stepped(step(number));
            backlog.take(9);
        }
        assert!(backlog.follows());
    }
}
