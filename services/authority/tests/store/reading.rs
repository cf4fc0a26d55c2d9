//! The readers' role: each read one snapshot, each page complete.

use crate::batch::{
    Write, account, checked_ledger, commit, head_bytes, id, organization, request, revision, subject, write,
};
use crate::stand::{OnPostgres, Stand};
use consent_authority::store::{Reader, Store};
use consent_core::head::HeadKey;
use consent_core::words::{AccountKey, Revision};
use std::collections::BTreeMap;
use std::time::Duration;

const WRITES: u64 = 200;

pub(crate) async fn the_feed_has_no_gap_while_writes_go_on<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let reader = store.reader();
    let writing = async {
        for number in 1..=WRITES {
            commit(&mut writer, &[write(2 * number), write(2 * number + 1)]).await.expect("a commit");
        }
    };
    let reading = async {
        let mut last = Revision::ZERO;
        while last < revision(2 * WRITES) {
            let page = reader.feed(last, 7).await.expect("the feed");
            for entry in &page {
                assert!(entry.revision.follows(last));
                last = entry.revision;
            }
            let head = reader.head().await.expect("the head").revision;
            assert!(head >= last && head.get() % 2 == 0, "a batch is visible as a whole");
        }
    };
    tokio::join!(writing, reading);
    assert_eq!(checked_ledger(&store).await, 2 * WRITES);
    assert!(reader.feed(revision(2 * WRITES), 5).await.expect("the feed").is_empty());
}

pub(crate) async fn pages_of_heads_are_complete_while_writes_go_on<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let before: Vec<Write> = (1..=WRITES).map(write).collect();
    commit(&mut writer, &before).await.expect("a commit");
    let reader = store.reader();
    let writing = async {
        for number in 1..=WRITES / 2 {
            let touched = Write { request: request(9_000 + number), ..write(number) };
            commit(&mut writer, &[touched, write(1_000 + number)]).await.expect("a commit");
        }
    };
    // A snapshot as a node takes it: pages, and then the changes since the first page, newest wins.
    let reading = async {
        let (mut heads, mut first, mut after) = (BTreeMap::new(), None, None);
        loop {
            let page = reader.heads_after(after, 9).await.expect("a page");
            first.get_or_insert(page.revision);
            let is_last = page.heads.len() < 9;
            for head in page.heads {
                assert!(after < Some(head.key), "in order");
                after = Some(head.key);
                heads.insert(head.key, head.bytes);
            }
            if is_last {
                break;
            }
        }
        (heads, first.expect("a page"))
    };
    let ((), (mut heads, first)) = tokio::join!(writing, reading);
    let mut expected = BTreeMap::new();
    for entry in reader.feed(Revision::ZERO, 10_000).await.expect("the feed") {
        expected.insert(entry.head.key, entry.head.bytes.clone());
        if entry.revision > first {
            heads.insert(entry.head.key, entry.head.bytes);
        }
    }
    assert_eq!(heads, expected);
}

/// An account that nobody has mentioned.
fn stranger(number: u128) -> HeadKey {
    HeadKey::Account(AccountKey::new((u128::MAX - number).to_be_bytes()))
}

pub(crate) async fn heads_of_one_snapshot_bring_policy_and_organization<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let of = HeadKey::Organization(organization(5));
    let member = Write { organization: Some(organization(5)), ..write(3) };
    let writes =
        [Write { head: HeadKey::Policy, ..write(1) }, Write { head: of, ..write(2) }, member, write(4)];
    commit(&mut writer, &writes).await.expect("a commit");
    for (asked, expected) in [
        (vec![account(3)], vec![HeadKey::Policy, of, account(3)]),
        (vec![account(3), of, HeadKey::Policy], vec![HeadKey::Policy, of, account(3)]),
        (vec![account(4), account(99)], vec![HeadKey::Policy, account(4)]),
        (vec![], vec![HeadKey::Policy]),
        // More than the largest batch has: two for each question.
        ((0..8191).map(stranger).chain([account(4)]).collect(), vec![HeadKey::Policy, account(4)]),
    ] {
        let (head, mut heads) = store.reader().heads_of(&asked).await.expect("the heads");
        heads.sort_by_key(|head| head.key);
        assert_eq!(head.revision, revision(4));
        assert_eq!(heads.iter().map(|head| head.key).collect::<Vec<_>>(), expected);
        assert_eq!(heads[0].bytes, head_bytes(revision(1)));
    }
}

pub(crate) async fn ledger_pages_do_without_subjects_and_evidence_that_are_gone<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let of = HeadKey::Organization(organization(5));
    let member = Write { organization: Some(organization(5)), ..write(2) };
    let made =
        commit(&mut writer, &[Write { head: of, ..write(1) }, member, write(3)]).await.expect("a commit");
    let reader = store.reader();
    let (head, page) = reader.ledger(Revision::ZERO, 2).await.expect("the ledger");
    assert_eq!((head.revision, page.len()), (revision(3), 2));
    assert_eq!(page[0].ids, [(subject(of), id(of))]);
    assert_eq!(page[1].ids, [(subject(account(2)), id(account(2))), (subject(of), id(of))]);
    for (entry, made) in page.iter().zip(&made.entries) {
        assert_eq!((&entry.event, entry.chain), (&made.event, made.chain));
        assert_eq!(entry.evidence.as_ref(), Some(&made.evidence));
    }
    let (_, rest) = reader.ledger(revision(2), 10).await.expect("the ledger");
    assert_eq!(rest.len(), 1);

    assert_eq!(reader.id_of(account(3)).await.expect("the id"), Some(id(account(3))));
    // What a page shows of a person. It is no whole erasure: the feed still has the key beside the subject.
    stand
        .sql("DELETE FROM evidence WHERE rev = 3; DELETE FROM subject WHERE id LIKE '%3))'")
        .await
        .expect("they are gone");
    assert_eq!(reader.id_of(account(3)).await.expect("the id"), None);
    let (_, rest) = reader.ledger(revision(2), 10).await.expect("the ledger");
    assert!(rest[0].ids.is_empty() && rest[0].evidence.is_none());
    assert_eq!(rest[0].event, made.entries[2].event, "the event itself stays, and with it the chain");
    assert_eq!(checked_ledger(&store).await, 3);
}

pub(crate) async fn the_newest_policy_document_is_found<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let reader = store.reader();
    assert_eq!(reader.policy_document().await.expect("the document"), None);
    let mut writer = store.writer().await.expect("a writer");
    let policy = |number| Write { head: HeadKey::Policy, ..write(number) };
    let made = commit(&mut writer, &[policy(1), write(2), policy(3), write(4)]).await.expect("a commit");
    let newest = Some(("policy 3".to_owned(), revision(3), made.entries[2].recorded_at));
    assert_eq!(reader.policy_document().await.expect("the document"), newest);
}

pub(crate) async fn a_commit_wakes_who_waits<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut wakeups = store.wakeups();
    let mut writer = store.writer().await.expect("a writer");
    wakeups.mark_unchanged();
    commit(&mut writer, &[write(1)]).await.expect("a commit");
    wakeups.changed().await.expect("a wake-up");
}

pub(crate) async fn a_commit_wakes_another_replica(stand: OnPostgres) {
    let (here, elsewhere) = (stand.opened().await, stand.open().await.expect("another replica"));
    let mut wakeups = elsewhere.wakeups();
    let mut writer = here.writer().await.expect("a writer");
    // It hears of commits from the moment when it listens, and nobody promises when that is.
    for number in 1.. {
        commit(&mut writer, &[write(number)]).await.expect("a commit");
        if tokio::time::timeout(Duration::from_millis(50), wakeups.changed()).await.is_ok() {
            break;
        }
    }
}
