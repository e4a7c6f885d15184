//! Simulation of pacers against targets that limit requests, in virtual time.
//!
//! `targets` are the models, `world` the processes that send to one. A backlog always waits.
//! `cargo test -p lanekeeper-core --test pacing -- --nocapture` prints the figures.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the simulation is around the core")]

mod targets;
mod world;

use std::fmt::Write as _;

use lanekeeper_core::pacing::PacerLimits;
use targets::{Headers, Kind, Target};
use world::{Setup, World};

const KINDS: [Kind; 3] = [Kind::TokenBucket, Kind::FixedWindow, Kind::SlidingWindow];

fn states_quota(headers: Headers) -> bool {
    !matches!(headers, Headers::None | Headers::RetryAfter)
}

/// Shares of minutes 2 to 6, in percent: refused of all requests, accepted of the limit.
fn figures(kind: Kind, headers: Headers, limit: u64, latency_ms: u64, processes: usize) -> (f64, f64) {
    let shares = processes > 1 && states_quota(headers);
    let limits = PacerLimits::default();
    let setup = Setup { processes, latency: latency_ms * 1000, limits, shares, seconds: 360 };
    let mut world = World::new(setup, Target::new(kind, headers, limit));
    world.run();
    let (accepted, refused) = world.counts(120, 360);
    let all = (accepted + refused).max(1) as f64;
    (100.0 * refused as f64 / all, 100.0 * accepted as f64 / (limit * 240) as f64)
}

fn check(headers: Headers, limit: u64) {
    let (refused_max, used_min) = match headers {
        // Three processes in one sliding window cannot know how much of it the others have used.
        Headers::XRateLimitRemaining => (3.0, 80.0),
        Headers::RateLimit | Headers::XRateLimit => (3.0, 95.0),
        Headers::None | Headers::RetryAfter => (5.0, 85.0),
    };
    let mut table = String::new();
    let mut faults = 0;
    for kind in KINDS {
        for latency_ms in [5, 50] {
            for processes in [1, 3] {
                let (refused, used) = figures(kind, headers, limit, latency_ms, processes);
                let good = refused <= refused_max && used >= used_min;
                faults += usize::from(!good);
                let _ = writeln!(
                    table,
                    "{headers:?} {kind:?} R={limit} {latency_ms} ms {processes} processes: refused {refused:.2} %, used {used:.1} %{}",
                    if good { "" } else { " <-- FAULT" }
                );
            }
        }
    }
    print!("{table}");
    assert_eq!(faults, 0, "\n{table}");
}

macro_rules! goals {
    ($($name:ident: $headers:ident $limit:literal;)*) => {
        $(#[test] fn $name() { check(Headers::$headers, $limit); })*
    };
}

goals! {
    none_5: None 5;
    none_50: None 50;
    none_500: None 500;
    retry_after_5: RetryAfter 5;
    retry_after_50: RetryAfter 50;
    retry_after_500: RetryAfter 500;
    rate_limit_5: RateLimit 5;
    rate_limit_50: RateLimit 50;
    rate_limit_500: RateLimit 500;
    x_rate_limit_remaining_5: XRateLimitRemaining 5;
    x_rate_limit_remaining_50: XRateLimitRemaining 50;
    x_rate_limit_5: XRateLimit 5;
    x_rate_limit_50: XRateLimit 50;
    x_rate_limit_500: XRateLimit 500;
}

#[test]
fn debug_one() {
    for (headers, kind, limit, latency) in [
        (Headers::RateLimit, Kind::SlidingWindow, 5, 5),
        (Headers::XRateLimit, Kind::SlidingWindow, 5, 5),
        (Headers::XRateLimit, Kind::SlidingWindow, 50, 50),
        (Headers::RateLimit, Kind::FixedWindow, 5, 50),
    ] {
        let setup = Setup {
            processes: 3,
            latency: latency * 1000,
            limits: PacerLimits::default(),
            shares: true,
            seconds: 360,
        };
        let mut world = World::new(setup, Target::new(kind, headers, limit));
        world.run();
        for m in 0..6 {
            println!("DBG {:?}", world.counts(m * 60, m * 60 + 60));
        }
        world.debug();
    }
}
