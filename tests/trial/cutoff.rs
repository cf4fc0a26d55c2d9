//! The sidecar cut off from its authority: DENY in time, no readiness claimed, and back again by itself.
//!
//! Three ways: the authority stopped (SIGSTOP), the wire blackholed, the sidecar itself stopped. A lease ends one
//! T_S after the keepalive that it answers was sent, so no ALLOW may be valid later than T_S after the cut, by the
//! lease clocks (R5, R10). In the last two ways somebody opts out meanwhile; that is EFFECTIVE within
//! lambda T_S + sigma (confirmation.md section 4), and never before the last ALLOW is over (I1).

use crate::clients::{self, Answered, ID_MARK, Node};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::history::{self, Allow, Change};
use crate::tally::Tally;
use anyhow::{Context, ensure};
use consent::clock;
use consent::pb::{Confirmation, Reason, Receipt, SidecarState};
use std::time::Duration;

const PRODUCT: &str = "le_chat";
const MS: u64 = 1_000_000;
/// What the machine may take beyond the protocol's own bound: two cores shared by four programs. It bounds the time
/// until EFFECTIVE only, never an ALLOW.
const SCHEDULING_MS: u64 = 500;

/// Each way `rounds` times.
pub(crate) async fn run(tally: &mut Tally, rounds: u64) -> anyhow::Result<()> {
    let cluster = Cluster::live(StoreKind::Sqlite, Terms::SHORT).await?;
    for round in 0..rounds {
        let scene = Scene::set(&cluster, round).await?;
        authority_stopped(tally, &cluster, &scene).await?;
        wire_blackholed(tally, &cluster, &scene).await?;
        sidecar_stopped(tally, &cluster, &scene).await?;
    }
    check_logs(tally, &cluster);
    Ok(())
}

/// Three accounts whose artifact is trainable.
struct Scene {
    people: Vec<String>,
    since: i64,
}

const BYSTANDER: usize = 0;
const OUT_WHILE_BLACKHOLED: usize = 1;
const OUT_WHILE_STOPPED: usize = 2;

impl Scene {
    async fn set(cluster: &Cluster, round: u64) -> anyhow::Result<Scene> {
        let people: Vec<String> = (0..3).map(|n| format!("{ID_MARK}round{round}-person{n}")).collect();
        let mut authority = cluster.authority().await?;
        let mut last = Receipt::default();
        for person in &people {
            last = authority.set_plan(clients::account(person), PRODUCT, "free").await?;
        }
        let guard_ms = clients::guard_ms()?;
        let since = clients::first_allowed(&last, guard_ms)?;
        clients::wall_clock_at(since - guard_ms).await;
        let scene = Scene { people, since };
        let mut node = cluster.node().await?;
        for person in 0..3 {
            let artifact = clients::artifact(PRODUCT, "input", since);
            let answer = node.answers.ask(&scene.people[person], artifact, last.position.clone()).await?;
            ensure!(answer.allows(), "before any cut: {:?}", answer.response);
        }
        Ok(scene)
    }

    async fn ask(&self, node: &mut Node, person: usize) -> anyhow::Result<Answered> {
        let artifact = clients::artifact(PRODUCT, "input", self.since);
        Ok(node.answers.ask(&self.people[person], artifact, None).await?)
    }
}

/// What was seen of a node from a cut on.
#[derive(Debug, Default)]
struct Watched {
    allows: u64,
    last_valid_until: u64,
    stale: u64,
    first_stale: Option<u64>,
    serving_after: u64,
    history: Vec<Allow>,
}

impl Watched {
    fn note(&mut self, person: usize, answer: &Answered) {
        if answer.allows() {
            self.allows += 1;
            self.last_valid_until = self.last_valid_until.max(answer.valid_until());
            self.history.push(Allow {
                account: person as u32,
                asked: answer.asked,
                answered: answer.answered,
                valid_until: answer.valid_until(),
                revision: answer.revision(),
            });
        } else if answer.response.reason() == Reason::Stale {
            self.stale += 1;
            self.first_stale.get_or_insert(answer.answered);
        }
    }
}

// Asks about everybody and checks readiness until the node is LAPSED and `lease_over` is past by some rounds.
async fn watch(node: &mut Node, scene: &Scene, lease_over: u64) -> anyhow::Result<Watched> {
    let mut watched = Watched::default();
    let mut rounds_after = 0;
    while rounds_after < 20 {
        let before = clock::now().boot;
        for person in 0..scene.people.len() {
            watched.note(person, &scene.ask(node, person).await?);
        }
        // A claim that was asked for when no lease can be left.
        let asked = clock::now().boot;
        if node.says_serving().await? && asked > lease_over {
            watched.serving_after += 1;
        }
        if before > lease_over {
            rounds_after += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(watched)
}

fn check_watched(tally: &mut Tally, way: &str, cluster: &Cluster, cut: u64, watched: &Watched) {
    let lease = cluster.terms().sidecar_lease * MS;
    let last = watched.last_valid_until.saturating_sub(cut) / MS;
    let stale =
        watched.first_stale.map_or("never".to_owned(), |at| format!("{} ms", at.saturating_sub(cut) / MS));
    tally.check(
        watched.last_valid_until <= cut + lease && watched.stale > 0 && watched.allows > 0,
        format_args!(
            "{way}: {} ALLOWs after the cut, the last valid until {last} ms after it (T_S {} ms); first DENY STALE \
             at {stale}",
            watched.allows,
            lease / MS
        ),
    );
    tally.check(
        watched.serving_after == 0,
        format_args!("{way}: health said SERVING {} times after the lease", watched.serving_after),
    );
}

// From the cut's end on: the node comes back by itself, and says yes only to whom it may.
async fn heals(
    tally: &mut Tally,
    way: &str,
    node: &mut Node,
    scene: &Scene,
    out: &[usize],
    healed: u64,
) -> anyhow::Result<()> {
    let (mut answers, mut wrong) = (0u64, 0u64);
    let back = loop {
        for &person in out {
            answers += 1;
            wrong += u64::from(scene.ask(node, person).await?.allows());
        }
        let bystander = scene.ask(node, BYSTANDER).await?;
        if bystander.allows() {
            break bystander.answered;
        }
        ensure!(back_in_time(healed), "the node does not come back: {:?}", node.status().await?);
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    for &person in out {
        let answer = scene.ask(node, person).await?;
        answers += 1;
        wrong += u64::from(answer.response.reason() != Reason::AccountOptedOut);
    }
    let live = node.status().await?.state() == SidecarState::Live;
    let mut ready = node.says_serving().await?;
    while !ready && back_in_time(healed) {
        ready = node.says_serving().await?;
    }
    tally.check(
        wrong == 0 && live && ready,
        format_args!(
            "{way}: LIVE and SERVING again, ALLOW {} ms after healing{}",
            back.saturating_sub(healed) / MS,
            if out.is_empty() {
                String::new()
            } else {
                format!("; {answers} answers about who had opted out, from the first on, {wrong} wrong")
            }
        ),
    );
    Ok(())
}

fn back_in_time(since: u64) -> bool {
    clock::now().boot - since < 30_000 * MS
}

async fn authority_stopped(tally: &mut Tally, cluster: &Cluster, scene: &Scene) -> anyhow::Result<()> {
    let way = "authority stopped";
    let mut node = cluster.node().await?;
    cluster.authority_process()?.stop()?;
    // Every keepalive that was granted was sent before now.
    let cut = clock::now().boot;
    let watched = watch(&mut node, scene, cut + cluster.terms().sidecar_lease * MS).await;
    cluster.authority_process()?.go_on()?;
    let healed = clock::now().boot;
    check_watched(tally, way, cluster, cut, &watched?);
    heals(tally, way, &mut node, scene, &[], healed).await
}

async fn wire_blackholed(tally: &mut Tally, cluster: &Cluster, scene: &Scene) -> anyhow::Result<()> {
    let way = "wire blackholed";
    let mut node = cluster.node().await?;
    cluster.wire().blackhole();
    let cut = clock::now().boot;
    let opting_out = opt_out(cluster, scene, OUT_WHILE_BLACKHOLED);
    let (out, watched) =
        tokio::join!(opting_out, watch(&mut node, scene, cut + cluster.terms().sidecar_lease * MS));
    cluster.wire().heal();
    let healed = clock::now().boot;
    let (out, watched) = (out?, watched?);
    check_watched(tally, way, cluster, cut, &watched);
    check_effective(tally, way, cluster, &out, &watched.history)?;
    heals(tally, way, &mut node, scene, &[OUT_WHILE_BLACKHOLED], healed).await
}

// Questions that were sent to a stopped process are answered when it goes on: by the clocks as they are then (A2).
async fn sidecar_stopped(tally: &mut Tally, cluster: &Cluster, scene: &Scene) -> anyhow::Result<()> {
    let way = "sidecar stopped";
    let mut node = cluster.node().await?;
    cluster.sidecar_process()?.stop()?;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (mut answers, account) = (node.answers.clone(), scene.people[OUT_WHILE_STOPPED].clone());
        let artifact = clients::artifact(PRODUCT, "input", scene.since);
        waiting.spawn(async move { answers.ask(&account, artifact, None).await });
    }
    let out = opt_out(cluster, scene, OUT_WHILE_STOPPED).await;
    cluster.sidecar_process()?.go_on()?;
    let healed = clock::now().boot;
    let out = out?;
    let (mut answered, mut history) = (0u64, Vec::new());
    while let Some(answer) = waiting.join_next().await {
        let answer = answer??;
        answered += 1;
        let mut watched = Watched::default();
        watched.note(OUT_WHILE_STOPPED, &answer);
        history.extend(watched.history);
    }
    tally.check(
        history.is_empty(),
        format_args!("{way}: {answered} questions sent meanwhile, {} ALLOWs when it went on", history.len()),
    );
    check_effective(tally, way, cluster, &out, &history)?;
    heals(tally, way, &mut node, scene, &[OUT_WHILE_BLACKHOLED, OUT_WHILE_STOPPED], healed).await
}

async fn opt_out(cluster: &Cluster, scene: &Scene, person: usize) -> anyhow::Result<(Change, Receipt)> {
    let mut authority = cluster.authority().await?;
    let sent = clock::now().boot;
    let receipt = authority.opt_out_confirmed(clients::account(&scene.people[person]), PRODUCT).await?;
    let effective = clock::now().boot;
    ensure!(receipt.confirmation() == Confirmation::Effective, "not EFFECTIVE: {:?}", receipt.confirmation());
    let revision = clients::revision(&receipt);
    let account = u32::try_from(person).context("an index")?;
    Ok((Change { account, out: true, revision, sent, effective: Some(effective) }, receipt))
}

fn check_effective(
    tally: &mut Tally,
    way: &str,
    cluster: &Cluster,
    (out, _): &(Change, Receipt),
    history: &[Allow],
) -> anyhow::Result<()> {
    let terms = cluster.terms();
    let rho = terms.drift_ppm as f64 / 1e6;
    let lambda = (1.0 + rho) / (1.0 - rho);
    let bound = lambda * terms.sidecar_lease as f64 + (terms.slack + 2 * terms.poll) as f64;
    let took = (out.effective.context("not EFFECTIVE")? - out.sent) as f64 / MS as f64;
    let wrong = history::violations(history, &[*out]);
    for wrong in wrong.iter().take(3) {
        println!("        {wrong}");
    }
    tally.check(
        took <= bound + SCHEDULING_MS as f64 && wrong.is_empty(),
        format_args!(
            "{way}: an opt-out meanwhile was EFFECTIVE in {took:.0} ms (lambda T_S + sigma + 2 delta = {bound:.0} ms, \
             allowed {SCHEDULING_MS} ms more for scheduling); {} older ALLOWs, none valid after it",
            history.iter().filter(|allow| allow.account == out.account).count()
        ),
    );
    Ok(())
}
