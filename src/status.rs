//! The only map from a [`Refusal`] to a gRPC status. It has no wildcard arm: a new refusal needs a status to build.
//!
//! Every status carries `google.rpc.ErrorInfo` with a reason of `proto/consent/v1/error_reason.proto` in the domain
//! [`DOMAIN`]; a wrong field also carries BadRequest, a bound RetryInfo.

use crate::pb::ErrorReason;
use consent_core::refusal::{PolicyError, Refusal};
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every ErrorInfo.
pub const DOMAIN: &str = "consent.v1";

/// What a status says of a policy file, at most: it travels in headers, and clients refuse headers of more than
/// 8 or 16 KiB as a whole. Then not even the code would be learned.
const VIOLATIONS_MAX: usize = 32;
const VIOLATIONS_LEN_MAX: usize = 4096;
const TEXT_LEN_MAX: usize = 256;

/// Words a refusal as a status with its details.
pub fn status(refusal: Refusal) -> Status {
    let mut details = ErrorDetails::new();
    let (code, reason, message, metadata) = match refusal {
        Refusal::Invalid { field, problem } => {
            let message = format!("the field {field} {problem}");
            details.add_bad_request_violation(field.clone(), problem);
            (Code::InvalidArgument, ErrorReason::InvalidField, message, vec![("field", field)])
        }
        Refusal::TooMany { field, count, maximum } => {
            let message = format!("the field {field} has {count} items, the most are {maximum}");
            details.add_bad_request_violation(field, message.clone());
            let metadata =
                [("field", field.to_owned()), ("count", count.to_string()), ("maximum", maximum.to_string())];
            (Code::InvalidArgument, ErrorReason::BatchTooLarge, message, metadata.to_vec())
        }
        Refusal::Malformed { problem } => {
            (Code::InvalidArgument, ErrorReason::MalformedMessage, format!("the request {problem}"), vec![])
        }
        Refusal::MessageTooLarge { maximum } => {
            let message = format!("the request has too many bytes, the most are {maximum}");
            (Code::OutOfRange, ErrorReason::MessageTooLarge, message, vec![("maximum", maximum.to_string())])
        }
        Refusal::UnsupportedEncoding => {
            let message =
                "the request is compressed: send it as it is, in the encoding `identity`".to_owned();
            (Code::Unimplemented, ErrorReason::UnsupportedEncoding, message, vec![])
        }
        Refusal::BadPolicy { errors } => {
            let violations = fitting(&errors);
            let first = violations.first().map(|(field, problem)| format!(": {field}: {problem}"));
            for (field, problem) in violations {
                details.add_bad_request_violation(field, problem);
            }
            let message =
                format!("the policy file has {} error(s){}", errors.len(), first.unwrap_or_default());
            (
                Code::InvalidArgument,
                ErrorReason::BadPolicy,
                message,
                vec![("errors", errors.len().to_string())],
            )
        }
        Refusal::RequestIdReused => {
            let message = "the field context.request_id was used before with another payload".to_owned();
            details.add_bad_request_violation("context.request_id", "was used before with another payload");
            let metadata = vec![("field", "context.request_id".to_owned())];
            (Code::InvalidArgument, ErrorReason::RequestIdReused, message, metadata)
        }
        Refusal::ExpectedRevisionMissing { actual } => {
            details.add_bad_request_violation(
                "expected_revision",
                "is needed to opt in over a standing opt-out",
            );
            let message = format!(
                "the field expected_revision is needed to opt in over a standing opt-out (now {actual})"
            );
            let metadata = vec![("field", "expected_revision".to_owned()), ("actual", actual.to_string())];
            (Code::InvalidArgument, ErrorReason::ExpectedRevisionMissing, message, metadata)
        }
        Refusal::Conflict { expected, actual } => {
            let message =
                format!("the party is at revision {actual}, not {expected}: read again, then decide again");
            let metadata = vec![("expected", expected.to_string()), ("actual", actual.to_string())];
            (Code::Aborted, ErrorReason::RevisionConflict, message, metadata)
        }
        Refusal::AccountErased => {
            let message = "the account was erased; only an opt-out is still answered".to_owned();
            (Code::FailedPrecondition, ErrorReason::AccountErased, message, vec![])
        }
        Refusal::NotFound { what } => (
            Code::NotFound,
            ErrorReason::NotFound,
            format!("there is no such {what}"),
            vec![("what", what.to_owned())],
        ),
        Refusal::ForeignPosition => {
            let problem = "is of another ledger, or of a revision that this one does not have";
            details.add_bad_request_violation("position", problem);
            let metadata = vec![("field", "position".to_owned())];
            (
                Code::InvalidArgument,
                ErrorReason::ForeignPosition,
                format!("the field position {problem}"),
                metadata,
            )
        }
        Refusal::Lost => {
            let message = "a failover lost the write: send its request_id again".to_owned();
            (Code::Aborted, ErrorReason::Lost, message, vec![])
        }
        Refusal::Overloaded { retry_after } => {
            details.set_retry_info(Some(retry_after.into()));
            let message =
                format!("a bound was reached and nothing was written: retry in {} ms", retry_after.millis());
            (Code::ResourceExhausted, ErrorReason::Overloaded, message, vec![])
        }
        Refusal::OutcomeUnknown => {
            let message =
                "it is not known whether the write is durable: send its request_id again".to_owned();
            (Code::Unavailable, ErrorReason::OutcomeUnknown, message, vec![])
        }
        Refusal::StoreUnavailable => {
            let message = "the store cannot be reached or may not be written to now".to_owned();
            (Code::Unavailable, ErrorReason::StoreUnavailable, message, vec![])
        }
        Refusal::ReplicaTooOld => {
            let message =
                "this replica is too old to read the state and wrote nothing: retry, a newer one can";
            (Code::Unavailable, ErrorReason::ReplicaTooOld, message.to_owned(), vec![])
        }
        Refusal::NotServing => {
            let message = "the process is starting or stopping".to_owned();
            (Code::Unavailable, ErrorReason::NotServing, message, vec![])
        }
        Refusal::StreamIdle { idle } => {
            let seconds = (idle.millis() / 1000).to_string();
            let message =
                format!("nothing moved on the stream for {seconds} s: open another one for the rest");
            (Code::Aborted, ErrorReason::StreamIdle, message, vec![("seconds", seconds)])
        }
        Refusal::DeadlineExceeded => {
            let message =
                "the deadline is over; a write that was accepted goes on: send its request_id again"
                    .to_owned();
            (Code::DeadlineExceeded, ErrorReason::DeadlineExceeded, message, vec![])
        }
        Refusal::Internal => {
            let message = "an invariant is broken; the log says which".to_owned();
            (Code::Internal, ErrorReason::Internal, message, vec![])
        }
    };
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    details.set_error_info(name(reason), DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// The first errors of a policy file, as fields and problems: as many as fit.
fn fitting(errors: &[PolicyError]) -> Vec<(String, String)> {
    let mut left = VIOLATIONS_LEN_MAX;
    let worded = errors.iter().map(|PolicyError { code, line, key, message }| {
        (cut(format!("toml:{line}:{key}")), cut(format!("{code}: {message}")))
    });
    let fits = worded.take_while(|(field, problem)| {
        let rest = left.checked_sub(field.len() + problem.len());
        left = rest.unwrap_or_default();
        rest.is_some()
    });
    fits.take(VIOLATIONS_MAX).collect()
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_LEN_MAX {
        text.truncate(text.floor_char_boundary(TEXT_LEN_MAX));
        text.push('…');
    }
    text
}

/// The reason as ErrorInfo carries it: the enum's name without its prefix.
pub fn name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}
