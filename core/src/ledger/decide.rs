//! A command and a state to events, or to a refusal (rule.md section 3).
//!
//! - A command that changes nothing gives no event, and is not held against `expected` either: what the caller
//!   wants is so. Hence a command given twice is a no-op the second time, whatever it expected.
//! - Any command on a party without a head creates it: being mentioned is the change.
//! - An opt-out is never refused for state: not for an unknown or erased account, not for `expected`.

use super::{NotLoaded, State};
use crate::command::Command;
use crate::event::{Event, Keys, PartyOf};
use crate::head::{AccountHead, KnownAccount};
use crate::policy::PolicyFile;
use crate::refusal::Refusal;
use crate::words::{
    AccountKey, ArtifactKey, Choice, Name, OrganizationKey, Party, PlanIndex, ProductIndex, Restriction,
    Revision,
};

type Events = Result<Vec<Event<Keys>>, Refusal>;

/// What the batch did not load, the lane forgot: nobody's request is wrong.
impl From<NotLoaded> for Refusal {
    fn from(_: NotLoaded) -> Refusal {
        Refusal::Internal
    }
}

/// A party's head, as far as a command has to look.
struct Found {
    rev: Revision,
    is_known: bool,
    plan: Option<PlanIndex>,
    choice: Option<Choice>,
}

impl State {
    /// What the command comes to. No events: it changes nothing.
    pub fn decide(&self, command: &Command) -> Events {
        match *command {
            Command::SetConsent { party, ref product, choice, expected } => {
                self.set_consent(party, product, choice, expected)
            }
            Command::SetPlan { party, ref product, ref plan, expected } => {
                self.set_plan(party, product, plan.as_ref(), expected)
            }
            Command::PutAccount { account, organization, expected } => {
                self.decide_account(account, organization, expected)
            }
            Command::PutOrganization { organization, expected } => match self.organization(organization)? {
                Some(_) => Ok(vec![]),
                None => {
                    expect(expected, Revision::ZERO)?;
                    Ok(vec![Event::OrganizationPut { organization }])
                }
            },
            Command::Restrict { account, restriction, expected } => {
                self.flag(account, restriction, true, expected)
            }
            Command::Lift { account, restriction, expected } => {
                self.flag(account, restriction, false, expected)
            }
            Command::EraseAccount { account, expected } => match self.account(account)? {
                Some(AccountHead::Erased { .. }) => Ok(vec![]),
                found @ (Some(AccountHead::Known(_)) | None) => {
                    expect(expected, found.map_or(Revision::ZERO, AccountHead::rev))?;
                    Ok(vec![Event::AccountErased { account }])
                }
            },
            Command::ExcludeArtifact { artifact } => self.decide_exclusion(artifact),
            Command::PublishPolicy { ref file, expected } => self.decide_policy(file, expected),
        }
    }

    fn set_consent(
        &self,
        party: PartyOf<Keys>,
        product: &Name,
        choice: Choice,
        expected: Option<Revision>,
    ) -> Events {
        let product = self.product(product)?;
        let found = match self.party(party, product) {
            Err(Refusal::AccountErased) if choice == Choice::Out => return Ok(vec![]),
            found => found?,
        };
        if found.choice == Some(choice) {
            return Ok(vec![]);
        }
        match choice {
            Choice::Out => {}
            Choice::In => {
                // A delayed opt-in must not beat a newer opt-out.
                if found.choice == Some(Choice::Out) && expected.is_none() {
                    return Err(Refusal::ExpectedRevisionMissing { actual: found.rev });
                }
                expect(expected, found.rev)?;
            }
        }
        Ok(vec![Event::ConsentSet { party, product, choice }])
    }

    fn set_plan(
        &self,
        party: PartyOf<Keys>,
        product: &Name,
        plan: Option<&Name>,
        expected: Option<Revision>,
    ) -> Events {
        let product = self.product(product)?;
        let found = self.party(party, product)?;
        let known = self.policy().product(product);
        let mut events = Vec::new();
        let plan = plan.map(|name| {
            if let Some(plan) = known.and_then(|product| product.plan_index(name)) {
                return plan;
            }
            let Some(plan) = known.and_then(|product| product.next_plan()) else {
                return PlanIndex::NONE_LEFT;
            };
            events.push(Event::PlanNamed { product, plan, name: name.clone() });
            plan
        });
        if found.is_known && found.plan == plan {
            return Ok(vec![]);
        }
        expect(expected, found.rev)?;
        events.push(Event::PlanSet { party, product, plan });
        Ok(events)
    }

    fn decide_account(
        &self,
        account: AccountKey,
        organization: Option<OrganizationKey>,
        expected: Option<Revision>,
    ) -> Events {
        let known = self.known(account)?;
        if known.is_some_and(|known| known.organization == organization) {
            return Ok(vec![]);
        }
        expect(expected, known.map_or(Revision::ZERO, |known| known.rev))?;
        let mut events = Vec::new();
        if let Some(organization) = organization
            && self.organization(organization)?.is_none()
        {
            events.push(Event::OrganizationPut { organization });
        }
        events.push(Event::AccountPut { account, organization });
        Ok(events)
    }

    fn flag(
        &self,
        account: AccountKey,
        restriction: Restriction,
        wanted: bool,
        expected: Option<Revision>,
    ) -> Events {
        let known = self.known(account)?;
        if known.is_some_and(|known| known.restrictions.has(restriction) == wanted) {
            return Ok(vec![]);
        }
        expect(expected, known.map_or(Revision::ZERO, |known| known.rev))?;
        Ok(vec![if wanted {
            Event::Restricted { account, restriction }
        } else {
            Event::RestrictionLifted { account, restriction }
        }])
    }

    fn decide_exclusion(&self, artifact: ArtifactKey) -> Events {
        Ok(match self.exclusion(artifact)? {
            Some(_) => vec![],
            None => vec![Event::ArtifactExcluded { artifact }],
        })
    }

    fn decide_policy(&self, file: &PolicyFile, expected: Option<Revision>) -> Events {
        expect(expected, self.policy().rev)?;
        file.check(self.policy()).map_err(|errors| Refusal::BadPolicy { errors })?;
        Ok(vec![Event::PolicyPublished { policy: file.document().clone() }])
    }

    fn product(&self, name: &Name) -> Result<ProductIndex, Refusal> {
        self.policy().product_index(name.as_str()).ok_or_else(|| Refusal::Invalid {
            field: "product".to_owned(),
            problem: format!("names {name}, which no policy ever named"),
        })
    }

    fn known(&self, account: AccountKey) -> Result<Option<&KnownAccount>, Refusal> {
        match self.account(account)? {
            None => Ok(None),
            Some(AccountHead::Known(known)) => Ok(Some(known)),
            Some(AccountHead::Erased { .. }) => Err(Refusal::AccountErased),
        }
    }

    fn party(&self, party: PartyOf<Keys>, product: ProductIndex) -> Result<Found, Refusal> {
        let found = match party {
            Party::Account(key) => self.known(key)?.map(|known| {
                let own = known.product(product);
                (known.rev, own.plan, own.choice)
            }),
            Party::Organization(key) => self.organization(key)?.map(|head| {
                let own = head.product(product);
                (head.rev, own.plan, own.choice)
            }),
        };
        Ok(match found {
            Some((rev, plan, choice)) => Found { rev, is_known: true, plan, choice },
            None => Found { rev: Revision::ZERO, is_known: false, plan: None, choice: None },
        })
    }
}

/// `expected_revision`, where given, is the head's.
fn expect(expected: Option<Revision>, actual: Revision) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != actual => Err(Refusal::Conflict { expected, actual }),
        Some(_) | None => Ok(()),
    }
}
