//! What goes to stdout: one line for a person, or the response in proto3 JSON for a program.
//!
//! The JSON is made from the contract itself, so that its names are those that `buf curl` and grpcurl print and
//! cannot drift from it. There is no colour and no animation, so nothing has to be switched off.

use crate::failure::Failure;
use clap::ValueEnum;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use std::io::{self, Write};

/// For whom the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A person at a terminal.
    Text,
    /// A program: one JSON object on one line.
    Json,
}

/// Prints one line. A reader that went away (`| head`) is no error of ours.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::internal(format!("the result cannot be printed: {e}"))),
    }
}

/// Prints one line to stderr, if anybody reads it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A message of the contract in proto3 JSON, every field written out.
pub(crate) fn json(name: &str, message: &impl Message) -> Result<String, Failure> {
    let cannot = |problem: String| Failure::internal(format!("{name} cannot be written as JSON: {problem}"));
    let pool = DescriptorPool::decode(consent::DESCRIPTOR).map_err(|e| cannot(e.to_string()))?;
    let descriptor = pool
        .get_message_by_name(&format!("consent.v1.{name}"))
        .ok_or_else(|| cannot("the contract has no such message".to_owned()))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|e| cannot(e.to_string()))?;
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut text);
    // Also zero and false: a program should not have to know which fields were left out.
    dynamic
        .serialize_with_options(&mut serializer, &SerializeOptions::new().skip_default_fields(false))
        .map_err(|e| cannot(e.to_string()))?;
    String::from_utf8(text).map_err(|e| cannot(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::pb;

    #[test]
    fn a_program_reads_the_names_of_the_contract() {
        let response = pb::CanTrainResponse {
            decision: pb::Decision::Allow.into(),
            reason: pb::Reason::PlanDefaultIn.into(),
            r#final: false,
            position: Some(pb::Position { epoch: vec![0; 16].into(), revision: 7 }),
            valid_for: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
        };
        assert_eq!(
            json("CanTrainResponse", &response).unwrap(),
            concat!(
                r#"{"decision":"DECISION_ALLOW","reason":"REASON_PLAN_DEFAULT_IN","final":false,"#,
                r#""position":{"epoch":"AAAAAAAAAAAAAAAAAAAAAA==","revision":"7"},"validFor":"0.050s"}"#
            )
        );
    }

    #[test]
    fn a_name_that_the_contract_lacks_is_an_error_and_no_panic() {
        assert!(json("NoSuchMessage", &pb::Position::default()).is_err());
    }
}
