//! Parked updates that a person released. They have their turn before what the broker hands over of their record.
//!
//! While a record has parked updates, the ledger says so when an update of it that the broker handed over is looked up,
//! and that update joins the end of the parked ones. So what the ledger holds is older than what the broker still holds.

use std::sync::Arc;

use super::Partition;
use crate::lane::{HeldUpdate, Lane, LaneId, LaneStatus, QueuePosition, Stray, Token};
use crate::message::{Holder, ParkedSeq, Tenure};
use crate::outcome::{Known, Outcome};
use crate::ownership::OwnershipState;
use crate::policy::Progress;
use crate::routes::TargetId;
use crate::update::{Identity, RecordKey, Update};

impl Partition {
    /// Returns true if released updates of this record are here.
    #[must_use]
    pub fn has_released(&self, record_key: &RecordKey) -> bool {
        let of_record = |held: &HeldUpdate| held.is_released() && held.update.record_key == *record_key;
        self.find_lane(record_key).is_some_and(|id| self.lanes[id].held.iter().any(of_record))
    }

    pub(super) fn release(
        &mut self,
        tenure: Tenure,
        record_key: &RecordKey,
        updates: Vec<(ParkedSeq, Arc<Update>)>,
    ) {
        let ours = self.tenure == Some(tenure)
            && matches!(self.ownership.state(), OwnershipState::Claimed(_) | OwnershipState::Lapsed(_));
        let room = updates.first().map_or(0, |(_, head)| self.room_for_released(head.target));
        let lane = self.find_lane(record_key);
        if !ours || self.stopping || self.has_released(record_key) || self.is_blocked_by_previous(record_key)
        {
            self.stale += 1;
            return;
        }
        let held: Vec<HeldUpdate> = updates
            .into_iter()
            .take(room)
            .map(|(seq, update)| HeldUpdate {
                holder: Holder::Ledger(seq),
                arrival: self.count_in(),
                received_at: self.now,
                redelivered: false,
                identity: Identity::of(&update),
                update,
                settled_before: false,
            })
            .collect();
        self.released += held.len();
        if let Some(id) = lane {
            // Its head is under way: the lookup of it has found, or will find, that it joins the end of the parked ones.
            for (place, held) in (1..).zip(held) {
                self.lanes[id].held.insert(place, held);
            }
        } else if let Some(first) = held.first() {
            let position = QueuePosition::first(first.arrival);
            let key = self.lane_key(record_key).clone();
            let held = held.into();
            let (status, since, progress) = (LaneStatus::Ready, self.now, Progress::default());
            let id = self.lanes.insert(Lane { key, held, status, since, position, progress });
            self.enter_head(id);
        }
    }

    /// How many released updates of a record there is room for (I6), whose head goes to this target: together with those to it
    /// that are here, half of what those to others leave. So what cannot go out, since its target is shut, leaves room for
    /// others. Of such a record the head alone is taken.
    fn room_for_released(&self, target: TargetId) -> usize {
        let released = self.lanes.iter().flat_map(|lane| &lane.held).filter(|held| held.is_released());
        let here = released.filter(|held| held.update.target == target).count();
        let others = self.released - here;
        let share = self.limits.window.get().saturating_sub(others).div_ceil(2).saturating_sub(here);
        if self.targets.is_shut(target) { share.min(1) } else { share }
    }

    /// Returns true if the outcome of a released head is that its record is parked. That was found for its delivery, before
    /// it was parked itself; its turn begins again.
    pub(super) fn was_found_before_parked(&mut self, id: LaneId, outcome: &Outcome) -> bool {
        let lane = &mut self.lanes[id];
        let was = lane.head().is_released() && *outcome == Outcome::Known(Known::RecordParked);
        if was {
            lane.progress = Progress::default();
        }
        was
    }

    /// The resolution of a released update is written down. If it was parked again, its record waits for a person once
    /// more, and its other released updates leave the lane.
    pub(super) fn released_resolved(&mut self, id: LaneId, record_key: &RecordKey, parked: bool) {
        self.released -= 1;
        if parked {
            let lane = &mut self.lanes[id];
            let before = lane.released();
            lane.held.retain(|held| !held.is_released() || held.update.record_key != *record_key);
            self.released -= before - lane.released();
        }
    }

    /// If the head was to be parked behind others, and these are gone, it has its turn. Any other resolution stands, and is
    /// written under the number of the present tenure.
    pub(super) fn not_recorded(&mut self, token: Token, record_key: &RecordKey) {
        match self.find_recording(token, record_key) {
            Some(id) => {
                self.recording -= 1;
                match &self.lanes[id].status {
                    LaneStatus::Recording { resolution, .. } if !resolution.only_behind() => {
                        let resolution = resolution.clone();
                        self.resolve(id, resolution);
                    }
                    _ => self.make_ready_again(id),
                }
            }
            None if self.memory.not_recorded(record_key, token) => {
                self.stray_ended(record_key, Stray::Recording(token));
            }
            None => self.stale += 1,
        }
    }
}
