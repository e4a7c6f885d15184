//! What a partition holds, told from outside.

use super::Partition;

/// What a partition holds right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Deliveries not yet settled.
    pub held: usize,
    /// Parked updates that were released and have not had their turn.
    pub released: usize,
    /// Records with an update here.
    pub lanes: usize,
    /// Records whose head waits for a permit.
    pub ready: usize,
    /// Attempts out, those of earlier tenures included.
    pub in_flight: usize,
    /// Records whose head waits between attempts.
    pub waiting: usize,
    /// Records whose head waits for a target that is shut.
    pub target_shut: usize,
    /// Resolutions that are being written down.
    pub recording: usize,
    /// Events that came too late to change anything, since the start.
    pub stale: u64,
}

impl Partition {
    /// What it holds right now.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            held: self.held,
            released: self.released,
            lanes: self.lanes.len(),
            ready: self.ready.len(),
            in_flight: self.in_flight,
            waiting: self.deadlines.len(),
            target_shut: self.targets.lanes(),
            recording: self.recording,
            stale: self.stale,
        }
    }
}
