//! What goes wrong, in which order: drawn from a seed.

use std::fmt;
use std::time::Duration;

use super::rng::Rng;
use crate::harness::Way;

/// What can go wrong. It is over when its time has passed.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL, and started again after this time.
    Kill { replica: usize, down: Duration },
    /// SIGTERM, and started again after this time.
    Terminate { replica: usize, down: Duration },
    /// SIGSTOP, SIGCONT after this time.
    Freeze { replica: usize, lasts: Duration },
    /// The broker is killed and started again.
    KillBroker,
    /// The broker's application is stopped in an orderly way and started again.
    RestartBroker,
    /// All connections to the broker are closed by its operator.
    DropConnections,
    /// The target refuses connections, or takes requests and does not answer.
    Outage { way: Way, lasts: Duration },
    /// All connections to the target are cut, once.
    CutTarget,
}

impl Fault {
    /// For counting.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "SIGKILL",
            Self::Terminate { .. } => "SIGTERM",
            Self::Freeze { .. } => "SIGSTOP",
            Self::KillBroker => "broker killed",
            Self::RestartBroker => "broker restarted",
            Self::DropConnections => "connections dropped",
            Self::Outage { way: Way::Silent, .. } => "target silent",
            Self::Outage { .. } => "target refusing",
            Self::CutTarget => "target cut",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { replica, down } | Self::Terminate { replica, down } => {
                write!(f, "{} of replica {replica}, down for {down:?}", self.kind())
            }
            Self::Freeze { replica, lasts } => {
                write!(f, "{} of replica {replica} for {lasts:?}", self.kind())
            }
            Self::Outage { lasts, .. } => write!(f, "{} for {lasts:?}", self.kind()),
            Self::KillBroker | Self::RestartBroker | Self::DropConnections | Self::CutTarget => {
                f.write_str(self.kind())
            }
        }
    }
}

/// Equal seeds give equal schedules.
pub struct Schedule {
    rng: Rng,
    replicas: usize,
    heartbeat: Duration,
}

impl Schedule {
    pub fn new(seed: u64, replicas: usize, heartbeat: Duration) -> Self {
        Self { rng: Rng::new(seed), replicas, heartbeat }
    }

    /// How long all goes well, and what goes wrong then: one thing, or two at a time.
    pub fn next(&mut self) -> (Duration, Fault, Option<Fault>) {
        let calm = self.millis(200, 2_500);
        let first = self.fault();
        let second = self.rng.chance(250).then(|| self.fault());
        (calm, first, second)
    }

    fn fault(&mut self) -> Fault {
        let replica = self.rng.index(self.replicas);
        match self.rng.below(100) {
            0..20 => Fault::Kill { replica, down: self.millis(0, 1_500) },
            20..38 => Fault::Terminate { replica, down: self.millis(0, 1_500) },
            38..50 => Fault::Freeze { replica, lasts: self.millis(100, 2_000) },
            // Past the point where a standby takes over.
            50..57 => {
                let lasts = self.heartbeat * 7 / 2 + self.millis(0, 2_000);
                Fault::Freeze { replica, lasts }
            }
            57..64 => Fault::KillBroker,
            64..68 => Fault::RestartBroker,
            68..80 => Fault::DropConnections,
            80..93 => {
                let way = self.rng.pick(&[Way::Refused, Way::Silent]);
                Fault::Outage { way, lasts: self.millis(200, 4_000) }
            }
            _ => Fault::CutTarget,
        }
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.rng.between(low, high))
    }
}
