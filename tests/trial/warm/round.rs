//! One node that is killed again and again, and what is asked of it meanwhile.

use super::copy::{self, PLACE};
use super::fault::{self, Fault, Found, Victim};
use super::redis_server::Redis;
use super::wire::{Carried, Wire};
use crate::clients::{self, ID_MARK, Node};
use crate::cluster::{Cluster, StoreKind, Terms};
use crate::crash::first_accept;
use crate::history::{Allow, Change};
use crate::process::PATIENCE;
use crate::random::Random;
use anyhow::{Context, anyhow, bail, ensure};
use consent::clock;
use consent::pb::{Confirmation, Reason, Receipt, SidecarState};
use consent_core::head::HeadKey;
use redis::Commands;
use std::time::Duration;
use tokio::task::{JoinHandle, block_in_place};

const PRODUCT: &str = "le_chat";
/// Leases as short as the figures allow, so that a round waits little.
const TERMS: Terms = Terms { sidecar_lease: 300, replica_lease: 1000, ..Terms::DEFAULT };
/// Accounts that are written to all the time.
const CHURN: u64 = 64;
/// Writes around each kill.
const WRITES: u64 = 8;
/// A dump is put aside so often.
const DUMP_EVERY: usize = 20;

/// A node with a Redis, an authority and a wire of its own.
pub(super) struct Lane {
    cluster: Cluster,
    redis: Redis,
    wire: Wire,
    people: Vec<String>,
    bystander: String,
    since: i64,
    last: Receipt,
    older: Vec<u8>,
    pub(super) changes: Vec<Change>,
    pub(super) asked: Asked,
}

/// What became of one round.
pub(super) struct Outcome {
    pub(super) was_warm: bool,
    pub(super) carried: Carried,
}

/// What the sidecar answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) allows: Vec<Allow>,
    /// Answers before it was LIVE.
    pub(super) early: u64,
    /// What must not be.
    pub(super) wrong: Vec<String>,
    is_live: bool,
}

/// An opt-out on its way: when it was sent, its receipt, and when that had come.
type OptingOut = JoinHandle<anyhow::Result<(u64, Receipt, u64)>>;

impl Lane {
    /// A LIVE sidecar with a good copy, and so many people who may be opted out.
    pub(super) async fn begin(people: usize) -> anyhow::Result<Lane> {
        let redis = block_in_place(Redis::start).map_err(anyhow::Error::msg)?;
        let cluster = Cluster::live_with_redis(StoreKind::Sqlite, TERMS, redis.url()).await?;
        let wire = Wire::start(cluster.authority_address()?).await?;
        cluster.wire().lead_to(&wire.address().to_string());
        let people: Vec<String> = (0..people).map(|n| format!("{ID_MARK}person{n}")).collect();
        let bystander = format!("{ID_MARK}bystander");
        let mut authority = cluster.authority().await?;
        let mut last = Receipt::default();
        for person in people.iter().chain([&bystander]) {
            last = authority.set_plan(clients::account(person), PRODUCT, "free").await?;
        }
        let guard_ms = clients::guard_ms()?;
        let since = clients::first_allowed(&last, guard_ms)?;
        clients::wall_clock_at(since - guard_ms).await;
        let (changes, asked, older) = (Vec::new(), Asked::default(), Vec::new());
        let mut lane = Lane { cluster, redis, wire, people, bystander, since, last, older, changes, asked };
        lane.kept().await?;
        lane.put_aside()?;
        Ok(lane)
    }

    /// Hurts its Redis around a kill.
    pub(super) async fn round(
        &mut self,
        round: usize,
        fault: Fault,
        random: &mut Random,
    ) -> anyhow::Result<Outcome> {
        let person = self.people[round].clone();
        let mut node = self.cluster.node().await?;
        self.asked.until_allowed(&mut node, round, &person, self.since).await?;
        let generation = self.generation();
        if block_in_place(|| fault.while_it_runs(&self.redis, random)).map_err(anyhow::Error::msg)? {
            self.churn(random).await?;
            // The next step may still set the marker of the copy that is gone: it is good when it is another one.
            let is_another = |lane: &Lane| lane.generation().is_some_and(|now| Some(now) != generation);
            self.until("was written anew", is_another).await?;
        }
        self.kept().await?;
        if round % DUMP_EVERY == DUMP_EVERY - 1 {
            self.put_aside()?;
        }
        let secret = self.wire.secret()?;
        let mut opting_out: Option<OptingOut> = None;
        let mut victim = None;
        if fault.needs_a_victim() {
            let key = HeadKey::Account(secret.account(&person));
            let older = self.head(key)?;
            let others = self.head(HeadKey::Account(secret.account(&self.bystander)))?;
            self.opted_out(round, self.opt_out(&person).await?).await?;
            self.kept().await?;
            ensure!(self.head(key)? != older, "the opt-out is not in the copy");
            victim = Some(Victim { key, older, others });
        }

        block_in_place(|| fault.before_writes(&self.redis)).map_err(anyhow::Error::msg)?;
        let kill_after = random.below(WRITES);
        for write in 0..WRITES {
            if write == kill_after {
                block_in_place(|| fault.before_the_kill(&self.redis)).map_err(anyhow::Error::msg)?;
                block_in_place(|| self.cluster.kill_sidecar())?;
            }
            self.churn(random).await?;
        }
        if victim.is_none() {
            opting_out = Some(self.opt_out(&person).await?);
        }
        let Lane { redis, older, .. } = self;
        block_in_place(|| fault.after_the_kill(redis, older, victim.as_ref(), &secret, random))
            .map_err(anyhow::Error::msg)?;

        self.wire.carried();
        let mut node = self.start().await?;
        self.asked.until_live_again(&mut node, round, &person, &self.bystander, self.since).await?;
        block_in_place(|| fault.heal(&self.redis)).map_err(anyhow::Error::msg)?;
        if let Some(opting_out) = opting_out {
            self.opted_out(round, opting_out).await?;
        }
        self.kept().await.context("repairing the copy")?;
        let carried = self.wire.carried();
        let was_warm = carried.from_copy > 0 && carried.pages == 0;
        ensure!(was_warm || carried.pages > 0, "neither from its copy nor from a snapshot: {carried:?}");
        if was_warm != (fault.leaves() == Found::Good) {
            let lines = self.cluster.sidecar_process()?.lines();
            let about = lines.iter().filter(|line| line.contains("copy") || line.contains("snapshot"));
            about.for_each(|line| println!("        {fault:?}: {line}"));
        }
        Ok(Outcome { was_warm, carried })
    }

    /// From the next session on the sidecar believes that it has missed nothing.
    pub(super) fn plant_the_fault(&self) {
        self.wire.plant_the_fault();
    }

    /// A kill with a good copy, an opt-out while the sidecar is dead, and questions until that is EFFECTIVE and longer.
    pub(super) async fn faulty_round(&mut self, random: &mut Random) -> anyhow::Result<()> {
        let person = self.people.first().cloned().context("nobody to opt out")?;
        let mut node = self.cluster.node().await?;
        self.asked.until_allowed(&mut node, 0, &person, self.since).await?;
        self.churn(random).await?;
        self.kept().await?;
        block_in_place(|| self.cluster.kill_sidecar())?;
        let opting_out = self.opt_out(&person).await?;
        let mut node = self.start().await?;
        self.opted_out(0, opting_out).await?;
        self.asked.until_allowed(&mut node, 0, &person, self.since).await
    }

    /// Lines of logs, and those with an id.
    pub(super) fn ids_in_logs(&self) -> (usize, Vec<String>) {
        self.cluster.ids_in_logs()
    }

    async fn start(&mut self) -> anyhow::Result<Node> {
        self.asked.is_live = false;
        self.cluster.start_sidecar_asking(async |socket| first_accept(&socket).await).await
    }

    async fn churn(&mut self, random: &mut Random) -> anyhow::Result<()> {
        let account = clients::account(&format!("{ID_MARK}churn{}", random.below(CHURN)));
        let plan = ["free", "pro", "teams"][random.index(3)];
        self.last = self.cluster.authority().await?.set_plan(account, PRODUCT, plan).await?;
        Ok(())
    }

    // Sent now; whoever waits for it waits until it is EFFECTIVE.
    async fn opt_out(&self, person: &str) -> anyhow::Result<OptingOut> {
        let (mut authority, party) = (self.cluster.authority().await?, clients::account(person));
        let sent = clock::now().boot;
        Ok(tokio::spawn(async move {
            let receipt = authority.opt_out_confirmed(party, PRODUCT).await?;
            Ok((sent, receipt, clock::now().boot))
        }))
    }

    async fn opted_out(&mut self, round: usize, opting_out: OptingOut) -> anyhow::Result<()> {
        let (sent, receipt, now) = opting_out.await??;
        ensure!(receipt.confirmation() == Confirmation::Effective, "never EFFECTIVE: {receipt:?}");
        let (account, revision) = (number(round)?, clients::revision(&receipt));
        self.changes.push(Change { account, out: true, revision, sent, effective: Some(now) });
        if revision > clients::revision(&self.last) {
            self.last = receipt;
        }
        Ok(())
    }

    fn head(&self, key: HeadKey) -> anyhow::Result<Vec<u8>> {
        let mut con = self.redis.connect().map_err(anyhow::Error::msg)?;
        block_in_place(|| fault::head(&mut con, key))?.context("no such head in the copy")
    }

    fn put_aside(&mut self) -> anyhow::Result<()> {
        self.older = block_in_place(|| self.redis.save()).map_err(anyhow::Error::msg)?;
        Ok(())
    }

    // Waits until the copy has all that was written, under this deployment's secret.
    async fn kept(&self) -> anyhow::Result<()> {
        let wanted = clients::revision(&self.last);
        let is_there = |lane: &Lane| {
            let place = lane.marker().and_then(|marker| copy::place(&marker));
            place.is_some_and(|place| place.revision.get() >= wanted)
        };
        self.until(&format!("came to revision {wanted}"), is_there).await
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Lane) -> bool) -> anyhow::Result<()> {
        let waiting = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.map_err(|_| anyhow!("the copy never {what}"))
    }

    // Which rewrite the copy is of.
    fn generation(&self) -> Option<Vec<u8>> {
        self.marker()?.get(1..17).map(<[u8]>::to_vec)
    }

    // A forged one has no right check.
    fn marker(&self) -> Option<Vec<u8>> {
        let marker: Option<Vec<u8>> = block_in_place(|| self.redis.connect().ok()?.get(PLACE).ok())?;
        let secret = self.wire.secret().ok()?;
        marker
            .filter(|marker| copy::place(marker).is_some() && copy::sealed_marker(marker, &secret) == *marker)
    }
}

fn number(round: usize) -> anyhow::Result<u32> {
    u32::try_from(round).context("too many rounds")
}

impl Asked {
    // The bystander is nobody who is ever opted out.
    async fn ask(
        &mut self,
        node: &mut Node,
        account: u32,
        id: &str,
        since: i64,
    ) -> anyhow::Result<clients::Answered> {
        let answer = node.answers.ask(id, clients::artifact(PRODUCT, "input", since), None).await?;
        if answer.allows() {
            let (asked, answered) = (answer.asked, answer.answered);
            let (valid_until, revision) = (answer.valid_until(), answer.revision());
            self.allows.push(Allow { account, asked, answered, valid_until, revision });
        }
        Ok(answer)
    }

    async fn until_allowed(
        &mut self,
        node: &mut Node,
        round: usize,
        person: &str,
        since: i64,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            let answer = self.ask(node, number(round)?, person, since).await?;
            if answer.allows() {
                return Ok(());
            }
            tokio::select! {
                () = &mut deadline => bail!("never allowed: {:?}", answer.response),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
        }
    }

    /// Asks from the first breath on, until the bystander is allowed and the opt-out is known. Two answers, then the
    /// state: not yet LIVE after them means not LIVE before them.
    async fn until_live_again(
        &mut self,
        node: &mut Node,
        round: usize,
        person: &str,
        bystander: &str,
        since: i64,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            let other = self.ask(node, u32::MAX, bystander, since).await?;
            let answer = self.ask(node, number(round)?, person, since).await?;
            let status = node.status().await?;
            self.is_live |= status.state() == SidecarState::Live;
            if !self.is_live {
                self.early += 2;
                for early in [&other, &answer].into_iter().filter(|early| early.allows()) {
                    self.wrong.push(format!("ALLOW before LIVE: {:?}", early.response));
                }
            }
            if other.allows() && answer.response.reason() == Reason::AccountOptedOut {
                return Ok(());
            }
            tokio::select! {
                () = &mut deadline => return Err(anyhow!("never LIVE again: {status:?}")),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }
}
