//! The canonical bytes of a recorded event: what the chain hashes and the ledger stores.
//!
//! Semantics version 1, revision 5, recorded_at 8 (Unix milliseconds), tag 1, then the event's fields. A subject is
//! 16 bytes; a party is 1 (account) or 2 (organization) and a subject; an absent organization or plan is 0.

use super::{Event, PartyOf, Recorded, Subjects};
use crate::bytes::{Reader, Unreadable, Writer};
use crate::head::NAMES_MAX;
use crate::head::encoding::{class_number, mode_number, read_class, read_mode};
use crate::policy::{Class, Document, Guard, Mode, ProductDocument};
use crate::words::{
    Choice, Name, Party, PlanIndex, ProductIndex, Restriction, Restrictions, Subject, Timestamp,
};

const ACCOUNT_PUT: u8 = 1;
const ORGANIZATION_PUT: u8 = 2;
const CONSENT_SET: u8 = 3;
const PLAN_SET: u8 = 4;
const PLAN_NAMED: u8 = 5;
const RESTRICTED: u8 = 6;
const RESTRICTION_LIFTED: u8 = 7;
const ACCOUNT_ERASED: u8 = 8;
const ARTIFACT_EXCLUDED: u8 = 9;
const POLICY_PUBLISHED: u8 = 10;

impl Recorded<Subjects> {
    /// Its canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(64);
        to.revision(self.revision);
        to.u64(self.recorded_at.millis().cast_unsigned());
        match &self.event {
            Event::AccountPut { account, organization } => {
                to.byte(ACCOUNT_PUT);
                to.raw(account.bytes());
                match organization {
                    None => to.byte(0),
                    Some(organization) => {
                        to.byte(1);
                        to.raw(organization.bytes());
                    }
                }
            }
            Event::OrganizationPut { organization } => {
                to.byte(ORGANIZATION_PUT);
                to.raw(organization.bytes());
            }
            Event::ConsentSet { party, product, choice } => {
                to.byte(CONSENT_SET);
                write_party(&mut to, *party);
                to.byte(product.0);
                to.byte(match choice {
                    Choice::In => 2,
                    Choice::Out => 3,
                });
            }
            Event::PlanSet { party, product, plan } => {
                to.byte(PLAN_SET);
                write_party(&mut to, *party);
                to.byte(product.0);
                to.byte(plan.map_or(0, PlanIndex::get));
            }
            Event::PlanNamed { product, plan, name } => {
                to.byte(PLAN_NAMED);
                to.byte(product.0);
                to.byte(plan.get());
                to.name(name);
            }
            Event::Restricted { account, restriction } => {
                to.byte(RESTRICTED);
                to.raw(account.bytes());
                to.byte(Restrictions::NONE.with(*restriction).bits());
            }
            Event::RestrictionLifted { account, restriction } => {
                to.byte(RESTRICTION_LIFTED);
                to.raw(account.bytes());
                to.byte(Restrictions::NONE.with(*restriction).bits());
            }
            Event::AccountErased { account } => {
                to.byte(ACCOUNT_ERASED);
                to.raw(account.bytes());
            }
            Event::ArtifactExcluded { artifact } => {
                to.byte(ARTIFACT_EXCLUDED);
                to.raw(artifact.bytes());
            }
            Event::PolicyPublished { policy } => {
                to.byte(POLICY_PUBLISHED);
                write_document(&mut to, policy);
            }
        }
        to.finish()
    }

    /// The event that encodes to these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Recorded<Subjects>, Unreadable> {
        let mut from = Reader::new(bytes)?;
        let recorded = Recorded {
            revision: from.revision()?,
            recorded_at: Timestamp::from_millis(from.u64()?.cast_signed()),
            event: read_event(&mut from)?,
        };
        from.finish().map(|()| recorded)
    }
}

fn read_event(from: &mut Reader<'_>) -> Result<Event<Subjects>, Unreadable> {
    Ok(match from.byte()? {
        ACCOUNT_PUT => Event::AccountPut {
            account: subject(from)?,
            organization: match from.byte()? {
                0 => None,
                1 => Some(subject(from)?),
                _ => return Err(Unreadable::Malformed("organization")),
            },
        },
        ORGANIZATION_PUT => Event::OrganizationPut { organization: subject(from)? },
        CONSENT_SET => Event::ConsentSet {
            party: read_party(from)?,
            product: ProductIndex(from.byte()?),
            choice: match from.byte()? {
                2 => Choice::In,
                3 => Choice::Out,
                _ => return Err(Unreadable::Malformed("choice")),
            },
        },
        PLAN_SET => Event::PlanSet {
            party: read_party(from)?,
            product: ProductIndex(from.byte()?),
            plan: match from.byte()? {
                0 => None,
                index => Some(PlanIndex::new(index).ok_or(Unreadable::Malformed("plan"))?),
            },
        },
        PLAN_NAMED => Event::PlanNamed {
            product: ProductIndex(from.byte()?),
            plan: PlanIndex::new(from.byte()?).ok_or(Unreadable::Malformed("plan"))?,
            name: from.name()?,
        },
        RESTRICTED => Event::Restricted { account: subject(from)?, restriction: read_restriction(from)? },
        RESTRICTION_LIFTED => {
            Event::RestrictionLifted { account: subject(from)?, restriction: read_restriction(from)? }
        }
        ACCOUNT_ERASED => Event::AccountErased { account: subject(from)? },
        ARTIFACT_EXCLUDED => Event::ArtifactExcluded { artifact: subject(from)? },
        POLICY_PUBLISHED => Event::PolicyPublished { policy: read_document(from)? },
        _ => return Err(Unreadable::Malformed("tag")),
    })
}

fn subject(from: &mut Reader<'_>) -> Result<Subject, Unreadable> {
    from.key().map(Subject::new)
}

fn write_party(to: &mut Writer, party: PartyOf<Subjects>) {
    let (kind, subject) = match party {
        Party::Account(subject) => (1, subject),
        Party::Organization(subject) => (2, subject),
    };
    to.byte(kind);
    to.raw(subject.bytes());
}

fn read_party(from: &mut Reader<'_>) -> Result<PartyOf<Subjects>, Unreadable> {
    match from.byte()? {
        1 => subject(from).map(Party::Account),
        2 => subject(from).map(Party::Organization),
        _ => Err(Unreadable::Malformed("party")),
    }
}

fn read_restriction(from: &mut Reader<'_>) -> Result<Restriction, Unreadable> {
    let bits = from.byte()?;
    let named = |restriction: &Restriction| Restrictions::NONE.with(*restriction).bits() == bits;
    Restriction::ALL.into_iter().find(named).ok_or(Unreadable::Malformed("restriction"))
}

fn write_document(to: &mut Writer, document: &Document) {
    to.name(&document.name);
    to.u64(document.version);
    to.u32(document.guard.get());
    to.count(document.products.len());
    for product in &document.products {
        to.name(&product.name);
        to.byte(class_number(product.incognito));
        to.count(product.plans.len());
        for (name, mode) in &product.plans {
            to.name(name);
            to.byte(mode_number(*mode));
        }
        to.count(product.kinds.len());
        for (name, class) in &product.kinds {
            to.name(name);
            to.byte(class_number(*class));
        }
    }
}

fn read_document(from: &mut Reader<'_>) -> Result<Document, Unreadable> {
    let document = Document {
        name: from.name()?,
        version: from.u64()?,
        guard: Guard::from_millis(from.u32()?).ok_or(Unreadable::Malformed("guard"))?,
        products: from.list(NAMES_MAX, |from| {
            let product = ProductDocument {
                name: from.name()?,
                incognito: in_force(read_class(from.byte()?)?)?,
                plans: from.list(NAMES_MAX, |from| {
                    let name = from.name()?;
                    match read_mode(from.byte()?)? {
                        Mode::Nil => Err(Unreadable::Malformed("mode")),
                        mode @ (Mode::LockedOut | Mode::DefaultOut | Mode::DefaultIn) => Ok((name, mode)),
                    }
                })?,
                kinds: from
                    .list(NAMES_MAX, |from| Ok((from.name()?, in_force(read_class(from.byte()?)?)?)))?,
            };
            rising(product.plans.iter().map(|(name, _)| name))?;
            rising(product.kinds.iter().map(|(name, _)| name))?;
            Ok(product)
        })?,
    };
    if document.version == 0 {
        return Err(Unreadable::Malformed("version"));
    }
    rising(document.products.iter().map(|product| &product.name))?;
    Ok(document)
}

fn in_force(class: Class) -> Result<Class, Unreadable> {
    match class {
        Class::Nil => Err(Unreadable::Malformed("class")),
        Class::Never | Class::Trainable => Ok(class),
    }
}

fn rising<'a>(names: impl Iterator<Item = &'a Name>) -> Result<(), Unreadable> {
    if names.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Unreadable::Malformed("names out of order")) }
}
