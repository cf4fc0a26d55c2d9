//! What callers are told, in each state and of each question.

use crate::ledger::{Ledger, frames};
use crate::node::{Node, question};
use crate::script::{Authority, long, soon};
use consent::pb::{
    BatchCanTrainRequest, CanTrainRequest, Decision, GetStatusResponse, Position, Reason, SidecarState,
};
use consent_core::words::Choice;
use std::time::Duration;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

#[tokio::test]
async fn without_an_authority_it_denies_and_says_why() {
    let authority = Authority::start().await;
    let node = Node::start(&[&authority]).await;
    let answer = node.ask().await;
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::NotReady));
    assert!(answer.position.is_none() && answer.valid_for.is_none() && !answer.r#final);
    for service in ["", "consent.v1.DecisionService", "consent.v1.SidecarService"] {
        assert_eq!(node.health(service).await, ServingStatus::NotServing, "{service}");
    }
    assert_eq!(node.health("liveness").await, ServingStatus::Serving);
    let GetStatusResponse { why, position, lease_left, incarnation, .. } = node.is(SidecarState::Cold).await;
    assert!(!why.is_empty() && position.is_none() && lease_left.is_none());
    assert_eq!(incarnation.len(), 16);
}

#[tokio::test]
async fn a_snapshot_alone_allows_nothing_and_a_grant_does() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let mut session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &ledger, long()).await;
    let nonce = session.keepalive().await;
    let denied = node.answers(Reason::Stale).await;
    assert_eq!(denied.position, Some(Position { epoch: vec![1; 16].into(), revision: 2 }));
    assert_eq!(node.health("").await, ServingStatus::NotServing);
    assert_eq!(node.status().await.state(), SidecarState::Syncing);

    session.grant(nonce, ledger.place).await;
    let allowed = node.answers(Reason::PlanDefaultIn).await;
    assert_eq!(allowed.decision(), Decision::Allow);
    assert_eq!(allowed.position, denied.position);
    let valid_for = Duration::try_from(allowed.valid_for.expect("an ALLOW is valid for a while")).unwrap();
    assert!(valid_for > Duration::ZERO && valid_for <= Duration::from(long().hold()));
    assert_eq!(node.health("").await, ServingStatus::Serving);
    assert_eq!(node.health("consent.v1.DecisionService").await, ServingStatus::Serving);
    let status = node.is(SidecarState::Live).await;
    assert_eq!((status.why.as_str(), status.accounts), ("", 1));
    assert_eq!((status.authority, status.position), (authority.url.clone(), denied.position));
    assert!(status.lease_left.is_some());
}

#[tokio::test]
async fn an_opt_out_denies_once_its_frame_is_applied() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    session.say(frames([ledger.choose(Choice::Out)])).await;
    let denied = node.answers(Reason::AccountOptedOut).await;
    assert_eq!(denied.decision(), Decision::Deny);
    assert_eq!(denied.position.map(|position| position.revision), Some(3));
}

#[tokio::test]
async fn a_batch_is_answered_in_order_from_one_position() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    let mut undated = question("ada");
    undated.artifact.as_mut().unwrap().collected_at = None;
    let mut elsewhere = question("ada");
    elsewhere.artifact.as_mut().unwrap().product = "ai_studio".to_owned();
    let requests = vec![question("ada"), question("bob"), undated, elsewhere];
    let batch = BatchCanTrainRequest { requests, min_position: None };
    let response = node.decisions.clone().batch_can_train(batch).await.expect("answers").into_inner();
    let reasons: Vec<Reason> = response.answers.iter().map(|answer| answer.reason()).collect();
    assert_eq!(
        reasons,
        [Reason::PlanDefaultIn, Reason::UnknownAccount, Reason::MissingCollectedAt, Reason::UnknownProduct]
    );
    assert_eq!(response.position.map(|position| position.revision), Some(2));
    assert!(response.valid_for.is_some());
}

fn at_least(revision: u64, epoch: u8) -> CanTrainRequest {
    CanTrainRequest {
        min_position: Some(Position { epoch: vec![epoch; 16].into(), revision }),
        ..question("ada")
    }
}

#[tokio::test]
async fn a_min_position_is_waited_for() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;

    let mut decisions = node.decisions.clone();
    let mut request = Request::new(at_least(3, 1));
    request.set_timeout(Duration::from_secs(20));
    let call = decisions.can_train(request);
    tokio::pin!(call);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut call).await;
    assert!(early.is_err(), "it answered before revision 3 was there: {early:?}");
    session.say(frames([ledger.choose(Choice::Out)])).await;
    let answer = soon("the answer", call).await.expect("an answer").into_inner();
    assert_eq!(answer.reason(), Reason::AccountOptedOut);
    assert_eq!(answer.position.map(|position| position.revision), Some(3));
}

#[tokio::test]
async fn a_min_position_that_does_not_come_is_stale_and_no_error() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    // What the server waits for is a little less than what it is told; tonic's own client must not be first.
    let within = Duration::from_secs(2);
    let mut request = Request::new(at_least(3, 1));
    request.set_timeout(within);
    let late = node.decisions.clone().can_train(request).await.expect("an answer").into_inner();
    assert_eq!((late.decision(), late.reason()), (Decision::Deny, Reason::Stale));
    let mut request = Request::new(at_least(1, 2));
    request.set_timeout(within);
    let foreign = node.decisions.clone().can_train(request).await.expect("an answer").into_inner();
    assert_eq!(foreign.reason(), Reason::Stale);
    let reached = node.decisions.clone().can_train(at_least(2, 1)).await.expect("an answer").into_inner();
    assert_eq!(reached.reason(), Reason::PlanDefaultIn);
}

/// The field that a status names.
fn field(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("every status says why");
    assert_eq!(info.domain, "consent.v1");
    info.metadata.get("field").cloned().expect("the field is named")
}

#[tokio::test]
async fn a_wrong_request_is_refused_by_its_field_in_every_state() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    refuse_all(&node).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    refuse_all(&node).await;
    node.answers(Reason::PlanDefaultIn).await;
}

type Change = fn(&mut CanTrainRequest);

async fn refuse_all(node: &Node) {
    let mut decisions = node.decisions.clone();
    let changed = |change: Change| {
        let mut request = question("ada");
        change(&mut request);
        request
    };
    let wrong: [(&str, Change); 8] = [
        ("account", |r| r.account.clear()),
        ("account", |r| r.account = "x".repeat(129)),
        ("account", |r| r.account = "a\tb".to_owned()),
        ("artifact", |r| r.artifact = None),
        ("artifact.id", |r| r.artifact.as_mut().unwrap().id.clear()),
        ("artifact.collected_at.nanos", |r| {
            r.artifact.as_mut().unwrap().collected_at.as_mut().unwrap().nanos = -1;
        }),
        ("artifact.collected_at.seconds", |r| {
            r.artifact.as_mut().unwrap().collected_at.as_mut().unwrap().seconds = i64::MAX;
        }),
        ("min_position.epoch", |r| r.min_position = Some(Position::default())),
    ];
    for (named, change) in wrong {
        let status = decisions.can_train(changed(change)).await.expect_err("it is wrong");
        assert_eq!(field(&status), named);
        let requests = vec![question("ada"), question("ada"), question("ada"), changed(change)];
        let batch = BatchCanTrainRequest { requests, min_position: None };
        let status = decisions.batch_can_train(batch).await.expect_err("it is wrong");
        let named = named.replace("min_position.epoch", "min_position");
        assert_eq!(field(&status), format!("requests[3].{named}"));
    }
    for count in [0, 1001] {
        let batch = BatchCanTrainRequest { requests: vec![question("ada"); count], min_position: None };
        let status = decisions.batch_can_train(batch).await.expect_err("it is wrong");
        assert_eq!(field(&status), "requests", "{count}");
    }
}
