//! Simulation of pacers against targets that limit requests, in virtual time.
//!
//! `targets` are the models, `world` the processes that send to one. A backlog always waits.
//! `cargo test -p lanekeeper-core --test pacing -- --nocapture` prints the figures.

#![expect(clippy::disallowed_macros, reason = "it prints its figures")]

mod chance;
mod targets;
mod world;

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use lanekeeper_core::pacing::{PacerLimits, Rate, Refusal, Reply};
use targets::{Headers, Kind, Target};
use world::{SECOND, Setup, World};

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

/// At most so much may be refused, and at least so much must be used.
fn goal(kind: Kind, headers: Headers, limit: u64, processes: usize) -> (f64, f64) {
    match (kind, headers) {
        (_, Headers::None | Headers::RetryAfter) => (5.0, 85.0),
        // One or two requests of each process in a window: how they meet is chance, and no process knows of the others'.
        (Kind::SlidingWindow, _) if limit == 5 && processes == 3 => (3.0, 78.0),
        (Kind::FixedWindow, Headers::XRateLimitRemaining) if limit == 5 && processes == 3 => (6.0, 85.0),
        // Nor what the limit is, if answers state only what remains.
        (Kind::SlidingWindow, Headers::XRateLimitRemaining) => (3.0, 80.0),
        _ => (3.0, 95.0),
    }
}

fn check(headers: Headers, limit: u64) {
    let mut table = String::new();
    let mut faults = 0;
    for kind in KINDS {
        for latency_ms in [5, 50] {
            for processes in [1, 3] {
                let (refused, used) = figures(kind, headers, limit, latency_ms, processes);
                let (refused_max, used_min) = goal(kind, headers, limit, processes);
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

fn setup(processes: usize, limits: PacerLimits) -> Setup {
    Setup { processes, latency: 50_000, limits, shares: false, seconds: 360 }
}

#[test]
fn after_an_outage_no_more_than_the_limit_is_sent() {
    for kind in KINDS {
        let mut target = Target::new(kind, Headers::None, 50);
        target.outage = Some((120 * SECOND, 180 * SECOND));
        let mut world = World::new(setup(1, PacerLimits::default()), target);
        world.run();
        let most = world.most_within(Duration::from_secs(1), |arrival| arrival.at > 180 * SECOND);
        assert!(most <= 55, "{kind:?}: {most} within a second after the outage");
        let (_, refused) = world.counts(121, 180);
        assert!(refused <= 3, "{kind:?}: {refused} requests during the outage");
        let (accepted, refused) = world.counts(185, 360);
        assert!(accepted >= 175 * 50 * 85 / 100, "{kind:?}: {accepted} accepted afterwards");
        assert!(refused * 20 <= accepted, "{kind:?}: {refused} refused afterwards");
    }
}

#[test]
fn one_record_that_is_always_refused_does_not_slow_the_others() {
    for headers in [Headers::None, Headers::RetryAfter, Headers::RateLimit] {
        let mut target = Target::new(Kind::TokenBucket, headers, 50);
        target.refused_record = Some(7);
        let mut world = World::new(setup(1, PacerLimits::default()), target);
        world.run();
        let of_record: Vec<_> =
            world.refusals.iter().filter(|(record, _)| *record == 7).map(|(_, refusal)| *refusal).collect();
        assert!(of_record.len() > 50, "{headers:?}: {} refusals", of_record.len());
        let late = of_record.iter().skip(2).filter(|refusal| **refusal != Refusal::OfRecord).count();
        assert_eq!(late, 0, "{headers:?}: {of_record:?}");
        let (accepted, _) = world.counts(120, 360);
        assert!(accepted >= 240 * 50 * 85 / 100, "{headers:?}: {accepted} accepted");
    }
}

#[test]
fn every_record_gets_its_part() {
    let mut world =
        World::new(setup(1, PacerLimits::default()), Target::new(Kind::TokenBucket, Headers::None, 50));
    world.run();
    let applied = |record: usize| {
        let of_record = world.arrivals.iter().filter(|arrival| arrival.record == record);
        of_record.filter(|arrival| arrival.at > 120 * SECOND && arrival.reply == Reply::Applied).count()
    };
    let counts: Vec<_> = (0..100).map(applied).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= most / 10, "{counts:?}");
}

#[test]
fn rate_max_is_never_exceeded() {
    let rate = Rate { requests: NonZeroU32::new(50).unwrap(), per: Duration::from_secs(1) };
    let limits = PacerLimits { rate_max: Some(rate), in_flight_max: None };
    let mut world = World::new(setup(1, limits), Target::new(Kind::TokenBucket, Headers::None, 1000));
    world.run();
    // What 50 ms are worth is made up for, and latency differs by 20 ms.
    let most = world.most_within(rate.per, |_| true);
    assert!(most <= 50 + 3 + 1, "{most}");
    let (accepted, _) = world.counts(120, 360);
    assert!(accepted >= 240 * 50 * 98 / 100, "{accepted} accepted");
}
