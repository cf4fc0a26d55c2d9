//! The lane's role: R1.

use crate::batch::{
    Write, account, append, checked_ledger, commit, head_bytes, needs, organization, request, revision,
    subject, write,
};
use crate::stand::{OnPostgres, Stand};
use consent_authority::store::{Append, Needs, Reader, RequestRecord, Store, StoreError, Writer};
use consent_core::head::HeadKey;
use consent_core::words::Timestamp;
use std::sync::Arc;
use tokio::sync::Barrier;

const BATCHES: u64 = 40;

pub(crate) async fn concurrent_writers_make_dense_revisions<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let start = Arc::new(Barrier::new(2));
    let fight = async |mut writer: <S::Store as Store>::Writer, from: u64| {
        start.wait().await;
        for batch in 0..BATCHES {
            let number = from + 3 * batch;
            commit(&mut writer, &[write(number), write(number + 1), write(number + 2)])
                .await
                .expect("a commit");
        }
    };
    let (one, other) = (store.writer().await.expect("one"), store.writer().await.expect("another"));
    tokio::join!(fight(one, 1_000), fight(other, 2_000));
    assert_eq!(checked_ledger(&store).await, 2 * 3 * BATCHES);
}

pub(crate) async fn recorded_at_never_falls<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let locked = writer.lock(&needs(&[write(1)])).await.expect("the lock");
    assert!(locked.now > Timestamp::from_millis(1_700_000_000_000), "the clock is {:?}", locked.now);
    // The clock once ran ahead by an hour, and has been set back since.
    let ahead = Timestamp::from_millis(locked.now.millis() + 3_600_000);
    let mut first = append(&locked, &[write(1)]);
    first.entries[0].recorded_at = ahead;
    first.requests[0].recorded_at = ahead;
    writer.commit(&first).await.expect("the commit");

    let locked = writer.lock(&needs(&[write(2)])).await.expect("the lock");
    assert!(locked.now < ahead);
    assert_eq!(locked.recorded_at(), ahead);
    let mut falling = append(&locked, &[write(2)]);
    falling.entries[0].recorded_at = locked.now;
    assert!(matches!(writer.commit(&falling).await, Err(StoreError::Broken(_))));
    commit(&mut writer, &[write(2)]).await.expect("a commit");
    let feed = store.reader().feed(revision(0), 10).await.expect("the feed");
    assert!(feed.iter().all(|entry| entry.recorded_at == ahead) && feed.len() == 2);
}

pub(crate) async fn a_batch_that_does_not_follow_is_refused<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let first = commit(&mut writer, &[write(1)]).await.expect("a commit");
    let locked = writer.lock(&needs(&[write(2)])).await.expect("the lock");
    let good = append(&locked, &[write(2), write(3), write(4)]);
    let (mut gap_before, mut gap_within, mut falling) = (good.clone(), good.clone(), good);
    gap_before.entries.remove(0);
    gap_within.entries.remove(1);
    falling.entries[1].recorded_at = Timestamp::from_millis(i64::MAX);
    for batch in [gap_before, gap_within, falling, first] {
        writer.lock(&Needs::default()).await.expect("the lock");
        assert!(matches!(writer.commit(&batch).await, Err(StoreError::Broken(_))));
    }
    assert_eq!(checked_ledger(&store).await, 1);
}

pub(crate) async fn a_batch_is_all_or_nothing<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    commit(&mut writer, &[write(1)]).await.expect("a commit");
    for (table, condition) in [
        ("feed", "NEW.rev = 4"),
        ("evidence", "NEW.rev = 3"),
        ("request", "NEW.rev = 2"),
        ("subject", "NEW.id = ''"),
    ] {
        stand.refuse_insert(table, condition).await;
        let batch = [write(2), write(3), write(4)];
        let locked = writer.lock(&needs(&batch)).await.expect("the lock");
        let mut batch = append(&locked, &batch);
        batch.subjects[2].id = String::new();
        assert!(matches!(writer.commit(&batch).await, Err(StoreError::Broken(_))), "{table}");
        let locked = writer.lock(&needs(&[write(2), write(3), write(4)])).await.expect("the lock");
        assert_eq!(locked.head.revision, revision(1), "{table}");
        assert!(locked.heads.is_empty() && locked.requests.is_empty(), "{table}");
        writer.release().await;
        assert_eq!(checked_ledger(&store).await, 1, "{table}");
        assert_eq!(store.reader().id_of(account(2)).await.expect("the id"), None, "{table}");
        stand.sql(&stand.allow_insert(table)).await.expect("the trigger is gone");
    }
    commit(&mut writer, &[write(2), write(3), write(4)]).await.expect("a commit");
    assert_eq!(checked_ledger(&store).await, 4);
}

pub(crate) async fn a_released_lock_leaves_no_trace<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let (mut one, mut other) = (store.writer().await.expect("one"), store.writer().await.expect("another"));
    one.lock(&needs(&[write(1)])).await.expect("the lock");
    one.release().await;
    commit(&mut other, &[write(2)]).await.expect("a commit");
    assert!(
        matches!(one.commit(&Append::default()).await, Err(StoreError::Unavailable(_))),
        "it holds no lock"
    );
    drop(one);
    let mut dropped = store.writer().await.expect("a writer");
    dropped.lock(&needs(&[write(3)])).await.expect("the lock");
    drop(dropped);
    commit(&mut other, &[write(4)]).await.expect("a commit after a holder was dropped");
    assert_eq!(checked_ledger(&store).await, 2);
}

pub(crate) async fn requests_are_remembered_with_and_without_a_change<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let made = commit(&mut writer, &[write(1)]).await.expect("a commit").requests.remove(0);
    let unchanged = RequestRecord { name: request(2), payload_hash: [2; 32], changed: false, ..made.clone() };
    writer.lock(&needs(&[write(1)])).await.expect("the lock");
    let nothing = Append { requests: vec![unchanged.clone()], ..Append::default() };
    writer.commit(&nothing).await.expect("a batch without events");

    let mut other_caller = request(1);
    other_caller.caller = "another".into();
    let asked = Needs { heads: vec![], requests: vec![request(1), request(2), request(3), other_caller] };
    let mut locked = writer.lock(&asked).await.expect("the lock");
    locked.requests.sort_by_key(|record| record.name.request_id);
    assert_eq!(locked.requests, [made, unchanged]);
    writer.release().await;
    assert_eq!(checked_ledger(&store).await, 1);
}

pub(crate) async fn heads_come_with_their_place_subject_and_organization<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let (policy, of) = (HeadKey::Policy, HeadKey::Organization(organization(5)));
    let writes = [
        Write { head: policy, ..write(1) },
        Write { head: of, ..write(2) },
        Write { organization: Some(organization(5)), ..write(3) },
        write(4),
    ];
    let made = commit(&mut writer, &writes).await.expect("a commit");
    let mut locked = writer.lock(&needs(&[write(3), write(9)])).await.expect("the lock");
    locked.heads.sort_by_key(|head| head.record.key);
    let keys: Vec<HeadKey> = locked.heads.iter().map(|head| head.record.key).collect();
    assert_eq!(keys, [policy, of, account(3)], "the policy and the organization come unasked, others do not");
    for (head, number) in locked.heads.iter().zip([1, 2, 3]) {
        let entry = &made.entries[number - 1];
        assert_eq!(head.record, entry.head);
        assert_eq!(
            (head.revision, head.chain, head.recorded_at),
            (entry.revision, entry.chain, entry.recorded_at)
        );
        let expected = (head.record.key != policy).then(|| subject(head.record.key));
        assert_eq!(head.subject, expected);
    }
    // It leaves the organization.
    writer.commit(&append(&locked, &[Write { request: request(7), ..write(3) }])).await.expect("a commit");
    let locked = writer.lock(&needs(&[write(3)])).await.expect("the lock");
    assert_eq!(locked.heads.len(), 2);
    let nothing = writer.lock(&Needs::default()).await.expect("a lock anew");
    assert_eq!(nothing.heads.len(), 1, "the policy comes even so");
}

pub(crate) async fn a_head_touched_twice_is_stored_once<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut writer = store.writer().await.expect("a writer");
    let again = Write { request: request(2), ..write(1) };
    commit(&mut writer, &[write(1), write(3), again]).await.expect("a commit");
    let (_, heads) = store.reader().heads_of(&[account(1)]).await.expect("the head");
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].bytes, head_bytes(revision(3)), "as it is in the end");
    assert_eq!(checked_ledger(&store).await, 3);
}

pub(crate) async fn the_ledger_refuses_update_and_delete<S: Stand>(stand: S) {
    let store = stand.opened().await;
    commit(&mut store.writer().await.expect("a writer"), &[write(1)]).await.expect("a commit");
    for statement in ["UPDATE ledger SET recorded_at = 0", "DELETE FROM ledger"] {
        let error = stand.sql(statement).await.expect_err("a refusal").to_string();
        assert!(error.contains("append-only"), "{error}");
    }
    assert_eq!(checked_ledger(&store).await, 1);
}

pub(crate) async fn a_lock_that_is_never_released_gives_an_error_in_time<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let (mut one, mut other) = (store.writer().await.expect("one"), store.writer().await.expect("another"));
    let locked = one.lock(&needs(&[write(1)])).await.expect("the lock");
    // Either the holder loses the lock or who waits for it is told: nobody waits for ever, and never do both hold it.
    let waited = other.lock(&needs(&[write(2)])).await;
    let held = one.commit(&append(&locked, &[write(1)])).await;
    match (waited, held) {
        (Ok(_), Err(StoreError::Unavailable(_))) | (Err(StoreError::Unavailable(_)), Ok(())) => {}
        (waited, held) => panic!("the second has {waited:?}, the first {held:?}"),
    }
}

pub(crate) async fn what_is_read_under_the_lock_is_newer_than_the_wait<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let (mut one, mut other) = (store.writer().await.expect("one"), store.writer().await.expect("another"));
    for round in 0..20 {
        let again = Write { request: request(round), ..write(1) };
        let locked = one.lock(&needs(std::slice::from_ref(&again))).await.expect("the lock");
        // The other waits for the lock, or comes after: in both cases it must see this commit whole.
        let asked = needs(std::slice::from_ref(&again));
        let waiting = other.lock(&asked);
        let batch = append(&locked, &[again]);
        let (seen, done) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            one.commit(&batch).await
        });
        done.expect("a commit");
        let seen = seen.expect("the lock");
        assert_eq!(seen.head.revision, revision(round + 1));
        assert_eq!(seen.heads[0].record.bytes, head_bytes(revision(round + 1)));
        assert_eq!(seen.requests.len(), 1);
        other.release().await;
    }
}

/// Plans outlive the sizes that they were made for: here the server has been told of tables with a few rows.
pub(crate) async fn a_batch_costs_what_it_asks_for_and_not_what_there_is(stand: OnPostgres) {
    const ROWS: u64 = 4 * BATCHES;
    {
        let store = stand.opened().await;
        let (mut writer, reader) = (store.writer().await.expect("a writer"), store.reader());
        for first in (0..ROWS).step_by(4) {
            let batch: Vec<_> = (first..first + 4).map(write).collect();
            commit(&mut writer, &batch).await.expect("a commit");
            assert_eq!(reader.feed(revision(first), 10).await.expect("the feed").len(), 4);
            assert_eq!(reader.ledger(revision(first), 10).await.expect("the ledger").1.len(), 4);
            if first == 0 {
                stand.sql("ANALYZE").await.expect("statistics");
            }
        }
    }
    // A server has counted what a connection did when that has ended.
    let counted = format!(
        "DO $$ BEGIN
             FOR look IN 1..1000 LOOP
                 EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                                           AND backend_type = 'client backend' AND pid <> pg_backend_pid());
                 IF look = 1000 THEN
                     RAISE EXCEPTION 'a connection stays';
                 END IF;
                 PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
             END LOOP;
             IF EXISTS (SELECT FROM pg_stat_user_tables WHERE relname <> 'ledger_head'
                            AND seq_tup_read + coalesce(idx_tup_fetch, 0) > {}) THEN
                 RAISE EXCEPTION 'whole tables were read';
             END IF;
         END $$",
        // Some are read twice, to be joined.
        4 * ROWS
    );
    stand.sql(&counted).await.expect("every row is read when it is asked for");
}
