//! Why a command has no good result, for the person and for the program that called it.
//!
//! A person reads the code, the reason, one sentence and the next command to try; a program reads the exit code.

use crate::output::Format;
use consent::status::DOMAIN;
use serde_json::json;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How a command ends. The numbers are an interface: scripts test them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked. A DENY is an answer like another, unless `--exit-code` asks to tell.
    Done = 0,
    /// It failed in a way that none of the following names.
    Failed = 1,
    /// The command line or the request is wrong; the caller must change it.
    Usage = 2,
    /// The answer is no: DENY with `--exit-code`.
    Negative = 3,
    /// Nobody answers, not in time, or not serving: try again.
    Unavailable = 4,
    /// The caller is not who may do this.
    Forbidden = 5,
    /// There is no such thing.
    NotFound = 6,
    /// The state is another than the caller thought.
    Conflict = 7,
    /// A second signal cut the orderly stop short.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// What went wrong, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the command ends.
    pub(crate) exit: Exit,
    /// The gRPC code by name, whether a server said it or not.
    code: &'static str,
    /// ErrorInfo's reason, or a word of this command where no server answered.
    reason: String,
    /// One sentence.
    message: String,
    /// The command to try next.
    next: Option<String>,
}

impl Failure {
    /// What a server answered instead of a result.
    pub(crate) fn refused(status: &Status) -> Failure {
        let reason = match status.get_details_error_info() {
            Some(info) if info.domain == DOMAIN => info.reason,
            Some(_) | None => "UNEXPLAINED".to_owned(),
        };
        let message = match status.message() {
            "" => "the server did not say why".to_owned(),
            message => message.to_owned(),
        };
        Failure { exit: exit_of(status.code()), code: name_of(status.code()), reason, message, next: None }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Usage,
            code: "INVALID_ARGUMENT",
            reason: "USAGE".to_owned(),
            message: message.into(),
            next: None,
        }
    }

    /// Nobody answers at an endpoint.
    pub(crate) fn unreachable(endpoint: &str, problem: &dyn Error) -> Failure {
        Failure {
            exit: Exit::Unavailable,
            code: "UNAVAILABLE",
            reason: "UNREACHABLE".to_owned(),
            message: format!("nobody answers at {endpoint}: {}", innermost(problem)),
            next: None,
        }
    }

    /// Somebody answers, and says that it does not serve now.
    pub(crate) fn not_serving(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Unavailable,
            code: "UNAVAILABLE",
            reason: "NOT_SERVING".to_owned(),
            message: message.into(),
            next: None,
        }
    }

    /// A server could not start.
    pub(crate) fn cannot_start(why: &dyn Error) -> Failure {
        Failure {
            exit: Exit::Failed,
            code: "FAILED_PRECONDITION",
            reason: "CANNOT_START".to_owned(),
            message: why.to_string(),
            next: None,
        }
    }

    /// A server had to stop: it would have broken a promise by going on.
    pub(crate) fn stopped(why: &dyn Error) -> Failure {
        Failure {
            exit: Exit::Failed,
            code: "ABORTED",
            reason: "STOPPED".to_owned(),
            message: why.to_string(),
            next: None,
        }
    }

    /// Something that no person can mend from here.
    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Failed,
            code: "INTERNAL",
            reason: "INTERNAL".to_owned(),
            message: message.into(),
            next: None,
        }
    }

    /// Says what to try next.
    #[must_use]
    pub(crate) fn next(mut self, command: impl Into<String>) -> Failure {
        self.next = Some(command.into());
        self
    }

    /// Whether a server gave this reason.
    pub(crate) fn has_reason(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// As it goes to stderr.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.to_string(),
            Format::Json => {
                let Failure { code, reason, message, next, exit: _ } = self;
                json!({ "error": { "code": code, "reason": reason, "message": message, "next": next } })
                    .to_string()
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.code, self.reason, self.message)?;
        match &self.next {
            Some(next) => write!(f, "\nnext: {next}"),
            None => Ok(()),
        }
    }
}

/// The cause at the bottom: what the layers above it say is that there is one below.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Done,
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => Exit::Conflict,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            Exit::Unavailable
        }
        Code::Unauthenticated | Code::PermissionDenied => Exit::Forbidden,
        Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Exit::Failed,
    }
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::status::status;
    use consent_core::refusal::Refusal;
    use consent_core::words::{Revision, Span};

    #[test]
    fn every_kind_of_refusal_has_its_exit_code() {
        let revision = Revision::new(7).unwrap();
        let rows = [
            (Refusal::Invalid { field: "account".into(), problem: "is empty".into() }, 2, "INVALID_FIELD"),
            (Refusal::ExpectedRevisionMissing { actual: revision }, 2, "EXPECTED_REVISION_MISSING"),
            (Refusal::RequestIdReused, 2, "REQUEST_ID_REUSED"),
            (Refusal::NotFound { what: "account" }, 6, "NOT_FOUND"),
            (Refusal::Conflict { expected: revision, actual: revision }, 7, "REVISION_CONFLICT"),
            (Refusal::AccountErased, 7, "ACCOUNT_ERASED"),
            (Refusal::Lost, 7, "LOST"),
            (Refusal::Overloaded { retry_after: Span::from_millis(5) }, 4, "OVERLOADED"),
            (Refusal::StoreUnavailable, 4, "STORE_UNAVAILABLE"),
            (Refusal::DeadlineExceeded, 4, "DEADLINE_EXCEEDED"),
            (Refusal::Internal, 1, "INTERNAL"),
        ];
        for (refusal, exit, reason) in rows {
            let failure = Failure::refused(&status(refusal));
            assert_eq!((failure.exit as u8, failure.reason.as_str()), (exit, reason));
        }
    }

    #[test]
    fn a_person_reads_code_reason_sentence_and_the_next_command() {
        let failure =
            Failure::refused(&status(Refusal::NotFound { what: "account" })).next("consent set plan ada");
        assert_eq!(
            failure.render(Format::Text),
            "NOT_FOUND  NOT_FOUND  there is no such account\nnext: consent set plan ada"
        );
        assert_eq!(
            failure.render(Format::Json),
            r#"{"error":{"code":"NOT_FOUND","message":"there is no such account","next":"consent set plan ada","reason":"NOT_FOUND"}}"#
        );
    }

    #[test]
    fn a_status_of_somebody_else_is_not_taken_for_ours() {
        let failure = Failure::refused(&Status::unimplemented(""));
        assert_eq!(failure.render(Format::Text), "UNIMPLEMENTED  UNEXPLAINED  the server did not say why");
        assert_eq!(failure.exit, Exit::Failed);
    }
}
