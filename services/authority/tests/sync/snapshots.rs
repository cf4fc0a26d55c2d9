//! Snapshots that break, that many want at once, and that somebody has to wait for.

use crate::bare::{Bare, hello};
use crate::feed::put_accounts;
use crate::ledger::{Caller, Ledger, long};
use consent::convert::sync::{FromAuthority, Unfinished, sync_request, why_unwelcome, with_unfinished};
use consent::pb::sync_request;
use consent_authority::{Authority, Limits, SnapshotLimits, ring};
use consent_core::chain::Chain;
use consent_core::confirm::{Place, Seal, Start, Unwelcome};
use consent_core::words::{Epoch, IdKey, Revision, Span};
use std::collections::HashSet;
use tokio::task::JoinSet;

async fn go_on(authority: &Authority, place: Option<Place>, unfinished: Unfinished) -> Bare {
    let hello = with_unfinished(sync_request(hello(place)), unfinished);
    Bare::open_with(authority, hello).await.expect("a stream")
}

/// A ledger of so many accounts with a policy, and an authority over it whose ring remembers almost nothing.
async fn of(accounts: u64) -> (Ledger, Authority, Caller) {
    let ledger = Ledger::new().await;
    let ring = ring::Bounds { revisions: 64, bytes: 1 << 20 };
    let (authority, caller) = ledger.serve_within(long(), Limits { ring, ..Limits::default() }).await;
    caller.publish_policy().await;
    put_accounts(&caller, 0..accounts).await;
    (ledger, authority, caller)
}

#[tokio::test]
async fn the_rest_of_a_snapshot_comes_and_no_key_twice() {
    let (_ledger, authority, caller) = of(4_500).await;
    let mut sidecar = Bare::hello(&authority, None).await;
    assert_eq!(sidecar.welcomed().await, Start::Snapshot);
    let (mut streams, mut written) = (1, 4_500);
    // One page a stream, and after each the ledger goes on, with accounts before and after it.
    while sidecar.pages(1).await == 1 {
        put_accounts(&caller, written..written + 40).await;
        written += 40;
        let (unfinished, id_key) = (sidecar.unfinished(), sidecar.id_key);
        let Bare { table, part, .. } = sidecar;
        sidecar = go_on(&authority, None, unfinished).await;
        assert_eq!(sidecar.welcomed().await, Start::RestOfSnapshot);
        assert_eq!(sidecar.id_key, id_key);
        sidecar.table.take(table);
        sidecar.part = part;
        streams += 1;
    }
    assert!(streams > 4, "{streams} streams");
    let keys: HashSet<_> = sidecar.part.keys.iter().collect();
    assert_eq!(keys.len(), sidecar.part.keys.len(), "no key twice");
    sidecar.follow(Revision::new(written + 1).expect("a revision")).await;
    assert_eq!(sidecar.table.len() as u64, written + 1);
}

#[tokio::test]
async fn a_sidecar_that_could_not_go_on_is_not_told_where_it_begins() {
    let (_ledger, authority, _) = of(10).await;
    let mut first = sync_request(hello(None));
    let Some(sync_request::Message::Hello(said)) = &mut first.message else { panic!("no hello") };
    said.resumable = false;
    let mut sidecar = Bare::open_with(&authority, first).await.expect("a stream");
    assert_eq!(sidecar.welcomed().await, Start::Snapshot);
    assert!(matches!(sidecar.next().await, FromAuthority::SnapshotChunk { .. }));
}

#[tokio::test]
async fn another_run_of_the_authority_goes_on_from_it() {
    let (ledger, authority, _) = of(1_500).await;
    let mut sidecar = Bare::hello(&authority, None).await;
    assert_eq!(sidecar.welcomed().await, Start::Snapshot);
    assert_eq!(sidecar.pages(1).await, 1);
    let unfinished = sidecar.unfinished();
    let Bare { table, part, .. } = sidecar;
    authority.stop().await;
    let (authority, _) = ledger.serve(long()).await;
    let mut sidecar = go_on(&authority, None, unfinished).await;
    assert_eq!(sidecar.welcomed().await, Start::RestOfSnapshot);
    sidecar.table.take(table);
    sidecar.part = part;
    assert_eq!(sidecar.snapshot().await, 1);
    assert_eq!(sidecar.table.len(), 1_501);
}

#[tokio::test]
async fn what_is_not_of_this_ledger_is_begun_anew_and_holds_nothing() {
    let (_ledger, authority, _) = of(1_500).await;
    let mut sidecar = Bare::hello(&authority, None).await;
    assert_eq!(sidecar.welcomed().await, Start::Snapshot);
    assert_eq!(sidecar.pages(1).await, 1);
    let good = sidecar.unfinished();
    let id_key = sidecar.id_key.expect("a welcome");
    let at = |reached: Place| Unfinished { reached, seal: Seal::of(&id_key, &reached), ..good };
    let ahead = Revision::new(9_999).expect("a revision");
    let bad = [
        Unfinished { seal: Seal::of(&IdKey::new([9; 16]), &good.reached), ..good },
        Unfinished { newest_chunk: ahead, ..good },
        at(Place { epoch: Epoch::new([9; 16]), ..good.reached }),
        at(Place { chain: Chain::new([9; 32]), ..good.reached }),
        at(Place { revision: ahead, ..good.reached }),
    ];
    for unfinished in bad {
        let mut sidecar = go_on(&authority, None, unfinished).await;
        assert_eq!(sidecar.welcomed().await, Start::Snapshot, "{unfinished:?}");
    }
    assert_eq!(go_on(&authority, None, good).await.welcomed().await, Start::RestOfSnapshot);
    // R13: nobody has seen a ledger that is not there. And who has a table needs no rest.
    let mut sidecar = Bare::synced(&authority).await;
    sidecar.lease(1).await;
    let mut again =
        go_on(&authority, sidecar.table.place, at(Place { revision: ahead, ..good.reached })).await;
    assert_eq!(again.welcomed().await, Start::Continue);
}

#[tokio::test]
async fn a_fleet_takes_its_snapshots_together_while_the_ledger_goes_on() {
    let (_ledger, authority, caller) = of(2_500).await;
    let writing = tokio::spawn(async move { put_accounts(&caller, 2_500..3_000).await });
    let mut fleet = JoinSet::new();
    for _ in 0..20 {
        let mut sidecar = Bare::hello(&authority, None).await;
        fleet.spawn(async move {
            assert_eq!(sidecar.welcomed().await, Start::Snapshot);
            sidecar.snapshot().await;
            sidecar.follow(Revision::new(3_001).expect("a revision")).await;
            sidecar.table.len()
        });
    }
    writing.await.expect("it wrote");
    assert_eq!(fleet.join_all().await, [3_001; 20]);
}

#[tokio::test]
async fn who_cannot_wait_for_a_snapshot_comes_again_and_who_has_a_table_notices_nothing() {
    let (ledger, authority, _) = of(10).await;
    let Bare { table, .. } = Bare::synced(&authority).await;
    authority.stop().await;
    // Nobody's turn ever comes, and one may wait for it.
    let snapshots = SnapshotLimits { turns: 0, waiters: 1, ..SnapshotLimits::default() };
    let (authority, caller) = ledger.serve_within(long(), Limits { snapshots, ..Limits::default() }).await;
    let mut live = Bare::hello(&authority, table.place).await;
    assert_eq!(live.welcomed().await, Start::Continue);
    live.table.take(table);
    live.lease(1).await;
    let mut waiting = Bare::hello(&authority, None).await;
    assert_eq!(waiting.welcomed().await, Start::Snapshot);
    for nonce in 2..4 {
        let mut refused = Bare::hello(&authority, None).await;
        let status = refused.hear().await.expect("a word").expect_err("no room");
        assert_eq!(
            why_unwelcome(&status),
            Some(Unwelcome::Busy { retry_after: Span::from_millis(2_000) }),
            "{status:?}"
        );
        live.lease(nonce).await;
    }
    caller.put_account("one more").await;
    live.follow(Revision::new(12).expect("a revision")).await;
    live.lease(9).await;
    // The one who waited leaves, and another may wait.
    drop(waiting);
    loop {
        let mut next = Bare::hello(&authority, None).await;
        if next.hear().await.expect("a word").is_ok() {
            break;
        }
    }
}
