//! What this process knows of the replicas of a layout, and what it has to publish for them. Shared by the reader of the
//! stream of members, its publisher, and the partitions.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::known::Known;
use super::message::{Kind, Note, Oneself};
use crate::error::SourceError;
use crate::halt::Halt;
use crate::link::Link;
use lanekeeper_core::layout::{PartitionNumber, rank};

/// How long a claim may take to come back before it is published again.
pub(super) const READ_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what must come may be missing before the stream is read from another connection: a process that consumes sends
/// nothing without its claim, and no other process sends in its place.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct State {
    pub(super) oneself: Oneself,
    pub(super) consuming: Link,
    pub(super) publishing: Link,
    pub(super) stream: String,
    pub(super) exchange: String,
    /// One for each partition, by its number.
    pub(super) partitions: Vec<watch::Sender<Known>>,
    /// The offset that the reader waits for, 0 if it has read none; `None` until it reads.
    pub(super) position: watch::Sender<Option<u64>>,
    pub(super) claims_made: AtomicU64,
    /// What is not published, or not read back: at most one of each kind per partition.
    pub(super) wanted: Mutex<BTreeMap<(PartitionNumber, Kind), Wanted>>,
    pub(super) news: Notify,
    pub(super) halt: Halt,
}

#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) note: Note,
    /// When it was confirmed: first, and last.
    pub(super) published: Option<(Instant, Instant)>,
}

impl State {
    pub(super) fn wanted(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PartitionNumber, Kind), Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream can be read: if nothing has come of it, its end is where it begins.
    pub(super) fn begin_position(&self) {
        self.position.send_if_modified(|position| position.is_none() && position.replace(0).is_none());
    }

    /// What was never published, or long ago and has not come back.
    pub(super) fn due(&self) -> Vec<Note> {
        let due =
            |wanted: &&Wanted| wanted.published.is_none_or(|(_, last)| last.elapsed() > READ_BACK_TIMEOUT);
        self.wanted().values().filter(due).map(|wanted| wanted.note.clone()).collect()
    }

    pub(super) fn published(&self, notes: &[Note]) {
        let (now, mut wanted) = (Instant::now(), self.wanted());
        for note in notes {
            let key = (PartitionNumber(note.partition), note.kind);
            if let Some(wanted) = wanted.get_mut(&key).filter(|wanted| wanted.note == *note) {
                wanted.published = Some((wanted.published.map_or(now, |(first, _)| first), now));
            }
        }
    }

    /// Returns true if something was confirmed so long ago, and has not come back though we have read since `reading`.
    pub(super) fn is_unread(&self, reading: Instant) -> bool {
        let unread = |first: Instant| first.max(reading).elapsed() > UNREAD_MAX;
        self.wanted().values().any(|wanted| wanted.published.is_some_and(|(first, _)| unread(first)))
    }

    /// What is known is of a stream that was deleted. A claim that was read back there counts until the next one.
    pub(super) fn made_anew(&self) {
        for known in &self.partitions {
            known.send_modify(|known| *known = Known { ours: known.ours, ..Known::default() });
        }
    }

    /// The broker takes no publishes. Owners go on without a number: an alarm ends only if somebody drains queues.
    pub(super) fn waive_claims(&self) {
        let claims: Vec<_> = self.wanted().values().map(|wanted| wanted.note.clone()).collect();
        for Note { partition, claim, .. } in claims.iter().filter(|note| note.kind == Kind::Claimed) {
            self.partitions[usize::from(*partition)]
                .send_if_modified(|known| known.waived.replace(*claim) != Some(*claim));
        }
    }

    /// `news`: true if it was not there when reading began, as far as we know.
    pub(super) fn read(&self, offset: u64, note: &Note, news: bool) {
        let Some(known) = self.partitions.get(usize::from(note.partition)) else { return };
        if note.layout != self.oneself.layout.0 {
            return;
        }
        if note.kind == Kind::Moved && news && note.process != self.oneself.process {
            self.halt.set(SourceError::MovedElsewhere { instance: note.instance.clone() });
        }
        if note.kind == Kind::Asks {
            for known in &self.partitions {
                known.send_if_modified(|known| known.read(&self.oneself, 0, offset, note));
            }
            return;
        }
        let partition = PartitionNumber(note.partition);
        let own_priority = rank(&self.oneself.instance, partition);
        known.send_if_modified(|known| known.read(&self.oneself, own_priority, offset, note));
        if note.process == self.oneself.process {
            let key = (partition, note.kind);
            let mut wanted = self.wanted();
            if wanted.get(&key).is_some_and(|wanted| wanted.note == *note) {
                wanted.remove(&key);
            }
        }
    }
}
