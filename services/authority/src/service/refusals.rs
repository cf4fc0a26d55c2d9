//! Why a call was refused, on its way to the caller and to the log.
//!
//! The one map from what a store says to a [`Refusal`]; its words go to the log only. And the one line that a
//! refused write leaves there: method and reason, never an id.

use crate::store::StoreError;
use consent::status::status;
use consent_core::refusal::Refusal;
use tonic::{Code, Status};
use tonic_types::StatusExt;

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        match error {
            StoreError::Unavailable(_) | StoreError::Foreign => {
                tracing::warn!(%error, "the store gave no answer");
                Refusal::StoreUnavailable
            }
            StoreError::OutcomeUnknown(_) => Refusal::OutcomeUnknown,
            StoreError::Schema(_) | StoreError::Broken(_) => {
                tracing::error!(%error, "the store gave no answer");
                Refusal::Internal
            }
        }
    }
}

/// The status of a refused write, which is logged: a caller's fault at INFO, anything else at WARN.
pub(crate) fn refused_write(method: &'static str, refusal: Refusal) -> Status {
    let status = status(refusal);
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    if is_callers_fault(&status) {
        tracing::info!(method, reason, "refused a write");
    } else {
        tracing::warn!(method, reason, "refused a write");
    }
    status
}

/// Is it a fault of the caller's?
pub(crate) fn is_callers_fault(status: &Status) -> bool {
    let codes = [Code::InvalidArgument, Code::Aborted, Code::FailedPrecondition, Code::NotFound];
    codes.contains(&status.code())
}
