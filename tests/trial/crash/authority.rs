//! The authority killed under 64 writers: what was answered is there, and is answered the same again.

use super::PRODUCT;
use super::writer::{Recorded, Shared, State, Writer};
use crate::clients::{self, Authority};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::ledger::{Follower, Ledger};
use crate::random::Random;
use crate::tally::Tally;
use anyhow::{Context, ensure};
use consent::pb::SidecarState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const WRITERS: u64 = 64;
/// The longest that an authority lives between two kills.
const LIFE_MS: u64 = 400;

/// Kills it so many times.
pub(super) async fn killed(
    tally: &mut Tally,
    kind: StoreKind,
    kills: u64,
    random: &mut Random,
) -> anyhow::Result<()> {
    let mut cluster = Cluster::live(kind, Terms::SHORT).await?;
    let shared = Arc::new(Shared {
        authority: watch::Sender::new(Some(cluster.authority().await?)),
        recorded: Mutex::new(Vec::new()),
        over: watch::Sender::new(false),
    });
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let random = Random::new(random.next());
        writers.spawn(Writer::new(writer, random, Arc::clone(&shared)).run());
    }
    let mut ledger = Ledger::default();
    let mut follower = Follower::default();
    let (mut checked, mut asked_again) = (0, 0);
    for _ in 0..kills {
        // Chance, no synchronisation: the moment of the kill.
        tokio::time::sleep(Duration::from_millis(random.below(LIFE_MS))).await;
        shared.authority.send_replace(None);
        cluster.kill_authority()?;
        // Sometimes the next one is killed while it starts.
        if random.below(4) == 0 {
            let starting = cluster.spawn_authority()?;
            tokio::time::sleep(Duration::from_millis(random.below(100))).await;
            starting.kill()?;
        }
        cluster.start_authority().await?;
        let mut authority = cluster.authority().await?;
        let recorded = shared.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ledger.read_on(&mut authority).await?;
        check_recorded(&recorded[checked..], &ledger)?;
        checked = recorded.len();
        for _ in 0..WRITERS.min(checked as u64) {
            same_answer(&recorded[random.index(checked)], &mut authority).await?;
            asked_again += 1;
        }
        follower.follow(&ledger, cluster.authority_address()?).await?;
        shared.authority.send_replace(Some(authority));
    }
    shared.over.send_replace(true);
    let mut states = Vec::new();
    while let Some(writer) = writers.join_next().await {
        states.push(writer??);
    }
    let mut authority = cluster.authority().await?;
    let recorded = shared.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for recorded in &recorded {
        same_answer(recorded, &mut authority).await?;
        asked_again += 1;
    }
    ledger.read_on(&mut authority).await?;
    check_recorded(&recorded, &ledger)?;
    check_states(&states, &mut authority).await?;
    follower.follow(&ledger, cluster.authority_address()?).await?;
    let mut from_the_start = Follower::default();
    from_the_start.follow(&ledger, cluster.authority_address()?).await?;
    cluster.node().await?.until_applied(ledger.revision()).await?;
    let status = cluster.node().await?.until(SidecarState::Live).await?;
    let (writes, revisions) = (recorded.len(), ledger.revision());
    tally.check(
        writes as u64 >= kills,
        format_args!(
            "{kind:8} {kills} kills of the authority under {WRITERS} writers: {writes} RECORDED writes all there, \
             {revisions} revisions dense, chain and digest whole over {} heads, {asked_again} requests answered the \
             same again; a lost write has probability < {:.5} a kill (3/N, 95 %)",
            from_the_start.heads(),
            3.0 / kills as f64
        ),
    );
    tally.check(
        status.position.is_some_and(|position| position.revision >= revisions),
        format_args!("{kind:8} the sidecar followed through all of it and is LIVE at {revisions}"),
    );
    check_logs(tally, &cluster);
    Ok(())
}

// Each answered write stands in the ledger under its own request_id and chain.
fn check_recorded(recorded: &[Recorded], ledger: &Ledger) -> anyhow::Result<()> {
    for Recorded { write, receipt } in recorded {
        let revision = clients::revision(receipt);
        let event =
            ledger.event(revision).with_context(|| format!("r{revision} was RECORDED and is lost"))?;
        ensure!(event.chain == receipt.chain, "r{revision} has another chain than its receipt");
        ensure!(event.recorded_at == receipt.recorded_at, "r{revision} has another instant than its receipt");
        ensure!(
            !receipt.changed || event.request_id == write.request_id(),
            "r{revision} is another write than the one that it was returned for"
        );
    }
    Ok(())
}

async fn same_answer(recorded: &Recorded, authority: &mut Authority) -> anyhow::Result<()> {
    let Recorded { write, receipt } = recorded;
    let again = write.send(authority).await.context("a request_id that was answered is refused")?;
    // How far it has come may have changed meanwhile; what it is may not.
    let same = again.position == receipt.position
        && again.chain == receipt.chain
        && again.recorded_at == receipt.recorded_at
        && again.changed == receipt.changed;
    ensure!(same, "sent again: {again:?}\nat first: {receipt:?}");
    Ok(())
}

async fn check_states(states: &[BTreeMap<String, State>], authority: &mut Authority) -> anyhow::Result<()> {
    for (account, state) in states.iter().flatten() {
        let request = consent::pb::GetAccountRequest { account: account.clone() };
        let seen = authority.consent.get_account(clients::within(Duration::from_secs(10), request)).await?;
        let seen = seen.into_inner();
        ensure!(
            seen.revision == state.revision,
            "an account is at {}, not {}",
            seen.revision,
            state.revision
        );
        let product =
            seen.products.iter().find(|product| product.product == PRODUCT).context("no product")?;
        ensure!(product.choice() == state.choice, "an account's last choice was lost");
        ensure!(product.plan == state.plan, "an account's last plan was lost");
    }
    Ok(())
}
