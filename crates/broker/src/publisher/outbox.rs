//! Decides which update is published when, so that order per record survives refusals and lost connections.
//!
//! At most one update per record is unconfirmed at the broker; later ones wait here, in the record's lane. Were
//! two of them out and the first one refused, publishing it again would put it behind the second one, for good.
//! Pure: time is an argument, the broker's answers are method calls, what is to be done comes as return values.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::outgoing::Outgoing;
use lanekeeper_core::schedule::Schedule;
use lanekeeper_core::tick::Tick;
use lanekeeper_core::update::RecordKey;

/// The caller's name for an update, growing in the order of submission; comes back in its [`PublishReceipt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmissionId(pub u64);

/// One publish of one update. Never used twice, so that a late answer is not taken for an expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PublishId(pub(super) u64);

/// How many at once, and when to give up.
#[derive(Clone, Debug)]
pub struct OutboxLimits {
    /// Updates published and not yet confirmed, each of another record; at least 1.
    pub in_flight_max: usize,
    /// Updates held here, in flight ones included; at least `in_flight_max`.
    pub held_max: usize,
    /// Bytes held here. One update is always let in, however large.
    pub held_bytes_max: usize,
    /// How long the broker may refuse an update (negative confirm, or no route) before it counts as not confirmed.
    /// Time without a connection and time under an alarm do not count. `None`: without limit.
    pub give_up_after: Option<Duration>,
    /// Records given up before everything is: remembering them is what keeps their later updates back.
    pub abandoned_max: usize,
}

/// How the broker refused an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// A negative confirm: a queue is full, or not available.
    Nacked,
    /// Returned: the exchange routes it to no queue.
    Unroutable,
}

/// Why an update counts as not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotConfirmedReason {
    /// Refused for longer than `give_up_after`.
    Refused(Refusal),
    /// Not published, because an earlier update of its record was given up.
    Behind,
    /// The publisher ended first: it may have arrived or not.
    Stopped,
    /// The publisher ended before it was published, or after the broker had refused it: it did not arrive.
    NotPublished,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishResult {
    /// The broker has it in every queue that it is for.
    Confirmed,
    /// Nobody knows that it is there, and no later update of its record is.
    NotConfirmed(NotConfirmedReason),
}

/// What has become of one update. Every update that is pushed gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishReceipt {
    /// Which update.
    pub submission_id: SubmissionId,
    /// What became of it.
    pub result: PublishResult,
}

/// An update to publish now.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// Names it in the answer.
    pub(super) id: PublishId,
    /// The update.
    pub(super) outgoing: Arc<Outgoing>,
    /// It was published before: refused, or its connection was lost.
    pub(super) again: bool,
}

#[derive(Debug)]
struct HeldOutgoing {
    submission_id: SubmissionId,
    outgoing: Arc<Outgoing>,
}

/// What the oldest update of a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutboxLaneStatus {
    /// Waits for room in the window. Leaves to `InFlight`.
    Ready,
    /// Published, not confirmed. Leaves to `Waiting`, to `Ready` (the next one, or the connection was lost), or
    /// the lane ends.
    InFlight(PublishId),
    /// Refused; published again no earlier. Leaves to `Ready`.
    Waiting { until: Tick },
}

/// The updates of one record, oldest first. Never empty while it exists.
#[derive(Debug)]
struct OutboxLane {
    held: VecDeque<HeldOutgoing>,
    status: OutboxLaneStatus,
    /// Of the oldest update: how often it was published, how often refused, since when.
    published: u32,
    refusals: u32,
    refused_since: Option<Tick>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: OutboxLimits,
    schedule: Schedule,
    lanes: HashMap<RecordKey, OutboxLane>,
    /// First in, first out; holds each `Ready` lane once.
    ready: VecDeque<RecordKey>,
    /// Holds each `Waiting` lane once; the ticket keeps the order defined where deadlines are equal.
    waiting: BTreeSet<(Tick, SubmissionId, RecordKey)>,
    abandoned: HashSet<RecordKey>,
    receipts: VecDeque<PublishReceipt>,
    in_flight: usize,
    held: usize,
    held_bytes: usize,
    publish_id_next: u64,
    stopped: bool,
}

impl Outbox {
    /// Empty. The schedule says how long a refused update waits before it is published again.
    pub(super) fn new(limits: OutboxLimits, schedule: Schedule) -> Self {
        assert!(limits.in_flight_max > 0 && limits.held_max >= limits.in_flight_max);
        Self {
            limits,
            schedule,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            abandoned: HashSet::new(),
            receipts: VecDeque::new(),
            in_flight: 0,
            held: 0,
            held_bytes: 0,
            publish_id_next: 0,
            stopped: false,
        }
    }

    /// How many further updates may be pushed now.
    pub(super) fn room(&self) -> usize {
        if self.held > 0 && self.held_bytes >= self.limits.held_bytes_max {
            0
        } else {
            self.limits.held_max.saturating_sub(self.held)
        }
    }

    /// Nothing is held: every update pushed has its receipt.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Nothing will be published any more: [`Outbox::stop`] was called, or too many records were given up.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes an update, behind all earlier ones of its record.
    pub(super) fn push(&mut self, submission_id: SubmissionId, outgoing: Arc<Outgoing>) {
        if self.stopped {
            return self
                .receipt(submission_id, PublishResult::NotConfirmed(NotConfirmedReason::NotPublished));
        }
        if self.abandoned.contains(&outgoing.record_key) {
            return self.receipt(submission_id, PublishResult::NotConfirmed(NotConfirmedReason::Behind));
        }
        self.held += 1;
        self.held_bytes += outgoing.bytes();
        let record_key = outgoing.record_key.clone();
        let held = HeldOutgoing { submission_id, outgoing };
        match self.lanes.entry(record_key.clone()) {
            Entry::Occupied(mut lane) => lane.get_mut().held.push_back(held),
            Entry::Vacant(place) => {
                place.insert(OutboxLane {
                    held: VecDeque::from([held]),
                    status: OutboxLaneStatus::Ready,
                    published: 0,
                    refusals: 0,
                    refused_since: None,
                });
                self.ready.push_back(record_key);
            }
        }
    }

    /// The next update to publish, if the window has room for one.
    pub(super) fn publish_next(&mut self) -> Option<InFlight> {
        if self.stopped || self.in_flight >= self.limits.in_flight_max {
            return None;
        }
        let record_key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&record_key).expect("a ready lane exists");
        assert_eq!(lane.status, OutboxLaneStatus::Ready, "one unconfirmed update per record");
        let id = PublishId(self.publish_id_next);
        self.publish_id_next += 1;
        self.in_flight += 1;
        lane.status = OutboxLaneStatus::InFlight(id);
        lane.published += 1;
        Some(InFlight { id, outgoing: Arc::clone(&lane.held[0].outgoing), again: lane.published > 1 })
    }

    /// The broker has it.
    pub(super) fn confirmed(&mut self, record_key: &RecordKey, in_flight: PublishId) {
        if self.land(record_key, in_flight) {
            self.resolve_head(record_key, PublishResult::Confirmed);
        }
    }

    /// The broker did not take it: it is published again later, and its record waits.
    pub(super) fn refused(
        &mut self,
        record_key: &RecordKey,
        in_flight: PublishId,
        refusal: Refusal,
        now: Tick,
    ) {
        if !self.land(record_key, in_flight) {
            return;
        }
        let lane = self.lanes.get_mut(record_key).expect("it has just landed");
        let since = *lane.refused_since.get_or_insert(now);
        lane.refusals += 1;
        let give_up = self.limits.give_up_after.map(|wait| since.after(wait));
        if self.stopped || give_up.is_some_and(|at| at <= now) {
            return self.abandon(record_key, NotConfirmedReason::Refused(refusal));
        }
        let head = &lane.held[0];
        let wait = self.schedule.wait(lane.refusals, &head.outgoing.update_id());
        let until = give_up.map_or(now.after(wait), |at| at.min(now.after(wait)));
        lane.status = OutboxLaneStatus::Waiting { until };
        self.waiting.insert((until, head.submission_id, record_key.clone()));
    }

    /// The connection is lost: what was unconfirmed is published again, oldest publish first. It may have arrived.
    pub(super) fn disconnected(&mut self) {
        self.forgive();
        let mut in_flights: Vec<(PublishId, RecordKey)> = self
            .lanes
            .iter()
            .filter_map(|(record_key, lane)| match lane.status {
                OutboxLaneStatus::InFlight(id) => Some((id, record_key.clone())),
                OutboxLaneStatus::Ready | OutboxLaneStatus::Waiting { .. } => None,
            })
            .collect();
        in_flights.sort_unstable_by_key(|(id, _)| *id);
        for (id, record_key) in in_flights.into_iter().rev() {
            assert!(self.land(&record_key, id));
            if self.stopped {
                self.resolve_head(&record_key, PublishResult::NotConfirmed(NotConfirmedReason::Stopped));
            } else {
                self.lanes.get_mut(&record_key).expect("it has just landed").status = OutboxLaneStatus::Ready;
                self.ready.push_front(record_key);
            }
        }
    }

    /// The time to give up starts again: the broker was away or under an alarm, which is not the updates' fault.
    pub(super) fn forgive(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.refused_since = None;
        }
    }

    /// Updates whose wait is over become ready.
    pub(super) fn wake(&mut self, now: Tick) {
        while self.waiting.first().is_some_and(|(until, ..)| *until <= now) {
            let (_, _, record_key) = self.waiting.pop_first().expect("there is a first");
            self.lanes.get_mut(&record_key).expect("a waiting lane exists").status = OutboxLaneStatus::Ready;
            self.ready.push_back(record_key);
        }
    }

    /// When [`Outbox::wake`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.waiting.first().map(|(until, ..)| *until)
    }

    /// Publishes nothing further. What is in flight may still be confirmed; the rest gets its receipt now.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.ready.clear();
        self.waiting.clear();
        let record_keys: Vec<RecordKey> = self.lanes.keys().cloned().collect();
        for record_key in record_keys {
            let lane = &self.lanes[&record_key];
            let keep = usize::from(matches!(lane.status, OutboxLaneStatus::InFlight(_)));
            // A refused update was published and certainly did not arrive; one whose connection was lost may have.
            let head = if lane.published > lane.refusals {
                NotConfirmedReason::Stopped
            } else {
                NotConfirmedReason::NotPublished
            };
            self.truncate_lane(&record_key, keep, head, NotConfirmedReason::NotPublished);
        }
    }

    /// Ends: whatever is still held gets its receipt.
    pub(super) fn end(&mut self) {
        self.stop();
        self.disconnected();
        assert!(self.is_empty() && self.in_flight == 0);
    }

    /// The next receipt, oldest first.
    pub(super) fn next_receipt(&mut self) -> Option<PublishReceipt> {
        self.receipts.pop_front()
    }

    /// Updates in flight, and held in all.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize) {
        (self.in_flight, self.held)
    }

    /// Takes a publish out of the window. Returns false if its answer is stale.
    fn land(&mut self, record_key: &RecordKey, in_flight: PublishId) -> bool {
        let expected = self
            .lanes
            .get(record_key)
            .is_some_and(|lane| lane.status == OutboxLaneStatus::InFlight(in_flight));
        self.in_flight -= usize::from(expected);
        expected
    }

    /// The oldest update of a lane that is in no list is done; the next one is ready.
    fn resolve_head(&mut self, record_key: &RecordKey, result: PublishResult) {
        let lane = self.lanes.get_mut(record_key).expect("a lane with an oldest update");
        let head = lane.held.pop_front().expect("a lane is never empty");
        (lane.published, lane.refusals, lane.refused_since) = (0, 0, None);
        lane.status = OutboxLaneStatus::Ready;
        if lane.held.is_empty() {
            self.lanes.remove(record_key);
        } else {
            self.ready.push_back(record_key.clone());
        }
        self.release(&head, result);
    }

    /// Gives a record up: publishing its later updates would break its order.
    fn abandon(&mut self, record_key: &RecordKey, head: NotConfirmedReason) {
        self.truncate_lane(record_key, 0, head, NotConfirmedReason::Behind);
        self.abandoned.insert(record_key.clone());
        if self.abandoned.len() > self.limits.abandoned_max && !self.stopped {
            self.stop();
        }
    }

    /// Releases the updates of a lane that is in no list, all but the oldest `keep` (0 or 1).
    fn truncate_lane(
        &mut self,
        record_key: &RecordKey,
        keep: usize,
        head: NotConfirmedReason,
        rest: NotConfirmedReason,
    ) {
        let lane = self.lanes.get_mut(record_key).expect("a lane to cut");
        let dropped: Vec<HeldOutgoing> = lane.held.drain(keep..).collect();
        if keep == 0 {
            self.lanes.remove(record_key);
        }
        for (index, held) in dropped.iter().enumerate() {
            let reason = if keep == 0 && index == 0 { head } else { rest };
            self.release(held, PublishResult::NotConfirmed(reason));
        }
    }

    fn release(&mut self, held: &HeldOutgoing, result: PublishResult) {
        self.held -= 1;
        self.held_bytes -= held.outgoing.bytes();
        self.receipt(held.submission_id, result);
    }

    fn receipt(&mut self, submission_id: SubmissionId, result: PublishResult) {
        self.receipts.push_back(PublishReceipt { submission_id, result });
    }
}

#[cfg(test)]
mod tests;
