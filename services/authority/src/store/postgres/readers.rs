//! The readers' few connections.
//!
//! A connection is given back only by whoever got an answer on it. One that failed, fell silent, or whose reader was
//! dropped in mid-exchange is closed at once and its place is free: a network that swallows packets costs each read
//! under way its patience, and the next ones nothing. (A pool that first asks a connection whether it is still there
//! would wait for that answer as long as TCP does.)

use super::session::{PostgresSession, query};
use crate::store::StoreError;
use crate::store::rows::{Source, Value};
use sqlx::postgres::{PgConnectOptions, PgRow};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Enough for handlers that read; the feed of all sessions comes from memory.
const READERS: usize = 8;

/// A reader that gets no connection says so soon: the caller's deadline is short too.
const ACQUIRE: Duration = Duration::from_secs(1);

/// A bounded set of connections, opened when they are needed. Clones share it.
#[derive(Clone)]
pub struct PostgresReaders {
    options: PgConnectOptions,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<PostgresSession>>>,
}

impl PostgresReaders {
    pub(super) fn new(options: PgConnectOptions) -> PostgresReaders {
        let options = options.options([("default_transaction_read_only", "on")]);
        PostgresReaders { options, places: Arc::new(Semaphore::new(READERS)), idle: Arc::default() }
    }

    fn idle<T>(&self, change: impl FnOnce(&mut Vec<PostgresSession>) -> T) -> T {
        change(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Source for PostgresReaders {
    type Row = PgRow;

    async fn rows(
        &self,
        sql: impl Into<Cow<'static, str>> + Send,
        values: &[Value<'_>],
    ) -> Result<Vec<PgRow>, StoreError> {
        let query = query(sql.into(), values);
        let Ok(Ok(_place)) = tokio::time::timeout(ACQUIRE, self.places.acquire()).await else {
            return Err(StoreError::Unavailable("all readers are busy".into()));
        };
        let idle = self.idle(Vec::pop);
        let mut session = idle.unwrap_or_else(|| PostgresSession::new(self.options.clone()));
        let outcome = session.fetch(query).await;
        match &outcome {
            Ok(_) => self.idle(|idle| idle.push(session)),
            // What ended this connection has most likely ended those that have been idle longer.
            Err(_) => self.idle(Vec::clear),
        }
        outcome
    }
}
