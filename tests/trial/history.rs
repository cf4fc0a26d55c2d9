//! The judge of a history: what was answered, used and confirmed, on one clock.
//!
//! It knows nothing of the protocol. It knows when each call began and ended, what it returned, and what was
//! promised: once EFFECTIVE has been returned for an opt-out, no ALLOW from an older state is given, or still
//! valid, anywhere (I1). An ALLOW counts as used at every instant until its `valid_for` is over, counted from
//! before the question was sent (R11).

use std::collections::BTreeMap;
use std::fmt;

/// An instant in nanoseconds of the clock that every call of a history is stamped with.
pub(crate) type Instant = u64;

/// One ALLOW.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allow {
    /// Whose data was asked about.
    pub(crate) account: u32,
    /// Before the question was sent.
    pub(crate) asked: Instant,
    /// After the answer was there.
    pub(crate) answered: Instant,
    /// `asked` plus `valid_for`.
    pub(crate) valid_until: Instant,
    /// The state that it was decided from.
    pub(crate) revision: u64,
}

/// One change of an account's choice. Each account has one writer, who waits for every answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// Whose choice.
    pub(crate) account: u32,
    /// Opt-out or opt-in.
    pub(crate) out: bool,
    /// Where it is in the ledger.
    pub(crate) revision: u64,
    /// Before the write was sent.
    pub(crate) sent: Instant,
    /// When EFFECTIVE had been returned for it, if it was.
    pub(crate) effective: Option<Instant>,
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Decided from a state before an opt-out, and still valid after EFFECTIVE was returned for it.
    StillValid,
    /// Asked after EFFECTIVE was returned, and ALLOW although no opt-in was even sent since.
    GivenAfter,
    /// Decided from a state in which the account was opted out.
    FromOptedOut,
}

/// A broken promise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) wrong: Wrong,
    /// By which answer.
    pub(crate) allow: Allow,
    /// Of which opt-out.
    pub(crate) out: Change,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (allow, out) = (self.allow, self.out);
        write!(f, "{:?}: account {}, ALLOW from r{}", self.wrong, allow.account, allow.revision)?;
        match out.effective {
            Some(effective) => {
                let over = (i128::from(allow.valid_until) - i128::from(effective)) / 1000;
                write!(f, " valid until {over} us after EFFECTIVE of the opt-out r{}", out.revision)
            }
            None => write!(f, " against the opt-out r{}", out.revision),
        }
    }
}

/// Finds every broken promise of a history.
pub(crate) fn violations(allows: &[Allow], changes: &[Change]) -> Vec<Violation> {
    let mut by_account: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
    for change in changes {
        by_account.entry(change.account).or_default().push(*change);
    }
    for changes in by_account.values_mut() {
        changes.sort_by_key(|change| change.revision);
    }
    let none = Vec::new();
    let judge = |allow: &Allow| {
        let changes = by_account.get(&allow.account).unwrap_or(&none);
        wrong(allow, changes).map(|(wrong, out)| Violation { wrong, allow: *allow, out })
    };
    allows.iter().filter_map(judge).collect()
}

// `changes` are those of the account, in order of revision, which is the order in which its one writer sent them.
fn wrong(allow: &Allow, changes: &[Change]) -> Option<(Wrong, Change)> {
    let before = |change: &Change, instant| change.out && change.effective.is_some_and(|at| at < instant);
    let (seen, newer) = changes.split_at(changes.partition_point(|change| change.revision <= allow.revision));
    if let Some(last) = seen.last().filter(|last| last.out) {
        return Some((Wrong::FromOptedOut, *last));
    }
    // The first that was confirmed was confirmed first.
    let confirmed = newer.iter().find(|change| change.out && change.effective.is_some());
    if let Some(out) = confirmed.filter(|out| before(out, allow.valid_until)) {
        return Some((Wrong::StillValid, *out));
    }
    // By time alone, whatever revision the answer claims.
    let sent = &changes[..changes.partition_point(|change| change.sent < allow.answered)];
    let last = sent.last().filter(|last| before(last, allow.asked))?;
    Some((Wrong::GivenAfter, *last))
}

/// Small histories whose verdict is known: a judge that finds nothing in them would find nothing anywhere.
pub(crate) fn judges_known_histories() -> Result<usize, String> {
    let out = Change { account: 1, out: true, revision: 10, sent: 100, effective: Some(200) };
    let late_out = Change { effective: None, ..out };
    let opt_in = Change { account: 1, out: false, revision: 11, sent: 300, effective: None };
    let allow =
        |asked, answered, valid_until, revision| Allow { account: 1, asked, answered, valid_until, revision };
    let cases: &[(&str, Allow, &[Change], Option<Wrong>)] = &[
        ("used before the opt-out", allow(10, 20, 60, 9), &[out], None),
        ("over just when EFFECTIVE came", allow(150, 160, 200, 9), &[out], None),
        ("valid one tick longer", allow(150, 160, 201, 9), &[out], Some(Wrong::StillValid)),
        ("not yet confirmed", allow(150, 160, 900, 9), &[late_out], None),
        ("given after it, from an old state", allow(210, 220, 260, 9), &[out], Some(Wrong::StillValid)),
        (
            "given before the opt-in was sent",
            allow(210, 220, 260, 11),
            &[out, opt_in],
            Some(Wrong::GivenAfter),
        ),
        ("after the opt-in was recorded", allow(350, 360, 400, 11), &[out, opt_in], None),
        (
            "from the state of the opt-out",
            allow(350, 360, 400, 10),
            &[out, opt_in],
            Some(Wrong::FromOptedOut),
        ),
        (
            "from before it, after the opt-in",
            allow(350, 360, 400, 9),
            &[out, opt_in],
            Some(Wrong::StillValid),
        ),
        ("of another account", Allow { account: 2, ..allow(210, 220, 260, 9) }, &[out], None),
    ];
    for (name, allow, changes, expected) in cases {
        let found = violations(&[*allow], changes).first().map(|violation| violation.wrong);
        if found != *expected {
            return Err(format!("{name}: found {found:?}, not {expected:?}"));
        }
    }
    Ok(cases.len())
}
