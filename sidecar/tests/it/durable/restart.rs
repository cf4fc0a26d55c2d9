//! A good copy costs a restart what it missed, and nothing else.

use super::stage::Stage;
use crate::copy::LOG;
use crate::ledger::frames;
use crate::node::question;
use crate::script::long;
use consent::pb::{Reason, SidecarState};
use consent_core::chain::Chain;
use consent_core::confirm::{Start, Unwelcome};
use consent_core::event::Event;
use consent_core::words::{Choice, Epoch};
use redis::Commands;

#[tokio::test]
async fn a_restart_goes_on_from_the_copy_and_takes_no_snapshot() {
    let mut stage = Stage::set().await;
    let (node, session) = stage.first_run().await;
    session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    node.answers(Reason::AccountOptedOut).await;
    stage.kept().await;
    drop((node, session));

    let (node, session) = stage.goes_on(Reason::AccountOptedOut).await;
    assert_eq!(node.status().await.accounts, 1);
    // And the copy is followed on from there.
    session.say(frames([stage.ledger.choose(Choice::In)])).await;
    stage.kept().await;
    drop((node, session));
    stage.goes_on(Reason::AccountOptedIn).await;
}

#[tokio::test]
async fn a_head_that_needs_a_newer_reader_is_kept_and_denied_as_before() {
    let mut stage = Stage::set().await;
    let (node, session) = stage.first_run().await;
    let bob = stage.ledger.account("bob");
    let newer = stage.ledger.append_newer(Event::AccountPut { account: bob, organization: None });
    session.say(frames([newer])).await;
    stage.kept().await;
    drop((node, session));

    let (node, _session) = stage.goes_on(Reason::PlanDefaultIn).await;
    let denied = node.decisions.clone().can_train(question("bob")).await.expect("an answer").into_inner();
    assert_eq!(denied.reason(), Reason::NotReady);
}

#[tokio::test]
async fn what_was_missed_comes_before_anything_is_allowed() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    let before = stage.ledger.place;
    let missed = stage.ledger.choose(Choice::Out);

    let node = stage.start_node().await;
    let mut session = stage.hello_from_copy(&node, before).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    let nonce = session.keepalive().await;
    session.grant(nonce, stage.ledger.place).await;
    node.is(SidecarState::Syncing).await;
    node.denies().await;
    session.say(frames([missed])).await;
    node.answers(Reason::AccountOptedOut).await;
    stage.kept().await;
}

#[tokio::test]
async fn an_older_dump_is_a_place_further_back() {
    let mut stage = Stage::set().await;
    let (node, session) = stage.first_run().await;
    let (older, dump) = (stage.ledger.place, stage.redis.save().unwrap());
    let opted_out = stage.ledger.choose(Choice::Out);
    session.say(frames([opted_out.clone()])).await;
    stage.kept().await;
    drop((node, session));
    stage.redis.put_dump(&dump).unwrap();
    stage.redis.restart().unwrap();

    let node = stage.start_node().await;
    let mut session = stage.hello_from_copy(&node, older).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    let nonce = session.keepalive().await;
    session.grant(nonce, stage.ledger.place).await;
    node.denies().await;
    session.say(frames([opted_out])).await;
    node.answers(Reason::AccountOptedOut).await;
    stage.kept().await;
}

#[tokio::test]
async fn a_new_epoch_is_entered_from_a_copy_on_its_chain_and_written_down() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    let copied = stage.ledger.place;
    let epoch = Epoch::new([2; 16]);
    (stage.ledger.epoch, stage.ledger.place.epoch) = (epoch, epoch);

    let node = stage.start_node().await;
    let session = stage.hello_from_copy(&node, copied).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    let session = session.grant_from_now_on(stage.ledger.place);
    let allowed = node.answers(Reason::PlanDefaultIn).await;
    assert_eq!(allowed.position.map(|position| position.epoch), Some(vec![2; 16].into()));
    stage.kept().await;
    drop((node, session));
    stage.goes_on(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn a_copy_of_another_epoch_and_chain_is_replaced() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    let copied = stage.ledger.place;
    let epoch = Epoch::new([2; 16]);
    (stage.ledger.epoch, stage.ledger.place.epoch) = (epoch, epoch);
    stage.ledger.place.chain = Chain::new([6; 32]);
    stage.ledger.choose(Choice::Out);

    let node = stage.start_node().await;
    let session = stage.hello_from_copy(&node, copied).await;
    session.snapshot(stage.authority.incarnation, &stage.ledger, long()).await;
    let session = session.grant_from_now_on(stage.ledger.place);
    node.answers(Reason::AccountOptedOut).await;
    stage.kept().await;
    drop((node, session));
    stage.goes_on(Reason::AccountOptedOut).await;
}

/// Whoever writes to a copy while it is read is a run that has not ended yet: what it leaves is as good.
#[tokio::test]
async fn a_copy_that_became_another_one_is_looked_for_again() {
    let mut stage = Stage::set().await;
    let (node, session) = stage.first_run().await;
    let (before, first) = (stage.ledger.place, stage.everything());
    let generation = stage.generation();
    stage.redis.run("FLUSHALL").unwrap();
    session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    stage.kept_anew(generation).await;
    drop(session);
    // It would repair what is put there.
    node.sidecar.stop().await;
    let second = stage.everything();
    stage.put_everything(&first);

    let node = stage.start_node().await;
    let session = stage.hello_from_copy(&node, before).await;
    stage.put_everything(&second);
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    session.closed().await;
    let session = stage.hello_from_copy(&node, stage.ledger.place).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    let _session = session.grant_from_now_on(stage.ledger.place);
    node.answers(Reason::AccountOptedOut).await;
}

// R13: the copy is the only witness of what the ledger has lost. A node that threw it away would go on with less.
#[tokio::test]
async fn a_copy_ahead_of_the_ledger_is_kept_while_the_ledger_is_held() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    let node = stage.start_node().await;
    for _ in 0..2 {
        let session = stage.hello_from_copy(&node, stage.ledger.place).await;
        session.end(consent::convert::sync::unwelcome(Unwelcome::Held)).await;
        node.is(SidecarState::Resync).await;
    }
    drop(node);
    stage.goes_on(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn no_id_and_no_secret_lies_in_redis() {
    let mut stage = Stage::set().await;
    let (_node, session) = stage.first_run().await;
    session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    stage.kept().await;
    let mut con = stage.con();
    let keys: Vec<String> = con.keys("*").unwrap();
    let mut all: Vec<Vec<u8>> = con.lrange(LOG, 0, -1).unwrap();
    assert_eq!(all.len(), 1);
    for key in keys.iter().filter(|key| *key != LOG) {
        all.push(con.get(key).unwrap());
    }
    let has = |what: &[u8]| all.iter().any(|value| value.windows(what.len()).any(|window| window == what));
    let secret = stage.ledger.id_key;
    assert!(has(secret.account("ada").bytes()), "the copy is not where it is searched for");
    assert!(!has(b"ada") && !has(secret.bytes()));
}

#[tokio::test]
async fn without_its_redis_a_node_works_from_memory() {
    let mut stage = Stage::set().await;
    stage.redis.kill_hard().unwrap();
    let node = stage.start_node().await;
    let session = stage.authority.bring_to_life(&stage.ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    node.answers(Reason::AccountOptedOut).await;
    // As soon as there is one it has the copy, although nothing changes any more.
    stage.redis.restart().unwrap();
    stage.kept().await;
}
