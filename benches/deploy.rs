//! A deploy: replicas are replaced one by one, in order, while callers ask without a pause about an account whose right
//! answer is ALLOW.
//!
//! Each of two replicas in turn gets SIGTERM, ends, and is started anew where it was; the other one goes when the new
//! one is ready. The sidecars know both, so each replacement moves all that followed it. Whatever is not ALLOW counts: a
//! DENY, and a call that is not answered. An opt-out of somebody else is recorded while each replica leaves.

use crate::bench::{Bench, Goal, number};
use crate::follower::Follower;
use crate::ledger::{Ledgers, POLICY, PRODUCT, Strangers};
use crate::node::Port;
use crate::replica::{ANYWHERE, Replica, millis};
use crate::slices::Spread;
use anyhow::{Context, ensure};
use consent::clock;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::{Artifact, CanTrainRequest, Decision};
use consent_core::confirm::Terms;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::transport::Channel;

const SIDECARS: usize = 3;
/// One clock stamps the data and the ledger here.
const GUARD: (&str, &str) = ("guard = \"5s\"", "guard = \"0s\"");
const ACCOUNT: &str = "someone";
/// A call to a sidecar of this machine that takes longer is not answered.
const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (terms, store) = (Terms::default(), Ledgers::start(bench)?);
    let ledger = store.fresh().await?;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(Replica::start_at(bench, &ledger, ANYWHERE, &terms).await?);
    }
    let question = trainable(replicas.first().context("a replica")?).await?;
    let urls = replicas.iter().map(|replica| replica.url.as_str()).collect::<Vec<_>>().join(",");
    let mut sidecars = Vec::new();
    for _ in 0..SIDECARS {
        sidecars.push(Follower::live(bench, &urls).await?);
    }
    let callers = Callers::begin(&sidecars, &question).await?;
    let (strangers, mut waits, mut replaced) = (Strangers::default(), Vec::new(), 0);
    for _ in 0..bench.slices() {
        for _ in 0..2 {
            let (leaving, staying) = (replicas.remove(0), replicas.first().context("a replica")?);
            let (mut writer, address) = (staying.writer().await?, leaving.address());
            let (left, wait) = tokio::join!(leaving.leave(), writer.opt_out_effective(strangers.next()));
            left?;
            waits.push(wait?);
            replicas.push(Replica::start_at(bench, &ledger, &address, &terms).await?);
            replaced += 1;
        }
    }
    let Heard { allows, others, longest } = callers.end().await?;
    ensure!(allows > 0, "nothing is ever allowed");
    let denials = others.values().sum::<u64>();
    let whose = others.iter().map(|(what, count)| format!("{count} {what}, ")).collect::<String>();
    let more = format!(
        "{whose}{allows} ALLOWs by {SIDECARS} sidecars while {replaced} replicas were replaced, none later than {} ms \
         after the one before",
        number(longest)
    );
    bench.figure("deploy/denials", Spread::of([denials as f64]), "", &more, Goal::AtMost(0.0));
    let more = "recorded while a replica leaves";
    bench.figure("deploy/effective", Spread::of(waits), " ms", more, Goal::None);
    Ok(())
}

/// A question whose answer is ALLOW from now on.
async fn trainable(replica: &Replica) -> anyhow::Result<CanTrainRequest> {
    let (guard, none) = GUARD;
    ensure!(POLICY.contains(guard), "the policy has another guard");
    replica.publish(&POLICY.replacen(guard, none, 1)).await?;
    let receipt = replica.writer().await?.set_plan(ACCOUNT.to_owned(), "free").await?;
    // What is denied counts to the end of its second.
    let since = 1000 * (millis(&receipt)?.div_euclid(1000) + 1);
    while clock::wall().millis() < since {
        tokio::time::sleep(Duration::from_millis((since - clock::wall().millis()).max(1).unsigned_abs()))
            .await;
    }
    let collected_at = prost_types::Timestamp { seconds: since / 1000, nanos: 0 };
    let artifact = Artifact {
        id: "artifact".to_owned(),
        product: PRODUCT.to_owned(),
        kind: "input".to_owned(),
        collected_at: Some(collected_at),
        incognito: false,
    };
    Ok(CanTrainRequest {
        account: ACCOUNT.to_owned(),
        artifact: Some(artifact),
        min_position: receipt.position,
    })
}

/// What callers were told.
#[derive(Debug, Default)]
struct Heard {
    allows: u64,
    /// How often what else.
    others: BTreeMap<String, u64>,
    /// The longest from one ALLOW to the next, in milliseconds.
    longest: f64,
}

/// One for each sidecar.
struct Callers {
    tasks: JoinSet<Heard>,
    is_over: Arc<AtomicBool>,
}

impl Callers {
    /// They ask from now on; the sidecars have what they ask about.
    async fn begin(sidecars: &[Follower], question: &CanTrainRequest) -> anyhow::Result<Callers> {
        let (mut tasks, is_over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for sidecar in sidecars {
            let mut client = DecisionServiceClient::new(sidecar.server.connect(Port::Unix).await?);
            let first = client.can_train(question.clone()).await?.into_inner();
            ensure!(first.decision() == Decision::Allow, "before any deploy: {first:?}");
            let question = CanTrainRequest { min_position: None, ..question.clone() };
            tasks.spawn(ask(client, question, Arc::clone(&is_over)));
        }
        Ok(Callers { tasks, is_over })
    }

    /// They have asked enough.
    async fn end(self) -> anyhow::Result<Heard> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Heard::default();
        for heard in self.tasks.join_all().await {
            all.allows += heard.allows;
            all.longest = all.longest.max(heard.longest);
            for (what, count) in heard.others {
                *all.others.entry(what).or_default() += count;
            }
        }
        Ok(all)
    }
}

async fn ask(
    mut client: DecisionServiceClient<Channel>,
    question: CanTrainRequest,
    is_over: Arc<AtomicBool>,
) -> Heard {
    let (mut heard, mut last) = (Heard::default(), clock::now());
    while !is_over.load(Ordering::Relaxed) {
        let mut request = tonic::Request::new(question.clone());
        request.set_timeout(SOON);
        let other = match client.can_train(request).await {
            Ok(answer) if answer.get_ref().decision() == Decision::Allow => {
                let now = clock::now();
                heard.longest = heard.longest.max(now.longest_since(last).nanos() as f64 / 1e6);
                heard.allows += 1;
                last = now;
                continue;
            }
            Ok(answer) => answer.get_ref().reason().as_str_name().to_owned(),
            Err(status) => status.code().to_string(),
        };
        *heard.others.entry(other).or_default() += 1;
    }
    heard
}
