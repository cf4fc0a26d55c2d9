//! Writes as the services make them.

use consent::deadline::Deadline;
use consent_authority::lane::Write;
use consent_authority::store::RequestName;
use consent_core::command::Command;
use consent_core::head::HeadKey;
use consent_core::policy::PolicyFile;
use consent_core::words::{Choice, IdKey, Name, Party, Revision, Span};
use uuid::Uuid;

const POLICY: &str = r#"
schema = 1
name = "test"
version = 1
[product.chat]
incognito = "deny"
plan.free = { mode = "default_in" }
kind.input = "trainable"
"#;

/// Longer than anything takes here; in milliseconds.
pub(crate) const SOON: u64 = 60_000;

/// So many milliseconds from now.
pub(crate) fn deadline(millis: u64) -> Deadline {
    Deadline::after(Span::from_millis(millis))
}

/// Who writes, each time under a new name.
pub(crate) struct Author {
    id_key: IdKey,
}

impl Author {
    pub(crate) fn new(id_key: IdKey) -> Author {
        Author { id_key }
    }

    pub(crate) fn policy(&self) -> Write {
        let file = Box::new(PolicyFile::parse(POLICY).expect("a policy"));
        let write = self.write(Command::PublishPolicy { file, expected: None }, vec![]);
        Write { document: Some(POLICY.to_owned()), ..write }
    }

    pub(crate) fn choice(&self, account: &str, choice: Choice) -> Write {
        self.choice_at(account, choice, None)
    }

    pub(crate) fn opt_in_at(&self, account: &str, expected: Revision) -> Write {
        self.choice_at(account, Choice::In, Some(expected))
    }

    pub(crate) fn announce(&self, account: &str) -> Write {
        let key = self.id_key.account(account);
        let ids = vec![(HeadKey::Account(key), account.to_owned())];
        self.write(Command::PutAccount { account: key, organization: None, expected: None }, ids)
    }

    fn choice_at(&self, account: &str, choice: Choice, expected: Option<Revision>) -> Write {
        let key = self.id_key.account(account);
        let product = Name::new("chat").expect("a name");
        let command = Command::SetConsent { party: Party::Account(key), product, choice, expected };
        self.write(command, vec![(HeadKey::Account(key), account.to_owned())])
    }

    fn write(&self, command: Command, ids: Vec<(HeadKey, String)>) -> Write {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("random bytes");
        let request_id = Uuid::from_bytes(bytes);
        let request = RequestName { caller: "test".to_owned(), request_id };
        let (actor, notice) = ("tester".to_owned(), String::new());
        Write { request, command, ids, actor, channel: 7, notice, document: None }
    }
}
