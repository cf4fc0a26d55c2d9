//! When it may allow: R4, R5, R6, R10 and R12 as an authority and a caller see them.

use crate::ledger::{Ledger, frames};
use crate::node::{Node, question};
use crate::script::{Authority, long, short, soon, until, values};
use consent::clock;
use consent::convert::sync;
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{Decision, GetStatusRequest, GetStatusResponse, Position, Reason, SidecarState};
use consent_core::confirm::{Start, ToAuthority};
use consent_core::words::{Choice, Nonce, Span};
use consent_sidecar::Sidecar;
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

#[tokio::test]
async fn a_lease_that_nobody_renews_is_over_and_comes_back() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let request = HealthCheckRequest { service: String::new() };
    let watch = HealthClient::new(node.channel.clone()).watch(request).await.expect("a watch");
    let mut watch = watch.into_inner();
    let mut told = async || soon("a status", watch.message()).await.unwrap().expect("it goes on").status();
    assert_eq!(told().await, ServingStatus::NotServing);

    let mut session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &ledger, short()).await;
    let nonce = session.keepalive().await;
    session.grant(nonce, ledger.place).await;
    assert_eq!(told().await, ServingStatus::Serving);
    assert_eq!(told().await, ServingStatus::NotServing);
    assert_eq!(node.ask().await.reason(), Reason::Stale);
    assert_eq!(node.health("").await, ServingStatus::NotServing);
    assert_eq!(node.health("liveness").await, ServingStatus::Serving);
    let status = node.is(SidecarState::Lapsed).await;
    assert!(status.lease_left.is_none() && !status.why.is_empty());

    // The table was kept and followed: a grant is all that it takes.
    let _session = session.grant_from_now_on(ledger.place);
    assert_eq!(told().await, ServingStatus::Serving);
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn a_lease_counts_from_when_its_keepalive_was_sent() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let mut session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &ledger, short()).await;
    let first = session.keepalive().await;
    let heard = clock::now();
    let is_over = || async { clock::now().shortest_since(heard) > short().sidecar_lease() };
    until("the end of the first lease", is_over, |is_over| *is_over).await;
    session.grant(first, ledger.place).await;
    // A grant for a keepalive that was never sent says nothing either.
    session.grant(Nonce(1_000_000), ledger.place).await;
    // Whatever was said before this frame has been heard when it is applied.
    let mut ledger = ledger;
    session.say(frames([ledger.choose(Choice::In)])).await;
    until("the frame", || node.ask(), |a| a.position.as_ref().is_some_and(|p| p.revision == 3)).await;
    assert_eq!(node.ask().await.reason(), Reason::Stale);
}

#[tokio::test]
async fn a_grant_ahead_of_the_table_is_held_until_the_table_is_there() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let mut session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &ledger, long()).await;
    let nonce = session.keepalive().await;
    let (first, second) = (ledger.choose(Choice::Out), ledger.choose(Choice::In));
    session.grant(nonce, ledger.place).await;
    session.say(frames([first])).await;
    let behind =
        until("revision 3", || node.ask(), |a| a.position.as_ref().is_some_and(|p| p.revision == 3)).await;
    assert_eq!(behind.reason(), Reason::Stale);
    assert_eq!(node.status().await.state(), SidecarState::Syncing);
    session.say(frames([second])).await;
    let decided = node.answers(Reason::AccountOptedIn).await;
    assert_eq!(decided.position.map(|position| position.revision), Some(4));
    assert_eq!(node.status().await.state(), SidecarState::Live);
}

#[tokio::test]
async fn an_ack_comes_only_when_no_older_answer_is_valid() {
    let hold = Span::from_millis(200);
    let terms = values(|values| {
        values.sidecar_lease = Span::from_millis(30_000);
        values.replica_lease = Span::from_millis(45_000);
        values.hold = hold;
    });
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let mut session = authority.bring_to_life(&ledger, terms).await;
    node.answers(Reason::PlanDefaultIn).await;
    let change = ledger.choose(Choice::Out);
    let before = clock::now();
    session.say(frames([change])).await;
    session.acked(ledger.place).await;
    assert!(clock::now().longest_since(before) >= hold, "acked while an older answer was valid");
}

#[tokio::test]
async fn an_authority_that_does_not_welcome_is_left() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    authority.hello(None).await.closed().await;
    let says_so = |status: &GetStatusResponse| status.why.contains("did not answer the hello");
    until("the reason", || node.status(), says_so).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn an_authority_that_goes_silent_in_a_snapshot_is_left() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Snapshot).await;
    session.say(sync::snapshot_chunk(ledger.heads(), ledger.place.revision)).await;
    session.closed().await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn an_authority_that_leaves_costs_no_denial() {
    let (mut first, mut second, ledger) = (Authority::start().await, Authority::start().await, Ledger::new());
    second.incarnation = consent_core::words::Incarnation::new([8; 16]);
    let node = Node::start(&[&first, &second]).await;
    // Which of the two is tried first is drawn at random.
    let (leaving, staying) = tokio::select! {
        session = first.hello(None) => {
            session.snapshot(first.incarnation, &ledger, long()).await;
            (session, second)
        }
        session = second.hello(None) => {
            session.snapshot(second.incarnation, &ledger, long()).await;
            (session, first)
        }
    };
    let mut staying = staying;
    let leaving = leaving.grant_from_now_on(ledger.place);
    node.answers(Reason::PlanDefaultIn).await;
    leaving.say(sync::draining()).await;

    let session = staying.hello(Some(ledger.place)).await;
    assert_eq!(node.ask().await.reason(), Reason::PlanDefaultIn);
    session.welcome(staying.incarnation, &ledger, long(), Start::Continue).await;
    let _staying_session = session.grant_from_now_on(ledger.place);
    let last = *leaving.nonces.borrow();
    assert_eq!(
        leaving.closed().await,
        [ToAuthority::Relinquish { last: last.expect("it asked for leases") }]
    );
    assert_eq!(node.ask().await.reason(), Reason::PlanDefaultIn);
    let status = node.status().await;
    assert_eq!((status.state(), status.authority), (SidecarState::Live, staying.url.clone()));
}

/// R12: once `end` has begun, nobody is told ALLOW, and the lease is given back when the hold has passed.
async fn gives_its_lease_back(end: impl FnOnce(Sidecar) -> JoinHandle<()>) {
    let hold = Span::from_millis(200);
    let terms = values(|values| {
        values.sidecar_lease = Span::from_millis(30_000);
        values.replica_lease = Span::from_millis(45_000);
        values.hold = hold;
    });
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, terms).await;
    node.answers(Reason::PlanDefaultIn).await;
    let Node { sidecar, channel, mut decisions } = node;
    let before = clock::now();
    let ending = end(sidecar);
    let last = *session.nonces.borrow();
    let rest = session.closed().await;
    assert!(clock::now().longest_since(before) >= hold, "given back while an answer was valid");
    assert_eq!(rest, [ToAuthority::Relinquish { last: last.expect("it asked for leases") }]);
    if let Ok(answer) = decisions.can_train(question("ada")).await {
        assert_eq!(answer.into_inner().decision(), Decision::Deny);
    }
    drop((channel, decisions));
    soon("the end", ending).await.expect("it ends");
}

#[tokio::test]
async fn a_sidecar_that_stops_gives_its_lease_back_after_the_hold() {
    gives_its_lease_back(|sidecar| tokio::spawn(sidecar.stop())).await;
}

#[tokio::test]
async fn a_sidecar_that_is_dropped_gives_its_lease_back_after_the_hold() {
    gives_its_lease_back(|sidecar| tokio::spawn(async move { drop(sidecar) })).await;
}

#[tokio::test]
async fn a_sidecar_that_stops_says_so_answers_nobody_late_and_ends_its_streams() {
    // Long enough to be asked a few things in.
    let terms = values(|values| {
        values.sidecar_lease = Span::from_millis(30_000);
        values.replica_lease = Span::from_millis(45_000);
        values.hold = Span::from_millis(1_000);
        values.slack = Span::from_millis(30);
    });
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, terms).await;
    let answer = node.answers(Reason::PlanDefaultIn).await;
    let request = HealthCheckRequest { service: String::new() };
    let watch = HealthClient::new(node.channel.clone()).watch(request).await.expect("a watch");
    let mut watch = watch.into_inner();
    assert_eq!(soon("a status", watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    // This one waits for a revision that does not come.
    let mut waiting = Request::new(question("ada"));
    waiting.set_timeout(Duration::from_secs(60));
    let floor = answer.position.map(|position| Position { revision: position.revision + 1, ..position });
    waiting.get_mut().min_position = floor;
    let mut decisions = node.decisions.clone();
    let waiting = tokio::spawn(async move { decisions.can_train(waiting).await });

    let Node { sidecar, channel, decisions } = node;
    let stopping = tokio::spawn(sidecar.stop());
    let told = soon("a status", watch.message()).await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    let end = soon("the end of the stream", watch.message()).await.expect_err("a stream does not just end");
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(end.get_details_error_info().expect("ErrorInfo").reason, "NOT_SERVING");
    let waited = soon("an answer", waiting).await.unwrap().expect("an answer and no error").into_inner();
    assert_eq!((waited.decision(), waited.reason()), (Decision::Deny, Reason::Stale));
    let mut page = SidecarServiceClient::new(channel.clone());
    let status = page.get_status(GetStatusRequest {}).await.expect("it answers still").into_inner();
    assert_eq!((status.state(), status.why.as_str()), (SidecarState::Lapsed, "it is stopping"));
    drop((page, channel, decisions));
    soon("the end", stopping).await.expect("it ends");
}
