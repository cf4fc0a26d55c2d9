//! Whatever does not fit drops the lease and starts over, and nothing latches.

use crate::ledger::{Ledger, frames};
use crate::node::{Node, question};
use crate::script::{Authority, Granting, Session, long, until, values};
use consent::convert::sync::{self, Change};
use consent::pb::{self, Reason, SidecarState, sync_response};
use consent_core::chain::Chain;
use consent_core::confirm::{Place, Start, Unwelcome};
use consent_core::digest::Digest;
use consent_core::event::Event;
use consent_core::words::{Choice, Epoch, IdKey, Span};

/// Plays from LIVE: says one message, which must end the session with a denial; the next hello must name `place`;
/// then the sidecar must come back to LIVE, knowing of the opt-out.
async fn starts_over(message: pb::SyncResponse, ledger: Ledger, names: impl FnOnce(Place) -> Option<Place>) {
    let mut authority = Authority::start().await;
    let mut before = Ledger::new();
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&before, long()).await;
    node.answers(Reason::PlanDefaultIn).await;

    session.say(message).await;
    session.closed().await;
    node.denies().await;
    assert_eq!(node.status().await.state(), SidecarState::Resync);
    let named = names(before.place);
    let session = authority.hello(named).await;
    node.denies().await;

    let change = before.choose(Choice::Out);
    assert_eq!(before.place, ledger.place, "one event more");
    let _session = go_on(&authority, session, &ledger, named.map(|_| change)).await;
    node.answers(Reason::AccountOptedOut).await;
    assert_eq!(node.is(SidecarState::Live).await.why, "");
}

async fn go_on(authority: &Authority, session: Session, ledger: &Ledger, change: Option<Change>) -> Granting {
    match change {
        None => session.snapshot(authority.incarnation, ledger, long()).await,
        Some(change) => {
            session.welcome(authority.incarnation, ledger, long(), Start::Continue).await;
            session.say(frames([change])).await;
        }
    }
    session.grant_from_now_on(ledger.place)
}

/// The next revision, an opt-out, made wrong, and the ledger with the right one.
fn wrong(make: impl FnOnce(&mut Change)) -> (pb::SyncResponse, Ledger) {
    let mut ledger = Ledger::new();
    let mut change = ledger.choose(Choice::Out);
    make(&mut change);
    (frames([change]), ledger)
}

#[tokio::test]
async fn a_gap_starts_over() {
    let mut ledger = Ledger::new();
    ledger.choose(Choice::Out);
    let after_the_gap = ledger.clone().choose(Choice::In);
    starts_over(frames([after_the_gap]), ledger, Some).await;
}

#[tokio::test]
async fn a_frame_of_another_chain_starts_over() {
    let (message, ledger) = wrong(|change| change.frame.chain = Chain::new([5; 32]));
    starts_over(message, ledger, Some).await;
}

#[tokio::test]
async fn a_digest_that_the_table_does_not_have_drops_the_table() {
    let (message, ledger) = wrong(|change| change.frame.digest = Digest::new([5; 32]));
    starts_over(message, ledger, |_| None).await;
}

#[tokio::test]
async fn a_head_corrupted_on_its_way_is_never_answered_from() {
    let (message, ledger) = wrong(|change| {
        // Well formed, and more open than what was sent: the head as it was before the opt-out.
        change.head = Ledger::new().head(change.head.key);
    });
    starts_over(message, ledger, |_| None).await;
}

#[tokio::test]
async fn a_frame_of_another_epoch_starts_over() {
    let (message, ledger) = wrong(|change| change.frame.epoch = Epoch::new([2; 16]));
    starts_over(message, ledger, Some).await;
}

#[tokio::test]
async fn a_frame_that_needs_a_newer_reader_starts_over() {
    let (mut message, ledger) = wrong(|_| ());
    let Some(sync_response::Message::Frames(frames)) = &mut message.message else { panic!("frames") };
    frames.frames[0].semantics_version += 1;
    starts_over(message, ledger, Some).await;
}

#[tokio::test]
async fn a_malformed_head_starts_over() {
    let (message, ledger) = wrong(|change| change.head.bytes.truncate(3));
    starts_over(message, ledger, Some).await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_starts_over() {
    let (_, ledger) = wrong(|_| ());
    let unknown_kind = pb::Head { kind: 9, key: vec![0; 16].into(), state: vec![1].into() };
    let chunk = pb::SnapshotChunk { heads: vec![unknown_kind], revision: 2 };
    let message = pb::SyncResponse { message: Some(sync_response::Message::SnapshotChunk(chunk)) };
    starts_over(message, ledger, Some).await;
}

#[tokio::test]
async fn a_grant_of_another_history_starts_over() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let mut session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &ledger, long()).await;
    let nonce = session.keepalive().await;
    session.grant(nonce, Place { chain: Chain::new([5; 32]), ..ledger.place }).await;
    session.closed().await;
    node.denies().await;
    let session = authority.hello(Some(ledger.place)).await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Continue).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn a_snapshot_without_its_digest_is_never_answered_from() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Snapshot).await;
    let mut heads = ledger.heads();
    heads.pop();
    session.say(sync::snapshot_chunk(heads, ledger.place.revision)).await;
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    session.closed().await;
    let answer = node.ask().await;
    assert_eq!((answer.reason(), answer.position), (Reason::NotReady, None));
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn the_newest_head_wins_while_a_snapshot_comes() {
    let (mut authority, before) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    let mut ledger = before.clone();
    let change = ledger.choose(Choice::Out);
    session.welcome(authority.incarnation, &before, long(), Start::Snapshot).await;
    session.say(frames([change])).await;
    // A page that was read before the opt-out, and arrives after it.
    session.say(sync::snapshot_chunk(before.heads(), before.place.revision)).await;
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn frames_between_pages_must_lead_to_the_end_of_the_snapshot() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Snapshot).await;
    let first = ledger.choose(Choice::Out);
    let between = ledger.clone();
    ledger.choose(Choice::In);
    session.say(sync::snapshot_chunk(ledger.heads(), ledger.place.revision)).await;
    session.say(frames([first])).await;
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    session.closed().await;
    assert_eq!(node.ask().await.reason(), Reason::NotReady);
    let _session = authority.bring_to_life(&between, long()).await;
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn a_head_that_needs_a_newer_reader_denies_whoever_needs_it_and_nobody_else() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let bob = ledger.account("bob");
    let newer = ledger.append_newer(Event::AccountPut { account: bob, organization: None }).head;
    let mut heads = ledger.heads();
    heads.retain(|head| head.key != newer.key);
    heads.push(newer);

    let session = authority.hello(None).await;
    session.welcome(authority.incarnation, &ledger, long(), Start::Snapshot).await;
    session.say(sync::snapshot_chunk(heads, ledger.place.revision)).await;
    session.say(sync::snapshot_end(ledger.place, ledger.recorded_at)).await;
    let _session = session.grant_from_now_on(ledger.place);
    node.answers(Reason::PlanDefaultIn).await;
    let denied = node.decisions.clone().can_train(question("bob")).await.expect("an answer").into_inner();
    assert_eq!(denied.reason(), Reason::NotReady);
}

#[tokio::test]
async fn a_head_that_needs_a_newer_reader_comes_in_a_frame_as_in_a_snapshot() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;

    let bob = ledger.account("bob");
    let newer = ledger.append_newer(Event::AccountPut { account: bob, organization: None });
    session.say(frames([newer, ledger.choose(Choice::Out)])).await;
    node.answers(Reason::AccountOptedOut).await;
    let denied = node.decisions.clone().can_train(question("bob")).await.expect("an answer").into_inner();
    assert_eq!(denied.reason(), Reason::NotReady);
    assert_eq!(node.status().await.state(), SidecarState::Live);
}

#[tokio::test]
async fn a_long_way_behind_is_caught_up_with_on_one_stream() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    session.hang_up().await;

    let session = authority.hello(Some(ledger.place)).await;
    let choices = [Choice::Out, Choice::In].into_iter().cycle();
    let changes: Vec<Change> = choices.take(20_001).map(|choice| ledger.choose(choice)).collect();
    session.welcome(authority.incarnation, &ledger, long(), Start::Continue).await;
    let mut session = session.grant_from_now_on(ledger.place);
    // As an authority sends them, which is for longer than an answer holds: acks become due all the way.
    for batch in changes.chunks(256) {
        session.say(frames(batch.iter().cloned())).await;
    }
    session.acked(ledger.place).await;
    node.answers(Reason::AccountOptedOut).await;
    authority.has_no_other_session();
}

#[tokio::test]
async fn a_table_goes_on_into_a_new_epoch_on_its_own_chain() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let terms = values(|values| values.sidecar_lease = Span::from_millis(300));
    let mut session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &ledger, terms).await;
    let nonce = session.keepalive().await;
    session.grant(nonce, ledger.place).await;
    node.answers(Reason::PlanDefaultIn).await;
    node.answers(Reason::Stale).await;
    drop(session);

    let epoch = Epoch::new([2; 16]);
    let mut next = ledger.clone();
    (next.epoch, next.place.epoch) = (epoch, epoch);
    let session = authority.hello(Some(ledger.place)).await;
    session.welcome(authority.incarnation, &next, long(), Start::Continue).await;
    let _session = session.grant_from_now_on(next.place);
    let allowed = node.answers(Reason::PlanDefaultIn).await;
    assert_eq!(allowed.position.map(|position| position.epoch), Some(vec![2; 16].into()));
}

#[tokio::test]
async fn unsafe_terms_are_refused_and_said_so() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.hello(None).await;
    let mut welcome = sync::welcome(
        authority.incarnation,
        ledger.epoch,
        Start::Snapshot,
        &long(),
        &ledger.id_key,
        ledger.place.revision,
    );
    let Some(sync_response::Message::Welcome(inner)) = &mut welcome.message else { panic!("a welcome") };
    inner.terms.as_mut().unwrap().replica_lease = inner.terms.as_ref().unwrap().sidecar_lease;
    session.say(welcome).await;
    session.closed().await;
    let says_so = |status: &pb::GetStatusResponse| status.why.contains("welcome.terms is not safe");
    until("the reason", || node.status(), says_so).await;
    node.denies().await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn a_snapshot_from_before_what_was_seen_never_becomes_the_table() {
    let (mut authority, before) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let mut ledger = before.clone();
    let change = ledger.choose(Choice::Out);
    let session = authority.bring_to_life(&before, long()).await;
    session.say(frames([change])).await;
    node.answers(Reason::AccountOptedOut).await;
    // The table is dropped, and a replica whose ledger is behind sends all that it has.
    let mut wrong = ledger.clone().choose(Choice::In);
    wrong.frame.digest = Digest::new([5; 32]);
    session.say(frames([wrong])).await;
    session.closed().await;
    let session = authority.hello(None).await;
    session.snapshot(authority.incarnation, &before, long()).await;
    session.closed().await;
    assert_eq!(node.metric("consent_watch_snapshots_total").await, Some(1.0), "the first, and no other");
    node.denies().await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn a_hello_that_is_not_accepted_is_said_again() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    for why in [Unwelcome::Leaving, Unwelcome::Busy { retry_after: Span::from_millis(1) }, Unwelcome::Held] {
        let session = authority.hello(None).await;
        session.end(sync::unwelcome(why)).await;
        node.denies().await;
    }
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn a_table_of_another_secret_is_dropped() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    session.hang_up().await;
    let session = authority.hello(Some(ledger.place)).await;
    let mut other = ledger.clone();
    other.id_key = IdKey::new([8; 16]);
    session.welcome(authority.incarnation, &other, long(), Start::Continue).await;
    session.closed().await;
    assert_eq!(node.ask().await.reason(), Reason::NotReady);
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
}
