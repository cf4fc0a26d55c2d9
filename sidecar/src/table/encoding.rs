//! Heads as rows. Every field of a head is in its row, so its canonical bytes, and with them the digest, can be had
//! from what the table holds and from nothing else.
//!
//! | row | words |
//! |---|---|
//! | any | mark, `rev` low 32 |
//! | account | organization's number; products 0 and 1: `allow_since` each; every further four: their bytes, `allow_since` each |
//! | organization | its number; per product: choice and plan 1 and `plan_rev` high 1, `allow_since`, `plan_since`, `plan_rev` low |
//! | exclusion | nothing more |
//!
//! A mark is the high 8 bits of `rev`, flags 1, and in an account's row choice and plan of products 0 and 1. A
//! choice and plan of 0 says that the head does not list the product. So an account with two products is 36 bytes,
//! its key included.

use consent_core::decision::NotReady;
use consent_core::head::{
    AccountBytes, AccountHead, AccountLayer, AccountProduct, AccountView, ExclusionHead, KnownAccount,
    OrganizationHead, OrganizationLayer, OrganizationProduct, Unreadable, choice_and_plan,
    read_choice_and_plan,
};
use consent_core::words::{OrganizationKey, ProductIndex, Restrictions, Revision, Seconds};

use super::names::Names;
use super::rows::Row;
use smallvec::{SmallVec, smallvec};

/// Stands in every row, so that no mark is zero.
const TAKEN: u32 = 1 << 22;
/// The account was erased.
const ERASED: u32 = 1 << 23;
/// The head needs a newer reader.
const UNREADABLE: u32 = 1 << 21;
/// An organization that an account refers to, and that has no head yet.
const MENTIONED: u32 = 1 << 20;
const RESTRICTIONS: u32 = 0xf << 16;

const MARK: usize = 0;
const REV: usize = 1;
/// An organization's number: its own, or that of the account's.
const NUMBER: usize = 2;
/// What stands in the place of an organization's number where there is none.
pub(super) const NO_NUMBER: u32 = 0;
const PRODUCTS: usize = 3;
/// The products whose choice and plan stand in an account's mark.
const IN_MARK: usize = 2;
/// The products whose choices and plans share a word after that.
const GROUP: usize = 4;
/// The words of a product in an organization's row.
const LAYER: usize = 4;

/// What a row says before its fields are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// A head.
    Head,
    /// A head that needs a newer reader.
    Unreadable,
    /// No head: an account refers to the organization.
    Mentioned,
}

#[inline]
pub(super) fn held(row: Row<'_>) -> Held {
    let mark = row.word(MARK);
    if mark & UNREADABLE != 0 {
        Held::Unreadable
    } else if mark & MENTIONED != 0 {
        Held::Mentioned
    } else {
        Held::Head
    }
}

/// The revision of the row's head.
#[inline]
pub(super) fn rev(row: Row<'_>) -> Result<Revision, NotReady> {
    revision(row.word(MARK) >> 24, row.word(REV))
}

#[inline]
fn revision(high: u32, low: u32) -> Result<Revision, NotReady> {
    Revision::new(u64::from(high) << 32 | u64::from(low)).ok_or(NotReady)
}

/// The high 8 and the low 32 bits of a revision, which has 40.
const fn halves(rev: Revision) -> (u32, u32) {
    ((rev.get() >> 32) as u32, rev.get() as u32)
}

fn words(rev: Revision, flags: u32) -> Words {
    let (high, low) = halves(rev);
    smallvec![high << 24 | TAKEN | flags, low]
}

/// The words of a row that is on its way. Those of an account with two products need no memory of their own: whole
/// tables come through here.
type Words = SmallVec<[u32; 8]>;

/// A row on its way.
#[derive(Debug)]
pub(super) struct NewRow {
    words: Words,
    /// The organization whose number it lacks.
    pub(super) organization: Option<OrganizationKey>,
}

impl NewRow {
    /// The row of the account's head in these bytes.
    pub(super) fn account(bytes: &[u8]) -> Result<NewRow, Unreadable> {
        let AccountBytes { rev, known } = AccountBytes::read(bytes)?;
        let Some(account) = known else {
            let mut to = words(rev, ERASED);
            to.push(NO_NUMBER);
            return Ok(NewRow { words: to, organization: None });
        };
        let mut to = words(rev, u32::from(account.restrictions.bits()) << 16);
        to.push(NO_NUMBER);
        for (index, (choice_and_plan, since)) in account.products().enumerate() {
            let (at, shift) = choice_and_plan_at(index);
            if at == to.len() {
                to.push(0);
            }
            to[at] |= u32::from(choice_and_plan) << shift;
            to.push(since.get());
        }
        Ok(NewRow { words: to, organization: account.organization })
    }

    /// The row of the organization's head in these bytes.
    pub(super) fn organization(bytes: &[u8]) -> Result<NewRow, Unreadable> {
        let head = OrganizationHead::decode(bytes)?;
        let mut to = words(head.rev, 0);
        to.push(NO_NUMBER);
        for product in &head.products {
            let (high, low) = halves(product.plan_rev);
            let byte = u32::from(choice_and_plan(product.choice, product.plan));
            to.extend([byte << 8 | high, product.allow_since.get(), product.plan_since.get(), low]);
        }
        Ok(NewRow { words: to, organization: None })
    }

    /// The row of the excluded artifact's head in these bytes.
    pub(super) fn exclusion(bytes: &[u8]) -> Result<NewRow, Unreadable> {
        let head = ExclusionHead::decode(bytes)?;
        Ok(NewRow { words: words(head.rev, 0), organization: None })
    }

    /// The row of an organization that has no head yet.
    pub(super) fn mentioned(number: u32) -> NewRow {
        let mut to = words(Revision::ZERO, MENTIONED);
        to.push(number);
        NewRow { words: to, organization: None }
    }

    /// The row of a head that needs a newer reader.
    pub(super) fn unreadable(as_of: Revision) -> NewRow {
        let mut to = words(as_of, UNREADABLE);
        to.push(NO_NUMBER);
        NewRow { words: to, organization: None }
    }

    /// Gives an account's row the number of its organization, or an organization's row its own.
    pub(super) fn give(&mut self, number: u32) {
        self.words[NUMBER] = number;
    }

    /// The revision of its head.
    pub(super) fn rev(&self) -> Result<Revision, NotReady> {
        revision(self.words[MARK] >> 24, self.words[REV])
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.words[MARK] & UNREADABLE != 0
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }
}

/// The word in which the choice and plan of an account's product stand, and how far to the left.
#[inline]
fn choice_and_plan_at(index: usize) -> (usize, usize) {
    match index.checked_sub(IN_MARK) {
        None => (MARK, 8 - 8 * index),
        Some(index) => (PRODUCTS + IN_MARK + index / GROUP * (GROUP + 1), 24 - 8 * (index % GROUP)),
    }
}

/// One product of an account's row; `None`: the head does not list it.
#[inline(always)]
fn account_product(row: Row<'_>, index: usize) -> Result<Option<AccountProduct>, NotReady> {
    let (bytes, shift) = choice_and_plan_at(index);
    let since = if index < IN_MARK { PRODUCTS + index } else { bytes + 1 + (index - IN_MARK) % GROUP };
    let byte = (row.word(bytes) >> shift) as u8;
    if byte == 0 {
        return Ok(None);
    }
    let (choice, plan) = read_choice_and_plan(byte).map_err(|_| NotReady)?;
    Ok(Some(AccountProduct { plan, choice, allow_since: Seconds::new(row.word(since)) }))
}

#[inline]
fn restrictions(row: Row<'_>) -> Result<Restrictions, NotReady> {
    Restrictions::from_bits(((row.word(MARK) & RESTRICTIONS) >> 16) as u8).ok_or(NotReady)
}

#[inline]
fn organization(row: Row<'_>, names: &Names) -> Result<Option<OrganizationKey>, NotReady> {
    match row.word(NUMBER) {
        NO_NUMBER => Ok(None),
        number => names.key(number).map(OrganizationKey::new).map(Some).ok_or(NotReady),
    }
}

/// What a decision needs of an account's row. It is built where it is used, by inlining all that hands it on: written to
/// memory and read from there it would cost about what it takes to find a row that lies in a cache.
#[inline(always)]
pub(super) fn account_view(
    row: Row<'_>,
    names: &Names,
    product: Option<ProductIndex>,
) -> Result<AccountView, NotReady> {
    if held(row) != Held::Head {
        return Err(NotReady);
    }
    if row.word(MARK) & ERASED != 0 {
        return Ok(AccountView::Erased);
    }
    let product = match product {
        Some(ProductIndex(index)) => account_product(row, usize::from(index))?,
        None => None,
    };
    Ok(AccountView::Known(AccountLayer {
        rev: rev(row)?,
        organization: organization(row, names)?,
        restrictions: restrictions(row)?,
        product: product.unwrap_or(AccountProduct::NEW),
    }))
}

/// The head that an account's row holds.
pub(super) fn account_head(row: Row<'_>, names: &Names) -> Result<AccountHead, NotReady> {
    let rev = rev(row)?;
    if row.word(MARK) & ERASED != 0 {
        return Ok(AccountHead::Erased { rev });
    }
    let listed = (0..).map_while(|index| account_product(row, index).transpose());
    Ok(AccountHead::Known(KnownAccount {
        rev,
        organization: organization(row, names)?,
        restrictions: restrictions(row)?,
        products: listed.collect::<Result<_, _>>()?,
    }))
}

/// The number of an organization.
pub(super) fn number(row: Row<'_>) -> u32 {
    row.word(NUMBER)
}

fn organization_product(row: Row<'_>, index: usize) -> Result<Option<OrganizationProduct>, NotReady> {
    let at = PRODUCTS + LAYER * index;
    let byte = (row.word(at) >> 8) as u8;
    if byte == 0 {
        return Ok(None);
    }
    let (choice, plan) = read_choice_and_plan(byte).map_err(|_| NotReady)?;
    Ok(Some(OrganizationProduct {
        plan,
        choice,
        allow_since: Seconds::new(row.word(at + 1)),
        plan_since: Seconds::new(row.word(at + 2)),
        plan_rev: revision(row.word(at) & 0xff, row.word(at + 3))?,
    }))
}

/// What a decision needs of an organization's row; `None`: it has no head.
pub(super) fn organization_layer(
    row: Row<'_>,
    ProductIndex(index): ProductIndex,
) -> Result<Option<OrganizationLayer>, NotReady> {
    match held(row) {
        Held::Unreadable => Err(NotReady),
        Held::Mentioned => Ok(None),
        Held::Head => {
            let product = organization_product(row, usize::from(index))?;
            Ok(Some(OrganizationLayer {
                rev: rev(row)?,
                product: product.unwrap_or(OrganizationProduct::NEW),
            }))
        }
    }
}

/// The head that an organization's row holds.
pub(super) fn organization_head(row: Row<'_>) -> Result<OrganizationHead, NotReady> {
    let listed = (0..).map_while(|index| organization_product(row, index).transpose());
    Ok(OrganizationHead { rev: rev(row)?, products: listed.collect::<Result<_, _>>()? })
}
