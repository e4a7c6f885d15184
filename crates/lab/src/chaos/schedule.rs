//! Which faults are injected, and when: drawn from a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::testbed::ProxyMode;

/// One fault. It is over when its time has passed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// SIGKILL, and started again after this time.
    Kill { replica: usize, down: Duration },
    /// SIGTERM, and started again after this time.
    Terminate { replica: usize, down: Duration },
    /// SIGSTOP, and SIGCONT after this time.
    Freeze { replica: usize, lasts: Duration },
    /// The broker is killed and started again.
    KillBroker,
    /// The broker's application is stopped in an orderly way and started again.
    RestartBroker,
    /// All connections to the broker are closed by its operator.
    DropConnections,
    /// The target refuses connections, or takes requests and does not answer.
    Outage { mode: ProxyMode, lasts: Duration },
    /// All connections to the target are closed, once.
    CutTarget,
}

impl Fault {
    /// What it is counted as.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "SIGKILL",
            Self::Terminate { .. } => "SIGTERM",
            Self::Freeze { .. } => "SIGSTOP",
            Self::KillBroker => "broker killed",
            Self::RestartBroker => "broker restarted",
            Self::DropConnections => "connections dropped",
            Self::Outage { mode: ProxyMode::Silent, .. } => "target silent",
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
pub(super) struct Schedule {
    rng: Rng,
    replicas: usize,
    heartbeat: Duration,
}

impl Schedule {
    pub(super) fn new(seed: u64, replicas: usize, heartbeat: Duration) -> Self {
        Self { rng: Rng::with_seed(seed), replicas, heartbeat }
    }

    /// How long nothing is injected, and what is then: one fault, or two at the same time.
    pub(super) fn next(&mut self) -> (Duration, Fault, Option<Fault>) {
        let pause = self.millis(200, 2_500);
        let first = self.fault();
        let second = (self.rng.u8(..4) == 0).then(|| self.fault());
        (pause, first, second)
    }

    fn fault(&mut self) -> Fault {
        let replica = self.rng.usize(..self.replicas);
        match self.rng.u8(..100) {
            0..20 => Fault::Kill { replica, down: self.millis(0, 1_500) },
            20..38 => Fault::Terminate { replica, down: self.millis(0, 1_500) },
            38..50 => Fault::Freeze { replica, lasts: self.millis(100, 2_000) },
            // Longer than it takes until a standby takes over.
            50..57 => {
                let lasts = self.heartbeat * 7 / 2 + self.millis(0, 2_000);
                Fault::Freeze { replica, lasts }
            }
            57..64 => Fault::KillBroker,
            64..68 => Fault::RestartBroker,
            68..80 => Fault::DropConnections,
            80..93 => {
                let mode = if self.rng.bool() { ProxyMode::Refuse } else { ProxyMode::Silent };
                Fault::Outage { mode, lasts: self.millis(200, 4_000) }
            }
            _ => Fault::CutTarget,
        }
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.rng.u64(low..=high))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn equal_seeds_give_equal_schedules_and_every_kind_of_fault_comes() {
        let schedule = |seed| {
            let mut schedule = Schedule::new(seed, 3, Duration::from_secs(2));
            (0..500).map(|_| schedule.next()).collect::<Vec<_>>()
        };
        assert_eq!(format!("{:?}", schedule(7)), format!("{:?}", schedule(7)));
        assert_ne!(format!("{:?}", schedule(7)), format!("{:?}", schedule(8)));
        let kinds: BTreeSet<_> = schedule(1)
            .iter()
            .flat_map(|(_, first, second)| [Some(*first), *second])
            .filter_map(|fault| fault.map(|fault| fault.kind()))
            .collect();
        assert_eq!(kinds.len(), 9, "{kinds:?}");
    }
}
