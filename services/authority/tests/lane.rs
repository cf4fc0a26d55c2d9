//! The lane on a real store (R1): what was promised to a caller is there, whoever went away and whatever failed.
//!
//! Faults are put between the lane and SQLite, at the two places where a store can fail it: the lock and the commit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod lane {
    pub(crate) mod faulty;
    pub(crate) mod writes;
}

use consent_authority::lane::{Lane, Receipt};
use consent_authority::store::{Reader, Store};
use consent_core::chain::Chain;
use consent_core::refusal::Refusal;
use consent_core::words::{Choice, Revision};
use lane::faulty::{Control, Fault, Faulty, POISON};
use lane::writes::{Author, SOON, deadline};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::{JoinHandle, JoinSet};

/// A lane over a store in a directory, with its faults.
struct Running {
    lane: Lane,
    store: Arc<Faulty>,
    control: Control,
    author: Author,
    commits: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Running {
    async fn open(directory: &Path) -> Running {
        let (store, control) = Faulty::open(directory).await;
        let store = Arc::new(store);
        let id_key = store.reader().head().await.expect("a head").id_key;
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        let committed = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let (lane, task) = Lane::new(Arc::clone(&store), id_key, committed);
        let task = tokio::spawn(task);
        Running { lane, store, control, author: Author::new(id_key), commits, task }
    }

    /// A lane over a fresh ledger with a policy at revision 1.
    async fn new(directory: &Path) -> Running {
        let running = Running::open(directory).await;
        running.lane.write(running.author.policy(), deadline(SOON)).await.expect("published");
        running
    }

    async fn choose(&self, account: &str, choice: Choice) -> Result<Receipt, Refusal> {
        self.lane.write(self.author.choice(account, choice), deadline(SOON)).await
    }

    async fn revision(&self) -> u64 {
        self.store.reader().head().await.expect("a head").revision.get()
    }

    /// Ends the lane as a stopping process does: when the last handle is gone and the queue empty.
    async fn stop(self) {
        drop(self.lane);
        self.task.await.expect("the lane ends");
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_share_commits_and_revisions_are_dense() {
    const WRITERS: u64 = 64;
    const WRITES: u64 = 10;
    let directory = directory();
    let running = Arc::new(Running::new(directory.path()).await);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let running = Arc::clone(&running);
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for write in 0..WRITES {
                let account = format!("account-{writer}-{write}");
                let receipt = running.choose(&account, Choice::Out).await.expect("recorded");
                revisions.push(receipt.position.revision.get());
            }
            assert!(revisions.is_sorted(), "a caller's writes are in its own order");
            revisions
        });
    }
    let revisions: BTreeSet<u64> = writers.join_all().await.into_iter().flatten().collect();
    let last = 1 + WRITERS * WRITES;
    assert_eq!(revisions, (2..=last).collect());
    assert_eq!(running.revision().await, last);
    assert!(running.commits.load(Ordering::Relaxed) < last, "no two writes shared a commit");
    let mut chain = Chain::EMPTY;
    for entry in running.store.reader().feed(Revision::ZERO, 1000).await.expect("the feed") {
        chain = chain.then(entry.link);
        assert_eq!(entry.chain, chain, "at {}", entry.revision);
    }
}

#[tokio::test]
async fn a_retry_after_a_restart_gives_the_first_answer() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    let opt_out = running.author.choice("ada", Choice::Out);
    let repeat = running.author.choice("ada", Choice::Out);
    let first = running.lane.write(opt_out.clone(), deadline(SOON)).await.expect("recorded");
    let unchanged = running.lane.write(repeat.clone(), deadline(SOON)).await.expect("recorded");
    assert_eq!(unchanged, Receipt { changed: false, ..first.clone() });
    running.choose("bob", Choice::Out).await.expect("recorded");
    running.stop().await;

    let running = Running::open(directory.path()).await;
    assert_eq!(running.lane.write(opt_out.clone(), deadline(SOON)).await, Ok(first));
    assert_eq!(running.lane.write(repeat, deadline(SOON)).await, Ok(unchanged));
    let mut other = running.author.choice("ada", Choice::In);
    other.request = opt_out.request;
    assert_eq!(running.lane.write(other, deadline(SOON)).await, Err(Refusal::RequestIdReused));
    assert_eq!(running.revision().await, 3);
    running.stop().await;
}

#[tokio::test]
async fn an_opt_out_creates_who_was_never_heard_of_and_an_opt_in_over_it_needs_the_revision() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    let out = running.choose("nobody", Choice::Out).await.expect("recorded");
    assert!(out.changed);
    let missing = Refusal::ExpectedRevisionMissing { actual: out.position.revision };
    assert_eq!(running.choose("nobody", Choice::In).await, Err(missing));
    let opt_in = running.author.opt_in_at("nobody", out.position.revision);
    assert!(running.lane.write(opt_in, deadline(SOON)).await.expect("recorded").changed);
    running.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_drops_only_the_wait() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.hold();
    let opt_out = running.author.choice("ada", Choice::Out);
    let (lane, gone) = (running.lane.clone(), opt_out.clone());
    let caller = tokio::spawn(async move { lane.write(gone, deadline(SOON)).await });
    running.control.lock_is_asked_for().await;
    caller.abort();
    assert!(caller.await.expect_err("aborted").is_cancelled());
    // And one whose deadline passes.
    let late = running.lane.write(running.author.choice("bob", Choice::Out), deadline(0)).await;
    assert_eq!(late, Err(Refusal::DeadlineExceeded));
    running.control.let_go();
    running.choose("cleo", Choice::Out).await.expect("recorded");
    assert_eq!(running.revision().await, 4);
    let found = running.lane.write(opt_out, deadline(SOON)).await.expect("recorded");
    assert_eq!(found.position.revision.get(), 2, "it is the answer to the call that was cancelled");
    running.stop().await;
}

#[tokio::test]
async fn a_full_queue_refuses_others_and_no_opt_out() {
    const MANY: usize = 3_000;
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.hold();
    let (mut others, mut opt_outs) = (JoinSet::new(), JoinSet::new());
    for index in 0..MANY {
        let (lane, write) = (running.lane.clone(), running.author.announce(&format!("other-{index}")));
        others.spawn(async move { lane.write(write, deadline(SOON)).await });
        let account = format!("out-{index}");
        let (lane, write) = (running.lane.clone(), running.author.choice(&account, Choice::Out));
        opt_outs.spawn(async move { lane.write(write, deadline(SOON)).await });
    }
    running.control.lock_is_asked_for().await;
    // Who finds no room is told at once, while nothing is written: at least a thousand of these.
    for _ in 0..1_000 {
        let outcome = others.join_next().await.expect("a caller").expect("joined");
        assert!(matches!(outcome, Err(Refusal::Overloaded { .. })), "{outcome:?}");
    }
    // An opt-out without room waits within its deadline.
    let late = running.lane.write(running.author.choice("late", Choice::Out), deadline(0)).await;
    assert_eq!(late, Err(Refusal::DeadlineExceeded));
    running.control.let_go();
    for outcome in opt_outs.join_all().await {
        assert!(outcome.expect("recorded").changed);
    }
    others.join_all().await;
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_looked_up_under_the_next_lock() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    for (fault, account) in [(Fault::CommitDoneUnknown, "ada"), (Fault::CommitUndoneUnknown, "bob")] {
        let before = running.revision().await;
        running.control.next([fault]);
        let receipt = running.choose(account, Choice::Out).await.expect("recorded");
        assert!(receipt.changed);
        assert_eq!(receipt.position.revision.get(), before + 1, "{fault:?}");
        assert_eq!(running.revision().await, before + 1, "it was written once: {fault:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_comes_back_gets_the_write() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.next([Fault::LockFails, Fault::Foreign, Fault::CommitFails]);
    assert!(running.choose("ada", Choice::Out).await.expect("recorded").changed);
    assert_eq!(running.revision().await, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_stays_away_is_told_within_a_bound() {
    let directories = [directory(), directory()];
    let never = Running::new(directories[0].path()).await;
    let perhaps = Running::new(directories[1].path()).await;
    never.control.always(Fault::LockFails);
    // Once a commit was asked for and nobody knows what became of it, nothing else may be said.
    perhaps.control.next([Fault::CommitDoneUnknown]);
    perhaps.control.always(Fault::LockFails);
    let outcomes = tokio::join!(never.choose("ada", Choice::Out), perhaps.choose("ada", Choice::Out));
    assert_eq!(outcomes, (Err(Refusal::StoreUnavailable), Err(Refusal::OutcomeUnknown)));
    assert_eq!((never.revision().await, perhaps.revision().await), (1, 2));
    never.stop().await;
    perhaps.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_stays_unknown_whatever_fails_next() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.next([Fault::CommitDoneUnknown]);
    running.control.always(Fault::LockBroken);
    assert_eq!(running.choose("ada", Choice::Out).await, Err(Refusal::OutcomeUnknown));
    assert_eq!(running.choose("bob", Choice::Out).await, Err(Refusal::Internal), "this one was never tried");
    assert_eq!(running.revision().await, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_taken_apart_is_given_up_as_one() {
    const MANY: usize = 128;
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.hold();
    let first = running.choose("first", Choice::Out);
    let batch = async {
        running.control.lock_is_asked_for().await;
        let mut calls = JoinSet::new();
        for index in 0..MANY {
            let (lane, write) =
                (running.lane.clone(), running.author.choice(&index.to_string(), Choice::Out));
            calls.spawn(async move { lane.write(write, deadline(SOON)).await });
        }
        // Queued before the first one gets on: they are of one batch.
        tokio::task::yield_now().await;
        running.control.next([Fault::LockWorks, Fault::LockBroken]);
        running.control.always(Fault::LockFails);
        running.control.let_go();
        calls.join_all().await
    };
    let (first, outcomes) = tokio::join!(first, batch);
    assert!(first.is_ok());
    assert!(outcomes.iter().all(|outcome| *outcome == Err(Refusal::StoreUnavailable)));
    let locks = running.control.locks();
    assert!(locks < MANY, "{locks} attempts: each was tried for itself while the store was away");
    running.stop().await;
}

#[tokio::test]
async fn a_write_that_the_store_cannot_take_fails_alone() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.hold();
    let first = running.choose("first", Choice::Out);
    let batch = async {
        running.control.lock_is_asked_for().await;
        let mut poison = running.author.choice("poison", Choice::Out);
        poison.actor = POISON.to_owned();
        let poison = running.lane.write(poison, deadline(SOON));
        let (ada, bob) = (running.choose("ada", Choice::Out), running.choose("bob", Choice::Out));
        tokio::join!(ada, poison, bob, async { running.control.let_go() })
    };
    let (first, (ada, poison, bob, ())) = tokio::join!(first, batch);
    assert!(first.is_ok() && ada.is_ok() && bob.is_ok());
    assert_eq!(poison, Err(Refusal::Internal));
    assert_eq!(running.revision().await, 4);
    running.stop().await;
}

#[tokio::test]
async fn what_is_queued_when_the_process_stops_is_written() {
    let directory = directory();
    let running = Running::new(directory.path()).await;
    running.control.hold();
    let (lane, write) = (running.lane.clone(), running.author.choice("ada", Choice::Out));
    let caller = tokio::spawn(async move { lane.write(write, deadline(SOON)).await });
    running.control.lock_is_asked_for().await;
    running.control.let_go();
    running.stop().await;
    assert!(caller.await.expect("joined").expect("recorded").changed);
}
