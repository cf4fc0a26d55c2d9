//! A stop loses nothing and leaves nothing open.

use crate::bare::Bare;
use crate::ledger::{Ledger, long, short};
use consent::clock;
use consent::convert::sync::FromAuthority;
use consent_authority::store::{Leases, SqliteStore, Store};
use consent_core::confirm::{ToAuthority, ToSidecar};
use consent_core::words::Nonce;

async fn open_rows(ledger: &Ledger) -> usize {
    let store = SqliteStore::open(ledger.path()).await.expect("the store");
    store.leases().await.expect("lease rows").table(&[]).await.expect("rows").open.len()
}

#[tokio::test]
async fn a_stop_closes_the_row_as_soon_as_every_lease_is_given_back() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    let granted = sidecar.lease(1).await;
    let stopped = tokio::spawn(authority.stop());
    assert_eq!(sidecar.next().await, FromAuthority::Message(ToSidecar::Draining));
    assert!(!stopped.is_finished(), "somebody relies on it");
    sidecar.say(ToAuthority::Relinquish { last: Nonce(1) }).await;
    stopped.await.expect("it stopped");
    assert!(
        clock::now().longest_since(granted.asked) < long().sidecar_lease(),
        "it did not wait the lease out"
    );
    assert_eq!(open_rows(&ledger).await, 0);
}

#[tokio::test]
async fn a_stop_waits_out_the_lease_of_a_sidecar_that_keeps_it() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(short()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    let granted = sidecar.lease(1).await;
    authority.stop().await;
    assert!(
        clock::now().shortest_since(granted.asked) >= short().sidecar_lease(),
        "it was over by every clock"
    );
    assert_eq!(open_rows(&ledger).await, 0);
}

#[tokio::test]
async fn a_leaving_authority_grants_nothing_and_still_brings_what_changed() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    sidecar.lease(1).await;
    let stopped = tokio::spawn(authority.stop());
    assert_eq!(sidecar.next().await, FromAuthority::Message(ToSidecar::Draining));
    sidecar.say(ToAuthority::KeepAlive { nonce: Nonce(2) }).await;
    sidecar.say(ToAuthority::Relinquish { last: Nonce(2) }).await;
    stopped.await.expect("it stopped");
    while let Some(heard) = sidecar.hear().await {
        let granted = matches!(heard, Ok(FromAuthority::Message(ToSidecar::Grant { .. })));
        assert!(!granted, "a grant while leaving");
    }
    drop(caller);
}
