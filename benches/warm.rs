//! A warm restart: from the first byte that is read of the durable copy to LIVE, against reading and hashing the same
//! bytes.
//!
//! Whatever reads a copy and is to believe it must hash all of it twice: each value by its own hash, which finds what
//! is torn, and each head as the digest counts it, which finds what is forged. That is the baseline, with the same
//! client, chunks and socket, and nothing kept. What the product does besides is decoding, the table, and the
//! exchange with the authority. How the start of the process itself costs is not in it.

use crate::accounts::ID_KEY;
use crate::authority::Authority;
use crate::bench::{Bench, Goal, size};
use crate::node::Server;
use crate::process::log_line;
use crate::redis_server::Redis;
use crate::slices::{Pair, Spread, in_turn};
use anyhow::{Context, ensure};
use consent::clock;
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{HeadKey, HeadKind};
use redis::aio::MultiplexedConnection;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

/// So many values are asked for at once, as the product does.
const CHUNK: u32 = 128;
/// How often a process is waited for as long as it usually is.
const PATIENCE: usize = 10;
/// A table of fewer is as quick as the exchange with the authority.
const LEAST: u64 = 1_000_000;

/// Each size of the table.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for accounts in bench.sizes() {
        let name = format!("warm/{}", size(accounts));
        if !bench.wants_some_of(&name) {
            continue;
        }
        let redis = Redis::start().map_err(anyhow::Error::msg)?;
        let authority = Authority::start(accounts).await?;
        let first = start(bench, &authority, &redis).await?;
        line(&first, "the durable copy is written").await?;
        drop(first);
        let buckets = buckets(&redis)?;
        let pairs = in_turn(
            bench.slices(),
            async || {
                bench.cores.serve();
                let read = read(&redis, buckets).await;
                bench.cores.stay();
                read
            },
            async || restart(bench, &authority, &redis).await,
        )
        .await?;
        let seconds = |side: fn(&Pair<f64>) -> f64| Spread::of(pairs.iter().map(side)).median;
        let (baseline, product) = (seconds(|pair| pair.baseline), seconds(|pair| pair.product));
        let more = format!(
            "{product:.2} s, against {baseline:.2} s for reading and hashing alone; median of {}",
            pairs.len()
        );
        let goal = if accounts < LEAST { Goal::None } else { Goal::AtMost(1.5) };
        bench.figure(&name, Spread::of_ratios(&pairs, |seconds| *seconds), "x", &more, goal);
    }
    Ok(())
}

async fn start(bench: &Bench, authority: &Authority, redis: &Redis) -> anyhow::Result<Server> {
    let arguments = |socket: &str| {
        let words = ["sidecar", "--listen", "127.0.0.1:0", "--authority", &authority.url, "--socket", socket];
        let redis = ["--redis".to_owned(), redis.url()];
        words.into_iter().map(str::to_owned).chain(redis).collect()
    };
    Server::start(bench, "sidecar", Path::new(env!("CARGO_BIN_EXE_consent")), arguments).await
}

/// The instant of a log line, in seconds.
async fn line(server: &Server, message: &str) -> anyhow::Result<f64> {
    let said = |line: &str| log_line(line, message).and_then(|fields| instant(&fields));
    wait(server, message, said).await
}

/// Waits for a line; ten million heads take longer than anything else that a process is waited for.
async fn wait(server: &Server, what: &str, wanted: impl Fn(&str) -> Option<f64>) -> anyhow::Result<f64> {
    let mut last = None;
    for _ in 0..PATIENCE {
        match server.process().line(what, &wanted).await {
            Ok(instant) => return Ok(instant),
            Err(trouble) => last = Some(trouble),
        }
    }
    Err(last.context("no patience")?)
}

fn instant(fields: &serde_json::Value) -> Option<f64> {
    let stamp: jiff::Timestamp = fields.get("timestamp")?.as_str()?.parse().ok()?;
    Some(stamp.as_microsecond() as f64 / 1e6)
}

/// From the first byte to LIVE, in seconds.
async fn restart(bench: &Bench, authority: &Authority, redis: &Redis) -> anyhow::Result<f64> {
    let server = start(bench, authority, redis).await?;
    let is_live = |line: &str| {
        let fields = log_line(line, "the state changed")?;
        (fields.get("to")?.as_str()? == "Live").then(|| instant(&fields)).flatten()
    };
    let live = wait(&server, "LIVE", is_live).await?;
    let found = line(&server, "a durable copy was found").await?;
    let is_warm = server.process().lines().iter().any(|line| line.contains("the durable copy is the table"));
    ensure!(is_warm, "it took a snapshot");
    Ok(live - found)
}

fn buckets(redis: &Redis) -> anyhow::Result<u32> {
    let found = redis.run("DBSIZE").map_err(anyhow::Error::msg)?;
    let keys: u32 = redis::from_redis_value(found)?;
    // The marker; there is no log yet.
    keys.checked_sub(1).context("an empty copy")
}

/// Reads all buckets and hashes them, in seconds.
async fn read(redis: &Redis, buckets: u32) -> anyhow::Result<f64> {
    let client = redis::Client::open(redis.url())?;
    let mut con = client.get_multiplexed_async_connection().await?;
    con.set_response_timeout(Duration::from_secs(30));
    let begun = clock::now();
    let mut digest = Digest::EMPTY;
    let mut values = chunk(&mut con, 0, buckets).await?;
    for from in (0..buckets).step_by(CHUNK as usize) {
        let (next, ()) = tokio::join!(chunk(&mut con, from + CHUNK, buckets), hash(values, &mut digest));
        values = next?;
    }
    black_box(digest);
    Ok(clock::now().longest_since(begun).nanos() as f64 / 1e9)
}

async fn chunk(con: &mut MultiplexedConnection, from: u32, buckets: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    let keys: Vec<String> =
        (from..buckets.min(from + CHUNK)).map(|number| format!("consent:bucket:{number}")).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    Ok(redis::cmd("MGET").arg(keys).query_async(con).await?)
}

async fn hash(values: Vec<Vec<u8>>, digest: &mut Digest) {
    let secret = DigestKey::new(&ID_KEY);
    for value in values {
        black_box(blake3::hash(&value));
        let end = value.len().saturating_sub(16);
        let mut rest = value.get(20..end).unwrap_or_default();
        while let Some((key, head, after)) = split(rest) {
            digest.add(&secret, key, head);
            rest = after;
        }
        tokio::task::yield_now().await;
    }
}

/// The first of packed heads, and what follows.
fn split(packed: &[u8]) -> Option<(HeadKey, &[u8], &[u8])> {
    let (kind, rest) = packed.split_first()?;
    let (key, rest) = rest.split_first_chunk::<16>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (head, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((HeadKey::new(HeadKind::from_number(*kind)?, *key)?, head, rest))
}
