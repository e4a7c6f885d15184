//! Seeded simulation of the pure core under a hostile world.
//!
//! Roles: `setup` what a seed stands for, `world` what can happen and when, `strikes` and `kills` what goes wrong, `rival`
//! another process that owns the partition meanwhile, `broker` and `target` the outside, `dispatcher` with `effects` the
//! driver, `circuits` the breakers, `judge` with `facts`, `fairness`, `shut` and `verdicts` the rules.
//!
//! Half of the worlds have a ledger as well: `shelves` what a seed stands for there, `ledger` what is on disk, `books` how
//! the driver uses it, `operator` who else does, `keeping` the rules. A seed from `world::WITH_LEDGER` on is such a world.
//!
//! `scripts/planted` shows that deliberate faults of the core are found.
//!
//! `LANEKEEPER_SIM_SEEDS=100000 cargo test --test sim` runs more seeds;
//! `LANEKEEPER_SIM_SEED=7 cargo test --test sim -- --nocapture one_seed` runs one and shows its trace.

mod books;
mod broker;
mod circuits;
mod dispatcher;
mod effects;
mod facts;
mod fairness;
mod judge;
mod keeping;
mod kills;
mod layouts;
mod ledger;
mod operator;
mod rival;
mod rng;
mod runner;
mod setup;
mod shelves;
mod shut;
mod strikes;
mod target;
mod trace;
mod verdicts;
mod world;

use kills::Step;
use lanekeeper_core::outcome::OutcomeKind;
use runner::{Failure, number_from_env, run, run_all};
use trace::Line;
use world::WITH_LEDGER;

const SEEDS: u64 = 10_000;
/// At each step of an update's way.
const KILLS_MIN: u32 = 1000;
/// Seeds that once found a fault, with what it was.
const KNOWN_SEEDS: &str = include_str!("seeds.txt");

fn known_seeds() -> Vec<u64> {
    let numbers = |line: &'static str| line.split_whitespace().map_while(|word| word.parse().ok());
    KNOWN_SEEDS.lines().flat_map(numbers).collect()
}

fn check(failed: Option<Failure>) {
    if let Some(failure) = failed {
        panic!("{failure}");
    }
}

#[test]
fn the_promise_is_kept_in_every_world() {
    let seeds = number_from_env("LANEKEEPER_SIM_SEEDS").unwrap_or(SEEDS);
    // Of each world the one with a ledger too.
    let worlds = (0..seeds).flat_map(|seed| [seed, WITH_LEDGER + seed]).take(usize::try_from(seeds).unwrap());
    check(run_all(&known_seeds().into_iter().chain(worlds).collect::<Vec<_>>()));
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in 0..300 {
        let [one, other] = [(); 2].map(|()| run(seed));
        match (one, other) {
            (Ok(one), Ok(other)) if one.trace_so_far().hash() == other.trace_so_far().hash() => {}
            (Ok(one), Ok(_)) => {
                check(Some(Failure::of(&one, seed, "judge (repeatable, I8): two traces".into())));
            }
            (failed, other) => check(failed.err().or(other.err())),
        }
    }
}

/// A quiet world proves nothing: what the simulation is for must happen in it, and often.
#[test]
fn the_world_is_hostile() {
    let mut met: Vec<(&str, u32)> = HARDSHIPS.iter().map(|(name, _)| (*name, 0)).collect();
    for seed in (0..1000).flat_map(|seed| [seed, WITH_LEDGER + seed]) {
        match run(seed) {
            Ok(world) => {
                for ((_, count), (_, is_met)) in met.iter_mut().zip(HARDSHIPS) {
                    *count += u32::from(world.trace_so_far().lines().any(is_met));
                }
            }
            Err(failure) => check(Some(failure)),
        }
    }
    println!("of 2000 worlds: {met:?}");
    for (hardship, worlds) in met {
        assert!(worlds >= 20, "{hardship} in {worlds} of 2000 worlds only");
    }
}

type IsMet = fn(&Line) -> bool;

const HARDSHIPS: &[(&str, IsMet)] = &[
    ("a channel lost", |line| matches!(line, Line::ChannelLost { .. })),
    ("acks lost with it", |line| matches!(line, Line::ChannelLost { acks_lost: 1.. })),
    ("a fourth tenure", |line| matches!(line, Line::TenureBegan { tenure: 4.. })),
    ("a crash", |line| matches!(line, Line::Crashed { .. })),
    ("a request of a dead process", |line| matches!(line, Line::Applied { stray: true, .. })),
    ("a drain carried out", |line| matches!(line, Line::ChannelClosed)),
    ("an answer that lies", |line| matches!(line, Line::AttemptEnded { lie: true, .. })),
    ("a third attempt", |line| matches!(line, Line::Attempt { number: 3.., .. })),
    ("a wait asked for", |line| matches!(line, Line::AttemptEnded { retry_after_ms: Some(1..), .. })),
    ("an update known from before", |line| matches!(line, Line::Record { resolution: "duplicate", .. })),
    ("an update dead-lettered", |line| matches!(line, Line::Record { resolution: "dead_lettered", .. })),
    ("a malformed update", |line| matches!(line, Line::Published { record: None, .. })),
    ("an ack of one delivery", |line| matches!(line, Line::AckSent { multiple: false, .. })),
    ("an attempt's end told twice", |line| matches!(line, Line::Echo { .. })),
    ("another owner in between", |line| matches!(line, Line::RivalClaimed { .. })),
    (
        "another owner that died before all was acked",
        |line| matches!(line, Line::RivalClaimed { applied, acked, .. } if acked < applied),
    ),
    ("a claim that tells of another owner", |line| matches!(line, Line::Claimed { other: Some(_), .. })),
    ("a stall", |line| matches!(line, Line::Stalled { .. })),
    ("a silent broker", |line| matches!(line, Line::Silent)),
    ("a partition given up for another's claim", |line| matches!(line, Line::GaveUp)),
    ("a step back", |line| matches!(line, Line::SteppedBack { .. })),
    ("a target that is shut", |line| matches!(line, Line::TargetShut { .. })),
    ("a probe", |line| matches!(line, Line::Attempt { probe: true, .. })),
    ("a probe of another partition", |line| matches!(line, Line::ProbeAsked { granted: false, .. })),
    ("a target that is open again", |line| matches!(line, Line::TargetOpened { .. })),
    ("a record parked", |line| matches!(line, Line::Parked { behind: false, .. })),
    ("an update parked behind others", |line| matches!(line, Line::Parked { behind: true, .. })),
    ("parked updates released", |line| matches!(line, Line::Released { updates: 1.., .. })),
    ("a released head parked again", |line| matches!(line, Line::Reparked { .. })),
    ("parked updates discarded", |line| matches!(line, Line::Discarded { .. })),
    ("a record no longer parked when it mattered", |line| matches!(line, Line::NotRecorded { .. })),
    ("a write fenced", |line| matches!(line, Line::Fenced { .. })),
    ("a claim fenced", |line| matches!(line, Line::ClaimFenced { .. })),
    ("a commit lost by a crash", |line| matches!(line, Line::CommitCut { landed: false, .. })),
    ("a commit that nobody heard of", |line| matches!(line, Line::CommitCut { landed: true, .. })),
    ("a commit shared", |line| matches!(line, Line::Committed { entries: 2.., .. })),
    ("a commit that failed", |line| matches!(line, Line::Committed { failed: true, landed: false, .. })),
    ("a commit done that was told to have failed", |line| {
        matches!(line, Line::Committed { failed: true, landed: true, .. })
    }),
    ("an id used again", |line| matches!(line, Line::Consulted { found: "id_reused", .. })),
    ("an outdated version", |line| matches!(line, Line::Consulted { found: "superseded", .. })),
    ("an update that the ledger knew", |line| matches!(line, Line::Consulted { found: "resolved", .. })),
    ("an attempt withheld", |line| matches!(line, Line::AttemptEnded { outcome: OutcomeKind::Withheld, .. })),
    ("an event of an old tenure", |line| matches!(line, Line::Stale { .. })),
];

/// At every step of an update's way a process was killed, many times, and nothing was lost.
#[test]
fn kills_at_every_step_are_survived() {
    let mut killed = Step::ALL.map(|step| (step, 0));
    for seed in WITH_LEDGER.. {
        if killed.iter().all(|(_, times)| *times >= KILLS_MIN) {
            break;
        }
        match run(seed) {
            Ok(world) => {
                for line in world.trace_so_far().lines() {
                    let Line::Killed { after } = line else { continue };
                    killed.iter_mut().filter(|(step, _)| step == after).for_each(|(_, times)| *times += 1);
                }
            }
            Err(failure) => check(Some(failure)),
        }
    }
    println!("killed: {killed:?}");
}

#[test]
fn one_seed() {
    let asked = number_from_env("LANEKEEPER_SIM_SEED");
    match run(asked.unwrap_or(0)) {
        Ok(world) if asked.is_some() => println!("{}", world.trace_so_far().tail(usize::MAX)),
        Ok(_) => {}
        Err(failure) => {
            println!("{}", failure.trace);
            check(Some(failure));
        }
    }
}
