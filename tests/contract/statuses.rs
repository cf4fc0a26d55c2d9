//! Every refusal has its status, every ErrorReason its refusal, and code and metadata are those that `proto/` shows.

use crate::descriptor::{comments, files};
use consent::pb::ErrorReason;
use consent::status::{DOMAIN, name, status};
use consent_core::refusal::{PolicyError, Refusal};
use consent_core::words::{Revision, Span};
use std::collections::{BTreeSet, HashMap};
use tonic::Code;
use tonic_types::StatusExt;

/// One refusal of each kind; the second `match` fails to compile when a kind is missing.
fn refusals() -> Vec<Refusal> {
    let revision = |number| Revision::new(number).expect("a small number");
    let error =
        PolicyError { code: "UNKNOWN_KEY", line: 3, key: "product.x".to_owned(), message: "no".to_owned() };
    vec![
        Refusal::Invalid { field: "artifact.id".to_owned(), problem: "is empty".to_owned() },
        Refusal::TooMany { field: "requests", count: 1001, maximum: 1000 },
        Refusal::Malformed { problem: "cannot be decoded".to_owned() },
        Refusal::MessageTooLarge { maximum: 1 << 20 },
        Refusal::UnsupportedEncoding,
        Refusal::BadPolicy { errors: vec![error.clone(), error] },
        Refusal::RequestIdReused,
        Refusal::ExpectedRevisionMissing { actual: revision(7) },
        Refusal::Conflict { expected: revision(7), actual: revision(9) },
        Refusal::AccountErased,
        Refusal::NotFound { what: "account" },
        Refusal::ForeignPosition,
        Refusal::Lost,
        Refusal::Overloaded { retry_after: Span::from_millis(50) },
        Refusal::OutcomeUnknown,
        Refusal::StoreUnavailable,
        Refusal::ReplicaTooOld,
        Refusal::NotServing,
        Refusal::StreamIdle { idle: Span::from_millis(60_000) },
        Refusal::DeadlineExceeded,
        Refusal::Internal,
    ]
}

fn reason(refusal: &Refusal) -> ErrorReason {
    match refusal {
        Refusal::Invalid { .. } => ErrorReason::InvalidField,
        Refusal::TooMany { .. } => ErrorReason::BatchTooLarge,
        Refusal::Malformed { .. } => ErrorReason::MalformedMessage,
        Refusal::MessageTooLarge { .. } => ErrorReason::MessageTooLarge,
        Refusal::UnsupportedEncoding => ErrorReason::UnsupportedEncoding,
        Refusal::BadPolicy { .. } => ErrorReason::BadPolicy,
        Refusal::RequestIdReused => ErrorReason::RequestIdReused,
        Refusal::ExpectedRevisionMissing { .. } => ErrorReason::ExpectedRevisionMissing,
        Refusal::Conflict { .. } => ErrorReason::RevisionConflict,
        Refusal::AccountErased => ErrorReason::AccountErased,
        Refusal::NotFound { .. } => ErrorReason::NotFound,
        Refusal::ForeignPosition => ErrorReason::ForeignPosition,
        Refusal::Lost => ErrorReason::Lost,
        Refusal::Overloaded { .. } => ErrorReason::Overloaded,
        Refusal::OutcomeUnknown => ErrorReason::OutcomeUnknown,
        Refusal::StoreUnavailable => ErrorReason::StoreUnavailable,
        Refusal::ReplicaTooOld => ErrorReason::ReplicaTooOld,
        Refusal::NotServing => ErrorReason::NotServing,
        Refusal::StreamIdle { .. } => ErrorReason::StreamIdle,
        Refusal::DeadlineExceeded => ErrorReason::DeadlineExceeded,
        Refusal::Internal => ErrorReason::Internal,
    }
}

/// The comment of each ErrorReason, by its name without the prefix.
fn documented() -> HashMap<String, String> {
    let file =
        files().into_iter().find(|file| file.name().ends_with("error_reason.proto")).expect("the file");
    let comments = comments(&file);
    let values = file.enum_type[0].value.iter().enumerate().skip(1);
    values
        .map(|(i, value)| {
            let path = vec![5, 0, 2, i32::try_from(i).expect("few values")];
            (value.name().trim_start_matches("ERROR_REASON_").to_owned(), comments[&path].clone())
        })
        .collect()
}

/// The example that a comment ends with.
fn example(comment: &str) -> serde_json::Value {
    let start = comment.find('{').unwrap_or_else(|| panic!("no example in: {comment}"));
    serde_json::from_str(&comment[start..]).unwrap_or_else(|e| panic!("{e} in the example of: {comment}"))
}

#[test]
fn every_refusal_is_worded_as_documented() {
    let documented = documented();
    for refusal in refusals() {
        let reason = reason(&refusal);
        let status = status(refusal.clone());
        let info = status.get_details_error_info().unwrap_or_else(|| panic!("{refusal:?} has no ErrorInfo"));
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (name(reason), DOMAIN));
        let comment = &documented[&info.reason];
        let code = comment.split('.').next().unwrap_or_default();
        assert_eq!(status.code(), code_named(code), "{}: {comment}", info.reason);
        let example = example(comment);
        assert_eq!(example["reason"], info.reason);
        let shown: BTreeSet<&String> = example["metadata"].as_object().expect("metadata").keys().collect();
        assert_eq!(shown, info.metadata.keys().collect(), "metadata of {}", info.reason);
        assert!(!status.message().is_empty() && !status.message().contains("Refusal"));
        if let Some(field) = info.metadata.get("field") {
            let bad =
                status.get_details_bad_request().unwrap_or_else(|| panic!("{refusal:?} has no BadRequest"));
            assert!(bad.field_violations.iter().all(|violation| violation.field == *field));
            assert!(status.message().contains(field.as_str()), "{} does not name {field}", status.message());
        }
    }
}

#[test]
fn every_error_reason_has_a_refusal() {
    let worded: BTreeSet<&str> = refusals().iter().map(|refusal| name(reason(refusal))).collect();
    let documented = documented();
    assert_eq!(worded, documented.keys().map(String::as_str).collect());
}

/// Some clients refuse headers of more than 8 KiB, and then their caller learns nothing.
#[test]
fn a_policy_file_with_however_many_errors_gets_a_status_that_arrives() {
    let error = |key: &str, message: &str| PolicyError {
        code: "UNKNOWN_KEY",
        line: u32::MAX,
        key: key.to_owned(),
        message: message.to_owned(),
    };
    for errors in [
        vec![error("product.le_chat.plan.free.mood", "is not a key of a policy file"); 30_000],
        vec![error("x", "y"); 30_000],
        vec![error(&"é".repeat(100_000), &"\u{10ffff}".repeat(100_000)); 3],
    ] {
        let status = status(Refusal::BadPolicy { errors: errors.clone() });
        let info = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!(info.metadata["errors"], errors.len().to_string());
        assert!(!status.get_details_bad_request().expect("BadRequest").field_violations.is_empty());
        let headers = status.into_http::<()>().into_parts().0.headers;
        let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(length < 8 << 10, "{length} bytes");
    }
}

#[test]
fn a_bound_says_when_to_try_again() {
    let status = status(Refusal::Overloaded { retry_after: Span::from_millis(50) });
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(retry, Some(std::time::Duration::from_millis(50)));
}

fn code_named(name: &str) -> Code {
    match name {
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        "NOT_FOUND" => Code::NotFound,
        "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "FAILED_PRECONDITION" => Code::FailedPrecondition,
        "ABORTED" => Code::Aborted,
        "OUT_OF_RANGE" => Code::OutOfRange,
        "UNIMPLEMENTED" => Code::Unimplemented,
        "INTERNAL" => Code::Internal,
        "UNAVAILABLE" => Code::Unavailable,
        other => panic!("no such code: {other}"),
    }
}
