//! The rows of `authority_lease`, the same statements on both stores (R2, R3, R7b, R8, R8b, R9, R12).
//!
//! A change is one statement, or a transaction in which the changed row is locked first: a mint, which closes every
//! row, comes entirely before it or entirely after. Every change holds only where the live server is the one
//! stored; where nothing changed, a second look tells a fenced row from a foreign server.

use super::reads::padded;
use super::rows::{
    Columns, Session, Value, foreign_if_empty, from_here, head_columns, ledger_head, unreadable,
};
use super::{LeaseRow, LeaseTable, Leases, LedgerHead, StoreError};
use consent_core::chain::Chain;
use consent_core::words::{Epoch, Incarnation, Revision};
use std::fmt::Write;

const HEAD: &str = concat!("SELECT ", head_columns!(), from_here!());

// R2 against R1: whoever appends holds this row until the commit is visible. So a registration comes after an append
// whole, or before it; in between it would note a revision that others may confirm past before its row is there.
const SERIALISE: &str = "UPDATE ledger_head SET last_rev = last_rev";

const REGISTER: &str = concat!(
    "INSERT INTO authority_lease (incarnation, replica, reg_rev, renew_seq, drained_rev, closed)
     SELECT $1, $2, h.last_rev, 0, 0, false",
    from_here!()
);

const RENEW: &str = concat!(
    "UPDATE authority_lease SET renew_seq = renew_seq + 1
     WHERE incarnation = $1 AND NOT closed AND EXISTS (SELECT 1",
    from_here!(),
    ")"
);

const REPORT_DRAINED: &str = concat!(
    "UPDATE authority_lease SET drained_rev = CASE WHEN drained_rev < $2 THEN $2 ELSE drained_rev END
     WHERE incarnation = $1 AND NOT closed AND EXISTS (SELECT 1",
    from_here!(),
    ")"
);

// The list of revisions is put between the two.
const TABLE: (&str, &str) = (
    concat!(
        "SELECT ",
        head_columns!(),
        ", a.incarnation, a.reg_rev, a.renew_seq, a.drained_rev, l.rev, l.chain",
        from_here!(),
        "LEFT JOIN (SELECT incarnation, reg_rev, renew_seq, drained_rev, NULL AS rev FROM authority_lease
                    WHERE NOT closed
                    UNION ALL SELECT NULL, NULL, NULL, NULL, rev FROM ledger WHERE rev IN (",
    ),
    ")) a ON true LEFT JOIN ledger l ON l.rev = a.rev",
);

const REAP: &str = concat!(
    "UPDATE authority_lease SET closed = true
     WHERE incarnation = $1 AND renew_seq = $2 AND NOT closed AND EXISTS (SELECT 1",
    from_here!(),
    ")"
);

const SETTLE: &str = "UPDATE ledger_head SET settled_epoch = $1
     WHERE epoch = $1 AND server_identity = (SELECT identity FROM live_server)";

// The row lock makes racing minters take turns; the second finds the identity equal.
const MINT: &str = "UPDATE ledger_head SET epoch = $1, server_identity = (SELECT identity FROM live_server)
     WHERE server_identity <> (SELECT identity FROM live_server)";

const CLOSE_ALL: &str = "UPDATE authority_lease SET closed = true WHERE NOT closed";

const CLOSE: &str = concat!(
    "UPDATE authority_lease SET closed = true WHERE incarnation = $1 AND EXISTS (SELECT 1",
    from_here!(),
    ")"
);

/// The lease rows' role over a connection of its own.
#[derive(Debug)]
pub struct LeaseRows<S>(pub(super) S);

impl<S: Session> LeaseRows<S> {
    async fn head(&mut self) -> Result<LedgerHead, StoreError> {
        ledger_head(foreign_if_empty(&self.0.rows(HEAD, &[]).await?)?)
    }

    /// One change: whether it was made. That the server is foreign is no "no".
    async fn change(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<bool, StoreError> {
        if self.0.execute(sql, values).await? > 0 {
            return Ok(true);
        }
        self.head().await.map(|_| false)
    }

    /// One change and the ledger's head, in the transaction that was begun; none if the change found nothing.
    async fn change_and_read(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<LedgerHead>, StoreError> {
        let changed = self.0.execute(sql, values).await?;
        let head = match self.head().await {
            Ok(head) => head,
            Err(error) => {
                self.0.rollback().await;
                return Err(error);
            }
        };
        self.0.commit().await?;
        Ok((changed > 0).then_some(head))
    }
}

impl<S: Session> Leases for LeaseRows<S> {
    async fn register(&mut self, incarnation: Incarnation, replica: &str) -> Result<LedgerHead, StoreError> {
        let values = [Value::Bytes(incarnation.bytes()), Value::Text(replica)];
        self.0.begin().await?;
        self.0.execute(SERIALISE, &[]).await?;
        self.change_and_read(REGISTER, &values).await?.ok_or(StoreError::Foreign)
    }

    async fn renew(&mut self, incarnation: Incarnation) -> Result<Option<LedgerHead>, StoreError> {
        self.0.begin().await?;
        self.change_and_read(RENEW, &[Value::Bytes(incarnation.bytes())]).await
    }

    async fn report_drained(
        &mut self,
        incarnation: Incarnation,
        drained: Revision,
    ) -> Result<bool, StoreError> {
        self.change(REPORT_DRAINED, &[Value::Bytes(incarnation.bytes()), Value::revision(drained)]).await
    }

    async fn table(&mut self, revisions: &[Revision]) -> Result<LeaseTable, StoreError> {
        let mut sql = String::from(TABLE.0);
        let mut values = Vec::new();
        for (index, revision) in padded(revisions, Revision::ZERO).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}${}", index + 1);
            values.push(Value::revision(revision));
        }
        sql.push_str(TABLE.1);
        let rows = self.0.rows(sql, &values).await?;
        let head = ledger_head(foreign_if_empty(&rows)?)?;
        let mut open = Vec::new();
        let mut chains: Vec<(Revision, Option<Chain>)> =
            revisions.iter().map(|r| (*r, (*r == Revision::ZERO).then_some(Chain::EMPTY))).collect();
        for row in &rows {
            if row.bytes_or_null("incarnation")?.is_some() {
                open.push(lease_row(row)?);
            } else if row.bytes_or_null("chain")?.is_some() {
                let (revision, chain) = (row.revision("rev")?, row.chain("chain")?);
                chains.iter_mut().filter(|(r, _)| *r == revision).for_each(|(_, c)| *c = Some(chain));
            }
        }
        Ok(LeaseTable { head, open, chains })
    }

    async fn reap(&mut self, incarnation: Incarnation, renew_seq: u64) -> Result<bool, StoreError> {
        let Ok(seen) = i64::try_from(renew_seq) else { return Ok(false) };
        self.change(REAP, &[Value::Bytes(incarnation.bytes()), Value::Int(seen)]).await
    }

    async fn settle(&mut self, epoch: Epoch) -> Result<bool, StoreError> {
        self.change(SETTLE, &[Value::Bytes(epoch.bytes())]).await
    }

    async fn mint(&mut self, fresh: Epoch) -> Result<bool, StoreError> {
        self.0.begin().await?;
        let minted = self.0.execute(MINT, &[Value::Bytes(fresh.bytes())]).await? > 0;
        if minted {
            self.0.execute(CLOSE_ALL, &[]).await?;
        }
        self.0.commit().await?;
        Ok(minted)
    }

    async fn close(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.change(CLOSE, &[Value::Bytes(incarnation.bytes())]).await.map(|_| ())
    }
}

fn lease_row(row: &impl Columns) -> Result<LeaseRow, StoreError> {
    Ok(LeaseRow {
        incarnation: Incarnation::new(row.array("incarnation")?),
        registered: row.revision("reg_rev")?,
        renew_seq: u64::try_from(row.int("renew_seq")?).map_err(|_| unreadable("renew_seq"))?,
        drained: row.revision("drained_rev")?,
    })
}
