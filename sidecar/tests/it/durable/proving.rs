//! What happens to the node while its copy is being proven, which takes as long as Redis does.

use super::stage::Stage;
use crate::ledger::frames;
use crate::node::Node;
use crate::script::{Granting, Session, long};
use consent::convert::sync::Change;
use consent::pb::{Reason, SidecarState};
use consent_core::confirm::{Place, Start, ToAuthority};
use consent_core::words::Choice;
use std::time::Duration;
use tonic::Status;

/// More changes than a stream holds that nobody reads.
const MANY: usize = 40_001;
/// How many of them in one message: a stream holds many messages beside the bytes of its window.
const BATCH: usize = 32;
/// How long the authority leaves a message untaken. Redis stands still for as long, and may for longer.
const TAKE_WITHIN: Duration = Duration::from_secs(1);

/// A node whose copy is being proven for as long as its Redis stands still, the session that waits for it, where the
/// copy stands, and the changes since.
async fn proving(stage: &mut Stage, missed: usize) -> (Node, Session, Place, Vec<Change>) {
    drop(stage.first_run().await);
    let copied = stage.ledger.place;
    let node = stage.start_node().await;
    let session = stage.hello_from_copy(&node, copied).await;
    let choices = [Choice::Out, Choice::In].into_iter().cycle();
    let missed = choices.take(missed).map(|choice| stage.ledger.choose(choice)).collect();
    stage.redis.pause().unwrap();
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    (node, session, copied, missed)
}

/// Goes on with these changes.
async fn catch_up(stage: &Stage, session: Session, changes: &[Change]) -> Granting {
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    let session = session.grant_from_now_on(stage.ledger.place);
    for batch in changes.chunks(BATCH) {
        session.say(frames(batch.iter().cloned())).await;
    }
    session
}

/// A proven copy is the table, whatever has become of the stream whose welcome it was proven under; and what that has
/// brought counts.
#[tokio::test]
async fn a_stream_that_ends_meanwhile_costs_a_hello_and_not_the_table() {
    let mut stage = Stage::set().await;
    let (node, session, _, mut missed) = proving(&mut stage, 2).await;
    let rest = missed.split_off(1);
    let led_to = missed[0].frame.place();
    session.say(frames(missed)).await;
    session.end(Status::unavailable("it takes nothing")).await;
    node.is(SidecarState::Syncing).await;
    stage.redis.go_on().unwrap();

    let session = stage.authority.hello(Some(led_to)).await;
    node.denies().await;
    let _session = catch_up(&stage, session, &rest).await;
    node.answers(Reason::AccountOptedIn).await;
    stage.authority.has_no_other_session();
}

/// What the stream of the welcome holds may be taken; for the rest there is a hello from wherever that led.
#[tokio::test]
async fn an_authority_that_nobody_takes_from_meanwhile_may_end_the_stream() {
    let mut stage = Stage::set().await;
    let (node, session, copied, missed) = proving(&mut stage, MANY).await;
    let saying = async {
        for batch in missed.chunks(BATCH) {
            session.say(frames(batch.iter().cloned())).await;
        }
    };
    assert!(tokio::time::timeout(TAKE_WITHIN, saying).await.is_err(), "somebody keeps all of it in memory");
    drop(session);
    stage.redis.go_on().unwrap();

    let mut session = stage.authority.session().await;
    let said = session.hear().await;
    let ToAuthority::Hello { place: Some(named), .. } = said else {
        panic!("it starts anew: {:?}", node.status().await)
    };
    let taken = missed.iter().take_while(|change| change.frame.revision <= named.revision).count();
    let led_to = taken.checked_sub(1).map_or(copied, |last| missed[last].frame.place());
    assert_eq!(named, led_to);
    node.denies().await;
    let _session = catch_up(&stage, session, &missed[taken..]).await;
    node.answers(Reason::AccountOptedOut).await;
    stage.authority.has_no_other_session();
}
