//! The engine of `./dev rule`: random histories through the fold and through the oracle (rule.md section 8), counts
//! per invariant, then every broken rule and what caught it.
//!
//! `cargo test --release -p consent-core --test rule -- [HISTORIES] [--from SEED]`. Ends with `N passed, M failed`;
//! a failure prints the seed of its history and the command that plays it again.

#![allow(clippy::unwrap_used, reason = "a test that stops loudly is what is wanted here")]

mod check;
mod draw;
mod history;
mod model;
mod names;
mod oracle;
mod play;
mod tally;
mod witness;

use std::process::ExitCode;

use history::History;
use model::{Fault, Model};
use play::Play;
use tally::{Check, Tally};

/// What a plain `cargo test` plays.
const HISTORIES: u64 = 2_000;
/// From here on a broken rule that random histories do not find is a failure of the histories.
const ENOUGH: u64 = 100_000;
const THREADS: u64 = 2;

fn main() -> ExitCode {
    let (histories, from) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("rule: {what}\nusage: rule [HISTORIES] [--from SEED]");
            return ExitCode::from(2);
        }
    };
    let tally = play_all(histories, from);
    if histories == 1 {
        show(from);
    }
    let (mut passed, mut failed) = (0, 0);
    let mut verdict = |holds: bool| if holds { passed += 1 } else { failed += 1 };
    report_checks(&tally, histories, &mut verdict);
    report_faults(tally, histories, &mut verdict);
    println!("\n{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many histories, from which seed; nothing if other tests are meant. Other flags are `cargo test`'s, and mean nothing here.
fn arguments() -> Result<Option<(u64, u64)>, String> {
    let (mut histories, mut from) = (HISTORIES, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = |text: Option<String>| {
            let text = text.unwrap_or_default();
            text.parse::<u64>().map_err(|_| format!("{text:?} is no number"))
        };
        match argument.as_str() {
            "--from" => from = number(arguments.next())?,
            flag if flag.starts_with('-') => {}
            // A filter of `cargo test`: for tests of other names.
            word if word.starts_with(|c: char| c.is_ascii_alphabetic()) && !"rule".contains(word) => {
                return Ok(None);
            }
            word if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {}
            text => histories = number(Some(text.to_owned()))?.max(1),
        }
    }
    Ok(Some((histories, from)))
}

fn play_all(histories: u64, from: u64) -> Tally {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    for seed in (from.saturating_add(thread)..from.saturating_add(histories))
                        .step_by(THREADS as usize)
                    {
                        check::play(seed, &mut tally);
                    }
                    tally
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Tally::default(), Tally::merge)
    })
}

fn report_checks(tally: &Tally, histories: u64, verdict: &mut impl FnMut(bool)) {
    println!("\n{histories} random histories, {} commands\n", tally.commands);
    println!("{:<66}{:>14}{:>12}", "check", "cases", "violations");
    for check in Check::ALL {
        let (count, first) = tally.of(*check);
        println!("{:<66}{:>14}{:>12}", check.what(), count.cases, count.violations);
        if let Some((seed, what)) = first {
            println!("    seed {seed}: {what}");
            println!("    again: cargo test --release -p consent-core --test rule -- 1 --from {seed}");
        }
        verdict(count.violations == 0);
    }
    println!(
        "\n{} of the answers were ALLOW; {} more are DENY by rounding up to the second",
        tally.allows, tally.rounded
    );
}

fn report_faults(mut tally: Tally, histories: u64, verdict: &mut impl FnMut(bool)) {
    println!(
        "\n{:<42}{:>14}{:>14}{:>14}   caught by",
        "broken rule", "questions", "wrong ALLOWs", "extra DENYs"
    );
    for fault in Fault::ALL {
        let found = *tally.found(fault);
        let by_witness = is_caught(fault);
        let by_chance = if fault.only_denies() {
            found.extra_denies > 0 && found.wrong_allows == 0
        } else {
            found.wrong_allows > 0
        };
        let caught = match (by_witness, by_chance) {
            (true, true) => "its witness and random histories",
            (true, false) => "its witness",
            (false, true) => "random histories",
            (false, false) => "NOTHING",
        };
        println!(
            "{:<42}{:>14}{:>14}{:>14}   {caught}",
            fault.what(),
            found.asked,
            found.wrong_allows,
            found.extra_denies
        );
        verdict(by_witness && (by_chance || histories < ENOUGH));
    }
}

/// Does the broken rule err on its witness, and the real one not?
fn is_caught(fault: Fault) -> bool {
    const NOW: i64 = 20_000;
    let (steps, ask) = witness::witness(fault);
    let mut play = Play::new(true);
    if !steps.iter().all(|step| play.step(step).is_ok()) {
        return false;
    }
    let mut model = Model::new(fault);
    play.facts.iter().for_each(|fact| model.apply(fact));
    let verdict = play.oracle.ask(&ask, NOW);
    let truth = verdict.allows_rounded();
    let is_right = play.answer(&ask, NOW).is_allow() == truth && verdict.allows() == truth;
    is_right && truth == fault.only_denies() && model.answer(&ask, NOW) != truth
}

/// One history in full, for whoever looks for what is wrong with it.
fn show(seed: u64) {
    let history = History::draw(&mut draw::Draw::new(seed));
    println!("history {seed}, asked at {}", history.now);
    for step in &history.steps {
        println!("  {:>8} ms  {:?}", step.at, step.act);
    }
    for ask in &history.asks {
        println!("  {ask:?}");
    }
}
