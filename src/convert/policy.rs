//! Policy files: from PublishPolicy to a command, and warnings back.

use super::consent::{Write, context};
use super::invalid;
use crate::pb;
use consent_core::command::Command;
use consent_core::policy::{Dropped, PolicyFile, Warning};
use consent_core::refusal::Refusal;

/// The largest policy file, in bytes: far above 62 products of 62 plans and kinds.
pub const POLICY_LEN_MAX: usize = 256 * 1024;

/// A policy to put in force. What is wrong with the file in itself is told here, with every line; whether it may
/// follow the policy in force is decided under the lock.
pub fn publish(request: &pb::PublishPolicyRequest) -> Result<Write, Refusal> {
    let context = context(request.context.as_ref())?;
    let length = request.toml.len();
    if length > POLICY_LEN_MAX {
        return Err(invalid("toml", format_args!("has {length} bytes, the most are {POLICY_LEN_MAX}")));
    }
    let file = PolicyFile::parse(&request.toml).map_err(|errors| Refusal::BadPolicy { errors })?;
    let command = Command::PublishPolicy { file: Box::new(file), expected: None };
    Ok(Write { command, ids: Vec::new(), context })
}

/// A warning on the wire.
pub fn warning(warning: &Warning) -> pb::PolicyWarning {
    let (list, reason) = match warning.dropped {
        Dropped::Plan => ("plan", "UNKNOWN_PLAN"),
        Dropped::Kind => ("kind", "UNKNOWN_KIND"),
    };
    pb::PolicyWarning {
        code: warning.code().to_owned(),
        key: format!("product.{}.{list}.{}", warning.product, warning.name),
        message: format!("was in the version before; from now on it denies, {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(toml: &str) -> pb::PublishPolicyRequest {
        let context = pb::WriteContext {
            request_id: "8c5e51a4-3f0e-4b7e-9d61-0f5c9a2f6b11".to_owned(),
            actor: "operator".to_owned(),
            channel: pb::Channel::Operator.into(),
            ..pb::WriteContext::default()
        };
        pb::PublishPolicyRequest { context: Some(context), toml: toml.to_owned() }
    }

    #[test]
    fn a_file_is_bounded_and_its_errors_have_lines() {
        let refusal = publish(&request(&"#".repeat(POLICY_LEN_MAX + 1))).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid { field, .. } if field == "toml"));
        let refusal = publish(&request("schema = 1\nname = \"Bad Name\"\nversion = 1\n")).unwrap_err();
        let Refusal::BadPolicy { errors } = refusal else { panic!("{refusal:?}") };
        assert!(errors.iter().any(|error| error.code == "BAD_NAME" && error.line == 2), "{errors:?}");
    }

    #[test]
    fn a_write_without_a_context_is_refused_before_the_file_is_read() {
        let refusal = publish(&pb::PublishPolicyRequest::default()).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid { field, .. } if field == "context"));
    }
}
