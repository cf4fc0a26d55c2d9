//! A mirror without a socket: the same answers, in the process that it is in.

use crate::ledger::{Ledger, frames};
use crate::node::Node;
use crate::script::{Authority, long, soon, until};
use consent::clock;
use consent::pb;
use consent_core::confirm::ToAuthority;
use consent_core::decision::Reason;
use consent_core::words::{Choice, Timestamp};
use consent_sidecar::{Answer, Artifact, Mirror, MirrorConfig, StartError, State};

fn mirror(authority: &Authority) -> Mirror {
    Mirror::start(MirrorConfig::new(vec![authority.url.clone()])).expect("it starts")
}

/// A prompt from a minute ago.
fn prompt() -> Artifact<'static> {
    let collected_at = Timestamp::from_millis(clock::wall().millis() - 60_000);
    let (product, kind) = ("le_chat", "input");
    Artifact { id: "chat-1", product, kind, collected_at: Some(collected_at), is_incognito: false }
}

fn ask(mirror: &Mirror, account: &str) -> Answer {
    mirror.can_train(account, &prompt()).expect("a question")
}

fn revision(answer: &Answer) -> Option<u64> {
    answer.position.map(|position| position.revision.get())
}

#[tokio::test]
async fn it_answers_from_its_own_table_under_its_own_lease() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let mirror = mirror(&authority);
    let answer = ask(&mirror, "ada");
    assert_eq!((answer.decision.reason, answer.position), (Reason::NotReady, None));
    assert!(!mirror.is_ready() && mirror.status().state == State::Cold && !mirror.status().why.is_empty());

    let session = authority.bring_to_life(&ledger, long()).await;
    soon("the lease", mirror.ready()).await;
    let began = clock::now();
    let answer = ask(&mirror, "ada");
    assert!(answer.permits());
    assert_eq!((answer.decision.reason, revision(&answer)), (Reason::PlanDefaultIn, Some(2)));
    let over = answer.valid_until().expect("an ALLOW is over some time");
    assert!(over.longest_since(began) >= long().hold());
    assert!(over.shortest_since(clock::now()) <= long().hold());
    let answer = ask(&mirror, "bob");
    assert_eq!((answer.decision.reason, answer.valid_until()), (Reason::UnknownAccount, None));
    let status = mirror.status();
    assert_eq!((status.state, status.why.as_str(), status.accounts), (State::Live, "", 1));
    assert_eq!((status.authority, status.position), (authority.url.clone(), answer.position));

    session.say(frames([ledger.choose(Choice::Out)])).await;
    let opted_out = |answer: &Answer| answer.decision.reason == Reason::AccountOptedOut;
    let answer = until("the opt-out", async || ask(&mirror, "ada"), opted_out).await;
    assert!(!answer.permits() && revision(&answer) == Some(3));
}

#[tokio::test]
async fn it_gives_its_lease_back_and_denies_from_then_on() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let mirror = mirror(&authority);
    let session = authority.bring_to_life(&ledger, long()).await;
    soon("the lease", mirror.ready()).await;
    assert!(ask(&mirror, "ada").permits());
    soon("the stop", mirror.stop()).await;
    let answer = ask(&mirror, "ada");
    assert!(!answer.decision.is_allow() && !mirror.is_ready());
    soon("the end", mirror.ended()).await;
    let said = session.closed().await;
    assert!(matches!(said[..], [ToAuthority::Relinquish { .. }]), "{said:?}");
    // Whoever waits for it now is not kept.
    soon("an end of waiting", mirror.ready()).await;
}

#[tokio::test]
async fn who_drops_it_gives_its_lease_back_too() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let mirror = mirror(&authority);
    let session = authority.bring_to_life(&ledger, long()).await;
    soon("the lease", mirror.ready()).await;
    drop(mirror);
    let said = session.closed().await;
    assert!(matches!(said[..], [ToAuthority::Relinquish { .. }]), "{said:?}");
}

#[tokio::test]
async fn asking_allocates_nothing() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let mirror = mirror(&authority);
    let _session = authority.bring_to_life(&ledger, long()).await;
    soon("the lease", mirror.ready()).await;
    let (mut permitted, artifact) = (0, prompt());
    let mut all = || {
        for account in ["ada", "bob", "ada"] {
            permitted += u32::from(mirror.can_train(account, &artifact).is_ok_and(|answer| answer.permits()));
        }
    };
    // A thread's first look at a shared value takes it a place to say so.
    all();
    assert_eq!(allocation_counter::measure(all).count_total, 0);
    assert!(permitted > 0, "nothing was allowed");
}

#[tokio::test]
async fn a_sidecar_s_callers_are_told_what_its_own_process_is() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    let told = node.answers(pb::Reason::PlanDefaultIn).await;
    let answer = ask(node.sidecar.mirror(), "ada");
    assert_eq!(Some(answer.position.expect("a state").into()), told.position);
    assert_eq!(answer.decision.reason, Reason::PlanDefaultIn);
}

#[tokio::test]
async fn a_question_that_is_none_is_named_and_so_is_a_start_that_cannot_be() {
    let authority = Authority::start().await;
    let mirror = mirror(&authority);
    let bad = mirror.can_train("", &prompt()).expect_err("no account");
    assert_eq!(bad.to_string(), "the account's id is empty");
    let bad = mirror.can_train("ada", &Artifact { id: "chat\n1", ..prompt() }).expect_err("no id");
    assert_eq!(bad.to_string(), "the artifact's id has a control character at byte 4");
    let nobody = Mirror::start(MirrorConfig::new(Vec::new()));
    assert!(matches!(nobody, Err(StartError::NoAuthority)));
    let open = Some("0.0.0.0:0".parse().expect("an address"));
    let open = MirrorConfig { metrics: open, ..MirrorConfig::new(vec![authority.url.clone()]) };
    assert!(matches!(Mirror::start(open), Err(StartError::NotLoopback(_))));
}
