//! The walls of the house, held by reading its sources: what a manifest or a type cannot hold.
//!
//! The core decides and does nothing else; the two servers meet only in `proto/`; SQL, and the clocks, stand each in
//! one place; every file says why it exists. Where a wall is broken the test names file and line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that stops loudly is what is wanted here"
)]

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;
/// What the lane is measured against.
const WRITTEN: &str = "benches/written.rs";

/// A source file, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines of code, numbered from 1, without comments; string literals stay.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter_map(|(i, line)| {
            let line = line.trim();
            (!line.starts_with("//")).then(|| (i + 1, line.split(" // ").next().unwrap_or(line)))
        })
    }

    /// The lines before the unit tests, which stand at the end of a file.
    fn lines_without_tests(&self) -> usize {
        self.text.lines().take_while(|line| *line != "mod tests {" && *line != "mod tests;").count()
    }

    /// A file of a test program or of the figures, of the workspace or of one crate.
    fn is_test(&self) -> bool {
        self.within("tests/") || self.path.contains("/tests/") || self.within("benches/")
    }

    fn within(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the root of the workspace")
}

/// Every file with this ending, sorted by path; what git ignores, and folders that open with a dot, are left out.
fn files(ending: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                walk(&path, found);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, &mut found);
    found.sort();
    let wanted = found.into_iter().filter(|path| path.extension().is_some_and(|e| e == ending));
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).expect("a readable file"),
        path: path.strip_prefix(&root).expect("a path under the root").to_string_lossy().into_owned(),
    };
    wanted.map(read).collect()
}

/// Fails with every line that `broken` finds something in.
fn forbid(what: &str, sources: &[Source], broken: impl Fn(&Source, &str) -> bool) {
    let found: Vec<String> = sources
        .iter()
        .flat_map(|source| source.code().map(move |(number, line)| (source, number, line)))
        .filter(|(source, _, line)| broken(source, line))
        .map(|(source, number, line)| format!("{}:{number}: {line}", source.path))
        .collect();
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).expect("a readable manifest");
    let manifest: toml::Table = toml::from_str(&text).expect("a manifest in TOML");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table).expect("dependencies");
    table.keys().cloned().collect()
}

#[test]
fn the_core_does_no_io() {
    let pure = ["blake3", "serde", "siphasher", "thiserror", "toml", "toml_parser"];
    let strangers: Vec<String> =
        dependencies("core/Cargo.toml").into_iter().filter(|name| !pure.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "the core depends on {strangers:?}");
    let doors = [
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "std::process",
        "std::thread",
        "std::time",
        "std::os",
        "std::sync",
        "async fn",
        ".await",
        "tokio",
        "tonic",
        "prost",
        "sqlx",
        "rand",
        "println!",
        "eprintln!",
        "unsafe",
    ];
    let core: Vec<Source> = files("rs").into_iter().filter(|source| source.within("core/src/")).collect();
    assert!(core.len() > 10, "the core was not found");
    forbid("the core opens a door to the world", &core, |_, line| {
        doors.iter().any(|door| has_word(line, door))
    });
}

#[test]
fn authority_and_sidecar_meet_only_in_the_contract() {
    let sources = files("rs");
    for (one, other, name) in [
        ("services/authority", "consent-sidecar", "consent_sidecar"),
        ("sidecar", "consent-authority", "consent_authority"),
    ] {
        let known = dependencies(&format!("{one}/Cargo.toml"));
        assert!(!known.contains(&other.to_owned()), "{one} depends on {other}");
        let side: Vec<Source> = files("rs").into_iter().filter(|s| s.within(&format!("{one}/"))).collect();
        assert!(!side.is_empty(), "{one} was not found");
        forbid("one server knows the other", &side, |_, line| has_word(line, name));
    }
    // The layers below know neither.
    let below: Vec<Source> = sources.into_iter().filter(|s| s.within("core/") || s.within("src/")).collect();
    forbid("a lower layer knows a server", &below, |_, line| {
        line.contains("consent_authority") || line.contains("consent_sidecar")
    });
}

#[test]
fn sql_stands_in_the_stores() {
    let verbs = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "BEGIN IMMEDIATE"];
    forbid("SQL outside the stores", &files("rs"), |source, line| {
        let at_home = source.within("services/authority/src/store/")
            || source.within("services/authority/tests/")
            || source.within("tests/support/")
            // What the lane is measured against.
            || source.within("benches/")
            || source.path == "tests/tidy.rs";
        !at_home && verbs.iter().any(|verb| line.contains(verb))
    });
    forbid("sqlx outside the stores", &files("rs"), |source, line| {
        let at_home = source.within("services/authority/")
            || source.within("tests/support/")
            || source.within("benches/");
        !at_home && source.path != WRITTEN && source.path != "tests/tidy.rs" && has_word(line, "sqlx")
    });
    for source in files("sql") {
        assert!(
            source.within("services/authority/migrations/"),
            "SQL outside the migrations: {}",
            source.path
        );
    }
}

#[test]
fn redis_stands_in_the_durable_copy() {
    let sources = files("rs");
    let is_home = |source: &Source| source.within("sidecar/src/durable/");
    let is_said =
        sources.iter().filter(|s| is_home(s)).any(|s| s.code().any(|(_, line)| line.contains("redis::")));
    assert!(is_said, "the durable copy was not found");
    forbid("Redis outside the durable copy", &sources, |source, line| {
        !is_home(source) && !source.is_test() && has_word(line, "redis::")
    });
}

#[test]
fn clocks_are_read_in_one_file() {
    let readings = [
        "clock_gettime",
        "Instant::now",
        "SystemTime",
        ".elapsed()",
        "Utc::now",
        "Zoned::now",
        "Timestamp::now",
    ];
    let elsewhere = ["src/clock.rs", "tests/tidy.rs"];
    forbid("a clock is read outside src/clock.rs", &files("rs"), |source, line| {
        !elsewhere.contains(&source.path.as_str()) && readings.iter().any(|reading| has_word(line, reading))
    });
}

#[test]
fn every_file_says_why_it_exists() {
    for source in files("rs") {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 20, "{} does not say why it exists", source.path);
    }
}

#[test]
fn no_file_is_long() {
    let long: Vec<String> = files("rs")
        .iter()
        .map(|source| (source.lines_without_tests(), source))
        .filter(|(lines, source)| *lines > LINES_MAX && !source.is_test())
        .map(|(lines, source)| format!("{}: {lines} lines", source.path))
        .collect();
    assert!(long.is_empty(), "files longer than {LINES_MAX} lines without their tests:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let ignored = ["#[", "ignore"].concat();
    for source in files("rs").iter().chain(&files("proto")).chain(&files("sql")).chain(&files("sh")) {
        for (i, line) in source.text.lines().enumerate() {
            let left = marks.iter().any(|mark| has_word(line, mark)) || line.contains(&ignored);
            assert!(!left, "{}:{}: {line}", source.path, i + 1);
        }
    }
}

#[test]
fn modules_are_named_for_what_they_are() {
    for source in files("rs") {
        let name = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let name = name.rsplit('/').next().unwrap_or(name);
        for empty in ["manager", "helper", "utils", "util", "common", "misc"] {
            assert!(!name.contains(empty), "{} is named for nothing", source.path);
        }
    }
}

/// Every rule of the confirmation protocol stands in the code that keeps it and in what tries to break it.
#[test]
fn every_rule_is_cited_where_it_is_kept_and_where_it_is_tried() {
    let sources = files("rs");
    let mut kept = String::new();
    let mut tried = String::new();
    for source in &sources {
        let tests = source.text.find("#[cfg(test)]").unwrap_or(source.text.len());
        if source.within("core/src/confirm/") {
            kept.push_str(&source.text[..tests]);
            tried.push_str(&source.text[tests..]);
        } else if source.is_test() && source.path != "tests/tidy.rs" {
            tried.push_str(&source.text);
        } else if source.within("services/authority/src/") || source.within("sidecar/src/") {
            tried.push_str(&source.text[tests..]);
        }
    }
    for script in files("txt").iter().filter(|script| script.within("core/")) {
        tried.push_str(&script.text);
    }
    for number in 1..=13 {
        let rule = format!("R{number}");
        assert!(has_word(&kept, &rule), "{rule} is not cited in core/src/confirm");
        assert!(has_word(&tried, &rule), "{rule} is not cited in any test or script");
    }
}

/// Whether `text` has `word` with no further letter, digit or underscore beside it.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let begins_within = before.is_some_and(part) && word.starts_with(part);
        let ends_within = after.is_some_and(part) && word.ends_with(part);
        !begins_within && !ends_within
    })
}

/// The walls are held by what is found, so the search itself is tried.
#[test]
fn the_search_finds_words() {
    assert!(has_word("use std::fs;", "std::fs") && !has_word("use std::fsx;", "std::fs"));
    assert!(has_word("(R1, R12)", "R1") && !has_word("R12 and R13", "R1") && !has_word("XR1", "R1"));
    assert!(has_word("x.await?", ".await") && !has_word("let randomly = 1;", "rand"));
    assert!(files("rs").len() > 30 && !files("proto").is_empty());
}
