//! Requests that no handler ever saw, refused in the words of the contract.
//!
//! tonic itself refuses a message that is too long, and bytes that are no message (text that is not UTF-8, say): with
//! a bare status, and the second as INTERNAL, as if the server were at fault. Here such a status becomes a
//! [`Refusal`] like any other, so that every refusal has its ErrorInfo and names the field where there is one.

use crate::status::status;
use consent_core::refusal::Refusal;
use tonic::codegen::http::Response;
use tonic::{Code, Status};

/// How prost begins the message of a decoding error; the path of the field follows, innermost first, each as
/// `Message.field: `, and then what is wrong.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";
/// How tonic ends the message about a length.
const LIMIT: &str = "the limit is: ";

/// Words the response again if it is a refusal of tonic's own about a request that it could not read.
pub(crate) fn reword<B: Default>(response: Response<B>) -> Response<B> {
    // Only a call that has failed before it began has its status in the headers.
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    match Status::from_header_map(response.headers()).as_ref().and_then(refusal) {
        Some(refusal) => status(refusal).into_http(),
        None => response,
    }
}

fn refusal(bare: &Status) -> Option<Refusal> {
    if !bare.details().is_empty() {
        return None;
    }
    if bare.code() == Code::OutOfRange {
        let (_, limit) = bare.message().rsplit_once(LIMIT)?;
        return Some(Refusal::MessageTooLarge { maximum: limit.split_whitespace().next()?.parse().ok()? });
    }
    let text = bare.message().strip_prefix(UNDECODABLE).filter(|_| bare.code() == Code::Internal)?;
    let mut parts: Vec<&str> = text.split(": ").collect();
    let mut path = Vec::new();
    while let Some(field) = parts.first().and_then(|part| field_of(part)) {
        path.insert(0, field);
        parts.remove(0);
    }
    let problem = format!("cannot be decoded: {}", parts.join(": "));
    Some(if path.is_empty() {
        Refusal::Malformed { problem }
    } else {
        Refusal::Invalid { field: path.join("."), problem }
    })
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
    fn every_other_status_stays_as_it_is() {
        assert_eq!(refused(Code::Internal, "an invariant is broken"), None);
        assert_eq!(refused(Code::Unimplemented, "failed to decode Protobuf message: x"), None);
        assert_eq!(refusal(&status(Refusal::Internal)), None);
        let untouched = reword(status(Refusal::Lost).into_http::<()>());
        assert_eq!(Status::from_header_map(untouched.headers()).map(|s| s.code()), Some(Code::Aborted));
        assert!(!reword(Response::new(())).headers().contains_key(Status::GRPC_STATUS));
    }
}
