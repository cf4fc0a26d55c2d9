//! The end of the stream of a hello that is not accepted: a status, and what it says to a sidecar.

use crate::pb::ErrorReason;
use crate::status::{name, status};
use consent_core::confirm::Unwelcome;
use consent_core::refusal::Refusal;
use tonic::Status;
use tonic_types::StatusExt;

/// Ends the stream of a hello that is not accepted.
pub fn unwelcome(why: Unwelcome) -> Status {
    status(match why {
        Unwelcome::Held => Refusal::ForeignPosition,
        Unwelcome::Busy { retry_after } => Refusal::Overloaded { retry_after },
        Unwelcome::Leaving => Refusal::NotServing,
    })
}

/// Why a stream was ended, if its hello was not accepted; none for any other end.
pub fn why_unwelcome(ended: &Status) -> Option<Unwelcome> {
    let details = ended.get_error_details();
    let reason = details.error_info()?.reason.as_str();
    if reason == name(ErrorReason::ForeignPosition) {
        Some(Unwelcome::Held)
    } else if reason == name(ErrorReason::Overloaded) {
        let retry_after = details.retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        Some(Unwelcome::Busy { retry_after: retry_after.into() })
    } else if reason == name(ErrorReason::NotServing) {
        Some(Unwelcome::Leaving)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::words::Span;

    #[test]
    fn an_unwelcome_comes_through_the_status() {
        let retry_after = Span::from_millis(250);
        for why in [Unwelcome::Held, Unwelcome::Busy { retry_after }, Unwelcome::Leaving] {
            assert_eq!(why_unwelcome(&unwelcome(why)), Some(why));
        }
        assert_eq!(why_unwelcome(&Status::unavailable("the connection broke")), None);
    }
}
