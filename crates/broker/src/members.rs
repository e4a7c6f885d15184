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
use super::names::Names;
use super::roster::{Holding, Kind, Known, Note, Oneself, parse};
use super::task::Task;
use super::topology::{argument, declare_queue};
use lanekeeper_core::error::chain;
use lanekeeper_core::layout::{Layout, PartitionNumber, rank};

/// What the stream keeps: some hundred thousand notes. Readers want those of the last seconds.
const STREAM_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Old notes go segment by segment.
const SEGMENT_BYTES_MAX: i64 = 4 * 1024 * 1024;
/// A note takes some 200 bytes; what is longer is not ours.
const NOTE_BYTES_MAX: usize = 4096;
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
pub struct Members {
    shared: Arc<Shared>,
    _tasks: Arc<[Task; 2]>,
}

#[derive(Debug)]
struct Shared {
    oneself: Oneself,
    consuming: Link,
    publishing: Link,
    stream: String,
    exchange: String,
    /// One for each partition, by its number.
    partitions: Vec<watch::Sender<Known>>,
    /// The offset that the reader waits for, 0 where it has read none; `None` until it reads.
    position: watch::Sender<Option<u64>>,
    claims_made: AtomicU64,
    /// What is not published, or not read back: at most one of each kind per partition.
    wanted: Mutex<BTreeMap<(PartitionNumber, Kind), Wanted>>,
    news: Notify,
    halt: Halt,
}

#[derive(Clone, Debug)]
struct Wanted {
    note: Note,
    /// When it was confirmed: first, and last.
    published: Option<(Instant, Instant)>,
}

impl Members {
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
        let shared = Arc::new(Shared {
            oneself: Oneself {
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
            wanted: Mutex::default(),
            news: Notify::new(),
            halt,
        });
        let reader = Task::begin(read_for_ever(Arc::clone(&shared)));
        let publisher = Task::begin(publish_for_ever(Arc::clone(&shared)));
        Self { shared, _tasks: Arc::new([reader, publisher]) }
    }

    /// What is known of a partition, as it changes.
    pub(super) fn watch(&self, partition: PartitionNumber) -> watch::Receiver<Known> {
        self.shared.partitions[usize::from(partition.0)].subscribe()
    }

    /// The priority that this process consumes the partition with.
    pub(super) fn priority(&self, partition: PartitionNumber) -> i32 {
        rank(&self.shared.oneself.instance, partition)
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
        self.want(Kind::Attached, partition, 0);
    }

    /// Claims the partition. Answers what the claim is known by; [`Known::ours`] has it once it was read back.
    pub(super) fn claim(&self, partition: PartitionNumber) -> u64 {
        let claim = self.shared.claims_made.fetch_add(1, Ordering::Relaxed) + 1;
        self.want(Kind::Claimed, partition, claim);
        claim
    }

    /// The tenure that has claimed the partition is over: a claim that is not published must not stand behind another's.
    pub(super) fn withdraw(&self, partition: PartitionNumber) {
        self.shared.wanted().remove(&(partition, Kind::Claimed));
    }

    /// Tells the others that keys have moved. Done once they can read it; after a few seconds in any case: they look for
    /// themselves as well.
    pub async fn tell_moved(&self) {
        let partition = PartitionNumber(0);
        self.want(Kind::Moved, partition, 0);
        let told = async {
            while self.shared.wanted().contains_key(&(partition, Kind::Moved)) {
                tokio::time::sleep(BLOCKED_POLL).await;
            }
        };
        let _ = timeout(READ_BACK_TIMEOUT, told).await;
    }

    /// Tells operators what is held of a partition.
    pub(super) fn tell_holding(&self, partition: PartitionNumber, holding: Holding) {
        let note = self.shared.oneself.note(Kind::Holds, partition, self.priority(partition), 0);
        let wanted = Wanted { note: Note { holding: Some(holding), ..note }, published: None };
        self.shared.wanted().insert((partition, Kind::Holds), wanted);
        self.shared.news.notify_one();
    }

    fn want(&self, kind: Kind, partition: PartitionNumber, claim: u64) {
        let note = self.shared.oneself.note(kind, partition, self.priority(partition), claim);
        let wanted = Wanted { note, published: None };
        self.shared.wanted().insert((partition, kind), wanted);
        self.shared.news.notify_one();
    }
}

impl Shared {
    fn wanted(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PartitionNumber, Kind), Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was never published, or long ago and has not come back.
    fn due(&self) -> Vec<Note> {
        let due =
            |wanted: &&Wanted| wanted.published.is_none_or(|(_, last)| last.elapsed() > READ_BACK_TIMEOUT);
        self.wanted().values().filter(due).map(|wanted| wanted.note.clone()).collect()
    }

    fn published(&self, notes: &[Note]) {
        let (now, mut wanted) = (Instant::now(), self.wanted());
        for note in notes {
            let key = (PartitionNumber(note.partition), note.kind);
            if let Some(wanted) = wanted.get_mut(&key).filter(|wanted| wanted.note == *note) {
                wanted.published = Some((wanted.published.map_or(now, |(first, _)| first), now));
            }
        }
    }

    /// Whether something was confirmed so long ago, and has not come back though we have read since `reading`.
    fn is_unread(&self, reading: Instant) -> bool {
        let unread = |first: Instant| first.max(reading).elapsed() > UNREAD_MAX;
        self.wanted().values().any(|wanted| wanted.published.is_some_and(|(first, _)| unread(first)))
    }

    /// What is known is of a stream that is gone. A claim that was read back there stands until the next one.
    fn made_anew(&self) {
        for known in &self.partitions {
            known.send_modify(|known| *known = Known { ours: known.ours, ..Known::default() });
        }
    }

    /// The broker takes no publishes: draining is what ends an alarm, so owners go on without a number.
    fn waive_claims(&self) {
        let claims: Vec<_> = self.wanted().values().map(|wanted| wanted.note.clone()).collect();
        for Note { partition, claim, .. } in claims.iter().filter(|note| note.kind == Kind::Claimed) {
            self.partitions[usize::from(*partition)]
                .send_if_modified(|known| known.waived.replace(*claim) != Some(*claim));
        }
    }

    /// `news`: it was not there when reading began, as far as we know.
    fn read(&self, offset: u64, note: &Note, news: bool) {
        let Some(known) = self.partitions.get(usize::from(note.partition)) else { return };
        if note.layout != self.oneself.layout.0 {
            return;
        }
        if note.kind == Kind::Moved && news && note.process != self.oneself.process {
            self.halt.set(SourceError::MovedElsewhere { instance: note.instance.clone() });
        }
        if note.kind == Kind::Asks {
            for known in &self.partitions {
                known.send_if_modified(|known| self.oneself.read(known, 0, offset, note));
            }
            return;
        }
        let partition = PartitionNumber(note.partition);
        let own_priority = rank(&self.oneself.instance, partition);
        known.send_if_modified(|known| self.oneself.read(known, own_priority, offset, note));
        if note.process == self.oneself.process {
            let key = (partition, note.kind);
            let mut wanted = self.wanted();
            if wanted.get(&key).is_some_and(|wanted| wanted.note == *note) {
                wanted.remove(&key);
            }
        }
    }
}

/// How far the stream is read.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nothing was read: what comes from now on is wanted.
    End,
    /// Everything before this offset was read, so that the message before it must come once more.
    Before(u64),
    /// That one did not come: it is another stream, and all of it is wanted. Or the broker is slow; then what is read
    /// again says nothing new.
    MadeAnew,
}

async fn read_for_ever(shared: Arc<Shared>) {
    let (mut place, mut told, mut delay) = (Place::End, String::new(), RETRY_DELAY_MIN);
    loop {
        let reading = async {
            let (channel, connection) = shared.consuming.channel_of().await?;
            shared.consuming.while_up(connection, read(&shared, &channel, &mut place, &mut told)).await
        };
        let fault = match reading.await {
            Ok(never) => match never {},
            Err(fault) => chain(&fault),
        };
        if fault != told {
            warn!(stream = shared.stream, error = fault, "the stream of members is not read, trying again");
            (told, delay) = (fault, RETRY_DELAY_MIN);
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    }
}

async fn read(
    shared: &Shared,
    channel: &Channel,
    place: &mut Place,
    told: &mut String,
) -> Result<std::convert::Infallible, SourceError> {
    let silent = |within: Duration| SourceError::Silent { step: READING, seconds: within.as_secs() };
    let mut consumer = timeout(ANSWER_TIMEOUT, consume(shared, channel, *place))
        .await
        .map_err(|_| silent(ANSWER_TIMEOUT))??;
    let (mut awaited, from_the_first) = (matches!(place, Place::Before(_)), matches!(place, Place::MadeAnew));
    let (mut namesake, reading) = (String::new(), Instant::now());
    let mut look = tokio::time::interval(UNREAD_POLL);
    loop {
        if !awaited {
            shared.position.send_if_modified(|position| position.is_none() && position.replace(0).is_none());
            if !std::mem::take(told).is_empty() {
                info!(stream = shared.stream, "the stream of members is read again");
            }
        }
        let delivery = tokio::select! {
            biased;
            delivery = consumer.next() => delivery,
            _ = look.tick() => {
                if awaited && reading.elapsed() > UNREAD_MAX {
                    *place = Place::MadeAnew;
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
        let is_the_awaited =
            std::mem::take(&mut awaited) && matches!(place, Place::Before(next) if offset + 1 == *next);
        if is_the_awaited {
            continue;
        }
        if matches!(place, Place::MadeAnew) || matches!(place, Place::Before(next) if offset < *next) {
            warn!(stream = shared.stream, "the stream of members was made anew: tenure numbers begin again");
            shared.made_anew();
        }
        *place = Place::Before(offset + 1);
        if delivery.data.len() <= NOTE_BYTES_MAX
            && let Some(note) = parse(&delivery.data)
        {
            let oneself = &shared.oneself;
            if note.instance == oneself.instance
                && note.process != oneself.process
                && note.kind == Kind::Attached
                && note.process != namesake
            {
                warn!(
                    instance = note.instance,
                    "another process has our instance.name, or had it until now; partitions spread only over replicas of different names"
                );
                namesake.clone_from(&note.process);
            }
            shared.read(offset, &note, !from_the_first || reading.elapsed() > UNREAD_MAX);
        }
        shared.position.send_replace(Some(offset + 1));
    }
}

const READING: &str = "reading the stream of members";

async fn consume(shared: &Shared, channel: &Channel, place: Place) -> Result<Consumer, SourceError> {
    let mut arguments = FieldTable::default();
    argument(&mut arguments, "x-queue-type", "stream");
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(STREAM_BYTES_MAX));
    arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(SEGMENT_BYTES_MAX));
    declare_queue(channel, &shared.stream, &shared.exchange, arguments).await?;
    let amqp = SourceError::amqp(READING);
    channel.basic_qos(100, BasicQosOptions::default()).await.map_err(amqp)?;
    let mut arguments = FieldTable::default();
    match place {
        Place::End => argument(&mut arguments, "x-stream-offset", "next"),
        Place::Before(next) => {
            let read = i64::try_from(next.saturating_sub(1)).unwrap_or(i64::MAX);
            arguments.insert("x-stream-offset".into(), AMQPValue::LongLongInt(read));
        }
        Place::MadeAnew => argument(&mut arguments, "x-stream-offset", "first"),
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

async fn publish_for_ever(shared: Arc<Shared>) {
    let (mut channel, mut told) = (None, String::new());
    loop {
        let due = shared.due();
        if due.is_empty() {
            let waiting = !shared.wanted().is_empty();
            if waiting && shared.publishing.is_blocked() {
                shared.waive_claims();
            }
            let patience = if waiting { BLOCKED_POLL } else { Duration::MAX };
            let _ = timeout(patience, shared.news.notified()).await;
            continue;
        }
        let publishing = publish(&shared, &mut channel, &due);
        let blocked = async {
            loop {
                tokio::time::sleep(BLOCKED_POLL).await;
                if shared.publishing.is_blocked() {
                    shared.waive_claims();
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
                told.clear();
                continue;
            }
            Ok(Err(fault)) => chain(&fault),
            Err(_) => format!("not confirmed within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        if fault != told {
            warn!(stream = shared.stream, error = fault, "claims are not published, trying again");
            told = fault;
        }
        tokio::time::sleep(RETRY_DELAY_MIN).await;
    }
}

/// Done once the broker has confirmed all of them.
async fn publish(shared: &Shared, kept: &mut Option<Channel>, notes: &[Note]) -> Result<(), SourceError> {
    let amqp = SourceError::amqp("publishing to the stream of members");
    // Gone unless all goes well, also when this future is dropped at its time limit.
    let channel = if let Some(channel) = kept.take().filter(|channel| channel.status().connected()) {
        channel
    } else {
        let channel = shared.publishing.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(amqp)?;
        channel
    };
    let mut confirms = Vec::with_capacity(notes.len());
    for note in notes {
        let body = serde_json::to_vec(note).expect("a note is plain data");
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
