//! Which faults a cluster gets, and in what order.

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

use crate::testbed::NodeNumber;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(in crate::chaos) enum FaultKind {
    /// The node whose dispatcher owns most partitions is cut off from the others, with `cluster_partition_handling` =
    /// `ignore`; healed, and restarted.
    Split,
    /// The same with `pause_minority`.
    SplitPausing,
    /// The same with `ignore` and one dispatcher alone, which stays connected to the cut-off node.
    SplitAlone,
    /// SIGKILL of each node in turn.
    Kill,
    /// SIGSTOP of a node for 25 s.
    Freeze,
    /// Each node in turn is ended in an orderly way and started again.
    RollingRestart,
    /// SIGKILL of all three nodes at once.
    KillAll,
    /// `lanekeeper topology apply` while a node is killed.
    LayoutChange,
    /// The leaders of all queues move to other nodes.
    MoveLeaders,
    /// The node with the leader of the stream of members is lost, while queues and owners are elsewhere: by SIGKILL, by
    /// SIGSTOP, and cut off, in turn.
    LoseMembersLeader,
    /// SIGKILL of the dispatcher that owns most partitions.
    KillOwner,
    /// SIGSTOP of the dispatcher that owns most partitions, for several heartbeats.
    FreezeOwner,
}

impl FaultKind {
    /// True if it needs a cluster whose links can be cut.
    pub(super) const fn splits(self) -> bool {
        matches!(self, Self::Split | Self::SplitPausing | Self::SplitAlone | Self::LoseMembersLeader)
    }

    /// As on the command line and in the result.
    pub(super) fn name(self) -> String {
        self.to_possible_value().expect("no kind is hidden").get_name().to_owned()
    }
}

/// Every kind once, in random order, and again. Equal seeds give equal schedules.
#[derive(Debug)]
pub(super) struct Schedule {
    rng: Rng,
    kinds: Vec<FaultKind>,
    round: Vec<FaultKind>,
}

impl Schedule {
    /// `kinds` is not empty.
    pub(super) fn new(seed: u64, kinds: Vec<FaultKind>) -> Self {
        Self { rng: Rng::with_seed(seed), kinds, round: Vec::new() }
    }

    /// The next fault, and how long updates flow before it.
    pub(super) fn next(&mut self) -> (Duration, FaultKind) {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.round);
        }
        let kind = self.round.pop().expect("a round has every kind");
        (Duration::from_millis(self.rng.u64(3_000..8_000)), kind)
    }

    /// All nodes, in random order.
    pub(super) fn nodes(&mut self) -> [NodeNumber; 3] {
        let mut nodes = NodeNumber::ALL;
        self.rng.shuffle(&mut nodes);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_round_has_every_kind_and_equal_seeds_give_equal_schedules() {
        let kinds = || FaultKind::value_variants().to_vec();
        let schedule = |seed| {
            let mut schedule = Schedule::new(seed, kinds());
            (0..3 * kinds().len()).map(|_| schedule.next()).collect::<Vec<_>>()
        };
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
        for round in schedule(1).chunks(kinds().len()) {
            assert_eq!(round.iter().map(|(_, kind)| *kind).collect::<BTreeSet<_>>().len(), kinds().len());
        }
    }
}
