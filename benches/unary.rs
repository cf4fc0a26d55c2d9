//! CanTrain, one question a call: what deciding adds to a call that does everything else.

use crate::accounts::{Accounts, expected, note_stale, scattered};
use crate::bench::{Bench, Goal, size};
use crate::callers::{Slice, beside, in_a_loop};
use crate::no_op;
use crate::node::{Node, Port, Server, connections};
use crate::slices::{Spread, in_turn};
use consent::pb::Reason;
use consent::pb::decision_service_client::DecisionServiceClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::Status;
use tonic::transport::Channel;

/// How many ask at once, and over how many connections: what one process of callers would have.
const CALLERS: [(usize, usize); 2] = [(1, 1), (64, 4)];

/// Both ports, one caller and many, each size of the table.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for accounts in bench.sizes() {
        let cases: Vec<_> = [Port::Unix, Port::Tcp]
            .into_iter()
            .flat_map(|port| CALLERS.map(|(callers, channels)| (port, callers, channels)))
            .map(|(port, callers, channels)| {
                (format!("unary/{port}/{callers}/{}", size(accounts)), port, callers, channels)
            })
            .filter(|(name, ..)| bench.wants_some_of(name))
            .collect();
        if cases.is_empty() {
            continue;
        }
        let node = Node::live(bench, accounts).await?;
        let no_op = no_op::start(bench).await?;
        for (name, port, callers, channels) in cases {
            let baseline = Asking::new(&no_op, port, channels, accounts, |_| Reason::PlanDefaultIn).await?;
            let product = Asking::new(&node.server, port, channels, accounts, expected).await?;
            let length = bench.slice();
            let pairs = in_turn(
                bench.slices(),
                async || baseline.slice(callers, length).await,
                async || product.slice(callers, length).await,
            )
            .await?;
            report(bench, &name, &pairs);
        }
    }
    Ok(())
}

fn report(bench: &mut Bench, name: &str, pairs: &[crate::slices::Pair<Slice>]) {
    let mut line = |what: &str, unit: &str, goal: Goal, value: &dyn Fn(&Slice) -> f64| {
        let ratio = Spread::of_ratios(pairs, value);
        bench.figure(&format!("{name}/{what}"), ratio, "x", &beside(pairs, unit, value), goal);
    };
    line("throughput", " calls/s", Goal::AtLeast(0.95), &Slice::rate);
    line("p50", " us", Goal::AtMost(1.05), &|slice| slice.percentile(50));
    line("p99", " us", Goal::AtMost(1.25), &|slice| slice.percentile(99));
    line("processor", " calls in a second of the server's", Goal::None, &Slice::rate_of_the_server);
}

/// Callers of one server, who know what they are to be told.
pub(crate) struct Asking {
    server: u32,
    clients: Arc<[DecisionServiceClient<Channel>]>,
    accounts: u64,
    questions: Arc<Accounts>,
    expected: fn(u64) -> Reason,
    /// So that no slice asks what the one before has asked.
    asked: Arc<AtomicU64>,
}

impl Asking {
    pub(crate) async fn new(
        server: &Server,
        port: Port,
        channels: usize,
        accounts: u64,
        expected: fn(u64) -> Reason,
    ) -> anyhow::Result<Asking> {
        let channels = connections(server, port, channels).await?;
        Ok(Asking {
            server: server.pid(),
            clients: channels.into_iter().map(DecisionServiceClient::new).collect(),
            accounts,
            questions: Arc::new(Accounts::new()?),
            expected,
            asked: Arc::default(),
        })
    }

    /// One slice. A wrong answer ends it.
    pub(crate) async fn slice(&self, callers: usize, length: std::time::Duration) -> anyhow::Result<Slice> {
        let Asking { clients, accounts, questions, expected, asked, .. } = self;
        let (clients, questions, asked) = (Arc::clone(clients), Arc::clone(questions), Arc::clone(asked));
        let (accounts, expected) = (*accounts, *expected);
        in_a_loop(self.server, callers, length, move |caller, _| {
            let mut client = clients[caller % clients.len()].clone();
            let artifact = asked.fetch_add(1, Ordering::Relaxed);
            let account = scattered(artifact) % accounts;
            let question = questions.question(account, artifact);
            async move {
                let answer = client.can_train(question).await?.into_inner();
                let reason = answer.reason();
                if reason == Reason::Stale {
                    note_stale();
                } else if reason != expected(account) {
                    return Err(Status::internal(format!("account {account} is answered {reason:?}")));
                }
                Ok(())
            }
        })
        .await
    }
}
