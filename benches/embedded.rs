//! One decision in process, without a socket, against the least that it could be: one read of memory that no cache
//! holds, and the clocks.
//!
//! Each question can be asked only when the answer before it is known, as a caller asks who has one artifact at hand.
//! All that a caller pays is counted: the checks of both ids, their keyed hashes, the clocks before and after. Times
//! are this thread's processor time. That nothing is allocated is a test of the sidecar's.

use crate::accounts::{artifact_id, expected, id, scattered};
use crate::authority::Authority;
use crate::bench::{Bench, Goal, number, size};
use crate::slices::{Spread, in_turn};
use anyhow::{Context, ensure};
use consent::clock;
use consent::convert::decision::reason;
use consent::pb::Reason;
use consent_core::words::Timestamp;
use consent_sidecar::{Artifact, Mirror, MirrorConfig};
use std::hint::black_box;
use std::time::Duration;

/// Questions of a slice.
const QUESTIONS: u64 = 200_000;
/// About as many bytes as a table has for an account, the room that it leaves included.
const ROW: u64 = 42;
/// Tables that a cache holds are faster than any goal; they are told of all the same.
const LEAST: u64 = 1_000_000;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for accounts in bench.sizes() {
        let name = format!("embedded/{}", size(accounts));
        if !bench.wants_some_of(&name) {
            continue;
        }
        let authority = Authority::start(accounts).await?;
        let mirror = start(bench, &authority)?;
        let live = tokio::time::timeout(Duration::from_secs(600), mirror.ready()).await;
        live.context("the mirror does not become LIVE")?;
        let questions = if bench.is_tiny() { 1_000 } else { QUESTIONS };
        let array = Lines::new(accounts);
        let (mut reads, mut decisions) = (0, 0);
        let pairs = in_turn(
            bench.slices(),
            async || {
                reads += questions;
                Ok(array.nanos_of_a_read(reads, questions))
            },
            async || {
                decisions += questions;
                // Made before the clock runs, and each time of other accounts.
                let ids = (decisions..decisions + questions)
                    .map(|n| Ids::new(scattered(n) % accounts, n))
                    .collect();
                let nanos = nanos_of_a_decision(&mirror, ids)?;
                // Grants come in on this thread.
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(nanos)
            },
        )
        .await?;
        let (read, decided) = Spread::medians(&pairs, |nanos| *nanos);
        let more = format!("{} against {} ns", number(decided), number(read));
        let goal = if accounts < LEAST { Goal::None } else { Goal::AtMost(2.5) };
        bench.figure(
            &format!("{name}/decision"),
            Spread::of_ratios(&pairs, |nanos| *nanos),
            "x",
            &more,
            goal,
        );
        mirror.stop().await;
    }
    Ok(())
}

fn start(bench: &Bench, authority: &Authority) -> anyhow::Result<Mirror> {
    // Its own thread is where those of a server would be: the core of the callers is for what is measured.
    bench.cores.serve();
    let mirror = Mirror::start(MirrorConfig::new(vec![authority.url.clone()]));
    bench.cores.stay();
    mirror.context("a mirror in this process")
}

/// An array that is as large as the table, in lines of a cache.
struct Lines(Vec<[u64; 8]>);

impl Lines {
    fn new(accounts: u64) -> Lines {
        let lines = usize::try_from((accounts * ROW).div_ceil(64)).unwrap_or(1);
        // Not of zeros: those the kernel would show from one and the same page.
        Lines(vec![[1; 8]; lines])
    }

    /// A read of a whole line, and the clocks that a decision reads.
    fn nanos_of_a_read(&self, first: u64, count: u64) -> f64 {
        let start = clock::spent();
        let mut last = 0;
        for n in first..first + count {
            black_box(clock::now());
            black_box(clock::wall());
            let line = &self.0[(scattered(n) + last) as usize % self.0.len()];
            // Never more than zero, but the next line is known only when this one is there.
            last = black_box(line.iter().sum::<u64>() - 8);
            black_box(clock::now());
        }
        clock::spent().minus(start).nanos() as f64 / count as f64
    }
}

/// What is asked about.
struct Ids {
    number: u64,
    account: String,
    artifact: String,
}

impl Ids {
    fn new(number: u64, artifact: u64) -> Ids {
        Ids { number, account: id(number), artifact: artifact_id(artifact) }
    }

    fn artifact(&self, collected_at: Timestamp) -> Artifact<'_> {
        let (product, kind) = ("le_chat", "input");
        Artifact { id: &self.artifact, product, kind, collected_at: Some(collected_at), is_incognito: false }
    }
}

fn nanos_of_a_decision(mirror: &Mirror, ids: Vec<Ids>) -> anyhow::Result<f64> {
    let collected_at = Timestamp::from_millis(clock::wall().millis() - 3_600_000);
    let (mut last, mut stale, mut wrong) = (0, 0, 0_u64);
    let start = clock::spent();
    for n in 0..ids.len() {
        let ids = &ids[n + last];
        let answer = mirror.can_train(&ids.account, &ids.artifact(collected_at))?;
        let reason = reason(answer.decision.reason);
        stale += u64::from(reason == Reason::Stale);
        wrong += u64::from(reason != expected(ids.number));
        // Never more than zero, but the next question is known only when this one is answered.
        last = black_box(usize::from(answer.position.is_none()));
    }
    let nanos = clock::spent().minus(start).nanos() as f64 / ids.len() as f64;
    ensure!(wrong == stale, "{} of {} are answered wrongly", wrong - stale, ids.len());
    // A pause now and then is the machine's.
    ensure!(20 * stale <= ids.len() as u64, "{stale} of {} are answered STALE", ids.len());
    Ok(nanos)
}
