//! What an account costs in memory, and what a look-up costs in time.
//!
//! Memory is the kernel's figure, the peak of each phase included: a load whose size nobody knew, growth by a tenth
//! while readers may look, and a resync. Times are ratios to one random read in an array as large as the table, in
//! the same run, slice by slice in turn; the median of nine, and the spread.
//!
//! ```text
//! cargo bench -p consent-sidecar --bench table [-- ACCOUNTS ...]
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on has failed")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the sources of the table hold more than is measured"
)]
#[path = "../src/table/mod.rs"]
mod table;

use consent::clock;
use consent_core::chain::{Chain, Link};
use consent_core::confirm::{Frame, Place};
use consent_core::decision::{Heads as _, Question, decide};
use consent_core::digest::Digest;
use consent_core::head::{AccountHead, AccountProduct, AccountView, Head, HeadKey, KnownAccount};
use consent_core::ledger::HeadRecord;
use consent_core::words::{
    AccountKey, ArtifactKey, Choice, Epoch, IdKey, PlanIndex, ProductIndex, Restrictions, Revision, Seconds,
    Timestamp,
};
use std::fs;
use std::hint::black_box;
use table::{Heads, Incoming, State, Table};

const ID_KEY: IdKey = IdKey::new([7; 16]);
const EPOCH: Epoch = Epoch::new([1; 16]);
const PRODUCT: Option<ProductIndex> = Some(ProductIndex(0));
const SLICES: usize = 9;
const LOOKUPS: usize = 200_000;
const BATCH: usize = 32;

fn main() {
    let wanted: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if wanted.is_empty() { vec![1_000, 1_000_000] } else { wanted };
    println!("figure | measured | goal | holds or short");
    for accounts in sizes {
        measure(accounts);
    }
}

fn measure(accounts: usize) {
    let encoded = 16 + head(0).bytes.len();
    let before = resident();
    let per_account = |bytes: usize, accounts: usize| bytes as f64 / accounts as f64;
    let memory = |phase: &str, accounts: usize| {
        let (now, peak) = (resident() - before.min(resident()), peak().saturating_sub(before));
        let (now, peak) = (per_account(now, accounts), per_account(peak, accounts));
        let goal = 1.25 * encoded as f64;
        // A table of a few pages says nothing about bytes per account.
        let verdict = match (accounts < 100_000, peak <= goal) {
            (true, _) => "too small to say",
            (false, true) => "holds",
            (false, false) => "short",
        };
        println!(
            "{accounts} accounts, memory, peak {phase} | {peak:.1} B an account (then {now:.1}) | <= {goal:.1} B | {verdict}"
        );
    };

    let table = Table::new();
    forget_peak();
    let start = clock::spent();
    load(&table, Heads::new(ID_KEY), accounts);
    let nanos = clock::spent().minus(start).nanos() / accounts as u64;
    println!("{accounts} accounts, a head decoded, digested and put, size unknown | {nanos} ns | - | -");
    memory("of a load of unknown size", accounts);
    forget_peak();
    let grown = accounts + accounts / 10;
    let mut revision = grown as u64;
    for number in accounts..grown {
        revision += 1;
        apply(&table, number, revision);
    }
    memory("of growth by a tenth", grown);
    forget_peak();
    table.clear();
    let start = clock::spent();
    load(&table, Heads::with_room(ID_KEY, grown), grown);
    let nanos = clock::spent().minus(start).nanos() / grown as u64;
    println!("{grown} accounts, a head decoded, digested and put, size known | {nanos} ns | - | -");
    memory("of a resync", grown);

    let view = table.read();
    look_up(view.state().unwrap(), grown);
}

fn key(number: usize) -> AccountKey {
    ID_KEY.account(&format!("account-{number}"))
}

/// An account with two products, as they mostly are: no organization, which is the smallest head, and so the
/// strictest goal.
fn head(number: usize) -> HeadRecord {
    let product = |plan| AccountProduct {
        plan: PlanIndex::new(plan),
        choice: number.is_multiple_of(9).then_some(Choice::Out),
        allow_since: Seconds::new(1_700_000_000 + number as u32 % 1_000_000),
    };
    let head = AccountHead::Known(KnownAccount {
        rev: Revision::new(number as u64 + 1).unwrap(),
        organization: None,
        restrictions: Restrictions::NONE,
        products: vec![product(1), product(2)],
    });
    HeadRecord { key: HeadKey::Account(key(number)), bytes: Head::Account(head).encode() }
}

fn load(table: &Table, mut heads: Heads, accounts: usize) {
    let revision = Revision::new(accounts as u64).unwrap();
    for number in 0..accounts {
        heads.put_if_newer(Incoming::read(head(number), revision).unwrap());
    }
    let place = Place { epoch: EPOCH, revision, chain: Chain::EMPTY, digest: heads.digest() };
    table.install(heads, &place, Timestamp::from_millis(0));
}

fn apply(table: &Table, number: usize, revision: u64) {
    let revision = Revision::new(revision).unwrap();
    let incoming = || Incoming::read(head(number), revision).unwrap();
    let (link, chain) = (Link::new([0; 32]), Chain::EMPTY);
    let frame = |digest| Frame { epoch: EPOCH, revision, link, chain, digest };
    let digest = table.apply(&frame(Digest::EMPTY), Timestamp::from_millis(0), incoming());
    table.apply(&frame(digest), Timestamp::from_millis(0), incoming());
}

/// What is run, the goal as a multiple of an array read, and how.
type Run<'a> = (&'static str, Option<f64>, &'a dyn Fn());

/// All in nanoseconds each, slice by slice in turn.
fn look_up(state: &State, accounts: usize) {
    // As large as the table, in reads of a cache line.
    let lines = (accounts * 42).div_ceil(64).next_multiple_of(2);
    // Not of zeros: those the kernel would show from one and the same page.
    let array = vec![[1_u64; 8]; lines];
    let keys: Vec<AccountKey> = (0..LOOKUPS.min(accounts * 8)).map(|n| key(scatter(n) % accounts)).collect();
    let absent: Vec<AccountKey> =
        keys.iter().enumerate().map(|(n, _)| ID_KEY.account(&format!("none-{n}"))).collect();
    let artifacts: Vec<ArtifactKey> =
        (0..keys.len()).map(|n| ID_KEY.artifact(&format!("artifact-{n}"))).collect();
    let question = |n: usize| Question {
        account: keys[n],
        artifact: artifacts[n],
        product: "le_chat",
        kind: "input",
        collected_at: Some(Timestamp::from_millis(1)),
        is_incognito: false,
    };
    let now = Timestamp::from_millis(2);

    let read_array = || {
        let mut last = 0;
        for n in 0..keys.len() {
            let line = &array[(scatter(n) + last) % lines];
            last = black_box(line.iter().sum::<u64>() as usize);
        }
    };
    let find = |keys: &[AccountKey]| {
        let mut last = 0;
        for n in 0..keys.len() {
            // Never more than zero, but the next key is known only when this row is.
            let view = state.reader().read(|seen| seen.account(keys[n + last], PRODUCT));
            last = usize::from(matches!(black_box(view), Some(Ok(Some(AccountView::Erased)))));
        }
    };
    let alone = || {
        let mut last = 0;
        for n in 0..keys.len() {
            let decision = state.reader().read(|seen| decide(seen, &question(n + last), now)).unwrap();
            last = usize::from(black_box(decision).is_allow());
        }
    };
    let together = || {
        let mut reader = state.reader();
        for first in (0..keys.len() / BATCH).map(|batch| batch * BATCH) {
            reader.touch((first..first + BATCH).map(|n| (keys[n], artifacts[n])));
            for n in first..first + BATCH {
                black_box(reader.read(|seen| decide(seen, &question(n), now)));
            }
        }
    };
    let apart = || {
        let mut reader = state.reader();
        for n in 0..keys.len() {
            black_box(reader.read(|seen| decide(seen, &question(n), now)));
        }
    };

    let runs: [Run<'_>; 6] = [
        ("an array read", None, &read_array),
        ("a look-up, one after the other", Some(2.5), &|| find(&keys)),
        ("a look-up of nobody", None, &|| find(&absent)),
        ("a decision, one after the other", Some(2.5), &alone),
        ("a decision of a batch, touched first", None, &together),
        ("a decision of a batch, not touched", None, &apart),
    ];
    let mut slices = vec![Vec::new(); runs.len()];
    for slice in 0..=SLICES {
        for (times, (_, _, run)) in slices.iter_mut().zip(&runs) {
            let start = clock::spent();
            run();
            let nanos = clock::spent().minus(start).nanos() as f64 / keys.len() as f64;
            // The first round warms up.
            if slice > 0 {
                times.push(nanos);
            }
        }
    }
    let array_times = slices[0].clone();
    for (times, (what, goal, _)) in slices.iter().zip(runs) {
        let ratios: Vec<f64> = times.iter().zip(&array_times).map(|(time, array)| time / array).collect();
        let ((low, median, high), (_, nanos, _)) = (spread(ratios), spread(times.clone()));
        // The goal is of tables that no cache holds.
        let (wanted, verdict) = match goal.filter(|_| accounts >= 1_000_000) {
            None => ("-".to_owned(), "-"),
            Some(goal) => (format!("<= {goal}x"), if median <= goal { "holds" } else { "short" }),
        };
        println!(
            "{accounts} accounts, {what} | {nanos:.0} ns, {median:.2}x ({low:.2} to {high:.2}) of an array read | {wanted} | {verdict}"
        );
    }
}

fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// A number that nobody can guess from the one before.
fn scatter(number: usize) -> usize {
    let number = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) as usize >> 8
}

fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel's figures");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    1024 * line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().expect("kB")
}

fn resident() -> usize {
    status("VmRSS:")
}

fn peak() -> usize {
    status("VmHWM:")
}

/// From here on the peak is counted afresh.
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("a peak that can be forgotten");
}
