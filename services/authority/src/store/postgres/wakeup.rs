//! Wake-ups between replicas: a NOTIFY without a payload after a commit, and a LISTEN that rings the readers.
//!
//! Never part of the writing transaction, where NOTIFY takes a lock of the whole cluster until the commit is
//! durable. Notifications that are lost cost a poll's delay and nothing else: polling is the truth.

use super::session::PostgresSession;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

const CHANNEL: &str = "consent_ledger";
const NOTIFY: &str = "NOTIFY consent_ledger";
const RETRY: Duration = Duration::from_secs(1);

/// Rings the readers of this process, and those of other replicas through the store.
#[derive(Debug, Clone)]
pub(super) struct Bell {
    here: watch::Sender<()>,
    elsewhere: Arc<Notify>,
}

impl Bell {
    /// The bell, with the two tasks that carry it to and from other replicas. They end with the set.
    pub(super) fn new(options: PgConnectOptions) -> (Bell, JoinSet<()>) {
        let bell = Bell { here: watch::Sender::new(()), elsewhere: Arc::default() };
        let mut tasks = JoinSet::new();
        tasks.spawn(send(options.clone(), Arc::clone(&bell.elsewhere)));
        tasks.spawn(receive(options, bell.here.clone()));
        (bell, tasks)
    }

    /// Says that something was committed.
    pub(super) fn ring(&self) {
        self.here.send_replace(());
        self.elsewhere.notify_one();
    }

    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.here.subscribe()
    }
}

/// However many commits there were while one NOTIFY was under way, the next one tells of them all.
async fn send(options: PgConnectOptions, commits: Arc<Notify>) {
    let mut session = PostgresSession::new(options);
    loop {
        commits.notified().await;
        if let Err(error) = session.script(NOTIFY).await {
            tracing::debug!(%error, "other replicas were not woken");
        }
    }
}

async fn receive(options: PgConnectOptions, here: watch::Sender<()>) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options);
    loop {
        if let Err(error) = relay(&pool, &here).await {
            tracing::debug!(%error, "no wake-ups from other replicas until the store is back");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A notification and a lost connection say the same: look.
async fn relay(pool: &sqlx::PgPool, here: &watch::Sender<()>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        listener.try_recv().await?;
        here.send_replace(());
    }
}
