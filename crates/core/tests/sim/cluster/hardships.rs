//! A quiet world proves nothing: what the worlds must have met.

/// What the worlds met.
#[derive(Clone, Copy, Debug, Default)]
pub struct HardshipCounts {
    pub splits: u32,
    pub taken_back: u32,
    pub late_appends: u32,
    pub void_deliveries: u32,
    pub void_claims: u32,
    pub kills: u32,
    pub stops: u32,
    pub stalls: u32,
    pub alarms: u32,
    pub abandoned: u32,
    pub let_go: u32,
    pub renewed: u32,
    pub waits: u32,
    pub waits_ended_early: u32,
    pub left_while_waiting: u32,
    pub misplaced: u32,
}

impl HardshipCounts {
    pub fn named(&mut self) -> [(&'static str, u32); 16] {
        self.fields().map(|(what, times)| (what, *times))
    }

    fn fields(&mut self) -> [(&'static str, &mut u32); 16] {
        [
            ("splits", &mut self.splits),
            ("consumers whose updates were taken back", &mut self.taken_back),
            ("appends after the heal", &mut self.late_appends),
            ("deliveries that came again on the same channel", &mut self.void_deliveries),
            ("claims that were void", &mut self.void_claims),
            ("kills", &mut self.kills),
            ("stops", &mut self.stops),
            ("processes that stood still", &mut self.stalls),
            ("alarms", &mut self.alarms),
            ("partitions given up", &mut self.abandoned),
            ("claims let go", &mut self.let_go),
            ("leases renewed after a lapse", &mut self.renewed),
            ("waits", &mut self.waits),
            ("waits that ended early", &mut self.waits_ended_early),
            ("owners that left while they waited", &mut self.left_while_waiting),
            ("updates that somebody else gave back late", &mut self.misplaced),
        ]
    }

    pub fn add(&mut self, mut other: Self) {
        for ((_, all), (_, times)) in self.fields().into_iter().zip(other.named()) {
            *all += times;
        }
    }
}
