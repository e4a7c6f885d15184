//! Seeded simulation of the pure core under a hostile world.
//!
//! Roles: `setup` what a seed stands for, `world` what can happen and when, `faults` and `kills` what goes wrong, `other_process`
//! another process that owns the partition meanwhile, `broker` and `target` the outside, `dispatcher` with `effects` the
//! driver, `circuits` the breakers, `pauses` persons who pause targets and records, `judge` with `facts`, `fairness`, `shut` and `verdicts` the rules.
//!
//! Half of the worlds have a ledger as well: `ledger_setup` what a seed stands for there, `ledger` what is on disk, `ledger_client` how
//! the driver uses it, `operator` who else does, `ledger_rules` the rules. A seed from `world::WITH_LEDGER` on is such a world.
//!
//! `limits` is a world of its own, in which the target has limits, and permits are asked for.
//!
//! `doors` is a world of its own, in which updates come by HTTP.
//!
//! `why` asks what records wait for, and `judge/why` judges the answers. In `limits`, `layouts` and `cluster` a module `why` of
//! their own asks, and `waits` judges.
//!
//! `sqs` is a world of its own, in which updates come from an SQS FIFO queue.
//!
//! `numbers` is a world of its own, in which the stream of members is lost and tenure numbers have to grow.
//!
//! `scripts/planted` shows that deliberate faults of the core are found.
//!
//! `LANEKEEPER_SIM_SEEDS=100000 cargo test --test sim` runs more seeds;
//! `LANEKEEPER_SIM_SEED=7 cargo test --test sim -- --nocapture one_seed` runs one and shows its trace.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the simulation is around the core: it reads its settings, prints, and shares facts"
)]

mod broker;
mod circuits;
mod cluster;
mod dispatcher;
mod doors;
mod effects;
mod facts;
mod fairness;
mod faults;
mod judge;
mod kills;
mod layouts;
mod ledger;
mod ledger_client;
mod ledger_rules;
mod ledger_setup;
mod limits;
mod numbers;
mod operator;
mod other_process;
mod pauses;
mod rng;
mod runner;
mod setup;
mod shut;
mod sqs;
mod target;
mod trace;
mod verdicts;
mod waits;
mod why;
mod world;

use kills::Step;
use lanekeeper_core::outcome::OutcomeKind;
use runner::{Failure, number_from_env, run, run_all};
use trace::TraceLine;
use waits::CausesMet;
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
    let mut causes = CausesMet::default();
    for seed in (0..1000).flat_map(|seed| [seed, WITH_LEDGER + seed]) {
        match run(seed) {
            Ok(world) => {
                for ((_, count), (_, is_met)) in met.iter_mut().zip(HARDSHIPS) {
                    *count += u32::from(world.trace_so_far().lines().any(is_met));
                }
                causes.add(&world.causes);
            }
            Err(failure) => check(Some(failure)),
        }
    }
    println!("of 2000 worlds: {met:?}\nasked: {causes:?}");
    causes.check(&CAUSES, 100);
    // The end of what an earlier tenure wrote down is a short moment.
    causes.check(&["earlier_recording", "overtaken"], 1);
    for (hardship, worlds) in met {
        assert!(worlds >= 20, "{hardship} in {worlds} of 2000 worlds only");
    }
}

/// What records waited for when somebody asked. Limits, previous layouts and take-overs have worlds of their own.
const CAUSES: [&str; 15] = [
    "blocked",
    "claim",
    "doubted",
    "earlier_attempt",
    "hand_back",
    "in_flight",
    "lease_lapsed",
    "recording",
    "refused",
    "retry",
    "room",
    "strict",
    "target_paused",
    "target_shut",
    "withheld",
];

type IsMet = fn(&TraceLine) -> bool;

const HARDSHIPS: &[(&str, IsMet)] = &[
    ("a channel lost", |line| matches!(line, TraceLine::ChannelLost { .. })),
    ("acks lost with it", |line| matches!(line, TraceLine::ChannelLost { acks_lost: 1.. })),
    ("a fourth tenure", |line| matches!(line, TraceLine::TenureBegan { tenure: 4.. })),
    ("a crash", |line| matches!(line, TraceLine::Crashed { .. })),
    ("a request of a dead process", |line| matches!(line, TraceLine::Applied { stray: true, .. })),
    ("a drain carried out", |line| matches!(line, TraceLine::ChannelClosed)),
    ("an answer that lies", |line| matches!(line, TraceLine::AttemptEnded { lie: true, .. })),
    ("a third attempt", |line| matches!(line, TraceLine::Attempt { number: 3.., .. })),
    ("a wait asked for", |line| matches!(line, TraceLine::AttemptEnded { retry_after_ms: Some(1..), .. })),
    ("an update known from before", |line| matches!(line, TraceLine::Record { resolution: "duplicate", .. })),
    ("an update dead-lettered", |line| matches!(line, TraceLine::Record { resolution: "dead_lettered", .. })),
    ("a malformed update", |line| matches!(line, TraceLine::Published { record: None, .. })),
    ("an ack of one delivery", |line| matches!(line, TraceLine::AckSent { multiple: false, .. })),
    ("an attempt's end reported twice", |line| matches!(line, TraceLine::Echo { .. })),
    ("another owner in between", |line| matches!(line, TraceLine::OtherProcessClaimed { .. })),
    (
        "another owner that died before all was acked",
        |line| matches!(line, TraceLine::OtherProcessClaimed { applied, acked, .. } if acked < applied),
    ),
    ("a claim that tells of another owner", |line| {
        matches!(line, TraceLine::Claimed { rival_claim: Some(_), .. })
    }),
    ("a stall", |line| matches!(line, TraceLine::Stalled { .. })),
    ("a lease that lapsed", |line| matches!(line, TraceLine::Lapsed)),
    ("a partition given up for another's claim", |line| matches!(line, TraceLine::Abandoned)),
    ("a step back", |line| matches!(line, TraceLine::Yielded { .. })),
    ("a target that is shut", |line| matches!(line, TraceLine::TargetShut { .. })),
    ("a probe", |line| matches!(line, TraceLine::Attempt { probe: true, .. })),
    ("a probe of another partition", |line| matches!(line, TraceLine::ProbeAsked { granted: false, .. })),
    ("a target that is open again", |line| matches!(line, TraceLine::TargetOpened { .. })),
    ("a target paused", |line| matches!(line, TraceLine::TargetPaused { .. })),
    ("a target resumed", |line| matches!(line, TraceLine::TargetResumed { .. })),
    ("a record paused", |line| matches!(line, TraceLine::RecordPaused { .. })),
    ("an update of a paused record", |line| {
        matches!(line, TraceLine::LookedUp { found: "record_paused", .. })
    }),
    ("a release that a pause ended", |line| matches!(line, TraceLine::Reparked { of_pause: true, .. })),
    ("a record resumed", |line| matches!(line, TraceLine::RecordResumed { .. })),
    ("a record parked", |line| matches!(line, TraceLine::Parked { behind: false, .. })),
    ("an update parked behind others", |line| matches!(line, TraceLine::Parked { behind: true, .. })),
    ("parked updates released", |line| matches!(line, TraceLine::Released { updates: 1.., .. })),
    ("a released head parked again", |line| matches!(line, TraceLine::Reparked { .. })),
    ("parked updates discarded", |line| matches!(line, TraceLine::Discarded { .. })),
    ("a record no longer parked when it mattered", |line| matches!(line, TraceLine::NotRecorded { .. })),
    ("a write fenced", |line| matches!(line, TraceLine::Fenced { .. })),
    ("a claim fenced", |line| matches!(line, TraceLine::ClaimFenced { .. })),
    ("a commit lost by a crash", |line| matches!(line, TraceLine::CommitAborted { landed: false, .. })),
    ("a commit that nobody heard of", |line| matches!(line, TraceLine::CommitAborted { landed: true, .. })),
    ("a commit shared", |line| matches!(line, TraceLine::Committed { entries: 2.., .. })),
    ("a commit that failed", |line| matches!(line, TraceLine::Committed { failed: true, landed: false, .. })),
    ("a commit done that was reported as failed", |line| {
        matches!(line, TraceLine::Committed { failed: true, landed: true, .. })
    }),
    ("an id used again", |line| matches!(line, TraceLine::LookedUp { found: "id_reused", .. })),
    ("an outdated version", |line| matches!(line, TraceLine::LookedUp { found: "superseded", .. })),
    ("an update that the ledger knew", |line| matches!(line, TraceLine::LookedUp { found: "resolved", .. })),
    ("an attempt withheld", |line| {
        matches!(line, TraceLine::AttemptEnded { outcome: OutcomeKind::Withheld, .. })
    }),
    ("an event of an old tenure", |line| matches!(line, TraceLine::Stale { .. })),
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
                    let TraceLine::Killed { after } = line else { continue };
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
