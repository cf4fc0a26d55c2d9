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
    AccountHead, AccountLayer, AccountProduct, AccountView, KnownAccount, OrganizationHead,
    OrganizationLayer, OrganizationProduct, choice_and_plan, read_choice_and_plan,
};
use consent_core::words::{OrganizationKey, ProductIndex, Restrictions, Revision, Seconds};

use super::names::Names;
use super::rows::Row;

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
const ORGANIZATION: usize = 2;
const NUMBER: usize = 2;
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
pub(super) fn rev(row: Row<'_>) -> Result<Revision, NotReady> {
    revision(row.word(MARK) >> 24, row.word(REV))
}

fn revision(high: u32, low: u32) -> Result<Revision, NotReady> {
    Revision::new(u64::from(high) << 32 | u64::from(low)).ok_or(NotReady)
}

/// The high 8 and the low 32 bits of a revision, which has 40.
const fn halves(rev: Revision) -> (u32, u32) {
    ((rev.get() >> 32) as u32, rev.get() as u32)
}

fn words(rev: Revision, flags: u32) -> Vec<u32> {
    let (high, low) = halves(rev);
    vec![high << 24 | TAKEN | flags, low]
}

/// An excluded artifact's row.
pub(super) fn exclusion_words(rev: Revision) -> Vec<u32> {
    words(rev, 0)
}

/// The row of a head that needs a newer reader; `number` is an organization's.
pub(super) fn unreadable_words(as_of: Revision, number: u32) -> Vec<u32> {
    let mut to = words(as_of, UNREADABLE);
    to.push(number);
    to
}

/// An account's row; `organization` is the number of its organization.
pub(super) fn account_words(head: &AccountHead, organization: u32) -> Vec<u32> {
    match head {
        AccountHead::Erased { rev } => {
            let mut to = words(*rev, ERASED);
            to.push(0);
            to
        }
        AccountHead::Known(account) => {
            let mut to = words(account.rev, u32::from(account.restrictions.bits()) << 16);
            to.push(organization);
            let byte = |product: &AccountProduct| u32::from(choice_and_plan(product.choice, product.plan));
            let since = |product: &AccountProduct| product.allow_since.get();
            let (in_mark, rest) = account.products.split_at(account.products.len().min(IN_MARK));
            to[MARK] |= in_mark.iter().zip([8, 0]).fold(0, |word, (product, at)| word | byte(product) << at);
            to.extend(in_mark.iter().map(since));
            for group in rest.chunks(GROUP) {
                let bytes = group.iter().zip([24, 16, 8, 0]);
                to.push(bytes.fold(0, |word, (product, at)| word | byte(product) << at));
                to.extend(group.iter().map(since));
            }
            to
        }
    }
}

/// One product of an account's row; `None`: the head does not list it.
fn account_product(row: Row<'_>, index: usize) -> Result<Option<AccountProduct>, NotReady> {
    let (bytes, shift, since) = match index.checked_sub(IN_MARK) {
        None => (MARK, 8 - 8 * index, PRODUCTS + index),
        Some(index) => {
            let group = PRODUCTS + IN_MARK + index / GROUP * (GROUP + 1);
            (group, 24 - 8 * (index % GROUP), group + 1 + index % GROUP)
        }
    };
    let byte = (row.word(bytes) >> shift) as u8;
    if byte == 0 {
        return Ok(None);
    }
    let (choice, plan) = read_choice_and_plan(byte).map_err(|_| NotReady)?;
    Ok(Some(AccountProduct { plan, choice, allow_since: Seconds::new(row.word(since)) }))
}

fn restrictions(row: Row<'_>) -> Result<Restrictions, NotReady> {
    Restrictions::from_bits(((row.word(MARK) & RESTRICTIONS) >> 16) as u8).ok_or(NotReady)
}

fn organization(row: Row<'_>, names: &Names) -> Result<Option<OrganizationKey>, NotReady> {
    match row.word(ORGANIZATION) {
        0 => Ok(None),
        number => names.key(number).map(OrganizationKey::new).map(Some).ok_or(NotReady),
    }
}

/// What a decision needs of an account's row.
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

/// An organization's row.
pub(super) fn organization_words(head: &OrganizationHead, number: u32) -> Vec<u32> {
    let mut to = words(head.rev, 0);
    to.push(number);
    for product in &head.products {
        let (high, low) = halves(product.plan_rev);
        let byte = u32::from(choice_and_plan(product.choice, product.plan));
        to.extend([byte << 8 | high, product.allow_since.get(), product.plan_since.get(), low]);
    }
    to
}

/// The row of an organization that has no head yet.
pub(super) fn mentioned_words(number: u32) -> Vec<u32> {
    let mut to = words(Revision::ZERO, MENTIONED);
    to.push(number);
    to
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
