//! What makes two writes the same write: a hash over everything that a retry repeats.
//!
//! Canonical (every text has its length before it, every kind of command its number), over keys instead of ids and
//! keyed besides: the hash is remembered as long as the event, and must not betray an erased person to somebody
//! who guesses. Whether the caller waits for EFFECTIVE is not part of the write.

use super::Write;
use consent_core::command::Command;
use consent_core::event::{Keys, PartyOf};
use consent_core::words::{Choice, IdKey, Party, Restriction, Revision};

/// The payload's hash under the deployment's secret.
pub(super) fn hash(write: &Write, secret: &IdKey) -> [u8; 32] {
    let key = blake3::derive_key("consent 2026 payload of a write v1", secret.bytes());
    let mut payload = Payload(blake3::Hasher::new_keyed(&key));
    payload.command(&write.command);
    payload.text(&write.actor);
    payload.raw(&write.channel.to_be_bytes());
    payload.text(&write.notice);
    payload.optional(write.document.as_deref(), Payload::text);
    *payload.0.finalize().as_bytes()
}

struct Payload(blake3::Hasher);

impl Payload {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.raw(&(text.len() as u64).to_be_bytes());
        self.raw(text.as_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Payload, T)) {
        self.raw(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn expected(&mut self, expected: Option<Revision>) {
        self.optional(expected, |payload, revision| payload.raw(&revision.get().to_be_bytes()));
    }

    fn party(&mut self, party: &PartyOf<Keys>) {
        match party {
            Party::Account(key) => {
                self.raw(&[1]);
                self.raw(key.bytes());
            }
            Party::Organization(key) => {
                self.raw(&[2]);
                self.raw(key.bytes());
            }
        }
    }

    fn restriction(&mut self, restriction: Restriction) {
        self.raw(&[match restriction {
            Restriction::Minor => 1,
            Restriction::Region => 2,
            Restriction::LegalHold => 3,
            Restriction::Suspended => 4,
        }]);
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::SetConsent { party, product, choice, expected } => {
                self.raw(&[1]);
                self.party(party);
                self.text(product.as_str());
                self.raw(&[match choice {
                    Choice::In => 2,
                    Choice::Out => 3,
                }]);
                self.expected(*expected);
            }
            Command::SetPlan { party, product, plan, expected } => {
                self.raw(&[2]);
                self.party(party);
                self.text(product.as_str());
                self.optional(plan.as_ref(), |payload, plan| payload.text(plan.as_str()));
                self.expected(*expected);
            }
            Command::PutAccount { account, organization, expected } => {
                self.raw(&[3]);
                self.raw(account.bytes());
                self.optional(organization.as_ref(), |payload, key| payload.raw(key.bytes()));
                self.expected(*expected);
            }
            Command::PutOrganization { organization, expected } => {
                self.raw(&[4]);
                self.raw(organization.bytes());
                self.expected(*expected);
            }
            Command::Restrict { account, restriction, expected } => {
                self.raw(&[5]);
                self.raw(account.bytes());
                self.restriction(*restriction);
                self.expected(*expected);
            }
            Command::Lift { account, restriction, expected } => {
                self.raw(&[6]);
                self.raw(account.bytes());
                self.restriction(*restriction);
                self.expected(*expected);
            }
            Command::EraseAccount { account, expected } => {
                self.raw(&[7]);
                self.raw(account.bytes());
                self.expected(*expected);
            }
            Command::ExcludeArtifact { artifact } => {
                self.raw(&[8]);
                self.raw(artifact.bytes());
            }
            // The file is in the document's text.
            Command::PublishPolicy { file: _, expected } => {
                self.raw(&[9]);
                self.expected(*expected);
            }
        }
    }
}
