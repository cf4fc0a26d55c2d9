//! Plays every script in this folder through the real machines, one line of output each.
//!
//! A script's name is a promise. There is one for each careless version and for each hole that the model of the
//! protocol found, and the list below says so: a missing one is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test without the usual harness, which these lints do not know as one"
)]

mod drivers;
mod history;
mod invariants;
mod parties;
mod promises;
mod script;
mod walk;
mod wording;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// So many random walks, unless `--walks` says otherwise.
const WALKS: u64 = 500;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--seed") {
        println!(
            "{}",
            walk::walk(seed, &mut BTreeMap::new()).map_or_else(|broken| broken, |walked| walked.join("\n"))
        );
        return ExitCode::SUCCESS;
    }
    let walks = number("--walks").unwrap_or(WALKS);
    let only = arguments.first().filter(|argument| !argument.starts_with('-')).cloned().unwrap_or_default();
    let write = std::env::var_os("SCRIPTS_WRITE").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let (mut passed, mut failed) = (0, 0);
    let mut tell = |name: &str, result: Result<(), String>| match result {
        Ok(()) => {
            passed += 1;
            println!("ok      {name}");
        }
        Err(why) => {
            failed += 1;
            println!("FAILED  {name}\n{why}");
        }
    };
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().replace('_', " ");
        if name.contains(&only.replace('_', " ")) {
            tell(&name, play(file, write));
        }
    }
    for (careless, script) in promises::PROMISES {
        if !files.iter().any(|file| file.file_stem().is_some_and(|stem| stem == *script)) {
            tell(careless, Err(format!("has no script: {script}.txt is missing")));
        }
    }
    let mut counts = BTreeMap::new();
    for seed in 1..=if only.is_empty() { walks } else { 0 } {
        if let Err(broken) = walk::walk(seed, &mut counts) {
            tell(&format!("walk {seed} (again with -- --seed {seed})"), Err(broken));
            break;
        }
    }
    println!("{walks} walks: {counts:?}");
    println!("scripts: {passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(file: &Path, write: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(file).unwrap();
    let played = script::play(&text)?;
    if write {
        std::fs::write(file, &played).unwrap();
    } else if let Some((at, (is, was))) =
        played.lines().zip(text.lines()).enumerate().find(|(_, (is, was))| is != was)
    {
        return Err(format!("line {}: the script says `{was}`, the machines `{is}`", at + 1));
    } else if played != text {
        return Err("the transcript has another end than the script".into());
    }
    Ok(())
}
