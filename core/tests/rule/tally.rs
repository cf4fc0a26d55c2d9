//! What was checked, how often, and the first thing that went wrong.

use crate::model::Fault;

macro_rules! checks {
    ($($check:ident $text:literal)+) => {
        /// A row of the table in rule.md section 8.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Check { $($check),+ }

        impl Check {
            pub(crate) const ALL: &[Check] = &[$(Check::$check),+];

            pub(crate) const fn what(self) -> &'static str {
                match self { $(Check::$check => $text),+ }
            }
        }
    };
}

checks! {
    Equal "heads = oracle, its last denial rounded up to the second"
    Sound "ALLOW by heads implies ALLOW by the exact oracle"
    I1 "I1 an added denial turns no DENY to ALLOW"
    I2Final "I2 a final DENY stays DENY after every later command"
    I2Since "I2 acct_since never falls"
    I3 "I3 one threshold in the instant of collection"
    I4 "I4 a product does not depend on choices and plans in another"
    I5 "I5 organization OUT covers members, and what former members left"
    I6 "I6 document is decided as input"
    I7 "I7 the true instant, within the guard, is after the last denial"
    I8 "I8 refolding from event bytes gives equal heads, and bytes"
    I9 "I9 a command given twice changes nothing the second time"
    Refusals "commands are refused exactly where the oracle foresees it"
    Model "the fold written another way = heads, head for head"
    Digest "the digest kept by changes = the digest of all heads"
}

/// Violations and cases of one check.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) cases: u64,
    pub(crate) violations: u64,
}

/// What became of one broken rule.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) asked: u64,
    pub(crate) wrong_allows: u64,
    pub(crate) extra_denies: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commands: u64,
    pub(crate) allows: u64,
    pub(crate) rounded: u64,
    counts: [Count; Check::ALL.len()],
    found: [Found; Fault::ALL.len()],
    /// The first violation of each check: its seed, and what it was.
    first: [Option<(u64, String)>; Check::ALL.len()],
}

impl Tally {
    pub(crate) fn count(&mut self, check: Check, holds: bool, seed: u64, what: impl FnOnce() -> String) {
        let count = &mut self.counts[check as usize];
        count.cases += 1;
        if !holds {
            count.violations += 1;
            self.first[check as usize].get_or_insert_with(|| (seed, what()));
        }
    }

    pub(crate) fn of(&self, check: Check) -> (Count, Option<&(u64, String)>) {
        (self.counts[check as usize], self.first[check as usize].as_ref())
    }

    pub(crate) fn found(&mut self, fault: Fault) -> &mut Found {
        let place = Fault::ALL.iter().position(|known| *known == fault).unwrap();
        &mut self.found[place]
    }

    pub(crate) fn merge(mut self, other: Tally) -> Tally {
        self.commands += other.commands;
        self.allows += other.allows;
        self.rounded += other.rounded;
        for (mine, its) in self.counts.iter_mut().zip(other.counts) {
            mine.cases += its.cases;
            mine.violations += its.violations;
        }
        for (mine, its) in self.found.iter_mut().zip(other.found) {
            mine.asked += its.asked;
            mine.wrong_allows += its.wrong_allows;
            mine.extra_denies += its.extra_denies;
        }
        for (mine, its) in self.first.iter_mut().zip(other.first) {
            if mine.is_none() {
                *mine = its;
            }
        }
        self
    }
}
