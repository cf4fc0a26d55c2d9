//! What is done to a node's Redis around a kill, what the next run should make of it, and how it is made well again.

use crate::random::Random;
use crate::warm::copy::{self, LOG, PLACE, at, bucket_of};
use crate::warm::redis_server::Redis;
use consent_core::head::HeadKey;
use consent_core::words::IdKey;
use redis::Commands;

/// One way to hurt it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Nothing is wrong with it.
    None,
    /// It hangs from before the writes until after the kill.
    Lagging,
    /// It hangs from before the kill until the next run is LIVE.
    Hung,
    /// Killed with the sidecar, it comes back empty.
    Killed,
    /// FLUSHALL while the sidecar is dead.
    Wiped,
    /// FLUSHALL while it runs, and under writes.
    WipedRunning,
    /// It comes back with a dump of some rounds ago.
    OlderDump,
    /// Whoever opted out is not opted out there: well formed, and with the right hash.
    ForgedEntry,
    /// Whoever opted out has an older head there, which was genuine once.
    ReplayedEntry,
    /// A value that was written by half, or not at all.
    HalfWrite,
    /// A copy of another epoch and chain, under this deployment's secret.
    AnotherEpoch,
    /// A copy made under another secret.
    AnotherKey,
    /// A key is of another type while it runs.
    AnotherType,
    /// It still loads its dump when the sidecar asks.
    Loading,
    /// It refuses writes for want of memory.
    OutOfMemory,
    /// It refuses writes as a replica.
    ReadOnly,
    /// It wants a password that the sidecar does not have.
    NoAuth,
}

/// What the next run finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A good copy, however far behind: no snapshot.
    Good,
    /// None that is worth anything: a snapshot.
    Bad,
}

/// Whose head is tampered with, and what is known of it.
pub(super) struct Victim {
    /// Opted out, in the copy already.
    pub(super) key: HeadKey,
    /// The head before that.
    pub(super) older: Vec<u8>,
    /// The head of somebody who is allowed.
    pub(super) others: Vec<u8>,
}

impl Fault {
    /// Those of which a kill comes with each in turn.
    pub(super) const IN_TURN: [Fault; 7] = [
        Fault::None,
        Fault::Lagging,
        Fault::Hung,
        Fault::Killed,
        Fault::Wiped,
        Fault::WipedRunning,
        Fault::OlderDump,
    ];

    /// The others: tampering, and the ways in which Redis refuses.
    pub(super) const MORE: [Fault; 10] = [
        Fault::ForgedEntry,
        Fault::ReplayedEntry,
        Fault::HalfWrite,
        Fault::AnotherEpoch,
        Fault::AnotherKey,
        Fault::AnotherType,
        Fault::Loading,
        Fault::OutOfMemory,
        Fault::ReadOnly,
        Fault::NoAuth,
    ];

    pub(super) const fn leaves(self) -> Found {
        match self {
            Fault::None
            | Fault::Lagging
            | Fault::WipedRunning
            | Fault::OlderDump
            | Fault::AnotherType
            | Fault::Loading
            | Fault::OutOfMemory
            | Fault::ReadOnly => Found::Good,
            Fault::Hung
            | Fault::Killed
            | Fault::Wiped
            | Fault::ForgedEntry
            | Fault::ReplayedEntry
            | Fault::HalfWrite
            | Fault::AnotherEpoch
            | Fault::AnotherKey
            | Fault::NoAuth => Found::Bad,
        }
    }

    /// Is somebody's head tampered with who has opted out, and must be in the copy before the kill?
    pub(super) const fn needs_a_victim(self) -> bool {
        matches!(self, Fault::ForgedEntry | Fault::ReplayedEntry)
    }

    /// Before the writes around the kill.
    pub(super) fn before_writes(self, redis: &Redis) -> Result<(), String> {
        if self == Fault::Lagging {
            return redis.pause();
        }
        let refuse = match self.refuses_writes() {
            Some((refuse, _)) => refuse,
            None => return Ok(()),
        };
        redis.run(refuse).map(drop)
    }

    /// While the sidecar runs, before everything else; it has to be repaired before the kill. Says whether anything
    /// was done.
    pub(super) fn while_it_runs(self, redis: &Redis, random: &mut Random) -> Result<bool, String> {
        let commands: &[&str] = match (self, random.below(2)) {
            (Fault::WipedRunning, _) => &["FLUSHALL"],
            (Fault::AnotherType, 0) => &["DEL consent:place", "RPUSH consent:place x"],
            (Fault::AnotherType, _) => &["SET consent:log x"],
            (_, _) => return Ok(false),
        };
        commands.iter().try_for_each(|command| redis.run(command).map(drop)).map(|()| true)
    }

    /// Right before the kill.
    pub(super) fn before_the_kill(self, redis: &Redis) -> Result<(), String> {
        if self == Fault::Hung { redis.pause() } else { Ok(()) }
    }

    /// When the sidecar is dead.
    pub(super) fn after_the_kill(
        self,
        redis: &mut Redis,
        older: &[u8],
        victim: Option<&Victim>,
        secret: &IdKey,
        random: &mut Random,
    ) -> Result<(), String> {
        match self {
            Fault::Lagging => redis.go_on(),
            Fault::Killed => redis.restart(),
            Fault::Wiped => redis.run("FLUSHALL").map(drop),
            Fault::OlderDump => {
                redis.kill_hard()?;
                redis.put_dump(older)?;
                redis.restart()?;
                std::fs::remove_file(redis.dump()).map_err(|e| e.to_string())
            }
            Fault::Loading => {
                let dump = redis.save()?;
                redis.kill_hard()?;
                redis.put_dump(&dump)?;
                redis.restart_slowly(25)?;
                std::fs::remove_file(redis.dump()).map_err(|e| e.to_string())
            }
            Fault::NoAuth => {
                let mut con = redis.connect()?;
                let set = redis::cmd("CONFIG").arg(&["SET", "requirepass", "secret"]).exec(&mut con);
                set.map_err(|e| e.to_string())
            }
            Fault::ForgedEntry | Fault::ReplayedEntry => {
                let victim = victim.ok_or("nobody to tamper with")?;
                let head = if self == Fault::ForgedEntry { &victim.others } else { &victim.older };
                put_head(&mut redis.connect()?, victim.key, head).map_err(|e| e.to_string())
            }
            Fault::HalfWrite => half(&mut redis.connect()?, random).map_err(|e| e.to_string()),
            Fault::AnotherEpoch => remark(redis, secret, |marker| {
                let marker = copy::forge_marker(&marker, at::EPOCH, &random.next().to_be_bytes(), secret);
                copy::forge_marker(&marker, at::CHAIN, &random.next().to_be_bytes(), secret)
            }),
            Fault::AnotherKey => {
                let other = IdKey::new(u128::from(random.next()).to_be_bytes());
                remark(redis, &other, |marker| marker)
            }
            Fault::None
            | Fault::Hung
            | Fault::WipedRunning
            | Fault::AnotherType
            | Fault::OutOfMemory
            | Fault::ReadOnly => Ok(()),
        }
    }

    /// When the next run is LIVE.
    pub(super) fn heal(self, redis: &Redis) -> Result<(), String> {
        if self == Fault::Hung {
            return redis.go_on();
        }
        if self == Fault::NoAuth {
            let client = redis::Client::open(format!("{}?pass=secret", redis.url()));
            let unlock = client.and_then(|client| {
                let mut con = client.get_connection()?;
                redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec(&mut con)
            });
            return unlock.map_err(|e| e.to_string());
        }
        self.refuses_writes().map_or(Ok(()), |(_, heal)| redis.run(heal).map(drop))
    }

    /// What lets it refuse writes, and what ends that.
    fn refuses_writes(self) -> Option<(&'static str, &'static str)> {
        match (self == Fault::OutOfMemory, self == Fault::ReadOnly) {
            (true, _) => Some(("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0")),
            (_, true) => Some(("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")),
            (false, false) => None,
        }
    }
}

/// A head as it lies in the copy: in the last batch that has it, or in its bucket.
pub(super) fn head(con: &mut redis::Connection, key: HeadKey) -> redis::RedisResult<Option<Vec<u8>>> {
    let is_it = |(kind, its, _): &(u8, Vec<u8>, Vec<u8>)| *kind == key.kind().number() && *its == key.bytes();
    let batches: Vec<Vec<u8>> = con.lrange(LOG, 0, -1)?;
    let bucket: Vec<u8> = con.get(bucket_of(key))?;
    let newest_first = batches.iter().rev().map(|batch| (batch, b'l')).chain([(&bucket, b'b')]);
    let found = newest_first.flat_map(|(value, what)| copy::heads(value, what).into_iter().rev()).find(is_it);
    Ok(found.map(|(_, _, head)| head))
}

// Wherever the key has a head, it has this one.
fn put_head(con: &mut redis::Connection, key: HeadKey, head: &[u8]) -> redis::RedisResult<()> {
    let bucket: Vec<u8> = con.get(bucket_of(key))?;
    con.set::<_, _, ()>(bucket_of(key), copy::with_head(b'b', &bucket, key, head))?;
    let batches: Vec<Vec<u8>> = con.lrange(LOG, 0, -1)?;
    for (number, batch) in (0..).zip(batches) {
        con.lset::<_, _, ()>(LOG, number, copy::with_head(b'l', &batch, key, head))?;
    }
    Ok(())
}

fn half(con: &mut redis::Connection, random: &mut Random) -> redis::RedisResult<()> {
    let bucket = format!("consent:bucket:{}", random.below(4_096));
    match random.below(4) {
        0 => con.del(bucket),
        1 => {
            let marker: Vec<u8> = con.get(PLACE)?;
            con.set(PLACE, &marker[..random.index(marker.len())])
        }
        2 if con.llen::<_, u64>(LOG)? > 0 => con.ltrim(LOG, 0, -2),
        _ => {
            let value: Vec<u8> = con.get(&bucket)?;
            con.set(bucket, &value[..random.index(value.len())])
        }
    }
}

fn remark(redis: &Redis, secret: &IdKey, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<(), String> {
    let mut con = redis.connect()?;
    let marker: Vec<u8> = con.get(PLACE).map_err(|e| e.to_string())?;
    let marker = copy::sealed_marker(&change(marker), secret);
    con.set(PLACE, marker).map_err(|e| e.to_string())
}
