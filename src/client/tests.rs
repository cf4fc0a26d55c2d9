//! The guard against a sidecar that says whatever a script tells it to, and what the guard makes of it.

use super::script::{Line, Scripted, allow, deny};
use super::*;
use crate::clock;
use crate::status::status;
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, Revision};
use tonic::{Code, Status};

/// Longer than any test waits, and shorter than one that never ends.
const LONG: Span = Span::from_millis(60_000);
const SHORT: Span = Span::from_millis(50);
const NOTHING: Span = Span::from_nanos(1);

fn question(account: &str) -> Question {
    Question {
        account: account.to_owned(),
        artifact: "chat-1".to_owned(),
        product: "le_chat".to_owned(),
        kind: "input".to_owned(),
        collected_at: Timestamp::from_millis(1_500),
        is_incognito: true,
    }
}

fn guard(scripted: &Scripted) -> Guard {
    Guard::connect(&scripted.endpoint()).expect("a guard")
}

async fn scripted(lines: impl IntoIterator<Item = Line>) -> (Scripted, Guard) {
    let scripted = Scripted::start(lines.into_iter().collect::<Vec<_>>()).await;
    let guard = guard(&scripted);
    (scripted, guard)
}

/// Uses ada's data, and says how that went: none, or the code of why there is no answer, or the reason.
async fn used(guard: &Guard, within: Span) -> Result<(), Result<Reason, Code>> {
    let mut uses = 0;
    let done = guard.with(&question("ada"), within, |_permit| uses += 1).await;
    assert_eq!(uses, u32::from(done.is_ok()), "used once, or not at all");
    done.map_err(why)
}

fn why(deny: Deny) -> Result<Reason, Code> {
    match deny {
        Deny::Decided { reason, .. } => Ok(reason),
        Deny::Unanswered(status) => Err(status.code()),
    }
}

fn said(answers: Vec<Answer>) -> Vec<Option<Result<Reason, Code>>> {
    let one = |answer| match answer {
        Answer::Allow(_) => None,
        Answer::Deny(deny) => Some(why(deny)),
    };
    answers.into_iter().map(one).collect()
}

#[tokio::test]
async fn an_allow_is_used_and_says_what_it_rests_on() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    let before = clock::now();
    let revision = guard.with(&question("ada"), LONG, |permit| permit.position().revision.get()).await;
    assert_eq!(revision.unwrap(), 7);
    let Answer::Allow(allow) = guard.can_train(&question("ada"), LONG).await else { panic!("an ALLOW") };
    assert_eq!((allow.reason(), allow.valid_for()), (Reason::PlanDefaultIn, LONG));
    assert!(allow.asked().boot >= before.boot && allow.asked().raw >= before.raw);
    let asked = &scripted.questions()[0];
    assert_eq!((asked.account.as_str(), asked.min_position.as_ref()), ("ada", None));
    let artifact = asked.artifact.as_ref().unwrap();
    assert_eq!((artifact.id.as_str(), artifact.product.as_str()), ("chat-1", "le_chat"));
    assert_eq!((artifact.kind.as_str(), artifact.incognito), ("input", true));
    let at = artifact.collected_at.unwrap();
    assert_eq!((at.seconds, at.nanos), (1, 500_000_000));
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_it_counts_is_never_used() {
    let late = std::time::Duration::from_millis(40);
    let (scripted, guard) = scripted([Line::Late(late, allow(Span::from_millis(20)))]).await;
    let within = Span::from_millis(300);
    assert_eq!(used(&guard, within).await, Err(Err(Code::DeadlineExceeded)));
    assert!(scripted.questions().len() > 1, "it is asked again");
    let answer = guard.can_train(&question("ada"), within).await;
    assert!(matches!(answer, Answer::Deny(_)), "{answer:?}");
    scripted.say([Line::Say(allow(NOTHING))]);
    let all = guard.can_train_all(&[question("ada")], within).await;
    assert_eq!(said(all), [Some(Err(Code::DeadlineExceeded))]);
    assert!(scripted.batches().len() > 1, "it is asked again");
}

#[tokio::test]
async fn an_allow_that_is_over_is_asked_for_again() {
    let over = Line::Say(allow(NOTHING));
    let (scripted, guard) = scripted([over.clone(), over, Line::Say(allow(LONG))]).await;
    assert_eq!(used(&guard, LONG).await, Ok(()));
    assert_eq!(scripted.questions().len(), 3);
}

#[tokio::test]
async fn what_passes_is_asked_again_and_what_stays_is_not() {
    let starting = || Line::Refuse(status(Refusal::NotServing));
    let stale = || Line::Say(deny(Reason::Stale));
    let lines = [stale(), Line::Say(deny(Reason::NotReady)), starting(), Line::Say(allow(LONG))];
    let (scripted, guard) = scripted(lines).await;
    assert_eq!(used(&guard, LONG).await, Ok(()));
    assert_eq!(scripted.questions().len(), 4);

    for reason in Reason::ALL.into_iter().filter(|reason| !reason.is_allow()) {
        if matches!(reason, Reason::Stale | Reason::NotReady) {
            continue;
        }
        let asked = scripted.questions().len();
        scripted.say([Line::Say(deny(reason)), Line::Say(allow(LONG))]);
        assert_eq!(used(&guard, LONG).await, Err(Ok(reason)));
        assert_eq!(scripted.questions().len(), asked + 1, "{reason}");
    }
    // What does not pass in time is said as it was.
    scripted.say([stale()]);
    assert_eq!(used(&guard, SHORT).await, Err(Ok(Reason::Stale)));
    scripted.say([stale(), Line::Never]);
    assert_eq!(used(&guard, SHORT).await, Err(Ok(Reason::Stale)));
}

#[tokio::test]
async fn what_is_no_allow_is_used_by_nobody() {
    let (scripted, guard) = scripted([Line::Never]).await;
    let changed = |change: fn(&mut crate::pb::CanTrainResponse)| {
        let mut answer = allow(LONG);
        change(&mut answer);
        Line::Say(answer)
    };
    for line in [
        changed(|answer| answer.decision = 0),
        changed(|answer| answer.decision = 3),
        changed(|answer| answer.decision = 2),
        changed(|answer| answer.reason = 99),
        changed(|answer| answer.reason = 16),
        changed(|answer| answer.valid_for = None),
        changed(|answer| answer.valid_for.as_mut().unwrap().seconds = -1),
        changed(|answer| answer.position = None),
        Line::Say(crate::pb::CanTrainResponse::default()),
        Line::Refuse(status(Refusal::Internal)),
        Line::Refuse(Status::permission_denied("")),
    ] {
        scripted.say([line.clone()]);
        let denied = used(&guard, LONG).await;
        assert!(matches!(denied, Err(Err(Code::Internal | Code::PermissionDenied))), "{line:?}: {denied:?}");
    }
}

#[tokio::test]
async fn a_server_s_wish_to_be_left_alone_is_heard() {
    let overloaded = |retry_after| Line::Refuse(status(Refusal::Overloaded { retry_after }));
    let (scripted, guard) = scripted([overloaded(LONG)]).await;
    assert_eq!(used(&guard, Span::from_millis(30_000)).await, Err(Err(Code::ResourceExhausted)));
    assert_eq!(scripted.questions().len(), 1);
    scripted.say([overloaded(SHORT), Line::Say(allow(LONG))]);
    let before = clock::now();
    assert_eq!(used(&guard, LONG).await, Ok(()));
    assert!(clock::now().longest_since(before) >= SHORT);
}

#[tokio::test]
async fn nobody_waits_longer_than_he_said() {
    let (scripted, guard) = scripted([Line::Never]).await;
    assert_eq!(used(&guard, SHORT).await, Err(Err(Code::DeadlineExceeded)));
    // The server knows it as well, and in whichever unit it is no more than was said.
    let timeout = scripted.timeouts().pop().unwrap();
    let nanos: u64 = match timeout.split_at(timeout.len() - 1) {
        (digits, "n") => digits.parse().unwrap(),
        (digits, "u") => digits.parse::<u64>().unwrap() * 1_000,
        (digits, "m") => digits.parse::<u64>().unwrap() * 1_000_000,
        _ => panic!("{timeout}"),
    };
    assert!(nanos > 0 && nanos <= SHORT.nanos(), "{timeout}");
}

#[tokio::test]
async fn a_server_that_was_killed_is_found_again() {
    let (mut scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    assert_eq!(used(&guard, LONG).await, Ok(()));
    scripted.kill().await;
    let denied = used(&guard, SHORT).await;
    assert!(matches!(denied, Err(Err(Code::Unavailable | Code::DeadlineExceeded))), "{denied:?}");
    // One that is asked meanwhile waits for the restart, and has his answer from it.
    let waits = used(&guard, LONG);
    let (answer, ()) = tokio::join!(waits, scripted.restart());
    assert_eq!(answer, Ok(()));
}

#[tokio::test]
async fn a_call_that_a_killed_server_leaves_unanswered_is_asked_of_the_next() {
    let (mut scripted, guard) = scripted([Line::Never]).await;
    let restart = async {
        while scripted.questions().is_empty() {
            tokio::task::yield_now().await;
        }
        scripted.kill().await;
        scripted.say([Line::Say(allow(LONG))]);
        scripted.restart().await;
    };
    let (answer, ()) = tokio::join!(used(&guard, LONG), restart);
    assert_eq!(answer, Ok(()));
}

#[tokio::test]
async fn a_server_that_hangs_is_left_and_asked_again_when_it_is_back() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    assert_eq!(used(&guard, LONG).await, Ok(()));
    let hangs = scripted.hang().await;
    let left = async {
        while guard.standing().0 > 0 {
            let denied = used(&guard, SHORT).await;
            assert!(matches!(denied, Err(Err(Code::Unavailable | Code::DeadlineExceeded))), "{denied:?}");
        }
    };
    tokio::time::timeout(LONG.into(), left).await.expect("no sign of life, and its connection is still used");
    drop(hangs);
    assert_eq!(used(&guard, LONG).await, Ok(()));
    assert_eq!(guard.standing(), (1, false));
}

#[tokio::test]
async fn nobody_there_is_a_deny_with_a_reason() {
    let home = tempfile::tempdir().unwrap();
    let guard = Guard::connect(&format!("unix://{}/none", home.path().display())).unwrap();
    let Answer::Deny(deny) = guard.can_train(&question("ada"), SHORT).await else { panic!("a DENY") };
    let said = deny.to_string();
    assert!(said.contains("nobody answers at unix://") && said.contains("No such file"), "{said}");
    // One who listens and takes no connection is not there either.
    let path = home.path().join("silent");
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let guard = Guard::connect(&format!("unix://{}", path.display())).unwrap();
    assert_eq!(used(&guard, SHORT).await, Err(Err(Code::DeadlineExceeded)));
    assert_eq!(guard.standing().0, 0);
}

#[tokio::test]
async fn a_connection_that_ended_with_its_runtime_is_replaced() {
    let (_scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    let other = guard.clone();
    let elsewhere = move || tokio::runtime::Runtime::new().unwrap().block_on(used(&other, LONG));
    assert_eq!(tokio::task::spawn_blocking(elsewhere).await.unwrap(), Ok(()));
    assert_eq!(used(&guard, LONG).await, Ok(()));
}

#[tokio::test]
async fn no_more_is_asked_at_once_than_the_limit_says() {
    let scripted = Scripted::start([Line::Never]).await;
    let limits = Limits { connections: 2, in_flight: 8 };
    let guard = Guard::connect_within(&scripted.endpoint(), limits).unwrap();
    let asked = |guard: Guard| async move { used(&guard, LONG).await };
    let mut waiting = Vec::new();
    for enough in [4, 8] {
        waiting.extend((waiting.len()..enough).map(|_| tokio::spawn(asked(guard.clone()))));
        while scripted.questions().len() < enough || guard.standing() == (1, true) {
            tokio::task::yield_now().await;
        }
        assert_eq!(guard.standing(), (2, false));
    }
    assert_eq!(used(&guard.clone(), LONG).await, Err(Err(Code::ResourceExhausted)));
    assert_eq!(
        said(guard.can_train_all(&[question("ada")], LONG).await),
        [Some(Err(Code::ResourceExhausted))]
    );
    // A caller who no longer waits makes room.
    scripted.say([Line::Say(allow(LONG))]);
    for task in waiting {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(used(&guard, LONG).await, Ok(()));
    assert_eq!(guard.standing(), (2, false));
}

#[tokio::test]
async fn a_lone_caller_has_one_connection() {
    let (_scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    for _ in 0..5 {
        assert_eq!(used(&guard, LONG).await, Ok(()));
    }
    assert_eq!(guard.standing(), (1, false));
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_only_what_passes_is_asked_again() {
    let stale = Line::Say(deny(Reason::Stale));
    let lines = [stale, Line::Say(deny(Reason::Erased)), Line::Say(allow(LONG))];
    let (scripted, guard) = scripted(lines).await;
    let mut questions: Vec<_> = (0..1001).map(|n| question(&format!("account-{n}"))).collect();
    questions[2].artifact.clear();
    let answers = said(guard.can_train_all(&questions, LONG).await);
    assert_eq!(answers.len(), 1001);
    assert_eq!(answers[..4], [None, Some(Ok(Reason::Erased)), Some(Err(Code::InvalidArgument)), None]);
    assert!(answers[4..].iter().all(Option::is_none));
    let counts: Vec<_> = scripted.batches().iter().map(|batch| batch.requests.len()).collect();
    assert_eq!(counts, [1000, 1]);
    assert_eq!(scripted.batches()[1].requests[0].account, "account-0");
    assert!(guard.can_train_all(&[], LONG).await.is_empty());
}

#[tokio::test]
async fn no_more_batches_are_asked_at_once_than_there_are_seats() {
    let scripted = Scripted::start([Line::Say(allow(LONG))]).await;
    scripted.meet(2);
    let limits = Limits { connections: 1, in_flight: 2 };
    let guard = Guard::connect_within(&scripted.endpoint(), limits).unwrap();
    let questions: Vec<_> = (0..3001).map(|n| question(&format!("account-{n}"))).collect();
    let all = tokio::spawn(async move { guard.can_train_all(&questions, LONG).await });
    assert!(said(all.await.unwrap()).iter().all(Option::is_none));
    assert_eq!(scripted.most(), 2);
}

#[tokio::test]
async fn as_many_batches_are_asked_at_once_as_the_bound_says() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    scripted.meet(4);
    let questions: Vec<_> = (0..7001).map(|n| question(&format!("account-{n}"))).collect();
    // In a task of its own, as callers do.
    let all = tokio::spawn(async move { guard.can_train_all(&questions, LONG).await });
    let answers = said(all.await.unwrap());
    assert!(answers.len() == 7001 && answers.iter().all(Option::is_none));
    assert_eq!(scripted.most(), 4);
    let mut counts: Vec<_> = scripted.batches().iter().map(|batch| batch.requests.len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1000, 1000, 1000, 1000, 1000, 1000, 1000]);
}

#[tokio::test]
async fn a_name_that_is_too_long_to_be_one_is_denied_alone_and_named() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    let [mut product, mut kind] = [question("ada"), question("ada")];
    product.product = "p".repeat(33);
    kind.kind = "k".repeat(1 << 20);
    let questions = [product, kind, question("ada")];
    let answers = guard.can_train_all(&questions, LONG).await;
    for (answer, field) in answers.iter().zip(["artifact.product", "artifact.kind"]) {
        let Answer::Deny(Deny::Unanswered(status)) = answer else { panic!("{answer:?}") };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field), "{status}");
    }
    assert!(matches!(answers[2], Answer::Allow(_)));
    assert_eq!(scripted.batches()[0].requests.len(), 1);
    assert!(guard.with(&questions[0], LONG, |_| ()).await.is_err());
    assert!(scripted.questions().is_empty());
}

#[tokio::test]
async fn a_batch_that_fails_denies_all_of_it() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG)), Line::Never]).await;
    let questions = [question("ada"), question("bob")];
    let internal = Some(Err(Code::Internal));
    assert_eq!(said(guard.can_train_all(&questions, LONG).await), [internal, internal]);
    let away = |retry_after| Line::Refuse(status(Refusal::Overloaded { retry_after }));
    scripted.say([away(LONG)]);
    let exhausted = Some(Err(Code::ResourceExhausted));
    assert_eq!(said(guard.can_train_all(&questions, SHORT).await), [exhausted, exhausted]);
    scripted.say([away(Span::ZERO), Line::Say(allow(LONG))]);
    assert_eq!(said(guard.can_train_all(&questions, LONG).await), [None, None]);
}

#[tokio::test]
async fn nothing_is_used_from_before_the_position_that_is_asked_for() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    let at = |epoch: u8, revision| Position {
        epoch: Epoch::new([epoch; 16]),
        revision: Revision::new(revision).unwrap(),
    };
    assert_eq!(used(&guard.not_before(at(1, 7)), LONG).await, Ok(()));
    let sent = scripted.questions()[0].min_position.clone().unwrap();
    assert_eq!((sent.epoch.as_ref(), sent.revision), ([1; 16].as_slice(), 7));
    for older in [at(1, 8), at(2, 7)] {
        assert_eq!(used(&guard.not_before(older), LONG).await, Err(Err(Code::Internal)));
        let all = guard.not_before(older).can_train_all(&[question("ada")], LONG).await;
        assert_eq!(said(all), [Some(Err(Code::Internal))]);
    }
    let batch = scripted.batches().pop().unwrap();
    assert!(batch.min_position.is_some() && batch.requests[0].min_position.is_none());
}

#[tokio::test]
async fn a_question_that_is_wrong_is_denied_and_not_sent() {
    let (scripted, guard) = scripted([Line::Say(allow(LONG))]).await;
    let Err(Deny::Unanswered(status)) = guard.with(&question(""), LONG, |_| ()).await else {
        panic!("a status")
    };
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("account"), "{status}");
    assert!(scripted.questions().is_empty());
}

#[test]
fn what_a_guard_cannot_be_made_of_is_named() {
    let made = |endpoint: &str, connections, in_flight| {
        let made = Guard::connect_within(endpoint, Limits { connections, in_flight });
        made.map(|_| ()).map_err(|wrong| wrong.to_string())
    };
    let here = "unix:///run/consent.sock";
    assert_eq!(made(here, 1, 1), Ok(()));
    assert_eq!(made(here, 0, 1).unwrap_err(), "the field connections is 0, it must be 1 to 16");
    assert!(made(here, 17, 1).unwrap_err().contains("connections is 17"));
    assert!(made(here, 1, 0).unwrap_err().contains("in_flight is 0"));
    assert!(made(here, 1, usize::MAX).unwrap_err().contains("in_flight"));
    assert!(made("http://10.0.0.1:7402", 1, 1).unwrap_err().contains("endpoint"));
}
