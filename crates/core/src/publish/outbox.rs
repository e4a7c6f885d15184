//! Decides which update is published when, so that order per record survives refusals and lost connections.
//!
//! At most one update per record is unconfirmed at the broker; later ones wait here, in the record's lane. Were
//! two of them out and the first one refused, publishing it again would put it behind the second one, for good.
//! Pure: time is an argument, the broker's answers are method calls, what is to be done comes as return values.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::outgoing::Outgoing;
use crate::schedule::Schedule;
use crate::tick::Tick;
use crate::update::RecordKey;

/// The caller's name for an update, growing in the order of submission; comes back in its [`PublishReceipt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmissionId(pub u64);

/// One publish of one update. Never used twice, so that a late answer is not taken for an expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub u64);

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
    /// The publisher ended first, or it was withdrawn: it may have arrived or not.
    Stopped,
    /// The publisher ended, or it was withdrawn, before it was published, or after each publish had been returned: it did not
    /// arrive, and will not.
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
pub struct InFlight {
    /// Names it in the answer.
    pub id: PublishId,
    /// The update.
    pub outgoing: Arc<Outgoing>,
    /// It was published before: refused, or its connection was lost.
    pub again: bool,
}

#[derive(Debug)]
struct HeldOutgoing {
    submission_id: SubmissionId,
    outgoing: Arc<Outgoing>,
}

/// What the oldest update of a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutboxLaneStatus {
    /// Waits for room in the window, at this place of the queue. Leaves to `InFlight`, or to `Ready` (it is withdrawn, and the
    /// next one is the oldest).
    Ready { place: i64 },
    /// Published, not confirmed. Leaves to `Waiting`, to `Ready` (the next one, or the connection was lost), or
    /// the lane ends. If it is withdrawn, it is never published again: it leaves to `Ready` (the next one), or the lane ends.
    InFlight { id: PublishId, is_withdrawn: bool },
    /// Refused; published again no earlier. Leaves to `Ready`.
    Waiting { until: Tick },
}

/// The updates of one record, oldest first. Never empty while it exists.
#[derive(Debug)]
struct OutboxLane {
    held: VecDeque<HeldOutgoing>,
    status: OutboxLaneStatus,
    /// Of the oldest update: how often it was published, how often refused, how often returned, since when. A publish that
    /// was returned has certainly not arrived; one that was nacked may be in some of the queues.
    published: u32,
    refusals: u32,
    returns: u32,
    refused_since: Option<Tick>,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    limits: OutboxLimits,
    schedule: Schedule,
    lanes: HashMap<RecordKey, OutboxLane>,
    /// By place, the first is the next; holds each `Ready` lane once.
    ready: BTreeMap<i64, RecordKey>,
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
    pub fn new(limits: OutboxLimits, schedule: Schedule) -> Self {
        assert!(limits.in_flight_max > 0 && limits.held_max >= limits.in_flight_max);
        Self {
            limits,
            schedule,
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
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
    pub fn room(&self) -> usize {
        if self.held > 0 && self.held_bytes >= self.limits.held_bytes_max {
            0
        } else {
            self.limits.held_max.saturating_sub(self.held)
        }
    }

    /// Nothing is held: every update pushed has its receipt.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Nothing will be published any more: [`Outbox::stop`] was called, or too many records were given up.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes an update, behind all earlier ones of its record.
    pub fn push(&mut self, submission_id: SubmissionId, outgoing: Arc<Outgoing>) {
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
            Entry::Vacant(vacant) => {
                let place = last_place(&self.ready);
                vacant.insert(OutboxLane {
                    held: VecDeque::from([held]),
                    status: OutboxLaneStatus::Ready { place },
                    published: 0,
                    refusals: 0,
                    returns: 0,
                    refused_since: None,
                });
                self.ready.insert(place, record_key);
            }
        }
    }

    /// The next update to publish, if the window has room for one.
    pub fn publish_next(&mut self) -> Option<InFlight> {
        if self.stopped || self.in_flight >= self.limits.in_flight_max {
            return None;
        }
        let (place, record_key) = self.ready.pop_first()?;
        let lane = self.lanes.get_mut(&record_key).expect("a ready lane exists");
        assert_eq!(lane.status, OutboxLaneStatus::Ready { place }, "one unconfirmed update per record");
        let id = PublishId(self.publish_id_next);
        self.publish_id_next += 1;
        self.in_flight += 1;
        lane.status = OutboxLaneStatus::InFlight { id, is_withdrawn: false };
        lane.published += 1;
        Some(InFlight { id, outgoing: Arc::clone(&lane.held[0].outgoing), again: lane.published > 1 })
    }

    /// The broker has it.
    pub fn confirmed(&mut self, record_key: &RecordKey, in_flight: PublishId) {
        let Some(is_withdrawn) = self.land(record_key, in_flight) else { return };
        let head = self.resolve_head(record_key, PublishResult::Confirmed);
        // Its sender has sent it again meanwhile: one of them is enough.
        while is_withdrawn && self.lanes.get(record_key).is_some_and(|lane| lane.held[0].is_repeat_of(&head))
        {
            self.unready(record_key);
            self.resolve_head(record_key, PublishResult::Confirmed);
        }
    }

    /// The broker did not take it: it is published again later, and its record waits.
    pub fn refused(&mut self, record_key: &RecordKey, in_flight: PublishId, refusal: Refusal, now: Tick) {
        let Some(is_withdrawn) = self.land(record_key, in_flight) else { return };
        let lane = self.lanes.get_mut(record_key).expect("it has just landed");
        let since = *lane.refused_since.get_or_insert(now);
        lane.refusals += 1;
        lane.returns += u32::from(refusal == Refusal::Unroutable);
        if is_withdrawn {
            return self.drop_head(record_key);
        }
        let abandon_at = self.limits.give_up_after.map(|wait| since.after(wait));
        if self.stopped || abandon_at.is_some_and(|at| at <= now) {
            return self.abandon(record_key, NotConfirmedReason::Refused(refusal));
        }
        let head = &lane.held[0];
        let wait = self.schedule.wait(lane.refusals, &head.outgoing.update_id());
        let until = abandon_at.map_or(now.after(wait), |at| at.min(now.after(wait)));
        lane.status = OutboxLaneStatus::Waiting { until };
        self.waiting.insert((until, head.submission_id, record_key.clone()));
    }

    /// The connection is lost: what was unconfirmed is published again, oldest publish first. It may have arrived.
    pub fn disconnected(&mut self) {
        self.forgive();
        let mut in_flights: Vec<(PublishId, RecordKey)> = self
            .lanes
            .iter()
            .filter_map(|(record_key, lane)| match lane.status {
                OutboxLaneStatus::InFlight { id, .. } => Some((id, record_key.clone())),
                OutboxLaneStatus::Ready { .. } | OutboxLaneStatus::Waiting { .. } => None,
            })
            .collect();
        in_flights.sort_unstable_by_key(|(id, _)| *id);
        for (id, record_key) in in_flights.into_iter().rev() {
            let is_withdrawn = self.land(&record_key, id).expect("it was in flight");
            if self.stopped || is_withdrawn {
                self.drop_head(&record_key);
            } else {
                let place = self.ready.first_key_value().map_or(0, |(place, _)| place - 1);
                self.lanes.get_mut(&record_key).expect("it has just landed").status =
                    OutboxLaneStatus::Ready { place };
                self.ready.insert(place, record_key);
            }
        }
    }

    /// The time to give up starts again: the broker was away or under an alarm, which is not the updates' fault.
    pub fn forgive(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.refused_since = None);
    }

    /// Updates whose wait is over become ready.
    pub fn wake(&mut self, now: Tick) {
        while self.waiting.first().is_some_and(|(until, ..)| *until <= now) {
            let (_, _, record_key) = self.waiting.pop_first().expect("there is a first");
            self.make_ready(&record_key);
        }
    }

    /// When [`Outbox::wake`] has something to do next.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.waiting.first().map(|(until, ..)| *until)
    }

    /// Publishes nothing further. What is in flight may still be confirmed; the rest gets its receipt now.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.ready.clear();
        self.waiting.clear();
        let record_keys: Vec<RecordKey> = self.lanes.keys().cloned().collect();
        for record_key in record_keys {
            let lane = &self.lanes[&record_key];
            let keep = usize::from(matches!(lane.status, OutboxLaneStatus::InFlight { .. }));
            let head = lane.dropped();
            self.truncate_lane(&record_key, keep, head, NotConfirmedReason::NotPublished);
        }
    }

    /// Ends: whatever is still held gets its receipt.
    pub fn end(&mut self) {
        self.stop();
        self.disconnected();
        assert!(self.is_empty() && self.in_flight == 0);
    }

    /// The next receipt, oldest first.
    pub fn next_receipt(&mut self) -> Option<PublishReceipt> {
        self.receipts.pop_front()
    }

    /// Updates in flight, and held in all.
    pub fn load(&self) -> (usize, usize) {
        (self.in_flight, self.held)
    }

    /// Takes a publish out of the window, and says if it is withdrawn. `None`: its answer is stale.
    fn land(&mut self, record_key: &RecordKey, in_flight: PublishId) -> Option<bool> {
        let is_withdrawn = match self.lanes.get(record_key)?.status {
            OutboxLaneStatus::InFlight { id, is_withdrawn } if id == in_flight => is_withdrawn,
            _ => return None,
        };
        self.in_flight -= 1;
        Some(is_withdrawn)
    }

    /// The oldest update of a lane that is in no list is done; the next one is ready.
    fn resolve_head(&mut self, record_key: &RecordKey, result: PublishResult) -> HeldOutgoing {
        let lane = self.lanes.get_mut(record_key).expect("a lane with an oldest update");
        let head = lane.held.pop_front().expect("a lane is never empty");
        (lane.published, lane.refusals, lane.returns, lane.refused_since) = (0, 0, 0, None);
        if lane.held.is_empty() {
            self.lanes.remove(record_key);
        } else {
            self.make_ready(record_key);
        }
        self.release(&head, result);
        head
    }

    /// The oldest update of a lane that is in no list is not published again.
    fn drop_head(&mut self, record_key: &RecordKey) {
        let reason = self.lanes[record_key].dropped();
        self.resolve_head(record_key, PublishResult::NotConfirmed(reason));
    }

    fn make_ready(&mut self, record_key: &RecordKey) {
        let place = last_place(&self.ready);
        self.lanes.get_mut(record_key).expect("the lane exists").status = OutboxLaneStatus::Ready { place };
        self.ready.insert(place, record_key.clone());
    }

    /// Takes a lane out of the list that it is in.
    fn unready(&mut self, record_key: &RecordKey) {
        let lane = &self.lanes[record_key];
        match lane.status {
            OutboxLaneStatus::Ready { place } => {
                self.ready.remove(&place);
            }
            OutboxLaneStatus::Waiting { until } => {
                self.waiting.remove(&(until, lane.held[0].submission_id, record_key.clone()));
            }
            OutboxLaneStatus::InFlight { .. } => {}
        }
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

impl HeldOutgoing {
    fn is_repeat_of(&self, other: &Self) -> bool {
        (&self.outgoing.id, &self.outgoing.body) == (&other.outgoing.id, &other.outgoing.body)
    }
}

impl OutboxLane {
    /// What is known of the oldest update, if it is not published again.
    fn dropped(&self) -> NotConfirmedReason {
        if self.published > self.returns {
            NotConfirmedReason::Stopped
        } else {
            NotConfirmedReason::NotPublished
        }
    }
}

fn last_place(ready: &BTreeMap<i64, RecordKey>) -> i64 {
    ready.last_key_value().map_or(0, |(place, _)| place + 1)
}

mod withdraw;

#[cfg(test)]
mod tests;
