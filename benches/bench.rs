//! One run: what is wanted of it, the lines that it prints, and how it ends.

use crate::accounts;
use crate::arguments::Arguments;
use crate::cores::Cores;
use crate::slices::Spread;
use std::process::ExitCode;
use std::time::Duration;

/// How a figure is to come out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is told, and that is all.
    None,
}

impl Goal {
    fn words(self, unit: &str) -> String {
        match self {
            Goal::AtLeast(least) => format!(">= {}{unit}", number(least)),
            Goal::AtMost(most) => format!("<= {}{unit}", number(most)),
            Goal::None => "-".to_owned(),
        }
    }

    /// Whether it is met; nothing where there is none.
    fn is_met(self, median: f64) -> Option<bool> {
        match self {
            Goal::AtLeast(least) => Some(median >= least),
            Goal::AtMost(most) => Some(median <= most),
            Goal::None => None,
        }
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct Bench {
    arguments: Arguments,
    pub(crate) cores: Cores,
    lines: u64,
    held: u64,
    short: u64,
    failed: u64,
}

impl Bench {
    pub(crate) fn new(arguments: Arguments) -> Bench {
        let cores = Cores::found();
        cores.stay();
        println!("figure | measured | goal | holds or short");
        Bench { arguments, cores, lines: 0, held: 0, short: 0, failed: 0 }
    }

    /// Whether figures whose names begin with `name` are wanted, all or some of them.
    pub(crate) fn wants_some_of(&self, name: &str) -> bool {
        let wanted = self.arguments.name.as_str();
        wanted.starts_with(name) || name.starts_with(wanted)
    }

    /// Whether this group, or something of it, was asked for by its name.
    pub(crate) fn names(&self, group: &str) -> bool {
        self.arguments.name.starts_with(group)
    }

    /// The sizes of the table that are wanted, in accounts.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.arguments.accounts.clone()
    }

    /// The largest of them.
    pub(crate) fn largest(&self) -> u64 {
        self.arguments.accounts.iter().copied().max().unwrap_or(1_000)
    }

    /// Slices of baseline and product in turn.
    pub(crate) fn slices(&self) -> usize {
        self.arguments.slices
    }

    /// How long one is.
    pub(crate) fn slice(&self) -> Duration {
        self.arguments.slice
    }

    /// Whether this run only shows that each figure can be measured.
    pub(crate) fn is_tiny(&self) -> bool {
        self.arguments.is_tiny
    }

    /// How many lines there are so far.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Prints one figure, if it is wanted. `more` is what the numbers stand for.
    pub(crate) fn figure(&mut self, name: &str, measured: Spread, unit: &str, more: &str, goal: Goal) {
        if !name.starts_with(&self.arguments.name) {
            return;
        }
        if measured.median.is_nan() {
            return self.trouble(name, &anyhow::anyhow!("there was nothing to measure"));
        }
        self.lines += 1;
        let Spread { low, median, high } = measured;
        let is_met = goal.is_met(median).filter(|_| !self.arguments.is_tiny);
        let verdict = match is_met {
            Some(true) => "holds",
            Some(false) => "short",
            None => "-",
        };
        self.held += u64::from(is_met == Some(true));
        self.short += u64::from(is_met == Some(false));
        let spread =
            if low == high { String::new() } else { format!(" ({} to {})", number(low), number(high)) };
        let more = if more.is_empty() { String::new() } else { format!(": {more}") };
        println!("{name} | {}{unit}{spread}{more} | {} | {verdict}", number(median), goal.words(unit));
    }

    /// Something that explains the lines beside it.
    pub(crate) fn note(&self, words: &str) {
        println!("  {words}");
    }

    /// A group that could not go on.
    pub(crate) fn trouble(&mut self, group: &str, trouble: &anyhow::Error) {
        self.failed += 1;
        println!("{group} | it could not be measured: {trouble:#} | - | short");
    }

    /// Says how it went. A figure that could not be measured fails the run, a short one only if that was asked for.
    pub(crate) fn finish(&self) -> ExitCode {
        let short = if self.arguments.is_checked { self.short } else { 0 };
        let nothing = u64::from(self.lines == 0 && self.failed == 0);
        let failed = self.failed + short + nothing;
        if accounts::stale() > 0 {
            self.note(&format!(
                "{} messages were answered STALE: their server was paused",
                accounts::stale()
            ));
        }
        println!("{} held, {} short", self.held, self.short);
        println!("{} passed, {failed} failed", self.lines - short);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Three digits that mean something, for numbers of every size.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if magnitude >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A size of a table, as it stands in names.
pub(crate) fn size(accounts: u64) -> String {
    let exponent = accounts.ilog10();
    if 10_u64.pow(exponent) == accounts { format!("10^{exponent}") } else { accounts.to_string() }
}
