//! The loads that docs/performance.md has figures of.

use std::time::Duration;

/// Share by which the receiver's latency varies.
const JITTER: f64 = 0.2;
const KIB: usize = 1024;
/// Small, since the receiver keeps a body for each record.
const KEYS_BODY_BYTES: usize = 128;

/// A load by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ScenarioName {
    /// 100,000 updates of 1 KiB wait in 8 partitions, of 1,000 records; the receiver takes 5 ms ± 20 %.
    Drain5,
    /// The same, and the receiver answers at once.
    Drain0,
    /// 50,000 updates wait in 64 partitions; the receiver takes 50 ms ± 20 %.
    Wide,
    /// As drain5, with records of Zipf's law (exponent 1): the hottest has an eighth of all updates.
    Zipf,
    /// One record answers 503 for 15 s, at 100 updates/s per partition: how fast the others of its partition are.
    Stuck,
    /// 100 updates/s: how long each takes from publishing to the receiver.
    Trickle,
    /// 1,000,000 updates of as many records, compared with as many updates of 1,000 records: lanes come and go.
    Keys,
    /// 1,000,000 updates of 1 KiB wait: how much memory is used.
    Backlog,
}

/// How the record of the next update is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// Each as likely as any other.
    Uniform,
    /// The record of rank n with a probability proportional to 1/n.
    Zipf,
    /// One after another, each once.
    Distinct,
}

/// The main figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Rate,
    /// The rate, and how near it is to what the hottest record allows.
    Hottest,
    /// The rate, and memory over time.
    Memory,
    /// The rate of the others of a stuck record's partition.
    Kept,
    Delays,
}

/// See [`ScenarioName`].
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) partitions: u16,
    pub(super) records: u32,
    pub(super) keys: Keys,
    pub(super) figure: Figure,
    pub(super) updates: usize,
    pub(super) body_bytes: usize,
    /// Latency of the receiver.
    pub(super) latency: Duration,
    pub(super) latency_jitter: f64,
    /// Updates published per second while they are forwarded; `None`: all wait in the queues before the forwarder starts.
    pub(super) pace: Option<f64>,
    /// How long all requests of the first record fail.
    pub(super) stuck_for: Option<Duration>,
}

impl Scenario {
    /// The scenario of this name, and the one that it is compared with, if there is one. `scale`: share of the updates; it
    /// does not change how long a record is stuck.
    pub(super) fn of(name: ScenarioName, scale: f64) -> Vec<Self> {
        let scenario = Self::new(name, scale);
        let mut all = vec![scenario.clone()];
        if name == ScenarioName::Keys {
            all.push(Self { name: "keys1000", records: 1_000, keys: Keys::Uniform, ..scenario });
        }
        all
    }

    /// The scenario alone.
    pub(super) fn new(name: ScenarioName, scale: f64) -> Self {
        let drain = Self {
            name: "drain5",
            partitions: 8,
            records: 1_000,
            keys: Keys::Uniform,
            figure: Figure::Rate,
            updates: 100_000,
            body_bytes: KIB,
            latency: Duration::from_millis(5),
            latency_jitter: JITTER,
            pace: None,
            stuck_for: None,
        };
        let scenario = match name {
            ScenarioName::Drain5 => drain,
            ScenarioName::Drain0 => {
                Self { name: "drain0", latency: Duration::ZERO, latency_jitter: 0.0, ..drain }
            }
            ScenarioName::Wide => Self {
                name: "wide",
                partitions: 64,
                updates: 50_000,
                latency: Duration::from_millis(50),
                ..drain
            },
            ScenarioName::Zipf => Self { name: "zipf", keys: Keys::Zipf, figure: Figure::Hottest, ..drain },
            ScenarioName::Stuck => Self {
                name: "stuck",
                figure: Figure::Kept,
                updates: 13_600, // 17 s
                pace: Some(800.0),
                stuck_for: Some(Duration::from_secs(15)),
                ..drain
            },
            ScenarioName::Trickle => Self {
                name: "trickle",
                figure: Figure::Delays,
                updates: 2_000,
                pace: Some(100.0),
                latency: Duration::ZERO,
                latency_jitter: 0.0,
                ..drain
            },
            ScenarioName::Keys => Self {
                name: "keys",
                records: 1_000_000,
                keys: Keys::Distinct,
                figure: Figure::Memory,
                updates: 1_000_000,
                body_bytes: KEYS_BODY_BYTES,
                latency: Duration::ZERO,
                latency_jitter: 0.0,
                ..drain
            },
            ScenarioName::Backlog => Self {
                name: "backlog",
                figure: Figure::Memory,
                updates: 1_000_000,
                latency: Duration::ZERO,
                latency_jitter: 0.0,
                ..drain
            },
        };
        if scenario.stuck_for.is_some() { scenario } else { scenario.scaled(scale) }
    }

    /// With this share of the updates, at least one update.
    pub(super) fn scaled(self, share: f64) -> Self {
        let updates = Duration::from_micros(self.updates as u64).mul_f64(share).as_micros();
        let updates = usize::try_from(updates).unwrap_or(usize::MAX).max(1);
        let records = match self.keys {
            Keys::Distinct => u32::try_from(updates).unwrap_or(u32::MAX),
            Keys::Uniform | Keys::Zipf => self.records,
        };
        Self { records, updates, ..self }
    }
}
