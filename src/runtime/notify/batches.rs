//! What one receiver is still to be told: events of one kind about one target come together, and not too often. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::event::{Batch, NotifyEvent, SharedEvent};
use crate::config::EventKind;

/// How long a batch is open after its first event: what happens at the same time comes in one notification.
const OPEN_FOR: Duration = Duration::from_secs(2);
/// Parked records that a notification names; of more, it has the number.
const RECORDS_MAX: usize = 20;

/// What one receiver is still to be told.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// By kind and target. As many as there are kinds and targets, at most.
    slots: BTreeMap<(EventKind, String), Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    open: Option<(Instant, Batch)>,
    /// When the next notification may be sent.
    not_before: Option<Instant>,
}

impl Slot {
    fn due(&self) -> Option<Instant> {
        let (since, _) = self.open.as_ref()?;
        Some((*since + OPEN_FOR).max(self.not_before.unwrap_or(*since)))
    }
}

/// What takes it back before anybody was told.
const fn opposite(kind: EventKind) -> Option<EventKind> {
    match kind {
        EventKind::RecordParked => None,
        EventKind::TargetShut => Some(EventKind::TargetOpened),
        EventKind::TargetOpened => Some(EventKind::TargetShut),
        EventKind::PartitionWithoutOwner => Some(EventKind::PartitionOwned),
        EventKind::PartitionOwned => Some(EventKind::PartitionWithoutOwner),
    }
}

impl Batches {
    pub(super) fn add(&mut self, now: Instant, event: &SharedEvent) {
        let (kind, target) = (event.kind(), event.target().to_owned());
        if let Some(opposite) = opposite(kind)
            && self.take_back(&(opposite, target.clone()), event)
        {
            return;
        }
        let slot = self.slots.entry((kind, target.clone())).or_default();
        let (_, batch) = slot.open.get_or_insert_with(|| {
            let since = SystemTime::now();
            let (reasons, events) = (BTreeMap::new(), Vec::new());
            (now, Batch { kind, target, count: 0, since, reasons, events })
        });
        batch.count += 1;
        if let NotifyEvent::RecordParked(record) = &**event {
            *batch.reasons.entry(record.reason).or_default() += 1;
            if batch.events.len() >= RECORDS_MAX {
                return;
            }
        }
        batch.events.push(NotifyEvent::clone(event));
    }

    /// Returns true if nobody was told yet of what is over with this event.
    fn take_back(&mut self, key: &(EventKind, String), event: &NotifyEvent) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let Some((_, batch)) = &mut slot.open else { return false };
        let before = batch.events.len();
        batch.events.retain(|open| open.place() != event.place());
        batch.count = batch.events.len() as u64;
        let taken_back = batch.events.len() < before;
        if batch.events.is_empty() {
            slot.open = None;
        }
        taken_back
    }

    /// When [`Self::take_due`] has something; `None`: there is nothing to tell.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.slots.values().filter_map(Slot::due).min()
    }

    /// What is due. `interval`: the least time until the next of this kind about this target.
    pub(super) fn take_due(&mut self, now: Instant, interval: Duration) -> Option<Batch> {
        self.slots.retain(|_, slot| slot.open.is_some() || slot.not_before.is_some_and(|until| until > now));
        let slot = self
            .slots
            .values_mut()
            .filter(|slot| slot.due().is_some_and(|due| due <= now))
            .min_by_key(|slot| slot.due())?;
        slot.not_before = Some(now + interval);
        slot.open.take().map(|(_, batch)| batch)
    }

    /// All that is open, whether it is due or not.
    pub(super) fn take_all(&mut self) -> Vec<Batch> {
        let open = std::mem::take(&mut self.slots).into_values().filter_map(|slot| slot.open);
        open.map(|(_, batch)| batch).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::event::{ParkedRecord, ShutTarget};
    use super::*;
    use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};
    use lanekeeper_core::update::RecordKey;

    const MINUTE: Duration = Duration::from_secs(60);

    fn parked(target: &str, id: usize) -> SharedEvent {
        Arc::new(NotifyEvent::RecordParked(ParkedRecord {
            target: target.to_owned(),
            layout: LayoutNumber(1),
            partition: PartitionNumber(0),
            update_id: id.to_string(),
            record_key: RecordKey::new("k").unwrap(),
            reason: "rejected",
            cause: String::new(),
            attempts: 1,
        }))
    }

    fn shut(target: &str) -> SharedEvent {
        let shut = ShutTarget { target: target.to_owned(), why: String::new(), shut_at: Vec::new() };
        Arc::new(NotifyEvent::TargetShut(shut))
    }

    fn opened(target: &str) -> SharedEvent {
        Arc::new(NotifyEvent::TargetOpened(target.to_owned()))
    }

    /// Everything that is due, as kind, target and count.
    fn due(batches: &mut Batches, now: Instant) -> Vec<(EventKind, String, u64)> {
        std::iter::from_fn(|| batches.take_due(now, MINUTE))
            .map(|batch| (batch.kind, batch.target, batch.count))
            .collect()
    }

    #[test]
    fn a_burst_of_parked_records_is_one_notification_and_the_rest_comes_after_the_interval() {
        let (mut batches, begin) = (Batches::default(), Instant::now());
        for id in 0..500 {
            batches.add(begin, &parked("crm", id));
        }
        batches.add(begin, &parked("erp", 0));
        assert_eq!(due(&mut batches, begin), []);
        let first = begin + OPEN_FOR;
        assert_eq!(batches.next_due(), Some(first));
        let batch = batches.take_due(first, MINUTE).expect("it is due");
        assert_eq!((batch.count, batch.events.len(), batch.reasons["rejected"]), (500, RECORDS_MAX, 500));
        assert_eq!(due(&mut batches, first), [(EventKind::RecordParked, "erp".to_owned(), 1)]);
        batches.add(first, &parked("crm", 500));
        batches.add(first, &parked("crm", 501));
        assert_eq!(batches.next_due(), Some(first + MINUTE));
        assert_eq!(due(&mut batches, first + MINUTE), [(EventKind::RecordParked, "crm".to_owned(), 2)]);
        assert_eq!(batches.next_due(), None);
    }

    #[test]
    fn what_is_over_before_anybody_was_told_of_it_is_not_told() {
        let (mut batches, begin) = (Batches::default(), Instant::now());
        batches.add(begin, &shut("crm"));
        batches.add(begin, &opened("crm"));
        assert_eq!(batches.next_due(), None);
        batches.add(begin, &shut("crm"));
        let first = begin + OPEN_FOR;
        assert_eq!(due(&mut batches, first), [(EventKind::TargetShut, "crm".to_owned(), 1)]);
        // It opens and is shut again, several times within the interval: people know that it is shut.
        batches.add(first, &opened("crm"));
        batches.add(first, &shut("crm"));
        assert_eq!(batches.next_due(), None);
        batches.add(first, &opened("crm"));
        assert_eq!(due(&mut batches, first + OPEN_FOR), [(EventKind::TargetOpened, "crm".to_owned(), 1)]);
    }

    #[test]
    fn partitions_come_together_and_each_is_taken_back_alone() {
        let (mut batches, begin) = (Batches::default(), Instant::now());
        let place = |number| (LayoutNumber(1), PartitionNumber(number));
        for number in 0..3 {
            batches.add(begin, &Arc::new(NotifyEvent::PartitionWithoutOwner(place(number), 5)));
        }
        batches.add(begin, &Arc::new(NotifyEvent::PartitionOwned(place(1))));
        let batch = batches.take_due(begin + OPEN_FOR, MINUTE).expect("it is due");
        let places: Vec<_> = batch.events.iter().filter_map(NotifyEvent::place).collect();
        assert_eq!((batch.count, places), (2, vec![place(0), place(2)]));
    }

    #[test]
    fn slots_that_say_nothing_are_forgotten() {
        let (mut batches, begin) = (Batches::default(), Instant::now());
        for target in 0..100 {
            batches.add(begin, &parked(&target.to_string(), 0));
        }
        assert_eq!(due(&mut batches, begin + OPEN_FOR).len(), 100);
        assert_eq!(due(&mut batches, begin + OPEN_FOR + MINUTE), []);
        assert!(batches.slots.is_empty());
    }
}
