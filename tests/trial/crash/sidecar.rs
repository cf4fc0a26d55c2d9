//! The sidecar killed, and asked from its first breath on: no ALLOW before it is LIVE.

use super::PRODUCT;
use crate::clients::{self, ID_MARK, Node};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::process::PATIENCE;
use crate::random::Random;
use crate::tally::Tally;
use anyhow::{Context, ensure};
use consent::pb::{Channel as Via, Choice, Reason, Receipt, SidecarState};
use std::collections::BTreeMap;
use std::time::Duration;

/// Kills it so many times.
pub(super) async fn killed(
    tally: &mut Tally,
    kind: StoreKind,
    kills: u64,
    random: &mut Random,
) -> anyhow::Result<()> {
    let mut cluster = Cluster::live(kind, Terms::SHORT).await?;
    let guard_ms = clients::guard_ms()?;
    let mut authority = cluster.authority().await?;
    let bystander = format!("{ID_MARK}bystander");
    let people: Vec<String> = (0..kills).map(|n| format!("{ID_MARK}person{n}")).collect();
    let mut last = Receipt::default();
    for person in people.iter().chain([&bystander]) {
        last = authority.set_plan(clients::account(person), PRODUCT, "free").await?;
    }
    let since = clients::first_allowed(&last, guard_ms)?;
    clients::wall_clock_at(since - guard_ms).await;
    let mut seen = Seen::default();
    for person in &people {
        let mut node = cluster.node().await?;
        let artifact = clients::artifact(PRODUCT, "input", since);
        let before = node.answers.ask(person, artifact, last.position.clone()).await?;
        ensure!(before.allows(), "before the kill: {:?}", before.response);
        cluster.kill_sidecar()?;
        last = authority
            .choose(clients::choice(clients::account(person), PRODUCT, Choice::Out, Via::Ios))
            .await?;
        // Half of the times it finds no authority at first, and must not answer from what it never had.
        let alone = random.below(2) == 0;
        if alone {
            cluster.authority_process()?.stop()?;
        }
        seen.live = false;
        seen.allowed_bystander = false;
        let asked = cluster
            .start_sidecar_asking(async |socket| {
                let mut node = first_accept(&socket).await?;
                if alone {
                    for _ in 0..50 {
                        seen.ask(&mut node, person, &bystander, since).await?;
                    }
                    ensure!(!seen.live, "LIVE without an authority");
                }
                Ok(node)
            })
            .await;
        if alone {
            cluster.authority_process()?.go_on()?;
        }
        let mut node = asked?;
        while !seen.allowed_bystander {
            seen.ask(&mut node, person, &bystander, since).await?;
        }
    }
    for wrong in seen.wrong.iter().take(3) {
        println!("        {wrong}");
    }
    let reasons = seen.early.iter().map(|(reason, n)| format!("{n} {}", reason.as_str_name()));
    tally.check(
        seen.wrong.is_empty() && !seen.early.is_empty(),
        format_args!(
            "{kind:8} {kills} kills of the sidecar: {} answers before it was LIVE, none an ALLOW ({}); {} answers \
             about people who opted out while it was dead, none an ALLOW",
            seen.early.values().sum::<u64>(),
            reasons.collect::<Vec<_>>().join(", "),
            seen.opted_out,
        ),
    );
    check_logs(tally, &cluster);
    Ok(())
}

// The sidecar listens some time after its start: from then on it is asked.
pub(crate) async fn first_accept(socket: &str) -> anyhow::Result<Node> {
    let connecting = async {
        loop {
            if let Ok(node) = Node::connect(socket).await {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, connecting).await.context("the sidecar never listens")
}

/// What a sidecar answered from its first breath on, about somebody who opted out while it was dead and about a
/// bystander.
#[derive(Debug, Default)]
struct Seen {
    /// It has said that it is LIVE.
    live: bool,
    /// It allows the bystander, and knows of the opt-out.
    allowed_bystander: bool,
    /// Answers before it was LIVE.
    early: BTreeMap<Reason, u64>,
    /// Answers about those who opted out.
    opted_out: u64,
    /// What must not be.
    wrong: Vec<String>,
}

impl Seen {
    /// Two answers, then the state: not yet LIVE after them means not LIVE before them.
    async fn ask(
        &mut self,
        node: &mut Node,
        person: &str,
        bystander: &str,
        since: i64,
    ) -> anyhow::Result<()> {
        let artifact = clients::artifact(PRODUCT, "input", since);
        let other = node.answers.ask(bystander, artifact.clone(), None).await?;
        let answer = node.answers.ask(person, artifact, None).await?;
        self.opted_out += 1;
        if answer.allows() {
            self.wrong.push(format!("ALLOW for one who opted out: {:?}", answer.response));
        }
        let status = node.status().await?;
        self.live |= status.state() == SidecarState::Live;
        self.allowed_bystander = other.allows() && answer.response.reason() == Reason::AccountOptedOut;
        if !self.live {
            *self.early.entry(other.response.reason()).or_default() += 1;
            if other.allows() {
                self.wrong.push(format!("ALLOW before LIVE: {:?}", other.response));
            }
        }
        Ok(())
    }
}
