//! Targets that refuse by chance, whatever the rate is, and those that only look like it.

use std::time::Duration;

use lanekeeper_core::pacing::PacerLimits;

use super::targets::{Chance, Headers, Kind, Target};
use super::world::{SECOND, Setup, World};

const FROM: u64 = 30;
const UNTIL: u64 = 150;

fn world(processes: usize, latency_ms: u64, target: Target, seconds: u64) -> World {
    let limits = PacerLimits::default();
    World::new(Setup { processes, latency: latency_ms * 1000, limits, shares: false, seconds }, target)
}

/// Requests that were applied.
fn applied(chance: Chance, latency_ms: u64, processes: usize) -> usize {
    let mut target = Target::new(Kind::TokenBucket, Headers::None, 1_000_000);
    target.chance = chance;
    let mut world = world(processes, latency_ms, target, UNTIL);
    world.run();
    world.counts(FROM, UNTIL).0
}

#[test]
fn refusals_by_chance_slow_nothing_down() {
    let mut slow = Vec::new();
    for (refused, other) in [(0.05, 0.0), (0.1, 0.0), (0.075, 0.075), (0.02, 0.2)] {
        for latency_ms in [5, 50, 1000] {
            for processes in [1, 3] {
                for retry_after in [None, Some(Duration::from_secs(1))] {
                    let others =
                        Chance { refused: 0.0, unavailable: other, failed: other, hangs: other, retry_after };
                    let could = applied(others, latency_ms, processes);
                    let was = applied(Chance { refused, ..others }, latency_ms, processes);
                    let line = format!(
                        "{refused} refused, {other} fail otherwise, {latency_ms} ms, {processes} processes, {retry_after:?}: {was} of {could}"
                    );
                    println!("{line}");
                    if was * 10 < could * 7 {
                        slow.push(line);
                    }
                }
            }
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

/// Shares in percent from second `from` on, of 360: refused of all requests, and accepted of what is `left`.
fn figures(target: Target, processes: usize, from: u64, left: u64) -> (f64, f64) {
    let mut world = world(processes, 50, target, 360);
    world.run();
    let (accepted, refused) = world.counts(from, 360);
    let used = accepted as f64 / (left * (360 - from)) as f64;
    (100.0 * refused as f64 / (accepted + refused).max(1) as f64, 100.0 * used)
}

#[test]
fn a_limit_that_becomes_lower_is_obeyed() {
    for processes in [1, 3] {
        for kind in [Kind::TokenBucket, Kind::FixedWindow, Kind::SlidingWindow] {
            for headers in [Headers::None, Headers::RetryAfter] {
                let mut target = Target::new(kind, headers, 500);
                target.changes = Some((120 * SECOND, 50));
                let (refused, used) = figures(target, processes, 180, 50);
                println!("{kind:?} {headers:?} {processes}: refused {refused:.2} %, used {used:.1} %");
                assert!(refused <= 5.0 && used >= 80.0, "{kind:?} {headers:?} {processes}: {refused} {used}");
            }
        }
    }
}

#[test]
fn a_limit_beside_refusals_by_chance_is_obeyed_and_used() {
    for processes in [1, 3] {
        for refused in [0.05, 0.1] {
            let mut target = Target::new(Kind::TokenBucket, Headers::None, 50);
            target.chance = Chance { refused, ..Chance::default() };
            let (refused, used) = figures(target, processes, 120, 50);
            println!("{processes}: refused {refused:.2} %, used {used:.1} %");
            assert!(refused <= 20.0 && used >= 30.0, "{processes}: {refused} {used}");
        }
    }
}

/// Another program sends at an even rate, whatever it is answered: how many are refused depends on our rate only in part.
#[test]
fn what_another_program_leaves_of_a_limit_is_used_and_few_are_refused() {
    for processes in [1, 3] {
        for others in [25, 40, 45] {
            let mut target = Target::new(Kind::TokenBucket, Headers::None, 50);
            target.others = others;
            let (refused, used) = figures(target, processes, 120, 50 - others);
            println!(
                "{processes}, {others}/s of others: refused {refused:.2} %, used {used:.1} % of the rest"
            );
            assert!(refused <= 12.0 && used >= 90.0, "{processes} {others}: {refused} {used}");
        }
    }
}
