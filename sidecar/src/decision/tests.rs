//! The order of R10, reading by reading, and what an answer says of the state that it was decided from.

use super::*;
use crate::table::{Heads, Incoming};
use consent::convert::decision::{Asked, asked};
use consent::pb;
use consent_core::chain::{Chain, Link};
use consent_core::command::Command;
use consent_core::confirm::{Frame, Place};
use consent_core::decision::Reason;
use consent_core::digest::Digest;
use consent_core::head::{AccountHead, Head, HeadKey};
use consent_core::ledger::{HeadRecord, State as Ledger};
use consent_core::policy::PolicyFile;
use consent_core::words::{Epoch, Incarnation, Name, Party, Revision};
use std::cell::Cell;
use std::sync::Arc;

pub(super) const EPOCH: Epoch = Epoch::new([1; 16]);
const SECRET: IdKey = IdKey::new([3; 16]);
const HOLD: Span = Span::from_millis(50);

pub(super) fn position(epoch: Epoch, revision: u64) -> Position {
    Position { epoch, revision: Revision::new(revision).unwrap() }
}

pub(super) fn lease(epoch: Epoch, until: u64) -> Option<Lease> {
    Some(Lease { epoch, until: at(until), hold: HOLD })
}

fn at(millis: u64) -> Moment {
    Moment { boot: millis * 1_000_000, raw: millis * 1_000_000 }
}

/// A node whose table stands at revision 0 and holds nothing: whatever is decided is UNKNOWN_ACCOUNT.
pub(super) fn node(lease: Option<Lease>) -> Arc<Node> {
    node_at(0, lease)
}

fn node_at(revision: u64, lease: Option<Lease>) -> Arc<Node> {
    let node = Node::new(Incarnation::new([2; 16]));
    let Position { epoch, revision } = position(EPOCH, revision);
    let place = Place { epoch, revision, chain: Chain::EMPTY, digest: Digest::EMPTY };
    node.table.install(Heads::new(SECRET), &place, Timestamp::from_millis(0));
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
    let basis = decide(&readings, floor, &[asked(&request).unwrap()][..], &mut answers);
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
    let (mut heads, Position { epoch, revision }) = (Heads::new(SECRET), position(EPOCH, 1));
    let bytes = Head::Account(AccountHead::Erased { rev: revision }).encode();
    let record = HeadRecord { key: HeadKey::Account(SECRET.account("account-0")), bytes };
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

/// Ada, who comes with this revision and is erased.
fn erased(number: u64) -> HeadRecord {
    let head = Head::Account(AccountHead::Erased { rev: Revision::new(number).unwrap() });
    HeadRecord { key: HeadKey::Account(SECRET.account("ada")), bytes: head.encode() }
}

/// The next revision of the node's table.
fn apply(node: &Node, number: u64, changed: &HeadRecord) {
    let revision = Revision::new(number).unwrap();
    let head = || Incoming::read(changed.clone(), revision).unwrap();
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
            apply(&node, 2, &erased(2));
        }
        clock::wall()
    };
    let (lease, table) = (|| node.lease(), || node.table.read());
    let (after, basis) = answer(|| at(1000), wall, lease, table, None);
    assert_eq!((after, basis.position), (Reason::UnknownProduct, Some(position(EPOCH, 2))));
}

/// Two questions about one artifact. When they are looked at for the second time their keys are made; for the fourth
/// time, the first is decided and the second is not. The table changes at one of these looks.
struct Changing<'a, F> {
    asked: Asked<'a>,
    looks: Cell<u32>,
    changes_at: u32,
    change: F,
}

impl<F: Fn()> Questions for Changing<'_, F> {
    fn count(&self) -> usize {
        2
    }

    fn at(&self, _: usize) -> Asked<'_> {
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() == self.changes_at {
            (self.change)();
        }
        self.asked
    }
}

#[test]
fn what_changes_while_some_are_decided_is_decided_again() {
    let node = node_at(1, lease(EPOCH, 5000));
    let request = request("ada");
    let change = || apply(&node, 2, &erased(2));
    let asked = Changing { asked: asked(&request).unwrap(), looks: Cell::new(0), changes_at: 4, change };
    let (reasons, basis) = answer_both(&node, &asked);
    // Neither is from before the change, of which half of them knew nothing.
    assert_eq!(reasons, [Reason::UnknownProduct; 2]);
    assert_eq!(basis.position, Some(position(EPOCH, 1)));
}

fn answer_both(node: &Node, asked: &impl Questions) -> ([Reason; 2], Basis) {
    let readings =
        Played { now: || at(1000), wall: clock::wall, lease: || node.lease(), table: || node.table.read() };
    let mut answers = [Decision::NOT_READY; 2];
    let basis = decide(&readings, None, asked, &mut answers);
    (answers.map(|answer| answer.reason), basis)
}

/// What Ada's data may be trained on by, and then the first exclusion that there ever was: of `chat-1`.
fn heads_until_an_exclusion() -> Vec<HeadRecord> {
    let file = PolicyFile::parse(include_str!("../../../policies/mistral.toml")).unwrap();
    let (party, product) = (Party::Account(SECRET.account("ada")), Name::new("le_chat").unwrap());
    let plan = Some(Name::new("free").unwrap());
    let commands = [
        Command::PublishPolicy { file: Box::new(file), expected: None },
        Command::SetPlan { party, product, plan, expected: None },
        Command::ExcludeArtifact { artifact: SECRET.artifact("chat-1") },
    ];
    let mut state = Ledger::empty();
    let mut records = Vec::new();
    for command in &commands {
        for event in &state.decide(command).unwrap() {
            let revision = state.revision().next().unwrap();
            records.push(state.apply(event, revision, Timestamp::from_millis(1)).unwrap().record());
        }
    }
    records
}

#[test]
fn the_first_exclusion_is_missed_by_nobody_whose_key_was_not_made() {
    let mut records = heads_until_an_exclusion();
    let exclusion = records.pop().unwrap();
    let last = records.len() as u64;
    let mut request = request("ada");
    request.artifact = request.artifact.map(|artifact| pb::Artifact {
        product: "le_chat".to_owned(),
        kind: "input".to_owned(),
        collected_at: Some(consent::convert::to_timestamp(Timestamp::from_millis(60_000))),
        ..artifact
    });
    let excluded_at = |changes_at| {
        let node = node(lease(EPOCH, 5000));
        records.iter().zip(1..).for_each(|(record, number)| apply(&node, number, record));
        let change = || apply(&node, last + 1, &exclusion);
        let asked = Changing { asked: asked(&request).unwrap(), looks: Cell::new(0), changes_at, change };
        answer_both(&node, &asked).0
    };
    // Never; after it was looked whether there is any; and in the middle of deciding.
    assert_eq!(excluded_at(u32::MAX), [Reason::PlanDefaultIn; 2]);
    assert_eq!([2, 4].map(excluded_at), [[Reason::ArtifactExcluded; 2]; 2]);
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
