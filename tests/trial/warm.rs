//! kill -9 of the sidecar under writes, with something done to its Redis: what the next run makes of the copy.
//!
//! Somebody opts out while it is dead. From its first breath on it is asked: no ALLOW before its first lease, none
//! for those who opted out, LIVE again whatever lies in Redis; and where the copy was good, however far behind, no
//! snapshot (its log says which it was).

use crate::clients::{self, ID_MARK, Node};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::crash::{Seen, first_accept};
use crate::process::{PATIENCE, log_line};
use crate::random::Random;
use crate::tally::Tally;
use anyhow::{Context, bail, ensure};
use consent::pb::{Channel, Choice, Receipt};
use redis::Commands;
use redis_server::Redis;
use std::collections::BTreeMap;
use std::time::Duration;

#[path = "../support/redis.rs"]
mod redis_server;

const PRODUCT: &str = "le_chat";
const PLACE: &str = "consent:place";
/// Where the revision is in the marker.
const REVISION_AT: usize = 53;
/// Accounts that are written to all the time.
const CHURN: u64 = 64;
/// Writes around each kill.
const WRITES: u64 = 40;

/// What is done to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Nothing,
    /// It hangs from before the writes until after the kill.
    Lagging,
    /// It hangs from before the kill until the next run is LIVE.
    Hung,
    /// Killed with the sidecar, it comes back empty.
    Killed,
    Wiped,
    /// It comes back with a dump of some rounds ago.
    OlderDump,
    /// Values are edited or go missing.
    Edited,
}

impl Fault {
    const ALL: [Fault; 7] = [
        Fault::Nothing,
        Fault::Lagging,
        Fault::Hung,
        Fault::Killed,
        Fault::Wiped,
        Fault::OlderDump,
        Fault::Edited,
    ];

    /// Is there a good copy for the next run to find?
    const fn leaves_a_copy(self) -> bool {
        matches!(self, Fault::Nothing | Fault::Lagging | Fault::OlderDump)
    }
}

/// Each fault in turn, `rounds` in all.
pub(crate) async fn run(tally: &mut Tally, rounds: u64) -> anyhow::Result<()> {
    let mut random = Random::announced()?;
    let redis = Redis::start().map_err(anyhow::Error::msg)?;
    let cluster = Cluster::live_with_redis(StoreKind::Sqlite, Terms::SHORT, redis.url()).await?;
    let mut trial = Trial::begin(cluster, redis, rounds).await?;
    let mut starts: BTreeMap<Fault, (u64, u64)> = BTreeMap::new();
    for round in 0..rounds {
        let fault = Fault::ALL[(round % 7) as usize];
        let was_warm = trial.round(round, fault, &mut random).await.with_context(|| format!("{fault:?}"))?;
        let (runs, warm) = starts.entry(fault).or_default();
        *runs += 1;
        *warm += u64::from(was_warm);
    }
    for (fault, (runs, warm)) in starts {
        let is_right = if fault.leaves_a_copy() { warm == runs } else { warm == 0 };
        tally.check(
            is_right,
            format_args!("{:9} {runs} kills, {warm} starts from the copy", format!("{fault:?}")),
        );
    }
    let seen = &trial.seen;
    seen.wrong.iter().take(3).for_each(|wrong| println!("        {wrong}"));
    tally.check(
        seen.wrong.is_empty() && !seen.early.is_empty(),
        format_args!(
            "{} answers before LIVE and {} about people who opted out meanwhile, none an ALLOW",
            seen.early.values().sum::<u64>(),
            seen.opted_out
        ),
    );
    check_logs(tally, &trial.cluster);
    Ok(())
}

struct Trial {
    cluster: Cluster,
    redis: Redis,
    seen: Seen,
    people: Vec<String>,
    bystander: String,
    since: i64,
    last: Receipt,
    older: Vec<u8>,
}

impl Trial {
    async fn begin(cluster: Cluster, redis: Redis, rounds: u64) -> anyhow::Result<Trial> {
        let people: Vec<String> = (0..rounds).map(|n| format!("{ID_MARK}person{n}")).collect();
        let bystander = format!("{ID_MARK}bystander");
        let mut authority = cluster.authority().await?;
        let mut last = Receipt::default();
        for person in people.iter().chain([&bystander]) {
            last = authority.set_plan(clients::account(person), PRODUCT, "free").await?;
        }
        let guard_ms = clients::guard_ms()?;
        let since = clients::first_allowed(&last, guard_ms)?;
        clients::wall_clock_at(since - guard_ms).await;
        let seen = Seen::default();
        let mut trial = Trial { cluster, redis, seen, people, bystander, since, last, older: Vec::new() };
        trial.kept().await?;
        trial.older = trial.redis.save().map_err(anyhow::Error::msg)?;
        Ok(trial)
    }

    // Says whether the new run started from the copy.
    async fn round(&mut self, round: u64, fault: Fault, random: &mut Random) -> anyhow::Result<bool> {
        let person = self.people[round as usize].clone();
        let artifact = clients::artifact(PRODUCT, "input", self.since);
        let mut node = self.cluster.node().await?;
        let before = node.answers.ask(&person, artifact, self.last.position.clone()).await?;
        ensure!(before.allows(), "before the kill: {:?}", before.response);
        self.kept().await?;
        if round % 20 == 19 {
            self.older = self.redis.save().map_err(anyhow::Error::msg)?;
        }
        if fault == Fault::Lagging {
            self.redis.pause().map_err(anyhow::Error::msg)?;
        }
        let kill_after = random.below(WRITES);
        for write in 0..WRITES {
            if write == kill_after {
                if fault == Fault::Hung {
                    self.redis.pause().map_err(anyhow::Error::msg)?;
                }
                self.cluster.kill_sidecar()?;
            }
            self.churn(random).await?;
        }
        let choice = clients::choice(clients::account(&person), PRODUCT, Choice::Out, Channel::Ios);
        self.last = self.cluster.authority().await?.choose(choice).await?;
        self.hurt(fault, random).map_err(anyhow::Error::msg)?;

        (self.seen.live, self.seen.allowed_bystander) = (false, false);
        let start = self.cluster.start_sidecar_asking(async |socket| first_accept(&socket).await).await;
        let mut node: Node = start?;
        while !self.seen.allowed_bystander {
            self.seen.ask(&mut node, &person, &self.bystander, self.since).await?;
        }
        if fault == Fault::Hung {
            self.redis.go_on().map_err(anyhow::Error::msg)?;
        }
        let lines = self.cluster.sidecar_process()?.lines();
        let says = |what: &str| lines.iter().any(|line| log_line(line, what).is_some());
        let (warm, snapshot) = (says("the durable copy is the table"), says("a snapshot comes"));
        ensure!(warm != snapshot, "it went on from its copy: {warm}; a snapshot came: {snapshot}");
        Ok(warm)
    }

    async fn churn(&mut self, random: &mut Random) -> anyhow::Result<()> {
        let account = clients::account(&format!("{ID_MARK}churn{}", random.below(CHURN)));
        let plan = ["free", "pro", "teams"][random.index(3)];
        self.last = self.cluster.authority().await?.set_plan(account, PRODUCT, plan).await?;
        Ok(())
    }

    // The sidecar is dead.
    fn hurt(&mut self, fault: Fault, random: &mut Random) -> Result<(), String> {
        match fault {
            Fault::Nothing | Fault::Hung => Ok(()),
            Fault::Lagging => self.redis.go_on(),
            Fault::Killed => self.redis.restart(),
            Fault::Wiped => self.redis.run("FLUSHALL").map(drop),
            Fault::OlderDump => {
                self.redis.kill_hard()?;
                self.redis.put_dump(&self.older)?;
                self.redis.restart()?;
                std::fs::remove_file(self.redis.dump()).map_err(|e| e.to_string())
            }
            Fault::Edited => {
                let mut con = self.redis.connect()?;
                let key = format!("consent:bucket:{}", random.below(4_096));
                let mut value: Vec<u8> = con.get(&key).map_err(|e| e.to_string())?;
                let at = random.index(value.len());
                value[at] ^= 1 << random.below(8);
                let edit: redis::RedisResult<()> = match random.below(4) {
                    0 => con.del(&key),
                    1 => con.ltrim("consent:log", 1, 0).and_then(|()| con.del(&key)),
                    _ => con.set(&key, value),
                };
                edit.map_err(|e| e.to_string())
            }
        }
    }

    // Waits until the copy has all that was written.
    async fn kept(&self) -> anyhow::Result<()> {
        let wanted = clients::revision(&self.last);
        let waiting = async {
            loop {
                let marker: Option<Vec<u8>> =
                    self.redis.connect().ok().and_then(|mut con| con.get(PLACE).ok().flatten());
                let revision = marker.as_deref().and_then(|marker| marker[REVISION_AT..].first_chunk::<8>());
                if revision.is_some_and(|revision| u64::from_be_bytes(*revision) >= wanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => bail!("the copy never came to revision {wanted}"),
        }
    }
}
