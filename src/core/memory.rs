//! What earlier tenures of this process know about updates that the broker may hand over again.
//!
//! When a channel is lost, its unsettled deliveries come back, and so do those whose acks were still on their way.
//! Attempts that were out keep running. Without this memory a lost connection would repeat requests.

use std::collections::{HashMap, HashSet, VecDeque};

use super::message::{AttemptId, DeliveryTag, Tenure};
use super::outcome::Outcome;
use super::policy::{Progress, Resolution};
use super::tick::Tick;
use super::update::{IdOrigin, RecordKey, UpdateId};

#[derive(Debug)]
struct Remembered {
    id: UpdateId,
    state: RememberedState,
    /// Its new delivery has come: kept until it is the head again.
    claimed: bool,
}

/// How far the head of a lane had come when its tenure ended.
#[derive(Debug)]
pub(super) enum RememberedState {
    /// Its attempt is still out. Leaves to `Ended`.
    InFlight { attempt: AttemptId, progress: Progress },
    /// Its attempt ended after the tenure.
    Ended { outcome: Outcome, progress: Progress },
    /// It waited for its next attempt.
    Waiting { until: Tick, progress: Progress },
    /// Its resolution was being written down. Leaves to `Recorded`.
    Recording { token: (Tenure, DeliveryTag), resolution: Resolution },
    /// Its resolution was written down after the tenure.
    Recorded,
}

#[derive(Debug)]
pub(super) struct Memory {
    window: usize,
    /// Settled of late, oldest first. As many as the broker can hand over again: acks on their way plus deliveries
    /// held never exceed the prefetch window.
    settled: VecDeque<(RecordKey, UpdateId)>,
    /// Of `settled`, what may come back: filled when a tenure ends, emptied when everything returned has come.
    returned: HashSet<(RecordKey, UpdateId)>,
    heads: HashMap<RecordKey, Remembered>,
}

impl Memory {
    pub(super) fn new(window: usize) -> Self {
        Self { window, settled: VecDeque::new(), returned: HashSet::new(), heads: HashMap::new() }
    }

    /// A delivery was settled; its ack may yet be lost.
    pub(super) fn settled(&mut self, record_key: &RecordKey, id: &UpdateId) {
        if id.origin() == IdOrigin::Delivery {
            return;
        }
        if self.settled.len() == self.window {
            self.settled.pop_front();
        }
        self.settled.push_back((record_key.clone(), id.clone()));
    }

    /// A tenure ended: what it settled may come back.
    pub(super) fn expect_returns(&mut self) {
        self.heads.values_mut().for_each(|head| head.claimed = false);
        if self.heads.len() > 2 * self.window {
            self.forget_heads();
        }
        self.returned.extend(self.settled.iter().cloned());
    }

    /// A delivery of something settled before came back, but was not settled again before its tenure ended.
    pub(super) fn expect_return(&mut self, record_key: RecordKey, id: UpdateId) {
        self.returned.insert((record_key, id));
    }

    /// How far the head of a lane had come when its tenure ended.
    pub(super) fn remember(&mut self, record_key: RecordKey, id: UpdateId, state: RememberedState) {
        self.heads.insert(record_key, Remembered { id, state, claimed: false });
    }

    /// An update was handed over again. Whether it was settled before, and only its ack lost.
    pub(super) fn claim(&mut self, record_key: &RecordKey, id: &UpdateId) -> bool {
        if let Some(head) = self.heads.get_mut(record_key)
            && head.id == *id
        {
            head.claimed = true;
        }
        !self.returned.is_empty() && self.returned.remove(&(record_key.clone(), id.clone()))
    }

    /// The broker handed over something new: everything returned has come, here or elsewhere.
    pub(super) fn returns_are_over(&mut self) {
        if !self.returned.is_empty() {
            self.returned = HashSet::new();
        }
        if !self.heads.is_empty() {
            self.forget_heads();
        }
    }

    /// All but those that came, and attempts that are still out: they bar their record.
    fn forget_heads(&mut self) {
        self.heads.retain(|_, head| head.claimed || matches!(head.state, RememberedState::InFlight { .. }));
    }

    /// What is known of this very update, which is the head now.
    pub(super) fn take_head(&mut self, record_key: &RecordKey, id: &UpdateId) -> Option<RememberedState> {
        if self.heads.get(record_key)?.id != *id {
            return None;
        }
        self.heads.remove(record_key).map(|head| head.state)
    }

    /// The attempt of another update of this record that is still out.
    pub(super) fn attempt_out(&self, record_key: &RecordKey) -> Option<AttemptId> {
        match self.heads.get(record_key)?.state {
            RememberedState::InFlight { attempt, .. } => Some(attempt),
            _ => None,
        }
    }

    /// An attempt of an earlier tenure ended. Whether it was known.
    pub(super) fn attempt_ended(
        &mut self,
        record_key: &RecordKey,
        ended: AttemptId,
        outcome: Outcome,
    ) -> bool {
        let Some(head) = self.heads.get_mut(record_key) else { return false };
        match &mut head.state {
            RememberedState::InFlight { attempt, progress } if *attempt == ended => {
                let progress = std::mem::take(progress);
                head.state = RememberedState::Ended { outcome, progress };
                true
            }
            _ => false,
        }
    }

    /// A resolution of an earlier tenure is written down. Whether it was known.
    pub(super) fn recorded(&mut self, record_key: &RecordKey, recorded: (Tenure, DeliveryTag)) -> bool {
        let Some(head) = self.heads.get_mut(record_key) else { return false };
        match &head.state {
            RememberedState::Recording { token, .. } if *token == recorded => {
                head.state = RememberedState::Recorded;
                true
            }
            _ => false,
        }
    }
}
