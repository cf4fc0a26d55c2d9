//! Who is welcome, and with what; and what an authority does not start from.

use crate::bare::{Bare, TOO_LONG, hello};
use crate::ledger::{Ledger, long, metric};
use consent::convert::sync::{sealed, sync_request, why_unwelcome};
use consent::pb::ErrorReason;
use consent::status::name;
use consent_authority::{Authority, Limits, StartError, StoreConfig, start};
use consent_core::chain::Chain;
use consent_core::confirm::{Place, Seal, Start, ToAuthority, Unwelcome};
use consent_core::words::{Epoch, IdKey, Nonce, Revision};
use std::pin::pin;
use tonic::{Code, Status};
use tonic_types::StatusExt;

async fn turned_away(sidecar: &mut Bare) -> Status {
    sidecar.hear().await.expect("a last word").expect_err("no welcome")
}

#[tokio::test]
async fn a_sidecar_ahead_of_the_ledger_is_held() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let here = Bare::synced(&authority).await.table.place.expect("a table");
    let ahead = Place { revision: Revision::new(100).expect("a revision"), ..here };
    assert_eq!(metric(&authority, "consent_hold").await, 0.0);
    let mut sidecar = Bare::hello(&authority, Some(ahead)).await;
    assert_eq!(why_unwelcome(&turned_away(&mut sidecar).await), Some(Unwelcome::Held));
    assert_eq!(metric(&authority, "consent_hold").await, 1.0);
}

#[tokio::test]
async fn a_sidecar_on_another_chain_of_the_same_epoch_is_held() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let here = Bare::synced(&authority).await.table.place.expect("a table");
    let forked = Place { chain: Chain::new([9; 32]), ..here };
    let mut sidecar = Bare::hello(&authority, Some(forked)).await;
    assert_eq!(why_unwelcome(&turned_away(&mut sidecar).await), Some(Unwelcome::Held));
}

/// The ledger as a sidecar with a durable copy finds it: a place there, and the deployment's secret.
async fn copied(authority: &Authority) -> (Place, IdKey) {
    let synced = Bare::synced(authority).await;
    (synced.table.place.expect("a table"), synced.id_key.expect("a welcome"))
}

async fn sealed_hello(authority: &Authority, place: Place, secret: &IdKey) -> Bare {
    let said = sealed(sync_request(hello(Some(place))), Seal::of(secret, &place));
    Bare::open_with(authority, said).await.expect("a stream")
}

#[tokio::test]
async fn a_sealed_place_is_as_good_as_a_remembered_one() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let (here, secret) = copied(&authority).await;
    assert_eq!(sealed_hello(&authority, here, &secret).await.welcomed().await, Start::Continue);
    let ahead = Place { revision: Revision::new(100).expect("a revision"), ..here };
    let mut sidecar = sealed_hello(&authority, ahead, &secret).await;
    assert_eq!(why_unwelcome(&turned_away(&mut sidecar).await), Some(Unwelcome::Held), "R13");
}

#[tokio::test]
async fn a_place_under_a_wrong_seal_is_none_and_holds_no_ledger() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let (here, _) = copied(&authority).await;
    let ahead = Place { revision: Revision::new(100).expect("a revision"), ..here };
    let mut sidecar = sealed_hello(&authority, ahead, &IdKey::new([9; 16])).await;
    assert_eq!(sidecar.welcomed().await, Start::Snapshot, "R13 is not for what anybody could have made up");
    sidecar.snapshot().await;
    sidecar.lease(1).await;
}

#[tokio::test]
async fn a_sidecar_of_another_epoch_and_chain_takes_a_snapshot() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let here = Bare::synced(&authority).await.table.place.expect("a table");
    let elsewhere = Place { epoch: Epoch::new([9; 16]), chain: Chain::new([9; 32]), ..here };
    let mut sidecar = Bare::hello(&authority, Some(elsewhere)).await;
    assert_eq!(sidecar.welcomed().await, Start::Snapshot);
    sidecar.snapshot().await;
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_one_hello_is_ended_and_told_why() {
    let ledger = Ledger::new().await;
    let (authority, _caller) = ledger.serve(long()).await;
    let mut mute =
        Bare::open(&authority, ToAuthority::KeepAlive { nonce: Nonce(1) }).await.expect("a stream");
    let status = turned_away(&mut mute).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("details").reason, name(ErrorReason::InvalidField));

    let mut twice = Bare::synced(&authority).await;
    twice.say(hello(None)).await;
    assert_eq!(turned_away(&mut twice).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn at_the_bound_a_sidecar_is_told_to_come_again() {
    let ledger = Ledger::new().await;
    let limits = Limits { sessions: 1, ..Limits::default() };
    let (authority, _caller) = ledger.serve_within(long(), limits).await;
    let first = Bare::synced(&authority).await;
    let refused = Bare::open(&authority, hello(None)).await.err().expect("no room");
    assert!(matches!(why_unwelcome(&refused), Some(Unwelcome::Busy { .. })));
    drop(first);
}

#[tokio::test]
async fn at_the_bound_a_connection_waits_until_another_ends() {
    let ledger = Ledger::new().await;
    // One is the caller's.
    let limits = Limits { connections: 2, ..Limits::default() };
    let (authority, _caller) = ledger.serve_within(long(), limits).await;
    let mut first = Bare::synced(&authority).await;
    let mut second = pin!(Bare::synced(&authority));
    tokio::select! {
        _ = &mut second => panic!("a third connection was taken"),
        () = async { for nonce in 1..=8 { first.lease(nonce).await; } } => {}
    }
    drop(first);
    tokio::time::timeout(TOO_LONG, second).await.expect("taken in time");
}

#[tokio::test]
async fn an_authority_serves_only_this_machine_and_only_its_own_schema() {
    let ledger = Ledger::new().await;
    let mut open = ledger.config(long());
    open.listen = "0.0.0.0:0".parse().expect("an address");
    assert!(matches!(start(open).await, Err(StartError::NotLoopback(_))));

    let empty = tempfile::tempdir().expect("a directory");
    let mut bare = ledger.config(long());
    bare.store = StoreConfig::Sqlite { directory: empty.path().to_owned() };
    let why = start(bare).await.expect_err("no schema").to_string();
    assert!(why.contains("consent migrate"), "{why}");
}
