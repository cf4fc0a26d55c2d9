//! Requests that no handler ever saw, refused in the words of the contract.
//!
//! tonic itself refuses a message that is too long or compressed, one that is not there at all, and bytes that are
//! no message (text that is not UTF-8, say): with a bare status, mostly INTERNAL, as if the server were at fault.
//! Here such a status becomes a [`Refusal`] like any other, so that every refusal has its ErrorInfo and names the
//! field where there is one. A handler's status has details, so it is never taken for one of these.

use crate::status::status;
use consent_core::refusal::Refusal;
use tonic::codegen::http::Response;
use tonic::{Code, Status};

/// How prost begins the message of a decoding error; the path of the field follows, innermost first, each as
/// `Message.field: `, and then what is wrong.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";
/// How tonic ends the message about a length.
const LIMIT: &str = "the limit is: ";
/// How tonic begins the message about an encoding that it does not read. A method that does not exist is
/// UNIMPLEMENTED too, and stays as it is: no contract says anything about it.
const COMPRESSED: &str = "Content is compressed with ";
/// What tonic says of a call that ends before its message.
const NO_MESSAGE: &str = "Missing request message.";

/// Words the response again if it is a refusal of tonic's own about a request that it could not read.
pub(crate) fn reword<B: Default>(response: Response<B>) -> Response<B> {
    // Only a call that has failed before it began has its status in the headers.
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let Some(bare) = Status::from_header_map(response.headers()) else { return response };
    let Some(refusal) = refusal(&bare) else { return response };
    let mut worded = status(refusal);
    // Which encodings would have been read, for one.
    *worded.metadata_mut() = bare.metadata().clone();
    worded.into_http()
}

/// The same for a stream whose message could not be read.
pub(crate) fn worded(bare: Status) -> Status {
    refusal(&bare).map_or(bare, status)
}

fn refusal(bare: &Status) -> Option<Refusal> {
    if !bare.details().is_empty() {
        return None;
    }
    let message = bare.message();
    if bare.code() == Code::OutOfRange {
        let (_, limit) = message.rsplit_once(LIMIT)?;
        return Some(Refusal::MessageTooLarge { maximum: limit.split_whitespace().next()?.parse().ok()? });
    }
    if bare.code() == Code::Unimplemented {
        return message.starts_with(COMPRESSED).then_some(Refusal::UnsupportedEncoding);
    }
    (bare.code() == Code::Internal).then(|| match message.strip_prefix(UNDECODABLE) {
        Some(text) => undecodable(text),
        None if message == NO_MESSAGE => Refusal::Malformed { problem: "has no message".to_owned() },
        None => Refusal::Malformed { problem: format!("cannot be decoded: {message}") },
    })
}

fn undecodable(text: &str) -> Refusal {
    let mut parts: Vec<&str> = text.split(": ").collect();
    let mut path = Vec::new();
    while let Some(field) = parts.first().and_then(|part| field_of(part)) {
        path.insert(0, field);
        parts.remove(0);
    }
    let problem = format!("cannot be decoded: {}", parts.join(": "));
    if path.is_empty() {
        Refusal::Malformed { problem }
    } else {
        Refusal::Invalid { field: path.join("."), problem }
    }
}

// `SetConsentRequest.party`: a type's name and a field's. A sentence has spaces.
fn field_of(part: &str) -> Option<&str> {
    let (message, field) = part.split_once('.')?;
    let is_type = message.starts_with(|c: char| c.is_ascii_uppercase());
    (is_type && !part.contains(' ') && !field.is_empty()).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, message: &str) -> Option<Refusal> {
        refusal(&Status::new(code, message))
    }

    #[test]
    fn a_field_that_cannot_be_decoded_is_named() {
        let message = "failed to decode Protobuf message: Artifact.id: CanTrainRequest.artifact: invalid string \
                       value: data is not UTF-8 encoded";
        let expected = Refusal::Invalid {
            field: "artifact.id".to_owned(),
            problem: "cannot be decoded: invalid string value: data is not UTF-8 encoded".to_owned(),
        };
        assert_eq!(refused(Code::Internal, message), Some(expected));
    }

    #[test]
    fn bytes_that_are_no_message_have_no_field() {
        let message = "failed to decode Protobuf message: invalid tag value: 0";
        let problem = "cannot be decoded: invalid tag value: 0".to_owned();
        assert_eq!(refused(Code::Internal, message), Some(Refusal::Malformed { problem }));
    }

    #[test]
    fn a_message_that_is_too_long_says_how_long_it_may_be() {
        let message =
            "Error, decoded message length too large: found 67108864 bytes, the limit is: 1048576 bytes";
        assert_eq!(refused(Code::OutOfRange, message), Some(Refusal::MessageTooLarge { maximum: 1_048_576 }));
    }

    #[test]
    fn a_call_without_a_message_is_its_callers_fault() {
        let malformed = |problem: &str| Some(Refusal::Malformed { problem: problem.to_owned() });
        assert_eq!(refused(Code::Internal, "Missing request message."), malformed("has no message"));
        let flagged =
            "protocol error: received message with compressed-flag but no grpc-encoding was specified";
        assert_eq!(refused(Code::Internal, flagged), malformed(&format!("cannot be decoded: {flagged}")));
    }

    #[test]
    fn a_compressed_message_is_refused_with_what_would_have_been_read() {
        let mut bare = Status::unimplemented("Content is compressed with `snappy` which isn't supported");
        bare.metadata_mut().insert("grpc-accept-encoding", "identity".parse().unwrap());
        let worded = reword(bare.into_http::<()>());
        assert_eq!(worded.headers()["grpc-accept-encoding"], "identity");
        let worded = Status::from_header_map(worded.headers()).unwrap();
        assert_eq!(worded.code(), Code::Unimplemented);
        assert!(!worded.details().is_empty());
    }

    #[test]
    fn every_other_status_stays_as_it_is() {
        assert_eq!(refused(Code::Unavailable, "Missing request message."), None);
        assert_eq!(refused(Code::Unimplemented, ""), None);
        assert_eq!(refusal(&status(Refusal::Internal)), None);
        let untouched = reword(status(Refusal::Lost).into_http::<()>());
        assert_eq!(Status::from_header_map(untouched.headers()).map(|s| s.code()), Some(Code::Aborted));
        assert!(!reword(Response::new(())).headers().contains_key(Status::GRPC_STATUS));
    }
}
