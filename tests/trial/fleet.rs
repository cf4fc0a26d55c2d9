//! A whole fleet killed at once and started at once, while a few of it go on.
//!
//! Each sidecar has a durable copy of its own, so the restart costs what was written meanwhile and no snapshot. Some of
//! them then come back without their copies: those take snapshots, which they share. All through it the few that go on
//! are asked without a pause, and must never say STALE; the authority's memory is the kernel's figure. How long it
//! takes is printed and not judged: the fleet has two cores here, and elsewhere one machine for each sidecar.
//!
//! For the same reason the fleet stands behind everybody else in the queue for a processor: elsewhere a Redis has a
//! processor of its own node, and an authority and whoever is LIVE have machines of their own, so that no node's start
//! is long for them.

use crate::clients::{self, Answers, Authority, ID_MARK};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::process::{Process, log_line};
use crate::relay::Relay;
use crate::tally::Tally;
use crate::warm::redis_server::Redis;
use anyhow::{bail, ensure};
use consent::clock;
use consent::pb::{Decision, Reason, Receipt};
use redis::Commands;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const PRODUCT: &str = "le_chat";
const PLACE: &str = "consent:place";
/// Where the revision is in the marker.
const REVISION_AT: usize = 53;
/// A bound on hanging: the whole fleet shares this machine.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Those that go on.
const LIVE: usize = 3;
/// Connections that fill the ledger, and callers on each.
const WRITERS: (usize, usize) = (4, 128);
/// Changes while the fleet is dead.
const MISSED: u64 = 500;
/// What snapshots under way may cost the authority: shared pages, the ring, and what is on its way on each stream.
const MEMORY_MAX: u64 = 256 << 20;

/// So many sidecars over so many accounts.
pub(crate) async fn run(tally: &mut Tally, sidecars: usize, accounts: u64) -> anyhow::Result<()> {
    ensure!(sidecars > 0 && accounts > 0, "nobody proves nothing");
    let redis = Redis::start_with_databases(1 + sidecars + LIVE).map_err(anyhow::Error::msg)?;
    let cluster = Cluster::start(StoreKind::Sqlite, Terms::DEFAULT).await?;
    cluster.authority().await?.publish_policy().await?;
    let relay = Relay::start().await?;
    relay.lead_to(cluster.authority_address()?);
    let fleet = Fleet { cluster, redis, relay, sidecars };

    let (took, last) = timed(fleet.fill(accounts)).await?;
    println!("        {accounts} accounts written in {took}");
    let first = fleet.first_copy(clients::revision(&last)).await?;
    println!("        {first}");
    let guard_ms = clients::guard_ms()?;
    let since = clients::first_allowed(&last, guard_ms)?;
    clients::wall_clock_at(since - guard_ms).await;

    let direct = fleet.cluster.authority_address()?.to_owned();
    let live: Vec<Process> =
        (1..=LIVE).map(|database| fleet.start(&direct, Some(database))).collect::<anyhow::Result<_>>()?;
    let asking = Asking::begin(&live, since).await?;

    let (took, running) = timed(fleet.start_all(sidecars)).await?;
    println!("        {sidecars} sidecars LIVE from copies of it in {took}");
    let peak_before = fleet.cluster.authority_process()?.peak_memory()?;
    running.into_iter().try_for_each(Process::kill)?;
    fleet.write(MISSED).await?;
    let brought = fleet.relay.brought();
    let (took, running) = timed(fleet.start_all(sidecars)).await?;
    let brought = fleet.relay.brought() - brought;
    let peak = fleet.cluster.authority_process()?.peak_memory()?;
    let (warm, cold) = starts(&running);
    tally.check(
        (warm, cold) == (sidecars, 0),
        format_args!("{sidecars} killed and started at once: {warm} from their copies, {cold} by a snapshot"),
    );
    for (why, sidecars) in doubts(&running) {
        println!("        {sidecars} of them: {why}");
    }
    println!(
        "        all LIVE in {took}; the authority sent {brought} bytes, {} to each, for {MISSED} changes; its peak \
         memory was {} MiB before and {} MiB after",
        brought / sidecars as u64,
        peak_before >> 20,
        peak >> 20
    );
    running.into_iter().try_for_each(Process::kill)?;

    let without = sidecars.div_ceil(10).max(2);
    let brought = fleet.relay.brought();
    let (took, running) = timed(fleet.start_without_copies(without)).await?;
    let brought = fleet.relay.brought() - brought;
    let peak_after = fleet.cluster.authority_process()?.peak_memory()?;
    let (warm, cold) = starts(&running);
    tally.check(
        (warm, cold) == (0, without),
        format_args!("{without} started without copies, {cold} by a snapshot"),
    );
    println!(
        "        all LIVE in {took}; the authority sent {brought} bytes, {} to each",
        brought / without as u64
    );
    tally.check(
        // The kernel counts in parts of its own, so that a peak may read a little lower later.
        peak_after <= peak_before + MEMORY_MAX,
        format_args!(
            "the authority's peak memory: {} MiB before all of it, {} MiB after",
            peak_before >> 20,
            peak_after >> 20
        ),
    );
    running.into_iter().try_for_each(Process::kill)?;

    let heard = asking.end().await?;
    let allowed = heard.get(&(Decision::Allow, Reason::PlanDefaultIn)).copied().unwrap_or_default();
    tally.check(
        heard.len() == 1 && allowed > 0,
        format_args!(
            "{LIVE} that went on, asked all the time: {allowed} answers, none of them STALE: {heard:?}"
        ),
    );
    if heard.len() > 1 {
        let lines = live.iter().chain([fleet.cluster.authority_process()?]).flat_map(Process::lines);
        let telling = |line: &String| log_line(line, "the state changed").is_some() || line.contains("WARN");
        lines.filter(telling).for_each(|line| println!("        {line}"));
    }
    check_logs(tally, &fleet.cluster);
    Ok(())
}

struct Fleet {
    cluster: Cluster,
    redis: Redis,
    relay: Relay,
    sidecars: usize,
}

impl Fleet {
    async fn fill(&self, accounts: u64) -> anyhow::Result<Receipt> {
        let next = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS.0 {
            let authority = self.cluster.authority().await?;
            for _ in 0..WRITERS.1 {
                writers.spawn(put_on_a_plan(authority.clone(), Arc::clone(&next), accounts));
            }
        }
        while let Some(written) = writers.join_next().await {
            written??;
        }
        let bystander = clients::account(&format!("{ID_MARK}bystander"));
        Ok(self.cluster.authority().await?.set_plan(bystander, PRODUCT, "free").await?)
    }

    async fn write(&self, changes: u64) -> anyhow::Result<()> {
        let mut authority = self.cluster.authority().await?;
        for number in 0..changes {
            let plan = ["pro", "student"][(number % 2) as usize];
            authority.set_plan(clients::account(&name(number / 2)), PRODUCT, plan).await?;
        }
        Ok(())
    }

    /// Runs one sidecar until its copy stands at `revision`, and gives each of the others a copy of that. Says what
    /// its snapshot cost.
    async fn first_copy(&self, revision: u64) -> anyhow::Result<String> {
        let authority = self.cluster.authority_process()?;
        let before = authority.on_cpu()?;
        let first = self.start(&self.relay.address().to_string(), Some(0))?;
        let (took, ()) = timed(is_live(&first)).await?;
        let (on_cpu, brought) = (authority.on_cpu()? - before, self.relay.brought());
        self.kept(revision).await?;
        first.kill()?;
        let mut connection = self.redis.connect().map_err(anyhow::Error::msg)?;
        let keys: Vec<String> = connection.keys("consent:*")?;
        ensure!(keys.len() > 1, "there is no copy");
        for database in 1..=LIVE + self.sidecars {
            let mut copying = redis::pipe();
            for key in &keys {
                copying.cmd("COPY").arg(key).arg(key).arg("DB").arg(database).ignore();
            }
            copying.query::<()>(&mut connection)?;
        }
        let milliseconds = on_cpu.as_millis();
        Ok(format!(
            "one snapshot: {brought} bytes, {took} to LIVE, {milliseconds} ms of a processor for the authority"
        ))
    }

    // Waits until the first copy has all that was written.
    async fn kept(&self, revision: u64) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                let marker: Option<Vec<u8>> =
                    self.redis.connect().ok().and_then(|mut con| con.get(PLACE).ok().flatten());
                let found = marker.as_deref().and_then(|marker| marker[REVISION_AT..].first_chunk::<8>());
                if found.is_some_and(|found| u64::from_be_bytes(*found) >= revision) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => bail!("the copy never came to revision {revision}"),
        }
    }

    fn start(&self, authority: &str, database: Option<usize>) -> anyhow::Result<Process> {
        Process::start("a sidecar that goes on", &self.arguments(authority, database))
    }

    fn arguments(&self, authority: &str, database: Option<usize>) -> Vec<String> {
        let mut arguments = vec!["sidecar".to_owned(), "--listen".to_owned(), "127.0.0.1:0".to_owned()];
        arguments.extend(["--authority".to_owned(), format!("http://{authority}")]);
        if let Some(database) = database {
            arguments.extend(["--redis".to_owned(), format!("{}?db={database}", self.redis.url())]);
        }
        arguments
    }

    /// Starts the fleet, each with its copy, and waits until all of it is LIVE.
    async fn start_all(&self, sidecars: usize) -> anyhow::Result<Vec<Process>> {
        let databases = (0..sidecars).map(|number| Some(1 + LIVE + number));
        self.start_through_the_relay(databases).await
    }

    async fn start_without_copies(&self, sidecars: usize) -> anyhow::Result<Vec<Process>> {
        self.start_through_the_relay((0..sidecars).map(|_| None)).await
    }

    async fn start_through_the_relay(
        &self,
        databases: impl Iterator<Item = Option<usize>>,
    ) -> anyhow::Result<Vec<Process>> {
        let relay = self.relay.address().to_string();
        let start =
            |database| Process::start_behind("a sidecar of the fleet", &self.arguments(&relay, database));
        let started: Vec<Process> = databases.map(start).collect::<anyhow::Result<_>>()?;
        for sidecar in &started {
            is_live(sidecar).await?;
        }
        Ok(started)
    }
}

/// Questions to those that go on.
struct Asking {
    over: Arc<AtomicBool>,
    callers: JoinSet<anyhow::Result<BTreeMap<(Decision, Reason), u64>>>,
}

impl Asking {
    async fn begin(live: &[Process], since: i64) -> anyhow::Result<Asking> {
        let over = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for sidecar in live {
            is_live(sidecar).await?;
            let answers = Answers::over(clients::connect(&sidecar.listening().await?).await?);
            callers.spawn(ask(answers, since, Arc::clone(&over)));
        }
        Ok(Asking { over, callers })
    }

    async fn end(mut self) -> anyhow::Result<BTreeMap<(Decision, Reason), u64>> {
        self.over.store(true, Ordering::Relaxed);
        let mut heard = BTreeMap::new();
        while let Some(caller) = self.callers.join_next().await {
            for (verdict, count) in caller?? {
                *heard.entry(verdict).or_default() += count;
            }
        }
        Ok(heard)
    }
}

async fn ask(
    mut answers: Answers,
    since: i64,
    over: Arc<AtomicBool>,
) -> anyhow::Result<BTreeMap<(Decision, Reason), u64>> {
    let mut heard = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        let artifact = clients::artifact(PRODUCT, "input", since);
        let answered = answers.ask(&format!("{ID_MARK}bystander"), artifact, None).await?;
        *heard.entry(answered.verdict()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(heard)
}

async fn put_on_a_plan(mut authority: Authority, next: Arc<AtomicU64>, accounts: u64) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= accounts {
            return Ok(());
        }
        authority.set_plan(clients::account(&name(number)), PRODUCT, "free").await?;
    }
}

fn name(number: u64) -> String {
    format!("{ID_MARK}person{number}")
}

async fn is_live(sidecar: &Process) -> anyhow::Result<()> {
    let became = |line: &str| {
        let fields = log_line(line, "the state changed")?;
        (fields.get("to")?.as_str()? == "Live").then_some(())
    };
    sidecar.line_within(PATIENCE, "LIVE", became).await
}

// How many went on from their copies, and how many took a snapshot.
fn starts(running: &[Process]) -> (usize, usize) {
    let said =
        |sidecar: &Process, what: &str| sidecar.lines().iter().any(|line| log_line(line, what).is_some());
    let count = |what: &str| running.iter().filter(|sidecar| said(sidecar, what)).count();
    (count("the durable copy is the table"), count("a snapshot comes"))
}

// Why copies were not used, and connections lost, and by how many.
fn doubts(running: &[Process]) -> BTreeMap<String, usize> {
    let said = [
        ("the durable copy is not used", "wrong"),
        ("the durable copy is not used: its server does not finish loading", ""),
        ("the durable copy is thrown away", "wrong"),
        ("the connection to an authority is over", "why"),
    ];
    let mut doubts = BTreeMap::new();
    for sidecar in running {
        let lines = sidecar.lines();
        let doubted = lines.iter().flat_map(|line| {
            said.iter().filter_map(move |(message, field)| {
                let fields = log_line(line, message)?;
                let why = fields.get(field).and_then(|why| why.as_str()).unwrap_or_default();
                Some(format!("{message} {why}"))
            })
        });
        for doubt in doubted.collect::<BTreeSet<_>>() {
            *doubts.entry(doubt).or_default() += 1;
        }
    }
    doubts
}

async fn timed<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(String, T)> {
    let begun = clock::now();
    let done = work.await?;
    let took = clock::now().longest_since(begun);
    Ok((format!("{}.{:03} s", took.millis() / 1000, took.millis() % 1000), done))
}
