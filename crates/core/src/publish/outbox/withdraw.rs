//! Updates whose senders do not wait any longer.

use super::{NotConfirmedReason, Outbox, OutboxLaneStatus, PublishResult, SubmissionId};
use crate::update::RecordKey;

impl Outbox {
    /// Takes back what nobody waits for. What is not in flight gets its receipt now. What is in flight stays for its confirm,
    /// its record waits for that, and it is never published again: those who sent it may have sent it by another way since,
    /// and newer updates after it. Returns what is in flight; an update that has its receipt is passed over.
    ///
    /// All of them go at once, so that none is published because an earlier one of its record has made room.
    pub fn withdraw(&mut self, withdrawn: &[(RecordKey, SubmissionId)]) -> Vec<SubmissionId> {
        let mut in_flight = Vec::new();
        for (record_key, submission_id) in withdrawn {
            let Some(lane) = self.lanes.get_mut(record_key) else { continue };
            let Some(index) = lane.held.iter().position(|held| held.submission_id == *submission_id) else {
                continue;
            };
            match &mut lane.status {
                OutboxLaneStatus::InFlight { is_withdrawn, .. } if index == 0 => {
                    *is_withdrawn = true;
                    in_flight.push(*submission_id);
                }
                OutboxLaneStatus::Ready { .. } | OutboxLaneStatus::Waiting { .. } if index == 0 => {
                    self.unready(record_key);
                    self.drop_head(record_key);
                }
                _ => {
                    let held = lane.held.remove(index).expect("it was found there");
                    self.release(&held, PublishResult::NotConfirmed(NotConfirmedReason::NotPublished));
                }
            }
        }
        in_flight
    }
}
