//! A quiet world proves nothing: what the worlds must have met.

/// What has happened, so that a quiet world can be told from a hostile one.
#[derive(Clone, Copy, Debug, Default)]
pub struct HardshipCounts {
    pub changes: u32,
    pub crashes: u32,
    pub actor_crashes: u32,
    pub undone: u32,
    pub late_publishes: u32,
    /// Updates in the queue of another partition than their record's.
    pub misplaced: u32,
    pub channels_lost: u32,
    pub finished_by_others: u32,
    /// Attempts from the layout in force while the one before drains.
    pub early: u32,
    /// Deliveries that wait for their record's former partition.
    pub awaited: u32,
    /// Worlds in which that cannot be computed.
    pub shifted: u32,
}

impl HardshipCounts {
    pub fn named(&mut self) -> [(&'static str, u32); 11] {
        self.fields().map(|(what, times)| (what, *times))
    }

    fn fields(&mut self) -> [(&'static str, &mut u32); 11] {
        [
            ("changes", &mut self.changes),
            ("crashes of processes", &mut self.crashes),
            ("crashes in the middle of a change", &mut self.actor_crashes),
            ("changes undone", &mut self.undone),
            ("stragglers", &mut self.late_publishes),
            ("misplaced updates", &mut self.misplaced),
            ("channels lost", &mut self.channels_lost),
            ("changes brought to an end by others", &mut self.finished_by_others),
            ("attempts beside a layout that drains", &mut self.early),
            ("deliveries that waited for their former partition", &mut self.awaited),
            ("worlds in which that cannot be computed", &mut self.shifted),
        ]
    }

    pub fn add(&mut self, mut other: Self) {
        for ((_, all), (_, times)) in self.fields().into_iter().zip(other.named()) {
            *all += times;
        }
    }
}
