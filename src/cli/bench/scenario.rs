//! The loads: what docs/performance.md has figures of.

use std::time::Duration;

/// Share by which the receiver's time varies.
const JITTER: f64 = 0.2;
const KIB: usize = 1024;

/// A load, as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Name {
    /// 100,000 updates of 1 KiB wait in 8 partitions, of 1,000 records; the receiver takes 5 ms ± 20 %.
    Drain5,
    /// The same, and the receiver answers at once.
    Drain0,
    /// One record answers 503 for 15 s, at 100 updates/s per partition: what becomes of the others of its partition.
    Stuck,
    /// 100 updates/s: how long each takes from being published to its receipt.
    Trickle,
}

/// See [`Name`].
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) partitions: u16,
    pub(super) records: u32,
    pub(super) updates: usize,
    pub(super) body_bytes: usize,
    /// Of the receiver.
    pub(super) latency: Duration,
    pub(super) latency_jitter: f64,
    /// Updates published in a second, while they are forwarded; `None`: all wait in the queues before that begins.
    pub(super) pace: Option<f64>,
    /// How long the first record's requests fail.
    pub(super) stuck_for: Option<Duration>,
}

impl Scenario {
    /// `scale`: share of the updates. A record is stuck for as long as its scenario says.
    pub(super) fn new(name: Name, scale: f64) -> Self {
        let drain = Self {
            name: "drain5",
            partitions: 8,
            records: 1_000,
            updates: 100_000,
            body_bytes: KIB,
            latency: Duration::from_millis(5),
            latency_jitter: JITTER,
            pace: None,
            stuck_for: None,
        };
        let scenario = match name {
            Name::Drain5 => drain,
            Name::Drain0 => Self { name: "drain0", latency: Duration::ZERO, latency_jitter: 0.0, ..drain },
            Name::Stuck => Self {
                name: "stuck",
                updates: 13_600, // 17 s
                pace: Some(800.0),
                stuck_for: Some(Duration::from_secs(15)),
                ..drain
            },
            Name::Trickle => Self {
                name: "trickle",
                updates: 2_000,
                pace: Some(100.0),
                latency: Duration::ZERO,
                latency_jitter: 0.0,
                ..drain
            },
        };
        if scenario.stuck_for.is_some() { scenario } else { scenario.scaled(scale) }
    }

    /// With this share of the updates, at least one.
    pub(super) fn scaled(self, share: f64) -> Self {
        let updates = Duration::from_micros(self.updates as u64).mul_f64(share).as_micros();
        Self { updates: usize::try_from(updates).unwrap_or(usize::MAX).max(1), ..self }
    }
}
