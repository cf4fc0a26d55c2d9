//! People opt out while their data is being used: the promise itself, under load.
//!
//! Sixteen callers ask, through the guards that any service would use, about a few accounts as fast as they can, and
//! use every ALLOW for as long as it is valid; four writers opt these accounts out, wait for EFFECTIVE, and opt them in again. The history of calls goes to a judge
//! that knows nothing of the protocol. Then the same over a slow wire, and over the slow wire with a fault planted on
//! it (acks that come too early): a judge that does not find it proves nothing.

use crate::clients::{self, Authority, ID_MARK};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::history::{self, Allow, Change};
use crate::random::Random;
use crate::slow_wire::{Acks, slow_wire};
use crate::tally::Tally;
use anyhow::{Context, ensure};
use consent::client::{Answer, Deny, Guard, Question, Span, Timestamp};
use consent::clock;
use consent::pb::{Confirmation, Receipt, SidecarState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PRODUCT: &str = "le_chat";
const WRITERS: usize = 4;
/// Enough that a writer comes back to an account after the second from which its data counts again.
const ACCOUNTS_EACH: usize = 8;
/// Callers of the sidecar over TCP, over its Unix socket, and of the authority itself.
const CALLERS: [usize; 3] = [10, 4, 2];
/// How long an answer may take.
const QUICK: Span = Span::from_millis(20_000);
/// The planted fault shows within seconds.
const SLOW_MINUTES: f64 = 0.1;

/// The promise for so many minutes, and the planted fault.
pub(crate) async fn run(tally: &mut Tally, minutes: f64) -> anyhow::Result<()> {
    ensure!(minutes > 0.0 && minutes < 1e6, "{minutes} minutes?");
    match history::judges_known_histories() {
        Ok(cases) => {
            tally.check(true, format_args!("the judge gives the known verdict on {cases} small histories"));
        }
        Err(wrong) => tally.check(false, wrong),
    }
    let mut random = Random::announced()?;

    let cluster = Cluster::live(StoreKind::Sqlite, Terms::DEFAULT).await?;
    let played = play(&cluster, minutes, &mut random).await?;
    check_kept(tally, "as it is", &played);
    check_logs(tally, &cluster);
    drop(cluster);

    let played = play_slowly(Acks::Honest, &mut random).await?;
    check_kept(tally, "slow wire", &played);
    let played = play_slowly(Acks::Early, &mut random).await?;
    let found = report("slow wire, acks too early", &played);
    tally.check(found > 0, "slow wire, acks too early: the judge finds the planted fault");
    Ok(())
}

async fn play_slowly(acks: Acks, random: &mut Random) -> anyhow::Result<Played> {
    // Polled often, so that little of the hold passes before EFFECTIVE is noticed.
    let terms = Terms { poll: 2, ..Terms::DEFAULT };
    let mut cluster = Cluster::start(StoreKind::Sqlite, terms).await?;
    cluster.authority().await?.publish_policy().await?;
    let wire = slow_wire(cluster.authority_address()?, acks).await?;
    cluster.start_sidecar_at(&wire.address().to_string()).await?;
    cluster.node().await?.until(SidecarState::Live).await?;
    play(&cluster, SLOW_MINUTES, random).await
}

fn check_kept(tally: &mut Tally, name: &str, played: &Played) {
    let wrong = report(name, played);
    let what = "not one ALLOW from before an EFFECTIVE opt-out was given, or still valid, after it";
    let confirmed = played.confirmed();
    let bound = 3.0 / confirmed.max(1) as f64;
    tally.check(
        wrong == 0 && !played.allows.is_empty() && confirmed > 0,
        format_args!("{name}: {what}; the probability is < {bound:.5} an opt-out (3/N, 95 %)"),
    );
}

/// What callers and writers saw.
#[derive(Debug, Default)]
struct Played {
    calls: u64,
    allows: Vec<Allow>,
    changes: Vec<Change>,
}

impl Played {
    fn confirmed(&self) -> usize {
        self.changes.iter().filter(|change| change.out && change.effective.is_some()).count()
    }
}

fn report(name: &str, played: &Played) -> usize {
    let violations = history::violations(&played.allows, &played.changes);
    let mut waits: Vec<u64> =
        played.changes.iter().filter_map(|change| Some(change.effective? - change.sent)).collect();
    waits.sort_unstable();
    let median = waits.get(waits.len() / 2).map_or(0, |wait| wait / 1_000_000);
    println!(
        "        {name}: {} calls, {} ALLOWs, {} effective opt-outs (median {median} ms), {} opt-ins, {} violations",
        played.calls,
        played.allows.len(),
        played.confirmed(),
        played.changes.iter().filter(|change| !change.out).count(),
        violations.len()
    );
    for violation in violations.iter().take(3) {
        println!("        {violation}");
    }
    violations.len()
}

async fn play(cluster: &Cluster, minutes: f64, random: &mut Random) -> anyhow::Result<Played> {
    let accounts: Arc<[String]> =
        (0..WRITERS * ACCOUNTS_EACH).map(|n| format!("{ID_MARK}person{n}")).collect();
    let authority = cluster.authority().await?;
    let mut last = Receipt::default();
    for account in accounts.iter() {
        last = authority.clone().set_plan(clients::account(account), PRODUCT, "free").await?;
    }
    clients::wall_clock_at(clients::first_allowed(&last, 0)?).await;

    let over = Arc::new(AtomicBool::new(false));
    // ALLOWs so far of each account: a writer opts out whom somebody is using.
    let used: Arc<[AtomicU64]> = accounts.iter().map(|_| AtomicU64::new(0)).collect();
    let mut callers = tokio::task::JoinSet::new();
    for (way, count) in CALLERS.into_iter().enumerate() {
        let guard = Guard::connect(&match way {
            0 => format!("http://{}", cluster.sidecar_address()?),
            1 => cluster.socket(),
            _ => format!("http://{}", cluster.authority_address()?),
        })?;
        for _ in 0..count {
            let guard = guard.clone();
            let random = Random::new(random.next());
            let (accounts, used, over) = (Arc::clone(&accounts), Arc::clone(&used), Arc::clone(&over));
            callers.spawn(call(guard, accounts, used, over, random, clients::guard_ms()?));
        }
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mine = writer * ACCOUNTS_EACH..(writer + 1) * ACCOUNTS_EACH;
        let (accounts, used, over) = (Arc::clone(&accounts), Arc::clone(&used), Arc::clone(&over));
        writers.spawn(toggle(authority.clone(), mine, accounts, used, over));
    }
    tokio::time::sleep(Duration::from_secs_f64(minutes * 60.0)).await;
    over.store(true, Ordering::Relaxed);

    let mut played = Played::default();
    while let Some(changes) = writers.join_next().await {
        played.changes.extend(changes??);
    }
    while let Some(caller) = callers.join_next().await {
        let (calls, allows) = caller??;
        played.calls += calls;
        played.allows.extend(allows);
    }
    Ok(played)
}

// Asks about data collected at the last instant that is not in the future, so that it counts as soon as any does.
async fn call(
    guard: Guard,
    accounts: Arc<[String]>,
    used: Arc<[AtomicU64]>,
    over: Arc<AtomicBool>,
    mut random: Random,
    guard_ms: i64,
) -> anyhow::Result<(u64, Vec<Allow>)> {
    let (mut calls, mut allows) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        let index = random.index(accounts.len());
        let question = Question {
            account: accounts[index].clone(),
            artifact: format!("{ID_MARK}artifact"),
            product: PRODUCT.to_owned(),
            kind: "input".to_owned(),
            collected_at: Timestamp::from_millis(clock::wall().millis() + guard_ms),
            is_incognito: false,
        };
        let answer = guard.can_train(&question, QUICK).await;
        let answered = clock::now().boot;
        calls += 1;
        match answer {
            Answer::Allow(allow) => {
                used[index].fetch_add(1, Ordering::Relaxed);
                let asked = allow.asked().boot;
                allows.push(Allow {
                    account: u32::try_from(index).context("an index")?,
                    asked,
                    answered,
                    valid_until: asked + allow.valid_for().nanos(),
                    revision: allow.position().revision.get(),
                });
            }
            Answer::Deny(Deny::Decided { .. }) => {}
            Answer::Deny(Deny::Unanswered(status)) => return Err(status.into()),
        }
    }
    Ok((calls, allows))
}

// Out and in again, one account after the other, each as soon as somebody was allowed to use it again.
async fn toggle(
    mut authority: Authority,
    mine: std::ops::Range<usize>,
    accounts: Arc<[String]>,
    used: Arc<[AtomicU64]>,
    over: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut used_before = vec![0; accounts.len()];
    for index in mine.cycle() {
        while used[index].load(Ordering::Relaxed) == used_before[index] {
            if over.load(Ordering::Relaxed) {
                return Ok(changes);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let account = u32::try_from(index).context("an index")?;
        let sent = clock::now().boot;
        let receipt = authority.opt_out_confirmed(clients::account(&accounts[index]), PRODUCT).await?;
        let now = clock::now().boot;
        let effective = (receipt.confirmation() == Confirmation::Effective).then_some(now);
        let revision = clients::revision(&receipt);
        changes.push(Change { account, out: true, revision, sent, effective });

        let sent = clock::now().boot;
        let receipt = authority.opt_in(clients::account(&accounts[index]), PRODUCT, revision).await?;
        let revision = clients::revision(&receipt);
        changes.push(Change { account, out: false, revision, sent, effective: None });
        used_before[index] = used[index].load(Ordering::Relaxed);
    }
    Ok(changes)
}
