//! The orders in which a reader may meet a change of the table, and every value that a weak memory may show it.
//!
//! The sources of the table are compiled here over the model checker's atomics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, unreachable_pub, reason = "the sources hold more than is checked here")]

#[path = "atomic.rs"]
mod atomic;
#[path = "../../src/table/rows.rs"]
mod rows;
#[path = "../../src/table/sequenced.rs"]
mod sequenced;

use atomic::{AtomicU32, AtomicU64, Ordering};
use loom::thread;
use rows::{Key, Rows};
use sequenced::{Sequenced, Unread};
use std::sync::Arc;

/// Two keys with one home, in their order.
const ADA: Key = Key::new([1; 16]);
const BEN: Key = Key::new([2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);

/// Checks every execution in which a thread is interrupted at most twice where it need not wait.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(2);
    checker.check(model);
}

/// Puts a row, growing first if it must, and gives what then is to be put in the place of `rows`.
fn put(table: &Sequenced<Rows>, rows: &mut Arc<Rows>, key: Key, words: &[u32], revision: impl FnOnce()) {
    let mut grown = None;
    let place = loop {
        if let Some(place) = rows.place(key, words.len()) {
            break place;
        }
        Arc::make_mut(rows).grow(key, words.len());
        grown = Some(Arc::clone(rows));
    };
    table.write(grown, || {
        rows.put(place, key, words);
        revision();
    });
}

fn table(rows: &[(Key, &[u32])]) -> (Arc<Sequenced<Rows>>, Arc<Rows>) {
    let mut held = Arc::new(Rows::with_room(0, 0));
    let table = Arc::new(Sequenced::new(Arc::clone(&held)));
    for (key, words) in rows {
        put(&table, &mut held, *key, words, || ());
    }
    (table, held)
}

fn words<const N: usize>(table: &Sequenced<Rows>, key: Key) -> Option<[u32; N]> {
    let words = |rows: &Rows| rows.find(key).map(|row| std::array::from_fn(|index| row.word(index)));
    table.reader().read(words).unwrap()
}

#[test]
fn a_row_is_read_before_or_after_a_change_and_never_between() {
    check(|| {
        let (table, mut rows) = table(&[(ADA, &[1, 1])]);
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || words::<2>(&table, ADA))
        };
        put(&table, &mut rows, ADA, &[2, 2], || ());
        let read = reader.join().unwrap();
        assert!([Some([1, 1]), Some([2, 2])].contains(&read), "{read:?}");
        assert_eq!(words::<2>(&table, ADA), Some([2, 2]));
    });
}

#[test]
fn a_row_that_another_moves_is_found() {
    check(|| {
        let (table, mut rows) = table(&[(BEN, &[2])]);
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || words::<1>(&table, BEN))
        };
        put(&table, &mut rows, ADA, &[1], || ());
        assert_eq!(reader.join().unwrap(), Some([2]));
        assert_eq!((words::<1>(&table, ADA), words::<1>(&table, BEN)), (Some([1]), Some([2])));
    });
}

#[test]
fn a_shard_that_grows_is_read_old_or_new() {
    check(|| {
        let (table, mut rows) = table(&[(ADA, &[1])]);
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || words::<2>(&table, ADA))
        };
        // A wider row: the shard is rebuilt.
        put(&table, &mut rows, ADA, &[2, 2], || ());
        let read = reader.join().unwrap();
        assert!([Some([1, 0]), Some([2, 2])].contains(&read), "{read:?}");
    });
}

#[test]
fn who_reads_twice_never_goes_back() {
    check(|| {
        let (table, mut rows) = table(&[(ADA, &[1])]);
        let revision = Arc::new(AtomicU64::new(1));
        let reader = {
            let (table, revision) = (Arc::clone(&table), Arc::clone(&revision));
            thread::spawn(move || {
                let mut reader = table.reader();
                let mut word = || reader.read(|rows| rows.find(ADA).map_or(0, |row| row.word(0))).unwrap();
                let first = word();
                let floor = revision.load(Ordering::Acquire);
                (first, floor, word())
            })
        };
        // A wider row: the shard is rebuilt.
        put(&table, &mut rows, ADA, &[2, 2], || revision.store(2, Ordering::Release));
        let (first, floor, second) = reader.join().unwrap();
        assert!(1 <= first && first <= second, "{first}, then {second}");
        assert!(u64::from(second) >= floor, "revision {floor}, but {second}");
    });
}

#[test]
fn nothing_is_read_from_before_a_revision_that_was_read_first() {
    check(|| {
        let (table, mut rows) = table(&[(ADA, &[1])]);
        let revision = Arc::new(AtomicU64::new(1));
        let reader = {
            let (table, revision) = (Arc::clone(&table), Arc::clone(&revision));
            thread::spawn(move || {
                let floor = revision.load(Ordering::Acquire);
                (floor, words::<1>(&table, ADA).unwrap()[0])
            })
        };
        put(&table, &mut rows, ADA, &[2], || revision.store(2, Ordering::Release));
        let (floor, read) = reader.join().unwrap();
        assert!(u64::from(read) >= floor, "revision {floor}, but {read}");
    });
}

/// Two rows of one word each: what stands in them is of no account here, only when it is seen.
type Two = [AtomicU32; 2];

fn two(value: &Two) -> [u32; 2] {
    value.each_ref().map(|word| word.load(Ordering::Relaxed))
}

#[test]
fn two_rows_and_their_revision_are_read_as_they_stood_together() {
    check(|| {
        let rows: Arc<Two> = Arc::new([1, 1].map(AtomicU32::new));
        let (table, revision) = (Arc::new(Sequenced::new(Arc::clone(&rows))), Arc::new(AtomicU64::new(1)));
        let reader = {
            let (table, revision) = (Arc::clone(&table), Arc::clone(&revision));
            let read = move |rows: &Two| (two(rows), revision.load(Ordering::Relaxed));
            thread::spawn(move || table.reader().read(read).unwrap())
        };
        table.write(None, || {
            rows.iter().for_each(|word| word.store(2, Ordering::Relaxed));
            revision.store(2, Ordering::Release);
        });
        let read = reader.join().unwrap();
        assert!([([1, 1], 1), ([2, 2], 2)].contains(&read), "{read:?}");
    });
}

#[test]
fn who_reads_a_table_that_was_replaced_sees_nothing_of_what_comes_after_it() {
    check(|| {
        let rows: Arc<Two> = Arc::new([1, 1].map(AtomicU32::new));
        let before = Arc::new(Sequenced::new(Arc::clone(&rows)));
        let reader = {
            let before = Arc::clone(&before);
            thread::spawn(move || before.reader().read(two))
        };
        // As a table goes on in another epoch: the rows are the same.
        let after = Sequenced::new(Arc::clone(&rows));
        before.retire();
        after.write(None, || rows.iter().for_each(|word| word.store(2, Ordering::Relaxed)));
        let read = reader.join().unwrap();
        assert!([Ok([1, 1]), Err(Unread::Retired)].contains(&read), "{read:?}");
        assert_eq!(before.reader().read(|_| ()), Err(Unread::Retired));
        assert_eq!(after.reader().read(two), Ok([2, 2]));
    });
}
