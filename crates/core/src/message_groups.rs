//! What an SQS FIFO queue has handed over, and what is to be done about it: which message the partition gets when, when it
//! is deleted, and until when requests may leave for it. Pure, as all of the core.
//!
//! What SQS does ([delivery logic of FIFO queues][logic]), and what follows from it here:
//! - A message in flight keeps back only what stands *behind* it in its message group. If the visibility timeout of A1 ends
//!   while A2 is held, another consumer gets A1. So the partition gets A2 only when the deletion of A1 is confirmed (I14), and
//!   no two deletions of a group are on their way at the same time.
//! - A visibility timeout begins when SQS grants it, which is after it was asked for: it is counted from the sending of the
//!   request. All that is held is asked for anew in time, within a group oldest first.
//! - A request may leave only as long as everything held is certain to stay invisible until the request has ended
//!   ([`MessageGroups::may_send_until`]). What is on its way from SQS counts as held.
//! - A receipt handle that is refused, or a message that comes although a later one of its group is held, shows that
//!   something became visible in between: all that is held is void ([`VisibilityLost`]).
//!
//! [logic]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html

mod calls;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::message::DeliveryTag;
use crate::tick::Tick;
use crate::update::RecordKey;
pub use calls::{
    Entry, EntryAnswer, GroupLimits, Handed, Message, ReceiptHandle, Receive, ReceiveId, VisibilityLost,
};

/// The most entries of a batch request of SQS.
pub const BATCH_MAX: usize = 10;
/// A deletion waits so long for others that go in the same request.
const DELETE_DELAY: Duration = Duration::from_millis(20);
/// After a request without an answer, or one that was throttled.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// What is held is asked for anew after this part of the visibility timeout.
const RENEWALS: u32 = 3;

#[derive(Debug)]
struct HeldMessage<M> {
    /// Grows in the order in which messages come.
    number: u64,
    sequence_number: u128,
    receipt_handle: ReceiptHandle,
    /// `None`: the partition has it.
    content: Option<M>,
    received_at: Tick,
    /// When the request was sent that granted its visibility timeout.
    granted_from: Tick,
    /// When the request was sent that asks for a new one, if there was no answer yet.
    renewing_since: Option<Tick>,
    /// When a new one is asked for, unless that is under way.
    renew_at: Tick,
}

/// What is done with the oldest message of a group. The others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    /// Waits for its turn. Leaves to `Handed`.
    Waiting,
    /// The partition has it. Leaves to `Settled`.
    Handed(DeliveryTag),
    /// To be deleted no earlier. Leaves to `Deleting`.
    Settled { from: Tick, was_sent: bool },
    /// Its deletion is on its way. Leaves to `Settled` (nobody knows), or to `Waiting` (the next one).
    Deleting,
}

#[derive(Debug)]
struct Group<M> {
    front: Front,
    /// Oldest first; never empty.
    messages: VecDeque<HeldMessage<M>>,
}

impl<M> Group<M> {
    /// It may be deleted already, and then SQS refuses everything else.
    fn may_be_deleted(&self, number: u64) -> bool {
        let is_front = self.messages.front().is_some_and(|front| front.number == number);
        is_front && matches!(self.front, Front::Deleting | Front::Settled { was_sent: true, .. })
    }
}

/// What is held in one tenure. Every message is in exactly one group, and only the oldest of a group is with the partition.
#[derive(Debug)]
pub struct MessageGroups<M> {
    limits: GroupLimits,
    groups: HashMap<RecordKey, Group<M>>,
    /// All that is held, in the order in which it came.
    by_number: BTreeMap<u64, RecordKey>,
    numbers_used: u64,
    /// Groups whose oldest message waits for the partition.
    ready: VecDeque<RecordKey>,
    handed: HashMap<DeliveryTag, RecordKey>,
    deliveries_used: u64,
    /// Groups whose oldest message is settled: from when on it is to be deleted.
    settled: BTreeSet<(Tick, u64)>,
    /// When each held message was granted, oldest first.
    granted: BTreeSet<(Tick, u64)>,
    /// Which of them are to be asked for anew, and when.
    renewals: BTreeSet<(Tick, u64)>,
    /// Receives on their way: when they were sent, and for how many messages.
    receives: BTreeMap<ReceiveId, (Tick, usize)>,
    receives_used: u64,
    asked_for: usize,
}

impl<M> MessageGroups<M> {
    /// Holds nothing.
    ///
    /// # Panics
    /// The window is 0, or `at_work_max` is not shorter than the visibility timeout.
    #[must_use]
    pub fn new(limits: GroupLimits) -> Self {
        assert!(limits.window > 0, "something must be held");
        assert!(limits.at_work_max < limits.visibility_timeout, "a request would outlive what it is for");
        Self {
            limits,
            groups: HashMap::new(),
            by_number: BTreeMap::new(),
            numbers_used: 0,
            ready: VecDeque::new(),
            handed: HashMap::new(),
            deliveries_used: 0,
            settled: BTreeSet::new(),
            granted: BTreeSet::new(),
            renewals: BTreeSet::new(),
            receives: BTreeMap::new(),
            receives_used: 0,
            asked_for: 0,
        }
    }

    /// Returns true if nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// When the next deletion is due; `None`: none is to be sent.
    #[must_use]
    pub fn next_deletion_at(&self) -> Option<Tick> {
        self.settled.first().map(|(from, _)| *from)
    }

    /// Messages that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.by_number.len()
    }

    /// When a message came that the partition has; `None` for any other.
    #[must_use]
    pub fn received_at(&self, delivery: DeliveryTag) -> Option<Tick> {
        let group = &self.groups[self.handed.get(&delivery)?];
        group.messages.front().map(|front| front.received_at)
    }

    /// When the oldest message came that is held.
    #[must_use]
    pub fn oldest_received_at(&self) -> Option<Tick> {
        let (number, record_key) = self.by_number.first_key_value()?;
        let group = &self.groups[record_key];
        group.messages.iter().find(|held| held.number == *number).map(|held| held.received_at)
    }

    /// Until when requests may leave: then they have ended before anything that is held becomes visible. Never goes back,
    /// as long as no request to SQS is taken for unanswered that is answered after all.
    #[must_use]
    pub fn may_send_until(&self, now: Tick) -> Tick {
        let receives = self.receives.values().map(|(sent, _)| *sent).min();
        let held = self.granted.first().map(|(from, _)| *from);
        let certain_from = receives.into_iter().chain(held).min().unwrap_or(now);
        let GroupLimits { visibility_timeout, at_work_max, .. } = self.limits;
        certain_from.after(visibility_timeout.saturating_sub(at_work_max))
    }
}

impl<M> MessageGroups<M> {
    /// The next `ReceiveMessage`, if there is room; it is sent at once.
    pub fn begin_receive(&mut self, now: Tick) -> Option<Receive> {
        let room = self.limits.window.saturating_sub(self.held() + self.asked_for);
        let messages_max = room.min(BATCH_MAX);
        if messages_max == 0 {
            return None;
        }
        self.receives_used += 1;
        let id = ReceiveId(self.receives_used);
        self.asked_for += messages_max;
        self.receives.insert(id, (now, messages_max));
        Some(Receive { id, messages_max })
    }

    /// A `ReceiveMessage` has ended, with these messages in this order; none if there was no answer. Of more messages than were
    /// asked for, the last ones are left alone until their visibility timeout ends: nobody has them, and what stands behind
    /// them waits.
    ///
    /// # Errors
    /// Something became visible that was held.
    ///
    /// # Panics
    /// It ended before.
    pub fn receive_ended(
        &mut self,
        now: Tick,
        id: ReceiveId,
        messages: impl IntoIterator<Item = Message<M>>,
    ) -> Result<(), VisibilityLost> {
        let (sent, messages_max) = self.receives.remove(&id).expect("it ends once");
        self.asked_for -= messages_max;
        for message in messages.into_iter().take(messages_max) {
            self.keep(now, sent, message)?;
        }
        Ok(())
    }

    fn keep(&mut self, now: Tick, sent: Tick, message: Message<M>) -> Result<(), VisibilityLost> {
        let Message { record_key, receipt_handle, sequence_number, content } = message;
        self.numbers_used += 1;
        let number = self.numbers_used;
        let renew_at = sent.after(self.limits.visibility_timeout / RENEWALS);
        let held = HeldMessage {
            number,
            sequence_number,
            receipt_handle,
            content: Some(content),
            received_at: now,
            granted_from: sent,
            renewing_since: None,
            renew_at,
        };
        if let Some(group) = self.groups.get_mut(&record_key) {
            let newest = group.messages.back().expect("a group is never empty");
            if newest.sequence_number >= sequence_number {
                return Err(VisibilityLost::CameAgain);
            }
            group.messages.push_back(held);
            self.hurry(&record_key, now);
        } else {
            let messages = VecDeque::from([held]);
            self.groups.insert(record_key.clone(), Group { front: Front::Waiting, messages });
            self.ready.push_back(record_key.clone());
        }
        self.by_number.insert(number, record_key);
        assert!(self.held() <= self.limits.window, "I6: more is held than fits the window");
        self.granted.insert((sent, number));
        self.renewals.insert((renew_at, number));
        Ok(())
    }

    /// A follower waits for the deletion: it does not wait for others.
    fn hurry(&mut self, record_key: &RecordKey, now: Tick) {
        let group = self.groups.get_mut(record_key).expect("it was there just now");
        let number = group.messages.front().expect("a group is never empty").number;
        if let Front::Settled { from, was_sent: false } = &mut group.front
            && *from > now
        {
            self.settled.remove(&(*from, number));
            self.settled.insert((now, number));
            *from = now;
        }
    }

    /// The next message for the partition.
    pub fn next_handed(&mut self) -> Option<Handed<M>> {
        let record_key = self.ready.pop_front()?;
        let group = self.groups.get_mut(&record_key).expect("what is ready is held");
        assert_eq!(group.front, Front::Waiting, "I14: the one before is not known to be deleted");
        self.deliveries_used += 1;
        let delivery = DeliveryTag(self.deliveries_used);
        group.front = Front::Handed(delivery);
        let front = group.messages.front_mut().expect("a group is never empty");
        let content = front.content.take().expect("it is handed over once");
        self.handed.insert(delivery, record_key.clone());
        Some(Handed { delivery, record_key, content })
    }
}

impl<M> MessageGroups<M> {
    /// The partition is done with it.
    ///
    /// # Panics
    /// The partition does not have it.
    pub fn settle(&mut self, now: Tick, delivery: DeliveryTag) {
        let record_key = self.handed.remove(&delivery).expect("the partition has it");
        let group = self.groups.get_mut(&record_key).expect("what was handed over is held");
        let from = if group.messages.len() > 1 { now } else { now.after(DELETE_DELAY) };
        group.front = Front::Settled { from, was_sent: false };
        let number = group.messages.front().expect("a group is never empty").number;
        self.settled.insert((from, number));
    }

    /// The entries of one `DeleteMessageBatch` to send now, each of another group; none if none is due. What is due takes
    /// along what is not.
    pub fn next_deletions(&mut self, now: Tick) -> Vec<Entry> {
        if self.settled.len() < BATCH_MAX && self.settled.first().is_none_or(|(from, _)| *from > now) {
            return Vec::new();
        }
        let mut entries = Vec::new();
        let mut later = Vec::new();
        while entries.len() < BATCH_MAX
            && let Some((from, number)) = self.settled.pop_first()
        {
            let record_key = self.by_number[&number].clone();
            let group = self.groups.get_mut(&record_key).expect("what is settled is held");
            if from > now && matches!(group.front, Front::Settled { was_sent: true, .. }) {
                later.push((from, number));
                continue;
            }
            group.front = Front::Deleting;
            let front = group.messages.front().expect("a group is never empty");
            entries.push(Entry { number, record_key, receipt_handle: front.receipt_handle.clone() });
        }
        self.settled.extend(later);
        entries
    }

    /// What became of the deletion.
    ///
    /// # Errors
    /// It was refused: the message became visible before.
    ///
    /// # Panics
    /// No deletion of it is on its way.
    pub fn deletion_ended(
        &mut self,
        now: Tick,
        entry: &Entry,
        answer: EntryAnswer,
    ) -> Result<(), VisibilityLost> {
        let group = self.groups.get_mut(&entry.record_key).expect("what is being deleted is held");
        assert_eq!(group.front, Front::Deleting, "it is answered once");
        match answer {
            EntryAnswer::Refused => return Err(VisibilityLost::HandleRefused),
            EntryAnswer::Unknown => {
                let from = now.after(AGAIN_AFTER);
                group.front = Front::Settled { from, was_sent: true };
                self.settled.insert((from, entry.number));
                return Ok(());
            }
            EntryAnswer::Done => {}
        }
        let gone = group.messages.pop_front().expect("a group is never empty");
        assert_eq!(gone.number, entry.number, "only the oldest of a group is deleted");
        self.by_number.remove(&gone.number);
        self.granted.remove(&(gone.granted_from, gone.number));
        self.renewals.remove(&(gone.renew_at, gone.number));
        if group.messages.is_empty() {
            self.groups.remove(&entry.record_key);
        } else {
            group.front = Front::Waiting;
            self.ready.push_back(entry.record_key.clone());
        }
        Ok(())
    }

    /// The entries of one `ChangeMessageVisibilityBatch` to send now, with the visibility timeout as it is; none if none is
    /// due.
    pub fn next_renewals(&mut self, now: Tick) -> Vec<Entry> {
        let mut entries = Vec::new();
        while entries.len() < BATCH_MAX
            && let Some((at, number)) = self.renewals.first().copied()
            && at <= now
        {
            self.renewals.pop_first();
            let record_key = self.by_number[&number].clone();
            let held = held(&mut self.groups, &record_key, number).expect("what is renewed is held");
            held.renewing_since = Some(now);
            entries.push(Entry { number, record_key, receipt_handle: held.receipt_handle.clone() });
        }
        entries
    }

    /// What became of it.
    ///
    /// # Errors
    /// It was refused, and the message is not one that may be deleted: it became visible.
    pub fn renewal_ended(
        &mut self,
        now: Tick,
        entry: &Entry,
        answer: EntryAnswer,
    ) -> Result<(), VisibilityLost> {
        let may_be_deleted =
            self.groups.get(&entry.record_key).is_none_or(|group| group.may_be_deleted(entry.number));
        let Some(held) = held(&mut self.groups, &entry.record_key, entry.number) else {
            return Ok(()); // it was deleted meanwhile
        };
        let sent = held.renewing_since.take().expect("it is answered once");
        let again_at = match answer {
            EntryAnswer::Done => {
                self.granted.remove(&(held.granted_from, entry.number));
                held.granted_from = held.granted_from.max(sent);
                self.granted.insert((held.granted_from, entry.number));
                sent.after(self.limits.visibility_timeout / RENEWALS)
            }
            // The answer to its deletion says what became of it.
            EntryAnswer::Refused if !may_be_deleted => return Err(VisibilityLost::HandleRefused),
            EntryAnswer::Refused | EntryAnswer::Unknown => now.after(AGAIN_AFTER),
        };
        held.renew_at = again_at;
        self.renewals.insert((again_at, entry.number));
        Ok(())
    }

    /// When [`Self::next_deletions`] or [`Self::next_renewals`] has something, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let deletion = self.settled.first().map(|(from, _)| *from);
        let renewal = self.renewals.first().map(|(at, _)| *at);
        deletion.into_iter().chain(renewal).min()
    }

    /// Ends the tenure in order: what is to be made visible at once, so that another consumer gets it, in batches of any
    /// size and order, since SQS keeps the order within a group. What may be deleted is left out, and so is what the
    /// partition has if `at_work`: a request of it can be at work. It becomes visible by itself.
    #[must_use]
    pub fn hand_back(self, at_work: bool) -> Vec<Entry> {
        let Self { by_number, mut groups, .. } = self;
        let mut entries = Vec::new();
        // In the order in which they came, so that equal histories give equal lists.
        for record_key in by_number.into_values() {
            let Some(Group { front, messages }) = groups.remove(&record_key) else { continue };
            let kept = match front {
                Front::Waiting => 0,
                Front::Handed(_) => usize::from(at_work),
                Front::Settled { .. } | Front::Deleting => 1,
            };
            entries.extend(messages.into_iter().skip(kept).map(|held| Entry {
                number: held.number,
                record_key: record_key.clone(),
                receipt_handle: held.receipt_handle,
            }));
        }
        entries
    }
}

fn held<'a, M>(
    groups: &'a mut HashMap<RecordKey, Group<M>>,
    record_key: &RecordKey,
    number: u64,
) -> Option<&'a mut HeldMessage<M>> {
    let messages = &mut groups.get_mut(record_key)?.messages;
    let place = messages.binary_search_by_key(&number, |held| held.number).ok()?;
    messages.get_mut(place)
}
