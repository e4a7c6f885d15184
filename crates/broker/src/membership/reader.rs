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

/// A message takes some 200 bytes; what is longer is not ours.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How often we look if what must come has come.
const UNREAD_POLL: Duration = Duration::from_secs(1);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

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

impl ReadFrom {
    fn offset(self) -> StreamOffset {
        match self {
            Self::End => StreamOffset::Next,
            Self::Before(next) => StreamOffset::At(next.saturating_sub(1)),
            Self::Recreated => StreamOffset::First,
        }
    }
}

pub(super) async fn read_for_ever(state: Arc<State>) {
    let mut reading = Reading { state, read_from: ReadFrom::End, log: LogOnChange::default() };
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
        let from_the_first = matches!(self.read_from, ReadFrom::Recreated);
        let mut awaited = matches!(self.read_from, ReadFrom::Before(_));
        let (mut namesake, reading) = (String::new(), Instant::now());
        let mut look = interval(UNREAD_POLL);
        loop {
            if !awaited {
                state.begin_position();
                if self.log.cleared() {
                    info!(stream = state.stream, "reading the stream of members works again");
                }
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
                    continue;
                }
            };
            timeout(ANSWER_TIMEOUT, reader.credit(&delivery)).await.map_err(|_| silent(ANSWER_TIMEOUT))??;
            let Some(offset) = offset_of(&delivery) else { continue };
            let is_the_awaited = std::mem::take(&mut awaited)
                && matches!(self.read_from, ReadFrom::Before(next) if offset + 1 == next);
            if is_the_awaited {
                continue;
            }
            if self.is_recreated(offset) {
                warn!(
                    stream = state.stream,
                    "somebody deleted the stream of members, and it was declared again: going on with tenure numbers that begin again at a low value"
                );
                state.recreated();
            }
            self.read_from = ReadFrom::Before(offset + 1);
            if let Some(message) = note_of(&delivery) {
                self.warn_of_namesake(&message, &mut namesake);
                state.read(offset, &message, !from_the_first || reading.elapsed() > UNREAD_MAX);
            }
            state.position.send_replace(Some(offset + 1));
        }
    }

    fn is_recreated(&self, offset: u64) -> bool {
        match self.read_from {
            ReadFrom::End => false,
            ReadFrom::Before(next) => offset < next,
            ReadFrom::Recreated => true,
        }
    }

    /// Warns once a process.
    fn warn_of_namesake(&self, message: &MemberMessage, namesake: &mut String) {
        let replica = &self.state.replica;
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

fn note_of(delivery: &Delivery) -> Option<MemberMessage> {
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
