//! The stream of members: claims on partitions and who consumes them. A claim's offset is the number of its tenure, the
//! same for all processes and growing, with no database.
//!
//! Read on the connection that consumes, so that whoever reads its own claim back has also heard the broker there;
//! published on the one that publishes, since an alarm freezes that one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::error::SourceError;
use super::halt::Halt;
use super::link::{ANSWER_TIMEOUT, Link};
use super::member_message::{MemberMessage, MessageKind, PartitionClaims, PartitionStatus, ReplicaId, parse};
use super::names::Names;
use super::task::Task;
use super::topology::{argument, declare_queue};
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::{Layout, PartitionNumber, rank};

/// What the stream keeps: some hundred thousand notes. Readers want those of the last seconds.
const STREAM_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Old notes go segment by segment.
const SEGMENT_BYTES_MAX: i64 = 4 * 1024 * 1024;
/// A note takes some 200 bytes; what is longer is not ours.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How long a claim may take to come back before it is published again.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing may come of what must come before the stream is read anew: without its claim a process that consumes
/// sends nothing, and no other does in its place.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// How often we look whether it is so.
const UNREAD_POLL: Duration = Duration::from_secs(1);
/// How often we look whether an alarm blocks what we wait for.
const BLOCKED_POLL: Duration = Duration::from_millis(100);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// What this process knows of the replicas, and tells them. Stops when it is dropped.
#[derive(Clone, Debug)]
pub struct Membership {
    shared: Arc<MembershipState>,
    _tasks: Arc<[Task; 2]>,
}

#[derive(Debug)]
struct MembershipState {
    replica: ReplicaId,
    consuming: Link,
    publishing: Link,
    stream: String,
    exchange: String,
    /// One for each partition, by its number.
    partitions: Vec<watch::Sender<PartitionClaims>>,
    /// The offset that the reader waits for, 0 where it has read none; `None` until it reads.
    position: watch::Sender<Option<u64>>,
    claims_made: AtomicU64,
    /// What is not published, or not read back: at most one of each kind per partition.
    outgoing: Mutex<BTreeMap<(PartitionNumber, MessageKind), OutgoingMessage>>,
    wake: Notify,
    halt: Halt,
}

#[derive(Clone, Debug)]
struct OutgoingMessage {
    message: MemberMessage,
    /// When it was confirmed: first, and last.
    published: Option<(Instant, Instant)>,
}

impl Membership {
    /// Declares the stream, reads it and publishes to it, for as long as this lives. `process` tells replicas of one
    /// instance apart; made anew at each start.
    #[must_use]
    pub fn join(
        (consuming, publishing): (Link, Link),
        names: &Names,
        layout: Layout,
        (instance, process): (&str, Uuid),
        halt: Halt,
    ) -> Self {
        let shared = Arc::new(MembershipState {
            replica: ReplicaId {
                instance: instance.to_owned(),
                process: process.to_string(),
                layout: layout.number,
            },
            consuming,
            publishing,
            stream: names.members(),
            exchange: names.public().to_owned(),
            partitions: layout.partitions().map(|_| watch::Sender::default()).collect(),
            position: watch::Sender::default(),
            claims_made: AtomicU64::new(0),
            outgoing: Mutex::default(),
            wake: Notify::new(),
            halt,
        });
        let reader = Task::begin(read_for_ever(Arc::clone(&shared)));
        let publisher = Task::begin(publish_for_ever(Arc::clone(&shared)));
        Self { shared, _tasks: Arc::new([reader, publisher]) }
    }

    /// What is known of a partition, as it changes.
    pub(super) fn watch(&self, partition: PartitionNumber) -> watch::Receiver<PartitionClaims> {
        self.shared.partitions[usize::from(partition.0)].subscribe()
    }

    /// The priority that this process consumes the partition with.
    pub(super) fn priority(&self, partition: PartitionNumber) -> i32 {
        rank(&self.shared.replica.instance, partition)
    }

    /// How far the stream is read: what comes later has this offset or a higher one. Waits until it can be read at all.
    pub(super) async fn position(&self) -> u64 {
        let mut position = self.shared.position.subscribe();
        match position.wait_for(Option::is_some).await.map(|position| *position) {
            Ok(Some(position)) => position,
            _ => std::future::pending().await, // the process ends
        }
    }

    /// Tells the others that we consume the partition.
    pub(super) fn announce(&self, partition: PartitionNumber) {
        self.send(MessageKind::Attached, partition, 0);
    }

    /// Claims the partition. Answers what the claim is known by; [`PartitionClaims::ours`] has it once it was read back.
    pub(super) fn claim(&self, partition: PartitionNumber) -> u64 {
        let claim = self.shared.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
        self.send(MessageKind::Claimed, partition, claim);
        claim
    }

    /// The tenure that has claimed the partition is over: a claim that is not published must not stand behind another's.
    pub(super) fn withdraw(&self, partition: PartitionNumber) {
        self.shared.outgoing().remove(&(partition, MessageKind::Claimed));
    }

    /// Tells the others that keys have moved. Done once they can read it; after a few seconds in any case: they look for
    /// themselves as well.
    pub async fn notify_moved(&self) {
        let partition = PartitionNumber(0);
        self.send(MessageKind::Moved, partition, 0);
        let last_logged = async {
            while self.shared.outgoing().contains_key(&(partition, MessageKind::Moved)) {
                tokio::time::sleep(BLOCKED_POLL).await;
            }
        };
        let _ = timeout(READ_BACK_TIMEOUT, last_logged).await;
    }

    /// Tells operators what is held of a partition.
    pub(super) fn publish_status(&self, partition: PartitionNumber, status: PartitionStatus) {
        let message =
            self.shared.replica.message(MessageKind::StatusReport, partition, self.priority(partition), 0);
        let outgoing =
            OutgoingMessage { message: MemberMessage { status: Some(status), ..message }, published: None };
        self.shared.outgoing().insert((partition, MessageKind::StatusReport), outgoing);
        self.shared.wake.notify_one();
    }

    fn send(&self, kind: MessageKind, partition: PartitionNumber, claim: u64) {
        let message = self.shared.replica.message(kind, partition, self.priority(partition), claim);
        let outgoing = OutgoingMessage { message, published: None };
        self.shared.outgoing().insert((partition, kind), outgoing);
        self.shared.wake.notify_one();
    }
}

impl MembershipState {
    fn outgoing(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<(PartitionNumber, MessageKind), OutgoingMessage>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was never published, or long ago and has not come back.
    fn due(&self) -> Vec<MemberMessage> {
        let due = |outgoing: &&OutgoingMessage| {
            outgoing.published.is_none_or(|(_, last)| last.elapsed() > READ_BACK_TIMEOUT)
        };
        self.outgoing().values().filter(due).map(|outgoing| outgoing.message.clone()).collect()
    }

    fn published(&self, messages: &[MemberMessage]) {
        let (now, mut outgoing) = (Instant::now(), self.outgoing());
        for message in messages {
            let key = (PartitionNumber(message.partition), message.kind);
            if let Some(outgoing) = outgoing.get_mut(&key).filter(|outgoing| outgoing.message == *message) {
                outgoing.published = Some((outgoing.published.map_or(now, |(first, _)| first), now));
            }
        }
    }

    /// Whether something was confirmed so long ago, and has not come back though we have read since `reading`.
    fn is_unread(&self, reading: Instant) -> bool {
        let unread = |first: Instant| first.max(reading).elapsed() > UNREAD_MAX;
        self.outgoing().values().any(|outgoing| outgoing.published.is_some_and(|(first, _)| unread(first)))
    }

    /// What is known is of a stream that is gone. A claim that was read back there stands until the next one.
    fn recreated(&self) {
        for known in &self.partitions {
            known.send_modify(|known| {
                *known = PartitionClaims { ours: known.ours, ..PartitionClaims::default() }
            });
        }
    }

    /// The broker takes no publishes: draining is what ends an alarm, so owners go on without a number.
    fn allow_unnumbered_claims(&self) {
        let claims: Vec<_> = self.outgoing().values().map(|outgoing| outgoing.message.clone()).collect();
        for MemberMessage { partition, claim, .. } in
            claims.iter().filter(|message| message.kind == MessageKind::Claimed)
        {
            self.partitions[usize::from(*partition)]
                .send_if_modified(|known| known.without_number.replace(*claim) != Some(*claim));
        }
    }

    /// `is_new`: it was not there when reading began, as far as we know.
    fn read(&self, offset: u64, message: &MemberMessage, is_new: bool) {
        let Some(known) = self.partitions.get(usize::from(message.partition)) else { return };
        if message.layout != self.replica.layout.0 {
            return;
        }
        if message.kind == MessageKind::Moved && is_new && message.process != self.replica.process {
            self.halt.set(SourceError::MovedElsewhere { instance: message.instance.clone() });
        }
        if message.kind == MessageKind::StatusRequest {
            for known in &self.partitions {
                known.send_if_modified(|known| self.replica.read(known, 0, offset, message));
            }
            return;
        }
        let partition = PartitionNumber(message.partition);
        let own_priority = rank(&self.replica.instance, partition);
        known.send_if_modified(|known| self.replica.read(known, own_priority, offset, message));
        if message.process == self.replica.process {
            let key = (partition, message.kind);
            let mut outgoing = self.outgoing();
            if outgoing.get(&key).is_some_and(|outgoing| outgoing.message == *message) {
                outgoing.remove(&key);
            }
        }
    }
}

/// How far the stream is read.
#[derive(Clone, Copy, Debug)]
enum ReadFrom {
    /// Nothing was read: what comes from now on is wanted.
    End,
    /// Everything before this offset was read, so that the message before it must come once more.
    Before(u64),
    /// That one did not come: it is another stream, and all of it is wanted. Or the broker is slow; then what is read
    /// again says nothing new.
    Recreated,
}

async fn read_for_ever(shared: Arc<MembershipState>) {
    let (mut read_from, mut last_logged, mut delay) = (ReadFrom::End, String::new(), RETRY_DELAY_MIN);
    loop {
        let reading = async {
            let (channel, connection) = shared.consuming.channel_of().await?;
            shared
                .consuming
                .while_up(connection, read(&shared, &channel, &mut read_from, &mut last_logged))
                .await
        };
        let fault = match reading.await {
            Ok(never) => match never {},
            Err(fault) => error_chain(&fault),
        };
        if fault != last_logged {
            warn!(stream = shared.stream, error = fault, "the stream of members is not read, trying again");
            (last_logged, delay) = (fault, RETRY_DELAY_MIN);
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    }
}

async fn read(
    shared: &MembershipState,
    channel: &Channel,
    read_from: &mut ReadFrom,
    last_logged: &mut String,
) -> Result<std::convert::Infallible, SourceError> {
    let silent = |within: Duration| SourceError::Silent { step: READING, seconds: within.as_secs() };
    let mut consumer = timeout(ANSWER_TIMEOUT, consume(shared, channel, *read_from))
        .await
        .map_err(|_| silent(ANSWER_TIMEOUT))??;
    let (mut awaited, from_the_first) =
        (matches!(read_from, ReadFrom::Before(_)), matches!(read_from, ReadFrom::Recreated));
    let (mut namesake, reading) = (String::new(), Instant::now());
    let mut look = tokio::time::interval(UNREAD_POLL);
    loop {
        if !awaited {
            shared.position.send_if_modified(|position| position.is_none() && position.replace(0).is_none());
            if !std::mem::take(last_logged).is_empty() {
                info!(stream = shared.stream, "the stream of members is read again");
            }
        }
        let delivery = tokio::select! {
            biased;
            delivery = consumer.next() => delivery,
            _ = look.tick() => {
                if awaited && reading.elapsed() > UNREAD_MAX {
                    *read_from = ReadFrom::Recreated;
                    return Err(silent(UNREAD_MAX));
                }
                if shared.is_unread(reading) {
                    return Err(silent(UNREAD_MAX));
                }
                continue;
            }
        };
        let Some(delivery) = delivery else {
            return Err(SourceError::Missing { text: format!("the stream {} is gone", shared.stream) });
        };
        let delivery = delivery.map_err(SourceError::amqp(READING))?;
        // A stream's ack is credit: nothing is removed.
        let credit = delivery.ack(BasicAckOptions::default());
        timeout(ANSWER_TIMEOUT, credit)
            .await
            .map_err(|_| silent(ANSWER_TIMEOUT))?
            .map_err(SourceError::amqp(READING))?;
        let Some(offset) = offset_of(&delivery) else { continue };
        let is_the_awaited = std::mem::take(&mut awaited)
            && matches!(read_from, ReadFrom::Before(next) if offset + 1 == *next);
        if is_the_awaited {
            continue;
        }
        if matches!(read_from, ReadFrom::Recreated)
            || matches!(read_from, ReadFrom::Before(next) if offset < *next)
        {
            warn!(stream = shared.stream, "the stream of members was made anew: tenure numbers begin again");
            shared.recreated();
        }
        *read_from = ReadFrom::Before(offset + 1);
        if delivery.data.len() <= MESSAGE_BYTES_MAX
            && let Some(message) = parse(&delivery.data)
        {
            let replica = &shared.replica;
            if message.instance == replica.instance
                && message.process != replica.process
                && message.kind == MessageKind::Attached
                && message.process != namesake
            {
                warn!(
                    instance = message.instance,
                    "another process has our instance.name, or had it until now; partitions spread only over replicas of different names"
                );
                namesake.clone_from(&message.process);
            }
            shared.read(offset, &message, !from_the_first || reading.elapsed() > UNREAD_MAX);
        }
        shared.position.send_replace(Some(offset + 1));
    }
}

const READING: &str = "reading the stream of members";

async fn consume(
    shared: &MembershipState,
    channel: &Channel,
    read_from: ReadFrom,
) -> Result<Consumer, SourceError> {
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "x-queue-type", "stream");
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(STREAM_BYTES_MAX));
    arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(SEGMENT_BYTES_MAX));
    declare_queue(channel, &shared.stream, &shared.exchange, arguments).await?;
    let amqp = SourceError::amqp(READING);
    channel.basic_qos(100, BasicQosOptions::default()).await.map_err(amqp)?;
    let mut arguments = FieldTable::default();
    match read_from {
        ReadFrom::End => argument(&mut arguments, "x-stream-offset", "next"),
        ReadFrom::Before(next) => {
            let read = i64::try_from(next.saturating_sub(1)).unwrap_or(i64::MAX);
            arguments.insert("x-stream-offset".into(), AMQPValue::LongLongInt(read));
        }
        ReadFrom::Recreated => argument(&mut arguments, "x-stream-offset", "first"),
    }
    let (stream, options) = (shared.stream.as_str().into(), BasicConsumeOptions::default());
    channel.basic_consume(stream, "".into(), options, arguments).await.map_err(amqp)
}

pub(super) fn offset_of(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    match headers.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

async fn publish_for_ever(shared: Arc<MembershipState>) {
    let (mut channel, mut last_logged) = (None, String::new());
    loop {
        let due = shared.due();
        if due.is_empty() {
            let waiting = !shared.outgoing().is_empty();
            if waiting && shared.publishing.is_blocked() {
                shared.allow_unnumbered_claims();
            }
            let wait = if waiting { BLOCKED_POLL } else { Duration::MAX };
            let _ = timeout(wait, shared.wake.notified()).await;
            continue;
        }
        let publishing = publish(&shared, &mut channel, &due);
        let blocked = async {
            loop {
                tokio::time::sleep(BLOCKED_POLL).await;
                if shared.publishing.is_blocked() {
                    shared.allow_unnumbered_claims();
                }
            }
        };
        let ended = tokio::select! {
            ended = timeout(ANSWER_TIMEOUT, publishing) => ended,
            () = blocked => unreachable!("it looks for ever"),
        };
        let fault = match ended {
            Ok(Ok(())) => {
                shared.published(&due);
                last_logged.clear();
                continue;
            }
            Ok(Err(fault)) => error_chain(&fault),
            Err(_) => format!("not confirmed within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        if fault != last_logged {
            warn!(stream = shared.stream, error = fault, "claims are not published, trying again");
            last_logged = fault;
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

/// Done once the broker has confirmed all of them.
async fn publish(
    shared: &MembershipState,
    kept: &mut Option<Channel>,
    messages: &[MemberMessage],
) -> Result<(), SourceError> {
    let amqp = SourceError::amqp("publishing to the stream of members");
    // Gone unless all goes well, also when this future is dropped at its time limit.
    let channel = if let Some(channel) = kept.take().filter(|channel| channel.status().connected()) {
        channel
    } else {
        let channel = shared.publishing.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(amqp)?;
        channel
    };
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let body = serde_json::to_vec(message).expect("a note is plain data");
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let stream = shared.stream.as_str().into();
        confirms
            .push(channel.basic_publish("".into(), stream, options, &body, properties).await.map_err(amqp)?);
    }
    for confirm in confirms {
        // Reading it back is the proof, not this.
        confirm.await.map_err(amqp)?;
    }
    *kept = Some(channel);
    Ok(())
}
