//! Answers, from process memory, in the order of R10.
//!
//! Keeps its part of I1 and I8: [`decide`] reads the clocks, the lease and the heads in that order, and gives an
//! ALLOW only if the clocks, read again, say that it is still valid. It allocates nothing, logs nothing and waits
//! for nothing; whoever must wait (`min_position`) does so before.

mod stream;

use crate::metrics::Wait;
use crate::node::Node;
use crate::table::{State, Unread, View};
use consent::convert::decision::{Questions, asked, asked_all, min_position, response, responses};
use consent::deadline::Deadline;
use consent::pb::decision_service_server::DecisionService;
use consent::pb::{
    BatchCanTrainRequest, BatchCanTrainResponse, CanTrainRequest, CanTrainResponse, StreamCanTrainRequest,
    StreamCanTrainResponse,
};
use consent::{clock, dialogue, status::status};
use consent_core::confirm::{Lease, Validity};
use consent_core::decision::{self, Decision};
use consent_core::refusal::Refusal;
use consent_core::words::{Moment, Position, Span, Timestamp};
use std::sync::Arc;
use stream::Corpus;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a call waits for its `min_position` when its caller set no deadline, and a message of a stream.
const WAIT_DEFAULT: Span = Span::from_millis(1000);

/// How long a call waits for it at most, whatever its deadline: all callers share the places.
const WAIT_MAX: Span = Span::from_millis(10_000);

/// When a stream that found no place may try again: streams are long.
const STREAM_RETRY_AFTER: Span = Span::from_millis(1000);

/// So many questions of a batch look their rows up together.
const TOGETHER: usize = 32;

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
    let mut asked = asked.under(state.id_key());
    if let [answer] = &mut *answers
        && let Some(question) = asked.next()
    {
        let exact;
        (*answer, exact) = reader.read(|seen| (decision::decide(seen, &question, wall), seen.position()))?;
        return Ok(Some(exact));
    }
    // What the rows of some questions wait for in memory they wait for together.
    for answers in answers.chunks_mut(TOGETHER) {
        let mut questions = [None; TOGETHER];
        questions.iter_mut().zip(&*answers).for_each(|(question, _)| *question = asked.next());
        reader.touch(questions.iter().flatten().map(|question| (question.account, question.artifact)));
        for (answer, question) in answers.iter_mut().zip(questions.iter().flatten()) {
            *answer = reader.read(|seen| decision::decide(seen, question, wall))?;
        }
    }
    Ok(None)
}

/// Is `position` at or past `floor`? Revisions of two epochs cannot be compared: no.
fn reached(position: Position, floor: Option<Position>) -> bool {
    floor.is_none_or(|floor| position.epoch == floor.epoch && position.revision >= floor.revision)
}

/// Until when a call may wait for its `min_position`.
fn patience<T>(request: &Request<T>) -> Deadline {
    Deadline::of(request, WAIT_DEFAULT).at_most(WAIT_MAX)
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

/// DecisionService on a sidecar.
pub(crate) struct Decisions {
    node: Arc<Node>,
}

impl Decisions {
    pub(crate) fn new(node: Arc<Node>) -> Decisions {
        Decisions { node }
    }

    /// Waits until the table may have reached `floor`, within the deadline. A floor of another epoch is waited for
    /// as well: after a failover writers are in the new epoch before the nodes are. A full waiting room is not: the
    /// answer will be STALE.
    async fn wait_for(&self, floor: Option<Position>, deadline: Deadline) {
        let Some(floor) = floor else { return };
        let waits = &self.node.noted.waits;
        let Ok(_place) = self.node.waiting.try_acquire() else {
            waits.of(Wait::Full).inc();
            return;
        };
        let mut position = self.node.table.watch();
        let there = |position: &Option<Position>| position.is_some_and(|here| reached(here, Some(floor)));
        // Reached or not, the answer is decided from what the table then is.
        let ended = tokio::select! {
            biased;
            () = self.node.leaving.cancelled() => Wait::Stopping,
            met = deadline.within(position.wait_for(there)) => met.map_or(Wait::Late, |_| Wait::Met),
        };
        waits.of(ended).inc();
    }
}

#[tonic::async_trait]
impl DecisionService for Decisions {
    async fn can_train(
        &self,
        request: Request<CanTrainRequest>,
    ) -> Result<Response<CanTrainResponse>, Status> {
        let deadline = patience(&request);
        let request = request.into_inner();
        let asked = asked(&request).map_err(status)?;
        let floor = min_position(request.min_position.as_ref()).map_err(status)?;
        self.wait_for(floor, deadline).await;
        let mut answer = [Decision::NOT_READY];
        let basis = self.node.decide(floor, &asked, &mut answer);
        let [answer] = answer;
        Ok(Response::new(response(answer, basis.position, basis.valid_for())))
    }

    async fn batch_can_train(
        &self,
        request: Request<BatchCanTrainRequest>,
    ) -> Result<Response<BatchCanTrainResponse>, Status> {
        let deadline = patience(&request);
        let request = request.into_inner();
        let asked = asked_all(&request).map_err(status)?;
        let floor = min_position(request.min_position.as_ref()).map_err(status)?;
        self.wait_for(floor, deadline).await;
        let mut answers = vec![Decision::NOT_READY; asked.len()];
        let basis = self.node.decide(floor, &asked[..], &mut answers);
        Ok(Response::new(responses(&answers, basis.position, basis.valid_for())))
    }

    type StreamCanTrainStream = ReceiverStream<Result<StreamCanTrainResponse, Status>>;

    async fn stream_can_train(
        &self,
        request: Request<Streaming<StreamCanTrainRequest>>,
    ) -> Result<Response<Self::StreamCanTrainStream>, Status> {
        let full = |_| status(Refusal::Overloaded { retry_after: STREAM_RETRY_AFTER });
        let place = Arc::clone(&self.node.streams).try_acquire_owned().map_err(full)?;
        let corpus = Corpus::new(Decisions::new(Arc::clone(&self.node)), place);
        let stopped = self.node.leaving.clone();
        Ok(Response::new(dialogue::hold(request.into_inner(), corpus, stopped)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::WAITING_MAX;
    use crate::table::{Heads, Incoming};
    use consent::pb;
    use consent_core::chain::{Chain, Link};
    use consent_core::confirm::{Frame, Place};
    use consent_core::decision::Reason;
    use consent_core::digest::Digest;
    use consent_core::head::{AccountHead, Head, HeadKey};
    use consent_core::ledger::HeadRecord;
    use consent_core::words::{Epoch, IdKey, Incarnation, Revision};
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::{Context, Waker};

    const EPOCH: Epoch = Epoch::new([1; 16]);
    const HOLD: Span = Span::from_millis(50);

    fn position(epoch: Epoch, revision: u64) -> Position {
        Position { epoch, revision: Revision::new(revision).unwrap() }
    }

    fn lease(epoch: Epoch, until: u64) -> Option<Lease> {
        Some(Lease { epoch, until: at(until), hold: HOLD })
    }

    fn at(millis: u64) -> Moment {
        Moment { boot: millis * 1_000_000, raw: millis * 1_000_000 }
    }

    /// A node whose table stands at revision 0 and holds nothing: whatever is decided is UNKNOWN_ACCOUNT.
    fn node(lease: Option<Lease>) -> Arc<Node> {
        node_at(0, lease)
    }

    fn node_at(revision: u64, lease: Option<Lease>) -> Arc<Node> {
        let node = Node::new(Incarnation::new([2; 16]));
        let Position { epoch, revision } = position(EPOCH, revision);
        let place = Place { epoch, revision, chain: Chain::EMPTY, digest: Digest::EMPTY };
        node.table.install(Heads::new(IdKey::new([3; 16])), &place, Timestamp::from_millis(0));
        node.publish(lease);
        Arc::new(node)
    }

    fn request(account: &str) -> pb::CanTrainRequest {
        pb::CanTrainRequest {
            account: account.to_owned(),
            artifact: Some(pb::Artifact {
                id: "chat-1".to_owned(),
                collected_at: Some(consent::convert::to_timestamp(Timestamp::from_millis(1))),
                ..pb::Artifact::default()
            }),
            min_position: None,
        }
    }

    /// What a test has a reader read.
    struct Played<N, W, L, T> {
        now: N,
        wall: W,
        lease: L,
        table: T,
    }

    impl<N, W, L, T> Readings for Played<N, W, L, T>
    where
        N: Fn() -> Moment,
        W: Fn() -> Timestamp,
        L: Fn() -> Option<Lease>,
        T: Fn() -> View,
    {
        fn now(&self) -> Moment {
            (self.now)()
        }

        fn wall(&self) -> Timestamp {
            (self.wall)()
        }

        fn lease(&self) -> Option<Lease> {
            (self.lease)()
        }

        fn table(&self) -> View {
            (self.table)()
        }
    }

    fn reason(node: &Node, now: impl Fn() -> Moment, floor: Option<Position>) -> (Reason, Basis) {
        answer(now, clock::wall, || node.lease(), || node.table.read(), floor)
    }

    fn answer(
        now: impl Fn() -> Moment,
        wall: impl Fn() -> Timestamp,
        lease: impl Fn() -> Option<Lease>,
        table: impl Fn() -> View,
        floor: Option<Position>,
    ) -> (Reason, Basis) {
        let mut answers = [Decision::NOT_READY];
        let request = request("ada");
        let readings = Played { now, wall, lease, table };
        let basis = decide(&readings, floor, &asked(&request).unwrap(), &mut answers);
        (answers[0].reason, basis)
    }

    #[test]
    fn it_decides_only_under_a_lease_of_the_table_s_epoch() {
        let now = || at(1000);
        assert_eq!(reason(&node(lease(EPOCH, 1020)), now, None).0, Reason::UnknownAccount);
        assert_eq!(reason(&node(lease(EPOCH, 1000)), now, None).0, Reason::Stale);
        assert_eq!(reason(&node(lease(Epoch::new([9; 16]), 5000)), now, None).0, Reason::Stale);
        assert_eq!(reason(&node(None), now, None).0, Reason::Stale);
        let cold = Node::new(Incarnation::new([2; 16]));
        cold.publish(lease(EPOCH, 5000));
        assert_eq!(reason(&cold, now, None).0, Reason::NotReady);
    }

    #[test]
    fn deciding_allocates_nothing() {
        let node = node(lease(EPOCH, 5000));
        let secret = IdKey::new([3; 16]);
        let (mut heads, Position { epoch, revision }) = (Heads::new(secret), position(EPOCH, 1));
        let bytes = Head::Account(AccountHead::Erased { rev: revision }).encode();
        let record = HeadRecord { key: HeadKey::Account(secret.account("account-0")), bytes };
        heads.put_if_newer(record.key, &record.bytes, revision).unwrap();
        let place = Place { epoch, revision, chain: Chain::EMPTY, digest: heads.digest() };
        node.table.install(heads, &place, Timestamp::from_millis(1));
        let requests: Vec<_> = (0..100).map(|n| request(&format!("account-{n}"))).collect();
        let asked: Vec<_> = requests.iter().map(|request| asked(request).unwrap()).collect();
        let mut answers = vec![Decision::NOT_READY; asked.len()];
        let (now, lease, table) = (|| at(1000), || node.lease(), || node.table.read());
        let readings = Played { now, wall: clock::wall, lease, table };
        let mut all = || {
            for many in [1, asked.len()] {
                decide(&readings, None, &asked[..many], &mut answers[..many]);
            }
        };
        // A thread's first look at a shared value takes it a place to say so.
        all();
        assert_eq!(allocation_counter::measure(all).count_total, 0);
        assert_eq!([0, 1].map(|n| answers[n].reason), [Reason::UnknownProduct, Reason::UnknownAccount]);
    }

    #[test]
    fn an_answer_is_valid_no_longer_than_the_lease_and_the_hold() {
        let now = || at(1000);
        assert_eq!(reason(&node(lease(EPOCH, 1020)), now, None).1.valid_for(), Span::from_millis(20));
        assert_eq!(reason(&node(lease(EPOCH, 5000)), now, None).1.valid_for(), HOLD);
    }

    #[test]
    fn nothing_is_decided_from_before_the_floor() {
        let node = node(lease(EPOCH, 5000));
        let now = || at(1000);
        assert_eq!(reason(&node, now, Some(position(EPOCH, 0))).0, Reason::UnknownAccount);
        assert_eq!(reason(&node, now, Some(position(EPOCH, 1))).0, Reason::Stale);
        assert_eq!(reason(&node, now, Some(position(Epoch::new([9; 16]), 0))).0, Reason::Stale);
    }

    #[test]
    fn a_pause_past_the_end_of_an_answer_starts_over_once() {
        let node = node(lease(EPOCH, 5000));
        // Each reading is taken after a pause, the last of them again and again.
        let readings = |readings: &'static [u64]| {
            let next = Cell::new(0);
            move || {
                let index = next.replace(next.get() + 1);
                at(readings[index.min(readings.len() - 1)])
            }
        };
        assert_eq!(reason(&node, readings(&[1000, 1049]), None).0, Reason::UnknownAccount);
        assert_eq!(reason(&node, readings(&[1000, 1050, 1050, 1060]), None).0, Reason::UnknownAccount);
        let (late, basis) = reason(&node, readings(&[1000, 1050, 1050, 1100]), None);
        assert_eq!((late, basis.valid_for()), (Reason::Stale, Span::ZERO));
        // The lease ended in the pause.
        assert_eq!(reason(&node, readings(&[1000, 5000]), None).0, Reason::Stale);
    }

    #[test]
    fn a_lease_that_comes_while_the_heads_are_read_is_no_lease_for_them() {
        // The node has lapsed. Between the first and the second of the two reads it catches up with what became
        // effective meanwhile, and is granted a lease that rests on it.
        let (lapsed, caught_up) = (node(None), node_at(1, lease(EPOCH, 5000)));
        let is_over = Cell::new(false);
        let next = || if is_over.replace(true) { &caught_up } else { &lapsed };
        let (lease, table) = (|| next().lease(), || next().table.read());
        let (reason, basis) = answer(|| at(1000), clock::wall, lease, table, None);
        assert_eq!((reason, basis.valid_for()), (Reason::Stale, Span::ZERO));
    }

    #[test]
    fn an_answer_counts_from_before_its_heads_were_read() {
        let node = node(lease(EPOCH, 5000));
        // Whoever reads the heads is paused for as long as an answer may be relied on, every time.
        let pauses = Cell::new(0);
        let read = || {
            pauses.set(pauses.get() + 1);
            node.table.read()
        };
        let now = || at(1000 + pauses.get() * HOLD.millis());
        let (reason, basis) = answer(now, clock::wall, || node.lease(), read, None);
        assert_eq!((reason, basis.valid_for(), pauses.get()), (Reason::Stale, Span::ZERO, 2));
    }

    /// The next revision of the node's table: Ada comes, and is erased.
    fn apply(node: &Node, number: u64) {
        let revision = Revision::new(number).unwrap();
        let head = Head::Account(AccountHead::Erased { rev: revision });
        let key = HeadKey::Account(IdKey::new([3; 16]).account("ada"));
        let head = || Incoming::read(HeadRecord { key, bytes: head.encode() }, revision).unwrap();
        let (link, chain) = (Link::new([0; 32]), Chain::EMPTY);
        let frame = |digest| Frame { epoch: EPOCH, revision, link, chain, digest };
        let at = Timestamp::from_millis(1);
        let digest = node.table.apply(&frame(Digest::EMPTY), at, head());
        assert_eq!(node.table.apply(&frame(digest), at, head()), digest);
    }

    #[test]
    fn an_answer_says_what_state_it_was_decided_from() {
        let node = node_at(1, lease(EPOCH, 5000));
        let (before, basis) = reason(&node, || at(1000), None);
        assert_eq!((before, basis.position), (Reason::UnknownAccount, Some(position(EPOCH, 1))));
        // A revision comes when the position has been looked at, and the heads have not.
        let is_over = Cell::new(false);
        let wall = || {
            if !is_over.replace(true) {
                apply(&node, 2);
            }
            clock::wall()
        };
        let (lease, table) = (|| node.lease(), || node.table.read());
        let (after, basis) = answer(|| at(1000), wall, lease, table, None);
        assert_eq!((after, basis.position), (Reason::UnknownProduct, Some(position(EPOCH, 2))));
    }

    #[test]
    fn a_table_that_is_replaced_under_an_answer_is_not_what_it_is_decided_from() {
        let node = node_at(1, lease(EPOCH, 5000));
        let (lease, table) = (|| node.lease(), || node.table.read());
        let next = Epoch::new([9; 16]);
        let wall = || {
            node.table.enter(next);
            clock::wall()
        };
        let (reason, basis) = answer(|| at(1000), wall, lease, table, None);
        assert_eq!((reason, basis.position), (Reason::Stale, Some(position(next, 1))));
    }

    #[test]
    fn no_deadline_keeps_a_place_for_longer_than_a_call_may_wait() {
        let mut request = Request::new(());
        assert!(patience(&request).left() <= WAIT_DEFAULT);
        request.metadata_mut().insert("grpc-timeout", "99999999H".parse().unwrap());
        assert!(patience(&request).left() <= WAIT_MAX);
    }

    #[tokio::test]
    async fn a_full_waiting_room_is_not_waited_for() {
        let node = node(lease(EPOCH, 5000));
        let decisions = Decisions::new(Arc::clone(&node));
        let deadline = || Deadline::after(Span::from_millis(60_000));
        let mut context = Context::from_waker(Waker::noop());
        let waits = |floor, context: &mut Context<'_>| {
            pin!(decisions.wait_for(Some(floor), deadline())).poll(context).is_pending()
        };
        assert!(waits(position(EPOCH, 1), &mut context));
        assert!(!waits(position(EPOCH, 0), &mut context));
        let _all = node.waiting.try_acquire_many(u32::try_from(WAITING_MAX).unwrap()).unwrap();
        assert!(!waits(position(EPOCH, 1), &mut context));
    }

    #[tokio::test]
    async fn a_floor_in_an_epoch_that_the_table_enters_later_is_waited_for() {
        let node = node(lease(EPOCH, 5000));
        let decisions = Decisions::new(Arc::clone(&node));
        let deadline = Deadline::after(Span::from_millis(60_000));
        let mut context = Context::from_waker(Waker::noop());
        let next = Epoch::new([9; 16]);
        let mut waits = pin!(decisions.wait_for(Some(position(next, 0)), deadline));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        node.table.enter(next);
        assert!(waits.as_mut().poll(&mut context).is_ready());
    }
}
