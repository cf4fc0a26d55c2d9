//! What must hold of the table for any heads, in any order, and while somebody reads.

use super::sequenced::{Sequenced, Unread};
use super::{Heads, Incoming, Table};
use consent_core::chain::{Chain, Link};
use consent_core::confirm::{Frame, Place};
use consent_core::decision::Heads as _;
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{
    AccountHead, AccountProduct, AccountView, ExclusionHead, Head, HeadKey, KnownAccount, NAMES_MAX,
    OrganizationHead, OrganizationProduct,
};
use consent_core::ledger::HeadRecord;
use consent_core::words::{
    AccountKey, ArtifactKey, Choice, Epoch, IdKey, OrganizationKey, PlanIndex, ProductIndex, Restrictions,
    Revision, Seconds, Timestamp,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

const ID_KEY: IdKey = IdKey::new([3; 16]);
/// Multiplied by it, numbers are as good as hashes.
const SCATTER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const EPOCH: Epoch = Epoch::new([1; 16]);

fn revision(number: u64) -> Revision {
    Revision::new(number).unwrap()
}

/// Few keys, so that heads meet; some alike in all but the last bit of either half, so that rows stand in each
/// other's way; all zeros, which is also what a free slot holds.
fn key() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![
        4 => any::<u16>().prop_map(|n| u128::from(n).wrapping_mul(SCATTER).to_be_bytes()),
        2 => (0..8_u8).prop_map(|n| [n, 0, 0, 0, 0, 0, 0, n & 1, n, 0, 0, 0, 0, 0, 0, n >> 1]),
        1 => (0..4_u8).prop_map(|n| [255, 255, 255, 255, 255, 255, 255, 255 - n, 255, 255, 255, 255, 255, 255, 255, 255 - n / 2]),
    ]
}

fn choice() -> impl Strategy<Value = Option<Choice>> {
    prop_oneof![Just(None), Just(Some(Choice::In)), Just(Some(Choice::Out))]
}

fn plan() -> impl Strategy<Value = Option<PlanIndex>> {
    (0..=63_u8).prop_map(PlanIndex::new)
}

fn rev() -> impl Strategy<Value = Revision> {
    (1..=Revision::MAX.get()).prop_map(revision)
}

prop_compose! {
    fn account_product()(plan in plan(), choice in choice(), since in any::<u32>()) -> AccountProduct {
        AccountProduct { plan, choice, allow_since: Seconds::new(since) }
    }
}

prop_compose! {
    fn organization_product()(
        plan in plan(), choice in choice(), since in any::<[u32; 2]>(), plan_rev in rev(),
    ) -> OrganizationProduct {
        let [allow_since, plan_since] = since.map(Seconds::new);
        OrganizationProduct { plan, choice, allow_since, plan_since, plan_rev }
    }
}

/// Mostly few, now and then as many as there may be.
fn products() -> impl Strategy<Value = Vec<AccountProduct>> {
    let products = |most| prop::collection::vec(account_product(), 0..=most);
    prop_oneof![9 => products(3), 1 => products(NAMES_MAX)]
}

prop_compose! {
    fn known()(
        rev in rev(),
        organization in prop::option::of(key()),
        bits in 0..16_u8,
        products in products(),
    ) -> AccountHead {
        let restrictions = Restrictions::from_bits(bits).unwrap();
        AccountHead::Known(KnownAccount {
            rev, organization: organization.map(OrganizationKey::new), restrictions, products,
        })
    }
}

fn account() -> impl Strategy<Value = AccountHead> {
    prop_oneof![9 => known(), 1 => rev().prop_map(|rev| AccountHead::Erased { rev })]
}

/// A head, and now and then one that needs a newer reader.
fn record() -> impl Strategy<Value = HeadRecord> {
    let organization = (rev(), prop::collection::vec(organization_product(), 0..4))
        .prop_map(|(rev, products)| Head::Organization(OrganizationHead { rev, products }));
    let head = prop_oneof![
        4 => account().prop_map(Head::Account),
        2 => organization,
        1 => rev().prop_map(|rev| Head::Exclusion(ExclusionHead { rev })),
    ];
    (key(), head, prop::bool::weighted(0.05)).prop_map(|(key, head, is_newer)| {
        let mut bytes = head.encode();
        bytes[0] += u8::from(is_newer);
        HeadRecord { key: HeadKey::new(head.kind(), key).unwrap(), bytes }
    })
}

/// What a table that is a map would answer.
fn check(heads: Heads, model: &HashMap<HeadKey, Vec<u8>>) -> Result<(), TestCaseError> {
    let mut digest = Digest::EMPTY;
    let secret = DigestKey::new(&ID_KEY);
    model.iter().for_each(|(key, bytes)| digest.add(&secret, *key, bytes));
    prop_assert_eq!(heads.digest(), digest);
    let accounts = model.keys().filter(|key| matches!(key, HeadKey::Account(_))).count();
    prop_assert_eq!(heads.accounts(), accounts as u64);

    let table = Table::new();
    table.install(heads, &place(1, digest), Timestamp::from_millis(1));
    let view = table.read();
    let state = view.state().unwrap();
    let excludes = model.keys().any(|key| matches!(key, HeadKey::Exclusion(_)));
    prop_assert!(!(excludes && state.reader().excludes_nothing()));
    for (key, bytes) in model {
        let head = Head::decode(key.kind(), bytes).ok();
        for product in [0, 1, 2, 3, 7, 61].map(ProductIndex) {
            match *key {
                HeadKey::Policy => (),
                HeadKey::Account(key) => {
                    let held = state.reader().read(|seen| seen.account(key, Some(product))).unwrap().ok();
                    let Some(Head::Account(head)) = &head else {
                        prop_assert_eq!(held, None);
                        continue;
                    };
                    prop_assert_eq!(held, Some(Some(head.view(Some(product)))));
                }
                HeadKey::Organization(key) => {
                    let held = state.reader().read(|seen| seen.organization(key, product)).unwrap().ok();
                    let Some(Head::Organization(head)) = &head else {
                        prop_assert_eq!(held, None);
                        continue;
                    };
                    prop_assert_eq!(held, Some(Some(head.layer(product))));
                }
                HeadKey::Exclusion(key) => {
                    let held = state.reader().read(|seen| seen.is_excluded(key)).unwrap().ok();
                    prop_assert_eq!(held, head.as_ref().map(|_| true));
                }
            }
        }
        // The same bytes under another kind are another key.
        let bytes = key.bytes();
        if !model.contains_key(&HeadKey::Account(AccountKey::new(bytes))) {
            prop_assert_eq!(
                state.reader().read(|seen| seen.account(AccountKey::new(bytes), None)),
                Ok(Ok(None))
            );
        }
        if !model.contains_key(&HeadKey::Exclusion(ArtifactKey::new(bytes))) {
            prop_assert_eq!(
                state.reader().read(|seen| seen.is_excluded(ArtifactKey::new(bytes))),
                Ok(Ok(false))
            );
        }
        if !model.contains_key(&HeadKey::Organization(OrganizationKey::new(bytes))) {
            let key = OrganizationKey::new(bytes);
            prop_assert_eq!(
                state.reader().read(|seen| seen.organization(key, ProductIndex(0))),
                Ok(Ok(None))
            );
        }
    }
    Ok(())
}

fn place(number: u64, digest: Digest) -> Place {
    Place { epoch: EPOCH, revision: revision(number), chain: Chain::EMPTY, digest }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_holds_what_a_map_holds(records in prop::collection::vec(record(), 0..600), room in 0..4000_usize) {
        let (mut heads, mut model) = (Heads::with_room(ID_KEY, room), HashMap::new());
        for record in records {
            model.insert(record.key, record.bytes.clone());
            let incoming = Incoming::read(record, revision(9)).unwrap();
            let digest = heads.digest_with(incoming.key, &incoming.bytes);
            let change = heads.prepare(incoming);
            heads.store(&change);
            heads.settle(change, digest);
        }
        check(heads, &model)?;
    }

    #[test]
    fn of_two_heads_the_newer_stays(records in prop::collection::vec(record(), 0..600)) {
        let (mut heads, mut model) = (Heads::new(ID_KEY), HashMap::<HeadKey, (Revision, Vec<u8>)>::new());
        for record in records {
            let rev = Head::decode(record.key.kind(), &record.bytes).map_or(revision(9), |head| head.rev());
            let held = model.entry(record.key).or_insert((Revision::ZERO, Vec::new()));
            if rev > held.0 {
                *held = (rev, record.bytes.clone());
            }
            heads.put_if_newer(record.key, &record.bytes, revision(9)).unwrap();
        }
        check(heads, &model.into_iter().map(|(key, (_, bytes))| (key, bytes)).collect())?;
    }
}

#[test]
fn shards_that_fill_lose_nothing() {
    // As hashes are; in ascending order, so that they crowd at the front of a shard that is still small; no hashes
    // at all, at the front of one shard and at its end. All in one shard, which is large then.
    let scattered: fn(u64) -> u64 = |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let orders = [
        (20_000_u64, scattered),
        (20_000, |n| n * (u64::MAX / 20_000)),
        (2_000, |n| n % 500),
        (2_000, |n| u64::MAX - n % 500),
        (10_000, |n| n * ((1 << 56) / 10_000)),
    ];
    for (rows, order) in orders {
        let (mut heads, mut model) = (Heads::new(ID_KEY), HashMap::new());
        for n in 0..rows {
            let rest = n.wrapping_mul(0xd134_2543_de82_ef95);
            let key = u128::from(rest % 0xffff_fffb) << 64 | u128::from(order(n));
            let key = HeadKey::Account(AccountKey::new(key.to_be_bytes()));
            let bytes = Head::Account(AccountHead::Erased { rev: revision(1) }).encode();
            heads.put_if_newer(key, &bytes, revision(1)).unwrap();
            model.insert(key, bytes);
        }
        check(heads, &model).unwrap();
    }
}

/// While one head after the other changes, rows move and shards grow, readers see the heads of one revision, and
/// none older than the position that they read first.
#[test]
fn readers_see_one_revision_and_none_before_their_floor() {
    const CHANGES: u64 = 20_000;
    let (ada, ben) = (AccountKey::new([0; 16]), AccountKey::new([8; 16]));
    let head = |key, rev| {
        let bytes = Head::Account(AccountHead::Known(KnownAccount {
            rev: revision(rev),
            organization: Some(OrganizationKey::new([rev as u8; 16])),
            restrictions: Restrictions::NONE,
            products: vec![AccountProduct { allow_since: Seconds::new(rev as u32), ..AccountProduct::NEW }],
        }))
        .encode();
        Incoming::read(HeadRecord { key: HeadKey::Account(key), bytes }, revision(rev)).unwrap()
    };
    let mut heads = Heads::new(ID_KEY);
    for Incoming { key, bytes, .. } in [head(ada, 1), head(ben, 2)] {
        heads.put_if_newer(key, &bytes, revision(2)).unwrap();
    }
    let table = Table::new();
    let place = place(2, heads.digest());
    table.install(heads, &place, Timestamp::from_millis(2));

    let seen = || {
        let view = table.read();
        let state = view.state().unwrap();
        let floor = state.position().revision.get();
        // What a change overtakes may be half a head, as long as it is read again.
        let layers = state.reader().read(|seen| {
            let read = |key| seen.account(key, Some(ProductIndex(0)));
            (read(ada), read(ben), seen.recorded_at(), seen.position())
        });
        (floor, layers.unwrap())
    };
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 3..CHANGES {
                // Every third revision is Ada's, the one after it Ben's, and then comes somebody new.
                let key = match number % 3 {
                    1 => ada,
                    2 => ben,
                    _ => AccountKey::new(u128::from(number).wrapping_mul(SCATTER).to_be_bytes()),
                };
                let (link, chain) = (Link::new([0; 32]), Chain::EMPTY);
                let frame = |digest| Frame { epoch: EPOCH, revision: revision(number), link, chain, digest };
                let at = Timestamp::from_millis(number as i64);
                let digest = table.apply(&frame(Digest::EMPTY), at, head(key, number));
                assert_eq!(table.apply(&frame(digest), at, head(key, number)), digest);
            }
        });
        while !writer.is_finished() {
            let (floor, (ada, ben, at, position)) = seen();
            let (Ok(Some(AccountView::Known(ada))), Ok(Some(AccountView::Known(ben)))) = (ada, ben) else {
                panic!("half a head was read: {ada:?}, {ben:?}");
            };
            for layer in [ada, ben] {
                assert_eq!(u64::from(layer.product.allow_since.get()), layer.rev.get());
                assert_eq!(layer.organization, Some(OrganizationKey::new([layer.rev.get() as u8; 16])));
            }
            let (ada, ben, at) = (ada.rev.get(), ben.rev.get(), at.millis() as u64);
            assert!(ada == ben + 2 || ben == ada + 1, "{ada} and {ben} never stood together");
            assert!(at == ada.max(ben) || at == ben + 1, "{at} is not of {ada} and {ben}");
            assert!(at >= floor, "{at} is before {floor}");
            assert_eq!(at, position.revision.get());
        }
    });
}

#[test]
fn half_a_change_is_never_read() {
    let value = Sequenced::new(Arc::new(7));
    assert_eq!(value.reader().read(|value| *value), Ok(7));
    value.write(Some(Arc::new(8)), || ());
    assert_eq!(value.reader().read(|value| *value), Ok(8));
    let half = || value.write(None, || panic!("half a change"));
    assert!(catch_unwind(AssertUnwindSafe(half)).is_err());
    assert_eq!(value.reader().read(|value| *value), Err(Unread::Retired));
}

#[test]
fn who_reads_again_sees_what_replaced_the_value() {
    let value = Sequenced::new(Arc::new(1));
    let mut reader = value.reader();
    assert_eq!(reader.read(|value| *value), Ok(1));
    value.write(Some(Arc::new(2)), || ());
    assert_eq!(reader.read(|value| *value), Ok(2));
    value.retire();
    assert_eq!(reader.read(|value| *value), Err(Unread::Retired));
}

#[test]
fn a_read_that_a_change_overtakes_is_done_again() {
    let value = Sequenced::new(Arc::new(1));
    let mut reads = 0;
    let read = value.reader().read(|seen| {
        reads += 1;
        if reads == 1 {
            value.write(Some(Arc::new(2)), || ());
        }
        *seen
    });
    assert_eq!((read, reads), (Ok(2), 2));
}

#[test]
fn who_meets_a_change_that_does_not_end_gives_up() {
    let value = Sequenced::new(Arc::new(1));
    // The writer is held up for as long as its reader tries.
    value.write(None, || assert_eq!(value.reader().read(|value| *value), Err(Unread::Busy)));
    assert_eq!(value.reader().read(|value| *value), Ok(1));
}
