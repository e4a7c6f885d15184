//! What this process knows of the replicas of a layout, and what it has to publish for them. Shared by the reader of the
//! stream of members, its publishers, and the partitions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::info;

use super::claims::PartitionClaims;
use super::lease::Lease;
use super::message::{MemberMessage, MessageKind, PublishedTerms, ReplicaId, millis};
use crate::beliefs::Beliefs;
use crate::clock::{Clock, seconds_since_1970};
use crate::epochs::Epochs;
use crate::error::SourceError;
use crate::halt::Halt;
use crate::inquiries::Inquiries;
use crate::link::Link;
use crate::presence::{Presence, SeenNote};
use crate::reach::Reach;
use crate::shares::Shares;
use lanekeeper_core::layout::{PartitionNumber, rank};
use lanekeeper_core::message::TenureNumber;
use lanekeeper_core::numbering::{Numbering, Sighting};
use lanekeeper_core::tenures::Terms;
use lanekeeper_core::tick::Tick;

/// How long a claim may take to come back before it is published again.
pub(super) const READ_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was confirmed may take to come back before the stream is read by another reader: a process that consumes
/// sends nothing without its claim, and no other process sends in its place.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(10);

/// Below every rank.
const LAST_IN_LINE: i32 = -1;

#[derive(Debug)]
pub(super) struct State {
    pub(super) replica: ReplicaId,
    pub(super) consuming: Link,
    pub(super) publishing: Link,
    pub(super) stream: String,
    pub(super) exchange: String,
    pub(super) clock: Clock,
    /// The longest time that a request of this process can be at work.
    pub(super) at_work: Duration,
    /// One for each partition, by its number.
    pub(super) partitions: Vec<watch::Sender<PartitionClaims>>,
    /// What the stream shows of the numbers of tenures.
    pub(super) numbering: Mutex<Numbering>,
    pub(super) epochs: Epochs,
    pub(super) reach: Reach,
    pub(super) shares: Shares,
    pub(super) presence: Presence,
    pub(super) beliefs: Beliefs,
    pub(super) inquiries: Inquiries,
    /// For notes.
    pub(super) admin: Option<String>,
    /// A note of ours has come back: all that stood in the stream when this process began was read. Not so under an alarm.
    pub(super) knows_stream: AtomicBool,
    /// A number of the ledger, and the note that was sent when it was known: what gave it away stands before that note.
    pub(super) floor_sent: Mutex<Option<(u64, TenureNumber)>>,
    /// The offset that the reader waits for: everything before it was read.
    pub(super) position: watch::Sender<u64>,
    /// The stream exists, and can be read: a publish to a stream that has no leader yet ends the connection.
    pub(super) opened: watch::Sender<bool>,
    /// All that stood in the stream when this process began was read.
    pub(super) caught_up: watch::Sender<bool>,
    /// Until when this process may begin requests.
    pub(super) lease_until: watch::Sender<Tick>,
    pub(super) lease: Mutex<Lease>,
    /// Partitions that this process owns.
    pub(super) owned: Mutex<BTreeMap<PartitionNumber, TenureNumber>>,
    /// How many alarms there had been when the last tenure of a partition ended.
    pub(super) alarms_at_end: Mutex<BTreeMap<PartitionNumber, u64>>,
    pub(super) claims_made: AtomicU64,
    /// What is not published, or not read back: at most one of each kind per partition.
    pub(super) outgoing: Mutex<BTreeMap<(PartitionNumber, MessageKind), OutgoingMessage>>,
    pub(super) wake: Notify,
    /// Something of [`Self::outgoing`] was read back.
    pub(super) read_back: Notify,
    pub(super) halt: Halt,
}

#[derive(Clone, Debug)]
pub(super) struct OutgoingMessage {
    pub(super) message: MemberMessage,
    pub(super) since: Tick,
    /// When it was confirmed: first, and last.
    pub(super) published: Option<(Instant, Instant)>,
}

impl State {
    pub(super) fn outgoing(
        &self,
    ) -> MutexGuard<'_, BTreeMap<(PartitionNumber, MessageKind), OutgoingMessage>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn numbering(&self) -> MutexGuard<'_, Numbering> {
        self.numbering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn owned(&self) -> MutexGuard<'_, BTreeMap<PartitionNumber, TenureNumber>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long either side of the connection that consumes may be silent, as agreed on the present one.
    pub(super) fn heartbeat(&self) -> Duration {
        self.consuming.heartbeat().saturating_sub(self.consuming.heartbeat_lowered_by())
    }

    /// What other processes have to wait for if this one dies without a word.
    pub(super) fn terms(&self) -> Terms {
        Terms { lease: Lease::length(self.heartbeat()), at_work: self.at_work }
    }

    /// Waits until the stream exists and can be read, for the first time.
    pub(super) async fn opened(&self) {
        if self.opened.subscribe().wait_for(|opened| *opened).await.is_err() {
            std::future::pending::<()>().await; // the process ends
        }
    }

    pub(super) fn send(&self, message: MemberMessage) {
        let key = (PartitionNumber(message.partition), message.kind);
        let outgoing = OutgoingMessage { message, since: self.clock.now(), published: None };
        self.outgoing().insert(key, outgoing);
        self.wake.notify_one();
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

    /// How long a note may take to come back before the stream is read by another reader.
    pub(super) fn note_due_within(&self) -> Duration {
        Lease::length(self.heartbeat()) / 2
    }

    /// Returns true if something must have come by now, though we have read since `reading`. A reader on a node that was cut
    /// off gets no more messages and no notice, not even after the node is back (RabbitMQ 3.10.8, measured).
    pub(super) fn is_unread(&self, reading: Instant) -> bool {
        let unread = |first: Instant| first.max(reading).elapsed() > UNREAD_MAX;
        let confirmed = self
            .outgoing()
            .values()
            .any(|outgoing| outgoing.published.is_some_and(|(first, _)| unread(first)));
        let due_within = self.note_due_within();
        let sent = self.lease().awaited_since().map(|sent| self.clock.instant(sent).max(reading));
        confirmed || (!self.publishing.is_blocked() && sent.is_some_and(|sent| sent.elapsed() > due_within))
    }

    /// Messages may be missing: no claim that was read before counts any more.
    pub(super) fn gap(&self) {
        for known in &self.partitions {
            known.send_modify(PartitionClaims::gap);
        }
    }

    /// What is known is of a stream that was deleted. Returns the epoch that counts in the other one.
    pub(super) fn recreated(&self) -> u64 {
        // First of all, so that no claim that is made from here on is of the stream before.
        let epoch = {
            let mut numbering = self.numbering();
            numbering.begin_stream();
            self.begin_epoch(&mut numbering)
        };
        self.position.send_replace(0);
        self.shares.recreated();
        let now = self.clock.now();
        for known in &self.partitions {
            known.send_modify(|known| known.recreated(now));
        }
        epoch
    }

    fn begin_epoch(&self, numbering: &mut Numbering) -> u64 {
        let epoch = numbering.begin_epoch(self.epochs.newest(), seconds_since_1970());
        self.epochs.observe(epoch);
        epoch
    }

    /// Begins an epoch if numbers were given away that do not stand in this stream, which ends at `position`.
    fn check_numbering(&self, position: u64) {
        let mut numbering = self.numbering();
        if let Some(why) = numbering.is_another(position) {
            let before = numbering.epoch();
            let epoch = self.begin_epoch(&mut numbering);
            if epoch == before {
                return; // there is no higher one: a line for each message would say no more
            }
            info!(
                before,
                epoch,
                %why,
                stream = self.stream,
                "a new epoch of tenure numbers begins: the stream of members does not go on from the numbers that were given away"
            );
        }
    }

    /// A note is about to be sent.
    pub(super) fn sending_note(&self, note: u64) {
        let mut sent = self.floor_sent();
        if sent.is_none() {
            *sent = self.epochs.floor().map(|floor| (note, floor));
        }
    }

    /// A note of ours was read back at this offset: all that stood there when it was sent was read.
    fn check_at_own_note(&self, note: u64, offset: u64) {
        let floor = self.floor_sent().take_if(|(sent, _)| *sent <= note);
        if let Some((_, floor)) = floor {
            self.numbering().raise_floor(floor);
        }
        self.check_numbering(offset);
        self.knows_stream.store(true, Ordering::Relaxed);
    }

    fn floor_sent(&self) -> MutexGuard<'_, Option<(u64, TenureNumber)>> {
        self.floor_sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each message says in which epoch its process is. Returns the highest one that was read.
    fn read_epoch(&self, offset: u64, message: &MemberMessage) -> u64 {
        let mut numbering = self.numbering();
        numbering.read(Sighting {
            offset,
            epoch: message.epoch.unwrap_or_default(),
            read: message.read,
            // Programs of before numbered in epoch 0, whatever they say.
            knows_stream: message.epoch.is_none() || message.read.is_some(),
        });
        self.epochs.observe(numbering.epoch());
        let epoch_read = numbering.epoch_read();
        drop(numbering);
        if self.knows_stream.load(Ordering::Relaxed) {
            self.check_numbering(offset.saturating_add(1));
        }
        epoch_read
    }

    /// The broker has answered on the connection that consumes. While it takes no publishes, notes cannot come back, and its
    /// answers take their place for who had a lease. A process without one waits as if there was another owner.
    pub(super) fn answered(&self, asked: Tick) {
        let now = self.clock.now();
        let blocked = self.publishing.is_blocked();
        let longest = self.partitions.iter().map(|known| known.borrow().tenures.wait_without_number());
        let wait = longest.max().unwrap_or_default();
        let until = self.lease().answered(now, asked, blocked, wait, self.heartbeat());
        self.renew(until);
    }

    fn renew(&self, until: Option<Tick>) {
        if let Some(until) = until {
            self.lease_until
                .send_if_modified(|known| *known < until && std::mem::replace(known, until) < until);
        }
    }

    /// The broker takes no publishes. Once no other owner can be at work, who has got deliveries begins without a number: an
    /// alarm ends only if somebody drains queues.
    pub(super) fn allow_unnumbered_claims(&self) {
        let now = self.clock.now();
        let claims: Vec<(u16, u64, Tick)> = self
            .outgoing()
            .values()
            .filter(|outgoing| outgoing.message.kind == MessageKind::Claimed)
            .filter(|outgoing| outgoing.message.over_ms.is_none())
            .map(|outgoing| (outgoing.message.partition, outgoing.message.claim, outgoing.since))
            .collect();
        for (partition, claim, since) in claims {
            let known = &self.partitions[usize::from(partition)];
            let wait = known.borrow().tenures.wait_without_number();
            if now.since(since) >= wait {
                known.send_if_modified(|known| known.without_number.replace(claim) != Some(claim));
            }
        }
    }

    /// A tenure of ours begins. Returns true if an alarm has kept claims on the partition from being published since the last
    /// one.
    pub(super) fn claims_kept_back(&self, partition: PartitionNumber) -> bool {
        let (alarms, _) = self.lease().alarms();
        let mut at_end = self.alarms_at_end.lock().unwrap_or_else(PoisonError::into_inner);
        at_end.insert(partition, alarms).is_some_and(|at_end| at_end != alarms)
    }

    fn tenure_ended(&self, partition: PartitionNumber) {
        let (alarms, blocked) = self.lease().alarms();
        // An alarm that goes on counts as one that is yet to come.
        let at_end = alarms.saturating_sub(u64::from(blocked));
        self.alarms_at_end.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, at_end);
    }

    /// The tenure that has claimed the partition is over: its claim, if it is not published yet, must not come after another
    /// process's. If it had begun without a number, others must know of it, since it has applied updates.
    pub(super) fn withdraw(&self, partition: PartitionNumber) {
        self.tenure_ended(partition);
        let key = (partition, MessageKind::Claimed);
        let without_number = self.partitions[usize::from(partition.0)].borrow().without_number;
        let mut outgoing = self.outgoing();
        if let Some(claim) = outgoing.get_mut(&key)
            && Some(claim.message.claim) == without_number
        {
            claim.message.over_ms = Some(millis(self.at_work));
        } else {
            outgoing.remove(&key);
        }
    }

    /// A message of the stream was read at this offset.
    pub(super) fn read(&self, offset: u64, message: &MemberMessage) {
        let is_ours = message.process == self.replica.process;
        let epoch = self.read_epoch(offset, message);
        self.read_shares(offset, message, is_ours);
        // What stood there before this process began counts, too, if it is not over.
        if let Some(belief) = &message.belief {
            self.beliefs.observe(seconds_since_1970(), belief);
        }
        // What stood there before this process began asks nothing of it.
        let is_new = *self.caught_up.borrow();
        if let Some(question) = message.inquiry.as_ref().filter(|_| is_new) {
            self.inquiries.observe(question);
        }
        if message.layout != self.replica.layout.0 {
            return;
        }
        match message.kind {
            MessageKind::Note => return self.read_note(offset, message, is_ours),
            MessageKind::Moved if is_new && !is_ours => {
                self.halt.set(SourceError::MovedElsewhere { instance: message.instance.clone() });
            }
            MessageKind::StatusRequest if !is_new => return,
            _ => {}
        }
        let now = self.clock.now();
        if message.kind == MessageKind::StatusRequest {
            for known in &self.partitions {
                known.send_if_modified(|known| known.read(now, &self.replica, 0, (offset, epoch), message));
            }
            return;
        }
        let Some(known) = self.partitions.get(usize::from(message.partition)) else { return };
        let partition = PartitionNumber(message.partition);
        let own_priority = self.priority(partition);
        known
            .send_if_modified(|known| known.read(now, &self.replica, own_priority, (offset, epoch), message));
        if is_ours {
            let key = (partition, message.kind);
            let mut outgoing = self.outgoing();
            if outgoing.get(&key).is_some_and(|outgoing| outgoing.message == *message) {
                outgoing.remove(&key);
                self.read_back.notify_waiters();
            }
        }
    }

    /// The priority that this process consumes the partition with: behind all others after a step down.
    pub(super) fn priority(&self, partition: PartitionNumber) -> i32 {
        if self.reach.is_last_in_line() { LAST_IN_LINE } else { rank(&self.replica.instance, partition) }
    }

    /// Limits are divided over all layouts.
    fn read_shares(&self, offset: u64, message: &MemberMessage, is_ours: bool) {
        let Some(shares) = message.shares.as_ref().filter(|_| message.kind == MessageKind::Note) else {
            return;
        };
        if is_ours {
            self.shares.own_note(offset, shares, self.heartbeat());
        } else {
            // Its lease began before its note was sent.
            let lease = message.terms.map(|terms| terms.terms().lease);
            let valid_for = lease.unwrap_or_default().max(self.heartbeat());
            self.shares.observe(&message.process, (offset, message.read), shares, valid_for);
        }
    }

    fn read_note(&self, offset: u64, note: &MemberMessage, is_ours: bool) {
        let now = self.clock.now();
        if let Some(works) = note.works.filter(|_| !is_ours) {
            self.reach.observe(&note.process, works, self.heartbeat());
        }
        let terms = note.terms.map_or(self.terms(), PublishedTerms::terms);
        let seen = SeenNote {
            instance: &note.instance,
            process: &note.process,
            is_own: is_ours,
            layout: note.layout,
            owned: &note.owned,
            notices: note.notices.as_ref(),
        };
        self.presence.observe(&seen, terms.lease.max(self.heartbeat()));
        for (partition, number) in &note.owned {
            if let Some(known) = self.partitions.get(usize::from(*partition)) {
                let number = TenureNumber(*number);
                known.send_if_modified(|known| known.tenures.noted(now, &note.process, number, terms));
            }
        }
        if is_ours {
            let until = self.lease().came_back(note.claim);
            // Whoever sees the lease sees every claim that stands before the note.
            self.renew(until);
            self.check_at_own_note(note.claim, offset);
            self.caught_up.send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
        }
    }
}
