//! An opt-out is effective when nobody can rely on an older state any more: not before, and not much later.

use crate::bare::{Bare, TOO_LONG};
use crate::ledger::{Ledger, long, metric, short};
use consent::clock;
use consent::pb::{Confirmation, Receipt};
use consent_authority::Authority;
use consent_authority::store::{Leases, SqliteStore, Store};
use consent_core::confirm::ToAuthority;
use consent_core::words::{Incarnation, Nonce, Revision};

fn revision(receipt: &Receipt) -> Revision {
    Revision::new(receipt.position.as_ref().expect("a position").revision).expect("a revision")
}

/// Until the replica has reported so much of a lag: it reports what has drained when it has drained.
async fn until_lag(authority: &Authority, wanted: f64) {
    let reported = async {
        while metric(authority, "consent_sidecar_max_lag_revisions").await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TOO_LONG, reported).await.expect("a report");
}

#[tokio::test]
async fn an_opt_out_is_effective_when_the_sidecar_has_acked_it_and_not_before() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    sidecar.lease(1).await;

    let receipt = caller.opt_out("ada", false).await;
    sidecar.follow(revision(&receipt)).await;
    assert_eq!(caller.confirmation(&receipt).await, Confirmation::Recorded);

    // Of another history: it proves nothing.
    let other = consent_core::chain::Chain::new([9; 32]);
    sidecar.say(ToAuthority::Ack { revision: revision(&receipt), chain: other }).await;
    // Granted after that ack was heard: it is judged.
    sidecar.lease(2).await;
    assert_eq!(caller.confirmation(&receipt).await, Confirmation::Recorded);
    until_lag(&authority, 1.0).await;

    sidecar.ack().await;
    let waited = caller.opt_out("ada", true).await;
    assert_eq!(waited.confirmation(), Confirmation::Effective);
    assert!(!waited.changed, "the same choice again");
    until_lag(&authority, 0.0).await;
    assert_eq!(metric(&authority, "consent_sidecars").await, 1.0);
}

#[tokio::test]
async fn a_silent_sidecar_holds_an_opt_out_as_long_as_its_lease_may_last() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(short()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    let granted = sidecar.lease(1).await;

    let receipt = caller.opt_out("ada", true).await;
    let now = clock::now();
    assert!(granted.place.revision < revision(&receipt));
    assert_eq!(receipt.confirmation(), Confirmation::Effective);
    assert!(
        now.shortest_since(granted.asked) >= short().sidecar_lease(),
        "the lease was over by every clock"
    );
}

#[tokio::test]
async fn a_closed_stream_still_counts() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(short()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    let granted = sidecar.lease(1).await;
    drop(sidecar);

    let receipt = caller.opt_out("ada", true).await;
    let now = clock::now();
    assert_eq!(receipt.confirmation(), Confirmation::Effective);
    assert!(
        now.shortest_since(granted.asked) >= short().sidecar_lease(),
        "the lease was over by every clock"
    );
}

#[tokio::test]
async fn a_sidecar_that_gives_its_lease_back_holds_nothing() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    sidecar.lease(1).await;
    let receipt = caller.opt_out("ada", false).await;
    assert_eq!(caller.confirmation(&receipt).await, Confirmation::Recorded);

    sidecar.say(ToAuthority::Relinquish { last: Nonce(1) }).await;
    assert_eq!(caller.opt_out("ada", true).await.confirmation(), Confirmation::Effective);
}

#[tokio::test]
async fn a_sidecar_that_renews_but_never_acks_holds_an_opt_out_no_longer_than_a_silent_one() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(short()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;
    sidecar.lease(1).await;
    let receipt = {
        let waited = caller.opt_out("ada", true);
        tokio::pin!(waited);
        let mut nonce = 2;
        loop {
            tokio::select! {
                receipt = &mut waited => break receipt,
                _ = sidecar.lease(nonce) => nonce += 1,
            }
        }
    };
    assert_eq!(receipt.confirmation(), Confirmation::Effective);
}

#[tokio::test]
async fn a_restart_waits_for_what_the_run_before_may_have_granted() {
    let ledger = Ledger::new().await;
    {
        // A run that registered, and was killed: its row stays open.
        let store = SqliteStore::open(ledger.path()).await.expect("the store");
        let mut leases = store.leases().await.expect("lease rows");
        leases.register(Incarnation::new([7; 16]), "killed").await.expect("a row");
    }
    let started = clock::now();
    let (_authority, caller) = ledger.serve(short()).await;
    caller.publish_policy().await;
    let receipt = caller.opt_out("ada", true).await;
    let now = clock::now();
    assert_eq!(receipt.confirmation(), Confirmation::Effective);
    assert!(now.shortest_since(started) >= short().replica_wait(), "it stood still for long enough first");
}

#[tokio::test]
async fn without_any_sidecar_an_opt_out_waits_for_the_replicas_own_answers_alone() {
    let ledger = Ledger::new().await;
    let (_authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    assert_eq!(caller.opt_out("ada", true).await.confirmation(), Confirmation::Effective);
}
