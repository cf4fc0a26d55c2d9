//! Processes and servers that die or stop in the middle: what is left is nothing or everything, and the lookup of
//! a request tells which.
//!
//! The dying process is this program again, told by its environment what to do.

use crate::batch::{Write, append, checked_ledger, commit, needs, request, revision, write};
use crate::postgres::Postgres;
use crate::stand::{OnPostgres, Stand};
use consent_authority::store::{
    LedgerHead, Needs, PostgresStore, Reader, SqliteStore, Store, StoreError, Writer,
};
use rustix::process::{Pid, Signal, getpid, kill_process};
use sqlx::{Connection, PgConnection, Row};
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::task::JoinHandle;

const ROLE: &str = "CONSENT_STORE_CHILD";
const ADDRESS: &str = "CONSENT_STORE_ADDRESS";
const FIRST: &str = "CONSENT_STORE_FIRST";

/// What a child does with its batch of three writes.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// Locks, says so, waits for a word, commits, says how that went.
    Hold,
    /// Commits and dies at the n-th time that the commit waits for something; says so if it is done before.
    DieAtStep(u32),
    /// Commits and dies before it can say so.
    DieCommitted,
}

/// This process as somebody's child.
pub(crate) struct Child {
    role: Role,
    address: String,
    first: u64,
}

impl Child {
    pub(crate) fn from_environment() -> Option<Child> {
        let role = std::env::var(ROLE).ok()?;
        let role = match role.as_str() {
            "hold" => Role::Hold,
            "committed" => Role::DieCommitted,
            step => Role::DieAtStep(step.parse().expect("a step")),
        };
        let first = std::env::var(FIRST).expect("a number").parse().expect("a number");
        Some(Child { role, address: std::env::var(ADDRESS).expect("an address"), first })
    }

    pub(crate) fn run(self) -> ! {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            if self.address.starts_with("postgres:") {
                self.act(&PostgresStore::open(&self.address).await.expect("the store")).await;
            } else {
                self.act(&SqliteStore::open(Path::new(&self.address)).await.expect("the store")).await;
            }
        });
        std::process::exit(0)
    }

    async fn act<S: Store>(&self, store: &S) {
        let mut writer = store.writer().await.expect("a writer");
        let writes = batch(self.first);
        let locked = writer.lock(&needs(&writes)).await.expect("the lock");
        let append = append(&locked, &writes);
        match self.role {
            Role::Hold => {
                say("locked");
                std::io::stdin().read_line(&mut String::new()).expect("a word");
                say(match writer.commit(&append).await {
                    Ok(()) => "committed",
                    Err(StoreError::OutcomeUnknown(_)) => "unknown",
                    Err(_) => "refused",
                });
            }
            Role::DieAtStep(step) => {
                let mut commit = pin!(writer.commit(&append));
                let mut left = step;
                let done = poll_fn(|context| {
                    let poll = commit.as_mut().poll(context);
                    if poll.is_pending() {
                        if left == 0 {
                            die();
                        }
                        left -= 1;
                    }
                    poll
                });
                done.await.expect("a commit");
                say("committed");
            }
            Role::DieCommitted => {
                writer.commit(&append).await.expect("a commit");
                die();
            }
        }
    }
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{word}").and_then(|()| out.flush()).expect("somebody who listens");
}

fn die() -> ! {
    kill_process(getpid(), Signal::KILL).expect("the end");
    loop {
        std::thread::park();
    }
}

fn batch(first: u64) -> [Write; 3] {
    [write(first), write(first + 1), write(first + 2)]
}

/// The parent's end of a child.
struct Parent {
    child: std::process::Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Parent {
    fn start(stand: &impl Stand, role: Role, first: u64) -> Parent {
        let role = match role {
            Role::Hold => "hold".into(),
            Role::DieCommitted => "committed".into(),
            Role::DieAtStep(step) => step.to_string(),
        };
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(ROLE, role).env(ADDRESS, stand.address()).env(FIRST, first.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
        let said = BufReader::new(child.stdout.take().expect("its words"));
        Parent { child, said }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("the signal");
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a word");
        line.trim().to_owned()
    }

    fn tells(&mut self) {
        self.child.stdin.as_mut().expect("its ear").write_all(b"go on\n").expect("the word");
    }

    /// Waits for its end; what it said until then.
    fn ends(mut self) -> String {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("its words");
        self.child.wait().expect("its end");
        rest.trim().to_owned()
    }
}

/// Whether a child's batch is there; that it is there in part fails.
async fn is_there<S: Store>(store: &S, first: u64) -> bool {
    let mut writer = store.writer().await.expect("a writer");
    // Where the child's last words are still on their way to the server, this waits for their end.
    let locked = writer.lock(&needs(&batch(first))).await.expect("the lock");
    writer.release().await;
    let there = locked.requests.len();
    assert!(there == 0 || there == 3, "{there} of 3 requests are remembered");
    assert_eq!(locked.heads.len(), there, "heads and requests agree");
    let revisions = checked_ledger(store).await;
    assert_eq!(revisions, locked.head.revision.get());
    for record in &locked.requests {
        assert!(record.changed && record.revision <= locked.head.revision);
    }
    there == 3
}

pub(crate) async fn killed_after_the_lock_it_leaves_nothing<S: Stand>(stand: S) {
    stand.migrate().await.expect("the migration");
    let mut child = Parent::start(&stand, Role::Hold, 10);
    assert_eq!(child.hears(), "locked");
    child.signal(Signal::KILL);
    child.ends();
    let store = stand.open().await.expect("the store");
    assert!(!is_there(&store, 10).await);
    commit(&mut store.writer().await.expect("a writer"), &batch(10)).await.expect("a commit");
    assert!(is_there(&store, 10).await);
}

pub(crate) async fn killed_at_any_step_of_a_commit_it_leaves_all_or_nothing<S: Stand>(stand: S) {
    stand.migrate().await.expect("the migration");
    let (mut all, mut nothing) = (0, 0);
    for step in 0.. {
        let first = 10 * (u64::from(step) + 1);
        let said = Parent::start(&stand, Role::DieAtStep(step), first).ends();
        let there = is_there(&stand.open().await.expect("the store"), first).await;
        if said == "committed" {
            assert!(there, "what was acknowledged is there");
            break;
        }
        if there { all += 1 } else { nothing += 1 }
    }
    assert!(nothing > 0, "it never died before the commit: {all} all, {nothing} nothing");
}

pub(crate) async fn killed_right_after_the_commit_it_leaves_everything<S: Stand>(stand: S) {
    stand.migrate().await.expect("the migration");
    assert_eq!(Parent::start(&stand, Role::DieCommitted, 10).ends(), "", "no answer");
    assert!(is_there(&stand.open().await.expect("the store"), 10).await);
}

pub(crate) async fn a_stopped_holder_loses_the_lock(stand: OnPostgres) {
    let store = stand.opened().await;
    let mut child = Parent::start(&stand, Role::Hold, 10);
    assert_eq!(child.hears(), "locked");
    child.signal(Signal::STOP);
    commit(&mut store.writer().await.expect("a writer"), &batch(20))
        .await
        .expect("the lock comes free in time");
    child.signal(Signal::CONT);
    child.tells();
    assert_eq!(child.ends(), "refused", "and whoever wakes up knows that nothing was written");
    assert!(!is_there(&store, 10).await);
    assert!(is_there(&store, 20).await);
}

/// Asks again and again until the server says yes.
async fn until(connection: &mut PgConnection, question: &'static str) {
    let mut step = tokio::time::interval(Duration::from_millis(5));
    while !sqlx::query(question).fetch_one(&mut *connection).await.expect("an answer").get::<bool, _>(0) {
        step.tick().await;
    }
}

pub(crate) async fn killed_before_the_commit_is_asked_for_it_leaves_nothing(stand: OnPostgres) {
    let store = stand.opened().await;
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
                CREATE TRIGGER hold AFTER INSERT ON request FOR EACH ROW EXECUTE FUNCTION hold()";
    stand.sql(hold).await.expect("the trigger");
    let mut gate = PgConnection::connect(&stand.address()).await.expect("a connection");
    sqlx::query("SELECT pg_advisory_lock(1)").execute(&mut gate).await.expect("the gate is shut");
    let mut child = Parent::start(&stand, Role::Hold, 10);
    assert_eq!(child.hears(), "locked");
    child.tells();
    until(&mut gate, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        .await;
    child.signal(Signal::KILL);
    child.ends();
    sqlx::query("SELECT pg_advisory_unlock(1)").execute(&mut gate).await.expect("the gate is open");
    assert!(!is_there(&store, 10).await);
}

// A server that has just come back may take longer to let somebody in than a connection waits for it.
async fn available<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    loop {
        match ask().await {
            Err(StoreError::Unavailable(_)) => {}
            outcome => return outcome.expect("the store"),
        }
    }
}

pub(crate) async fn a_killed_server_keeps_every_acknowledged_batch(_: OnPostgres) {
    let mut server = Postgres::start().expect("a server of its own");
    let stand = OnPostgres::bare(&server);
    let store = stand.opened().await;
    let mut next = 10;
    for round in 1..=3 {
        let mut wakeups = store.wakeups();
        let mut writer = store.writer().await.expect("a writer");
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                match commit(&mut writer, &batch(next)).await {
                    Ok(_) => acknowledged.push(next),
                    Err(error) => return (acknowledged, next, error),
                }
                next += 10;
            }
        });
        for _ in 0..10 * round {
            wakeups.changed().await.expect("a commit");
        }
        server.kill_hard().expect("the power cut");
        let (acknowledged, last, error) = task.await.expect("the writer");
        assert!(matches!(error, StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_)), "{error}");
        server.restart().expect("the power is back");
        let mut writer = available(async || store.writer().await).await;
        let all = Needs {
            heads: vec![],
            requests: acknowledged.iter().copied().flat_map(batch).map(|w| w.request).collect(),
        };
        let found = writer.lock(&all).await.expect("the lock").requests.len();
        writer.release().await;
        assert_eq!(found, 3 * acknowledged.len(), "in round {round} acknowledged batches were lost");
        // The pool of this store may still hold connections to the dead server.
        let there = is_there(&available(async || stand.open().await).await, last).await;
        assert!(!there || matches!(error, StoreError::OutcomeUnknown(_)), "{error}, and yet it is there");
        next = last + 10;
    }
}

fn read<R: Reader>(reader: &R) -> JoinHandle<Result<LedgerHead, StoreError>> {
    let reader = reader.clone();
    tokio::spawn(async move { reader.head().await })
}

// Do they all wait for a lock at once? No, as soon as one of them has given up.
async fn all_wait<T>(operator: &mut PgConnection, reads: &[JoinHandle<T>]) -> bool {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = 'consent' AND wait_event_type = 'Lock'";
    let mut step = tokio::time::interval(Duration::from_millis(5));
    while !reads.iter().any(|read| read.is_finished()) {
        let row = sqlx::query(waiting).fetch_one(&mut *operator).await.expect("an answer");
        if row.get::<i64, _>(0) == reads.len() as i64 {
            return true;
        }
        step.tick().await;
    }
    false
}

pub(crate) async fn a_silent_connection_costs_no_place(_: OnPostgres) {
    // All that one set of readers may have.
    const PLACES: usize = 8;
    let server = Postgres::start().expect("a server of its own");
    let stand = OnPostgres::bare(&server);
    let store = stand.opened().await;
    let reader = store.reader();
    // Outside the gate's transaction: a transaction sees the activity of others as it first looked.
    let mut operator = PgConnection::connect(&stand.address()).await.expect("a connection");
    let mut gatekeeper = PgConnection::connect(&stand.address()).await.expect("a connection");
    let mut gate = gatekeeper.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE ledger_head").execute(&mut *gate).await.expect("the gate is shut");
    // They must all meet at the gate within the lock timeout: on a busy machine not at the first attempt.
    let mut reads = loop {
        let reads: Vec<_> = (0..PLACES).map(|_| read(&reader)).collect();
        if all_wait(&mut operator, &reads).await {
            break reads;
        }
        reads.iter().for_each(JoinHandle::abort);
    };
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    for row in sqlx::query(waiting).fetch_all(&mut operator).await.expect("the waiting") {
        kill_process(Pid::from_raw(row.get(0)).expect("a process"), Signal::STOP).expect("the signal");
    }
    gate.rollback().await.expect("the gate is open");

    store.reader().head().await.expect("other readers have connections of their own");
    for gone in reads.drain(..PLACES / 2) {
        gone.abort();
        assert!(gone.await.expect_err("aborted").is_cancelled());
    }
    reader.head().await.expect("whoever goes away leaves its place");
    for silent in reads {
        let outcome = silent.await.expect("joined");
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
    let again = || reader.head();
    let all = tokio::join!(again(), again(), again(), again(), again(), again(), again(), again());
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok(), "{all:?}");
    assert!(all.4.is_ok() && all.5.is_ok() && all.6.is_ok() && all.7.is_ok(), "{all:?}");
}

pub(crate) async fn a_server_that_forgets_or_follows_is_refused(_: OnPostgres) {
    let mut server = Postgres::start().expect("a server of its own");
    let stand = OnPostgres::bare(&server);
    drop(stand.opened().await);
    let refused = |why: &str, outcome: Result<PostgresStore, StoreError>| match outcome {
        Err(StoreError::Unavailable(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{why}: {other:?}"),
    };
    server.restart_with(&["fsync=off"]).expect("a server that forgets");
    refused("fsync", stand.open().await);
    // What a role or a database says is overruled by what every connection asks for.
    server.restart_with(&["synchronous_commit=off"]).expect("a server");
    drop(stand.open().await.expect("the store"));
    server.restart_as_standby().expect("a standby");
    refused("standby", stand.open().await);
}

pub(crate) async fn a_cancelled_wait_for_a_standby_is_no_success(_: OnPostgres) {
    let server = Postgres::start().expect("a server of its own");
    let stand = OnPostgres::bare(&server);
    let store = stand.opened().await;
    let mut operator = PgConnection::connect(&stand.address()).await.expect("a connection");
    for statement in ["ALTER SYSTEM SET synchronous_standby_names = 'nosuch'", "SELECT pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut operator).await.expect("the setting");
    }
    until(&mut operator, "SELECT current_setting('synchronous_standby_names') <> ''").await;
    let mut writer = store.writer().await.expect("a writer");
    let task = tokio::spawn(async move { commit(&mut writer, &batch(10)).await.map(|_| ()) });
    until(
        &mut operator,
        "SELECT coalesce(bool_or(pg_cancel_backend(pid)), false) FROM pg_stat_activity
         WHERE wait_event = 'SyncRep' AND query = 'COMMIT'",
    )
    .await;
    let outcome = task.await.expect("the writer");
    assert!(matches!(outcome, Err(StoreError::OutcomeUnknown(_))), "{outcome:?}");

    let lookup = Needs { heads: vec![], requests: vec![request(10)] };
    let mut writer = store.writer().await.expect("a writer");
    let outcome = writer.lock(&lookup).await;
    assert!(
        matches!(outcome, Err(StoreError::OutcomeUnknown(_))),
        "the lookup is no proof either: {outcome:?}"
    );
    for statement in ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut operator).await.expect("the setting");
    }
    until(&mut operator, "SELECT current_setting('synchronous_standby_names') = ''").await;
    let mut writer = store.writer().await.expect("a writer");
    let locked = writer.lock(&lookup).await.expect("the lock");
    assert_eq!((locked.requests.len(), locked.head.revision), (1, revision(3)));
}
