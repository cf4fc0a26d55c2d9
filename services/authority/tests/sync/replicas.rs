//! Two replicas over one Postgres: what one promised, the other waits for; and one that was taken for dead ends.

use crate::bare::{Bare, TOO_LONG};
use crate::ledger::{Ledger, long};
use crate::postgres::Postgres;
use consent::pb::Confirmation;
use consent_authority::Failure;
use consent_authority::store::{Leases, PostgresStore, Store};
use consent_core::words::Revision;

#[tokio::test]
async fn an_opt_out_at_one_replica_waits_for_the_sidecar_of_the_other() {
    let server = Postgres::start().expect("a server");
    let ledger = Ledger::in_postgres(server.fresh_database().expect("a database")).await;
    let (_here, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let (there, _) = ledger.serve(long()).await;
    let mut sidecar = Bare::synced(&there).await;
    sidecar.lease(1).await;

    let receipt = caller.opt_out("ada", false).await;
    let revision = receipt.position.as_ref().expect("a position").revision;
    sidecar.follow(Revision::new(revision).expect("a revision")).await;
    assert_eq!(caller.confirmation(&receipt).await, Confirmation::Recorded);
    sidecar.ack().await;
    assert_eq!(caller.opt_out("ada", true).await.confirmation(), Confirmation::Effective);
}

#[tokio::test]
async fn a_replica_whose_row_was_closed_by_another_ends() {
    let server = Postgres::start().expect("a server");
    let url = server.fresh_database().expect("a database");
    let ledger = Ledger::in_postgres(url.clone()).await;
    let (mut authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    let mut sidecar = Bare::synced(&authority).await;

    let store = PostgresStore::open(&url).await.expect("the store");
    let mut leases = store.leases().await.expect("lease rows");
    // A renewal in between makes the reap void, as it must.
    while let Some(row) = leases.table(&[]).await.expect("rows").open.pop() {
        leases.reap(row.incarnation, row.renew_seq).await.expect("a reap");
    }
    // It learns so from its next word to the row: here the report that the opt-out is drained.
    caller.opt_out("ada", false).await;
    let why = tokio::time::timeout(TOO_LONG, authority.failed()).await.expect("in time");
    assert!(matches!(why, Failure::Fenced), "{why}");
    while let Some(Ok(_)) = sidecar.hear().await {}
}
