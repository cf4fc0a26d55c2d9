//! kill -9 of the sidecar under writes, with something done to its Redis: what the next run makes of the copy.
//!
//! Somebody opts out while it is dead, or before. From its first breath on it is asked: no ALLOW before its first
//! lease, LIVE again whatever lies in Redis, and the copy good again at the end; where it was good, however far behind,
//! not one byte of a snapshot, counted on the wire. All answers and opt-outs go to the judge of histories; at the end
//! the same is played with a fault planted on the wire, which the judge must find.
//!
//! Several nodes are hurt at once, each with a Redis, an authority and a wire of its own: much of a round is waiting.

mod fault;
mod round;
mod wire;

#[path = "../../support/copy.rs"]
mod copy;
#[path = "../../support/redis.rs"]
pub(crate) mod redis_server;

use crate::history::{self, Allow, Change};
use crate::random::Random;
use crate::tally::Tally;
use anyhow::Context;
use fault::{Fault, Found};
use round::{Lane, Outcome};
use std::collections::{BTreeMap, VecDeque};

/// So many nodes at once.
const LANES: usize = 4;

/// What was seen of one fault.
#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    warm: u64,
    cold: u64,
    /// Of the starts that found a good copy.
    snapshot_bytes: u64,
    frame_bytes: u64,
}

/// What was seen of all.
#[derive(Debug, Default)]
struct Seen {
    faults: BTreeMap<Fault, Counts>,
    early: u64,
    wrong: Vec<String>,
    allows: u64,
    opt_outs: u64,
    violations: Vec<String>,
    log_lines: usize,
    ids: Vec<String>,
}

/// So many kills with Redis well, lagging, hung, killed, wiped, or swapped in turn, and a tenth as many with each way
/// to tamper with it.
pub(crate) async fn run(tally: &mut Tally, kills: u64) -> anyhow::Result<()> {
    match history::judges_known_histories() {
        Ok(cases) => {
            tally.check(true, format_args!("the judge gives the known verdict on {cases} small histories"));
        }
        Err(wrong) => tally.check(false, wrong),
    }
    let mut random = Random::announced()?;
    let begun = consent::clock::now();
    let mut faults: Vec<Fault> = Fault::IN_TURN.into_iter().cycle().take(kills as usize).collect();
    for fault in Fault::MORE {
        faults.extend((0..kills.div_ceil(10)).map(|_| fault));
    }
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.index(last + 1));
    }
    let rounds = faults.len();
    let mut lanes = tokio::task::JoinSet::new();
    let mut faults = VecDeque::from(faults);
    let count = LANES.min(rounds);
    for lane in 0..count {
        let mine: Vec<Fault> = faults.drain(..faults.len() / (count - lane)).collect();
        let random = Random::new(random.next());
        lanes.spawn(play(mine, random));
    }
    let mut seen = Seen::default();
    while let Some(lane) = lanes.join_next().await {
        seen.add(lane??);
    }
    let took = consent::clock::now().longest_since(begun).millis();
    println!("        {rounds} rounds in {} s", took / 1_000);
    check(tally, &seen);

    let (allows, changes) = play_with_the_fault(Random::new(random.next())).await?;
    let found = history::violations(&allows, &changes);
    found.iter().take(1).for_each(|violation| println!("        {violation}"));
    tally.check(
        !found.is_empty(),
        "a sidecar made to believe that its copy has missed nothing: the judge finds the planted fault",
    );
    Ok(())
}

fn check(tally: &mut Tally, seen: &Seen) {
    for (fault, Counts { rounds, warm, cold, snapshot_bytes, frame_bytes }) in &seen.faults {
        let is_right = match fault.leaves() {
            Found::Good => warm == rounds && *snapshot_bytes == 0,
            Found::Bad => cold == rounds,
        };
        let carried = match fault.leaves() {
            Found::Good => format!("{snapshot_bytes} snapshot bytes, {frame_bytes} bytes of frames"),
            Found::Bad => "found".to_owned(),
        };
        let name = format!("{fault:?}");
        tally.check(
            is_right,
            format_args!("{name:13} {rounds} rounds, {warm} warm, {cold} cold, all repaired; {carried}"),
        );
    }
    seen.wrong.iter().take(3).for_each(|wrong| println!("        {wrong}"));
    tally.check(
        seen.wrong.is_empty() && seen.early > 0,
        format_args!("{} answers before LIVE, none an ALLOW", seen.early),
    );
    seen.violations.iter().take(3).for_each(|violation| println!("        {violation}"));
    let bound = 3.0 / seen.opt_outs.max(1) as f64;
    tally.check(
        seen.violations.is_empty() && seen.allows > 0 && seen.opt_outs > 0,
        format_args!(
            "{} ALLOWs, {} effective opt-outs: not one ALLOW from before an EFFECTIVE opt-out was given, or still \
             valid, after it; the probability is < {bound:.5} an opt-out (3/N, 95 %)",
            seen.allows, seen.opt_outs
        ),
    );
    seen.ids.iter().take(3).for_each(|line| println!("        {line}"));
    let lines = seen.log_lines;
    tally.check(seen.ids.is_empty() && lines > 0, format_args!("{lines} log lines, none with an id"));
}

async fn play(faults: Vec<Fault>, mut random: Random) -> anyhow::Result<Seen> {
    let mut lane = Lane::begin(faults.len()).await?;
    let mut seen = Seen::default();
    for (round, fault) in faults.into_iter().enumerate() {
        let played = lane.round(round, fault, &mut random).await;
        let Outcome { was_warm, carried } = played.with_context(|| format!("{fault:?}, round {round}"))?;
        let counts = seen.faults.entry(fault).or_default();
        counts.rounds += 1;
        *(if was_warm { &mut counts.warm } else { &mut counts.cold }) += 1;
        counts.snapshot_bytes += carried.snapshot_bytes;
        counts.frame_bytes += carried.frame_bytes;
    }
    seen.early = lane.asked.early;
    seen.allows = lane.asked.allows.len() as u64;
    seen.opt_outs = lane.changes.iter().filter(|change| change.effective.is_some()).count() as u64;
    let violations = history::violations(&lane.asked.allows, &lane.changes);
    seen.violations = violations.iter().map(ToString::to_string).collect();
    (seen.log_lines, seen.ids) = lane.ids_in_logs();
    seen.wrong = lane.asked.wrong;
    Ok(seen)
}

async fn play_with_the_fault(mut random: Random) -> anyhow::Result<(Vec<Allow>, Vec<Change>)> {
    let mut lane = Lane::begin(1).await?;
    lane.plant_the_fault();
    lane.faulty_round(&mut random).await.context("the planted fault")?;
    Ok((lane.asked.allows, lane.changes))
}

impl Seen {
    fn add(&mut self, other: Seen) {
        for (fault, counts) in other.faults {
            let mine = self.faults.entry(fault).or_default();
            mine.rounds += counts.rounds;
            mine.warm += counts.warm;
            mine.cold += counts.cold;
            mine.snapshot_bytes += counts.snapshot_bytes;
            mine.frame_bytes += counts.frame_bytes;
        }
        self.early += other.early;
        self.wrong.extend(other.wrong);
        self.allows += other.allows;
        self.opt_outs += other.opt_outs;
        self.violations.extend(other.violations);
        self.log_lines += other.log_lines;
        self.ids.extend(other.ids);
    }
}
