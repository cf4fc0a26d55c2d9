//! What lies in Redis is not believed: whatever was done to it, nothing is allowed because of it, and it is repaired.

use super::stage::Stage;
use crate::copy::{LOG, PLACE, at, bucket_of, forge, forge_marker, rehash};
use crate::ledger::{Ledger, frames};
use crate::script::{long, until};
use consent::pb::Reason;
use consent_core::confirm::{Place, Start};
use consent_core::head::HeadKey;
use consent_core::words::{Choice, IdKey, Revision};
use redis::Commands;

fn ada(ledger: &Ledger) -> HeadKey {
    HeadKey::Account(ledger.account("ada"))
}

/// A copy of a ledger in which ada opted out, was in again, and is out: the first choice in the buckets, the other two
/// in the log. Of what was done to it not even the marker is good.
async fn is_refused_at_once(tamper: impl FnOnce(&Stage, &Heads)) {
    let (mut stage, heads) = copied().await;
    tamper(&stage, &heads);
    let node = stage.start_node().await;
    stage.starts_anew(node, Reason::AccountOptedOut).await;
}

/// The same, but the marker is good, and the rest is read when the secret is known: the authority goes on from the
/// place, and is left.
async fn is_refused_when_the_secret_is_known(tamper: impl FnOnce(&Stage, &Heads)) {
    let (mut stage, heads) = copied().await;
    tamper(&stage, &heads);
    let node = stage.start_node().await;
    let session = stage.authority.hello(Some(stage.ledger.place)).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    session.closed().await;
    stage.starts_anew(node, Reason::AccountOptedOut).await;
}

/// Ada's head through her choices.
struct Heads {
    open: Vec<u8>,
    first_out: Vec<u8>,
    last_out: Vec<u8>,
}

async fn copied() -> (Stage, Heads) {
    let mut stage = Stage::set().await;
    let head = |ledger: &Ledger| ledger.head(ada(ledger)).bytes;
    let open = head(&stage.ledger);
    stage.ledger.choose(Choice::Out);
    let first_out = head(&stage.ledger);
    let (node, session) = stage.first_run().await;
    for choice in [Choice::In, Choice::Out] {
        session.say(frames([stage.ledger.choose(choice)])).await;
        stage.kept().await;
    }
    drop((node, session));
    let last_out = head(&stage.ledger);
    (stage, Heads { open, first_out, last_out })
}

#[tokio::test]
async fn a_forged_entry() {
    is_refused_when_the_secret_is_known(|stage, heads| {
        let (mut con, bucket) = (stage.con(), bucket_of(ada(&stage.ledger)));
        let value: Vec<u8> = con.get(&bucket).unwrap();
        con.set::<_, _, ()>(&bucket, forge(b'b', &value, &heads.first_out, &heads.open)).unwrap();
        // With its log left as it is the entry would not count: the log is newer.
        let logged: Vec<u8> = con.lindex(LOG, 1).unwrap();
        con.lset::<_, _, ()>(LOG, 1, forge(b'l', &logged, &heads.last_out, &heads.open)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_old_entry_put_back_in_the_place_of_a_newer_one() {
    is_refused_when_the_secret_is_known(|stage, _| {
        let mut con = stage.con();
        let (in_again, out): (Vec<u8>, Vec<u8>) = (con.lindex(LOG, 0).unwrap(), con.lindex(LOG, 1).unwrap());
        // The batch of the opt-in, told to be that of the last opt-out.
        let body = [&out[..24], &in_again[24..in_again.len() - 16]].concat();
        con.lset::<_, _, ()>(LOG, 1, rehash(b'l', body)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_old_batch_put_back_as_it_was() {
    is_refused_when_the_secret_is_known(|stage, _| {
        let mut con = stage.con();
        let in_again: Vec<u8> = con.lindex(LOG, 0).unwrap();
        con.lset::<_, _, ()>(LOG, 1, in_again).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_entry_left_out() {
    is_refused_when_the_secret_is_known(|stage, _| {
        let mut con = stage.con();
        let bucket = bucket_of(ada(&stage.ledger));
        let value: Vec<u8> = con.get(&bucket).unwrap();
        con.set::<_, _, ()>(&bucket, rehash(b'b', value[..20].to_vec())).unwrap();
        for at in 0..2 {
            // Two batches that change the policy's head instead, so that ada is nowhere.
            let batch: Vec<u8> = con.lindex(LOG, at).unwrap();
            let policy = stage.ledger.head(HeadKey::Policy).bytes;
            let len = u32::try_from(policy.len()).unwrap().to_be_bytes();
            let body = [&batch[..24], &[1], &[0; 16], &len, &policy].concat();
            con.lset::<_, _, ()>(LOG, at, rehash(b'l', body)).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn half_a_write_of_a_bucket() {
    is_refused_when_the_secret_is_known(|stage, _| {
        let bucket = bucket_of(ada(&stage.ledger));
        let value: Vec<u8> = stage.con().get(&bucket).unwrap();
        stage.con().set::<_, _, ()>(&bucket, &value[..value.len() / 2]).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_bucket_that_is_gone() {
    let gone = |stage: &Stage, _: &Heads| stage.con().del(bucket_of(ada(&stage.ledger))).unwrap();
    is_refused_when_the_secret_is_known(gone).await;
}

#[tokio::test]
async fn a_log_without_its_end() {
    is_refused_when_the_secret_is_known(|stage, _| stage.con().ltrim(LOG, 0, 0).unwrap()).await;
}

#[tokio::test]
async fn a_bucket_of_any_size() {
    let (mut stage, _) = copied().await;
    let bucket = bucket_of(ada(&stage.ledger));
    stage.con().setrange::<_, _, ()>(bucket, 64 << 20, "x").unwrap();
    let node = stage.start_node().await;
    let session = stage.hello_from_copy(&node, stage.ledger.place).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    session.closed().await;
    let why = until("a reason", || node.status(), |status| status.why.contains("more than its marker says"));
    why.await;
    stage.starts_anew(node, Reason::AccountOptedOut).await;
}

#[tokio::test]
async fn a_marker_without_its_end() {
    is_refused_at_once(|stage, _| {
        let marker = stage.marker().unwrap();
        stage.con().set(PLACE, &marker[..marker.len() - 1]).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_value_of_another_type() {
    is_refused_when_the_secret_is_known(|stage, _| {
        stage.con().del::<_, ()>(LOG).unwrap();
        stage.con().set(LOG, "no list").unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_marker_that_says_another_time() {
    is_refused_when_the_secret_is_known(|stage, _| {
        // Tomorrow: what was collected until then would count as collected before the table's time.
        let tomorrow = (stage.ledger.recorded_at.millis() + 86_400_000).to_be_bytes();
        let marker = forge_marker(&stage.marker().unwrap(), at::RECORDED_AT, &tomorrow, &IdKey::new([0; 16]));
        stage.con().set(PLACE, marker).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_copy_made_under_another_secret() {
    let (mut stage, _) = copied().await;
    stage.ledger = {
        let mut other = Ledger::new();
        other.id_key = IdKey::new([8; 16]);
        other
    };
    let node = stage.start_node().await;
    let session = stage.authority.session().await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    session.closed().await;
    node.denies().await;
    let session = stage.authority.hello(None).await;
    drop(session);
}

/// R13, I5: a place that somebody made up holds no ledger, since its seal is wrong; the authority says snapshot, and
/// the sidecar is not left waiting for a revision that there never was.
#[tokio::test]
async fn a_place_that_was_made_up() {
    let (mut stage, _) = copied().await;
    let far = Revision::new(1_000_000).unwrap();
    let mut con = stage.con();
    let marker = stage.marker().unwrap();
    // As if all of it were in the buckets.
    con.del::<_, ()>(LOG).unwrap();
    let marker = forge_marker(&marker, at::BASE, &far.get().to_be_bytes(), &IdKey::new([0; 16]));
    let marker = forge_marker(&marker, at::BATCHES, &0_u64.to_be_bytes(), &IdKey::new([0; 16]));
    let marker = forge_marker(&marker, at::REVISION, &far.get().to_be_bytes(), &IdKey::new([0; 16]));
    con.set::<_, _, ()>(PLACE, marker).unwrap();

    let node = stage.start_node().await;
    let made_up = Place { revision: far, ..stage.ledger.place };
    let session = stage.authority.hello(Some(made_up)).await;
    assert!(
        session
            .seal
            .is_some_and(|seal| { seal != consent_core::confirm::Seal::of(&stage.ledger.id_key, &made_up) })
    );
    session.snapshot(stage.authority.incarnation, &stage.ledger, long()).await;
    let session = session.grant_from_now_on(stage.ledger.place);
    node.answers(Reason::AccountOptedOut).await;
    stage.kept().await;
    drop((node, session));
    stage.goes_on(Reason::AccountOptedOut).await;
}
