//! What this process knows of the replicas of a layout, and what it has to publish for them. Shared by the reader of the
//! stream of members, its publisher, and the partitions.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::claims::PartitionClaims;
use super::message::{MemberMessage, MessageKind, ReplicaId};
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
    pub(super) replica: ReplicaId,
    pub(super) consuming: Link,
    pub(super) publishing: Link,
    pub(super) stream: String,
    pub(super) exchange: String,
    /// One for each partition, by its number.
    pub(super) partitions: Vec<watch::Sender<PartitionClaims>>,
    /// The offset that the reader waits for, 0 if it has read none; `None` until it reads.
    pub(super) position: watch::Sender<Option<u64>>,
    pub(super) claims_made: AtomicU64,
    /// What is not published, or not read back: at most one of each kind per partition.
    pub(super) outgoing: Mutex<BTreeMap<(PartitionNumber, MessageKind), OutgoingMessage>>,
    pub(super) wake: Notify,
    pub(super) halt: Halt,
}

#[derive(Clone, Debug)]
pub(super) struct OutgoingMessage {
    pub(super) message: MemberMessage,
    /// When it was confirmed: first, and last.
    pub(super) published: Option<(Instant, Instant)>,
}

impl State {
    pub(super) fn outgoing(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<(PartitionNumber, MessageKind), OutgoingMessage>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream can be read: if nothing has come of it, its end is where it begins.
    pub(super) fn begin_position(&self) {
        self.position.send_if_modified(|position| position.is_none() && position.replace(0).is_none());
    }

    /// What was never published, or long ago and has not come back.
    pub(super) fn due(&self) -> Vec<MemberMessage> {
        let due = |outgoing: &&OutgoingMessage| {
            outgoing.published.is_none_or(|(_, last)| last.elapsed() > READ_BACK_TIMEOUT)
        };
        self.outgoing().values().filter(due).map(|outgoing| outgoing.message.clone()).collect()
    }

    pub(super) fn published(&self, messages: &[MemberMessage]) {
        let (now, mut outgoing) = (Instant::now(), self.outgoing());
        for message in messages {
            let key = (PartitionNumber(message.partition), message.kind);
            if let Some(outgoing) = outgoing.get_mut(&key).filter(|outgoing| outgoing.message == *message) {
                outgoing.published = Some((outgoing.published.map_or(now, |(first, _)| first), now));
            }
        }
    }

    /// Returns true if something was confirmed so long ago, and has not come back though we have read since `reading`.
    pub(super) fn is_unread(&self, reading: Instant) -> bool {
        let unread = |first: Instant| first.max(reading).elapsed() > UNREAD_MAX;
        self.outgoing().values().any(|outgoing| outgoing.published.is_some_and(|(first, _)| unread(first)))
    }

    /// What is known is of a stream that was deleted. A claim that was read back there counts until the next one.
    pub(super) fn recreated(&self) {
        for known in &self.partitions {
            known.send_modify(|known| {
                *known = PartitionClaims { ours: known.ours, ..PartitionClaims::default() }
            });
        }
    }

    /// The broker takes no publishes. Owners go on without a number: an alarm ends only if somebody drains queues.
    pub(super) fn allow_unnumbered_claims(&self) {
        let claims: Vec<_> = self.outgoing().values().map(|outgoing| outgoing.message.clone()).collect();
        for MemberMessage { partition, claim, .. } in
            claims.iter().filter(|message| message.kind == MessageKind::Claimed)
        {
            self.partitions[usize::from(*partition)]
                .send_if_modified(|known| known.without_number.replace(*claim) != Some(*claim));
        }
    }

    /// `is_new`: true if it was not there when reading began, as far as we know.
    pub(super) fn read(&self, offset: u64, message: &MemberMessage, is_new: bool) {
        let Some(known) = self.partitions.get(usize::from(message.partition)) else { return };
        if message.layout != self.replica.layout.0 {
            return;
        }
        if message.kind == MessageKind::Moved && is_new && message.process != self.replica.process {
            self.halt.set(SourceError::MovedElsewhere { instance: message.instance.clone() });
        }
        if message.kind == MessageKind::StatusRequest {
            for known in &self.partitions {
                known.send_if_modified(|known| known.read(&self.replica, 0, offset, message));
            }
            return;
        }
        let partition = PartitionNumber(message.partition);
        let own_priority = rank(&self.replica.instance, partition);
        known.send_if_modified(|known| known.read(&self.replica, own_priority, offset, message));
        if message.process == self.replica.process {
            let key = (partition, message.kind);
            let mut outgoing = self.outgoing();
            if outgoing.get(&key).is_some_and(|outgoing| outgoing.message == *message) {
                outgoing.remove(&key);
            }
        }
    }
}
