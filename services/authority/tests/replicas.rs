//! Lanes over one Postgres (R1): two replicas that write at once, and a server that is killed under them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod lane {
    #[allow(dead_code, reason = "shared with the tests of one lane, which write more kinds of things")]
    pub(crate) mod writes;
}
#[path = "../../../tests/support/postgres.rs"]
mod postgres;

use consent_authority::lane::{Lane, Receipt, Write};
use consent_authority::store::{PostgresStore, Reader, Store, postgres as engine};
use consent_core::chain::Chain;
use consent_core::refusal::Refusal;
use consent_core::words::{Choice, Epoch, IdKey, Revision};
use lane::writes::{Author, SOON, deadline};
use postgres::Postgres;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const ID_KEY: IdKey = IdKey::new([7; 16]);

async fn replica(url: &str) -> (Lane, Arc<PostgresStore>) {
    let store = Arc::new(PostgresStore::open(url).await.unwrap());
    let (lane, task) = Lane::new(Arc::clone(&store), ID_KEY, || ());
    tokio::spawn(task);
    (lane, store)
}

/// Two replicas over a fresh ledger with a policy at revision 1.
async fn two_replicas(server: &Postgres) -> (Vec<Lane>, Arc<PostgresStore>) {
    let url = server.fresh_database().unwrap();
    engine::migrate(&url, Epoch::new([1; 16]), ID_KEY).await.unwrap();
    let (first, store) = replica(&url).await;
    let (second, _) = replica(&url).await;
    first.write(Author::new(ID_KEY).policy(), deadline(SOON)).await.unwrap();
    (vec![first, second], store)
}

/// The write until it is recorded, as a caller does it: under the same name.
async fn insist(lane: &Lane, write: Write) -> Receipt {
    loop {
        match lane.write(write.clone(), deadline(SOON)).await {
            Ok(receipt) => return receipt,
            Err(Refusal::StoreUnavailable | Refusal::OutcomeUnknown) => {}
            Err(refusal) => panic!("{refusal:?}"),
        }
    }
}

/// Revisions are dense, the chain is whole, and every receipt that changed something is a place of its own in it.
async fn check(store: &PostgresStore, receipts: &[Receipt]) {
    let mut chains = BTreeMap::new();
    let (mut revision, mut chain) = (Revision::ZERO, Chain::EMPTY);
    loop {
        let page = store.reader().feed(revision, 1000).await.unwrap();
        if page.is_empty() {
            break;
        }
        for entry in page {
            assert!(entry.revision.follows(revision), "{} after {revision}", entry.revision);
            (revision, chain) = (entry.revision, chain.then(entry.link));
            assert_eq!(entry.chain, chain, "at {revision}");
            chains.insert(revision, chain);
        }
    }
    for receipt in receipts {
        assert_eq!(chains.remove(&receipt.position.revision), Some(receipt.chain), "{receipt:?}");
    }
    assert_eq!(chains.into_keys().map(Revision::get).collect::<Vec<_>>(), [1], "nobody asked for these");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_write_one_ledger_and_one_request_is_one_write() {
    let server = Postgres::start().unwrap();
    let (lanes, store) = two_replicas(&server).await;
    let author = Author::new(ID_KEY);
    let mut writers = JoinSet::new();
    for index in 0..200 {
        let write = author.choice(&format!("account-{index}"), Choice::Out);
        let lanes = lanes.clone();
        writers.spawn(async move {
            let [first, second] = &lanes[..] else { panic!("two lanes") };
            let (first, second) = tokio::join!(
                first.write(write.clone(), deadline(SOON)),
                second.write(write.clone(), deadline(SOON))
            );
            assert_eq!(first, second, "the same answer from both");
            first.expect("recorded")
        });
    }
    let receipts = writers.join_all().await;
    check(&store, &receipts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_keeps_what_was_recorded_and_takes_the_rest_later() {
    const WRITERS: usize = 16;
    const WRITES: usize = 30;
    let mut server = Postgres::start().unwrap();
    let (lanes, store) = two_replicas(&server).await;
    let author = Arc::new(Author::new(ID_KEY));
    let (recorded, some) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (lane, author) = (lanes[writer % lanes.len()].clone(), Arc::clone(&author));
        let (recorded, some) = (Arc::clone(&recorded), Arc::clone(&some));
        writers.spawn(async move {
            let mut receipts = Vec::new();
            for write in 0..WRITES {
                let write = author.choice(&format!("account-{writer}-{write}"), Choice::Out);
                receipts.push(insist(&lane, write).await);
                if recorded.fetch_add(1, Ordering::Relaxed) % 100 == 50 {
                    some.notify_one();
                }
            }
            receipts
        });
    }
    for _ in 0..2 {
        some.notified().await;
        server = tokio::task::spawn_blocking(move || {
            server.restart().unwrap();
            server
        })
        .await
        .unwrap();
    }
    let receipts: Vec<Receipt> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(receipts.len(), WRITERS * WRITES);
    check(&store, &receipts).await;
}
