//! One script: comments, commands, and the transcript that each command must give.
//!
//! A line that begins with `> ` is a command; what follows, up to the next command, comment or empty line, is its
//! transcript. `SCRIPTS_WRITE=1` writes the transcripts anew; a diff of the file then shows what changed.
//!
//! | command | does |
//! |---|---|
//! | `start P [warm]`, `crash P` | a run of a party begins (a sidecar from its durable copy), or ends |
//! | `start S unproven` | the same, but what the copy is worth shows only at a welcome that goes on from it |
//! | `up P..` | those start, and 200 ms run |
//! | `begin S`, `finish S` | one answer (R10): clocks and lease are read; heads are read and the clocks again |
//! | `connect S R`, `cut P Q` | a new stream; P (and only P) sees the end of every stream to Q |
//! | `append E`, `await E`, `learn R` | an event is recorded; somebody waits for it; the tail of R brings the next one |
//! | `deliver P Q [KIND]` | the first such message, or all; `again` delivers the last one once more; `lose` none |
//! | `ask P`, `fail P` | everything between P and the store, both ways; P learns of no outcome of what the store did |
//! | `tick TIME [but P..]` | the clocks go on at once; all parties (but those) look at them |
//! | `run TIME [by STEP]` | time passes by 5 ms, everything is delivered, learned and connected; only the end is shown |
//! | `clock P RATE [RATE]` | boot and raw clock run so many ppm off, or `stop` |
//! | `failover N [losing]`, `mint` | a standby without what is after N, or without the last renewals; R9 |
//! | `restore N` | an image that kept identity and epoch |
//! | `forge S frame`, `forge S grant` | on the newest stream of S comes what the ledger as it is would say |
//! | `forge S late E`, `forge S ack E`, `forge S relinquish` | there comes what was said long ago |
//! | `save S`, `load S` | the durable copy is written; is loaded, as at a start |
//! | `spoil S`, `rot S`, `garble R S` | the copy, the table, a snapshot loses an event |
//! | `invent S E` | somebody writes an event into the copy that nobody recorded, and cannot seal it |
//! | `overtake R` | the row of R was inserted before the last event was recorded |
//! | `slow S`, `apply S`, `disrupt S`, `leave P`, `hold R`, `accept R`, `seats N`, `block P Q`, `unblock`, `show`, `lapses` | |

use super::history::Events;
use super::parties::{Body, Party};
use super::world::World;
use consent_core::confirm::{grantor, holder};
use consent_core::words::Span;
use std::fmt::Write;

/// So many messages at one instant are a conversation without an end; what follows goes on without it.
const ENDLESS: usize = 1000;
/// How time passes in a `run`, unless it says otherwise.
const RUN_STEP: Span = Span::from_millis(5);

/// What playing a script gave: the script as it would have to be, or what went wrong in which line.
pub(crate) fn play(text: &str) -> Result<String, String> {
    let mut world = World::new();
    let mut written = String::new();
    let mut transcript = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("> ") {
            transcript = true;
            let words: Vec<&str> = command.split_whitespace().collect();
            obey(&mut world, &words).ok_or_else(|| format!("line {}: what is `{command}`?", number + 1))?;
            world.check();
            let lines = std::mem::take(&mut world.lines);
            writeln!(written, "> {command}").unwrap();
            lines.iter().for_each(|line| writeln!(written, "{line}").unwrap());
            if let Some(violation) = &world.violation {
                return Err(format!("line {}: `{command}`: {violation}\n{written}", number + 1));
            }
        } else if line.is_empty() || line.starts_with('#') {
            transcript = false;
            writeln!(written, "{line}").unwrap();
        } else if !transcript {
            return Err(format!("line {}: `{line}` belongs to no command", number + 1));
        }
    }
    Ok(written)
}

pub(crate) fn obey(world: &mut World, words: &[&str]) -> Option<()> {
    let party = |at: usize| words.get(at).copied().and_then(Party::parse);
    let (verb, rest) = words.split_first()?;
    match (*verb, party(1), party(2)) {
        ("start", Some(Party::Sidecar(number)), _) => {
            world.start_sidecar(number, words.get(2) == Some(&"warm"));
            if words.get(2) == Some(&"unproven") {
                world.find(number);
            }
        }
        ("start", Some(Party::Replica(number)), _) => world.start_replica(number),
        ("start", Some(Party::Confirmer), _) => world.start_witness(),
        ("up", ..) => {
            for word in rest {
                match Party::parse(word)? {
                    Party::Sidecar(number) => world.start_sidecar(number, false),
                    Party::Replica(number) => world.start_replica(number),
                    Party::Confirmer => world.start_witness(),
                    Party::Caller | Party::Store => return None,
                }
            }
            world.lines.clear();
            run(world, Span::from_millis(200), RUN_STEP);
            show(world);
        }
        ("begin", Some(Party::Sidecar(number)), _) => world.begin_answer(number),
        ("finish", Some(Party::Sidecar(number)), _) => world.finish_answer(number),
        ("crash", Some(Party::Sidecar(number)), _) => drop(world.sidecars.remove(&number)),
        ("crash", Some(Party::Replica(number)), _) => drop(world.replicas.remove(&number)),
        ("crash", Some(Party::Confirmer), _) => world.witness = None,
        ("connect", Some(Party::Sidecar(s)), Some(Party::Replica(r))) => world.connect(s, r),
        ("cut", Some(one), Some(other)) => world.cut(one, other),
        ("append", ..) => world.append(rest.first()?.chars().next()?),
        ("await", ..) => world.wait_for(commit(world, rest.first()?.chars().next()?)?),
        ("learn", Some(Party::Replica(number)), _) => world.learn(number),
        ("deliver", Some(from), Some(to)) => deliver(world, from, to, words.get(3).copied())?,
        ("again", Some(from), Some(to)) => again(world, from, to, words.get(3)?)?,
        ("fail", Some(who), _) => fail(world, who)?,
        ("lose", Some(from), Some(to)) => lose(world, from, to),
        ("ask", Some(who), _) => ask(world, who),
        ("tick", ..) => {
            world.pass(span(rest.first()?)?);
            let but: Vec<Party> = rest.iter().skip(2).filter_map(|word| Party::parse(word)).collect();
            world.wake(&but);
        }
        ("run", ..) => {
            let step = rest.get(2).map_or(Some(RUN_STEP), |word| span(word))?;
            run(world, span(rest.first()?)?, step);
            show(world);
        }
        ("clock", Some(who), _) => {
            world.now(who);
            let boot = rate(words.get(2)?)?;
            let raw = words.get(3).map_or(Some(boot), |word| rate(word))?;
            let clock = world.clocks.get_mut(&who)?;
            (clock.boot_ppm, clock.raw_ppm) = (boot, raw);
        }
        ("failover", ..) => world.store.fail_over(rest.first()?.parse().ok()?, rest.contains(&"losing")),
        ("restore", ..) => {
            world.restored = true;
            world.store.ledger.truncate(rest.first()?.parse().ok()?);
        }
        ("forge", Some(Party::Sidecar(number)), _) => {
            let event = words.get(3).and_then(|word| word.chars().next());
            let at = event.and_then(|event| commit(world, event)).map(|at| world.commits[at]);
            world.forge(number, words.get(2)?, at)?;
        }
        ("mint", ..) => world.store.mint(),
        ("save", Some(Party::Sidecar(number)), _) => world.save(number),
        ("load", Some(Party::Sidecar(number)), _) => world.load(number),
        ("spoil", Some(Party::Sidecar(number)), _) => drop(world.copies.get_mut(&number)?.table.pop()),
        ("invent", Some(Party::Sidecar(number)), _) => {
            world.invent(number, words.get(2)?.chars().next()?)?;
        }
        ("rot", Some(Party::Sidecar(number)), _) => drop(world.sidecars.get_mut(&number)?.table.pop()),
        ("garble", Some(from), Some(to)) => {
            let at = first_under_way(world, from, to, "snapshot")?;
            if let Body::Snapshot(_, _, table) = &mut world.messages[at].body {
                table.pop();
            }
        }
        ("slow", Some(Party::Sidecar(number)), _) => world.sidecars.get_mut(&number)?.slow = true,
        ("apply", Some(Party::Sidecar(number)), _) => world.apply(number),
        ("disrupt", Some(Party::Sidecar(number)), _) => {
            world.step_sidecar(number, holder::Input::ClockDisrupted)
        }
        ("leave", Some(Party::Sidecar(number)), _) => world.step_sidecar(number, holder::Input::Leave),
        ("leave", Some(Party::Replica(number)), _) => world.step_replica(number, grantor::Input::Leave),
        ("hold", Some(Party::Replica(number)), _) => world.step_replica(number, grantor::Input::Hold),
        ("accept", Some(Party::Replica(number)), _) => {
            world.step_replica(number, grantor::Input::HoleAccepted)
        }
        ("seats", ..) => world.sessions_max = rest.first()?.parse().ok()?,
        ("overtake", Some(Party::Replica(number)), _) => {
            let run = world.replicas.get(&number)?.incarnation;
            world.store.overtake(run)?;
        }
        ("block", Some(one), Some(other)) => world.blocked.push((one, other)),
        ("unblock", ..) => world.blocked.clear(),
        ("show", ..) => show(world),
        ("lapses", ..) => {
            let lapses = world.counts.get("lapsed").copied().unwrap_or_default();
            world.say(format!("{lapses} lapses so far"));
        }
        _ => return None,
    }
    Some(())
}

fn span(word: &str) -> Option<Span> {
    let digits = word.trim_end_matches(char::is_alphabetic);
    let unit = match &word[digits.len()..] {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    digits.parse().ok().map(|number: u64| Span::from_nanos(number * unit))
}

fn rate(word: &str) -> Option<i64> {
    if word == "stop" { Some(-1_000_000) } else { word.parse().ok() }
}

/// The last commit that ends in this event.
fn commit(world: &World, event: char) -> Option<usize> {
    world.commits.iter().rposition(|commit| world.tree.events(&commit.chain).last() == Some(&event))
}

fn first_under_way(world: &World, from: Party, to: Party, kind: &str) -> Option<usize> {
    world.messages.iter().position(|message| {
        let ends = message.under_way && message.from == from && message.to == to;
        ends && world.describe(&message.body).starts_with(kind)
    })
}

fn deliver(world: &mut World, from: Party, to: Party, kind: Option<&str>) -> Option<()> {
    if let Some(kind) = kind {
        let at = first_under_way(world, from, to, kind)?;
        world.deliver(at);
        return Some(());
    }
    let last = world.messages.len();
    while let Some(at) = first_under_way(world, from, to, "").filter(|at| *at < last) {
        world.deliver(at);
        world.check();
    }
    Some(())
}

fn again(world: &mut World, from: Party, to: Party, kind: &str) -> Option<()> {
    let same = |message: &&super::parties::Message| {
        let ends = !message.under_way && message.from == from && message.to == to;
        ends && world.describe(&message.body).starts_with(kind)
    };
    let body: Body = world.messages.iter().rev().find(same)?.body.clone();
    world.deliver_to(to, &body);
    Some(())
}

fn lose(world: &mut World, from: Party, to: Party) {
    while let Some(at) = first_under_way(world, from, to, "") {
        world.messages[at].under_way = false;
    }
}

/// What the store did is done, and who asked for it does not hear of it.
fn fail(world: &mut World, who: Party) -> Option<()> {
    let at = first_under_way(world, Party::Store, who, "")?;
    if let Body::Told(_, told) = &mut world.messages[at].body {
        *told = told.unknown()?;
    }
    world.deliver(at);
    Some(())
}

fn ask(world: &mut World, who: Party) {
    let start = world.messages.len();
    while world.messages.len() < start + ENDLESS
        && let Some(at) = first_under_way(world, who, Party::Store, "")
            .or_else(|| first_under_way(world, Party::Store, who, ""))
    {
        world.deliver(at);
        world.check();
    }
}

/// As things go when nothing is in the way.
fn run(world: &mut World, span: Span, step: Span) {
    let quiet = std::mem::replace(&mut world.quiet, true);
    let mut left = span;
    while left > Span::ZERO {
        world.pass(step.min(left));
        left = left.minus(step);
        world.wake(&[]);
        for number in world.replicas.keys().copied().collect::<Vec<_>>() {
            world.learn(number);
        }
        connect(world);
        let free = |world: &World| {
            let blocked = |from: Party, to: Party| {
                world.blocked.iter().any(|pair| *pair == (from, to) || *pair == (to, from))
            };
            world.messages.iter().position(|m| m.under_way && !blocked(m.from, m.to))
        };
        let start = world.messages.len();
        while world.messages.len() < start + ENDLESS
            && let Some(at) = free(world)
        {
            world.deliver(at);
        }
        world.check();
    }
    world.quiet = quiet;
}

fn connect(world: &mut World) {
    for number in world.sidecars.keys().copied().collect::<Vec<_>>() {
        let sidecar = &world.sidecars[&number];
        let leaves = sidecar.leaves;
        let linked: Vec<u8> = sidecar.open.iter().map(|stream| world.streams[stream].replica.0).collect();
        let blocked =
            |replica: &u8| world.blocked.contains(&(Party::Sidecar(number), Party::Replica(*replica)));
        let mut others =
            world.replicas.keys().filter(|replica| !blocked(replica) && leaves != Some(**replica));
        if let Some(replica) = others.next().copied()
            && (linked.is_empty() || (leaves.is_some() && !linked.contains(&replica)))
        {
            world.sidecars.entry(number).and_modify(|sidecar| sidecar.leaves = None);
            world.connect(number, replica);
        }
    }
}

fn show(world: &mut World) {
    let mut lines = Vec::new();
    for (number, sidecar) in &world.sidecars {
        let now = world.clocks[&Party::Sidecar(*number)].now;
        let at = sidecar.holder.place().map_or("nothing".into(), |place| world.at(&place));
        let state = format!("{:?}", sidecar.holder.state()).to_uppercase();
        let lease = sidecar
            .lease
            .map_or(String::new(), |lease| format!(", lease of {} ms", lease.left(now).millis()));
        lines.push(format!("s{number} {state} at {at}{lease}"));
    }
    for (number, replica) in &world.replicas {
        let row = world.store.rows.get(&replica.incarnation);
        let row = row.map_or("no row", |row| if row.closed { "row closed" } else { "row open" });
        let drained = replica.grantor.drained();
        lines.push(format!("r{number} knows {}, drained {drained}, {row}", name(&replica.tail)));
    }
    if let Some(witness) = &world.witness {
        let effective =
            witness.confirmer.effective().map_or("nothing".into(), |(_, revision)| revision.to_string());
        lines.push(format!("w effective {effective}"));
    }
    lines.into_iter().for_each(|line| world.say(line));
}

fn name(events: &Events) -> String {
    events.last().map_or("0".into(), |event| format!("{}{event}", events.len()))
}
