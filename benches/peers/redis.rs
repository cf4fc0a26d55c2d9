//! A Redis that keeps one key for each account: what a service would do that has no consent service.

use super::{CALLERS, CONNECTIONS, report};
use crate::accounts::{id, scattered};
use crate::bench::{Bench, Goal, number};
use crate::callers::{Slice, in_a_loop};
use crate::kernel;
use crate::node::Node;
use crate::redis_server::Redis;
use crate::slices::{Spread, in_turn};
use crate::unary::Asking;
use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::Status;

/// Keys that are written at once.
const WRITTEN: u64 = 10_000;
/// Keys of one pipeline, as BatchCanTrain takes questions.
const PIPELINED: u64 = 1000;

pub(super) async fn run(
    bench: &mut Bench,
    node: &Node,
    asking: &Asking,
    mirrored: u64,
) -> anyhow::Result<()> {
    let accounts = node.accounts;
    let server = bench.cores.on_the_servers(Redis::start).map_err(anyhow::Error::msg)?;
    let pid = server.id().context("redis runs")?;
    let store = Store::open(&server, accounts).await?;
    store.fill().await?;
    let held = kernel::resident(pid)?;
    let length = bench.slice();
    let pairs = in_turn(
        bench.slices(),
        async || store.slice(pid, 1, length).await,
        async || asking.slice(CALLERS, length).await,
    )
    .await?;
    report(bench, "peers/redis/64", &pairs);
    let pipelined = in_turn(
        bench.slices(),
        async || store.slice(pid, PIPELINED, length).await,
        async || store.slice(pid, 1, length).await,
    )
    .await?;
    let value = |slice: &Slice| slice.rate_of_the_server();
    let keys = Spread::of(pipelined.iter().map(|pair| PIPELINED as f64 * value(&pair.baseline)));
    let more = "keys read in a second of the server's, in pipelines of 1000; BatchCanTrain and StreamCanTrain are \
                figures of their own";
    bench.figure("peers/redis/pipeline", keys, "", more, Goal::None);
    let each = |bytes: u64| bytes as f64 / accounts as f64;
    let more =
        format!("{} against {} B an account, all of the process", number(each(mirrored)), number(each(held)));
    let ratio = Spread::of([mirrored as f64 / held.max(1) as f64]);
    bench.figure("peers/redis/memory", ratio, "x", &more, Goal::None);
    bench.note("Redis does more: any data, any client, persistence and replication of its own.");
    bench.note(
        "Redis does less: it returns a value; the rule (history, policy, organization, restrictions) is each caller's, \
         no answer says until when it counts, a stale replica answers like a fresh one, and no opt-out is ever confirmed.",
    );
    Ok(())
}

struct Store {
    connections: Arc<[MultiplexedConnection]>,
    accounts: u64,
    asked: Arc<AtomicU64>,
}

impl Store {
    async fn open(server: &Redis, accounts: u64) -> anyhow::Result<Store> {
        let client = Client::open(server.url())?;
        // To fill it takes longer than the client's own 500 ms.
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(client.get_multiplexed_async_connection_with_config(&config).await?);
        }
        Ok(Store { connections: connections.into(), accounts, asked: Arc::default() })
    }

    /// A key for each account: `in` and since when, or `out`.
    async fn fill(&self) -> anyhow::Result<()> {
        let mut connection = self.connections[0].clone();
        for first in (0..self.accounts).step_by(WRITTEN as usize) {
            let mut pipeline = Pipeline::new();
            for number in first..self.accounts.min(first + WRITTEN) {
                pipeline.set(key(number), value(number)).ignore();
            }
            pipeline.query_async::<()>(&mut connection).await?;
        }
        Ok(())
    }

    /// Each call reads so many keys, and the caller decides.
    async fn slice(&self, server: u32, keys: u64, length: Duration) -> anyhow::Result<Slice> {
        let (connections, asked, accounts) =
            (Arc::clone(&self.connections), Arc::clone(&self.asked), self.accounts);
        in_a_loop(server, CALLERS, length, move |caller, _| {
            let mut connection = connections[caller % connections.len()].clone();
            let first = asked.fetch_add(keys, Ordering::Relaxed);
            let numbers = (first..first + keys).map(move |n| scattered(n) % accounts);
            async move {
                let mut pipeline = Pipeline::new();
                for number in numbers.clone() {
                    pipeline.get(key(number));
                }
                let answers: Vec<Option<String>> =
                    pipeline.query_async(&mut connection).await.map_err(failed)?;
                let right = |(number, answer): (u64, &Option<String>)| {
                    answer.as_deref().is_some_and(|answer| (answer == "out") == number.is_multiple_of(9))
                };
                let all = answers.len() as u64 == keys && numbers.zip(&answers).all(right);
                if all { Ok(()) } else { Err(Status::internal("redis has another value")) }
            }
        })
        .await
    }
}

fn key(number: u64) -> String {
    format!("consent:le_chat:{}", id(number))
}

fn value(number: u64) -> &'static str {
    if number.is_multiple_of(9) { "out" } else { "in:1700000000" }
}

fn failed(trouble: redis::RedisError) -> Status {
    Status::unavailable(trouble.to_string())
}
