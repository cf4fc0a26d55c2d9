//! The writer and the loader against a real Redis, with a table that is changed by hand.

use super::backlog::{Backlog, Step, Work};
use super::kept::Kept;
use super::layout::{self, LOG, Marker, PLACE, Size, bucket_key, bucket_of};
use super::server::Server;
use super::unproven::{Loading, Proven, Unproven, Wrong};
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
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

#[path = "../../../tests/support/redis.rs"]
mod redis_server;
mod slow;

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
            let HeadRecord { key, bytes } = head(account(number), revision);
            heads.put_if_newer(key, &bytes, revision).unwrap();
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
        let found = Unproven::find(&mut server).await?.ok_or(Wrong::Layout)?;
        found.prove(self.redis.url().parse().unwrap(), SECRET).await
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
        // The fourth batch is there before the log that it makes too long is gone.
        let compacting = async {
            loop {
                let proven = stage.kept().await;
                if proven.kept.marker.batches < 4 {
                    return proven;
                }
            }
        };
        let proven = tokio::time::timeout(PATIENCE, compacting).await.expect("the log goes on growing");
        assert_eq!(con.llen(LOG), Ok(proven.kept.marker.batches));
    }
    assert_eq!(stage.kept().await.kept.marker.generation, generation, "it was written anew");
}

#[tokio::test]
async fn a_log_of_many_heads_is_long_too() {
    let mut stage = Stage::set(1, LogMax { batches: u64::MAX, heads: 100 }, BACKLOG_BYTES_MAX);
    stage.kept().await;
    (0..500).for_each(|number| stage.change(account(number)));
    // The last batch is there before the log that it makes too long is gone.
    let compacting = async { while stage.kept().await.kept.log.len() >= 100 {} };
    tokio::time::timeout(PATIENCE, compacting).await.expect("the log goes on growing");
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

/// Each time the writer waits for Redis there is another change, until the copy is there.
#[tokio::test]
async fn a_rewrite_ends_although_the_table_never_stands_still() {
    let mut stage = Stage::set(1_000, LOG_MAX, BACKLOG_BYTES_MAX);
    let mut con = stage.redis.connect().unwrap();
    let changing = async {
        let mut number = 0;
        while number % 16 != 0 || con.exists(PLACE) != Ok(true) {
            stage.change(account(number % 1_000));
            number += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, changing).await.expect("the rewrite waits for a table that stands still");
    assert!(stage.backlog.follows());
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

/// What lies there may be of any size: no more of it is read than the marker says that there is.
#[tokio::test]
async fn what_is_larger_than_the_marker_says_is_thrown_away() {
    let mut stage = Stage::set(40, LOG_MAX, BACKLOG_BYTES_MAX);
    stage.kept().await;
    stage.change(account(1));
    let Kept { marker, .. } = stage.kept().await.kept;
    stage.writer.abort();
    let mut con = stage.redis.connect().unwrap();
    let too_large = async |what: &str| match stage.load().await {
        Err(Wrong::TooLarge(found)) => assert_eq!(found, what),
        other => panic!("{what}: {other:?}"),
    };

    let taken = bucket_key(bucket_of(account(0), 4_096));
    let value: Vec<u8> = con.get(&taken).unwrap();
    con.setrange::<_, _, ()>(&taken, 8 << 20, "x").unwrap();
    too_large("a bucket is larger than any that was written").await;
    con.set::<_, _, ()>(&taken, value).unwrap();

    con.rpush::<_, _, ()>(LOG, vec![0_u8; 1 << 20]).unwrap();
    too_large("its log").await;
    con.rpop::<_, ()>(LOG, None).unwrap();
    assert!(stage.load().await.is_ok(), "what was put back is good");

    // Well formed, none too large, and in every bucket.
    let revision = marker.base;
    let forged = head(account(7), revision).bytes;
    for number in 0..4_096 {
        let value = layout::bucket(&marker.generation, number, [(account(7), forged.as_slice())]);
        con.set::<_, _, ()>(bucket_key(number), value).unwrap();
    }
    too_large("its buckets").await;
}

/// A step of the run before may still be on its way when the next run reads the marker.
#[tokio::test]
async fn a_batch_that_came_late_is_not_of_the_copy() {
    let mut stage = Stage::set(40, LOG_MAX, BACKLOG_BYTES_MAX);
    stage.kept().await;
    let mut server = Server::new(stage.redis.url().parse().unwrap());
    let found = Unproven::find(&mut server).await.unwrap().expect("a copy");
    let (before, digest) = (stage.place, stage.place.digest);
    stage.change(account(1));
    stage.kept().await;
    let proven = found.prove(stage.redis.url().parse().unwrap(), SECRET).await.unwrap();
    assert_eq!((proven.place, proven.heads.digest()), (before, digest));
}

#[tokio::test]
async fn a_copy_that_became_another_one_is_told_from_a_damaged_one() {
    let mut stage = Stage::set(40, LOG_MAX, BACKLOG_BYTES_MAX);
    stage.kept().await;
    let mut server = Server::new(stage.redis.url().parse().unwrap());
    let found = Unproven::find(&mut server).await.unwrap().expect("a copy");
    stage.redis.run("FLUSHALL").unwrap();
    stage.change(account(1));
    stage.kept().await;
    let outcome = found.prove(stage.redis.url().parse().unwrap(), SECRET).await;
    assert!(matches!(outcome, Err(Wrong::Moved)), "{outcome:?}");
}

/// Polled once: does it give the thread to others before it is done?
fn gives_turns<T>(work: impl Future<Output = T>) -> bool {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    let mut turns = 0;
    while work.as_mut().poll(&mut context).is_pending() {
        turns += 1;
    }
    turns > 0
}

#[tokio::test]
async fn neither_loading_nor_copying_keeps_the_thread_to_itself() {
    let accounts: Vec<HeadKey> =
        (0..2_000_000).map(account).filter(|key| bucket_of(*key, 256) == 0).take(5_000).collect();
    assert_eq!(accounts.len(), 5_000);
    let revision = Revision::new(1).unwrap();
    let bytes = head(account(0), revision).bytes;
    let pairs = || accounts.iter().map(|key| (*key, bytes.as_slice()));

    let place = Place { epoch: Epoch::new([2; 16]), revision, chain: Chain::EMPTY, digest: Digest::EMPTY };
    let generation = [3; 16];
    let value = layout::bucket(&generation, 0, pairs());
    let size = Size { heads: 5_000, buckets: value.len() as u64, largest: value.len() as u32, log: 0 };
    let recorded_at = now(place);
    let marker = Marker { generation, buckets: 4_096, base: revision, batches: 0, place, recorded_at, size };
    let mut loading = Loading::new(&marker, &SECRET);
    assert!(gives_turns(loading.take_buckets(0, vec![value])));

    let node = Arc::new(Node::new(Incarnation::new([1; 16])));
    let mut heads = Heads::new(SECRET);
    for (key, bytes) in pairs() {
        heads.put_if_newer(key, bytes, revision).unwrap();
    }
    let place = Place { digest: heads.digest(), ..place };
    node.table.install(heads, &place, recorded_at);
    let backlog = Arc::new(Backlog::new(BACKLOG_BYTES_MAX));
    backlog.replaced(place, recorded_at);
    assert!(matches!(backlog.take(1), Work::Rewrite(..)));
    let server = Server::new("unix:///nowhere/redis.sock".parse().unwrap());
    let writer = Writer::new(node, backlog, server, LOG_MAX);
    let mut kept = Kept::new(SECRET, Marker { place, ..marker });
    assert!(gives_turns(writer.part(0, &mut kept)));
}
