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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RequestName;
    use consent_core::words::Name;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    const SECRET: IdKey = IdKey::new([7; 16]);

    fn write(command: Command) -> Write {
        let request = RequestName { caller: "test".to_owned(), request_id: Uuid::from_u128(1) };
        let (actor, notice) = ("ada".to_owned(), "notice".to_owned());
        Write { request, command, ids: vec![], actor, channel: 2, notice, document: None }
    }

    fn consent(product: &str, choice: Choice, expected: Option<u64>) -> Command {
        Command::SetConsent {
            party: Party::Account(SECRET.account("ada")),
            product: Name::new(product).expect("a name"),
            choice,
            expected: expected.and_then(Revision::new),
        }
    }

    #[test]
    fn whatever_differs_makes_another_payload() {
        let first = || write(consent("chat", Choice::Out, None));
        let (account, organization) = (SECRET.account("ada"), SECRET.organization("ada"));
        let product = || Name::new("chat").expect("a name");
        let plan = |plan: Option<&str>| Command::SetPlan {
            party: Party::Account(account),
            product: product(),
            plan: plan.and_then(|plan| Name::new(plan).ok()),
            expected: None,
        };
        let writes = [
            first(),
            write(consent("chat", Choice::In, None)),
            write(consent("chats", Choice::Out, None)),
            write(consent("chat", Choice::Out, Some(0))),
            write(consent("chat", Choice::Out, Some(1))),
            Write { actor: "adan".to_owned(), notice: "otice".to_owned(), ..first() },
            Write { channel: 3, ..first() },
            Write { notice: String::new(), ..first() },
            Write { document: Some(String::new()), ..first() },
            write(plan(None)),
            write(plan(Some("free"))),
            write(Command::PutAccount { account, organization: None, expected: None }),
            write(Command::PutAccount { account, organization: Some(organization), expected: None }),
            write(Command::PutOrganization { organization, expected: None }),
            write(Command::EraseAccount { account, expected: None }),
            write(Command::Restrict { account, restriction: Restriction::Minor, expected: None }),
            write(Command::Lift { account, restriction: Restriction::Minor, expected: None }),
            write(Command::Lift { account, restriction: Restriction::Region, expected: None }),
        ];
        let hashes: BTreeSet<_> = writes.iter().map(|write| hash(write, &SECRET)).collect();
        assert_eq!(hashes.len(), writes.len());
        assert!(!hashes.contains(&hash(&first(), &IdKey::new([8; 16]))), "the hash is keyed");
        assert!(hashes.contains(&hash(&first(), &SECRET)));
    }
}
