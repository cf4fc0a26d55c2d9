//! The canonical bytes of heads. The same bytes are stored, sent, hashed into the digest and kept on nodes.
//!
//! After the semantics version, big endian:
//!
//! | head | fields |
//! |---|---|
//! | account | flags 1 (restrictions 1, 2, 4, 8; ERASED 128), `rev` 5, organization 0, or 1 and 16; count 1, per product: choice and plan 1, `allow_since` 4 |
//! | organization | `rev` 5, count 1, per product: choice and plan 1, `allow_since` 4, `plan_since` 4, `plan_rev` 5 |
//! | exclusion | `rev` 5 |
//! | policy | `rev` 5, name, version 8, guard 4 (milliseconds), count 1, per product: name, incognito gate, count 1 and plans (name, mode 1, two edges of 4 and 5), count 1 and kinds (name, gate); a gate is class 1, `since` 4 |
//!
//! A choice is the two high bits of its byte, 1 UNSET, 2 IN, 3 OUT, and 0 invalid: zero bytes never stand for
//! UNSET. A plan is the six low ones, 0 none. NIL is 0 for modes and classes: it denies. A name is its length, 1, and text.

use super::{
    AccountHead, AccountProduct, Cell, Edge, ExclusionHead, Gate, Head, HeadKind, KnownAccount, NAMES_MAX,
    OrganizationHead, OrganizationProduct, PolicyHead, ProductHead,
};
use crate::bytes::{Reader, Unreadable, Writer};
use crate::policy::{Class, Guard, Mode};
use crate::words::{Choice, Name, OrganizationKey, PlanIndex, Restrictions, Revision, Seconds};

const ERASED: u8 = 128;
/// The bytes of a product of an account.
const PRODUCT: usize = 5;

impl Head {
    /// Its canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Head::Policy(head) => head.encode(),
            Head::Organization(head) => head.encode(),
            Head::Account(head) => head.encode(),
            Head::Exclusion(head) => head.encode(),
        }
    }

    /// The head of this kind that encodes to these bytes.
    pub fn decode(kind: HeadKind, bytes: &[u8]) -> Result<Head, Unreadable> {
        Ok(match kind {
            HeadKind::Policy => Head::Policy(PolicyHead::decode(bytes)?),
            HeadKind::Organization => Head::Organization(OrganizationHead::decode(bytes)?),
            HeadKind::Account => Head::Account(AccountHead::decode(bytes)?),
            HeadKind::Exclusion => Head::Exclusion(ExclusionHead::decode(bytes)?),
        })
    }
}

impl AccountHead {
    /// Its canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(40);
        match self {
            AccountHead::Erased { rev } => {
                to.byte(ERASED);
                to.revision(*rev);
            }
            AccountHead::Known(account) => {
                to.byte(account.restrictions.bits());
                to.revision(account.rev);
                match account.organization {
                    None => to.byte(0),
                    Some(organization) => {
                        to.byte(1);
                        to.raw(organization.bytes());
                    }
                }
                to.count(account.products.len());
                for product in &account.products {
                    to.byte(choice_and_plan(product.choice, product.plan));
                    to.seconds(product.allow_since);
                }
            }
        }
        to.finish()
    }

    /// The account's head that encodes to these bytes.
    pub fn decode(bytes: &[u8]) -> Result<AccountHead, Unreadable> {
        let AccountBytes { rev, known } = AccountBytes::read(bytes)?;
        let Some(account) = known else { return Ok(AccountHead::Erased { rev }) };
        let product = |(byte, allow_since)| {
            let (choice, plan) = read_choice_and_plan(byte)?;
            Ok(AccountProduct { plan, choice, allow_since })
        };
        Ok(AccountHead::Known(KnownAccount {
            rev,
            restrictions: account.restrictions,
            organization: account.organization,
            products: account.products().map(product).collect::<Result<_, _>>()?,
        }))
    }
}

/// An account's head as it lies in its bytes, all of it found valid: whoever keeps heads by the million in a form of
/// their own need not make an [`AccountHead`] of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountBytes<'a> {
    /// The revision of the last event that touched this head.
    pub rev: Revision,
    /// What else is known; `None`: it was erased.
    pub known: Option<KnownBytes<'a>>,
}

/// What the bytes of an account say that was not erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBytes<'a> {
    /// What it belongs to.
    pub organization: Option<OrganizationKey>,
    /// What stands against it.
    pub restrictions: Restrictions,
    products: &'a [[u8; PRODUCT]],
}

impl<'a> AccountBytes<'a> {
    /// Reads them; an error if no head encodes to them.
    pub fn read(bytes: &'a [u8]) -> Result<AccountBytes<'a>, Unreadable> {
        let mut from = Reader::new(bytes)?;
        let flags = from.byte()?;
        let rev = from.revision()?;
        let known = if flags == ERASED {
            None
        } else {
            let restrictions = Restrictions::from_bits(flags).ok_or(Unreadable::Malformed("flags"))?;
            let organization = match from.byte()? {
                0 => None,
                1 => Some(OrganizationKey::new(from.key()?)),
                _ => return Err(Unreadable::Malformed("organization")),
            };
            let products: &[[u8; PRODUCT]] = from.items(NAMES_MAX)?;
            for [choice_and_plan, ..] in products {
                read_choice_and_plan(*choice_and_plan)?;
            }
            Some(KnownBytes { organization, restrictions, products })
        };
        from.finish()?;
        Ok(AccountBytes { rev, known })
    }
}

impl KnownBytes<'_> {
    /// Its products, each with its choice and plan in one byte ([`read_choice_and_plan`]) and its `allow_since`.
    pub fn products(&self) -> impl ExactSizeIterator<Item = (u8, Seconds)> {
        self.products.iter().map(|[byte, since @ ..]| (*byte, Seconds::new(u32::from_be_bytes(*since))))
    }
}

impl OrganizationHead {
    /// Its canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(6 + 14 * self.products.len());
        to.revision(self.rev);
        to.count(self.products.len());
        for product in &self.products {
            to.byte(choice_and_plan(product.choice, product.plan));
            to.seconds(product.allow_since);
            to.seconds(product.plan_since);
            to.revision(product.plan_rev);
        }
        to.finish()
    }

    /// The organization's head that encodes to these bytes.
    pub fn decode(bytes: &[u8]) -> Result<OrganizationHead, Unreadable> {
        let mut from = Reader::new(bytes)?;
        let head = OrganizationHead {
            rev: from.revision()?,
            products: from.list(NAMES_MAX, |from| {
                let (choice, plan) = read_choice_and_plan(from.byte()?)?;
                Ok(OrganizationProduct {
                    plan,
                    choice,
                    allow_since: from.seconds()?,
                    plan_since: from.seconds()?,
                    plan_rev: from.revision()?,
                })
            })?,
        };
        from.finish().map(|()| head)
    }
}

impl ExclusionHead {
    /// Its canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(5);
        to.revision(self.rev);
        to.finish()
    }

    /// The exclusion that encodes to these bytes.
    pub fn decode(bytes: &[u8]) -> Result<ExclusionHead, Unreadable> {
        let mut from = Reader::new(bytes)?;
        let head = ExclusionHead { rev: from.revision()? };
        from.finish().map(|()| head)
    }
}

impl PolicyHead {
    /// Its canonical bytes. The empty policy is never written: it has no event.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::new(256);
        to.revision(self.rev);
        match &self.name {
            None => to.count(0),
            Some(name) => to.name(name),
        }
        to.u64(self.version);
        to.u32(self.guard.get());
        to.count(self.products.len());
        for product in &self.products {
            to.name(&product.name);
            write_gate(&mut to, product.incognito);
            to.count(product.plans.len());
            for (name, cell) in &product.plans {
                to.name(name);
                to.byte(mode_number(cell.mode));
                for edge in [cell.open, cell.default] {
                    to.seconds(edge.since);
                    to.revision(edge.rev);
                }
            }
            to.count(product.kinds.len());
            for (name, gate) in &product.kinds {
                to.name(name);
                write_gate(&mut to, *gate);
            }
        }
        to.finish()
    }

    /// The policy's head that encodes to these bytes.
    pub fn decode(bytes: &[u8]) -> Result<PolicyHead, Unreadable> {
        let mut from = Reader::new(bytes)?;
        let head = PolicyHead {
            rev: from.revision()?,
            name: Some(from.name()?),
            version: from.u64()?,
            guard: Guard::from_millis(from.u32()?).ok_or(Unreadable::Malformed("guard"))?,
            products: from.list(NAMES_MAX, read_product)?,
        };
        if head.version == 0 {
            return Err(Unreadable::Malformed("version"));
        }
        all_differ(head.products.iter().map(|product| &product.name))?;
        from.finish().map(|()| head)
    }
}

fn read_product(from: &mut Reader<'_>) -> Result<ProductHead, Unreadable> {
    let product = ProductHead {
        name: from.name()?,
        incognito: read_gate(from)?,
        plans: from.list(NAMES_MAX, |from| {
            let name = from.name()?;
            let mode = read_mode(from.byte()?)?;
            let mut edge = || Ok(Edge { since: from.seconds()?, rev: from.revision()? });
            Ok((name, Cell { mode, open: edge()?, default: edge()? }))
        })?,
        kinds: from.list(NAMES_MAX, |from| Ok((from.name()?, read_gate(from)?)))?,
    };
    all_differ(product.plans.iter().map(|(name, _)| name))?;
    all_differ(product.kinds.iter().map(|(name, _)| name))?;
    Ok(product)
}

fn all_differ<'a>(names: impl Iterator<Item = &'a Name> + Clone) -> Result<(), Unreadable> {
    let mut rest = names;
    while let Some(name) = rest.next() {
        if rest.clone().any(|other| other == name) {
            return Err(Unreadable::Malformed("a name twice"));
        }
    }
    Ok(())
}

fn write_gate(to: &mut Writer, gate: Gate) {
    to.byte(class_number(gate.class));
    to.seconds(gate.since);
}

fn read_gate(from: &mut Reader<'_>) -> Result<Gate, Unreadable> {
    Ok(Gate { class: read_class(from.byte()?)?, since: from.seconds()? })
}

/// A choice and a plan in one byte, which is never zero.
pub fn choice_and_plan(choice: Option<Choice>, plan: Option<PlanIndex>) -> u8 {
    let choice = match choice {
        None => 1,
        Some(Choice::In) => 2,
        Some(Choice::Out) => 3,
    };
    choice << 6 | plan.map_or(0, PlanIndex::get)
}

/// The choice and the plan in a byte.
pub fn read_choice_and_plan(byte: u8) -> Result<(Option<Choice>, Option<PlanIndex>), Unreadable> {
    let choice = match byte >> 6 {
        1 => None,
        2 => Some(Choice::In),
        3 => Some(Choice::Out),
        _ => return Err(Unreadable::Malformed("choice")),
    };
    Ok((choice, PlanIndex::new(byte & 63)))
}

/// The number of a mode in heads and events.
pub(crate) const fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Nil => 0,
        Mode::LockedOut => 1,
        Mode::DefaultOut => 2,
        Mode::DefaultIn => 3,
    }
}

/// The mode with this number.
pub(crate) const fn read_mode(number: u8) -> Result<Mode, Unreadable> {
    match number {
        0 => Ok(Mode::Nil),
        1 => Ok(Mode::LockedOut),
        2 => Ok(Mode::DefaultOut),
        3 => Ok(Mode::DefaultIn),
        _ => Err(Unreadable::Malformed("mode")),
    }
}

/// The number of a class in heads and events.
pub(crate) const fn class_number(class: Class) -> u8 {
    match class {
        Class::Nil => 0,
        Class::Never => 1,
        Class::Trainable => 2,
    }
}

/// The class with this number.
pub(crate) const fn read_class(number: u8) -> Result<Class, Unreadable> {
    match number {
        0 => Ok(Class::Nil),
        1 => Ok(Class::Never),
        2 => Ok(Class::Trainable),
        _ => Err(Unreadable::Malformed("class")),
    }
}
