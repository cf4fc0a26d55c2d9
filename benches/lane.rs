//! The writer lane, against hand-written SQL on the same rows and indexes: what deciding, hashing, proving and
//! remembering add to a batch.
//!
//! Both write to a ledger of their own on the same server. The lane is in this process, and has callers enough for
//! full batches at any time; the SQL is one statement a batch, on as many connections as serve it best.

use crate::bench::{Bench, Goal};
use crate::callers::{Slice, beside, in_a_loop};
use crate::ledger::{CALLER, Ledgers, POLICY, PRODUCT, Strangers};
use crate::slices::{Spread, in_turn};
use crate::written::{Batch, Connection};
use anyhow::anyhow;
use consent::deadline::Deadline;
use consent::status::status;
use consent_authority::lane::{Lane, Write};
use consent_authority::store::{PostgresStore, Reader, RequestName, Store};
use consent_core::command::Command;
use consent_core::head::HeadKey;
use consent_core::policy::PolicyFile;
use consent_core::words::{Choice, IdKey, Name, Party, Span};
use std::sync::Arc;
use tokio::sync::Mutex;
use tonic::Status;
use uuid::Uuid;

/// As many as the lane puts into one transaction.
pub(crate) const BATCH: usize = 256;
/// While one batch is committed the next one gathers, and none waits for room.
const CALLERS: usize = 3 * BATCH;
/// One statement is on its way while another is carried out: the head row lets in one at a time.
const CONNECTIONS: usize = 2;
/// Longer than any write takes.
const SOON: Span = Span::from_millis(60_000);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ledgers = Ledgers::start(bench)?;
    let lane = Opened::on(&ledgers.fresh().await?).await?;
    lane.warm_up(&ledgers, bench.slice() / 10).await?;
    let written = Written::on(&ledgers.fresh().await?, CONNECTIONS, BATCH, &lane).await?;
    let (pid, length) = (ledgers.pid()?, bench.slice());
    let pairs = in_turn(
        bench.slices(),
        async || written.slice(pid, length).await,
        async || lane.slice(pid, length).await,
    )
    .await?;
    let rate = |slice: &Slice| slice.rate();
    let ratio = Spread::of_ratios(&pairs, rate);
    bench.figure("lane", ratio, "x", &beside(&pairs, " opt-outs/s", rate), Goal::AtLeast(0.8));
    Ok(())
}

/// A lane over a ledger with a policy, and where to learn how long its rows are.
pub(crate) struct Opened {
    lane: Lane,
    id_key: IdKey,
    url: String,
    strangers: Arc<Strangers>,
}

impl Opened {
    pub(crate) async fn on(url: &str) -> anyhow::Result<Opened> {
        let store = Arc::new(PostgresStore::open(url).await?);
        let id_key = store.reader().head().await?.id_key;
        let (lane, task) = Lane::new(store, id_key, || ());
        tokio::spawn(task);
        let opened = Opened { lane, id_key, url: url.to_owned(), strangers: Arc::default() };
        let file = PolicyFile::parse(POLICY).map_err(|errors| anyhow!("the seed's policy: {errors:?}"))?;
        let publish = Command::PublishPolicy { file: Box::new(file), expected: None };
        let document = Some(POLICY.to_owned());
        let write = Write { document, ..write(publish, Vec::new()) };
        opened.lane.write(write, Deadline::after(SOON)).await.map_err(status)?;
        Ok(opened)
    }

    /// Some rows, to learn from how long they are.
    pub(crate) async fn warm_up(&self, ledgers: &Ledgers, length: std::time::Duration) -> anyhow::Result<()> {
        self.slice(ledgers.pid()?, length).await.map(drop)
    }

    async fn slice(&self, server: u32, length: std::time::Duration) -> anyhow::Result<Slice> {
        let (lane, id_key, strangers) = (self.lane.clone(), self.id_key, Arc::clone(&self.strangers));
        let product = Name::new(PRODUCT)?;
        in_a_loop(server, CALLERS, length, move |_, _| {
            let id = strangers.next();
            let key = id_key.account(&id);
            let (party, choice, product) = (Party::Account(key), Choice::Out, product.clone());
            let command = Command::SetConsent { party, product, choice, expected: None };
            let (lane, write) = (lane.clone(), write(command, vec![(HeadKey::Account(key), id)]));
            async move {
                let receipt = lane.write(write, Deadline::after(SOON)).await.map_err(status)?;
                if receipt.changed { Ok(()) } else { Err(Status::internal("a stranger was known")) }
            }
        })
        .await
    }
}

fn write(command: Command, ids: Vec<(HeadKey, String)>) -> Write {
    let request = RequestName { caller: CALLER.to_owned(), request_id: Uuid::new_v4() };
    Write {
        request,
        command,
        ids,
        actor: CALLER.to_owned(),
        channel: 6,
        notice: String::new(),
        document: None,
    }
}

/// Hand-written SQL over a ledger of its own.
pub(crate) struct Written {
    connections: Arc<[Mutex<Connection>]>,
    batches: Arc<std::sync::Mutex<Vec<Batch>>>,
    make: Box<dyn Fn() -> Batch + Send + Sync>,
    size: usize,
}

impl Written {
    /// Its rows are as long as those that `like` has made.
    pub(crate) async fn on(
        url: &str,
        connections: usize,
        size: usize,
        like: &Opened,
    ) -> anyhow::Result<Written> {
        let lengths = Connection::open(&like.url).await?.lengths().await?;
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Mutex::new(Connection::open(url).await?));
        }
        let (id_key, strangers) = (like.id_key, Strangers::default());
        let make = move || Batch::of(size, lengths, &strangers, &id_key);
        let batches = Arc::default();
        Ok(Written { connections: open.into(), batches, make: Box::new(make), size })
    }

    /// One slice, of rows put together before it. It ends early where they are used up.
    pub(crate) async fn slice(&self, server: u32, length: std::time::Duration) -> anyhow::Result<Slice> {
        let enough = 64 + length.as_millis() as usize * ROWS_IN_A_MILLISECOND / self.size;
        {
            let mut batches = lock(&self.batches);
            while batches.len() < enough {
                batches.push((self.make)());
            }
        }
        let (connections, batches) = (Arc::clone(&self.connections), Arc::clone(&self.batches));
        let slice = in_a_loop(server, connections.len(), length, move |caller, _| {
            let batch = lock(&batches).pop();
            let connections = Arc::clone(&connections);
            async move {
                let batch = batch.ok_or_else(|| Status::internal("too few rows were put together"))?;
                let mut connection = connections[caller].lock().await;
                connection.commit(&batch).await.map_err(|trouble| Status::internal(format!("{trouble:#}")))
            }
        })
        .await?;
        Ok(slice.of_batches(self.size as u64))
    }
}

/// More than a server can take.
const ROWS_IN_A_MILLISECOND: usize = 200;

// Nobody panics under it; if somebody did, what it holds would still be whole.
fn lock(batches: &std::sync::Mutex<Vec<Batch>>) -> std::sync::MutexGuard<'_, Vec<Batch>> {
    batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
