//! What a trial counted: a line for each check, and the last line that says how many passed.

use std::fmt::Display;
use std::process::ExitCode;

/// Counts of checks that passed and failed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Counts one check and prints it.
    pub(crate) fn check(&mut self, holds: bool, what: impl Display) {
        if holds {
            self.passed += 1;
            println!("ok      {what}");
        } else {
            self.failed += 1;
            println!("FAILED  {what}");
        }
    }

    /// A trial that could not go on has failed.
    pub(crate) fn trouble(&mut self, trouble: &anyhow::Error) {
        self.check(false, format_args!("the trial could not go on: {trouble:#}"));
    }

    /// Prints the sum.
    pub(crate) fn finish(self) -> ExitCode {
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
