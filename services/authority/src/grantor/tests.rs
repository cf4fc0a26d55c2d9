//! The office without a store: what it hears from the tail and from sessions, and what it orders them to do.

use super::*;
use consent_core::digest::Digest;
use consent_core::words::Span;
use std::time::Duration;

const SIDECAR: Incarnation = Incarnation::new([5; 16]);
const STREAM: Stream = Stream(1);
/// What no office takes for an order, on any machine.
const TOO_LONG: Duration = Duration::from_secs(20);

fn place(revision: u64, chain: u8) -> Place {
    let revision = Revision::new(revision).expect("a revision");
    Place { epoch: Epoch::new([1; 16]), revision, chain: Chain::new([chain; 32]), digest: Digest::EMPTY }
}

/// The ways to an office that has registered at revision 10.
struct Ways {
    events: mpsc::Sender<Event>,
    news: mpsc::Sender<News>,
    orders: mpsc::Receiver<Order>,
}

impl Ways {
    async fn hello(&self, at: Place) {
        let message = ToAuthority::Hello { incarnation: SIDECAR, place: Some(at), semantics: 1 };
        self.events.send(Event::Said { stream: STREAM, message }).await.expect("the office is open");
    }

    async fn order(&mut self) -> Order {
        tokio::time::timeout(TOO_LONG, self.orders.recv()).await.expect("in time").expect("an order")
    }
}

/// Plays a sidecar against an office. Nobody does the errands: the row's lease is of no account here.
async fn with_office(play: impl AsyncFnOnce(&mut Ways)) {
    let limits = Limits { sessions: 8, retry_after: Span::from_millis(100) };
    let (errands, _undone) = mpsc::channel(ERRANDS_MAX);
    let (lease, _) = watch::channel(None);
    let noted = Noted::new();
    let office = Office {
        machine: Grantor::new(Incarnation::new([9; 16]), Terms::default(), limits),
        epoch: place(10, 10).epoch,
        sessions: HashMap::new(),
        errands,
        lease: &lease,
        noted: &noted,
    };
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let (news, mut learned) = mpsc::channel(1);
    let (_outcomes, outcomes) = mpsc::channel(1);
    let (orders, received) = mpsc::channel(16);
    let link = Link { orders, end: CancellationToken::new() };
    events.send(Event::Opened { stream: STREAM, link }).await.expect("room");
    let leave = CancellationToken::new();
    let mut ways = Ways { events, news, orders: received };
    tokio::select! {
        over = office.hold(place(10, 10), &mut heard, &mut learned, outcomes, &leave) => {
            panic!("the office is over: {over:?}")
        }
        () = play(&mut ways) => {}
    }
}

#[tokio::test]
async fn a_tail_that_finds_the_epoch_after_the_registration_may_be_further_than_it() {
    with_office(async |ways| {
        ways.hello(place(12, 12)).await;
        assert!(matches!(ways.order().await, Order::LookUp(revision) if revision.get() == 12));
        let (head, chain) = (place(12, 12), Some(place(12, 12).chain));
        ways.events.send(Event::Found { stream: STREAM, head, chain }).await.expect("the office is open");
        ways.news.send(News::AnotherEpoch(head)).await.expect("the office is open");
        assert!(matches!(ways.order().await, Order::Send(ToSidecar::Welcome { .. })));
        assert!(matches!(ways.order().await, Order::Feed(Some(after)) if after == head.revision));
    })
    .await;
}

#[tokio::test]
async fn who_says_hello_before_there_is_a_row_is_told_to_come_again() {
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let (orders, mut received) = mpsc::channel(16);
    let link = Link { orders, end: CancellationToken::new() };
    events.send(Event::Opened { stream: STREAM, link }).await.expect("room");
    drop(events);
    turn_away(&mut heard, Span::from_millis(100)).await;
    let busy = Order::Send(ToSidecar::Unwelcome(Unwelcome::Busy { retry_after: Span::from_millis(100) }));
    assert_eq!(received.recv().await.map(|order| format!("{order:?}")), Some(format!("{busy:?}")));
    assert!(received.recv().await.is_none(), "and its session ends");
}
