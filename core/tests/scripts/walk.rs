//! Random walks: the same world, with nobody's plot. Two replicas, two sidecars, every event that a script may use.
//!
//! A walk is its seed: `cargo test -p consent-core --test scripts -- --walks N` plays seeds 1 to N,
//! `-- --seed S` plays one and prints it. The invariants are checked after every step, and at the end I7: once nothing
//! is in the way any more, everybody is LIVE again and every wait is over.

use super::parties::Party;
use super::script;
use super::world::World;
use std::collections::BTreeMap;

/// How many steps a walk takes.
const STEPS: usize = 120;

/// A small generator: a walk must be the same on every machine and for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.roll(words.len() as u64) as usize]
    }
}

/// Plays the walk of a seed: what was broken, with the commands that led there.
pub(crate) fn walk(seed: u64, counts: &mut BTreeMap<&'static str, usize>) -> Result<Vec<String>, String> {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = World::new();
    let mut walked = Vec::new();
    let mut failovers = dice.roll(2);
    let rates = ["0", "10000", "-10000"];
    for party in ["s1", "s2", "r1", "r2", "w", "c"] {
        step(&mut world, &format!("clock {party} {}", dice.one_of(&rates)), &mut walked)?;
    }
    step(&mut world, "up r1 r2 w s1 s2", &mut walked)?;
    let mut events = 'a'..='z';
    for _ in 0..STEPS {
        let (s, r, p) = (
            dice.one_of(&["s1", "s2"]),
            dice.one_of(&["r1", "r2"]),
            dice.one_of(&["s1", "s2", "r1", "r2", "w"]),
        );
        let command = match dice.roll(41) {
            0..=2 => match events.next() {
                Some(event) => {
                    step(&mut world, &format!("append {event}"), &mut walked)?;
                    format!("await {event}")
                }
                None => continue,
            },
            3..=6 => format!("learn {r}"),
            7..=12 => format!("deliver {s} {r}"),
            13..=18 => format!("deliver {r} {s}"),
            19..=21 => format!("ask {p}"),
            22..=23 => "ask w".into(),
            24..=27 => format!("tick {}ms but {p}", dice.one_of(&["1", "10", "49", "51", "60"])),
            28..=29 => format!("tick {}ms but {p}", dice.one_of(&["500", "1000", "1500", "2900"])),
            30 if dice.roll(2) == 0 => format!("tick 3100ms but {p}"),
            30 => {
                // Longer than a lease of a replica, under the eyes of the confirmer.
                for _ in 0..3 {
                    step(&mut world, &format!("tick 2100ms but {p}"), &mut walked)?;
                    step(&mut world, "ask w", &mut walked)?;
                }
                continue;
            }
            31 => format!("run {}ms", dice.one_of(&["5", "20", "100"])),
            32 => format!("connect {s} {r}"),
            33 => format!(
                "cut {} {}",
                if dice.roll(2) == 0 { (s, r) } else { (r, s) }.0,
                if dice.roll(2) == 0 { s } else { r }
            ),
            34 => format!("save {s}"),
            35 => {
                step(&mut world, &format!("crash {s}"), &mut walked)?;
                format!("start {s} {}", dice.one_of(&["warm", "unproven", "unproven", "cold"]))
            }
            36 => {
                step(&mut world, &format!("crash {r}"), &mut walked)?;
                format!("start {r}")
            }
            37 => match dice.roll(6) {
                0 => "crash w".into(),
                1 => format!("disrupt {s}"),
                2 => format!("leave {s}"),
                3 if dice.roll(2) == 0 => format!("lose {s} {r}"),
                3 => format!("invent {s} !"),
                _ => format!("leave {r}"),
            },
            38 => format!("start {p}"),
            _ if failovers > 0 && dice.roll(2) == 0 => {
                failovers -= 1;
                let keep = world.store.ledger.len() as u64;
                let keep = keep - dice.roll(keep.min(2) + 1);
                step(&mut world, &format!("failover {keep} {}", dice.one_of(&["losing", ""])), &mut walked)?;
                "mint".into()
            }
            _ => format!("accept {r}"),
        };
        // Whoever lives is not started again: the driver ends the run before.
        let again = command.strip_prefix("start ").and_then(|rest| Party::parse(rest.split(' ').next()?));
        if again.is_some_and(|party| world.lives(party)) {
            continue;
        }
        step(&mut world, &command, &mut walked)?;
    }
    come_to_rest(&mut world, &mut walked)?;
    for (what, count) in &world.counts {
        *counts.entry(what).or_default() += count;
    }
    Ok(walked)
}

/// I7. What supervisors, operators and time-outs of connections do, and then nothing but time.
fn come_to_rest(world: &mut World, walked: &mut Vec<String>) -> Result<(), String> {
    // Who is leaving, or fenced without knowing it yet, ends meanwhile and begins anew.
    for _ in 0..3 {
        for name in ["r1", "r2", "w", "s1", "s2"] {
            if Party::parse(name).is_some_and(|party| !world.lives(party)) {
                step(world, &format!("start {name}"), walked)?;
            }
        }
        for replica in ["r1", "r2"] {
            step(world, &format!("accept {replica}"), walked)?;
            for sidecar in ["s1", "s2"] {
                step(world, &format!("cut {sidecar} {replica}"), walked)?;
                step(world, &format!("cut {replica} {sidecar}"), walked)?;
            }
        }
        step(world, "run 7s by 50ms", walked)?;
    }
    (0..world.commits.len()).for_each(|at| world.wait_for(at));
    step(world, "run 8s by 50ms", walked)?;
    match world.stuck() {
        Some(who) => Err(format!("I7: {who}\n{}", walked.join("\n"))),
        None => Ok(()),
    }
}

fn step(world: &mut World, command: &str, walked: &mut Vec<String>) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    walked.push(format!("> {command}"));
    // A command for whom there is nobody, or nothing, is no step.
    let _nobody = script::obey(world, &words);
    world.check();
    walked.append(&mut world.lines);
    match &world.violation {
        Some(violation) => Err(format!("{violation}\n{}", walked.join("\n"))),
        None => Ok(()),
    }
}
