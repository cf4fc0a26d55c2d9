//! The rows of `authority_lease`: R2, R3, R7b, R8, R8b, R9, R12.

use crate::batch::{append, commit, needs, revision, write};
use crate::stand::{EPOCH, OnPostgres, Stand};
use consent_authority::store::{LeaseRow, Leases, Needs, Reader, Store, StoreError, Writer};
use consent_core::words::{Epoch, Incarnation, Revision};
use std::fmt::Debug;

const ME: Incarnation = Incarnation::new([1; 16]);
const OTHER: Incarnation = Incarnation::new([2; 16]);

async fn open_rows(leases: &mut impl Leases) -> Vec<LeaseRow> {
    let mut open = leases.table(&[]).await.expect("the table").open;
    open.sort_by_key(|row| row.incarnation);
    open
}

pub(crate) async fn a_row_is_registered_renewed_and_closed<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut leases = store.leases().await.expect("leases");
    let mut writer = store.writer().await.expect("a writer");
    commit(&mut writer, &[write(1), write(2)]).await.expect("a commit");
    assert_eq!(leases.register(ME, "one").await.expect("the row").revision, revision(2));
    assert!(leases.register(ME, "one").await.is_err(), "an incarnation is never reused");
    commit(&mut writer, &[write(3)]).await.expect("a commit");
    let renewed = leases.renew(ME).await.expect("a renewal").expect("not fenced");
    assert_eq!((renewed.revision, renewed.epoch), (revision(3), EPOCH));
    let row = LeaseRow { incarnation: ME, registered: revision(2), renew_seq: 1, drained: revision(0) };
    assert_eq!(open_rows(&mut leases).await, [row]);
    assert_eq!(leases.renew(OTHER).await.expect("an answer"), None, "one that never registered is fenced");
    leases.close(ME).await.expect("closed");
    leases.close(ME).await.expect("closed again");
    assert_eq!(leases.renew(ME).await.expect("an answer"), None);
    assert!(!leases.report_drained(ME, revision(3)).await.expect("an answer"));
    assert!(open_rows(&mut leases).await.is_empty());
}

pub(crate) async fn a_registration_waits_for_the_append_that_has_the_lock<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut leases = store.leases().await.expect("leases");
    let mut writer = store.writer().await.expect("a writer");
    for round in 1..=20_u8 {
        let writes = [write(round.into())];
        let batch = append(&writer.lock(&needs(&writes)).await.expect("the lock"), &writes);
        let me = Incarnation::new([round; 16]);
        let (registered, done) = tokio::join!(leases.register(me, "one"), async {
            tokio::task::yield_now().await;
            writer.commit(&batch).await
        });
        done.expect("a commit");
        // The append had the lock before: a row from before it would be unknown to whoever confirms it.
        assert_eq!(registered.expect("the row").revision, revision(round.into()));
        let row = open_rows(&mut leases).await.pop().expect("the row");
        assert_eq!((row.incarnation, row.registered), (me, revision(round.into())));
    }
    assert_eq!(store.reader().head().await.expect("the head").revision, Revision::new(20).expect("small"));
}

pub(crate) async fn a_drain_report_never_falls_and_leaves_renew_seq<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut leases = store.leases().await.expect("leases");
    leases.register(ME, "one").await.expect("the row");
    for (reported, stands) in [(5, 5), (3, 5), (5, 5), (8, 8)] {
        assert!(leases.report_drained(ME, revision(reported)).await.expect("an answer"));
        let row = &open_rows(&mut leases).await[0];
        assert_eq!((row.drained, row.renew_seq), (revision(stands), 0));
    }
}

pub(crate) async fn a_row_is_reaped_only_as_seen<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut leases = store.leases().await.expect("leases");
    leases.register(ME, "one").await.expect("the row");
    leases.register(OTHER, "two").await.expect("the row");
    let seen = open_rows(&mut leases).await[0].renew_seq;
    leases.renew(ME).await.expect("a renewal").expect("not fenced");
    assert!(!leases.reap(ME, seen).await.expect("an answer"), "it renewed meanwhile");
    assert!(leases.reap(ME, seen + 1).await.expect("an answer"));
    assert!(!leases.reap(ME, seen + 1).await.expect("an answer"), "once");
    assert_eq!(leases.renew(ME).await.expect("an answer"), None, "fenced");
    assert_eq!(open_rows(&mut leases).await.len(), 1, "the other stays");
}

pub(crate) async fn only_its_own_epoch_is_settled<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut leases = store.leases().await.expect("leases");
    let fresh = Epoch::new([3; 16]);
    assert!(!leases.settle(fresh).await.expect("an answer"));
    stand.sql("UPDATE ledger_head SET server_identity = 'another'").await.expect("another server");
    assert!(leases.mint(fresh).await.expect("the mint"));
    assert_eq!(store.reader().head().await.expect("the head").settled_epoch, Some(EPOCH));
    assert!(!leases.settle(EPOCH).await.expect("an answer"), "the old one is over");
    assert!(leases.settle(fresh).await.expect("an answer"));
    assert_eq!(store.reader().head().await.expect("the head").settled_epoch, Some(fresh));
}

pub(crate) async fn the_table_gives_chains_of_its_own_snapshot<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let mut leases = store.leases().await.expect("leases");
    let mut writer = store.writer().await.expect("a writer");
    leases.register(ME, "one").await.expect("the row");
    let made = commit(&mut writer, &[write(1), write(2), write(3)]).await.expect("a commit");
    let table = leases.table(&[revision(1), revision(3), revision(9)]).await.expect("the table");
    let chain = |number: usize| Some(made.entries[number - 1].chain);
    assert_eq!(table.chains, [(revision(1), chain(1)), (revision(3), chain(3)), (revision(9), None)]);
    assert_eq!((table.open.len(), table.head.revision), (1, revision(3)));
}

fn foreign<T: Debug>(what: &str, outcome: Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Foreign)), "{what}: {outcome:?}");
}

pub(crate) async fn another_server_is_foreign_to_everything<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let (reader, mut leases) = (store.reader(), store.leases().await.expect("leases"));
    let mut writer = store.writer().await.expect("a writer");
    commit(&mut writer, &[write(1)]).await.expect("a commit");
    leases.register(ME, "one").await.expect("the row");
    stand.sql("UPDATE ledger_head SET server_identity = 'another'").await.expect("another server");

    foreign("lock", writer.lock(&needs(&[write(1)])).await);
    foreign("lock again", writer.lock(&Needs::default()).await);
    foreign("head", reader.head().await);
    foreign("feed", reader.feed(revision(0), 9).await);
    foreign("proof_at", reader.proof_at(revision(1)).await);
    foreign("heads_after", reader.heads_after(None, 9).await);
    foreign("heads_of", reader.heads_of(&[write(1).head]).await);
    foreign("id_of", reader.id_of(write(1).head).await);
    foreign("ledger", reader.ledger(revision(0), 9).await);
    foreign("policy_document", reader.policy_document().await);
    foreign("register", leases.register(OTHER, "two").await);
    foreign("renew", leases.renew(ME).await);
    foreign("report_drained", leases.report_drained(ME, revision(1)).await);
    foreign("table", leases.table(&[revision(1)]).await);
    foreign("reap", leases.reap(ME, 0).await);
    foreign("settle", leases.settle(EPOCH).await);
    foreign("close", leases.close(ME).await);

    let fresh = Epoch::new([4; 16]);
    assert!(leases.mint(fresh).await.expect("the mint"));
    let head = reader.head().await.expect("the head");
    assert_eq!((head.epoch, head.revision), (fresh, revision(1)), "nothing was written, nothing is lost");
    assert!(open_rows(&mut leases).await.is_empty(), "the rows of the old epoch are closed");
    commit(&mut writer, &[write(2)]).await.expect("a commit");
}

/// A file cannot become another one while it is locked: this is of a server alone.
pub(crate) async fn a_server_that_is_replaced_under_the_lock_is_foreign_to_the_commit(stand: OnPostgres) {
    let store = stand.opened().await;
    let replaceable = "CREATE TABLE live AS SELECT identity FROM live_server;
                       CREATE OR REPLACE VIEW live_server AS SELECT identity FROM live";
    stand.sql(replaceable).await.expect("a server that can be replaced");
    let mut writer = store.writer().await.expect("a writer");
    let writes = [write(1)];
    let batch = append(&writer.lock(&needs(&writes)).await.expect("the lock"), &writes);
    stand.sql("UPDATE live SET identity = 'another'").await.expect("another server");
    foreign("commit", writer.commit(&batch).await);
    stand
        .sql("UPDATE live SET identity = (SELECT server_identity FROM ledger_head)")
        .await
        .expect("it is back");
    assert_eq!(store.reader().head().await.expect("the head").revision, revision(0), "nothing was written");
    commit(&mut writer, &writes).await.expect("a commit");
}

pub(crate) async fn one_of_two_minters_wins_and_closes_every_row<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let (mut one, mut other) = (store.leases().await.expect("one"), store.leases().await.expect("another"));
    assert!(
        !one.mint(Epoch::new([5; 16])).await.expect("an answer"),
        "not while the server is the one stored"
    );
    for round in 0..10_u8 {
        let me = Incarnation::new([0x10 + round; 16]);
        one.register(me, "one").await.expect("the row");
        stand.sql("UPDATE ledger_head SET server_identity = 'another'").await.expect("another server");
        let (a, b) = (Epoch::new([0x40 + round; 16]), Epoch::new([0x80 + round; 16]));
        let (first, second) = tokio::join!(one.mint(a), other.mint(b));
        let won = match (first.expect("an answer"), second.expect("an answer")) {
            (true, false) => a,
            (false, true) => b,
            both => panic!("{both:?}"),
        };
        assert_eq!(store.reader().head().await.expect("the head").epoch, won);
        assert_eq!(one.renew(me).await.expect("an answer"), None, "fenced");
        assert!(open_rows(&mut other).await.is_empty());
    }
}
