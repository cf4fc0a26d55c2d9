//! Answers without a socket: what the process is told that the sidecar is in.

use crate::ledger::{Ledger, frames};
use crate::node::Node;
use crate::script::{Authority, long};
use consent::clock;
use consent::convert::decision::Asked;
use consent::pb;
use consent_core::decision::Reason;
use consent_core::words::{Choice, Span, Timestamp};
use consent_sidecar::{Answer, Answers};

/// May a prompt of this account from a minute ago be trained on?
fn ask(answers: &Answers, account: &str) -> Answer {
    let collected_at = Timestamp::from_millis(clock::wall().millis() - 60_000);
    let asked = Asked::new(account, "chat-1", "le_chat", "input", Some(collected_at), false);
    answers.can_train(&asked.expect("a question"))
}

#[tokio::test]
async fn it_is_told_what_callers_are_told() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let answers = node.sidecar.answers();
    let answer = ask(&answers, "ada");
    assert_eq!((answer.decision.reason, answer.position), (Reason::NotReady, None));

    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(pb::Reason::PlanDefaultIn).await;
    let answer = ask(&answers, "ada");
    assert_eq!(answer.decision.reason, Reason::PlanDefaultIn);
    assert_eq!(answer.position.map(|position| position.revision.get()), Some(2));
    assert!(answer.valid_for > Span::ZERO && answer.valid_for <= long().hold());
    let answer = ask(&answers, "bob");
    assert_eq!((answer.decision.reason, answer.valid_for), (Reason::UnknownAccount, Span::ZERO));

    session.say(frames([ledger.choose(Choice::Out)])).await;
    node.answers(pb::Reason::AccountOptedOut).await;
    assert_eq!(ask(&answers, "ada").decision.reason, Reason::AccountOptedOut);
}

#[tokio::test]
async fn it_is_denied_once_the_sidecar_has_stopped() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(pb::Reason::PlanDefaultIn).await;
    let answers = node.sidecar.answers();
    assert!(ask(&answers, "ada").decision.is_allow());
    node.sidecar.stop().await;
    assert!(!ask(&answers, "ada").decision.is_allow());
}

#[test]
fn a_question_without_an_id_is_none() {
    assert!(Asked::new("", "chat-1", "le_chat", "input", None, false).is_err());
    assert!(Asked::new("ada", "chat\n1", "le_chat", "input", None, false).is_err());
}
