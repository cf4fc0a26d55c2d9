//! Events of the ledger as people read them: subjects become ids again, as far as they were not erased, and indexes
//! names.

use super::account::{choice, plan_name};
use super::to_timestamp;
use crate::pb::{self, party};
use consent_core::event::{Event, PartyOf, Recorded, Subjects};
use consent_core::head::PolicyHead;
use consent_core::words::{Party, PlanIndex, ProductIndex, Subject};

/// The fact itself, without its evidence and its chain. `ids` has the ids of the subjects that were not erased;
/// `policy` is the head at this event or later: names keep their indexes for good.
pub fn event(
    recorded: &Recorded<Subjects>,
    ids: &[(Subject, String)],
    policy: &PolicyHead,
) -> pb::LedgerEvent {
    let names = Names { ids, policy };
    let place = pb::LedgerEvent {
        revision: recorded.revision.get(),
        recorded_at: Some(to_timestamp(recorded.recorded_at)),
        r#type: kind(&recorded.event).to_owned(),
        ..pb::LedgerEvent::default()
    };
    match &recorded.event {
        Event::AccountPut { account, organization } => pb::LedgerEvent {
            party: names.party(Party::Account(*account)),
            organization: organization.map(|subject| names.id(subject)).unwrap_or_default(),
            ..place
        },
        Event::OrganizationPut { organization } => {
            pb::LedgerEvent { party: names.party(Party::Organization(*organization)), ..place }
        }
        Event::ConsentSet { party, product, choice: made } => pb::LedgerEvent {
            party: names.party(*party),
            product: names.product(*product),
            choice: choice(Some(*made)).into(),
            ..place
        },
        Event::PlanSet { party, product, plan } => pb::LedgerEvent {
            party: names.party(*party),
            product: names.product(*product),
            plan: plan.map(|plan| names.plan(*product, plan)).unwrap_or_default(),
            ..place
        },
        Event::PlanNamed { product, plan: _, name } => {
            pb::LedgerEvent { product: names.product(*product), plan: name.as_str().to_owned(), ..place }
        }
        Event::Restricted { account, .. }
        | Event::RestrictionLifted { account, .. }
        | Event::AccountErased { account } => {
            pb::LedgerEvent { party: names.party(Party::Account(*account)), ..place }
        }
        Event::ArtifactExcluded { .. } => place,
        Event::PolicyPublished { policy } => pb::LedgerEvent { policy_version: policy.version, ..place },
    }
}

const fn kind(event: &Event<Subjects>) -> &'static str {
    match event {
        Event::AccountPut { .. } => "account_put",
        Event::OrganizationPut { .. } => "organization_put",
        Event::ConsentSet { .. } => "consent_set",
        Event::PlanSet { .. } => "plan_set",
        Event::PlanNamed { .. } => "plan_named",
        Event::Restricted { .. } => "restricted",
        Event::RestrictionLifted { .. } => "restriction_lifted",
        Event::AccountErased { .. } => "account_erased",
        Event::ArtifactExcluded { .. } => "artifact_excluded",
        Event::PolicyPublished { .. } => "policy_published",
    }
}

struct Names<'a> {
    ids: &'a [(Subject, String)],
    policy: &'a PolicyHead,
}

impl Names<'_> {
    fn find(&self, subject: Subject) -> Option<String> {
        self.ids.iter().find(|(its, _)| *its == subject).map(|(_, id)| id.clone())
    }

    fn id(&self, subject: Subject) -> String {
        self.find(subject).unwrap_or_default()
    }

    fn party(&self, party: PartyOf<Subjects>) -> Option<pb::Party> {
        let party = match party {
            Party::Account(subject) => party::Party::Account(self.find(subject)?),
            Party::Organization(subject) => party::Party::Organization(self.find(subject)?),
        };
        Some(pb::Party { party: Some(party) })
    }

    fn product(&self, index: ProductIndex) -> String {
        self.policy.product(index).map(|product| product.name.as_str().to_owned()).unwrap_or_default()
    }

    fn plan(&self, index: ProductIndex, plan: PlanIndex) -> String {
        self.policy.product(index).map(|product| plan_name(product, plan)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::words::{Choice, Revision, Timestamp};

    #[test]
    fn an_erased_party_is_absent_and_the_fact_stays() {
        let subject = Subject::new([3; 16]);
        let recorded = Recorded {
            revision: Revision::new(7).unwrap(),
            recorded_at: Timestamp::from_millis(1_500),
            event: Event::ConsentSet {
                party: Party::Account(subject),
                product: ProductIndex(0),
                choice: Choice::Out,
            },
        };
        let policy = PolicyHead::empty();
        let shown = event(&recorded, &[(subject, "ada".to_owned())], &policy);
        let ada = party::Party::Account("ada".to_owned());
        assert_eq!(shown.party, Some(pb::Party { party: Some(ada) }));
        assert_eq!((shown.r#type.as_str(), shown.revision), ("consent_set", 7));
        assert_eq!(shown.recorded_at.map(|at| (at.seconds, at.nanos)), Some((1, 500_000_000)));

        let erased = event(&recorded, &[], &policy);
        assert_eq!(erased.party, None);
        assert_eq!(erased.choice, i32::from(pb::Choice::Out));
    }
}
