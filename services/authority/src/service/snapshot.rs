//! Heads of one read of the primary, as the state that the core decides on.

use crate::store::{LedgerHead, Reader, StoreError};
use consent_core::head::{HeadKey, PolicyHead};
use consent_core::ledger::State;
use std::collections::HashSet;

/// Reads these heads, with the policy's and those of the accounts' organizations, in one snapshot.
///
/// The state is none where the policy's head cannot be read: every decision needs it. Another head that cannot be
/// read counts as not loaded, so whatever needs it is NOT_READY and not unknown.
pub(crate) async fn read<R: Reader>(
    reader: &R,
    keys: &[HeadKey],
) -> Result<(LedgerHead, Option<State>), StoreError> {
    let (head, records) = reader.heads_of(keys).await?;
    let mut state = State::batch(head.revision, head.recorded_at, PolicyHead::empty());
    let found: HashSet<HeadKey> = records.iter().map(|record| record.key).collect();
    for key in keys.iter().filter(|key| !found.contains(key)) {
        if state.load(*key, None).is_err() {
            return Ok((head, None));
        }
    }
    for record in &records {
        if let Err(unreadable) = state.load(record.key, Some(&record.bytes)) {
            tracing::error!(kind = ?record.key.kind(), %unreadable, "a stored head cannot be read");
            if record.key == HeadKey::Policy {
                return Ok((head, None));
            }
        }
    }
    Ok((head, Some(state)))
}
