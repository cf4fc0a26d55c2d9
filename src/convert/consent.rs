//! Writes: from the messages of ConsentService and PolicyService to commands of the core.
//!
//! Every id is checked before it becomes a key, and travels beside its key from here to the erasable table of
//! subjects: the command itself, and all that is folded from it, holds keys only.

use super::{id, invalid, name, present, revision};
use crate::pb::{self, party};
use consent_core::command::Command;
use consent_core::event::{Keys, PartyOf};
use consent_core::head::HeadKey;
use consent_core::refusal::Refusal;
use consent_core::words::{Choice, IdKey, Name, Party, Revision};
use uuid::Uuid;

/// A write as its caller asks for it, checked.
#[derive(Debug, Clone)]
pub struct Write {
    /// What to do.
    pub command: Command,
    /// The id behind each key that the command names.
    pub ids: Vec<(HeadKey, String)>,
    /// What is said about it.
    pub context: Context,
}

/// Who writes, through what, and how the write is named.
#[derive(Debug, Clone)]
pub struct Context {
    /// The caller's name for the write.
    pub request_id: Uuid,
    /// Who did it.
    pub actor: String,
    /// Through what it came; never UNSPECIFIED.
    pub channel: pb::Channel,
    /// Which notice the person saw; empty for none.
    pub notice: String,
    /// Whether the caller waits for EFFECTIVE.
    pub wait_effective: bool,
}

/// A choice to record.
pub fn set_consent(request: &pb::SetConsentRequest, key: &IdKey) -> Result<Write, Refusal> {
    let context = context(request.context.as_ref())?;
    let mut ids = Ids { key, named: Vec::new() };
    let party = ids.party(request.party.as_ref())?;
    let product = product(&request.product)?;
    let choice = choice(request.choice)?;
    let expected = match choice {
        Choice::In => expected(request.expected_revision)?,
        // What an opt-out ignores cannot be wrong, nor make a retry another write.
        Choice::Out => None,
    };
    let command = Command::SetConsent { party, product, choice, expected };
    Ok(Write { command, ids: ids.named, context })
}

/// A plan to record.
pub fn set_plan(request: &pb::SetPlanRequest, key: &IdKey) -> Result<Write, Refusal> {
    let context = context(request.context.as_ref())?;
    let mut ids = Ids { key, named: Vec::new() };
    let command = Command::SetPlan {
        party: ids.party(request.party.as_ref())?,
        product: product(&request.product)?,
        plan: match request.plan.as_str() {
            "" => None,
            plan => Some(name("plan", plan)?),
        },
        expected: expected(request.expected_revision)?,
    };
    Ok(Write { command, ids: ids.named, context })
}

/// An account to announce or to move.
pub fn put_account(request: &pb::PutAccountRequest, key: &IdKey) -> Result<Write, Refusal> {
    let context = context(request.context.as_ref())?;
    let mut ids = Ids { key, named: Vec::new() };
    let command = Command::PutAccount {
        account: ids.account("account", &request.account)?,
        organization: match request.organization.as_str() {
            "" => None,
            organization => Some(ids.organization("organization", organization)?),
        },
        expected: expected(request.expected_revision)?,
    };
    Ok(Write { command, ids: ids.named, context })
}

/// An organization to announce.
pub fn put_organization(request: &pb::PutOrganizationRequest, key: &IdKey) -> Result<Write, Refusal> {
    let context = context(request.context.as_ref())?;
    let mut ids = Ids { key, named: Vec::new() };
    let organization = ids.organization("organization", &request.organization)?;
    let command = Command::PutOrganization { organization, expected: None };
    Ok(Write { command, ids: ids.named, context })
}

/// What every write says about itself.
pub fn context(context: Option<&pb::WriteContext>) -> Result<Context, Refusal> {
    let context = present("context", context)?;
    let request_id = Uuid::parse_str(&context.request_id)
        .ok()
        // The nil UUID is what a program sends that forgot to draw one.
        .filter(|request_id| !request_id.is_nil())
        .ok_or_else(|| invalid("context.request_id", "is no UUID, or the nil one"))?;
    let channel = match pb::Channel::try_from(context.channel) {
        Ok(pb::Channel::Unspecified) => return Err(invalid("context.channel", "is missing")),
        Ok(channel) => channel,
        Err(_) => return Err(invalid("context.channel", format_args!("is {}, no channel", context.channel))),
    };
    let notice = match context.notice.as_str() {
        "" => "",
        notice => id("context.notice", notice)?,
    };
    Ok(Context {
        request_id,
        actor: id("context.actor", &context.actor)?.to_owned(),
        channel,
        notice: notice.to_owned(),
        wait_effective: context.wait_effective,
    })
}

fn product(text: &str) -> Result<Name, Refusal> {
    name("product", text)
}

fn choice(number: i32) -> Result<Choice, Refusal> {
    match pb::Choice::try_from(number) {
        Ok(pb::Choice::In) => Ok(Choice::In),
        Ok(pb::Choice::Out) => Ok(Choice::Out),
        Ok(pb::Choice::Unspecified) => Err(invalid("choice", "is missing")),
        Ok(pb::Choice::Unset) => {
            Err(invalid("choice", "is CHOICE_UNSET: a choice once made can only be changed"))
        }
        Err(_) => Err(invalid("choice", format_args!("is {number}, no choice"))),
    }
}

fn expected(number: Option<u64>) -> Result<Option<Revision>, Refusal> {
    number.map(|number| revision("expected_revision", number)).transpose()
}

/// Ids on their way to keys; each is kept beside its key.
struct Ids<'k> {
    key: &'k IdKey,
    named: Vec<(HeadKey, String)>,
}

impl Ids<'_> {
    fn account(&mut self, field: &str, text: &str) -> Result<consent_core::words::AccountKey, Refusal> {
        let key = self.key.account(id(field, text)?);
        self.named.push((HeadKey::Account(key), text.to_owned()));
        Ok(key)
    }

    fn organization(
        &mut self,
        field: &str,
        text: &str,
    ) -> Result<consent_core::words::OrganizationKey, Refusal> {
        let key = self.key.organization(id(field, text)?);
        self.named.push((HeadKey::Organization(key), text.to_owned()));
        Ok(key)
    }

    fn party(&mut self, party: Option<&pb::Party>) -> Result<PartyOf<Keys>, Refusal> {
        match &present("party", party)?.party {
            Some(party::Party::Account(text)) => self.account("party.account", text).map(Party::Account),
            Some(party::Party::Organization(text)) => {
                self.organization("party.organization", text).map(Party::Organization)
            }
            None => Err(invalid("party", "names neither an account nor an organization")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: IdKey = IdKey::new([7; 16]);

    fn good_context() -> pb::WriteContext {
        pb::WriteContext {
            request_id: "8c5e51a4-3f0e-4b7e-9d61-0f5c9a2f6b11".to_owned(),
            actor: "ada".to_owned(),
            channel: pb::Channel::Ios.into(),
            notice: "notice-3".to_owned(),
            wait_effective: false,
        }
    }

    fn party(party: party::Party) -> Option<pb::Party> {
        Some(pb::Party { party: Some(party) })
    }

    fn good_consent() -> pb::SetConsentRequest {
        pb::SetConsentRequest {
            context: Some(good_context()),
            party: party(party::Party::Account("ada".to_owned())),
            product: "le_chat".to_owned(),
            choice: pb::Choice::Out.into(),
            expected_revision: None,
        }
    }

    fn refused(result: Result<Write, Refusal>) -> String {
        match result {
            Err(Refusal::Invalid { field, problem }) => {
                assert!(!problem.is_empty());
                field
            }
            Err(other) => panic!("{other:?} names no field"),
            Ok(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn every_wrong_field_of_a_choice_is_named() {
        type Change = fn(&mut pb::SetConsentRequest);
        fn context(request: &mut pb::SetConsentRequest) -> &mut pb::WriteContext {
            request.context.as_mut().unwrap()
        }
        let table: &[(&str, Change)] = &[
            ("nothing", |_| ()),
            ("context", |r| r.context = None),
            ("context.request_id", |r| context(r).request_id.clear()),
            ("context.request_id", |r| context(r).request_id = "not-a-uuid".to_owned()),
            ("context.request_id", |r| context(r).request_id = Uuid::nil().to_string()),
            ("context.actor", |r| context(r).actor.clear()),
            ("context.actor", |r| context(r).actor = "a\tb".to_owned()),
            ("context.channel", |r| context(r).channel = 0),
            ("context.channel", |r| context(r).channel = 77),
            ("context.channel", |r| context(r).channel = -1),
            ("nothing", |r| context(r).notice.clear()),
            ("context.notice", |r| context(r).notice = "x".repeat(129)),
            ("party", |r| r.party = None),
            ("party", |r| r.party = Some(pb::Party { party: None })),
            ("party.account", |r| r.party = party(party::Party::Account(String::new()))),
            ("party.account", |r| r.party = party(party::Party::Account("x".repeat(129)))),
            ("party.account", |r| r.party = party(party::Party::Account("a\0b".to_owned()))),
            ("party.organization", |r| r.party = party(party::Party::Organization(String::new()))),
            ("product", |r| r.product.clear()),
            ("product", |r| r.product = "Le Chat".to_owned()),
            ("product", |r| r.product = "x".repeat(33)),
            ("choice", |r| r.choice = pb::Choice::Unspecified.into()),
            ("choice", |r| r.choice = pb::Choice::Unset.into()),
            ("choice", |r| r.choice = 9),
            ("nothing", |r| r.expected_revision = Some(0)),
            ("nothing", |r| r.expected_revision = Some(u64::MAX)),
            ("expected_revision", |r| {
                r.choice = pb::Choice::In.into();
                r.expected_revision = Some(u64::MAX);
            }),
        ];
        for (row, (field, change)) in table.iter().enumerate() {
            let mut request = good_consent();
            change(&mut request);
            assert_eq!(refused(set_consent(&request, &KEY)), *field, "row {row}");
        }
    }

    #[test]
    fn every_wrong_field_of_the_other_writes_is_named() {
        let plan = |party, product: &str, plan: &str| pb::SetPlanRequest {
            context: Some(good_context()),
            party,
            product: product.to_owned(),
            plan: plan.to_owned(),
            expected_revision: None,
        };
        let ada = || party(party::Party::Account("ada".to_owned()));
        assert_eq!(refused(set_plan(&plan(ada(), "le_chat", "free"), &KEY)), "nothing");
        assert_eq!(refused(set_plan(&plan(ada(), "le_chat", ""), &KEY)), "nothing");
        assert_eq!(refused(set_plan(&plan(ada(), "le_chat", "Free"), &KEY)), "plan");
        assert_eq!(refused(set_plan(&plan(ada(), "", "free"), &KEY)), "product");
        assert_eq!(refused(set_plan(&plan(None, "le_chat", "free"), &KEY)), "party");

        let account = |account: &str, organization: &str| pb::PutAccountRequest {
            context: Some(good_context()),
            account: account.to_owned(),
            organization: organization.to_owned(),
            expected_revision: None,
        };
        assert_eq!(refused(put_account(&account("ada", ""), &KEY)), "nothing");
        assert_eq!(refused(put_account(&account("", "acme"), &KEY)), "account");
        assert_eq!(refused(put_account(&account("ada", "ac\nme"), &KEY)), "organization");

        let organization = |organization: &str| pb::PutOrganizationRequest {
            context: Some(good_context()),
            organization: organization.to_owned(),
        };
        assert_eq!(refused(put_organization(&organization("acme"), &KEY)), "nothing");
        assert_eq!(refused(put_organization(&organization(""), &KEY)), "organization");
    }

    #[test]
    fn an_opt_out_is_the_same_write_whatever_it_expects() {
        let expected = |choice: pb::Choice, seen| {
            let request = pb::SetConsentRequest {
                choice: choice.into(),
                expected_revision: Some(seen),
                ..good_consent()
            };
            let Command::SetConsent { expected, .. } = set_consent(&request, &KEY).unwrap().command else {
                panic!("it sets no consent");
            };
            expected
        };
        assert_eq!(expected(pb::Choice::Out, 7), None);
        assert_eq!(expected(pb::Choice::In, 7), Revision::new(7));
    }

    #[test]
    fn an_id_travels_beside_its_key() {
        let write = set_consent(&good_consent(), &KEY).unwrap();
        assert_eq!(write.ids, [(HeadKey::Account(KEY.account("ada")), "ada".to_owned())]);
        assert!(write.command.is_opt_out());
    }
}
