//! A snapshot whose stream breaks: the rest of it is asked for, nothing is answered from the part, and where anything
//! about it is in doubt another one is begun.

use crate::ledger::{Ledger, frames};
use crate::node::Node;
use crate::script::{Authority, Session, long};
use consent::convert::sync::{self, Unfinished};
use consent::pb::{Reason, SidecarState};
use consent_core::chain::Chain;
use consent_core::confirm::{Seal, Start};
use consent_core::event::Event;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Choice, IdKey};

/// A sidecar whose first snapshot broke after the policy's head and an opt-out that came in between.
struct Broken {
    authority: Authority,
    node: Node,
    /// As the snapshot began, and as its last frame left it.
    began: Ledger,
    ledger: Ledger,
    /// What is named of it, by the hello of this session.
    named: Option<Unfinished>,
    session: Session,
}

fn first_and_rest(ledger: &Ledger) -> (Vec<HeadRecord>, Vec<HeadRecord>) {
    let mut heads = ledger.heads();
    heads.sort_by_key(|head| head.key);
    let rest = heads.split_off(1);
    (heads, rest)
}

async fn broken() -> Broken {
    let (mut authority, mut began) = (Authority::start().await, Ledger::new());
    let bob = began.account("bob");
    began.append(Event::AccountPut { account: bob, organization: None });
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    assert_eq!(session.unfinished, None, "nothing was begun");
    session.welcome(authority.incarnation, &began, long(), Start::Snapshot).await;
    session.say(sync::snapshot_chunk(first_and_rest(&began).0, began.place.revision)).await;
    let mut ledger = began.clone();
    session.say(frames([ledger.choose(Choice::Out)])).await;
    drop(session);
    let session = authority.hello(None).await;
    node.denies().await;
    assert_eq!(node.status().await.position, None, "a part is no table");
    Broken { authority, node, began, ledger, named: session.unfinished, session }
}

async fn welcome_rest(authority: &Authority, session: &Session, ledger: &Ledger) {
    session.welcome(authority.incarnation, ledger, long(), Start::RestOfSnapshot).await;
}

#[tokio::test]
async fn the_rest_is_enough() {
    let Broken { authority, node, began, mut ledger, named, session } = broken().await;
    let last = first_and_rest(&began).0[0].key;
    assert_eq!(
        named,
        Some(Unfinished {
            reached: ledger.place,
            last,
            newest_chunk: began.place.revision,
            seal: Seal::of(&began.id_key, &ledger.place),
        })
    );
    welcome_rest(&authority, &session, &ledger).await;
    // Read before the opt-out, and no older than where the rest begins.
    session.say(sync::snapshot_chunk(first_and_rest(&began).1, began.place.revision)).await;
    let opted_in = ledger.choose(Choice::In);
    session.say(frames([opted_in, ledger.choose(Choice::Out)])).await;
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn a_rest_that_breaks_is_gone_on_from_again() {
    let Broken { mut authority, node, ledger, named, session, .. } = broken().await;
    welcome_rest(&authority, &session, &ledger).await;
    drop(session);
    let session = authority.hello(None).await;
    assert_eq!(session.unfinished, named);
    welcome_rest(&authority, &session, &ledger).await;
    session.say(sync::snapshot_chunk(first_and_rest(&ledger).1, ledger.place.revision)).await;
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn another_snapshot_forgets_the_part() {
    let Broken { mut authority, node, ledger, session, .. } = broken().await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Snapshot).await;
    // Not even a page of the new one has come.
    drop(session);
    let session = authority.hello(None).await;
    assert_eq!(session.unfinished, None);
    session.snapshot(authority.incarnation, &ledger, long()).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn a_part_that_does_not_fit_its_rest_is_never_answered_from() {
    let Broken { mut authority, node, ledger, session, .. } = broken().await;
    welcome_rest(&authority, &session, &ledger).await;
    // Without one of the accounts.
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    session.closed().await;
    node.denies().await;
    let session = authority.hello(None).await;
    assert_eq!(session.unfinished, None, "what was wrong once is not built on");
    session.snapshot(authority.incarnation, &ledger, long()).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn frames_of_another_history_do_not_go_on_from_the_part() {
    let Broken { mut authority, node, ledger, session, .. } = broken().await;
    welcome_rest(&authority, &session, &ledger).await;
    let mut change = ledger.clone().choose(Choice::In);
    change.frame.chain = Chain::new([5; 32]);
    session.say(frames([change])).await;
    session.closed().await;
    node.denies().await;
    let session = authority.hello(None).await;
    assert_eq!(session.unfinished, None);
}

#[tokio::test]
async fn a_rest_under_another_secret_is_refused() {
    let Broken { mut authority, node, mut ledger, session, .. } = broken().await;
    ledger.id_key = IdKey::new([8; 16]);
    welcome_rest(&authority, &session, &ledger).await;
    session.closed().await;
    assert_eq!(node.is(SidecarState::Resync).await.state(), SidecarState::Resync);
    assert_eq!(authority.hello(None).await.unfinished, None);
}

#[tokio::test]
async fn a_rest_of_nothing_is_refused() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    welcome_rest(&authority, &session, &ledger).await;
    session.closed().await;
    // Nor does one who has a table take the rest of a snapshot: it says hello again, and keeps the table.
    let granting = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    granting.hang_up().await;
    let session = authority.hello(Some(ledger.place)).await;
    welcome_rest(&authority, &session, &ledger).await;
    session.closed().await;
    authority.hello(Some(ledger.place)).await;
}

#[tokio::test]
async fn pages_that_no_snapshot_began_with_are_refused() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let _node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    let welcome = |start| {
        let (epoch, revision) = (ledger.epoch, ledger.place.revision);
        sync::welcome(authority.incarnation, epoch, start, &long(), &ledger.id_key, revision)
    };
    session.say(welcome(Start::Snapshot)).await;
    session.say(sync::snapshot_chunk(ledger.heads(), ledger.place.revision)).await;
    session.closed().await;
    let session = authority.hello(None).await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Snapshot).await;
    session.say(sync::snapshot_begin(ledger.place)).await;
    session.closed().await;
}
