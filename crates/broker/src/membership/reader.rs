//! Reads the stream of members, on the connection that consumes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::QueueDeclareOptions;
use tokio::time::{Instant, interval, timeout};
use tracing::{info, warn};

use super::message::{MemberMessage, MessageKind, READING, parse};
use super::state::{State, UNREAD_MAX};
use crate::backoff::Backoff;
use crate::channel::stream_reader::{StreamOffset, StreamReader, offset_of};
use crate::error::SourceError;
use crate::link::ANSWER_TIMEOUT;
use crate::log_on_change::LogOnChange;
use crate::topology::arguments::members_arguments;
use lanekeeper_core::error::error_chain;

/// A message takes some 200 bytes, and a note of all partitions of the largest layout some 20,000; what is longer is not ours.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How often we look if what must come has come: as often as notes are published, within these bounds.
const UNREAD_POLL_MIN: Duration = Duration::from_millis(100);
const UNREAD_POLL_MAX: Duration = Duration::from_secs(1);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// Short: while the stream is not read, the lease lapses.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// How far the stream is read.
#[derive(Clone, Copy, Debug)]
enum ReadFrom {
    /// Nothing was read: who has claimed what before this process began is wanted as well.
    Beginning,
    /// Everything before this offset was read, so that the message before it must come once more.
    Before(u64),
    /// That one did not come: it is another stream, and all of it is wanted. Or the broker is slow; then what is read
    /// again says nothing new.
    Recreated,
}

impl ReadFrom {
    fn offset(self) -> StreamOffset {
        match self {
            Self::Before(next) => StreamOffset::At(next.saturating_sub(1)),
            Self::Beginning | Self::Recreated => StreamOffset::First,
        }
    }
}

pub(super) async fn read_for_ever(state: Arc<State>) {
    let mut reading = Reading { state, read_from: ReadFrom::Beginning, log: LogOnChange::default() };
    let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    loop {
        let fault = match reading.read_on_one_connection().await {
            Ok(never) => match never {},
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
    async fn read_on_one_connection(&mut self) -> Result<Infallible, SourceError> {
        let link = self.state.consuming.clone();
        let (channel, connection) = link.channel_of().await?;
        let reading = async {
            let opening = timeout(ANSWER_TIMEOUT, open(&self.state, channel, self.read_from.offset()));
            let mut reader = opening.await.map_err(|_| silent(ANSWER_TIMEOUT))??;
            let read = self.read(&mut reader).await;
            reader.close().await;
            read
        };
        link.while_up(connection, reading).await
    }

    async fn read(&mut self, reader: &mut StreamReader) -> Result<Infallible, SourceError> {
        let state = Arc::clone(&self.state);
        let mut awaited = matches!(self.read_from, ReadFrom::Before(_));
        let (mut namesake, reading) = (String::new(), Instant::now());
        let mut look = interval((state.heartbeat() / 4).clamp(UNREAD_POLL_MIN, UNREAD_POLL_MAX));
        let mut last_came = reading;
        loop {
            if !awaited && self.log.cleared() {
                info!(stream = state.stream, "reading the stream of members works again");
            }
            let delivery = tokio::select! {
                biased;
                delivery = reader.receive() => delivery?,
                _ = look.tick() => {
                    if awaited && reading.elapsed() > UNREAD_MAX {
                        self.read_from = ReadFrom::Recreated;
                        return Err(silent(UNREAD_MAX));
                    }
                    if state.is_unread(reading) {
                        return Err(silent(UNREAD_MAX));
                    }
                    // No note comes back then, which would show that all was read.
                    if !awaited && state.publishing.is_blocked() && last_came.elapsed() > UNREAD_POLL_MAX {
                        state.caught_up.send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
                    }
                    continue;
                }
            };
            last_came = Instant::now();
            timeout(ANSWER_TIMEOUT, reader.credit(&delivery)).await.map_err(|_| silent(ANSWER_TIMEOUT))??;
            let Some(offset) = offset_of(&delivery) else { continue };
            if std::mem::take(&mut awaited)
                && matches!(self.read_from, ReadFrom::Before(next) if offset + 1 == next)
            {
                continue;
            }
            self.observe_place(offset);
            self.read_from = ReadFrom::Before(offset + 1);
            if let Some(message) = message_of(&delivery) {
                self.warn_of_namesake(&message, &mut namesake);
                state.read(offset, &message);
            }
            state.position.send_replace(offset + 1);
        }
    }

    /// What the place of a message says about what was not read. Within one reader nothing is missing, though offsets are: the
    /// stream uses some itself (RabbitMQ 3.10.8 and 4.0.5, measured).
    fn observe_place(&self, offset: u64) {
        let state = &self.state;
        match self.read_from {
            ReadFrom::Beginning if offset > 0 => state.gap(),
            ReadFrom::Recreated => self.recreated(),
            ReadFrom::Before(next) if offset < next => self.recreated(),
            ReadFrom::Beginning | ReadFrom::Before(_) => {}
        }
    }

    fn recreated(&self) {
        warn!(
            stream = self.state.stream,
            "somebody deleted the stream of members, and it was declared again: going on with tenure numbers that begin again at a low value"
        );
        self.state.recreated();
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
