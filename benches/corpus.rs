//! A corpus of 10^7 artifacts through one stream: right, and no burden to others, also where nobody reads the answers.

use crate::accounts::{Accounts, expected};
use crate::bench::{Bench, Goal, number, size};
use crate::kernel;
use crate::node::{Node, Port};
use crate::raw;
use crate::slices::{Spread, in_turn};
use crate::stream::{Ids, MESSAGE, PATH, account, check, message};
use crate::unary::Asking;
use anyhow::{Context, ensure};
use bytes::Bytes;
use consent::clock;
use consent::pb::Reason;
use consent::pb::decision_service_client::DecisionServiceClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::{Stream, StreamExt};
use tonic::Streaming;

/// Artifacts.
const CORPUS: u64 = 10_000_000;
/// Every so many messages one is compared with what is known of its accounts, and one of its items asked again.
const SAMPLE: u64 = 16;
/// What a consumer that stops reading may cost the server: a few messages each way.
const STALLED_MAX: f64 = 16e6;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let accounts = bench.largest();
    let node = Node::live(bench, accounts).await?;
    let name = format!("corpus/{}", size(accounts));
    let messages = if bench.is_tiny() { 4 } else { CORPUS.div_ceil(MESSAGE) };
    whole(bench, &node, &name, messages).await?;
    stalled(bench, &node, &name).await
}

/// From the first message to the last answer.
async fn whole(bench: &mut Bench, node: &Node, name: &str, messages: u64) -> anyhow::Result<()> {
    let (pid, accounts) = (node.server.pid(), node.accounts);
    kernel::forget_peak(pid)?;
    let (before, processor, start) = (kernel::resident(pid)?, kernel::processor_nanos(pid)?, clock::now());
    let (sent, requests) = corpus(accounts, messages);
    let mut answers = raw::streaming(node.server.connect(Port::Unix).await?, PATH, requests).await?;
    let mut answered = 0;
    while let Some(answer) = answers.message().await? {
        if answered % SAMPLE == 0 {
            check(answer, Ids::Texts, answered * MESSAGE, MESSAGE, accounts)?;
        }
        answered += 1;
    }
    let nanos = clock::now().raw - start.raw;
    let (processor, peak) = (kernel::processor_nanos(pid)? - processor, kernel::peak(pid)?);
    ensure!(
        answered == messages && sent.load(Ordering::Relaxed) == messages,
        "{answered} answers to {messages}"
    );
    let rate = (messages * MESSAGE) as f64 * 1e9;
    let more = format!(
        "decisions a second, {} in a second of the server's, with all that the one caller does",
        number(rate / processor as f64)
    );
    bench.figure(&format!("{name}/throughput"), Spread::of([rate / nanos as f64]), "", &more, Goal::None);
    let more = "more memory than before, at most";
    let memory = Spread::of([peak.saturating_sub(before) as f64]);
    bench.figure(&format!("{name}/memory"), memory, "B", more, Goal::AtMost(STALLED_MAX));

    // The stream says what a single question is told.
    let mut single = DecisionServiceClient::new(node.server.connect(Port::Unix).await?);
    let (questions, mut differ) = (Accounts::new()?, 0_u64);
    for item in (0..messages).step_by(SAMPLE as usize).map(|message| message * MESSAGE + message % MESSAGE) {
        let account = account(Ids::Texts, item, accounts);
        let answer = single.can_train(questions.question(account, item)).await?.into_inner();
        differ += u64::from(answer.reason() != expected(account) && answer.reason() != Reason::Stale);
    }
    let more = "answers that CanTrain gives otherwise, of one in so many messages that are compared";
    bench.figure(&format!("{name}/wrong"), Spread::of([differ as f64]), "", more, Goal::AtMost(0.0));
    Ok(())
}

/// One who sends and does not read, and others meanwhile.
async fn stalled(bench: &mut Bench, node: &Node, name: &str) -> anyhow::Result<()> {
    let (pid, accounts) = (node.server.pid(), node.accounts);
    let others = Asking::new(&node.server, Port::Unix, 4, accounts, expected).await?;
    let length = bench.slice();
    let before = kernel::resident(pid)?;
    let messages = if bench.is_tiny() { 256 } else { 1024 };
    let channel = node.server.connect(Port::Unix).await?;
    let stalled = std::cell::RefCell::new(None::<(Arc<AtomicU64>, Streaming<Bytes>)>);
    let pairs = in_turn(
        bench.slices(),
        async || {
            if let Some((_, mut answers)) = stalled.take() {
                // Whoever reads on has an answer to every message.
                let mut answered = 0;
                while answers.message().await?.is_some() {
                    answered += 1;
                }
                ensure!(answered == messages, "{answered} answers to {messages} messages");
            }
            others.slice(64, length).await
        },
        async || {
            if stalled.borrow().is_none() {
                let (sent, requests) = corpus(accounts, messages);
                let answers = raw::streaming(channel.clone(), PATH, requests).await?;
                until_stalled(&sent).await?;
                ensure!(sent.load(Ordering::Relaxed) < messages, "nothing kept the sender back");
                *stalled.borrow_mut() = Some((sent, answers));
            }
            others.slice(64, length).await
        },
    )
    .await?;
    let grown = kernel::resident(pid)?.saturating_sub(before) as f64;
    let more = "more memory, for one that sends and does not read";
    bench.figure(
        &format!("{name}/stalled/memory"),
        Spread::of([grown]),
        "B",
        more,
        Goal::AtMost(STALLED_MAX),
    );
    let ratio = Spread::of_ratios(&pairs, |slice| slice.percentile(99));
    let (without, with) = Spread::medians(&pairs, |slice| slice.percentile(99));
    let more = format!("p99 of 64 others {} against {} us without it", number(with), number(without));
    bench.figure(&format!("{name}/stalled/others"), ratio, "x", &more, Goal::AtMost(1.25));
    Ok(())
}

/// The messages of a corpus, worded as they are sent, and how many were.
fn corpus(accounts: u64, messages: u64) -> (Arc<AtomicU64>, impl Stream<Item = Bytes> + Send + 'static) {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let requests = tokio_stream::iter(0..messages).map(move |number| {
        counter.fetch_add(1, Ordering::Relaxed);
        message(Ids::Texts, number * MESSAGE, MESSAGE, accounts)
    });
    (sent, requests)
}

/// Until no further message was sent for a while.
async fn until_stalled(sent: &AtomicU64) -> anyhow::Result<()> {
    let stalls = async {
        let mut last = u64::MAX;
        while last != sent.load(Ordering::Relaxed) {
            last = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stalls).await.context("it goes on and on")
}
