//! Reads the stream of members, on the connection that consumes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::QueueDeclareOptions;
use tokio::time::{Instant, interval, timeout};
use tracing::{info, warn};

use super::message::{MemberMessage, MessageKind, READING, parse};
use super::state::State;
use crate::backoff::Backoff;
use crate::channel::stream_reader::{StreamOffset, StreamReader, offset_of};
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;
use crate::log_on_change::LogOnChange;
use crate::topology::arguments::members_arguments;
use lanekeeper_core::error::error_chain;

/// A message takes some 200 bytes, and a note of all partitions of the largest layout some 20,000; what is longer is not ours.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How often we look if what must come has come: as often as notes are published, within these bounds.
const UNREAD_POLL_MIN: Duration = Duration::from_millis(100);
const UNREAD_POLL_MAX: Duration = Duration::from_secs(1);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// Short: while the stream is not read, the lease lapses.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// How far the stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFrom {
    /// Nothing was read: who has claimed what before this process began is wanted as well.
    Beginning,
    /// Everything up to this message was read, so that it must come once more.
    Behind(Place),
    /// It did not come. Perhaps the broker is slow, or cut off; perhaps it is another stream, which ends before it.
    Doubtful(Place),
    /// It is another stream, and all of it is wanted.
    Recreated,
}

/// A message, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    offset: u64,
    /// Of what it says: two streams can have messages at the same place.
    hash: u64,
}

impl Place {
    fn of(offset: u64, delivery: &Delivery) -> Self {
        let mut hasher = DefaultHasher::new();
        delivery.data.hash(&mut hasher);
        Self { offset, hash: hasher.finish() }
    }
}

/// What the first message of a reader tells of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// It was read before: what follows is new.
    Known,
    /// It is new, and everything before it was read.
    New,
    /// It is new, and messages before it may be missing.
    AfterGap,
    /// It is the first one of another stream.
    OfAnother,
    /// It stands before what was read: in the same chunk, or in another stream. What follows tells.
    Undecided,
    /// The stream must be read from there.
    Elsewhere(ReadFrom),
}

impl ReadFrom {
    fn offset(self) -> StreamOffset {
        match self {
            Self::Behind(place) => StreamOffset::At(place.offset),
            Self::Doubtful(_) => StreamOffset::Last,
            Self::Beginning | Self::Recreated => StreamOffset::First,
        }
    }

    fn first(self, came: Place) -> First {
        match self {
            Self::Beginning if came.offset == 0 => First::New,
            Self::Beginning => First::AfterGap,
            Self::Behind(place) if came == place => First::Known,
            Self::Behind(place) if came.offset > place.offset => First::AfterGap,
            // The last chunk can begin before it, but the stream never ends before what was read of it.
            Self::Doubtful(place) if came.offset >= place.offset => First::Elsewhere(Self::Behind(place)),
            Self::Doubtful(_) => First::Undecided,
            Self::Behind(_) => First::Elsewhere(Self::Recreated),
            Self::Recreated => First::OfAnother,
        }
    }

    /// Nothing came.
    fn in_doubt(self) -> Self {
        match self {
            Self::Behind(place) => Self::Doubtful(place),
            Self::Doubtful(place) => Self::Behind(place),
            Self::Beginning | Self::Recreated => self,
        }
    }
}

/// The stream is to be read from another place.
struct Again;

pub(super) async fn read_for_ever(state: Arc<State>) {
    let mut reading = Reading { state, read_from: ReadFrom::Beginning, log: LogOnChange::default() };
    let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    loop {
        let fault = match reading.read_on_one_connection().await {
            Ok(Again) => continue,
            Err(fault) => fault,
        };
        let (stream, error) = (&reading.state.stream, error_chain(&fault));
        if reading.log.is_new(error.clone()) {
            warn!(stream, error, "cannot read the stream of members, trying again");
            backoff.reset();
        }
        backoff.wait().await;
    }
}

struct Reading {
    state: Arc<State>,
    read_from: ReadFrom,
    log: LogOnChange,
}

impl Reading {
    async fn read_on_one_connection(&mut self) -> Result<Again, SourceError> {
        let link = self.state.consuming.clone();
        let (channel, connection) = link.channel_of().await?;
        let reading = async {
            let opening = timeout(ANSWER_TIMEOUT, open(&self.state, channel, self.read_from.offset()));
            let mut reader = opening.await.map_err(|_| silent(ANSWER_TIMEOUT))??;
            self.state.opened.send_replace(true);
            let read = self.read(&mut reader).await;
            reader.close().await;
            read
        };
        link.while_up(connection, reading).await
    }

    async fn read(&mut self, reader: &mut StreamReader) -> Result<Again, SourceError> {
        let state = Arc::clone(&self.state);
        let (mut namesake, reading) = (String::new(), Instant::now());
        let mut look = interval((state.heartbeat() / 4).clamp(UNREAD_POLL_MIN, UNREAD_POLL_MAX));
        let (mut last_came, mut undecided_since) = (None, None::<Instant>);
        loop {
            let delivery = tokio::select! {
                biased;
                delivery = reader.receive() => delivery?,
                _ = look.tick() => {
                    if undecided_since.is_some_and(|since| since.elapsed() > UNREAD_POLL_MAX) {
                        self.read_from = ReadFrom::Recreated; // the stream ends there
                        return Ok(Again);
                    }
                    if state.is_unread(reading) {
                        if last_came.is_none() {
                            self.read_from = self.read_from.in_doubt();
                        }
                        return Err(silent(state.note_due_within()));
                    }
                    // No note comes back then, which would show that all was read.
                    let quiet = last_came.unwrap_or(reading).elapsed();
                    if state.publishing.is_blocked() && quiet > UNREAD_POLL_MAX {
                        state.caught_up.send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
                    }
                    continue;
                }
            };
            timeout(ANSWER_TIMEOUT, reader.credit(&delivery)).await.map_err(|_| silent(ANSWER_TIMEOUT))??;
            let Some(offset) = offset_of(&delivery) else { continue };
            let place = Place::of(offset, &delivery);
            // Within one reader nothing is missing, though offsets are: the stream uses some itself (RabbitMQ 3.10.8 and 4.0.5,
            // measured).
            let first = if last_came.is_none() { self.read_from.first(place) } else { First::New };
            if first == First::Undecided {
                undecided_since.get_or_insert_with(Instant::now);
                continue;
            }
            last_came = Some(Instant::now());
            match first {
                First::Known => {
                    self.works();
                    continue;
                }
                First::Elsewhere(read_from) => {
                    self.read_from = read_from;
                    return Ok(Again);
                }
                First::New | First::Undecided => {}
                First::AfterGap => state.gap(),
                First::OfAnother => self.recreated(),
            }
            self.works();
            self.read_from = ReadFrom::Behind(place);
            if let Some(message) = message_of(&delivery) {
                self.warn_of_namesake(&message, &mut namesake);
                state.read(offset, &message);
            }
            state.position.send_replace(offset + 1);
        }
    }

    fn works(&mut self) {
        if self.log.cleared() {
            info!(stream = self.state.stream, "reading the stream of members works again");
        }
    }

    fn recreated(&self) {
        let epoch = self.state.recreated();
        warn!(
            stream = self.state.stream,
            epoch,
            "somebody deleted the stream of members, and it was declared again: going on with tenure numbers of a new epoch, which are higher"
        );
    }

    /// Warns once a process.
    fn warn_of_namesake(&self, message: &MemberMessage, namesake: &mut String) {
        let replica = &self.state.replica;
        if !*self.state.caught_up.borrow() {
            return;
        }
        if message.instance == replica.instance
            && message.process != replica.process
            && message.kind == MessageKind::Attached
            && message.process != *namesake
        {
            warn!(
                instance = message.instance,
                "another process has this instance.name, or had it until just now: going on, but partitions spread only over replicas with different names"
            );
            namesake.clone_from(&message.process);
        }
    }
}

fn message_of(delivery: &Delivery) -> Option<MemberMessage> {
    (delivery.data.len() <= MESSAGE_BYTES_MAX).then(|| parse(&delivery.data)).flatten()
}

fn silent(within: Duration) -> SourceError {
    SourceError::Silent { step: READING, seconds: within.as_secs() }
}

/// Declares the stream if it is missing, and begins to read it.
async fn open(state: &State, channel: Channel, from: StreamOffset) -> Result<StreamReader, SourceError> {
    let of = (state.stream.as_str(), state.exchange.as_str());
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(state.stream.as_str().into(), options, members_arguments());
    declaring.await.map_err(|source| {
        let object = format!("queue {}", state.stream);
        SourceError::from_amqp("declaring a queue", &object, &state.exchange, source)
    })?;
    StreamReader::open(channel, of, from, READING).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64, hash: u64) -> Place {
        Place { offset, hash }
    }

    #[test]
    fn the_first_message_tells_what_was_missed() {
        let check = |read_from: ReadFrom, came: Place, expected: First| {
            assert_eq!(read_from.first(came), expected, "{read_from:?} {came:?}");
        };
        check(ReadFrom::Beginning, place(0, 1), First::New);
        check(ReadFrom::Beginning, place(7, 1), First::AfterGap);
        let (behind, doubtful) = (ReadFrom::Behind(place(7, 1)), ReadFrom::Doubtful(place(7, 1)));
        check(behind, place(7, 1), First::Known);
        check(behind, place(9, 1), First::AfterGap);
        check(behind, place(7, 2), First::Elsewhere(ReadFrom::Recreated));
        check(behind, place(2, 2), First::Elsewhere(ReadFrom::Recreated));
        check(doubtful, place(6, 3), First::Undecided);
        check(doubtful, place(7, 1), First::Elsewhere(behind));
        check(doubtful, place(12, 3), First::Elsewhere(behind));
        check(ReadFrom::Recreated, place(0, 3), First::OfAnother);
    }

    #[test]
    fn a_stream_from_which_nothing_comes_is_looked_at_from_both_ends() {
        let behind = ReadFrom::Behind(place(7, 1));
        assert_eq!(behind.in_doubt(), ReadFrom::Doubtful(place(7, 1)));
        assert_eq!(behind.in_doubt().in_doubt(), behind);
        assert_eq!(ReadFrom::Beginning.in_doubt(), ReadFrom::Beginning);
    }
}
