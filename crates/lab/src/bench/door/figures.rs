//! What was measured, and the lines that say it.

use std::time::Duration;

use super::super::output::{Spread, share, whole};

/// What it took to get updates confirmed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// Confirmed updates per second.
    rate: f64,
    /// Processor seconds per 10,000 updates.
    cpu: f64,
}

impl Cost {
    pub(super) fn new(updates: usize, took: Duration, cpu_seconds: f64) -> Self {
        let updates = updates as f64;
        Self { rate: updates / took.as_secs_f64(), cpu: cpu_seconds * 10_000.0 / updates }
    }
}

/// Of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    pub(super) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| {
            let place = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
        };
        Self { p50: at(50), p99: at(99) }
    }
}

/// One round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Round {
    pub(super) door: Cost,
    /// Most resident memory of the door, in MB.
    pub(super) door_mb: f64,
    pub(super) publish: Cost,
    pub(super) at_door: Percentiles,
    pub(super) at_broker: Percentiles,
    /// The mean of the door's own histogram, in milliseconds.
    pub(super) inside_ms: f64,
}

/// The lines of several rounds.
pub(super) fn lines(rounds: &[Round]) -> Vec<String> {
    let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
    let ms = |value: fn(&Round) -> f64| of(value).format(" ms", share);
    let signed = |value: fn(&Round) -> f64| of(value).format(" ms", |ms| format!("{ms:+.2}"));
    let cost = |rate: fn(&Round) -> f64, cpu: fn(&Round) -> f64| {
        format!("{} CPU {}", of(rate).format("/s", whole), of(cpu).format(" s/10k", share))
    };
    vec![
        format!(
            "door {} RSS {}",
            cost(|round| round.door.rate, |round| round.door.cpu),
            of(|round| round.door_mb).format(" MB", whole),
        ),
        format!("publish {}", cost(|round| round.publish.rate, |round| round.publish.cpu)),
        format!(
            "door against publish: rate {} CPU {}",
            of(|round| round.door.rate / round.publish.rate).format("", share),
            of(|round| round.door.cpu / round.publish.cpu).format("", share),
        ),
        format!(
            "latency door p50 {} p99 {}; from the request to the confirm, mean {}",
            ms(|round| round.at_door.p50),
            ms(|round| round.at_door.p99),
            ms(|round| round.inside_ms),
        ),
        format!(
            "latency broker p50 {} p99 {}",
            ms(|round| round.at_broker.p50),
            ms(|round| round.at_broker.p99)
        ),
        format!(
            "door adds p50 {} p99 {}",
            signed(|round| round.at_door.p50 - round.at_broker.p50),
            signed(|round| round.at_door.p99 - round.at_broker.p99),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_differences_are_taken_within_a_round() {
        let cost = |rate, cpu| Cost { rate, cpu };
        let round = |door: f64, publish: f64, at_door: f64, at_broker: f64| Round {
            door: cost(door, 2.0 / door),
            door_mb: 40.0,
            publish: cost(publish, 1.0 / publish),
            at_door: Percentiles { p50: at_door, p99: 2.0 * at_door },
            at_broker: Percentiles { p50: at_broker, p99: 2.0 * at_broker },
            inside_ms: 1.0,
        };
        let lines = lines(&[round(10_000.0, 20_000.0, 2.0, 1.5), round(5_000.0, 10_000.0, 4.0, 3.0)]);
        assert_eq!(lines[2], "door against publish: rate 0.50 (0.50 0.50 2) CPU 4.00 (4.00 4.00 2)");
        assert_eq!(lines[5], "door adds p50 +0.75 ms (+0.50 +1.00 2) p99 +1.50 ms (+1.00 +2.00 2)");
        assert!(lines[0].starts_with("door 7,500/s (5,000 10,000 2) CPU 0.00 s/10k"), "{}", lines[0]);
        let percentiles = Percentiles::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!(percentiles, Percentiles { p50: 101.0, p99: 199.0 });
    }
}
