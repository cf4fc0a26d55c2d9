//! StreamCanTrain: how many decisions a second of the server's processor time gives, with ids as text and as UUIDs.
//!
//! Messages are worded before the clock runs. What callers need for theirs is not in the figure.

use crate::accounts::{artifact_id, expected, id, note_stale, scattered, uuid};
use crate::bench::{Bench, Goal, number, size};
use crate::callers::{Slice, in_a_loop};
use crate::node::{Node, Port, connections};
use crate::raw;
use crate::slices::{Pair, Spread, in_turn};
use bytes::Bytes;
use consent::clock;
use consent::column::IdColumn;
use consent::pb::{Reason, StreamCanTrainRequest, StreamCanTrainResponse};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) const PATH: &str = "/consent.v1.DecisionService/StreamCanTrain";
/// Artifacts of a message: as many as may be.
pub(crate) const MESSAGE: u64 = 4096;
const STREAMS: usize = 4;
const CONNECTIONS: usize = 2;
/// Messages of one stream. To open one costs a call, which so many make small.
const LENGTH: usize = 64;
/// Messages that are worded before: together they ask about more accounts than a cache holds rows of.
const POOL: usize = 256;

/// How ids are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    Texts,
    Uuids,
}

/// At the largest size that is wanted.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let accounts = bench.largest();
    let name = format!("stream/{}", size(accounts));
    let node = Node::live(bench, accounts).await?;
    let pool = if bench.is_tiny() { 2 } else { POOL };
    let texts = Streams::new(&node, Ids::Texts, pool).await?;
    let uuids = Streams::new(&node, Ids::Uuids, pool).await?;
    let length = bench.slice();
    let pairs: Vec<Pair<Slice>> =
        in_turn(bench.slices(), async || texts.slice(length).await, async || uuids.slice(length).await)
            .await?;
    let decisions = |slice: &Slice| (LENGTH as u64 * MESSAGE) as f64 * slice.rate_of_the_server();
    let wall = |slice: &Slice| (LENGTH as u64 * MESSAGE) as f64 * slice.rate();
    let (texts_a_second, uuids_a_second) = Spread::medians(&pairs, wall);
    let mut line = |what: &str, spread: Spread, a_second: f64, goal: f64| {
        let more = format!("decisions in a second of the server's; {} in a second", number(a_second));
        bench.figure(&format!("{name}/{what}"), spread, "", &more, Goal::AtLeast(goal));
    };
    line("texts", Spread::of(pairs.iter().map(|pair| decisions(&pair.baseline))), texts_a_second, 5e6);
    line("uuids", Spread::of(pairs.iter().map(|pair| decisions(&pair.product))), uuids_a_second, 8e6);
    Ok(())
}

/// The account that item `item` of a corpus is of: of those whose ids are of this form.
pub(crate) fn account(ids: Ids, item: u64, accounts: u64) -> u64 {
    let pair = scattered(item) % (accounts / 2);
    2 * pair + u64::from(ids == Ids::Uuids)
}

/// The message of a corpus that begins with item `first`.
pub(crate) fn message(ids: Ids, first: u64, count: u64, accounts: u64) -> Bytes {
    let items = first..first + count;
    let numbers = items.clone().map(|item| account(ids, item, accounts));
    let (accounts, artifacts) = match ids {
        Ids::Texts => (IdColumn::of_texts(numbers.map(id)), IdColumn::of_texts(items.map(artifact_id))),
        Ids::Uuids => (IdColumn::of_uuids(numbers.map(uuid)), IdColumn::of_uuids(items.map(uuid))),
    };
    let collected_at = clock::wall().millis() - 3_600_000;
    let request = StreamCanTrainRequest {
        product: "le_chat".to_owned(),
        accounts: Some(accounts),
        artifacts: Some(artifacts),
        kinds: vec!["input".to_owned()],
        collected_at_millis: vec![collected_at; count as usize],
        ..StreamCanTrainRequest::default()
    };
    request.encode_to_vec().into()
}

/// Whether a message of the corpus is answered rightly.
pub(crate) fn check(answer: Bytes, ids: Ids, first: u64, count: u64, accounts: u64) -> Result<(), Status> {
    let answer =
        StreamCanTrainResponse::decode(answer).map_err(|wrong| Status::internal(wrong.to_string()))?;
    if answer.reasons.first() == Some(&(Reason::Stale as i32)) {
        note_stale();
        return Ok(());
    }
    let right = |(item, reason): (u64, i32)| reason == expected(account(ids, item, accounts)) as i32;
    let reasons = answer.reasons.iter().copied();
    if answer.reasons.len() as u64 == count && (first..).zip(reasons).all(right) {
        Ok(())
    } else {
        Err(Status::internal(format!("the message from item {first} on is answered wrongly")))
    }
}

/// Callers who stream corpora.
struct Streams {
    server: u32,
    channels: Arc<[Channel]>,
    ids: Ids,
    pool: Arc<[Bytes]>,
    accounts: u64,
    sent: Arc<AtomicUsize>,
}

impl Streams {
    async fn new(node: &Node, ids: Ids, pool: usize) -> anyhow::Result<Streams> {
        let accounts = node.accounts;
        Ok(Streams {
            server: node.server.pid(),
            channels: connections(&node.server, Port::Unix, CONNECTIONS).await?.into(),
            ids,
            pool: (0..pool as u64).map(|place| message(ids, place * MESSAGE, MESSAGE, accounts)).collect(),
            accounts,
            sent: Arc::default(),
        })
    }

    async fn slice(&self, length: Duration) -> anyhow::Result<Slice> {
        let (channels, pool, sent) =
            (Arc::clone(&self.channels), Arc::clone(&self.pool), Arc::clone(&self.sent));
        let (ids, accounts) = (self.ids, self.accounts);
        in_a_loop(self.server, STREAMS, length, move |caller, _| {
            let channel = channels[caller % channels.len()].clone();
            let first = sent.fetch_add(LENGTH, Ordering::Relaxed);
            let pool = Arc::clone(&pool);
            async move {
                let place = first % pool.len();
                let messages: Vec<Bytes> =
                    (0..LENGTH).map(|n| pool[(place + n) % pool.len()].clone()).collect();
                let mut answers = raw::streaming(channel, PATH, tokio_stream::iter(messages)).await?;
                let mut count = 0;
                while let Some(answer) = answers.message().await? {
                    if count == 0 {
                        check(answer, ids, place as u64 * MESSAGE, MESSAGE, accounts)?;
                    }
                    count += 1;
                }
                if count == LENGTH { Ok(()) } else { Err(Status::internal("a message has no answer")) }
            }
        })
        .await
    }
}
