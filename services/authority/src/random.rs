//! Random names and secrets: of a run, of an epoch, of a deployment. The system's source alone.

use thiserror::Error;

/// The system gives no random bytes, so nothing can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

/// Bytes that nobody can guess and nobody drew before.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}
