//! Processes killed at each step of an update's way, between what the world does to them and what they make of it.

use crate::trace::TraceLine;
use crate::world::World;

/// A step of an update's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Received,
    AttemptSent,
    AnswerRead,
    /// The resolution is on its way into the ledger.
    Recorded,
    Committed,
    /// Its ack is on its way.
    Acked,
}

impl Step {
    pub const ALL: [Self; 6] =
        [Self::Received, Self::AttemptSent, Self::AnswerRead, Self::Recorded, Self::Committed, Self::Acked];
}

impl World {
    /// Chooses at which step the process dies, from time to time.
    pub fn aim(&mut self) {
        if self.aimed_at.is_none()
            && let Some(behaviour) = self.setup.ledger.as_mut().filter(|behaviour| behaviour.kills > 0)
            && self.now < self.setup.calm_at
            && self.rng.chance(20)
        {
            behaviour.kills -= 1;
            self.aimed_at = Some(self.rng.pick(&Step::ALL));
        }
    }

    /// A step is done. Whether the process died of it.
    pub fn dies_after(&mut self, step: Step) -> bool {
        let dies = self.aimed_at == Some(step) && self.now < self.setup.calm_at;
        if dies {
            self.aimed_at = None;
            self.trace(TraceLine::Killed { after: step });
            self.crash();
        }
        dies
    }
}
