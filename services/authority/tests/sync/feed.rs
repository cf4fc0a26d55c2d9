//! Snapshot and frames: everything, once, in order, wherever it is read from.

use crate::bare::Bare;
use crate::ledger::{Caller, Ledger, long};
use consent_authority::{Limits, ring};
use consent_core::confirm::Start;
use consent_core::words::Revision;
use tokio::task::JoinSet;

fn at(number: u64) -> Revision {
    Revision::new(number).expect("a revision")
}

// Enough writers at once that the lane batches them.
pub(crate) async fn put_accounts(caller: &Caller, numbers: std::ops::Range<u64>) {
    let mut writers = JoinSet::new();
    for number in numbers {
        if writers.len() == 128 {
            writers.join_next().await.expect("a writer").expect("it wrote");
        }
        let caller = caller.clone();
        writers.spawn(async move { caller.put_account(&format!("account-{number}")).await });
    }
    writers.join_all().await;
}

// A ring that remembers almost nothing.
fn forgetful() -> Limits {
    Limits { ring: ring::Bounds { revisions: 2, bytes: 1 << 20 }, ..Limits::default() }
}

#[tokio::test]
async fn a_snapshot_in_pages_is_whole_although_the_ledger_goes_on() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve_within(long(), forgetful()).await;
    caller.publish_policy().await;
    put_accounts(&caller, 0..2_100).await;

    let writing = tokio::spawn({
        let caller = caller.clone();
        async move { put_accounts(&caller, 2_100..2_600).await }
    });
    let mut sidecar = Bare::hello(&authority, None).await;
    assert_eq!(sidecar.welcomed().await, Start::Snapshot);
    let pages = sidecar.snapshot().await;
    assert!(pages >= 3, "{pages} pages");
    writing.await.expect("it wrote");
    sidecar.follow(at(2_601)).await;
    assert_eq!(sidecar.table.len(), 2_601);
}

#[tokio::test]
async fn a_sidecar_with_a_table_gets_only_what_it_misses() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    put_accounts(&caller, 0..10).await;
    let Bare { table, .. } = Bare::synced(&authority).await;
    put_accounts(&caller, 10..20).await;

    let mut again = Bare::hello(&authority, table.place).await;
    assert_eq!(again.welcomed().await, Start::Continue);
    again.table.take(table);
    again.follow(at(21)).await;
}

#[tokio::test]
async fn a_sidecar_that_fell_behind_the_ring_goes_on_from_the_store() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve_within(long(), forgetful()).await;
    caller.publish_policy().await;
    let Bare { table, .. } = Bare::synced(&authority).await;
    put_accounts(&caller, 0..600).await;

    let mut again = Bare::hello(&authority, table.place).await;
    assert_eq!(again.welcomed().await, Start::Continue);
    again.table.take(table);
    again.follow(at(601)).await;
}

#[tokio::test]
async fn a_sidecar_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve_within(long(), forgetful()).await;
    caller.publish_policy().await;
    let mut slow = Bare::synced(&authority).await;
    let mut quick = Bare::synced(&authority).await;
    // More than its connection takes unread.
    put_accounts(&caller, 0..2_000).await;
    quick.follow(at(2_001)).await;
    slow.follow(at(2_001)).await;
}

#[tokio::test]
async fn what_was_written_before_a_restart_is_in_the_snapshot_after_it() {
    let ledger = Ledger::new().await;
    let (authority, caller) = ledger.serve(long()).await;
    caller.publish_policy().await;
    put_accounts(&caller, 0..5).await;
    let Bare { table, .. } = Bare::synced(&authority).await;
    authority.stop().await;

    let (authority, caller) = ledger.serve(long()).await;
    let mut again = Bare::hello(&authority, table.place).await;
    assert_eq!(again.welcomed().await, Start::Continue, "the same ledger goes on");
    again.table.take(table);
    caller.put_account("one more").await;
    again.follow(at(7)).await;
    authority.stop().await;
}
