//! What is asked. Every field must be said: one that is left out would be guessed.

use crate::convert::decision::asked;
use crate::convert::to_timestamp;
use crate::pb;
use consent_core::refusal::Refusal;
use consent_core::words::{Name, Position, Timestamp};

/// May this artifact be used to train models?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whose data it is: the account under which it was collected, for ever. 1 to 128 bytes.
    pub account: String,
    /// The artifact's id. 1 to 128 bytes.
    pub artifact: String,
    /// The product in which it arose, by the policy's name: `le_chat`. At most 32 bytes, as its kind.
    pub product: String,
    /// What it is, by the policy's name: `input`, `output`, `document`.
    pub kind: String,
    /// When it was collected.
    pub collected_at: Timestamp,
    /// Whether it was collected in an incognito session.
    pub is_incognito: bool,
}

impl Question {
    /// As the contract writes it, if it can be asked. No policy has longer names, and texts of any length would have
    /// the message of all refused that are asked with it.
    pub(super) fn checked(&self, min_position: Option<Position>) -> Result<pb::CanTrainRequest, Refusal> {
        let request = self.request(min_position);
        asked(&request)?;
        for (field, name) in [("artifact.product", &self.product), ("artifact.kind", &self.kind)] {
            if name.len() > Name::LEN_MAX {
                let problem = format!("has {} bytes, a name has at most {}", name.len(), Name::LEN_MAX);
                return Err(Refusal::Invalid { field: field.to_owned(), problem });
            }
        }
        Ok(request)
    }

    /// As the contract writes it.
    pub(super) fn request(&self, min_position: Option<Position>) -> pb::CanTrainRequest {
        let artifact = pb::Artifact {
            id: self.artifact.clone(),
            product: self.product.clone(),
            kind: self.kind.clone(),
            collected_at: Some(to_timestamp(self.collected_at)),
            incognito: self.is_incognito,
        };
        pb::CanTrainRequest {
            account: self.account.clone(),
            artifact: Some(artifact),
            min_position: min_position.map(Into::into),
        }
    }
}
