//! BatchCanTrain of 1000: what deciding adds to the call, and what a batch saves against single questions.

use crate::accounts::{Accounts, expected, note_stale, scattered};
use crate::bench::{Bench, Goal, size};
use crate::callers::{Slice, beside, in_a_loop};
use crate::no_op;
use crate::node::{Node, Port, Server, connections};
use crate::raw;
use crate::slices::{Spread, in_turn};
use crate::unary::Asking;
use bytes::Bytes;
use consent::convert::decision::BATCH_MAX;
use consent::pb::{BatchCanTrainRequest, BatchCanTrainResponse, Reason};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

const PATH: &str = "/consent.v1.DecisionService/BatchCanTrain";
const CALLERS: usize = 8;
const CONNECTIONS: usize = 4;
/// Batches that are worded before: together they ask about more accounts than a cache holds rows of.
const POOL: usize = 1024;
/// Every so many answers one is read and compared.
const SAMPLE: usize = 32;

/// Against a server that decides nothing, and against single questions.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for accounts in bench.sizes() {
        let name = format!("batch/{}", size(accounts));
        if !bench.wants_some_of(&name) {
            continue;
        }
        let node = Node::live(bench, accounts).await?;
        let no_op = no_op::start(bench).await?;
        let length = bench.slice();
        let pool = pool(if bench.is_tiny() { 2 } else { POOL }, accounts)?;
        let baseline = Batches::new(&no_op, &pool, accounts, |_| Reason::PlanDefaultIn).await?;
        let product = Batches::new(&node.server, &pool, accounts, expected).await?;
        let slices = bench.slices();
        let pairs =
            in_turn(slices, async || baseline.slice(length).await, async || product.slice(length).await)
                .await?;
        let mut line = |what: &str, unit: &str, value: &dyn Fn(&Slice) -> f64| {
            let ratio = Spread::of_ratios(&pairs, value);
            bench.figure(
                &format!("{name}/{what}"),
                ratio,
                "x",
                &beside(&pairs, unit, value),
                Goal::AtLeast(0.7),
            );
        };
        line("throughput", " decisions/s", &|slice| BATCH_MAX as f64 * slice.rate());
        line("processor", " decisions in a second of the server's", &|slice| decisions(slice));

        let single = Asking::new(&node.server, Port::Unix, CONNECTIONS, accounts, expected).await?;
        let pairs = in_turn(
            slices,
            async || Ok((single.slice(64, length).await?, 1.0)),
            async || Ok((product.slice(length).await?, BATCH_MAX as f64)),
        )
        .await?;
        let value = |(slice, each): &(Slice, f64)| each * slice.rate_of_the_server();
        let (one, many) = Spread::medians(&pairs, value);
        let more = format!(
            "{} against {} decisions in a second of the server's",
            crate::bench::number(many),
            crate::bench::number(one)
        );
        let ratio = Spread::of_ratios(&pairs, value);
        bench.figure(&format!("{name}/unary"), ratio, "x", &more, Goal::AtLeast(15.0));
    }
    Ok(())
}

fn decisions(slice: &Slice) -> f64 {
    BATCH_MAX as f64 * slice.rate_of_the_server()
}

/// The account of a question of a batch.
fn account(batch: usize, item: usize, accounts: u64) -> u64 {
    scattered((batch * BATCH_MAX + item) as u64) % accounts
}

fn pool(batches: usize, accounts: u64) -> anyhow::Result<Arc<[Bytes]>> {
    let made_up = Accounts::new()?;
    let batch = |batch: usize| {
        let question = |item: usize| made_up.question(account(batch, item, accounts), item as u64);
        let requests = (0..BATCH_MAX).map(question).collect();
        Bytes::from(BatchCanTrainRequest { requests, min_position: None }.encode_to_vec())
    };
    Ok((0..batches).map(batch).collect())
}

/// Callers who send batches.
struct Batches {
    server: u32,
    channels: Arc<[Channel]>,
    pool: Arc<[Bytes]>,
    accounts: u64,
    expected: fn(u64) -> Reason,
    sent: Arc<AtomicUsize>,
}

impl Batches {
    async fn new(
        server: &Server,
        pool: &Arc<[Bytes]>,
        accounts: u64,
        expected: fn(u64) -> Reason,
    ) -> anyhow::Result<Batches> {
        let channels = connections(server, Port::Unix, CONNECTIONS).await?.into();
        Ok(Batches {
            server: server.pid(),
            channels,
            pool: Arc::clone(pool),
            accounts,
            expected,
            sent: Arc::default(),
        })
    }

    async fn slice(&self, length: Duration) -> anyhow::Result<Slice> {
        let (channels, pool, sent) =
            (Arc::clone(&self.channels), Arc::clone(&self.pool), Arc::clone(&self.sent));
        let (accounts, expected) = (self.accounts, self.expected);
        in_a_loop(self.server, CALLERS, length, move |caller, _| {
            let channel = channels[caller % channels.len()].clone();
            let number = sent.fetch_add(1, Ordering::Relaxed);
            let batch = number % pool.len();
            let request = pool[batch].clone();
            async move {
                let answer = raw::unary(channel, PATH, request).await?;
                if number.is_multiple_of(SAMPLE) { check(answer, batch, accounts, expected) } else { Ok(()) }
            }
        })
        .await
    }
}

fn check(answer: Bytes, batch: usize, accounts: u64, expected: fn(u64) -> Reason) -> Result<(), Status> {
    let answer =
        BatchCanTrainResponse::decode(answer).map_err(|wrong| Status::internal(wrong.to_string()))?;
    let right = |(item, answer): (usize, &consent::pb::CanTrainAnswer)| {
        answer.reason() == expected(account(batch, item, accounts))
    };
    let count = answer.answers.len();
    if answer.answers.first().is_some_and(|answer| answer.reason() == Reason::Stale) {
        note_stale();
        return Ok(());
    }
    if count == BATCH_MAX && answer.answers.iter().enumerate().all(right) {
        Ok(())
    } else {
        Err(Status::internal(format!("batch {batch} is answered wrongly, with {count} answers")))
    }
}
