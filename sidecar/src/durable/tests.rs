//! The writer and the loader against a real Redis, with a table that is changed by hand.

use super::backlog::{Backlog, Step};
use super::layout::{LOG, PLACE, bucket_key, bucket_of};
use super::server::Server;
use super::unproven::{Proven, Unproven, Wrong};
use super::writer::{LogMax, Writer};
use super::{BACKLOG_BYTES_MAX, LOG_MAX};
use crate::node::Node;
use crate::table::{Heads, Incoming};
use consent_core::chain::{Chain, Link};
use consent_core::confirm::{Frame, Place};
use consent_core::digest::Digest;
use consent_core::head::{AccountHead, ExclusionHead, Head, HeadKey};
use consent_core::ledger::HeadRecord;
use consent_core::words::{AccountKey, ArtifactKey, Epoch, IdKey, Incarnation, Revision, Timestamp};
use redis::Commands;
use redis_server::Redis;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

#[path = "../../../tests/support/redis.rs"]
mod redis_server;

const SECRET: IdKey = IdKey::new([7; 16]);
/// How long a test waits for what must come. It is reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A table, and a Redis for its copy.
struct Stage {
    redis: Redis,
    node: Arc<Node>,
    backlog: Arc<Backlog>,
    place: Place,
    writer: AbortOnDropHandle<()>,
}

fn account(number: u64) -> HeadKey {
    HeadKey::Account(AccountKey::new(*SECRET.account(&format!("account-{number}")).bytes()))
}

/// The head as this revision left it.
fn head(key: HeadKey, rev: Revision) -> HeadRecord {
    let head = match key {
        HeadKey::Exclusion(_) => Head::Exclusion(ExclusionHead { rev }),
        HeadKey::Policy | HeadKey::Organization(_) | HeadKey::Account(_) => {
            Head::Account(AccountHead::Erased { rev })
        }
    };
    HeadRecord { key, bytes: head.encode() }
}

fn now(place: Place) -> Timestamp {
    Timestamp::from_millis(place.revision.get().cast_signed())
}

impl Stage {
    /// A table of so many accounts.
    fn set(accounts: u64, log_max: LogMax, backlog_max: usize) -> Stage {
        let redis = Redis::start().expect("a Redis");
        let node = Arc::new(Node::new(Incarnation::new([1; 16])));
        let revision = Revision::new(accounts.max(1)).unwrap();
        let mut heads = Heads::new(SECRET);
        for number in 0..accounts {
            heads.put_if_newer(Incoming::read(head(account(number), revision), revision).unwrap());
        }
        let (chain, digest) = (Chain::EMPTY, heads.digest());
        let place = Place { epoch: Epoch::new([2; 16]), revision, chain, digest };
        node.table.install(heads, &place, now(place));
        let backlog = Arc::new(Backlog::new(backlog_max));
        backlog.replaced(place, now(place));
        let server = Server::new(redis.url().parse().unwrap());
        let writer = Writer::new(Arc::clone(&node), Arc::clone(&backlog), server, log_max);
        let writer = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        Stage { redis, node, backlog, place, writer }
    }

    /// The next revision changes this head.
    fn change(&mut self, key: HeadKey) {
        let revision = self.place.revision.next().unwrap();
        let record = head(key, revision);
        let incoming = || Incoming::read(record.clone(), revision).unwrap();
        let link = Link::new([3; 32]);
        let chain = self.place.chain.then(link);
        let mut frame = Frame { epoch: self.place.epoch, revision, link, chain, digest: Digest::EMPTY };
        let at = now(frame.place());
        // Told a wrong digest, the table says what it would have, and changes nothing.
        frame.digest = self.node.table.apply(&frame, at, incoming());
        assert_eq!(self.node.table.apply(&frame, at, incoming()), frame.digest);
        self.place = frame.place();
        self.backlog.stepped(Step::Changed { place: self.place, recorded_at: at, head: record });
    }

    async fn load(&self) -> Result<Proven, Wrong> {
        let mut server = Server::new(self.redis.url().parse().unwrap());
        Unproven::load(&mut server).await?.ok_or(Wrong::Moved)?.prove(&SECRET)
    }

    /// Waits until the copy stands where the table does, and is good.
    async fn kept(&self) -> Proven {
        let waiting = async {
            loop {
                if let Ok(proven) = self.load().await
                    && proven.place == self.place
                {
                    return proven;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let proven = tokio::time::timeout(PATIENCE, waiting).await.expect("a copy of the table");
        assert_eq!(proven.heads.digest(), self.place.digest);
        assert_eq!(proven.recorded_at, now(self.place));
        proven
    }
}

#[tokio::test]
async fn a_long_log_goes_into_the_buckets_that_it_touches() {
    let log_max = LogMax { batches: 4, heads: 1_000 };
    let mut stage = Stage::set(300, log_max, BACKLOG_BYTES_MAX);
    let generation = stage.kept().await.kept.marker.generation;
    let mut con = stage.redis.connect().unwrap();
    for number in 0..40 {
        stage.change(account(number % 7));
        let proven = stage.kept().await;
        assert!(proven.kept.marker.batches < 4, "the log goes on growing");
        assert_eq!(con.llen(LOG), Ok(proven.kept.marker.batches));
    }
    assert_eq!(stage.kept().await.kept.marker.generation, generation, "it was written anew");
}

#[tokio::test]
async fn a_log_of_many_heads_is_long_too() {
    let mut stage = Stage::set(1, LogMax { batches: u64::MAX, heads: 100 }, BACKLOG_BYTES_MAX);
    stage.kept().await;
    (0..500).for_each(|number| stage.change(account(number)));
    assert!(stage.kept().await.kept.log.len() < 100);
}

/// A part that is read late is newer than the log was when it was read.
#[tokio::test]
async fn a_table_that_changes_while_it_is_copied_is_copied_right() {
    let mut stage = Stage::set(3_000, LOG_MAX, BACKLOG_BYTES_MAX);
    // Each time the writer waits for Redis, the table goes on: from the first part to the last.
    for number in 0..2_000 {
        stage.change(account(number * 7 % 4_000));
        tokio::task::yield_now().await;
    }
    let excluded = HeadKey::Exclusion(ArtifactKey::new([9; 16]));
    stage.change(excluded);
    stage.kept().await;
}

#[tokio::test]
async fn what_redis_does_not_take_in_time_is_not_kept_in_memory() {
    let mut stage = Stage::set(10, LOG_MAX, 2_000);
    let before = stage.kept().await.kept.marker.generation;
    stage.redis.pause().unwrap();
    for number in 0..1_000 {
        stage.change(account(number));
        tokio::task::yield_now().await;
    }
    assert!(!stage.backlog.follows(), "the queue has no bound");
    stage.redis.go_on().unwrap();
    assert_ne!(stage.kept().await.kept.marker.generation, before, "it was written anew");
}

#[tokio::test]
async fn a_writer_that_is_gone_leaves_a_copy_to_go_on_from() {
    let mut stage = Stage::set(50, LOG_MAX, BACKLOG_BYTES_MAX);
    (0..100).for_each(|number| stage.change(account(number)));
    let proven = stage.kept().await;
    stage.writer.abort();

    stage.backlog = Arc::new(Backlog::new(BACKLOG_BYTES_MAX));
    let generation = proven.kept.marker.generation;
    stage.backlog.proven(proven.kept);
    let server = Server::new(stage.redis.url().parse().unwrap());
    let writer = Writer::new(Arc::clone(&stage.node), Arc::clone(&stage.backlog), server, LOG_MAX);
    stage.writer = AbortOnDropHandle::new(tokio::spawn(writer.run()));
    (50..150).for_each(|number| stage.change(account(number)));
    assert_eq!(stage.kept().await.kept.marker.generation, generation, "it was not written anew");
}

/// Chance that is the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % bound
    }
}

/// A hundred of each way to spoil a value: none gives a table with other heads than there were.
#[tokio::test]
async fn nothing_that_is_spoilt_is_proven() {
    let mut stage = Stage::set(40, LOG_MAX, BACKLOG_BYTES_MAX);
    stage.kept().await;
    for number in 0..6 {
        stage.change(account(number));
        stage.kept().await;
    }
    stage.writer.abort();
    let mut con = stage.redis.connect().unwrap();
    let taken: Vec<String> = (0..40).map(|n| bucket_key(bucket_of(account(n), 4096))).collect();
    let batches: Vec<Vec<u8>> = con.lrange(LOG, 0, -1).unwrap();
    let mut chance = Chance(1);
    for round in 0..600 {
        let (key, place) = match chance.below(3) {
            0 => (PLACE.to_owned(), None),
            1 => (taken[chance.below(taken.len())].clone(), None),
            _ => (LOG.to_owned(), Some(chance.below(batches.len()))),
        };
        let value: Vec<u8> = match place {
            None => con.get(&key).unwrap(),
            Some(at) => batches[at].clone(),
        };
        let mut spoilt = value.clone();
        match round % 6 {
            0 => spoilt[chance.below(value.len())] ^= 1 << chance.below(8),
            1 => spoilt.truncate(chance.below(value.len())),
            2 => spoilt.push(0),
            3 => spoilt = con.get(&taken[chance.below(taken.len())]).unwrap(),
            4 => spoilt.rotate_left(1 + chance.below(value.len() - 1)),
            _ => spoilt = batches[chance.below(batches.len())].clone(),
        }
        let put = |con: &mut redis::Connection, value: &[u8]| match place {
            None => con.set::<_, _, ()>(&key, value).unwrap(),
            Some(at) => con.lset::<_, _, ()>(LOG, at as isize, value).unwrap(),
        };
        put(&mut con, &spoilt);
        let loaded = stage.load().await;
        assert_eq!(loaded.is_ok(), spoilt == value, "round {round}: {key} {place:?}");
        put(&mut con, &value);
    }
    assert!(stage.load().await.is_ok(), "what was put back is good");
}
