//! What a record waits for, of what the partition holds. It reads, and changes nothing.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Partition;
use super::claim::Unclaimed;
use crate::lane::{HeldUpdate, Lane, LaneId, LaneStatus, Stray};
use crate::outcome::OutcomeKind;
use crate::ownership::OwnershipState;
use crate::policy::PastAttempt;
use crate::routes::TargetId;
use crate::tick::Tick;
use crate::update::{RecordKey, Update, UpdateId};
use crate::why::{WaitCause, failure_words};

/// What a record waits for, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The record.
    pub record_key: RecordKey,
    /// What it waits for.
    pub cause: WaitCause,
    /// Since when.
    pub since: Tick,
    /// When the wait ends, if that is known and nothing comes between; never in the past.
    pub ends_at: Option<Tick>,
    /// Its oldest update here.
    pub head: FirstOfLane,
    /// Updates of the record that are behind that one here.
    pub behind: usize,
    /// How the latest attempts of its oldest update ended, oldest first.
    pub past_attempts: Vec<PastAttempt>,
}

/// The oldest update of a record here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstOfLane {
    /// Its id.
    pub update_id: UpdateId,
    /// Its type.
    pub update_type: Option<String>,
    /// Where it goes.
    pub target: TargetId,
    /// When it came to the partition; `None`: it waits for the claim, and only the channel knows.
    pub received_at: Option<Tick>,
    /// When it was published, by the publisher's clock, in seconds since 1970.
    pub published_at: Option<u64>,
    /// It was parked, and a person has released it.
    pub released: bool,
    /// The broker has delivered it before.
    pub redelivered: bool,
    /// Attempts begun.
    pub attempts: u32,
    /// When the latest of them began.
    pub latest_began: Option<Tick>,
}

impl FirstOfLane {
    fn of(update: &Update) -> Self {
        Self {
            update_id: update.id.clone(),
            update_type: update.update_type.clone(),
            target: update.target,
            received_at: None,
            published_at: update.published_at,
            released: false,
            redelivered: false,
            attempts: 0,
            latest_began: None,
        }
    }

    fn held(held: &HeldUpdate, of_head: Option<&Lane>) -> Self {
        let attempts = of_head.map_or(0, |lane| lane.progress.attempts());
        Self {
            received_at: Some(held.received_at),
            released: held.is_released(),
            redelivered: held.redelivered,
            attempts,
            latest_began: of_head.filter(|_| attempts > 0).map(|lane| lane.progress.latest_began()),
            ..Self::of(&held.update)
        }
    }
}

/// A record of which updates are here.
struct RecordHere {
    /// Its oldest update.
    at: At,
    updates: usize,
}

enum At {
    /// At this place of the lane; over 0 in strict mode alone.
    Lane(LaneId, usize),
    /// Among those that wait for the claim.
    Unclaimed(usize),
}

impl Partition {
    /// What the record waits for whose key fits; `None`: no update of it is here. Looks at the keys of all lanes.
    #[must_use]
    pub fn explain(&self, now: Tick, fits: impl Fn(&RecordKey) -> bool) -> Option<Explained> {
        let unclaimed: Vec<&Unclaimed> = self
            .unclaimed
            .iter()
            .filter(|unclaimed| unclaimed.update().is_some_and(|update| fits(&update.record_key)))
            .collect();
        let in_lane = self.lanes.iter_with_ids().find_map(|(id, lane)| {
            let place = match self.strict {
                None => fits(&lane.key).then_some(0),
                Some(_) => lane.held.iter().position(|held| fits(&held.update.record_key)),
            };
            place.map(|place| self.explain_lane(now, id, place))
        });
        match in_lane {
            Some(explained) => Some(Explained { behind: explained.behind + unclaimed.len(), ..explained }),
            None => {
                unclaimed.first().and_then(|first| self.explain_unclaimed(now, first, unclaimed.len() - 1))
            }
        }
    }

    /// What records wait for, each once, those first whose oldest update came first; at most `limit`. Looks at every lane, and
    /// at every update that waits for the claim.
    #[must_use]
    pub fn explain_oldest(&self, now: Tick, limit: usize) -> Vec<Explained> {
        self.records().into_iter().take(limit).filter_map(|record| self.explain_record(now, record)).collect()
    }

    /// The records with the most updates here, at most `limit`: they fill the window. Looks at as much.
    #[must_use]
    pub fn explain_largest(&self, now: Tick, limit: usize) -> Vec<Explained> {
        let mut records = self.records();
        records.sort_by_key(|record| Reverse(record.updates));
        records.into_iter().take(limit).filter_map(|record| self.explain_record(now, record)).collect()
    }

    /// The records whose attempts have been out longest, at most `limit`: they use up `in_flight_max`. Looks at every lane.
    #[must_use]
    pub fn explain_in_flight(&self, now: Tick, limit: usize) -> Vec<Explained> {
        let in_flight = |(_, lane): &(LaneId, &Lane)| matches!(lane.status, LaneStatus::InFlight(_));
        let mut lanes: Vec<(Tick, LaneId)> = self
            .lanes
            .iter_with_ids()
            .filter(in_flight)
            .map(|(id, lane)| (lane.progress.latest_began(), id))
            .collect();
        lanes.sort_unstable();
        lanes.into_iter().take(limit).map(|(_, id)| self.explain_lane(now, id, 0)).collect()
    }

    /// All records of which updates are here, those first whose oldest update came first.
    fn records(&self) -> Vec<RecordHere> {
        let mut lanes: Vec<(u64, LaneId, &Lane)> =
            self.lanes.iter_with_ids().map(|(id, lane)| (lane.head().arrival, id, lane)).collect();
        lanes.sort_unstable_by_key(|(arrival, id, _)| (*arrival, *id));
        let mut records = Vec::new();
        if self.strict.is_none() {
            let of_lane = |(_, id, lane): &(u64, LaneId, &Lane)| RecordHere {
                at: At::Lane(*id, 0),
                updates: lane.held.len(),
            };
            records.extend(lanes.iter().map(of_lane));
            if self.unclaimed.is_empty() {
                return records;
            }
        }
        let mut places: HashMap<&RecordKey, usize> = HashMap::new();
        if self.strict.is_none() {
            places.extend(lanes.iter().enumerate().map(|(place, (.., lane))| (&lane.key, place)));
        }
        let in_strict_lane = lanes.iter().filter(|_| self.strict.is_some()).flat_map(|(_, id, lane)| {
            lane.held.iter().enumerate().map(|(place, held)| (&held.update.record_key, At::Lane(*id, place)))
        });
        let unclaimed = self.unclaimed.iter().enumerate().filter_map(|(place, unclaimed)| {
            unclaimed.update().map(|update| (&update.record_key, At::Unclaimed(place)))
        });
        for (record_key, at) in in_strict_lane.chain(unclaimed) {
            let place = *places.entry(record_key).or_insert(records.len());
            match records.get_mut(place) {
                Some(record) => record.updates += 1,
                None => records.push(RecordHere { at, updates: 1 }),
            }
        }
        records
    }

    fn explain_record(&self, now: Tick, RecordHere { at, updates }: RecordHere) -> Option<Explained> {
        let behind = updates - 1;
        match at {
            At::Lane(id, place) => Some(Explained { behind, ..self.explain_lane(now, id, place) }),
            At::Unclaimed(place) => self.explain_unclaimed(now, &self.unclaimed[place], behind),
        }
    }

    /// `place`: of the record's oldest update in the lane; over 0 in strict mode alone.
    fn explain_lane(&self, now: Tick, id: LaneId, place: usize) -> Explained {
        let lane = &self.lanes[id];
        let held = &lane.held[place];
        let (of_head, ends_at) = self.cause(now, id);
        let cause = match place {
            0 => of_head,
            before => WaitCause::Strict { before, first: Box::new(of_head) },
        };
        let is_of_record = |other: &&HeldUpdate| other.update.record_key == held.update.record_key;
        Explained {
            record_key: held.update.record_key.clone(),
            cause,
            since: if place == 0 { lane.since } else { held.received_at },
            // A time that has passed is now: the partition is about to be woken.
            ends_at: ends_at.filter(|_| place == 0).map(|ends_at| ends_at.max(now)),
            head: FirstOfLane::held(held, (place == 0).then_some(lane)),
            behind: lane.held.iter().skip(place + 1).filter(is_of_record).count(),
            past_attempts: if place == 0 { lane.progress.past_attempts().to_vec() } else { Vec::new() },
        }
    }

    fn explain_unclaimed(&self, now: Tick, unclaimed: &Unclaimed, behind: usize) -> Option<Explained> {
        let update = unclaimed.update()?;
        Some(Explained {
            record_key: update.record_key.clone(),
            cause: self.cause_of_no_permit(now).unwrap_or(WaitCause::Claim),
            since: now,
            ends_at: None,
            head: FirstOfLane::of(update),
            behind,
            past_attempts: Vec::new(),
        })
    }

    /// Why no attempt starts in this partition at all; `None`: attempts start.
    fn cause_of_no_permit(&self, now: Tick) -> Option<WaitCause> {
        match self.ownership.state_at(now) {
            OwnershipState::Lost => Some(WaitCause::Overtaken),
            _ if self.stopping => Some(WaitCause::HandBack),
            OwnershipState::Unclaimed | OwnershipState::Claiming => Some(WaitCause::Claim),
            OwnershipState::Lapsed(_) => Some(WaitCause::LeaseLapsed),
            OwnershipState::Claimed(_) => None,
        }
    }

    /// What the head of the lane waits for, and until when if that is known.
    fn cause(&self, now: Tick, id: LaneId) -> (WaitCause, Option<Tick>) {
        let lane = &self.lanes[id];
        let target = lane.head().update.target;
        let given_back = || match self.cause_of_no_permit(now) {
            cause @ Some(WaitCause::Overtaken | WaitCause::HandBack) => cause,
            _ => None,
        };
        match &lane.status {
            LaneStatus::InFlight(_) => (WaitCause::InFlight { attempt: lane.progress.attempts() }, None),
            LaneStatus::Recording { resolution, .. } => {
                (WaitCause::Recording { resolution: resolution.name().to_owned() }, None)
            }
            _ if let Some(cause) = given_back() => (cause, None),
            LaneStatus::Waiting { until } => (cause_of_wait(lane), Some(*until)),
            LaneStatus::TargetShut => {
                let (probing, before, probe_from) = self.targets.wait_of(target, lane.position);
                (WaitCause::TargetShut { probing, before }, probe_from)
            }
            LaneStatus::TargetPaused => {
                let (_, before, _) = self.targets.wait_of(target, lane.position);
                (WaitCause::TargetPaused { before }, None)
            }
            LaneStatus::Paced { .. } => {
                (WaitCause::Limit { before: self.paced.lanes_before(target, lane.position) }, None)
            }
            LaneStatus::TakeOverWait => (WaitCause::TakeOver, self.take_over.until()),
            LaneStatus::BlockedByPrevious => {
                let previous = self.blocked.previous_of(&lane.head().update.record_key);
                let partition = previous.map_or(0, |partition| partition.0);
                (WaitCause::PreviousLayout { partition }, None)
            }
            LaneStatus::Behind(Stray::Attempt(_)) => (WaitCause::EarlierAttempt, None),
            LaneStatus::Behind(Stray::Recording(_)) => (WaitCause::EarlierRecording, None),
            LaneStatus::Ready => {
                let room = || WaitCause::Room {
                    in_flight: self.in_flight,
                    in_flight_max: self.limits.in_flight_max.get(),
                    before: self.ready.range(..lane.position).count(),
                };
                (self.cause_of_no_permit(now).unwrap_or_else(room), None)
            }
        }
    }
}

/// A head waits for its next attempt because of how the last one ended.
fn cause_of_wait(lane: &Lane) -> WaitCause {
    let attempts = lane.progress.attempts();
    let Some(last) = lane.progress.past_attempts().last() else {
        return WaitCause::Withheld; // nothing that was sent has failed
    };
    let failure = failure_words(last.cause, &last.detail);
    match last.outcome {
        OutcomeKind::Refused => WaitCause::Refused { attempts, failure },
        OutcomeKind::Rejected if last.doubted => WaitCause::Doubted { attempts, failure },
        OutcomeKind::Rejected | OutcomeKind::Conflict | OutcomeKind::Known => {
            WaitCause::Blocked { attempts, failure }
        }
        OutcomeKind::Withheld => WaitCause::Withheld,
        OutcomeKind::Applied | OutcomeKind::Retryable => WaitCause::Retry { attempts, failure },
    }
}

#[cfg(test)]
mod tests;
