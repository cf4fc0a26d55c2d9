//! Where synchronous standbys are named, a write counts as recorded only when one has flushed it.
//!
//! Postgres waits for that itself, but a wait that is cancelled ends in a *successful* COMMIT with a warning, which
//! sqlx drops. So it is read back: a position of the log that is not before the commit, and whether a
//! synchronous standby has flushed up to it.

use super::session::PostgresSession;
use crate::store::StoreError;
use crate::store::rows::Columns;
use std::time::Duration;

const FLUSHED_HERE: &str = "SELECT pg_current_wal_flush_lsn()::text AS lsn";

const FLUSHED_THERE: &str = "SELECT EXISTS (
        SELECT FROM pg_stat_replication
        WHERE sync_state IN ('sync', 'quorum') AND flush_lsn >= $1::text::pg_lsn
    ) AS flushed";

const STEP: Duration = Duration::from_millis(5);

// As often as the lane can wait without being cut off as idle when it holds the lock.
const LOOKS: u32 = 200;

/// Waits until a synchronous standby has flushed whatever is committed now; an error if none does in time.
pub(super) async fn flushed(session: &mut PostgresSession) -> Result<(), StoreError> {
    if !session.sees_standbys() {
        let why = "standbys are named, but this role may not see them: grant it pg_read_all_stats";
        return Err(StoreError::OutcomeUnknown(why.into()));
    }
    let unknown = |error: StoreError| StoreError::OutcomeUnknown(error.to_string());
    let rows = session.script(FLUSHED_HERE).await.map_err(unknown)?;
    let lsn = rows.first().ok_or_else(|| StoreError::Broken("no position of the log".into()))?.text("lsn")?;
    let mut step = tokio::time::interval(STEP);
    for _ in 0..LOOKS {
        step.tick().await;
        let rows = session.fetch(sqlx::query(FLUSHED_THERE).bind(&lsn)).await.map_err(unknown)?;
        if rows.first().is_some_and(|row| row.flag("flushed").unwrap_or(false)) {
            return Ok(());
        }
    }
    Err(StoreError::OutcomeUnknown("no synchronous standby has flushed the commit".into()))
}
